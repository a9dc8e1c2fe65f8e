"""Runs that go on together: alone, or side by side, whose gradients are evaluated in one batch."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sgdstudy.training.chunk import Trace
from sgdstudy.training.engines import Eager, steps_beside
from sgdstudy.training.run import Run


def advance(runs: Sequence[Run]) -> None:
    """Run the next chunk: of one run, or of several that stand at the same place.

    Args:
        runs: of one problem; several have eager engines, and batches of equal sizes.
    """
    most = min(run.most_steps() for run in runs)
    span = runs[0].span(most, min(run.most_ends() for run in runs))
    ahead = [run.ahead(span) for run in runs]
    started = time.perf_counter()
    if len(runs) == 1:
        taken = [runs[0].engine.steps(*ahead[0])]
    else:
        taken = steps_beside([run.engine for run in runs if isinstance(run.engine, Eager)], ahead)
    traces = [Trace(recorded) for _, _, recorded in taken]
    seconds = (time.perf_counter() - started) / len(traces[0].loss)
    # all before any is read: a function of the user's may draw then
    for run, one in zip(runs, taken, strict=True):
        run.arrive(span, one, started, seconds)
    for run, trace in zip(runs, traces, strict=True):
        run.settle(span, trace)
