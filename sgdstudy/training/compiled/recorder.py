"""Notes the ATen operations of a step that is being run.

Operations on tensors that do not depend on the step's inputs are constants, and simply run. The
others are handed to the `Writer`; those that it does not know are taken apart, as torch does it.

A name of torch that is not documented, beside those of `torch_operations`:
`torch._decomp.decomposition_table`. Without it what has parts is not compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from sgdstudy.errors import Unsupported
from sgdstudy.language import say, to_say
from sgdstudy.problems.torch_operations import Watch, address, tensors_in
from sgdstudy.training.compiled.convolutions import Convolutions
from sgdstudy.training.compiled.operations import Writer

CASTS = ("_to_copy", "convert_element_type")
INDEXED = ("max_pool2d_with_indices",)  # the indices are for its gradient, which finds them anew
# methods of a tensor whose values are then no longer seen
READS = frozenset(
    ["numpy", "tolist", "item", "storage", "__array__", "__dlpack__"]
    + [f"__{kind}__" for kind in ("float", "int", "bool", "index", "complex")]
)
FILLED = ("ones_like", "zeros_like", "full_like", "new_zeros", "new_ones", "new_full")


class Recorder(Watch):
    """Within it, operations that depend on `inputs` are written to `writer`."""

    def __init__(self, inputs: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.writer = Writer(inputs)
        self._convolutions = Convolutions()
        self._own = OWN | self._convolutions.operations

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and note it."""
        kwargs = kwargs or {}
        packet = func.overloadpacket.__name__
        if torch.Tag.nondeterministic_seeded in func.tags:
            text = to_say("the model draws random numbers ({name})")
            raise Unsupported(say(text, name=str(packet)))
        tensors = tensors_in([*args, *kwargs.values()])
        if func._schema.is_mutable:
            self._convolutions.forget(tensors)
        if packet in FILLED or not any(self.writer.varies(t) for t in tensors):
            out = func(*args, **kwargs)
            self.writer.alive.append(out)
            return out
        name = packet.removesuffix("_")
        in_place = packet != name or func._schema.is_mutable  # `prims.copy_to` has no underscore
        if not self.writer.knows(name):
            return self._unknown(func, args, kwargs, None if in_place else tensors)
        if in_place and not self.writer.varies(args[0]):
            text = to_say("the model writes into a constant tensor ({name})")
            raise Unsupported(say(text, name=str(packet)))
        out = func(*args, **kwargs)
        values = out[0] if name in INDEXED else out
        if not all(tensor.numel() for tensor in [*tensors, values]):
            raise Unsupported(say("the model holds tensors without elements"))
        _check_dtypes(name, tensors, values)
        self.writer.write(name, values, args, kwargs)
        return out

    def _unknown(self, func: Any, args: Any, kwargs: Any, tensors: Any) -> Any:
        """Return a view of one of `tensors`, or the result of the operation's parts."""
        name = func.overloadpacket.__name__
        if tensors is not None:
            out = func(*args, **kwargs)
            outs = tensors_in([out])
            if not outs:
                text = to_say("the model reads a value of a tensor ({name})")
                raise Unsupported(say(text, name=name))
            if {address(t) for t in outs} <= {address(t) for t in tensors}:
                self.writer.alive.append(out)
                return out
        from torch._decomp import decomposition_table  # late: 0.2 s, and seldom needed

        parts = self._own.get(func) or decomposition_table.get(func) or func.decompose
        with self:
            out = parts(*args, **kwargs)
        if out is NotImplemented:
            raise Unsupported(say("the operation {name} is not known", name=name))
        return out


class Reads(TorchFunctionMode):
    """Within it, a model that takes values out of torch is refused: they would be constants.

    Args:
        varies: whether a tensor depends on the step's inputs.
    """

    def __init__(self, varies: Callable[[torch.Tensor], bool]) -> None:
        super().__init__()
        self._varies = varies

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a function of torch, unless it is one of `READS`."""
        name = getattr(func, "__name__", "")
        if name in READS and args and self._varies(args[0]):
            text = to_say("the model takes values out of torch ({name})")
            raise Unsupported(say(text, name=name))
        return func(*args, **(kwargs or {}))


class Trace(Watch):
    """Within it, all that `Recorder` would look at is noted: two alike are written alike.

    Args:
        inputs: the tensors that the step depends on.

    Attributes:
        notes: the operations, what they were given and where their results lie; of tensors that
            come from elsewhere their numbers.
    """

    def __init__(self, inputs: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.notes: list[Any] = []
        self._numbers = {address(tensor): k for k, tensor in enumerate(inputs)}  # of what is made
        self._alive: list[Any] = list(inputs)  # so that no address is used twice
        self._constants: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and note it."""
        kwargs = kwargs or {}
        given = self.told(args), self.told(tuple(kwargs.items()))
        out = func(*args, **kwargs)
        self._alive.append(out)
        for tensor in tensors_in([out]):
            if address(tensor) not in self._constants:
                self._numbers.setdefault(address(tensor), len(self._numbers))
        self.notes.append((func, *given, self.told(out)))
        return out

    def told(self, value: Any) -> Any:
        """Return what stands for what an operation takes or returns."""
        if isinstance(value, (tuple, list)):
            return tuple(map(self.told, value))
        if not isinstance(value, torch.Tensor):
            return repr(value)
        place = (value.storage_offset(), tuple(value.shape), value.stride(), str(value.dtype))
        if (number := self._numbers.get(address(value))) is not None:
            return (number, *place)
        self._constants.add(address(value))
        self._alive.append(value)
        numbers = value.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8)
        return (numbers.numpy().tobytes(), *place)


def _check_dtypes(name: str, tensors: list[torch.Tensor], out: torch.Tensor) -> None:
    """Refuse what arrays of one floating dtype cannot hold."""
    floats = {t.dtype for t in [*tensors, out] if t.is_floating_point()}
    if len(floats) > 1 or out.is_complex():
        text = to_say("the operation {name} mixes dtypes, or is complex")
        raise Unsupported(say(text, name=name))
    if not out.is_floating_point() and out.dtype != torch.bool and (floats or name not in CASTS):
        raise Unsupported(say("the operation {name} computes integers", name=name))


# ---- cross entropy without indexing: classes are compared, which is as fast for a few ----------


def _nll(value: Any, classes: Any, weight: Any, reduction: int, ignore: int) -> Any:
    if weight is not None or reduction != 0:
        raise Unsupported(say("the loss uses nll_loss with weights or a reduction"))
    picked = torch.where(_one_hot(value, classes), value, 0.0).sum(1)
    return -picked, value.new_zeros(())


def _nll_backward(
    gradient: Any, value: Any, classes: Any, weight: Any, reduction: int, ignore: int, total: Any
) -> Any:
    return torch.where(_one_hot(value, classes), -gradient.unsqueeze(1), 0.0)


def _one_hot(value: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    numbers = torch.arange(value.shape[1]).view(-1, *[1] * (value.dim() - 2))
    return classes.unsqueeze(1) == numbers


OWN: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.nll_loss_forward.default: _nll,
    torch.ops.aten.nll_loss_backward.default: _nll_backward,
    torch.ops.aten.nll_loss2d_forward.default: _nll,
    torch.ops.aten.nll_loss2d_backward.default: _nll_backward,
}
