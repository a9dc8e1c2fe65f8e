"""The answer of study_quadratic_edge, and what its arms, claims and picture share with it."""

import numpy as np

import sgdstudy as ss

STABLE, SHARE, BETA = "quadratic, 0.9 of the limit", 1.05, 0.5
GROWING = {  # arm -> options of SGD, at 1.05 of the rule's limit
    f"quadratic, {SHARE} of the limit": {},
    f"quadratic, {SHARE} of heavy ball's": {"momentum": BETA},
    f"quadratic, {SHARE} of Nesterov's": {"momentum": BETA, "nesterov": True},
}
LAST = 50  # steps over which the growth is measured: the other modes have died out


def short(o, runs, value):
    yield from below(runs, value)
    yield from beyond(runs, value)
    yield from no_way_out(value)


def answer(o, runs, value):
    yield ss.say("""How large a step may be depends on the curvature of the loss in its steepest
        direction, the largest eigenvalue λ of the Hessian (its sharpness). A step of gradient
        descent multiplies the error in that direction by 1 − η λ: the error shrinks as long as η
        is below 2/λ.""")
    limits = [ss.theory.sharpness_limit(1.0, **options) for options in GROWING.values()]
    yield ss.say(
        """With a momentum β the limit is (2 + 2β)/λ for heavy ball and (2 + 2β)/((1 + 2β) λ) for
        Nesterov's: for β = {beta} that is {heavy}/λ and {nesterov}/λ.""",
        beta=BETA,
        heavy=limits[1],
        nesterov=limits[2],
    )
    yield None
    yield from below(runs, value)
    yield from beyond(runs, value)
    yield from why(value, limits[0])
    yield None
    yield from no_way_out(value)


def below(runs, value):
    given = {"n": len(runs[STABLE].array("steps", "full_loss")) - 1}
    rises = value["rises_of_the_loss"]
    if rises:
        yield ss.say(
            """At 0.9 of the largest step that theory allows, the loss of descent rises in {rises}
            of {n} steps.""",
            rises=rises,
            **given,
        )
    else:
        yield ss.say(
            """At 0.9 of the largest step that theory allows, the loss of descent falls in each of
            {n} steps.""",
            **given,
        )


def growing(runs):
    """Whether the loss rises at each of the last steps, in every arm beyond its limit."""
    losses = [runs[arm].array("steps", "full_loss")[-1 - LAST :, 0] for arm in GROWING]
    return all((np.diff(loss) > 0).all() for loss in losses)


def beyond(runs, value):
    descent, heavy, nesterov = (value["growth_per_step", arm] for arm in GROWING)
    given = {"descent": descent, "heavy": heavy, "nesterov": nesterov, "last": LAST}
    if growing(runs):
        yield ss.say(
            """At 1.05 of it, each rule with a limit of its own, the loss grows at every step: to
            {descent:.5} times (descent), {heavy:.5} times (heavy ball), {nesterov:.5} times
            (Nesterov).""",
            **given,
        )
    else:
        yield ss.say(
            """At 1.05 of it, each rule with a limit of its own, a step multiplies the loss on
            average by {descent:.5} (descent), {heavy:.5} (heavy ball), {nesterov:.5} (Nesterov),
            over the last {last} steps.""",
            **given,
        )


def why(value, limit):
    if all(claim.holds for claim in value if claim.name == "growth_per_step"):
        yield ss.say(
            """That is what theory has: descent multiplies the error by 1 − {product} = {factor}
            there, and so the loss, which is a square, by {square}; with momentum a step depends on
            the one before, and the factor is the square of the largest root of a quadratic
            equation.""",
            product=SHARE * limit,
            factor=1 - SHARE * limit,
            square=(1 - SHARE * limit) ** 2,
        )


def no_way_out(value):
    (claim,) = (claim for claim in value if claim.name == "change_of_sharpness")
    if claim.holds:
        yield ss.say("""On a quadratic the Hessian is the same everywhere: the curvature cannot give
            way, as that of a network does (study_edge_of_stability).""")
    else:
        yield ss.say(
            "The largest curvature that was measured on the way changes by {change:.2} of itself.",
            change=claim.measured,
        )
