"""What a fault is, and the faults of a file."""

from __future__ import annotations

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
