"""Lines and panels of charts, from runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sgdstudy.figures import palette
from sgdstudy.figures.panels import Line, Panel
from sgdstudy.figures.style import Run
from sgdstudy.recipe.columns import title
from sgdstudy.theory import predictions
from sgdstudy.theory.expect import expect
from sgdstudy.theory.follow import FIXED_ORDERS

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


def known_losses(run: Run, epoch: int) -> np.ndarray:
    """Return the batch losses of an epoch as theory has them, median over the seeds' own orders."""
    known, seeds = expect(run), run.config.seeds
    seeds = seeds[:1] if run.config.order in FIXED_ORDERS else seeds
    return np.median([known.own_order(epoch, seed).batch[-1] for seed in seeds], axis=0)


def _color(run: Run, by: str, place: int) -> str:
    if by == "order" and isinstance(run.config.order, str):
        return palette.ORDERS.get(run.config.order, palette.GREY)
    if by == "optimizer" and isinstance(run.config.optimizer, str):
        return palette.OPTIMIZERS.get(run.config.optimizer, palette.GREY)
    return palette.color(place)


def of_run(run: Run, columns: Mapping[str, str], **axes: Any) -> Panel:
    """Return a panel of several columns of one run over the epoch, as `by_epoch`.

    Args:
        run: whose.
        columns: name of the line -> column of `epochs`.
        axes: of the panel; `y` is what the columns have in common.
    """
    known = predictions.expected_losses(run.problem, run.config)
    rows = run.load("epochs", columns=["seed", "epoch", *columns.values()])
    lines = [
        over(rows, "epoch", column, label, palette.color(i), known.get(column))
        for i, (label, column) in enumerate(columns.items())
    ]
    return Panel(lines, **({"x": "epoch", "y": "loss", "log": "xy"} | axes))


def within_epoch(
    runs: Mapping[str, Run],
    column: str = "loss",
    epoch: int = 1,
    *,
    by: str = "",
    colors: Sequence[str] = (),
    **axes: Any,
) -> Panel:
    """Return a panel of a column over the batches of an epoch; arguments as `by_epoch`."""
    lines = []
    for i, (label, run) in enumerate(runs.items()):
        window = slice(epoch, epoch + 1)
        rows = run.load(columns=["seed", "epoch", "batch", column], epochs=window)
        known = column == "loss" and predictions.order_is_known(run.problem, run.config)
        expected = known_losses(run, epoch) if known else None
        color = colors[i] if colors else _color(run, by, i)
        lines.append(over(rows, "batch", column, label, color, expected))
    given = {"x": f"batch of epoch {epoch}", "y": title("steps", column), "log": "y"}
    return Panel(lines, **(given | axes))


def excess(
    runs: Mapping[str, Any],
    *,
    known: Collection[str] | None = None,
    median: bool = False,
    by: str = "",
    **axes: Any,
) -> Panel:
    """Return a panel of the loss above the least one over the epoch, and what theory expects.

    Args:
        runs: name of the line -> run of a problem that is quadratic.
        known: the lines of which theory is drawn, the mean that second moments expect; None: all.
        median: that of the seeds, and their 10 to 90 %; else their mean.
        by: what gives a line its colour, see `by_epoch`.
        axes: of the panel.
    """
    lines = []
    for i, (label, run) in enumerate(runs.items()):
        seen, theory, band = run.excess(), None, None
        if known is None or label in known:
            theory = (np.arange(len(seen) + 1), expect(run).excess)
        if median and seen.shape[1] > 1:
            band = (np.nanquantile(seen, 0.1, axis=1), np.nanquantile(seen, 0.9, axis=1))
        middle = np.nanmedian(seen, axis=1) if median else seen.mean(1)
        places = np.arange(1, len(seen) + 1)
        lines.append(Line(label, places, middle, _color(run, by, i), band, theory))
    y = f"loss above the least one{'' if median else ', mean'}"
    return Panel(lines, **({"x": "epoch", "y": y, "log": "y"} | axes))


def stopped(
    stops: Mapping[str, np.ndarray], epochs: int, colors: Sequence[str], **axes: Any
) -> Panel:
    """Return a panel of the share of the seeds that have stopped, over the epoch.

    Args:
        stops: name of the line -> stop epochs of the seeds `(R,)`; infinite: never.
        epochs: how many are shown.
        colors: of the lines.
        axes: of the panel.
    """
    x = np.arange(1, epochs + 1)
    lines = [
        Line(label, x, 100 * (each[None] <= x[:, None]).mean(1), color)
        for (label, each), color in zip(stops.items(), colors, strict=True)
    ]
    return Panel(lines, **({"x": "epoch", "y": "seeds that have stopped, %"} | axes))


def with_laws(
    points: pd.DataFrame,
    laws: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    names: Mapping[str, str] | Sequence[str] = (),
    *,
    colors: Sequence[str] = (),
    **axes: Any,
) -> Panel:
    """Return a panel of measured points, and theory's law through those of each line.

    Args:
        points: one row a point, columns `line, x, y`, perhaps `low, high`; see `figures.points`.
        laws: line -> what theory expects of y at x; without points the law is the line.
        names: the lines that are drawn -> how they are called; () all, as they are.
        colors: the colours, in the order of the lines; () those of their places.
        axes: of the panel.
    """
    every = [*dict.fromkeys([*points["line"], *laws])]
    shown = dict(names) if isinstance(names, Mapping) else {n: n for n in names or every}
    points, lines = points[points["line"].isin(list(shown))], []
    along = np.geomspace(points["x"].min(), points["x"].max(), 100)
    for i, (line, label) in enumerate(shown.items()):
        color = colors[i] if colors else palette.color(i)
        mine = points[points["line"] == line].sort_values("x")
        law = np.asarray(laws[line](along), float) if line in laws else None
        if law is not None and mine.empty:
            lines.append(Line(label, along, law, color))
            continue
        x, y = mine["x"].to_numpy(float), mine["y"].to_numpy(float)
        band = _interval(mine) if law is not None else None
        theory = None if law is None else (along, law)
        lines.append(Line(label, x, y, color, band, theory, dots=law is not None))
    return Panel(lines, **({"x": "x", "y": "y", "log": "xy"} | axes))


def _interval(points: pd.DataFrame) -> tuple[np.ndarray, np.ndarray] | None:
    """Return low and high, kept above 0 for a logarithmic axis; None where there are none."""
    if not {"low", "high"} <= {*points} or (points["low"] == points["high"]).all():
        return None
    y, low, high = (points[name].to_numpy(float) for name in ("y", "low", "high"))
    return np.where(low > 0, low, y / 10), high
