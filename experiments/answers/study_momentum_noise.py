"""The answer of study_momentum_noise."""

import sgdstudy as ss
from common.study_momentum_noise import (
    ALL,
    EPOCHS,
    ONE,
    RULES,
    STEEP,
    arm_of,
    gain,
    kappas,
    normal_gain,
    power,
)


def short(o, runs, value):
    yield from exact(o, value)
    yield from heavy(o, value)
    yield from nesterov(o, value)


def answer(o, runs, value):
    yield ss.say("""Momentum is made for narrow valleys: where the curvature is κ times as large in
        one direction as in another, descent needs of the order of κ steps, heavy ball and
        Nesterov's momentum √κ. This is so with exact gradients. Kidambi, Netrapalli, Jain and
        Kakade (2018) ask what is left of it on single samples, and look at the simplest ones: two,
        along the axes, of squared lengths 1 and 1/κ, whose labels have no noise.""")
    yield ss.say("""Each rule has the best of all its step sizes and momenta here, those with which
        the mean square of the error falls fastest in the long run, by the second moments of a
        step.""")
    yield from exact(o, value)
    yield None
    yield from heavy(o, value)
    yield from nesterov(o, value)
    yield from held(value)
    yield None
    yield from along_the_valley(o, runs)
    yield ss.say("""That momentum gains no more than a constant factor on these samples the paper
        proves of heavy ball, and finds of Nesterov's in its experiments.""")
    yield from not_the_same(o, value)
    yield ss.say(
        """For normal inputs theory has, with κ = {kappa} and in the long run, a factor of
        {heavy:.3} for heavy ball and of {nesterov:.3} for Nesterov's.""",
        kappa=kappas(o)[-1],
        heavy=normal_gain(kappas(o)[-1], "heavy ball"),
        nesterov=normal_gain(kappas(o)[-1], "Nesterov"),
    )
    yield ss.say("The paper's own method, accelerated SGD, is not among the rules here.")


def along_the_valley(o, runs):
    kappa = kappas(o)[-1]
    configs = [runs[arm_of(kappa, rule, ONE)].config for rule in RULES]
    speeds = [c.lr / (1 - c.options.get("momentum", 0.0)) for c in configs]
    yield ss.say(
        """What moves the parameters along the valley is lr / (1 − β), where β is the momentum: at
        the best for single samples with κ = {kappa} it is {descent:.2} for descent, {heavy:.2} for
        heavy ball and {nesterov:.2} for Nesterov's. With a larger lr or β the error across the
        valley falls more slowly, or grows.""",
        kappa=kappa,
        descent=speeds[0],
        heavy=speeds[1],
        nesterov=speeds[2],
    )


def _gains(o, value, noise):
    low, high = kappas(o)[0], kappas(o)[-1]
    given = {"low": low, "high": high, "target": o.target}
    for name, rule in (("heavy", "heavy ball"), ("nesterov", "Nesterov")):
        given[f"{name}_low"], given[f"{name}_high"] = (
            gain(value, kappa, rule, noise) for kappa in (low, high)
        )
        given[f"{name}_power"] = power(o, value, rule, noise)
    return given


def exact(o, value):
    yield ss.say(
        """With exact gradients and a condition number κ of {high}, descent takes {heavy_high:.3}
        times as many steps as heavy ball to {target} of the loss at the start, and
        {nesterov_high:.3} times as many as Nesterov's momentum.""",
        **_gains(o, value, ALL),
    )


def heavy(o, value):
    given = _gains(o, value, ONE)
    most = max(gain(value, kappa, "heavy ball", ONE) for kappa in kappas(o))
    if most < 2 < gain(value, given["high"], "heavy ball", ALL):
        yield ss.say(
            """On single samples hardly anything is left of that: descent takes {heavy_low:.3} times
            as many as heavy ball, at its best, where κ is {low}, {heavy_high:.3} times as many
            where it is {high}, and for each κ here less than twice as many.""",
            **given,
        )
    else:
        yield ss.say(
            """On single samples descent takes {heavy_low:.3} times as many as heavy ball, at its
            best, where κ is {low}, and {heavy_high:.3} times as many where it is {high}.""",
            **given,
        )


def nesterov(o, value):
    given = _gains(o, value, ONE)
    if given["nesterov_high"] > 2 * max(given["nesterov_low"], 1):
        yield ss.say(
            """Nesterov's momentum, at its best, still helps there: descent takes {nesterov_low:.3}
            times as many steps where κ is {low} and {nesterov_high:.3} times as many where it is
            {high}, a gain that grows as κ to the power {nesterov_power:.2}.""",
            **given,
        )
    else:
        yield ss.say(
            """Of Nesterov's momentum, at its best, descent takes there {nesterov_low:.3} times the
            steps where κ is {low} and {nesterov_high:.3} times where it is {high}.""",
            **given,
        )


def not_the_same(o, value):
    given = _gains(o, value, ONE)
    if given["nesterov_high"] > 2 * given["heavy_high"]:
        yield ss.say(
            """At the best of all step sizes and momenta it is not so of Nesterov's on these
            samples: where κ is {high}, heavy ball takes {over:.3} times as many steps.""",
            high=given["high"],
            over=given["nesterov_high"] / given["heavy_high"],
        )


def held(value):
    mine = [claim for claim in value if claim.arm.endswith(ONE)]
    if all(claim.holds for claim in mine):
        off = max(abs(claim.measured / claim.expected - 1) for claim in mine)
        yield ss.say(
            "These steps are those that theory has, within {off:.1%}.", off=ss.text.at_least(off)
        )
    steep = [claim for claim in value if claim.arm.endswith(STEEP)]
    if steep and all(claim.holds for claim in steep):
        yield ss.say(
            "It also has the loss after {n} epochs from a start on a steep side of the valley.",
            n=EPOCHS,
        )
