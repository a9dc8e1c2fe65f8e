"""Loops over elements, as C++ text, with element-wise operations of one shape fused.

A fused value that nothing outside its loops reads stays in a local variable: a chain of twenty
operations touches memory for its first operands and its last result only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

Shape = tuple[int, ...]

UNROLLED = 16  # rounds of a loop whose values are to stay in registers


class Element(NamedTuple):
    """An element of a tensor in C++, for the indices `i0, i1, ...` of loops over a shape.

    Attributes:
        form: as `b3[{}]`, or a number.
        array: the tensor's; None: a constant's.
        offset: of the element whose indices are 0, in its storage.
        strides: by index; 0 where it has one value.
    """

    form: str
    array: str | None = None
    offset: int = 0
    strides: tuple[int, ...] = ()

    @classmethod
    def of(cls, form: str, array: str | None, tensor: torch.Tensor, shape: Shape) -> Element:
        """Return the element of a tensor broadcast to a shape."""
        pairs = zip(tensor.expand(shape).stride(), shape, strict=True)
        strides = tuple(stride if n > 1 else 0 for stride, n in pairs)
        return cls(form, array, int(tensor.storage_offset()), strides)

    @property
    def place(self) -> str:
        """Where in its storage it lies."""
        terms = [f"i{k} * {stride}" for k, stride in enumerate(self.strides) if stride]
        return " + ".join([str(self.offset), *terms])

    @property
    def text(self) -> str:
        """How it is written."""
        return self.form.format(self.place)


@dataclass(frozen=True)
class Pointwise:
    """For every index of `shape`: target = template of the operands."""

    shape: Shape
    template: str
    operands: tuple[Element, ...]
    target: Element


@dataclass(frozen=True)
class Block:
    """For every index of `shape`: statements that read and write arrays in their own way."""

    shape: Shape
    body: str
    reads: frozenset[str]


class _Group:
    """Element-wise operations that share their loops."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.operations: list[Pointwise] = []
        self.variables: dict[
            Element, str
        ] = {}  # what is written here -> the variable that holds it
        self.written: set[str] = set()
        self.reads: set[str] = set()

    def take(self, operation: Pointwise) -> bool:
        """Add an operation, or return False: it has to wait until these loops are done."""
        target = operation.target
        if operation.shape != self.shape or target.array in self.written | self.reads:
            return False
        outer = [one for one in operation.operands if one not in self.variables]
        if any(one.array in self.written for one in outer):
            return False  # another element of what these loops write
        self.reads.update(one.array for one in outer if one.array is not None)
        self.variables[target] = f"v{len(self.operations)}"
        self.operations.append(operation)
        self.written.add(str(target.array))
        return True

    def text(self, kept: set[str]) -> str:
        """Return the loops; only arrays in `kept` are written to memory."""
        elements = {one for each in self.operations for one in (*each.operands, each.target)}
        there = [one for one in elements if one.strides]
        shape, strides = merged(self.shape, [one.strides for one in there])
        texts = {one: one.text for one in elements}
        texts |= {
            one: one._replace(strides=own).text for one, own in zip(there, strides, strict=True)
        }
        statements, held = [], dict[Element, str]()
        for operation in self.operations:
            operands = [held.get(one, texts[one]) for one in operation.operands]
            variable = held[operation.target] = self.variables[operation.target]
            statements.append(f"const V {variable} = {operation.template.format(*operands)};")
            if operation.target.array in kept:
                statements.append(f"{texts[operation.target]} = {variable};")
        return nest(shape, " ".join(statements), math.prod(shape) <= UNROLLED)


def merged(shape: Shape, strides: Sequence[Shape]) -> tuple[Shape, list[Shape]]:
    """Return a shape of fewer and longer loops that meet the same elements in the same order.

    >>> merged((4, 2, 3), [(6, 3, 1), (12, 3, 1)])
    ((4, 6), [(6, 1), (12, 1)])
    """
    sizes: list[int] = []
    found: list[tuple[int, ...]] = []  # by loop, the strides of all
    for n, own in zip(shape, zip(*strides, strict=True), strict=False):
        if n > 1 and found and found[-1] == tuple(n * stride for stride in own):
            sizes[-1], found[-1] = n * sizes[-1], own
        elif n > 1:
            sizes.append(n)
            found.append(own)
    return tuple(sizes), [tuple(own) for own in zip(*found, strict=True)] or [()] * len(strides)


def write(operations: Iterable[Pointwise | Block], results: set[str]) -> str:
    """Return the statements of the operations, in order; `results` are arrays read afterwards."""
    groups: list[_Group | Block] = []
    for operation in operations:
        if isinstance(operation, Block):
            groups.append(operation)
            continue
        last = groups[-1] if groups else None
        if not (isinstance(last, _Group) and last.take(operation)):
            groups.append(fresh := _Group(operation.shape))
            fresh.take(operation)
    text = []
    for number, group in enumerate(groups):
        if isinstance(group, Block):
            text.append(nest(group.shape, group.body))
        else:
            others = groups[:number] + groups[number + 1 :]
            text.append(group.text(results.union(*(other.reads for other in others))))
    return "\n".join(text)


def nest(shape: Sequence[int], body: str, unroll: bool = False) -> str:
    """Return the body within loops `i0, i1, ...` over the shape."""
    loops = [f"for (int i{k} = 0; i{k} < {n}; i{k}++) " for k, n in enumerate(shape)]
    if loops and unroll:
        loops[-1] = f"UNROLL {loops[-1]}"
    return f"    {''.join(loops)}{{ {body} }}"


def position(tensor: torch.Tensor, shape: Shape) -> str:
    """Return where, in its storage, the element of a tensor broadcast to a shape lies."""
    return Element.of("", None, tensor, shape).place


def literal(value: float) -> str:
    """Return a number in C++, exactly."""
    value = float(value)
    if math.isnan(value):
        return '(T)__builtin_nan("")'
    if math.isinf(value):
        return f"(T){'-' if value < 0 else ''}__builtin_inf()"
    return f"(T){value.hex()}"
