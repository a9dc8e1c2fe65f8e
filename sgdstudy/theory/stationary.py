"""Where SGD settles: the steps at which second moments stay bounded, and what noise they keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.recipe.orders import batch_sizes
from sgdstudy.theory.batch_vs_full import gradients
from sgdstudy.theory.random_step import SampleMoments, noise_share, sample_moments, step_moments

if TYPE_CHECKING:
    from scipy.sparse import csr_array

FEW = 4  # parameters: a dense matrix is as quick as Lanczos


def mean_square_radius(
    ls: LeastSquares,
    d: int,
    batch_size: int,
    lr: float,
    replacement: bool = False,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> float:
    """Return rho(T): second moments stay bounded if and only if it is below 1.

    Of independent batches, in the directions in which the loss changes. Where B does not divide d,
    it is the m-th root of the radius of an epoch's m steps, the last batch smaller.
    """
    ls, sizes = ls.within, batch_sizes("shuffle", d, batch_size)
    if not momentum and len(set(sizes)) == 1:
        share, one = noise_share(d, batch_size, replacement), sample_moments(ls, d)
        return float(1 - lr * np.linalg.eigvalsh(_pull(one, lr, share))[0])
    options = (lr, replacement, momentum, nesterov)
    step, last = (step_moments(ls, d, size, *options).second for size in (sizes[0], sizes[-1]))
    radius = float(np.abs(np.linalg.eigvals(step)).max())
    if len(set(sizes)) == 1:
        return radius
    scale = max(radius, 1e-3)  # the power of many steps neither overflows nor vanishes
    epoch = last / scale @ np.linalg.matrix_power(step / scale, len(sizes) - 1)
    return float(scale * np.abs(np.linalg.eigvals(epoch)).max() ** (1 / len(sizes)))


def mean_square_lr_limit(
    ls: LeastSquares, d: int, batch_size: int, replacement: bool = False
) -> float:
    """Return the step size where second moments stop being bounded, rho(T) = 1.

    For independent batches; reshuffled ones stay bounded further. Where B does not divide d, an
    epoch's last batch is smaller, and the limit is between those of both sizes: where the map of
    an epoch stops being stable.

    Raises:
        InputError: a ragged batch and more than `MOST_PARAMETERS` parameters.
    """
    ls, rest = ls.within, d % batch_size
    high = _limit_of_size(ls, d, noise_share(d, batch_size, replacement))
    if not rest:
        return high
    one = sample_moments(ls, d)
    low = _limit_of_size(ls, d, noise_share(d, rest, replacement))

    def stable(lr: float) -> bool:
        return _epoch_gap(one, d, batch_size, lr, replacement) is not None

    grid = np.geomspace(low, high, 17)  # the first crossing, should there be several
    first = next((i for i, lr in enumerate(grid) if i and not stable(lr)), len(grid) - 1)
    low, high = grid[first - 1], grid[first]
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if stable(middle) else (low, middle)
    return float((low + high) / 2)


def _limit_of_size(ls: LeastSquares, d: int, share: float) -> float:
    """Return the limit of batches of one size, whose mean has share times the covariance.

    T C = C - lr (H C + C H) + lr^2 N(C) with N(C) = share E[H_i C H_i] + (1 - share) H C H, so that
    some C stays as it is when 1 / lr is an eigenvalue of N against C -> H C + C H: its largest. In
    the eigenbasis of H the latter is a division, and no matrix of p^2 x p^2 numbers is needed.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh  # late: 0.3 s

    spectrum, vectors = ls.modes
    phi = ls.features.reshape(d, -1, len(spectrum)) @ vectors
    outputs, p = phi.shape[1:]
    root = 1 / np.sqrt(spectrum[:, None] + spectrum)

    def apply(c: np.ndarray) -> np.ndarray:
        c = root * c.reshape(p, p)
        rows = (phi @ c @ phi.swapaxes(1, 2)) @ phi  # phi_i c phi_i^T phi_i
        random = phi.reshape(-1, p).T @ rows.reshape(-1, p) * 4 / outputs**2 / d
        found = share * random + (1 - share) * np.outer(spectrum, spectrum) * c
        return (root * found).ravel()

    if p <= FEW:  # too small for Lanczos
        return float(1 / np.linalg.eigvalsh([apply(c) for c in np.eye(p * p)])[-1])
    operator, start = LinearOperator((p * p, p * p), matvec=apply, dtype=float), np.eye(p).ravel()
    return float(1 / eigsh(operator, k=1, which="LA", v0=start, return_eigenvectors=False)[0])


def _pull(one: SampleMoments, lr: float, share: float) -> np.ndarray:
    """Return K with T = I - lr K, on symmetric matrices: `(n, n)`, n = p (p + 1) / 2.

    K C = H C + C H - lr (H C H + share cov(C)) is self-adjoint, and T maps what is positive to what
    is: rho(T) is its largest eigenvalue. Written so, a small lr costs no digits.
    """
    h, p = one.hessian, len(one.hessian)
    linear = np.kron(h, np.eye(p)) + np.kron(np.eye(p), h)
    whole = linear - lr * (np.kron(h, h) + share * one.covariance)
    basis = _symmetric(p)
    return np.asarray(basis.T @ (basis.T @ whole.T).T)


def _symmetric(p: int) -> csr_array:
    """Return an orthonormal basis of the symmetric matrices, `(p^2, p (p + 1) / 2)`."""
    from scipy.sparse import csr_array  # late: 0.3 s

    i, j = np.triu_indices(p)
    value, column = np.where(i == j, 0.5, 0.5**0.5), np.arange(len(i))
    places = np.concatenate([i * p + j, j * p + i])
    given = (np.tile(value, 2), (places, np.tile(column, 2)))
    return csr_array(given, shape=(p * p, len(i)))  # the diagonal's two halves are added


