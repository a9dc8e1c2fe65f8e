"""Random orders and gradient noise: moments, limits, stationary loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from sgdstudy.config import TrainConfig
from sgdstudy.errors import InputError
from sgdstudy.least_squares import LeastSquares
from sgdstudy.orders import Sampler, batch_sizes
from sgdstudy.problem import Problem
from sgdstudy.theory.batch_vs_full import finite_share, gradients
from sgdstudy.theory.descent import moments

MOST_PARAMETERS = 32  # their second moments: a matrix of a million numbers


@dataclass(frozen=True)
class Moments:
    """First and second moments of one random step, z -> (I - lr H_b) z - lr g_b.

    Batches are drawn without replacement inside, independently of each other: what random
    reshuffling is but for the memory within an epoch. With B of d samples, a batch's mean has the
    samples' covariance times share = (d - B) / (B (d - 1)).

    With momentum the state is (z, v), of 2 p numbers instead of p:
    v -> momentum v + H_b z + g_b, then z -> z - lr v.

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
) -> Moments:
    """Return the moments of a step of SGD.

    Args:
        ls: the problem.
        d: number of samples.
        batch_size: B.
        lr: step size.
        replacement: whether a batch may hold a sample twice; else its samples differ.
        momentum: as in `torch.optim.SGD`, without dampening or Nesterov's variant.

    Raises:
        InputError: more than `MOST_PARAMETERS` parameters (half as many with momentum).
    """
    share = 1 / batch_size if replacement else finite_share(d, batch_size)
    p = ls.features.shape[1]
    if momentum and p > MOST_PARAMETERS // 2:
        raise InputError(
            f"with momentum, theory goes up to {MOST_PARAMETERS // 2} parameters; there are {p}"
        )
    return _scaled(_sample_moments(ls, d), lr, share, momentum)


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


def _scaled(one: _SampleMoments, lr: float, share: float, momentum: float = 0.0) -> Moments:
    """Return the moments of a step; a batch's mean has share times the samples' covariance."""
    p, identity = len(one.hessian), np.eye(len(one.hessian))
    cross = (one.pair + one.pair.transpose(1, 0, 2)).reshape(p * p, p)
    # the state u -> rest u + push (H_b z + g_b), z = read u
    blocks = np.array([[1.0]]), np.array([[-lr]]), np.array([[1.0]])
    if momentum:
        of_z_and_v = np.array([[1.0, -lr * momentum], [0.0, momentum]])
        blocks = of_z_and_v, np.array([[-lr], [1.0]]), np.array([[1.0, 0.0]])
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
) -> float:
    """Return rho(T): second moments stay bounded if and only if it is below 1."""
    second = step_moments(ls, d, batch_size, lr, replacement, momentum).second
    return float(np.abs(np.linalg.eigvals(second)).max())


def stationary_excess(
    ls: LeastSquares, d: int, batch_size: int, lr: float, replacement: bool = False
) -> float:
    """Return the excess loss E[L] - L* that SGD settles at; infinite where rho(T) >= 1.

    vec C = T vec C + lr^2 share vec S, S the covariance of the gradients at w*; excess
    = tr(H C) / 2. For small lr about lr tr(S) share / 4, with label noise sigma
    lr sigma^2 tr(H) / (2 B).
    """
    moments_ = step_moments(ls, d, batch_size, lr, replacement)
    if np.abs(np.linalg.eigvals(moments_.second)).max() >= 1:
        return np.inf
    try:
        c = np.linalg.solve(np.eye(len(moments_.noise)) - moments_.second, moments_.noise)
    except np.linalg.LinAlgError:  # rho(T) = 1, rounding aside
        return np.inf
    return float(ls.hessian.ravel() @ c / 2)


