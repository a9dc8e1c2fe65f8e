"""Where does SGD settle when the labels are noisy, and what does shuffling take off?

Hypothesis: with samples drawn independently and a constant step, the loss ends above its minimum
by the stationary excess tr(H C) / 2, C the solution of a Lyapunov equation; lr tr(S) / (4 B) is
only its limit for small steps. Shuffling leaves about the share 1 - tanh(x/2) / (x/2) of the noise
in a mode of eigenvalue λ, x = lr λ d / B; where every sample has the same curvature, the
share is known exactly.

Source: linear algebra of second moments (docs/notebook.md).
Command: python experiments/study_noise_floor.py
"""

import numpy as np

import sgdstudy as ss
from answers.study_noise_floor import LR_LAMBDA, MEANS, SHARES, answer, late, permuted, short

SIZES = (1, 10)
FEWEST = 40  # epochs
EXACT = "theory: recursion of the second moments; four standard errors"
PERMUTED = ss.to_say("theory: variance of a permuted epoch, exact; four standard errors")
ORDERS = {"independent": "with_replacement", "shuffled": "shuffle"}


class Options(ss.Options):
    seeds: int = 64
    times: int = 60
    """length of a run, in times 1 / (lr λ) of its slowest mode"""
    quick: bool = False
    """batches of 10 only: a tenth of the work"""


def means():
    """Return three numbers to be found from noisy ones: every sample has the same curvature."""
    scales = np.sqrt(LR_LAMBDA * 3 / 2)  # H = 2 / 3 scales²: `LR_LAMBDA` with lr = 1
    x, y = np.tile(scales, (200, 1)), np.random.default_rng(0).normal(size=(200, 3))
    given = {"w_init": y.mean(0) / scales, "name": "means of three noisy numbers"}
    return ss.Problem(x, y, lambda w, x: w * x, **given)


def arms(o):
    problem = ss.problems.even_parabola(2, 1000, 1.0, (0, 0, 0))  # started at its best fit
    same = {"seeds": o.seed_range(), "diagnostics": "off", "metrics": ["full_loss"]}
    same |= {"record_rows": 20_000}  # the epochs are all kept
    for size in SIZES[-1:] if o.quick else SIZES:
        arm = ss.Arm(problem, batch_size=size, order="with_replacement", **same)
        known = ss.expect(arm)
        for share in SHARES:
            lr = ss.rounded(share * float(known.mean_square_lr_limit))
            epochs = np.ceil(o.times / (lr * known.eigenvalues[0]) * size / problem.d)
            given = {"lr": lr, "epochs": max(FEWEST, int(epochs)), "charted": share == SHARES[2]}
            for name, order in ORDERS.items():
                about = {
                    "independent": ss.say("independent batches of {n}", n=size),
                    "shuffled": ss.say("shuffled batches of {n}", n=size),
                }
                line = f"B={size}, {share} of the limit"
                yield f"{line}, {name}", arm.but(about[name], order=order, **given)
    one = ss.Arm(means(), "one curvature for all samples", lr=1.0, batch_size=2, **same)
    epochs = np.ceil(3 * o.times / LR_LAMBDA[0] * 2 / one.problem.d)
    yield MEANS, one.but(epochs=max(FEWEST, int(epochs)))


def excess(run):
    return ss.Estimate.mean(run.excess(epochs=late(run)).mean(0))


def left_by_shuffling(runs, arm):
    """Return the share of the noise that shuffling leaves, from flat to steep, `(p,)`."""
    pair = (runs[arm.replace("independent", "shuffled")], runs[arm])
    shuffled, independent = (run.mode_variance(late(run)) for run in pair)
    return shuffled / independent


def claims(o, runs):
    for arm, run in runs.select("*independent").items():
        known = ss.expect(run)
        seen = excess(run).beside(known.excess[late(run)].mean())
        yield ss.Claim.estimated("excess", arm, *seen, source=EXACT)
        ratio = known.small_step_excess / float(known.stationary_excess)
        yield ss.Claim("small_step_formula_over_exact", arm, ratio)
        yield ss.Claim("noise_left_by_shuffling", arm, left_by_shuffling(runs, arm))
    run, known = runs[MEANS], ss.expect(runs[MEANS])
    shares = (run.from_minimiser(epochs=late(run)) ** 2).mean(0) / known.mode_noise  # (R, 3)
    for share, lr_lambda, due in zip(shares.T, LR_LAMBDA, permuted(run), strict=True):
        name = f"noise_left_by_shuffling_x_{lr_lambda * run.problem.d / run.config.batch_size:g}"
        yield ss.Claim.estimated(name, MEANS, *ss.Estimate.mean(share).beside(due), PERMUTED)


def picture(o, runs, value):
    floors, shuffled = {}, {}
    for size in SIZES[-1:] if o.quick else SIZES:
        arms = runs.select(f"B={size},*independent")
        lrs = np.array([run.config.lr for run in arms.values()])
        top = ss.expect(next(iter(arms.values()))).at_lr_limit
        seen = [excess(run) for run in arms.values()]
        floors[f"B={size}"] = lrs / top.config.lr, seen, top.stationary_excess_at
        floors[ss.say("B={size}, small steps", size=size)] = (
            (),
            (),
            lambda x, top=top: x * top.small_step_excess,
        )
        x = np.outer(lrs, top.eigenvalues).ravel() * top.problem.d / size
        shares = np.ravel([left_by_shuffling(runs, arm) for arm in arms])
        shuffled[f"B={size}"] = x, shares, ss.theory.reshuffling_factor
    colors = ss.figures.palette.named("blue", "sky", "red", "orange")
    axes = {"x": ss.say("lr over its limit"), "y": ss.say("loss above the least one")}
    axes |= {"title": ss.say("where the loss settles"), "colors": colors}
    left = ss.figures.lines.measured(floors, **axes)
    axes = {"x": ss.say("lr, times eigenvalue, times batches")}
    axes |= {"y": ss.say("with shuffling / without")}
    axes |= {"title": ss.say("what shuffling leaves of the noise"), "colors": colors[::2]}
    right = ss.figures.lines.measured(shuffled, **axes)
    flat = next(iter(shuffled.values()))[1][0]
    settled = runs.select("*independent").items()
    gap = [value["excess", a] / ss.expect(run).stationary_excess.value - 1 for a, run in settled]
    title = ss.say(
        """The loss settles within {gap:.1%} of the Lyapunov equation; shuffling leaves {flat:.0%}
        of the noise in the flattest direction""",
        gap=ss.text.at_least(max(map(abs, gap))),
        flat=flat,
    )
    note = ss.say("Each point of the right: one mode, one step.")
    return ss.figures.Chart(title, [left, right], note)


STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
