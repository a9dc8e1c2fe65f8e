"""A fingerprint of whatever a run is made of: models, losses, functions, and what they read.

A function is its code, its defaults, what its closure holds and the globals that it reads; an
object its class and its attributes; a class its own functions and attributes. What belongs to an
installed package counts by name and version, with what its closures hold. Nothing is run.
Not looked at are lists that a function only appends to, and attributes that a class names, as
`changes_no_number = ("cache",)`.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import hashlib
import random
import sys
import types
import warnings
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from sgdstudy.errors import InputError, reason
from sgdstudy.problems import bytecode
from sgdstudy.problems.installed import (
    is_installed,
    is_installed_class,
    is_installed_module,
    version,
)

Code = types.CodeType
IDLE = "changes_no_number"  # of a class: names of attributes that are not looked at, as caches
ATOMS = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented))
# of a class: what says nothing of what it does
_SILENT = """
    __abstractmethods__ __annotate__ __annotate_func__ __annotations__ __dict__ __doc__
    __firstlineno__ __module__ __orig_bases__ __parameters__ __slotnames__ __static_attributes__
    __weakref__
    _abc_impl
"""
SILENT = frozenset(_SILENT.split())
# what reads what nobody sees from outside, under whatever name it is called
BLIND = {
    "builtins": ("globals", "eval", "exec", "compile", "__import__", "open", "input"),
    "os": ("environ", "environb", "getenv", "getenvb"),
    "numpy": ("load", "loadtxt", "genfromtxt", "fromfile"),
    "torch": ("load",),
}
READS_FILES = frozenset({"read_text", "read_bytes"})  # methods of paths
BY_NAME = frozenset({"getattr", "vars"})  # they may ask a module for anything
LOGS = (list, set, deque)
NAMED = (
    types.BuiltinFunctionType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.MethodWrapperType,
    np.ufunc,
)


class Unseen(InputError):
    """What a run is made of cannot be told from others: nothing shows all of it."""


def fingerprint(value: Any, what: str = "it") -> str:
    """Return what tells a value from others, `(16 characters)`.

    Args:
        value: anything.
        what: what it is called in a message.

    Raises:
        Unseen: it holds, or reads, what nothing shows (a lock, a file, a generator that runs).

    >>> fingerprint(lambda w, x: w[0] * x) == fingerprint(lambda w, x: w[0] * x)
    True
    >>> fingerprint(lambda w, x: w[0] * x) == fingerprint(lambda w, x: w[1] * x)
    False
    """
    walk = _Walk(what)
    try:
        walk.add(value)
    except RecursionError:
        raise Unseen(f"{what} is nested too deep") from None
    return walk.sha.hexdigest()[:16]


class _Walk:
    """Goes through a value and all that it refers to, and writes into a hash what it sees."""

    def __init__(self, what: str) -> None:
        self.sha = hashlib.sha256()
        self.path = [what]
        self._met: dict[int, int] = {}  # id of an object -> its number, in the order of the walk
        self._alive: list[Any] = []  # so that no identity is used twice

    def add(self, value: Any) -> None:
        """Write a value."""
        if type(value) in ATOMS:
            self._write(type(value).__name__, repr(value))
        elif type(value) in (tuple, list):
            self._items(type(value).__name__, value)
        elif isinstance(value, Code):
            self._code(value)
        elif id(value) in self._met:
            self._write("again", str(self._met[id(value)]))
        else:
            self._met[id(value)] = len(self._met)
            self._alive.append(value)
            self._whole(value)

    def _whole(self, value: Any) -> None:
        """Write what may refer to itself, once."""
        if id(value) in _blind():
            raise self._unseen(f"{_blind()[id(value)]}, which may read anything")
        if isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.MethodType):
            self._items("method", (value.__func__, value.__self__))
        elif isinstance(value, NAMED):
            self._named(value)
        elif isinstance(value, types.ModuleType):
            if not is_installed_module(value):
                raise self._unseen(f"the module {value.__name__}, of which it may read anything")
            self._write("module", value.__name__)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, (staticmethod, classmethod)):
            self._items(type(value).__name__, (value.__func__,))
        elif isinstance(value, functools.cached_property):
            self._items("cached property", (value.func,))
        elif isinstance(value, property):
            self._items("property", (value.fget, value.fset, value.fdel))
        elif type(value) in (dict, types.MappingProxyType):
            self._mapping(value)
        elif type(value) in (set, frozenset):
            self._write("set", *sorted(fingerprint(item, self._place) for item in value))
        elif isinstance(value, (torch.Tensor, np.ndarray)):
            self._array(value)
        elif any(value is one for one in _global_generators()):
            self._write("a global generator", type(value).__name__)
        else:
            self._object(value)

    # ---- how it is written -----------------------------------------------------------------------

    @property
    def _place(self) -> str:
        return "".join(self.path)

    def _write(self, *words: str) -> None:
        for word in words:
            data = word.encode("utf-8", "surrogatepass")
            self.sha.update(b"%d:" % len(data) + data)

    def _within(self, name: str, value: Any) -> None:
        """Write what is found under a name."""
        self.path.append(name)
        self.add(value)
        self.path.pop()

    def _items(self, kind: str, values: Iterable[Any]) -> None:
        values = list(values)
        self._write(kind, str(len(values)))
        for i, value in enumerate(values):
            self._within(f"[{i}]", value)

    def _mapping(self, values: Mapping[Any, Any]) -> None:
        self._write("mapping", str(len(values)))
        for key, value in list(values.items()):
            self.add(key)
            self._within(f"[{key!r:.40}]" if type(key) in ATOMS else "[...]", value)

    def _array(self, value: Any) -> None:
        cls = type(value)
        self._write(str(value.dtype), str(tuple(value.shape)))
        self._within("'s class", cls)
        if not is_installed_class(cls):
            self._within("'s attributes", dict(getattr(value, "__dict__", {})))
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            self._items("objects", value.ravel().tolist())
            return
        try:
            if isinstance(value, torch.Tensor):
                self._write(str(value.requires_grad))
                flat = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
                # torch cannot view an empty tensor as bytes
                value = flat.view(torch.uint8).numpy() if len(flat) else np.empty(0)
            self.sha.update(np.ascontiguousarray(value).tobytes())
        except Exception as error:
            raise self._unseen(f"a tensor that cannot be read ({reason(error)})") from None

    def _unseen(self, what: str) -> Unseen:
        return Unseen(f"{self._place} is, or reads, {what}")

    # ---- functions -------------------------------------------------------------------------------

    def _function(self, value: types.FunctionType) -> None:
        self._write("function")
        code = value.__code__
        if is_installed(code.co_filename):
            module = str(value.__globals__.get("__name__"))
            self._write(module, code.co_qualname, version(module))
        else:
            self.add(code)
            self._globals(code, value.__globals__, _modules_in(value.__closure__ or ()))
        self._within("'s defaults", value.__defaults__)
        self._within("'s defaults", value.__kwdefaults__)
        for name, cell in zip(code.co_freevars, value.__closure__ or (), strict=True):
            try:
                held = cell.cell_contents
            except ValueError:  # nothing yet
                self._write("empty")
                continue
            if not (isinstance(held, types.ModuleType) or _is_log(code, name, held)):
                self._within(f"'s {name}", held)
        self._within("'s attributes", dict(value.__dict__))

    def _code(self, code: Code) -> None:
        """Write what is done, not where it stands."""
        counts = (code.co_flags, code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount)
        self._write("code", code.co_code.hex(), code.co_exceptiontable.hex(), str(counts))
        for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):
            self._items("names", names)
        self._items("constants", code.co_consts)

    def _globals(
        self, code: Code, space: Mapping[str, Any], modules: Iterable[types.ModuleType]
    ) -> None:
        """Write the globals that a code reads, and of modules what it asks them for."""
        names, asked, imported = bytecode.read_by(code)
        if READS_FILES & asked:
            raise self._unseen(f"a file, by {min(READS_FILES & asked)}")
        there = [sys.modules[name] for name in sorted(imported) if name in sys.modules]
        if len(there) < len(imported):
            raise self._unseen("a module that it imports, and has not imported yet")
        modules = [*there, *modules]
        builtins = vars(sys.modules["builtins"])
        for name in sorted(names & (space.keys() | builtins.keys())):
            value = space[name] if name in space else builtins[name]
            self._write(name)
            if isinstance(value, types.ModuleType):
                modules.append(value)
            elif not _is_log(code, name, value):
                self._within(f"'s global {name}", value)
        by_name = min(names & (BY_NAME - space.keys()), default="")
        seen: set[str] = set()
        for module in modules:
            self._module(module, asked, by_name, seen)

    def _module(
        self, module: types.ModuleType, asked: frozenset[str], by_name: str, seen: set[str]
    ) -> None:
        """Write what a code may ask a module for."""
        if module.__name__ in seen:
            return
        seen.add(module.__name__)
        if by_name and not is_installed_module(module):
            raise self._unseen(f"a call of {by_name}, which may ask {module.__name__} for anything")
        self._write("module", module.__name__, version(module.__name__))
        # by `__getattr__` it may make up what it is asked for
        own = not is_installed_module(module)
        for name in sorted((asked | {"__getattr__"} if own else asked) & vars(module).keys()):
            value = vars(module)[name]
            self._write(name)
            if isinstance(value, types.ModuleType):
                self._module(value, asked, by_name, seen)
            else:
                self._within(f"'s {module.__name__}.{name}", value)

    # ---- classes and objects ---------------------------------------------------------------------

    def _named(self, value: Any) -> None:
        """Write what is not written in Python: its name, and what it is bound to."""
        owner = getattr(value, "__objclass__", None)
        module = getattr(value, "__module__", None) or getattr(owner, "__module__", None) or ""
        name = getattr(value, "__qualname__", getattr(value, "__name__", ""))
        self._write(type(value).__name__, str(module), str(name), version(str(module)))
        bound = getattr(value, "__self__", None)
        if not (bound is None or isinstance(bound, types.ModuleType)):
            self._within("'s object", bound)

    def _class(self, value: type) -> None:
        module = str(value.__module__)  # of some that are made in C it is a descriptor
        self._write("class", module, value.__qualname__)
        if is_installed_class(value):
            self._write(version(module))
            return
        self._items("bases", value.__bases__)
        self._within("'s class", type(value))
        for name, attribute in sorted(vars(value).items()):
            # what slots hold comes with the object
            if name not in SILENT and not isinstance(attribute, types.MemberDescriptorType):
                self._write(name)
                self._within(f".{name}", attribute)

    def _object(self, value: Any) -> None:
        """Write an object: its class, its attributes, and what a copy of it would be made of."""
        cls = type(value)
        self._within("'s class", cls)
        if isinstance(value, torch.Generator):
            self.add(value.get_state())
            return
        attributes: dict[str, Any] = {}
        # an object of an installed class is told by `_parts` alone
        if isinstance(value, torch.nn.Module) or not is_installed_class(cls):
            attributes = dict(getattr(value, "__dict__", {}))
            slots = copyreg._slotnames(cls)  # type: ignore[attr-defined]
            attributes |= {name: getattr(value, name) for name in slots if hasattr(value, name)}
            if isinstance(value, torch.nn.Module):
                attributes = _with_hooks_numbered(attributes)
            idle = getattr(cls, IDLE, ())
            for name in (name for name in attributes if name not in idle):
                self._write(str(name))
                self._within(f".{name}", attributes[name])
        if not isinstance(value, torch.nn.Module):  # all of a module is in its attributes
            self._parts(value, attributes)

    def _parts(self, value: Any, attributes: Mapping[str, Any]) -> None:
        """Write what Python would make a copy of an object from."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                parts = value.__reduce_ex__(4)
                if isinstance(parts, str):  # its name; a function that is cached wraps another
                    parts = str, (parts, getattr(value, "__wrapped__", None))
                made, given, *rest = parts
                state, items, pairs = (*rest, None, None, None)[:3]
                items, pairs = list(items or ()), list(pairs or ())
        except Exception:
            raise self._unseen(f"an object of type {type(value).__name__}") from None
        self._within("'s maker", made)
        self._within("", given)
        if not _says_nothing_new(state, attributes):
            self._within("", state)
        self._items("items", items)
        self._items("pairs", pairs)


