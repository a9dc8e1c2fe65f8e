"""Variables that functions read: whether they hold what they held when a thing was made of them.

Python looks a variable up when a function is called. All functions that a loop makes share its
variable, which holds the last value by the time any of them runs: three losses `s * (p - y)**2` of
a loop over s are one. So what is made of functions notes what they read, and is looked at before
it is trained.
"""

from __future__ import annotations

import dis
import functools
import itertools
import types
import weakref
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, NamedTuple

from torch import nn

from sgdstudy.errors import InputError, quoted
from sgdstudy.problems.fingerprint import ATOMS, Unseen, fingerprint, is_own

Code = types.CodeType
MOST_ITEMS = 100  # of a dict or list that are looked at for functions
STORES = ("STORE_GLOBAL", "STORE_DEREF", "DELETE_GLOBAL", "DELETE_DEREF")


class Variable(NamedTuple):
    """A variable that a function reads, and what it held: nothing here keeps either alive."""

    name: str
    function: weakref.ref[types.FunctionType]
    held: Any  # a plain value; of others a weak reference, or the identity alone


class Identity(NamedTuple):
    """Stands for a value that has no weak references."""

    number: int


_noted: MutableMapping[Any, list[Variable]] = weakref.WeakKeyDictionary()


def note(owner: Any, functions: Iterable[Any]) -> None:
    """Note what the functions that a thing is made of read now, for `check`.

    Args:
        owner: the thing.
        functions: functions, methods, modules, dicts and lists of them; others are let be.
    """
    found = _Reads()
    for function in functions:
        found.add(function)
    _noted[owner] = [variable for place, variable in found.variables if place not in found.stored]


def check(owner: Any, what: str) -> None:
    """Raise `InputError` where a variable that a thing's functions read holds something else now.

    Args:
        owner: what `note` was given; of others nothing is known.
        what: what it is called in a message.
    """
    for name, function, held in _noted.get(owner, ()):
        reader = function()
        if reader is None:
            continue
        now = _content(_spaces(reader).get(name, reader.__globals__), name)
        if not _is_still(held, now):
            raise InputError(
                f"a function of {what} reads {name!r}, which was {_change(held, now)}, as in a "
                f"loop; hold it where the function is made, as lambda ..., {name}={name}: ..., or "
                f"make {what} again"
            )


def _spaces(function: types.FunctionType) -> dict[str, types.CellType]:
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))


def _content(space: types.CellType | Mapping[str, Any], name: str) -> Any:
    if not isinstance(space, types.CellType):
        return space.get(name)
    try:
        return space.cell_contents
    except ValueError:  # nothing yet, or no longer
        return None


def _is_plain(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_plain, value))
    return type(value) in ATOMS


def _held(value: Any) -> Any:
    if _is_plain(value):
        return value
    try:
        return weakref.ref(value)
    except TypeError:
        return Identity(id(value))


def _is_still(held: Any, now: Any) -> bool:
    """Whether a value makes no difference to who read what was held."""
    if isinstance(held, weakref.ref):
        then = held()
        return now is then or (then is not None and _alike(then, now))
    if isinstance(held, Identity):
        return held.number == id(now)
    return type(held) is type(now) and (held == now or held != held)


def _alike(then: Any, now: Any) -> bool:
    if type(then) is not type(now):
        return False
    try:
        return fingerprint(then) == fingerprint(now)
    except Unseen:
        return False


def _change(held: Any, now: Any) -> str:
    if _is_plain(held) and _is_plain(now):
        return f"{quoted(held)} when that was made and is {quoted(now)} now"
    return "something else when that was made"


class _Reads:
    """Goes through functions, and those that they read."""

    def __init__(self) -> None:
        self.variables: list[tuple[tuple[int, str], Variable]] = []
        self.stored: set[tuple[int, str]] = set()  # by a function itself: one that counts
        self._met: set[int] = set()

    def add(self, value: Any) -> None:
        """Note what a value reads when it is called."""
        if id(value) in self._met:
            return
        self._met.add(id(value))
        if isinstance(value, types.FunctionType):
            if is_own(value):
                self._function(value)
        elif isinstance(value, types.MethodType):
            self.add(value.__func__)
            self.add(value.__self__)
        elif isinstance(value, functools.partial):
            self.add(value.func)
        elif isinstance(value, (dict, list, tuple)):
            items = value.values() if isinstance(value, dict) else value
            for item in itertools.islice(items, MOST_ITEMS):
                self.add(item)
        elif isinstance(value, type):
            if is_own(value):
                for item in vars(value).values():
                    self.add(getattr(item, "__func__", item))
        elif isinstance(value, nn.Module):
            for module in value.modules():
                self.add(type(module))
        elif is_own(type(value)):
            self.add(type(value))

    def _function(self, function: types.FunctionType) -> None:
        cells = _spaces(function)
        for name, how in _used(function.__code__):
            space = cells.get(name, function.__globals__)
            place = id(space), name
            if how in STORES:
                self.stored.add(place)
            elif name in cells or name in function.__globals__:
                value = _content(space, name)
                if not isinstance(value, types.ModuleType):
                    variable = Variable(name, weakref.ref(function), _held(value))
                    self.variables.append((place, variable))
                    self.add(value)


@functools.lru_cache(maxsize=10_000)
def _used(code: Code) -> tuple[tuple[str, str], ...]:
    """Return the variables from outside that a code uses, and the operation; of functions in it."""
    within = {*code.co_cellvars, *code.co_varnames}
    found = {
        (step.argval, step.opname)
        for step in dis.get_instructions(code)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", *STORES)
        or step.opname == "LOAD_FROM_DICT_OR_DEREF"
    }
    for inner in code.co_consts:
        if isinstance(inner, Code):
            found |= set(_used(inner))
    return tuple(sorted(pair for pair in found if pair[0] not in within or "GLOBAL" in pair[1]))
