"""Exercise 7a: how does the loss of all the data compare with the losses of its batches?

Hypothesis: at fixed parameters the size-weighted mean of the batch losses is the full loss, for
losses that add up (mse, abs); the sum is m times the plain mean. The triangle inequality is about
norms: the norm of all residuals is at most the sum of the batches' norms, so that it is safe to
stop on that sum. For the root mean square it goes the other way (Jensen). While the parameters
move, none of these need hold.

Source: Exercise 7, first part. Command: python experiments/ex7a_loss.py
"""

from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

import sgdstudy as ss
from sgdstudy import theory
from sgdstudy.theory import predictions
from sgdstudy.theory.medians import median

STEPS = {"mse": 2e-4, "abs": 1e-3, "norm": 3e-4, "rmse": 1e-3}  # each descends
SORTED = (7, 64, 300, 1999)  # none divides the 2000 samples: the last batch is short
ROUNDING = 4 * np.sqrt(2000) * 2.0**-24  # relative; 2000 float32 terms: 4 standard deviations
ADDITIVE = "mse and abs, fixed"  # the losses that add up
FEW = 4  # seeds of the arms that only describe
EPSILON = 0.1  # the notebook's
# losses of an epoch, and the rules that stop on them
RULES = {"running_loss": "running", "full_loss": "full", "last_loss": "last_batch"}
OWN_ORDER = "theory: the steps of the seed's own order"


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 64
    divides: int = 10
    """a batch size that divides the 2000 samples"""
    ragged: int = 300
    """a batch size that does not"""
    epochs: int = 50
    """epochs of the arms that move"""


def arms(o):
    found, moving = {}, {"optimizer": "notebook", "epochs": o.epochs}
    for loss, lr in STEPS.items():
        curve, exact = ss.problems.curve(loss=loss), {"dtype": "float64"} if loss == "mse" else {}
        for size in (o.divides, o.ragged):
            seeds = o.seed_range() if (loss, size) == ("mse", o.divides) else o.seed_range()[:FEW]
            both = {"batch_size": size, "lr": lr, "seeds": seeds}
            still = {"optimizer": "none", "epochs": 1}
            found[f"{loss}, B={size}, fixed"] = ss.Arm(curve, "w = 0", **still, **both)
            # float64 where theory follows the steps
            found[f"{loss}, B={size}, moving"] = ss.Arm(curve, "w moves", **moving, **both, **exact)
    clean, still = ss.problems.curve(), {"optimizer": "none", "order": "sequential", "epochs": 1}
    for size in SORTED:
        arm = ss.Arm(clean, "w = 0, along the curve", batch_size=size, **still)
        found[f"mse, B={size}, sorted, fixed"] = arm
    moving |= {"lr": STEPS["mse"], "batch_size": o.divides, "order": "sequential"}
    found["mse, sorted, moving"] = ss.Arm(clean, "along the curve", dtype="float64", **moving)
    return found


def gaps(arm, run):
    """Split running - full(end) of the first and last epoch into drift and sampling, by theory.

    What rounding may change: every sample rounds its loss once an epoch, at worst to the same side;
    and the steps round, which the order may multiply. How much, theory tells from step sizes that
    differ in their last bits only: four times the largest difference.
    """
    found, seen = [], run.gaps()
    bits = np.finfo(float).eps * np.array([0, -8, -2, 2, 8])
    configs = [replace(run.config, lr=run.config.lr * (1 + bit)) for bit in bits]
    path, *near = (predictions.known_order(run.problem, one, len(seen)) for one in configs)
    for epoch in sorted({1, len(seen)}):
        sums = run.problem.d * epoch * np.finfo(float).eps * path.running[epoch - 1]
        for name in ("drift", "sampling"):
            measured, expected = (getattr(g, name) for g in (seen[epoch - 1], path.gap(epoch)))
            steps = max(abs(getattr(other.gap(epoch), name) - expected) for other in near)
            both, within = (measured, expected), sums + 4 * steps
            name = f"{name}_epoch_{epoch}"
            found.append(ss.Claim(name, arm, *both, within, OWN_ORDER, always=True))
    return found


