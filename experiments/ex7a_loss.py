"""Exercise 7a: how does the loss of all the data compare with the losses of its batches?

Hypothesis: at fixed parameters the size-weighted mean of the batch losses is the full loss, for
losses that add up (mse, abs); the sum is m times the plain mean. The triangle inequality is about
norms: the norm of all residuals is at most the sum of the batches' norms. For the root mean square
it goes the other way (Jensen). While the parameters move, none of these need hold.

Source: Exercise 7, first part. Command: python experiments/ex7a_loss.py
"""

from dataclasses import dataclass
from itertools import islice

import numpy as np

import sgdstudy as ss
from sgdstudy import predict, theory

STEPS = {"mse": 2e-4, "abs": 1e-3, "norm": 3e-4, "rmse": 1e-3}  # each descends
SORTED = (7, 64, 300, 1999)  # none divides the 2000 samples: the last batch is short
ROUNDING = 1e-5  # relative; float32 sums of up to 2000 terms
RULES = ("running_loss", "full_loss", "last_loss")  # of an epoch
OWN_ORDER = "theory: the steps of the seed's own order"


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
    found, moving = {}, {"optimizer": "notebook", "epochs": o.epochs}
    for loss, lr in STEPS.items():
        curve = ss.problems.curve(loss=loss)
        for size in (o.divides, o.ragged):
            both = {"batch_size": size, "lr": lr, "seeds": o.seed_range()}
            still = {"optimizer": "none", "epochs": 1}
            found[f"{loss}, B={size}, fixed"] = ss.Arm(curve, "w = 0", **still, **both)
            found[f"{loss}, B={size}, moving"] = ss.Arm(curve, "w moves", **moving, **both)
    clean, still = ss.problems.curve(), {"optimizer": "none", "order": "sequential", "epochs": 1}
    for size in SORTED:
        arm = ss.Arm(clean, "w = 0, along the curve", batch_size=size, **still)
        found[f"mse, B={size}, sorted, fixed"] = arm
    moving |= {"lr": STEPS["mse"], "batch_size": o.divides, "order": "sequential"}
    found["mse, sorted, moving"] = ss.Arm(clean, "along the curve", dtype="float64", **moving)
    return found


def gaps(arm, run, epochs):
    """Split running - full(end) of some epochs into drift and sampling, beside theory."""
    found, seen = [], predict.gaps(run)
    path = predict.known_order(run.problem, run.config, len(seen))
    ends = run.load("epochs", seeds=run.config.seeds[0])
    for epoch in epochs:
        gap, expected = seen[epoch - 1], path.gap(epoch)
        end = ends.iloc[epoch - 1]
        # float32 parameters: relative to the losses, on the scale of the expected parts
        near = 1e-2 * (abs(expected.drift) + abs(expected.sampling))
        total, source = end["running_loss"] - end["full_loss"], "identity: running - full(end)"
        both = gap.drift + gap.sampling
        found += [
            ss.Claim(f"drift_epoch_{epoch}", arm, gap.drift, expected.drift, near, OWN_ORDER),
            ss.Claim(
                f"sampling_epoch_{epoch}", arm, gap.sampling, expected.sampling, near, OWN_ORDER
            ),
            ss.Claim(
                f"drift_and_sampling_epoch_{epoch}", arm, both, total, 1e-9 * total, source, True
            ),
        ]
    return found


def rules(arm, run, epsilon=0.1):
    """Return the epoch at which each rule would stop a run, median over the seeds."""
    theirs = predict.expected_losses(run.problem, run.config)
    found = []
    for name in RULES:
        by_seed = run.epochs.pivot(index="epoch", columns="seed", values=name).to_numpy()
        epoch = np.median([theory.first_below(losses, epsilon) for losses in by_seed.T])
        expected = theory.first_below(theirs[name], epsilon) if name in theirs else None
        source = "theory: expected loss by epoch"
        found.append(ss.Claim(f"first_{name}_below_0.1", arm, epoch, expected, 1, source))
    return found


