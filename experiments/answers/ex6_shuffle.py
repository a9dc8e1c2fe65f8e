"""The answer of Exercise 6."""

import math

import sgdstudy as ss
from answers import epochs

EXPLODES = 100  # times the loss before the first step, of one batch


def short(o, runs, value):
    high, _ = value["peak_batch_loss"]
    given = {"high": high, "start": at_start(runs), "end": value["full_loss_epoch_1"], "lr": o.lr}
    if explodes(runs, value) and given["end"] < given["start"]:
        yield ss.say(
            """With shuffle=False the loss explodes within an epoch, up to {high:.2} for one
            batch, and has come down again when the first epoch ends, to {end:.3} for all
            points.""",
            **given,
        )
    elif explodes(runs, value):
        yield ss.say(
            """With shuffle=False the loss explodes, up to {high:.2} for one batch of the first
            epoch.""",
            **given,
        )
    else:
        yield ss.say(
            """With shuffle=False and a step of {lr} nothing explodes: in the first epoch no
            batch has a loss above {high:.3}, where all points had {start:.3} before.""",
            **given,
        )
    if explodes(runs, value) and sum(value["batches_beyond_limit"]) > 1:
        yield ss.say("""At the two ends of the curve the loss of a batch of neighbours is far
            steeper than that of all points: there the step is too large, and one such batch after
            the other pushes the same way.""")
    yield from randomness(runs)


def headline(runs, value):
    """The title of the picture: what a batch of the first epoch sees, and what its end."""
    (high, at), start, end = value["peak_batch_loss"], at_start(runs), value["full_loss_epoch_1"]
    last = runs["exact"].steps.query("epoch == 1")["loss"].iloc[-1]
    given = {"at": at, "high": high, "last": last, "start": start, "end": end}
    if not explodes(runs, value):
        return ss.say(
            """shuffle=False: in the first epoch no batch has a loss above {high:.3}, where all
            points had {start:.3} before""",
            **given,
        )
    if end < start:
        return ss.say(
            """shuffle=False: the loss of batch {at} is {high:.1}, that of the last batch {last:.1};
            at the epoch's end that of all points is {end:.3}""",
            **given,
        )
    return ss.say(
        """shuffle=False: the loss of batch {at} is {high:.1}, and at the end of the first epoch
        that of all points is {end:.1}""",
        **given,
    )


def answer(o, runs, value):
    yield from seen(o, runs, value)
    yield None
    yield from limits(o, runs, value)
    yield None
    yield from multiplied(value)
    yield None
    yield from between_epochs(runs, value)
    yield None
    yield from orders(o, runs)
    yield None
    yield from rounding(runs, value)


def seen(o, runs, value):
    exact, (high, at) = runs["exact"], value["peak_batch_loss"]
    given = {"high": high, "at": at, "start": at_start(runs)}
    yield ss.say("Before the first step the loss of all points is {start:.3}.", **given)
    yield ss.say(
        """With shuffle=False, followed in float64, batch {at} of the first epoch has a loss of
        {high:.2}; the running loss, the mean over the epoch, is {running:.2}, and when the epoch
        ends the loss of all points is {end:.3}.""",
        running=value["running_loss_epoch_1"],
        end=value["full_loss_epoch_1"],
        **given,
    )
    later = [claim.measured for claim in value if claim.name.endswith("_loss_epoch_50")]
    if len(later) == 2:
        yield ss.say(
            "In epoch 50 the two are {running:.2} and {end:.3}.", running=later[0], end=later[1]
        )
        if later[0] > 100 * later[1] and later[1] < at_start(runs):
            yield ss.say("""So the explosion comes again in each epoch, and what is looked at
                between the epochs does not show it.""")
    given = {"epsilon": o.epsilon, "epoch": exact.median_stop, "epochs": epochs(o.epochs)}
    if math.isfinite(exact.median_stop):
        yield ss.say(
            "In float64 the loss of all points is below {epsilon} at epoch {epoch}.", **given
        )
    elif exact.stop_reason[0] == "diverged":
        yield ss.say("In float64 the descent diverges in epoch {epoch}.", epoch=exact.stop_epoch[0])
    else:
        yield ss.say(
            "In float64 the loss of all points is not below {epsilon} within {epochs}.", **given
        )