def _epoch_gap(
    one: SampleMoments, d: int, batch_size: int, lr: float, replacement: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return I - E and e of an epoch C -> E C + e, on symmetric matrices; None: not stable.

    Of n equal steps I - T^n and the sum of the noise are known from K's eigenvalues. E is stable
    where some positive X is more than E X; the X with X - E X = I, if any is.
    """
    sizes, basis = batch_sizes("shuffle", d, batch_size), _symmetric(len(one.hessian))
    gap, noise = np.zeros(2 * (basis.shape[1],)), np.zeros(basis.shape[1])
    for size in sorted(set(sizes), reverse=True):
        share, n = noise_share(d, size, replacement), sizes.count(size)
        kappa, q = np.linalg.eigh(_pull(one, lr, share))
        if kappa[0] <= 0 and size == batch_size:  # smaller batches are noisier still
            return None
        small = np.clip(lr * kappa, None, 0.5)  # 1 - (1 - x)^n without cancellation
        lost = np.where(
            lr * kappa < 0.5, -np.expm1(n * np.log1p(-small)), 1 - (1 - lr * kappa) ** n
        )
        sums = np.divide(lost, lr * kappa, out=np.full_like(lost, n), where=kappa != 0)
        added = lr**2 * share * (q.T @ (basis.T @ one.gradients.ravel()))
        power = (q * (1 - lost)) @ q.T
        gap = (q * lost) @ q.T + power @ gap
        noise = q @ (sums * added) + power @ noise
    if len(set(sizes)) > 1:
        identity = basis.T @ np.eye(len(one.hessian)).ravel()
        try:
            x = (basis @ np.linalg.solve(gap, identity)).reshape(one.hessian.shape)
        except np.linalg.LinAlgError:
            return None
        if np.linalg.eigvalsh(x)[0] <= 0:
            return None
    return gap, noise


def stationary_excess(
    ls: LeastSquares, d: int, batch_size: int, lr: float, replacement: bool = False
) -> float:
    """Return the excess loss E[L] - L* that SGD settles at; infinite where rho(T) >= 1.

    For independent batches: reshuffled, the noise is less (`reshuffling_factor`).
    vec C = T vec C + lr^2 share vec S, S the covariance of the gradients at w*; excess
    = tr(H C) / 2. For small lr about lr tr(S) share / 4, with label noise sigma
    lr sigma^2 tr(H) / (2 B). Where B does not divide d it is the excess at the ends of the epochs,
    after the smaller batch, which is the noisiest.
    """
    ls = ls.within
    c = _settled(ls, d, batch_size, lr, replacement)
    return np.inf if c is None else float((ls.hessian * c).sum() / 2)


def stationary_covariance(
    ls: LeastSquares, d: int, batch_size: int, lr: float, replacement: bool = False
) -> np.ndarray:
    """Return the covariance of w that SGD settles at, after each batch of an epoch, `(m, p, p)`.

    For independent batches: C = E[(I - lr H_b) C (I - lr H_b)] + lr^2 share S, see
    `stationary_excess`. The mean is w*. Where B does not divide d the last batch is smaller, and
    what it adds is forgotten over the next epoch; else all m are the same. Infinite where
    rho(T) >= 1; 0 in directions in which the loss does not change.
    """
    inner, sizes = ls.within, batch_sizes("shuffle", d, batch_size)
    c, p = _settled(inner, d, batch_size, lr, replacement), len(ls.w_star)
    if c is None:
        return np.full((len(sizes), p, p), np.inf)
    steps = {size: step_moments(inner, d, size, lr, replacement) for size in set(sizes)}
    found = []
    for size in sizes:
        c = (steps[size].second @ c.ravel() + steps[size].noise).reshape(c.shape)
        found.append(c)
    basis = np.eye(p) if inner is ls else ls.modes[1]
    return np.asarray(basis @ np.array(found) @ basis.T)


def ou_covariance(
    ls: LeastSquares, d: int, batch_size: int, lr: float, replacement: bool = False
) -> np.ndarray:
    """Return the stationary covariance of the process that SGD is for small steps, `(p, p)`.

    Of dz = -H z dt + (lr share)^(1/2) S^(1/2) dW, time being lr times steps: it solves
    H C + C H = lr share S (Mandt, Hoffman, Blei 2017). A step is taken to be so small that (lr H)^2
    does not matter, the noise to be the same everywhere, and all batches to be of B samples.
    """
    values, vectors = ls.modes
    g = gradients(ls, ls.w_star, d) @ vectors
    noise = lr * noise_share(d, batch_size, replacement) * g.T @ g / d
    return np.asarray(vectors @ (noise / (values[:, None] + values)) @ vectors.T)


def _settled(
    ls: LeastSquares, d: int, batch_size: int, lr: float, replacement: bool
) -> np.ndarray | None:
    """Return the stationary covariance at the ends of epochs, `(p, p)`; None: not stable."""
    found = _epoch_gap(sample_moments(ls, d), d, batch_size, lr, replacement)
    if found is None:
        return None
    try:
        c = np.linalg.solve(*found)
    except np.linalg.LinAlgError:  # rho(T) = 1, rounding aside
        return None
    return np.asarray(_symmetric(len(ls.w_star)) @ c).reshape(ls.hessian.shape)
