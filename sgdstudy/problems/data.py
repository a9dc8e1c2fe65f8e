"""What people give as data, as tensors of a kind that a run can use."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from sgdstudy.errors import InputError, quoted, reason

DTYPES = {"float32": torch.float32, "float64": torch.float64}
WHOLE = {getattr(torch, f"{u}int{bits}") for u in ("", "u") for bits in (8, 16, 32, 64)}
READABLE = {*DTYPES.values(), *WHOLE, torch.bool}
CHECKED_AT_ONCE = 4_000_000  # values; a check holds a mark for each


def pair(test: Any) -> tuple[Any, Any]:
    """Return test data as x and y."""
    if not isinstance(test, (tuple, list)) or len(test) != 2:
        raise InputError(f"test is a pair (x, y) or None, not {quoted(test)}")
    return test[0], test[1]


def samples(x: Any, y: Any, loss: Any, what: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets of the same dtype; classes are whole numbers."""
    x = as_tensor(x, f"x of {what}")
    y = as_tensor(y, f"y of {what}")
    if x.dim() == 0 or x.numel() == 0:
        shape = tuple(x.shape)
        raise InputError(f"x of {what} has shape {shape}; expected (d,) or (d, n), not empty")
    if y.dim() == 0 or len(x) != len(y):
        given = f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}"
        raise InputError(f"{what}: {given}; expected the same number of samples")
    if not x.is_floating_point():
        x = x.to(torch.float32)
    if loss == "cross_entropy":
        if y.is_floating_point() or y.dim() != 1 or int(y.to(torch.int64).min()) < 0:
            raise InputError(f"{what}: cross_entropy needs y (d,) of integer classes 0, 1, ...")
        return x, y.to(torch.int64)
    return x, cast(y, x.dtype, f"y of {what}")


def as_tensor(values: Any, what: str, finite: bool = True) -> torch.Tensor:
    """Return an array or tensor of numbers as a tensor.

    Raises:
        InputError: no numbers, complex or half ones, or (where asked) any that are not finite.
    """
    if np.ma.is_masked(values):
        raise InputError(f"{what} is masked in places; remove or replace them")
    try:
        if not isinstance(values, torch.Tensor):
            values = np.asarray(values)
        with warnings.catch_warnings():  # arrays that are read only, as memory maps: we only read
            warnings.simplefilter("ignore", UserWarning)
            tensor = torch.as_tensor(values).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} is not an array of numbers ({reason(error)})") from None
    dense = tensor.layout == torch.strided and not tensor.is_meta
    if tensor.dtype not in READABLE or not dense:
        kind = "" if dense else " that is sparse or has no data"
        raise InputError(
            f"{what} is a tensor of {tensor.dtype}{kind}; expected float32, float64 or integers"
        )
    if finite:
        _refuse_holes(tensor, what, "remove or replace them")
    return tensor


def _refuse_holes(tensor: torch.Tensor, what: str, remedy: str) -> None:
    if not tensor.is_floating_point():
        return
    blocks = tensor.split(CHECKED_AT_ONCE) if tensor.dim() else (tensor,)
    bad = sum(block.numel() - int(torch.isfinite(block).sum()) for block in blocks)
    if bad:
        raise InputError(f"{what} holds {bad} values that are not finite; {remedy}")


def cast(tensor: torch.Tensor, dtype: torch.dtype, what: str) -> torch.Tensor:
    """Return the tensor in another dtype, which must hold its values."""
    if tensor.dtype == dtype:
        return tensor
    cast = tensor.to(dtype)
    _refuse_holes(cast, f"{what} in {str(dtype).removeprefix('torch.')}", "scale it down")
    return cast


def vector(values: Any, what: str, dtype: torch.dtype) -> torch.Tensor:
    """Return parameters `(p,)`."""
    tensor = as_tensor(values, what)
    if tensor.dim() != 1 or len(tensor) == 0:
        raise InputError(f"{what} has shape {tuple(tensor.shape)}; expected (p,), as [0.0, 0.0]")
    return cast(tensor, dtype, what)
