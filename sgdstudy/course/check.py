"""A check of a gradient descent written by hand: what is wrong with it, in one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sgdstudy.course.judge import judge
from sgdstudy.course.notes import BATCH, D, Runner, kept_randomness
from sgdstudy.errors import InputError, unknown
from sgdstudy.language import say

EXERCISES = {
    "ex1": ("f", "w", "t", "eta", "epsilon", "nepoch"),
    "ex2": ("f", "w", "t", "eta", "epsilon", "nepoch"),
    "ex4": ("f", "w", "t", "eta", "epsilon", "nepoch", "minibatch"),
}


@dataclass(frozen=True, repr=False)
class Report:
    """What `check` found; prints one line per fault, or "correct".

    Attributes:
        faults: one line each; empty when the function is right.

    Example:
        >>> Report(("w never moves",))
        w never moves
        >>> Report().correct
        True
    """

    faults: tuple[str, ...] = ()

    @property
    def correct(self) -> bool:
        """Whether no fault was found."""
        return not self.faults

    def __str__(self) -> str:
        return "\n".join(self.faults) or say("correct")

    __repr__ = __str__


def check(function: Callable[..., Any], exercise: str) -> Report:
    """Run a gradient descent of one's own on small data and name its faults.

    Every update is compared with w - eta * grad L at the recorded w, L the mean squared error of
    the recorded batch; every stop with the losses of the recorded batches. Updates agree when
    they differ by less than 1e-4 of their size and 1e-6 of w: float32 rounds by less.

    Args:
        function: takes f, w, t, eta, epsilon, nepoch, and for Exercise 4 minibatch, in this order
            or under these names; w is to be changed in place.
        exercise: "ex1" or "ex2" (all samples in each step), or "ex4" (mini-batches).

    Returns:
        The report: its lines are shown when it is printed.

    Raises:
        InputError: an unknown exercise, or a function that does not take these arguments.

    Example:
        >>> def mine(f, w, t, eta, epsilon, nepoch):
        ...     for epoch in range(nepoch):
        ...         loss = ((f(w, t[:, 0]) - t[:, 1]) ** 2).mean()
        ...         loss.backward()
        ...         w.data += eta * w.grad
        ...         w.grad.zero_()
        ...         if loss < epsilon:
        ...             break
        >>> check(mine, "ex1")
        the step goes uphill: subtract eta times the gradient from w
    """
    if not callable(function):
        raise InputError(f"check takes a function, not {function!r}: check(my_sgd, 'ex4')")
    if not isinstance(exercise, str) or exercise not in EXERCISES:
        raise unknown("exercise", exercise, EXERCISES)
    run = Runner(function, EXERCISES[exercise])
    with kept_randomness():
        faults = judge(run, BATCH if exercise == "ex4" else D)
    return Report(tuple(dict.fromkeys(faults)))