def limits(o, runs, value):
    (first, late), m = value["batches_beyond_limit"], steps_an_epoch(runs)
    yield ss.say(
        """Why a batch can explode. A step that is longer than 2/λ leaps over the valley and lands
        higher than it started; λ is the curvature of the loss in its steepest direction (the
        largest eigenvalue of its Hessian, the matrix of second derivatives). A batch has a loss and
        a λ of its own. Neighbours have the same curvature, and at the ends of the curve, where x²
        is largest, it is up to {ratio:.2} times that of all points.""",
        ratio=value["steepest_over_mean"],
    )
    if first + late:
        yield ss.say(
            """With a step of {lr}, {n} of the {m} batches is beyond its own limit: {first} at the
            start of the epoch, {late} at its end.""",
            """With a step of {lr}, {n} of the {m} batches are beyond their own limit: {first} at
            the start of the epoch, {late} at its end.""",
            n=first + late,
            m=m,
            lr=o.lr,
            first=first,
            late=late,
        )
    else:
        yield ss.say(
            "With a step of {lr}, none of the {m} batches is beyond its own limit.", lr=o.lr, m=m
        )


def multiplied(value):
    (first, late), (begun, grown, ended) = (
        value["batches_beyond_limit"],
        value["share_along_steepest"],
    )
    if first + late > 1 and value["least_cosine"] > 0.99:
        yield ss.say(
            """One such batch alone is soon made good by the others. But here they follow one
            another, and their steepest directions are nearly the same (the cosine of the angle
            between those of two consecutive ones is at least {cosine:.6f}): what the first has
            enlarged the next enlarges again.""",
            cosine=ss.text.at_most(value["least_cosine"], 6),
        )
    if value["growth_within_epoch"] > 10:
        yield ss.say(
            """Together they multiply an error by up to {within:.2} within an epoch, and by up to
            {across:.2} from the end of one epoch into the next.""",
            within=value["growth_within_epoch"],
            across=value["growth_across_boundary"],
        )
    if first and late and grown > 0.9 and ended < 0.01:
        yield ss.say(
            """They multiply only the part of the error that lies in their direction. It is
            {begun:.0%} of the error as the first epoch begins, {grown:.0%} at batch {first}, and,
            after the flat middle of the curve, at most {ended:.1} of it in the last batch
            (steep_batches.png): so the end of the epoch finds little to multiply.""",
            """They multiply only the part of the error that lies in their direction. It is
            {begun:.0%} of the error as the first epoch begins, {grown:.0%} at batch {first}, and,
            after the flat middle of the curve, at most {ended:.1} of it in the last {late} batches
            (steep_batches.png): so the end of the epoch finds little to multiply.""",
            begun=begun,
            grown=grown,
            ended=ss.text.at_least(ended, 1),
            first=first,
            late=late,
            n=late,
        )


def between_epochs(runs, value):
    rho, (start, end) = value["rho_sequential"], (at_start(runs), runs["exact"].at("full_loss"))
    given = {"rho": rho, "start": start, "end": end}
    if rho < 1:
        given["rho"] = ss.text.at_most(rho, max(4, 2 - math.floor(math.log10(1 - rho))))
        yield ss.say(
            """From one epoch to the next. Taken together, the batches of an epoch multiply the
            error by {rho} in the long run (its part that dies out last): less than 1, so
            without rounding the ends of the epochs approach the solution.""",
            **given,
        )
    elif rho >= 1:
        yield ss.say(
            """From one epoch to the next the error is multiplied by {rho:.4}: it does not
            shrink.""",
            **given,
        )
    if rho < 1 and not end < start:
        yield ss.say(
            """Here they do not: at the last of them the loss is {end:.3}, where it began with
            {start:.3}. The explosion multiplies rounding errors too (study_usable_steps).""",
            **given,
        )
    elif rho < 1 and explodes(runs, value):
        yield ss.say("""That needs labels without noise, as here: then at the solution the
            gradient of each batch vanishes, and the explosion has nothing to multiply. What noise
            does to the sorted order is in study_neighbours.""")


