"""The answer of study_norms."""

import sgdstudy as ss


def short(o, runs, value):
    yield from norms(o, runs, value)
    yield from roots(o, runs, value)
    yield from moving(o, runs, value)


def answer(o, runs, value):
    yield ss.say("""The triangle inequality of the hint is about norms. Let r be the vector of all
        residuals, and rᵢ its part in batch i, of m: ‖r‖ ≤ Σᵢ ‖rᵢ‖ ≤ √m ‖r‖. The mean squared error
        needs no inequality: there the mean over the batches is that of all the data, exactly, if
        each counts by its size (Exercise 7a).""")
    yield None
    yield from norms(o, runs, value)
    yield from bound(o, runs, value)
    yield None
    yield ss.say("""The root mean square of a batch is its norm, divided by the root of its size.
        Its mean over the batches (each counts by its size) cannot be above that of all the data, as
        the root is concave: that is Jensen's inequality.""")
    yield from roots(o, runs, value)
    yield None
    yield ss.say("""All of this is about parameters that stand still; in an epoch of training each
        batch meets other ones.""")
    yield from moving(o, runs, value)


def held(value, name):
    """Whether a claim of this name holds."""
    return all(claim.holds for claim in value if claim.name == name)


def at_rest(o, runs, loss, column):
    """Return what the batches say over what all the data say, at w = 0, of both batch sizes."""
    sizes = sorted({o.divides, o.ragged})
    return [runs[f"{loss}, B={size}, fixed"].over_full(column)[0] for size in sizes]


def norms(o, runs, value):
    sums = at_rest(o, runs, "norm", "sum_loss")
    given = {"sizes": sorted({o.divides, o.ragged}), "sums": sums}
    if held(value, "outside_norm_bounds"):
        yield ss.say(
            """At fixed parameters the norms of the batches add up to at least the norm of all
            residuals ({sums} times for batches of {sizes}, at w = 0), so that it is safe to stop on
            their sum: once it is below epsilon, so is the norm of the whole.""",
            **given,
        )
    else:
        yield ss.say(
            """At w = 0 the norms of the batches add up to {sums} times the norm of all residuals,
            for batches of {sizes}.""",
            **given,
        )


def bound(o, runs, value):
    if held(value, "outside_norm_bounds"):
        still = [runs[f"norm, B={size}, fixed"] for size in sorted({o.divides, o.ragged})]
        m = [len(run.config.batch_sizes(run.problem.d)) for run in still]
        yield ss.say("It could be at most √m times: {most}.", most=[n**0.5 for n in m])


def roots(o, runs, value):
    given = {
        "sizes": sorted({o.divides, o.ragged}),
        "means": at_rest(o, runs, "rmse", "running_loss"),
    }
    if held(value, "outside_rmse_bounds") and max(given["means"]) < 0.9995:
        yield ss.say(
            """For the root mean square it is the other way round: the mean over the batches is
            below that of all the data ({means} times), and to stop on it may be too early.""",
            **given,
        )
    else:
        yield ss.say(
            """For the root mean square the mean over the batches is {means} times that of all the
            data, for batches of {sizes} at w = 0.""",
            **given,
        )


def moving(o, runs, value):
    arms = runs.select("norm*moving")
    least = ss.text.at_most(min(value["least_sum_over_full", arm] for arm in arms))
    first = value["running_over_full", f"rmse, B={o.divides}, moving"][0]
    given = {"least": least, "first": first, "n": sum(len(run.w) for run in arms.values())}
    if least >= 1:
        yield ss.say(
            """While the parameters move nothing is certain any more: in {n} run the sum of the
            norms was never below {least:.2} times the norm at the end of the epoch, and the mean of
            the root mean squares was {first:.2} times that of all the data after epoch 1.""",
            """While the parameters move nothing is certain any more: in {n} runs the sum of the
            norms was never below {least:.2} times the norm at the end of the epoch, and the mean of
            the root mean squares was {first:.2} times that of all the data after epoch 1.""",
            **given,
        )
    else:
        yield ss.say(
            """While the parameters move nothing is certain any more: in {n} run the sum of the
            norms fell to {least:.2} times the norm at the end of the epoch, and the mean of the
            root mean squares was {first:.2} times that of all the data after epoch 1.""",
            """While the parameters move nothing is certain any more: in {n} runs the sum of the
            norms fell to {least:.2} times the norm at the end of the epoch, and the mean of the
            root mean squares was {first:.2} times that of all the data after epoch 1.""",
            **given,
        )
