"""Expected losses when step or batch size change on the way, of averages, and of Polyak's step.

A step is z -> (I - lr H_b) z - lr g_b, z = w - w*. What it does to E[z z^T], E[z] and 1 is a
polynomial of degree two in lr, so that any step sizes known before the run cost a product with a
small matrix each.
"""

from __future__ import annotations

import numpy as np

from sgdstudy.errors import InputError
from sgdstudy.problems.least_squares import LeastSquares, from_features
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.recipe.orders import batch_sizes
from sgdstudy.theory.batch_vs_full import gradients
from sgdstudy.theory.checked import step_rates, whole_sizes
from sgdstudy.theory.random_order import moments_along, unbounded


def scheduled_losses(
    ls: LeastSquares,
    w0: np.ndarray,
    d: int,
    batch_size: int,
    rates: np.ndarray,
    replacement: bool = False,
) -> np.ndarray:
    """Return the expected loss before the first step and after every one, `(S + 1,)`.

    E[L(w_t)] = L* + tr(H C_t) / 2 with C_{t+1} = T(lr_t) C_t + lr_t^2 share S, for independent
    batches (`step_moments`).

    Args:
        rates: step size of every step `(S,)`, as `config.rates(d)(np.arange(S))`.

    Raises:
        InputError: step sizes that are no numbers of at least 0, in a row; too many parameters.
    """
    rates = step_rates(rates)
    return resized_losses(ls, w0, d, _sizes(d, batch_size, len(rates)), rates, replacement)


def resized_losses(
    ls: LeastSquares,
    w0: np.ndarray,
    d: int,
    sizes: np.ndarray,
    rates: np.ndarray,
    replacement: bool = False,
) -> np.ndarray:
    """Return the expected loss before the first step and after every one, `(S + 1,)`.

    As `scheduled_losses`, where the batch size changes too: share is that of the step's own size.

    Args:
        sizes: samples of every step `(S,)`, as `config.phases(d).sizes_of_steps()`.
        rates: step size of every step `(S,)`.

    Raises:
        InputError: sizes that are no whole numbers from 1 to d, one a step; see `scheduled_losses`.
    """
    rates = step_rates(rates)
    found = whole_sizes(sizes, d, len(rates))
    z0 = np.asarray(w0, dtype=float) - ls.w_star
    _, second = moments_along(ls, z0, d, found, rates, replacement)
    with np.errstate(over="ignore", invalid="ignore"):
        return unbounded(ls.least_loss + second @ ls.hessian.ravel() / 2)


def _sizes(d: int, batch_size: int, n: int) -> np.ndarray:
    """Return the samples of n steps, the first of which begins an epoch."""
    return np.resize(batch_sizes("shuffle", d, batch_size), n)


def averaged_losses(
    ls: LeastSquares,
    w0: np.ndarray,
    d: int,
    batch_size: int,
    rates: np.ndarray,
    replacement: bool = False,
    skipped: int | None = None,
) -> np.ndarray:
    """Return the expected loss at the mean of the parameters so far, `(S + 1,)`.

    With s the sum of the z that count, E[s' s'^T] = E[s s^T] + E[z' s^T] + E[s z'^T] + E[z' z'^T]
    and E[z' s^T] = (I - lr H) E[z s^T]: the gradients at w* have mean zero and, where batches are
    independent, know nothing of the past. Until the first counts, the parameters are their own
    mean.

    Args:
        ls, w0, d, batch_size, rates, replacement: see `scheduled_losses`.
        skipped: steps whose results do not count; None: all count (Polyak, Ruppert).
    """
    z0, rates = np.asarray(w0, dtype=float) - ls.w_star, step_rates(rates)
    sizes = _sizes(d, batch_size, len(rates))
    _, second = moments_along(ls, z0, d, sizes, rates, replacement)
    p, h = len(z0), ls.hessian
    with_sum, of_sum = np.zeros((p, p)), np.zeros((p, p))  # E[z s^T], E[s s^T]
    with np.errstate(over="ignore", invalid="ignore"):  # of a path that diverges
        found, first = second @ h.ravel() / 2, skipped or 0
        for t in range(first, len(rates)):
            here = second[t + 1].reshape(p, p)
            moved = with_sum - rates[t] * h @ with_sum
            of_sum = of_sum + moved + moved.T + here
            with_sum = moved + here
            found[t + 1] = (h * of_sum).sum() / (2 * (t + 1 - first) ** 2)
        return unbounded(ls.least_loss + found)


def averaged_excess_law(ls: LeastSquares, d: int, n: float) -> float:
    """Return the excess loss at the mean of the parameters after n samples, for large n, small lr.

    tr(H^-1 S) / (2 n), S the covariance of the samples' gradients at w*: the step size is not in
    it, nor the batch size (Ruppert 1988; Polyak, Juditsky 1992). A constant step adds a part of
    lr over its mean-square limit, as the gradients are noisier away from w*.
    """
    ls = ls.within
    g = gradients(ls, ls.w_star, d)
    return float(np.trace(np.linalg.solve(ls.hessian, g.T @ g / d)) / (2 * n))


def projected(ls: LeastSquares) -> LeastSquares:
    """Return the problem on which a step of SGD with lr = 1/2 is a projection of `ls`.

    Polyak's step with c = 1/2 on one sample, w - (r / |phi|^2) phi, solves the sample's equation
    (Kaczmarz; Strohmer, Vershynin 2009; Loizou et al. 2021). On rows scaled to |phi| = 1 that is
    the plain step of size 1/2, whose minimiser is the one that weights a sample by 1 / |phi|^2.

    Raises:
        InputError: samples of several outputs, whose equations one step does not all solve.
    """
    if ls.outputs > 1:
        raise InputError(
            f"Polyak's step projects where a sample has one output; these have {ls.outputs}"
        )
    length = np.linalg.norm(ls.features, axis=1)
    scale = 1 / np.where(length > 0, length, 1)  # no gradient: the step stays
    rows = scale[:, None] * ls.features
    return from_features(rows, rows @ ls.w_star - scale * ls.residual)


def is_projection(config: TrainConfig) -> bool:
    """Whether every step is Polyak's with c = 1/2 on one sample: a projection (`projected`)."""
    known = config.optimizer == "polyak" and dict(config.options) == {"c": 0.5}
    stays = config.schedule is None and not config.batch_schedule and not config.clips
    return known and config.batch_size == 1 and stays


def polyak_losses(ls: LeastSquares, w0: np.ndarray, d: int, n_steps: int) -> np.ndarray:
    """Return the expected loss under Polyak's step with c = 1/2, `(n_steps + 1,)`.

    For single samples of one output each, drawn independently, least loss 0 and no largest step.
    From the moments on `projected(ls)`, about its own minimiser.

    Raises:
        InputError: samples of several outputs.
    """
    other = projected(ls)
    shift = other.w_star - ls.w_star
    z0, half = np.asarray(w0, dtype=float) - other.w_star, np.full(n_steps, 0.5)
    mean, second = moments_along(other, z0, d, np.ones(n_steps, dtype=int), half, True)
    h = ls.hessian  # lr = 1/2 of unit rows never diverges
    excess = second @ h.ravel() / 2 + mean @ h @ shift + shift @ h @ shift / 2
    return ls.least_loss + excess
