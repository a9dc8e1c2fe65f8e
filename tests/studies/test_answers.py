"""What the exercises answer under unusual options: no sentence that its data does not bear.

Each exercise runs under option sets that its sentences were not written for. Every sentence said
has a rule here, which looks at the rows and not at the page's claims, or is of those that hold
whatever is measured (definitions, and what is only reported). In both languages the same is said,
with the same numbers.
"""

import re
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from counts import plurals_of_one

import sgdstudy as ss
from sgdstudy import language
from sgdstudy.studies.claims import Claims
from sgdstudy.studies.outcome import Runs
from sgdstudy.studies.scripts import load_study

SETS = {
    "ex1_gradient_descent": [
        {"epochs": 1},
        {"epochs": 3},
        {"epochs": 10},
        {"epochs": 100},
        {"epochs": 300, "epsilon": 5.0},
        {"epochs": 2000, "epsilon": 5.0},
        {"epochs": 400, "epsilon": 1e4},
        {},
    ],
    "ex2_mse_loss": [
        {"epochs": 3},
        {"epochs": 1},
        {"epochs": 200, "lr": 1e-6},
        {"epochs": 300, "lr": 1e-3},
        {"epochs": 500, "epsilon": 3.0},
        {"epochs": 100, "epsilon": 1e4},
        {},
    ],
    "ex3_batches": [
        {"epochs": 1},
        {"batch_size": 2000, "ragged": 1},
        {"batch_size": 2000, "ragged": 2000},
        {"batch_size": 1, "ragged": 1999},
        {"batch_size": 64, "epochs": 2},
        {"batch_size": 1500, "ragged": 2000, "seeds": 4},
        {},
    ],
    "ex4_minibatch": [
        {"seeds": 1, "epochs": 2},
        {"seeds": 4},
        {"seeds": 1},
        {"seeds": 5, "lr": 1e-4},
        {"seeds": 5, "lr": 1e-2, "epochs": 3},
        {"seeds": 5, "lr": 5e-4, "epochs": 20},
        {"seeds": 3, "batch_size": 300, "epochs": 20},
        {"seeds": 2, "batch_size": 2000, "epochs": 3},
        {"seeds": 5, "epsilon": 2.0},
    ],
    "ex5_optimizers": [
        {"seeds": 1, "others": 1, "epochs": 2},
        {"seeds": 1, "others": 1, "epochs": 2, "lr": 0.3},
        {"seeds": 40, "others": 2, "epochs": 30, "lr": 0.1},
        {"seeds": 8, "others": 2, "epochs": 5},
        {"seeds": 16, "others": 2, "lr": 1e-5, "epochs": 10},
        {"seeds": 16, "others": 2, "lr": 2.0, "epochs": 10},
        {"seeds": 64, "others": 3, "epsilon": 1.0},
        {"seeds": 64, "others": 4},
    ],
    "ex6_shuffle": [
        {"seeds": 1, "epochs": 2},
        {"seeds": 1},
        {"seeds": 4, "lr": 1e-4},
        {"seeds": 2, "lr": 1e-6, "epochs": 5},
        {"seeds": 2, "lr": 2.4e-4},
        {"seeds": 2, "lr": 2.6e-4, "epochs": 60},
        {"seeds": 4, "lr": 4e-4, "epochs": 60},
        {"seeds": 1, "lr": 5e-4, "epochs": 2},
        {"seeds": 1, "lr": 1e-3, "epochs": 3},
        {"seeds": 4, "epsilon": 50.0},
        {"seeds": 4, "epsilon": 1e4},
    ],
    "ex7a_loss": [
        {"seeds": 1, "epochs": 1},
        {"seeds": 4, "epochs": 3},
        {"seeds": 4, "divides": 500, "ragged": 7, "epochs": 30},
        {"seeds": 4, "divides": 1, "epochs": 8},
        {"seeds": 2, "divides": 1, "ragged": 3, "epochs": 2},
        {"seeds": 1, "divides": 2000, "ragged": 1999, "epochs": 3},
        {"seeds": 1, "divides": 50, "ragged": 3, "epochs": 120},
        {"seeds": 8},
    ],
    "ex7b_gradient_norm": [
        {"seeds": 1, "epochs": 1},
        {"seeds": 4, "lr": 1e-6, "epochs": 3},
        {"seeds": 2, "lr": 1e-3, "epochs": 3},
        {"seeds": 4, "lr": 1e-2, "epochs": 3},
        {"seeds": 1, "batch_size": 1999, "epochs": 1},
        {"seeds": 4, "batch_size": 1000, "epochs": 3},
        {"seeds": 3, "batch_size": 500, "epochs": 3},
        {"seeds": 4, "batch_size": 7, "epochs": 3},
        {},
    ],
}
TRUE = np.array([0.3, -1.7, 2.5])
CASES = [(page, i) for page, sets in SETS.items() for i in range(len(sets))]


