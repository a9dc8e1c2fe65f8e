"""Checks of what people give to `theory`, by the names of the arguments.

The modules of this package call each other unchecked: some of them thousands of times.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted, reason
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.problems.problem import Problem
from sgdstudy.problems.torch_state import own_state
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.theory.drift import SampleLaw
from sgdstudy.theory.order_batches import Batches

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
    "stationary_covariance",
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
        try:
            bound = signature.bind(*args, **named)
        except TypeError as error:
            raise _refused(function, error) from None
        for name, value in bound.arguments.items():
            counted = signature.parameters[name].annotation == "int" and name != "seed"
            bound.arguments[name] = checks.count(name, value) if counted else _named(name, value)
        if function.__name__ in MOVING and bound.arguments["lr"] == 0:
            raise InputError(f"lr must be above 0 for {function.__name__}: at 0 nothing moves")
        _check_together(bound.arguments)
        for name, value in bound.arguments.items():
            bound.arguments[name] = _annotated(name, value, signature.parameters[name].annotation)
        try:
            with own_state():
                return function(*bound.args, **bound.kwargs)
        except InputError:
            raise
        except (ArithmeticError, IndexError, ValueError, RuntimeError) as error:
            raise _refused(function, error) from error  # a TypeError is a mistake of ours

    return call  # type: ignore[return-value]


def _refused(function: Callable[..., Any], error: Exception) -> InputError:
    what = f"theory.{function.__name__} cannot use these arguments together"
    return InputError(f"{what} ({reason(error)})")


def _named(name: str, value: Any) -> Any:
    """Return a value, checked by what its name stands for in all functions."""
    if name in KINDS:
        kind, words = KINDS[name]
        if not isinstance(value, kind):
            raise InputError(f"{name} is {words}, not {quoted(value)}")
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


def _check_together(given: Mapping[str, Any]) -> None:
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


def _annotated(name: str, value: Any, annotation: str) -> Any:
    """Return a value, checked by its annotation: numbers, arrays of them, laws, epochs."""
    if value is None and annotation.endswith("| None"):
        return value
    if annotation == "int | None":
        return checks.count(name, value, least=0)
    if annotation.startswith("np.ndarray"):
        return step_rates(value) if name == "rates" else _numbers(name, value)
    if annotation in ("float", "float | np.ndarray"):
        _numbers(name, value)
    elif annotation.startswith("Callable"):
        if not callable(value):
            raise InputError(f"{name} is a function, not {quoted(value)}")
    elif annotation == "Law":
        if not isinstance(value, Mapping):
            raise InputError(f"{name} is a law, power -> factor; not {quoted(value)}")
        _numbers(name, list(value.items()))
    elif annotation == "SampleLaw":
        if not isinstance(value, SampleLaw):
            raise InputError(f"{name} is what theory.sample_law returns, not {quoted(value)}")
    elif annotation == "Iterable[Batches]":
        if not isinstance(value, Iterable):
            raise InputError(f"{name} is one Batches an epoch, not {quoted(value)}")
        return (_named("b", b) for b in value)
    return value


def _numbers(name: str, value: Any) -> np.ndarray:
    try:
        found = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # rows of different lengths; a tensor that learns
        found = np.empty(0, object)
    if found.dtype.kind not in "fiub":
        raise InputError(f"{name} holds numbers, not {quoted(value)}")
    return found


def _check_parameters(name: str, value: Any, p: int) -> None:
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (p,):  # those of a seed that diverged need not be finite
        raise InputError(f"{name} is {p} numbers, the parameters (p,); not {quoted(value)}")


def permutation(order: ArrayLike, d: int) -> np.ndarray:
    """Return an order that holds each of d samples once."""
    found = np.asarray(order)
    if found.shape != (d,) or not np.array_equal(np.sort(found), np.arange(d)):
        raise InputError(f"order holds each of the {d} samples once, from 0; got {quoted(order)}")
    return found


def step_rates(rates: Any) -> np.ndarray:
    """Return the step sizes of S steps, `(S,)`."""
    try:
        found = np.asarray(rates, dtype=float)
    except (TypeError, ValueError):
        found = np.empty((0, 0))
    if found.ndim != 1 or not (np.isfinite(found) & (found >= 0)).all():
        raise InputError(
            f"rates are the step sizes (S,), finite and at least 0; got {quoted(rates)}"
        )
    return found


def whole_sizes(sizes: Any, d: int, n: int) -> np.ndarray:
    """Return the batch sizes of n steps, or epochs, of d samples, `(n,)`."""
    found = np.asarray(sizes, dtype=float)
    if found.shape != (n,) or not ((found >= 1) & (found <= d) & (found % 1 == 0)).all():
        raise InputError(
            f"sizes are whole numbers from 1 to {d}, as many as the {n} rates; got {quoted(sizes)}"
        )
    return found.astype(int)
