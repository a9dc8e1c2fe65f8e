"""The answer of Exercise 5."""

import math

import numpy as np

import sgdstudy as ss
from answers import epochs

PRINTED = 23
ENOUGH = 40  # orders that know a law's 2.5 %
LONG = 5  # times the epochs that Adam took: that AdamW does not stop is no delay


def short(o, runs, value):
    n, left = len(runs["RMSprop"].w), value["never_stopped"]
    (low, high), median = value["rmsprop_stop_95"], value["rmsprop_stop_median"]
    yield ss.say(
        """The descent ends when the loss of the last batch of an epoch, ten points drawn at
        random, happens to be below {epsilon}.""",
        epsilon=o.epsilon,
    )
    if math.isinf(high) or low == high:
        yield from stopped(o, n, left, median)
    elif n < ENOUGH:
        yield ss.say(
            """So luck decides when RMSprop stops: between epochs {low} and {high}, over {n}
            orders.""",
            low=low,
            high=high,
            n=n,
        )
    elif low <= PRINTED <= high:
        yield ss.say(
            """So luck decides when RMSprop stops: 95 % of the orders do between epochs {low} and
            {high}, half of them by epoch {median}; the printed 23 lies among these.""",
            low=low,
            high=high,
            median=median,
        )
    else:
        yield ss.say(
            """So luck decides when RMSprop stops: 95 % of the orders do between epochs {low} and
            {high}, half of them by epoch {median}.""",
            low=low,
            high=high,
            median=median,
        )
    yield from against_sgd(o, runs, value)


def headline(o, runs, value):
    """The title of the picture."""
    n, left, rms = len(runs["RMSprop"].w), value["never_stopped"], runs["RMSprop"]
    if math.isfinite(rms.median_stop):
        title = ss.say(
            "RMSprop stops {when}", "RMSprop: half of {n} orders stop {when}", n=n, when=rms.when()
        )
    else:
        title = ss.say(
            "RMSprop does not stop within {epochs}",
            "RMSprop stops within {epochs} in {k} of {n} orders",
            k=n - left,
            n=n,
            epochs=epochs(o.epochs),
        )
    return ss.say(
        "{title}; Adam: {adam}; SGD with momentum: {sgd}",
        title=title,
        adam=runs["Adam"].when(),
        sgd=runs["SGD, momentum 0.9"].when(),
    )


def answer(o, runs, value):
    yield from last_batch(o, runs, value)
    yield None
    yield from law(o, runs, value)
    yield None
    yield from against_sgd(o, runs, value)
    yield ss.say("""In SGD a parameter moves by the step times its derivative, which in the flat
        direction, that of the constant term, is tiny. RMSprop divides each derivative gᵢ by its own
        recent size: vᵢ ← 0.99 vᵢ + 0.01 gᵢ², wᵢ ← wᵢ − η gᵢ / √vᵢ. How far a
        parameter moves depends on η, then, and hardly on how large its derivative is.""")
    yield None
    yield from others(o, runs)
    yield None
    yield from decay(o, runs)


def stopped(o, n, left, median):
    if left == n:
        yield ss.say(
            "RMSprop does not stop within {epochs}.",
            "RMSprop does not stop within {epochs}, in any of {n} orders.",
            epochs=epochs(o.epochs),
            n=n,
        )
    elif left:
        yield ss.say(
            "Of {total} orders of RMSprop {n} does not stop within {epochs}.",
            "Of {total} orders of RMSprop {n} do not stop within {epochs}.",
            n=left,
            total=n,
            epochs=epochs(o.epochs),
        )
    else:
        yield ss.say(
            "RMSprop stops at epoch {median}.",
            "RMSprop stops at epoch {median} in each of {n} orders.",
            n=n,
            median=median,
        )


def last_batch(o, runs, value):
    yield ss.say("""In the code of this exercise the test `loss.item() < epsilon` stands after the
        loop over the batches, and `loss` is what the last of them left: the loss of ten points, not
        the running loss that was added up and is printed. The descent goes on until ten random
        points happen to lie close enough to the curve.""")
    run, left, n = runs["RMSprop"], value["never_stopped"], len(runs["RMSprop"].w)
    near = value["distance_of_stopped"]
    if left < n and near < 0.01:
        yield ss.say(
            """That {epsilon} on ten points is hard to reach by luck far from the solution: the
            order that stops is within {near:.2} of the true parameters.""",
            """That {epsilon} on ten points is hard to reach by luck far from the solution: each
            order that stops is within {near:.2} of the true parameters.""",
            n=n - left,
            epsilon=o.epsilon,
            near=ss.text.at_least(near),
        )
    elif left < n:
        yield ss.say(
            "The order that stops is within {near:.2} of the true parameters.",
            "The orders that stop are within {near:.2} of the true parameters.",
            n=n - left,
            near=ss.text.at_least(near),
        )
    share = value["share_by_printed_0.0001"]
    if left < n - 1 and run.config.stop[1] == 1e-7:
        yield ss.say("{share:.0%} of them are within the printed 0.0001.", share=share)
    elif left < n and run.config.stop[1] == 1e-7 and share:
        yield ss.say("It is within the printed 0.0001.")
    elif left < n and run.config.stop[1] == 1e-7:
        yield ss.say("It is not within the printed 0.0001.")


