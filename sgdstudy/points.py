"""Choosing the few points of a long run that the MLflow UI can show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgdstudy.record import Rows

EPOCH_METRICS = ("running_loss", "full_loss", "distance")
PREFIX = {"steps": "batch", "epochs": "epoch"}
AXIS = {"steps": "step", "epochs": "epoch"}
# the UI asks for 320 points a key; the rest is left for points sent while a long run is going on
FINAL_POINTS = 256
INTERIM_POINTS = 64


class Extremes:
    """Keep the minimum and the maximum of every stretch of a series of any length.

    Points are chosen, never averaged, so that spikes survive. Stretches are 2^k steps long and
    merge as the series grows: memory is bounded, and the result does not depend on how the series
    was cut into calls of `add`.
    """

    def __init__(self, limit: int = FINAL_POINTS) -> None:
        self.limit = limit
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

    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all that is kept, steps and values, the first and the last point at their end."""
        steps, values = zip(*self._ends, strict=True) if self._ends else ((), ())
        all_steps = np.concatenate([self._steps, np.array(steps, dtype=np.int64)])
        return all_steps, np.concatenate([self._values, np.array(values, dtype=float)])

    def restore(self, steps: np.ndarray, values: np.ndarray) -> None:
        """Go on from what another one kept."""
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
            kept = np.unique(ends)
            steps, values = steps[kept], values[kept]
        return steps, values


class Series:
    """The points that MLflow gets of a run's rows: by key, the medians over the live seeds.

    Args:
        metrics: the columns of `steps` that it gets; of `epochs`, it gets `EPOCH_METRICS`.
    """

    def __init__(self, metrics: Sequence[str]) -> None:
        self._metrics = {"steps": tuple(metrics), "epochs": EPOCH_METRICS}
        self._series: dict[str, Extremes] = {}

    def add(self, kind: str, rows: Rows) -> None:
        """Take a block of `steps` or of `epochs`."""
        keep = rows.keep
        if not keep.any():
            return
        axis = np.broadcast_to(rows.columns[AXIS[kind]], keep.shape)[:, 0]
        present = keep.any(1)
        for name in self._metrics[kind]:
            if name in rows.columns:
                median = median_over_live(rows.columns[name], keep)
                self._add(f"{PREFIX[kind]}/{name}", axis[present], median[present])
        if kind == "steps" and keep.shape[1] > 1:
            self._add("batch/live", axis[present], keep.sum(1)[present].astype(float))

    def points(self) -> list[tuple[str, int, float]]:
        """Return the chosen points: key, step, value."""
        return [(key, *point) for key, kept in self._series.items() for point in kept.points()]

    def latest(self) -> list[tuple[str, int, float]]:
        """Return the last point of every key."""
        return [(key, *point) for key, kept in self._series.items() for point in kept.points()[-1:]]

    def state(self) -> dict[str, np.ndarray]:
        """Return what `restore` needs."""
        found = {}
        for key, kept in self._series.items():
            found[f"{key}.steps"], found[f"{key}.values"] = kept.state()
        return found

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what another one had taken."""
        for name in state:
            key, _, kind = name.rpartition(".")
            if kind == "steps":
                self._series[key] = Extremes()
                self._series[key].restore(state[name], state[f"{key}.values"])

    def _add(self, key: str, steps: np.ndarray, values: np.ndarray) -> None:
        self._series.setdefault(key, Extremes()).add(steps, values)


def median_over_live(values: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Return the median of `(S, R)` over the places marked in `keep`, `(S,)`; NaN where none.

    >>> median_over_live(np.array([[1.0, 3.0, 9.0]]), np.array([[True, True, False]]))
    array([2.])
    """
    values = np.broadcast_to(values, keep.shape)
    if keep.shape[1] == 1:
        return np.where(keep[:, 0], values[:, 0], np.nan)
    ranked = np.sort(np.where(keep, values, np.nan), axis=1)  # NaN goes last
    count = np.maximum(keep.sum(1), 1)
    rows = np.arange(len(ranked))
    with np.errstate(invalid="ignore", over="ignore"):
        return (ranked[rows, (count - 1) // 2] + ranked[rows, count // 2]) / 2
