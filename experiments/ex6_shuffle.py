"""Exercise 6: what happens with shuffle=False, and why?

Hypothesis: at both ends of the curve a batch of neighbours is far steeper than the mean, and
consecutive ones push the same way, so in sorted order the loss explodes within an epoch; noiseless
labels let it contract from one epoch to the next all the same. Randomness is not what helps: a
fixed order whose batches are spread over the curve (strided) does as well as shuffling, and
neighbours in random order do worse. With label noise the sorted order settles far away.

Source: Exercise 6. Command: python experiments/ex6_shuffle.py --seeds 64
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

import sgdstudy as ss
from sgdstudy.theory.medians import median
from sgdstudy.theory.predictions import followed_losses

RANDOM = ("shuffle", "shuffle_once", "block_shuffle")
FIXED = ("sequential", "reversed", "strided")
REDRAWN = ("shuffle", "block_shuffle")
MAP = "theory: the epoch's product of I - lr H_b"
OWN = "theory: the steps of the seeds' own orders, in float64"
DRAWN = "theory: 250 orders drawn apart"
BELOW, ABOVE = 0.95, 1.1  # of the step size where the exponent is zero
GROWING = 20  # epochs, well before float64 overflows


@dataclass(frozen=True)
class Options(ss.Options):
    lr: float = 2e-4
    """step size of SGD"""
    epsilon: float = 0.1
    """stop once the loss of all the data is below"""
    epochs: int = 120
    """the most epochs"""


@cache
def batches(order="sequential"):
    """Return moments and batches of an order."""
    curve, config = ss.problems.curve(), ss.TrainConfig(lr=1e-4, batch_size=10, order=order)
    return curve.least_squares, ss.theory.batches(curve, config)


@cache
def stretches(lr):
    """Return, by arm, the claim and the stretch of sorted batches that multiplies an error most."""
    b = batches()[1]
    return {
        "worst stretch": ("growth_within_epoch", ss.theory.growth(b, lr)),
        "worst stretch, across": ("growth_across_boundary", ss.theory.growth(b, lr, epochs=2)),
    }


@cache
def step_sizes(epsilon):
    """Return the steps at which the sorted order stops being usable, and diverges."""
    ls, b = batches()
    usable = ss.theory.usable_lr(ls, b, epsilon, low=2e-4, high=3e-4)
    return usable, ss.theory.critical_lr(b, 2e-4, 1e-3)


@cache
def law(order, lr, epochs):
    """Return `late_excess` of 250 orders drawn apart, with noise 1."""
    ls = ss.problems.curve(noise=1.0).least_squares
    _, full = ss.theory.reshuffled_losses(ls, np.zeros(3), 2000, 10, lr, epochs, order, draws=250)
    return late_excess(full, ls)


def late_excess(full, ls):
    """Return log10 of the excess loss `(E, R)` by seed, the mean over the later half of the epochs.

    The law of the excess has a long tail: a mean of the excess would be that of a few orders.
    """
    return np.log10(full[len(full) // 2 :] - ls.least_loss).mean(0)


def arms(o):
    clean, noisy = ss.problems.curve(), ss.problems.curve(noise=1.0)
    seeds = {order: o.seed_range() for order in RANDOM} | {order: [0] for order in FIXED}
    same = {"optimizer": "SGD", "lr": o.lr, "batch_size": 10, "epochs": o.epochs}
    stops, found = {rule: {"stop": (rule, o.epsilon)} for rule in ("full", "running")}, {}
    for order in RANDOM + FIXED:
        one = same | {"order": order, "seeds": seeds[order]}
        found[f"SGD {order}"] = ss.Arm(clean, order, **one, **stops["full"])
    for order in (*RANDOM, "strided", "sequential"):
        one = same | {"order": order, "seeds": seeds[order]}
        found[f"SGD {order}, noise 1"] = ss.Arm(noisy, f"{order}, label noise 1", **one)
    for order in REDRAWN:
        one, about = same | {"order": order, "seeds": seeds[order]}, "stops on the running loss"
        found[f"{order}, running rule"] = ss.Arm(clean, about, **one, **stops["running"])
    exact = same | stops["full"] | {"order": "sequential", "dtype": "float64"}
    found["exact"] = ss.Arm(clean, "sequential in float64", diagnostics="full", **exact)
    usable, _ = step_sizes(o.epsilon)
    for name, factor in (("usable", 0.97), ("unusable", 1.03)):
        near = exact | {"lr": factor * usable}
        found[name] = ss.Arm(clean, f"float64, {factor} times the largest usable step", **near)
    zero = ss.theory.lyapunov_zero_lr(clean, 10, low=3e-4, high=8e-4)
    for name, factor in (("below zero exponent", BELOW), ("above zero exponent", ABOVE)):
        near = exact | {"lr": factor * zero, "order": "shuffle", "seeds": seeds["shuffle"]}
        about = f"shuffled, {factor} times the zero of the exponent"
        found[name] = ss.Arm(clean, about, charted=factor < 1, **near)
    for name, (_, stretch) in stretches(o.lr).items():
        worst = clean.replace(w_init=clean.least_squares.w_star + stretch.direction)
        rows = np.arange(stretch.first, stretch.last + 1) % 200
        alone = same | {"epochs": 1, "dtype": "float64", "seeds": o.seed_range()[:1]}
        alone["order"] = np.arange(2000).reshape(1, 200, 10)[:, rows]
        found[name] = ss.Arm(worst, "the stretch that grows most", charted=False, **alone)
    rms = {"optimizer": "RMSprop", "lr": 0.01, "batch_size": 10, "epochs": 50}
    rms["stop"] = ("last_batch", 1e-7)  # the notebook's rule in Exercise 5
    for order in ("shuffle", "sequential"):
        arm = f"RMSprop {order}"
        found[arm] = ss.Arm(clean, arm, order=order, seeds=seeds[order], **rms)
    return found


def sorted_claims(o, run):
    """Compare the sorted order's losses, and its contraction from epoch to epoch, with theory."""
    rows, found, last = run.epochs.set_index("epoch"), [], int(run.stop_epoch[0])
    for rule in ("running", "full"):
        expected, off = followed_losses(run.problem, run.config, rule, last)
        for epoch in {1, 50} & set(rows.index):
            values = (rows[f"{rule}_loss"][epoch], expected[epoch - 1, 0], off[epoch - 1, 0])
            name = f"{rule}_loss_epoch_{epoch}"
            found.append(ss.Claim(name, "exact", *values, OWN, always=True))
    return [*found, *shrinking(run), peak(run)]


