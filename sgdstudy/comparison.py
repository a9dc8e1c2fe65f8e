"""Two arms compared seed by seed, and the time that a target takes.

A run that never reaches its target is censored: its time is infinite, later than any. Medians are
values of a seed (inverse of the empirical law), so that infinite times do no harm to them; their
intervals are bootstrap intervals over the seeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from sgdstudy import checks
from sgdstudy.claims import show
from sgdstudy.epochs import STOP_COLUMNS
from sgdstudy.errors import InputError, reason, shown
from sgdstudy.history import History
from sgdstudy.load import load_epochs, load_runs, load_steps
from sgdstudy.medians import Interval, bounded_median, median, median_interval

OVER = {"epoch": "epochs", "step": "steps"}


@dataclass(frozen=True)
class Comparison:
    """Two arms, paired by seed.

    Attributes:
        metric: what was compared.
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
        lines = [f"{self.metric}, {self.pairs} pairs of seeds"]
        for name, middle, censored in (
            (self.a, self.median_a, self.censored_a),
            (self.b, self.median_b, self.censored_b),
        ):
            never = f"; {censored} of {self.pairs} never" if censored else ""
            lines.append(f"  {name}: median {show(middle)}{never}")
        lines.append(f"  a - b: {_with_interval(self.difference, self.difference_interval)}")
        if not np.isnan(self.ratio_interval[0]):
            lines.append(f"  a / b: {_with_interval(self.ratio, self.ratio_interval)}")
        lines.append(f"  a < b in {self.share_below:.0%} of the pairs")
        return "\n".join(lines)


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
        return f"median {text}; {self.reached} of {self.seeds} seeds got there"


def compare(
    a: Any,
    b: Any,
    metric: str = "stop_epoch",
    *,
    study: str | None = None,
    invocation: str = "latest",
    store: str | None = None,
    confidence: float = 0.95,
) -> Comparison:
    """Compare two arms seed by seed: same seed, same order of the samples, other settings.

    The interval is the percentile bootstrap interval of the median over the pairs, see
    `median_interval`. Of pairs in which neither arm got there it is not known which would have
    been first: they count as lowest for its lower end, as highest for its upper end.

    Args:
        a: a `History`, the name of an arm of `study`, or values by seed, as `time_to_target` has.
        b: as a.
        metric: `stop_epoch`, or a column of `epochs`: its value at the end of a seed's last epoch,
            infinite for a seed that diverged.
        study: an experiment's name, where arms are named.
        invocation: `latest` (yours, where several people share a server), or an id.
        store: see `store.locate`.
        confidence: of the intervals.

    Raises:
        InputError: fewer than two seeds in common, an arm or a column that is not there, or a
            stop epoch where there is no stop rule.

    Example:
        >>> a, b = pd.Series([46.0, 48, 49, np.inf]), pd.Series([23.0, 24, 25, 50])
        >>> print(compare(a, b))
        stop_epoch, 4 pairs of seeds
          a: median 48; 1 of 4 never
          b: median 24
          a - b: 24 [23, ∞]
          a / b: 2 [1.96, ∞]
          a < b in 0% of the pairs
    """
    confidence = _confidence(confidence)
    both = [
        by_seed(source, metric, study=study, invocation=invocation, store=store)
        for source in (a, b)
    ]
    values = pd.concat(both, axis=1, join="inner", keys=["a", "b"]).sort_index()
    if len(values) < 2:
        raise InputError(
            f"the two have {len(values)} seeds in common, of {len(both[0])} and {len(both[1])}; "
            f"pairs need at least 2: train both with the same seeds"
        )
    x, y = values["a"].to_numpy(), values["b"].to_numpy()
    neither = np.isposinf(x) & np.isposinf(y)
    positive = (x > 0).all() and (y > 0).all()
    with np.errstate(invalid="ignore"):
        differences = x - y
        ratios = x / y if positive else np.full(len(x), np.nan)
    difference = bounded_median(differences, neither, (-np.inf, np.inf), confidence)
    ratio = bounded_median(ratios, neither & positive, (0.0, np.inf), confidence)
    return Comparison(
        metric=metric,
        a=a if isinstance(a, str) else "a",
        b=b if isinstance(b, str) else "b",
        pairs=len(values),
        median_a=median(x),
        median_b=median(y),
        difference=difference[0],
        difference_interval=difference[1],
        ratio=ratio[0],
        ratio_interval=ratio[1],
        share_below=float(np.mean(x < y)),
        censored_a=int(np.isposinf(x).sum()),
        censored_b=int(np.isposinf(y).sum()),
        values=values,
    )


