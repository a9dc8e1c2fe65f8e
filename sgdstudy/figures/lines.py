"""Lines and panels of charts, from runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sgdstudy.figures import palette
from sgdstudy.figures.chart import Line, Panel
from sgdstudy.figures.style import Run
from sgdstudy.recipe.columns import title
from sgdstudy.theory import predictions

BY = ("", "order", "optimizer")


def by_epoch(
    runs: Mapping[str, Run], column: str, *, by: str = "", colors: Sequence[str] = (), **axes: Any
) -> Panel:
    """Return a panel of a column over the epoch: medians, 10 to 90 % of the seeds, theory.

    Args:
        runs: name of the line -> run.
        column: of `epochs`.
        by: what gives a line its colour: "order", "optimizer"; "" its place.
        colors: the colours, in the order of the runs; before `by`.
        axes: of the panel, as `title`, `levels`, `limits`.
    """
    lines = []
    for i, (label, run) in enumerate(runs.items()):
        color = colors[i] if colors else _color(run, by, i)
        expected = predictions.expected_losses(run.problem, run.config).get(column)
        rows = run.load("epochs", columns=["seed", "epoch", column])
        lines.append(over(rows, "epoch", column, label, color, expected))
    return Panel(lines, **({"x": "epoch", "y": title("epochs", column), "log": "xy"} | axes))


def over(
    rows: pd.DataFrame, x: str, y: str, label: str, color: str, theory: np.ndarray | None = None
) -> Line:
    """Return the line of a column over another: the median of the seeds, their 10 to 90 %.

    Args:
        rows: with the columns `seed`, x and y.
        x: its column.
        y: its column.
        label: the line's name.
        color: its colour.
        theory: what was expected, from the first x on.
    """
    groups = rows.groupby(x)[y]
    median = groups.median()
    band = None
    if rows["seed"].nunique() > 1:
        band = (groups.quantile(0.1).to_numpy(), groups.quantile(0.9).to_numpy())
    expected = None if theory is None else theory[: len(median)]
    return Line(label, median.index.to_numpy(), median.to_numpy(), color, band, expected)


def _color(run: Run, by: str, place: int) -> str:
    if by == "order" and isinstance(run.config.order, str):
        return palette.ORDERS.get(run.config.order, palette.GREY)
    if by == "optimizer" and isinstance(run.config.optimizer, str):
        return palette.OPTIMIZERS.get(run.config.optimizer, palette.GREY)
    return palette.color(place)
