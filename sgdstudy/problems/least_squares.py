"""The exact loss and gradient of a least-squares problem, at every step, nearly free.

For a model linear in w, f(w, x_i) = o_i + phi_i . w, the mean square over all data is

    L(w) = L* + |S V^T (w - w*)|^2 / N,        grad L(w) = (2 / N) V S^2 V^T (w - w*)

with Phi = U S V^T the features `(N, p)` and N = d m. Written this way nothing cancels near w*.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sgdstudy.errors import InputError, quoted


@dataclass(frozen=True)
class LeastSquares:
    """Moments of a least-squares problem, in float64.

    Attributes:
        features: `(N, p)`, d f / d w for every sample and output.
        residual: `(N,)`, features @ w_star - target: what no parameters can fit.
        w_star: `(p,)`, the least-norm minimiser.
        least_loss: the loss there.
        root: `(min(N, p), p)`, S V^T / sqrt(N): L(w) = least_loss + |root (w - w_star)|^2.
        outputs: numbers that the model returns for a sample, N = d outputs.
    """

    features: np.ndarray
    residual: np.ndarray
    w_star: np.ndarray
    least_loss: float
    root: np.ndarray
    outputs: int = 1

    @cached_property
    def modes(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues of the Hessian above 0, `(r,)`, smallest first, and their vectors `(p, r)`.

        From the singular values of the features, whose rounding is not squared. The loss does not
        depend on the other p - r directions, in which no gradient ever moves the parameters.
        """
        _, s, vt = np.linalg.svd(self.root, full_matrices=False)
        keep = s > s.max(initial=0) * _rounding(self.features.shape)
        return 2 * s[keep][::-1] ** 2, vt[keep][::-1].T

    @cached_property
    def within(self) -> LeastSquares:
        """The same problem in coordinates of the directions in which the loss changes, `(r,)`.

        w = w_star + modes[1] (v - within.w_star); itself where all p directions do.
        """
        basis = self.modes[1]
        if basis.shape[1] == len(self.w_star):
            return self
        rows, root = self.features @ basis, self.root @ basis
        w_star = self.w_star @ basis
        return LeastSquares(rows, self.residual, w_star, self.least_loss, root, self.outputs)

    @property
    def terms(self) -> np.ndarray:
        """How large the numbers are of which each residual is the difference, `(N,)`, at w*.

        A computer rounds a residual as they are rounded.
        """
        size: np.ndarray = np.abs(self.features) @ np.abs(self.w_star) + np.abs(self.residual)
        return size

    @property
    def hessian(self) -> np.ndarray:
        """Hessian of the loss, `(p, p)`: (2 / N) Phi^T Phi."""
        return 2 * self.root.T @ self.root

    def at_excess(self, shares: np.ndarray) -> np.ndarray:
        """Parameters `(p,)` whose excess loss is `shares` `(p,)`, from the flattest direction on.

        z = sum_j sqrt(2 share_j / lambda_j) v_j, of the Hessian's eigenvectors.

        Raises:
            InputError: other than p shares of at least 0, or one in a direction without curvature.
        """
        values, vectors = np.linalg.eigh(self.hessian)
        given = np.asarray(shares, dtype=float)
        flat = values <= values[-1] * _rounding(self.features.shape)
        if given.shape != values.shape or not (given >= 0).all() or (given[flat] > 0).any():
            raise InputError(
                f"shares are {len(values)} excess losses, at least 0, and 0 where the loss does "
                f"not change ({flat.sum()} directions); got {quoted(shares)}"
            )
        z = np.sqrt(2 * np.divide(given, values, out=np.zeros_like(given), where=~flat))
        return np.asarray(self.w_star + vectors @ z)

    def loss(self, w: np.ndarray) -> np.ndarray:
        """Loss of all the data at parameters `(..., p)`."""
        return self.least_loss + self.excess(w)

    def excess(self, w: np.ndarray) -> np.ndarray:
        """Loss above the least one at parameters `(..., p)`, to its last places near w* too."""
        with np.errstate(over="ignore", invalid="ignore"):
            return (_times(w - self.w_star, self.root.T) ** 2).sum(-1)

    def gradient(self, w: np.ndarray) -> np.ndarray:
        """Gradient of the loss of all the data at parameters `(..., p)`."""
        with np.errstate(over="ignore", invalid="ignore"):
            return _times(w - self.w_star, self.hessian)


def _times(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return `rows @ matrix` for rows `(..., p)`.

    BLAS rounds a row by how many others stand beside it; up to 16 parameters it is avoided, so
    that a seed's figures do not depend on the other seeds.
    """
    if len(matrix) > 16:
        return rows @ matrix
    return np.einsum("...p,pj->...j", rows, matrix)


def from_features(features: np.ndarray, target: np.ndarray, outputs: int = 1) -> LeastSquares:
    """Return the moments for features `(N, p)` and targets `(N,)`, so many outputs a sample."""
    q, r = np.linalg.qr(features)
    u, s, vt = np.linalg.svd(r, full_matrices=False)
    keep = s > s.max(initial=0) * _rounding(features.shape)
    inverse = np.divide(1, s, out=np.zeros_like(s), where=keep)
    w_star = vt.T @ (inverse * (u.T @ (q.T @ target)))
    residual = features @ w_star - target
    root = s[:, None] * vt / np.sqrt(len(target))
    return LeastSquares(features, residual, w_star, float(np.mean(residual**2)), root, outputs)


def _rounding(shape: tuple[int, ...]) -> float:
    """Return the share of the largest singular value below which one is rounding."""
    return max(shape) * float(np.finfo(float).eps)
