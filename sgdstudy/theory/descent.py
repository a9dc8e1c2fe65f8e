"""Full-batch descent, in closed form."""

from __future__ import annotations

import numpy as np

from sgdstudy.errors import InputError
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.problems.linearity import LARGEST
from sgdstudy.problems.problem import Problem

MOST_STEPS = 2**52  # looked ahead in closed form


def moments(problem: Problem) -> LeastSquares:
    """Return the problem's moments.

    Raises:
        InputError: the loss is not a sum of squares, the model is not linear in w, or its features
            are all 0 or so large that their squares overflow.
    """
    if problem.least_squares is None:
        raise InputError(
            f"theory needs a model linear in w under loss 'mse' or another sum of squares, "
            f"with features that are not all 0 and below {LARGEST:g}; {problem.name!r} is not"
        )
    return problem.least_squares


def eigenvalues(ls: LeastSquares) -> np.ndarray:
    """Return the eigenvalues of the Hessian, `(p,)`, smallest first.

    Those of directions in which the loss does not change, rounding aside, are 0.
    """
    found = ls.modes[0]
    return np.concatenate([np.zeros(len(ls.w_star) - len(found)), found])


def lr_limit(ls: LeastSquares) -> float:
    """Return 2 / lambda_max, the step size beyond which full-batch descent diverges."""
    return float(2 / ls.modes[0][-1])


def lr_best_asymptotic(ls: LeastSquares) -> float:
    """Return 2 / (lambda_min + lambda_max), the step size of the best rate per epoch (Polyak).

    Both of the directions in which the loss changes.
    """
    spectrum = ls.modes[0]
    return float(2 / (spectrum[0] + spectrum[-1]))


def descent_loss(ls: LeastSquares, w0: np.ndarray, lr: float, k: np.ndarray) -> np.ndarray:
    """Return the loss after k full-batch steps from w0.

    L(w_k) = L* + sum_j (lambda_j / 2) c_j^2 (1 - lr lambda_j)^(2k), c the coordinates of w0 - w*
    along the eigenvectors. Infinite where it is beyond float64.
    """
    weights = _weights(ls, w0)
    there = weights > 0
    with np.errstate(over="ignore"):
        powers = ((1 - lr * ls.modes[0][there]) ** 2) ** np.asarray(k)[..., None]
        return ls.least_loss + (weights[there] * powers).sum(-1)


def descent_w(ls: LeastSquares, w0: np.ndarray, lr: float, k: int) -> np.ndarray:
    """Return the parameters `(p,)` after k full-batch steps from w0."""
    spectrum, vectors = ls.modes
    z = np.asarray(w0, dtype=float) - ls.w_star
    c = z @ vectors
    with np.errstate(over="ignore", invalid="ignore"):
        moved = np.where(c == 0, 0, (1 - lr * spectrum) ** k * c)
        return ls.w_star + (z - vectors @ c) + vectors @ moved


def descent_stop(ls: LeastSquares, w0: np.ndarray, lr: float, epsilon: float) -> float:
    """Return the epoch (from 1) at which full-batch descent stops; infinite if it never does.

    The loss is read before the update, as in the notebook: epoch k + 1 stops when
    L(w_k) < epsilon. Within the stability limit the loss only falls; beyond, it may still fall
    before it rises, and as a sum of exponentials it has one valley: bisection finds both.
    """

    def below(k: int) -> bool:
        return bool(descent_loss(ls, w0, lr, np.array(k)) < epsilon)

    if below(0):
        return 1.0
    if lr == 0 or epsilon <= ls.least_loss:
        return np.inf
    low, high = 0, 1
    while not below(high):
        before, after = descent_loss(ls, w0, lr, np.array([high, high + 1]))
        if (after > before and lr > lr_limit(ls)) or high > MOST_STEPS:
            break
        low, high = high, 2 * high
    if not below(high):  # the valley, if there is one, is between
        high = _valley(ls, w0, lr, low, high) if high <= MOST_STEPS else high
        if not below(high):
            return np.inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if below(middle) else (middle, high)
    return float(high + 1)


def _valley(ls: LeastSquares, w0: np.ndarray, lr: float, low: int, high: int) -> int:
    """Return the k of the least loss between two, the loss convex in k."""
    while high - low > 1:
        middle = (low + high) // 2
        before, after = descent_loss(ls, w0, lr, np.array([middle, middle + 1]))
        low, high = (low, middle) if after >= before else (middle, high)
    return min((low, high), key=lambda k: descent_loss(ls, w0, lr, np.array(k)))


def lr_best_for_epsilon(ls: LeastSquares, w0: np.ndarray, epsilon: float) -> float:
    """Return the constant step size that reaches epsilon in the fewest full-batch epochs.

    Of the stable ones, up to 2 / lambda_max. A whole range of step sizes stops at the same epoch;
    of that range the one is returned whose real k with L(w_k) = epsilon is least, (1 - lr
    lambda)^(2k) taken as |1 - lr lambda|^(2k). Where one step is enough, or none is needed, it is
    the one with the least loss after a step.

    For a given k the loss is convex in lr, as every |1 - lr lambda|^(2k) is from k = 1/2 on, so
    that a slope of 0 finds its least; that least falls with k, so that bisection finds the k at
    which it is epsilon. In a long descent the two extreme eigenvalues balance there, lr just below
    2 / lambda_max.

    Raises:
        InputError: epsilon is not above the least loss.
    """
    if not epsilon > ls.least_loss:
        raise InputError(
            f"epsilon is above the least loss, {ls.least_loss:.6g}, not {epsilon:g}: "
            "no step size reaches it"
        )
    target = np.log(epsilon - ls.least_loss)
    if not _weights(ls, w0).any():  # at the minimum already
        return lr_best_asymptotic(ls)

    def reaches(k: float) -> bool:
        return _log_excess(ls, w0, _lr_of_least_loss(ls, w0, k), k)[0] < target

    low, high = 1.0, 1.0
    while not reaches(high):
        low, high = high, 2 * high
        if high > MOST_STEPS:
            raise InputError(f"no step size reaches a loss of {epsilon:g} in {MOST_STEPS:g} steps")
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return _lr_of_least_loss(ls, w0, high)


