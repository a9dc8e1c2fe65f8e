"""Full-batch descent, in closed form."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar

from sgdstudy.errors import InputError
from sgdstudy.least_squares import LeastSquares
from sgdstudy.problem import Problem


def moments(problem: Problem) -> LeastSquares:
    """Return the problem's moments.

    Raises:
        InputError: the loss is not `mse` or the model is not linear in w.
    """
    if problem.least_squares is None:
        raise InputError(
            f"theory needs a model linear in w under loss 'mse'; {problem.name!r} is not"
        )
    return problem.least_squares


def eigenvalues(ls: LeastSquares) -> np.ndarray:
    """Return the eigenvalues of the Hessian, `(p,)`, smallest first."""
    return np.linalg.eigvalsh(ls.hessian)


def lr_limit(ls: LeastSquares) -> float:
    """Return 2 / lambda_max, the step size beyond which full-batch descent diverges."""
    return 2 / eigenvalues(ls)[-1]


def lr_best_asymptotic(ls: LeastSquares) -> float:
    """Return 2 / (lambda_min + lambda_max), the step size of the best rate per epoch (Polyak)."""
    spectrum = eigenvalues(ls)
    return 2 / (spectrum[0] + spectrum[-1])


def descent_loss(ls: LeastSquares, w0: np.ndarray, lr: float, k: np.ndarray) -> np.ndarray:
    """Return the loss after k full-batch steps from w0.

    L(w_k) = L* + sum_j (lambda_j / 2) c_j^2 (1 - lr lambda_j)^(2k), c the coordinates of w0 - w*
    along the eigenvectors.
    """
    spectrum, vectors = np.linalg.eigh(ls.hessian)
    c = (np.asarray(w0, dtype=float) - ls.w_star) @ vectors
    with np.errstate(over="ignore"):
        powers = ((1 - lr * spectrum) ** 2) ** np.asarray(k)[..., None]
        return ls.least_loss + (spectrum / 2 * c**2 * powers).sum(-1)


def descent_w(ls: LeastSquares, w0: np.ndarray, lr: float, k: int) -> np.ndarray:
    """Return the parameters `(p,)` after k full-batch steps from w0."""
    spectrum, vectors = np.linalg.eigh(ls.hessian)
    c = (np.asarray(w0, dtype=float) - ls.w_star) @ vectors
    return ls.w_star + vectors @ ((1 - lr * spectrum) ** k * c)


def descent_stop(ls: LeastSquares, w0: np.ndarray, lr: float, epsilon: float) -> float:
    """Return the epoch (from 1) at which full-batch descent stops; infinite if it never does.

    The loss is read before the update, as in the notebook: epoch k + 1 stops when
    L(w_k) < epsilon. Within the stability limit the loss only falls, so bisection finds it.
    """
    if descent_loss(ls, w0, lr, np.array(0)) < epsilon:
        return 1.0
    if lr >= lr_limit(ls) or epsilon <= ls.least_loss:
        return np.inf
    low, high = 0, 1
    while descent_loss(ls, w0, lr, np.array(high)) >= epsilon:
        low, high = high, 2 * high
        if high > 2**52:
            return np.inf
    while high - low > 1:
        middle = (low + high) // 2
        below = descent_loss(ls, w0, lr, np.array(middle)) < epsilon
        low, high = (low, middle) if below else (middle, high)
    return float(high + 1)


def lr_best_for_epsilon(ls: LeastSquares, w0: np.ndarray, epsilon: float) -> float:
    """Return the constant step size that reaches epsilon in the fewest full-batch epochs.

    The epochs are taken as a real number, -> the minimum is found between 0 and the limit.
    """
    limit = lr_limit(ls)

    def epochs(lr: float) -> float:
        stop = descent_stop(ls, w0, lr, epsilon)
        if not np.isfinite(stop) or stop < 2:
            return stop
        k = np.array([stop - 2, stop - 1])  # last loss above, first below
        above, below = np.log(descent_loss(ls, w0, lr, k) - ls.least_loss)
        target = np.log(epsilon - ls.least_loss)
        return float(k[0] + (above - target) / (above - below))

    grid = limit * np.linspace(0.02, 0.999, 200)
    best = int(np.argmin([epochs(lr) for lr in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    return float(minimize_scalar(epochs, bounds=around, method="bounded").x)


def growth_per_epoch(ls: LeastSquares, lr: float) -> float:
    """Return the factor of the loss per full-batch epoch far beyond the limit.

    (1 - lr lambda_max)^2.
    """
    return float((1 - lr * eigenvalues(ls)[-1]) ** 2)


def float32_floor(ls: LeastSquares, lr: float) -> float:
    """Return the excess loss at which float32 descent stops moving.

    Parameters move no more once lr lambda_min |delta| < ulp(w) / 2 along the flattest direction:
    floor = ulp(w)^2 / (8 lr^2 lambda_min), w the largest component of that eigenvector's share.
    """
    spectrum, vectors = np.linalg.eigh(ls.hessian)
    slow = int(np.argmax(np.abs(vectors[:, 0])))
    ulp = float(np.spacing(np.float32(abs(ls.w_star[slow]))))
    return ulp**2 / (8 * lr**2 * spectrum[0])
