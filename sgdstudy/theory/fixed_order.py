"""A given order of the samples: an epoch is an affine map of z = w - w*."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import mpmath
import numpy as np

from sgdstudy.errors import InputError
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.theory.batch_vs_full import Gap, gap
from sgdstudy.theory.order_batches import Batches

DIGITS = 120  # products of 200 factors may grow by 10^50 and cancel
MOST_SMALL = 1100  # bits: what is smaller than 2^-1100 is 0 in float64


def epoch_map(b: Batches, lr: float) -> tuple[np.ndarray, np.ndarray]:
    """Return M `(p, p)` and c `(p,)` of an epoch, z -> M z + c.

    M is the product of the factors, the last batch leftmost. Products that grow a lot inside the
    epoch cancel: then use `exact_radius`.
    """
    matrix, offset = np.eye(b.hessians.shape[1]), np.zeros(b.hessians.shape[1])
    for factor, gradient in zip(b.factors(lr), b.gradients, strict=True):
        matrix, offset = factor @ matrix, factor @ offset - lr * gradient
    return matrix, offset


def slowest_direction(b: Batches, lr: float) -> np.ndarray:
    """Return the left eigenvector of M's largest eigenvalue in size, `(p,)`; NaN of a complex pair
    and of a product that overflows.

    Along it, the difference of two successive epochs' ends is multiplied by just that eigenvalue,
    whatever c is.
    """
    matrix = epoch_map(b, lr)[0].T
    if not np.isfinite(matrix).all():
        return np.full(len(matrix), np.nan)
    values, left = np.linalg.eig(matrix)
    first = int(np.abs(values).argmax())
    whole = values[first].imag == 0
    return left[:, first].real if whole else np.full(len(values), np.nan)


@dataclass(frozen=True)
class OrderLosses:
    """The losses of a known order.

    Attributes:
        batch: loss of every batch at the parameters it met, `(E, m)`.
        on_the_way: loss of all the data there, `(E, m)`.
        full: loss of all the data at the end of every epoch, `(E,)`.
        sizes: samples of the batches, `(m,)`.
    """

    batch: np.ndarray
    on_the_way: np.ndarray
    full: np.ndarray
    sizes: np.ndarray

    @property
    def running(self) -> np.ndarray:
        """Running loss by epoch, `(E,)`."""
        return self.batch @ (self.sizes / self.sizes.sum())

    def gap(self, epoch: int) -> Gap:
        """Split what separates the running loss of an epoch (from 1) from the full one."""
        row = epoch - 1
        return gap(self.batch[row], self.on_the_way[row], self.sizes, self.full[row])


@np.errstate(all="ignore")  # an order that diverges overflows
def order_losses(
    ls: LeastSquares, w0: np.ndarray, lr: float, epochs: Iterable[Batches]
) -> OrderLosses:
    """Return the losses of a known order, epoch by epoch, from its steps in float64."""
    z = np.asarray(w0, dtype=float) - ls.w_star
    batch, way, full = [], [], []
    sizes = np.zeros(0)
    for b in epochs:
        sizes = b.sizes
        path = np.empty((len(b.sizes) + 1, len(z)))
        for step, (h, g) in enumerate(zip(b.hessians, b.gradients, strict=True)):
            path[step] = z
            z = z - lr * (h @ z + g)
        path[-1] = z
        slope = np.einsum("bpq,bq->bp", b.hessians / 2, path[:-1]) + b.gradients
        batch.append(b.losses + np.einsum("bp,bp->b", slope, path[:-1]))
        *before, end = ls.loss(ls.w_star + path)
        way.append(before)
        full.append(end)
    if not len(sizes):
        raise InputError("order_losses needs one epoch of batches at least; none was given")
    return OrderLosses(np.array(batch), np.array(way), np.array(full), sizes)


@np.errstate(all="ignore")
def fixed_order_losses(
    ls: LeastSquares, b: Batches, w0: np.ndarray, lr: float, epochs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return running and full loss by epoch, `(epochs,)` each, of the same order in every epoch.

    From one epoch's end to the next z -> M z + c, and the running loss is a quadratic form of the
    z that the epoch starts from, so that the epoch's steps are taken once.
    """
    p = len(ls.w_star)
    ahead, share = np.eye(p + 1), b.sizes / b.sizes.sum()  # acts on (z, 1)
    form = np.zeros((p + 1, p + 1))
    for h, g, least, weight in zip(b.hessians, b.gradients, b.losses, share, strict=True):
        here = np.block([[h / 2, g[:, None] / 2], [g[None] / 2, np.array([[least]])]])
        form += weight * ahead.T @ here @ ahead
        step = np.eye(p + 1)
        step[:p] -= lr * np.column_stack([h, g])
        ahead = step @ ahead
    state = np.append(np.asarray(w0, dtype=float) - ls.w_star, 1.0)
    running, full = np.empty(epochs), np.empty(epochs)
    for epoch in range(epochs):
        running[epoch] = state @ form @ state
        state = ahead @ state
        full[epoch] = ls.loss(ls.w_star + state[:p])
    return running, full