def moments_along(
    ls: LeastSquares, z0: np.ndarray, d: int, batch_size: int, rates: np.ndarray, replacement: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return E[z] `(S + 1, p)` and vec E[z z^T] `(S + 1, p^2)` before and after the steps.

    The first step begins an epoch, whose last batch is smaller where B does not divide d.
    """
    p, h, sizes = len(z0), ls.hessian, batch_sizes(None, d, batch_size)
    n, identity = p * p, np.eye(p)
    # the state (vec E[z z^T], E[z], 1) moves by -lr linear + lr^2 square
    linear = np.zeros((n + p + 1, n + p + 1))
    linear[:n, :n] = np.kron(h, identity) + np.kron(identity, h)
    linear[n:-1, n:-1] = h
    squares = {}
    for size in set(sizes):
        unit, square = step_moments(ls, d, size, 1.0, replacement), np.zeros_like(linear)
        square[:n, :n] = unit.second - np.eye(n) + linear[:n, :n]
        square[:n, n:-1], square[:n, -1] = unit.cross, unit.noise
        squares[size] = square
    found = np.empty((len(rates) + 1, n + p + 1))
    found[0] = np.concatenate([np.outer(z0, z0).ravel(), z0, [1.0]])
    with np.errstate(over="ignore", invalid="ignore"):  # beyond the limit it grows without bound
        for t, lr in enumerate(rates):
            square = squares[sizes[t % len(sizes)]]
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
) -> tuple[np.ndarray, np.ndarray]:
    """Return the expected running loss and the expected full loss by epoch, `(epochs,)` each.

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
    epoch_map, sizes = np.eye(len(state)), batch_sizes(None, d, batch_size)
    for size in sorted(set(sizes), reverse=True):
        step, once = step_moments(ls, d, size, lr, replacement, momentum), np.zeros_like(epoch_map)
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


def lyapunov(
    problem: Problem,
    batch_size: int,
    lr: float,
    epochs: int = 6,
    replicas: int = 64,
    replacement: bool = False,
    momentum: float = 0.0,
) -> float:
    """Return the top Lyapunov exponent per step of random batches, estimated by products.

    The growth of log|z| under z -> (I - lr H_b) z, over `replicas` long products, the first epoch
    left out. Almost every path converges, noise aside, if and only if the exponent is below 0; the
    mean square may still diverge (`mean_square_lr_limit`). Batches are reshuffled every epoch, or
    drawn with replacement. With momentum, of (z, lr momentum v).

    Raises:
        InputError: the loss is not `mse`, or the model not linear in w.
    """
    ls, generator = moments(problem), np.random.default_rng(0)
    phi = ls.features.reshape(problem.d, -1, ls.features.shape[1])
    m, p = problem.d // batch_size, phi.shape[2]
    z, moved, total = np.ones((replicas, p)), np.zeros((replicas, p)), 0.0
    for epoch in range(epochs):
        order = (
            generator.integers(problem.d, size=(replicas, problem.d))
            if replacement
            else generator.permuted(np.tile(np.arange(problem.d), (replicas, 1)), axis=1)
        )
        for batch in order[:, : m * batch_size].reshape(replicas, m, batch_size).swapaxes(0, 1):
            rows = phi[batch].reshape(replicas, -1, p)
            error = np.einsum("rnp,rp->rn", rows, z)
            slope = 2 / rows.shape[1] * np.einsum("rnp,rn->rp", rows, error)
            moved = momentum * moved - lr * slope
            z = z + moved
            both = np.concatenate([z, momentum * moved], axis=1)
            length = np.linalg.norm(both, axis=1, keepdims=True)
            z, moved = z / length, moved / length
            total += float(np.log(length).mean()) if epoch else 0.0
    return total / ((epochs - 1) * m)


def lyapunov_zero_lr(
    problem: Problem, batch_size: int, low: float, high: float, replacement: bool = False
) -> float:
    """Return the step size where the Lyapunov exponent crosses 0, to one part in a thousand.

    The exponent must be below 0 at `low` and above at `high`; the same batches are used for every
    step size, so that the crossing is one.
    """
    while high / low > 1 + 1e-3:
        middle = float(np.sqrt(low * high))
        below = lyapunov(problem, batch_size, middle, replacement=replacement) < 0
        low, high = (middle, high) if below else (low, middle)
    return low


def mean_square_lr_limit(
    ls: LeastSquares, d: int, batch_size: int, replacement: bool = False
) -> float:
    """Return the step size where second moments stop being bounded, rho(T) = 1.

    T C = C - lr (H C + C H) + lr^2 N(C) with N(C) = share E[H_i C H_i] + (1 - share) H C H, so that
    some C stays as it is when 1 / lr is an eigenvalue of N against C -> H C + C H: its largest. In
    the eigenbasis of H the latter is a division, and no matrix of p^2 x p^2 numbers is needed.
    """
    spectrum, vectors = np.linalg.eigh(ls.hessian)
    phi = ls.features.reshape(d, -1, len(spectrum)) @ vectors
    outputs, p = phi.shape[1:]
    share = 1 / batch_size if replacement else finite_share(d, batch_size)
    sums = spectrum[:, None] + spectrum
    moves = sums > 1e-12 * spectrum[-1]  # nothing moves in directions without data
    root = np.sqrt(np.divide(1, sums, out=np.zeros_like(sums), where=moves))

    def apply(c: np.ndarray) -> np.ndarray:
        c = root * c.reshape(p, p)
        rows = (phi @ c @ phi.swapaxes(1, 2)) @ phi  # phi_i c phi_i^T phi_i
        random = phi.reshape(-1, p).T @ rows.reshape(-1, p) * 4 / outputs**2 / d
        found = share * random + (1 - share) * np.outer(spectrum, spectrum) * c
        return (root * found).ravel()

    start = np.eye(p).ravel()
    if p == 1:  # too small for Lanczos
        return float(1 / apply(start)[0])
    operator = LinearOperator((p * p, p * p), matvec=apply, dtype=float)
    return float(1 / eigsh(operator, k=1, which="LA", v0=start, return_eigenvectors=False)[0])


def reshuffling_factor(x: np.ndarray) -> np.ndarray:
    """Return the share of the noise that reshuffling leaves, per mode, x = m lr lambda.

    RR / WR about 1 - tanh(x / 2) / (x / 2).
    """
    half = np.asarray(x, dtype=float) / 2
    return 1 - np.tanh(half) / half


def shuffle_once_factor(lr: float, eigenvalues: np.ndarray, m: int) -> np.ndarray:
    """Return the noise of one order for ever over that of reshuffling, per mode.

    SO / RR = (1 + a^m) / (1 - a^m), a = 1 - lr lambda: with one order the epochs' errors add up,
    reshuffled they average out.
    """
    a = (1 - lr * np.asarray(eigenvalues, dtype=float)) ** m
    return (1 + a) / (1 - a)
