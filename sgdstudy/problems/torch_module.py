"""Torch modules as functions of their parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn

from sgdstudy.errors import InputError, failed
from sgdstudy.problems.trial import undrawn


def copied(module: nn.Module) -> nn.Module:
    """Return a module of its own, which no later change of the given one reaches."""
    try:
        return copy.deepcopy(module)
    except Exception as error:
        raise failed(f"copying the module {type(module).__name__}", error) from error


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the module's parameters that are trained, by name: those that want a gradient.

    Raises:
        InputError: it has none.
    """
    found = {name: value for name, value in module.named_parameters() if value.requires_grad}
    if not found:
        frozen = ": all of its are frozen" if any(True for _ in module.parameters()) else ""
        raise InputError(f"the module {type(module).__name__} has no parameters to train{frozen}")
    return found


def functional(
    module: nn.Module, x: torch.Tensor, names: Collection[str]
) -> tuple[Callable[..., Any], torch.Tensor]:
    """Return f(w, x) over the module's flattened parameters, and their present values `(p,)`.

    Args:
        module: what is trained.
        x: inputs, to try it.
        names: of the parameters that w holds; the others stay as they are now.
    """
    every = dict(module.named_parameters())
    named = {name: every.pop(name) for name in names}
    _refuse_side_effects(module, x)
    shapes = {name: value.shape for name, value in named.items()}
    sizes = [value.numel() for value in named.values()]
    fixed = {name: value.clone() for name, value in module.named_buffers()}
    fixed |= {name: value.detach().clone() for name, value in every.items()}

    def model(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        parts = torch.split(w, sizes)
        pairs = zip(shapes.items(), parts, strict=True)
        values = {name: part.reshape(shape) for (name, shape), part in pairs}
        return torch.func.functional_call(module, (values, fixed), (x,))

    return model, torch.cat([value.detach().flatten() for value in named.values()])


def _refuse_side_effects(module: nn.Module, x: torch.Tensor) -> None:
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0 and part.training:
            raise InputError(
                f"the module holds dropout ({name or type(part).__name__}), which draws from the "
                f"global generator; remove it or call module.eval()"
            )
    trial = copied(module)
    before = {name: value.clone() for name, value in trial.named_buffers()}
    dtype = next(trial.parameters()).dtype
    with torch.no_grad():
        try:
            undrawn(f"the module {type(module).__name__}", lambda: trial(x[:2].to(dtype)))
        except InputError:
            raise
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise InputError(
                f"the module failed on x of shape {tuple(x[:2].shape)}: {first}"
            ) from error
    for name, value in trial.named_buffers():
        if not torch.equal(value, before[name]):
            raise InputError(
                f"the module's forward pass changes its buffer {name!r} (batch normalisation?); "
                f"replicas could not share it: remove it or call module.eval()"
            )