def fixed_point(b: Batches, lr: float) -> np.ndarray:
    """Return where the ends of the epochs settle, z = (I - M)^-1 c.

    Where the batches leave some directions as they are, of a start at w* there.
    """
    inside, basis = _within(b)
    matrix, offset = epoch_map(inside, lr)
    return basis @ np.linalg.solve(np.eye(len(offset)) - matrix, offset)


def _within(b: Batches) -> tuple[Batches, np.ndarray]:
    """Return the batches in the directions that any of them moves, and these `(p, r)`."""
    values, vectors = np.linalg.eigh(b.hessians.sum(0))
    p, basis = len(values), vectors[:, values > values[-1] * len(values) * np.finfo(float).eps]
    if basis.shape[1] == p:  # as they are: a turn would round
        return b, np.eye(p)
    inside = basis.T @ b.hessians @ basis
    return Batches(inside, b.gradients @ basis, b.losses, b.sizes), basis


def fixed_point_loss(ls: LeastSquares, b: Batches, lr: float) -> float:
    """Return the loss of all the data at the fixed point: computed with 120 digits.

    Infinite where there is none: an epoch leaves some error as it is.
    """
    inside, basis = _within(b)
    matrix, offset = _exact_map(inside, lr)
    p = len(offset)
    with mpmath.workdps(DIGITS):
        try:
            z = mpmath.lu_solve(mpmath.eye(p) - matrix, offset)
        except ZeroDivisionError:
            return float("inf")
        hessian = mpmath.matrix((basis.T @ ls.hessian @ basis).tolist())
        return ls.least_loss + float((z.T * hessian * z)[0]) / 2


@dataclass(frozen=True)
class Growth:
    """The stretch of consecutive batches that multiplies some error the most.

    Attributes:
        factor: norm of the product of its factors.
        first: number of its first batch, counted from 0 through the epochs.
        last: number of its last batch.
        direction: unit vector `(p,)`, the z that is multiplied by `factor`.
    """

    factor: float
    first: int
    last: int
    direction: np.ndarray

    def batches(self, m: int) -> np.ndarray:
        """Return the places of its batches in epochs of m batches, in order."""
        return np.arange(self.first, self.last + 1) % m


