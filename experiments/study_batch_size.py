"""How large may a batch be before larger ones save hardly any steps?

Hypothesis: steps to a target follow S_min (1 + B_c / B), B_c the critical batch size. Without
noise B_c is about that of the largest stable step: proportional to B for small batches,
2 / lambda_max for large ones. With noisy labels B_c is the gradient noise scale at the target,
where curvature is the same in all directions. That number grows along the path without bound, so
that measured elsewhere it misleads; and on the notebook's parabola it misleads everywhere, because
it takes for granted steps that are not stable there.

Source: Ma, Bassily, Belkin (2018); McCandlish et al. (2018), equations 2.7 to 2.11.
Command: python experiments/study_batch_size.py
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

import sgdstudy as ss

CURVE, STAIRS, LOOSE, TIGHT = "curve", "stairs", "noisy stairs to 0.03", "noisy stairs to 0.001"
LINES = {  # line -> label noise, excess loss to reach, share of the limit taken, batch sizes
    CURVE: (0.0, 0.1, 0.25, (1, 2, 4, 8, 32)),  # 0.1: the notebook's target
    STAIRS: (0.0, 0.001, 0.05, (1, 2, 4, 8, 16, 64, 256)),
    LOOSE: (8**-0.5, 0.03, 0.05, (1, 4, 16, 64, 256, 1024)),
    TIGHT: (8**-0.5, 0.001, 0.05, (4, 16, 64, 256, 1024)),
}
QUICK = {CURVE: (8, 32), STAIRS: (1, 64), LOOSE: (4, 256), TIGHT: (64, 1024)}
FOLLOWED = ((CURVE, 2), (CURVE, 8), (CURVE, 32), (TIGHT, 64))  # runs whose noise scale is
WRONG = "noisy stairs to 0.001, step for the start"
BETWEEN, BEYOND = "curve, between both limits", "curve, beyond both limits"
EXACT = "theory: recursion of second moments; four standard errors"
LYAPUNOV = "theory: Lyapunov exponent; four standard errors of both"
PRODUCTS, REPLICAS = 60, 64  # epochs of the products that give it, the first left out


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 32
    longer: float = 1.2
    """length of a run, in times the steps that theory expects"""
    quick: bool = False
    """two batch sizes a line; of the curve, which takes long, 8 seeds"""


@cache
def problem(line):
    """Return the notebook's parabola on 256 points, or a staircase."""
    if line != CURVE:
        noise, *_, sizes = LINES[line]
        return ss.problems.staircase(noise, max(256, *sizes))
    x = np.linspace(-10, 10, 256)
    y = ss.problems.parabola([0.3, -1.7, 2.5], x)
    return ss.Problem(x, y, ss.problems.parabola, w_init=np.zeros(3), name="curve, 256 points")


@cache
def limit(line, size, excess=None):
    """Return the largest step whose noise floor is not above the excess loss to reach."""
    p, excess = problem(line), excess or LINES[line][1]
    return ss.theory.lr_limit_to_reach(p.least_squares, p.d, size, excess, replacement=True)


@cache
def almost_sure(line, size):
    """Return the step size beyond which almost no path converges."""
    low = limit(line, size)
    return ss.theory.lyapunov_zero_lr(problem(line), size, low, 3 * low, replacement=True)


@cache
def expected(line, size, lr=None, most=100_000):
    """Return what second moments expect, until the expected loss is at the target.

    A batch of all the samples, size None, holds every one once.
    """
    p, (_, target, share, _) = problem(line), LINES[line]
    best = limit(line, size) if size else ss.theory.lr_limit(p.least_squares)
    lr, start = lr or share * best, np.zeros(p.p)
    settings = (p.d, size or p.d, lr, most, target, size is not None)
    return ss.theory.expected_path(p.least_squares, start, *settings)


def expected_steps(line, size):
    return ss.theory.time_above(expected(line, size).excess, LINES[line][1])


def of_step(line):
    """Return the critical batch size of the largest usable step."""
    size = LINES[line][3][0]
    return ss.theory.critical_size_of_lr(problem(line).least_squares, size, limit(line, size))


