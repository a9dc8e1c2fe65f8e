"""Lines and panels of charts, from runs.

What a function of a panel takes as `axes` are the panel's own attributes, as `title` and `limits`,
and `epsilon`: where a stopping rule stops, a level with that name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, SupportsFloat

import numpy as np
import pandas as pd

from sgdstudy.figures import palette
from sgdstudy.figures.panels import Line, Panel
from sgdstudy.figures.style import Run
from sgdstudy.figures.tables import points
from sgdstudy.language import say
from sgdstudy.recipe.columns import title
from sgdstudy.theory import predictions
from sgdstudy.theory.estimates import Estimate
from sgdstudy.theory.expect import expect
from sgdstudy.theory.follow import FIXED_ORDERS

SHARPNESS = "full_hess_max_eig"
Law = Callable[[np.ndarray], np.ndarray]  # what theory expects of y at x
Series = tuple[Sequence[float], Sequence[SupportsFloat], Law | None]


def by_epoch(
    runs: Mapping[str, Run], column: str, *, colors: Sequence[str] = (), **axes: Any
) -> Panel:
    """Return a panel of a column over the epoch: medians, 10 to 90 % of the seeds, theory.

    Args:
        runs: name of the line -> run.
        column: of `epochs`.
        colors: the colours, in the order of the runs; () those of the study's arms, or of what the
            runs differ in (`palette.of_runs`).
        axes: of the panel, as `title`, `epsilon`, `limits`.
    """
    lines = []
    for (label, run), color in zip(runs.items(), _colors(runs, colors), strict=False):
        expected = predictions.expected_losses(run.problem, run.config).get(column)
        rows = run.load("epochs", columns=["seed", "epoch", column])
        lines.append(over(rows, "epoch", column, label, color, expected))
    return _panel(lines, axes, x=say("epoch"), y=title("epochs", column), log="xy")


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
    return _panel(lines, axes, x=say("epoch"), y=say("loss"), log="xy")


def of_each(runs: Mapping[str, Run], columns: Mapping[str, str], **axes: Any) -> list[Panel]:
    """Return a panel for each run, by the title of it: the same columns, as `of_run`."""
    return [of_run(run, columns, **({"title": name} | axes)) for name, run in runs.items()]


def within_epoch(
    runs: Mapping[str, Run],
    column: str = "loss",
    epoch: int = 1,
    *,
    colors: Sequence[str] = (),
    **axes: Any,
) -> Panel:
    """Return a panel of a column over the batches of an epoch; arguments as `by_epoch`."""
    lines = []
    for (label, run), color in zip(runs.items(), _colors(runs, colors), strict=False):
        window = slice(epoch, epoch + 1)
        rows = run.load(columns=["seed", "epoch", "batch", column], epochs=window)
        known = column == "loss" and predictions.order_is_known(run.problem, run.config)
        expected = known_losses(run, epoch) if known else None
        lines.append(over(rows, "batch", column, label, color, expected))
    return _panel(
        lines, axes, x=say("batch of epoch {n}", n=epoch), y=title("steps", column), log="y"
    )


def excess(
    runs: Mapping[str, Any],
    *,
    known: Collection[str] | None = None,
    median: bool = False,
    **axes: Any,
) -> Panel:
    """Return a panel of the loss above the least one over the epoch, and what theory expects.

    Args:
        runs: name of the line -> run of a problem that is quadratic.
        known: the lines of which theory is drawn, the mean that second moments expect; None: all.
        median: that of the seeds, and their 10 to 90 %; else their mean.
        axes: of the panel.
    """
    lines = []
    for (label, run), color in zip(runs.items(), _colors(runs), strict=False):
        seen, theory = run.excess(), None
        if known is None or label in known:
            theory = (np.arange(len(seen) + 1), expect(run).excess)
        places = np.arange(1, len(seen) + 1)
        mean = None if median else Line(label, places, seen.mean(1), color, theory=theory)
        lines.append(mean or of_seeds(label, places, seen, color, theory))
    y = say("loss above the least one") if median else say("loss above the least one, mean")
    return _panel(lines, axes, x=say("epoch"), y=y, log="y")


def of_seeds(
    label: str,
    x: np.ndarray,
    values: np.ndarray,
    color: str,
    theory: np.ndarray | tuple[np.ndarray, np.ndarray] | None = None,
) -> Line:
    """Return the line of values `(k, R)` by place and seed: their median, 10 to 90 % of the seeds.

    Args:
        label: the line's name.
        x: the places `(k,)`.
        values: NaN where a seed has none; of a single seed there is no band.
        color: its colour.
        theory: what was expected, see `Line`.
    """
    several = values.shape[1] > 1
    band = (_quantile(values, 0.1), _quantile(values, 0.9)) if several else None
    return Line(label, x, np.nanmedian(values, axis=1), color, band, theory)


def _quantile(values: np.ndarray, share: float) -> np.ndarray:
    return np.asarray(np.nanquantile(values, share, axis=1))


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
    return _panel(lines, axes, x=say("epoch"), y=say("seeds that have stopped, %"))


def lr_sharpness(
    runs: Mapping[str, Run], known: Collection[str], *, colors: Sequence[str] = (), **axes: Any
) -> Panel:
    """Return a panel of lr times the sharpness over lr times the steps, of each first seed.

    Where it settles does not depend on lr then, but on the rule: at its edge (Cohen et al. 2021).

    Args:
        runs: name of the line -> run that has `full_hess_max_eig`.
        known: the lines whose edge is drawn, `ss.expect(run).edge`.
        colors: the colours, in the order of the runs; () as `by_epoch`.
        axes: of the panel.
    """
    lines = []
    for (label, run), color in zip(runs.items(), _colors(runs, colors), strict=False):
        which = {"columns": ["seed", "step", SHARPNESS], "seeds": run.config.seeds[:1]}
        rows = run.load(**which)
        rows = rows[np.isfinite(rows[SHARPNESS])]
        x, y = (run.config.lr * rows[name].to_numpy() for name in ("step", SHARPNESS))
        edge = (x[[0, -1]], np.full(2, expect(run).edge)) if label in known else None
        lines.append(Line(label, x, y, color, theory=edge))
    return _panel(lines, axes, x=say("lr times steps"), y=say("lr times the sharpness"))


def measured(series: Mapping[str, Series], *, colors: Sequence[str] = (), **axes: Any) -> Panel:
    """Return a panel of measured points, and theory's law through those of each line.

    Args:
        series: name of the line -> places, values (with 95 % intervals of an `Estimate`), and what
            theory expects of y at x, or None: then the values are a line. Without places the law
            is the line, over those of the others.
        colors: the colours, in the order of the lines; () those of their places.
        axes: of the panel.
    """
    rows: list[tuple[str, float, float, float] | tuple[str, float, Estimate]] = []
    for name, (x, y, _) in series.items():
        for place, value in zip(x, y, strict=True):
            if isinstance(value, Estimate):
                rows.append((name, place, value))
            else:
                rows.append((name, place, float(value), 0.0))
    laws = {name: law for name, (_, _, law) in series.items() if law is not None}
    return with_laws(points(rows), laws, [*series], colors=colors, **axes)


def with_laws(
    points: pd.DataFrame,
    laws: Mapping[str, Law],
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
    return _panel(lines, axes, x="x", y="y", log="xy")


def _panel(lines: Sequence[Line], axes: Mapping[str, Any], **given: Any) -> Panel:
    """Return the panel of some lines: axes that were asked for go before those given here."""
    asked = {name: value for name, value in axes.items() if name != "epsilon"}
    if "epsilon" in axes:
        asked["levels"] = {say("epsilon {epsilon}", epsilon=axes["epsilon"]): axes["epsilon"]}
    return Panel(lines, **(given | asked))


def _colors(runs: Mapping[str, Run], given: Sequence[str] = ()) -> Sequence[str]:
    return given or palette.of_runs(runs)


def _interval(points: pd.DataFrame) -> tuple[np.ndarray, np.ndarray] | None:
    """Return low and high, kept above 0 for a logarithmic axis; None where there are none."""
    if not {"low", "high"} <= {*points} or (points["low"] == points["high"]).all():
        return None
    y, low, high = (points[name].to_numpy(float) for name in ("y", "low", "high"))
    return np.where(low > 0, low, y / 10), high
