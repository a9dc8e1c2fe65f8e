"""Whether a model is linear in its parameters, and its loss a sum of squares; the moments then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sgdstudy.problems import together
from sgdstudy.problems.least_squares import LeastSquares, from_features
from sgdstudy.problems.torch_operations import Watch, address, tensors_in

MAX_PARAMETERS = 256
MAX_ENTRIES = 2e8  # features held in memory once, float64
TRIED = 2000  # samples on which linearity is tried first
LARGEST = 1e60  # of the features, and of 1 over them: fourth powers stay finite
# errors, as shares of the largest target, at which a loss is compared with a square
SIZES = (1e-6, 1e-3, 1.0, 1e3, 1e6, 1e12, 1e30, 1e100)
PROBED = (1.0, 1.0, 10.0, 1e2, 1e3, 1e6)  # sizes of parameters at which a model is compared
Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def is_tried(outputs: int, p: int) -> bool:
    """Whether features of so many outputs, of all samples, and parameters fit into memory."""
    return p <= MAX_PARAMETERS and outputs * p <= MAX_ENTRIES


def moments(
    predict: Predict, x: torch.Tensor, y: torch.Tensor, p: int, loss: Any = "mse"
) -> LeastSquares | None:
    """Return the moments of a mean of squares of all the data; None where the loss is not one.

    The features come from the model itself, evaluated in float64 at 0 and the unit vectors. It is
    linear where every operation on the parameters is (`Operations`), so that it is for any
    parameters; random points, small and large, see what is done outside of torch. Weights of the
    squares scale rows: with c_io of sample i and output o, those of m c_io are of an unweighted
    mean.

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
        if not _is_linear(predict, x[few], p):
            return None
        if len(x) > TRIED and _features(predict, x[few], p) is None:
            return None
        found = _features(predict, x, p)
    except (RuntimeError, TypeError):  # a model that does not run in float64 has no exact loss
        return None
    if found is None or len(found[0]) != y.numel():  # a loss of other shapes
        return None
    offset, features = found
    if not _is_of_samples(predict, x, offset, features):
        return None
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
    except Exception:  # a loss that does not run in float64, or on so many samples
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


# operations of ATen that are linear in all their tensors of floats together
_SUMS = """
    add sub rsub neg sum mean cumsum trace clone copy _to_copy detach lift_fresh alias cat stack
    view _unsafe_view reshape _reshape_alias expand select slice split split_with_sizes unbind t
    transpose permute squeeze unsqueeze diagonal diag_embed as_strided unfold tril triu flip roll
    rot90 repeat index index_select gather take masked_select index_put index_add index_copy
    scatter scatter_add select_scatter slice_scatter diagonal_scatter masked_scatter embedding
    constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d im2col
    col2im pixel_shuffle avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d
    upsample_nearest1d upsample_nearest2d upsample_bilinear2d real imag view_as_real
    view_as_complex _fft_r2c _fft_c2r _fft_c2c _conj _conj_physical
"""
SUMS = frozenset(_SUMS.split())
# linear if at most one of the arguments at these places depends on the parameters
PRODUCTS = {
    **dict.fromkeys(("mul", "mm", "bmm", "mv", "dot", "vdot", "convolution", "linear"), (0, 1)),
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "addbmm", "addr", "addcmul"), (1, 2)),
    "_trilinear": (0, 1, 2),
}
# linear if only the first argument depends on the parameters
FIRST = ("div", "masked_fill", "index_fill")
# do not look at the values of what they are given
_VALUELESS = """
    zeros_like ones_like full_like empty_like rand_like randn_like zero fill new_zeros new_ones
    new_full new_empty new_empty_strided
"""
VALUELESS = frozenset(_VALUELESS.split())


