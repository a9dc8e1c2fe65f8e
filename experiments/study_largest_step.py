"""How large may a step be, batch by batch, and what happens beyond the limit?

Hypothesis: the largest step at which the mean square stays bounded grows as B does for small
batches, up to 2 / lambda_max for large ones. Beyond it the mean grows, yet almost every path still
converges, noise aside, up to the step at which the Lyapunov exponent is 0: a mean that no run
shows. With noisy labels the step must also be small enough for its noise: one that is right for the
start settles above a target that is closer.

Source: linear algebra of second moments (docs/notebook.md); Ma, Bassily, Belkin (2018).
Command: python experiments/study_largest_step.py
"""

import numpy as np

import sgdstudy as ss

POINTS = "curve, 256 points"
LINES = {  # line -> label noise, excess loss to reach, batch sizes of the figure
    "curve": (0.0, 0.1, (1, 2, 4, 8, 32)),  # 0.1: the notebook's target
    "stairs": (0.0, 0.001, (1, 2, 4, 8, 16, 64, 256)),
    "noisy stairs to 0.03": (8**-0.5, 0.03, (1, 4, 16, 64, 256, 1024)),
    "noisy stairs to 0.001": (8**-0.5, 0.001, (4, 16, 64, 256, 1024)),
}
NOISELESS, WRONG = "beyond the limit, no noise", "noisy stairs to 0.001, step for the start"
BETWEEN, BEYOND = "curve, between both limits", "curve, beyond both limits"
EXACT = "theory: recursion of second moments; four standard errors"


class Options(ss.Options):
    seeds: int = 64
    quick: bool = False
    """only the parabola without noise, beyond the first limit"""


def planned(line, size, excess=None):
    """Return the arm of a line at the largest step that can reach an excess loss."""
    noise, target, sizes = LINES[line]
    stairs = line != "curve" and ss.problems.staircase(noise, max(256, *sizes))
    given = {"batch_size": size, "order": "with_replacement", "diagnostics": "off"}
    given |= {"metrics": ["full_loss"], "record_rows": 10**9}  # every step counts
    arm = ss.Arm(stairs or ss.problems.even_parabola(name=POINTS), f"batches of {size}", **given)
    return arm.but(lr=ss.expect(arm).lr_limit_to_reach(excess or target))


def arms(o):
    # in longer epochs rounding would be all that is left
    clean = ss.Arm(ss.problems.even_parabola(2, 200), "its mean square grows", batch_size=1)
    clean = clean.but(order="with_replacement", diagnostics="off", metrics=["full_loss"])
    beyond = {"lr": 1.3 * float(ss.expect(clean).mean_square_lr_limit), "epochs": 3}
    yield NOISELESS, clean.but(seeds=o.seed_range(), record_rows=20_000, **beyond)
    if o.quick:
        return
    line, half = "noisy stairs to 0.001", list(o.seed_range()[: max(2, o.seeds // 2)])
    noisy, target, share = planned(line, 4), LINES[line][1], 0.05  # of the largest step
    steps = ss.expect(noisy.but(lr=share * noisy.config.lr)).path(target).steps
    start = float(ss.expect(noisy).path(most=1).excess[0])
    wrong = noisy.but(lr=share * planned(line, 4, start).config.lr, seeds=half)
    yield WRONG, wrong.but(epochs=int(np.ceil(steps * 4 / noisy.problem.d)))
    curve = planned("curve", 1)
    # thrice the steps that are expected at the first limit
    steps = 3 * ss.expect(curve.but(lr=curve.config.lr / 4)).path(0.1).steps / 4
    few = {"seeds": half[: max(2, o.seeds // 4)], "epochs": int(np.ceil(steps / curve.problem.d))}
    yield BETWEEN, curve.but(lr=1.2 * curve.config.lr, **few)
    yield BEYOND, curve.but(lr=1.2 * ss.expect(curve).almost_sure_lr_limit(), **few)


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


def answer(o, runs, value):
    seeds, rate = len(runs[NOISELESS].w), value["log_rate_per_step", NOISELESS]
    closer, grown = value["share_of_seeds_that_converge"], value["mean_square_factor_per_step"]
    c = [ss.expect(planned(line, 1)).critical_size_of_lr for line in ("curve", "stairs")]
    text = f"""The largest step is about 2 / lambda_max over 1 + c / B; by theory, of single
    samples, c is {c[0]:.1f} on the notebook's parabola at 256 points and {c[1]:.1f} on 8 stairs. At
    1.3 times the limit, without noise, second moments grow by {grown:.2f} a step. Yet the logarithm
    of the distance changes by {rate:.3f} a step, and {closer * seeds:.0f} of {seeds} seeds come
    nearer: what grows is carried by paths too rare to be met."""
    if o.quick:
        return text
    dips = np.isfinite(runs[WRONG].first_step_below(0.001)).sum()
    counts = [value["share_of_seeds_that_reach", x] * len(runs[x].w) for x in (BETWEEN, BEYOND)]
    changes = [value["log_rate_per_step", arm] for arm in (BETWEEN, BEYOND)]
    return f"""{text}

    On the notebook's parabola, between both limits of the step, mean square and almost sure,
    {counts[0]:.0f} of {len(runs[BETWEEN].w)} seeds get to the target within the run, beyond both
    {counts[1]:.0f}: the logarithm of the distance changes by {changes[0]:.2g} and
    {changes[1]:.2g} a step.

    With the step that the noise scale of the start allows, the mean loss of the second half of the
    run is {value["excess_late"] / 0.001:.1f} times the target above the least one; {dips} of
    {len(runs[WRONG].w)} seeds are below it at some step."""


def picture(o, runs, value):
    series = {}
    for line in ("curve", "stairs"):
        sizes = LINES[line][2]
        known = [ss.expect(planned(line, size)) for size in sizes]
        most, critical = float(known[0].lr_limit), known[0].critical_size_of_lr
        lrs = [each.config.lr / most for each in known]
        series[f"{line}, mean square"] = sizes, lrs, lambda b, c=critical: 1 / (1 + c / b)
        if line == "curve":
            sure = [each.almost_sure_lr_limit() / most for each in known]
            series[f"{line}, almost surely"] = sizes, sure, None
    axes = {"x": "batch size", "y": "lr over 2 / lambda_max", "title": "the largest step"}
    *colors, black, green = ss.figures.palette.named("blue", "sky", "red", "black", "green")
    left = ss.figures.lines.measured(series, colors=colors, **axes)
    run, growth = runs[NOISELESS], value["mean_square_factor_per_step"]
    z = (run.from_minimiser("steps") ** 2).sum(-1)
    half = ss.figures.lines.of_seeds("half of the seeds", np.arange(len(z)), z, green)
    due = half.y[0] * growth**half.x
    expected = ss.figures.Line("their mean square, theory", half.x, due, black)
    axes = {"title": "at 1.3 times the limit", "log": "y", "limits": (half.band[0].min(), 1e12)}
    right = ss.figures.Panel([expected, half], "step", "squared distance", **axes)
    closer = value["share_of_seeds_that_converge", NOISELESS]
    title = f"""At 1.3 times the limit the mean square grows {growth:.2f}-fold a step, and yet
    {closer * len(run.w):.0f} of {len(run.w)} seeds come nearer"""
    note = "Paths that are too rare to be met carry the mean."
    return ss.figures.Chart(title, [left, right], note)


STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
