"""What theory expects of an arm, before it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice

import numpy as np
import torch

from sgdstudy import theory
from sgdstudy.problems.data import DTYPES
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe import orders
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.theory.follow import FIXED_ORDERS, epoch_ends, work
from sgdstudy.theory.medians import median
from sgdstudy.theory.rounding import Rounding, growth_rounding

RANDOM_ORDERS = ("shuffle", "with_replacement")
MOST_WORK = 1e9  # nanoseconds, about, that the orders of an arm's seeds are followed
SWEEP_WORK = 2e6  # the same of one of the thousand runs of a sweep
WITHIN = "_tolerance"  # ends the name of what a prediction may be off by


def predict(problem: Problem, config: TrainConfig, most: float = MOST_WORK) -> dict[str, float]:
    r"""Return what is expected of a configuration, by name; nothing where theory has nothing.

    Theory speaks of plain gradient steps (`notebook`, `SGD` without options or schedule) on least
    squares, of every seed from where it starts:

    - full batch within the limit: `stop_epoch`, `distance_at_stop`, in closed form; beyond it
      `growth_per_epoch`, \((1 - \mathrm{lr}\,\lambda_{max})^2\);
    - mini-batches in an order known before the run: the same two, from the seeds' own orders,
      followed in float64; in a fixed one `rho`, the contraction from one epoch's end to the next.

    `stop_epoch` and `distance_at_stop` are medians over the seeds, as `result/` has them, with
    `stop_epoch_p10` and `stop_epoch_p90` of several. `<name>_tolerance` is what rounding may
    change of a prediction. Where it may change more than one epoch, or where the orders take too
    long to follow, nothing is predicted.

    Args:
        most: the nanoseconds, about, that the orders may be followed.
    """
    problem = problem.to(DTYPES[config.dtype], "cpu") if config.dtype == "float32" else problem
    ls, by_epochs = problem.least_squares, config.by_epochs(problem.d)
    if ls is None or not config.steps_are_plain or by_epochs is None:
        return {}
    config = by_epochs
    rule = config.simple_stop and config.simple_stop[0]
    if config.batch_size is None:
        if config.lr >= theory.lr_limit(ls):
            return _growth(problem, config, ls)
        known = rule in ("running", "last_batch", "full")
        return _summary(_descents(problem, config, ls), config) if known else {}
    if not order_is_known(problem, config) or callable(config.order):
        return {}
    found = {}
    if config.order in FIXED_ORDERS:
        found["rho"] = theory.spectral_radius(theory.batches(problem, config), config.lr)
    if rule in ("running", "full"):
        seeds = _followed(problem, config, ls, most)
        found |= {} if seeds is None else _summary(seeds, config)
    return found


@dataclass(frozen=True)
class _Seeds:
    """What is expected of R seeds, and between what bounds rounding leaves it, `(3, R)` each.

    Attributes:
        stop: the epochs at which they stop: expected, earliest, latest.
        distance: to the true parameters at the end: expected, least, largest; None: not known.
    """

    stop: np.ndarray
    distance: np.ndarray | None


def _summary(seeds: _Seeds, config: TrainConfig) -> dict[str, float]:
    """Return the medians over the seeds, and by how much rounding may move them."""
    stop, first, last = map(median, seeds.stop)
    tolerance = max(_apart(stop, first), _apart(last, stop))
    if tolerance > 1:
        return {}
    found = {"stop_epoch": stop, f"stop_epoch{WITHIN}": tolerance}
    if len(config.seeds) > 1:
        for name, q in (("stop_epoch_p10", 0.1), ("stop_epoch_p90", 0.9)):
            found[name] = float(np.quantile(seeds.stop[0], q, method="inverted_cdf"))
    if np.isfinite(stop) and seeds.distance is not None:
        middle, least, most = map(median, seeds.distance)
        found["distance_at_stop"] = middle
        found[f"distance_at_stop{WITHIN}"] = max(middle - least, most - middle)
    return {name: value for name, value in found.items() if not np.isnan(value)}


def _apart(high: float, low: float) -> float:
    return 0.0 if high == low else high - low  # both may be infinite


def _descents(problem: Problem, config: TrainConfig, ls: LeastSquares) -> _Seeds:
    """Return what is expected of full batches, start by start."""
    starts, which = np.unique(_starts(problem, config), axis=0, return_inverse=True)
    rounding = Rounding(ls, config.lr, _eps(problem, config))
    each = [_descent(problem, config, start, rounding) for start in starts]
    stop, distance = (np.array(part).T[:, which.ravel()] for part in zip(*each, strict=True))
    return _Seeds(stop, None if problem.w_true is None else distance)


def _descent(
    problem: Problem, config: TrainConfig, start: np.ndarray, rounding: Rounding
) -> tuple[list[float], list[float]]:
    """Return stop epoch and distance of one start: expected, least, largest."""
    assert config.simple_stop is not None
    (rule, epsilon), ls, lr, epochs = config.simple_stop, rounding.ls, config.lr, config.epochs
    ahead = 0 if rule == "full" else 1  # the loss is read before the update: an epoch later
    first = 1 - ahead

    @cache
    def state(k: int) -> tuple[np.ndarray, np.ndarray]:
        z = (theory.descent_w(ls, start, lr, k) if k else start)[None] - ls.w_star
        variance = rounding.after(np.zeros_like(z), (start - ls.w_star)[None], k, np.ones(1))
        return z, variance + rounding.of_powers(z, k) ** 2

    def surely(k: int, sign: int) -> bool:
        """Whether the loss after k updates is below epsilon (+1), or not (-1), however rounded."""
        z, variance = state(k)
        loss = ls.loss(ls.w_star + z)
        off = rounding.of_loss(variance, z)
        off = off if rule == "full" else off + rounding.of_seen(loss + off)
        return bool(loss + off < epsilon) if sign > 0 else bool(loss - off >= epsilon)

    def ends(k: float) -> float:
        return k + ahead if k + ahead <= epochs else np.inf

    k = max(first, theory.descent_stop(ls, start, lr, epsilon) - 1)
    if k + ahead > epochs:
        low = np.inf if surely(epochs - ahead, -1) else 1.0
        stops = [np.inf, low, np.inf]
    else:
        low = next((j for j in (k, k - 1) if j <= first or surely(int(j) - 1, -1)), -np.inf)
        high = next((j for j in (k, k + 1) if surely(int(j), 1)), np.inf)
        stops = [ends(k), ends(low), ends(high)]
    if problem.w_true is None:
        return stops, [np.nan] * 3
    at = [int(min(max(n, 1), epochs)) for n in stops]
    off = [_length(rounding, *reversed(state(n))) for n in at]
    seen = [_distance(problem, ls.w_star + state(n)[0], n)[0] for n in at]
    return stops, [seen[0], min(seen) - max(off), max(seen) + max(off)]


def _length(rounding: Rounding, variance: np.ndarray, z: np.ndarray) -> float:
    return float(np.linalg.norm(rounding.of_w(variance, z))) + rounding.of_minimiser


def _distance(problem: Problem, w: np.ndarray, steps: int) -> np.ndarray:
    """Return the distance of parameters `(R, p)` to the true ones after so many steps."""
    true = problem.true_at(np.array([steps]))
    assert true is not None
    return np.linalg.norm(w - true, axis=1)


def _followed(
    problem: Problem, config: TrainConfig, ls: LeastSquares, most: float
) -> _Seeds | None:
    """Return what is expected of the seeds' own orders; None where they take too long to follow."""
    assert config.simple_stop is not None
    epsilon, m = config.simple_stop[1], len(config.batch_sizes(problem.d))
    most_epochs = int(min(config.epochs, most / work(problem, config)))
    stop, true, paths = np.full((3, len(config.seeds)), np.inf), problem.w_true is not None, []
    for epoch, now in enumerate(islice(_epochs(problem, config, ls), most_epochs), 1):
        near = (~(now.value - now.off >= epsilon), now.value + now.off < epsilon)
        below = np.array([now.value < epsilon, *near]) & ~now.dead
        stop = np.where(below & np.isinf(stop), epoch, stop)
        if true:
            paths.append((_distance(problem, ls.w_star + now.z, epoch * m), now.off_w))
        if (np.isfinite(stop[2]) | now.dead).all() or epoch == config.epochs:
            along = (np.array(part) for part in zip(*paths, strict=True))
            return _Seeds(stop, _at_the_end(stop, now.dead, *along) if true else None)
    return None