def orders(o, runs):
    yield ss.say("Is it the lack of randomness? Other orders, the same step.")
    names = {
        "strided": ss.say("Fixed, each batch from all over the curve (strided)"),
        "shuffle": ss.say("Drawn anew in each epoch (shuffle)"),
        "shuffle_once": ss.say("Drawn once (shuffle_once)"),
        "block_shuffle": ss.say("Batches of neighbours in random order (block_shuffle)"),
        "sequential": ss.say("From left to right (sequential, which is shuffle=False)"),
        "reversed": ss.say("From right to left (reversed)"),
    }
    for order, name in names.items():
        run = runs[f"SGD {order}"]
        given = {
            "name": name,
            "epoch": run.median_stop,
            "epsilon": o.epsilon,
            "epochs": epochs(o.epochs),
        }
        if math.isfinite(run.median_stop):
            yield ss.say("{name}: below {epsilon} at epoch {epoch}.", **given)
        elif all(run.stop_reason == "diverged"):
            yield ss.say("{name}: diverges within {epochs}.", **given)
        else:
            yield ss.say("{name}: not below {epsilon} within {epochs}.", **given)
    if o.seeds > 1:
        yield ss.say("(Of drawn orders the median of {n}.)", n=o.seeds)
    yield None
    yield from randomness(runs)
    shuffle, block = (runs[f"SGD {name}"].median_stop for name in ("shuffle", "block_shuffle"))
    if block <= 1.1 * shuffle < math.inf:
        yield ss.say(
            """Looked at between the epochs, even batches of neighbours do nearly as well when they
            come in random order (epochs {block} and {shuffle}): two steep ones rarely follow one
            another. Where the running loss stops the descent, or the labels are noisy, see
            study_neighbours.""",
            block=block,
            shuffle=shuffle,
        )


def randomness(runs):
    strided, shuffle, sorted_ = (
        runs[f"SGD {name}"].median_stop for name in ("strided", "shuffle", "sequential")
    )
    if strided <= shuffle + 1 and strided < sorted_:
        yield ss.say(
            """The lack of randomness is not the fault: a fixed order whose batches are spread
            over the curve does as well as shuffling (epochs {strided} and {shuffle}).""",
            strided=strided,
            shuffle=shuffle,
        )
        return
    if math.isinf(min(strided, shuffle, sorted_)) and math.isinf(max(strided, shuffle)):
        return
    if strided <= shuffle + 1 and strided == sorted_:
        yield ss.say(
            "All orders do as well here: sorted, spread or shuffled (epoch {n}).", n=strided
        )


def rounding(runs, value):
    seen, exact = runs["SGD reversed"].median_stop, value["stop_without_rounding"]
    if seen != exact and math.isfinite(seen) and math.isfinite(exact):
        yield ss.say(
            """The explosion multiplies rounding errors too: from right to left the descent stops
            at epoch {seen} in float32, and at epoch {exact} without rounding.""",
            seen=seen,
            exact=exact,
        )


def at_start(runs):
    """Return the loss of all points before the first step."""
    law = ss.expect(runs["exact"])
    return float(law.ls.loss(law.start))


def steps_an_epoch(runs):
    return len(runs["exact"].config.batch_sizes(runs["exact"].problem.d))


def explodes(runs, value):
    """Whether a batch of the first epoch has a loss far above that before the first step."""
    return not value["peak_batch_loss"][0] <= EXPLODES * at_start(runs)
