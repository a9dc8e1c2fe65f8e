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
    """An element of a tensor in C++, as `b3[0 + i0 * 4]`, and its array; None: a constant."""

    text: str
    array: str | None


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
        self.lines: list[tuple[str, str, Element]] = []  # statement, its variable, its target
        self.variables: dict[str, str] = {}  # element written here -> the variable that holds it
        self.written: set[str] = set()
        self.reads: set[str] = set()

    def take(self, operation: Pointwise) -> bool:
        """Add an operation, or return False: it has to wait until these loops are done."""
        target = operation.target
        if operation.shape != self.shape or target.array in self.written | self.reads:
            return False
        for text, array in operation.operands:
            if array in self.written and text not in self.variables:
                return False  # another element of what these loops write
        operands = []
        for text, array in operation.operands:
            if array is not None and text not in self.variables:
                self.reads.add(array)
            operands.append(self.variables.get(text, text))
        variable = f"v{len(self.lines)}"
        value = operation.template.format(*operands)
        self.lines.append((f"const V {variable} = {value};", variable, target))
        self.variables[target.text] = variable
        self.written.add(str(target.array))
        return True

    def text(self, kept: set[str]) -> str:
        """Return the loops; only arrays in `kept` are written to memory."""
        statements = []
        for statement, variable, target in self.lines:
            statements.append(statement)
            if target.array in kept:
                statements.append(f"{target.text} = {variable};")
        return nest(self.shape, " ".join(statements), math.prod(self.shape) <= UNROLLED)


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


def position(tensor: torch.Tensor, shape: Sequence[int]) -> str:
    """Return where, in its storage, the element of a tensor broadcast to `shape` lies."""
    tensor = tensor.expand(tuple(shape))
    pairs = enumerate(zip(tensor.stride(), shape, strict=True))
    terms = [f"i{k} * {stride}" for k, (stride, n) in pairs if stride and n > 1]
    return " + ".join([str(tensor.storage_offset()), *terms])


def literal(value: float) -> str:
    """Return a number in C++, exactly."""
    value = float(value)
    if math.isnan(value):
        return '(T)__builtin_nan("")'
    if math.isinf(value):
        return f"(T){'-' if value < 0 else ''}__builtin_inf()"
    return f"(T){value.hex()}"
