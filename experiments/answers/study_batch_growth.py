"""The answer of study_batch_growth, and what its arms, claims and picture share with it."""

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


def short(o, runs, value):
    yield from small(runs, value)
    yield from parted(runs, value)
    yield from shuffled(runs, value)


def answer(o, runs, value):
    case = CASES[SMALL]
    yield ss.say("""Late in training the step size is divided by some q, so that the loss gets below
        the noise of a larger step. Smith, Kindermans, Ying and Le (2018) multiply the batch size by
        q instead: the noise is that of g = lr (d / B − 1), about lr d / B, and the loss should fall
        with the epochs as before, in q times fewer updates.""")
    yield ss.say(
        """Here SGD fits a line through {d} noisy points, with B = {size} at first. After each third
        of the run lr is divided by {q}, or B multiplied by it.""",
        d=case.d,
        size=case.size,
        q=case.q,
    )
    yield from small(runs, value)
    yield from mixed(value)
    yield from held(value)
    yield None
    yield ss.say("""Why: in a direction of curvature λ one update multiplies the error by 1 − lr λ,
        and q updates with lr / q by the q-th power of 1 − lr λ / q, which is about the same where
        lr λ is small. The one, on a batch of q B, adds noise in proportion to lr² / (q B), and so
        do the q, on batches of B: q times (lr / q)² / B.""")
    yield from parted(runs, value)
    yield ss.say("""With large steps the two factors are not the same, and away from the best
        parameters gradients are noisier; an lr that falls makes the steps small, a B that grows
        leaves them large. Of ragged batches an epoch has more than d / B, and the last of them is
        noisier.""")
    yield None
    yield from shuffled(runs, value)
    yield ss.say("""The noise scale g is that of batches drawn independently. Those of a shuffled
        epoch exclude each other, and most of their noise has cancelled at its end: where all
        samples have one curvature, small steps leave an excess loss in proportion to (lr / B)³
        (1 − 1 / m²), m the number of batches in an epoch. So it hangs on lr / B, too, as long as m
        is large.""")


def small(runs, value):
    first, final = (
        run.config.phases(run.problem.d).at(run.config.epochs).sizes[0]
        for run in (runs[arm_of(SMALL, FALLS)], runs[arm_of(SMALL, GROWS)])
    )
    yield ss.say(
        """With steps of {share} of the largest that batches of {first} stand, batches that grow to
        {final} leave {seen:.3} times the excess loss of an lr that falls as much, at the same epoch
        (theory: {due:.3}), and take {updates:.0%} of its updates.""",
        share=CASES[SMALL].share,
        first=int(first),
        final=int(final),
        seen=ratio(value, SMALL),
        due=due_over(runs, SMALL, PHASES[-1]),
        updates=last(runs, value)["updates"],
    )


def mixed(value):
    fallen, both = arm_of(SMALL, FALLS), arm_of(SMALL, BOTH)
    seen, updates = (value[k, both] / value[k, fallen] for k in ("excess_3", "updates"))
    yield ss.say(
        """Growing B first and dividing lr then leaves {seen:.3} times it, with {updates:.0%} of the
        updates.""",
        seen=seen,
        updates=updates,
    )


def held(value):
    mine = [claim for claim in value if claim.holds is not None]
    if mine and all(claim.holds for claim in mine):
        yield ss.say(
            """{n} mean losses and ratios of them are as near to the second moments of every step as
            their standard errors allow.""",
            n=len(mine),
        )


def parted(runs, value):
    run = runs[arm_of(RAGGED, GROWS)]
    yield ss.say(
        """With steps of {share} of the largest it is {large:.3} times as much (theory:
        {due_large:.3}), and with ragged batches, in the end of {sizes} of {d} samples, {ragged:.3}
        times (theory: {due_ragged:.3}).""",
        share=CASES[LARGE].share,
        large=ratio(value, LARGE),
        due_large=due_over(runs, LARGE, PHASES[-1]),
        sizes=run.config.phases(run.problem.d).at(run.config.epochs).sizes.tolist(),
        d=run.problem.d,
        ragged=ratio(value, RAGGED),
        due_ragged=due_over(runs, RAGGED, PHASES[-1]),
    )


def shuffled(runs, value):
    case = CASES[SHUFFLED]
    yield ss.say(
        """Of {d} samples that are shuffled, {size} in a batch at first, it is {seen:.3} times as
        much with {second} in a batch (theory: {due:.3}), and {final:.1} times with all of them,
        which leaves no noise.""",
        d=case.d,
        size=case.size,
        second=case.size * case.q,
        seen=ratio(value, SHUFFLED, 2),
        due=due_over(runs, SHUFFLED, 2),
        final=ratio(value, SHUFFLED),
    )
