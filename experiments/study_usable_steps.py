"""Which step size does an order of the samples stand?

Hypothesis: in sorted order the rounding of the labels alone, multiplied within the epoch, keeps the
loss above 0.1 from a step well below the one at which the order itself diverges. Drawn orders stand
larger ones: the mean square of the error diverges first, of independent batches before reshuffled
ones, and yet almost every seed converges, up to where the Lyapunov exponent crosses zero.

Theory, before it runs: fixed point and spectral radius of an epoch's map, with 120 digits; second
moments of random steps; the growth of long random products.

Source: Exercise 6, continued. Command: python experiments/study_usable_steps.py --seeds 64
"""

import numpy as np

import sgdstudy as ss
from answers.study_usable_steps import ABOVE, BELOW, BESIDE, NEAR, answer, exponent_zero, short

ORDERS = ("sequential", "strided", "shuffle")
COLORS = ("blue", "red")  # below a limit, above it
GROWING = 20  # epochs, well before float64 overflows
PATHS = 64  # that theory's exponent is the mean of


class Options(ss.Options):
    lr: float = 2e-4
    """step size of the orders that are compared"""
    epsilon: float = 0.1
    """a step is usable if the loss of all the data gets below"""
    epochs: int = 120
    """the most epochs"""


def arms(o):
    sgd = ss.Arm("curve", optimizer="SGD", lr=o.lr, batch_size=10, epochs=o.epochs)
    sgd = sgd.but(stop=("full", o.epsilon), dtype="float64")
    one = o.seed_range()[:1]
    for order in ORDERS:
        yield order, sgd.but("its contraction per epoch", order=order, seeds=one)
    along = sgd.but(order="sequential", diagnostics="full")
    usable = ss.expect(along).usable_lr(o.epsilon, low=2e-4, high=3e-4)
    for (name, factor), color in zip(NEAR.items(), COLORS, strict=True):
        about = ss.say("{factor} times the largest usable step", factor=factor)
        near = along.but(about, lr=ss.rounded(factor * usable))
        yield name, near.but(color=color)
    drawn = sgd.but(order="shuffle", diagnostics="full", seeds=o.seed_range())
    zero = ss.theory.lyapunov_zero_lr(sgd.problem, 10, low=3e-4, high=8e-4)
    for (name, factor), color in zip(BESIDE.items(), COLORS, strict=True):
        about = ss.say("{factor} times the zero of the exponent", factor=factor)
        near = drawn.but(about, lr=ss.rounded(factor * zero))
        yield name, near.but(charted=False, color=color)


def claims(o, runs):
    known, below, above = ss.expect(runs["usable"]), runs[BELOW], runs[ABOVE]
    mean = ss.theory.reshuffling_growth(
        known.ls, 2000, 10, below.config.lr, particles=100, repeats=8, epochs=4
    )
    yield ss.Claim("usable_lr_sequential", "all", known.config.lr / NEAR["usable"])
    yield ss.Claim("critical_lr_sequential", "all", known.critical_lr(low=2e-4, high=1e-3))
    yield ss.Claim("mean_square_lr_limit", "all", known.mean_square_lr_limit.value)
    yield ss.Claim("growth_of_mean_square", BELOW, [mean.low, mean.high])
    yield ss.Claim("converged", BELOW, sum(np.isfinite(below.converged_epoch)))
    yield ss.Claim("diverged", ABOVE, sum(above.stop_reason == "diverged"))
    if o.epochs > 1:
        slopes, due = above.error_growth(GROWING), ss.expect(above).lyapunov(GROWING, PATHS)
        error = ss.standard_error(slopes) * np.sqrt(1 + len(slopes) / PATHS)  # of both means
        law = (
            ABOVE,
            slopes.mean(),
            due,
            error,
            len(slopes),
            ss.to_say("theory: Lyapunov exponent, 200 steps"),
        )
        yield ss.Claim.estimated("lyapunov_per_epoch", *law)
    yield from ss.predicted_claims(runs)


def picture(o, runs, value):
    known, zero = value["usable_lr_sequential"], exponent_zero(runs)
    pairs = {ss.say("sorted: limit {lr}", lr=known): NEAR}
    pairs |= {ss.say("shuffled: limit {lr}", lr=zero): BESIDE}
    names = ss.say("just below the limit"), ss.say("just above")
    panels = []
    for (title, arms), top in zip(pairs.items(), (1e3, 1e20), strict=True):
        shown = runs.named(dict(zip(names, arms, strict=True)))
        axes = {"title": title, "epsilon": o.epsilon, "limits": (0.03, top)}
        panels.append(ss.figures.lines.by_epoch(shown, "full_loss", **axes))
    title = ss.say(
        """Sorted order stands steps up to {known}, beyond which rounding keeps the loss high;
        shuffling stands steps up to {zero}""",
        known=known,
        zero=zero,
    )
    note = ss.say(
        "Shuffled: one order of the samples.",
        """Shuffled: below the limit it gets there in {there} of {n} orders, above it diverges in
        {lost}.""",
        there=value["converged"],
        n=len(runs[BELOW].w),
        lost=value["diverged"],
    )
    return ss.figures.Chart(title, panels, note)


def figures(runs):
    known, three = ss.expect(runs["sequential"]), {order: runs[order] for order in ORDERS}
    measured = {order: (run.config.lr, run.contraction()) for order, run in three.items()}
    marks = {
        ss.say("sorted: usable with these labels"): runs["usable"].config.lr / NEAR["usable"],
        ss.say("sorted: critical"): known.critical_lr(low=2e-4, high=1e-3),
        ss.say("full batch: limit"): known.lr_limit.value,
    }
    batches = {order: ss.expect(run).batches for order, run in three.items()}
    steps = np.linspace(2e-5, 6e-4, 30)
    yield "radius.png", ss.figures.radius_by_lr(batches, steps, measured, marks)


ask = {
    ("usable_lr_sequential", "all"): "Up to which step does the sorted order get below 0.1?",
    ("mean_square_lr_limit", "all"): "The step from which the mean square of independent batches "
    "diverges?",
}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
