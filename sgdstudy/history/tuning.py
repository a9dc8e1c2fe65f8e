"""Step sizes that some seeds choose and others judge, and how much the choice matters.

Both work on a long table: one row for each way of training (the columns `by`), step size `lr` and
`seed`, with the time to a target, infinite where it was never met. The seeds that choose have to
be others than those that are reported, else the best of many step sizes looks better than it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from sgdstudy import checks
from sgdstudy.errors import InputError
from sgdstudy.history.compare import paired, value_by_seed
from sgdstudy.history.history import History
from sgdstudy.history.stopping import first_marked
from sgdstudy.theory.expect import expect
from sgdstudy.theory.medians import median, median_interval

EDGES = ("", "lowest", "highest")
ENDS = ("test_loss", "accuracy", "test_accuracy")  # further columns of a seed's last epoch


def choose(
    rows: pd.DataFrame, by: Sequence[str], time: str = "time", final: str = "final"
) -> pd.DataFrame:
    """Return the step size with the least median time over the seeds, for each group.

    Where several have the same, or none of them got there, the least median of `final` decides,
    then the smaller step. A winner that is the smallest or the largest step tried says that a
    better one may lie beyond.

    Args:
        rows: of the seeds that choose, without those that are reported; columns `by`, `lr`, `seed`,
            time and final, infinite where a seed never got there, or diverged.
        by: columns that name a group.
        time: the column with the times.
        final: the column with the losses at the end.

    Returns:
        One row a group: columns `by`, `lr`, and `edge`: "", "lowest" or "highest" of those tried.

    Raises:
        InputError: a column that is not there, a value that is not a number.

    Example:
        >>> rows = {"lr": [0.1, 0.1, 1, 1], "seed": [0, 1] * 2, "time": [9, 8, 2, np.inf]}
        >>> rows = pd.DataFrame(rows).assign(rule="SGD", final=1.0)
        >>> choose(rows[rows["seed"] == 0], ["rule"]).to_dict("records")
        [{'rule': 'SGD', 'lr': 1.0, 'edge': 'highest'}]
    """
    columns = [time, final]
    _require_columns(rows, by, columns)
    middle = rows.groupby([*by, "lr"], sort=False)[columns].agg(lambda v: median(v.to_numpy()))
    ordered = middle.reset_index().sort_values([*columns, "lr"], kind="stable")
    best = ordered.drop_duplicates(list(by)).set_index(list(by))["lr"]
    tried = rows.groupby(list(by), sort=False)["lr"].agg(["min", "max"])
    found = tried.join(best).reset_index()
    lowest, highest = found["lr"] == found["min"], found["lr"] == found["max"]
    found["edge"] = np.select([lowest, highest], EDGES[1:], EDGES[0])
    return found[[*by, "lr", "edge"]]


def sensitivity(
    rows: pd.DataFrame, by: Sequence[str], value: str = "time", confidence: float = 0.95
) -> pd.DataFrame:
    """Return the median of a value for each group and step size, with its bootstrap interval.

    Args:
        rows: columns `by`, `lr`, `seed` and the value; see `choose`.
        by: columns that name a group.
        value: the column; infinite where censored.
        confidence: of the intervals.

    Returns:
        One row a group and step size, in the order of the rows: columns `by`, `lr`, `median`,
        `low`, `high`, `reached` (seeds whose value is finite) and `seeds`.

    Raises:
        InputError: a column that is not there, or a value that is not a number.
    """
    _require_columns(rows, by, [value])
    found = []
    for key, group in rows.groupby([*by, "lr"], sort=False):
        values = group[value].to_numpy(float)
        low, high = median_interval(values, confidence)
        reached = int(np.isfinite(values).sum())
        found.append((*key, median(values), low, high, reached, len(values)))
    names = [*by, "lr", "median", "low", "high", "reached", "seeds"]
    return pd.DataFrame(found, columns=names)


def outcomes(
    losses: np.ndarray, seeds: Sequence[int], targets: Mapping[Any, float]
) -> pd.DataFrame:
    """Return when losses are first below each target, seed by seed, and what they end at.

    Args:
        losses: of all the data by epoch and seed, `(E, R)`; NaN beyond a seed's end.
        seeds: the R seeds.
        targets: name of a target -> the loss to get below.

    Returns:
        Columns `seed`, `target`, `level`, `time` (epochs; infinite: never), `final` (infinite
        where the last loss is not a number).

    Example:
        >>> outcomes(np.array([[3.0], [0.5]]), [7], {"easy": 1.0}).to_dict("records")
        [{'seed': 7, 'target': 'easy', 'level': 1.0, 'time': 2.0, 'final': 0.5}]
    """
    found, n = [], losses.shape[1]
    final = np.nan_to_num(losses[-1], nan=np.inf) if len(losses) else np.full(n, np.inf)
    for target, level in targets.items():
        time = first_marked(losses < level)
        rows = {"seed": list(seeds), "target": target, "level": level, "time": time, "final": final}
        found.append(pd.DataFrame(rows))
    return pd.concat(found, ignore_index=True)


def _once(of_run: Callable[..., pd.DataFrame]) -> Callable[..., pd.DataFrame]:
    """Return a function of a run that keeps what it found as long as the run is there.

    Claims, answer, tables and figures all ask.
    """
    found: WeakKeyDictionary[History, dict[Any, pd.DataFrame]] = WeakKeyDictionary()

    @wraps(of_run)
    def call(run: History, *given: Any) -> pd.DataFrame:
        known = found.setdefault(run, {})
        if given not in known:
            known[given] = of_run(run, *given)
        return known[given]

    return call


@_once
def _outcomes_of(run: History, levels: tuple[tuple[Any, float], ...]) -> pd.DataFrame:
    """Return `outcomes` of a run, and its other losses and scores at each seed's last epoch."""
    seeds = list(run.config.seeds)
    found = outcomes(run.array("epochs", "full_loss"), seeds, dict(levels))
    there = run.load("epochs").columns
    ends = {name: value_by_seed(run, name) for name in ENDS if name in there}
    ends |= {"final": value_by_seed(run, "full_loss").fillna(np.inf)}
    return found.assign(**{name: found["seed"].map(each) for name, each in ends.items()})


