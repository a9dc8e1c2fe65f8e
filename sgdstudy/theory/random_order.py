"""Random orders and gradient noise: moments, limits, stationary loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sgdstudy.errors import InputError
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.recipe.orders import batch_sizes
from sgdstudy.theory.batch_vs_full import finite_share, gradients

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MOST_PARAMETERS = 32  # their second moments: a matrix of a million numbers
FEW = 4  # parameters: a dense matrix is as quick as Lanczos
MOST_NUMBERS = 3e8  # of moments along a path, held at once


@dataclass(frozen=True)
class Moments:
    """First and second moments of one random step, z -> (I - lr H_b) z - lr g_b.

    Batches are drawn without replacement inside, independently of each other: what random
    reshuffling is but for the memory within an epoch. With B of d samples, a batch's mean has the
    samples' covariance times share = (d - B) / (B (d - 1)).

    With momentum the state is (z, v), of 2 p numbers instead of p:
    v -> momentum v + H_b z + g_b, then z -> z - lr v; Nesterov's z -> z - lr (H_b z + g_b +
    momentum v).

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


def step_moments(
    ls: LeastSquares,
    d: int,
    batch_size: int,
    lr: float,
    replacement: bool = False,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> Moments:
    """Return the moments of a step of SGD.

    Args:
        momentum: as in `torch.optim.SGD`, without dampening.
        nesterov: whether the momentum is Nesterov's.

    Raises:
        InputError: more than `MOST_PARAMETERS` parameters (half as many with momentum).
    """
    share = _share(d, batch_size, replacement)
    p = ls.features.shape[1]
    if momentum and p > MOST_PARAMETERS // 2:
        raise InputError(
            f"with momentum, theory goes up to {MOST_PARAMETERS // 2} parameters; there are {p}"
        )
    return _scaled(_sample_moments(ls, d), lr, share, momentum, nesterov)


@dataclass(frozen=True)
class _SampleMoments:
    """What the samples' Hessians H_i and gradients g_i at w* have in common, whatever the step."""

    hessian: np.ndarray  # (p, p)
    covariance: np.ndarray  # (p^2, p^2), of the H_i
    pair: np.ndarray  # (p, p, p), E[H_i z g_i^T] as a map of z
    gradients: np.ndarray  # (p, p), E[g_i g_i^T]


def _sample_moments(ls: LeastSquares, d: int) -> _SampleMoments:
    p = ls.features.shape[1]
    if p > MOST_PARAMETERS:
        raise InputError(
            f"second moments of {p} parameters are a matrix of {p**2} x {p**2} numbers; theory "
            f"goes up to {MOST_PARAMETERS} parameters"
        )
    phi = ls.features.reshape(d, -1, p)
    each = 2 / phi.shape[1] * np.einsum("imp,imq->ipq", phi, phi)  # H_i
    g, h = gradients(ls, ls.w_star, d), ls.hessian
    flat = each.reshape(d, p * p)
    # E[H_i x H_i], entry (p, r, q, s), from a matrix product: quicker than an einsum by far
    square = (flat.T @ flat / d).reshape(p, p, p, p).transpose(0, 2, 1, 3)
    covariance = square.reshape(p * p, p * p) - np.kron(h, h)
    pair = (flat.T @ g / d).reshape(p, p, p).transpose(0, 2, 1)
    return _SampleMoments(h, covariance, pair, g.T @ g / d)


def _scaled(
    one: _SampleMoments, lr: float, share: float, momentum: float = 0.0, nesterov: bool = False
) -> Moments:
    """Return the moments of a step; a batch's mean has share times the samples' covariance."""
    p, identity = len(one.hessian), np.eye(len(one.hessian))
    cross = (one.pair + one.pair.transpose(1, 0, 2)).reshape(p * p, p)
    # the state u -> rest u + push (H_b z + g_b), z = read u
    blocks = np.array([[1.0]]), np.array([[-lr]]), np.array([[1.0]])
    if momentum:
        by_v, by_g = (momentum**2, 1 + momentum) if nesterov else (momentum, 1.0)
        of_z_and_v = np.array([[1.0, -lr * by_v], [0.0, momentum]])
        blocks = of_z_and_v, np.array([[-lr * by_g], [1.0]]), np.array([[1.0, 0.0]])
    rest, push, read = (np.kron(block, identity) for block in blocks)
    mean, both = rest + push @ one.hessian @ read, share * np.kron(push, push)
    return Moments(
        mean=mean,
        second=np.kron(mean, mean) + both @ one.covariance @ np.kron(read, read),
        cross=both @ cross @ read,
        noise=both @ one.gradients.ravel(),
    )


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
        share, one = _share(d, batch_size, replacement), _sample_moments(ls, d)
        return float(1 - lr * np.linalg.eigvalsh(_pull(one, lr, share))[0])
    options = (lr, replacement, momentum, nesterov)
    step, last = (step_moments(ls, d, size, *options).second for size in (sizes[0], sizes[-1]))
    radius = float(np.abs(np.linalg.eigvals(step)).max())
    if len(set(sizes)) == 1:
        return radius
    scale = max(radius, 1e-3)  # the power of many steps neither overflows nor vanishes
    epoch = last / scale @ np.linalg.matrix_power(step / scale, len(sizes) - 1)
    return float(scale * np.abs(np.linalg.eigvals(epoch)).max() ** (1 / len(sizes)))


def _share(d: int, batch_size: int, replacement: bool) -> float:
    return 1 / batch_size if replacement else finite_share(d, batch_size)


def _pull(one: _SampleMoments, lr: float, share: float) -> np.ndarray:
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
    one: _SampleMoments, d: int, batch_size: int, lr: float, replacement: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return I - E and e of an epoch C -> E C + e, on symmetric matrices; None: not stable.

    Of n equal steps I - T^n and the sum of the noise are known from K's eigenvalues. E is stable
    where some positive X is more than E X; the X with X - E X = I, if any is.
    """
    sizes, basis = batch_sizes("shuffle", d, batch_size), _symmetric(len(one.hessian))
    gap, noise = np.zeros(2 * (basis.shape[1],)), np.zeros(basis.shape[1])
    for size in sorted(set(sizes), reverse=True):
        share, n = _share(d, size, replacement), sizes.count(size)
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
    noise = lr * _share(d, batch_size, replacement) * g.T @ g / d
    return np.asarray(vectors @ (noise / (values[:, None] + values)) @ vectors.T)


def _settled(
    ls: LeastSquares, d: int, batch_size: int, lr: float, replacement: bool
) -> np.ndarray | None:
    """Return the stationary covariance at the ends of epochs, `(p, p)`; None: not stable."""
    found = _epoch_gap(_sample_moments(ls, d), d, batch_size, lr, replacement)
    if found is None:
        return None
    try:
        c = np.linalg.solve(*found)
    except np.linalg.LinAlgError:  # rho(T) = 1, rounding aside
        return None
    return np.asarray(_symmetric(len(ls.w_star)) @ c).reshape(ls.hessian.shape)


def moments_along(
    ls: LeastSquares,
    z0: np.ndarray,
    d: int,
    sizes: np.ndarray,
    rates: np.ndarray,
    replacement: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return E[z] `(S + 1, p)` and vec E[z z^T] `(S + 1, p^2)` before and after the steps.

    Of steps of `sizes` samples and of step sizes `rates`, `(S,)` each.
    """
    p, h = len(z0), ls.hessian
    n, identity = p * p, np.eye(p)
    if (len(rates) + 1) * (n + p + 1) > MOST_NUMBERS:
        raise InputError(
            f"the moments of {p} parameters over {len(rates)} steps are more than "
            f"{MOST_NUMBERS:g} numbers; ask for fewer steps"
        )
    # the state (vec E[z z^T], E[z], 1) moves by -lr linear + lr^2 square
    linear = np.zeros((n + p + 1, n + p + 1))
    linear[:n, :n] = np.kron(h, identity) + np.kron(identity, h)
    linear[n:-1, n:-1] = h
    squares = {}
    for size in set(sizes.tolist()):
        unit, square = step_moments(ls, d, size, 1.0, replacement), np.zeros_like(linear)
        square[:n, :n] = unit.second - np.eye(n) + linear[:n, :n]
        square[:n, n:-1], square[:n, -1] = unit.cross, unit.noise
        squares[size] = square
    found = np.empty((len(rates) + 1, n + p + 1))
    found[0] = np.concatenate([np.outer(z0, z0).ravel(), z0, [1.0]])
    with np.errstate(over="ignore", invalid="ignore"):  # beyond the limit it grows without bound
        for t, (lr, size) in enumerate(zip(rates, sizes.tolist(), strict=True)):
            square = squares[size]
            found[t + 1] = found[t] - lr * (linear @ found[t] - lr * (square @ found[t]))
    return found[:, n:-1], found[:, :n]


@np.errstate(over="ignore", invalid="ignore")  # an expectation without bound overflows
def expected_losses(
    ls: LeastSquares,
    w0: np.ndarray,
    d: int,
    batch_size: int,
    lr: float,
    epochs: int,
    replacement: bool = False,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the expected running loss and the expected full loss by epoch, `(epochs,)` each.

    For independent batches; of reshuffled ones it is the mean up to their memory within an epoch.
    The loss of a fresh batch at w has the expectation L(w); the running loss is the mean of these
    over the samples of the epoch. Where B does not divide d, the last batch is smaller. With
    momentum, which starts at 0, the state is (z, v).
    """
    p = len(ls.w_star)
    q = 2 * p if momentum else p
    z, n = np.pad(np.asarray(w0, dtype=float) - ls.w_star, (0, q - p)), q * q
    h = np.pad(ls.hessian, (0, q - p)).ravel()
    # a step is linear in (vec E[z z^T], E[z], 1, the sum over the samples of the excess before it)
    state = np.concatenate([np.outer(z, z).ravel(), z, [1.0, 0.0]])
    epoch_map, sizes = np.eye(len(state)), batch_sizes("shuffle", d, batch_size)
    for size in sorted(set(sizes), reverse=True):
        step = step_moments(ls, d, size, lr, replacement, momentum, nesterov)
        once = np.zeros_like(epoch_map)
        once[:n, :n], once[:n, n : n + q], once[:n, -2] = step.second, step.cross, step.noise
        once[n : n + q, n : n + q], once[-2, -2], once[-1, -1] = step.mean, 1.0, 1.0
        once[-1, :n] = size * h / 2
        epoch_map = np.linalg.matrix_power(once, sizes.count(size)) @ epoch_map
    running, full = np.empty(epochs), np.empty(epochs)
    for epoch in range(epochs):
        state[-1] = 0.0
        state = epoch_map @ state
        running[epoch] = ls.least_loss + state[-1] / d
        full[epoch] = ls.least_loss + h @ state[:n] / 2
    return unbounded(running), unbounded(full)


def unbounded(expected: np.ndarray) -> np.ndarray:
    """Return expectations with infinity for those that were beyond float64 on the way."""
    return np.where(np.isfinite(expected), expected, np.inf)


def first_below(losses: np.ndarray, epsilon: float) -> float:
    """Return the first epoch (from 1) whose loss is below epsilon; infinite if none is."""
    below = np.flatnonzero(losses < epsilon)
    return float(below[0] + 1) if len(below) else np.inf


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
    high = _limit_of_size(ls, d, _share(d, batch_size, replacement))
    if not rest:
        return high
    one = _sample_moments(ls, d)
    low = _limit_of_size(ls, d, _share(d, rest, replacement))

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


def reshuffling_factor(x: np.ndarray) -> np.ndarray:
    """Return the share of the noise that reshuffling leaves, per mode, x = m lr lambda.

    RR / WR about 1 - tanh(x / 2) / (x / 2), for small lr lambda and many batches of equal
    Hessians.
    """
    half = np.abs(np.asarray(x, dtype=float)) / 2
    small = half < 1e-2  # where the difference would cancel: its series
    safe = np.where(small, 1.0, half)
    return np.where(small, half**2 / 3 - 2 * half**4 / 15, 1 - np.tanh(safe) / safe)


def shuffle_once_factor(lr: float, eigenvalues: np.ndarray, m: int) -> np.ndarray:
    """Return the noise of one order for ever over that of reshuffling, per mode.

    SO / RR = (1 + a^m) / (1 - a^m), a = 1 - lr lambda: with one order the epochs' errors add up,
    reshuffled they average out. For all batches of one Hessian; infinite where nothing contracts,
    a^m >= 1.
    """
    a = (1 - lr * np.asarray(eigenvalues, dtype=float)) ** m
    return np.divide(1 + a, 1 - a, out=np.full_like(a, np.inf), where=a < 1)
