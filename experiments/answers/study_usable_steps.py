"""The answer of study_usable_steps, and what its arms and picture share with it."""

import numpy as np

import sgdstudy as ss
from answers import epochs

NEAR = {"usable": 0.97, "unusable": 1.03}  # of the largest step that is usable in sorted order
BELOW, ABOVE = "below zero exponent", "above zero exponent"
BESIDE = {BELOW: 0.95, ABOVE: 1.1}  # of the step where it is zero


def exponent_zero(runs):
    """Return the step size at which the Lyapunov exponent is zero."""
    return runs[BELOW].config.lr / BESIDE[BELOW]


def short(o, runs, value):
    yield from rounding(o, value)
    yield from shuffled(o, runs, value)


def answer(o, runs, value):
    yield from rounding(o, value)
    yield ss.say(
        """The loss of all the data is below {epsilon}, 3 % under that step: {under}, 3 % over it:
        {over} (measured).""",
        epsilon=o.epsilon,
        under=runs["usable"].when(),
        over=runs["unusable"].when(),
    )
    yield ss.say(
        """The order itself diverges from {critical} on: from there an epoch multiplies the error by
        more than 1 in some direction (radius.png).""",
        critical=value["critical_lr_sequential"],
    )
    yield None
    yield ss.say(
        """Of batches drawn independently the mean of the squared error diverges from a step of
        {limit} on, of shuffled ones only from a larger one (docs/notebook.md): an epoch that has
        used its steep samples has none left.""",
        limit=value["mean_square_lr_limit"],
    )
    yield from mean_and_runs(o, runs, value)
    yield None
    yield ss.say(
        """What a single run does is told by the mean logarithm of what an epoch multiplies its
        error by, the Lyapunov exponent. By theory it is 0 at a step of {zero}: below, almost every
        run shrinks, above, almost every one grows.""",
        zero=exponent_zero(runs),
    )
    yield from shuffled(o, runs, value)


def rounding(o, value):
    given = {"usable": value["usable_lr_sequential"], "epsilon": o.epsilon}
    if given["usable"] < value["critical_lr_sequential"]:
        yield ss.say(
            """In sorted order the rounding of the labels alone, multiplied within the epoch, keeps
            the loss above {epsilon} from a step of {usable} on, though the order diverges only from
            {critical} on.""",
            critical=value["critical_lr_sequential"],
            **given,
        )
    else:
        yield ss.say(
            """In sorted order the loss settles above {epsilon} from a step of {usable} on.""",
            **given,
        )


def mean_and_runs(o, runs, value):
    low, below = value["growth_of_mean_square"][0], runs[BELOW]
    known = ss.expect(below)
    if low > 0:
        yield ss.say(
            "At {lr} that mean grows, shuffled too, at least {growth} times an epoch.",
            lr=below.config.lr,
            growth=ss.text.at_most(np.exp(low)),
        )
        if value["converged"] == len(below.w) and o.epsilon < known.ls.loss(known.start):
            yield ss.say(
                """Yet the only run gets below {epsilon}: the mean rests on orders that it has not
                met.""",
                """Yet every run gets below {epsilon}: the mean rests on orders that none of them
                met.""",
                n=len(below.w),
                epsilon=o.epsilon,
            )


def shuffled(o, runs, value):
    n, lost = len(runs[BELOW].w), value["diverged"]
    given = {"low": runs[BELOW].config.lr, "high": runs[ABOVE].config.lr, "epsilon": o.epsilon}
    if n > 1:
        yield ss.say(
            """Shuffled, the loss gets below {epsilon} within {epochs} in {there} of {n} seeds at a
            step of {low}, and diverges in {lost} of {n} at {high}.""",
            there=value["converged"],
            lost=lost,
            n=n,
            epochs=epochs(o.epochs),
            **given,
        )
        return
    yield ss.say(
        "Shuffled, at a step of {low} the only seed is below {epsilon} {when}.",
        when=runs[BELOW].when(),
        **given,
    )
    yield (
        ss.say("At {high} it diverges.", **given)
        if lost
        else ss.say("At {high} it does not diverge.", **given)
    )
