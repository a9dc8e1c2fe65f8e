"""About how long a sweep takes: from a short trial of its first combination."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from sgdstudy.language import say as in_words
from sgdstudy.recipe import draw_cache
from sgdstudy.sweeps.plan import Combination
from sgdstudy.training.train import train

if TYPE_CHECKING:
    from sgdstudy.studies.arm import Arm

TRACK_SECONDS = 0.05  # of a run, in MLflow
START_SECONDS = 5.0
TRIAL_SECONDS = 0.2


def estimate(todo: list[Combination], jobs: int) -> str:
    """Say how many combinations there are and about how long they take, from a short trial."""
    if not todo:
        return in_words("0 combinations: all are finished")
    once, per_step = _trial(todo[0].arm)
    steps = sum(c.arm.n_steps * len(c.arm.config.seeds) for c in todo)
    trained, tracked = per_step * steps + once * len(todo), TRACK_SECONDS * len(todo)
    total = START_SECONDS + max((trained + tracked) / jobs, tracked)  # one process tracks
    text = in_words(
        "{n} combination, at most {steps} steps over all seeds",
        "{n} combinations, at most {steps} steps over all seeds",
        n=len(todo),
        steps=steps,
    )
    return in_words(
        "{text}: about {time:.0f} s on {n} process",
        "{text}: about {time:.0f} s on {n} processes",
        text=text,
        time=total,
        n=jobs,
    )


def _trial(arm: Arm) -> tuple[float, float]:
    """Return about how many seconds a run takes whatever its length, and how many a step."""
    whole = arm.config.n_epochs(arm.problem.d)
    epochs, seconds = min(2, whole), 0.0
    timed: list[tuple[float, int]] = []
    with draw_cache.shared():
        while True:
            config = replace(arm.config.of_epochs(epochs), stop=None, patience=1)
            for _ in range(2):  # the first compiles, and draws the orders
                started = time.perf_counter()
                steps = int(train(arm.problem, config=config, progress=False).n_steps.sum())
                seconds = time.perf_counter() - started
            timed.append((seconds, max(1, steps)))
            if seconds > TRIAL_SECONDS or epochs == whole:
                break
            epochs = min(4 * epochs, whole)
    (short, few), (long, many) = timed[0], timed[-1]
    if many == few:
        return 0.0, long / many
    per_step = max(0.0, long - short) / (many - few)
    return max(0.0, short - per_step * few), per_step
