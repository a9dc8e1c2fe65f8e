"""What quantities see: a chunk of recorded steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from sgdstudy.problems.problem import Problem

EVERY = 10  # steps between two that get the costly quantities, where they are not exact


class ByName(Protocol):
    """Arrays by name."""

    def __getitem__(self, name: str, /) -> np.ndarray:
        """Return one of them."""


@dataclass(frozen=True)
class Chunk:
    """S consecutive steps of R replicas, in float64.

    Attributes:
        w: parameters before each update, `(S, R, p)`.
        w_next: parameters after it, `(S, R, p)`.
        gradient: gradient of the batch loss at w, `(S, R, p)`.
        loss: batch loss at w, `(S, R)`.
        size: samples in the batch, `(S,)`.
        full_gradient: gradient of the whole loss at w, `(S, R, p)`; NaN where it is not known.
        w_start: parameters each replica started from, `(R, p)`.
        w_true: parameters that made the data, `(p,)`, or by step `(S, 1, p)`; or None.
        lr: step size, or those of the steps, `(S, 1)`.
        problem: data, model and loss; None: what needs samples or curvature is NaN.
        indices: the samples of the steps one after the other, `(R, sum of size)`; None: all the
            data in every step.
        step: numbers of the steps, `(S,)`, from 0; None: these are the first.
        every: steps between two that get what needs samples or curvature; None: every step for
            least squares, every tenth else.
        kept: steps of which any row is kept, `(S,)`; None: all.
        statistics: what several quantities share, `(S, R)` by name; `compute` gives it to the
            quantities it calls, see `statistics.Statistics`.
    """

    w: np.ndarray
    w_next: np.ndarray
    gradient: np.ndarray
    loss: np.ndarray
    size: np.ndarray
    full_gradient: np.ndarray
    w_start: np.ndarray
    w_true: np.ndarray | None
    lr: float | np.ndarray
    problem: Problem | None = None
    indices: Any = None
    step: np.ndarray | None = None
    every: int | None = None
    kept: Any = None
    statistics: ByName = field(default_factory=dict[str, np.ndarray])

    @cached_property
    def scheduled(self) -> np.ndarray:
        """Steps that get what needs samples or curvature, `(S,)`."""
        every = self.every
        if every is None:
            exact = self.problem is not None and self.problem.least_squares is not None
            every = 1 if exact else EVERY
        step = np.arange(len(self.size)) if self.step is None else self.step
        on = step % every == 0
        return on if self.kept is None else on & self.kept

    def groups(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield the scheduled steps by batch size: positions `(s,)`, samples `(R, s, B)`.

        None for the samples: all the data.
        """
        if self.indices is None:
            yield np.flatnonzero(self.scheduled), None
            return
        indices = self.indices.cpu() if hasattr(self.indices, "cpu") else self.indices
        indices = np.asarray(indices)
        starts = np.cumsum(self.size) - self.size
        for size in np.unique(self.size):
            positions = np.flatnonzero((self.size == size) & self.scheduled)
            if len(positions) == len(self.size):  # one size, every step: no copy
                yield positions, indices.reshape(len(indices), -1, size)
            elif len(positions):
                yield positions, indices[:, starts[positions, None] + np.arange(size)]


def norm(vectors: np.ndarray) -> np.ndarray:
    """Euclidean norm over the last axis, without overflow for float32 values."""
    return np.sqrt(np.einsum("...p,...p->...", vectors, vectors))


def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a / b, NaN where b is 0."""
    with np.errstate(all="ignore"):
        quotient = np.asarray(a / b)
    none = b == 0
    if none.any():
        quotient[np.broadcast_to(none, quotient.shape)] = np.nan
    return quotient
