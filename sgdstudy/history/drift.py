"""How far parameters are behind the true ones, which may move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Behind:
    """What R seeds are off by before S of their steps, and what theory expects.

    Attributes:
        step: the steps, `(S,)`.
        excess: z^T H z / 2 with z = w - w*(step), `(S, R)`: the loss that strangers have above that
            of the true parameters, H their Hessian.
        loss: of the step's own batch, `(S, R)`.
        expected: the mean that theory expects of the excess, `(S,)`.
    """

    step: np.ndarray
    excess: np.ndarray
    loss: np.ndarray
    expected: np.ndarray

    @property
    def over_expected(self) -> np.ndarray:
        """Excess over its expectation, a mean over the logarithm of the time, `(R,)`."""
        weights = 1 / (self.step + 1)
        share: np.ndarray = weights @ (self.excess / self.expected[:, None]) / weights.sum()
        return share


def excess_behind(w: np.ndarray, true: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Return z^T H z / 2 with z = w - true, `(S, R)`, of w `(S, R, p)` and true `(S, p)`.

    >>> w, true = np.ones((2, 1, 1)), np.array([[1.0], [3.0]])
    >>> excess_behind(w, true, np.full((1, 1), 2.0)).ravel()
    array([0., 4.])
    """
    z = w - true[:, None]
    found: np.ndarray = np.einsum("srp,pq,srq->sr", z, hessian, z) / 2
    return found
