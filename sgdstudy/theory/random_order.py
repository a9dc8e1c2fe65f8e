"""Random orders and gradient noise: moments, limits, stationary loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sgdstudy.config import TrainConfig
from sgdstudy.least_squares import LeastSquares
from sgdstudy.orders import Sampler
from sgdstudy.problem import Problem
from sgdstudy.theory.descent import moments


def gradients(ls: LeastSquares, w: np.ndarray, d: int) -> np.ndarray:
    """Return the gradient of every sample's loss at w, `(d, p)`."""
    error = ls.features @ (np.asarray(w, dtype=float) - ls.w_star) + ls.residual
    rows = 2 * error[:, None] * ls.features
    return rows.reshape(d, -1, rows.shape[1]).mean(1)


def trace_sigma(ls: LeastSquares, w: np.ndarray, d: int) -> float:
    """Return tr(Sigma), the trace of the covariance of the samples' gradients at w (over d)."""
    return float(gradients(ls, w, d).var(0).sum())


def noise_scale(ls: LeastSquares, w: np.ndarray, d: int) -> float:
    """Return the gradient noise scale tr(Sigma) / |g|^2 (McCandlish et al. 2018)."""
    g = gradients(ls, w, d).mean(0)
    return trace_sigma(ls, w, d) / float(g @ g)


def mean_square_batch_norm(ls: LeastSquares, w: np.ndarray, d: int, batch_size: int) -> float:
    """Return E|g_B|^2 over batches drawn without replacement.

    |g|^2 + tr(Sigma) (d - B) / (B (d - 1)), the last factor that of a finite population.
    """
    g = gradients(ls, w, d).mean(0)
    share = (d - batch_size) / (batch_size * max(d - 1, 1))
    return float(g @ g) + trace_sigma(ls, w, d) * share


@dataclass(frozen=True)
class Moments:
    """First and second moments of one random step, z -> (I - lr H_b) z - lr g_b.

    Batches are drawn without replacement inside, independently of each other: what random
    reshuffling is but for the memory within an epoch. With B of d samples, a batch's mean has the
    samples' covariance times share = (d - B) / (B (d - 1)).

    Attributes:
        mean: `(p, p)`, z_mean -> next z_mean.
        second: `(p^2, p^2)`, T = E[(I - lr H_b) x (I - lr H_b)].
        cross: `(p^2, p)`, what z_mean adds to E[z z^T] where residuals go with the features.
        noise: `(p^2,)`, what the gradients at w* add: lr^2 share S.
    """

    mean: np.ndarray
    second: np.ndarray
    cross: np.ndarray
    noise: np.ndarray


def step_moments(ls: LeastSquares, d: int, batch_size: int, lr: float) -> Moments:
    """Return the moments of a step of SGD."""
    p = ls.features.shape[1]
    phi = ls.features.reshape(d, -1, p)
    each = 2 / phi.shape[1] * np.einsum("imp,imq->ipq", phi, phi)  # H_i
    g = gradients(ls, ls.w_star, d)
    h, identity = ls.hessian, np.eye(p)
    share = (d - batch_size) / (batch_size * max(d - 1, 1))
    factor = identity - lr * h
    covariance = np.einsum("ipq,irs->prqs", each, each).reshape(p * p, -1) / d - np.kron(h, h)
    pair = np.einsum("ipq,ir->prq", each, g) / d  # E[H_i z g_i^T], as a map of z
    cross = lr**2 * share * (pair + pair.transpose(1, 0, 2))
    return Moments(
        mean=factor,
        second=np.kron(factor, factor) + lr**2 * share * covariance,
        cross=cross.reshape(p * p, p),
        noise=lr**2 * share * (g.T @ g / d).ravel(),
    )


def mean_square_radius(ls: LeastSquares, d: int, batch_size: int, lr: float) -> float:
    """Return rho(T): second moments stay bounded if and only if it is below 1."""
    return float(np.abs(np.linalg.eigvals(step_moments(ls, d, batch_size, lr).second)).max())


