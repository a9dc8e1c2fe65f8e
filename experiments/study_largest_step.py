"""How large may a step be, batch by batch, and what happens beyond the limit?

Hypothesis: the largest step at which the mean square stays bounded grows as B does for small
batches, up to 2 / λmax for large ones. Beyond it the mean grows, yet almost every path still
converges, noise aside, up to the step at which the Lyapunov exponent is 0: a mean that no run
shows. With noisy labels the step must also be small enough for its noise: one that is right for the
start settles above a target that is closer.

Source: linear algebra of second moments (docs/notebook.md); Ma, Bassily, Belkin (2018).
Command: python experiments/study_largest_step.py
"""

import numpy as np

import sgdstudy as ss
from answers.study_largest_step import answer, closer, nearer, short
from common.study_largest_step import BETWEEN, BEYOND, LINES, NOISELESS, WRONG, planned

EXACT = "theory: recursion of second moments; four standard errors"


class Options(ss.Options):
    seeds: int = 64
    quick: bool = False
    """only the parabola without noise, beyond the first limit"""


def arms(o):
    # in longer epochs rounding would be all that is left
    clean = ss.Arm(ss.problems.even_parabola(2, 200), "its mean square grows", batch_size=1)
    clean = clean.but(order="with_replacement", diagnostics="off", metrics=["full_loss"])
    beyond = {"lr": ss.rounded(1.3 * float(ss.expect(clean).mean_square_lr_limit)), "epochs": 3}
    clean = clean.but(color="green")  # the other panel has the colours of its lines
    yield NOISELESS, clean.but(seeds=o.seed_range(), record_rows=20_000, **beyond)
    if o.quick:
        return
    line, half = "noisy stairs to 0.001", list(o.seed_range()[: max(2, o.seeds // 2)])
    noisy, target, share = planned(line, 4), LINES[line][1], 0.05  # of the largest step
    steps = ss.expect(noisy.but(lr=share * noisy.config.lr)).path(target).steps
    start = float(ss.expect(noisy).path(most=1).excess[0])
    wrong = noisy.but(
        ss.say("batches of {n}", n=4), lr=share * planned(line, 4, start).config.lr, seeds=half
    )
    yield WRONG, wrong.but(epochs=int(np.ceil(steps * 4 / noisy.problem.d)))
    curve = planned("curve", 1).but(ss.say("batches of {n}", n=1))
    # thrice the steps that are expected at the first limit
    steps = 3 * ss.expect(curve.but(lr=curve.config.lr / 4)).path(0.1).steps / 4
    few = {"seeds": half[: max(2, o.seeds // 4)], "epochs": int(np.ceil(steps / curve.problem.d))}
    yield BETWEEN, curve.but(lr=1.2 * curve.config.lr, **few)
    yield BEYOND, curve.but(lr=ss.rounded(1.2 * ss.expect(curve).almost_sure_lr_limit()), **few)


def claims(o, runs):
    ends = np.linalg.norm(runs[NOISELESS].from_minimiser(), axis=-1)
    square = float(ss.expect(runs[NOISELESS]).mean_square_factor)
    yield ss.Claim("mean_square_factor_per_step", NOISELESS, square)
    yield ss.Claim("share_of_seeds_that_converge", NOISELESS, (ends[-1] < ends[0]).mean())
    for arm in (BETWEEN, BEYOND):
        if arm in runs:
            reached = np.isfinite(runs[arm].first_step_below(0.1)).mean()
            yield ss.Claim("share_of_seeds_that_reach", arm, reached)
    for arm, run in runs.items():
        if arm != WRONG:  # of the long runs the first quarter is forgotten
            first = 1 if arm == NOISELESS else run.config.epochs // 4 + 1
            seen = run.log_rate(first).beside(ss.expect(run).log_rate)
            yield ss.Claim.estimated("log_rate_per_step", arm, *seen)
    if WRONG in runs:
        excess = runs[WRONG].excess("steps")
        late = slice(len(excess) // 2, len(excess))
        known = ss.expect(runs[WRONG]).path(most=len(excess) - 1).excess[late].mean()
        seen = ss.Estimate.mean(excess[late].mean(0)).beside(known)
        yield ss.Claim.estimated("excess_late", WRONG, *seen, source=EXACT)


def picture(o, runs, value):
    series = {}
    for line in ("curve", "stairs"):
        sizes, name = LINES[line][2], ss.say(line)
        known = [ss.expect(planned(line, size)) for size in sizes]
        most, critical = float(known[0].lr_limit), known[0].critical_size_of_lr
        lrs = [each.config.lr / most for each in known]
        label = ss.say("{line}, mean square", line=name)
        series[label] = sizes, lrs, lambda b, c=critical: 1 / (1 + c / b)
        if line == "curve":
            sure = [each.almost_sure_lr_limit() / most for each in known]
            series[ss.say("{line}, almost surely", line=name)] = sizes, sure, None
    axes = {"x": ss.say("batch size"), "y": ss.say("lr over 2 / λmax")}
    axes |= {"title": ss.say("the largest step")}
    *colors, black = ss.figures.palette.named("blue", "sky", "red", "black")
    left = ss.figures.lines.measured(series, colors=colors, **axes)
    run, growth = runs[NOISELESS], value["mean_square_factor_per_step"]
    z = (run.from_minimiser("steps") ** 2).sum(-1)
    half = ss.figures.lines.of_seeds(ss.say("half of the seeds"), np.arange(len(z)), z, run.color)
    due = half.y[0] * growth**half.x
    expected = ss.figures.Line(ss.say("their mean square, theory"), half.x, due, black)
    least = np.min(half.y if half.band is None else half.band[0])  # of a single seed
    axes = {"title": ss.say("at 1.3 times the limit"), "log": "y", "limits": (least, 1e12)}
    words = ss.say("step"), ss.say("squared distance")
    right = ss.figures.Panel([expected, half], *words, **axes)
    title = ss.say(
        "At 1.3 times the limit the mean square grows {growth:.2f}-fold a step; {seeds}",
        growth=growth,
        seeds=nearer(*closer(runs, value)),
    )
    note = ss.say("Paths that are too rare to be met carry the mean.")
    return ss.figures.Chart(title, [left, right], note)


STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
