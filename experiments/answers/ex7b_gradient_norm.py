"""The answer of Exercise 7, second part."""

import math

import sgdstudy as ss

RATIO = "batch_norm_over_full_norm"
NORMS = ("mean_grad_norm", "full_grad_norm")  # of the batch gradients of an epoch; of the full one
START, WAY, NEAR, NOISY = "at the start", "on the way", "near the optimum", "optimum, noise 1"


def short(o, runs, value):
    if holds(value, "full_norm_above_mean"):
        yield ss.say("""The norm of the gradient of all points is at most the mean of the norms of
            the batch gradients.""")
    start, near = value[RATIO, START], value[RATIO, NEAR]
    if near > 2 * start:
        yield ss.say(
            """At the start the mean is {start:.6} times as large, near the solution {near:.3}
            times: there the batch gradients point in different directions, and cancel.""",
            start=start,
            near=near,
        )
    else:
        yield ss.say(
            """At the start the mean is {start:.6} times as large, near the solution {near:.6}
            times.""",
            start=start,
            near=near,
        )
    yield from serious(value)


def answer(o, runs, value):
    yield ss.say("""The gradient of a mean is the mean of the gradients. At fixed parameters w, with
        batches of n₁, …, n_m points of the d: ∇L(w) = Σᵢ (nᵢ/d) ∇Lᵢ(w).""")
    if holds(value, "mean_gradient_off"):
        yield ss.say("The runs that stand still confirm it, to within rounding.")
    yield None
    yield ss.say("""By the triangle inequality ‖∇L(w)‖ ≤ Σᵢ (nᵢ/d) ‖∇Lᵢ(w)‖: a sum of arrows is at
        most as long as the arrows one after the other. There is equality only where all of them
        point the same way.""")
    given = {"start": value[RATIO, START], "way": value[RATIO, WAY], "near": value[RATIO, NEAR]}
    yield ss.say(
        """Measured, the right-hand side is {start:.6} times the left one at w = 0, {way:.3} times
        after ten epochs of descent, {near:.3} times near the solution.""",
        **given,
    )
    if given["start"] < given["way"] < given["near"]:
        yield ss.say("""The nearer the solution, the smaller what the batches have in common, and
            what sets them apart remains.""")
    yield None
    yield from serious(value)
    yield from noisy(runs, value)
    yield None
    yield from moving(o, runs, value)
    yield None
    yield from noise_scale(o, runs, value)


def serious(value):
    near = value[RATIO, NEAR]
    if near > 1.5:
        yield ss.say("""“Is it serious, doctor?” (the notebook asks.) Yes: near the solution the
            norm of a batch gradient says little of that of the whole.""")
    elif near < 1.1:
        yield ss.say("""“Is it serious, doctor?” (the notebook asks.) Not here: batches of this size
            have nearly the gradient of the whole, near the solution too.""")
    else:
        yield ss.say("""“Is it serious, doctor?” (the notebook asks.) A little: near the solution
            the gradients of batches of this size are somewhat longer than that of the whole.""")


def noisy(runs, value):
    full, least = value["full_gradient_norm", NOISY], value["least_batch_norm", NOISY]
    if full < 1e-3 < 100 * full < least:
        yield ss.say(
            """With noisy labels, at their solution, the gradient of all points vanishes but for
            rounding (its norm is {full:.1}), and none of {n} batch gradients does (the smallest has
            {least:.2}): a rule that waits for a batch gradient to vanish waits in vain.""",
            full=full,
            least=least,
            n=int(runs[NOISY].n_steps.sum()),
        )


def moving(o, runs, value):
    yield ss.say("""While it trains, batch i meets the parameters wᵢ, and the inequality, which is
        about one w, no longer holds by itself. But each step of plain SGD is wᵢ₊₁ = wᵢ − η ∇Lᵢ(wᵢ),
        so that the mean of the m gradients of an epoch is the way made: (1/m) Σᵢ ∇Lᵢ(wᵢ) = (w at
        the start − w at the end) / (η m). It is their mean that moves the parameters.""")
    if any(claim.name == "way_off" and claim.holds for claim in value):
        yield ss.say("The runs confirm it, to within rounding.")
    yield from along_the_way(runs)


def along_the_way(runs):
    ratio = runs["moving"].ratio(*NORMS)
    if len(ratio) > 1 and all(math.isfinite(one) for one in ratio):
        yield ss.say(
            """While it trains, the mean of the norms is {first:.3} times the norm of the whole
            gradient at the end of the first epoch, and {last:.3} times in epoch {n}.""",
            first=ratio[0],
            last=ratio[-1],
            n=len(ratio),
        )


def headline(runs):
    """The title of the picture: of the last epoch that both runs completed."""
    ratios = [run.ratio(*NORMS) for run in runs.select("moving*").values()]
    n = min(map(len, ratios))
    if not n:
        return ss.say("Gradients of the batches, of all the data, and the mean of the former")
    return ss.say(
        """In epoch {n} the mean of the batch norms is {first} times the full norm, with noisy
        labels {last} times""",
        n=n,
        first=ratios[0][n - 1],
        last=ratios[1][n - 1],
    )


def noise_scale(o, runs, value):
    given = {
        place: value["noise_scale", arm]
        for place, arm in (("start", START), ("way", WAY), ("near", NEAR))
    }
    yield ss.say(
        """How large does a batch have to be? The gradient of a batch is that of the whole (signal)
        plus a deviation (noise); both are equally strong in batches of about tr(Σ) / ‖∇L‖² points,
        Σ being the covariance of the gradients of single points. This noise scale is {start:.3} at
        the start, {way:.3} on the way and {near:.4} near the solution: it belongs to a place, not
        to a problem.""",
        **given,
    )
    square, d = value["full_gradient_norm", NEAR] ** 2, runs[NEAR].problem.d
    due = ss.expect(runs[NEAR]).mean_square_batch_norm  # over all orders
    mean = ss.theory.two_batch_estimate(due.value, o.batch_size, square, d)
    if abs(mean - square) > square / 10:
        yield ss.say(
            """Estimating it from batches of {size} and from all the data, as one does where Σ is
            not known, takes ‖∇L‖² for {mean:.2} near the solution, a mean over all orders, where it
            is {square:.2}: the formula supposes points drawn with replacement, and an epoch draws
            without.""",
            size=o.batch_size,
            mean=mean,
            square=square,
        )


def holds(value, name):
    """Whether a claim of this name holds."""
    return any(claim.name == name and claim.holds for claim in value)
