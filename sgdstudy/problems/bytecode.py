"""What a function does with variables, attributes and keys, read off its code; nothing is run."""

from __future__ import annotations

import dis
import functools
import itertools
import re
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

Code = types.CodeType
STORES = ("STORE_GLOBAL", "STORE_DEREF", "DELETE_GLOBAL", "DELETE_DEREF")
OUTER = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
ASKS = ("LOAD_ATTR", "LOAD_METHOD")
PADDING = ("EXTENDED_ARG", "PRECALL", "CALL", "PUSH_NULL")
NAMES = frozenset({"__name__", "__qualname__"})
LABELS = NAMES | {"__doc__", "__annotations__", "__module__"}
# what these store is not changed, and what they name need not be read
MAKES = ("__init__", "__post_init__", "__new__", "__setstate__", "__eq__", "__repr__", "__hash__")
# methods of dicts, lists and sets that change them
CHANGES = """
    add append appendleft clear discard extend insert pop popitem popleft remove reverse setdefault
    sort update
"""
CHANGING = frozenset(CHANGES.split())
GROWS = frozenset({"append", "appendleft", "extend", "add"})  # methods that return nothing


def _inside(code: Code) -> list[Code]:
    """Return the codes of the functions that a code makes."""
    return [value for value in code.co_consts if isinstance(value, Code)]


