"""One step on a random batch: the first and second moments of what it makes of an error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sgdstudy.errors import InputError
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.theory.batch_vs_full import finite_share, gradients

MOST_PARAMETERS = 32  # their second moments: a matrix of a million numbers


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
    share = noise_share(d, batch_size, replacement)
    p = ls.features.shape[1]
    if momentum and p > MOST_PARAMETERS // 2:
        raise InputError(
            f"with momentum, theory goes up to {MOST_PARAMETERS // 2} parameters; there are {p}"
        )
    return _scaled(sample_moments(ls, d), lr, share, momentum, nesterov)


@dataclass(frozen=True)
class SampleMoments:
    """What the samples' Hessians H_i and gradients g_i at w* have in common, whatever the step."""

    hessian: np.ndarray  # (p, p)
    covariance: np.ndarray  # (p^2, p^2), of the H_i
    pair: np.ndarray  # (p, p, p), E[H_i z g_i^T] as a map of z
    gradients: np.ndarray  # (p, p), E[g_i g_i^T]


def sample_moments(ls: LeastSquares, d: int) -> SampleMoments:
    """Return what the samples of a problem have in common, whatever the step."""
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
    return SampleMoments(h, covariance, pair, g.T @ g / d)


def _scaled(
    one: SampleMoments, lr: float, share: float, momentum: float = 0.0, nesterov: bool = False
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


def noise_share(d: int, batch_size: int, replacement: bool) -> float:
    """Return which share of the samples' covariance the mean of a batch has."""
    return 1 / batch_size if replacement else finite_share(d, batch_size)
