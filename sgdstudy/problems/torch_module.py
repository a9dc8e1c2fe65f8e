"""Torch modules as functions of their parameters."""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
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
    kept = _tensors_in(vars(part) for part in module.modules())
    memo = {id(t): _left(t) for t in kept if not t.is_leaf or _is_batched(t)}
    try:
        own = copy.deepcopy(uncompiled(module), memo)
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


def _tensors_in(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Yield the tensors among values, and in lists and dicts of them."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif type(value) in (list, tuple, dict):
            yield from _tensors_in(value.values() if isinstance(value, dict) else value)


def _is_batched(tensor: torch.Tensor) -> bool:
    """Whether a tensor is of replicas side by side, as a hook may have left it in a module."""
    try:
        tensor.untyped_storage()
    except NotImplementedError:
        return True
    return False


def _left(tensor: torch.Tensor) -> torch.Tensor | None:
    """Return what of a computed tensor a module goes on to keep, which no copy is made of."""
    return None if _is_batched(tensor) else tensor.detach().clone()


def require_apart(given: nn.Module, model: Functional, x: torch.Tensor) -> None:
    """Refuse a module whose copy reads parameters of the one that it was copied from.

    They would not be trained: a lambda, a hook or a weak reference that it holds of itself goes on
    to mean the other one.

    Args:
        given: the user's own; its parameters are others for a moment.
        model: the copy.
        x: inputs, to try it.
    """
    moved = [value for value in given.parameters() if value.requires_grad]
    held = [value.data for value in moved]

    def found() -> torch.Tensor:
        value: torch.Tensor = model(model.w, x[:2].to(model.w.dtype))
        return value.nan_to_num(nan=1.25)

    with torch.no_grad():
        try:
            before = found()
            if not torch.equal(found(), before):
                return  # it draws or counts: the trial of the problem says so
            for value in moved:
                value.data = value.data + 1
            after = found()
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            return  # no tensor: the trial of the problem says so
        finally:
            for value, data in zip(moved, held, strict=True):
                value.data = data
    if not torch.equal(after, before):
        raise InputError(
            f"the module {type(given).__name__} reads parameters by what it holds of itself (a "
            f"lambda or hook that names self, a weak reference), which means the module given, "
            f"not the copy that is trained; make it a method, or read self in forward"
        )


class Functional:
    """f(w, x) over a module's flattened parameters.

    Args:
        module: what is trained.
        x: inputs, to try it.
        names: of the parameters that w holds; the others stay as they are now.
    """

    def __init__(self, module: nn.Module, x: torch.Tensor, names: Collection[str]) -> None:
        every = dict(module.named_parameters())
        named = {name: every.pop(name) for name in names}
        places = _places(module)
        self._source, self._module = module, _apart(module)
        self._whole = _takes_whole(module, x)
        self._names = list(named)
        self._shapes = [value.shape for value in named.values()]
        self._sizes = [value.numel() for value in named.values()]
        self._places = [places[id(value)] for value in named.values()]
        self._fixed = {
            place: value.detach().clone()
            for value in (*module.buffers(), *every.values())
            for place in places[id(value)]
        }
        self.w = torch.cat([value.detach().flatten() for value in named.values()])
        _require_read_by_name(module, self, self.w, x, names, self._whole)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_module": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _module=_apart(state["_source"]))

    def __call__(self, w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the module's output for parameters `(p,)`."""
        return self.of(torch.split(w, self._sizes), x)

    def of(self, parts: Iterable[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """Return the module's output for parameters one by one, flat each."""
        shaped = [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)]
        return self._called(shaped, x)

    def _called(self, shaped: Iterable[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        values = dict(self._fixed)
        for part, places in zip(shaped, self._places, strict=True):
            values |= dict.fromkeys(places, part)
        given = (x.long() if self._whole else x,)
        # by all its names: torch's own ties go wrong where a layer itself has two
        return torch.func.functional_call(self._module, values, given, tie_weights=False)

    def require_unwritten(self, w: torch.Tensor, x: torch.Tensor) -> None:
        """Refuse a module whose forward pass writes into its parameters where they are `(p,)`.

        Raises:
            InputError: it does.
        """
        parts = zip(self._names, w.detach().split(self._sizes), self._shapes, strict=True)
        values = {name: part.clone().reshape(shape) for name, part, shape in parts}
        held = _Held(values)
        with torch.no_grad():
            self._called(values.values(), x)
        held.require_unwritten(values)

    def reached(self, x: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor]) -> list[bool]:
        """Return of which parameters a loss of the output is a function at all."""
        parts = [part.detach().clone().requires_grad_() for part in self.w.split(self._sizes)]
        value = loss(self.of(parts, x)).sum()
        return [slope is not None for slope in torch.autograd.grad(value, parts, allow_unused=True)]


def _apart(module: nn.Module) -> nn.Module:
    """Return a module that holds the same tensors; what its calls leave in it is in no other.

    Of `self.attention = scores.detach()` there are replicas, which nothing can copy.
    """
    tensors = (*module.parameters(), *module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def _places(module: nn.Module) -> dict[int, list[str]]:
    """Return by what names a module holds each parameter and buffer, by its `id`.

    A layer that it holds twice has one of its names: it is one place. Tied parameters have several.
    """
    found: dict[int, list[str]] = defaultdict(list)
    for at, part in module.named_modules():
        for name, value in (*part._parameters.items(), *part._buffers.items()):
            if value is not None:
                found[id(value)].append(f"{at}.{name}" if at else name)
    return found


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
        inner = fresh.get_submodule(missing[0].rpartition(".")[0])
        own = "" if type(inner).__module__.startswith("torch.") else type(inner).__name__
        also = f", or give {own} a method reset_parameters" if own else ""
        raise InputError(f"{missing[0]!r} belongs to no layer with reset_parameters; {HOW}{also}")

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
    """Refuse a module that reads a parameter from a list or a view of its own, or when it is late.

    With other values it is not f(w, x) then: some of w would never be trained. Late is a part that
    is computed once more for the gradient (`torch.utils.checkpoint`): by then it has its own again.
    """
    draw, few = torch.Generator().manual_seed(0), x[:2].to(w.dtype)
    close, other = CLOSE * torch.finfo(w.dtype).eps, copied(module)
    for _ in range(TIMES):
        moves = MOVED * torch.randn(len(w), generator=draw).to(w.device, w.dtype)
        moved = (w + moves * (1 + w.abs())).requires_grad_()
        try:
            found, again = model(moved, few), model(moved, few)
            expected = load(other, moved, names)(few.long() if whole else few)
            if not torch.equal(found, again):
                return  # it draws or counts: the trial of the problem says so, too
            off = [_off(found, expected)]
            (slope,) = torch.autograd.grad(found.sum(), moved)
            off.append(_off(slope, _slope(expected, other, names)))
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            return  # no tensor, or empty: the trial of the problem says so
        if max(off) > close:
            raise InputError(
                f"the module {type(module).__name__} does not read all its parameters by their "
                f"names (from a list?), or not again for its gradient (torch.utils.checkpoint?), "
                f"so that they would not be trained; read them as attributes in forward"
            )


def _off(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return by how much values are off, relative to the largest."""
    if not (largest := float(expected.detach().abs().max())):
        return float(found.detach().abs().max())
    return float((found - expected).detach().abs().max()) / largest


def _slope(output: torch.Tensor, module: nn.Module, names: Collection[str]) -> torch.Tensor:
    """Return the gradient `(p,)` of the sum of a module's output."""
    every = dict(module.named_parameters())
    params = [every[name] for name in names]
    slopes = torch.autograd.grad(output.sum(), params, allow_unused=True, materialize_grads=True)
    return torch.cat([slope.flatten() for slope in slopes])


class _Held:
    """Parameters as they are now: what they hold, where, and how often they were written into."""

    def __init__(self, parameters: Mapping[str, torch.Tensor]) -> None:
        self._before = {
            name: (value, value._version, value.data_ptr(), value.detach().clone())
            for name, value in parameters.items()
        }

    def require_unwritten(self, parameters: Mapping[str, torch.Tensor]) -> None:
        """Refuse what a forward pass did to them.

        Raises:
            InputError: it wrote into one, `.data` or not, or put another in its place.
        """
        for name, (value, version, place, numbers) in self._before.items():
            now = parameters.get(name)
            same = now is value and (value._version, value.data_ptr()) == (version, place)
            if not (same and torch.equal(value.detach().nan_to_num(), numbers.nan_to_num())):
                raise InputError(
                    f"the module's forward pass changes its parameter {name!r}, as F.embedding "
                    f"does with max_norm; replicas could not follow it: let it make new values, as "
                    f"w.clamp(max=1) instead of w.clamp_(max=1)"
                )


def _refuse_side_effects(module: nn.Module, x: torch.Tensor) -> None:
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0 and part.training:
            raise InputError(
                f"the module holds dropout ({name or type(part).__name__}), which draws from the "
                f"global generator; remove it or call module.eval()"
            )
        if getattr(part, "max_norm", None) is not None:
            raise InputError(
                f"the module holds {name or type(part).__name__}, whose forward pass changes its "
                f"weights (max_norm), which replicas could not follow; leave max_norm out"
            )
    trial = copied(module)
    before = {name: value.clone() for name, value in trial.named_buffers()}
    held = _Held(dict(trial.named_parameters()))

    def called() -> None:
        trial(x)
        held.require_unwritten(dict(trial.named_parameters()))

    with torch.no_grad():
        try:
            undrawn(f"the module {type(module).__name__}", called)
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