def after(z: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return an error `(p,)` after steps that multiply it, one after another, `(k, p, p)`."""
    for factor in factors:
        z = factor @ z
    return z


def growth(b: Batches, lr: float, epochs: int = 1) -> Growth:
    """Return the largest product of consecutive factors, in norm.

    Over all stretches within one epoch, or, with `epochs=2`, of at most an epoch's length, also
    across the boundary. Infinite where a product overflows.
    """
    factors = b.factors(lr)
    _, norms, directions = np.linalg.svd(factors)
    one = int(norms[:, 0].argmax())
    found = Growth(float(norms[one, 0]), one, one, directions[one, 0])
    if found.factor <= 1 + 1e-12:  # then no product is larger
        return found
    factors = np.concatenate([factors] * epochs)
    running = np.empty_like(factors)  # the product of factors i..j, for every i, as j moves on
    with np.errstate(all="ignore"):
        for j, factor in enumerate(factors):
            running[:j] = factor @ running[:j]
            running[j] = factor
            start = max(0, j + 1 - len(b.hessians))  # an epoch at most
            bound = np.sqrt((running[start : j + 1] ** 2).sum((1, 2)))  # never below the norm
            if not np.isfinite(bound).all():
                return Growth(np.inf, start, j, np.full(factors.shape[1], np.nan))
            for i in start + np.flatnonzero(bound > found.factor):
                _, norms, directions = np.linalg.svd(running[i])
                if norms[0] > found.factor:
                    found = Growth(float(norms[0]), int(i), j, directions[0])
    return found


def spectral_radius(b: Batches, lr: float) -> float:
    """Return rho(M): the order converges between epochs if and only if it is below 1.

    Of the directions that any batch moves. In float64 as long as its rounding, multiplied inside
    the epoch, stays below 1e-6, else with 120 digits.
    """
    largest = growth(b, lr).factor
    if not largest * np.finfo(float).eps < 1e-6:
        return exact_radius(b, lr)
    matrix, _ = epoch_map(_within(b)[0], lr)
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def exact_radius(b: Batches, lr: float) -> float:
    """Return rho(M) computed with 120 digits."""
    matrix, _ = _exact_map(_within(b)[0], lr)
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
    amplified inside the epoch, puts it.

    Raises:
        InputError: `low` is not usable, or `high` is.
    """
    ends = [fixed_point_loss(ls, b, lr) for lr in (low, high)]
    if not ends[0] < epsilon <= ends[1]:
        raise InputError(
            f"the loss at the fixed point does not cross {epsilon:g} between lr {low:g} and "
            f"{high:g}: it is {ends[0]:.4g} and {ends[1]:.4g} there"
        )
    while high / low > 1 + 1e-4:
        middle = np.sqrt(low * high)
        good = fixed_point_loss(ls, b, middle) < epsilon
        low, high = (middle, high) if good else (low, middle)
    return float(low)


def _exact_map(b: Batches, lr: float) -> tuple[mpmath.matrix, mpmath.matrix]:
    """Return the epoch's M and c in 120 digits, or more: whole multiples of 2^-bits, multiplied.

    Ten times as quick as floating numbers of as many digits. rho(M) is at least the p-th root of
    |det M|: where that is small, as many more bits keep its digits.
    """
    p, (part, power) = b.hessians.shape[1], np.frexp(lr)
    hessians, gradients = (np.ldexp(x, power) for x in (b.hessians, b.gradients))
    with np.errstate(all="ignore"):
        root = np.linalg.slogdet(np.eye(p) - part * hessians)[1].sum() / p / np.log(2)
    bits = int(DIGITS / np.log10(2)) + int(np.nan_to_num(np.clip(-root, 0, MOST_SMALL)))
    unit = int(np.frexp(np.abs(gradients).max())[1])  # of c, whatever the labels' size
    step = int(part * 2.0**53)
    factors = _multiples(np.eye(p), bits) - ((step * _multiples(hessians, bits)) >> 53)
    shifts = (step * _multiples(gradients, bits - unit)) >> 53
    matrix, offset = _multiples(np.eye(p), bits), _multiples(np.zeros((p, 1)), bits)
    for factor, shift in zip(factors, shifts, strict=True):
        matrix = (factor @ matrix) >> bits
        offset = ((factor @ offset) >> bits) - shift[:, None]
    with mpmath.workprec(bits):
        pairs = ((matrix, bits), (offset, bits - unit))
        m, c = (mpmath.matrix(whole.tolist()) * mpmath.ldexp(1, -n) for whole, n in pairs)
        return m, c


def _multiples(x: np.ndarray, bits: int) -> np.ndarray:
    """Return numbers as whole multiples of 2^-bits, of any length; what is smaller is 0."""
    part, power = np.frexp(x)
    whole, shift = (part * 2.0**53).astype(np.int64).astype(object), power.astype(object)
    shift = shift + bits - 53
    return (whole << np.maximum(shift, 0)) >> np.maximum(-shift, 0)
