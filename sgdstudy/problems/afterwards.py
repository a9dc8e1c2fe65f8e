"""What of all that a run is made of is read in another way than by its name.

What someone has put into installed packages, labels as `__doc__`, and values that are one in
memory: each only where it can make a difference, so that other fingerprints stay as they were.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from sgdstudy.problems import bytecode, outside
from sgdstudy.problems.installed import is_own, put_in, spaces
from sgdstudy.problems.shared import overlaps

PLAIN = (bool, int, float, complex, str, bytes, tuple, list, dict, set, torch.Tensor, np.ndarray)


class More(NamedTuple):
    """What is to be written: under which names, and whether classes are only named in it."""

    names: tuple[str, ...]
    value: Any
    named_only: bool = False


def more(met: list[Any], codes: list[types.CodeType], values: Sequence[Any]) -> Iterator[More]:
    """Yield what is to be written of what was met, which may grow by that.

    Args:
        met: objects, functions and classes.
        codes: those of the user's functions.
        values: arrays and lists, in the order in which they were met.
    """
    found: dict[str, Mapping[str, Any]] = {}
    if codes:  # they are given tensors
        found["torch.Tensor"] = vars(torch.Tensor)
    for where, space in found.items():
        yield from (More(("put", where, name), space[name]) for name in put_in(space))
    for value in met:
        for where, space in spaces(value):
            if where not in found:
                found[where] = space
                yield from (More(("put", where, name), space[name]) for name in put_in(space))
    wanted = asked(codes)
    for where, space in found.items():
        if isinstance(space, types.MappingProxyType):  # of a class
            names = sorted(name for name in wanted & space.keys() if _is_plain(name, space[name]))
            yield from (More(("put", where, name), space[name]) for name in names)
    labels = sorted(frozenset[str]().union(*map(bytecode.labels_read, codes)))
    for value in list(met) if labels else ():
        if isinstance(value, (types.FunctionType, type)) and is_own(value):
            for name in labels:
                # those of classes are written anyway
                if not (isinstance(value, type) and name in bytecode.NAMES):
                    yield More(("label", name), getattr(value, name, None), named_only=True)
    if any(map(bytecode.changes_values, codes)):
        yield from (More(("shared", text), None) for text in overlaps(values))


def asked(codes: list[types.CodeType]) -> frozenset[str]:
    """Return the names that codes ask objects for."""
    return frozenset[str]().union(*(bytecode.read_by(code)[1] for code in codes))


def file_read(met: list[Any], codes: list[types.CodeType]) -> str:
    """Return by which name a path that was met may be read, "" where by none."""
    paths = any(str(getattr(value, "__module__", "")).startswith("pathlib") for value in met)
    return min(asked(codes) & outside.OF_PATHS, default="") if paths else ""


def _is_plain(name: str, value: Any) -> bool:
    """Whether an attribute of a class is a value, nothing that is called or that is Python's."""
    return isinstance(value, PLAIN) and not name.startswith("__")
