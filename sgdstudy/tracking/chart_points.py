"""Choosing the few points of a long run that the MLflow UI can show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgdstudy.figures.extremes import Extremes
from sgdstudy.history.rows import AXIS, Rows
from sgdstudy.recipe.columns import OF_EPOCH, PREFIX, charted, line

INTERIM_POINTS = 64


class Series:
    """The points that MLflow gets of a run's rows: by key, the medians over the live seeds.

    Args:
        metrics: the columns of `steps` that it gets, or bands and single seeds, see
            `columns.line`; of `epochs`, it gets `columns.charted` and those named here.
    """

    def __init__(self, metrics: Sequence[str]) -> None:
        wanted = {"steps": [], "epochs": list(charted("epochs"))}
        for name in metrics:
            wanted[line(name)[0]].append(name.removeprefix(OF_EPOCH))
        self._metrics = {kind: tuple(dict.fromkeys(names)) for kind, names in wanted.items()}
        self._series: dict[str, Extremes] = {}

    def add(self, kind: str, rows: Rows) -> None:
        """Take a block of `steps` or of `epochs`."""
        keep = rows.keep
        if not keep.any():
            return
        axis = np.broadcast_to(rows.columns[AXIS[kind]], keep.shape)[:, 0]
        present = keep.any(1)
        for name in self._metrics[kind]:
            column, which = (name, "") if name in rows.columns else line(name)[1:]
            if column in rows.columns:
                values, there = _of_seeds(rows, rows.columns[column], which)
                self._add(f"{PREFIX[kind]}/{name}", axis[there], values[there])
        if kind == "steps" and keep.shape[1] > 1:
            self._add("batch/live", axis[present], keep.sum(1)[present].astype(float))

    def points(self) -> list[tuple[str, int, float]]:
        """Return the chosen points: key, step, value."""
        return [(key, *point) for key, kept in self._series.items() for point in kept.points()]

    def latest(self) -> list[tuple[str, int, float]]:
        """Return the last point of every key."""
        return [(key, *point) for key, kept in self._series.items() for point in kept.points()[-1:]]

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return what `load_state_dict` needs."""
        found: dict[str, np.ndarray] = {}
        for key, kept in self._series.items():
            found |= {f"{key}.{name}": values for name, values in kept.state_dict().items()}
        return found

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what another one had taken."""
        for key in {name.rpartition(".")[0]: None for name in state}:  # each key once, in order
            self._series[key] = Extremes()
            kept = {name: state[f"{key}.{name}"] for name in ("steps", "values")}
            self._series[key].load_state_dict(kept)

    def _add(self, key: str, steps: np.ndarray, values: np.ndarray) -> None:
        self._series.setdefault(key, Extremes()).add(steps, values)


def _of_seeds(rows: Rows, values: np.ndarray, which: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a column `(S,)` of the seeds that `columns.line` says, and where it has one."""
    keep = rows.keep
    if not which:
        return median_over_live(values, keep), np.asarray(keep.any(1))
    values = np.broadcast_to(values, keep.shape)
    if which.startswith("seed"):
        own = np.broadcast_to(rows.columns["seed"], keep.shape)[0] == int(which[4:])
        there = np.asarray(keep[:, own].any(1))
        return np.where(there, values[:, own].sum(1), np.nan), there
    ranked, count = np.sort(np.where(keep, values, np.nan), axis=1), keep.sum(1)
    place = np.maximum(np.ceil(int(which[1:]) * count / 100).astype(int), 1) - 1
    return ranked[np.arange(len(ranked)), place], count > 0


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
        middle: np.ndarray = (ranked[rows, (count - 1) // 2] + ranked[rows, count // 2]) / 2
    return middle
