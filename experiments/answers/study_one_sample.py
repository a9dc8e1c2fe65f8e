"""The answer of study_one_sample."""

import numpy as np

import sgdstudy as ss


def short(o, runs, value):
    yield from shuffled(runs)
    yield from sorted_order(runs, value)
    yield from as_in_the_text(o, runs)


def answer(o, runs, value):
    yield ss.say(
        """The text of Exercise 1 takes one sample at a time: w ← w − η ∇Qᵢ(w), once for each of the
        {d} samples, so that a pass over the data is {d} steps. The code of the exercise takes all
        samples at once, and a pass is one step: another algorithm.""",
        d=runs["one sample, shuffled"].problem.d,
    )
    yield None
    yield from shuffled(runs)
    yield from sorted_order(runs, value)
    yield None
    yield from as_in_the_text(o, runs)


def shuffled(runs):
    run = runs["one sample, shuffled"]
    there = run.stop_epoch[run.stop_reason == "converged"]
    given = {"n": len(run.w), "there": len(there), "lr": run.config.lr}
    if not len(there):
        yield ss.say(
            """One sample at a time, shuffled, with the step {lr}, the descent does not stop within
            {passes} over the data.""",
            """One sample at a time, shuffled, with the step {lr}, none of {n} orders stops within
            {passes} over the data.""",
            passes=passes(run.config.epochs),
            **given,
        )
    elif there.min() == there.max():
        yield ss.say(
            """One sample at a time, shuffled, with the step {lr}, the descent stops after {passes}
            over the data.""",
            """One sample at a time, shuffled, with the step {lr}, the descent stops in {there} of
            {n} orders, after {passes} over the data.""",
            passes=passes(there.min()),
            **given,
        )
    else:
        yield ss.say(
            """One sample at a time, shuffled, with the step {lr}, {there} of {n} orders stop, after
            {first} to {last} passes over the data.""",
            first=there.min(),
            last=there.max(),
            **given,
        )


def passes(n):
    """Return so many passes, in words."""
    return ss.say("{n} pass", "{n} passes", n=int(n))


def sorted_order(runs, value):
    run = runs["one sample, sorted"]
    if run.stop_reason[0] == "diverged":
        yield ss.say(
            """Along the curve it diverges: the loss is not a finite number any more after {n}
            step.""",
            """Along the curve it diverges: the loss is not a finite number any more after {n}
            steps.""",
            n=value["first_non_finite_loss"],
        )
    else:
        yield ss.say("Along the curve it does not diverge, within {n} steps.", n=run.n_steps[0])


def as_in_the_text(o, runs):
    run = runs["one sample, prose"]
    yield ss.say(
        """With the values of the text (step {lr}, epsilon {epsilon}, at most {passes}) the descent
        stops {when}, and ends {distance:.3f} from the true parameters.""",
        """With the values of the text (step {lr}, epsilon {epsilon}, at most {passes}) the descent
        stops in {there} of {n} orders; the median ends {distance:.3f} from the true parameters.""",
        lr=run.config.lr,
        epsilon=run.config.stop[1],
        passes=passes(o.passes),
        when=run.when(),
        there=int(np.sum(run.stop_reason == "converged")),
        n=len(run.w),
        distance=np.median(run.distance),
    )
