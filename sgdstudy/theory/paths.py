"""What single paths of SGD do: when they overflow, and whether almost all of them converge."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from sgdstudy.errors import InputError
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.problems.problem import Problem
from sgdstudy.problems.ready_made import linear
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.recipe.orders import batch_sizes
from sgdstudy.theory.descent import moments
from sgdstudy.theory.order_batches import indices_by_epoch
from sgdstudy.theory.step_sizes import is_projection, projected

MIXED = 5  # e-foldings after which a path has forgotten the direction that it started in
MOST_MIXING = 20_000  # steps waited for that
ROUNDING = 1e-12  # of an exponent
PRODUCTS = {"epochs": 60, "replicas": 64}  # what an exponent is estimated from beside a run
SIDE = 0.03  # share of the other directions in that start


def first_overflow(problem: Problem, config: TrainConfig, most: int = 100) -> np.ndarray:
    """Return, seed by seed, the step (from 1) of the first batch loss that overflows, `(R,)`.

    The linear recursion w -> w - lr g_b of the seed's own order, in float64; a loss overflows when
    its sum of squares exceeds the largest number of the run's dtype, or its gradient does. Infinite
    where none does within `most` steps, or within the run; stop rules are not looked at.

    Raises:
        InputError: another optimiser than `notebook` or `SGD` without options; no least squares.
    """
    if not config.plain:
        raise InputError(
            "first_overflow follows plain steps w - lr g: optimizer 'notebook', or 'SGD' without "
            "options"
        )
    ls, dtype = moments(problem), config.dtype
    limit = torch.finfo(problem.dtype if dtype is None else getattr(torch, dtype)).max
    most = min(most, config.n_steps(problem.d))
    rates = np.asarray(config.rates(problem.d)(np.arange(most)), dtype=float)
    found = [_overflow(problem, config, ls, seed, rates, limit) for seed in config.seeds]
    return np.array(found)


@np.errstate(over="ignore", invalid="ignore")
def _overflow(
    problem: Problem,
    config: TrainConfig,
    ls: LeastSquares,
    seed: int,
    rates: np.ndarray,
    limit: float,
) -> float:
    features = ls.features.reshape(problem.d, -1, ls.features.shape[1])
    residual = ls.residual.reshape(problem.d, -1)
    z = problem.initial([seed])[0].double().cpu().numpy() - ls.w_star
    batches = (part for epoch in indices_by_epoch(problem, config, seed) for part in epoch)
    for step, (lr, part) in enumerate(zip(rates, batches, strict=False)):
        phi = features[part].reshape(-1, len(z))
        error = phi @ z + residual[part].ravel()
        gradient = 2 / len(error) * phi.T @ error
        if not (error @ error <= limit and np.abs(gradient).max() <= limit):
            return step + 1.0
        z = z - lr * gradient
    return np.inf


def lyapunov(
    problem: Problem,
    batch_size: int,
    lr: float,
    epochs: int = 6,
    replicas: int = 64,
    replacement: bool = False,
    momentum: float = 0.0,
) -> float:
    """Return the top Lyapunov exponent per step of random batches, estimated by products.

    The growth of log|z| under z -> (I - lr H_b) z, over `replicas` long products, in the directions
    in which the loss changes. Almost every path converges, noise aside, if and only if the exponent
    is below 0; the mean square may still diverge (`mean_square_lr_limit`). Batches are reshuffled
    every epoch, the smaller last one included, or drawn with replacement. With momentum, of
    (z, lr momentum v). Minus infinity where a step may end exactly at the minimum.

    A path starts near the slowest direction of the mean map, and as many steps are left out as
    that map needs to tell it from the next, one epoch at least and `MOST_MIXING` steps at most; as
    many are then averaged, or `epochs` - 1 epochs if that is more. With n of them a start that has
    not mixed shifts the exponent by about 1 / n. With all the data in a batch it is exact.

    Raises:
        InputError: the loss is not `mse`, or the model not linear in w.
    """
    ls, d = moments(problem).within, problem.d
    rates, start = _mean_rates(ls, lr, momentum)
    if batch_size == d and not replacement:
        return float(rates[0])
    sizes = batch_sizes("shuffle", d, batch_size)
    burn = -(-_mixing_steps(rates) // len(sizes))
    measured = max(epochs - 1, burn)
    phi = ls.features.reshape(d, -1, len(start))
    z, generator, total = np.tile(start, (replicas, 1)), np.random.default_rng(0), 0.0
    moved = np.zeros_like(z)
    for epoch in range(burn + measured):
        order = (
            generator.integers(d, size=(replicas, d))
            if replacement
            else generator.permuted(np.tile(np.arange(d), (replicas, 1)), axis=1)
        )
        for first, end in pairwise(np.cumsum([0, *sizes])):
            rows = phi[order[:, first:end]].reshape(replicas, -1, z.shape[1])
            error = np.einsum("rnp,rp->rn", rows, z)
            slope = 2 / rows.shape[1] * np.einsum("rnp,rn->rp", rows, error)
            moved = momentum * moved - lr * slope
            z = z + moved
            both = np.concatenate([z, momentum * moved], axis=1)
            length = np.linalg.norm(both, axis=1, keepdims=True)
            if not length.all():
                return -np.inf
            z, moved = z / length, moved / length
            total += float(np.log(length).mean()) if epoch >= burn else 0.0
    return total / (measured * len(sizes))


def log_rate(problem: Problem, config: TrainConfig) -> float:
    """Return how log|w - w*| changes per step on almost every path of a configuration.

    The Lyapunov exponent of its steps, noise at the minimum aside: of plain steps, or of Polyak's
    with c = 1/2 on single samples, which are plain ones of `projected`. Estimated from `PRODUCTS`.

    Raises:
        InputError: other steps, or batches that are not drawn at random.
    """
    size, twice = config.batch_sizes(problem.d)[0], config.order == "with_replacement"
    plain = config.steps_are_plain
    if config.order not in ("shuffle", "with_replacement") or not (plain or is_projection(config)):
        raise InputError(
            "a rate of almost every path is known of plain steps, or of Polyak's with c = 1/2 on "
            "single samples, the order 'shuffle' or 'with_replacement'"
        )
    if plain:
        return lyapunov(problem, size, config.lr, replacement=twice, **PRODUCTS)
    rows = projected(moments(problem))
    y = rows.features @ rows.w_star
    known = Problem(rows.features, y, linear, w_init=np.zeros(problem.p))
    return lyapunov(known, 1, 0.5, replacement=twice, **PRODUCTS)


def _mean_rates(ls: LeastSquares, lr: float, momentum: float) -> tuple[np.ndarray, np.ndarray]:
    """Return log|eigenvalue| of the mean map, largest first, and a start near the first's vector.

    Where `momentum` is not 0, of (z, v), two for every direction.
    """
    spectrum, vectors = ls.modes
    grown = (1 - lr * spectrum)[:, None]
    if momentum:  # of the roots of z^2 - (1 + momentum - lr lambda) z + momentum
        middle = (grown + momentum) / 2
        root = np.sqrt(middle.astype(complex) ** 2 - momentum)
        grown = np.concatenate([middle + root, middle - root], axis=1)
    with np.errstate(divide="ignore"):
        rates = np.log(np.abs(grown))
    slowest = rates.max(1)
    weights = np.where(slowest == slowest.max(), 1.0, SIDE)
    return np.sort(rates.ravel())[::-1], vectors @ (weights / np.linalg.norm(weights))


def _mixing_steps(rates: np.ndarray) -> int:
    """Return after how many steps the fastest growing direction outweighs the others."""
    same = 1e-3 * abs(rates[0]) + 1e-12  # a difference as small does not shift the exponent
    others = rates[rates < rates[0] - same]
    if not len(others) or not np.isfinite(rates[0]):
        return 1
    return int(min(MOST_MIXING, np.ceil(MIXED / (rates[0] - others[0]))))


def lyapunov_zero_lr(
    problem: Problem, batch_size: int, low: float, high: float, replacement: bool = False
) -> float:
    """Return the step size where the Lyapunov exponent crosses 0, to one part in a thousand.

    The same random numbers are used for every step size, so that the crossing is one.

    Raises:
        InputError: the exponent is above 0 at `low`, or not above at `high`.
    """
    ends = [lyapunov(problem, batch_size, lr, replacement=replacement) for lr in (low, high)]
    if not ends[0] <= ROUNDING < ends[1]:  # `low` may be the crossing itself
        raise InputError(
            f"the Lyapunov exponent does not cross 0 between lr {low:g} and {high:g}: it is "
            f"{ends[0]:.4g} and {ends[1]:.4g} there"
        )
    while high / low > 1 + 1e-3:
        middle = float(np.sqrt(low * high))
        below = lyapunov(problem, batch_size, middle, replacement=replacement) < 0
        low, high = (middle, high) if below else (low, middle)
    return low
