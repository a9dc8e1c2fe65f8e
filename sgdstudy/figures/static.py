"""Charts by matplotlib: names on the lines, what theory expects in a light shade below them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sgdstudy.figures.backend import styled
from sgdstudy.figures.overflow import settle
from sgdstudy.figures.palette import GREY, light
from sgdstudy.figures.panels import Line, Panel, dotted, drawable, names_of_y, share_scale, thinned
from sgdstudy.figures.shown import Figure
from sgdstudy.figures.style import Numbers
from sgdstudy.language import on_axis, say, to_say

WIDTH = 7.0  # inches, 700 pixels at 100 dots per inch: a point is 1.4 pixels there
HEIGHT = {1: 4.3, 2: 3.9, 3: 3.6}
SMALLEST = 8.5  # points
TITLE = 12
THEORY = to_say("light and dashed: what theory expects")
INSIDE = 0.8  # share of the panel: a line that ends before it is named there
LABEL = 18  # letters of a name in one row
GAP = 0.062  # between two names at the right, in heights of the panel
HALO = [withStroke(linewidth=3, foreground="white")]  # of a name that a line would strike out
SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.usetex": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": "#333333",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "xtick.labelsize": SMALLEST,
    "ytick.labelsize": SMALLEST,
    "axes.grid": True,
    "grid.color": "#e4e6ea",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": True,  # 10^6 beside an axis, not 1e6
}


@styled
def draw(title: str, panels: Sequence[Panel]) -> Figure:
    """Draw panels side by side under a title; see `Chart.figure`."""
    with rc_context(SETTINGS):
        n = len(panels)
        theory = any(line.theory is not None for panel in panels for line in panel.lines)
        figure = Figure(figsize=(WIDTH, HEIGHT[n]), layout="constrained")
        title = textwrap.fill(title, 66)
        figure.suptitle(title, x=0.012, ha="left", fontsize=TITLE, fontweight="bold")
        columns = figure.subplots(1, n, squeeze=False, sharey=share_scale(panels))[0]
        for axes, panel in zip(columns, panels, strict=True):
            _draw_panel(axes, panel, single=n == 1)
        for axes, name in zip(columns, names_of_y(panels), strict=True):
            axes.set_ylabel(name)
        if n > 1:
            _name_below(figure, panels, theory)
        else:
            figure.draw_without_rendering()  # the axes have their final scale now
            _name_lines(columns[0], panels[0])
            if theory:
                words = say(THEORY)
                figure.supxlabel(words, x=0.988, ha="right", fontsize=SMALLEST, color="#555555")
    return figure


def _draw_panel(axes: Any, panel: Panel, single: bool) -> None:
    axes.set_xscale("log" if "x" in panel.log else "linear")
    axes.set_yscale("log" if "y" in panel.log else "linear")
    for name, axis in {"x": axes.xaxis, "y": axes.yaxis}.items():
        if name not in panel.log:
            axis.set_major_formatter(Numbers())
    limits = panel.limits or (None, None)
    if None not in limits:  # before what diverges is drawn: its size is not asked for then
        axes.set_ylim(*limits)
    for order, line in enumerate(panel.lines):
        _draw_line(axes, line, panel, 3 + order)
    settle(axes, limits)
    if panel.limits and None in limits:
        axes.set_ylim(*limits)
    if "x" in panel.log:
        low, high = sorted(axes.get_xlim())
        _number_ticks(axes.xaxis, low, high, few=not single)
    if "y" in panel.log:
        _number_ticks(axes.yaxis, *sorted(axes.get_ylim()))
    axes.set(xlabel=panel.x)
    if panel.title:
        axes.set_title(panel.title, loc="left", fontsize=10)
    for name, at in panel.levels.items():
        axes.axhline(at, color="#555555", linewidth=0.9, linestyle=(0, (1, 2)), zorder=2)
        axes.annotate(name, (0.01, at), xycoords=("axes fraction", "data"), xytext=(0, 3),
                      textcoords="offset points", fontsize=SMALLEST, color="#555555")  # fmt: skip
    for name, at in panel.marks.items():
        axes.axvline(at, color="#555555", linewidth=0.9, linestyle=(0, (1, 2)), zorder=2)
        axes.annotate(name, (at, 0.99), xycoords=("data", "axes fraction"), xytext=(3, -2),
                      textcoords="offset points", fontsize=SMALLEST, color="#555555",
                      va="top")  # fmt: skip


def _number_ticks(axis: Any, low: float, high: float, few: bool = False) -> None:
    """Write 1, 10, 100 on a logarithmic axis that has only such numbers, else powers of ten."""
    long = few and low < 0.01  # numbers of many letters, on a short axis
    if high < (20 if long else 1e3) * low:  # few powers of ten: ticks between them
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_formatter(NullFormatter())
    if (low >= 0.005 and high <= 1e5) or (low >= 1e-4 and high < min(1e3 * low, 1e6)):
        axis.set_major_formatter(FuncFormatter(lambda value, _: on_axis(f"{value:,.10g}")))


def _draw_line(axes: Any, line: Line, panel: Panel, order: int) -> None:
    x, y = np.asarray(line.x, float), drawable(line.y)
    at = thinned(x, "x" in panel.log)
    if line.expected is not None:
        places, expected = line.expected
        k = thinned(places, "x" in panel.log)
        axes.plot(places[k], expected[k], color=light(line.color), linewidth=4.4,
                  dashes=(1.6, 0.8), zorder=2 + order / 100)  # fmt: skip
    if line.band is not None and line.dots:
        axes.vlines(x, *map(drawable, line.band), color=line.color, linewidth=1.2, zorder=order)
    elif line.band is not None:
        low, high = (drawable(part)[at] for part in line.band)
        axes.fill_between(x[at], low, high, color=line.color, alpha=0.16, linewidth=0, zorder=1)
    if line.dots:
        axes.plot(
            x, y, "o", markersize=_size(len(x)), color=line.color, markeredgewidth=0, zorder=order
        )
        return
    width = 1.6 if line.label else 0.8
    axes.plot(x[at], y[at], color=line.color, linewidth=width, zorder=order, marker="o",
              markevery=dotted(x[at], y[at], panel.log).tolist(), markersize=4)  # fmt: skip


def _size(n: int) -> float:
    """Return the size of n dots: few can be larger."""
    return 5.0 if n < 40 else 3.2


class _End(NamedTuple):
    """Where a line ends, in shares of the panel."""

    line: Line
    x: float
    y: float


def _name_lines(axes: Any, panel: Panel) -> None:
    """Write each line's name where it ends; at the right, moved apart where two would meet."""
    ends = [_end(axes, panel, line) for line in panel.lines if line.label]
    inside = [end for end in ends if end.x < INSIDE]
    right = sorted((end for end in ends if end.x >= INSIDE), key=lambda end: end.y)
    heights = _apart([end.y for end in right])
    places = [(end.x + 0.015, end.y) for end in inside] + [(1.025, y) for y in heights]
    for end, place in zip([*inside, *right], places, strict=True):
        arrow = None
        if end.x >= INSIDE and (end.x < 0.985 or abs(place[1] - end.y) > 0.01):
            arrow = {"arrowstyle": "-", "color": light(end.line.color, 0.5), "linewidth": 0.7,
                     "shrinkA": 1, "shrinkB": 1}  # fmt: skip
        words = textwrap.fill(end.line.label, LABEL)
        axes.annotate(words, (end.x, end.y), xycoords="axes fraction", xytext=place,
                      textcoords="axes fraction", fontsize=9.5, color=end.line.color, va="center",
                      fontweight="bold", annotation_clip=False, arrowprops=arrow,
                      path_effects=HALO)  # fmt: skip


