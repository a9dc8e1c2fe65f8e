"""Step sizes that some seeds choose and others judge, and how much the choice matters.

Both work on a long table: one row for each way of training (the columns `by`), step size `lr` and
`seed`, with the time to a target, infinite where it was never met. The seeds that choose have to
be others than those that are reported, else the best of many step sizes looks better than it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sgdstudy import checks
from sgdstudy.errors import InputError
from sgdstudy.theory.medians import median, median_interval

EDGES = ("", "lowest", "highest")


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
    _check(rows, by, columns)
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
    _check(rows, by, [value])
    found = []
    for key, group in rows.groupby([*by, "lr"], sort=False):
        values = group[value].to_numpy(float)
        low, high = median_interval(values, confidence)
        reached = int(np.isfinite(values).sum())
        found.append((*key, median(values), low, high, reached, len(values)))
    names = [*by, "lr", "median", "low", "high", "reached", "seeds"]
    return pd.DataFrame(found, columns=names)


def _check(rows: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> None:
    """Raise `InputError` where the table lacks a column, or holds what is no number."""
    for name in (*by, "lr", "seed", *values):
        checks.choice("column", name, list(map(str, rows.columns)))
    for name in values:
        if rows[name].isna().any():
            raise InputError(f"{name} is not a number in some rows; infinite where censored")
