"""What study_batch_growth is made of: cases, names of arms, excess losses and their ratios."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

import sgdstudy as ss

PHASES = (1, 2, 3)  # thirds of a run: before, between and after two changes
CONSTANT, FALLS = ss.to_say("nothing changes"), ss.to_say("lr falls")
GROWS, BOTH = ss.to_say("B grows"), ss.to_say("B grows, then lr falls")
SMALL, LARGE, RAGGED, SHUFFLED = "small steps", "large steps", "ragged", "shuffled"


class Case(NamedTuple):
    """What the ways are compared on."""

    label: str
    color: str
    d: int
    size: int  # of the first batches
    q: int  # what lr is divided by, or B multiplied by, twice
    share: float  # lr over the step at which second moments diverge
    order: str = "with_replacement"


CASES = {
    SMALL: Case(ss.to_say("small steps"), "green", 108, 4, 3, 0.05),
    LARGE: Case(ss.to_say("large steps"), "purple", 108, 4, 3, 0.5),
    RAGGED: Case(ss.to_say("ragged batches"), "orange", 108, 8, 3, 0.05),
    SHUFFLED: Case(ss.to_say("few shuffled batches"), "black", 12, 3, 2, 0.05, "shuffle"),
}


def arm_of(case, way):
    """Return the name of an arm."""
    return f"{case}, {way}"


def judged(arm):
    """Return the thirds of an arm that are judged; until something changes all ways are alike."""
    way = arm.split(", ", 1)[1]
    return {FALLS: PHASES, GROWS: PHASES[1:]}.get(way, PHASES[-1:])


@lru_cache(64)
def due(run):
    """Return the expected excess loss at the ends of the epochs."""
    c, known, phases = run.config, ss.expect(run), run.config.phases(run.problem.d)
    if c.order != "shuffle":
        return known.excess[1:]
    epochs = np.arange(c.epochs)
    sizes = np.array([phases.at(epoch).sizes[0] for epoch in epochs])
    rates = c.rates(run.problem.d)(phases.steps_before(epochs))
    given = (known.ls, known.start, run.problem.d, sizes, rates)
    return ss.theory.resized_reshuffling_losses(*given) - known.ls.least_loss


def late(run, excess, phase):
    """Return the mean of an excess loss by epoch over the later half of a third of the run."""
    each = run.config.epochs // len(PHASES)
    return excess[phase * each - max(1, each // 2) : phase * each].mean(0)


def over(runs, case, phase):
    """Return the excess loss where B grows over that where lr falls, with the same samples."""
    pair = [runs[arm_of(case, way)] for way in (GROWS, FALLS)]
    grown, fallen = (late(run, run.excess(), phase) for run in pair)
    return ss.Estimate.ratio(grown, fallen, due_over(runs, case, phase))


def due_over(runs, case, phase):
    """Return what theory has for that."""
    pair = [runs[arm_of(case, way)] for way in (GROWS, FALLS)]
    grown, fallen = (float(late(run, due(run), phase)) for run in pair)
    return grown / fallen


def ratio(value, case, phase=PHASES[-1]):
    return value[f"growing_over_falling_{phase}", arm_of(case, GROWS)]


def last(runs, value):
    """Return what the last third has, case by case, and the updates where lr falls."""
    found = {"small": SMALL, "large": LARGE, "ragged": RAGGED}
    both = [value["updates", arm_of(SMALL, way)] for way in (GROWS, FALLS)]
    return {k: ratio(value, case) for k, case in found.items()} | {"updates": both[0] / both[1]}
