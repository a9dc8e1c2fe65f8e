"""When a run stops: a column of `epochs`, or a function of its row, whenever an epoch ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from sgdstudy import checks
from sgdstudy.errors import InputError, failed, quoted
from sgdstudy.language import say, to_say
from sgdstudy.recipe import columns

# rules by the names of the notebook's; any other column goes by its own
STOP_COLUMNS = {
    "running": "running_loss",
    "full": "full_loss",
    "last_batch": "last_loss",
    "grad_norm": "full_grad_norm",
}
RULES = {column: rule for rule, column in STOP_COLUMNS.items()}
CALLED = "()"  # after the name of a function, which is no column
Stop = tuple[str, float | None]
Function = Callable[[Mapping[str, float]], Any]  # of a row of `epochs`; True: stop


def settle(stop: Any, own: list[str]) -> Stop | Function | None:
    """Return a stop rule, checked; a column that has a rule's name goes by it.

    Args:
        stop: `(rule or column, epsilon)`, epsilon None where no better is what counts; a function
            of a row of `epochs`; or None.
        own: columns of own measures.

    Raises:
        InputError: none of these, no such column, or an epsilon that is not allowed.
    """
    if stop is None:
        return None
    if callable(stop):
        return stop
    if not isinstance(stop, (list, tuple)) or len(stop) != 2:
        raise InputError(
            f"stop is a pair (rule, epsilon), a function of an epoch's row, or None, not "
            f"{quoted(stop)}"
        )
    rule, epsilon = stop
    # not the clock: it differs from run to run
    known = [name for name in columns.EPOCHS if name not in RULES and name != columns.CLOCK]
    if isinstance(rule, str):
        rule = RULES.get(rule, rule)
    checks.choice("stop rule", rule, [*STOP_COLUMNS, *known, *own])
    if epsilon is None:
        return rule, None
    if rule in STOP_COLUMNS:
        return rule, checks.number("epsilon", epsilon)
    return rule, checks.number("epsilon", epsilon, lambda v: True, "finite")


def column_of(rule: str) -> str:
    """Return the column of `epochs` that a rule looks at."""
    return STOP_COLUMNS.get(rule, rule)


def text(stop: Stop | Function | None) -> tuple[str, float | None]:
    """Return the rule and the epsilon that are logged; a function's name is followed by `()`.

    >>> text(("full", 0.1)), text(None), text(len)
    (('full', 0.1), ('none', None), ('len()', None))
    """
    if callable(stop):
        return name_of(stop) + CALLED, None
    return stop or ("none", None)


def name_of(function: Function) -> str:
    """Return what a function is called."""
    return str(getattr(function, "__name__", type(function).__name__))


def in_words(rule: str, epsilon: Any, patience: Any) -> str:
    """Say when a run stops, of values or their text.

    >>> in_words("running", 0.1, 1), in_words("test_accuracy", 0.9, 3)
    ('until running < 0.1', 'until test_accuracy > 0.9 at 3 epochs in a row')
    >>> in_words("test_loss", None, 5)
    'until test_loss gets no better at 5 epochs in a row'
    >>> in_words("enough()", None, 1)
    'until enough() is true'
    """
    sign = ">" if columns.more_is_better(column_of(rule)) else "<"
    given = {"rule": rule, "bound": f"{sign} {epsilon}", "patience": str(patience)}
    if rule.endswith(CALLED):
        once = to_say("until {rule} is true")
        often = to_say("until {rule} is true at {patience} epochs in a row")
    elif str(epsilon) == "None":
        once = to_say("until {rule} gets no better")
        often = to_say("until {rule} gets no better at {patience} epochs in a row")
    else:
        once = to_say("until {rule} {bound}")
        often = to_say("until {rule} {bound} at {patience} epochs in a row")
    return say(once if str(patience) == "1" else often, **given)


class Watch(NamedTuple):
    """What a stop rule has seen of R replicas so far.

    Attributes:
        row: at how many epochs in a row it held, up to the last one, `(R,)`.
        best: the best value of the column, `(R,)`, as less is better.
    """

    row: np.ndarray
    best: np.ndarray

    @classmethod
    def of(cls, n: int) -> Watch:
        """Return what it has seen of n replicas before their first epoch."""
        return cls(np.zeros(n, np.int64), np.full(n, np.inf))

    def retain(self, live: np.ndarray) -> Watch:
        """Return the same of some replicas (positions)."""
        return Watch(self.row[live], self.best[live])


def look(values: np.ndarray, stop: Stop, patience: int, before: Watch) -> tuple[np.ndarray, Watch]:
    """Return the first epoch, from 0, whose end stops a replica, else E, `(R,)`; and what was seen.

    Args:
        values: of the rule's column, at the ends of E epochs, `(E, R)`.
        stop: the rule. Below epsilon, of accuracies and scores above it; without one, no better
            than the best so far. NaN is neither below nor above, and no better.
        patience: at how many epochs in a row.
        before: what was seen of the epochs before them.

    >>> look(np.array([[3.0], [1.0], [2.0], [1.0]]), ("test_loss", None), 2, Watch.of(1))[0]
    array([3])
    """
    rule, epsilon = stop
    sign = -1.0 if columns.more_is_better(column_of(rule)) else 1.0
    values = sign * values
    best = np.fmin.accumulate(np.concatenate([before.best[None], values]))
    held = ~(values < best[:-1]) if epsilon is None else values < sign * epsilon
    epoch, n = np.arange(len(values))[:, None], len(values)
    missed = np.concatenate([-1 - before.row[None], np.where(held, -1 - before.row, epoch)])
    row = epoch - np.maximum.accumulate(missed)[1:]
    ends = row >= patience
    return np.where(ends.any(0), ends.argmax(0), n), Watch(row[-1], best[-1])


def ask(
    function: Function,
    rows: Mapping[str, np.ndarray],
    there: np.ndarray,
    patience: int,
    before: Watch,
) -> tuple[np.ndarray, Watch]:
    """Return what `look` does, of a function of an epoch's row.

    It is asked about the epochs in their order, and about none after the one that stops a seed.

    Args:
        function: the rule.
        rows: the columns of E epochs, `(E, R)` each; `(E, 1)` and `(1, R)` broadcast.
        there: how many of these epochs a replica has, `(R,)`.
        patience: at how many epochs in a row.
        before: what was seen of the epochs before them.

    Raises:
        InputError: it fails, or returns something else than True or False.

    >>> loss = np.array([[3.0], [1.0]])
    >>> ask(lambda row: row["loss"] < 2, {"loss": loss}, np.array([2]), 1, Watch.of(1))[0]
    array([1])
    """
    n, row = max(map(len, rows.values())), before.row.copy()
    every = {name: np.broadcast_to(values, (n, len(row))) for name, values in rows.items()}
    first = np.full(len(row), n)
    for epoch in range(n):
        for r in np.flatnonzero((epoch < there) & (first == n)):
            found = _answer(function, {name: v[epoch, r].item() for name, v in every.items()})
            row[r] = row[r] + 1 if found else 0
            first[r] = epoch if row[r] >= patience else n
    return first, before._replace(row=row)


def _answer(function: Function, row: dict[str, Any]) -> bool:
    name = f"the stop rule {name_of(function)!r}"
    try:
        found = function(row)
    except Exception as error:
        there = f"; a row has {', '.join(row)}" if isinstance(error, KeyError) else ""
        raise InputError(f"{failed(name, error)}{there}") from error
    return checks.truth(f"what {name} returns", found)


def recorded(params: Mapping[str, Any]) -> tuple[Stop | None, int]:
    """Return the stop rule and the patience of a run's params, as numbers or text.

    Raises:
        InputError: the rule is a function, of which a store has the name alone.
    """
    rule, epsilon, patience = (params.get(name) for name in ("stop", "epsilon", "patience"))
    if rule is None or rule == "none":
        return None, 1
    if str(rule).endswith(CALLED):
        raise InputError(
            f"the run stops by a function, {rule}, and its rows do not tell where; compare "
            f"histories, or name a column of epochs"
        )
    return (str(rule), _number(epsilon)), int(_number(patience) or 1)


def _number(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return None if np.isnan(found) else found
