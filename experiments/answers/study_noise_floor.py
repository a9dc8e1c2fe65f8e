"""The answer of study_noise_floor, and what its claims share with it."""

import numpy as np

import sgdstudy as ss

SHARES = (0.05, 0.1, 0.2, 0.4, 0.6)  # of the step at which second moments diverge
MEANS = "means, shuffled"
LR_LAMBDA = np.array([0.005, 0.03, 0.2])  # of the means: x = 0.5, 3 and 20


def late(run):
    """Return the epochs, from 1, by which the start is forgotten."""
    return slice(run.config.epochs // 10 + 1, run.config.epochs + 1)


def permuted(run):
    """Return what theory says of that for the means, `(3,)`."""
    epochs = np.arange(late(run).start, late(run).stop)
    return ss.theory.reshuffling_share(LR_LAMBDA, run.problem.d, run.config.batch_size, epochs)


def short(o, runs, value):
    yield from settles(runs, value)
    yield from small_steps(runs, value)
    yield from shuffling(runs, value)


def answer(o, runs, value):
    yield ss.say("""With noisy labels the gradient of a batch does not vanish at the best
        parameters, and a constant step keeps them moving around there. How far is the stationary
        excess tr(H C) / 2, H being the Hessian of the loss and C, the covariance of the parameters,
        the solution of a Lyapunov equation.""")
    yield from settles(runs, value)
    yield from small_steps(runs, value)
    yield None
    yield from shuffling(runs, value)
    left = [c for c in value if c.arm == MEANS]
    yield ss.say(
        """Where all samples have the same curvature it leaves {seen}; theory,
        exactly: {due:.1%}.""",
        seen=[
            ss.say("{share:.1%} at x = {x}", share=c.measured, x=float(c.name.split("_")[-1]))
            for c in left
        ],
        due=[*permuted(runs[MEANS])],
    )
    yield ss.say("Here x = lr λ d / B: step size, times curvature, times batches of an epoch.")


def sizes(runs):
    return sorted({run.config.batch_size for run in runs.select("*independent").values()})


def settles(runs, value):
    every = runs.select("*independent").items()
    gap = [value["excess", a] / ss.expect(r).stationary_excess.value - 1 for a, r in every]
    yield ss.say(
        """The loss settles where theory says, within {gap:.1%}, at each of {n} step sizes with
        batches of {sizes}.""",
        gap=ss.text.at_least(max(map(abs, gap))),
        n=len(SHARES),
        sizes=sizes(runs),
    )


def small_steps(runs, value):
    size = sizes(runs)[0]
    first, last = (f"B={size}, {share} of the limit, independent" for share in SHARES[::4])
    few, most = (value["small_step_formula_over_exact", arm] for arm in (first, last))
    yield ss.say(
        """The formula for small steps, lr tr(S) / (4 B), gives {few:.0%} of it at {low} of the
        largest step, and {most:.0%} at {high} (batches of {size}).""",
        few=few,
        most=most,
        low=SHARES[0],
        high=SHARES[-1],
        size=size,
    )


def shuffling(runs, value):
    size = sizes(runs)[0]
    given = value["noise_left_by_shuffling", f"B={size}, {SHARES[0]} of the limit, independent"]
    flat, steep = given[0], given[-1]
    if flat < steep:
        yield ss.say(
            """Shuffling leaves {flat:.0%} of the noise in the flattest direction and {steep:.0%} in
            the steepest (batches of {size}, the smallest step): it averages out what changes
            slowly.""",
            flat=flat,
            steep=steep,
            size=size,
        )
    else:
        yield ss.say(
            """Shuffling leaves {flat:.0%} of the noise in the flattest direction and {steep:.0%} in
            the steepest (batches of {size}, the smallest step).""",
            flat=flat,
            steep=steep,
            size=size,
        )
