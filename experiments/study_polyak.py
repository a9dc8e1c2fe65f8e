"""Does Polyak's step, which needs no step size, do as well as one that is chosen?

Hypothesis: of single samples it is a projection (Kaczmarz), fast where some parameters fit all
samples, at the rate of the projections' Lyapunov exponent, and useless with noisy labels: it fits
every sample, noise included. Of all the data every step comes closer to the minimiser, on a
quadratic by three times what is guaranteed.

Source: Polyak (1969); Strohmer, Vershynin (2009); Loizou et al. (2021).
Command: python experiments/study_polyak.py
"""

import numpy as np

import sgdstudy as ss
from answers.study_polyak import FULL, ONE, answer, short

SHARE = 0.15  # of the step at which second moments diverge, of the constant step beside
START = (0.9, 0.05, 0.05)  # excess loss of the start, from the flattest direction to the steepest
BOTTOM = {"noiseless": 1e-20, "noisy": 1e-4}  # of the figure
WORLDS = {"noiseless": 0.0, "noisy": 1.0}  # standard deviation of the label noise
LINES = ("constant", ONE, FULL)
NAMES = [ss.to_say("constant"), ss.to_say("Polyak, one sample"), ss.to_say("Polyak, full batch")]
TITLES = {"noiseless": ss.to_say("noiseless labels"), "noisy": ss.to_say("noisy labels")}
EXACT = "theory: second moments, step by step; four standard errors"
LAW = "theory: |z|² falls by 3 (L - L*)² / |g|² on a quadratic (at least 1: Polyak 1969)"


class Options(ss.Options):
    seeds: int = 256
    epochs: int = 100
    """passes over the data"""
    quick: bool = False
    """half of the epochs"""


def arms(o):
    if o.epochs < 2:
        raise ss.InputError(f"epochs must be at least 2, got {o.epochs}: two make a rate")
    same = {"order": "with_replacement", "seeds": o.seed_range(), "diagnostics": "off"}
    same |= {"epochs": max(2, o.epochs // 2) if o.quick else o.epochs}
    same |= {"metrics": [], "record_rows": 20_000}  # the epochs are all kept
    for world, noise in WORLDS.items():
        problem = ss.problems.even_parabola(1, 100, noise, START)
        arm = ss.Arm(problem, "constant", batch_size=10, **same)
        lr = ss.rounded(SHARE * float(ss.expect(arm).mean_square_lr_limit))
        arm = arm.but(charted=noise > 0)
        yield f"{world}: constant", arm.but(lr=lr, color="blue")  # as in the other world
        polyak = arm.but(optimizer="polyak", lr=1e3)  # no step is as large
        one = polyak.but(ONE, batch_size=1, options={"c": 0.5}, color="red")
        yield f"{world}: {ONE}", one
        least = {"least_loss": problem.least_squares.least_loss}
        full = {"batch_size": None, "options": least, "seeds": [0], "color": "green"}
        yield f"{world}: {FULL}", polyak.but(FULL, **full)


def claims(o, runs):
    for arm in (f"noiseless: {ONE}", *(f"{world}: {FULL}" for world in WORLDS)):
        yield ss.Claim("excess", arm, runs[arm].excess()[-1].mean())
    constant, noisy = runs["noisy: constant"], runs[f"noisy: {ONE}"]
    half = constant.config.epochs // 2  # it stalls in the second
    calm, known = constant.excess()[half:].mean(0), ss.expect(constant).excess[half + 1 :].mean()
    due = ss.expect(noisy).excess[-1] / known
    seen = ss.Estimate.ratio(noisy.excess()[-1], calm, due).beside(due)
    yield ss.Claim.estimated("over_constant", f"noisy: {ONE}", *seen, source=EXACT)
    run = runs[f"noiseless: {ONE}"]  # few paths carry its mean, but its rate is all paths'
    seen = run.log_rate(1, 2).beside(ss.expect(run).log_rate)
    yield ss.Claim.estimated("log_rate_per_step", f"noiseless: {ONE}", *seen)
    falls = np.concatenate([fall_over_law(runs[f"{world}: {FULL}"]) for world in WORLDS])
    worst, within = np.abs(falls - 1).max(), 1e-6
    name = "fall_over_law_less_1"
    yield ss.Claim(name, "Polyak, full batch", worst, 0, within, LAW, identity=True)


def fall_over_law(run):
    """Return by how much |z|² falls in each step on all the data, over the law."""
    ls = run.problem.least_squares
    start = run.problem.initial([0]).numpy() - ls.w_star
    z = np.vstack([start, run.from_minimiser()[:, 0]])
    g, fall = z[:-1] @ ls.hessian, -np.diff((z**2).sum(1))
    above = (z[:-1] * g).sum(1) / 2
    # beyond, L - L* is not known to 1e-6 any more
    return (fall * (g**2).sum(1) / above**2 / 3)[above > 1e-9]


def picture(o, runs, value):
    panels = []
    for world, bottom in BOTTOM.items():
        names = [ss.say(name) for name in NAMES]
        shown = {n: runs[f"{world}: {line}"] for n, line in zip(names, LINES, strict=True)}
        axes = {"title": ss.say(TITLES[world]), "limits": (bottom, 10)}
        # of all the data the run is itself what is expected
        panels.append(ss.figures.lines.excess(shown, known=names[:2], **axes))
    one, constant = value["excess", f"noiseless: {ONE}"], runs["noiseless: constant"]
    title = ss.say(
        """Polyak's step on single samples ends at {one:.1} without noise (constant step:
        {constant:.1}), with noise {ratio:.2} times as high""",
        one=one,
        constant=constant.excess()[-1].mean(),
        ratio=value["over_constant"],
    )
    return ss.figures.Chart(title, panels, ss.say("It fits every sample, its noise included."))


charts = {"gradient norm of all the data; noisy labels": "epoch/full_grad_norm"}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
