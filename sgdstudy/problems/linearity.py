"""Whether a model is linear in its parameters, and its loss a sum of squares; the moments then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sgdstudy.problems.least_squares import LeastSquares, from_features

MAX_PARAMETERS = 256
MAX_ENTRIES = 2e8  # features held in memory once, float64
TRIED = 1000  # samples on which linearity is tried first
LARGEST = 1e60  # of the features, and one over the smallest: fourth powers stay finite
# errors, as shares of the largest target, at which a loss is compared with a square
SIZES = (1e-6, 1e-3, 1.0, 1e3, 1e6, 1e12, 1e30, 1e100)
Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def is_tried(outputs: int, p: int) -> bool:
    """Whether features of so many outputs, of all samples, and parameters fit into memory."""
    return p <= MAX_PARAMETERS and outputs * p <= MAX_ENTRIES


def moments(
    predict: Predict, x: torch.Tensor, y: torch.Tensor, p: int, loss: Any = "mse"
) -> LeastSquares | None:
    """Return the moments of a mean of squares of all the data; None where the loss is not one.

    The features come from the model itself, evaluated in float64 at 0 and the unit vectors;
    two random points decide whether it is linear. Weights of the squares scale rows: with c_io of
    sample i and output o, those of m c_io are of an unweighted mean.

    Args:
        predict: parameters `(1, p)`, inputs `(1, d, ...)` -> predictions `(1, d, ...)`.
        x: the inputs, `(d, ...)`, float64.
        y: the targets, `(d, ...)`, float64.
        p: number of parameters.
        loss: `mse`, or a function (prediction, y) -> one value per sample.
    """
    scale = scales(loss, y)
    if scale is None:
        return None
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
    target = y.flatten() - offset
    if loss != "mse":
        features, target = features * scale[:, None], target * scale
    return from_features(features.numpy(), target.numpy(), len(target) // len(x))


def scales(loss: Any, y: torch.Tensor) -> torch.Tensor | None:
    """Return by what rows are multiplied so that a loss is their mean square; None: it is none.

    For a loss sum_o c_io (f_io - y_io)^2 of sample i, sqrt(m c_io), `(N,)`, N = d m. The c come
    from its gradient; that half of the samples alone have the same, and errors of many sizes
    and both signs, decide whether it is one.

    Args:
        loss: a name of `losses.LOSSES`, or a function (prediction, y) -> one value per sample.
        y: the targets, `(d, ...)`, float64.
    """
    if loss == "mse":
        return y.new_ones(y.numel())
    if not callable(loss):
        return None
    half = y[: min(-(-len(y) // 2), TRIED)]
    try:
        few = _weights(loss, half)
        every = None if few is None else _weights(loss, y)
    except Exception:  # one that does not run in float64, or on so many, is known to nobody
        return None
    if few is None or every is None or not _near(every[: len(few)], few):
        return None
    return (y[0].numel() * every.flatten()).sqrt()


def _weights(loss: Callable[..., Any], y: torch.Tensor) -> torch.Tensor | None:
    """Return c `(d, ...)`, where the loss of sample i is sum_o c_io (f_io - y_io)^2, else None."""
    size = max(1.0, float(y.abs().max()))
    f = (y + size).requires_grad_()
    (slope,) = torch.autograd.grad(loss(f, y).sum(), f)
    weights = slope / (2 * (f.detach() - y))
    if not (torch.isfinite(weights).all() and (weights >= 0).all()):
        return None
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for share in SIZES:
            off = share * size * torch.randn(y.shape, generator=generator, dtype=y.dtype)
            for f in (y + off, y - off):
                square = (weights * (f - y) ** 2).reshape(len(y), -1).sum(1)
                if not _near(loss(f, y), square):
                    return None
    return weights


def _near(values: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool(((values - expected).abs() <= 1e-9 * expected).all())


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
