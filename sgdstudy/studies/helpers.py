"""Helpers beside a script: `from _common import ...` works as for `python script.py`.

Python's own way, the script's folder first in `sys.path`, would let a script called `random.py`
take the place of a module for everybody, and the `_common` of one folder that of another. So a
script's folder is searched for those alone whose own file lies in it, and while a script is loaded
or runs (`beside`) its folder's helpers stand in for others of the same name.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from sgdstudy.tracking.code import Code
from sgdstudy.whose import is_installed

BY_NAME = ("import_module", "__import__")  # what imports the module of a name
LONGEST_FILE = 1_000_000  # bytes of one

_folders: list[Path] = []  # of scripts that were loaded, resolved
_seen: dict[Path, tuple[int, int]] = {}  # helpers that were loaded: time and size of the file
_kept: dict[Path, dict[str, ModuleType]] = {}  # a folder's helpers, while others have their names


@contextmanager
def beside(script: str | Path) -> Iterator[None]:
    """Let a script's helpers be found while it is loaded, or runs; others come back after."""
    folder = _folder_of(script)
    if folder is None:
        yield
        return
    if folder not in _folders:
        _folders.append(folder)
    if not any(isinstance(finder, _Beside) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Beside())
    hidden = _taken(lambda name, module: _find(name, folder) and not _lies_in(module, folder))
    sys.modules.update(_kept.pop(folder, {}))
    try:
        yield
    finally:
        if hidden:
            roots = {name.partition(".")[0] for name in hidden}
            _kept[folder] = _taken(lambda name, module: name in roots and _lies_in(module, folder))
            sys.modules.update(hidden)


@contextmanager
def loading(script: str | Path) -> Iterator[None]:
    """As `beside`, and helpers that were written anew since are loaded anew."""
    with beside(script):
        folder = Path(script).resolve().parent
        changed = [path for path, stamp in _seen.items() if _stamp(path) != stamp]
        if any(path.parent == folder or folder in path.parents for path in changed):
            _taken(lambda name, module: _find(name, folder) and _lies_in(module, folder))
        yield
        for path in files_of(script).values():
            _seen[path] = _stamp(path)


def files_of(script: str | Path) -> dict[str, Path]:
    """Return the script and what of the user's own it imports, by name relative to its folder.

    A module of another folder (one on `sys.path`, a package installed with `pip install -e`) has
    the name that it is imported by. Files are read, not run: an import whose name is computed is
    not seen.
    """
    folder, found = _folder_of(script), dict[str, Path]()
    if folder is None:
        return {}
    path = Path(script).resolve()
    waiting = {path.name: path}
    while waiting:
        name, path = waiting.popitem()
        if path.is_file():
            found[name] = path
            for helper in _imports(name, path, _stamp(path)):
                files = _files(helper, folder)
                waiting |= {name: path for name, path in files.items() if name not in found}
    return found


def code_of(script: str | Path) -> Code:
    """Return what a script runs: its text, that of its helpers, their repository, our version."""
    return Code.of(script, files_of(script))


class _Beside:
    """Finds a helper for who lies in its folder; on `sys.meta_path`, before Python's own."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if path is not None or "." in name:  # within a package: Python knows where
            return None
        folder = _folder_of_importer()
        return None if folder is None else _find(name, folder)


def _find(name: str, folder: Path) -> ModuleSpec | None:
    """Return the helper of this name; None where there is none, or it is no helper's name.

    No file takes the place of a module of Python, nor a script that of an installed package.
    """
    if name in sys.stdlib_module_names or name == "__main__":
        return None
    spec = PathFinder.find_spec(name, [str(folder)])
    if spec is None or (spec.origin is not None and not declares_study(Path(spec.origin))):
        return spec
    elsewhere = [p for p in sys.path if resolved(p) != folder]
    return spec if PathFinder.find_spec(name, elsewhere) is None else None


def declares_study(path: Path) -> bool:
    """Whether a file has the word that every script has."""
    try:
        # a pipe would be waited for
        return path.is_file() and b"STUDY" in _beginning(path)
    except OSError:
        return False


def _beginning(path: Path) -> bytes:
    """Return what a file begins with: all of what is no longer than a script is."""
    with open(path, "rb") as file:
        return file.read(LONGEST_FILE)


def _taken(wanted: Any) -> dict[str, ModuleType]:
    """Take modules out of `sys.modules`, by name of the outermost and the module; return them."""
    roots = {
        name
        for name, module in list(sys.modules.items())
        if "." not in name and isinstance(module, ModuleType) and wanted(name, module)
    }
    names = [name for name in sys.modules if name.partition(".")[0] in roots]
    return {name: sys.modules.pop(name) for name in names}


def _folder_of(script: str | Path) -> Path | None:
    path = resolved(script)
    return path.parent if path is not None and path.is_file() else None


def _stamp(path: Path) -> tuple[int, int]:
    with suppress(OSError):
        about = path.stat()
        return about.st_mtime_ns, about.st_size
    return 0, 0


def resolved(path: str | Path) -> Path | None:
    """Return where a path leads; None: nowhere, as a link to itself."""
    with suppress(OSError, ValueError, RuntimeError):
        return Path(path).resolve()
    return None


def _lies_in(module: ModuleType, folder: Path) -> bool:
    places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
    paths = [resolved(place) for place in places if place]
    return any(path is not None and path.is_relative_to(folder) for path in paths)


def _folder_of_importer() -> Path | None:
    """Return the script's folder that the file lies in which imports something now."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file not in (__file__, importlib.__file__) and not file.startswith("<frozen "):
            path = resolved(file) or Path()
            inside = [folder for folder in _folders if path.is_relative_to(folder)]
            return max(inside, key=lambda folder: len(folder.parts), default=None)
        frame = frame.f_back  # type: ignore[assignment]
    return None


