"""Does the gradient noise scale tell how large a batch may be?

Hypothesis: tr(Σ) / |g|² is the critical batch size at its own place, where curvature is the
same in all directions. It grows along the path without bound, so that measured elsewhere it
misleads; and on the notebook's parabola it misleads everywhere, because it takes for granted steps
that are not stable there. Late in a run it depends on the batch that the run itself takes.

Source: McCandlish et al. (2018), equations 2.7 to 2.11.
Command: python experiments/study_noise_scale.py
"""

from itertools import pairwise

import numpy as np

import sgdstudy as ss
from answers.study_noise_scale import (
    CURVE,
    LINES,
    LOOSE,
    TIGHT,
    answer,
    at_target,
    critical,
    path,
    planned,
    short,
)

FOLLOWED = {f"{x}, B={b}": (x, b) for x, b in ((CURVE, 2), (CURVE, 8), (CURVE, 32), (TIGHT, 64))}
COLORS = {2: "sky", 8: "blue", 32: "green", 64: "red"}  # of the batch sizes
WHOLE, B_C = ss.to_say("all the data, theory"), ss.to_say("critical batch size, theory")
BY_TARGET = "by target"
EXACT = "theory: recursion of second moments; four standard errors"


class Options(ss.Options):
    seeds: int = 32
    quick: bool = False
    """of the curve, which takes long, 8 seeds and no batches of 2"""


def arms(o):
    few = o.seed_range()[: 8 if o.quick else max(2, o.seeds // 2)]
    for name, (line, size) in FOLLOWED.items():
        if not (o.quick and size == 2):
            arm, seeds = planned(line, size), few if line == CURVE else o.seed_range()
            epochs = int(np.ceil(1.2 * path(line, size).steps * size / arm.problem.d))
            about = ss.say("batches of {n}", n=size)
            arm = arm.but(about, seeds=list(seeds), color=COLORS[size])
            yield name, arm.but(epochs=epochs)


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
    panels, colors = [], {B_C: ss.figures.palette.BLACK}
    colors |= {f"B={size}": runs[arm].color for arm, (_, size) in FOLLOWED.items() if arm in runs}
    titles = {CURVE: ss.say("a parabola of 256 points"), TIGHT: ss.say("a staircase, noisy labels")}
    for line, further in {CURVE: {WHOLE: WHOLE, B_C: B_C}, TIGHT: {BY_TARGET: B_C}}.items():
        names = {arm: arm.split(", ")[1] for arm in shown[line]} | further
        drawn = [colors.get(n, ss.figures.palette.GREY) for n in names.values()]
        names |= {key: ss.say(name) for key, name in further.items()}
        given = {"x": ss.say("loss above the least one"), "y": ss.say("samples"), "colors": drawn}
        given |= {"title": titles[line]}
        panels.append(ss.figures.lines.with_laws(ss.figures.points(points), laws, names, **given))
    clean = path(CURVE, None)
    title = ss.say(
        """With noisy labels the noise scale, {there:.0f} at the target, tells the critical batch
        size, {size:.0f}; on the parabola they are {clean:.0f} and {critical:.1f}""",
        there=at_target(TIGHT),
        size=critical(TIGHT),
        clean=clean.noise_scale[-1],
        critical=critical(CURVE),
    )
    note = ss.say("Points and dashes: the noise scale along runs.")
    return ss.figures.Chart(title, panels, note)


STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
