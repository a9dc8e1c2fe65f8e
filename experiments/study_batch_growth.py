"""Does a growing batch size do what a falling step size does, in fewer updates?

Hypothesis: for steps small beside the limit the noise of SGD goes with lr / B, so that the loss
falls with the epochs alike whether lr is divided by q or B multiplied by it (Smith et al.). Second
moments of every step give the expected loss of both, and say where they part: with large steps,
where batches do not divide the data, and where few shuffled batches are left in an epoch.

Source: Smith, Kindermans, Ying, Le (2018), Don't Decay the Learning Rate, Increase the Batch Size;
linear algebra of second moments (docs/notebook.md).
Command: python experiments/study_batch_growth.py
"""

import numpy as np

import sgdstudy as ss
from answers.study_batch_growth import answer, short
from common.study_batch_growth import (
    BOTH,
    CASES,
    CONSTANT,
    FALLS,
    GROWS,
    PHASES,
    SMALL,
    arm_of,
    due,
    due_over,
    judged,
    last,
    late,
    over,
)

MOMENTS = ss.to_say("theory: second moments of every step; four standard errors")
SETS = ss.to_say(
    "theory: second moments of a shuffled epoch, over all orders; four standard errors"
)
WAYS = {FALLS: "red", GROWS: "blue", CONSTANT: "grey", BOTH: "green"}


class Options(ss.Options):
    seeds: int = 256
    times: int = 36
    """length of a third of a run, in times 1 / (lr λ) of the slowest mode at the first step size"""
    quick: bool = False
    """a third of that length"""


def line(w, x):
    """Return w0 + w1 x."""
    return w[0] + w[1] * x


def problem(d):
    """Return a line through d noisy points, started far from its best fit."""
    x = np.linspace(-0.5, 1.5, d)
    y = 1 - x / 2 + np.random.default_rng(0).normal(size=d)
    return ss.Problem(x, y, line, w_init=[8.0, -8.0], name=f"line through {d} noisy points")


def arms(o):
    same = {"seeds": o.seed_range(), "diagnostics": "off", "record_rows": 20_000}  # all epochs
    for name, case in CASES.items():
        given = {"batch_size": case.size, "order": case.order, "metrics": ["epoch/full_grad_norm"]}
        arm = ss.Arm(problem(case.d), "", **given, **same)
        known = ss.expect(arm)
        lr, m = case.share * float(known.mean_square_lr_limit), case.d / case.size
        lr = ss.rounded(lr)
        time = o.times / 3 if o.quick else o.times
        each = int(np.ceil(time / (lr * known.eigenvalues[0] * m)))
        arm = arm.but(lr=lr, epochs=len(PHASES) * each)
        marks = [each * k for k in PHASES[:-1]]
        sizes = {mark: case.size * case.q**k for k, mark in enumerate(marks, 1)}

        def falls(*epochs, q=case.q):
            options = {"milestones": epochs, "gamma": 1 / q}
            kind = {"schedule": "MultiStepLR", "schedule_unit": "epoch"}
            return kind | {"schedule_options": options}

        first = {each: sizes[each]}
        ways = {FALLS: falls(*marks), GROWS: {"batch_schedule": sizes}}
        if name == SMALL:
            ways |= {CONSTANT: {}, BOTH: falls(*marks[1:]) | {"batch_schedule": first}}
        for way, settings in ways.items():
            shown = {"charted": name == SMALL, "color": WAYS[way]}
            about = ss.say("{title}: {what}", title=ss.say(case.label), what=ss.say(way))
            yield arm_of(name, way), arm.but(about, **shown, **settings)


def claims(o, runs):
    for arm, run in runs.items():
        source = SETS if run.config.order == "shuffle" else MOMENTS
        for phase in judged(arm):
            seen = ss.Estimate.mean(late(run, run.excess(), phase)).beside(
                late(run, due(run), phase)
            )
            yield ss.Claim.estimated(f"excess_{phase}", arm, *seen, source=source)
        yield ss.Claim("updates", arm, int(run.n_steps[0]))
    for name, case in CASES.items():
        source = SETS if case.order == "shuffle" else MOMENTS
        for phase in PHASES[1:]:
            seen = over(runs, name, phase).beside(due_over(runs, name, phase))
            what = f"growing_over_falling_{phase}"
            yield ss.Claim.estimated(what, arm_of(name, GROWS), *seen, source=source)


def picture(o, runs, value):
    names = {FALLS: ss.say(FALLS), GROWS: ss.say(GROWS), CONSTANT: ""}
    curves, ratios = [], []
    for way in reversed(names):
        run, (color,) = runs[arm_of(SMALL, way)], ss.figures.palette.named(WAYS[way])
        epochs, seen = np.arange(1, run.config.epochs + 1), run.excess().mean(1)
        curves.append(ss.figures.Line(names[way], epochs, seen, color, theory=due(run)))
    for name, case in CASES.items():
        (color,), label = ss.figures.palette.named(case.color), ss.say(case.label)
        found = [over(runs, name, phase) for phase in PHASES]
        seen, off = np.array([(e.value, e.error) for e in found]).T
        theory = np.array([due_over(runs, name, phase) for phase in PHASES])
        given = {"band": (seen - off, seen + off), "theory": theory, "dots": True}
        ratios.append(
            ss.figures.Line(label, case.q ** np.arange(len(PHASES)), seen, color, **given)
        )
    title, axes = ss.say("small steps"), {"x": ss.say("epoch"), "y": ss.say("excess loss, mean")}
    left = ss.figures.Panel(curves, **axes, title=title, log="y")
    axes = {"x": ss.say("what B is multiplied by"), "y": ss.say("B grows / lr falls")}
    title = ss.say("ratio of the excess losses")
    right = ss.figures.Panel(ratios, **axes, title=title, log="y", limits=(0.5, 2))
    title = ss.say(
        """With small steps a growing batch leaves {small:.3} times the excess loss of a falling lr,
        in {updates:.0%} of its updates; with large steps it is {large:.3} times, with ragged
        batches {ragged:.3}""",
        **last(runs, value),
    )
    note = ss.say("""With small steps the two lines cover each other; grey: lr and B stay. Of few
        shuffled batches no noise is left once B = d.""")
    return ss.figures.Chart(title, [left, right], note)


charts = {"gradient norm of all the data": "epoch/full_grad_norm"}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
