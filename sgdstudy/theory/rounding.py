"""How far rounding can take a run of plain gradient steps from the same steps in exact numbers.

Every step rounds the parameters, by up to half a unit in their last place, at most eps |w|: evenly
spread, a variance of (eps |w|)^2 / 12. Along an eigenvector of the Hessian with eigenvalue lambda
the next step leaves a = 1 - lr lambda of the error, so that k steps whose rounding scatters add up
to (1 - a^2k) / (1 - a^2) times that. A step of only s units in the last place is rounded the same
way again and again: that leaves c / (8 s^2) of the distance c to go, up to s = 1/2, where nothing
moves any more (`theory.float32_floor`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sgdstudy.problems.least_squares import LeastSquares

DEVIATIONS = 4  # how many standard deviations of scattering errors count as possible
EPS = 2.0**-23  # of float32


def sum_rounding(terms: int, operations: int = 1, eps: float = EPS) -> float:
    """Return how far a sum of rounded terms may be off, relative to the sum of their sizes.

    4 sqrt(operations terms) eps / 2: every operation rounds by eps / 2 at most, at random, and
    what scatters adds up by its squares; four standard deviations of that.

    Args:
        terms: how many are added up.
        operations: roundings of each, that of the sum included.
        eps: relative distance of two neighbouring numbers.

    Example:
        >>> sum_rounding(16) == 8 * 2.0**-23
        True
    """
    return float(DEVIATIONS * np.sqrt(operations * terms) * eps / 2)


def growth_rounding(pull: float, eps: float = EPS) -> float:
    """Return how far the growth (1 - pull)^2 of a loss, read off a run, may be off, relative.

    The step size is rounded to the run's dtype, which pull - 1 amplifies; the gradient and both
    losses are sums of rounded terms: a few units in the last place each.

    Args:
        pull: lr lambda_max, above 2: beyond the limit.
        eps: relative distance of two neighbouring numbers.
    """
    return eps * (10 * pull / (pull - 1) + 16)


@dataclass(frozen=True)
class Rounding:
    """The rounding of a run.

    Attributes:
        ls: the moments of the problem.
        lr: step size.
        eps: relative distance of two neighbouring numbers, of the run's dtype.
    """

    ls: LeastSquares
    lr: float
    eps: float

    def after(
        self, before: np.ndarray, z: np.ndarray, steps: int, growth: np.ndarray
    ) -> np.ndarray:
        """Return the variance of w's error along the eigenvectors after more steps, `(R, p)`.

        Args:
            before: the same before them.
            z: the parameters less w*, before them, `(R, p)`.
            steps: their number.
            growth: by how much some stretch of them multiplies an error, `(R,)`.
        """
        square = np.minimum((1 - self.lr * self._spectrum) ** 2, 1.0)
        kept = square**steps
        lost = 1 - square
        count = np.divide(1 - kept, lost, out=np.full_like(lost, steps), where=lost > 1e-15)
        w = np.maximum(np.abs(self.ls.w_star + z).max(-1), self._size)
        one = growth * self.eps * w / 12**0.5
        return kept * before + count * one[:, None] ** 2

    def of_a_batch(self, size: int) -> float:
        """Return how much more than its own rounding moves w in a step on a batch, a factor.

        A residual is rounded as |phi| |w| is, and its share of the step is 2 lr |phi| / size: added
        up over the batch, at the largest |phi|. And the steps that theory takes are of float64.
        """
        moved = 2 * self.lr * (self.ls.features**2).sum(-1).max() / np.sqrt(size)
        own = float(np.finfo(float).eps) / self.eps
        return float(np.sqrt((1 + moved**2) * (1 + own**2)))

    def of_powers(self, z: np.ndarray, k: int) -> np.ndarray:
        """Return how far theory's own (1 - lr lambda)^k may put z along the eigenvectors, `(R, p)`.

        float64 has the eigenvalues to eps times the largest.
        """
        off = float(np.finfo(float).eps) * k * self.lr * self._spectrum[-1]
        return off * np.linalg.norm(z, axis=-1, keepdims=True) * np.ones_like(z)

    def of_w(self, variance: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return how far off w may be along the eigenvectors, `(R, p)`."""
        ulp, pull = self.eps * self._size, self.lr * self._spectrum
        left = np.abs(z @ self._vectors)
        with np.errstate(divide="ignore", invalid="ignore"):
            stuck = np.where(pull > 0, ulp / (2 * pull), 0.0)
            regular = left / (8 * (pull * left / ulp) ** 2)
            still = np.where(np.isfinite(regular), np.minimum(regular, stuck), stuck)
        return DEVIATIONS * np.sqrt(variance) + still

    @property
    def of_minimiser(self) -> float:
        """How far off theory's own w* may be: the features' condition, of what float64 rounds."""
        curved = self._spectrum[self._spectrum > 1e-14 * self._spectrum.max()]
        size, eps = np.linalg.norm(self.ls.w_star), float(np.finfo(float).eps)
        return float(DEVIATIONS * eps * size * np.sqrt(curved.max() / curved).sum())

    def of_loss(self, variance: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return how far off the loss of all the data may be, as w is, `(R,)`."""
        off, left = self.of_w(variance, z), np.abs(z @ self._vectors)
        return (off * (left + off / 2)) @ self._spectrum

    def of_seen(self, loss: np.ndarray) -> np.ndarray:
        """Return how far off a recorded loss `(R,)` may be for its own sum: residuals are rounded.

        Each is a difference of numbers as large as the target's terms; their errors scatter.
        """
        n = len(self.ls.residual)
        cross = 2 * np.sqrt(loss / n) * self._residual
        return DEVIATIONS * (cross + self.eps * loss) + self._residual**2

    @cached_property
    def _spectrum(self) -> np.ndarray:
        return np.maximum(self._eigen[0], 0.0)

    @cached_property
    def _vectors(self) -> np.ndarray:
        return self._eigen[1]

    @cached_property
    def _eigen(self) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = np.linalg.eigh(self.ls.hessian)
        return values, vectors

    @cached_property
    def _size(self) -> float:
        return float(np.abs(self.ls.w_star).max())

    @cached_property
    def _residual(self) -> float:
        return self.eps * float(np.sqrt(np.mean(self.ls.terms**2)))
