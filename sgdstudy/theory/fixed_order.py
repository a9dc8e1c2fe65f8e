"""A given order of the samples: an epoch is an affine map of z = w - w*."""

from __future__ import annotations

from dataclasses import dataclass

import mpmath
import numpy as np

from sgdstudy.config import TrainConfig
from sgdstudy.errors import InputError
from sgdstudy.least_squares import LeastSquares
from sgdstudy.orders import Sampler
from sgdstudy.problem import Problem
from sgdstudy.theory.descent import moments

DIGITS = 120  # products of 200 factors may grow by 10^50 and cancel


@dataclass(frozen=True)
class Batches:
    """The batches of one epoch, as maps z -> (I - lr H_b) z - lr g_b.

    Attributes:
        hessians: `(m, p, p)`.
        gradients: `(m, p)`, at w*.
        losses: `(m,)`, at w*.
        sizes: `(m,)`, samples.
    """

    hessians: np.ndarray
    gradients: np.ndarray
    losses: np.ndarray
    sizes: np.ndarray

    def factors(self, lr: float) -> np.ndarray:
        """Return I - lr H_b, `(m, p, p)`."""
        return np.eye(self.hessians.shape[1]) - lr * self.hessians


def batches(problem: Problem, config: TrainConfig, epoch: int = 1) -> Batches:
    """Return the batches that the first seed of a configuration meets in an epoch (from 1)."""
    ls = moments(problem)
    sizes = config.batch_sizes(problem.d)
    sampler = Sampler(config.order, [config.seeds[0]], problem.d, sizes[0])
    indices = [sampler.take(sum(sizes))[0].numpy() for _ in range(epoch)][-1]
    outputs = len(ls.features) // problem.d
    features = ls.features.reshape(problem.d, outputs, -1)
    residual = ls.residual.reshape(problem.d, outputs)
    hessians, gradients, losses = [], [], []
    for part in np.split(indices, np.cumsum(sizes)[:-1]):
        phi = features[part].reshape(-1, features.shape[2])
        hessians.append(2 / len(phi) * phi.T @ phi)
        gradients.append(2 / len(phi) * phi.T @ residual[part].ravel())
        losses.append(np.mean(residual[part] ** 2))
    return Batches(np.array(hessians), np.array(gradients), np.array(losses), np.array(sizes))


def epoch_map(b: Batches, lr: float) -> tuple[np.ndarray, np.ndarray]:
    """Return M `(p, p)` and c `(p,)` of an epoch, z -> M z + c.

    M is the product of the factors, the last batch leftmost. Products that grow a lot inside the
    epoch cancel: then use `exact_radius`.
    """
    matrix, offset = np.eye(b.hessians.shape[1]), np.zeros(b.hessians.shape[1])
    for factor, gradient in zip(b.factors(lr), b.gradients, strict=True):
        matrix, offset = factor @ matrix, factor @ offset - lr * gradient
    return matrix, offset


