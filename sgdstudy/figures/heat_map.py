"""A sweep on one picture: a result over one or two axes of the grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sgdstudy.figures.backend import styled
from sgdstudy.language import say, to_say
from sgdstudy.secrecy import without_secrets

if TYPE_CHECKING:
    from sgdstudy.figures.shown import Figure

LABELS = {
    "stop_epoch": to_say("epoch at which it stops"),
    "full_loss": to_say("loss of all the data at the end"),
}
NOWHERE = {"stop_epoch": to_say("most do not stop"), "full_loss": to_say("no loss at the end")}
DIVERGED = to_say("most diverge")
LIMIT = to_say("theory: mean square grows beyond")
FAR = 20  # values further apart than this factor are told apart by their logarithm


@dataclass(frozen=True)
class Sketch:
    """What is drawn.

    Attributes:
        grid: values by name of a setting.
        table: a row per combination: its settings, `what`, `diverged`.
        what: the column that is drawn.
        seeds: how many seeds a combination has.
        lr_limit: point of the grid -> step size beyond which theory expects the mean square to
            grow; NaN where it has none.
    """

    grid: Mapping[str, Sequence[Any]]
    table: pd.DataFrame
    what: str
    seeds: int
    lr_limit: Callable[[dict[str, Any]], float]


@styled
def draw(sketch: Sketch, title: str) -> Figure | None:
    """Return a result over the grid's axes; None for a grid of one combination.

    Two axes or more: a heat map over the first two, medians over the others. One axis: a line.
    Grey where most seeds never get there, a cross where most diverge; the dashed line is the step
    size beyond which theory expects the mean square to grow.
    """
    from sgdstudy.figures.shown import Figure

    axes = [name for name, values in sketch.grid.items() if len(values) > 1]
    if not axes:
        return None
    table, what, seeds = sketch.table, sketch.what, sketch.seeds
    table = table.reindex(columns=[*table, *({what, "diverged"} - {*table})])
    sketch = replace(sketch, table=table)
    axes[:2] = sorted(axes[:2], key=lambda name: name != "lr")  # the step size lies across
    n_rows = len(sketch.grid[axes[1]]) if len(axes) > 1 else 8
    figure = Figure(figsize=(8, 2 + 0.35 * min(max(n_rows, 4), 16)), layout="constrained")
    panel = figure.subplots()
    if len(axes) == 1:
        _line(panel, sketch, axes[0])
    else:
        _map(figure, panel, sketch, (axes[0], axes[1]))
    over = [say("{n} seed", "{n} seeds", n=seeds)] * (seeds > 1) + axes[2:]
    median = say("median over {what}", what=", ".join(over)) if over else ""
    shown = say("{title}: {what}", title=title, what=say(LABELS[what]))
    panel.set_title(f"{shown}\n{median}".strip(), fontsize="medium")
    if panel.get_legend_handles_labels()[0]:
        _legend(figure)
    return figure


def _legend(figure: Figure) -> None:
    """Draw the legend in as many columns as the figure has room for."""
    for columns in (3, 2, 1):
        legend = figure.legend(loc="outside lower center", ncols=columns, frameon=False)
        if legend.get_window_extent().width <= figure.bbox.width or columns == 1:
            return
        legend.remove()


def _line(panel: Any, sketch: Sketch, axis: str) -> None:
    table, what, values = sketch.table, sketch.what, sketch.grid[axis]
    numbers = all(_is_number(v) for v in values)
    places = np.array(values if numbers else range(len(values)), dtype=float)
    table = table.iloc[np.argsort(places)]  # a row per value
    places = np.sort(places)
    middle = table[what].to_numpy(float)
    if f"{what}_p10" in table and f"{what}_p90" in table:
        band = [table[f"{what}_{q}"].to_numpy(float) for q in ("p10", "p90")]
        draw_band = panel.fill_between if numbers else panel.vlines
        look = {"color": "tab:blue", "alpha": 0.3, "linewidth": 1 if numbers else 8}
        draw_band(places, *band, label=say("10 to 90 % of the seeds"), **look)
    panel.plot(places, middle, "o-" if numbers else "o", markersize=4, label=say("median"))
    lost = table["diverged"].to_numpy(float) > sketch.seeds / 2
    nowhere = np.isnan(middle) & ~lost
    for mask, sign, color, label in (
        (lost, "x", "tab:red", DIVERGED),
        (nowhere, "s", "0.7", NOWHERE[what]),
    ):
        if mask.any():
            at = {"transform": panel.get_xaxis_transform(), "color": color, "label": say(label)}
            panel.plot(places[mask], np.full(mask.sum(), 0.03), sign, markersize=5, **at)
    if _far_apart(middle):
        panel.set_yscale("log")
    if not numbers:
        panel.set_xticks(places, [_text(v) for v in values])
    elif _far_apart(places):
        panel.set_xscale("log")
    if axis == "lr":
        limit = sketch.lr_limit({name: options[0] for name, options in sketch.grid.items()})
        if places[0] < limit < places[-1]:
            panel.axvline(limit, color="k", linestyle="--", label=say(LIMIT))
    panel.grid(alpha=0.3)
    panel.set(xlabel=axis, ylabel=say(LABELS[what]))


def _map(figure: Figure, panel: Any, sketch: Sketch, axes: tuple[str, str]) -> None:
    from matplotlib.colors import LogNorm

    (x, y), what = axes, sketch.what
    columns, rows = sketch.grid[x], sketch.grid[y]
    cells = _cells(sketch, axes, what)
    lost = _cells(sketch, axes, "diverged") > sketch.seeds / 2
    known = cells[np.isfinite(cells)]
    norm = LogNorm(known.min(), known.max()) if _far_apart(known) else None
    panel.set_facecolor("0.85")
    image = panel.imshow(cells, aspect="auto", origin="lower", norm=norm, cmap="viridis_r")
    figure.colorbar(image, label=say(LABELS[what]))
    if (np.isnan(cells) & ~lost).any():
        panel.plot([], [], "s", color="0.85", label=say(NOWHERE[what]))
    if lost.any():
        at = np.argwhere(lost)
        size = max(2, 6 - len(columns) // 25)
        panel.plot(at[:, 1], at[:, 0], "x", color="tab:red", markersize=size, label=say(DIVERGED))
    _limit(panel, sketch, x, y)
    _ticks(panel.xaxis, columns, 7)  # side by side: more would touch
    _ticks(panel.yaxis, rows, 10)
    panel.set(xlabel=x, ylabel=y)


def _cells(sketch: Sketch, axes: tuple[str, str], what: str) -> np.ndarray:
    """Return the medians over the other axes, (rows, columns)."""
    places = [sketch.table[name].map(_key) for name in axes]
    found = sketch.table.groupby(places, sort=False)[what].median()
    columns, rows = (sketch.grid[name] for name in axes)
    cells = [[found.get((_key(a), _key(b)), np.nan) for a in columns] for b in rows]
    return np.array(cells, dtype=float)


def _key(value: Any) -> str:
    """Tell values apart as they were given: pandas makes NaN of None and 10.0 of 10."""
    if value is None or value != value:
        return "None"
    return repr(float(value)) if _is_number(value) else str(value)


def _limit(panel: Any, sketch: Sketch, x: str, y: str) -> None:
    """Draw the step size at which theory expects the mean square to grow, row by row."""
    lrs = np.array(sketch.grid[x], dtype=float) if x == "lr" else np.empty(0)
    if len(lrs) < 2 or (np.diff(lrs) <= 0).any():
        return
    limits = []
    for value in sketch.grid[y]:
        point = {name: values[0] for name, values in sketch.grid.items()} | {y: value}
        limits.append(sketch.lr_limit(point))
    places = np.interp(np.log(limits), np.log(lrs), np.arange(len(lrs)), left=np.nan, right=np.nan)
    if np.isnan(places).all():
        return
    edges = np.arange(len(places))[:, None] + [-0.5, 0.5, np.nan]  # a stroke per row
    panel.plot(np.repeat(places, 3), edges.ravel(), "k--", label=say(LIMIT))


def _far_apart(values: np.ndarray) -> bool:
    known = values[np.isfinite(values)]
    return bool(known.size and known.min() > 0 and known.max() > FAR * known.min())


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _ticks(axis: Any, values: Sequence[Any], most: int) -> None:
    """Label some of the cells, evenly."""
    places = range(0, len(values), -(-len(values) // most))
    axis.set_ticks(places, [_text(values[i]) for i in places])


def _text(value: Any) -> str:
    if value is None:
        return say("none")
    return f"{value:.3g}" if isinstance(value, float) else without_secrets(str(value), whole=True)