@dataclass(frozen=True)
class _Epoch:
    """An epoch's end, of R seeds: what the stop rule looks at, and how far rounding may move it."""

    value: np.ndarray  # (R,)
    off: np.ndarray  # (R,)
    z: np.ndarray  # (R, p), the parameters less w*
    off_w: np.ndarray  # (R,)
    dead: np.ndarray  # (R,), whether the seed has diverged


def _epochs(problem: Problem, config: TrainConfig, ls: LeastSquares) -> Iterator[_Epoch]:
    assert config.stop is not None
    starts, running = _starts(problem, config), config.stop[0] == "running"
    rounding, sizes = Rounding(ls, config.lr, _eps(problem, config)), config.batch_sizes(problem.d)
    m, more = len(sizes), rounding.of_a_batch(sizes[0])
    # a mean of squares is a sum first
    largest = float(torch.finfo(run_dtype(problem, config)).max) / len(ls.residual)
    z, variance = starts - ls.w_star, np.zeros_like(starts)
    dead = np.zeros(len(starts), bool)
    for epoch, ends in enumerate(epoch_ends(problem, config, ls, starts), 1):
        # our own map of an epoch is a product of m; a fixed order repeats its rounding
        own = epoch * m * float(np.finfo(float).eps)
        with np.errstate(all="ignore"):  # of seeds that diverge
            least, off = ls.loss(ls.w_star + z), rounding.of_loss(variance, z)
            variance, z = rounding.after(variance, z, m, more * ends.growth), ends.z
            value, off = ls.loss(ls.w_star + z), np.maximum(off, rounding.of_loss(variance, z))
            if running:  # as far off, in proportion, as the loss of all the data meanwhile
                off = off * np.maximum(1, ends.running / np.minimum(least, value))
                value, off = ends.running, off + rounding.of_seen(ends.running + off)
            off_w = np.linalg.norm(rounding.of_w(variance, z), axis=1)
            off_w = off_w + own * np.linalg.norm(z, axis=1) + rounding.of_minimiser
            dead = dead | ~(ends.running < largest)
            yield _Epoch(value, off + 2 * own * value, z, off_w, dead)


