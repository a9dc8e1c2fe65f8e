"""How large may a batch be before larger ones save hardly any steps?

Hypothesis: steps to a target follow S_min (1 + B_c / B), B_c the critical batch size. Without
noise B_c is about that of the largest stable step: proportional to B for small batches,
2 / λmax for large ones. With noisy labels B_c is the gradient noise scale at the target,
where curvature is the same in all directions; study_noise_scale follows that number elsewhere.

Source: Ma, Bassily, Belkin (2018); McCandlish et al. (2018), equations 2.7 to 2.11.
Command: python experiments/study_batch_size.py
"""

import numpy as np

import sgdstudy as ss
from answers.study_batch_size import (
    CURVE,
    LINES,
    LOOSE,
    STAIRS,
    TARGET,
    TIGHT,
    answer,
    of_step,
    path,
    planned,
    short,
)

EXACT = "theory: recursion of second moments; four standard errors"


class Options(ss.Options):
    seeds: int = 32
    longer: float = 1.2
    """length of a run, in times the steps that theory expects"""
    quick: bool = False
    """two batch sizes a line; of the curve, which takes long, 8 seeds"""


def arms(o):
    if not 1 <= o.longer <= 10:
        raise ss.InputError(f"longer is between 1 and 10, got {o.longer:g}")
    few = 8 if o.quick else max(2, o.seeds // 2)
    for line, (*_, sizes, quick) in LINES.items():
        seeds = o.seed_range()[: few if line == CURVE else None]
        for size in quick if o.quick else sizes:
            arm, due = planned(line, size), path(line, size).steps
            steps = max(o.longer * due, due + 2)  # the mean has to be seen below the target
            epochs = int(np.ceil(steps * size / arm.problem.d))
            charted = line == LOOSE  # one problem, noisy labels, from small batches to large ones
            about = ss.say("batches of {n}", n=size)
            yield f"{line}, B={size}", arm.but(about, seeds=seeds, epochs=epochs, charted=charted)


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
    titles = {ss.say("steps"): ss.say("steps to the target")}
    titles |= {ss.say("samples"): ss.say("samples to the target")}
    names = [ss.say(line) for line in LINES]
    for power, y_is in enumerate(titles):
        series = {}
        for line, name in zip(LINES, names, strict=True):
            steps = reached(runs, line)
            known = [path(line, size).steps for size in steps]
            least, b_c = ss.theory.critical_batch_size([*steps], known)
            y = [b**power * seen for b, seen in steps.items()]
            series[name] = [*steps], y, lambda b, s=least, c=b_c, n=power: b**n * s * (1 + c / b)
        axes = {"title": titles[y_is], "x": ss.say("batch size"), "y": y_is}
        panels.append(ss.figures.lines.measured(series, **axes))
    b_c = {line: value["critical_batch_size", line] for line in LINES}
    title = ss.say(
        """Batches beyond {curve:.2} (curve), {stairs:.2} (stairs), {loose:.0f} and {tight:.0f}
        (noisy labels) save at most half of the steps""",
        curve=b_c[CURVE],
        stairs=b_c[STAIRS],
        loose=b_c[LOOSE],
        tight=b_c[TIGHT],
    )
    return ss.figures.Chart(title, panels, ss.say("Theory: S_min (1 + B_c / B) steps."))


charts = {"loss of all the data: the steps that a larger batch saves": "batch/full_loss"}
tables = {"steps.csv": table}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
