"""Variables that functions read: whether they hold what they held when a thing was made of them.

Python looks a variable up when a function is called. All functions that a loop makes share its
variable, which holds the last value by the time any of them runs: three losses `s * (p - y)**2` of
a loop over s are one. The same goes for `settings.s`, `cfg["s"]` and `scales[0]`. So what is made
of functions notes what they read, and is looked at before it is trained.

The functions that objects, modules and wrappers hold are looked at as those that are named.

A variable counts where another value was put in its place; so does a number, a text, an array or
a small table within an object, module, class, dict or list that a variable holds, or a buffer of
a network, where a function may read it: objects by the attributes that the functions name, dicts by
the keys that they name, if any.
What functions change by themselves does not count, nor what is added to a dict or list, or taken
from it: so do caches, counters and logs.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import contextvars
import enum
import functools
import hashlib
import itertools
import os
import sys
import types
import weakref
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from sgdstudy.errors import InputError, quoted
from sgdstudy.problems import bytecode
from sgdstudy.problems.fingerprint import ATOMS, Unseen, fingerprint
from sgdstudy.problems.installed import CACHED, is_own, is_own_module
from sgdstudy.problems.outside import NAMED

MOST_ITEMS = 100  # of a dict, list or table that is looked at
MOST_VALUES = 100_000  # of an array
DEEPEST = 4  # objects within objects
WHOLE = (dict, functools.partial, types.SimpleNamespace, argparse.Namespace, nn.Module)
MAPPINGS = (dict, UserDict, ChainMap)
SERIES = (list, tuple, UserList, deque)
SETS = (set, frozenset)
METHODS = (types.MethodType, staticmethod, classmethod)
BYTES = (bytearray, memoryview, array.array)
# methods that those call who set an attribute or item, or enter a block: who has an object
SETTERS = {"__setattr__", "__delattr__", "__setitem__", "__delitem__", "__enter__", "__exit__"}
LEAVES = (types.FunctionType, types.BuiltinFunctionType, type, enum.Enum, torch.dtype)
ARRAYS = (torch.Tensor, np.ndarray, np.generic)
OUTSIDE = {"environ", "getenv"}  # of os


class Variable(NamedTuple):
    """What functions read, and what it held: nothing here keeps either alive."""

    name: str  # of a variable; "" where the holder is what is read: an object, or a function
    holder: weakref.ref[Any]
    held: Any
    parts: dict[str, Any] = {}  # what is held within it, by how that is written  # noqa: RUF012


class Uses(NamedTuple):
    """What functions do with what they read.

    Attributes:
        names: attributes and keys that they name.
        changed: attributes and keys that they change.
    """

    names: frozenset[str]
    changed: frozenset[str]


class Identity(NamedTuple):
    """Stands for a value that has no weak references."""

    number: int


class Changes(NamedTuple):
    """What a function changes: attributes and keys, variables, and items of these."""

    names: frozenset[str]
    stored: set[tuple[int, str]]
    grown: set[tuple[int, str]]


NOTHING = Uses(frozenset(), frozenset())
_noted: MutableMapping[Any, tuple[list[Variable], Uses]] = weakref.WeakKeyDictionary()


def note(owner: Any, functions: Iterable[Any]) -> None:
    """Note what the functions that a thing is made of read now, for `check`.

    Args:
        owner: the thing.
        functions: functions, methods, objects, modules, dicts and lists of them; others are let be.
    """
    found = _Reads()
    for function in functions:
        found.add(function)
    found.follow()
    uses = Uses(frozenset(found.names), frozenset(found.changed))
    variables = []
    for place, variable in found.variables:
        if place in found.stored:
            continue
        parts = {} if place in found.grown else _parts(variable, uses)
        if parts or variable.name:
            parts = {name: _reference(value) for name, value in parts.items()}
            variables.append(variable._replace(parts=parts))
    _noted[owner] = variables, uses


def check(owner: Any, what: str) -> None:
    """Raise `InputError` where something that a thing's functions read is something else now.

    Args:
        owner: what `note` was given; of others nothing is known.
        what: what it is called in a message.
    """
    alive = [(variable.holder(), variable, uses) for variable, uses in _living(owner)]
    for _, variable, uses in alive:  # held: what one of them needs may be garbage soon
        now = _value(variable)
        if variable.name and not _is_still(variable.held, now):
            raise _refused(what, variable.name, variable.held, now)
        for part, then, now in _changed(variable, uses):
            raise _refused(what, _root(variable) + part, then, now)


def settle(*owners: Any) -> None:
    """Take what changed since `check`, while these were trained, for what functions change."""
    theirs = {
        (id(_value(variable)), part)
        for owner in owners
        for variable, uses in _living(owner)
        for part, *_ in _changed(variable, uses)
    }
    for owner in list(_noted) if theirs else ():
        for variable, _ in _living(owner):
            for part in list(variable.parts):
                if (id(_value(variable)), part) in theirs:
                    del variable.parts[part]


def _living(owner: Any) -> Iterator[tuple[Variable, Uses]]:
    """Yield the variables of a thing that are still there."""
    variables, uses = _noted.get(owner, ([], NOTHING))
    for variable in variables:
        if variable.holder() is not None:
            yield variable, uses


def _refused(what: str, name: str, then: Any, now: Any) -> InputError:
    """Build the error of a variable that holds something else now."""
    own = name if name.isidentifier() else "value"
    return InputError(
        f"a function of {what} reads {name!r}, which was {_change(then, now)}, as in a loop; hold "
        f"it where the function is made, as lambda ..., {own}={name}: ..., or make {what} again"
    )


def _value(variable: Variable) -> Any:
    """Return what a variable holds now."""
    holder, name = variable.holder(), variable.name
    if not name or holder is None:
        return holder
    return _content_of(_cells(holder).get(name, holder.__globals__), name)


def _cells(function: types.FunctionType) -> dict[str, types.CellType]:
    """Return the cells of the variables that a function has from outside, by name."""
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))


def _content_of(space: types.CellType | Mapping[str, Any], name: str) -> Any:
    """Return what a variable of globals or a cell holds; None: nothing."""
    if not isinstance(space, types.CellType):
        return space.get(name)
    try:
        return space.cell_contents
    except ValueError:  # nothing yet, or no longer
        return None


def _is_plain(value: Any) -> bool:
    """Whether a value cannot change: a number, a text, or a tuple of such."""
    if type(value) is tuple:
        return all(map(_is_plain, value))
    return type(value) in ATOMS


def _reference(value: Any) -> Any:
    """Return what stands for a value without keeping it alive: plain ones as they are."""
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
    """Whether two values do the same, as far as that can be told."""
    if type(then) is not type(now):
        return False
    try:
        return fingerprint(then) == fingerprint(now)
    except Unseen:
        return False


def _change(held: Any, now: Any) -> str:
    """Say what a variable held, and what it holds now."""
    shown = _is_plain(held) and _is_plain(now) and not isinstance(held, bytes)
    if shown:
        return f"{quoted(held)} when that was made and is {quoted(now)} now"
    return "something else when that was made"


# ---- within objects ------------------------------------------------------------------------------


def _changed(variable: Variable, uses: Uses) -> Iterator[tuple[str, Any, Any]]:
    """Yield what changed within a variable: how it is written, what was held, and what is."""
    found = _parts(variable, uses) if variable.parts else {}
    for part, held in variable.parts.items():
        if part in found and not _is_still(held, found[part]):
            yield part, held, found[part]


def _root(variable: Variable) -> str:
    """Return how what a variable holds is written."""
    value = _value(variable)
    if variable.name or isinstance(value, types.FunctionType):
        return variable.name
    return value.__name__ if isinstance(value, type) else type(value).__name__


def _parts(variable: Variable, uses: Uses) -> dict[str, Any]:
    """Return what is within a variable that functions may read, by how it is written."""
    found: dict[str, Any] = {}

    def add(part: str, value: Any, deep: int) -> None:
        if len(found) >= MOST_ITEMS or deep > DEEPEST:
            return
        if isinstance(value, METHODS):
            value = value.__func__
        if deep and (_is_plain(value) or isinstance(value, LEAVES)):
            found[part] = value
        elif isinstance(value, (*ARRAYS, *BYTES)):
            value = np.asarray(value) if isinstance(value, BYTES) else value
            if (content := _of_array(value)) is not None:
                found[part] = content
            return
        elif _is_table(value) and value.size <= MOST_ITEMS:
            axes = [axis.tolist() for axis in value.axes]
            found[part] = repr((str(value.dtypes), axes, value.to_numpy().tolist())).encode()
        for step, item in _within(value, uses):
            add(part + step, item, deep + 1)

    value = _value(variable)
    if not variable.name and isinstance(value, types.FunctionType):
        names, _, grown = bytecode.done(value.__code__)
        for name, default in _defaults(value):
            if name not in grown:
                add(name, default, 1)
        for name in sorted(names & os.environ.keys()) if names & OUTSIDE else ():
            add(f"os.environ[{name!r}]", os.environ[name], 1)
    else:
        add("", value, 0)
    return found


def _of_array(value: Any) -> bytes | None:
    """Return what stands for the values of an array or tensor; None: it is not looked at."""
    if isinstance(value, nn.Parameter) or np.prod(value.shape) > MOST_VALUES:
        return None
    try:
        if np.prod(value.shape) <= MOST_ITEMS:
            return repr((value.dtype, value.tolist())).encode()
        values = value.detach().cpu() if isinstance(value, torch.Tensor) else value
        return hashlib.blake2b(np.ascontiguousarray(values).data).digest()
    except Exception:  # sparse, of objects, or on no device
        return None


def _is_table(value: Any) -> bool:
    """Whether a value is a table or a column of pandas, which need not be imported."""
    pandas: Any = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series))


def _within(value: Any, uses: Uses) -> Iterator[tuple[str, Any]]:
    """Yield what is in a value that functions may read, and how it is written.

    What has a name is looked at where functions name it; all of it where they name none, of what
    they may be given whole.
    """
    if type(value) in SERIES:
        first = itertools.islice(value, MOST_ITEMS)
        yield from ((f"[{i}]", item) for i, item in enumerate(first))
        return
    if isinstance(value, contextvars.ContextVar):
        with contextlib.suppress(LookupError):
            yield ".get()", value.get()
        return
    way, whole = ".{}", isinstance(value, (*WHOLE, *MAPPINGS))
    if isinstance(value, functools.partial):
        yield from ((f".args[{i}]", item) for i, item in enumerate(value.args))
        value, way = value.keywords, ".keywords[{!r}]"
    elif isinstance(value, MAPPINGS):
        way = "[{!r}]"
    else:
        value = _attributes(value)
    known = [key for key in value if isinstance(key, str) and key in uses.names]
    if whole:
        every = [key for key in itertools.islice(value, MOST_ITEMS) if _is_plain(key)]
        named = [] if known else [key for key in every if not str(key).startswith("_")]
        known += named or [key for key in every if not isinstance(key, str)]
    yield from ((way.format(key), value[key]) for key in known if key not in uses.changed)


def _attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object or class, of its own classes too; of an own module."""
    if isinstance(value, types.ModuleType):
        return vars(value) if is_own_module(value) else {}
    if isinstance(value, NAMED):
        return {}
    kinds = (value if isinstance(value, type) else type(value)).__mro__[::-1]
    own = [vars(kind) for kind in kinds if is_own(kind)]
    found = {name: held for space in own for name, held in space.items()}
    if isinstance(value, type):
        return found
    slots = [name for space in own for name in space.get("__slots__", ()) if hasattr(value, name)]
    found |= {name: getattr(value, name) for name in slots} | getattr(value, "__dict__", {})
    if isinstance(value, nn.Module):
        for held in ("_buffers", "_modules"):
            found |= value.__dict__.get(held, {})
    found.pop("training", None)  # of modules, which says nothing of what they do here
    return found


