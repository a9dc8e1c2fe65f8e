"""Checks of values that several modules take: each returns the value, or says what is wrong.

This module stays light to import: the command line uses it before torch is there.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from sgdstudy.errors import InputError, quoted
from sgdstudy.language import say, to_say, translated, unknown
from sgdstudy.text import acts

MOST = 10**12  # of anything that is counted: epochs times steps must fit into 64 bits
MOST_SEEDS = 1_000_000  # that train side by side
LARGEST = 2**63 - 1
LONGEST_NAME = 250  # what MLflow's database keeps of a name
LONGEST_FOLDER = 255  # bytes, on most file systems

DRIVE = re.compile("[A-Za-z]:")
STREAM = re.compile(r"-|/dev/(std(in|out|err)|fd/\d+)|/proc/self/fd/\d+")

SeedsLike = int | Iterable[int]  # one seed or several


def number(
    name: str,
    value: Any,
    good: Callable[[float], bool] = lambda v: v > 0,
    allowed: str = to_say("positive and finite"),
) -> float:
    """Return a finite number that is good; `allowed` says in words what that is.

    Raises:
        InputError: text, an array, NaN, an infinity, or a number that is not allowed.

    >>> number("lr", 1e-3)
    0.001
    """
    found = _scalar(value)
    if isinstance(found, bool) or not isinstance(found, numbers.Real):
        raise InputError(say("{name} is a number, not {given}", name=name, given=quoted(value)))
    try:
        found = float(found)
    except OverflowError:
        found = math.inf
    if not (math.isfinite(found) and good(found)):
        raise InputError(_must(name, translated(allowed), value))
    return found


def made(what: str, value: Any) -> Any:
    """Return what was made of a class; the class itself is an `InputError`."""
    if isinstance(value, type):
        name = value.__name__
        raise InputError(f"{what} is the class {name}: give what is made of it, as {name}(...)")
    return value


def _must(name: str, allowed: str, value: Any) -> str:
    return say(
        "{name} must be {allowed}, got {given}", name=name, allowed=allowed, given=quoted(value)
    )


def count(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number, at least `least` and at most `MOST`."""
    found = whole(name, value)
    if not least <= found <= MOST:
        least_or_most = say("at least {n}", n=least), say("at most {n}", n=f"{MOST:g}")
        raise InputError(_must(name, least_or_most[found > MOST], value))
    return found


def whole(name: str, value: Any) -> int:
    """Return a whole number."""
    found = _scalar(value)
    try:
        if isinstance(found, bool):
            raise TypeError
        return operator.index(found)
    except KeyboardInterrupt:
        raise
    except BaseException:  # whatever its own method raises
        raise InputError(_must(name, say("a whole number"), value)) from None


def truth(name: str, value: Any) -> bool:
    """Return True or False."""
    found = _scalar(value)
    if not isinstance(found, bool):
        raise InputError(
            say("{name} is True or False, not {given}", name=name, given=quoted(value))
        )
    return found


def seed(value: Any) -> int:
    """Return a seed that `torch.Generator` takes."""
    try:
        found = whole("a seed", value)
    except InputError:
        found = -1
    if not 0 <= found <= LARGEST:
        raise InputError(
            say("a seed is a whole number from 0 to 2**63 - 1, got {given}", given=quoted(value))
        )
    return found


def seeds(values: SeedsLike) -> tuple[int, ...]:
    """Return the seeds of a run, one or several, all different."""
    many = _size(values)
    if many > MOST_SEEDS:
        given = f"{many:,}" if many < LARGEST else "2**63 and more"
        raise InputError(f"{given} seeds are too many; give {MOST_SEEDS:,} at the most")
    found = [seed(value) for value in listed(values)]
    if not found:
        raise InputError("seeds is empty; give at least one, as seeds=range(64)")
    if len(set(found)) < len(found):
        twice = next(s for i, s in enumerate(found) if s in found[:i])
        raise InputError(f"seed {twice} is given twice; each replica needs its own seed")
    if len({s % 2**32 for s in found}) < len(found):
        raise InputError(
            "two of the seeds differ by a multiple of 2**32 and draw the same numbers: torch reads "
            "32 bits of a seed"
        )
    return tuple(found)


def wanted_seeds(values: SeedsLike) -> list[int]:
    """Return the seeds whose rows are wanted, one or several, in order."""
    try:
        found = {seed(value) for value in listed(values)}
    except InputError:
        raise InputError(f"seeds are whole numbers, one or several, not {quoted(values)}") from None
    if not found:
        raise InputError("seeds is empty; give at least one, or None for all")
    return sorted(found)


def stretch(name: str, part: Any) -> tuple[int, int]:
    """Return first and end of a slice of steps or epochs; an open end is beyond any row."""
    if not isinstance(part, slice):
        raise InputError(f"{name} is a slice, as slice(0, 1000), not {quoted(part)}")
    try:
        first = 0 if part.start is None else whole(name, part.start)
        end = LARGEST if part.stop is None else whole(name, part.stop)
        if part.step not in (None, 1) or first < 0 or end < 0:
            raise InputError("")
    except InputError:
        raise InputError(f"{name} count from 0, without a stride; got {quoted(part)}") from None
    return min(first, LARGEST), min(end, LARGEST)


