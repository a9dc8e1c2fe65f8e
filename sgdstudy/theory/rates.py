"""How the error after K epochs falls with K, order by order.

One sample at a time, from the minimiser, lr = time / (d K): n = d steps an epoch, so that every
run takes the same time along the gradient flow, and only noise is left of the start. With
g_i the gradient of sample i at w*, S their covariance and H_i its Hessian, an epoch adds to z

    lr^2 sum_{i before j} H_j g_i + O(lr^3)

because the first order, -lr sum g_i, vanishes. For time * lambda_min >> 1 and K large enough that
time * lambda_max < K, E|z|^2 = sum of constant * K^exponent, z in the directions in which the loss
changes. The exponents are those of
Mishchenko, Khaled, Richtarik (2020), Safran, Shamir (2020) and, for flip-flop, Rajput, Lee,
Papailiopoulos (2022); the constants follow from the sum above.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sgdstudy.errors import InputError, quoted
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.theory.batch_vs_full import gradients
from sgdstudy.theory.checked import permutation
from sgdstudy.theory.medians import jackknife_error
from sgdstudy.theory.random_step import step_moments

Law = Mapping[int, float]  # exponent of K -> constant


def rate_laws(ls: LeastSquares, d: int, time: float) -> dict[str, Law]:
    """Return the law of E|z|^2 after K epochs for every order that draws at random.

    - `with_replacement`: HC + CH = lr S, trace of C.
    - `shuffle`: noise of K^-3, and a bias of K^-2 where residuals go with the features: the mean
      of the sum over pairs is -sum H_i g_i / 2.
    - `shuffle_once`: the sum over pairs never averages out, z = lr / n H^-1 (that sum).
    - `flip_flop`: the sum over pairs of an epoch and of its reverse is no longer random, so
      the same bias is left, and the noise of the next order in lr (leading in d): K^-5.

    Args:
        time: lr d K.
    """
    ls = ls.within
    h, unit = ls.hessian, time / d
    hessians, g = _samples(ls, d)
    s = g.T @ g / d
    pairs, mean = _pair_sum(hessians, g, h)
    bias = float(np.sum(np.linalg.solve(h, unit / d * mean) ** 2))
    both = np.linalg.solve(h, np.linalg.solve(h, pairs + np.outer(mean, mean)).T)
    reversed_ = 4 / 45 * d**5 * h @ h @ s @ h @ h  # 4 / 45: variance of (t - 1)^2, t in (0, 1)
    return {
        "with_replacement": {-1: unit * _settled(h, s)},
        "shuffle": {-3: unit**3 / d * _settled(h, pairs), -2: bias},
        "shuffle_once": {-2: unit**2 / d**2 * float(np.trace(both))},
        "flip_flop": {-5: unit**5 / (2 * d) * _settled(h, reversed_), -2: bias},
    }


def fixed_order_law(ls: LeastSquares, order: np.ndarray, time: float) -> Law:
    """Return the law of |z|^2 after K epochs that all visit the samples in `order` `(d,)`.

    Raises:
        InputError: an order that does not hold every sample once.
    """
    ls, order = ls.within, permutation(order, len(ls.residual) // ls.outputs)
    hessians, g = _samples(ls, len(order))
    before = np.cumsum(g[order], axis=0) - g[order]
    pairs = np.einsum("ipq,iq->p", hessians[order], before)
    z = np.linalg.solve(ls.hessian, time / len(order) ** 2 * pairs)
    return {-2: float(z @ z)}


def reshuffling_bias(ls: LeastSquares, d: int, lr: float) -> np.ndarray:
    """Return the mean of z `(p,)` that shuffling leaves, -lr / (2 d) H^-1 sum H_i g_i.

    Of the leading order in lr, single samples: the `shuffle` law's part of K^-2.
    """
    inner = ls.within
    hessians, g = _samples(inner, d)
    z = np.linalg.solve(inner.hessian, np.einsum("ipq,iq->p", hessians, g)) * -lr / (2 * d)
    return np.asarray(z if inner is ls else ls.modes[1] @ z)


def independent_error(ls: LeastSquares, d: int, lr: float, steps: int) -> float:
    """Return E|z|^2 after so many steps on single samples drawn independently, from z = 0; exact.

    (vec E[z z^T], 1) moves by one matrix, as E[z] stays 0 (`step_moments`).
    """
    step, n = step_moments(ls, d, 1, lr, True), len(ls.w_star) ** 2
    state = np.eye(n + 1)
    state[:n, :n], state[:n, n] = step.second, step.noise
    c = np.linalg.matrix_power(state, steps)[:n, n]
    return float(np.trace(c.reshape(len(ls.w_star), -1)))


def kept_order_error(ls: LeastSquares, orders: np.ndarray, lr: float, epochs: int) -> np.ndarray:
    """Return |z|^2 `(N,)` after epochs that all have the same order, from z = 0; exact.

    Args:
        ls: the problem, one output a sample.
        orders: `(N, d)`, each the samples of an epoch, one a step.
        epochs: how many.

    Raises:
        InputError: samples of several outputs.
    """
    if ls.outputs > 1:
        raise InputError(f"kept_order_error takes samples of one output, not of {ls.outputs}")
    p = len(ls.w_star)
    matrix, offset = np.tile(np.eye(p), (len(orders), 1, 1)), np.zeros((len(orders), p))
    for sample in np.asarray(orders).T:
        phi = ls.features[sample]
        matrix -= 2 * lr * phi[:, :, None] * np.einsum("np,npq->nq", phi, matrix)[:, None]
        offset -= 2 * lr * phi * ((phi * offset).sum(1) + ls.residual[sample])[:, None]
    z = np.zeros_like(offset)
    for _ in range(epochs):
        z = np.einsum("npq,nq->np", matrix, z) + offset
    return np.asarray((z**2).sum(1))


def law_at(law: Law, k: np.ndarray) -> np.ndarray:
    """Return a law's values at numbers of epochs k."""
    at = np.asarray(k, dtype=float)
    if not (at > 0).all():
        raise InputError(f"a law holds from 1 epoch on; got k {quoted(k)}")
    return np.sum([constant * at**exponent for exponent, constant in law.items()], axis=0)