@_once
def _expected_of(run: History, levels: tuple[tuple[Any, float], ...], seed: int) -> pd.DataFrame:
    """Return `outcomes` of the mean loss that theory expects, as if it were that of a seed."""
    mean = expect(run).mean_loss("full_loss")
    return outcomes(mean[:, None], [seed], dict(levels))


@dataclass(frozen=True, eq=False)
class Tuning:
    """Step sizes that some seeds chose for the hardest target, judged by other seeds.

    Attributes:
        rows: as of `outcomes`, with the columns `by` and `lr`.
        by: columns that name a way of training.
        first: the first of the seeds that choose; those before it are reported.
    """

    rows: pd.DataFrame
    by: Sequence[str]
    first: int

    @classmethod
    def of(
        cls,
        runs: Mapping[tuple[Any, ...], tuple[History, Mapping[Any, float]]],
        by: Sequence[str],
        first: int,
        expected: bool = False,
    ) -> Tuning:
        """Return the tuning of some runs.

        Args:
            runs: values of the columns `by`, and what else tells them apart -> a run, and its
                targets, name -> the loss to get below.
            by: columns that name a way of training.
            first: the first of the seeds that choose.
            expected: of the mean loss that theory expects instead, where it does.
        """
        found = []
        for key, (run, targets) in runs.items():
            levels = tuple(targets.items())
            if not expected:
                rows = _outcomes_of(run, levels)
            elif expect(run).has_mean:
                rows = _expected_of(run, levels, first)
            else:
                continue
            names = dict(zip(by, key, strict=False), lr=run.config.lr)
            found.append(rows.assign(**names))
        rows = pd.concat(found, ignore_index=True)
        hardest = rows.groupby(list(by))["target"].transform("min")
        return cls(rows.assign(hardest=rows["target"] == hardest), by, first)

    @cached_property
    def chosen(self) -> pd.DataFrame:
        """The step sizes chosen, see `choose`."""
        deciding = self.rows["hardest"] & (self.rows["seed"] >= self.first)
        return choose(self.rows[deciding], self.by)

    @cached_property
    def reported(self) -> pd.DataFrame:
        """The rows of the seeds that do not choose."""
        return self.rows[self.rows["seed"] < self.first]

    @cached_property
    def medians(self) -> pd.DataFrame:
        """The median time of each way, target and step (`sensitivity`), and what is chosen."""
        shown = sensitivity(self.reported, [*self.by, "target", "hardest"])
        shown = shown.merge(self.chosen, "left")
        return shown.assign(chosen=shown["edge"].notna())

    def best(self, reference: Mapping[str, Any]) -> pd.DataFrame:
        """Return one row for each way of training, at its chosen step, to the hardest target.

        Args:
            reference: values of some columns `by`, as `{"optimizer": "SGD"}`: the way that the
                times are compared with, pair by pair of the seeds.

        Returns:
            Columns of `medians`; `level`; `above_again` (seeds that got below and end above);
            `lrs_within_twice` (step sizes tried whose median is within twice the least); of several
            seeds, the median ratio and its interval, as `over_sgd` and `over_sgd_95`; medians of
            `full_loss` and of other losses and scores at the end.
        """
        own = self.medians[self.medians["hardest"]]
        rows = self.reported[self.reported["hardest"]].merge(self.chosen)
        groups = dict(iter(rows.groupby(list(self.by))))
        over = f"over_{'_'.join(map(str, reference.values())).lower()}"
        grids = dict(iter(own.groupby(list(self.by))["median"]))
        found = []
        for row in own[own["chosen"]].to_dict("records"):
            key = tuple(row[name] for name in self.by)
            mine, with_ = groups[key], groups[tuple((row | reference)[name] for name in self.by)]
            tried = grids[key]
            row["level"] = mine["level"].iloc[0]
            row["above_again"] = int(
                ((mine["final"] >= row["level"]) & (mine["time"] < np.inf)).sum()
            )
            within = (tried <= 2 * tried.min()) & (tried < np.inf)
            row["lrs_within_twice"] = int(within.sum())
            if len(mine) > 1:
                row[over], row[f"{over}_95"] = _ratio(mine, with_)
            ends = mine.rename(columns={"final": "full_loss"}).filter(["full_loss", *ENDS])
            found.append(row | ends.median().to_dict())
        return pd.DataFrame(found)


def _ratio(mine: pd.DataFrame, other: pd.DataFrame) -> tuple[float, tuple[float, float]]:
    times = (rows.set_index("seed")["time"] for rows in (mine, other))
    pairs = paired(*times, metric="epochs", names=("a", "b"), confidence=0.95)
    return pairs.ratio, pairs.ratio_interval


def _require_columns(rows: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> None:
    """Raise `InputError` where the table lacks a column, or holds what is no number."""
    for name in (*by, "lr", "seed", *values):
        checks.choice("column", name, list(map(str, rows.columns)))
    for name in values:
        if rows[name].isna().any():
            raise InputError(f"{name} is not a number in some rows; infinite where censored")
