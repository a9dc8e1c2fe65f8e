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

STEPS = {"mse": 2e-4, "abs": 1e-3, "norm": 3e-4, "rmse": 1e-3}  # each descends
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
            still = {"optimizer": "none", "epochs": 1}
            found[f"{loss}, B={size}, fixed"] = ss.Arm(curve, "w = 0", **still, **both)
            moving = {"optimizer": "notebook", "epochs": o.epochs}
            found[f"{loss}, B={size}, moving"] = ss.Arm(curve, "w moves", **moving, **both)
    return found


def gaps(arm, run):
    """Split running - full(end) of the first and the last epoch into drift and sampling."""
    found, steps, ends = [], run.load(seeds=0), run.load("epochs", seeds=0).set_index("epoch")
    for epoch in (1, run.config.epochs):
        rows, end = steps[steps["epoch"] == epoch], ends.loc[epoch]
        columns = (rows[name].to_numpy(dtype=float) for name in ("loss", "full_loss", "size"))
        gap = ss.theory.gap(*columns, end["full_loss"])
        total, source = end["running_loss"] - end["full_loss"], "identity: running - full(end)"
        found += [
            ss.Claim(f"drift_epoch_{epoch}", arm, gap.drift),
            ss.Claim(f"sampling_epoch_{epoch}", arm, gap.sampling),
            ss.Claim(
                "drift_and_sampling", arm, gap.drift + gap.sampling, total, 1e-9, source, True
            ),
        ]
    return found


def claims(o, runs):
    found = []
    for arm, run in runs.items():
        rows, m = run.epochs, len(run.config.batch_sizes(run.problem.d))
        full, running, total = rows["full_loss"], rows["running_loss"], rows["sum_loss"]
        sums = (total / (m * rows["mean_loss"])).max()
        found.append(ss.Claim("sum_over_m_means", arm, sums, 1, 1e-12, "identity", True))
        if "moving" in arm:
            found += gaps(arm, run) if run.problem.loss == "mse" else []
            ratio = (running / full).groupby(rows["epoch"]).median()
            found.append(ss.Claim("running_over_full", arm, [ratio.iloc[0], ratio.iloc[-1]]))
            continue
        if run.problem.loss in ("mse", "abs"):
            ratio, source = (running / full).mean(), "identity at fixed parameters; float32"
            found.append(ss.Claim("weighted_over_full", arm, ratio, 1, ROUNDING, source, True))
            unweighted = (rows["mean_loss"] - full).mean()
            found.append(ss.Claim("unweighted_minus_full", arm, unweighted))
        if run.problem.loss == "norm":
            over = total / full  # from 1 to sqrt(m)
            inside = over.between(1 - ROUNDING, np.sqrt(m) * (1 + ROUNDING)).all()
            source = "triangle inequality: |r| <= sum |r_b| <= sqrt(m) |r|"
            found.append(ss.Claim("norm_loss_bound", arm, bool(inside), True, 0, source, True))
        if run.problem.loss == "rmse":
            below = bool((running <= full * (1 + ROUNDING)).all())
            source = "Jensen: the mean of the batches' RMSE is at most the RMSE"
            found.append(ss.Claim("rmse_jensen", arm, below, True, 0, source, True))
    return found


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    first, last = value["running_over_full", f"mse, B={o.divides}, moving"]
    fixed = f"mse, B={o.ragged}, fixed"
    return f"""At fixed parameters nothing is lost: weighted by size, the batch losses average to
    the full loss (ratio {value["weighted_over_full", fixed]:.6f} for B = {o.ragged}). The plain
    sum is m times their mean: another scale, not another loss. The unweighted mean is off by
    {value["unweighted_minus_full", fixed]:+.3g} where the last batch is short.

    During training the parameters move between batches (drift), and a batch is not the whole
    (sampling): the running loss is {first:.2f} times the
    full loss at the end of epoch 1, and {last:.4f} times in epoch {o.epochs}. So it is not serious,
    doctor: in shuffled order it lags by less than an epoch (Exercise 6 has the order where it is
    blind). The triangle inequality of the hint speaks of norms of residuals, where the sum over the
    batches is above; for the root mean square the mean over the batches is below."""


def some(runs, kind):
    return {arm: run for arm, run in runs.items() if kind in arm}


figures = {
    "fixed.png": lambda runs: ss.figures.batch_losses(some(runs, "fixed")),
    "moving.png": lambda runs: ss.figures.loss_by_epoch(some(runs, "moving")),
}
STUDY = ss.Study(__file__, __doc__, Options, arms, claims, answer, figures)

if __name__ == "__main__":
    STUDY.main()
