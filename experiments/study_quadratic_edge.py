"""From which step size on does a quadratic grow under each rule, and how fast beyond it?

Hypothesis: a quadratic has one Hessian, so that its sharpness cannot give way as a network's does
(study_edge_of_stability). Below its rule's limit the loss falls; 5 % beyond it grows, step by step,
by the square of the largest root of the step: full-batch descent beyond 2 / λ, heavy ball
beyond (2 + 2 β) / λ, Nesterov's beyond (2 + 2 β) / ((1 + 2 β) λ).

Source: Cohen, Kaur, Li, Kolter, Talwalkar (2021), section 2; Polyak (1964).
Command: python experiments/study_quadratic_edge.py
"""

import numpy as np

import sgdstudy as ss
from answers.study_quadratic_edge import BETA, GROWING, LAST, SHARE, STABLE, answer, short

SHARPNESS = "full_hess_max_eig"
DESCENT = ss.Known(0, 0, "theory: the loss falls where lr times the sharpness is below 2")
CONSTANT = ss.Known(0, 1e-12, "theory: a quadratic has one Hessian; rounding")
ROOTS = "theory: largest root of the step on a quadratic, squared; rounding"


def arms(o):
    limit = ss.theory.lr_limit(ss.problems.curve().least_squares)
    stable = ss.Arm(
        ss.problems.curve().replace(exact=False),  # the Hessian is measured, not known
        "one Hessian",
        lr=ss.rounded(0.9 * limit),
        epochs=300,
        dtype="float64",
        diagnostics=[SHARPNESS],
        diagnostics_every=1,
        metrics=["full_loss", SHARPNESS],
    )
    yield STABLE, stable.but(color="grey")
    for name, options in GROWING.items():
        lr = ss.rounded(SHARE * limit * ss.theory.sharpness_limit(1.0, **options) / 2)
        yield name, stable.but(lr=lr, options=options)


def claims(o, runs):
    change = [
        np.ptp(run.array("steps", SHARPNESS)) / run.edge().largest[0] for run in runs.values()
    ]
    yield ss.Claim("change_of_sharpness", "all quadratics", max(change), CONSTANT, identity=True)
    rises = int((np.diff(runs[STABLE].array("steps", "full_loss"), axis=0) > 0).sum())
    yield ss.Claim("rises_of_the_loss", STABLE, rises, DESCENT)
    sharpness = 2 / ss.theory.lr_limit(ss.problems.curve().least_squares)
    for arm, options in GROWING.items():
        law = ss.theory.growth_per_step(runs[arm].config.lr, sharpness, **options)
        loss = runs[arm].array("steps", "full_loss")[:, 0]
        measured = (loss[-1] / loss[-1 - LAST]) ** (1 / LAST)
        # sums over d samples are rounded: two losses, the gradient, the eigenvalue
        off = 4 * runs[arm].problem.d * np.finfo(float).eps * law
        yield ss.Claim("growth_per_step", arm, measured, ss.Known(law, off, ROOTS))


def picture(o, runs, value):
    names = [ss.say("descent, 0.9 of its limit"), ss.say("descent"), ss.say("heavy ball")]
    names, lines = [*names, "Nesterov"], []
    for label, (arm, run) in zip(names, runs.items(), strict=True):
        loss, theory = run.array("steps", "full_loss")[:, 0], None
        steps, middle = np.arange(len(loss)), len(loss) // 2
        if arm in GROWING:  # through the middle of the run
            law = ss.theory.growth_per_step(run.config.lr, run.edge().late[0], **run.config.options)
            theory = loss[middle] * law ** (steps - middle)
        lines.append(ss.figures.Line(label, steps, loss, run.color, theory=theory))
    panel = ss.figures.Panel(lines, ss.say("steps"), ss.say("loss of all the data"), log="y")
    descent, heavy, nesterov = (value["growth_per_step", arm] for arm in GROWING)
    title = ss.say(
        """5 % beyond its limit the loss grows at every step: {descent} times (descent), {heavy}
        (heavy ball), {nesterov} (Nesterov)""",
        descent=descent,
        heavy=heavy,
        nesterov=nesterov,
    )
    note = ss.say("The sharpness is the same everywhere: no way out.")
    return ss.figures.Chart(title, [panel], note)


charts = {"loss of all the data": "batch/full_loss"}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