def _with_hooks_numbered(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return a module's attributes; its hooks by their order, not by numbers of the process."""
    kept = {name: held for name, held in attributes.items() if isinstance(held, OrderedDict)}
    numbers = sorted({key for held in kept.values() for key in held if type(key) is int})
    order = {number: i for i, number in enumerate(numbers)}
    found = {name: {order.get(k, k): v for k, v in held.items()} for name, held in kept.items()}
    return attributes | found


def _says_nothing_new(state: Any, attributes: Mapping[str, Any]) -> bool:
    """Whether a state says no more than the attributes do, as that of most objects."""
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
        state = {**(state[0] or {}), **state[1]}
    if not isinstance(state, dict):
        return state is None
    return all(name in attributes and state[name] is attributes[name] for name in state)


def _modules_in(closure: Iterable[types.CellType]) -> list[types.ModuleType]:
    found = []
    for cell in closure:
        with contextlib.suppress(ValueError):  # nothing yet
            if isinstance(cell.cell_contents, types.ModuleType):
                found.append(cell.cell_contents)
    return found


def _is_log(code: Code, name: str, value: Any) -> bool:
    """Whether a code only appends to a variable: what is in it makes no difference."""
    return type(value) in LOGS and name in bytecode.only_grown(code)


@functools.cache
def _blind() -> dict[int, str]:
    """Return what reads anything, by identity; all of it lives as long as Python."""
    found = {}
    for module, names in BLIND.items():
        for name in names:
            value = getattr(sys.modules[module], name, None)  # no environb on Windows
            if value is not None:
                found[id(value)] = name if module == "builtins" else f"{module}.{name}"
    return found


def _global_generators() -> tuple[Any, ...]:
    hidden: Any = (random, np.random)  # what their functions are bound to
    return hidden[0]._inst, hidden[1].mtrand._rand, torch.default_generator
