"""The batches of an order of the samples, epoch by epoch, each as a map of z = w - w*."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from sgdstudy.errors import InputError
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.recipe.orders import Sampler
from sgdstudy.theory.descent import moments


@dataclass(frozen=True)
class Batches:
    """The batches of one epoch, as maps z -> (I - lr H_b) z - lr g_b.

    Attributes:
        hessians: `(m, p, p)`.
        gradients: `(m, p)`, at w*.
        losses: `(m,)`, at w*.
        sizes: `(m,)`, samples.
    """

    hessians: np.ndarray
    gradients: np.ndarray
    losses: np.ndarray
    sizes: np.ndarray

    @property
    def steepest(self) -> tuple[np.ndarray, np.ndarray]:
        """The largest eigenvalue of every Hessian, `(m,)`, and its eigenvector, `(m, p)`."""
        values, vectors = np.linalg.eigh(self.hessians)
        return values[:, -1], vectors[:, :, -1]

    def share_along_steepest(self, z: np.ndarray) -> np.ndarray:
        """Return which share of each error's length lies along its batch's steepest direction.

        |v_b . z_b| / |z_b|, `(k,)`, of the errors z that the first k batches meet, `(k, p)`. A
        batch multiplies what lies along v_b by 1 - lr lambda.
        """
        along = np.einsum("bp,bp->b", z, self.steepest[1][: len(z)])
        share: np.ndarray = np.abs(along) / np.linalg.norm(z, axis=1)
        return share

    def factors(self, lr: float) -> np.ndarray:
        """Return I - lr H_b, `(m, p, p)`."""
        return np.eye(self.hessians.shape[1]) - lr * self.hessians


def batches(problem: Problem, config: TrainConfig, epoch: int = 1) -> Batches:
    """Return the batches that the first seed of a configuration meets in an epoch (from 1)."""
    return next(islice(batches_by_epoch(problem, config), epoch - 1, None))


def batches_by_epoch(
    problem: Problem, config: TrainConfig, ls: LeastSquares | None = None
) -> Iterator[Batches]:
    """Yield the batches that the first seed of a configuration meets, epoch after epoch.

    Args:
        problem: least squares.
        config: its order and batch size.
        ls: other moments than the problem's; None: those.
    """
    ls, sizes = ls or moments(problem), np.array(config.batch_sizes(problem.d))
    p = ls.features.shape[1]
    features = ls.features.reshape(problem.d, -1, p)
    residual = ls.residual.reshape(problem.d, -1)
    n_whole = int((sizes == sizes[0]).sum())  # then the short one, if there is one
    for pieces in indices_by_epoch(problem, config, config.seeds[0]):
        parts = [np.array(pieces[:n_whole]), *(rest[None] for rest in pieces[n_whole:])]
        hessians, gradients, losses = [], [], []
        for part in parts:
            phi = features[part].reshape(len(part), -1, p)
            error = residual[part].reshape(len(part), -1)
            n = error.shape[1]
            hessians.append(2 / n * phi.transpose(0, 2, 1) @ phi)
            gradients.append(2 / n * np.einsum("bnp,bn->bp", phi, error))
            losses.append((error**2).sum(1) / n)
        yield Batches(
            np.concatenate(hessians), np.concatenate(gradients), np.concatenate(losses), sizes
        )


def indices_by_epoch(
    problem: Problem, config: TrainConfig, seed: int
) -> Iterator[list[np.ndarray]]:
    """Yield the samples of the batches that a seed meets, epoch after epoch.

    Raises:
        InputError: an order that is not known ahead, or ends.
    """
    config.check(problem)
    sizes = config.batch_sizes(problem.d)
    sampler = Sampler.of(problem, config, [seed])
    while True:
        try:
            indices = sampler.take(sum(sizes))[0].numpy()
        except StopIteration:
            raise InputError("the order that was given has no more epochs") from None
        yield np.split(indices, np.cumsum(sizes)[:-1])
