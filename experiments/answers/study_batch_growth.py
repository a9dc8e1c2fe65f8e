"""The answer of study_batch_growth."""

import sgdstudy as ss
from common.study_batch_growth import (
    BOTH,
    CASES,
    FALLS,
    GROWS,
    LARGE,
    PHASES,
    RAGGED,
    SHUFFLED,
    SMALL,
    arm_of,
    due_over,
    last,
    ratio,
)


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