def law(o, runs, value):
    left, n = value["never_stopped"], len(runs["RMSprop"].w)
    (low, high), median = value["rmsprop_stop_95"], value["rmsprop_stop_median"]
    if n == 1:
        yield from stopped(o, n, left, median)
        return
    yield ss.say(
        """Between the {n} runs of RMSprop only the order of the points differs, drawn from another
        seed each.""",
        n=n,
    )
    if math.isfinite(median):
        yield ss.say("Half of them stop by epoch {median}.", median=median)
    if math.isfinite(high) and low < high and n >= ENOUGH:
        yield ss.say("95 % stop between epochs {low} and {high}.", low=low, high=high)
    if left:
        yield ss.say(
            "{n} of the {total} does not stop within {epochs}.",
            """{n} of the {total} do not stop within {epochs}.""",
            n=left,
            total=n,
            epochs=epochs(o.epochs),
        )
    else:
        yield ss.say("All of them stop within {epochs}.", epochs=epochs(o.epochs))
    if o.epochs >= PRINTED:
        yield ss.say(
            "{share:.0%} stop by the printed epoch {printed}.",
            share=value["share_by_printed_23"],
            printed=PRINTED,
        )
    if left < n:
        yield ss.say(
            "Of those that still run, {share:.1%} stop in each epoch, on average.",
            share=value["rmsprop_stop_hazard"],
        )


def against_sgd(o, runs, value):
    sgd, left, n = runs["SGD"], value["never_stopped"], len(runs["RMSprop"].w)
    distance = float(np.median(sgd.distance))
    near = value["distance_of_stopped"]
    if not never(sgd):
        yield ss.say(
            "Plain SGD, with the step of Exercise 4, stops too.",
            "Plain SGD, with the step of Exercise 4, stops in {k} of {n} orders.",
            k=int(sum(np.isfinite(sgd.converged_epoch))),
            n=len(sgd.w),
        )
    elif left < n and near < distance:
        yield ss.say(
            """Plain SGD, with the step of Exercise 4, is after {epochs} still {distance:.2}
            away from the true parameters; RMSprop is within {near:.2} where it stops.""",
            """Plain SGD, with the step of Exercise 4, is after {epochs} still {distance:.2}
            away from the true parameters (median); RMSprop is within {near:.2} where it stops.""",
            n=len(sgd.w),
            distance=distance,
            epochs=epochs(o.epochs),
            near=ss.text.at_least(near),
        )
    else:
        yield ss.say(
            """Plain SGD, with the step of Exercise 4, is after {epochs} still {distance:.2}
            away from the true parameters.""",
            """Plain SGD, with the step of Exercise 4, is after {epochs} still {distance:.2}
            away from the true parameters (median).""",
            n=len(sgd.w),
            distance=distance,
            epochs=epochs(o.epochs),
        )


def others(o, runs):
    yield ss.say(
        """The others, each with a step that was set beforehand and not tuned, under the same
        rule, {n} order each.""",
        """The others, each with a step that was set beforehand and not
        tuned, under the same rule, {n} orders each.""",
        n=o.others,
    )
    for arm, run in runs.select("*", without=("RMSprop", "SGD")).items():
        some = int(sum(np.isfinite(run.converged_epoch)))
        given = {
            "arm": arm,
            "lr": run.config.lr,
            "median": run.median_stop,
            "epochs": epochs(o.epochs),
        }
        if math.isfinite(run.median_stop):
            yield ss.say(
                "{arm} (step {lr}): stops at epoch {median}.",
                "{arm} (step {lr}): half of them stop by epoch {median}.",
                n=len(run.w),
                **given,
            )
        elif some:
            yield ss.say(
                "{arm} (step {lr}): only {n} stops within {epochs}.",
                "{arm} (step {lr}): only {n} stop within {epochs}.",
                n=some,
                **given,
            )
        else:
            yield ss.say(
                "{arm} (step {lr}): does not stop within {epochs}.",
                "{arm} (step {lr}): none stops within {epochs}.",
                n=len(run.w),
                **given,
            )


def decay(o, runs):
    adam, adamw = runs["Adam"], runs["AdamW"]
    if never(adamw) and LONG * adam.median_stop <= o.epochs:
        distance = float(np.median(adamw.distance))
        yield ss.say(
            """Why Adam stops and AdamW does not: they differ in one thing, AdamW's weight decay,
            which multiplies the parameters by 1 − 0.01 η in each step. That pulls them towards 0,
            away from the solution, where ten points do not get below {epsilon}. AdamW ends
            {distance:.2} away from the true parameters.""",
            epsilon=o.epsilon,
            distance=distance,
        )


def never(run):
    """Whether no order stops."""
    return not np.isfinite(run.converged_epoch).any()
