"""What a larger batch is good for: steps to a target, the critical batch size, noise scales.

Second moments of z = w - w* follow a linear recursion (`step_moments`), so the expected loss after
k steps is known exactly, and with it what a batch size costs. Often the steps to a target follow

    S(B) = S_min (1 + B_c / B),   samples E(B) = B S(B) = E_min (1 + B / B_c),

so that (S / S_min - 1) (E / E_min - 1) = 1 (McCandlish et al. 2018, equation 2.11): up to the
critical batch size B_c = E_min / S_min a larger batch saves steps, beyond it only costs samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sgdstudy.errors import InputError, quoted
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.recipe.orders import batch_sizes
from sgdstudy.theory.descent import lr_limit
from sgdstudy.theory.random_order import moments_along, unbounded
from sgdstudy.theory.random_step import step_moments
from sgdstudy.theory.stationary import mean_square_lr_limit, stationary_excess

FIRST = 1024  # steps looked at first


@dataclass(frozen=True)
class ExpectedPath:
    """What SGD goes through on average, before every step and after the last.

    Attributes:
        excess: E[L(w)] - L*, `(k + 1,)`.
        terms: means of the four terms of `noise_terms`, `(4, k + 1)`.
        target: the excess at which the path was ended, if it got there; 0: none.
    """

    excess: np.ndarray
    terms: np.ndarray
    target: float = 0.0

    @property
    def noise_scale(self) -> np.ndarray:
        """E[tr(Sigma)] / E|g|^2, `(k + 1,)`."""
        return self.terms[0] / self.terms[1]

    @property
    def curvature_noise_scale(self) -> np.ndarray:
        """E[tr(H Sigma)] / E[g^T H g], `(k + 1,)`."""
        return self.terms[2] / self.terms[3]

    @property
    def steps(self) -> float:
        """For how many steps the excess is above the target; infinite where it never is below."""
        return time_above(self.excess, self.target)

    def noise_scale_at(self, excess: np.ndarray) -> np.ndarray:
        """Return the noise scale where the excess loss is this; NaN where it never is.

        Of a falling path; between two steps both are taken for a power law of each other.
        """
        x, y = np.log(self.excess[::-1]), np.log(self.noise_scale[::-1])
        return np.asarray(np.exp(np.interp(np.log(excess), x, y, np.nan, np.nan)))

    def mean_noise_scale(self, part: slice) -> float:
        """Return the noise scale of a stretch of steps: mean tr(Sigma) over mean |g|^2.

        Each step's terms are first divided by its expected excess, so that all of them count.
        """
        noise, square = (self.terms[:2, part] / self.excess[part]).mean(1)
        return float(noise / square)


def time_above(curve: np.ndarray, target: float) -> float:
    """Return for how many steps a curve `(k,)` is above the target; infinite if it ends there.

    Of a falling curve that is when it passes the target. Of one that scatters about a falling one
    it still is, on average, while the first value below comes too early. Between two steps the
    curve is taken for exponential, so that the time need not be whole.

    >>> time_above(np.array([1.0, 0.1, 0.001]), 0.01)
    1.5
    """
    if not target > 0:
        raise InputError(f"the target of an excess loss must be above 0, got {quoted(target)}")
    least = np.finfo(float).tiny  # an excess loss may be rounded to 0, or below
    over = np.log(np.maximum(np.asarray(curve, dtype=float), least)) - np.log(target)
    if len(over) == 0 or not over[-1] < 0:
        return np.inf
    a, b = np.maximum(over[:-1], over[1:]), np.minimum(over[:-1], over[1:])
    share = np.divide(a, a - b, out=(b >= 0).astype(float), where=(a > 0) & (b < 0))
    return float(share.sum())


def expected_path(
    ls: LeastSquares,
    w0: np.ndarray,
    d: int,
    batch_size: int,
    lr: float,
    most: int,
    target: float = 0.0,
    replacement: bool = False,
) -> ExpectedPath:
    """Return the expected excess loss and the noise scales step by step, batches independent.

    Args:
        most: the most steps taken.
        target: the expected excess loss below which the path ends.
    """
    z, h, n = np.asarray(w0, dtype=float) - ls.w_star, ls.hessian.ravel(), min(most, FIRST)
    while True:
        sizes = np.resize(batch_sizes("shuffle", d, batch_size), n)
        first, second = moments_along(ls, z, d, sizes, np.full(n, lr), replacement)
        with np.errstate(over="ignore", invalid="ignore"):  # of a path that diverges
            below = np.flatnonzero(second @ h / 2 < target)
        if len(below) or n == most or not np.isfinite(second[-1]).all():  # it diverges
            break
        n = min(2 * n, most)
    end = below[0] + 1 if len(below) else n + 1
    terms = _terms(ls, d, first[:end], second[:end])
    with np.errstate(over="ignore", invalid="ignore"):
        return ExpectedPath(unbounded(second[:end] @ h / 2), terms, target)


def expected_steps(
    ls: LeastSquares,
    w0: np.ndarray,
    d: int,
    batch_size: int,
    lr: float,
    target: float,
    replacement: bool = False,
    most: int = 1_000_000,
) -> float:
    """Return for how many steps the expected excess loss is above the target; see `time_above`.

    Infinite where `most` steps are not enough. The arguments are those of `expected_path`.
    """
    return expected_path(ls, w0, d, batch_size, lr, most, target, replacement).steps


def noise_terms(ls: LeastSquares, ws: np.ndarray, d: int) -> np.ndarray:
    """Return tr(Sigma), |g|^2, tr(H Sigma) and g^T H g at parameters ws `(..., p)`, `(4, ...)`.

    Sigma is the covariance of the samples' gradients at w (over d), g their mean. The first two
    make the gradient noise scale tr(Sigma) / |g|^2, the last two tr(H Sigma) / g^T H g: the batch
    size at which a step of the best size has half of the effect that it has with all the data
    (McCandlish et al. 2018, equations 2.9 and 2.8).
    """
    z = np.asarray(ws, dtype=float) - ls.w_star
    return _terms(ls, d, z, (z[..., :, None] * z[..., None, :]).reshape(*z.shape[:-1], -1))


@np.errstate(over="ignore", invalid="ignore")  # of a path that diverges
def _terms(ls: LeastSquares, d: int, z: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return the means of the four terms, for first and second moments `(..., p)`, `(..., p^2)`."""
    h, p = ls.hessian, ls.hessian.shape[0]
    one = step_moments(ls, d, 1, 1.0, True)  # what one sample adds at lr = 1 is its gradient
    spread = one.second - np.kron(one.mean, one.mean)
    sigma = c @ spread.T + z @ one.cross.T + one.noise
    square = c @ np.kron(h, h).T
    identity = np.eye(p).ravel()
    return np.array([sigma @ identity, square @ identity, sigma @ h.ravel(), square @ h.ravel()])


