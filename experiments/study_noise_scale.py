"""Does the gradient noise scale tell how large a batch may be?

Hypothesis: tr(Sigma) / |g|^2 is the critical batch size at its own place, where curvature is the
same in all directions. It grows along the path without bound, so that measured elsewhere it
misleads; and on the notebook's parabola it misleads everywhere, because it takes for granted steps
that are not stable there. Late in a run it depends on the batch that the run itself takes.

Source: McCandlish et al. (2018), equations 2.7 to 2.11.
Command: python experiments/study_noise_scale.py
"""

from functools import cache
from itertools import pairwise

import numpy as np

import sgdstudy as ss

POINTS = "curve, 256 points"
CURVE, LOOSE, TIGHT = "curve", "noisy stairs to 0.03", "noisy stairs to 0.001"
LINES = {  # excess loss to reach, share of the largest usable step, batch sizes of theory
    CURVE: (0.1, 0.25, (1, 2, 4, 8, 32)),
    LOOSE: (0.03, 0.05, (1, 4, 16, 64, 256, 1024)),
    TIGHT: (0.001, 0.05, (4, 16, 64, 256, 1024)),
}
FOLLOWED = {f"{x}, B={b}": (x, b) for x, b in ((CURVE, 2), (CURVE, 8), (CURVE, 32), (TIGHT, 64))}
WHOLE, B_C = ss.to_say("all the data, theory"), ss.to_say("critical batch size, theory")
BY_TARGET = "by target"
EXACT = "theory: recursion of second moments; four standard errors"


class Options(ss.Options):
    seeds: int = 32
    quick: bool = False
    """of the curve, which takes long, 8 seeds and no batches of 2"""


@cache
def planned(line, size):
    """Return the arm of a line at a batch size, None for all the data, before it has a length."""
    stairs = line != CURVE and ss.problems.staircase(8**-0.5, 1024)
    given = {"batch_size": size, "order": "with_replacement", "diagnostics": "off"}
    given |= {"metrics": ["full_loss"], "record_rows": 10**9}  # every step counts
    (target, share, _), problem = LINES[line], stairs or ss.problems.even_parabola(name=POINTS)
    arm = ss.Arm(problem, **given)
    return arm.but(lr=share * ss.expect(arm).lr_limit_to_reach(target))


@cache
def path(line, size):
    """Return what second moments expect, until the expected loss is at the target."""
    return ss.expect(planned(line, size)).path(LINES[line][0])


def arms(o):
    few = o.seed_range()[: 8 if o.quick else max(2, o.seeds // 2)]
    for name, (line, size) in FOLLOWED.items():
        if not (o.quick and size == 2):
            arm, seeds = planned(line, size), few if line == CURVE else o.seed_range()
            epochs = int(np.ceil(1.2 * path(line, size).steps * size / arm.problem.d))
            yield name, arm.but(f"batches of {size}", seeds=list(seeds), epochs=epochs)


def measured(run, arm, part):
    """Return the noise scale over some steps, each divided by its expected excess."""
    return run.noise_scale(part, 1 / path(*FOLLOWED[arm]).excess[part])


def claims(o, runs):
    for arm, run in runs.items():
        last = int(path(*FOLLOWED[arm]).steps)
        late = slice(last - last // 10, last)
        known = path(*FOLLOWED[arm]).mean_noise_scale(late)
        yield ss.Claim.estimated(
            "noise_scale_late", arm, *measured(run, arm, late).beside(known), source=EXACT
        )


def answer(o, runs, value):
    late = [
        f"{value['noise_scale_late', arm]:.0f} with batches of {run.config.batch_size}"
        for arm, run in runs.select(f"{CURVE},*").items()
    ]
    noisy, clean, limit = (
        path(TIGHT, None),
        path(CURVE, None),
        ss.expect(planned(CURVE, None)).lr_limit,
    )
    greedy = clean.terms[1, -1] / clean.terms[3, -1] / float(limit)
    there = {line: path(line, None).noise_scale_at(LINES[line][0]) for line in (LOOSE, TIGHT)}
    return f"""On a staircase with noisy labels, where curvature is the same in all directions, the
    noise scale is {there[LOOSE]:.0f} at an excess loss of 0.03 and {there[TIGHT]:.0f} at 0.001,
    where theory's critical batch sizes are {critical(LOOSE):.0f} and {critical(TIGHT):.0f}. At the
    start it is {noisy.noise_scale[0]:.0f}: measured earlier it is too small.

    On the parabola it does not tell B_c, {critical(CURVE):.1f}. With all the data it goes from
    {clean.noise_scale[0]:.1f} to {clean.noise_scale[-1]:.0f}, and tr(H Sigma)/g'Hg, which is exact
    for a single step, to {clean.curvature_noise_scale[-1] / 1e6:.1f} million: both count on the
    step that is best along the gradient, at the end {greedy:.0f} times the largest stable one. Late
    in a run it depends on the batch: {", ".join(late)}."""


def critical(line):
    """Return the critical batch size that the expected steps have."""
    sizes = LINES[line][2]
    return ss.theory.critical_batch_size(sizes, [path(line, size).steps for size in sizes])[1]


def picture(o, runs, value):
    points, laws, shown = [], {}, {CURVE: [], TIGHT: []}
    for arm, run in runs.items():
        line, size = FOLLOWED[arm]
        shown[line].append(arm)
        laws[arm] = path(line, size).noise_scale_at
        edges = [0, *np.unique(np.geomspace(1, path(line, size).steps, 9).astype(int))]
        for first, last in pairwise(edges):
            x = 1 / (1 / path(line, size).excess[first:last]).mean()
            points.append((arm, x, measured(run, arm, slice(first, last))))
    laws |= {WHOLE: path(CURVE, None).noise_scale_at, B_C: lambda x: critical(CURVE) + 0 * x}
    points += [(BY_TARGET, LINES[line][0], critical(line), 0) for line in (LOOSE, TIGHT)]
    panels, colors = [], {B_C: "BLACK", "B=2": "SKY", "B=8": "BLUE", "B=32": "GREEN", "B=64": "RED"}
    titles = {CURVE: ss.say("a parabola of 256 points"), TIGHT: ss.say("a staircase, noisy labels")}
    for line, further in {CURVE: {WHOLE: WHOLE, B_C: B_C}, TIGHT: {BY_TARGET: B_C}}.items():
        names = {arm: arm.split(", ")[1] for arm in shown[line]} | further
        drawn = [getattr(ss.figures.palette, colors.get(n, "GREY")) for n in names.values()]
        names |= {key: ss.say(name) for key, name in further.items()}
        given = {"x": ss.say("loss above the least one"), "y": ss.say("samples"), "colors": drawn}
        given |= {"title": titles[line]}
        panels.append(ss.figures.lines.with_laws(ss.figures.points(points), laws, names, **given))
    there, b_c = (f(TIGHT) for f in (lambda x: path(x, None).noise_scale_at(0.001), critical))
    clean = path(CURVE, None)
    title = ss.say(
        """With noisy labels the noise scale, {there:.0f} at the target, tells the critical batch
        size, {size:.0f}; on the parabola they are {clean:.0f} and {critical:.1f}""",
        there=there,
        size=b_c,
        clean=clean.noise_scale[-1],
        critical=critical(CURVE),
    )
    note = ss.say("Points and dashes: the noise scale along runs.")
    return ss.figures.Chart(title, panels, note)


STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