def shrinking(run):
    """Claim the factor of the error per epoch: the radius of M, z -> M z + c.

    Along the left eigenvector of the radius, differences of w at successive epochs' starts shrink
    by just that factor, whatever c is. Their rounding: that of the loss, of which they are a root.
    """
    _, b = batches()
    values, left = np.linalg.eig(ss.theory.epoch_map(b, run.config.lr)[0].T)
    names, last = [f"w{i}" for i in range(3)], int(run.stop_epoch[0])
    steps = run.load(columns=["epoch", "batch", *names])
    along = (
        steps[steps["batch"] == 0][names].to_numpy(float) @ left[:, np.abs(values).argmax()].real
    )
    moved = np.abs(np.diff(along))
    if len(moved) < 2:
        return []
    measured = (moved[-1] / moved[0]) ** (1 / (len(moved) - 1))
    full, off = followed_losses(run.problem, run.config, "full", last)
    # off is half of it relative to w, and a difference is 1 - rho of w at least; two of them
    radius = ss.theory.spectral_radius(b, run.config.lr)
    within = 2 * (off / full).max() / (1 - radius) / (len(moved) - 1)
    return [ss.Claim("rho_sequential", "exact", measured, radius, within, MAP, always=True)]


def peak(run):
    """Describe the largest loss of a batch in epoch 1, and its place."""
    rows = run.load(columns=["batch", "loss"], epochs=slice(1, 2))
    at = rows["loss"].idxmax()
    return ss.Claim("peak_batch_loss", "exact", [rows["loss"][at], int(rows["batch"][at]) + 1])


def growth_claims(o, runs):
    """Claim what the worst stretches make of an error of length 1.

    Off by what the labels' rounding adds, lr |g_b| a batch, multiplied by the factor at most.
    """
    (ls, b), found = batches(), []
    for arm, (name, stretch) in stretches(o.lr).items():
        seen = np.linalg.norm(runs[arm].w[0] - ls.w_star)
        rows = np.arange(stretch.first, stretch.last + 1) % 200
        added = o.lr * np.linalg.norm(b.gradients[rows], axis=1).sum()
        added += len(rows) * np.finfo(float).eps * np.abs(ls.w_star).max()
        near = stretch.factor * added
        found.append(ss.Claim(name, arm, seen, stretch.factor, near, MAP, always=True))
    return found