def time_to_target(
    source: Any,
    target: float,
    column: str = "full_loss",
    over: str = "epoch",
    *,
    study: str | None = None,
    invocation: str = "latest",
    store: str | None = None,
) -> pd.Series:
    """Return, by seed, when a column is first below the target; infinite where it never is.

    Over epochs this is the number of epochs completed; over steps the number of steps taken
    before (columns of `steps` belong to the parameters before the update).

    Args:
        source: a `History`, the name of an arm of `study`, or rows as `load_epochs` or
            `load_steps` return them; a seed without any row is not known of those.
        target: the value to get below.
        column: a column of `epochs`, or of `steps`.
        over: `epoch` or `step`.
        study: an experiment's name, where an arm is named.
        invocation: `latest` (yours, where several people share a server), or an id.
        store: see `store.locate`.

    Returns:
        One value per seed; where the rows are of several arms, per arm and seed.

    Raises:
        InputError: a column or an arm that is not there, or rows of several runs of an arm.

    Example:
        >>> rows = {"seed": [0, 0, 1, 1], "epoch": [1, 2, 1, 2], "full_loss": [3, 0.1, 3, 2]}
        >>> time_to_target(pd.DataFrame(rows), 1.0).to_dict()
        {0: 2.0, 1: inf}
    """
    checks.choice("axis", over, OVER)
    target = checks.number("target", target, lambda v: True, "finite")
    if isinstance(source, pd.DataFrame):
        return _first_below(source, target, column, over)
    if isinstance(source, History):
        rows, seeds = source.load(OVER[over], columns=["seed", over, column]), source.config.seeds
    else:
        arm = _Stored(source, study, invocation, store)
        rows, seeds = arm.rows(over, column), arm.seeds
    index = pd.Index(seeds, name="seed")
    return _first_below(rows, target, column, over).reindex(index, fill_value=np.inf)


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
    confidence = _confidence(confidence)
    values = _known("times", pd.Series(times)).to_numpy()
    if len(values) == 0:
        raise InputError("there are no times to summarise")
    reached = int(np.isfinite(values).sum())
    return Summary(len(values), reached, median(values), median_interval(values, confidence))


# ---- values by seed -------------------------------------------------------------------------


def by_seed(
    source: Any,
    metric: str,
    *,
    study: str | None = None,
    invocation: str = "latest",
    store: str | None = None,
) -> pd.Series:
    """Return a metric by seed, infinite where the seed never got there; arguments as `compare`."""
    if not isinstance(metric, str) or metric in ("seed", "epoch"):
        raise InputError(
            f"metric is stop_epoch or a column of epochs, as 'full_loss', not {shown(metric)}"
        )
    if isinstance(source, pd.Series):
        found = _floats(metric, source)
    elif isinstance(source, History):
        found = _of_history(source, metric)
    else:
        found = _Stored(source, study, invocation, store).metric(metric)
    if not found.index.is_unique:
        raise InputError("values by seed have one value for each seed; choose one arm of one run")
    return _known(metric, found)


def _of_history(history: History, metric: str) -> pd.Series:
    seeds = pd.Index(history.config.seeds, name="seed")
    if metric == "stop_epoch":
        _check_stop(history.config.stop)
        return pd.Series(history.converged_epoch, seeds)
    last = _last(history.load("epochs", columns=["seed", "epoch", metric]), metric)
    diverged = history.stop_reason == "diverged"
    return last.reindex(seeds, fill_value=np.inf).mask(diverged, np.inf)


