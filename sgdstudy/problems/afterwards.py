"""What of all that a run is made of is read in another way than by its name.

What someone has put into installed packages or hung on their objects, labels as `__doc__`, values
that are one in memory, gradients and memory of arrays, and the state of the process: each only
where it can make a difference, so that other fingerprints stay as they were.
"""

from __future__ import annotations

import itertools
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from sgdstudy.problems import bytecode, outside
from sgdstudy.problems.installed import Space, is_own, put_in, spaces
from sgdstudy.problems.process import of_process
from sgdstudy.problems.shared import overlaps

MEMORY = """
    __array_interface__ _base as_strided as_strided_ base ctypes data_ptr set_ storage
    storage_offset untyped_storage
"""
LAYOUT = frozenset({"flags", "is_contiguous", "stride", "strides"})
GRADIENTS = frozenset({"_grad", "backward", "grad", "grad_fn"})
CAUSES = ("__cause__", "__context__")
BY_NAME = frozenset({"getattr", "vars"})  # they may ask for anything
PLAIN = (bool, int, float, complex, str, bytes, tuple, list, dict, set, torch.Tensor, np.ndarray)


class More(NamedTuple):
    """What is to be written: under which names, and whether classes are only named in it."""

    names: tuple[str, ...]
    value: Any
    named_only: bool = False


def more(
    met: list[Any],
    codes: list[types.CodeType],
    values: Sequence[Any],
    aside: Sequence[tuple[Any, Mapping[str, Any]]],
    seen: set[str],
) -> Iterator[More]:
    """Yield what is to be written of what was met, which may grow by that.

    Args:
        met: objects, functions and classes.
        codes: those of the user's functions.
        values: arrays and lists, in the order in which they were met.
        aside: objects, and attributes of theirs that have not been written.
        seen: spaces that have been looked at since a line of the user's ran last.
    """
    found: dict[str, Space] = {}
    # codes are given tensors
    given = [Space("torch", "Tensor", vars(torch.Tensor))] if codes else []
    for space in itertools.chain(given, itertools.chain.from_iterable(map(spaces, met))):
        if space.name not in found:
            found[space.name] = space
            yield from (
                More(("put", space.name, name), value) for name, value in put_in(space, seen)
            )
    wanted = frozenset[str]().union(*map(bytecode.asked_of, codes))
    for where, space in found.items():
        held = space.held if space.owner else {}
        names = sorted(name for name in wanted & held.keys() if _is_plain(name, held[name]))
        yield from (More(("put", where, name), held[name]) for name in names)
    labels = sorted(frozenset[str]().union(*map(bytecode.labels_read, codes)))
    for value in list(met) if labels else ():
        if isinstance(value, (types.FunctionType, type)) and is_own(value):
            for name in labels:
                # those of classes are written anyway
                if not (isinstance(value, type) and name in bytecode.NAMES):
                    yield More(("label", name), getattr(value, name, None), named_only=True)
    for _, attributes in aside:
        names = sorted(wanted & attributes.keys())
        yield from (More(("attribute", name), attributes[name]) for name in names)
    for value in list(met) if wanted.intersection(CAUSES) else ():
        if isinstance(value, BaseException):
            yield from (More(("attribute", name), getattr(value, name)) for name in CAUSES)
    for value in list(values):
        if isinstance(value, torch.Tensor | np.ndarray):
            yield from _of_array(value, wanted)
    read = wanted.union(*(bytecode.read_by(code)[0] for code in codes))
    for name, state in of_process(met, read):
        yield from [More(("process", name), state)] if state else []
    if any(map(bytecode.changes_values, codes)):
        yield from (More(("shared", text), None) for text in overlaps(values))


def _of_array(value: Any, wanted: frozenset[str]) -> Iterator[More]:
    """Yield what an array is beside its numbers, where it is asked for."""
    tensor = isinstance(value, torch.Tensor)
    if tensor and wanted & GRADIENTS and value.is_leaf and value.grad is not None:
        yield More(("attribute", "grad"), value.grad)
    if wanted & LAYOUT:
        layout = value.stride() if tensor else (value.strides, str(value.flags))
        yield More(("attribute", "strides"), layout)
    if wanted.intersection(MEMORY.split()):
        if tensor:
            memory = torch.empty(0, dtype=torch.uint8).set_(value.untyped_storage())
            yield More(("attribute", "storage"), (value.storage_offset(), memory))
        elif value.base is not None:
            yield More(("attribute", "base"), value.base)
    if not tensor and "metadata" in wanted and value.dtype.metadata:
        yield More(("attribute", "metadata"), dict(value.dtype.metadata))


def asked(codes: list[types.CodeType]) -> frozenset[str]:
    """Return the names that codes ask objects for."""
    return frozenset[str]().union(*(bytecode.read_by(code)[1] for code in codes))


def unseen(met: list[Any], codes: list[types.CodeType]) -> str:
    """Return what may be read that nothing shows, "" where all is shown."""
    paths = any(str(getattr(value, "__module__", "")).startswith("pathlib") for value in met)
    texts = [bytecode.texts(code) for code in codes if bytecode.read_by(code)[0] & BY_NAME]
    names = asked(codes).union(*texts)
    if paths and names & outside.OF_PATHS:
        return f"a file, by {min(names & outside.OF_PATHS)}"
    graphs = any(isinstance(value, torch.Tensor) and not value.is_leaf for value in met)
    return (
        f"how a tensor was made, by {min(names & GRADIENTS)}"
        if graphs and names & GRADIENTS
        else ""
    )


def _is_plain(name: str, value: Any) -> bool:
    """Whether an attribute of a class is a value, nothing that is called or that is Python's."""
    return isinstance(value, PLAIN) and not name.startswith("__")
