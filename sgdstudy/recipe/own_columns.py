"""The columns that a run's own settings add or choose: diagnostics, measures, metrics of charts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted
from sgdstudy.recipe import columns

STEP_COLUMNS = tuple(column.name for column in columns.OF_STEPS)
MOST_METRICS = 8  # with live and the epochs' three, twelve keys in MLflow at the most
METRICS = columns.charted("steps")
LABELS = ("study", "arm", "run_id", "invocation")  # of loaded rows
TAKEN = {
    *(column.name for column in columns.INDEX),
    *STEP_COLUMNS,
    "lr",
    columns.CLOCK,
    "live",
    *LABELS,
}


def free_names(diagnostics: Collection[str]) -> Collection[str]:
    """Return the names of diagnostics, none of which is that of another column of `steps`."""
    for name in diagnostics:
        if name in TAKEN or re.fullmatch(r"w[0-9]+", name):
            raise InputError(
                f"a diagnostic is called {quoted(name)}, which is a column of steps; rename the "
                f"function, for instance my_{name}"
            )
    return diagnostics


def checked_measures(measures: Any) -> dict[str, Any]:
    """Return own measures, whose names are no other column's."""
    if not isinstance(measures, Mapping):
        raise InputError(f"measures is a dict, as {{'error': f}}, not {quoted(measures)}")
    for name, function in measures.items():
        checks.name("a measure's name", name)
        taken = {*TAKEN, *columns.EPOCHS, "w_true"}
        if name in taken or f"test_{name}" in taken or re.fullmatch(r"w[0-9]+|test_.*", name):
            raise InputError(
                f"a measure is called {quoted(name)}, which is a column, or its test data's would "
                f"be; rename it, for instance my_{name}"
            )
        if not re.fullmatch(r"\w+", name) or not callable(function):
            raise InputError(
                f"a measure is a word and a function of predictions and targets, as "
                f"{{'error': f}}, not {quoted({name: function})}"
            )
        checks.made(f"the measure {name!r}", function)
    return dict(measures)


def checked_metrics(
    metrics: Any, known: Sequence[str], seeds: Sequence[int], measures: Sequence[str]
) -> tuple[str, ...]:
    """Return the columns that MLflow gets, all of which the run has; None: see `TrainConfig`."""
    if metrics is None:
        return tuple(name for name in METRICS if name in known)[:MOST_METRICS]
    if not isinstance(metrics, (list, tuple)):
        hint = "; functions of one's own are measures" * isinstance(metrics, Mapping)
        raise InputError(
            f"metrics is a list of columns, as ['loss', 'alpha'], not {quoted(metrics)}{hint}"
        )
    for name in metrics:
        if not isinstance(name, str):
            raise InputError(f"a column for MLflow is a name, as 'loss', not {quoted(name)}")
        kind, column, which = columns.line(name)
        if not re.fullmatch(r"w[0-9]+", column):
            allowed = known if kind == "steps" else [*columns.EPOCHS, *measures]
            checks.choice(f"column of {kind} for MLflow", column, allowed)
        if which.startswith("seed") and int(which.removeprefix("seed")) not in seeds:
            raise InputError(f"the metric {name!r} is of a seed that the run does not have")
    return tuple(metrics)
