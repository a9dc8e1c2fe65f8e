"""What do the batches say of a loss that does not add up: a norm, or a root mean square?

Hypothesis: the triangle inequality is about norms: the norm of all residuals is at most the sum of
the batches' norms, and that sum at most sqrt(m) times the norm, so that it is safe to stop on the
sum. For the root mean square it goes the other way (Jensen): the mean over the batches is below.
While the parameters move, none of these need hold.

Theory, before it runs: both inequalities, and the sums of the seeds' own orders, at w = 0.

Source: the hint of Exercise 7. Command: python experiments/study_norms.py
"""

from itertools import product

import numpy as np

import sgdstudy as ss
from answers.study_norms import answer, short

OVER = ss.to_say("of the batches / of all the data")
SHOWN = {  # loss -> column, title of its panel
    "norm": ("sum_loss", ss.to_say("norm: sum of the batches")),
    "rmse": ("running_loss", ss.to_say("root mean square: mean of the batches")),
}
STEPS = {"norm": 3e-4, "rmse": 1e-3}  # each descends
IDENTITIES = {
    ("sum_is_m_times_mean", "norm and rmse"): ("sum", "*"),
    ("outside_norm_bounds", "norm"): ("triangle", "norm*fixed"),
    ("outside_rmse_bounds", "rmse"): ("jensen", "rmse*fixed"),
}


class Options(ss.Options):
    seeds: int = 4
    divides: int = 10
    """a batch size that divides the 2000 samples"""
    ragged: int = 300
    """a batch size that does not"""
    epochs: int = 50
    """epochs of the arms that move"""


def arms(o):
    sizes = {o.divides: "blue", o.ragged: "red"}
    for (loss, lr), (size, color) in product(STEPS.items(), sizes.items()):
        arm = ss.Arm(ss.problems.curve(loss=loss), lr=lr, color=color, charted=False)
        arm = arm.but(batch_size=size, seeds=o.seed_range())
        yield f"{loss}, B={size}, fixed", arm.but("w = 0", optimizer="none", epochs=1)
        moving = arm.but("w moves", optimizer="notebook", epochs=o.epochs)
        yield f"{loss}, B={size}, moving", moving.but(charted=loss == "norm")


def claims(o, runs):
    for arm, run in runs.select("*fixed").items():
        yield ss.Claim("sum_of_batches", arm, run.at("sum_loss"), ss.expect(run).sum_at_start)
    for arm, run in runs.select("*moving").items():
        yield ss.Claim("running_over_full", arm, run.over_full("running_loss")[[0, -1]])
    for arm, run in runs.select("norm*").items():
        least = (run.epochs["sum_loss"] / run.epochs["full_loss"]).min()
        yield ss.Claim("least_sum_over_full", arm, least)
    for claim, (identity, which) in IDENTITIES.items():
        yield ss.Claim.off(*claim, runs.off(identity, which))


def picture(o, runs, value):
    panels, sizes = [], sorted({o.divides, o.ragged})
    for loss, (column, title) in SHOWN.items():
        lines = []
        for size in sizes:
            still, moving = (runs[f"{loss}, B={size}, {how}"] for how in ("fixed", "moving"))
            color = moving.color
            lines.append(ss.figures.Line("", [0], still.over_full(column), color, dots=True))
            y = moving.over_full(column)
            label = ss.say("batches of {n}", n=size)
            lines.append(ss.figures.Line(label, np.arange(1, len(y) + 1), y, color))
        axes = {"title": ss.say(title), "log": "y", "levels": {"": 1.0}}
        x = ss.say("epoch (dot: at w = 0, at rest)")
        panels.append(ss.figures.Panel(lines, x, ss.say(OVER), **axes))
    least = min(value["least_sum_over_full", arm] for arm in runs.select("norm*moving"))
    first = value["running_over_full", f"rmse, B={o.divides}, moving"]
    title = ss.say(
        """The norms of moving batches sum to {least:.2} times the whole or more; the mean root mean
        square is {first:.2} times it in epoch 1""",
        least=ss.text.at_most(least),
        first=first[0],
    )
    note = ss.say("At rest the one is never below the whole, the other never above it.")
    return ss.figures.Chart(title, panels, note)


def figures(runs):
    yield "fixed.png", ss.figures.batch_losses(runs.select("*fixed"))


charts = {"norm: sum of the batches": "epoch/sum_loss", "norm of all the data": "epoch/full_loss"}
STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()