class _Stored:
    """An arm in the store."""

    def __init__(self, arm: Any, study: str | None, invocation: str, store: str | None) -> None:
        if not isinstance(arm, str) or study is None:
            raise InputError(
                f"expected a History, values by seed as a Series, or an arm's name with "
                f"study=..., not {shown(arm)}"
            )
        self.study = study
        self.where: dict[str, Any] = {"arms": [arm], "invocation": invocation, "store": store}
        runs = load_runs(study, **self.where)
        if len(runs) != 1:
            raise InputError(
                f"{arm!r} has {len(runs)} runs; name one invocation: "
                f"{', '.join(runs['invocation'])}"
            )
        self.run = runs.iloc[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Its seeds: those that took a first step."""
        first = load_steps(self.study, columns=["seed"], steps=slice(0, 1), **self.where)
        return tuple(first["seed"].unique())

    def rows(self, over: str, column: str) -> pd.DataFrame:
        """Return a column over epochs or steps."""
        load = {"epoch": load_epochs, "step": load_steps}[over]
        return load(self.study, columns=["seed", over, column], **self.where)

    def metric(self, metric: str) -> pd.Series:
        """Return a metric by seed."""
        seeds = pd.Index(self.seeds, name="seed")
        if metric == "stop_epoch":
            rule, epsilon = self.run.get("stop", "none"), self.run.get("epsilon")
            _check_stop(None if rule == "none" else rule)
            column = STOP_COLUMNS[rule]
            found = _first_below(self.rows("epoch", column), epsilon, column, "epoch")
            return found.reindex(seeds, fill_value=np.inf)
        last = _last(self.rows("epoch", metric), metric).reindex(seeds, fill_value=np.inf)
        return last.mask(last.index.isin(self._diverged()), np.inf)

    def _diverged(self) -> list[int]:
        """Return the seeds whose rows end with a loss or a gradient that is not finite."""
        if "diverged" not in str(self.run["stop_reason"]):
            return []
        signs = ["loss", "grad_norm"]
        rows = load_steps(self.study, columns=["seed", *signs], **self.where)
        return list(rows["seed"][~np.isfinite(rows[signs]).all(axis=1)].unique())


def _last(rows: pd.DataFrame, column: str) -> pd.Series:
    """Return a column at the last epoch of each seed; rows are ordered by seed and epoch."""
    return rows.drop_duplicates("seed", keep="last").set_index("seed")[column].astype(float)


def _first_below(rows: pd.DataFrame, target: float, column: str, over: str) -> pd.Series:
    for name in ("seed", over, column):
        checks.choice("column", name, list(map(str, rows.columns)))
    keys = ["seed"]
    if "run_id" in rows and rows["run_id"].nunique() > 1:
        keys = ["arm", "seed"]
        if rows["run_id"].nunique() > rows["arm"].nunique():
            raise InputError("these rows are of several runs of an arm; choose one invocation")
    below = _floats(column, rows[column]) < target
    times = rows[over].where(below).astype(float).fillna(np.inf)
    return times.groupby([rows[key] for key in keys], observed=True).min()


def _check_stop(stop: Any) -> None:
    if stop is None:
        raise InputError("without a stop rule there is no stop_epoch; name a column of epochs")


def _confidence(given: Any) -> float:
    allowed = "between 0 and 1, as 0.95"
    return checks.number("confidence", given, lambda v: 0 < v < 1, allowed)


def _floats(name: str, values: pd.Series) -> pd.Series:
    try:
        if values.dtype.kind == "c":
            raise TypeError("complex numbers")
        found = values.astype(float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} holds what is no number ({reason(error)})") from None
    return found


def _known(name: str, values: pd.Series) -> pd.Series:
    """Return values by seed as floats; none of them is NaN."""
    found = _floats(name, values)
    if found.isna().any():
        raise InputError(f"{name} is not a number for seed {found.index[found.isna()][0]}")
    return found


def _with_interval(value: float, interval: Interval) -> str:
    """Write a value with its interval.

    >>> _with_interval(np.nan, (-np.inf, 3.0))
    'not known [-∞, 3]'
    """
    text = "not known" if np.isnan(value) else show(value)
    return f"{text} [{show(interval[0])}, {show(interval[1])}]"
