"""The mean absolute error of a model linear in w: a gradient that does not shrink."""

from __future__ import annotations

import numpy as np


def least_absolute_gradient(features: np.ndarray) -> float:
    """Return the least norm that the gradient of mean |r_i| has where no residual r_i is 0.

    It is the mean of sign(r_i) phi_i, one of finitely many vectors, however near the solution. The
    residual of a parabola changes its sign twice at most along the inputs: at the ends of one
    stretch of samples, whose sign is the other.

    Args:
        features: phi `(d, p)`, in the order of the inputs.

    Example:
        >>> round(least_absolute_gradient(np.array([[1.0], [1.0], [1.0]])), 9)  # two against one
        0.333333333
    """
    d = len(features)
    sums = np.concatenate([np.zeros((1, features.shape[1])), (features / d).cumsum(0)])
    rest = sums[-1] + 2 * sums  # all, less twice what lies between the first and the second change
    square = (rest**2).sum(1)[:, None] - 4 * rest @ sums.T + 4 * (sums**2).sum(1)
    return float(np.sqrt(np.maximum(square[np.triu_indices(len(square))].min(), 0.0)))