def _end(axes: Any, panel: Panel, line: Line) -> _End:
    """Return the last place at which a line is seen; the lower right where it is nowhere."""
    x, y = np.asarray(line.x, float), drawable(line.y)
    if isinstance(line.theory, tuple) and line.theory[0][-1] > x[-1]:
        x, y = line.theory
    low, high = sorted(axes.get_ylim())
    seen = np.flatnonzero(np.isfinite(y) & ((y > 0) | ("y" not in panel.log)))
    shown = seen[(y[seen] >= low) & (y[seen] <= high)]
    if not len(shown):
        return _End(line, 1.0, float(len(seen) > 0))
    point = axes.transData.transform((x[shown[-1]], y[shown[-1]]))
    return _End(line, *map(float, axes.transAxes.inverted().transform(point)))


def _apart(heights: list[float]) -> list[float]:
    """Return rising heights that are at least `GAP` apart and near what they were.

    >>> [round(h, 3) for h in _apart([0.5, 0.5, 0.9])]
    [0.469, 0.531, 0.9]
    """
    groups: list[list[float]] = []  # of wanted heights; each is centred on its mean
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _top(groups[-2]) + GAP > _bottom(groups[-1]):
            last = groups.pop()
            groups[-1] += last
    return [_bottom(group) + i * GAP for group in groups for i in range(len(group))]


def _bottom(group: list[float]) -> float:
    return sum(group) / len(group) - GAP * (len(group) - 1) / 2


def _top(group: list[float]) -> float:
    return _bottom(group) + GAP * (len(group) - 1)


def _name_below(figure: Figure, panels: Sequence[Panel], theory: bool) -> None:
    """Name the lines of several panels once, below them."""
    names = {line.label: line for panel in panels for line in panel.lines if line.label}
    handles = [
        Line2D([], [], color=line.color, linewidth=2.2, marker="o" if line.dots else None,
               linestyle="" if line.dots else "-")
        for line in names.values()
    ]  # fmt: skip
    shown = list(names)
    if theory:
        handles.append(Line2D([], [], color="#b5b8bd", linewidth=3.2, dashes=(2.2, 1.1)))
        shown.append(say("theory"))
    style: dict[str, Any] = {"frameon": False, "fontsize": 9.5, "handlelength": 2.2}
    style["labelcolor"] = "linecolor"
    for most in (4, 3, 2, 1):
        rows = -(-len(shown) // most)
        style["ncols"] = -(-len(shown) // rows)  # rows alike
        legend = figure.legend(handles, shown, loc="outside lower left", **style)
        if most == 1 or legend.get_window_extent().width < 0.98 * figure.bbox.width:
            return
        legend.remove()
