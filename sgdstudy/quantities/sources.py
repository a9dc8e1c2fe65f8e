"""Where the statistics of a problem come from: closed forms, or torch.func."""

from __future__ import annotations

from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np

from sgdstudy.problems.problem import Problem
from sgdstudy.quantities.autograd import Autograd
from sgdstudy.quantities.chunk import Chunk
from sgdstudy.quantities.linear import Linear


class Source(Protocol):
    """Where statistics come from: closed forms, or torch.func."""

    def batch(self, chunk: Chunk, wanted: frozenset[str]) -> dict[str, np.ndarray]:
        """Return statistics of the batches, `(S, R)` each, NaN off the schedule."""

    def full(self, chunk: Chunk, wanted: frozenset[str]) -> dict[str, np.ndarray]:
        """Return statistics of all the data, `(S, R)` each, NaN where they are not known."""


_sources: WeakKeyDictionary[Problem, Source] = WeakKeyDictionary()


def source_of(problem: Problem) -> Source:
    """Return where the statistics of a problem come from, made once."""
    if problem not in _sources:
        if problem.least_squares is not None:
            _sources[problem] = Linear(problem.least_squares, problem.d)
        else:
            _sources[problem] = Autograd(problem)
    return _sources[problem]