def off_split(run):
    """Return what drift and sampling leave of running - full(end), relative to the former."""
    ends = run.load("epochs", seeds=run.config.seeds[0])
    total = (ends["running_loss"] - ends["full_loss"]).to_numpy()
    both = np.array([gap.drift + gap.sampling for gap in run.gaps()])
    return (np.abs(both - total) / ends["running_loss"]).max()


def crossings(run, name):
    """Return the epoch of the first loss below epsilon, by seed."""
    by_seed = run.epochs.pivot(index="epoch", columns="seed", values=name).to_numpy()
    return np.array([theory.first_below(losses, EPSILON) for losses in by_seed.T])


def rules(arm, run):
    """Return the epoch at which each rule would stop a run, median over the seeds."""
    found, first = [], {name: crossings(run, name) for name in RULES}
    for name, epochs in first.items():
        told = predictions.predict(run.problem, replace(run.config, stop=(RULES[name], EPSILON)))
        expected, near = told.get("stop_epoch"), told.get("stop_epoch_tolerance", 1)
        name, source = f"first_{name}_below_0.1", "theory: the stop under this rule"
        found.append(ss.Claim(name, arm, median(epochs), expected, near, source, always=True))
    with np.errstate(invalid="ignore"):  # neither is ever below
        late = np.nan_to_num(first["running_loss"] - first["full_loss"], nan=0.0)
    early = np.sum(first["last_loss"] < first["full_loss"])
    return [
        *found,
        ss.Claim("running_epochs_late", arm, [late.min(), late.max()]),
        ss.Claim("last_loss_early", arm, int(early)),
    ]


def outside(value, low, high):
    """Return how far values are outside bounds, relative: 0 inside."""
    return max(0.0, (low / value - 1).max(), (value / high - 1).max())


def off_weighting(run):
    """Return how far the weighting of batches in order is off theory, relative to the full loss."""
    order = islice(theory.batches_by_epoch(run.problem, run.config), 1)
    still = theory.order_losses(run.problem.least_squares, np.zeros(3), 0.0, order)
    row = run.epochs.iloc[0]
    return abs(row["mean_loss"] - row["full_loss"] - still.gap(1).weighting) / row["full_loss"]


def sizes(run):
    return np.array(run.config.batch_sizes(run.problem.d))


def off_sum(run):
    """Return how far the sum of the batch losses is off m times their recorded mean, relative."""
    steps = run.load(columns=["seed", "epoch", "loss"]).astype({"loss": float})
    total = steps.groupby(["seed", "epoch"])["loss"].sum().to_numpy()
    return np.abs(total / (len(sizes(run)) * run.epochs["mean_loss"]) - 1).max()


def off_full(run):
    return np.abs(run.epochs["running_loss"] / run.epochs["full_loss"] - 1).max()


def off_triangle(run):
    bounds = theory.triangle_bounds(run.epochs["full_loss"], len(sizes(run)))
    return outside(run.epochs["sum_loss"], *bounds)


def off_jensen(run):
    bounds = theory.jensen_bounds(run.epochs["full_loss"], sizes(run))
    return outside(run.epochs["running_loss"], *bounds)


def identities(runs):
    """Return what holds by definition, each the worst of all its arms."""

    def worst(off, kind="", *losses):
        some = [run for arm, run in runs.items() if kind in arm]
        return max(off(run) for run in some if run.problem.loss in (losses or STEPS))

    exact, still = 2000 * np.finfo(float).eps, "fixed"  # of 2000 numbers
    triangle = "triangle inequality: |r| <= sum |r_b| <= sqrt(m) |r|"
    weights = "theory: weighting, sum (1/m - n_b/d) L_b"
    split = "running - full(end), relative to running"
    rows = [
        ("sum_is_m_times_mean", "all arms", worst(off_sum), exact, "definition"),
        ("weighted_mean_is_full", ADDITIVE, worst(off_full, still, "mse", "abs"), ROUNDING, "sums"),
        ("unweighted_mean_off", "sorted", worst(off_weighting, "sorted, fixed"), ROUNDING, weights),
        ("drift_and_sampling", "mse, moving", worst(off_split, "moving", "mse"), exact, split),
        ("outside_norm_bounds", "norm", worst(off_triangle, still, "norm"), ROUNDING, triangle),
        ("outside_rmse_bounds", "rmse", worst(off_jensen, still, "rmse"), ROUNDING, "Jensen"),
    ]
    return [
        ss.Claim(name, arms, off, 0, near, source, identity=True)
        for name, arms, off, near, source in rows
    ]


