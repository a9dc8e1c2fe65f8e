"""Whose a module, a class or a function is: Python's, an installed package's, or the user's own."""

from __future__ import annotations

import functools
import operator
import sys
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sgdstudy.whose import is_installed

WRAPPERS = (staticmethod, classmethod, types.MethodType)
PARTIALS = (functools.partial, functools.partialmethod)
CACHED = (type(functools.lru_cache(len)),)
PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes, types.ModuleType})
HEAP = 1 << 9  # of `type.__flags__`: made by a class statement, or like one
NAME = operator.itemgetter(0)
Codes = Mapping[str, Sequence[types.CodeType]]


def is_installed_module(module: types.ModuleType) -> bool:
    """Whether a module is not the user's own."""
    file = vars(module).get("__file__")
    return module.__name__ in sys.builtin_module_names if file is None else is_installed(file)


def is_installed_class(value: type) -> bool:
    """Whether a class is found under its name in an installed module."""
    if not isinstance(value.__module__, str):
        return not value.__flags__ & HEAP
    found: Any = sys.modules.get(value.__module__)
    if not (isinstance(found, types.ModuleType) and is_installed_module(found)):
        return False
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    # what is made in C need not be where it says
    return found is value or not value.__flags__ & HEAP


def is_installed_function(value: types.FunctionType) -> bool:
    """Whether a function is of an installed file and of the module that was loaded from there.

    One that another process sent has globals of its own, so it goes by the file.
    """
    file = value.__code__.co_filename
    if not is_installed(file):
        return False
    module = sys.modules.get(str(value.__globals__.get("__name__")))
    if not (isinstance(module, types.ModuleType) and is_installed_module(module)):
        return False
    return vars(module) is value.__globals__ or vars(module).get("__file__") == file


class Space(NamedTuple):
    """What a class or module of an installed package holds.

    Attributes:
        module: where its file says what it holds.
        owner: the class, by its qualified name; "" for a module.
        held: its values, by name.
    """

    module: str
    owner: str
    held: Mapping[str, Any]

    @property
    def name(self) -> str:
        """How it is called."""
        return f"{self.module}.{self.owner}" if self.owner else self.module


def put_in(space: Space, seen: set[str]) -> list[tuple[str, Any]]:
    """Return what someone put into an installed package: names, and what they hold now.

    That is what holds anything of the user's, what stands where the package's file has a function,
    and other defaults than there. Spaces in `seen` are as they were; this one is added to them.
    """
    last = _looked_at.get(space.name)
    if last is not None and space.name in seen:
        return last.found
    seen.add(space.name)
    values = list(space.held.values())
    if last is None or not last.is_still(values):
        codes = _codes(space)
        around = _Around(codes.get("", ()))
        found = [
            (name, *_put(value, name, codes, around))
            for name, value in sorted(space.held.items(), key=NAME)
        ]
        functions = [one for one in map(_function_of, values) if one is not None]
        put = [(name + more, value) for name, more, value in found if more is not None]
        last = _LookedAt(values, functions, [_state(one) for one in functions], put)
        _looked_at[space.name] = last
    return last.found


class _LookedAt(NamedTuple):
    """What was found in a space, and what it held then."""

    values: list[Any]
    functions: list[types.FunctionType]
    states: list[tuple[Any, ...]]
    found: list[tuple[str, Any]]

    def is_still(self, values: list[Any]) -> bool:
        """Whether a space that now holds these values is as it was."""
        same = len(values) == len(self.values) and all(map(operator.is_, values, self.values))
        return same and all(map(_is_in_state, self.functions, self.states))


_looked_at: dict[str, _LookedAt] = {}


def _state(function: types.FunctionType) -> tuple[Any, ...]:
    """Return what of a function can be replaced."""
    return function.__code__, function.__defaults__, function.__kwdefaults__


def _is_in_state(function: types.FunctionType, state: tuple[Any, ...]) -> bool:
    code, one, other = state
    same = function.__code__ is code and function.__defaults__ is one
    return same and function.__kwdefaults__ is other


def _put(value: Any, name: str, codes: Codes, around: _Around) -> tuple[str | None, Any]:
    """Return what of a value someone has put there: "", or its defaults; None: nothing."""
    if type(value) in PLAIN:
        return None, None
    if _is_put(value):
        return "", value
    if _is_another(value, codes.get(name, ())):
        in_c = isinstance(value, types.BuiltinFunctionType | types.WrapperDescriptorType)
        return "", f"{value.__module__}.{value.__qualname__}" if in_c else value
    if name in codes and (defaults := _other_defaults(value, around)):
        return "'s defaults", defaults
    return None, None


def spaces(value: Any) -> Iterator[Space]:
    """Yield what of installed packages a class or function uses.

    Classes that it inherits from, its module, and the modules that this one has.
    """
    if isinstance(value, type):
        for cls in value.__mro__:
            if cls.__flags__ & HEAP and is_installed_class(cls):
                yield Space(cls.__module__, cls.__qualname__, vars(cls))
    if isinstance(value, (type, types.FunctionType)):
        module = sys.modules.get(str(value.__module__))
        if isinstance(module, types.ModuleType) and is_installed_module(module):
            yield Space(module.__name__, "", vars(module))
            for one in [one for one in vars(module).values() if type(one) is types.ModuleType]:
                if is_installed_module(one):
                    yield Space(one.__name__, "", vars(one))


