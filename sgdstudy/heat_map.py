"""A sweep on one picture: a result over two axes of the grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sgdstudy import theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sgdstudy.sweep import Plan

LABELS = {"stop_epoch": "epoch at which it stops", "full_loss": "loss of all the data at the end"}


def draw(plan: Plan, table: pd.DataFrame, what: str) -> Figure | None:
    """Return the heat map over the grid's first two axes; None for a grid of one axis or none.

    Medians over the other axes. Grey where no seed gets there, a cross where most diverge; the
    line is the step size beyond which theory expects the mean square to grow.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    axes = [name for name, values in plan.grid.items() if len(values) > 1][:2]
    if len(axes) < 2 or what not in table:
        return None
    axes.sort(key=lambda name: name != "lr")  # the step size lies across
    x, y = axes
    columns, rows = plan.grid[x], plan.grid[y]
    cells = _cells(table, x, y, what, columns, rows)
    figure = Figure(figsize=(8, 1.8 + 0.45 * min(len(rows), 16)), layout="constrained")
    panel = figure.subplots()
    positive = cells[np.isfinite(cells) & (cells > 0)]
    spread = positive.size > 0 and positive.max() > 20 * positive.min()
    norm = LogNorm(positive.min(), positive.max()) if spread else None
    panel.set_facecolor("0.85")
    panel.plot([], [], "s", color="0.85", label=f"no {what.replace('_', ' ')}")
    image = panel.imshow(cells, aspect="auto", origin="lower", norm=norm, cmap="viridis_r")
    figure.colorbar(image, label=LABELS[what])
    if "diverged" in table:
        lost = _cells(table, x, y, "diverged", columns, rows)
        seeds = len(plan.combinations[0].arm.config.seeds)
        at = np.argwhere(lost > seeds / 2)
        panel.plot(at[:, 1], at[:, 0], "x", color="tab:red", markersize=4, label="most diverge")
    _limit(panel, plan, x, y)
    _ticks(panel.xaxis, columns)
    _ticks(panel.yaxis, rows)
    panel.set(xlabel=x, ylabel=y, title=f"{plan.study.name}: {plan.arm}")
    if panel.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _cells(
    table: pd.DataFrame, x: str, y: str, what: str, columns: list[Any], rows: list[Any]
) -> np.ndarray:
    """Return the medians, (rows, columns)."""
    places = [table[x].map(_key), table[y].map(_key)]
    found = table.groupby(places, sort=False)[what].median()
    cells = [[found.get((_key(a), _key(b)), np.nan) for a in columns] for b in rows]
    return np.array(cells, dtype=float)


def _key(value: Any) -> str:
    """Tell values apart as they were given: pandas makes NaN of None and 10.0 of 10."""
    if value is None or value != value:
        return "None"
    return repr(float(value)) if isinstance(value, (int, float)) else str(value)


def _limit(panel: Any, plan: Plan, x: str, y: str) -> None:
    """Draw the step size at which theory expects the mean square to grow, row by row."""
    lrs = np.array(plan.grid[x], dtype=float) if x == "lr" else np.empty(0)
    if len(lrs) < 2 or (np.diff(lrs) <= 0).any():
        return
    limits = []
    for value in plan.grid[y]:
        point = {name: values[0] for name, values in plan.grid.items()} | {y: value}
        limits.append(lr_limit(plan, point))
    places = np.interp(np.log(limits), np.log(lrs), np.arange(len(lrs)), left=np.nan, right=np.nan)
    rows = np.arange(len(places))
    edges = np.column_stack([rows - 0.5, rows + 0.5]).ravel()
    label = "theory: mean square grows beyond"
    panel.plot(np.repeat(places, 2), edges, "k--", label=label)


def lr_limit(plan: Plan, point: dict[str, Any]) -> float:
    """Return the largest stable step at a point of the grid; NaN where theory has none."""
    arm = plan.combination(point).arm
    config, ls = arm.config, arm.problem.least_squares
    if ls is None or config.optimizer not in ("SGD", "notebook") or config.options:
        return np.nan
    if config.batch_size is None or config.batch_size == arm.problem.d:
        return theory.lr_limit(ls)
    if config.order not in ("shuffle", "with_replacement"):
        return np.nan
    return theory.mean_square_lr_limit(ls, arm.problem.d, config.batch_size)


def _ticks(axis: Any, values: list[Any]) -> None:
    """Label at most eight of the cells."""
    places = np.unique(np.linspace(0, len(values) - 1, min(len(values), 8)).round().astype(int))
    axis.set_ticks(places, [_text(values[i]) for i in places])


def _text(value: Any) -> str:
    if value is None:
        return "full"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
