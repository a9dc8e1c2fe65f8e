"""All faults that are planted, and the tests that should find each."""

from __future__ import annotations

from collections.abc import Sequence

import of_engines
import of_histories
import of_problems
import of_quantities
import of_results
import of_theory
import of_training
from fault import PACKAGE, ROOT, Fault, Group


def test_files(name: str) -> list[str]:
    """Return the files of tests of this name, relative to the project."""
    found = sorted((ROOT / "tests").rglob(f"test_{name}.py"))
    return [path.relative_to(ROOT).as_posix() for path in found]


def groups() -> list[Group]:
    """Return the whole table."""
    parts = (of_theory, of_problems, of_training, of_engines)
    parts += (of_quantities, of_histories, of_results)
    return [group for part in parts for group in part.GROUPS]


def faults(only: Sequence[str] = ("",)) -> list[tuple[Fault, tuple[str, ...]]]:
    """Return the faults whose file's name holds one of `only`, each with the files of its tests."""
    found = []
    for group in groups():
        tests = [path for name in group.tests.split() for path in test_files(name)]
        tests.insert(0, f"{PACKAGE}/{group.file}")  # its examples
        if any(part in group.file for part in only):
            found += [(Fault(group.file, *fault), tuple(tests)) for fault in group.faults]
    return found