def claims(o, runs):
    found = rules(f"mse, B={o.divides}, moving", runs[f"mse, B={o.divides}, moving"])
    for arm, run in runs.items():
        rows, sizes = run.epochs, np.array(run.config.batch_sizes(run.problem.d))
        m, loss = len(sizes), run.problem.loss
        full, running, total = rows["full_loss"], rows["running_loss"], rows["sum_loss"]
        sums = (total / (m * rows["mean_loss"])).max()
        found.append(ss.Claim("sum_equals_m_times_mean", arm, sums, 1, 1e-12, "identity", True))
        if "moving" in arm:
            if loss == "mse" and o.epochs >= 48:
                found += gaps(arm, run, (1, 50) if "sorted" in arm else (1, 48))
            ratio = (running / full).groupby(rows["epoch"]).median()
            found.append(ss.Claim("running_over_full", arm, [ratio.iloc[0], ratio.iloc[-1]]))
            continue
        if loss in ("mse", "abs"):
            name = "weighted_mean_equals_full" if loss == "mse" else "abs_is_additive"
            ratio, source = (running / full).mean(), "identity at fixed parameters; float32"
            found.append(ss.Claim(name, arm, ratio, 1, ROUNDING, source, True))
        if "sorted" in arm:
            order = islice(theory.batches_by_epoch(run.problem, run.config), 1)
            still = theory.order_losses(run.problem.least_squares, np.zeros(3), 0.0, order)
            expected, near = still.gap(1).weighting, ROUNDING * full[0]
            off, source = rows["mean_loss"][0] - full[0], "theory: weighting, sum (1/m - n_b/d) L_b"
            found.append(ss.Claim("unweighted_minus_full", arm, off, expected, near, source, True))
        if loss == "norm":
            low, high = theory.triangle_bounds(full, m)
            inside = total.between(low * (1 - ROUNDING), high * (1 + ROUNDING)).all()
            source = "triangle inequality: |r| <= sum |r_b| <= sqrt(m) |r|"
            found.append(ss.Claim("norm_loss_bound", arm, bool(inside), True, 0, source, True))
        if loss == "rmse":
            low, high = theory.jensen_bounds(full, sizes)
            inside = running.between(low * (1 - ROUNDING), high * (1 + ROUNDING)).all()
            source = "Jensen: the mean of the batches' RMSE is at most the RMSE"
            found.append(ss.Claim("rmse_jensen", arm, bool(inside), True, 0, source, True))
    return found


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    blind = value["running_over_full", "mse, sorted, moving"][1]
    moving = f"mse, B={o.divides}, moving"
    first, last = value["running_over_full", moving]
    rule = {name: value[f"first_{name}_below_0.1", moving] for name in RULES}
    stop = {name: f"{epoch:.0f}" for name, epoch in rule.items()}
    short = value["unweighted_minus_full", "mse, B=1999, sorted, fixed"]
    return f"""At fixed parameters nothing is lost: weighted by size, the batch losses average to
    the full loss (ratio {value["weighted_mean_equals_full", f"mse, B={o.ragged}, fixed"]:.6f} for
    B = {o.ragged}), for the squared error and for the unsquared norm of the text alike. The sum the
    exercise speaks of is m times the plain mean: another scale, not another loss. The unweighted
    mean is off where the last batch is short: by {short:+.3g} when it holds one sample, the last
    point of the curve, and counts as much as 1999 others.

    The triangle inequality of the hint is about norms of all residuals stacked: there the sum over
    the batches is above, by sqrt(m) at most. For the root mean square the mean over the batches is
    below (Jensen). For the squared error there is no inequality: there is equality. All three are
    about fixed parameters.

    During training the parameters move between batches (drift), and a batch is not the whole
    (sampling): the running loss is {first:.2f} times the full loss at the end of epoch 1, and
    {last:.4f} times in epoch {o.epochs}. So it is not serious, doctor: shuffled, it falls below
    0.1 at epoch {stop["running_loss"]}, the full loss at {stop["full_loss"]}. The loss of the last
    batch alone does at {stop["last_loss"]}: by luck, too early. Along the curve the running loss is
    blind: {blind:.1e} times the full loss in epoch {o.epochs} (Exercise 6)."""


def some(runs, kind):
    return {arm: run for arm, run in runs.items() if kind in arm}


figures = {
    "fixed.png": lambda runs: ss.figures.batch_losses(some(runs, "fixed")),
    "moving.png": lambda runs: ss.figures.loss_by_epoch(some(runs, "moving")),
    "drift_and_sampling.png": lambda runs: ss.figures.drift_and_sampling(
        {arm: run for arm, run in some(runs, "moving").items() if run.problem.loss == "mse"}
    ),
}
ask = {
    ("weighted_mean_equals_full", "mse, B=300, fixed"): "At fixed parameters, B = 300: mean of the "
    "batch losses, weighted by size, over the full loss?",
    ("first_last_loss_below_0.1", "mse, B=10, moving"): "The running loss falls below 0.1 at epoch "
    "48. And the loss of the last batch alone?",
}
STUDY = ss.Study(__file__, __doc__, Options, arms, claims, answer, figures, ask=ask)

if __name__ == "__main__":
    STUDY.main()