def lr_limit_to_reach(
    ls: LeastSquares, d: int, batch_size: int, excess: float, replacement: bool = False
) -> float:
    """Return the largest constant step size whose noise floor is not above this excess loss.

    Of independent batches; the floor is that of `stationary_excess`.
    Without noise at the minimum it is the step at which second moments diverge. Where H is a
    multiple of I, it is (2 / lambda) / (1 + B_c / B), B_c the gradient noise scale at this excess.

    Raises:
        InputError: an excess loss that is not positive.
    """
    from scipy.optimize import brentq  # late: 0.3 s

    if not excess > 0:
        raise InputError(f"the excess loss to reach must be above 0, got {quoted(excess)}")
    limit = mean_square_lr_limit(ls, d, batch_size, replacement)

    def above(log_share: float) -> float:
        lr = np.exp(log_share) * limit
        return 1 - excess / stationary_excess(ls, d, batch_size, lr, replacement)

    low = np.log(1e-9)
    if stationary_excess(ls, d, batch_size, np.exp(low) * limit, replacement) <= 1e-30 * excess:
        return limit  # all samples agree at the minimum, rounding aside
    while above(low) > 0 and low > -500:  # a floor is proportional to a small step
        low *= 2
    return limit * float(np.exp(brentq(above, low, 0.0))) if above(0.0) > 0 else limit


def critical_size_of_lr(ls: LeastSquares, batch_size: int, lr: float) -> float:
    """Return the B_c with lr = (2 / lambda_max) / (1 + B_c / B).

    Of the largest usable step it is the batch size at which that is half of what it is with all
    the data: below, the step can grow as B does, beyond, it can not. Ma, Bassily, Belkin (2018)
    bound it by beta / lambda_max - 1, beta the largest of the samples' lambda_max(H_i).

    Raises:
        InputError: a step beyond that of all the data, 2 / lambda_max.
    """
    if lr > lr_limit(ls) * (1 + 1e-12):  # all the data may take it, to within rounding
        raise InputError(f"lr is at most 2 / lambda_max = {lr_limit(ls):g} here, got {lr:g}")
    return batch_size * (lr_limit(ls) / lr - 1)


def critical_batch_size(sizes: np.ndarray, steps: np.ndarray) -> tuple[float, float]:
    """Fit S(B) = S_min (1 + B_c / B) to steps to a target, `(k,)`; return S_min and B_c.

    Relative errors are made least; infinite steps are left out. NaN with fewer than two sizes.

    >>> found = critical_batch_size(np.array([1, 10, 100]), np.array([210, 30, 12]))
    >>> [round(value, 9) for value in found]
    [10.0, 20.0]
    """
    known = np.isfinite(steps) & (np.asarray(steps) > 0)
    size, taken = np.asarray(sizes, dtype=float)[known], np.asarray(steps, dtype=float)[known]
    if len(set(size)) < 2:
        return np.nan, np.nan
    rows = np.stack([1 / taken, 1 / (size * taken)], 1)
    least, samples = np.linalg.lstsq(rows, np.ones(len(taken)), rcond=None)[0]
    return float(least), float(samples / least)
