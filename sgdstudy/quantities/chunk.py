"""What quantities see: a chunk of recorded steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from sgdstudy.problems.problem import Problem

EVERY = 10  # steps between two that get the costly quantities, where they are not exact
FEW = 4  # numbers of a vector: up to so many, a line of Python for each costs less than a call
AT_ONCE = 65_536  # numbers that are looked at in one go: they stay in the cache


class ByName(Protocol):
    """Arrays by name."""

    def __getitem__(self, name: str, /) -> np.ndarray:
        """Return one of them."""


@dataclass(frozen=True)
class Known:
    """A vector of every replica at some of S steps, or epochs; of the others nothing is known.

    Attributes:
        steps: their positions, `(k,)`.
        vectors: `(k, R, p)`.
        n_steps: S.
    """

    steps: np.ndarray
    vectors: np.ndarray
    n_steps: int

    @classmethod
    def at_all(cls, vectors: np.ndarray) -> Known:
        """Return vectors of every step, `(S, R, p)`."""
        return cls(np.arange(len(vectors)), vectors, len(vectors))

    def of(self, values: np.ndarray) -> np.ndarray:
        """Return those of values of all steps, `(S, ...)`, that are of these, `(k, ...)`.

        So of values of the first steps of epochs, `(E, ...)`, which these steps are then, too.
        """
        return values[self.steps // (self.n_steps // len(values))]

    def put(self, values: np.ndarray) -> np.ndarray:
        """Return values of these steps, `(k, ...)`, as those of all, `(S, ...)`: else NaN."""
        if len(values) == self.n_steps:
            return values
        found = np.full((self.n_steps, *values.shape[1:]), np.nan)
        found[self.steps] = values
        return found


@dataclass(frozen=True)
class Chunk:
    """S consecutive steps of R replicas; in float64 `w`, `w_next`, `gradient`, `full_gradient`.

    Attributes:
        path: parameters before each update and after the last, `(S+1, R, p)`, as recorded; where
            only `quantities.SPARING` are asked for, perhaps of the first step of each epoch only.
        slopes: gradient of the batch loss before each update, `(S, R, p)`, as recorded; or of the
            same steps.
        loss: batch loss at w, `(S, R)`.
        size: samples in the batch, `(S,)`.
        full: gradient of the whole loss at w, where it is known.
        w_start: parameters each replica started from, `(R, p)`.
        from_start: distance of w to them, `(S, R)`; None: not known yet.
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

    path: np.ndarray
    slopes: np.ndarray
    loss: np.ndarray
    size: np.ndarray
    full: Known
    w_start: np.ndarray
    w_true: np.ndarray | None
    lr: float | np.ndarray
    problem: Problem | None = None
    indices: Any = None
    step: np.ndarray | None = None
    every: int | None = None
    kept: Any = None
    from_start: np.ndarray | None = None
    statistics: ByName = field(default_factory=dict[str, np.ndarray])

    @cached_property
    def w(self) -> np.ndarray:
        """Parameters before each update, `(S, R, p)`, float64."""
        return self.path[:-1].astype(float)

    @cached_property
    def w_next(self) -> np.ndarray:
        """Parameters after each update, `(S, R, p)`, float64."""
        return self.path[1:].astype(float)

    @cached_property
    def gradient(self) -> np.ndarray:
        """Gradient of the batch loss at w, `(S, R, p)`, float64."""
        return self.slopes.astype(float)

    @cached_property
    def full_gradient(self) -> np.ndarray:
        """Gradient of the whole loss at w, `(S, R, p)`; NaN where it is not known."""
        return self.full.put(self.full.vectors)

    @cached_property
    def full_grad_norm(self) -> np.ndarray:
        """Norm of the gradient of the whole loss, `(S, R)`; NaN where it is not known."""
        return self.full.put(norm(self.full.vectors))

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


def norm(vectors: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
    """Euclidean norm over the last axis, in float64, of vectors, or of what they are off others.

    A part at a time, so that what is computed in between stays in the cache.
    """
    if vectors.ndim == 1:
        return norm(vectors[None], other)[0]
    if other is not None:
        other = np.broadcast_to(other, vectors.shape)
    found = np.empty(vectors.shape[:-1])
    by = max(1, AT_ONCE // max(1, vectors[:1].size))
    with np.errstate(over="ignore", invalid="ignore"):  # of what is too large, or no number
        for at in range(0, len(vectors), by):
            part = vectors[at : at + by]
            rest = None if other is None else other[at : at + by]
            if vectors.shape[-1] <= FEW:
                found[at : at + by] = _squares(part, rest)
            else:
                part = _off(part, rest)
                found[at : at + by] = np.einsum("...p,...p->...", part, part)
    return np.sqrt(found, out=found)


def _squares(vectors: np.ndarray, other: np.ndarray | None) -> np.ndarray:
    """Return the sums of up to four squares, (0 + 2) + (1 + 3): as einsum and compiled steps do."""
    parts = [np.zeros(vectors.shape[:-1]) for _ in range(2)]
    for j in range(vectors.shape[-1]):
        column = _off(vectors[..., j], None if other is None else other[..., j])
        parts[j % 2] += column * column
    return parts[0] + parts[1]


def _off(values: np.ndarray, other: np.ndarray | None) -> np.ndarray:
    """Return what values are off others, in float64; None: off 0."""
    if other is None:
        return values.astype(float, copy=False)
    return np.subtract(values, other, dtype=float)


def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a / b, NaN where b is 0."""
    with np.errstate(all="ignore"):
        quotient = np.asarray(a / b)
    none = b == 0
    if none.any():
        quotient[np.broadcast_to(none, quotient.shape)] = np.nan
    return quotient
