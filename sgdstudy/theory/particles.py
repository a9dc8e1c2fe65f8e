"""Random reshuffling of many samples: the growth of the mean square, and its limit, by particles.

The mean may rest on orders so rare that no run meets them: averaging M x M over drawn epochs then
finds far too little (of independent batches on the notebook's curve at lr = 4.72e-4 a growth by
exp(0) an epoch from 4000 epochs, where exp(70) is right). Particles that multiply where the error
grows find them. Where the exact recursion of `reshuffling` is short enough, it is taken instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sgdstudy.errors import InputError
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.theory.reshuffling import Items, enumerable, epoch_radius, items_of, moving
from sgdstudy.theory.stationary import mean_square_lr_limit

EVEN = 0.9  # effective share of the particles below which they are resampled
GUIDE = 0.5  # share of the potentials: whole ones set particles apart that go the usual way
STRIDE = 1.05  # between step sizes, until the limit lies between two
NEAR = 1.01  # between the last two


@dataclass(frozen=True)
class Estimated:
    """A number with its interval, both ends equal to it where the number is exact.

    Attributes:
        value: the number.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    @property
    def exact(self) -> bool:
        """Whether nothing was drawn."""
        return self.low == self.high


def reshuffling_growth(
    ls: LeastSquares,
    d: int,
    batch_size: int,
    lr: float,
    order: str = "shuffle",
    particles: int = 1000,
    repeats: int = 8,
    epochs: int = 6,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimated:
    """Return the growth of log E|z|^2 per epoch, log rho(E[M x M]): exact if it can be, else drawn.

    Particles z carry the items left in their epoch and the weight |z|^2, and are resampled where
    weights differ (sequential Monte Carlo: Del Moral, 2004; go with the winners: Grassberger,
    2002), so that the rare orders the mean rests on are found. Potentials nu of the items
    (`_potentials`) keep particles from spending the steep items early; all items are used by the
    end of the epoch, where the potentials cancel. The logarithm of a noisy mean is too low by half
    of its variance, to first order: the upper end of the interval makes room for that.

    Args:
        order: `shuffle` or `block_shuffle`.
        particles: of each repeat.
        repeats: independent estimates, at least 3; their scatter makes the interval (Student's).
        epochs: at least 2; the first half is left out: particles forget there where they began.

    Raises:
        InputError: too few repeats or epochs, too many parameters, another order.
    """
    items = moving(items_of(ls, d, batch_size, order))
    return _growth(items, lr, particles, repeats, epochs, confidence, seed)


def _growth(
    items: Items, lr: float, particles: int, repeats: int, epochs: int, confidence: float, seed: int
) -> Estimated:
    from scipy.stats import t  # late: 0.3 s

    if enumerable(items):
        value = float(np.log(epoch_radius(items, lr)))
        return Estimated(value, value, value)
    if repeats < 3 or epochs < 2:
        given = f"{repeats} and {epochs}"
        raise InputError(f"particles take at least 3 repeats and 2 epochs, got {given}")
    nu = GUIDE * _potentials(items, lr)
    runs = [
        _particles(items, lr, nu, particles, epochs, np.random.default_rng([seed, repeat]))
        for repeat in range(repeats)
    ]
    late = np.array(runs)[:, epochs // 2 :]
    means = late.mean(1)
    value, variance = float(means.mean()), float(means.var(ddof=1))
    half = (variance / repeats) ** 0.5 * float(t.ppf((1 + confidence) / 2, repeats - 1))
    return Estimated(value, value - half, value + half + late.shape[1] * variance / 2)


def _particles(
    items: Items, lr: float, nu: np.ndarray, n: int, epochs: int, generator: np.random.Generator
) -> np.ndarray:
    """Return the growth of log E|z|^2 in every epoch, `(epochs,)`, as n particles find it."""
    count, _, p = items.rows.shape
    every = np.arange(
        count, dtype=np.min_scalar_type(count)
    )  # small numbers: they are often copied
    z, weight, found = _unit(generator.normal(size=(n, p)))[0], np.zeros(n), np.zeros(epochs)
    for epoch in range(epochs):
        found[epoch] -= _log_mean(weight)
        left, first = np.tile(every, (n, 1)), 0
        for size in items.counts:
            part = _draw(left, first, size, generator)
            first += size
            z, length = _unit(z - lr / size * _slope(items.rows[part].reshape(n, -1, p), z))
            weight += 2 * np.log(length) - nu[part].sum(1)
            share = np.exp(weight - weight.max())
            if share.sum() ** 2 < EVEN * n * (share**2).sum():
                found[epoch] += _log_mean(weight)
                ends = np.cumsum(share) / share.sum()
                kept = np.searchsorted(ends[:-1], (generator.random() + np.arange(n)) / n)
                z, weight = z[kept], np.zeros(n)
                left[:, first:] = left[kept, first:]
        if items.last is not None:
            z, length = _unit(z - lr * _slope(items.last.rows, z))
            weight += 2 * np.log(length)
        found[epoch] += _log_mean(weight)
    return found


def _slope(rows: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return rows^T rows z, for rows `(n, k, p)` and z `(n, p)`."""
    return ((rows @ z[:, :, None]).swapaxes(1, 2) @ rows)[:, 0]


def _unit(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return directions and lengths; of a z that a step has brought to 0 the length is tiny."""
    length = np.maximum(np.linalg.norm(z, axis=1), np.finfo(float).tiny)
    return z / length[:, None], length


def _draw(left: np.ndarray, first: int, size: int, generator: np.random.Generator) -> np.ndarray:
    """Draw the items of a step from those left, `(n, size)`: those before `first` are used."""
    rows, count = np.arange(len(left)), left.shape[1]
    for place in range(first, first + size):
        other = generator.integers(place, count, size=len(left))
        drawn = left[rows, other]
        left[rows, other] = left[:, place]
        left[:, place] = drawn
    return left[:, first : first + size]


def _log_mean(weight: np.ndarray) -> float:
    top = weight.max()
    return float(top + np.log(np.exp(weight - top).mean()))


def _potentials(items: Items, lr: float) -> np.ndarray:
    """Return potentials nu `(n,)`, of sum 0, under which all items are used equally often.

    Of steps with replacement whose items have the weights exp(-nu), T_nu the mean of A x A, they
    minimise log tr(T_nu^m) + sum nu, which is convex: its gradient is 1 less how often an item is
    expected in an epoch that counts by its growth. Any others are right too, only slower.
    """
    from scipy.optimize import minimize  # late: 0.3 s

    h, m, size = items.hessians, len(items.counts), items.counts[0]
    n, p = h.shape[:2]

    def objective(nu: np.ndarray) -> tuple[float, np.ndarray]:
        nu = nu - nu.mean()
        weight = np.exp(-nu)
        q = weight / weight.sum()
        mean = np.einsum("i,ijk->jk", q, h)
        centred = (h - mean).reshape(n, -1)
        spread = lr**2 / size * ((q[:, None] * centred).T @ centred)  # of the steps
        spread = spread.reshape(p, p, p, p).transpose(0, 2, 1, 3).reshape(p * p, p * p)
        step = np.eye(p) - lr * mean
        values, vectors = np.linalg.eigh(np.kron(step, step) + (spread + spread.T) / 2)
        logs = m * np.log(np.maximum(np.abs(values), np.finfo(float).tiny))
        shares = np.exp(logs - logs.max())
        total = float(logs.max() + np.log(shares.sum()))
        shares /= shares.sum()
        one, uses = np.eye(p) - lr / size * (h + (size - 1) * mean), np.zeros(n)
        for k in np.flatnonzero(shares > 1e-9):
            v = vectors[:, k].reshape(p, p)
            own = ((v.T @ one) * (v @ one).swapaxes(1, 2)).sum((1, 2))
            rest = (size - 1) / size * vectors[:, k] @ spread @ vectors[:, k]
            uses += shares[k] * (own + rest) / values[k]
        gradient = 1 - n * q * uses
        return total + m * size * np.log(weight.mean()), gradient - gradient.mean()

    found = minimize(objective, np.zeros(n), jac=True, method="L-BFGS-B", options={"maxiter": 50})
    return np.asarray(found.x - found.x.mean())


def reshuffling_lr_limit(
    ls: LeastSquares,
    d: int,
    batch_size: int,
    order: str = "shuffle",
    particles: int = 1000,
    repeats: int = 8,
    epochs: int = 6,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimated:
    """Return the step size from which E|z|^2 grows, rho(E[M x M]) = 1: exact if it can be.

    From the limit of independent batches (`mean_square_lr_limit`) in strides of 5 % to where the
    growth changes its sign; drawn, it is then interpolated between two step sizes 1 % apart, and
    the ends of its interval are where the ends of the growth's would pass 0. The arguments are
    those of `reshuffling_growth`.

    Raises:
        InputError: as `reshuffling_growth`; a growth whose sign does not change.
    """
    from scipy.optimize import brentq  # late: 0.3 s

    items = moving(items_of(ls, d, batch_size, order))
    start, known = mean_square_lr_limit(ls, d, batch_size), {}

    def growth(lr: float) -> Estimated:
        if lr not in known:
            known[lr] = _growth(items, lr, particles, repeats, epochs, confidence, seed)
        return known[lr]

    low, high = _bracket(lambda lr: growth(lr).value, start)
    if growth(low).exact:
        value = float(brentq(lambda lr: growth(lr).value, low, high, rtol=1e-9))
        return Estimated(value, value, value)
    while high / low > NEAR:
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if growth(middle).value < 0 else (low, middle)

    def crossing(below: float, above: float) -> float:
        return low + (high - low) * -below / (above - below)

    one, two = growth(low), growth(high)
    ends = crossing(one.high, two.high), crossing(one.low, two.low)
    return Estimated(crossing(one.value, two.value), *ends)


def _bracket(growth: Callable[[float], float], start: float) -> tuple[float, float]:
    """Return two step sizes, `STRIDE` apart, between which the growth passes 0."""
    up = growth(start) < 0
    for _ in range(100):
        following = start * STRIDE if up else start / STRIDE
        if (growth(following) < 0) != up:
            return min(start, following), max(start, following)
        start = following
    raise InputError(
        f"the growth of the second moments does not change its sign up to lr {start:g}"
    )
