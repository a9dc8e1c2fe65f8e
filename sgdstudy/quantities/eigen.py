"""Largest eigenvalues of many small symmetric matrices, the matrices along the last axis."""

from __future__ import annotations

import numpy as np

NEARLY_EQUAL = -0.9999  # cos(3 angle) below which the trigonometric form loses digits


def largest(matrices: np.ndarray) -> np.ndarray:
    r"""Return the largest (not the largest in size) eigenvalue of each matrix.

    Closed forms up to k = 3, elementwise, so that a row never depends on its neighbours; there

    \[\lambda = q + 2 r \cos(\tfrac13 \arccos \det((A - qI)/r)/2), \quad q = \mathrm{tr} A / 3,
    \quad r^2 = \|A - qI\|_F^2 / 6\]

    (Smith 1961), good to rounding of |A| but where the two largest nearly coincide: those few go
    through LAPACK, as all do above k = 3.

    Args:
        matrices: symmetric, `(k, k, n)`; the upper triangle is read.

    Returns:
        `(n,)`; NaN where an entry is not finite.
    """
    k = len(matrices)
    if k == 1:
        return matrices[0, 0].copy()
    if k == 2:
        a, b, c = matrices[0, 0], matrices[0, 1], matrices[1, 1]
        return (a + c) / 2 + np.hypot((a - c) / 2, b)
    if k == 3:
        return _trigonometric(matrices)
    return _lapack(matrices)


@np.errstate(all="ignore")
def _trigonometric(matrices: np.ndarray) -> np.ndarray:
    d, e, f = matrices[0, 1], matrices[0, 2], matrices[1, 2]
    q = (matrices[0, 0] + matrices[1, 1] + matrices[2, 2]) / 3
    a, b, c = (matrices[i, i] - q for i in range(3))
    r = np.sqrt((a * a + b * b + c * c + 2 * (d * d + e * e + f * f)) / 6)
    inverse = 1 / np.where(r == 0, np.inf, r)
    a, b, c, d, e, f = (entry * inverse for entry in (a, b, c, d, e, f))
    x = np.clip((a * (b * c - f * f) - d * (d * c - e * f) + e * (d * f - b * e)) / 2, -1, 1)
    values = q + 2 * r * np.cos(np.arccos(x) / 3)
    close = (x < NEARLY_EQUAL) & (r > 1e-8 * np.abs(q))
    if close.any():
        values[close] = _lapack(matrices[:, :, close])
    return values


def _lapack(matrices: np.ndarray) -> np.ndarray:
    finite = np.isfinite(matrices).all((0, 1))
    stacked = np.moveaxis(np.where(finite, matrices, 0), -1, 0)
    return np.where(finite, np.linalg.eigvalsh(stacked, UPLO="U")[:, -1], np.nan)