def noise_claims(o, runs):
    """Compare the excess loss, with noise 1, with the law of a drawn order, or the order's own."""
    found = []
    for arm, run in with_noise(runs).items():
        order, ls, n = str(run.config.order), run.problem.least_squares, len(run.w)
        full = run.array("epochs", "full_loss")
        if order in REDRAWN:
            drawn = law(order, o.lr, o.epochs)
            error = drawn.std(ddof=1) * np.sqrt(1 / n + 1 / len(drawn))
            both = late_excess(full, ls).mean(), drawn.mean()
            found.append(ss.Claim("log10_late_excess", arm, *both, 4 * error, DRAWN, always=True))
        else:
            losses, off = (
                part[-1] for part in followed_losses(run.problem, run.config, "full", o.epochs)
            )
            # float32 adds up the squares of 2000 samples
            off = off + 4 * np.sqrt(2000) * 2.0**-24 * losses
            expected, low, high = (median(losses + by) - ls.least_loss for by in (0, -off, off))
            both = median(full[-1]) - ls.least_loss, expected
            near = max(expected - low, high - expected)
            found.append(ss.Claim("excess_at_end", arm, *both, near, OWN, always=True))
    return found


def random_limits(o, runs):
    """Say where a random order stops converging: in the mean square, and almost surely."""
    run, below = runs["above zero exponent"], runs["below zero exponent"]
    curve, lr, low = run.problem, run.config.lr, below.config.lr
    mean = ss.theory.reshuffling_growth(
        curve.least_squares, 2000, 10, low, particles=100, repeats=8, epochs=4
    )
    found = [
        ss.Claim("mean_square_lr_limit", "all", independent_limit()),
        ss.Claim("growth_of_mean_square", "below zero exponent", [mean.low, mean.high]),
        ss.Claim("converged", "below zero exponent", int(np.isfinite(below.converged_epoch).sum())),
        ss.Claim("diverged", "above zero exponent", int(np.sum(run.stop_reason == "diverged"))),
    ]
    logs = np.log(run.array("epochs", "full_loss")[:GROWING]) / 2
    if len(logs) < 2:
        return found
    slopes, n = (logs[-1] - logs[0]) / (len(logs) - 1), len(run.w)
    expected = 200 * ss.theory.lyapunov(curve, 10, lr, epochs=GROWING)
    # theory averages 64 paths as long
    error = slopes.std(ddof=1) * np.sqrt(1 / n + 1 / 64) if n > 1 else np.nan
    name, source = "lyapunov_per_epoch", "theory: Lyapunov exponent, 200 steps"
    arm, measured = "above zero exponent", slopes.mean()
    return [*found, ss.Claim.estimated(name, arm, measured, expected, error, n, source)]


def independent_limit():
    return ss.theory.mean_square_lr_limit(batches()[0], 2000, 10)


def claims(o, runs):
    ls, b = batches()
    values, vectors = np.linalg.eigh(b.hessians)
    steepest, along, top = values[:, -1], vectors[:, :, -1], ss.theory.eigenvalues(ls).max()
    beyond = np.flatnonzero(o.lr * steepest > 2)
    pairs = beyond[:-1][np.diff(beyond) == 1]
    cosines = np.abs((along[pairs] * along[pairs + 1]).sum(1))
    usable, critical = step_sizes(o.epsilon)
    reverse = runs["SGD reversed"]
    exact, _ = followed_losses(reverse.problem, reverse.config, "full", o.epochs)
    found = [
        ss.Claim("batches_beyond_limit", "all", [sum(beyond < 100), sum(beyond >= 100)]),
        ss.Claim("steepest_over_mean", "all", steepest.max() / top),
        ss.Claim("least_cosine_of_steep_neighbours", "all", cosines.min(initial=1)),
        ss.Claim("usable_lr_sequential", "all", usable),
        ss.Claim("critical_lr_sequential", "all", critical),
        ss.Claim(
            "stop_without_rounding", "SGD reversed", ss.theory.first_below(exact[:, 0], o.epsilon)
        ),
        *(
            ss.Claim("largest_running_loss", arm, run.epochs["running_loss"].max())
            for arm, run in runs.items()
            if run.config.optimizer == "RMSprop"
        ),
    ]
    found += sorted_claims(o, runs["exact"]) + growth_claims(o, runs) + noise_claims(o, runs)
    return found + random_limits(o, runs) + ss.predicted_claims(runs)