def _is_put(value: Any) -> bool:
    """Whether a value is the user's, or made of what is."""
    kind = type(value)  # what only pretends to be of another class says so in `isinstance`
    if kind is types.FunctionType:
        return _is_own_function(value)
    if kind in WRAPPERS:
        return _is_put(value.__func__)
    if kind is property:
        return any(map(_is_put, (value.fget, value.fset)))
    if kind is functools.cached_property:
        return _is_put(value.func)
    if kind in PARTIALS:
        return any(map(_is_put, (value.func, *value.args, *value.keywords.values())))
    if kind in CACHED:
        return _is_put(value.__wrapped__)
    cls: type = value if issubclass(kind, type) else kind
    return _is_own_class(cls)


@functools.lru_cache(maxsize=10_000)
def _is_own_class(value: type) -> bool:
    """Whether a class is the user's: of a module of theirs, or with a function of theirs."""
    if not value.__flags__ & HEAP or is_installed_class(value):
        return False
    module = sys.modules.get(str(value.__module__))
    if isinstance(module, types.ModuleType) and vars(module).get("__file__"):
        return not is_installed_module(module)
    functions = [held for held in vars(value).values() if type(held) is types.FunctionType]
    return value.__module__ == "__main__" or any(map(_is_own_function, functions))


def _is_own_function(value: types.FunctionType) -> bool:
    if is_installed(value.__code__.co_filename):
        return False
    module = sys.modules.get(str(value.__globals__.get("__name__")))
    if module is None:  # packages make some of their functions from texts
        return not value.__code__.co_filename.startswith("<")
    return not is_installed_module(module)


def _is_another(value: Any, codes: Sequence[types.CodeType]) -> bool:
    """Whether a value is not what any of the codes of its package makes."""
    if not codes or issubclass(type(value), type):
        return False
    function = _function_of(value)
    if function is None:  # what is written in C goes before what is written in Python
        named = getattr(value, "__name__", "") == codes[0].co_name
        return not named and (callable(value) or type(value) in PARTIALS)
    places = [(code.co_qualname, code.co_firstlineno) for code in codes]
    return (function.__code__.co_qualname, function.__code__.co_firstlineno) not in places


class _Around:
    """What the code around functions makes their defaults of."""

    def __init__(self, codes: Sequence[types.CodeType]) -> None:
        self._codes = codes

    @functools.cached_property
    def constants(self) -> set[tuple[type, str]]:
        """Its constants, by type and text."""
        return {(type(const), repr(const)) for code in self._codes for const in code.co_consts}

    @functools.cached_property
    def names(self) -> set[str]:
        """What it names."""
        return {name for code in self._codes for name in code.co_names}


def _other_defaults(value: Any, around: _Around) -> list[Any]:
    """Return the defaults of a function that the code around it does not make."""
    function = _function_of(value)
    if function is None:
        return []
    one, other = function.__defaults__ or (), function.__kwdefaults__ or {}
    consts, names = around.constants, around.names
    if (tuple, repr(one)) in consts:
        one = ()
    elif one and all(map(_is_number_or_text, one)) and not names.issuperset(one):
        return [one, other]

    def is_made(item: Any) -> bool:
        if _is_number_or_text(item):
            return (type(item), repr(item)) in consts or item in names
        name = getattr(item, "__name__", None) or getattr(item, "name", None)
        return not _is_put(item) and (name is None or name in names)

    return [item for item in (*one, *other.values()) if not is_made(item)]


def _is_number_or_text(value: Any) -> bool:
    return type(value) in PLAIN and type(value) is not types.ModuleType


def _function_of(value: Any) -> types.FunctionType | None:
    """Return the function in Python that a value is made of, None where it is of none."""
    for _ in range(100):  # what wraps itself
        if type(value) is types.FunctionType and "__wrapped__" not in value.__dict__:
            return value
        if type(value) in WRAPPERS:
            value = value.__func__
        elif type(value) is property:
            value = value.fget
        elif type(value) is functools.cached_property:
            value = value.func
        elif type(value) in (types.FunctionType, *CACHED):
            value = value.__wrapped__
        else:
            return None
    return None


def _codes(space: Space) -> Codes:
    """Return the codes that the file of a space has, by name; its own by ""."""
    written = _written(space.module)
    if space.owner and space.owner not in written:  # some say that they are of another module
        functions = filter(None, map(_function_of, space.held.values()))
        homes = {str(one.__globals__.get("__name__")): None for one in functions}
        written = next((_written(home) for home in homes if space.owner in _written(home)), {})
    return written.get(space.owner, {})


@functools.cache
def _written(module: str) -> dict[str, dict[str, list[types.CodeType]]]:
    """Return the codes in the file of a package's module: of itself, "", and of its classes."""
    if module.partition(".")[0] in sys.stdlib_module_names:  # others replace some of these
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = sys.modules[module].__spec__.loader.get_code(module)  # type: ignore
    except Exception:  # written in C, or made by a program
        return {}
    found: dict[str, dict[str, list[types.CodeType]]] = {}

    def add(owner: str, code: types.CodeType) -> None:
        names = found.setdefault(owner, {})
        names.setdefault("", []).append(code)
        for inner in code.co_consts:
            if isinstance(inner, types.CodeType) and "<" not in inner.co_qualname:
                names.setdefault(inner.co_name, []).append(inner)
                add(inner.co_qualname, inner)

    if code is not None:
        add("", code)
    return found


def is_own(value: types.FunctionType | type) -> bool:
    """Whether a function or class is the user's own."""
    if isinstance(value, type):
        return not is_installed_class(value)
    return not is_installed(value.__code__.co_filename)


def is_own_module(value: types.ModuleType) -> bool:
    """Whether a module is the user's own."""
    return not is_installed_module(value)


@functools.cache
def version(module: str) -> str:
    """Return the version of the package that a module belongs to, "" where it has none."""
    root = module.partition(".")[0]
    if root in sys.stdlib_module_names:
        return ".".join(map(str, sys.version_info[:3]))
    return str(getattr(sys.modules.get(root), "__version__", ""))