def log_slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the least-squares slope of log y over log x; y is `(len(x), ...)`.

    >>> x = np.array([1.0, 2.0, 4.0])
    >>> round(float(log_slope(x, 5 * x**-3)), 12)
    -3.0

    Raises:
        InputError: fewer than two different x, or a value that has no logarithm.
    """
    for name, values in (("x", x), ("y", y)):
        if not (np.asarray(values, dtype=float) > 0).all():
            got = quoted(np.asarray(values).tolist())
            raise InputError(f"a slope of logarithms needs positive {name}; got {got}")
    log_x = np.log(np.asarray(x, dtype=float))
    centred = log_x - log_x.mean()
    if not centred.any():
        raise InputError(f"a slope needs two different x; got {np.asarray(x).tolist()}")
    return np.tensordot(centred, np.log(y), 1) / (centred @ centred)


def log_minimum(x: np.ndarray, y: np.ndarray) -> float:
    """Return where the least-squares parabola of log y over log x is least; NaN: it opens down.

    >>> x = np.array([1.0, 2.0, 4.0])
    >>> round(log_minimum(x, np.exp(np.log(x / 3) ** 2)), 9)
    3.0
    """
    a, b, _ = np.polyfit(np.log(x), np.log(y), 2)
    return float(np.exp(-b / (2 * a))) if a > 0 else float("nan")


def minimum_of_means(x: np.ndarray, samples: np.ndarray) -> tuple[float, float]:
    """Return `log_minimum` of the means over seeds, and its standard error by the jackknife.

    Args:
        x: `(k,)`.
        samples: `(k, R)`; the same R seeds at every x, left out together: they share their samples.
    """

    def lowest(some: np.ndarray) -> float:
        return log_minimum(x, some.mean(1))

    return lowest(samples), jackknife_error(lowest, samples)


def slope_interval(
    x: np.ndarray, samples: np.ndarray, confidence: float = 0.95, draws: int = 2000
) -> tuple[float, float]:
    """Return a bootstrap interval for `log_slope` of the means over seeds.

    Args:
        x: `(k,)`.
        samples: `(k, R)`; the same R seeds at every x, drawn together: they share their orders.
        draws: resamples of the seeds.
    """
    n = samples.shape[1]
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), draws) / n
    slopes = log_slope(x, samples @ weights.T)
    low, high = np.quantile(slopes, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def slope_samples(x: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Return what every seed adds to `log_slope` of the means over seeds, times R: `(R,)`.

    To first order in the errors of the means, log mean moves by (sample - mean) / mean, so that the
    standard error of the slope is that of the mean of these.

    Args:
        x: `(k,)`.
        samples: `(k, R)`; the same R seeds at every x: they share their orders.
    """
    centred = np.log(x) - np.log(x).mean()
    return centred @ (samples / samples.mean(1, keepdims=True)) / (centred @ centred)


def _samples(ls: LeastSquares, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Return Hessian `(d, p, p)` and gradient at w* `(d, p)` of every sample."""
    phi = ls.features.reshape(d, -1, ls.features.shape[1])
    return 2 / phi.shape[1] * np.einsum("imp,imq->ipq", phi, phi), gradients(ls, ls.w_star, d)


def _pair_sum(hessians: np.ndarray, g: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return covariance `(p, p)` and mean `(p,)` of sum_{i before j} H_j g_i over permutations.

    Exact. With a_ij = H_j g_i - H_i g_j the sum is its mean plus half the sum over pairs of
    +-a_ij, the sign that of j - i in the order. Two such signs are independent unless the pairs
    share a sample; then they correlate by 1/3, and sum_j a_ij = n H g_i.
    """
    n = len(g)
    moved = np.einsum("jpq,iq->ijp", hessians, g)
    a = moved - moved.swapaxes(0, 1)
    covariance = n**2 * h @ (g.T @ g) @ h / 12 + np.einsum("ijp,ijq->pq", a, a) / 24
    return covariance, -np.einsum("iip->p", moved) / 2


def _settled(h: np.ndarray, q: np.ndarray) -> float:
    """Return the trace of the C with HC + CH = q."""
    values, vectors = np.linalg.eigh(h)
    turned = vectors.T @ q @ vectors
    return float(np.sum(np.diag(turned) / (2 * values)))
