"""A chunk of steps: which it has, what they recorded, and whom it ends."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sgdstudy.quantities.chunk import Known
from sgdstudy.training.recorded import Recorded

REASONS = ("", "converged", "diverged")  # why a replica ended; in a state: their numbers


@dataclass(frozen=True)
class Span:
    """The steps of a chunk: E whole epochs of m batches, or m batches of one long epoch."""

    sizes: np.ndarray  # (m,)
    n_epochs: int
    first: int  # number of the first batch within its epoch
    complete: bool  # whether it ends at the end of an epoch

    @property
    def m(self) -> int:
        """Number of its batches in an epoch."""
        return len(self.sizes)


class Trace:
    """What a chunk's steps recorded, on the host; vectors of all its steps, or of one an epoch."""

    def __init__(self, recorded: Recorded) -> None:
        self.w = recorded.w.cpu().numpy()  # (k+1, R, p), the chunk's host sync
        self.loss = recorded.loss.cpu().numpy()  # (S, R)
        self.gradient = recorded.gradient.cpu().numpy()  # (k, R, p)
        self.grad_norm, self.update_norm, self.distance_start = recorded.norms  # (S, R)
        self.sums, self.every = recorded.sums, recorded.every

    def ends(self, span: Span) -> np.ndarray:
        """Return the parameters at the ends of its epochs, `(E, R, p)`."""
        m = span.m // self.every
        return self.w[m::m]

    def at(self, steps: np.ndarray, replicas: np.ndarray) -> np.ndarray:
        """Return the parameters of replicas, each before a step of its own, or after the last.

        Where they are not kept, the replica stood still from then on.
        """
        at: np.ndarray = self.w[-(-steps // self.every), replicas]
        return at

    @cached_property
    def diverged(self) -> np.ndarray:
        """The first step whose loss or gradient is not finite, else S, `(R,)`."""
        bad = ~np.isfinite(self.loss)
        doubtful = ~np.isfinite(self.grad_norm)
        if self.every == 1:  # in float64 the norm may be too large
            doubtful[doubtful] = ~np.isfinite(self.gradient[doubtful]).all(-1)
        bad |= doubtful
        return np.where(bad.any(0), bad.argmax(0), len(bad))


class Ends(NamedTuple):
    """What all the data say at the end of each epoch of a chunk."""

    loss: np.ndarray  # (E, R), NaN where it is not evaluated
    gradient: Known  # (E, R, p)
    accuracy: np.ndarray | None = None  # (E, R); None: it is not known yet, or there is none


class Whole(NamedTuple):
    """Loss and gradient of all the data: before each step, and at the end of each epoch."""

    loss: np.ndarray  # (S, R)
    gradient: Known  # (S, R, p)
    ends: Ends


class Verdict(NamedTuple):
    """Whom a chunk ends, by replica, `(R,)` each."""

    rows: np.ndarray  # steps of the chunk that it took
    done: np.ndarray  # epochs of the chunk that it ended
    outcome: np.ndarray  # why it ended, a place in `REASONS`; 0: it goes on


def verdict(span: Span, trace: Trace, stopped: np.ndarray) -> Verdict:
    """Return whom a chunk ends.

    Args:
        span: its steps.
        trace: what they recorded.
        stopped: the first epoch, from 0, whose stop rule holds, else E, `(R,)`.
    """
    m, n_steps, diverged = span.m, len(trace.loss), trace.diverged
    # a stop at the end of epoch e (from 0) leaves (e + 1) m rows; a divergence at s, s + 1
    by_stop = np.where(stopped < span.n_epochs, (stopped + 1) * m, n_steps)
    converged = (stopped < span.n_epochs) & (by_stop <= diverged)
    failed = ~converged & (diverged < n_steps)
    rows = np.where(failed, diverged + 1, by_stop)
    done = np.where(failed, diverged // m, rows // m) if span.complete else np.zeros_like(rows)
    return Verdict(rows, done, np.where(converged, 1, 2 * failed))