def stationary_excess(ls: LeastSquares, d: int, batch_size: int, lr: float) -> float:
    """Return the excess loss E[L] - L* that SGD settles at; infinite where rho(T) >= 1.

    vec C = T vec C + lr^2 share vec S, S the covariance of the gradients at w*; excess
    = tr(H C) / 2. For small lr about lr tr(S) share / 4, with label noise sigma
    lr sigma^2 tr(H) / (2 B).
    """
    moments_ = step_moments(ls, d, batch_size, lr)
    if np.abs(np.linalg.eigvals(moments_.second)).max() >= 1:
        return np.inf
    c = np.linalg.solve(np.eye(len(moments_.noise)) - moments_.second, moments_.noise)
    return float(ls.hessian.ravel() @ c / 2)


def expected_losses(
    ls: LeastSquares, w0: np.ndarray, d: int, batch_size: int, lr: float, epochs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the expected running loss and the expected full loss by epoch, `(epochs,)` each.

    The loss of a fresh batch at w has the expectation L(w); the running loss is the mean of these
    over the epoch's d / B steps.
    """
    step = step_moments(ls, d, batch_size, lr)
    z = np.asarray(w0, dtype=float) - ls.w_star
    c, h = np.outer(z, z).ravel(), ls.hessian.ravel()
    m = -(-d // batch_size)
    running, full = np.empty(epochs), np.empty(epochs)
    for epoch in range(epochs):
        total = 0.0
        for _ in range(m):
            total += float(ls.least_loss + h @ c / 2)
            c = step.second @ c + step.cross @ z + step.noise
            z = step.mean @ z
        running[epoch], full[epoch] = total / m, ls.least_loss + h @ c / 2
    return running, full


def first_below(losses: np.ndarray, epsilon: float) -> float:
    """Return the first epoch (from 1) whose loss is below epsilon; infinite if none is."""
    below = np.flatnonzero(losses < epsilon)
    return float(below[0] + 1) if len(below) else np.inf


def first_overflow(problem: Problem, config: TrainConfig, most: int = 100) -> np.ndarray:
    """Return, seed by seed, the step (from 1) of the first batch loss beyond float32, `(R,)`.

    The linear recursion w -> w - lr g_b of the seed's own order, in float64; a loss overflows when
    its sum of squares exceeds the largest float32. Infinite where none does within `most` steps.
    """
    ls, sizes = moments(problem), config.batch_sizes(problem.d)
    size = sizes[0]
    found = np.full(len(config.seeds), np.inf)
    limit = float(np.finfo(np.float32).max)
    for r, seed in enumerate(config.seeds):
        indices = Sampler(config.order, [seed], problem.d, size).take(min(most * size, problem.d))
        z = problem.initial([seed])[0].double().numpy() - ls.w_star
        for step, part in enumerate(indices[0].numpy().reshape(-1, size)):
            phi = ls.features[part]
            error = phi @ z + ls.residual[part]
            if error @ error > limit:
                found[r] = step + 1
                break
            z = z - config.lr * 2 / size * phi.T @ error
    return found


def lyapunov(problem: Problem, batch_size: int, lr: float, steps: int = 20_000) -> float:
    """Return the top Lyapunov exponent per step of random batches, estimated by one long product.

    Almost every path converges if and only if it is below 0; the mean square may still diverge
    (`mean_square_radius`). The standard error is about 1 / sqrt(steps) of the factors' spread.
    """
    ls = moments(problem)
    generator = np.random.default_rng(0)
    phi = ls.features.reshape(problem.d, -1, ls.features.shape[1])
    z, total = np.ones(phi.shape[2]), 0.0
    for _ in range(steps):
        rows = phi[generator.choice(problem.d, batch_size, replace=False)].reshape(-1, len(z))
        z = z - lr * 2 / len(rows) * rows.T @ (rows @ z)
        length = np.linalg.norm(z)
        total += np.log(length)
        z /= length
    return float(total / steps)


def reshuffling_factor(x: np.ndarray) -> np.ndarray:
    """Return the share of the noise that reshuffling leaves, per mode, x = m lr lambda.

    RR / WR about 1 - tanh(x / 2) / (x / 2).
    """
    half = np.asarray(x, dtype=float) / 2
    return 1 - np.tanh(half) / half
