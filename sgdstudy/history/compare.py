"""Values by seed of two arms compared, and the time that a target takes.

A run that never reaches its target is censored: its time is infinite, later than any. So is the
value of one that diverged: worse than any, minus infinity of an accuracy. Medians are values of a
seed (inverse of the empirical law), so that infinite times do no harm to them; their
intervals are bootstrap intervals over the seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from sgdstudy import checks
from sgdstudy.errors import InputError, reason
from sgdstudy.history.history import History
from sgdstudy.recipe import columns
from sgdstudy.recipe import stop as stops
from sgdstudy.text import counted, legible, written
from sgdstudy.theory.medians import Interval, bounded_median, median, median_interval

OVER = {"epoch": "epochs", "step": "steps"}
CUT_OFF = "interrupted"  # why a seed stopped that nothing had ended


@dataclass(frozen=True)
class Comparison:
    """Two arms, paired by seed.

    Attributes:
        metric: what was compared; more of an accuracy is better, less of any other column.
        a: name of the first arm.
        b: name of the second.
        pairs: seeds that both have.
        median_a: median over the seeds; infinite where most of them never got there.
        median_b: of the second arm.
        difference: median of a - b over the pairs; NaN where pairs in which neither got there
            decide it.
        difference_interval: its bootstrap interval.
        ratio: median of a / b; NaN where a value is not positive.
        ratio_interval: its bootstrap interval.
        share_below: share of the pairs with a < b.
        censored_a: seeds of the first arm that never got there, or diverged.
        censored_b: of the second arm.
        values: the pairs themselves: columns a and b, one row per seed.
    """

    metric: str
    a: str
    b: str
    pairs: int
    median_a: float
    median_b: float
    difference: float
    difference_interval: Interval
    ratio: float
    ratio_interval: Interval
    share_below: float
    censored_a: int
    censored_b: int
    values: pd.DataFrame = field(repr=False, compare=False)

    def __str__(self) -> str:
        lines = [f"{self.metric}, {counted(self.pairs, 'pair')} of seeds"]
        for name, middle, censored in (
            (self.a, self.median_a, self.censored_a),
            (self.b, self.median_b, self.censored_b),
        ):
            never = f"; {censored} of {self.pairs} never" if censored else ""
            lines.append(f"  {name}: median {written(middle)}{never}")
        lines.append(f"  a - b: {_with_interval(self.difference, self.difference_interval)}")
        if not np.isnan(self.ratio_interval[0]):
            lines.append(f"  a / b: {_with_interval(self.ratio, self.ratio_interval)}")
        lines.append(f"  a < b in {self.share_below:.0%} of the pairs")
        return legible("\n".join(lines))


@dataclass(frozen=True)
class Summary:
    """Times to a target over the seeds.

    Attributes:
        seeds: how many there are.
        reached: how many of them got there.
        median: infinite where most never did.
        interval: bootstrap interval of the median.
    """

    seeds: int
    reached: int
    median: float
    interval: Interval

    @property
    def share(self) -> float:
        """The share of the seeds that got there."""
        return self.reached / self.seeds

    def __str__(self) -> str:
        text = _with_interval(self.median, self.interval)
        return legible(f"median {text}; {self.reached} of {counted(self.seeds, 'seed')} got there")


def summary(times: pd.Series, confidence: float = 0.95) -> Summary:
    """Return the median of times to a target with its interval, and how many got there.

    Args:
        times: values by seed, infinite where censored, as `time_to_target` returns them.
        confidence: of the interval.

    Raises:
        InputError: no values, or some that are no numbers.

    Example:
        >>> print(summary(pd.Series([46.0, 48, 49, np.inf])))
        median 48 [46, ∞]; 3 of 4 seeds got there
    """
    confidence = confidence_of(confidence)
    values = known("times", pd.Series(times)).to_numpy()
    if len(values) == 0:
        raise InputError("there are no times to summarise")
    reached = int(np.isfinite(values).sum())
    return Summary(len(values), reached, median(values), median_interval(values, confidence))


# ---- values by seed -------------------------------------------------------------------------


def value_by_seed(history: History, metric: str) -> pd.Series:
    """Return a metric by seed: `columns.worst` of one that never got there, NaN of one cut off."""
    seeds = pd.Index(history.config.seeds, name="seed")
    if metric == "stop_epoch":
        check_stop(history.config.stop)
        return unknown_where(
            history.stop_reason == CUT_OFF, pd.Series(history.converged_epoch, seeds)
        )
    last = last_value(history.load("epochs", columns=["seed", "epoch", metric]), metric)
    diverged = history.stop_reason == "diverged"
    worst = columns.worst(metric)
    last = last.reindex(seeds, fill_value=worst).mask(diverged, worst)
    return last.mask(history.stop_reason == CUT_OFF)


def unknown_where(cut: Any, times: pd.Series) -> pd.Series:
    """Return times by seed, NaN where a seed was cut off before it got there."""
    return times.mask(np.isinf(times) & cut)


def last_value(rows: pd.DataFrame, column: str) -> pd.Series:
    """Return a column at the last epoch of each seed; rows are ordered by seed and epoch."""
    return rows.drop_duplicates("seed", keep="last").set_index("seed")[column].astype(float)


def first_beyond(
    rows: pd.DataFrame, target: float, column: str, over: str, above: bool = False
) -> pd.Series:
    """Return when a column of rows is first below or above the target; see `time_to_target`.

    Raises:
        InputError: a column that is not there, or rows of several runs of an arm.
    """
    for name in ("seed", over, column):
        checks.choice("column", name, list(map(str, rows.columns)))
    arms = rows["arm"] if "arm" in rows else pd.Series("", rows.index)
    if "run_id" in rows and _most_runs(rows["run_id"], arms) > 1:
        raise InputError("these rows are of several runs of an arm; choose one invocation")
    keys = ["arm", "seed"] if arms.nunique(dropna=False) > 1 else ["seed"]
    values = floats(column, rows[column])
    times = (
        rows[over].where(values > target if above else values < target).astype(float).fillna(np.inf)
    )
    return times.groupby([rows[key] for key in keys], observed=True, dropna=False).min()


def _most_runs(run_ids: pd.Series, arms: pd.Series) -> int:
    """Return how many runs the arm has of which there are most; rows of no run are one more."""
    pairs = pd.DataFrame({"arm": arms, "run_id": run_ids}).drop_duplicates()
    return int(pairs["arm"].value_counts(dropna=False).max()) if len(pairs) else 0


def first_stop(rows: pd.DataFrame, column: str, stop: stops.Stop, patience: int) -> pd.Series:
    """Return the epoch at which a rule stops each seed, infinite: none; rows are in order."""

    def of_seed(values: pd.Series) -> float:
        each = values.to_numpy(dtype=float)[:, None]
        (first,), _ = stops.look(each, stop, patience, stops.Watch.of(1))
        return float(rows.loc[values.index[first], "epoch"]) if first < len(each) else np.inf

    return floats(column, rows[column]).groupby(rows["seed"]).apply(of_seed)


def check_stop(stop: Any) -> None:
    """Raise `InputError` where there is no stop rule."""
    if stop is None:
        raise InputError("without a stop rule there is no stop_epoch; name a column of epochs")


def confidence_of(given: Any) -> float:
    """Return a confidence, between 0 and 1, or raise `InputError`."""
    allowed = "between 0 and 1, as 0.95"
    return checks.number("confidence", given, lambda v: 0 < v < 1, allowed)


def floats(name: str, values: pd.Series) -> pd.Series:
    """Return values as floats, or raise `InputError`."""
    try:
        if values.dtype.kind == "c":
            raise TypeError("complex numbers")
        found = values.astype(float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} holds what is no number ({reason(error)})") from None
    return found


def known(name: str, values: pd.Series) -> pd.Series:
    """Return values by seed as floats; none of them is NaN."""
    found = floats(name, values)
    if found.isna().any():
        raise InputError(f"{name} is not a number for seed {found.index[found.isna()][0]}")
    return found


def _with_interval(value: float, interval: Interval) -> str:
    """Write a value with its interval.

    >>> _with_interval(np.nan, (-np.inf, 3.0))
    'not known [-∞, 3]'
    """
    text = "not known" if np.isnan(value) else written(value)
    return f"{text} [{written(interval[0])}, {written(interval[1])}]"


def paired(
    a: pd.Series, b: pd.Series, *, metric: str, names: Sequence[str], confidence: float
) -> Comparison:
    """Return the comparison of two arms' values by seed, as `columns.worst` where censored.

    Raises:
        InputError: fewer than two seeds in common.
    """
    values = pd.concat([a, b], axis=1, join="inner", keys=["a", "b"]).sort_index()
    if len(values) < 2:
        raise InputError(
            f"the two have {len(values)} seeds in common, of {len(a)} and {len(b)}; "
            f"pairs need at least 2: train both with the same seeds"
        )
    x, y = values["a"].to_numpy(), values["b"].to_numpy()
    worst = columns.worst(metric)
    neither = (x == worst) & (y == worst)
    positive = (x > 0).all() and (y > 0).all()
    with np.errstate(invalid="ignore"):
        differences = x - y
        ratios = x / y if positive else np.full(len(x), np.nan)
    difference = bounded_median(differences, neither, (-np.inf, np.inf), confidence)
    ratio = bounded_median(ratios, neither & positive, (0.0, np.inf), confidence)
    return Comparison(
        metric=metric,
        a=names[0],
        b=names[1],
        pairs=len(values),
        median_a=median(x),
        median_b=median(y),
        difference=difference[0],
        difference_interval=difference[1],
        ratio=ratio[0],
        ratio_interval=ratio[1],
        share_below=float(np.mean(x < y)),
        censored_a=int((x == worst).sum()),
        censored_b=int((y == worst).sum()),
        values=values,
    )
