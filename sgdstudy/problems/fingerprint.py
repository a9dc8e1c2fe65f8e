"""A fingerprint of whatever a run is made of: models, losses, functions, and what they read.

A function is its code, its defaults, what its closure holds and the globals that it reads; an
object its class and its attributes; a class its own functions and attributes. What an installed
package has counts by name and version, with what its closures hold and what was put into it; what
reads the world outside (`outside.py`) is `Unseen`. Nothing is run.
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
from sgdstudy.problems import afterwards, bytecode, outside
from sgdstudy.problems.installed import (
    is_installed_class,
    is_installed_function,
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
    __weakref__ _abc_impl
"""
SILENT = frozenset(_SILENT.split())
LOGS = (list, set, deque)
ANNOTATE = ("dataclasses", "inspect", "types", "typing")  # what they hold of classes calls none


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
    return _fingerprint(value, what, set())


def fingerprints(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the fingerprints of values of one moment, by what they are called.

    Raises:
        Unseen: see `fingerprint`.

    >>> fingerprints({"lr": 0.1}) == {"lr": fingerprint(0.1)}
    True
    """
    seen: set[str] = set()  # packages are looked at once: nothing runs between
    return {name: _fingerprint(value, f"the {name}", seen) for name, value in values.items()}


def _fingerprint(value: Any, what: str, seen: set[str]) -> str:
    walk = _Walk(what, seen)
    try:
        walk.add(value)
        walk.finish()
    except RecursionError:
        raise Unseen(f"{what} is nested too deep") from None
    return walk.sha.hexdigest()[:16]


class _Walk:
    """Goes through a value and all that it refers to, and writes into a hash what it sees."""

    def __init__(self, what: str, seen: set[str]) -> None:
        self.sha = hashlib.sha256()
        self.path, self._seen = [what], seen
        self._met: dict[int, int] = {}  # id of an object -> its number, in the order of the walk
        self._alive: list[Any] = []  # so that no identity is used twice
        self._kinds: list[Any] = [None]  # the classes of the objects that are being walked through
        self._calm = False  # whether classes are named only, as in annotations
        self._codes: list[Code] = []  # of the user's functions
        self._values: list[Any] = []  # arrays and lists, in the order of the walk
        # attributes that are written where they are asked for, with whose they are
        self._aside: list[tuple[Any, Mapping[str, Any]]] = []

    def add(self, value: Any) -> None:
        """Write a value."""
        named_only = isinstance(value, type) and (self._calm or value is self._kinds[-1])
        if not named_only and outside.reader(value):
            raise self._unseen(f"{outside.reader(value)}, which may read anything")
        if type(value) in ATOMS:
            self._write(type(value).__name__, repr(value))
        elif type(value) in (tuple, list):
            self._values += [value] if type(value) is list else []
            self._items(type(value).__name__, value)
        elif isinstance(value, Code):
            self._code(value)
        elif id(value) in self._met:
            self._write("again", str(self._met[id(value)]))
        else:
            self._met[id(value)] = len(self._met)
            self._alive.append(value)
            self._whole(value)

    def finish(self) -> None:
        """Write what of all that was met is read in another way than by its name."""
        if not (self._alive or self._codes):  # numbers, texts and lists of them
            return
        given = self._alive, self._codes, self._values, self._aside
        for one in afterwards.more(*given, self._seen):
            self._write(*one.names)
            self._calm = one.named_only
            self._within(f"'s {'.'.join(one.names[1:])}", one.value)
        if what := afterwards.unseen(self._alive, self._codes):
            raise self._unseen(what)

    def _whole(self, value: Any) -> None:
        """Write what may refer to itself, once."""
        if isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.MethodType):
            self._items("method", (value.__func__, value.__self__))
        elif outside.is_named(value):
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
        if isinstance(value, torch.Tensor) and (value.is_nested or value.is_quantized):
            raise self._unseen("a nested or quantized tensor")
        self._write(str(value.dtype), str(tuple(value.shape)))
        self._within("'s class", cls)
        attributes = dict(getattr(value, "__dict__", {}))
        self._values.append(value)
        if isinstance(value, np.ma.MaskedArray):
            self._within("'s mask", np.ma.getmaskarray(value))
            self._within("'s fill value", value.view().fill_value)
        if not is_installed_class(cls) or (isinstance(value, torch.Tensor) and attributes):
            self._within("'s attributes", attributes)
        elif attributes:
            self._aside.append((value, attributes))
        if isinstance(value, torch.Tensor) and value._backward_hooks:
            self._items("hooks", value._backward_hooks.values())
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
        if is_installed_function(value):
            module = str(value.__globals__.get("__name__"))
            self._write(module, code.co_qualname, version(module))
        else:
            self.add(code)
            any_value: Any = value  # mypy knows of its __builtins__ at times
            self._globals(code, value.__globals__, _modules_in(value), any_value.__builtins__)
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
        # torch puts there, at the first call, what keeps its compiler away
        attributes = {k: v for k, v in vars(value).items() if k != "__dynamo_disable"}
        self._within("'s attributes", attributes)

    def _code(self, code: Code) -> None:
        """Write what is done, not where it stands."""
        counts = (code.co_flags, code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount)
        self._write("code", code.co_code.hex(), code.co_exceptiontable.hex(), str(counts))
        for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):
            self._items("names", names)
        self._items("constants", code.co_consts)

    def _globals(
        self,
        code: Code,
        space: Mapping[str, Any],
        modules: Iterable[tuple[str, types.ModuleType]],
        builtins: Mapping[str, Any],
    ) -> None:
        """Write the globals that a code reads, and of modules what it asks them for."""
        names, asked, imported = bytecode.read_by(code)
        by_name = min(names & (afterwards.BY_NAME - space.keys()), default="")
        shown = outside.GLIMPSES & (asked | (bytecode.texts(code) if by_name else set()))
        if shown:
            raise self._unseen(f"anything, by {min(shown)}")
        self._codes.append(code)
        there = [(name, sys.modules[name]) for name in sorted(imported) if name in sys.modules]
        if len(there) < len(imported):
            raise self._unseen("a module that it imports, and has not imported yet")
        modules = [*there, *modules]
        for name in sorted(names & (space.keys() | builtins.keys())):
            value = space[name] if name in space else builtins[name]
            self._write(name)
            if isinstance(value, types.ModuleType):
                modules.append((name, value))
            elif not _is_log(code, name, value):
                self._within(f"'s global {name}", value)
        seen: set[str] = set()
        for name, module in modules:
            self._module(name, module, code, by_name, seen)

    def _module(
        self, name: str, module: types.ModuleType, code: Code, by_name: str, seen: set[str]
    ) -> None:
        """Write what a code may ask a module for that it holds under a name."""
        own = not is_installed_module(module)
        if by_name and own:
            raise self._unseen(f"a call of {by_name}, which may ask {module.__name__} for anything")
        if name in bytecode.escaping(code) and (own or not outside.computes(module.__name__)):
            raise self._unseen(f"the module {module.__name__}, of which it may read anything")
        if module.__name__ in seen:
            return
        seen.add(module.__name__)
        self._write("module", module.__name__, version(module.__name__))
        # by `__getattr__` it may make up what it is asked for
        asked = bytecode.read_by(code)[1] | ({"__getattr__"} if own else set())
        held = vars(module) if own else _with_what_is_loaded_late(module, asked)
        for name in sorted(asked & held.keys()):
            value = held[name]
            self._write(name)
            if isinstance(value, types.ModuleType):
                self._module(name, value, code, by_name, seen)
            else:
                self._within(f"'s {module.__name__}.{name}", value)

    # ---- classes and objects ---------------------------------------------------------------------

    def _named(self, value: Any) -> None:
        """Write what is not written in Python: its name, and what it is bound to."""
        module = outside.home(value)
        name = getattr(value, "__qualname__", getattr(value, "__name__", ""))
        if isinstance(value, np.ufunc) and all(set(kind) <= set("O->") for kind in value.types):
            raise self._unseen("a ufunc of a function in Python, which may do anything")
        self._write(type(value).__name__, module, str(name), version(module))
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
        cls, calm = type(value), self._calm
        self._kinds.append(cls)
        self._calm |= cls.__module__ in ANNOTATE
        self._within("'s class", cls)
        self._contents(value, cls)
        self._kinds.pop()
        self._calm = calm

    def _contents(self, value: Any, cls: type) -> None:
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
                if isinstance(value, functools.partial):  # its dict is made once it is asked for
                    state = (*state[:3], state[3] or None)
                items, pairs = list(items or ()), list(pairs or ())
        except Exception:
            raise self._unseen(f"an object of type {type(value).__name__}") from None
        self._within("'s maker", made)
        self._within("", given)
        if not _says_nothing_new(state, attributes):
            self._within("", state)
        told = {**(_named_in(state) or {}), **attributes}
        # a partial tells them with its arguments, and says otherwise once it was asked for them
        held = {} if isinstance(value, functools.partial) else getattr(value, "__dict__", {})
        self._aside.append((value, {name: held[name] for name in held if name not in told}))
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
    names = _named_in(state)
    if names is None:
        return state is None
    return all(name in attributes and names[name] is attributes[name] for name in names)


def _named_in(state: Any) -> dict[str, Any] | None:
    """Return what a state says of attributes; None: it is no dict, nor a pair of them."""
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
        state = {**(state[0] or {}), **state[1]}
    return state if isinstance(state, dict) else None


def _modules_in(function: types.FunctionType) -> list[tuple[str, types.ModuleType]]:
    """Return the modules that a function's closure holds, by name."""
    found = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # nothing yet
            if isinstance(cell.cell_contents, types.ModuleType):
                found.append((name, cell.cell_contents))
    return found


def _with_what_is_loaded_late(module: types.ModuleType, asked: frozenset[str]) -> Mapping[str, Any]:
    """Return what an installed module holds, and what it loads where it is asked for it."""
    late: dict[str, Any] = {}
    for name in (asked & set(dir(module))) - vars(module).keys():
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            late[name] = getattr(module, name)
    return {**vars(module), **late}


def _is_log(code: Code, name: str, value: Any) -> bool:
    """Whether a code only appends to a variable: what is in it makes no difference."""
    return type(value) in LOGS and name in bytecode.only_grown(code)


def _global_generators() -> tuple[Any, ...]:
    hidden: Any = (random, np.random)  # what their functions are bound to
    return hidden[0]._inst, hidden[1].mtrand._rand, torch.default_generator
