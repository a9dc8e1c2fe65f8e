"""What a fault is, and all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = "sgdstudy"


@dataclass(frozen=True)
class Fault:
    """One small fault that a person could make.

    Attributes:
        file: where, under `sgdstudy/`.
        old: text that occurs there once.
        new: what stands there instead.
        means: what would be wrong, in a phrase.
        reason: why no test finds it, of one that is known to survive; "" of the others.
    """

    file: str
    old: str
    new: str
    means: str
    reason: str = ""

    @property
    def path(self) -> Path:
        """The file."""
        return ROOT / PACKAGE / self.file

    @property
    def module(self) -> str:
        """The module's name, as it is imported."""
        name = f"{PACKAGE}.{self.file.removesuffix('.py').replace('/', '.')}"
        return name.removesuffix(".__init__")

    @property
    def area(self) -> str:
        """What it counts for in the report: the module's name below the package."""
        return self.module.removeprefix(f"{PACKAGE}.")

    def lines(self) -> tuple[int, int]:
        """Return the first and the last line of the text that is changed, from 1."""
        before, _, _ = self.path.read_text(encoding="utf-8").partition(self.old)
        first = before.count("\n") + 1
        return first, first + self.old.count("\n")

    def source(self) -> str:
        """Return the file's text with the fault in it.

        Raises:
            ValueError: the text is not there, or more than once; or nothing changes.
        """
        text = self.path.read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1 or self.old == self.new:
            raise ValueError(f"{self.file}: {self.old!r} occurs {count} times; expected once")
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Group:
    """The faults of one file, and the tests that should find them.

    Attributes:
        file: where, under `sgdstudy/`.
        tests: names of test files, as `train` for `tests/training/test_train.py`; likeliest first.
        faults: old text, new text, meaning, and, of one that survives, the reason.
    """

    file: str
    tests: str
    faults: list[tuple[str, ...]]


def test_files(name: str) -> list[str]:
    """Return the files of tests of this name, relative to the project."""
    found = sorted((ROOT / "tests").rglob(f"test_{name}.py"))
    return [path.relative_to(ROOT).as_posix() for path in found]


def groups() -> list[Group]:
    """Return the whole table."""
    import of_engines
    import of_histories
    import of_problems
    import of_quantities
    import of_results
    import of_theory
    import of_training

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
