"""What Python and installed packages have that reads the world outside: files, frames, variables.

Of Python's own modules and of installed packages those are listed that compute from what they are
given, and nothing else: what a function or class of another one does may depend on anything, but
for a `torch.nn.Module`. A package that computes may yet read where something is called as readers
are (`read_csv`, `load`, `memmap`, `ExcelFile`) or lies in a module `io`.
"""

from __future__ import annotations

import functools
import re
import sys
import types
from typing import Any

import numpy as np
from torch import nn

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
# installed packages and modules of theirs that compute
_PACKAGES = """
    attr attrs autograd backpack beartype cockpit einops functorch gpytorch jax jaxlib jaxtyping
    joblib ml_dtypes mpmath networkx numba numpy opt_einsum pandas pyarrow.compute pyarrow.lib pytz
    scipy sgdstudy sklearn sortedcontainers sympy toolz torch torchmetrics tqdm typeguard
    typing_extensions unfoldNd wrapt
"""
PACKAGES = frozenset(_PACKAGES.split())
READERS = re.compile(
    "(connect|fetch|file|fromregex|from_?file|genfromtxt|get_option|imread|load|loadmat|loadtxt"
    "|memmap|memory_map|open|read|scan|urlopen)(_.*)?"
    r"|(?-i:[A-Z]\w*(File|Reader|Source|Store|Stream))",
    re.IGNORECASE,
)
DATA_SETS = re.compile("load_(breast_cancer|diabetes|digits|iris|linnerud|wine)")  # of scikit-learn
BUILTINS = ("globals", "eval", "exec", "compile", "__import__", "open", "input")
ENVIRONMENT = ("environ", "environb")
# attributes that show what is not written, whatever they are asked of
_GLIMPSES = """
    __builtins__ __closure__ __globals__ __subclasses__ cell_contents co_filename co_firstlineno
    co_linetable co_lines co_lnotab co_name co_positions co_qualname f_back f_builtins f_globals
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
        if issubclass(value, nn.Module):
            return ""
        module = value.__module__ if is_installed_class(value) else None
    elif is_named(value):
        module = home(value)
    else:
        return ""
    name = getattr(value, "__name__", "")
    return f"{module}.{name}" if module and _reads(str(module), str(name)) else ""


def is_named(value: Any) -> bool:
    """Whether a value is a function not written in Python: Cython's has a class of its own."""
    if isinstance(value, (types.FunctionType, type)):
        return False
    if isinstance(value, NAMED):
        return True
    return isinstance(_of_type(value, "__name__"), types.GetSetDescriptorType) and callable(value)


def home(value: Any) -> str:
    """Return the module of what is not written in Python."""
    owner = getattr(value, "__objclass__", None)
    module = getattr(value, "__module__", None) or getattr(owner, "__module__", None) or ""
    return str(module)


def computes(module: str) -> bool:
    """Whether a module only computes from what it is given, but for what is called as readers."""
    root, _, more = module.partition(".")
    second = more.partition(".")[0]
    return root.lstrip("_") in COMPUTE or not PACKAGES.isdisjoint({root, f"{root}.{second}"})


def _reads(module: str, name: str) -> bool:
    parts = module.split(".")
    if parts[0] in sys.stdlib_module_names:
        root = {"posix": "os", "nt": "os"}.get(parts[0], parts[0].lstrip("_"))
        return not (root in COMPUTE or name in HARMLESS.get(root, ()))
    reads = READERS.fullmatch(name) and not DATA_SETS.fullmatch(name)
    return not computes(module) or "io" in parts or bool(reads)


@functools.cache
def _blind() -> dict[int, str]:
    """Return what reads anything, by identity; all of it lives as long as Python."""
    builtins, system = vars(sys.modules["builtins"]), vars(sys.modules["os"])
    found = {id(builtins[name]): name for name in BUILTINS}
    # no environb on Windows
    return found | {id(system[name]): f"os.{name}" for name in ENVIRONMENT if name in system}


def _of_type(value: Any, name: str) -> Any:
    """Return what the class of a value has under a name; nothing is run."""
    spaces = (vars(cls) for cls in type(value).__mro__)
    return next((space[name] for space in spaces if name in space), None)