def claims(o, runs):
    arm = f"mse, B={o.divides}, moving"
    found = rules(arm, runs[arm])
    for arm, run in runs.items():
        rows = run.epochs
        if "moving" in arm:
            found += gaps(arm, run) if run.problem.loss == "mse" else []
            ratio = (rows["running_loss"] / rows["full_loss"]).groupby(rows["epoch"]).median()
            found.append(ss.Claim("running_over_full", arm, [ratio.iloc[0], ratio.iloc[-1]]))
        if "sorted, fixed" in arm:
            off = rows["mean_loss"][0] - rows["full_loss"][0]
            found.append(ss.Claim("unweighted_minus_full", arm, off))
        if run.problem.loss == "norm":
            least = (rows["sum_loss"] / rows["full_loss"]).min()
            found.append(ss.Claim("least_sum_over_full", arm, least))
    return found + identities(runs)


def answer(o, runs, claims):
    value, moving = {(c.name, c.arm): c.measured for c in claims}, f"mse, B={o.divides}, moving"
    first, last = value["running_over_full", moving]
    short, n = value["unweighted_minus_full", "mse, B=1999, sorted, fixed"], len(runs[moving].w)
    blind = value["running_over_full", "mse, sorted, moving"][1]
    norms = [f"norm, B={size}, moving" for size in (o.divides, o.ragged)]
    least = min(value["least_sum_over_full", arm] for arm in norms)
    return f"""At fixed parameters nothing is lost: weighted by size, the batch losses average to
    the full loss, to {value["weighted_mean_is_full", ADDITIVE]:.0e}, for the
    squared error and for the unsquared norm of the text alike. The sum the exercise speaks of is m
    times the plain mean: another scale, not another loss. The unweighted mean is off where the last
    batch is short: by {short:+.3g} when it holds one sample, the last point of the curve, and
    counts as much as 1999 others.

    The triangle inequality of the hint is about norms of all residuals stacked: there the sum over
    the batches is above, by a factor of sqrt(m) at most. So it is safe to stop on that sum: once it
    is below epsilon, so is the norm of all residuals. For the root mean square the mean over the
    batches is below (Jensen). For the squared error there is no inequality: there is equality. All
    three are about fixed parameters; while they moved, the sum of the norms was
    {least:.2g} times the full norm at the end of the epoch, or more, in
    {sum(len(runs[arm].w) for arm in norms)} runs.

    During training the parameters move between batches (drift), and a batch is not the whole
    (sampling): the running loss is {first:.2f} times the full loss at the end of epoch 1, and
    {last:.4f} times in epoch {o.epochs} (medians of {n} orders). {doctor(value, moving, n)} Along
    the curve the running loss is blind: {blind:.1e} times the full loss in epoch {o.epochs}
    (Exercise 6)."""


def doctor(value, moving, n):
    """Say whether it is serious, doctor, as far as the losses get below the notebook's epsilon."""
    stop = {name: value[f"first_{name}_below_0.1", moving] for name in RULES}
    low, high = value["running_epochs_late", moving]
    if not np.isfinite([*stop.values(), low, high]).all():
        return f"Not every order gets below {EPSILON} here, so a stop cannot be told."
    apart = max(abs(low), abs(high))
    verdict = "So it is not serious, doctor: shuffled" if apart <= 2 else "Shuffled"
    return f"""{verdict}, it falls below {EPSILON} at epoch {stop["running_loss"]:g}, the full loss
    at {stop["full_loss"]:g} (medians), at most {apart:g} apart in any order. The loss of the
    last batch alone does at {stop["last_loss"]:g}, by luck: in {value["last_loss_early", moving]}
    of the {n} orders before the full loss."""


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
    ("unweighted_minus_full", "mse, B=1999, sorted, fixed"): "At w = 0, along the curve, B = 1999: "
    "mean of the two batch losses, less the full loss?",
    ("first_last_loss_below_0.1", "mse, B=10, moving"): "The running loss falls below 0.1 at epoch "
    "48. And the loss of the last batch alone?",
}
STUDY = ss.Study(__file__, __doc__, Options, arms, claims, answer, figures, ask=ask)

if __name__ == "__main__":
    STUDY.main()
