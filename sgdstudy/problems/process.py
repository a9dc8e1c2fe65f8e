"""State of the process that functions look at, beside what they are given.

It is written only where a function may look at it, most of it where it is not as Python starts.
"""

from __future__ import annotations

import csv
import decimal
import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

_CLOCKS = """
    asctime astimezone ctime fromtimestamp localtime mktime now strftime timestamp timezone today
    tzname
"""
CLOCKS = frozenset(_CLOCKS.split())
LEVELS = frozenset({"getEffectiveLevel", "isEnabledFor"})
TEXTS = frozenset({"array2string", "array_repr", "array_str", "format", "repr", "str"})
# what numpy starts with
PRINTED: dict[str, Any] = {
    "precision": 8,
    "threshold": 1000,
    "edgeitems": 3,
    "linewidth": 75,
    "suppress": False,
}
PRINTED |= {"nanstr": "nan", "infstr": "inf", "sign": "-", "floatmode": "maxprec"}
PRINTED |= {"formatter": None, "legacy": False, "override_repr": None}
DIALECT = (
    "delimiter", "doublequote", "escapechar", "lineterminator", "quotechar", "quoting",
    "skipinitialspace", "strict",
)  # fmt: skip
DIALECTS = frozenset({"excel", "excel-tab", "unix"})  # Python's own


def of_process(met: list[Any], names: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """Yield the state that functions may look at, by what it is called.

    Args:
        met: objects, functions and classes that they use.
        names: of variables that they read, and what they ask objects for.
    """
    if any(value is decimal.Decimal or isinstance(value, decimal.Decimal) for value in met):
        yield "decimal", _context()
    if any(getattr(value, "__module__", "") in ("csv", "_csv") for value in met):
        for name in sorted(set(csv.list_dialects()) - DIALECTS):
            dialect = csv.get_dialect(name)
            yield "csv", (name, [getattr(dialect, part) for part in DIALECT])
    if names & CLOCKS:
        yield "time zone", (time.tzname, time.timezone, time.altzone)
    if names & TEXTS:
        now: dict[str, Any] = dict(np.get_printoptions())
        yield "texts", {key: now[key] for key in sorted(now) if now[key] != PRINTED.get(key)}
    if "getLogger" in names:
        loggers = logging.root.manager.loggerDict
        for name in sorted(names & loggers.keys()):
            held = vars(loggers[name])
            yield name, {part: held[part] for part in sorted(names & held.keys())}
    if names & LEVELS:
        found = logging.root.manager.loggerDict.items()
        levels = {k: v.level for k, v in found if isinstance(v, logging.Logger) and v.level}
        yield "levels", sorted(levels.items())


def _context() -> tuple[Any, ...]:
    """Return how decimal fractions are rounded."""
    kept = decimal.getcontext()
    return kept.prec, kept.rounding, kept.Emin, kept.Emax, kept.clamp
