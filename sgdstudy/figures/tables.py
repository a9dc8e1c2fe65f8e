"""Figures of tables: rows of lines and points, as a study computed them, on grids of panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from sgdstudy.figures import style as drawing
from sgdstudy.figures.backend import styled
from sgdstudy.figures.shown import Figure
from sgdstudy.language import say
from sgdstudy.theory.estimates import Estimate

if TYPE_CHECKING:
    import pandas as pd


def points(
    rows: Sequence[tuple[str, float, float, float] | tuple[str, float, Estimate]],
) -> pd.DataFrame:
    """Return the points of `lines.with_laws`, with 95 % intervals.

    Args:
        rows: line, x, and an estimate, or y and its standard error.
    """
    import pandas as pd

    plain = [
        (*row[:2], row[2].value, row[2].error) if isinstance(row[2], Estimate) else row
        for row in rows
    ]
    made = pd.DataFrame(plain, columns=["line", "x", "y", "error"])
    half = 1.96 * made.pop("error")
    made = made.assign(low=made["y"] - half, high=made["y"] + half)
    return made[np.isfinite(made["y"])]


def numbered(
    lines: Mapping[tuple[str, str, str], tuple[Sequence[float], Sequence[float]]],
) -> pd.DataFrame:
    """Return the rows of `curves` for (panel, column, line) -> y and theory at x = 0, 1, ... ."""
    import pandas as pd

    made = [
        pd.DataFrame({"x": np.arange(len(y)), "y": y, "theory": theory}).assign(
            panel=panel, column=column, line=line
        )
        for (panel, column, line), (y, theory) in lines.items()
    ]
    return pd.concat(made)


@styled
def curves(rows: pd.DataFrame, xlabel: str, ylabel: str, bottom: Mapping[str, float]) -> Figure:
    """Draw lines on a grid of panels, y logarithmic, with what theory expects dashed.

    Args:
        rows: one row a point, columns `panel` (a row of the grid, with a legend of its own),
            `column` (of the grid, with a y axis of its own), `line, x, y, theory`; NaN where
            theory has nothing.
        xlabel: what x is.
        ylabel: what y is.
        bottom: column -> the least y shown.
    """
    panels, columns = (list(dict.fromkeys(rows[name])) for name in ("panel", "column"))
    size = (3.2 + 4.2 * len(columns), 0.5 + 3.6 * len(panels))
    figure = Figure(figsize=size, layout="constrained")
    drawn = figure.subplots(len(panels), len(columns), squeeze=False, sharex=True, sharey="col")
    for place, part in rows.groupby(["panel", "column"], sort=False):
        axes = drawn[panels.index(place[0]), columns.index(place[1])]
        lines = list(part.groupby("line", sort=False))
        for (line, points), color in zip(lines, drawing.colors(len(lines)), strict=True):
            style = {"color": color, "linewidth": 2.2, "alpha": 0.7, "label": line}
            axes.plot(points["x"], points["y"], **style)
            drawing.dashed(axes, points["x"], points["theory"].to_numpy(), color)
        title = say("{column}: {panel}", column=place[1], panel=place[0])
        axes.set(yscale="log", title=title)
        axes.set_ylim(bottom=bottom[place[1]])
        axes.grid(alpha=0.3)
    for axes in drawn[:, -1]:
        beside = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "fontsize": "small"}
        axes.legend(*drawing.with_theory(axes), **beside)
    for axes in drawn[:, 0]:
        axes.set_ylabel(ylabel)
    for axes in drawn[-1]:
        axes.set_xlabel(xlabel)
    return figure


@styled
def strips(rows: Sequence[tuple[str, str, float, bool]], xlabel: str, flagged: str) -> Figure:
    """Draw every seed as a dot on the line of its case, one panel for each arm.

    Args:
        rows: panel, line, x, and whether the dot is flagged; an infinite x is counted, not drawn.
        xlabel: what x is.
        flagged: what the flag means.
    """
    panels = list(dict.fromkeys(panel for panel, *_ in rows))
    lines = list(dict.fromkeys(line for _, line, *_ in rows))[::-1]
    most = max((x for _, _, x, _ in rows if np.isfinite(x)), default=1.0)
    size = (9, 0.8 + 0.32 * len(panels) * (len(lines) + 1.5))
    figure = Figure(figsize=size, layout="constrained")
    drawn = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    generator = np.random.default_rng(0)  # spreads the dots
    for axes, panel in zip(drawn, panels, strict=True):
        for y, line in enumerate(lines):
            mine = [(x, flag) for p, name, x, flag in rows if (p, name) == (panel, line)]
            x, flag = np.array([m[0] for m in mine]), np.array([m[1] for m in mine], bool)
            place = y + generator.uniform(-0.25, 0.25, len(x))
            for mark, color in ((~flag, "tab:blue"), (flag, "tab:red")):
                axes.plot(x[mark], place[mark], ".", color=color, markersize=4, alpha=0.7)
            never = int(np.isinf(x).sum())
            if never:
                axes.annotate(
                    say("{n} never", n=never), (1.01 * most, y), va="center", fontsize="small"
                )
        axes.set(yticks=range(len(lines)), yticklabels=lines, ylim=(-0.6, len(lines) - 0.4))
        axes.set(title=panel, xlim=(0, 1.1 * most))
        axes.grid(alpha=0.3, axis="x")
    drawn[-1].set_xlabel(xlabel)
    marks = [Line2D([], [], color=c, marker=".", ls="") for c in ("tab:blue", "tab:red")]
    names = [say("one seed"), say("one seed, {flagged}", flagged=flagged)]
    figure.legend(marks, names, loc="outside lower center", ncols=2)
    return figure


@styled
def over_steps(
    columns: Mapping[str, Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]],
    levels: Mapping[str, float],
    xlabel: str,
) -> Figure:
    """Draw quantities of runs below each other on a common axis, log y, with levels dashed.

    Args:
        columns: title of a column -> what is drawn on y, from above -> line -> x and y.
        levels: line -> what theory expects of the uppermost quantity, in the line's color.
        xlabel: what x is.
    """
    rows = max(len(panels) for panels in columns.values())
    size = (2 + 5 * len(columns), 1 + 3.2 * rows)
    figure = Figure(figsize=size, layout="constrained")
    drawn = figure.subplots(rows, len(columns), squeeze=False, sharex="col", sharey="row")
    names = dict.fromkeys(n for panels in columns.values() for p in panels.values() for n in p)
    colors = dict(zip(names, drawing.colors(len(names)), strict=True))
    for stack, (title, panels) in zip(drawn.T, columns.items(), strict=True):
        for axes, (ylabel, lines) in zip(stack, panels.items(), strict=False):
            for name, (x, y) in lines.items():
                axes.plot(x, y, color=colors[name], linewidth=1.2, label=name)
                if axes is stack[0] and name in levels:
                    level = np.full(2, levels[name])
                    drawing.dashed(axes, [np.min(x), np.max(x)], level, colors[name])
            axes.set(yscale="log", ylabel=ylabel)
            low, high = axes.get_ylim()
            if high < 1000 * low:  # few powers of ten: ticks between them, as numbers
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter(NullFormatter())
            axes.grid(alpha=0.3)
        stack[0].set_title(title)
        stack[-1].set_xlabel(xlabel)
        stack[0].legend(*drawing.with_theory(stack[0]), fontsize="small")
    return figure