@functools.lru_cache(maxsize=10_000)
def read_by(code: Code) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return the globals that a code reads, the names it asks objects for, what it imports.

    Those of the functions within it too.
    """
    names, asked, imported = set[str](), set(code.co_names), set[str]()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.add(step.argval)
        elif step.opname == "IMPORT_NAME":
            imported.add(step.argval)
    for inner in _inside(code):
        for mine, theirs in zip((names, asked, imported), read_by(inner), strict=True):
            mine |= theirs
    return frozenset(names), frozenset(asked), frozenset(imported)


@functools.lru_cache(maxsize=10_000)
def escaping(code: Code) -> frozenset[str]:
    """Return the variables and attributes that a code, or one in it, does more with than ask them.

    Of `g(helper.deep)` that is deep, of `helper.__dict__` helper; of a module that it imports into
    such a variable, the module's name too.
    """
    found = set[str]()
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    local = {
        then.argval: step.argval
        for step, then in itertools.pairwise(steps)
        if step.opname == "IMPORT_NAME" and then.opname.startswith("STORE")
    }
    for step, then in itertools.pairwise(steps):
        loads = step.opname in (*OUTER, *ASKS, "IMPORT_FROM") or "LOAD_FAST" in step.opname
        if loads and (then.opname not in ASKS or then.argval == "__dict__"):
            found |= {step.argval, local.get(step.argval, step.argval)}
    return frozenset(found.union(*map(escaping, _inside(code))))


@functools.lru_cache(maxsize=10_000)
def labels_read(code: Code) -> frozenset[str]:
    """Return the labels of functions and classes that a code asks for, as their `__doc__`.

    The names of classes, as `type(self).__name__`, are not among them.
    """
    found = set(texts(code) & LABELS)
    steps = [step for step in dis.get_instructions(code) if step.opname not in PADDING]
    if "get_type_hints" in code.co_names:
        found.add("__annotations__")
    for i, step in enumerate(steps):
        if step.opname in ASKS and step.argval in LABELS:
            before = {one.argval for one in steps[max(0, i - 3) : i]}
            if step.argval not in NAMES or before.isdisjoint({"type", "__class__"}):
                found.add(step.argval)
    return frozenset(found.union(*map(labels_read, _inside(code))))


@functools.lru_cache(maxsize=10_000)
def texts(code: Code) -> frozenset[str]:
    """Return the texts that are constants of a code, and of those in it."""
    found = {c for c in _constants(code.co_consts) if isinstance(c, str)}
    return frozenset(found.union(*map(texts, _inside(code))))


@functools.lru_cache(maxsize=10_000)
def asked_of(code: Code) -> frozenset[str]:
    """Return the names that a code may ask objects for, by `getattr` or a format too."""
    found = set[str]()
    for text in texts(code):
        found |= set(re.findall(r"\w+", text)) if "{" in text else {text}
    return read_by(code)[1] | found


@functools.lru_cache(maxsize=10_000)
def changes_values(code: Code) -> bool:
    """Whether a code, or one in it, may change what it holds: `a[0] = 1`, `a.add_(1)`."""
    subscripts = any(step.opname == "STORE_SUBSCR" for step in dis.get_instructions(code))
    calls = any(name.endswith("_") and not name.endswith("__") for name in code.co_names)
    return subscripts or calls or any(map(changes_values, _inside(code)))


@functools.lru_cache(maxsize=10_000)
def only_grown(code: Code) -> frozenset[str]:
    """Return the variables from outside that a code, and those within it, only append to."""
    grown, read = set[str](), set[str]()
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    for step, then in itertools.pairwise(steps):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF"):
            grows = _is_method(then) and then.argval in GROWS
            (grown if grows else read).add(step.argval)
    for inner in _inside(code):
        grown |= only_grown(inner)
        read |= _loaded(inner) - only_grown(inner)
    return frozenset(grown - read)


@functools.lru_cache(maxsize=10_000)
def _loaded(code: Code) -> frozenset[str]:
    """Return the variables from outside that a code loads, and those within it."""
    found = {*read_by(code)[0], *code.co_freevars}
    return frozenset(found.union(*map(_loaded, _inside(code))))


@functools.lru_cache(maxsize=10_000)
def used(code: Code) -> tuple[tuple[str, str], ...]:
    """Return the variables from outside that a code uses, and the operation; of functions in it."""
    within = {*code.co_cellvars, *code.co_varnames}
    found = {
        (step.argval, step.opname)
        for step in dis.get_instructions(code)
        if step.opname in (*OUTER, *STORES)
    }
    for inner in _inside(code):
        found |= set(used(inner))
    return tuple(sorted(pair for pair in found if pair[0] not in within or "GLOBAL" in pair[1]))


@functools.lru_cache(maxsize=10_000)
def done(code: Code) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return the attributes and keys that a code names, those that it changes, and the variables.

    Of `cfg["n"] += 1` it changes n; of `settings.log.append(1)`, log; of `seen.append(1)` or
    `cache[key] = 1`, the variable. Of functions in it too.
    """
    names, changed, grown = set[str](), set[str](), set[str]()
    if code.co_name not in MAKES:
        names |= {*code.co_names, *(c for c in _constants(code.co_consts) if isinstance(c, str))}
    steps = list(dis.get_instructions(code))
    for step in steps:
        if step.opname in ("STORE_ATTR", "DELETE_ATTR"):
            changed |= set() if code.co_name in MAKES else {step.argval}
        elif step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR") or (
            step.opname in ("LOAD_ATTR", "LOAD_METHOD") and step.argval in CHANGING
        ):
            whose = [one for one in steps if one is not step and _is_within(one, step)]
            named = {one.argval for one in whose if one.opname in ("LOAD_ATTR", "LOAD_CONST")}
            parts = {name for name in named if isinstance(name, str)}
            loads = [one for one in whose if one.opname in OUTER or "LOAD_FAST" in one.opname]
            changed |= parts
            if not parts or len(loads) > 1:  # it is not known which item
                grown |= {one.argval for one in loads[:1] if isinstance(one.argval, str)}
    for inner in _inside(code):
        for mine, theirs in zip((names, changed, grown), done(inner), strict=True):
            mine |= theirs
    return frozenset(names), frozenset(changed), frozenset(grown)


def _is_method(step: dis.Instruction) -> bool:
    """Whether a step asks for a method in order to call it."""
    # since 3.12 one operation asks for both, and its lowest bit says which
    return step.opname == "LOAD_METHOD" or (
        step.opname == "LOAD_ATTR" and sys.version_info >= (3, 12) and bool((step.arg or 0) & 1)
    )


def _constants(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        yield from _constants(value) if isinstance(value, tuple) else (value,)


def _is_within(one: dis.Instruction, target: dis.Instruction) -> bool:
    """Whether an instruction is of a part of what a target is written as."""
    a, b = one.positions, target.positions
    if a is None or b is None or None in a or None in b:
        return False
    starts = (a.lineno, a.col_offset) >= (b.lineno, b.col_offset)
    return starts and (a.end_lineno, a.end_col_offset) <= (b.end_lineno, b.end_col_offset)
