"""ATen operations, one after the other, as loops in C++.

A tensor is the array of its storage, an offset and strides. So views need no code, and an
operation in place means what it means in torch. Every array holds the dtype trained in; a bool
is 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sgdstudy.errors import Unsupported
from sgdstudy.language import say, to_say
from sgdstudy.problems.torch_operations import address
from sgdstudy.training.compiled.convolutions import Sizes, windows
from sgdstudy.training.compiled.loops import (
    Block,
    Element,
    Pointwise,
    Shape,
    literal,
    position,
    write,
)

MAX_CONSTANT = 1000  # values of a constant tensor that are written into the source
BLOCKED = 2048  # products of a matrix product from which it is worth being taken in blocks

_TEST = "({} ? V1 : V0)"
POINTWISE = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "rsub": "{1} - {0}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "reciprocal": "V1 / {0}",
    "addcmul": "v_fma({1}, {2}, {0})",
    "addcdiv": "{0} + {1} / {2}",
    "square": "{0} * {0}",
    "pow": "v_pow({0}, {1})",
    "abs": "v_abs({0})",
    "sgn": "({0} > V0 ? V1 : ({0} < V0 ? -V1 : {0}))",
    "sign": "({0} > V0 ? V1 : ({0} < V0 ? -V1 : {0}))",
    "relu": "({0} < V0 ? V0 : {0})",
    "threshold_backward": "({1} <= {2} ? V0 : {0})",
    "tanh_backward": "{0} * (V1 - {1} * {1})",
    "sigmoid": "V1 / (V1 + v_exp(-{0}))",
    "sigmoid_backward": "{0} * (V1 - {1}) * {1}",
    "maximum": "(({0} > {1}) | ({0} != {0}) ? {0} : {1})",
    "minimum": "(({0} < {1}) | ({0} != {0}) ? {0} : {1})",
    "clamp_min": "({0} < {1} ? {1} : {0})",
    "clamp_max": "({0} > {1} ? {1} : {0})",
    "where": "({0} != V0 ? {1} : {2})",
    "eq": _TEST.format("({0} == {1})"),
    "ne": _TEST.format("({0} != {1})"),
    "lt": _TEST.format("({0} < {1})"),
    "le": _TEST.format("({0} <= {1})"),
    "gt": _TEST.format("({0} > {1})"),
    "ge": _TEST.format("({0} >= {1})"),
    "logical_and": _TEST.format("({0} * {1} != V0)"),
    "logical_or": _TEST.format("(({0} != V0) | ({1} != V0))"),
    "logical_not": _TEST.format("({0} == V0)"),
    "clone": "{0}",
    "_to_copy": "{0}",
    "convert_element_type": "{0}",
    "copy": "{1}",
    "fill": "{1}",
}
FUNCTIONS = ("exp", "log", "sqrt", "sin", "cos", "tanh", "cosh", "sinh", "log1p", "expm1", "erf")
POINTWISE |= {name: f"v_{name}({{0}})" for name in FUNCTIONS}
POINTWISE["rsqrt"] = "V1 / v_sqrt({0})"
EXACT_POWERS = {
    1: "{0}",
    2: "{0} * {0}",
    3: "{0} * {0} * {0}",
    0.5: "v_sqrt({0})",
    -0.5: "V1 / v_sqrt({0})",
    -1: "V1 / {0}",
    -2: "V1 / ({0} * {0})",
}


class Writer:
    """Turns operations on tensors into operations on elements.

    Args:
        inputs: the tensors that the step depends on, by the names of their arrays.
    """

    def __init__(self, inputs: Mapping[str, torch.Tensor]) -> None:
        self.arrays = {address(tensor): name for name, tensor in inputs.items()}
        self.lengths: dict[str, int] = {}
        self.constants: list[str] = []
        self.operations: list[Pointwise | Block] = []
        self.alive: list[Any] = list(inputs.values())  # so that no address is used twice

    def varies(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor depends on the inputs."""
        return address(tensor) in self.arrays

    def knows(self, name: str) -> bool:
        """Whether an operation can be written."""
        return name in POINTWISE or hasattr(self, f"write_{name}")

    def write(self, name: str, out: torch.Tensor, args: Sequence[Any], kwargs: Any) -> None:
        """Write `out = name(*args, **kwargs)`."""
        self.alive.append(args)
        self._hold(out)
        if name in POINTWISE:
            self._pointwise(name, out, args, kwargs)
        else:
            getattr(self, f"write_{name}")(out, *args, **kwargs)

    def _hold(self, tensor: torch.Tensor) -> None:
        """Let a tensor have an array, where it has none."""
        self.alive.append(tensor)
        if not self.varies(tensor):
            array = f"b{len(self.lengths)}"
            self.arrays[address(tensor)] = array
            self.lengths[array] = max(1, tensor.untyped_storage().nbytes() // tensor.element_size())

    def finish(self, results: Mapping[str, torch.Tensor]) -> tuple[str, int]:
        """Return the statements that leave `results` in arrays of these names, and their size.

        The size is the number of values that the arrays on the stack hold.
        """
        for name, tensor in results.items():
            shape = tuple(tensor.shape)
            target = Element.of(f"{name}[{{}}]", name, torch.empty(shape), shape)
            operands = (self._element(tensor, shape),)
            self.operations.append(Pointwise(shape, "{0}", operands, target))
        text = write(self.operations, set(results))
        used = {a: n for a, n in self.lengths.items() if f"{a}[" in text or f"{a} +" in text}
        arrays = [f"    MEMORY V {array}[{n}];" for array, n in used.items()]
        return "\n".join([*self.constants, *arrays, text]), sum(used.values())

    def _element(self, value: Any, shape: Shape) -> Element:
        """Return the element of a value, broadcast to `shape`, at the loops' indices."""
        if not isinstance(value, torch.Tensor):
            return Element(f"lit({literal(value)})")
        if self.varies(value):
            array = self.arrays[address(value)]
            return Element.of(f"{array}[{{}}]", array, value, shape)
        if value.numel() and bool((value == value.flatten()[0]).all()):
            return Element(f"lit({literal(value.flatten()[0].item())})")
        if value.numel() > MAX_CONSTANT:
            text = to_say("the model holds a constant tensor of {n} values")
            raise Unsupported(say(text, n=value.numel()))
        name, numbers = f"c{len(self.constants)}", value.flatten().tolist()
        text = ", ".join(literal(number) for number in numbers)
        self.constants.append(f"    static const T {name}[] = {{{text}}};")
        return Element.of(f"lit({name}[{{}}])", None, torch.empty(value.shape), shape)

    # ---- element by element --------------------------------------------------------------------

    def _pointwise(self, name: str, out: torch.Tensor, args: Sequence[Any], kwargs: Any) -> None:
        template, values = POINTWISE[name], list(args)
        if name in ("add", "sub", "rsub"):
            alpha = kwargs.get("alpha", args[2] if len(args) > 2 else 1)
            values = [*args[:2], alpha if name == "add" else -alpha]
            if alpha != 1:  # ATen rounds once
                template = "v_fma({0}, {2}, {1})" if name == "rsub" else "v_fma({1}, {2}, {0})"
        elif name in ("addcmul", "addcdiv") and kwargs.get("value", 1) != 1:
            values, template = [*args, kwargs["value"]], template.replace("{1}", "{3} * {1}")
        elif name == "div" and kwargs.get("rounding_mode") is not None:
            raise Unsupported(say("the model divides with a rounding mode"))
        elif name == "pow" and not isinstance(args[1], torch.Tensor):
            template = EXACT_POWERS.get(args[1], template)
        shape = tuple(out.shape)
        operands = [
            self._element(value, shape) if f"{{{k}}}" in template else Element("")
            for k, value in enumerate(values)
        ]
        target = self._element(out, shape)
        self.operations.append(Pointwise(shape, template, tuple(operands), target))

    def write_clamp(self, out: torch.Tensor, value: Any, min: Any = None, max: Any = None) -> None:
        """Write `clamp`."""
        if min is not None:
            self._pointwise("clamp_min", out, (value, min), {})
        if max is not None:
            self._pointwise("clamp_max", out, (value if min is None else out, max), {})

    def write_zero(self, out: torch.Tensor, *_: Any) -> None:
        """Write `zero_`."""
        self._pointwise("fill", out, (out, 0), {})

    def write_empty_like(self, out: torch.Tensor, *_: Any, **__: Any) -> None:
        """Write nothing: what is read of it is written first."""

    write_new_empty = write_empty_strided = write_new_empty_strided = write_empty_like

    # ---- parts of tensors ----------------------------------------------------------------------

    def write_cat(self, out: torch.Tensor, parts: Sequence[torch.Tensor], dim: int = 0) -> None:
        """Write `cat`."""
        start = 0
        for part in parts:
            if part.numel():
                view = out.narrow(dim, start, part.shape[dim])
                self._pointwise("clone", view, (part,), {})
                start += part.shape[dim]

    def write_stack(self, out: torch.Tensor, parts: Sequence[torch.Tensor], dim: int = 0) -> None:
        """Write `stack`."""
        for k, part in enumerate(parts):
            self._pointwise("clone", out.select(dim, k), (part,), {})

    def write_select_backward(
        self, out: torch.Tensor, gradient: Any, sizes: Any, dim: int, index: int
    ) -> None:
        """Write the gradient of `value[index]`."""
        self.write_zero(out)
        self._pointwise("clone", out.select(dim, index), (gradient,), {})

    def write_slice_backward(
        self, out: torch.Tensor, gradient: Any, sizes: Any, dim: int, *part: int
    ) -> None:
        """Write the gradient of `value[start:end:step]`."""
        self.write_zero(out)
        view = torch.ops.aten.slice.Tensor(out, dim, *part)
        self._pointwise("clone", view, (gradient,), {})

    def write_diagonal_backward(
        self, out: torch.Tensor, gradient: Any, sizes: Any, *which: int
    ) -> None:
        """Write the gradient of `value.diagonal(offset, dim1, dim2)`."""
        self.write_zero(out)
        self._pointwise("clone", out.diagonal(*which), (gradient,), {})

    # ---- windows over images -------------------------------------------------------------------

    def write_constant_pad_nd(
        self, out: torch.Tensor, value: torch.Tensor, widths: Sequence[int], fill: float = 0
    ) -> None:
        """Write `pad` with a constant; widths below zero, as in its gradient, cut off."""
        self._pointwise("fill", out, (out, fill), {})
        inner = out
        for k, (before, after) in enumerate(zip(widths[::2], widths[1::2], strict=True)):
            kept = value.shape[-1 - k] + min(before, 0) + min(after, 0)
            if kept <= 0:  # all of it is cut off
                return
            inner = inner.narrow(-1 - k, max(before, 0), kept)
            value = value.narrow(-1 - k, max(-before, 0), kept)
        self._pointwise("clone", inner, (value,), {})

    def write_max_pool2d_with_indices(self, out: torch.Tensor, x: Any, *settings: Any) -> None:
        """Write the largest of each window."""
        self._write_largest(out, self._apart(x, out.shape, *settings))

    def write_max_pool2d_with_indices_backward(
        self, out: torch.Tensor, gradient: torch.Tensor, x: Any, *settings: Any
    ) -> None:
        """Write the gradient, which goes to the first of the largest."""
        parts = self._apart(x, gradient.shape, *settings[:-1])
        largest, left = self._new(gradient.shape), self._copied(gradient)
        self._write_largest(largest, parts)
        moved = []
        for part in parts:
            hit, share, rest = (self._new(gradient.shape) for _ in range(3))
            self._pointwise("eq", hit, (part, largest), {})
            self._pointwise("where", share, (hit, left, 0), {})
            self._pointwise("where", rest, (hit, 0, left), {})
            moved.append(share)
            left = rest
        self.write_zero(out)
        for place, share in zip(_windows(out, gradient.shape, *settings[:-1]), moved, strict=True):
            self._move(place, share, "+=")

    def _apart(self, x: torch.Tensor, shape: Sequence[int], *settings: Any) -> list[torch.Tensor]:
        """Return what windows see, place by place, copied: strides would stop vectors."""
        return [self._copied(place) for place in _windows(x, shape, *settings)]

    def _write_largest(self, out: torch.Tensor, parts: Sequence[torch.Tensor]) -> None:
        """Write the largest of some tensors; NaN is larger than any."""
        largest = parts[0]
        for part in parts[1:]:
            larger = self._new(out.shape)
            self._pointwise("maximum", larger, (part, largest), {})
            largest = larger
        self._pointwise("clone", out, (largest,), {})

    def _copied(self, view: torch.Tensor) -> torch.Tensor:
        """Return a tensor that holds what a view does, side by side, in loops of its own."""
        copied = self._new(view.shape)
        self._move(copied, view, "=")
        return copied

    def _move(self, target: torch.Tensor, source: torch.Tensor, how: str) -> None:
        shape = tuple(target.shape)
        to, given = self._element(target, shape), self._element(source, shape)
        body, reads = f"{to.text} {how} {given.text};", [to.array, given.array]
        self.operations.append(Block(shape, body, frozenset(filter(None, reads))))

    def _new(self, shape: Sequence[int]) -> torch.Tensor:
        """Return a tensor to be written."""
        made = torch.empty(tuple(shape))
        self._hold(made)
        return made

    # ---- sums and extremes ---------------------------------------------------------------------

    def write_sum(self, out: torch.Tensor, value: Any, dim: Any = None, *_: Any, **__: Any) -> None:
        """Write `sum`, in ATen's order of additions."""
        self._reduce(out, value, dim, "")

    def write_mean(
        self, out: torch.Tensor, value: Any, dim: Any = None, *_: Any, **__: Any
    ) -> None:
        """Write `mean`: the sum over the count."""
        count = value.numel() // max(1, out.numel())
        self._reduce(out, value, dim, f" / lit({literal(count)})")

    def write_amax(self, out: torch.Tensor, value: Any, dim: Any = None, *_: Any) -> None:
        """Write `amax`."""
        self._reduce(out, value, dim, "max")

    def _reduce(self, out: torch.Tensor, value: torch.Tensor, dim: Any, how: str) -> None:
        dims = [dim] if isinstance(dim, int) else list(dim or range(value.dim()))
        dims = sorted(d % value.dim() for d in dims) if value.dim() else []
        kept = [d for d in range(value.dim()) if d not in dims]
        shape, count = tuple(value.shape[d] for d in kept), math.prod(value.shape[d] for d in dims)
        moved = value.permute(*kept, *dims)
        lines = moved.reshape(*shape, count)  # (..., count): what is summed, in the last dimension
        if address(lines) != address(value):
            self.write("clone", lines.view(moved.shape), (moved,), {})
        array = self.arrays[address(lines)]
        start = f"{array} + {position(lines[..., 0], shape)}"
        stride = lines.stride(-1) if count > 1 else 1
        target = self._element(out.view(shape), shape).text
        if how == "max":
            body = f"{target} = max_of({start}, {count}, {stride});"
        elif stride == 1:
            body = f"{target} = sum_inner<{count}>({start}){how};"
        else:
            body = f"{target} = sum_outer({start}, {count}, {stride}){how};"
        self.operations.append(Block(shape, body, frozenset({array})))

    def write_right(self, prediction: torch.Tensor, y: torch.Tensor) -> None:
        """Count the samples whose class `(1, B)` has the largest logit `(1, B, C)`."""
        _, size, classes = prediction.shape
        array = self.arrays[address(prediction)]
        start = f"{array} + {position(prediction[0, :, 0], (size,))}"
        best = f"first_best({start}, {classes}, {prediction.stride(2)})"
        body = f"if (right) right[0] += {best} == {self._element(y[0], (size,)).text} ? V1 : V0;"
        self.operations.append(Block((size,), body, frozenset({array})))

    # ---- matrices ------------------------------------------------------------------------------

    def write_mm(self, out: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
        """Write a matrix product, or a batch of them; every sum is taken in the order of k."""
        *batch, n, k = a.shape
        if self.varies(a) and self.varies(b) and out[0].numel() and n * k * b.shape[-1] >= BLOCKED:
            self._write_blocked(out, a, b, tuple(batch))
            return
        shape = tuple(out.shape)
        wide = (*shape, k)
        row = a.unsqueeze(-2).expand(wide)
        column = b.transpose(-1, -2).unsqueeze(-3).expand(wide)
        left, right = self._element(row, wide), self._element(column, wide)
        # a row's sums side by side, so that a single replica is vectorised along the columns
        j, inner = f"i{len(shape) - 1}", f"i{len(shape)}"
        loop = f"for (int {j} = 0; {j} < {shape[-1]}; {j}++)"
        body = (
            f"V acc[{shape[-1]}]; {loop} acc[{j}] = V0; "
            f"for (int {inner} = 0; {inner} < {k}; {inner}++) "
            f"{loop} acc[{j}] += {left.text} * {right.text}; "
            f"{loop} {self._element(out, shape).text} = acc[{j}];"
        )
        reads = frozenset(one.array for one in (left, right) if one.array)
        self.operations.append(Block(shape[:-1], body, reads))

    def _write_blocked(
        self, out: torch.Tensor, a: torch.Tensor, b: torch.Tensor, batch: Shape
    ) -> None:
        """Write a product of large matrices by `product` of products.py."""
        words, reads = [], set()
        for tensor in (a, b, out):
            array = self.arrays[address(tensor)]
            words.append(f"{array} + {position(tensor[..., 0, 0], batch)}")
            words += map(str, tensor.stride()[-2:])
            if tensor is not out:
                reads.add(array)
        sizes = f"{a.shape[-2]}, {b.shape[-1]}, {a.shape[-1]}"
        body = f"product<{sizes}>({', '.join(words)});"
        self.operations.append(Block(batch, body, frozenset(reads)))

    write_bmm = write_mm

    def write_mv(self, out: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
        """Write matrix times vector."""
        self.write_mm(out[:, None], a, b[:, None])

    def write_dot(self, out: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
        """Write the product of two vectors."""
        self.write_mm(out.reshape(1, 1), a[None], b[:, None])

    def write_addmm(
        self, out: torch.Tensor, bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1
    ) -> None:
        """Write `bias + a @ b`."""
        if (alpha, beta) != (1, 1):
            raise Unsupported(say("the model uses addmm with alpha or beta"))
        self.write_mm(out, a, b)
        self._pointwise("add", out, (out, bias), {})


def _pair(sizes: Sizes) -> Sizes:
    return sizes if len(sizes) == 2 else [sizes[0], sizes[0]]


def _windows(
    x: torch.Tensor,
    shape: Sequence[int],
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = (0, 0),
    dilation: Sizes = (1, 1),
    ceil_mode: bool = False,
) -> list[torch.Tensor]:
    """Return what windows that pool to `shape` see at each of their places, views."""
    kernel, stride, dilation = (_pair(sizes) for sizes in (kernel, stride or kernel, dilation))
    if any(padding) or ceil_mode:
        raise Unsupported(say("the model pools with padding, or beyond the image"))
    return windows(x, shape[-2:], kernel, stride, dilation)
