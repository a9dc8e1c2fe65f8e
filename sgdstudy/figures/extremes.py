"""Choosing the few points of a long series that a chart can show."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

# the UI asks for 320 points a key; the rest is left for points sent while a long run is going on
FINAL_POINTS = 256
ONSET_SHARE = 4  # one of so many points is for the beginning: a logarithmic axis shows it widest


class Extremes:
    """Keep the minimum and the maximum of every stretch of a series of any length.

    Points are chosen, never averaged, so that spikes survive. Stretches are 2^k steps long and
    merge as the series grows: memory is bounded, and the result does not depend on how the series
    was cut into calls of `add`. Besides, the first point from each step of `onset` on is kept, for
    a logarithmic axis.
    """

    def __init__(self, limit: int = FINAL_POINTS) -> None:
        self.limit = limit
        self._onset = onset(limit // ONSET_SHARE)
        self._steps = np.empty(0, dtype=np.int64)
        self._values = np.empty(0)
        self._ends: list[tuple[int, float]] = []  # the first and the last point

    def add(self, steps: np.ndarray, values: np.ndarray) -> None:
        """Add points, in the order of their steps; those that are not finite are left out."""
        finite = np.isfinite(values)
        steps, values = steps[finite], values[finite]
        if len(steps) == 0:
            return
        last = (int(steps[-1]), float(values[-1]))
        first = self._ends[0] if self._ends else (int(steps[0]), float(values[0]))
        self._ends = [first, last]
        self._steps = np.concatenate([self._steps, steps])
        self._values = np.concatenate([self._values, values])
        if len(self._steps) > 4 * self.limit:
            self._steps, self._values = self._reduced(2 * self.limit)

    def points(self) -> list[tuple[int, float]]:
        """Return at most `limit` points, in the order of their steps."""
        steps, values = self._reduced(self.limit - 2)
        chosen = dict(zip(steps.tolist(), values.tolist(), strict=True)) | dict(self._ends)
        return sorted(chosen.items())

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return all that is kept, steps and values, the first and the last point at their end."""
        steps, values = zip(*self._ends, strict=True) if self._ends else ((), ())
        return {
            "steps": np.concatenate([self._steps, np.array(steps, dtype=np.int64)]),
            "values": np.concatenate([self._values, np.array(values, dtype=float)]),
        }

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what another one kept."""
        steps, values = state["steps"], state["values"]
        self._steps, self._values = steps[:-2], values[:-2]
        self._ends = list(zip(steps[-2:].tolist(), values[-2:].tolist(), strict=True))

    def _reduced(self, limit: int) -> tuple[np.ndarray, np.ndarray]:
        steps, values, width = self._steps, self._values, 1
        while len(steps) > limit:
            width *= 2
            stretch = steps // width
            order = np.lexsort((values, stretch))  # in each stretch: from lowest to highest
            edge = np.flatnonzero(np.diff(stretch[order]))
            ends = np.concatenate([order[:1], order[edge], order[edge + 1], order[-1:]])
            first = np.searchsorted(steps, self._onset)
            kept = np.unique(np.concatenate([ends, first[first < len(steps)]]))
            steps, values = steps[kept], values[kept]
        return steps, values


def onset(count: int) -> np.ndarray:
    """Return the first steps of a grid: each one up to 4, then each a third above the one before.

    >>> onset(8).tolist()
    [1, 2, 3, 4, 6, 8, 11, 15]
    """
    steps = [1]
    while len(steps) < count and steps[-1] < 2**50:
        steps.append(max(steps[-1] + 1, math.ceil(steps[-1] * 4 / 3)))
    return np.array(steps, dtype=np.int64)
