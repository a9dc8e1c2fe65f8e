"""SGD that follows true parameters which move, on samples that come once: what it is off by.

With z = w - w*(t) and fresh samples, a step on a batch b is

    z -> (I - lr H_b) z + lr xi_b - v,    v = w*(t + 1) - w*(t),

xi_b what the noise of the labels adds. A small step lags behind by (lr H)^-1 v, a large one is
noisy; where the two balance is the best step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgdstudy.errors import InputError, quoted

DEGREE = 4  # of x in a model; products of four features are polynomials of four times that


@dataclass(frozen=True)
class SampleLaw:
    """Moments of the law that independent samples are drawn from, loss `mse`, labels noisy.

    Attributes:
        hessian: H = E[H_i], H_i = 2 phi phi^T, `(p, p)`.
        products: E[H_i x H_i], `(p^2, p^2)`.
        noise: S, covariance of a sample's gradient at the true parameters, `(p, p)`.
    """

    hessian: np.ndarray
    products: np.ndarray
    noise: np.ndarray


@dataclass(frozen=True)
class Tracking:
    """What z = w - w*(t) settles at.

    Attributes:
        lag: E[z], `(p,)`.
        second: E[z z^T], `(p, p)`.
        excess: E[z^T H z] / 2, the expected loss above that of the true parameters.
    """

    lag: np.ndarray
    second: np.ndarray
    excess: float


def sample_law(features: np.ndarray, weights: np.ndarray, deviation: float) -> SampleLaw:
    """Return the moments of a law given by the nodes and weights of a quadrature.

    Args:
        features: phi = df/dw at the nodes, `(n, p)`.
        weights: `(n,)`, with sum 1. Exact where the rule is for products of four features.
        deviation: standard deviation of the labels' noise.

    Example:
        >>> x, weights = np.polynomial.legendre.leggauss(2)
        >>> law = sample_law(np.stack([x, np.ones(2)], 1), weights / 2, 0.5)
        >>> law.hessian.round(9) + 0.0
        array([[0.66666667, 0.        ],
               [0.        , 2.        ]])
    """
    phi, p = np.asarray(features, dtype=float), np.shape(features)[1]
    if not (phi.ndim == 2 and np.shape(weights) == phi.shape[:1] and np.isfinite(phi).all()):
        raise InputError(
            f"features are finite numbers (n, p) with weights (n,); got shapes {phi.shape} and "
            f"{np.shape(weights)}"
        )
    each = 2 * np.einsum("ip,iq->ipq", phi, phi)
    hessian = np.einsum("i,ipq->pq", weights, each)
    products = np.einsum("i,ipq,irs->prqs", weights, each, each).reshape(p * p, -1)
    values = np.linalg.eigvalsh(hessian)
    if not values[0] > 1e-14 * values[-1]:  # no step moves, and no lag ends, in some direction
        raise InputError(
            f"features must span all {p} parameters, or where they go is not known; the Hessian's "
            f"eigenvalues are {quoted([float(f'{v:.3g}') for v in values])}"
        )
    return SampleLaw(hessian, products, 2 * deviation**2 * hessian)


def uniform_law(model: Callable[..., Any], parameters: int, deviation: float) -> SampleLaw:
    """Return the moments of x uniform on [-1, 1] for a model that is a polynomial in x.

    Exact up to the power `DEGREE` of x.

    Args:
        model: f(w, x), linear in w `(p,)`, for x `(n,)`.
        parameters: p.
        deviation: standard deviation of the labels' noise.

    Example:
        >>> from sgdstudy.problems import parabola
        >>> uniform_law(parabola, 3, 0.3).hessian.round(3) + 0.0
        array([[0.4  , 0.   , 0.667],
               [0.   , 0.667, 0.   ],
               [0.667, 0.   , 2.   ]])
    """
    nodes, weights = np.polynomial.legendre.leggauss(2 * DEGREE + 1)
    units = np.eye(parameters)
    columns = [np.broadcast_to(model(w, nodes) - model(0 * w, nodes), nodes.shape) for w in units]
    return sample_law(np.stack(columns, 1), weights / 2, deviation)


def stationary_tracking(
    law: SampleLaw, batch_size: int, lr: float, velocity: np.ndarray, walk: np.ndarray | None = None
) -> Tracking:
    """Return what SGD settles at behind parameters that move by `velocity` a step.

    lag = -(lr H)^-1 v. With F = I - lr H, T = E[(I - lr H_b) x (I - lr H_b)], C = E[z z^T] solves
    C = T C + lr^2 S / B - F lag v^T - v lag^T F + v v^T + Q. Infinite where rho(T) >= 1. For small
    steps see `tracking_terms`.

    Args:
        law: of the samples.
        lr: step size, above 0.
        velocity: v, `(p,)`.
        walk: Q, `(p, p)`: covariance of a random step of the true parameters besides.
    """
    h, v, p = law.hessian, np.asarray(velocity, dtype=float), len(law.hessian)
    lag = -np.linalg.solve(lr * h, v)
    if lr >= tracking_lr_limit(law, batch_size):
        return Tracking(lag, np.full((p, p), np.inf), np.inf)
    moved = lag - lr * h @ lag
    added = lr**2 / batch_size * law.noise - np.outer(moved, v) - np.outer(v, moved)
    added += np.outer(v, v) + (0 if walk is None else walk)
    linear, square = _operators(law, batch_size)
    c = np.linalg.solve(lr * linear - lr**2 * square, added.ravel()).reshape(p, p)
    return Tracking(lag, c, float((h * c).sum() / 2))


def tracking_path(
    law: SampleLaw, batch_size: int, rates: np.ndarray, true: np.ndarray, w0: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return E[w] `(S + 1, p)` and the expected excess `(S + 1,)`, whatever moves, exactly.

    Args:
        law: of the samples.
        rates: step sizes, `(S,)`.
        true: the true parameters before every step and after the last, `(S + 1, p)`.
    """
    h, true = law.hessian, np.asarray(true, dtype=float)
    linear, square = _operators(law, batch_size)
    noise = law.noise.ravel() / batch_size
    z = np.asarray(w0, dtype=float) - true[0]
    c = np.outer(z, z).ravel()
    means, excess = [z], [h.ravel() @ c / 2]
    for lr, v in zip(np.asarray(rates, dtype=float), np.diff(true, axis=0), strict=True):
        z = z - lr * h @ z
        cross = np.outer(z, v)
        c = c - lr * (linear @ c) + lr**2 * (square @ c + noise)
        c += (np.outer(v, v) - cross - cross.T).ravel()
        z = z - v
        means.append(z)
        excess.append(h.ravel() @ c / 2)
    return np.array(means) + true, np.array(excess)