@functools.lru_cache(10_000)
def _imports(name: str, path: Path, stamp: tuple[int, int]) -> list[str]:
    """Return the dotted names that a file imports, lazily too; of a file that is no Python none.

    Its name tells the package that it lies in; of a package, what is in `__all__` counts.
    """
    try:
        tree = ast.parse(_beginning(path))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []
    package = PurePosixPath(name).parent.parts
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = _named("." * node.level + (node.module or ""), package)
            names += [f"{start}.{alias.name}" for alias in node.names] + [start]
        elif isinstance(node, ast.Call) and _called_name(node.func) in BY_NAME:
            names += _named_in_call(node, package)
        elif isinstance(node, ast.Assign | ast.AugAssign) and path.name == "__init__.py":
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(_called_name(target) == "__all__" for target in targets):
                names += [_named(f".{text}", package) for text in _texts(node.value)]
    return names


def _named(name: str, package: Sequence[str]) -> str:
    """Return the full name of a module; one that begins with dots lies in a package above."""
    inner = name.lstrip(".")
    level = len(name) - len(inner)
    above = package[: len(package) - level + 1] if level else ()
    return ".".join([*above, *filter(None, [inner])])


def _named_in_call(call: ast.Call, package: Sequence[str]) -> list[str]:
    """Return the module that `import_module` is asked for, where the call spells it out."""
    given = dict(zip(("name", "package"), call.args, strict=False))
    given |= {word.arg: word.value for word in call.keywords if word.arg in ("name", "package")}
    names, owners = (_texts(given.get(which)) for which in ("name", "package"))
    # without a text it is the file's own, `__name__` or `__package__`
    return [_named(name, owners[0].split(".") if owners else package) for name in names]


def _texts(value: ast.AST | None) -> list[str]:
    """Return the texts that are spelled out in an expression."""
    nodes = [] if value is None else ast.walk(value)
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def _called_name(function: ast.expr) -> str:
    return str(getattr(function, "id", getattr(function, "attr", "")))


def _files(name: str, folder: Path) -> dict[str, Path]:
    """Return the user's own files that an import of a dotted name reads, by name."""
    root, *parts = [part for part in name.split(".") if part] or [""]
    spec = (_find(root, folder) or _found_elsewhere(root)) if root else None
    if spec is None:
        return {}
    origin, places = Path(spec.origin or ""), list(spec.submodule_search_locations or ())
    archive = next((above for above in origin.parents if above.is_file()), None)
    if archive is not None:  # a zip file or an egg
        return {archive.name: archive}
    found = {f"{root}/__init__.py" if places else f"{root}.py": [origin]}
    for end in range(1, len(parts) + 1):
        inner = "/".join(parts[:end])
        for file in (f"{inner}/__init__.py", f"{inner}.py"):
            found[f"{root}/{file}"] = [Path(place, file) for place in places]
    there = {
        file: next((path for path in paths if path.suffix == ".py" and path.is_file()), None)
        for file, paths in found.items()
    }
    return {file: path for file, path in there.items() if path is not None}


def _found_elsewhere(name: str) -> ModuleSpec | None:
    """Return the module of this name that lies in another folder, and is the user's own."""
    if name in sys.stdlib_module_names or name == "__main__":
        return None
    with suppress(Exception):  # whatever finds modules: packages add their own
        spec = importlib.util.find_spec(name)
        places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
        if not any(is_installed(place) or _is_target(place) for place in places if place):
            return spec
    return None


@functools.cache
def _is_target(place: str) -> bool:
    """Whether a module lies in a folder that `pip install --target` filled."""
    path = Path(place)
    folder = path.parent.parent if path.name == "__init__.py" else path.parent
    return any(folder.glob("*.dist-info"))
