"""Claims: what was expected, what was measured, and whether it holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sgdstudy import checks
from sgdstudy.errors import InputError, shown


@dataclass(frozen=True)
class Claim:
    """One sentence that a run can refute.

    Attributes:
        name: short name, as `stop_epoch`.
        arm: the arm it is about.
        measured: a number, a truth value or a list of numbers.
        expected: the same kind, from theory or the notebook's printed output; None describes only.
        tolerance: the largest |measured - expected| allowed; 0 for equality.
        source: where `expected` comes from.
        always: holds whatever the options; else a claim only describes once options of the
            script other than `quick` are changed, because `expected` assumes their defaults.
        guess: what the reader guessed before the run, shown beside; None: not asked.

    Raises:
        InputError: a name that is no text in one line, a value that is neither number nor text, a
            tolerance that is negative.
    """

    name: str
    arm: str
    measured: Any
    expected: Any = None
    tolerance: float = 0.0
    source: str = ""
    always: bool = False
    guess: float | None = None

    def __post_init__(self) -> None:
        for part in ("name", "arm"):
            checks.name(f"a claim's {part}", getattr(self, part))
        for part in ("measured", "expected"):
            _check_value(f"{part} of the claim {self.name!r}", plain(getattr(self, part)))
        tolerance = plain(self.tolerance)
        if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or tolerance < 0:
            raise InputError(
                f"tolerance of the claim {self.name!r} is a number, at least 0, "
                f"not {shown(self.tolerance)}"
            )

    @property
    def holds(self) -> bool | None:
        """Whether measured is within the tolerance of expected; None where nothing is expected."""
        if self.expected is None:
            return None
        return _close(plain(self.measured), plain(self.expected), self.tolerance)

    def described(self) -> Claim:
        """Return the claim without its expectation."""
        return replace(self, expected=None)

    def as_json(self) -> dict[str, Any]:
        """Return the claim as in `claims.json`; non-finite values are strings."""
        return {
            "name": self.name,
            "arm": self.arm,
            "expected": _text(plain(self.expected)),
            "measured": _text(plain(self.measured)),
            "tolerance": _text(plain(self.tolerance)),
            "holds": self.holds,
            "source": self.source,
        }


def plain(value: Any) -> Any:
    """Return numpy scalars, arrays and tensors as Python values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _check_value(what: str, value: Any) -> None:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, list):
            _check_value(what, item)
        elif not (item is None or isinstance(item, (bool, int, float, str))):
            raise InputError(
                f"{what} is a number, a truth value, a text or a list of these, not {shown(item)}"
            )


def show(value: Any) -> str:
    """Write a value for a table.

    >>> show([0.30791, -1.7]), show(9340), show(True), show(None), show(float("inf"))
    ('0.3079, -1.7', '9340', 'yes', '–', '∞')
    """
    value = plain(value)
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isinf(value):
        return "∞" if value > 0 else "-∞"  # a stop epoch: never
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 or abs(value) >= 1e6 else f"{value:.0f}"
    if isinstance(value, list):
        return ", ".join(show(item) for item in value)
    return str(value)


def claims_markdown(claims: Sequence[Claim]) -> str:
    """Return the claims as a Markdown table; the reader's guesses are in it if there are any."""
    if not claims:
        return ""
    verdict = {True: "holds", False: "**FAILS**", None: "–"}
    rows = [["claim", "arm", "your guess", "expected", "measured", "verdict"], ["---"] * 6]
    rows += [
        [c.name, c.arm, *map(show, (c.guess, c.expected, c.measured)), verdict[c.holds]]
        for c in claims
    ]
    if all(claim.guess is None for claim in claims):
        rows = [[*row[:2], *row[3:]] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _close(measured: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(measured, Sequence) or len(measured) != len(expected):
            return False
        pairs = zip(measured, expected, strict=True)
        return all(_close(m, e, tolerance) for m, e in pairs)
    if isinstance(expected, (bool, str)) or measured == expected:
        return bool(measured == expected)
    if not isinstance(measured, (int, float)) or not isinstance(expected, (int, float)):
        return False
    return bool(abs(measured - expected) <= tolerance)  # False for NaN


def _text(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [_text(item) for item in value]
    return value
