"""Random orders: what is expected on the way, and the noise that reshuffling leaves."""

from __future__ import annotations

import numpy as np

from sgdstudy.errors import InputError
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.recipe.orders import batch_sizes
from sgdstudy.theory.random_step import step_moments

MOST_NUMBERS = 3e8  # of moments along a path, held at once


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