def _lr_of_least_loss(ls: LeastSquares, w0: np.ndarray, k: float) -> float:
    """Return the stable step size with the least loss after k steps: there the slope is 0."""
    low, high = 0.0, float(np.nextafter(lr_limit(ls), 0))
    while (middle := (low + high) / 2) not in (low, high):
        rises = _log_excess(ls, w0, middle, k)[1] > 0
        low, high = (low, middle) if rises else (middle, high)
    return high


def _log_excess(ls: LeastSquares, w0: np.ndarray, lr: float, k: float) -> tuple[float, float]:
    """Return log(L(w_k) - L*), and a number with the sign of its slope in lr."""
    spectrum, weights = ls.modes[0], _weights(ls, w0)
    with np.errstate(divide="ignore"):  # of a direction in which nothing is left
        factor = np.log(np.abs(1 - lr * spectrum))
        terms = np.log(weights) + 2 * k * factor
        slopes = np.log(weights * spectrum) + (2 * k - 1) * factor
    if np.isneginf(terms).all():
        return -np.inf, 0.0
    scaled = np.exp(slopes - slopes.max()) * np.sign(lr * spectrum - 1)
    return float(terms.max() + np.log(np.exp(terms - terms.max()).sum())), float(scaled.sum())


def _weights(ls: LeastSquares, w0: np.ndarray) -> np.ndarray:
    """Return what every mode adds to the excess loss at w0, (lambda_j / 2) c_j^2."""
    spectrum, vectors = ls.modes
    return spectrum / 2 * ((np.asarray(w0, dtype=float) - ls.w_star) @ vectors) ** 2


def growth_per_epoch(ls: LeastSquares, lr: float) -> float:
    """Return the factor of the loss per full-batch epoch far beyond the limit.

    (1 - lr lambda_max)^2.
    """
    return float((1 - lr * ls.modes[0][-1]) ** 2)


def gradient_bound(ls: LeastSquares, excess: float | np.ndarray) -> np.ndarray:
    """Return the least norm that the gradient has where the loss is so far above the least.

    sqrt(2 lambda_min excess), lambda_min the smallest eigenvalue above 0 (Polyak 1963): over the
    eigenvectors |g|^2 is the sum of lambda^2 c^2, the excess that of lambda c^2 / 2. A rule that
    stops below it never stops too early.

    Example:
        >>> from sgdstudy.problems.least_squares import from_features
        >>> ls = from_features(np.diag([1.0, 2.0]), np.zeros(2))  # lambda 1 and 4
        >>> round(float(gradient_bound(ls, 0.5)), 9)
        1.0
    """
    return np.sqrt(2 * ls.modes[0][0] * np.asarray(excess, dtype=float))


def float32_floor(ls: LeastSquares, lr: float, w0: np.ndarray | None = None) -> float:
    """Return the excess loss at which float32 descent stops moving.

    Parameters move no more once lr lambda_min |delta| < ulp(w) / 2 along the flattest direction:
    floor = ulp(w)^2 / (8 lr^2 lambda_min), w the largest component of that eigenvector's share.

    Args:
        lr: step size, above 0.
        w0: where it starts, `(p,)`; default zeros. It matters where the loss does not change in
            some directions: the parameters keep what they have there.
    """
    spectrum, vectors = ls.modes
    end = ls.w_star
    if w0 is not None:
        start = np.asarray(w0, dtype=float)
        end = end + start - vectors @ (vectors.T @ start)
    slow = int(np.argmax(np.abs(vectors[:, 0])))
    ulp = float(np.spacing(np.float32(abs(end[slow]))))
    return float(ulp**2 / (8 * lr**2 * spectrum[0]))


def float32_floor_rounding(ls: LeastSquares, lr: float) -> float:
    """Return how far from `float32_floor` the excess loss may stop, relative to it.

    Descent stops where lr |v . g| < ulp / 2, v the flattest direction, 1 along the parameter that
    stops it. The gradient is of rounded residuals: a prediction takes four roundings of at most
    half a unit in the last place of its largest term. The other parameters stop within half a unit
    of their own. The floor goes with the square of that gradient, hence twice both.

    Args:
        ls: the problem, whose minimum descent comes to rest near.
        lr: step size, above 0.
    """
    v = ls.modes[1][:, 0]
    slow = int(np.abs(v).argmax())
    v = v / v[slow]
    terms = np.abs(ls.features * ls.w_star).max(1)
    of_gradient = 2 * np.mean(2 * np.spacing(terms.astype("f")) * np.abs(ls.features @ v))
    ulp = np.spacing(np.abs(ls.w_star).astype("f"))
    others = np.delete(np.abs(v) * ulp, slow).sum() / ulp[slow]
    return float(2 * (of_gradient * 2 * lr / ulp[slow] + others))