def tracking_terms(
    law: SampleLaw, batch_size: int, lr: float, velocity: np.ndarray
) -> tuple[float, float]:
    """Return both parts of the excess for small steps, noise and lag.

    lr tr(S) / (4 B) and v^T H^-1 v / (2 lr^2).
    """
    lag = np.asarray(velocity) @ np.linalg.solve(law.hessian, velocity) / (2 * lr**2)
    return lr * float(np.trace(law.noise)) / (4 * batch_size), float(lag)


def best_tracking_lr(law: SampleLaw, batch_size: int, velocity: np.ndarray) -> float:
    """Return the step size with the least stationary excess, by the exact moments.

    While it is small, (4 B v^T H^-1 v / tr S)^(1/3): there the noise is twice the lag.

    Raises:
        InputError: a velocity of 0.
    """
    from scipy.optimize import minimize_scalar  # late: 0.3 s

    v = np.asarray(velocity, dtype=float)
    noise, lag = tracking_terms(law, batch_size, 1.0, v)
    limit = tracking_lr_limit(law, batch_size)
    if not lag > 0:
        raise InputError("true parameters that stand still have no best step: the less the better")
    low = min((2 * lag / noise) ** (1 / 3) if noise > 0 else limit, limit) / 100

    def cost(log_lr: float) -> float:
        return float(np.log(stationary_tracking(law, batch_size, np.exp(log_lr), v).excess))

    bounds = (np.log(low), np.log(limit * (1 - 1e-6)))
    options = {"xatol": 1e-9}
    return float(np.exp(minimize_scalar(cost, bounds=bounds, method="bounded", options=options).x))


def tracking_lr_limit(law: SampleLaw, batch_size: int) -> float:
    """Return the step size from which second moments grow without bound, rho(T) = 1.

    T C = C - lr (H C + C H) + lr^2 N(C), so that 1 / lr is the largest eigenvalue of N against
    C -> H C + C H.
    """
    from scipy.linalg import eigh  # late: 0.3 s

    linear, square = _operators(law, batch_size)
    return float(1 / eigh(square, linear, eigvals_only=True)[-1])


def _operators(law: SampleLaw, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return C -> H C + C H and N, `(p^2, p^2)` each, with T = I - lr linear + lr^2 N."""
    h, identity = law.hessian, np.eye(len(law.hessian))
    linear = np.kron(h, identity) + np.kron(identity, h)
    return linear, np.kron(h, h) + (law.products - np.kron(h, h)) / batch_size
