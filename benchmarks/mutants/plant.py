"""Tests run in a process of their own, on a package with a fault in it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from fault import PACKAGE, ROOT, Fault

# plain: pytest would compile anew, from its file, a module whose examples it is given to run;
# libraries that were imported before the fork are nothing to warn of
OPTIONS = [
    "-p",
    "no:cacheprovider",
    "--assert=plain",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
]
SHORT = 1.0  # seconds: longer tests come last


class _Loader(SourceFileLoader):
    """Compiles a text that is not the file's, and keeps nothing of it on the disk."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self.text = text

    def get_code(self, fullname: str) -> CodeType:
        """Return the faulty module's code."""
        return compile(self.text, self.path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    """Finds one module with a fault in it; all others are found as ever."""

    def __init__(self, fault: Fault) -> None:
        self.module, self.text = fault.module, fault.source()

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Return where the module comes from; None of another one."""
        spec = PathFinder.find_spec(fullname, path) if fullname == self.module else None
        if spec is not None:
            spec.loader = _Loader(fullname, str(spec.origin), self.text)
        return spec


def plant(fault: Fault) -> None:
    """Let the fault be in the package when it is imported."""
    assert PACKAGE not in sys.modules, "imported already, without the fault"
    sys.meta_path.insert(0, _Finder(fault))


def by_length(items: list[pytest.Item], seconds: dict[str, float]) -> list[pytest.Item]:
    """Return the tests whose length is known: the short ones first, file after file.

    The files come as in `seconds`.
    """
    files = dict.fromkeys(test.partition("::")[0] for test in seconds)
    rank = {file: number for number, file in enumerate(files)}

    def key(item: pytest.Item) -> tuple[bool, int, float]:
        length = seconds[item.nodeid]
        return length > SHORT, rank[item.nodeid.partition("::")[0]], length

    return sorted((item for item in items if item.nodeid in seconds), key=key)


class Watch:
    """A plugin of pytest that notes what each test called, how long it took, and what failed.

    Args:
        order: seconds by test: these tests only, the short ones first; None: all, as they come.
        calls: whether to note the functions that are called.
    """

    def __init__(self, order: dict[str, float] | None, calls: bool) -> None:
        self.order, self.calls = order, calls
        self.failed: list[str] = []
        self.seconds: dict[str, float] = {}
        self.called: dict[str, list[str]] = {}
        self.of_fixtures: dict[str, set[str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Choose and sort the tests."""
        if self.order is not None:
            items[:] = by_length(items, self.order)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """Watch one test."""
        started = time.perf_counter()
        try:
            with self._watched() as found:
                return (yield)
        finally:
            self.seconds[item.nodeid] = time.perf_counter() - started
            fixtures = getattr(item, "fixturenames", ())
            found = found.union(*(self.of_fixtures.get(name, ()) for name in fixtures))
            self.called[item.nodeid] = sorted(found)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Any:
        """Watch a fixture: what it calls once, all tests that use it call."""
        with self._watched() as found:
            try:
                return (yield)
            finally:
                self.of_fixtures.setdefault(fixturedef.argname, set()).update(found)

    @contextmanager
    def _watched(self) -> Iterator[set[str]]:
        """Give a set that will hold the functions of the package that are called meanwhile."""
        codes: dict[int, CodeType] = {}  # by id: to hash a code takes long
        found: set[str] = set()

        def note(frame: FrameType, event: str, arg: Any) -> None:  # and nothing of lines
            codes[id(frame.f_code)] = frame.f_code

        before = sys.gettrace()
        if self.calls:
            sys.settrace(note)
        try:
            yield found
        finally:
            sys.settrace(before)
            within = str(ROOT / PACKAGE) + os.sep
            for code in codes.values():
                if (name := code.co_filename).startswith(within):
                    file = name.removeprefix(within).replace(os.sep, "/")
                    found.add(f"{file}:{code.co_qualname}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that fails."""
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that cannot be imported."""
        if report.failed:
            self.failed.append(f"{report.nodeid} (on import)")

    def answer(self, code: int) -> dict[str, Any]:
        """Return what was noted, for JSON; `code` is that of pytest's end."""
        found: dict[str, Any] = {"code": code, "failed": self.failed}
        return found | ({"seconds": self.seconds, "called": self.called} if self.calls else {})


def alone(answer: Path) -> None:
    """Begin a process of its own, whose files lie beside its answer."""
    if hasattr(os, "setsid"):
        os.setsid()  # what tests start can be ended with them
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(answer.parent)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(ROOT)
    sys.dont_write_bytecode = True
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))


def run(
    fault: Fault | None, files: Sequence[str], order: dict[str, float] | None, answer: Path
) -> None:
    """Run tests in this process, which is a new one, and write what came of them to a file."""
    alone(answer)
    with open(answer.with_suffix(".log"), "w") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    if fault is not None:
        plant(fault)
    watch = Watch(order, calls=fault is None)
    code = int(pytest.main([*OPTIONS, *(["-x"] if fault else []), *files], plugins=[watch]))
    finish(answer, watch.answer(code))


def finish(answer: Path, found: dict[str, Any]) -> None:
    """Write the answer and end the process, without goodbyes of threads that tests have left."""
    answer.write_text(json.dumps(found), encoding="utf-8")
    os._exit(0)
