"""Whose a module, a class or a function is: Python's, an installed package's, or the user's own."""

from __future__ import annotations

import functools
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

WRAPPERS = (staticmethod, classmethod, types.MethodType)
FUNCTIONS = frozenset({types.FunctionType, property, *WRAPPERS})
HEAP = 1 << 9  # of `type.__flags__`: made by a class statement, or like one


@functools.cache
def _places() -> tuple[Path, ...]:
    """Return where Python, installed packages and this one lie."""
    paths = sysconfig.get_paths()
    found = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return (*map(Path, found), Path(__file__).parents[1])


def is_installed_module(module: types.ModuleType) -> bool:
    """Whether a module is not the user's own."""
    file = vars(module).get("__file__")
    return module.__name__ in sys.builtin_module_names if file is None else is_installed(file)


@functools.cache
def is_installed(file: str) -> bool:
    """Whether a file is Python's own, of an installed package, or ours."""
    if file.startswith("<frozen"):
        return True
    path = Path(file)
    inside = any(path.is_relative_to(place) for place in _places())
    return inside or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


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


def put_in(space: Mapping[str, Any]) -> list[str]:
    """Return the names of a space of an installed package that hold functions of the user's."""
    held = [name for name, value in space.items() if type(value) in FUNCTIONS]
    return sorted(name for name in held if _is_put(space[name]))


def spaces(value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield what of installed packages a class or function uses: its name, and what it holds.

    Classes that it inherits from, its module, and the modules that this one has.
    """
    if isinstance(value, type):
        for cls in value.__mro__:
            if cls.__flags__ & HEAP and is_installed_class(cls):
                yield f"{cls.__module__}.{cls.__qualname__}", vars(cls)
    if isinstance(value, (type, types.FunctionType)):
        module = sys.modules.get(str(value.__module__))
        if isinstance(module, types.ModuleType) and is_installed_module(module):
            yield module.__name__, vars(module)
            for one in [one for one in vars(module).values() if type(one) is types.ModuleType]:
                if is_installed_module(one):
                    yield one.__name__, vars(one)


def _is_put(value: Any) -> bool:
    kind = type(value)  # what only pretends to be of another class says so in `isinstance`
    if kind is property:
        return any(map(_is_put, (value.fget, value.fset)))
    value = value.__func__ if kind in WRAPPERS else value
    if type(value) is not types.FunctionType or is_installed(value.__code__.co_filename):
        return False
    module = sys.modules.get(str(value.__globals__.get("__name__")))
    if module is None:  # packages make some of their functions from texts
        return not value.__code__.co_filename.startswith("<")
    return not is_installed_module(module)


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