def followed_losses(
    problem: Problem, config: TrainConfig, rule: str, epochs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a loss by epoch and seed, of the seeds' own orders, and its rounding: `(E, R)` each.

    From their steps in float64; by the second at most may rounding move the run's. Infinite from
    the epoch on in which a seed's loss is no number of the run's dtype any more.

    Args:
        config: plain steps of SGD, in an order that is known before the run.
        rule: `running` or `full`: which loss.
        epochs: how many.

    Raises:
        InputError: the loss is not `mse`, or the model not linear in w.
    """
    config = replace(config, stop=(rule, 1.0), patience=1)  # any epsilon: nothing stops here
    each = islice(_epochs(problem, config, theory.moments(problem)), epochs)
    value, off = zip(
        *((np.where(now.dead, np.inf, now.value), now.off) for now in each), strict=True
    )
    return np.array(value), np.array(off)


def _at_the_end(
    stop: np.ndarray, dead: np.ndarray, distance: np.ndarray, off: np.ndarray
) -> np.ndarray:
    """Return the distance where seeds end: expected, least, largest; `(3, R)`.

    Args:
        stop: the epochs at which they stop, see `_Seeds`.
        dead: those that diverge, `(R,)`.
        distance: after every epoch, `(E, R)`.
        off: by how much rounding may change it, `(E, R)`.
    """
    last = np.minimum(stop, len(distance)).astype(int) - 1
    seen, may = np.take_along_axis(distance, last, 0), np.take_along_axis(off, last, 0)
    found = np.array([seen[0], (seen - may).min(0), (seen + may).max(0)])
    return np.where(dead, np.inf, found)


def expected_losses(problem: Problem, config: TrainConfig) -> dict[str, np.ndarray]:
    """Return the expected `running_loss` and `full_loss` by epoch, `(epochs,)` each.

    Of full batches in closed form, of fixed orders from their own steps, of random orders the
    mean over independent batches; nothing where theory has nothing, or the mean is infinite.
    """
    ls, by_epochs = problem.least_squares, config.by_epochs(problem.d)
    if not config.steps_are_plain or ls is None or by_epochs is None:
        return {}
    config = by_epochs
    start, epochs = _starts(problem, config)[0], config.epochs
    if config.batch_size is None:
        losses = theory.descent_loss(ls, start, config.lr, np.arange(epochs + 1))
        both = (losses[:-1], losses[1:])
    elif config.order in FIXED_ORDERS:
        b = theory.batches(problem, config)
        both = theory.fixed_order_losses(ls, b, start, config.lr, epochs)
    elif config.drops(problem.d) and config.order in RANDOM_ORDERS:
        return {}  # theory has every sample in an epoch
    elif config.order in RANDOM_ORDERS and len(ls.w_star) <= theory.MOST_PARAMETERS:
        size, twice = config.batch_sizes(problem.d)[0], config.order == "with_replacement"
        if not theory.mean_square_radius(ls, problem.d, size, config.lr, twice) < 1:
            return {}  # the mean of the loss diverges while most paths converge
        both = theory.expected_losses(ls, start, problem.d, size, config.lr, epochs, twice)
    else:
        return {}
    return dict(zip(("running_loss", "full_loss"), both, strict=True))


def order_is_known(problem: Problem, config: TrainConfig) -> bool:
    """Whether theory can follow the very steps of a configuration's seeds."""
    fixed = config.batch_size is not None and orders.is_known(config.order)
    fixed = fixed and config.by_epochs(problem.d) is not None
    return config.steps_are_plain and problem.least_squares is not None and fixed


def known_order(
    problem: Problem, config: TrainConfig, epochs: int, off: float = 0.0
) -> theory.OrderLosses:
    """Return the losses of the first seed's own order, from its steps in float64.

    Args:
        problem: least squares.
        config: plain steps, in an order that is known ahead.
        epochs: how many.
        off: by which share of its terms each residual is rounded, to a side drawn at random.

    Raises:
        InputError: the loss is not `mse`, or the model not linear in w.
    """
    ls = theory.moments(problem)
    if off:
        side = np.random.default_rng(len(ls.residual)).choice([-1, 1], len(ls.residual))
        ls = replace(ls, residual=ls.residual + off * side * ls.terms)
    order = theory.batches_by_epoch(problem, config, ls)
    return theory.order_losses(ls, _starts(problem, config)[0], config.lr, islice(order, epochs))


def _starts(problem: Problem, config: TrainConfig) -> np.ndarray:
    return problem.initial(list(config.seeds)).double().cpu().numpy()


def run_dtype(problem: Problem, config: TrainConfig) -> torch.dtype:
    """Return the dtype that a run computes in: its own, or the problem's."""
    return problem.dtype if config.dtype is None else DTYPES[config.dtype]


def _eps(problem: Problem, config: TrainConfig) -> float:
    """Return the relative rounding of the run, and of theory's own float64."""
    return float(torch.finfo(run_dtype(problem, config)).eps + np.finfo(float).eps)


def _growth(problem: Problem, config: TrainConfig, ls: LeastSquares) -> dict[str, float]:
    """Return the growth of the loss beyond the limit, where the run is long enough to see it.

    It is read off the last losses that are finite.
    """
    stop = config.simple_stop
    if config.stop != stop:
        return {}  # it may stop first
    start, epsilon = _starts(problem, config)[0], stop[1] if stop else 0.0
    k = np.unique(np.geomspace(1, max(1, config.epochs - 1), 500).astype(int))
    with np.errstate(over="ignore"):
        sums = theory.descent_loss(ls, start, config.lr, k) * len(ls.residual)
    k = k[sums < float(torch.finfo(run_dtype(problem, config)).max)]
    if len(k) == 0 or config.epochs < 2:
        return {}
    before, last = (theory.descent_loss(ls, start, config.lr, j) for j in (k - 1, k))
    law, pull = theory.growth_per_epoch(ls, config.lr), config.lr * theory.eigenvalues(ls)[-1]
    tolerance = float(law * growth_rounding(pull, _eps(problem, config)))
    if abs(last[-1] / before[-1] - law) > tolerance / 2 or last.min() < 2 * epsilon:
        return {}  # it may stop first
    return {"growth_per_epoch": law, f"growth_per_epoch{WITHIN}": tolerance}
