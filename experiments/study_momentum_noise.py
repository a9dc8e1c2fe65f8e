"""Does momentum still help where the gradients are noisy, as it does where they are exact?

Hypothesis: with exact gradients heavy ball and Nesterov's momentum need √κ times fewer steps than
descent, κ the condition number. With those of single samples, whose labels have no noise, heavy
ball at its best step size and momentum still needs of the order of κ steps (Kidambi et al.,
Proposition 3), more than half of SGD's. Of Nesterov's the paper finds the same by trial; the second
moments of a step, at their best step size and momentum, say what it can do.

Source: Kidambi, Netrapalli, Jain, Kakade (2018), On the insufficiency of existing momentum schemes
for stochastic optimization; Polyak (1964); Lessard, Recht, Packard (2016).
Command: python experiments/study_momentum_noise.py
"""

from functools import lru_cache
from itertools import product

import numpy as np

import sgdstudy as ss
from answers.study_momentum_noise import answer, short
from common.study_momentum_noise import (
    ALL,
    EPOCHS,
    ONE,
    RULES,
    STEEP,
    arm_of,
    due_gain,
    excess,
    expected,
    gain,
    kappas,
    parts,
)

MOMENTS = "theory: second moments of a step; four standard errors"
EXACT = "theory: the same steps, not rounded"
DRAWN = {
    ("descent", ONE): ("black", ss.to_say("descent, single samples")),
    ("heavy ball", ONE): ("red", ss.to_say("heavy ball, single samples")),
    ("Nesterov", ONE): ("blue", ss.to_say("Nesterov, single samples")),
    ("heavy ball", ALL): ("green", ss.to_say("heavy ball, exact gradients")),
    ("Nesterov", ALL): ("purple", ss.to_say("Nesterov, exact gradients")),
}


class Options(ss.Options):
    seeds: int = 256
    target: float = 1e-3
    """excess loss that is to be reached, over that of the start"""
    quick: bool = False
    """without the largest condition number, which has three quarters of the steps"""


@lru_cache
def problem(kappa, steep=False):
    """Return two samples along the axes, of squared lengths 1 and 1/κ, started at an excess of 1.

    Both are fitted by w = (1, 1). Drawn one by one they are the paper's discrete distribution.
    """
    x, name = np.diag([1, kappa**-0.5]), f"two samples, condition number {kappa}"
    fit = ss.Problem(x, x.sum(1), lambda w, x: x @ w, w_init=np.zeros(2), name=name)
    start = fit.least_squares.at_excess(np.array([0.0, 1.0] if steep else [1.0, 0.0]))
    return fit.replace(w_init=start, w_true=np.ones(2))


@lru_cache
def best(kappa, rule, noise):
    """Return the step size and momentum with which the mean square falls fastest."""
    one = noise == ONE
    given = (problem(kappa).least_squares, 2, 1 if one else 2)
    return ss.theory.fastest_steps(*given, replacement=one, rule=rule)


def arms(o):
    if not 1e-4 <= o.target < 0.5:  # below, few paths carry the mean square
        raise ss.InputError(f"target is at least 0.0001 and below 0.5, got {o.target:g}")
    same = {"metrics": ["full_loss"], "diagnostics": "off"}
    random = same | {"batch_size": 1, "order": "with_replacement", "seeds": o.seed_range()}
    for kappa, noise, rule in product(kappas(o), (ONE, ALL), RULES):
        found, given = best(kappa, rule, noise), random if noise == ONE else same
        lr, momentum = (ss.rounded(value, 6) for value in (found.lr, found.momentum))
        options = {"momentum": momentum} if rule != "descent" else {}
        options |= {"nesterov": True} if rule == "Nesterov" else {}
        steps = np.log(o.target) / np.log(found.factor)  # in the long run
        epochs = 10 + int(2 * steps / (2 if noise == ONE else 1))
        about = ss.say("{rule}, condition number {kappa}", rule=ss.say(rule), kappa=kappa)
        arm = ss.Arm(problem(kappa), about, lr=lr, options=options, epochs=epochs, **given)
        color, last = DRAWN.get((rule, noise), ("grey",))[0], kappa == kappas(o)[-1]
        yield arm_of(kappa, rule, noise), arm.but(charted=last, color=color)
        if last and noise == ONE:
            steep = arm.but(problem=problem(kappa, steep=True), epochs=EPOCHS, charted=False)
            yield arm_of(kappa, rule, STEEP), steep


def claims(o, runs):
    for arm, run in runs.items():
        seen, due, m = excess(run), expected(run), len(run.config.batch_sizes(2))
        time = m * ss.theory.time_above(due, o.target)
        if arm.endswith(STEEP):
            found = ss.Estimate.mean(seen[-1]).beside(due[-1])
            yield ss.Claim.estimated("excess_at_the_end", arm, *found, source=MOMENTS)
        elif arm.endswith(ONE):
            until = due[: int(time / m) + 2]
            found = (m * ss.Estimate.time_above(seen, o.target, until)).beside(time)
            yield ss.Claim.estimated("steps_to_target", arm, *found, source=MOMENTS)
        else:  # every step rounds w, not w - w*; the steps after it make that as many times larger
            fall = -np.log(best(*parts(arm)).factor) * o.target**0.5
            due = ss.Known(time, 4 * time**2 * np.finfo(float).eps / fall, EXACT)
            yield ss.Claim("steps_to_target", arm, ss.theory.time_above(seen[:, 0], o.target), due)


def picture(o, runs, value):
    gained, curves, every = [], [], kappas(o)
    for (rule, noise), (color, name) in DRAWN.items():
        label, (color,) = ss.say(name), ss.figures.palette.named(color)
        if rule != "descent":
            seen = np.array([gain(value, kappa, rule, noise) for kappa in every])
            due = np.array(every), np.array([due_gain(o, runs, k, rule, noise) for k in every])
            gained.append(ss.figures.Line(label, due[0], seen, color, theory=due, dots=True))
        if noise == ONE:
            run = runs[arm_of(every[-1], rule, ONE)]
            due = expected(run)[: int(ss.theory.time_above(expected(run), o.target)) + 3]
            seen, steps = excess(run)[: len(due)].mean(1), 2 * np.arange(len(due))
            curves.append(ss.figures.Line(label, steps, seen, color, theory=(steps, due)))
    axes = {"x": ss.say("condition number κ"), "y": ss.say("descent's steps over the rule's")}
    left = ss.figures.Panel(gained, **axes, title=ss.say("steps saved"), log="xy")
    axes = {"x": ss.say("steps"), "y": ss.say("loss above the least one, mean")}
    axes |= {"title": ss.say("single samples, κ = {kappa}", kappa=every[-1])}
    right = ss.figures.Panel(curves, **axes, log="y", limits=(o.target, 2))
    title = ss.say(
        """With κ = {kappa} heavy ball saves a factor of {exact:.2} with exact gradients and
        {heavy:.2} on single samples; Nesterov's momentum saves {nesterov:.2} there""",
        kappa=every[-1],
        exact=gain(value, every[-1], "heavy ball", ALL),
        heavy=gain(value, every[-1], "heavy ball", ONE),
        nesterov=gain(value, every[-1], "Nesterov", ONE),
    )
    return ss.figures.Chart(
        title, [left, right], ss.say("Each at its best step size and momentum.")
    )


charts = {"loss of all the data": "epoch/full_loss"}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
