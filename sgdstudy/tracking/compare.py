"""Two arms compared seed by seed, and the time that a target takes; of histories or of a store."""

from __future__ import annotations

import functools
import logging
import numbers
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted
from sgdstudy.history.compare import (
    CUT_OFF,
    OVER,
    Comparison,
    check_stop,
    confidence_of,
    first_beyond,
    first_stop,
    floats,
    known,
    last_value,
    paired,
    unknown_where,
    value_by_seed,
)
from sgdstudy.history.history import History
from sgdstudy.language import say
from sgdstudy.recipe import columns
from sgdstudy.recipe import stop as stops
from sgdstudy.text import counted
from sgdstudy.tracking.load import load_epochs, load_runs, load_steps

log = logging.getLogger("sgdstudy")


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
        metric: `stop_epoch`, or a column of `epochs`: its value at the end of a seed's last epoch;
            a seed that diverged is worse than any: infinite, of accuracies minus infinity.
        study: an experiment's name, where arms are named.
        invocation: `latest` (yours, where several people share a server), or an id.
        store: see `store.locate`.
        confidence: of the intervals.

    Raises:
        InputError: fewer than two seeds in common, an arm or a column that is not there, a
            stop epoch where there is no stop rule, or a run that was cut off, or goes on, before
            all its seeds told the metric.

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
    confidence = confidence_of(confidence)
    both = [
        by_seed(source, metric, study=study, invocation=invocation, store=store)
        for source in (a, b)
    ]
    names = [x if isinstance(x, str) else label for x, label in ((a, "a"), (b, "b"))]
    return paired(*both, metric=metric, names=names, confidence=confidence)


