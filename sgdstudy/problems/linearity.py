"""Whether a model is linear in its parameters; its features and moments then."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sgdstudy.problems.least_squares import LeastSquares, from_features

MAX_PARAMETERS = 256
MAX_ENTRIES = 2e8  # features held in memory once, float64
TRIED = 1000  # samples on which linearity is tried first
LARGEST = 1e60  # of the features, and one over the smallest: fourth powers stay finite
Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def is_tried(outputs: int, p: int) -> bool:
    """Whether features of so many outputs, of all samples, and parameters fit into memory."""
    return p <= MAX_PARAMETERS and outputs * p <= MAX_ENTRIES


def moments(predict: Predict, x: torch.Tensor, y: torch.Tensor, p: int) -> LeastSquares | None:
    """Return the moments of a mean square of all the data; None where the model is not linear.

    The features come from the model itself, evaluated in float64 at 0 and the unit vectors;
    two random points decide whether it is linear.

    Args:
        predict: parameters `(1, p)`, inputs `(1, d, ...)` -> predictions `(1, d, ...)`.
        x: the inputs, `(d, ...)`, float64.
        y: the targets, `(d, ...)`, float64.
        p: number of parameters.
    """
    few = slice(0, None, -(-len(x) // TRIED))  # enough to see most models are not linear
    try:
        if _features(predict, x[few], p) is None:
            return None
        found = _features(predict, x, p)
    except (RuntimeError, TypeError):  # a model that does not run in float64 has no exact loss
        return None
    if found is None:
        return None
    offset, features = found
    largest = float(features.abs().max())
    if not 1 / LARGEST < largest < LARGEST:  # nothing to learn from, or squares overflow
        return None
    target = (y.flatten() - offset).numpy()
    return from_features(features.numpy(), target, len(target) // len(x))


def _features(
    predict: Predict, x: torch.Tensor, p: int
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return offset `(N,)` and features `(N, p)` of a model linear in w at inputs x, else None."""
    generator = torch.Generator().manual_seed(0)
    probes = torch.randn(2, p, generator=generator, dtype=torch.float64)
    points = torch.cat([torch.zeros(1, p, dtype=torch.float64), torch.eye(p).double(), probes])
    with torch.no_grad():
        values = torch.stack([predict(w[None], x[None])[0] for w in points])
    values = values.reshape(len(points), -1)
    offset = values[0]
    features = (values[1 : p + 1] - offset).T
    error = (offset + probes @ features.T - values[p + 1 :]).abs().max()
    return (offset, features) if error <= 1e-9 * values.abs().max() else None
