"""Torch modules as functions of their parameters."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from sgdstudy.errors import InputError, failed, first_line, message
from sgdstudy.problems.data import holds, is_of_its_own
from sgdstudy.problems.trial import undrawn

MOVED = 0.1  # relative change of the parameters, to see whether the module reads them
TIMES = 3  # as often
KINDS = re.compile("int64|long", re.IGNORECASE)  # what torch's message on a wrong dtype says
CLOSE = 1000  # roundings of the largest output
HOW = "draw its initial values yourself, as w_init=callable(generator)"


def uncompiled(model: Any) -> Any:
    """Return a module or function as it was before `torch.compile`; anything else as it is.

    Our own steps are compiled as a whole; a part that is compiled hides what it does.
    """
    if isinstance(model, nn.Module):
        return getattr(model, "_orig_mod", model)
    return getattr(model, "_torchdynamo_orig_callable", model)


def copied(module: nn.Module) -> nn.Module:
    """Return a module of its own, which no later change of the given one reaches.

    Raises:
        InputError: it cannot be copied, holds no numbers, or has hooks on gradients, which a copy
            would not have.
    """
    _refuse_gradient_hooks(module)
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(value):
            raise InputError(
                f"{name!r} of the module {type(module).__name__} is lazy, and has no shape yet; "
                f"call the module once, as module(x[:2])"
            )
        if value.is_meta or is_of_its_own(value):
            raise InputError(
                f"{name!r} of the module {type(module).__name__} holds no numbers that can be "
                f"read: it was made on the device meta, in a FakeTensorMode, or is of a class of "
                f"its own"
            )
    try:
        own = copy.deepcopy(uncompiled(module))
    except Exception as error:
        raise failed(f"copying the module {type(module).__name__}", error) from error
    for part in own.modules():
        for name, child in part.named_children():
            if uncompiled(child) is not child:
                setattr(part, name, uncompiled(child))
    return own


def _refuse_gradient_hooks(module: nn.Module) -> None:
    for name, value in module.named_parameters():
        if value._backward_hooks or getattr(value, "_post_accumulate_grad_hooks", None):
            raise InputError(
                f"the module's parameter {name!r} has a hook on its gradient, which replicas would "
                f"not call; clip with clip_norm or clip_value, or write an optimizer that does it"
            )
    for name, part in module.named_modules():
        if part._backward_hooks or part._backward_pre_hooks:
            raise InputError(
                f"the module has a hook on gradients ({name or type(part).__name__}), which "
                f"replicas would not call; clip with clip_norm or clip_value, or write an "
                f"optimizer that does it"
            )


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
    whole = _takes_whole(module, x)
    shapes = {name: value.shape for name, value in named.items()}
    sizes = [value.numel() for value in named.values()]
    fixed = {name: value.clone() for name, value in module.named_buffers()}
    fixed |= {name: value.detach().clone() for name, value in every.items()}

    def model(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        parts = torch.split(w, sizes)
        pairs = zip(shapes.items(), parts, strict=True)
        values = {name: part.reshape(shape) for (name, shape), part in pairs}
        return torch.func.functional_call(module, (values, fixed), (x.long() if whole else x,))

    w = torch.cat([value.detach().flatten() for value in named.values()])
    _require_read_by_name(module, model, w, x, names, whole)
    return model, w


def _takes_whole(module: nn.Module, x: torch.Tensor) -> bool:
    """Whether a module takes inputs as int64, as embeddings do: it fails on floats.

    Raises:
        InputError: it fails either way, or does what replicas could not follow.
    """
    few = x[:2]
    try:
        _refuse_side_effects(module, few.to(next(module.parameters()).dtype))
    except InputError as error:
        if not (KINDS.search(message(error)) and holds(torch.int64, x)):
            raise
        _refuse_side_effects(module, few.long())
        return True
    return False


def load(module: nn.Module, w: torch.Tensor, names: Collection[str]) -> nn.Module:
    """Put parameters `(p,)` into a module, in place; return it."""
    every: Mapping[str, nn.Parameter] = dict(module.named_parameters())
    with torch.no_grad():
        for name, part in zip(names, w.split([every[n].numel() for n in names]), strict=True):
            every[name].copy_(part.reshape(every[name].shape))
    return module


def resetting(
    module: nn.Module, names: Collection[str]
) -> Callable[[torch.Generator], torch.Tensor]:
    """Return what draws the parameters that a module's layers start from, for a generator's seed.

    They are reset innermost first, in float32, as where `torch.manual_seed(seed)` comes before the
    module is made: of layers that are made in the order in which they stand, the same numbers.

    Args:
        module: whose layers have `reset_parameters`, as torch's do; see `torch.nn.Module.apply`.
        names: of the parameters wanted.

    Raises:
        InputError: some of them belong to no layer that can be reset, or are parametrized.
    """
    fresh, resets = copied(module).float(), dict[int, Callable[[], Any]]()
    reached: set[str] = set()
    for at, part in fresh.named_modules():
        if hasattr(part, "parametrizations"):
            raise InputError(f"{at or type(part).__name__} is parametrized; {HOW}")
        reset = getattr(part, "reset_parameters", getattr(part, "_reset_parameters", None))
        if reset is not None:
            resets[id(part)] = reset
            reached |= {f"{at}.{name}" if at else name for name, _ in part.named_parameters()}
    if missing := [name for name in names if name not in reached]:
        raise InputError(f"{missing[0]!r} belongs to no layer with reset_parameters; {HOW}")

    def start(generator: torch.Generator) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(generator.initial_seed())
            fresh.apply(lambda part: resets.get(id(part), int)())
        values = dict(fresh.named_parameters())
        return torch.cat([values[name].detach().flatten() for name in names])

    return start


def _require_read_by_name(
    module: nn.Module,
    model: Callable[..., Any],
    w: torch.Tensor,
    x: torch.Tensor,
    names: Collection[str],
    whole: bool,
) -> None:
    """Refuse a module that reads a parameter from a list or a view of its own.

    With other values it is not f(w, x) then: some of w would never be trained.
    """
    draw, few = torch.Generator().manual_seed(0), x[:2].to(w.dtype)
    close, other = CLOSE * torch.finfo(w.dtype).eps, copied(module)
    for _ in range(TIMES):
        moves = MOVED * torch.randn(len(w), generator=draw).to(w.device, w.dtype)
        moved = w + moves * (1 + w.abs())
        with torch.no_grad():
            try:
                found, again = model(moved, few), model(moved, few)
                expected = load(other, moved, names)(few.long() if whole else few)
                if not torch.equal(found, again):
                    return  # it draws or counts: the trial of the problem says so, too
                off = (found - expected).abs().max() / expected.abs().max()
            except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
                return  # no tensor, or empty: the trial of the problem says so
        if off > close:
            raise InputError(
                f"the module {type(module).__name__} does not read all its parameters by their "
                f"names (from a list?), so that they would not be trained; read them as attributes "
                f"in forward"
            )


def _refuse_side_effects(module: nn.Module, x: torch.Tensor) -> None:
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0 and part.training:
            raise InputError(
                f"the module holds dropout ({name or type(part).__name__}), which draws from the "
                f"global generator; remove it or call module.eval()"
            )
    trial = copied(module)
    before = {name: value.clone() for name, value in trial.named_buffers()}
    with torch.no_grad():
        try:
            undrawn(f"the module {type(module).__name__}", lambda: trial(x))
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"the module failed on x of shape {tuple(x.shape)}: {first_line(error)}"
            ) from error
    for name, value in trial.named_buffers():
        if not torch.equal(value, before[name]):
            raise InputError(
                f"the module's forward pass changes its buffer {name!r} (batch normalisation?); "
                f"replicas could not share it: remove it or call module.eval()"
            )
