"""A fault put into functions that are imported already: the quick way to plant one.

A process that has imported the package and collected its tests is forked for each fault, and the
fork runs at once. What stands outside of functions cannot be changed so, and what was computed on
import stays: a fault that survives here is planted again in a fresh process.
"""

from __future__ import annotations

import gc
import inspect
import os
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

import pytest
from fault import Fault
from plant import Watch

Functions = dict[str, list[FunctionType]]  # by the file they are from


def functions() -> Functions:
    """Return all functions there are."""
    found: Functions = {}
    for function in gc.get_objects():
        if type(function) is FunctionType:  # isinstance would make some objects warn
            found.setdefault(function.__code__.co_filename, []).append(function)
    return found


def swap(fault: Fault, there: Functions) -> bool:
    """Give the functions that a fault is in their faulty code; False where that cannot be done."""
    path = str(fault.path)
    good = compile(fault.path.read_text(encoding="utf-8"), path, "exec", dont_inherit=True)
    bad = compile(fault.source(), path, "exec", dont_inherit=True)
    try:
        pairs = dict(_changed(good, bad))
    except ValueError:
        return False
    found = set()
    for function in there.get(path, ()):
        code = function.__code__
        if code in pairs and len(code.co_freevars) == len(pairs[code].co_freevars):
            function.__code__ = pairs[code]
            found.add(code)
    return bool(pairs) and found == set(pairs)


def _changed(good: CodeType, bad: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """Yield the outermost functions that differ.

    Raises:
        ValueError: what is outside of functions differs.
    """
    pairs = list(zip(_inner(good), _inner(bad), strict=True))
    if _own(good) != _own(bad):
        raise ValueError("not within a function")
    for one, other in pairs:
        if not one.co_flags & inspect.CO_OPTIMIZED:  # the body of a class
            yield from _changed(one, other)
        elif _all(one) != _all(other):
            yield one, other


def _inner(code: CodeType) -> list[CodeType]:
    return [value for value in code.co_consts if isinstance(value, CodeType)]


def _own(code: CodeType) -> tuple[Any, ...]:
    """Return what a code is but for the functions in it and where its lines are."""
    values = [repr(value) for value in code.co_consts if not isinstance(value, CodeType)]
    return code.co_name, code.co_code, code.co_names, code.co_varnames, values


def _all(code: CodeType) -> list[tuple[Any, ...]]:
    return [_own(code), *(part for inner in _inner(code) for part in _all(inner))]


class Loop:
    """A plugin of pytest that hands the collected tests to a function instead of running them."""

    def __init__(self, work: Callable[[list[pytest.Item]], None]) -> None:
        self.work = work

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Hand them over."""
        if session.testsfailed:
            raise session.Interrupted("some tests cannot be collected")
        self.work(session.items)
        return True


def run_items(items: list[pytest.Item], fault: Fault | None, there: Functions) -> dict[str, Any]:
    """Run collected tests in this process, which is a fork; return what `plant.run` writes."""
    watch = Watch(None, calls=fault is None)
    if fault is not None and not swap(fault, there):
        return {"code": 0, "failed": []}
    items[0].config.pluginmanager.register(watch)
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if fault is not None and watch.failed:
            break
    return watch.answer(1 if watch.failed else 0)


def silence() -> None:
    """Let nothing that tests print be seen."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
