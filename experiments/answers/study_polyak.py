"""The answer of study_polyak, and the names of its lines."""

import numpy as np

import sgdstudy as ss
from answers import epochs

ONE, FULL = "Polyak, one sample", "Polyak, full batch"


def short(o, runs, value):
    yield from noiseless(runs, value)
    yield from noisy(value)
    yield from all_the_data(value)


def answer(o, runs, value):
    yield ss.say("""Polyak's step is read off the loss: its size is (L − L*) / ‖∇L‖², L being the
        loss of now and L* the least that it can be. No step size has to be chosen; in its place L*
        has to be known. Where some parameters fit all samples it is 0, for each of them.""")
    yield ss.say("""On one sample at a time, and twice as long, this step leads the shortest way to
        parameters that fit the sample exactly: it is a projection.""")
    yield None
    yield from noiseless(runs, value)
    yield ss.say(
        """Both look at as many samples: Polyak's takes a step on each of them, the constant one a
        step on every {size}.""",
        size=runs["noiseless: constant"].config.batch_size,
    )
    yield from rate(value)
    yield None
    yield from noisy(value)
    yield from why(value)
    yield None
    yield from all_the_data(value)
    yield from law(runs, value)


def noiseless(runs, value):
    run = runs["noiseless: constant"]
    one, constant = value["excess", f"noiseless: {ONE}"], run.excess()[-1].mean()
    given = {"one": one, "constant": constant, "n": epochs(run.config.epochs)}
    if one < constant:
        yield ss.say(
            """Where the labels have no noise, Polyak's step on one sample at a time ends lower than
            the constant step: after {n} the loss is {one:.2} above the least one, on average, and
            {constant:.2} with the constant step.""",
            **given,
        )
    else:
        yield ss.say(
            """Where the labels have no noise, after {n} the loss is {one:.2} above the least one
            with Polyak's step on one sample at a time, on average, and {constant:.2} with the
            constant step.""",
            **given,
        )


def rate(value):
    (claim,) = (claim for claim in value if claim.name == "log_rate_per_step")
    given = {"seen": np.exp(claim.measured)}
    if claim.holds:
        yield ss.say(
            """From one step to the next the distance to the best parameters is multiplied by
            {seen:.3f} (a geometric mean over the second epoch); theory, the Lyapunov exponent of
            such projections, has {due:.3f}.""",
            due=np.exp(claim.expected),
            **given,
        )
    else:
        yield ss.say(
            """From one step to the next the distance to the best parameters is multiplied by
            {seen:.3f} (a geometric mean over the second epoch).""",
            **given,
        )


def noisy(value):
    ratio = value["over_constant"]
    if ratio > 1:
        yield ss.say(
            """With noisy labels it does worse, as it fits every sample, noise included: it ends
            {ratio:.2} times as far above the least loss as the constant step.""",
            ratio=ratio,
        )
    else:
        yield ss.say(
            """With noisy labels it ends {ratio:.2} times as far above the least loss as the
            constant step.""",
            ratio=ratio,
        )


def why(value):
    (claim,) = (claim for claim in value if claim.name == "over_constant")
    if claim.measured > 1:
        yield ss.say(
            "What a step has fitted, the next one gives up for the noise of another label."
        )
    if claim.holds:
        yield ss.say("Theory, by second moments, has {due:.2} times.", due=claim.expected)


def all_the_data(value):
    (claim,) = (claim for claim in value if claim.name == "fall_over_law_less_1")
    if claim.holds:
        yield ss.say("""On all the data at once every step comes closer to the best parameters: the
            square of the distance falls by three times what Polyak guarantees.""")
    else:
        yield ss.say(
            """On all the data at once the steps are not those of theory: one of them is off by
            {off:.1%}.""",
            off=claim.measured,
        )


def law(runs, value):
    (claim,) = (claim for claim in value if claim.name == "fall_over_law_less_1")
    if claim.holds:
        yield ss.say(
            """Guaranteed is a fall by (L − L*)² / ‖∇L‖², for any convex loss; on a
            quadratic one it is exactly three times that, here until the loss is {floor} above the
            least one, beyond which rounding shows.""",
            floor=1e-9,
        )
    yield ss.say(
        "After {n} step of this kind, without noise, the loss is {excess:.2} above the least one.",
        "After {n} steps of this kind, without noise, the loss is {excess:.2} above the least one.",
        n=runs[f"noiseless: {FULL}"].config.epochs,
        excess=value["excess", f"noiseless: {FULL}"],
    )
