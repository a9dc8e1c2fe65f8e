"""How does SGD scatter about its minimum, and does the small-step law of Mandt et al. tell?

Hypothesis: near a minimum a constant step scatters with a covariance C that solves
H C + C H = (lr / B) S, as an Ornstein-Uhlenbeck process: the paper's law, of small steps. Of any
step C = E[(I - lr H_b) C (I - lr H_b)] + lr² S / B, entry by entry: the paper's law is too low by
a factor that grows with lr. Where B does not divide d, the smaller last batch of an epoch is
noisier, and the covariance goes up and down within every epoch.

Source: Mandt, Hoffman, Blei (2017), Stochastic Gradient Descent as Approximate Bayesian Inference;
linear algebra of second moments (docs/notebook.md).
Command: python experiments/study_stationary_covariance.py
"""

import numpy as np

import sgdstudy as ss
from answers.study_stationary_covariance import answer, short
from common.study_stationary_covariance import (
    LEFT_OUT,
    RAGGED,
    SHARES,
    SIZES,
    arm_of,
    ellipse,
    exact,
    gap,
    late,
    paper,
    scatter,
    squares,
)

EXACT = "theory: stationary second moments; four standard errors, one value a seed"
COLORS = {4: ("blue", "green"), RAGGED: ("red", "purple")}


class Options(ss.Options):
    seeds: int = 64
    times: int = 200
    """length of a run, in times 1 / (lr λ) of its slowest mode; the first 10 are left out"""


def line(w, x):
    """Return w0 + w1 x."""
    return w[0] + w[1] * x


def problem():
    """Return a line through 12 noisy points, started at its best fit."""
    x = np.linspace(-0.5, 1.5, 12)
    y = 1 - x / 2 + np.random.default_rng(0).normal(size=12)
    fit = ss.Problem(x, y, line, w_init=np.zeros(2), name="line through 12 noisy points")
    best = fit.least_squares.w_star
    return fit.replace(w_init=best, w_true=best)


def arms(o):
    if o.times < 2 * LEFT_OUT:
        least = f"at least {2 * LEFT_OUT}, got {o.times}: {LEFT_OUT} of them are left out"
        raise ss.InputError(f"times must be {least}")
    same = {"order": "with_replacement", "seeds": o.seed_range(), "diagnostics": "off"}
    arm = ss.Arm(problem(), "", batch_size=RAGGED, metrics=["full_loss"], **same)
    for size in SIZES:
        known = ss.expect(arm.but(batch_size=size))
        for share in SHARES:
            lr = ss.rounded(share * float(known.mean_square_lr_limit))
            epochs = int(np.ceil(o.times / (lr * known.eigenvalues[0]) / 3))  # of three batches
            about = ss.say("batches of {n}, of 12 samples", n=size)
            shown = {"charted": share == SHARES[-1], "color": COLORS[size][0]}
            yield (
                arm_of(size, share),
                arm.but(about, batch_size=size, lr=lr, epochs=epochs, **shown),
            )


def excess(run, each):
    """Return the excess loss of these covariances, one a seed."""
    return ss.Estimate.mean((each * run.problem.least_squares.hessian).sum((1, 2)) / 2)


def claims(o, runs):
    for arm, run in runs.items():
        each, due = scatter(run), exact(run)[-1]
        for i, j in ((0, 0), (0, 1), (1, 1)):
            seen = ss.Estimate.mean(each[:, i, j]).beside(due[i, j])
            yield ss.Claim.estimated(f"covariance_w{i}_w{j}", arm, *seen, source=EXACT)
        ratio = float(excess(run, each)) / gap(run, paper(run))
        yield ss.Claim("excess_over_the_papers_law", arm, ratio)
    arm = arm_of(RAGGED, SHARES[-1])
    run = runs[arm]
    which = {"epochs": slice(late(run), None)}
    z, batch = run.from_minimiser("steps", **which), run.array("steps", "batch", **which)[:, 0]
    for i, due in enumerate(exact(run)):  # after a batch, which is before the next
        seen = excess(run, squares(z[batch == (i + 1) % 3])).beside(gap(run, due))
        yield ss.Claim.estimated(f"excess_after_batch_{i + 1}", arm, *seen, source=EXACT)


def picture(o, runs, value):
    ellipses, over = [], {}
    for size in SIZES:
        mine = [runs[arm_of(size, share)] for share in SHARES]
        name = ss.say("batches of {size}", size=size)
        if size == RAGGED:
            name = ss.say("batches of {size}, the last of {rest}", size=size, rest=12 % size)
        last, colors = mine[-1], ss.figures.palette.named(*COLORS[size])
        both = ellipse(scatter(last).mean(0)), ellipse(exact(last)[-1])
        ellipses.append(ss.figures.Line(name, *both[0], color=colors[0], theory=both[1]))
        old = ss.say("the paper's law, B = {size}", size=size)
        ellipses.append(ss.figures.Line(old, *ellipse(paper(last)), color=colors[1]))
        seen = [(1 / gap(r, paper(r))) * excess(r, scatter(r)) for r in mine]

        def law(x, one=mine[0]):
            lrs = np.asarray(x, float) * one.config.lr / SHARES[0]
            return [gap(one, exact(one, lr)[-1]) / gap(one, paper(one, lr)) for lr in lrs]

        over[name] = list(SHARES), seen, law
    axes = {"x": ss.say("lr over its limit"), "y": ss.say("excess loss over the paper's")}
    axes |= {"title": ss.say("at every step size")}
    colors = ss.figures.palette.named(*(COLORS[size][0] for size in SIZES))
    right = ss.figures.lines.measured(over, colors=colors, **axes)
    title = ss.say("one standard deviation, {share} of the limit", share=SHARES[-1])
    left = ss.figures.Panel(
        ellipses, ss.say("w0, about the best"), ss.say("w1, about the best"), title
    )
    even, ragged = (value["excess_over_the_papers_law", arm_of(size, SHARES[-1])] for size in SIZES)
    title = ss.say(
        """At {share} of the largest step the excess loss is {even:.2} times that of the small-step
        law, {ragged:.2} times after a ragged batch""",
        share=SHARES[-1],
        even=even,
        ragged=ragged,
    )
    note = ss.say("A ragged batch: 12 samples in batches of 5, 5 and 2.")
    return ss.figures.Chart(title, [left, right], note)


charts = {"loss of all the data": "epoch/full_loss"}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
