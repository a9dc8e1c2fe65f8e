"""The answer of study_stationary_covariance."""

import numpy as np

import sgdstudy as ss
from common.study_stationary_covariance import RAGGED, SHARES, SIZES, arm_of, exact, gap


def short(o, runs, value):
    yield from small_steps(value)
    yield from entries(value)
    yield from ragged(runs, value)


def answer(o, runs, value):
    yield ss.say("""With noisy labels a constant step does not stop at the best parameters: it keeps
        moving around them, as a particle on a spring that is pushed at random. Mandt, Hoffman and
        Blei (2017) take the steps to be so small that this is a process in continuous time, that of
        Ornstein and Uhlenbeck, and so find how the parameters scatter: their covariance C solves
        H C + C H = (lr / B) S, where H is the Hessian of the loss, S the covariance of the samples'
        gradients and B the batch size.""")
    yield from small_steps(value)
    yield from large_steps(value)
    yield None
    yield ss.say("""Two things are left out there: a step multiplies the error by I − lr H, which is
        not a flow any more where lr times a curvature is not small, and away from the best
        parameters the samples' gradients differ more than at them. With both, the covariance solves
        C = E[(I − lr H_b) C (I − lr H_b)] + lr² S / B, where H_b is the Hessian of a batch.""")
    yield from entries(value)
    yield None
    yield from ragged(runs, value)
    yield from within(runs, value)


def over(value, size, share):
    return value["excess_over_the_papers_law", arm_of(size, share)]


def small_steps(value):
    yield ss.say(
        """At {share} of the largest step that batches of {size} stand, the excess loss, that above
        the least one, settles at {ratio:.3} times what the paper's law for small steps says.""",
        share=SHARES[0],
        ratio=over(value, SIZES[0], SHARES[0]),
        size=SIZES[0],
    )


def large_steps(value):
    yield ss.say(
        "At {shares} of the largest step it is {ratios:.3} times as much.",
        shares=[*SHARES[1:]],
        ratios=[over(value, SIZES[0], share) for share in SHARES[1:]],
    )


def entries(value):
    mine = [claim for claim in value if claim.name.startswith("covariance")]
    judged = [claim for claim in mine if claim.holds is not None]
    if len(judged) == len(mine) and all(claim.holds for claim in mine):
        off = max(abs(c.measured / c.expected - 1) for c in mine)
        yield ss.say(
            """The law for steps of any size has the whole covariance matrix, entry by entry: at
            {steps} step sizes, with and without a ragged batch, {n} entries are within {off:.1%} of
            it, each as near as its standard error allows.""",
            off=ss.text.at_least(off),
            n=len(mine),
            steps=len(SHARES),
        )
    elif judged:
        yield ss.say(
            """Of {all} entries of covariance matrices {n} are known well enough to be judged;
            {held} of these are as near to the law for steps of any size as their standard errors
            allow.""",
            all=len(mine),
            n=len(judged),
            held=sum(bool(claim.holds) for claim in judged),
        )


def ragged(runs, value):
    run = runs[arm_of(RAGGED, SHARES[-1])]
    after = [gap(run, c) for c in exact(run)]
    seen = [value[f"excess_after_batch_{i}"] for i in (1, 2, 3)]
    given = {"d": run.problem.d, "sizes": run.config.batch_sizes(run.problem.d)}
    given |= {"share": SHARES[-1], "seen": seen[2] / seen[1], "due": after[2] / after[1]}
    if seen[2] > max(seen[:2]):
        yield ss.say(
            """Where the batches do not divide the data, here {d} samples in batches of {sizes}, the
            last batch of an epoch is the noisiest: at {share} of the largest step the excess loss
            is {seen:.3} times as large after it as after the batch before (theory: {due:.3}).""",
            **given,
        )
    else:
        yield ss.say(
            """Where the batches do not divide the data, here {d} samples in batches of {sizes}, at
            {share} of the largest step the excess loss is {seen:.3} times as large after the last
            batch of an epoch as after the batch before (theory: {due:.3}).""",
            **given,
        )


def within(runs, value):
    run = runs[arm_of(RAGGED, SHARES[-1])]
    yield ss.say(
        """After each batch of an epoch in turn it is {seen:.3}; a law with one B for all of them
        has the same after each. With B = {size} it has too little even for the smallest steps: the
        mean of 1 / B over the batches is {factor:.3} times 1 / {size}.""",
        seen=[value[f"excess_after_batch_{i}"] for i in (1, 2, 3)],
        size=RAGGED,
        factor=float(np.mean([RAGGED / size for size in run.config.batch_sizes(run.problem.d)])),
    )
