"""The check of Exercise 3: what a function prints of the batches of a DataLoader."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from sgdstudy.course.limits import TooLong, time_limit
from sgdstudy.course.mends import describe, place
from sgdstudy.course.notes import BATCH, D, X, Y, silence, too_long
from sgdstudy.language import say, to_say

NUMBER = re.compile(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?")
WRITTEN = 1e-5  # rounding of "%f", which has six decimals


class _Loader(DataLoader):  # type: ignore[type-arg]
    """A DataLoader that notes the batches which it gives out."""

    def __init__(self) -> None:
        points = torch.tensor(np.stack([X, Y], 1))
        super().__init__(points, batch_size=BATCH, shuffle=True)  # type: ignore[arg-type]
        self.__dict__["passes"] = []

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches: list[np.ndarray] = []
        self.__dict__["passes"].append(batches)
        for data in super().__iter__():
            batches.append(data.double().numpy().copy())
            yield data


def judge_lines(function: Callable[..., Any], seconds: float) -> list[str]:
    """Return the faults of a function that prints a line for each sample of each batch.

    Args:
        function: takes the loader.
        seconds: it is ended after these.
    """
    loader, printed = _Loader(), io.StringIO()
    with silence(printed):
        try:
            with time_limit(seconds):
                function(loader)
        except TooLong as over:
            return [too_long(place(function, over), seconds)]
        except (Exception, SystemExit) as raised:
            return [describe(function, raised)]
    rows = [[float(n) for n in NUMBER.findall(line)] for line in printed.getvalue().splitlines()]
    rows = [row for row in rows if row]
    passes: list[list[np.ndarray]] = loader.__dict__["passes"]
    if not rows:
        return [say(LINES["none"])]
    if not passes:
        return [say(LINES["no loader"])]
    if min(map(len, rows)) < 4:
        return [say(LINES["numbers"])]
    return _compare(np.array([[*row[:2], *row[-2:]] for row in rows]), passes)


def _compare(rows: np.ndarray, passes: list[list[np.ndarray]]) -> list[str]:
    """Compare the lines `(n, 4)` with the batches that were given out."""
    if len(passes) > 1:
        return [say(LINES["again"])]
    (batches,) = passes
    whole = np.concatenate([*batches, np.empty((0, 2))])
    if len(rows) != len(whole) or len(whole) != D:
        some = say(
            "{n} line is printed, where {d} are due: one for each sample of each batch, the last, "
            "smaller batch too",
            "{n} lines are printed, where {d} are due: one for each sample of each batch, the "
            "last, smaller batch too",
            n=len(rows), d=D,
        )  # fmt: skip
        return [some]
    faults = []
    if not np.allclose(rows[:, 2:], whole, atol=WRITTEN):
        swapped = np.allclose(rows[:, :1:-1], whole, atol=WRITTEN)
        faults.append(say(LINES["swapped" if swapped else "values"]))
    i = np.concatenate([np.full(len(data), k) for k, data in enumerate(batches)])
    j = np.concatenate([np.arange(len(data)) for data in batches])
    first, second = ([value - rows[0, k] for value in rows[:, k]] for k in (0, 1))
    if np.array_equal(first, j) and np.array_equal(second, i):
        return [*faults, say(LINES["exchanged"])]
    if not np.array_equal(first, i):
        faults.append(say(LINES["batch"]))
    if np.array_equal(second, np.arange(D)):
        faults.append(say(LINES["goes on"]))
    elif not np.array_equal(second, j):
        faults.append(say(LINES["sample"]))
    return faults


LINES = {
    "none": to_say("nothing is printed: print a line for each sample of each batch"),
    "no loader": to_say("the loader is never gone through: `for i, data in enumerate(loader):`"),
    "numbers": to_say(
        "a line has fewer than four numbers: print batch, sample, x and y, as the exercise does"
    ),
    "again": to_say(
        "the loader is started more than once, and shuffles anew each time: go through it in one "
        "loop, `for i, data in enumerate(loader):`"
    ),
    "swapped": to_say("x and y are swapped: of a row of a batch the first is x, the second y"),
    "values": to_say("the x and y of the lines are not those of the batches, in their order"),
    "exchanged": to_say("the numbers of batch and sample are exchanged: first the batch, i"),
    "batch": to_say("the number of the batch is wrong: it goes up by one with each batch"),
    "goes on": to_say(
        "the number of the sample goes on from batch to batch: it begins anew in each"
    ),
    "sample": to_say("the number of the sample is wrong: it goes up by one within a batch"),
}
