"""What Python and installed packages have that reads the world outside: files, frames, variables.

Of Python's own modules those are listed that compute from what they are given, and nothing else:
what a function or class of another one does may depend on anything. An installed package computes,
but for what is called as readers are (`read_csv`, `load`, `memmap`) or lies in a module `io`.
"""

from __future__ import annotations

import functools
import re
import sys
import types
from typing import Any

import numpy as np

from sgdstudy.problems.installed import is_installed_class, is_installed_function

# of `_json` too; the clock and what writes only, as warnings, tell runs not from each other
_COMPUTE = """
    abc array ast base64 binascii bisect blake2 builtins calendar cmath
    collections collections_abc colorsys contextlib copy copyreg csv dataclasses datetime decimal
    difflib enum fractions functools graphlib hashlib heapq hmac html itertools json keyword logging
    math md5 numbers operator pathlib pickle pprint py_abc queue random re reprlib sha1 sha2 sha256
    sha3 sha512 sre statistics string struct textwrap thread threading time types typing
    unicodedata warnings weakref weakrefset zlib zoneinfo
"""
COMPUTE = frozenset(_COMPUTE.split())
_TEXTS = "basename commonpath commonprefix dirname isabs join normcase normpath split splitext"
_WRITERS = "fspath getpid kill makedirs mkdir remove rename replace rmdir unlink"
# of the others: what looks at its arguments only, or reads nothing that a number comes from
HARMLESS = {
    "genericpath": frozenset({"commonprefix"}),
    "io": frozenset({"BytesIO", "StringIO"}),
    "ntpath": frozenset(_TEXTS.split()),
    "os": frozenset(_WRITERS.split()),
    "posixpath": frozenset(_TEXTS.split()),
}
READERS = re.compile(
    "(connect|fetch|file|fromregex|from_?file|genfromtxt|imread|load|loadmat|loadtxt|memmap|open"
    "|read|scan|urlopen)(_.*)?",
    re.IGNORECASE,
)
DATA_SETS = re.compile("load_(breast_cancer|diabetes|digits|iris|linnerud|wine)")  # of scikit-learn
BUILTINS = ("globals", "eval", "exec", "compile", "__import__", "open", "input")
ENVIRONMENT = ("environ", "environb")
# attributes that show what is not written, whatever they are asked of
_GLIMPSES = """
    __builtins__ __closure__ __globals__ __subclasses__ cell_contents f_back f_builtins f_globals
    f_locals read_bytes read_text tb_frame
"""
GLIMPSES = frozenset(_GLIMPSES.split())
# the same, of a path
_OF_PATHS = """
    absolute cwd exists expanduser glob home is_dir is_file is_symlink iterdir lstat open readlink
    resolve rglob samefile stat walk
"""
OF_PATHS = frozenset(_OF_PATHS.split())
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


def reader(value: Any) -> str:
    """Return the name of what reads the world outside, "" of what does not."""
    if id(value) in _blind():
        return _blind()[id(value)]
    if isinstance(value, types.FunctionType):
        module = value.__globals__.get("__name__") if is_installed_function(value) else None
    elif isinstance(value, type):
        module = value.__module__ if is_installed_class(value) else None
    elif isinstance(value, NAMED):
        module = home(value)
    else:
        return ""
    name = getattr(value, "__name__", "")
    return f"{module}.{name}" if module and _reads(str(module), str(name)) else ""


def home(value: Any) -> str:
    """Return the module of what is not written in Python."""
    owner = getattr(value, "__objclass__", None)
    module = getattr(value, "__module__", None) or getattr(owner, "__module__", None) or ""
    return str(module)


def computes(module: str) -> bool:
    """Whether a module only computes from what it is given, but for what is called as readers."""
    root = module.partition(".")[0]
    return root not in sys.stdlib_module_names or root.lstrip("_") in COMPUTE


def _reads(module: str, name: str) -> bool:
    parts = module.split(".")
    if parts[0] in sys.stdlib_module_names:
        root = {"posix": "os", "nt": "os"}.get(parts[0], parts[0].lstrip("_"))
        return not (root in COMPUTE or name in HARMLESS.get(root, ()))
    return "io" in parts or bool(READERS.fullmatch(name) and not DATA_SETS.fullmatch(name))


@functools.cache
def _blind() -> dict[int, str]:
    """Return what reads anything, by identity; all of it lives as long as Python."""
    builtins, system = vars(sys.modules["builtins"]), vars(sys.modules["os"])
    found = {id(builtins[name]): name for name in BUILTINS}
    # no environb on Windows
    return found | {id(system[name]): f"os.{name}" for name in ENVIRONMENT if name in system}