def _defaults(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Return the defaults of a function's arguments, by name."""
    code, values = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount][code.co_argcount - len(values) :]
    return [*zip(names, values, strict=True), *(function.__kwdefaults__ or {}).items()]


# ---- through functions ---------------------------------------------------------------------------


class _Reads:
    """Goes through functions, and those that they read."""

    def __init__(self) -> None:
        self.variables: list[tuple[tuple[int, str], Variable]] = []
        self.stored: set[tuple[int, str]] = set()  # by a function itself: one that counts
        self.grown: set[tuple[int, str]] = set()  # whose items a function changes
        self.names: set[str] = set()
        self.changed: set[str] = set()
        self._methods: dict[int, tuple[str, type]] = {}  # of own classes, by function
        self._changes: list[tuple[int, Changes]] = []  # by function
        self._holders: list[Any] = []  # objects that may hold functions
        self._met: set[int] = set()
        self._alive: list[Any] = []  # so that no identity is used twice

    def add(self, value: Any) -> None:
        """Note what a value reads when it is called."""
        if self._is_done(value):
            return
        self._met.add(id(value))
        self._alive.append(value)
        if isinstance(value, types.FunctionType):
            if is_own(value):
                self._function(value)
            else:  # as `torch.vmap` makes them
                for cell in value.__closure__ or ():
                    self.add(_content_of(cell, ""))
        elif isinstance(value, np.ndarray) and value.dtype == object:
            self.add(value.ravel().tolist())
        elif isinstance(value, types.MethodType):
            self.names.add(getattr(value, "__name__", ""))
            self.add(value.__func__)
            self.add(value.__self__)
        elif isinstance(value, functools.partial):
            self.add(value.func)
            self._object(value)
            for item in (*value.args, *value.keywords.values()):
                self.add(item)
        elif isinstance(value, (*MAPPINGS, *SERIES, *SETS)):
            items = value.values() if isinstance(value, MAPPINGS) else value
            for item in itertools.islice(items, MOST_ITEMS):
                self.add(item)
        elif isinstance(value, type):
            if is_own(value):
                self._object(value)
                for kind in value.__mro__[1:]:
                    self.add(kind)
                for name, item in vars(value).items():
                    if isinstance(item, functools.partialmethod):
                        self.add((item.args, item.keywords))
                    for way in ("__func__", "fget", "func", "__wrapped__"):
                        item = getattr(item, way, item)
                    self._methods.setdefault(id(item), (name, value))
                    self.add(item)
        elif isinstance(value, CACHED):
            self.add(value.__wrapped__)
        elif not isinstance(value, (types.ModuleType, *ARRAYS)):
            for one in value.modules() if isinstance(value, nn.Module) else (value,):
                self.add(type(one))
                self._holders.append(one)
            if isinstance(value, nn.Module) or is_own(type(value)):
                self._object(value)

    def follow(self) -> None:
        """Note what functions read that objects hold where one may call them, and what they change.

        Once all functions are added.
        """
        while fresh := [item for value in self._holders for item in self._held(value)]:
            for item in fresh:
                self.add(item)
        for function, makes in self._changes:
            if function not in self._methods or self._is_called(*self._methods[function]):
                self.changed |= makes.names
                self.stored |= makes.stored
                self.grown |= makes.grown

    def _is_called(self, name: str, kind: type) -> bool:
        """Whether a method of an own class may be called by functions, not by their caller alone.

        They name it, or Python or an installed base class calls it: a `set_delta` is not.
        """
        if name in self.names or name in SETTERS:
            return name not in SETTERS
        installed = (base for base in kind.__mro__[1:] if not is_own(base))
        return name.startswith("__") or any(name in vars(base) for base in installed)

    def _held(self, value: Any) -> Iterator[Any]:
        """Yield what an object holds under a name that functions name, if it was not met.

        Of an installed class, whose code is not read, and where they name nothing of it, as in
        `vars(self).values()`, all that can be called; and the hooks of a module.
        """
        attributes, own = _attributes(value), is_own(type(value))
        named = [item for name, item in attributes.items() if name in self.names]
        items = named + [
            item for item in attributes.values() if not (own and named) and callable(item)
        ]
        for hooks in ("_forward_hooks", "_forward_pre_hooks"):
            items += attributes.get(hooks, {}).values() if isinstance(value, nn.Module) else ()
        yield from (item for item in items if not self._is_done(item))

    def _is_done(self, value: Any) -> bool:
        return type(value) in ATOMS or id(value) in self._met

    def _object(self, value: Any) -> None:
        """Note what an object holds, in whose methods it has no name from outside."""
        try:
            self.variables.append(((id(value), ""), Variable("", weakref.ref(value), None)))
        except TypeError:  # it has no weak references
            return

    def _function(self, function: types.FunctionType) -> None:
        self._object(function)  # its defaults
        cells = _cells(function)
        names, changed, grown = bytecode.done(function.__code__)
        self.names |= names
        for _, default in _defaults(function):
            self.add(default)
        makes = Changes(changed, set(), set())
        self._changes.append((id(function), makes))
        for name, how in bytecode.used(function.__code__):
            space = cells.get(name, function.__globals__)
            place = id(space), name
            if how in bytecode.STORES:
                makes.stored.add(place)
            elif name in cells or name in function.__globals__:
                value = _content_of(space, name)
                if name in grown:
                    makes.grown.add(place)
                if isinstance(value, types.ModuleType) and not is_own_module(value):
                    continue
                variable = Variable(name, weakref.ref(function), _reference(value))
                self.variables.append((place, variable))
                self.add(value)
                if isinstance(value, types.ModuleType):
                    for asked in sorted((names | {"__getattr__"}) & vars(value).keys()):
                        self.add(vars(value)[asked])