def choice(kind: str, value: Any, allowed: Collection[str]) -> str:
    """Return a name of an open list; the error suggests the nearest."""
    if not isinstance(value, str) or value not in allowed:
        raise unknown(kind, value, allowed)
    return value


def columns(wanted: Any, present: Collection[str]) -> list[str]:
    """Return the columns wanted, one or several, all of which are there; None: all."""
    if wanted is None:
        return list(present)
    names = [wanted] if isinstance(wanted, str) else listed(wanted)
    return [choice("column", name, present) for name in names]


def name(kind: str, value: Any) -> str:
    """Return a name as MLflow and people can read it: any letters, in one line.

    >>> name("the arm's name", "Größe 🙂, lr=1e-4")
    'Größe 🙂, lr=1e-4'
    """
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{kind} is a text that is not empty, not {quoted(value)}")
    if len(value) > LONGEST_NAME:
        raise InputError(
            f"{kind} has {len(value)} characters, more than {LONGEST_NAME}; shorten it"
        )
    bad = [c for c in value if acts(c) or c in "\n\t"]
    if bad:
        raise InputError(
            f"{kind} {quoted(value)} holds {bad[0]!r}, which cannot be printed; leave it out"
        )
    return value


def folder_name(kind: str, value: Any) -> str:
    """Return a name that becomes a folder's, as an experiment's does under `artifacts/`."""
    found = name(kind, value)
    if found in (".", "..") or {"/", "\\"} & set(found) or len(found.encode()) > LONGEST_FOLDER:
        raise InputError(
            f"{kind} {quoted(value)} names a folder: it has no / or \\, is not . or .., "
            f"and takes {LONGEST_FOLDER} bytes at the most"
        )
    return found


def file_name(kind: str, value: Any) -> str:
    """Return a name that a file can have, without a folder."""
    plain = isinstance(value, str) and value == Path(value).name and value != ".."
    if not plain or not value or {"\\", "\0"} & set(value):
        raise InputError(f"{kind} is a plain file name as loss.png, not {quoted(value)}")
    if len(value.encode(errors="replace")) > LONGEST_FOLDER:
        raise InputError(f"{kind} {quoted(value)} takes more than {LONGEST_FOLDER} bytes")
    return str(value)


def path(kind: str, value: Any) -> Path:
    """Return a path that a file system can hold; whether it can be written is seen later.

    A `~` at its beginning is a home folder: no shell sees it in `--out=~/report.html`.
    """
    text = str(value) if isinstance(value, (str, Path)) else ""
    long = any(len(part.encode(errors="replace")) > LONGEST_FOLDER for part in Path(text).parts)
    if not text.strip() or "\0" in text or long:
        raise InputError(
            f"{kind} {quoted(value)} is no path: it is not blank, has no NUL, and each part of it "
            f"takes {LONGEST_FOLDER} bytes at the most"
        )
    if STREAM.fullmatch(text):
        raise InputError(
            say(
                "{what} {given} is a stream; give the path of a file", what=kind, given=quoted(text)
            )
        )
    if address := re.match(r"[a-z][\w+.-]+[:\uff1a][/\\]", text, re.I):  # it may hold a password
        raise InputError(f"{kind} begins with {address[0]}, as an address does; give a path")
    try:
        found = Path(text).expanduser()
    except RuntimeError as error:  # no such user
        raise InputError(f"{kind} {quoted(value)} cannot be found: {error}") from None
    if os.name != "nt" and _is_of_windows(found):
        raise InputError(f"{kind} {quoted(value)} is a path of Windows; give one of this machine")
    return found


def _is_of_windows(path: Path) -> bool:
    """Whether it would make a file or a folder here whose name is a path there."""
    new = [place for place in (path, *path.parents) if not os.path.lexists(place)]
    return any("\\" in place.name or DRIVE.fullmatch(place.name) for place in new)


def resolved(path: Path) -> Path:
    """Return where a path leads, links followed.

    Raises:
        InputError: its links lead in a circle.
    """
    try:
        place = path.resolve()
        if not os.path.islink(place):  # as newer Pythons leave one that leads to itself
            return place
        why = say("its links lead in a circle")
    except RuntimeError:
        why = say("its links lead in a circle")
    except OSError as error:
        why = error.strerror or str(error)
    raise InputError(say("{path} leads nowhere: {why}", path=path, why=why)) from None


def _scalar(value: Any) -> Any:
    """Return numpy's and torch's scalars as Python's."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _size(values: Any) -> int:
    """Return how many values there are, 0 where that is not known."""
    if getattr(values, "ndim", None) == 0 or not hasattr(values, "__len__"):
        return 0
    try:
        return len(values)
    except OverflowError:  # of a range: more than `len` can say
        return LARGEST


def listed(values: Any) -> list[Any]:
    """Return what was given, one or several, as a list."""
    several = hasattr(values, "__iter__") and not isinstance(values, (str, bytes, type))
    if several and _size(values) == LARGEST:
        raise InputError(f"{quoted(values)} holds too many values")
    return list(values) if several and getattr(values, "ndim", None) != 0 else [values]