def answer(o, runs, claims):
    value = {(c.name, c.arm): c.measured for c in claims}
    stop = {arm: said(run.median_stop, o) for arm, run in runs.items()}
    parts = (
        explosion(o, value, stop),
        orders(o, runs, stop),
        neighbours(o, runs, stop, value),
        labels(o, value, stop),
        limits(runs, value),
        rmsprop(runs, value),
    )
    return "\n\n".join(part for part in parts if part)


def said(epoch, o):
    return f"by epoch {epoch:.0f}" if np.isfinite(epoch) else f"in none of {o.epochs} epochs"


def explosion(o, value, stop):
    first, last = value["batches_beyond_limit", "all"]
    ends = f"""the loss of all the data at the end of an epoch is below {o.epsilon:g}
    {stop["exact"]} (in float64; in float32 {stop["SGD sequential"]})"""
    steep = f"""en neighbouring points can be {value["steepest_over_mean", "all"]:.1f} times as
    steep as the mean"""
    if not first + last:
        return f"""With shuffle=False {ends}. T{steep}, but with lr {o.lr:g} no batch is beyond its
        own stability limit."""
    high, at = value["peak_batch_loss", "exact"]
    return f"""With shuffle=False the running loss of epoch 1 is
    {value["running_loss_epoch_1", "exact"]:.2g}, the loss of its batch {at} {high:.2g}, and yet
    {ends}. T{steep}: {first + last} of the 200 batches are beyond their own stability limit,
    {first} at the start of the epoch and {last} at its end. Consecutive ones push along nearly the
    same direction, so their factors multiply: by up to
    {value["growth_within_epoch", "worst stretch"]:.1e} within an epoch, and
    {value["growth_across_boundary", "worst stretch, across"]:.1e} across its boundary. At the start
    of an epoch the error turns into that direction and grows; at its end it does not lie there, and
    nothing happens (steep_batches.png). {undone(value)}"""


def undone(value):
    if ("rho_sequential", "exact") not in value:
        return ""
    return f"""The rest of the epoch undoes it: from one epoch's start to the next the error shrinks
    to {value["rho_sequential", "exact"]:.4f} of itself, along its slowest direction. The running
    loss records the growth, the loss at the epoch's end does not."""


def orders(o, runs, stop):
    fixed, drawn = runs["SGD strided"].median_stop, runs["SGD shuffle"].median_stop
    alike = np.isfinite(fixed) and fixed <= drawn + 1
    verdict = "The lack of randomness is not the fault. " if alike else ""
    return f"""{verdict}Two things differ between the orders: what lies in a batch, and whether the
    order is drawn. The loss of all the data is below {o.epsilon:g} (of drawn orders the median of
    {o.seeds}), with mixed batches in a fixed order (strided) {stop["SGD strided"]}, drawn (shuffle)
    {stop["SGD shuffle"]}, drawn once {stop["SGD shuffle_once"]}; with neighbours drawn
    (block_shuffle) {stop["SGD block_shuffle"]}, in a fixed order (sequential)
    {stop["SGD sequential"]}."""


def neighbours(o, runs, stop, value):
    rule = [runs[f"{order}, running rule"].median_stop for order in REDRAWN]
    late = "Neighbours cost more than that, also in random order. " if rule[0] < rule[1] else ""
    mixed, blocks = (10 ** law(order, o.lr, o.epochs).mean() for order in REDRAWN)
    once, fixed = (
        value["excess_at_end", f"SGD {order}, noise 1"] for order in ("shuffle_once", "strided")
    )
    return f"""{late}By the notebook's rule, on the running loss, neighbours in random order stop
    {stop["block_shuffle, running rule"]}, mixed batches {stop["shuffle, running rule"]}
    (medians). With label noise 1 the loss in the later half of {o.epochs} epochs is {blocks:.2g}
    above the least one, that of mixed batches {mixed:.2g} (geometric means of 250 orders). There
    the fixed order of mixed batches ends {fixed:.2g} above, one drawn once {once:.2g} (median of
    {o.seeds})."""


def labels(o, value, stop):
    excess = value["excess_at_end", "SGD sequential, noise 1"]
    usable, critical = (value[f"{name}_lr_sequential", "all"] for name in ("usable", "critical"))
    settles = f"With label noise 1 the sorted order ends {excess:.2g} above the least loss"
    if excess > o.epsilon and sum(value["batches_beyond_limit", "all"]):
        settles += f""": the growth within the epoch multiplies the noise. To get below
        {o.epsilon:g} it needs noiseless labels"""
    return f"""{settles}. Even the rounding of the labels is too much for it from a step of
    {usable:.3g} on, where it settles at a loss above {o.epsilon:g}: 3 % under that step it gets
    there {stop["usable"]}, 3 % over it {stop["unusable"]}. The order itself diverges from
    {critical:.3g}. In float32 the rounding of the steps counts too: the reversed order gets there
    {stop["SGD reversed"]}, in exact arithmetic
    {said(value["stop_without_rounding", "SGD reversed"], o)}."""


