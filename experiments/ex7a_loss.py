"""Exercise 7a: how does the loss of all the data compare with the losses of its batches?

Hypothesis: at fixed parameters the size-weighted mean of the batch losses is the full loss, for
losses that add up (mse, abs); the sum is m times the plain mean. The triangle inequality is about
norms: the norm of all residuals is at most the sum of the batches' norms. For the root mean square
it goes the other way (Jensen). While the parameters move, none of these need hold.

Source: Exercise 7, first part. Command: python experiments/ex7a_loss.py
"""

from dataclasses import dataclass

import numpy as np

import sgdstudy as ss

# a step that descends, for each loss
STEPS = {"mse": 2e-4, "abs": 1e-3, "norm": 3e-4, "rmse": 1e-3}
ROUNDING = 1e-5  # relative; float32 sums of up to 2000 terms


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 4
    divides: int = 10
    """a batch size that divides the 2000 samples"""
    ragged: int = 300
    """a batch size that does not"""
    epochs: int = 50
    """epochs of the arms that move"""


def arms(o):
    found = {}
    for loss, lr in STEPS.items():
        curve = ss.problems.curve(loss=loss)
        for size in (o.divides, o.ragged):
            both = {"batch_size": size, "lr": lr, "seeds": o.seed_range()}
            found[f"{loss}, B={size}, fixed"] = ss.Arm(
                curve, "w = 0, no update", epochs=1, optimizer="none", **both
            )
            found[f"{loss}, B={size}, moving"] = ss.Arm(
                curve, "w moves", epochs=o.epochs, optimizer="notebook", **both
            )
    return found


def claims(o, runs):
    found = []
    for arm, run in runs.items():
        rows, m = run.epochs, len(run.config.batch_sizes(run.problem.d))
        full, total, mean = rows["full_loss"], rows["sum_loss"], rows["mean_loss"]
        loss, size, kind = arm.replace("B=", "").split(", ")
        found.append(
            ss.Claim(
                "sum_over_m_means",
                arm,
                float((total / (m * mean)).max()),
                1,
                1e-12,
                "identity",
                True,
            )
        )
        if kind == "moving":
            ratio = (rows["running_loss"] / full).groupby(rows["epoch"]).median()
            found.append(ss.Claim("running_over_full", arm, [ratio.iloc[0], ratio.iloc[-1]]))
            continue
        if loss in ("mse", "abs"):
            found.append(
                ss.Claim(
                    "weighted_mean_over_full",
                    arm,
                    float((rows["running_loss"] / full).mean()),
                    1,
                    ROUNDING,
                    "identity at fixed parameters, up to float32 rounding",
                    True,
                )
            )
            found.append(ss.Claim("unweighted_minus_full", arm, float((mean - full).mean())))
        if loss == "norm":
            inside = full.le(total * (1 + ROUNDING)) & total.le(np.sqrt(m) * full * (1 + ROUNDING))
            found.append(
                ss.Claim(
                    "norm_loss_bound",
                    arm,
                    bool(inside.all()),
                    True,
                    0,
                    "triangle inequality: |r| <= sum |r_b| <= sqrt(m) |r|",
                    True,
                )
            )
        if loss == "rmse":
            below = rows["running_loss"].le(full * (1 + ROUNDING))
            found.append(
                ss.Claim(
                    "rmse_jensen",
                    arm,
                    bool(below.all()),
                    True,
                    0,
                    "Jensen: the mean of batch RMSEs is at most the RMSE",
                    True,
                )
            )
    return found


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    moving = value["running_over_full", f"mse, B={o.divides}, moving"]
    gap = value["unweighted_minus_full", f"mse, B={o.ragged}, fixed"]
    weighted = value["weighted_mean_over_full", f"mse, B={o.ragged}, fixed"]
    return f"""
At fixed parameters nothing is lost: weighted by their sizes, the batch losses average to the full loss
(ratio {weighted:.7f} for B = {o.ragged}). The plain sum is m times their mean, so it is
another scale, not another loss; the unweighted mean is off by {gap:+.3g} once the last batch is short.
During training the parameters move between batches: the running loss is {moving[0]:.2f} times the
full loss at the end of epoch 1, and {moving[1]:.4f} times in epoch {o.epochs}. So it is not serious,
doctor: it lags by less than an epoch in shuffled order (Exercise 6 shows the order where it is blind).
The triangle inequality of the hint speaks of norms of residuals, where the sum over batches is above;
for the root mean square the mean over batches is below."""


def fixed(runs):
    return {arm: run for arm, run in runs.items() if "fixed" in arm}


def moving(runs):
    return {arm: run for arm, run in runs.items() if "moving" in arm}


STUDY = ss.Study(
    __file__,
    __doc__,
    Options,
    arms,
    claims,
    answer,
    figures={
        "fixed.png": lambda runs: ss.figures.batch_losses(fixed(runs)),
        "moving.png": lambda runs: ss.figures.loss_by_epoch(moving(runs)),
    },
)

if __name__ == "__main__":
    STUDY.main()
