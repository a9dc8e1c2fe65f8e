"""Checks of what people give to `theory`, by the names of the arguments.

The modules of this package call each other unchecked: some of them thousands of times.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from sgdstudy import checks
from sgdstudy.errors import InputError, reason, shown
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.theory.fixed_order import Batches

KINDS = {
    "ls": (LeastSquares, "moments, as problem.least_squares"),
    "problem": (Problem, "a Problem"),
    "config": (TrainConfig, "a TrainConfig"),
    "b": (Batches, "batches, as theory.batches(problem, config)"),
}
POSITIVE = ("low", "high", "time", "n")
MOVING = {  # what a step size of 0 has no answer to: nothing settles, and nothing stops moving
    "critical_size_of_lr",
    "fixed_point",
    "fixed_point_loss",
    "float32_floor",
    "stationary_excess",
    "stationary_tracking",
    "tracking_terms",
}
Function = TypeVar("Function", bound=Callable[..., Any])


def checked(function: Function) -> Function:
    """Return the function with its arguments checked first."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        bound = signature.bind(*args, **named)
        for name, value in bound.arguments.items():
            counted = signature.parameters[name].annotation == "int" and name != "seed"
            bound.arguments[name] = checks.count(name, value) if counted else _one(name, value)
        if function.__name__ in MOVING and bound.arguments["lr"] == 0:
            raise InputError(f"lr must be above 0 for {function.__name__}: at 0 nothing moves")
        _together(bound.arguments)
        try:
            return function(*bound.args, **bound.kwargs)
        except InputError:
            raise
        except (ArithmeticError, IndexError, TypeError, ValueError, RuntimeError) as error:
            what = f"theory.{function.__name__} cannot use these arguments together"
            raise InputError(f"{what} ({reason(error)})") from error

    return call  # type: ignore[return-value]


def _one(name: str, value: Any) -> Any:
    if name in KINDS:
        kind, words = KINDS[name]
        if not isinstance(value, kind):
            raise InputError(f"{name} is {words}, not {shown(value)}")
    elif name == "lr":  # 0: the parameters stay where they are
        return checks.number(name, value, lambda v: v >= 0, "at least 0 and finite")
    elif name == "seed":
        return checks.seed(value)
    elif name in POSITIVE:
        return checks.number(name, value)
    elif name == "epsilon":
        return checks.number(name, value, lambda v: True, "finite")
    elif name == "momentum":
        return checks.number(name, value, lambda v: 0 <= v < 1, "at least 0 and below 1")
    elif name == "confidence":
        return checks.number(name, value, lambda v: 0 < v < 1, "between 0 and 1, as 0.95")
    return value


def _together(given: Mapping[str, Any]) -> None:
    ls, d = given.get("ls"), given.get("d")
    d = given["problem"].d if "problem" in given else d
    if ls is not None and d is not None and len(ls.residual) != d * ls.outputs:
        rows = f"{len(ls.residual)} rows" + (f", {ls.outputs} a sample" if ls.outputs > 1 else "")
        raise InputError(f"d is the number of samples, not {d}: there are {rows}")
    if d is not None and given.get("batch_size", 1) > d:
        raise InputError(f"batch_size {given['batch_size']} is more than the {d} samples")
    if "low" in given and given["low"] >= given["high"]:
        raise InputError(f"low must be below high, got {given['low']:g} and {given['high']:g}")
    for name in ("w0", "w"):
        if ls is not None and name in given:
            _check_parameters(name, given[name], len(ls.w_star))


def _check_parameters(name: str, value: Any, p: int) -> None:
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (p,):  # those of a seed that diverged need not be finite
        raise InputError(f"{name} is {p} numbers, the parameters (p,); not {shown(value)}")


def permutation(order: Any, d: int) -> np.ndarray:
    """Return an order that holds each of d samples once."""
    found = np.asarray(order)
    if found.shape != (d,) or not np.array_equal(np.sort(found), np.arange(d)):
        raise InputError(f"order holds each of the {d} samples once, from 0; got {shown(order)}")
    return found
