"""Problems by name."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch

from sgdstudy import checks
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.problems.problem import Problem
from sgdstudy.problems.ready_made import (
    chebyshev,
    curve,
    diabetes,
    digits,
    ill_conditioned,
    legendre,
    staircase,
)
from sgdstudy.problems.torch_state import own_state

PROBLEMS: dict[str, Callable[[], Problem]] = {
    "curve": curve,
    "legendre": legendre,
    "ill_conditioned": ill_conditioned,
    "diabetes": diabetes,
    "digits": digits,
    "staircase": staircase,
    "chebyshev": chebyshev,
}
MODULES = ("digits", "chebyshev")  # they hold what a caller may change, and are made anew


@own_state()
def get(problem: Problem | str) -> Problem:
    """Return the problem, made with its defaults where a name of `PROBLEMS` is given."""
    if isinstance(problem, Problem):
        return problem
    checks.choice("problem", problem, PROBLEMS)
    return PROBLEMS[problem]() if problem in MODULES else _another(_made(problem))


@functools.cache
def _made(name: str) -> Problem:
    """Return a problem that is kept, and that no caller sees, with its moments."""
    problem = PROBLEMS[name]()
    assert problem.least_squares is not None
    return problem


def _another(problem: Problem) -> Problem:
    """Return the same problem with numbers of its own, not tried again."""
    other = copy.copy(problem)
    other.__dict__ |= {name: _own(value) for name, value in vars(problem).items()}
    return other


def _own(value: Any) -> Any:
    """Return a copy of numbers; else the value."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, tuple):  # the test data
        return tuple(map(_own, value))
    return copy.deepcopy(value) if isinstance(value, LeastSquares) else value
