"""How large may a batch be before larger ones save hardly any steps?

Hypothesis: steps to a target follow S_min (1 + B_c / B), B_c the critical batch size. Without
noise B_c is about that of the largest stable step: proportional to B for small batches,
2 / lambda_max for large ones. With noisy labels B_c is the gradient noise scale at the target,
where curvature is the same in all directions; study_noise_scale follows that number elsewhere.

Source: Ma, Bassily, Belkin (2018); McCandlish et al. (2018), equations 2.7 to 2.11.
Command: python experiments/study_batch_size.py
"""

from functools import cache

import numpy as np

import sgdstudy as ss

POINTS = "curve, 256 points"
CURVE, STAIRS, LOOSE, TIGHT = "curve", "stairs", "noisy stairs to 0.03", "noisy stairs to 0.001"
EXACT = "theory: recursion of second moments; four standard errors"
LINES = {  # label noise, excess loss to reach, share of the limit taken, batch sizes, quick ones
    CURVE: (0.0, 0.1, 0.25, (1, 2, 4, 8, 32), (8, 32)),  # 0.1: the notebook's target
    STAIRS: (0.0, 0.001, 0.05, (1, 2, 4, 8, 16, 64, 256), (1, 64)),
    LOOSE: (8**-0.5, 0.03, 0.05, (1, 4, 16, 64, 256, 1024), (4, 256)),
    TIGHT: (8**-0.5, 0.001, 0.05, (4, 16, 64, 256, 1024), (64, 1024)),
}
TARGET = {line: plan[1] for line, plan in LINES.items()}


class Options(ss.Options):
    seeds: int = 32
    longer: float = 1.2
    """length of a run, in times the steps that theory expects"""
    quick: bool = False
    """two batch sizes a line; of the curve, which takes long, 8 seeds"""


@cache
def planned(line, size):
    """Return the arm of a line at a batch size, None for all the data, before it has a length."""
    noise, target, share, sizes, _ = LINES[line]
    stairs = line != CURVE and ss.problems.staircase(noise, max(256, *sizes))
    given = {"batch_size": size, "order": "with_replacement", "diagnostics": "off"}
    given |= {"metrics": ["full_loss"], "record_rows": 10**9}  # steps are counted: all of them
    arm = ss.Arm(stairs or ss.problems.even_parabola(name=POINTS), f"batches of {size}", **given)
    return arm.but(lr=share * ss.expect(arm).lr_limit_to_reach(target))


@cache
def path(line, size):
    """Return what second moments expect, until the expected loss is at the target."""
    return ss.expect(planned(line, size)).path(TARGET[line])


def of_step(line):
    """Return the critical batch size of the largest usable step."""
    arm = planned(line, LINES[line][3][0])
    return ss.expect(arm.but(lr=arm.config.lr / LINES[line][2])).critical_size_of_lr


def arms(o):
    if not 1 <= o.longer <= 10:
        raise ss.InputError(f"longer is between 1 and 10, got {o.longer:g}")
    few = 8 if o.quick else max(2, o.seeds // 2)
    for line, (*_, sizes, quick) in LINES.items():
        seeds = o.seed_range()[: few if line == CURVE else None]
        for size in quick if o.quick else sizes:
            arm, steps = planned(line, size), o.longer * path(line, size).steps
            epochs = int(np.ceil(steps * size / arm.problem.d))
            yield f"{line}, B={size}", arm.but(seeds=seeds, epochs=epochs)


def reached(runs, line):
    """Return the steps until the mean over the seeds is at the target, by batch size."""
    found, time_above = {}, ss.Estimate.time_above
    for run in runs.select(f"{line}, B=*").values():
        known = path(line, size := run.config.batch_size).excess
        found[size] = time_above(run.excess("steps"), TARGET[line], known)
    return found


def claims(o, runs):
    for line in LINES:
        steps = reached(runs, line)
        for size, seen in steps.items():
            both = seen.beside(path(line, size).steps)
            yield ss.Claim.estimated("steps", f"{line}, B={size}", *both, source=EXACT)
        _, size = ss.theory.critical_batch_size([*steps], [*map(float, steps.values())])
        yield ss.Claim("critical_batch_size", line, size)  # it follows from the steps
        yield ss.Claim("over_that_of_the_step", line, size / of_step(line))


def answer(o, runs, value):
    b_c = {line: value["critical_batch_size", line] for line in LINES}
    of = {line: len(runs.select(f"{line}, B=*")) for line in LINES}
    known = ss.expect(planned(CURVE, None))
    bound = (known.ls.features**2).sum(1).max() * float(known.lr_limit) - 1
    scale = {x: path(x, None).noise_scale_at(TARGET[x]) for x in (LOOSE, TIGHT)}
    return f"""If the steps to a target follow S_min (1 + B_c / B), batches of the critical size
    B_c take twice the fewest steps and twice the fewest samples; larger ones save at most half of
    the steps.

    B_c is {b_c[CURVE]:.1f} on a parabola of 256 points (from {of[CURVE]} batch sizes) and
    {b_c[STAIRS]:.1f} on a staircase of 8 steps (from {of[STAIRS]}). There is no noise here: it
    is about where the largest stable step is half of what all the data allow, {of_step(CURVE):.1f}
    and {of_step(STAIRS):.1f}, which Ma, Bassily, Belkin bound by {bound:.1f} and 7.

    With noisy labels it depends on the target: {b_c[LOOSE]:.0f} to get within 0.03 of the least
    loss, {b_c[TIGHT]:.0f} to get within 0.001 (from {of[LOOSE]} and {of[TIGHT]} batch
    sizes). The gradient noise scale, where curvature is the same in all directions, is
    {scale[LOOSE]:.0f} and {scale[TIGHT]:.0f} at these targets."""


def table(o, runs):
    for line in LINES:
        for size, seen in reached(runs, line).items():
            run, known = runs[f"{line}, B={size}"], path(line, size)
            seeds = ss.summary(run.first_step_below(TARGET[line]))
            low, high = seeds.interval
            row = {"line": line, "batch_size": size, "lr": run.config.lr}
            row |= {"steps_expected": known.steps, "steps": seen.value}
            row |= {"standard_error": seen.error, "median": seeds.median}
            row |= {"median_low": low, "median_high": high, "share_of_seeds": seeds.share}
            yield row | {"samples": size * seen.value}


def picture(o, runs, value):
    panels = []
    for power, title in enumerate(("steps", "samples")):
        series = {}
        for line in LINES:
            steps = reached(runs, line)
            known = [path(line, size).steps for size in steps]
            least, b_c = ss.theory.critical_batch_size([*steps], known)
            y = [b**power * seen for b, seen in steps.items()]
            series[line] = [*steps], y, lambda b, s=least, c=b_c, n=power: b**n * s * (1 + c / b)
        axes = {"title": f"{title} to the target", "x": "batch size", "y": title}
        panels.append(ss.figures.lines.measured(series, **axes))
    b_c = {line: value["critical_batch_size", line] for line in LINES}
    title = f"""Batches beyond {b_c[CURVE]:.2g} (curve), {b_c[STAIRS]:.2g} (stairs),
    {b_c[LOOSE]:.0f} and {b_c[TIGHT]:.0f} (noisy labels) save at most half of the steps"""
    return ss.figures.Chart(title, panels, "Theory: S_min (1 + B_c / B) steps.")


tables = {"steps.csv": table}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