def arm(o, line, size, lr, steps, about):
    p, seeds = problem(line), list(o.seed_range())
    most = 8 if o.quick else max(2, o.seeds // 2)
    return ss.Arm(
        p,
        about,
        lr=lr,
        batch_size=size,
        order="with_replacement",
        epochs=int(np.ceil(steps * size / p.d)),
        seeds=seeds[: most if line == CURVE else None],  # it takes many steps
        diagnostics="off",
        metrics=["full_loss"],
        record_rows=10**9,  # steps are counted: none may be left out
    )


def arms(o):
    if not 1 <= o.longer <= 10:
        raise ss.InputError(f"longer is between 1 and 10, got {o.longer:g}")
    found = {}
    for line, (*_, share, sizes) in LINES.items():
        for size in QUICK[line] if o.quick else sizes:
            lr, steps = share * limit(line, size), o.longer * expected_steps(line, size)
            found[f"{line}, B={size}"] = arm(o, line, size, lr, steps, f"batches of {size}")
    if o.quick:
        return found
    lr = LINES[TIGHT][2] * limit(TIGHT, 4, float(expected(TIGHT, 4).excess[0]))
    found[WRONG] = arm(o, TIGHT, 4, lr, expected_steps(TIGHT, 4), "batches of 4")
    steps = 3 * LINES[CURVE][2] * expected_steps(CURVE, 1)  # thrice those at the first limit
    for name, lr in ((BETWEEN, 1.2 * limit(CURVE, 1)), (BEYOND, 1.2 * almost_sure(CURVE, 1))):
        found[name] = arm(o, CURVE, 1, lr, steps, "batches of 1")
    return found


def of_line(runs, line):
    """Return the runs of a line by batch size."""
    return {run.config.batch_size: run for a, run in runs.items() if a.startswith(f"{line}, B=")}


def losses(run):
    """Return the excess loss before every step, `(R, S)`; no seed may have diverged."""
    return run.array("steps", "full_loss").T - run.problem.least_squares.least_loss


def steps(line, run):
    """Return when the mean over the seeds is at the target, and the standard error of that.

    The time goes with the logarithm of the mean, whose error is that of the mean over the mean.
    """
    excess, known = losses(run), expected(line, run.config.batch_size).excess
    there = excess[:, len(known) - 1]
    error = ss.standard_error(there) / there.mean() / np.log(known[-2] / known[-1])
    return ss.theory.time_above(excess.mean(0), LINES[line][1]), error


def times(line, run):
    """Return the steps to the target of every seed, infinite where it never gets there."""
    least = run.problem.least_squares.least_loss
    return ss.time_to_target(run, least + LINES[line][1], over="step")


def table(o, runs):
    """Return steps and samples to the target of every line and batch size."""
    import pandas as pd  # --help must not wait for it

    found = []
    for line in LINES:
        for size, run in of_line(runs, line).items():
            (mean, error), seeds = steps(line, run), ss.summary(times(line, run))
            ends = (seeds.median, *seeds.interval, seeds.share)
            found.append(
                (line, size, run.config.lr, expected_steps(line, size), mean, error, *ends)
            )
    columns = "line batch_size lr steps_expected steps standard_error"
    columns = [*columns.split(), "median", "median_low", "median_high", "share_of_seeds"]
    return pd.DataFrame(found, columns=columns).eval("samples = batch_size * steps")


def critical(rows):
    """Return the critical batch size of a line's rows of the table, and its error."""
    sizes, taken, fit = rows["batch_size"].to_numpy(), rows["steps"], ss.theory.critical_batch_size
    size = fit(sizes, taken)[1]
    errors = rows["standard_error"].to_numpy()
    moved = [fit(sizes, moved)[1] - size for moved in taken.to_numpy() + np.diag(errors)]
    return size, np.linalg.norm(moved)


def scale(line, run, part):
    """Return the noise scale tr(Sigma)/|g|^2 in a part of the steps, its error, the expected one.

    Ratios of means over the steps and the seeds; before, terms are divided by the expected excess.
    """
    p, known = run.problem, expected(line, run.config.batch_size)
    weight = 1 / known.excess[part]
    columns = ["seed", *(f"w{i}" for i in range(p.p))]  # rows come in order of the seeds
    rows = run.load("steps", columns=columns, steps=part).to_numpy()
    w = rows[:, 1:].reshape(len(run.w), -1, p.p)  # (R, S, p)
    noise, square = (ss.theory.noise_terms(p.least_squares, w, p.d)[:2] * weight).mean(-1)
    ratio, of_theory = noise.mean() / square.mean(), (known.terms[:2, part] * weight).mean(1)
    return (
        ratio,
        ss.standard_error(noise - ratio * square) / square.mean(),
        of_theory[0] / of_theory[1],
    )


def claims(o, runs):
    found = []
    for line, rows in table(o, runs).groupby("line", sort=False):
        for row in rows.itertuples():
            seeds = len(of_line(runs, line)[row.batch_size].w)
            known = (row.steps, row.steps_expected, row.standard_error, seeds, EXACT)
            found.append(ss.Claim.estimated("steps", f"{line}, B={row.batch_size}", *known))
        size = critical(rows)[0]  # it follows from the steps: nothing more is predicted
        found.append(ss.Claim("critical_batch_size", line, size))
        found.append(ss.Claim("over_that_of_the_step", line, size / of_step(line)))
    for line, size in FOLLOWED:
        if run := of_line(runs, line).get(size):
            last = int(expected_steps(line, size))
            ratio, error, known = scale(line, run, slice(last - last // 10, last))
            known = (ratio, known, error, len(run.w), EXACT)
            found.append(ss.Claim.estimated("noise_scale_late", f"{line}, B={size}", *known))
    return found if o.quick else found + exceptions(runs)


def exceptions(runs):
    """Check the step that was right at the start, and both limits of the step."""
    run = runs[WRONG]
    excess = losses(run)
    half = excess.shape[1] // 2
    known = expected(TIGHT, 4, run.config.lr, excess.shape[1] - 1).excess
    late = excess[:, half:].mean(1)
    settled = (late.mean(), known[half:].mean(), ss.standard_error(late), len(late), EXACT)
    found = [ss.Claim.estimated("excess_late", WRONG, *settled)]
    for name in (BETWEEN, BEYOND):
        reached = np.isfinite(times(CURVE, runs[name])).mean()
        found.append(ss.Claim("share_of_seeds_that_reach", name, reached))
        found.append(rate(name, runs[name]))
    return found


def rate(name, run):
    """Check the rate at which the distance changes, once the first quarter is forgotten."""
    p, epochs = run.problem, run.config.epochs
    ends = [run.array("epochs", f"w{i}")[[epochs // 4, -1]] for i in range(p.p)]
    distance = np.linalg.norm(np.moveaxis(ends, 0, -1) - p.least_squares.w_star, axis=-1)
    taken = (epochs - 1 - epochs // 4) * p.d
    each = np.diff(np.log(distance), axis=0)[0] / taken
    known = ss.theory.lyapunov(p, 1, run.config.lr, PRODUCTS, REPLICAS, replacement=True)
    own = taken * len(each) / ((PRODUCTS - 1) * p.d * REPLICAS)  # theory's error: the same scatter
    error = ss.standard_error(each) * np.sqrt(1 + own)
    known = (each.mean(), known, error, len(each), LYAPUNOV)
    return ss.Claim.estimated("log_rate_per_step", name, *known)


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    size = {line: value["critical_batch_size", line] for line in LINES}
    sizes = {line: len(of_line(runs, line)) for line in LINES}
    late = [
        f"{value['noise_scale_late', f'{line}, B={b}']:.0f} with batches of {b}"
        for line, b in FOLLOWED
        if line == CURVE and b in of_line(runs, line)
    ]
    noisy, clean, ls = expected(TIGHT, None), expected(CURVE, None), problem(CURVE).least_squares
    beta, steepest = 2 * (ls.features**2).sum(1).max(), np.linalg.eigvalsh(ls.hessian)[-1]
    greedy = clean.terms[1, -1] / clean.terms[3, -1] / ss.theory.lr_limit(ls)
    at_target = {x: along(expected(x, None))(LINES[x][1]) for x in (LOOSE, TIGHT)}
    text = f"""If the steps to a target follow S_min (1 + B_c / B), batches of the critical size
    B_c take twice the fewest steps and twice the fewest samples; larger ones save at most half of
    the steps.

    B_c is {size[CURVE]:.1f} on a parabola of 256 points (from {sizes[CURVE]} batch sizes) and
    {size[STAIRS]:.1f} on a staircase of 8 steps (from {sizes[STAIRS]}). There is no noise here: it
    is about where the largest stable step is half of what all the data allow, {of_step(CURVE):.1f}
    and {of_step(STAIRS):.1f}, which Ma, Bassily, Belkin bound by {beta / steepest - 1:.1f} and 7.

    With noisy labels it depends on the target: {size[LOOSE]:.0f} to get within 0.03 of the least
    loss, {size[TIGHT]:.0f} to get within 0.001 (from {sizes[LOOSE]} and {sizes[TIGHT]} batch
    sizes). The gradient noise scale, where curvature is the same in all directions, is
    {at_target[LOOSE]:.0f} and {at_target[TIGHT]:.0f} at these targets. At the start it is
    {noisy.noise_scale[0]:.0f}: measured earlier it is too small.

    On the parabola it does not tell B_c. With all the data it goes from {clean.noise_scale[0]:.1f}
    to {clean.noise_scale[-1]:.0f}, and tr(H Sigma)/g'Hg, which is exact for a single step, to
    {clean.curvature_noise_scale[-1] / 1e6:.1f} million: both count on the step that is best along
    the gradient, at the end {greedy:.0f} times the largest stable one. Late in a run it depends on
    the batch: {", ".join(late)}."""
    return text if o.quick else f"{text}\n\n{of_exceptions(runs, value)}"


def of_exceptions(runs, value):
    """Say what a step that was right at the start does, and steps beyond the limits."""
    dips = np.isfinite(times(TIGHT, runs[WRONG])).sum()
    reached, changes = (
        [value[name, arm] for arm in (BETWEEN, BEYOND)]
        for name in ("share_of_seeds_that_reach", "log_rate_per_step")
    )
    counts = [f"{x * len(runs[a].w):.0f}" for x, a in zip(reached, (BETWEEN, BEYOND), strict=True)]
    return f"""With the step that the noise scale of the start allows, the mean loss of the second
    half of the run is {value["excess_late", WRONG] / LINES[TIGHT][1]:.1f} times the target above
    the least one; {dips} of {len(runs[WRONG].w)} seeds are below it at some step. Between
    both limits of the step, mean square and almost sure, {counts[0]} of {len(runs[BETWEEN].w)}
    seeds get to the target within the run, beyond both {counts[1]}: the logarithm of the distance
    changes by {changes[0]:.2g} and {changes[1]:.2g} a step."""


def steps_and_samples(runs):
    """Draw steps and samples against the batch size, with S_min (1 + B_c / B) through them."""
    points, laws, panels = [], {}, {"steps": [], "samples": []}
    for line, rows in table(None, runs).groupby("line", sort=False):
        least, size = ss.theory.critical_batch_size(rows["batch_size"], rows["steps_expected"])
        for title, power in (("steps", 0), ("samples", 1)):
            name = f"{title}, {line}"
            panels[title].append(name)
            laws[name] = lambda b, s=least, c=size, n=power: b**n * s * (1 + c / b)
            for row in rows.itertuples():
                both = (row.batch_size**power * v for v in (row.steps, row.standard_error))
                points.append((name, row.batch_size, *both))
    ylabel = "until the mean loss is at the target"
    points = ss.figures.points(points)
    return ss.figures.power_laws(points, panels, laws, "batch size", ylabel)


def limits(runs):
    """Draw the largest usable step against the batch size."""
    points, laws, panels = [], {}, {"a parabola of 256 points": [], "staircases": []}
    for line, (noise, *_) in LINES.items():
        most, size = ss.theory.lr_limit(problem(line).least_squares), of_step(line)
        names, sizes = panels[list(panels)[line != CURVE]], list(of_line(runs, line))
        names.append(f"{line}, mean square")
        laws[names[-1]] = lambda b, size=size: 1 / (1 + size / b)
        points += [(names[-1], b, limit(line, b) / most, 0) for b in sizes]
        if not noise:
            names.append(f"{line}, almost surely")
            points += [(names[-1], b, almost_sure(line, b) / most, 0) for b in sizes]
    points, ylabel = ss.figures.points(points), "largest usable step over 2 / lambda_max"
    return ss.figures.power_laws(points, panels, laws, "batch size", ylabel)


def along(path):
    """Return a path's noise scale over its excess loss."""
    x, y = np.log(path.excess[::-1]), np.log(path.noise_scale[::-1])
    return lambda at: np.exp(np.interp(np.log(at), x, y, np.nan, np.nan))


def noise_scales(runs):
    """Draw the noise scale along the path, and the critical batch sizes."""
    points, laws, panels = [], {}, {"a parabola of 256 points": [], "staircase, noisy labels": []}
    for line, size in FOLLOWED:
        if run := of_line(runs, line).get(size):
            name, known = f"noise scale, {line}, B={size}", expected(line, size)
            panels[list(panels)[line != CURVE]].append(name)
            laws[name] = along(known)
            edges = [0, *np.unique(np.geomspace(1, expected_steps(line, size), 9).astype(int))]
            for first, last in pairwise(edges):
                x = 1 / (1 / known.excess[first:last]).mean()
                points.append((name, x, *scale(line, run, slice(first, last))[:2]))
    size = {line: critical(rows)[:2] for line, rows in table(None, runs).groupby("line")}
    laws["noise scale, all the data"] = along(expected(CURVE, None))
    laws["critical batch size, curve"] = lambda x: size[CURVE][0] + 0 * x
    panels["a parabola of 256 points"] += list(laws)[-2:]
    panels["staircase, noisy labels"].append("critical batch size, by target")
    for line in (LOOSE, TIGHT):
        points.append(("critical batch size, by target", LINES[line][1], *size[line]))
    points, ylabel = ss.figures.points(points), "samples"
    return ss.figures.power_laws(points, panels, laws, "loss above the least one", ylabel)


STUDY = ss.Study(
    __file__,
    __doc__,
    Options,
    arms,
    claims,
    answer,
    figures={
        "steps.png": steps_and_samples,
        "lr_limits.png": limits,
        "noise_scale.png": noise_scales,
    },
    tables={"steps.csv": table},
)

if __name__ == "__main__":
    STUDY.main()
