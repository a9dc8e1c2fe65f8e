"""Watching the ATen operations of a model while it runs: whether it is linear, how to compile it.

Names of torch that are not documented: `torch.utils._python_dispatch.TorchDispatchMode` and its
`_should_skip_dynamo`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Watch(TorchDispatchMode):
    """Within it, every operation goes through `__torch_dispatch__`, which a subclass has."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first use imports torch._dynamo, 1.2 s


def tensors_in(values: Iterable[Any]) -> list[torch.Tensor]:
    """Return the tensors among some values, and in lists and tuples of them."""
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, list | tuple):
            found += tensors_in(value)
        elif isinstance(value, torch.Tensor):
            found.append(value)
    return found


def address(tensor: torch.Tensor) -> int:
    """Return what tells a tensor's storage from others, as long as it is alive."""
    return tensor.untyped_storage().data_ptr()