# ---- what is measured, from the rows -----------------------------------------------------------


def by_epoch(run, column, kind="epochs"):
    return run.array(kind, column)


def below(run, column, epsilon):
    """The first epoch `(R,)` at which a column is below epsilon; infinite: none."""
    there = by_epoch(run, column) < epsilon
    epochs = np.arange(1.0, len(there) + 1)[:, None]
    return np.where(there, epochs, np.inf).min(0, initial=np.inf)


def half(stops):
    """The epoch by which half of the seeds stopped; infinite: fewer did."""
    return sorted(stops)[(len(stops) + 1) // 2 - 1]


def running(runs, arm, o):
    return half(below(runs[arm], "running_loss", o.epsilon))


def loss_at(run, w=None):
    """The mean square of all points at some parameters; None: where the run starts."""
    w = run.problem.initial([run.config.seeds[0]])[0] if w is None else w
    return float(((run.problem.model(w, run.problem.x) - run.problem.y) ** 2).mean())


def grows(run):
    loss = by_epoch(run, "running_loss")[:, 0]
    loss = loss[np.isfinite(loss)]
    return len(loss) > 1 and loss[-1] > loss[-2]


def finite(*values):
    return bool(np.isfinite(values).all())


# ---- when a sentence may, and must, be said ------------------------------------------------------
# its beginning -> whether the data bears it


NOTEBOOK = "With the notebook's step of 0.0002 the "
TEXT = "The formula of the text has no square, and is another loss: with it the descent "


def ex1(o, runs):
    stop = {
        arm: running(runs, arm, o) for arm in runs if arm.startswith("lr ") and "fast" not in arm
    }
    sums = {
        arm: half(below(runs[arm], "running_loss", o.epsilon * 2000))
        for arm in runs
        if "sum" in arm
    }
    two, off = stop["lr 2e-4"], np.abs(runs["lr 2e-4"].w[0] - TRUE)
    steps = [stop[f"lr {lr}"] for lr in ("1e-4", "2e-4", "3e-4", "4e-4", "4.9e-4")]
    below_limit = [arm for arm in stop if arm not in ("lr 5.1e-4", "lr 2e-4, float64")]
    tried = [end for _, end in sorted((runs[arm].config.lr, stop[arm]) for arm in below_limit)]
    faster = tried[: tried.index(min(tried)) + 1]
    faster = len(faster) > 1 and finite(faster[0]) and all(b < a for a, b in pairwise(faster))
    halved = finite(steps[0]) and all(
        abs(steps[a] / steps[b] - 2) < 0.02 for a, b in ((0, 1), (1, 3))
    )
    x = runs["lr 2e-4"].problem.x.numpy().astype(float)
    phi = np.stack([x**2, x, x**0], 1)
    law = np.linalg.eigvalsh(2 / len(x) * phi.T @ phi).max()
    too_large = grows(runs["lr 5.1e-4"])
    seen = by_epoch(runs["lr 5.1e-4"], "running_loss")[-2:, 0]
    seen = 2 * 5.1e-4 / (1 + np.sqrt(seen[1] / seen[0])) * law / 2 if too_large else np.nan
    less, best, more = (stop[f"lr best{end}"] for end in (", 0.1 % less", "", ", 0.05 % more"))
    still = runs["float32 floor"].steps[["w0", "w1", "w2"]].to_numpy()
    stands = bool((still[-1] == runs["float32 floor"].w[0]).all())
    divided, undivided = sums["sum, lr 2e-4/d"], grows(runs["sum, lr 2e-4"])
    return {
        NOTEBOOK + "descent stops at epoch {stop}, as": abs(two - 9340) <= 1,
        NOTEBOOK + "descent stops at epoch {n}": finite(two) and abs(two - 9340) > 1,
        NOTEBOOK + "loss is not": not finite(two),
        "The parameters are then still": off[2] > 0.9 * np.linalg.norm(off),
        "A larger step is faster": faster and too_large,
        "A step of 0.00051 is too large": too_large and not faster,
        "Step {lr}: epoch": finite(min(steps)),
        "Step {lr}: not within": not finite(max(steps)),
        "Twice the step, half": halved,
        "With 0.00051 the loss grows; how": too_large and abs(seen - 1) < 1e-5,
        "With 0.00051 the loss grows.": too_large and abs(seen - 1) > 1e-5,
        "With 0.00051 the loss goes from": not too_large,
        "Nearer to it the steep": bool(0.9 < runs["lr best"].config.lr * law / 2 < 1),
        "Tried: it stops at epoch {n}.": finite(best) and best == min(tried),
        "Tried: it stops at epoch {n}, another": finite(best) and best > min(tried),
        "Tried: it does not stop": not finite(best),
        "A step 0.1 % smaller": finite(less, more),
        "With 0.0002/d the sum form does the same": finite(divided) and abs(divided - two) <= 1,
        "With 0.0002/d the sum form stops": finite(divided) and abs(divided - two) > 1,
        "With 0.0002/d the sum form does not": not finite(divided),
        "With 0.0002 undivided": undivided,
        "Left running without a stop rule, with the step {lr}, float32 ends": stands,
        "Left running without a stop rule, with the step {lr}, the last": not stands,
    }


def ex2(o, runs):
    hand, ready, text, near = runs.values()
    columns = ["loss", "grad_norm", "w0", "w1", "w2"]
    same = hand.steps[columns].equals(ready.steps[columns])
    x = ready.problem.x.numpy().astype(float)
    # the least norm of a mean of +-(x^2, x, 1): at most that with all signs the same but at one cut
    signs = np.where(np.abs(x) < np.linspace(0, 10, 2001)[:, None], 1.0, -1.0)
    least = np.linalg.norm(signs @ np.stack([x**2, x, x**0], 1) / len(x), axis=1).min() / 2
    norms = min(text.steps["grad_norm"].min(), near.steps["grad_norm"].min())
    away = np.linalg.norm(near.epochs[["w0", "w1", "w2"]].to_numpy() - TRUE, axis=1)
    first, late = away[0], away[-100:]
    stop, ended = (
        half(below(ready, "running_loss", o.epsilon)),
        text.epochs["running_loss"].to_numpy(),
    )
    lost = not finite(ready.steps["loss"].iloc[-1])
    stopped = bool(ended[-1] < o.epsilon)
    return {
        "Yes: written by hand": same,
        "No: {n} of": not same,
        TEXT + "stops": stopped,
        TEXT + "diverges": not finite(*ended),
        TEXT + "is still": not stopped and finite(*ended),
        "With a step of {lr} both": lost,
        "Both stop at": finite(stop),
        "That is the epoch": abs(stop - 9340) <= 1,
        "Neither is below": not finite(stop) and not lost,
        "So the gradient does not vanish": norms > least,
        "Started {near} away from the solution, this descent leaves": first > 1e-3,
        "Started {near} away from the solution, this descent is": first <= 1e-3,
        "In its last {n} epochs": len(late) > 1 and late.max() > 1.1 * late.min(),
        "At the end of its last": not (len(late) > 1 and late.max() > 1.1 * late.min()),
    }


def ex3(o, runs):
    d = 2000
    sizes = {arm: run.array("steps", "size", epochs=slice(1, 2))[:, 0] for arm, run in runs.items()}
    loss = [runs["shuffle"].array("steps", "loss", epochs=slice(k, k + 1))[:, 0] for k in (1, 2)]
    x = np.sort(runs["sequential"].problem.x.numpy())
    widest = max(x[i : i + o.batch_size][-1] - x[i] for i in range(0, d, o.batch_size))
    anew = len(loss[1]) > 1 and bool((loss[0] != loss[1]).any())
    short = {
        "shuffle": sizes["shuffle"][-1] < o.batch_size,
        "ragged": sizes["ragged"][-1] < o.ragged,
    }
    return {
        "Each of the {d} points": all(sum(one) == d for one in sizes.values()),
        "With shuffle=True the points of a batch": o.batch_size > 1
        and bool(2 * widest < x[-1] - x[0]),
        "Batches of {size} do not divide": any(short.values()),
        "The last one has {last}": any(short.values()),
        "With shuffle=True the order is a random permutation, and a new": anew,
        "With shuffle=True the order is a random permutation.": not anew,
        "The trainer of this project": min(o.batch_size, o.ragged) < d,
    }


def ex4(o, runs):
    run, printed = runs["descent"], runs["eta 0.2"]
    stops = below(run, "running_loss", o.epsilon)
    ends = run.steps.groupby("seed")["loss"].last().to_numpy()
    lost, missed = int(np.sum(~np.isfinite(ends))), int(np.sum(np.isinf(stops)))
    gone = ~np.isfinite(printed.steps.groupby("seed")["loss"].last())
    all_lost, none_lost = bool(gone.all()), not gone.any()
    fits = o.lr == 2e-4 and bool((abs(stops - 48) <= 1).all())
    distance = np.linalg.norm(run.w - TRUE, axis=1).mean()
    one = min(stops) == max(stops)
    return {
        "With a step of {lr} the descent diverges": lost > 0,
        "With a step of {lr} the running loss is not": missed > 0 and not lost,
        "With a step of {lr} the descent stops at epoch": not missed and not lost and one,
        "With a step of {lr} the descent stops between": not missed and not lost and not one,
        "The notebook prints {printed}, and {before}": fits,
        "With the printed eta=0.2 the descent diverges; a": fits and all_lost,
        "A step of 0.0002 gives the printed 48 epochs": fits and all_lost,
        "With the printed eta=0.2 it diverges": all_lost,
        "With the printed eta=0.2 the descent diverges in": not all_lost and not none_lost,
        "With the printed eta=0.2 the loss of all": none_lost,
        "At epoch {epoch} it is": None if lost else True,
        "At the end the parameters are": finite(distance),
        "The notebook prints {printed}, and 0.4525": fits and abs(distance - 0.4525) < 1e-3,
        "It is no accident": None if not all_lost else True,
    }


LUCK = (
    "So luck decides when RMSprop stops: 95 % of the orders do between epochs {low} and {high}, "
    "half of them by epoch {median}"
)
STILL = (
    "Plain SGD, with the step of Exercise 4, is after {epochs} still {distance:.2} away "
    "from the true parameters"
)


def ex5(o, runs):
    run, sgd, n = runs["RMSprop"], runs["SGD"], len(runs["RMSprop"].w)
    stop = {arm: below(one, "last_loss", o.epsilon) for arm, one in runs.items()}
    own = np.sort(stop["RMSprop"])
    left = int(np.isinf(own).sum())
    low, median, high = (own[max(int(np.ceil(n * q)) - 1, 0)] for q in (0.025, 0.5, 0.975))
    near = np.linalg.norm(run.w - TRUE, axis=1)[np.isfinite(stop["RMSprop"])].max(initial=0)
    away = np.median(np.linalg.norm(sgd.w - TRUE, axis=1))
    spread, sgd_never = finite(high) and low < high, not np.isfinite(stop["SGD"]).any()
    rest = {arm: one for arm, one in stop.items() if arm not in ("RMSprop", "SGD")}
    return {
        "RMSprop does not stop within {epochs}": left == n,
        "So luck decides when RMSprop stops: between": spread and n < 40,
        LUCK + "; the": spread and n >= 40 and low <= 23 <= high,
        LUCK + ".": spread and n >= 40 and not low <= 23 <= high,
        "Of {total} orders of RMSprop": 0 < left < n and not spread,
        "RMSprop stops at epoch": left == 0 and not spread,
        "That {epsilon} on ten points": left < n and near < 0.01,
        "The order that stops is within": left < n and near >= 0.01,
        "{share:.0%} of them are within the printed": left < n - 1 and o.epsilon == 1e-7,
        "It is within the printed 0.0001": left == n - 1 and o.epsilon == 1e-7 and near <= 1e-4,
        "It is not within the printed": left == n - 1 and o.epsilon == 1e-7 and near > 1e-4,
        "Between the {n} runs": n > 1,
        "Half of them stop by": finite(median) and n > 1,
        "95 % stop": spread and n >= 40,
        "{n} of the {total} does not stop": left > 0 and n > 1,
        "All of them stop": left == 0 and n > 1,
        "{share:.0%} stop by the printed epoch": o.epochs >= 23 and n > 1,
        "Of those that still run": left < n and n > 1,
        "Plain SGD, with the step of Exercise 4, stops": not sgd_never,
        STILL + "; RMSprop": sgd_never and left < n and near < away,
        STILL + ".": sgd_never and not (left < n and near < away),
        "{arm} (step {lr}): stops": any(finite(half(one)) for one in rest.values()),
        "{arm} (step {lr}): only": any(
            np.isfinite(s).any() and not finite(half(s)) for s in rest.values()
        ),
        "{arm} (step {lr}): does not": any(not np.isfinite(one).any() for one in rest.values()),
        "Why Adam stops": not np.isfinite(stop["AdamW"]).any()
        and 5 * half(stop["Adam"]) <= o.epochs,
    }


ORDERS = ("strided", "shuffle", "shuffle_once", "block_shuffle", "sequential", "reversed")


def ex6(o, runs):
    exact = runs["exact"]
    loss = exact.steps.query("epoch == 1")["loss"].to_numpy()
    start, high, end = loss_at(exact), loss.max(), exact.epochs["full_loss"].iloc[0]
    bursts = not high <= 100 * start
    stop = {
        arm.removeprefix("SGD "): half(below(run, "full_loss", o.epsilon))
        for arm, run in runs.items()
    }
    x = exact.problem.x.numpy().astype(float).reshape(-1, 10)
    phi = np.stack([x**2, x, x**0], -1)
    values, vectors = np.linalg.eigh(2 / 10 * np.einsum("bni,bnj->bij", phi, phi))
    beyond = np.flatnonzero(o.lr * values[:, -1] > 2)
    first, late = int(sum(beyond < 100)), int(sum(beyond >= 100))
    top = vectors[:, :, -1]
    cosines = [abs(top[b] @ top[b + 1]) for b in beyond if b + 1 in beyond]
    w = exact.steps[["w0", "w1", "w2"]].to_numpy() - TRUE
    share = np.abs((w[: len(top)] * top).sum(1)) / np.linalg.norm(w[: len(top)], axis=1)
    flat = bool(
        first and late and share[first - 1] > 0.9 and share[200 - late : 200].max(initial=0) < 0.01
    )
    stretch = np.linalg.norm(runs["worst stretch"].w[0] - TRUE)
    rho = exact.contraction_along()
    several = len(exact.epochs) >= 50
    late_losses = exact.epochs[["running_loss", "full_loss"]].to_numpy()[49] if several else (0, 1)
    strided, shuffle, in_order, block = (
        stop[k] for k in ("strided", "shuffle", "sequential", "block_shuffle")
    )
    innocent = strided <= shuffle + 1 and strided < in_order
    from_right, without = stop["reversed"], ss.expect(runs["SGD reversed"]).stop_without_rounding
    every = [stop[name] for name in ORDERS]
    last = exact.epochs["full_loss"].iloc[-1]
    lost = [
        not np.isfinite(run.steps.groupby("seed")["loss"].last()).any()
        for run in (runs[f"SGD {name}"] for name in ORDERS)
    ]
    return {
        "With shuffle=False the loss explodes within": bursts and end < start,
        "With shuffle=False the loss explodes, up": bursts and not end < start,
        "With shuffle=False and a step of {lr} nothing": not bursts,
        "At the two ends of the curve": bursts and first + late > 1,
        "In epoch 50": several,
        "So the explosion comes again": several
        and late_losses[0] > 100 * late_losses[1]
        and late_losses[1] < start,
        "In float64 the loss of all points is below": finite(stop["exact"]),
        "In float64 the descent diverges in": not finite(exact.steps["loss"].iloc[-1]),
        "In float64 the loss of all points is not below": not finite(stop["exact"])
        and finite(exact.steps["loss"].iloc[-1]),
        "With a step of {lr}, {n} of the": first + late > 0,
        "With a step of {lr}, none of the": first + late == 0,
        "One such batch alone": first + late > 1 and min(cosines, default=1) > 0.99,
        "Together they multiply": stretch > 10,
        "They multiply only the part": flat,
        "From one epoch to the next. Taken": rho < 1,
        "That needs labels without noise": rho < 1 and last < start and bursts,
        "Here they do not": rho < 1 and not last < start,
        "From one epoch to the next the error": rho >= 1,
        "{name}: below": finite(min(every)),
        "{name}: diverges": any(lost),
        "{name}: not below": any(
            not finite(end) and not gone for end, gone in zip(every, lost, strict=True)
        ),
        "(Of drawn orders": o.seeds > 1,
        "Looked at between the epochs, even": finite(block, shuffle)
        and 10 * (block - shuffle) <= shuffle,
        "The lack of randomness is not": finite(strided, shuffle) and innocent,
        "All orders do as well": finite(strided) and strided <= shuffle + 1 and strided == in_order,
        "The explosion multiplies rounding": finite(from_right, without) and from_right != without,
    }


DOCTOR = "“Is it serious, doctor?” (the notebook asks.) "
WAY = (
    "While it trains, the parameters move, and the cost that is added up is that of the way: "
    "{first:.3} times the loss at the end of the "
)


def drift_and_sampling(run, epoch):
    """What separates running and full loss in an epoch of the first seed."""
    rows = run.load(seeds=run.config.seeds[0], epochs=slice(epoch, epoch + 1))
    end = run.load("epochs", seeds=run.config.seeds[0], epochs=slice(epoch, epoch + 1))
    share = rows["size"] / rows["size"].sum()
    drift = (share * (rows["full_loss"] - end["full_loss"].iloc[0])).sum()
    return drift, (share * (rows["loss"] - rows["full_loss"])).sum()


def is_rounding(run):
    """Whether a step size that differs in its last bits has another drift altogether."""
    config = replace(run.config, lr=run.config.lr * (1 + 8 * np.finfo(float).eps))
    other, last = ss.train(run.problem, config=config, progress=False), len(run.epochs)
    pairs = [(drift_and_sampling(run, k)[0], drift_and_sampling(other, k)[0]) for k in (1, last)]
    return any(not abs(a - b) < abs(a) for a, b in pairs)


def ex7a(o, runs):
    run = runs[f"mse, B={o.divides}, moving"]
    stop = {name: below(run, name, 0.1) for name in ("running_loss", "full_loss", "last_loss")}
    with np.errstate(invalid="ignore"):  # neither is ever below
        apart = stop["running_loss"] - stop["full_loss"]
    told = finite(*stop["running_loss"], *stop["full_loss"])
    ratio = np.median(by_epoch(run, "running_loss") / by_epoch(run, "full_loss"), axis=1)
    along = runs["mse, sorted, moving"].epochs.iloc[-1]
    sorted_ratio = along["running_loss"] / along["full_loss"]
    parts = [drift_and_sampling(run, k) for k in (1, len(by_epoch(run, "full_loss")))]
    noise = is_rounding(runs["mse, sorted, moving"])
    return {
        "As long as the parameters stand still": True,
        "Measured, the two differ": True,
        WAY + "first epoch": finite(ratio[0], ratio[-1]) and len(ratio) > 1,
        WAY + "epoch.": finite(ratio[0]) and len(ratio) == 1,
        "In epoch {epoch}, of the first order": any(finite(*one) for one in parts),
        "The difference is drift above": any(
            finite(drift, sampling) and abs(drift) > 2 * abs(sampling) for drift, sampling in parts
        ),
        "As the steps get shorter": bool(ratio[-1] < ratio[0] and abs(ratio[-1] - 1) < 0.1),
        DOCTOR + "That cannot": not told,
        DOCTOR + "No: the running loss is below {epsilon} at epoch": told
        and 0 < np.abs(apart).max() <= 2,
        DOCTOR + "No: the running loss is below {epsilon} at the same": told and not apart.any(),
        "The running loss is below": told and np.abs(apart).max() > 2,
        "The loss of the last batch alone": finite(half(stop["last_loss"]))
        and bool((stop["last_loss"] < stop["full_loss"]).any()),
        "It can be serious": sorted_ratio > 100 and not noise,
        "With shuffle=False the running loss is": finite(sorted_ratio)
        and not sorted_ratio > 100
        and not noise,
        "With shuffle=False the losses are what rounding": noise,
    }


def ex7b(o, runs):
    ratio = {}
    for arm in ("at the start", "on the way", "near the optimum"):
        rows = runs[arm].epochs
        ratio[arm] = np.median(rows["mean_grad_norm"] / rows["full_grad_norm"])
    start, way, near = ratio.values()
    noisy, moving = runs["optimum, noise 1"], runs["moving"].epochs
    full, least = noisy.epochs["full_grad_norm"].median(), noisy.steps["grad_norm"].min()
    still = runs.select("*", without="moving*")
    off = max(  # beside the gradients of the points, whose sums are rounded
        np.abs(run.epochs["norm_mean_grad"] - run.epochs["full_grad_norm"]).max()
        / np.linalg.norm(ss.expect(run).gradients, axis=1).mean()
        for run in still.values()
    )
    apart = "At the start the mean is {start:.6} times as large, near the solution {near:.3} times"
    alike = "At the start the mean is {start:.6} times as large, near the solution {near:.6}"
    return {
        "The norm of the gradient of all": min(ratio.values()) > 1 - 1e-5,
        apart: near > 2 * start,
        alike: near <= 2 * start,
        "The runs that stand still": bool(off <= ss.theory.sum_rounding(2000)),
        "The nearer the solution": start < way < near,
        DOCTOR + "Yes": near > 1.5,
        DOCTOR + "A little": 1.1 <= near <= 1.5,
        DOCTOR + "Not here": near < 1.1,
        "With noisy labels": bool(full < 1e-3 and least > 100 * full),
        "The runs confirm it": 2000 % o.batch_size == 0
        and any(len(run.epochs) for run in runs.select("moving*").values()),
        "While it trains, the mean of the norms": moving["epoch"].nunique() > 1
        and finite(*moving["mean_grad_norm"], *moving["full_grad_norm"]),
        "Estimating it from batches": None,
    }


RULES = dict(zip(SETS, (ex1, ex2, ex3, ex4, ex5, ex6, ex7a, ex7b), strict=True))
# said whatever is measured: what words mean, what the course writes, a number as it is
ALWAYS = {
    "ex1_gradient_descent": [
        "Each step uses all",
        "The limit is 2/λ",
        "No step stops earlier",
        "The text writes the loss as a sum",
        "Where the text and the code differ",
    ],
    "ex2_mse_loss": ["MSELoss takes", "`torch.nn.MSELoss()`", "Without the square"],
    "ex3_batches": [
        "A DataLoader cuts",
        "With batch_size={size} that is one",
        "With shuffle=False it is that",
    ],
    "ex4_minibatch": ["How to add up", "Weighting by", "That costs nothing"],
    "ex5_optimizers": [
        "The descent ends when",
        "In SGD a parameter",
        "In the code of this exercise",
        "The others, each",
    ],
    "ex6_shuffle": [
        "Before the first step",
        "With shuffle=False, followed",
        "Why a batch",
        "Is it the lack",
        "Fixed, each",
        "Drawn anew",
        "Drawn once",
        "Batches of neighbours",
        "From left",
        "From right",
    ],
    "ex7a_loss": [
        "At fixed parameters w",
        "The sum Σ",
        "A plain mean goes",
        "What the triangle",
        "What it does not",
        "While it trains, batch",
    ],
    "ex7b_gradient_norm": [
        "The gradient of a mean",
        "By the triangle",
        "Measured, the right",
        "While it trains, batch",
        "How large does",
    ],
}
WORDS = ("{n} epoch", "{first} and", "infinite", "minus infinite", "undefined")


@cache
def trained(page, i):
    """The study, its options, runs and claims under an option set; nothing is tracked."""
    study = load_study(page)
    options = study.options(**SETS[page][i])
    arms = study.placed_arms(options)
    runs = Runs(
        {
            name: ss.train(arm.problem, config=arm.config, progress=False)
            for name, arm in arms.items()
        }
    )
    return study, options, runs, Claims(study.claimed(options, runs))


@cache
def told(page, i, lang):
    """The answer in short and in full, and what was said: (English text, values)."""
    study, options, runs, claims = trained(page, i)
    heard, say = [], language.say

    def listen(text, many=None, /, **values):
        heard.append((language.plain(text), values))
        return say(text, many, **values)

    with language.speaking(lang), pytest.MonkeyPatch.context() as patch:
        patch.setattr(language, "say", listen)
        short, full = study.answered(options, runs, claims)
    return short, full, heard


@pytest.mark.slow
@pytest.mark.parametrize(("page", "i"), CASES)
def test_a_sentence_is_said_where_the_data_bears_it(page, i):
    _, options, runs, _ = trained(page, i)
    heard = {text for text, _ in told(page, i, "en")[2]}
    rules = RULES[page](options, runs)
    for start, bears in rules.items():
        said = any(text.startswith(start) for text in heard)
        assert bears is None or said == bool(bears), (start, bears)
    known = (*rules, *ALWAYS[page], *WORDS)
    assert [text for text in heard if not text.startswith(known)] == []


@pytest.mark.slow
@pytest.mark.parametrize(("page", "i"), CASES)
def test_no_claim_fails_whatever_the_options(page, i):
    """What theory knows it knows of these options too, or says nothing."""
    claims = [c for c in trained(page, i)[3] if c.always or c.identity]  # the others only describe
    # of so many draws one may be beyond four standard errors: six, which rounding never needs
    wide = [replace(c, tolerance=1.5 * c.tolerance) for c in claims]
    assert [(c.name, c.arm, c.expected, c.measured) for c in wide if c.holds is False] == []
    for claim in claims:
        if claim.kind == "prediction" and isinstance(claim.expected, float) and claim.expected:
            assert claim.tolerance < abs(claim.expected), claim


@pytest.mark.slow
@pytest.mark.parametrize(("page", "i"), CASES)
def test_both_languages_say_the_same_with_the_same_numbers(page, i):
    english, french = (told(page, i, lang) for lang in ("en", "fr"))
    assert [text for text, _ in english[2]] == [text for text, _ in french[2]]
    for one, other in zip(english[:2], french[:2], strict=True):
        assert numbers(one) == numbers(other, ",")
        assert len(one.split("\n\n")) == len(other.split("\n\n"))


@pytest.mark.slow
@pytest.mark.parametrize("lang", ["en", "fr"])
@pytest.mark.parametrize(("page", "i"), CASES)
def test_an_answer_is_in_words_and_the_short_one_is_short(page, i, lang):
    short, full, _ = told(page, i, lang)
    for text in (short, full):
        assert not re.search(
            r"\b(nan|inf|None|True|False)\b|\de[+-]?\d|\{|\}",
            text.replace("=True", "").replace("=False", ""),
        )
        assert all(part[-1] in ".)" for part in text.split("\n\n"))
        assert plurals_of_one(text, lang) == []
    assert 1 <= len(re.findall(r"[.!?](?= |$)", short)) <= 3
    assert not set("λ∇Σ‖ρ") & set(short)


def numbers(text, decimal="."):
    """The numbers of a text, in order of size; those of code, and digits within words, aside."""
    text = re.sub(r"`[^`]*`|\w+=\S+|momentum 0.9", "", text).replace("\u00a0%", "%")
    group = "," if decimal == "." else "\u00a0"
    text = re.sub(rf"(?<=\d){group}(?=\d{{3}}(?!\d))", "", text)
    found = re.findall(rf"(?<![\w.,])\d+(?:{re.escape(decimal)}\d+)?", text)
    return sorted(Fraction(number.replace(decimal, ".")) for number in found)


def test_numbers_are_read_in_both_ways():
    assert numbers("40,000 steps, 0.5 and 1.5·10¹⁰") == numbers(
        "40\u00a0000 pas, 0,5 et 1,5·10¹⁰", ","
    )
    assert numbers("1.5") != numbers("15")
    assert numbers("0.001") == numbers("0,001", ",") != numbers("1")


def test_a_plural_of_one_is_found():
    for text in ("in 1 of 1 random orders", "none of 1 seeds", "1 of 5 seeds stop", "1 epochs"):
        assert plurals_of_one(text, "en"), text
    for text in ("1 ordres sur 4", "1 des 1 graines", "aucun des 1 ordres", "après 1 époques"):
        assert plurals_of_one(text, "fr"), text
    for text in ("batches of 1, 1 of 5 seeds stops", "at 0.1 times", "in 11 epochs", "1 epoch"):
        assert not plurals_of_one(text, "en"), text
    for text in ("dans 1 des 5 ordres", "après 0,1 secondes", "1 époque", "des lots de 1"):
        assert not plurals_of_one(text, "fr"), text
