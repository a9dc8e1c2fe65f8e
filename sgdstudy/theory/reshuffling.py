"""Random reshuffling: the second moments of an epoch whose batches exclude each other.

An epoch takes every item once, in random order, so that it is z -> M z + c with a random M, and
epochs are independent. The mean square of z = w - w* stays bounded if and only if the spectral
radius of E[M x M] is below 1. That is not the limit of independent batches: an epoch that has used
its steep samples has none left. Items are the samples, a few a step (`shuffle`), or contiguous
batches, one a step (`block_shuffle`).

Here is what is exact, for few items, and the law over seeds; `particles` has the limit for many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

import numpy as np

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.recipe.orders import batch_sizes
from sgdstudy.theory.batch_vs_full import finite_share, gradients
from sgdstudy.theory.checked import whole_sizes
from sgdstudy.theory.random_step import MOST_PARAMETERS

MOST_PAIRS = 1_000_000  # of a set of items and the batch that comes next: seconds
ORDERS = ("shuffle", "block_shuffle")


@dataclass(frozen=True)
class Items:
    """What an epoch takes once each, and how many at a step; an item's loss is |rows z + e|^2 / 2.

    Attributes:
        rows: `(n, k, p)`.
        errors: `(n, k)`, e.
        counts: items of every step.
        sizes: samples of every batch.
        last: the batch that always ends the epoch, as one item, if there is one.
    """

    rows: np.ndarray
    errors: np.ndarray
    counts: list[int]
    sizes: list[int]
    last: Items | None = None

    @property
    def hessians(self) -> np.ndarray:
        """`(n, p, p)`."""
        return self.rows.swapaxes(1, 2) @ self.rows

    @property
    def gradients(self) -> np.ndarray:
        """`(n, p)`, at w*."""
        return np.einsum("nkp,nk->np", self.rows, self.errors)


def items_of(ls: LeastSquares, d: int, batch_size: int, order: str) -> Items:
    """Return what an epoch of an order takes once each."""
    checks.choice("order", order, ORDERS)
    p = ls.features.shape[1]
    if p > MOST_PARAMETERS:
        raise InputError(f"reshuffling's theory goes up to {MOST_PARAMETERS} parameters, not {p}")
    scale = (2 * d / len(ls.residual)) ** 0.5
    rows, errors = scale * ls.features.reshape(d, -1, p), scale * ls.residual.reshape(d, -1)
    sizes = batch_sizes("shuffle", d, batch_size)
    if order == "shuffle":
        return Items(rows, errors, sizes, sizes)
    full = d // batch_size

    def blocks(part: slice, size: int) -> tuple[np.ndarray, np.ndarray]:
        share, of_one = 1 / size**0.5, size * rows.shape[1]
        return share * rows[part].reshape(-1, of_one, p), share * errors[part].reshape(-1, of_one)

    cut, last = full * batch_size, None
    if cut < d:
        last = Items(*blocks(slice(cut, d), d - cut), [1], sizes[-1:])
    return Items(*blocks(slice(0, cut), batch_size), [1] * full, sizes, last)


def moving(items: Items) -> Items:
    """Return the items in the directions that any data move; the others keep radius 1 for ever."""
    spectrum, vectors = np.linalg.eigh(items.hessians.mean(0))
    v = vectors[:, spectrum > 1e-12 * spectrum[-1]]
    last = items.last and replace(items.last, rows=items.last.rows @ v)
    return replace(items, rows=items.rows @ v, last=last)


# ---- exact ----------------------------------------------------------------------------------


def _pairs(items: Items) -> int:
    """Return how many products the exact recursion takes."""
    n, used, found = len(items.rows), 0, 0
    for count in items.counts:
        used += count
        found += comb(n, used) * comb(used, count)
    return found


def enumerable(items: Items) -> bool:
    """Whether the exact recursion is short enough."""
    return _pairs(items) <= MOST_PAIRS


def _mean_product(items: Items, maps: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Return E[M x M] over all orders, `(q^2, q^2)`; `maps` makes a step of batch means.

    F(S), the mean over the orders in which a set S of items may come first, is the mean over the
    batch T that comes last in it: F(S) = mean over T in S of (A_T x A_T) F(S - T). There are 2^n
    sets, not n! orders (the recursion of Held and Karp, 1962).

    Raises:
        InputError: more than `MOST_PAIRS` pairs of S and T.
    """
    if not enumerable(items):
        raise InputError(
            f"the exact moments of reshuffling {len(items.rows)} items, {items.counts[0]} a "
            f"step, take {_pairs(items):.1g} products, more than {MOST_PAIRS:.0g}: take fewer "
            f"items, or particles (reshuffling_growth, reshuffling_lr_limit)"
        )
    hessians, slopes = items.hessians, items.gradients
    n, sets, used = len(hessians), np.zeros(1, np.int64), 0
    found: np.ndarray | None = None
    for count in items.counts:
        used += count
        after = _masks(n, used)
        parts = np.array(list(combinations(range(n), count)))
        steps = maps(hessians[parts].mean(1), slopes[parts].mean(1))
        q = steps.shape[-1] ** 2
        before = np.eye(q)[None] if found is None else found
        found = np.zeros((len(after), q, q))
        for mask, step in zip((1 << parts).sum(1), steps, strict=True):
            free = np.flatnonzero((sets & mask) == 0)
            found[np.searchsorted(after, sets[free] | mask)] += np.kron(step, step) @ before[free]
        found /= comb(used, count)
        sets = after
    assert found is not None
    if items.last is not None:
        step = maps(items.last.hessians, items.last.gradients)[0]
        return np.kron(step, step) @ found[0]
    return found[0]


