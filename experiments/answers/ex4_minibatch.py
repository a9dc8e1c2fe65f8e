"""The answer of Exercise 4."""

import math

import numpy as np

import sgdstudy as ss
from answers import epochs

PRINTED, ALL_AT_ONCE = 48, 9340  # the notebook's epochs, of this exercise and of Exercise 1


def short(o, runs, value):
    yield from stops(o, runs, value)
    if as_printed(o, runs, value):
        yield ss.say(
            """The notebook prints {printed}, and {before} for Exercise 1 with the same step: there
            an epoch is one step, here {m}.""",
            printed=PRINTED,
            before=ALL_AT_ONCE,
            m=steps_an_epoch(runs["descent"]),
        )
    if value["diverged"] == len(runs["descent"].w) and as_printed(o, runs, value):
        yield ss.say(
            """With the printed eta=0.2 the descent diverges; a step of 0.0002 gives the printed
            output.""",
            """With the printed eta=0.2 every descent diverges; a step of 0.0002 gives the printed
            output.""",
            n=len(runs["descent"].w),
        )
    else:
        yield from printed_step(o, runs, value)


def answer(o, runs, value):
    run = runs["descent"]
    yield ss.say("""How to add up the cost. Within an epoch, each batch gives its loss Lᵢ, the mean
        over its nᵢ points. Add up `loss.item() * len(data)`, and divide by the number d of all
        points once the epoch is over: running loss = (1/d) Σᵢ nᵢ Lᵢ(wᵢ), wᵢ being the parameters
        that batch i met.""")
    yield ss.say("""Weighting by nᵢ matters as soon as the last batch is shorter. `item()` takes the
        number alone: adding up the tensors themselves would keep the graph of the whole epoch, and
        one `backward` on their sum would make one step an epoch of it, which is Exercise 1 again.
        Here `backward` and the step stand inside the loop, once for each batch; the sum is set to 0
        at the start of each epoch.""")
    yield None
    yield ss.say("""That costs nothing beside the training, and it is not quite the loss of all
        points: the parameters move while it is added up.""")
    ratio = value["running_loss_ratio_late"]
    if math.isfinite(ratio):
        yield ss.say(
            """At epoch {epoch} it is {ratio:.4} times the loss that all points have at the end
            of that epoch; Exercise 7 says why.""",
            """At epoch {epoch} it is {ratio:.4} times the loss that all points have at the end
            of that epoch (mean over {n} orders); Exercise 7 says why.""",
            epoch=int(run.stop_epoch.min()),
            ratio=ratio,
            n=min(8, len(run.w)),
        )
    yield None
    yield from stops(o, runs, value)
    if math.isfinite(run.distance.mean()):
        yield ss.say(
            "At the end the parameters are {distance:.4} away from the true ones.",
            """At the end the parameters are {distance:.4} away from the true ones, a mean over
            the orders.""",
            n=len(run.w),
            distance=run.distance.mean(),
        )
    if as_printed(o, runs, value) and abs(run.distance.mean() - 0.4525) < 0.001:
        yield ss.say("The notebook prints {printed}, and 0.4525.", printed=PRINTED)
    yield None
    yield from printed_step(o, runs, value)
    n, told = len(run.w), len(run.w) - value["printed_eta_diverges_at_batch"]
    if value["diverged"] == n and told == n:
        yield ss.say(
            """It is no accident: from the order of the samples alone theory tells the step at which
            the loss stops being a finite number, and is right.""",
            """It is no accident: from the order of the samples alone theory tells the step at which
            the loss stops being a finite number, and is right for each of the orders.""",
            n=n,
        )


def stops(o, runs, value):
    run, n = runs["descent"], len(runs["descent"].w)
    first, last = value["stop_epoch_printed"]
    missed, lost = (
        int(np.sum(np.isinf(run.converged_epoch))),
        int(sum(run.stop_reason == "diverged")),
    )
    given = {"lr": o.lr, "epsilon": o.epsilon, "n": n}
    if lost:
        yield ss.say(
            "With a step of {lr} the descent diverges.",
            """With a step of {lr} the descent
            diverges in {lost} of {n} random orders.""",
            lost=lost,
            **given,
        )
    elif missed:
        yield ss.say(
            """With a step of {lr} the running loss is not below {epsilon} within {epochs}.""",
            """With a step of {lr} the running loss is not below {epsilon} within {epochs} in
            {missed} of {n} random orders.""",
            epochs=epochs(o.epochs),
            missed=missed,
            **given,
        )
    elif first == last:
        yield ss.say(
            "With a step of {lr} the descent stops at epoch {epoch}.",
            """With a step of {lr}
            the descent stops at epoch {epoch} in each of {n} random orders.""",
            epoch=first,
            **given,
        )
    else:
        yield ss.say(
            """With a step of {lr} the descent stops between epochs {first} and {last}, over {n}
            random orders.""",
            first=first,
            last=last,
            **given,
        )


def printed_step(o, runs, value):
    n, lost = len(runs["descent"].w), value["diverged"]
    _, high = value["first_non_finite_loss"]
    if lost == n:
        yield ss.say(
            """With the printed eta=0.2 it diverges: the loss is not a finite number any more at
            step {high}.""",
            """With the printed eta=0.2 each order diverges: the loss is not a finite
            number any more by step {high}.""",
            n=n,
            high=high,
        )
    elif lost:
        yield ss.say(
            "With the printed eta=0.2 the descent diverges in {lost} of {n} orders.", lost=lost, n=n
        )
    else:
        yield ss.say(
            "With the printed eta=0.2 the loss of all points is {end:.2} after {epochs}.",
            """With the printed eta=0.2 the loss of all points is {end:.2} after {epochs}
            (median).""",
            n=n,
            end=runs["eta 0.2"].at("full_loss"),
            epochs=epochs(o.epochs),
        )
    if lost == n and as_printed(o, runs, value):
        yield ss.say("""A step of 0.0002 gives the printed 48 epochs; the call that is printed above
            them does not.""")


def as_printed(o, runs, value):
    """Whether the printed step gives the printed epoch, to within one, in each order."""
    first, last = value["stop_epoch_printed"]
    return o.lr == 2e-4 and PRINTED - 1 <= first <= last <= PRINTED + 1


def steps_an_epoch(run):
    return len(run.config.batch_sizes(run.problem.d))