class Operations(Watch):
    """Follows which tensors depend on the parameters, and whether all of it is linear in them.

    Attributes:
        linear: whether all operations so far were.
    """

    def __init__(self, w: torch.Tensor) -> None:
        super().__init__()
        self.linear = True
        self._varying = {address(w)}
        self._alive: list[Any] = [w]  # so that no address is used twice

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and note whether it is linear."""
        out = func(*args, **(kwargs or {}))
        self._alive.append(out)
        given = (*args, *(kwargs or {}).values())
        if not any(map(self.varies, given)):
            return out
        name = func.overloadpacket.__name__.removesuffix("_")  # in place it is the same
        if name in VALUELESS:
            return out
        outs = tensors_in([out])
        # whole numbers are rounded, and values that leave torch may decide anything
        continuous = outs and all(t.is_floating_point() or t.is_complex() for t in outs)
        self.linear &= bool(continuous) and self._is_linear(name, given)
        self._varying |= set(map(address, outs))
        return out

    def varies(self, value: Any) -> bool:
        """Whether a value is, or holds, a tensor that depends on the parameters."""
        return any(address(t) in self._varying for t in tensors_in([value]))

    def _is_linear(self, name: str, given: tuple[Any, ...]) -> bool:
        if any(isinstance(value, str) for value in given):
            return False  # a mode of rounding or reducing
        if name in SUMS:
            return True
        if name in PRODUCTS:
            return sum(self.varies(given[k]) for k in PRODUCTS[name]) <= 1
        if name in FIRST:
            return not any(map(self.varies, given[1:]))
        return name == "where" and len(given) == 3 and not self.varies(given[0])


def _is_linear(predict: Predict, x: torch.Tensor, p: int) -> bool:
    w = torch.ones(1, p, dtype=torch.float64)
    with torch.no_grad(), Operations(w) as operations:
        out = predict(w, x[None])
    # what comes from elsewhere, as through numpy, may be anything
    return operations.linear and operations.varies(out)


def _features(
    predict: Predict, x: torch.Tensor, p: int
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return offset `(N,)` and features `(N, p)` of a model linear in w at inputs x, else None."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor(PROBED, dtype=torch.float64)[:, None]
    probes = sizes * torch.randn(len(PROBED), p, generator=generator, dtype=torch.float64)
    probes = torch.cat([probes, -probes])
    points = torch.cat([torch.zeros(1, p, dtype=torch.float64), torch.eye(p).double(), probes])
    with torch.no_grad():
        values = torch.stack([predict(w[None], x[None])[0] for w in points])
    values = values.reshape(len(points), -1)
    offset = values[0]
    features = (values[1 : p + 1] - offset).T
    error = (offset + probes @ features.T - values[p + 1 :]).abs().max(1).values
    largest = torch.maximum(values[: p + 1].abs().max(), values[p + 1 :].abs().max(1).values)
    return (offset, features) if (error <= 1e-9 * largest).all() else None


def _is_of_samples(
    predict: Predict, x: torch.Tensor, offset: torch.Tensor, features: torch.Tensor
) -> bool:
    """Whether a sample has its features beside any others, and autograd's slopes are these too.

    Not where a batch is centred; nor where a gradient is stopped, clipped or turned on its way.
    """
    p, draw = features.shape[1], torch.Generator().manual_seed(0)
    every = torch.cat([offset[:, None], features], 1).reshape(len(x), -1, p + 1)
    with together.trying():
        for rows, scale in together.batches(x):
            w = torch.randn(1, p, generator=draw, dtype=x.dtype).requires_grad_()
            found = predict(w, x[rows[1:]]).flatten()
            weights = scale * torch.randn(len(found), generator=draw, dtype=x.dtype)
            (slope,) = torch.autograd.grad(found, w, weights)
            here = every[rows[1]].reshape(-1, p + 1)
            off = here[:, 0] + here[:, 1:] @ w.detach()[0] - found.detach()
            if not bool((off.abs() <= 1e-9 * here.abs().sum(1).max()).all()):
                return False
            off, size = slope[0] - weights @ here[:, 1:], weights.abs() @ here.abs().amax(1)
            if not bool((off.abs() <= 1e-9 * size).all()):
                return False
    return True