def _masks(n: int, size: int) -> np.ndarray:
    """Return the sets of `size` out of n items as sorted numbers, one bit an item."""
    rows = np.array(list(combinations(range(n), size)), dtype=np.int64)
    return np.sort((1 << rows).sum(1))


def _linear(lr: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda h, g: np.eye(h.shape[-1]) - lr * h


def _affine(lr: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def maps(h: np.ndarray, g: np.ndarray) -> np.ndarray:
        found = np.tile(np.eye(h.shape[-1] + 1), (len(h), 1, 1))
        found[:, :-1] -= lr * np.concatenate([h, g[:, :, None]], 2)
        return found

    return maps


def reshuffling_radius(
    ls: LeastSquares, d: int, batch_size: int, lr: float, order: str = "shuffle"
) -> float:
    """Return rho(E[M x M]) of an epoch, exactly; second moments are bounded if it is below 1.

    In the directions that the data move. With one parameter and batches of one sample M does not
    depend on the order: the radius is prod (1 - lr h_i)^2.

    Args:
        batch_size: B; a ragged last batch is smaller.
        order: `shuffle` or `block_shuffle`.

    Raises:
        InputError: items that take more than `MOST_PAIRS` products (16 fit one, two or eight a
            step, not four; 20 fit ten a step, not one), more than `MOST_PARAMETERS` parameters,
            another order.
    """
    return epoch_radius(moving(items_of(ls, d, batch_size, order)), lr)


def epoch_radius(items: Items, lr: float) -> float:
    """Return rho(E[M x M]), exactly."""
    return float(np.abs(np.linalg.eigvals(_mean_product(items, _linear(lr)))).max())


def reshuffling_losses(
    ls: LeastSquares,
    w0: np.ndarray,
    d: int,
    batch_size: int,
    lr: float,
    epochs: int,
    order: str = "shuffle",
) -> np.ndarray:
    """Return the expected loss of all the data at the end of every epoch, `(epochs,)`, exactly.

    E[u u^T] of u = (z, 1) goes through the mean of (A x A), A the epoch's map of u. The other
    arguments and what is refused: see `reshuffling_radius`.
    """
    every = np.full(epochs, batch_size), np.full(epochs, lr)
    return resized_reshuffling_losses(ls, w0, d, *every, order)


def resized_reshuffling_losses(
    ls: LeastSquares,
    w0: np.ndarray,
    d: int,
    sizes: np.ndarray,
    rates: np.ndarray,
    order: str = "shuffle",
) -> np.ndarray:
    """Return the expected loss of all the data at the end of every epoch, `(E,)`, exactly.

    As `reshuffling_losses`, where batch size and step size change between epochs.

    Args:
        sizes: batch size of every epoch, `(E,)`.
        rates: step size of every epoch, `(E,)`.

    Raises:
        InputError: sizes that are no whole numbers from 1 to d, one an epoch.
    """
    sizes = whole_sizes(sizes, d, len(rates))
    u = np.append(np.asarray(w0, dtype=float) - ls.w_star, 1.0)
    state, h = np.outer(u, u).ravel(), np.pad(ls.hessian, (0, 1)).ravel()
    epochs: dict[tuple[int, float], np.ndarray] = {}
    found = np.empty(len(rates))
    for k, (size, lr) in enumerate(zip(sizes.tolist(), rates.tolist(), strict=True)):
        if (size, lr) not in epochs:
            epochs[size, lr] = _mean_product(items_of(ls, d, size, order), _affine(lr))
        state = epochs[size, lr] @ state
        found[k] = ls.least_loss + h @ state / 2
    return found


def reshuffling_share(
    lr_lambda: np.ndarray, d: int, batch_size: int, epochs: np.ndarray | None = None
) -> np.ndarray:
    """Return the share of the noise that shuffling leaves at the ends of epochs, per mode; exact.

    Where all samples have one Hessian; `reshuffling_factor` is its limit for many small steps. An
    epoch of m batches is z -> a^m z - lr sum_b a^(m - 1 - b) g_b, a = 1 - lr lambda. The g_b of
    independent batches have the variance s / B; those of a permutation s (d - B) / (B (d - 1)),
    and as they add up to nothing, any two the covariance of -1 / (m - 1) of that.

    Args:
        lr_lambda: lr times the mode's eigenvalue, between 0 and 2.
        batch_size: B, which divides d.
        epochs: `(k,)`, the ends of which epochs are averaged, of runs from the minimiser: of its
            noise a mode has 1 - a^(2 m k) after k of them. None: settled.

    Raises:
        InputError: a B that does not divide d into two batches or more; a mode that diverges.
    """
    a = 1 - np.asarray(lr_lambda, dtype=float)
    m = d // batch_size
    if m < 2 or d % batch_size:
        raise InputError(f"batches of one size, two or more: {batch_size} does not divide {d} so")
    if not (np.abs(a) < 1).all():
        raise InputError(f"lr lambda is between 0 and 2; got {quoted(lr_lambda)}")
    powers = a[..., None] ** np.arange(m)
    squares = (powers**2).sum(-1)
    pairs = (powers.sum(-1) ** 2 - squares) / (m - 1)
    once = finite_share(d, batch_size) * batch_size
    settled = once * (squares - pairs) / (1 - a ** (2 * m)) * (1 - a**2)
    if epochs is None:
        return np.asarray(settled)
    return np.asarray(settled * (1 - a[..., None] ** (2 * m * np.asarray(epochs))).mean(-1))


def mode_noise(ls: LeastSquares, d: int, batch_size: int, lr: float) -> np.ndarray:
    """Return the stationary variance of z in each mode, flattest first, of independent draws.

    lr^2 s / (B (1 - a^2)), a = 1 - lr lambda and s the mode's part of the gradients' covariance at
    w*. Where all samples have one Hessian; infinite where |a| >= 1.
    """
    spectrum, vectors = ls.modes
    s = ((gradients(ls, ls.w_star, d) @ vectors) ** 2).mean(0)
    kept = (1 - lr * spectrum) ** 2
    added = lr**2 * s / batch_size
    return np.divide(added, 1 - kept, out=np.full_like(kept, np.inf), where=kept < 1)


# ---- the law over seeds ---------------------------------------------------------------------


@np.errstate(over="ignore", invalid="ignore")
def reshuffled_losses(
    ls: LeastSquares,
    w0: np.ndarray,
    d: int,
    batch_size: int,
    lr: float,
    epochs: int,
    order: str = "shuffle",
    draws: int = 1000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return running and full loss by epoch of `draws` seeds, `(epochs, draws)` each, in float64.

    A sample of the law that seeds of a run are drawn from, by draws of its own: quantiles, where
    rare orders decide the mean; see `medians.median_band`. A tenth of a second for an epoch of 200
    steps of 1000 draws.

    Raises:
        InputError: too many parameters, another order.
    """
    items, generator = items_of(ls, d, batch_size, order), np.random.default_rng(seed)
    count, _, p = items.rows.shape
    left = np.tile(np.arange(count), (draws, 1))
    z = np.tile(np.asarray(w0, dtype=float) - ls.w_star, (draws, 1))
    running, full = np.zeros((epochs, draws)), np.empty((epochs, draws))
    for epoch in range(epochs):
        left = generator.permuted(left, axis=1)
        steps = [(items.rows, items.errors, size) for size in items.counts]
        parts = np.split(left, np.cumsum(items.counts)[:-1], axis=1)
        if items.last is not None:
            steps.append((items.last.rows, items.last.errors, 1))
            parts.append(np.zeros((draws, 1), dtype=int))
        for (rows, errors, size), part, samples in zip(steps, parts, items.sizes, strict=True):
            phi, e = rows[part].reshape(draws, -1, p), errors[part].reshape(draws, -1)
            error = (phi @ z[:, :, None])[:, :, 0] + e
            running[epoch] += samples / d * (error**2).sum(1) / (2 * size)
            z = z - lr / size * (error[:, None] @ phi)[:, 0]
        full[epoch] = ls.loss(ls.w_star + z)
    return running, full


def late_excess(full: np.ndarray, least: float) -> np.ndarray:
    """Return log10 of the excess loss by seed, the mean over the later half of the epochs, `(R,)`.

    The law of the excess over random orders has a long tail: a mean of the excess itself would be
    that of a few orders.

    Args:
        full: the loss of all the data by epoch and seed, `(E, R)`.
        least: the least loss.

    Example:
        >>> late_excess(np.array([[9.0], [101.0], [1001.0]]), 1.0)
        array([2.5])
    """
    return np.asarray(np.log10(full[len(full) // 2 :] - least).mean(0))