def time_to_target(
    source: Any,
    target: float,
    column: str = "full_loss",
    over: str = "epoch",
    *,
    above: bool | None = None,
    study: str | None = None,
    invocation: str = "latest",
    store: str | None = None,
) -> pd.Series:
    """Return, by seed, when a column is first beyond the target; infinite where it never is.

    NaN, and a warning, of a seed whose run was cut off, or goes on, before it got there: of rows
    nothing tells, and it counts as one that never does.

    Over epochs this is the number of epochs completed; over steps the number of steps taken
    before (columns of `steps` belong to the parameters before the update).

    Args:
        source: a `History`, the name of an arm of `study`, or rows as `load_epochs` or
            `load_steps` return them; a seed without any row is not known of those.
        target: the value to get below, or above.
        column: a column of `epochs`, or of `steps`.
        over: `epoch` or `step`.
        above: whether to get above it; None: of the accuracies, of which more is better.
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
    above = columns.more_is_better(column) if above is None else checks.truth("above", above)
    if isinstance(source, pd.DataFrame):
        return first_beyond(source, target, column, over, above)
    if isinstance(source, History):
        rows, seeds = source.load(OVER[over], columns=["seed", over, column]), source.config.seeds
        cut = source.stop_reason == CUT_OFF
    else:
        arm = _Stored(source, study, invocation, store)
        rows, seeds, cut = arm.rows(over, column), arm.seeds, arm.cut_off
    index = pd.Index(seeds, name="seed")
    times = first_beyond(rows, target, column, over, above).reindex(index, fill_value=np.inf)
    times = unknown_where(cut, times)
    if n := int(times.isna().sum()):
        log.warning(
            "%s",
            say(
                "{n} seed is not known to get there or not: the run was cut off, or goes on",
                "{n} seeds are not known to get there or not: the run was cut off, or goes on",
                n=n,
            ),
        )
    return times


def by_seed(
    source: Any,
    metric: str,
    *,
    study: str | None = None,
    invocation: str = "latest",
    store: str | None = None,
) -> pd.Series:
    """Return a metric by seed, the worst where the seed never got there; arguments as `compare`.

    Raises:
        InputError: its run was cut off, or goes on, before all seeds told it.
    """
    if not isinstance(metric, str) or metric in ("seed", "epoch"):
        raise InputError(
            f"metric is stop_epoch or a column of epochs, as 'full_loss', not {quoted(metric)}"
        )
    if isinstance(source, pd.Series):
        found = floats(metric, source)
    elif isinstance(source, History):
        found = _told(value_by_seed(source, metric), source.stop_reason == CUT_OFF, "the run")
    else:
        arm = _Stored(source, study, invocation, store)
        found = _told(arm.metric(metric), arm.cut_off, f"{source!r} ({arm.run['status']})")
    if not found.index.is_unique:
        raise InputError("values by seed have one value for each seed; choose one arm of one run")
    return known(metric, found)


def _told(found: pd.Series, cut: Any, what: str) -> pd.Series:
    """Return values by seed, or raise `InputError` where a run was cut off before one was known."""
    if n := int((found.isna() & cut).sum()):
        raise InputError(
            f"{what} was cut off, or goes on: of {n} of its {counted(len(found), 'seed')} "
            f"the metric is not known; train it to its end, or name another invocation"
        )
    return found


class _Stored:
    """An arm in the store."""

    def __init__(self, arm: Any, study: str | None, invocation: str, store: str | None) -> None:
        if not isinstance(arm, str) or study is None:
            raise InputError(
                f"expected a History, values by seed as a Series, or an arm's name with "
                f"study=..., not {quoted(arm)}"
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

    @functools.cached_property
    def seeds(self) -> tuple[int, ...]:
        """Its seeds: those that took a first step."""
        first = load_steps(self.study, columns=["seed"], steps=slice(0, 1), **self.where)
        return tuple(first["seed"].unique())

    def rows(self, over: str, column: str) -> pd.DataFrame:
        """Return a column over epochs or steps."""
        load = {"epoch": load_epochs, "step": load_steps}[over]
        return load(self.study, columns=["seed", over, column], **self.where)

    @functools.cached_property
    def cut_off(self) -> np.ndarray:
        """Which seeds had not ended when the run was cut off; none of a run that finished.

        Of one that was cut off its rows tell: a seed has ended that stopped by its rule, diverged,
        or has all its epochs.
        """
        if self.run["status"] == "FINISHED":
            return np.zeros(len(self.seeds), dtype=bool)
        ended = set(self._diverged())
        epochs = self.run.get("epochs")
        if isinstance(epochs, numbers.Real):
            rows = self.rows("epoch", "epoch")
            ended |= set(rows["seed"][rows["epoch"] >= float(epochs)])
        with suppress(InputError):  # without a rule, or by a function: nothing tells
            stopped = self._stops()
            ended |= set(stopped.index[np.isfinite(stopped)])
        return ~np.isin(self.seeds, list(ended))

    def metric(self, metric: str) -> pd.Series:
        """Return a metric by seed; NaN where the seed was cut off before it was known."""
        seeds = pd.Index(self.seeds, name="seed")
        if metric == "stop_epoch":
            return unknown_where(self.cut_off, self._stops().reindex(seeds, fill_value=np.inf))
        worst, last = columns.worst(metric), last_value(self.rows("epoch", metric), metric)
        last = last.reindex(seeds, fill_value=worst)
        return last.mask(last.index.isin(self._diverged()), worst).mask(self.cut_off)

    def _stops(self) -> pd.Series:
        """Return the epoch at which the rule stops each seed that completed one; infinite: none."""
        stop, patience = stops.recorded(dict(self.run))
        check_stop(stop)
        assert stop is not None
        column = stops.column_of(stop[0])
        return first_stop(self.rows("epoch", column), column, stop, patience)

    def _diverged(self) -> list[int]:
        """Return the seeds whose rows end with a loss or a gradient that is not finite."""
        finished = self.run["status"] == "FINISHED"  # else nothing but its rows tells
        if finished and "diverged" not in str(self.run["stop_reason"]):
            return []
        signs = ["loss", "grad_norm"]
        rows = load_steps(self.study, columns=["seed", *signs], **self.where)
        return list(rows["seed"][~np.isfinite(rows[signs]).all(axis=1)].unique())