def fixed_order_losses(
    ls: LeastSquares, b: Batches, w0: np.ndarray, lr: float, epochs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return running and full loss by epoch, `(epochs,)` each, of a fixed order, step by step."""
    z = np.asarray(w0, dtype=float) - ls.w_star
    share = b.sizes / b.sizes.sum()
    running, full = np.zeros(epochs), np.zeros(epochs)
    for epoch in range(epochs):
        for h, g, least, weight in zip(b.hessians, b.gradients, b.losses, share, strict=True):
            slope = h @ z
            running[epoch] += weight * (least + (slope / 2 + g) @ z)
            z = z - lr * (slope + g)
        full[epoch] = ls.loss(ls.w_star + z)
    return running, full


def spectral_radius(b: Batches, lr: float) -> float:
    """Return rho(M): the order converges between epochs if and only if it is below 1."""
    with np.errstate(all="ignore"):
        matrix, _ = epoch_map(b, lr)
    if not np.isfinite(matrix).all():
        return np.inf
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def fixed_point(b: Batches, lr: float) -> np.ndarray:
    """Return where the ends of the epochs settle, z = (I - M)^-1 c."""
    matrix, offset = epoch_map(b, lr)
    return np.linalg.solve(np.eye(len(offset)) - matrix, offset)


def fixed_point_loss(ls: LeastSquares, b: Batches, lr: float) -> float:
    """Return the loss of all the data at the fixed point: computed with 120 digits."""
    matrix, offset = _exact_map(b, lr)
    p = len(offset)
    with mpmath.workdps(DIGITS):
        z = mpmath.lu_solve(mpmath.eye(p) - matrix, offset)
        hessian = mpmath.matrix(ls.hessian.tolist())
        return ls.least_loss + float((z.T * hessian * z)[0]) / 2


def growth(b: Batches, lr: float, epochs: int = 1) -> float:
    """Return the largest norm of a product of consecutive factors.

    Over all stretches within one epoch, or, with `epochs=2`, also across the boundary.
    """
    factors = np.concatenate([b.factors(lr)] * epochs)
    running = np.empty_like(factors)  # the product of factors i..j, for every i, as j moves on
    largest = 0.0
    with np.errstate(all="ignore"):
        for j, factor in enumerate(factors):
            running[:j] = factor @ running[:j]
            running[j] = factor
            window = running[max(0, j + 1 - len(b.hessians)) : j + 1]  # an epoch at most
            bound = np.sqrt((window**2).sum((1, 2)))  # Frobenius: never below the norm sought
            if not np.isfinite(bound).all():
                return np.inf
            for product in window[bound > largest]:
                largest = max(largest, float(np.linalg.norm(product, 2)))
    return largest


def exact_radius(b: Batches, lr: float) -> float:
    """Return rho(M) computed with 120 digits."""
    matrix, _ = _exact_map(b, lr)
    with mpmath.workdps(DIGITS):
        # mpmath returns no list of eigenvalues for a 1 x 1 matrix
        values = [matrix[0]] if matrix.rows == 1 else mpmath.eig(matrix, left=False, right=False)
        return float(max(abs(value) for value in values))


def critical_lr(b: Batches, low: float, high: float) -> float:
    """Return the step size between `low` and `high` at which rho(M) first reaches 1.

    Raises:
        InputError: rho(M) is not below 1 at `low`, or nowhere at 1 up to `high`.
    """
    grid = np.geomspace(low, high, 25)
    radius = [exact_radius(b, lr) for lr in grid]
    above = [i for i, value in enumerate(radius) if value >= 1]
    if not above or above[0] == 0:
        raise InputError(
            f"the spectral radius does not cross 1 between lr {low:g} and {high:g}: "
            f"it is {radius[0]:.4g} and {radius[-1]:.4g} there"
        )
    low, high = grid[above[0] - 1], grid[above[0]]
    while high / low > 1 + 1e-6:
        middle = np.sqrt(low * high)
        low, high = (middle, high) if exact_radius(b, middle) < 1 else (low, middle)
    return float(low)


def usable_lr(ls: LeastSquares, b: Batches, epsilon: float, low: float, high: float) -> float:
    """Return the largest step size whose fixed point still has a loss below epsilon.

    Below the critical step the order converges, but to where the labels' rounding, or noise,
    amplified inside the epoch, puts it. `low` must be usable and `high` not.
    """
    while high / low > 1 + 1e-4:
        middle = np.sqrt(low * high)
        good = fixed_point_loss(ls, b, middle) < epsilon
        low, high = (middle, high) if good else (low, middle)
    return float(low)


def _exact_map(b: Batches, lr: float) -> tuple[mpmath.matrix, mpmath.matrix]:
    """Return the epoch's M and c in 120 digits; numpy's object arrays multiply mpmath numbers."""
    p = b.hessians.shape[1]
    with mpmath.workdps(DIGITS):
        exact = np.vectorize(mpmath.mpf, otypes=[object])
        step, identity = mpmath.mpf(lr), exact(np.eye(p))
        matrix, offset = identity, exact(np.zeros(p))
        for hessian, gradient in zip(exact(b.hessians), exact(b.gradients), strict=True):
            factor = identity - step * hessian
            matrix, offset = factor @ matrix, factor @ offset - step * gradient
        return mpmath.matrix(matrix.tolist()), mpmath.matrix(offset.tolist())


@dataclass(frozen=True)
class Gap:
    """What separates an epoch's running loss from the loss of all the data at its end.

    running - full(w_end) = drift + sampling, an identity.

    Attributes:
        drift: sum (n_b / d) [L(w_b) - L(w_end)]: the parameters were worse on the way.
        sampling: sum (n_b / d) [L_b(w_b) - L(w_b)]: batches are not the whole.
    """

    drift: float
    sampling: float


def gap(loss: np.ndarray, full_loss: np.ndarray, size: np.ndarray, full_end: float) -> Gap:
    """Split the gap of one epoch from its recorded steps, `(m,)` each."""
    share = size / size.sum()
    drift = float(share @ (full_loss - full_end))
    return Gap(drift, float(share @ (loss - full_loss)))