def limits(runs, value):
    below, above = runs["below zero exponent"], runs["above zero exponent"]
    low, _ = value["growth_of_mean_square", "below zero exponent"]
    n, there = len(below.w), value["converged", "below zero exponent"]
    rare = ": it rests on orders that none of them meets" if there == n else ""
    return f"""Of independent batches the mean of the squared error diverges from a step of
    {value["mean_square_lr_limit", "all"]:.3g}, reshuffled only from a larger one
    (docs/notebook.md): an epoch that has used its steep samples has none left. At
    {below.config.lr:.3g} that mean grows, reshuffled too, by e^{int(low)} an epoch or more, and yet
    {there} of {n} seeds get below {below.config.stop[1]:g} in {below.config.epochs} epochs{rare}.
    At {above.config.lr:.3g} {value["diverged", "above zero exponent"]} of {len(above.w)} diverge:
    between the two, at {above.config.lr / ABOVE:.3g}, the Lyapunov exponent of the random product
    crosses zero."""


def rmsprop(runs, value):
    run, drawn = (runs[f"RMSprop {order}"] for order in ("sequential", "shuffle"))
    most = value["largest_running_loss", "RMSprop sequential"]
    end = run.epochs["full_loss"].iloc[-1]
    stopped = np.isfinite(drawn.converged_epoch).sum()
    how = "stops" if np.isfinite(run.median_stop) else "does not stop"
    return f"""RMSprop's steps do not grow with the gradient: in sorted order its running loss is
    {most:.2g} at most. Under the rule of Exercise 5 it {how} there within {run.config.epochs}
    epochs, at a loss of all the data of {end:.2g}; shuffled, {stopped} of {len(drawn.w)} seeds
    stop."""


def with_noise(runs):
    return {arm: run for arm, run in runs.items() if arm.endswith("noise 1")}


def without_noise(runs):
    names = ("SGD", "RMSprop")
    some = {arm: run for arm, run in runs.items() if arm.startswith(names)}
    return {arm: run for arm, run in some.items() if "noise" not in arm}


def radius(runs):
    """Draw the contraction per epoch over the step size, with what the runs show."""
    measured = {
        arm: (runs[arm].config.lr, runs[arm].contraction())
        for arm in ("exact", "SGD strided", "SGD shuffle")
    }
    usable, critical = step_sizes(runs["exact"].config.stop[1])
    marks = {
        "sorted: usable with these labels": usable,
        "sorted: critical": critical,
        "full batch: limit": ss.theory.lr_limit(batches()[0]),
    }
    orders = {order: batches(order)[1] for order in ("sequential", "strided", "shuffle")}
    return ss.figures.radius_by_lr(orders, np.linspace(2e-5, 6e-4, 30), measured, marks)


figures = {
    "loss.png": lambda runs: ss.figures.loss_by_epoch(without_noise(runs)),
    "loss_with_noise.png": lambda runs: ss.figures.loss_by_epoch(with_noise(runs)),
    "first_epoch.png": lambda runs: ss.figures.within_epoch(without_noise(runs)),
    "steep_batches.png": lambda runs: ss.figures.steep_batches(runs["exact"]),
    "cockpit.png": lambda runs: ss.figures.cockpit(runs["exact"]),
    "radius.png": radius,
    "path.png": lambda runs: ss.figures.path(
        {arm: runs[f"SGD {arm}"] for arm in ("sequential", "strided", "shuffle")}, 0, 2, epochs=1
    ),
}
ask = {
    ("stop_epoch", "SGD shuffle"): "At which epoch is the full loss below 0.1, shuffled?",
    ("stop_epoch", "SGD sequential"): "And with shuffle=False?",
    ("stop_epoch", "SGD strided"): "And in a fixed order whose batches are spread over the curve?",
    ("running_loss_epoch_1", "exact"): "With shuffle=False, the running loss of epoch 1?",
}
STUDY = ss.Study(__file__, __doc__, Options, arms, claims, answer, figures, ask=ask)

if __name__ == "__main__":
    STUDY.main()
