"""A check of a gradient descent written by hand: what is wrong with it, in one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sgdstudy import checks
from sgdstudy.course.enumeration import judge_lines
from sgdstudy.course.judge import judge
from sgdstudy.course.notes import BATCH, D, Runner, kept_randomness, misfit
from sgdstudy.course.steps import PLAIN
from sgdstudy.errors import InputError, quoted
from sgdstudy.language import say, to_say, unknown
from sgdstudy.text import legible

SECONDS = 10.0


@dataclass(frozen=True)
class Exercise:
    """What an exercise asks for.

    Attributes:
        name: of the function.
        arguments: that it takes, in this order or under these names.
        batch: samples in each step.
        rule: of torch.optim.
        stops: what may be compared with epsilon.
    """

    name: str
    arguments: tuple[str, ...]
    batch: int = BATCH
    rule: str = PLAIN
    stops: frozenset[str] = frozenset({"running"})


FULL = Exercise(
    "sgd", ("f", "w", "t", "eta", "epsilon", "nepoch"), D, stops=frozenset({"running", "full"})
)
EXERCISES = {
    "ex1": FULL,
    "ex2": FULL,
    "ex3": Exercise("enumerate_batches", ("trainloader",)),
    "ex4": Exercise("sgd", ("f", "w", "t", "eta", "epsilon", "nepoch", "minibatch")),
    # the notebook's own stop looks at the last batch
    "ex5": Exercise(
        "sgd", ("f", "w", "t", "lr", "epsilon", "nepoch", "minibatch"),
        rule="RMSprop", stops=frozenset({"running", "last"}),
    ),
}  # fmt: skip


@dataclass(frozen=True, repr=False)
class Report:
    """What `check` found; prints one line per fault, or "correct". True if the function is right.

    Attributes:
        faults: one line each; empty when the function is right.
        exercise: that was asked for.

    Example:
        >>> Report(("w never moves",))
        w never moves
        >>> bool(Report()), Report((), "ex4").as_dict()
        (True, {'exercise': 'ex4', 'correct': True, 'faults': []})
    """

    faults: tuple[str, ...] = ()
    exercise: str = ""

    @property
    def correct(self) -> bool:
        """Whether no fault was found."""
        return not self.faults

    def __bool__(self) -> bool:
        return self.correct

    def __str__(self) -> str:
        return legible("\n".join(self.faults) or say("correct"))

    __repr__ = __str__

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {
            "exercise": self.exercise, "correct": self.correct, "faults": list(self.faults)
        }  # fmt: skip


def check(function: Callable[..., Any], exercise: str, seconds: float = SECONDS) -> Report:
    """Run a function written for an exercise on small data and name its faults.

    Every update is compared with what the exercise asks for, w - eta * grad L at the recorded w,
    L the mean squared error of the recorded batch, or RMSprop's; every stop with the losses of
    the recorded batches. Updates agree when they differ by less than 1e-4 of their size and 1e-6
    of w: float32 rounds by less. Of Exercise 5 both the running loss and the last batch's, which
    the notebook looks at, may end it.

    Args:
        function: takes f, w, t, eta, epsilon, nepoch, for Exercises 4 and 5 minibatch too, in
            this order or under these names (of Exercise 5 lr instead of eta); w is to be changed
            in place. Of Exercise 3: takes the loader, and prints a line with batch, sample, x and
            y for each sample.
        exercise: "ex1" or "ex2" (all samples in each step), "ex3" (the batches), "ex4"
            (mini-batches), "ex5" (RMSprop).
        seconds: a function that takes longer in all is ended, where Python lets it.

    Returns:
        The report: its lines are shown when it is printed; it is true where there are none.

    Raises:
        InputError: an unknown exercise, or what is not a function.

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
        text = to_say("check takes a function, not {given}: check(my_sgd, 'ex4')")
        raise InputError(say(text, given=quoted(function)))
    if not isinstance(exercise, str) or exercise not in EXERCISES:
        raise unknown(to_say("exercise"), exercise, EXERCISES)
    asked, seconds = EXERCISES[exercise], checks.number("seconds", seconds)
    if fault := misfit(function, asked.name, asked.arguments):
        return Report((fault,), exercise)
    with kept_randomness():
        if exercise == "ex3":
            faults = judge_lines(function, seconds)
        else:
            run = Runner(function, asked.arguments, seconds)
            faults = judge(run, asked.batch, asked.rule, asked.stops)
    return Report(tuple(dict.fromkeys(faults)), exercise)
