"""JSON of ours read back, from files and tags that anybody may have written: its shape is checked.

What is not as we write it is `Damaged`, in one line, before anything is done with it. A check says
of a value whether it has the shape.
"""

from __future__ import annotations

import json
import logging
import re
import stat
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sgdstudy.errors import InputError, reason
from sgdstudy.language import say

MOST_BYTES = 10_000_000  # of a file
PIECE = 1 << 20  # bytes that are read at a time
MOST_ITEMS = 1_000_000  # of a list
SUM = re.compile(r"\n#crc32 ([0-9a-f]{8})\n", re.ASCII)  # what a file of ours ends with
LAST = len("\n#crc32 01234567\n")
SUM_OF = "sgdstudy.crc32."  # tag: and the name of an artifact; its checksum
Check = Callable[[Any], bool]
log = logging.getLogger("sgdstudy")


class Damaged(InputError):
    """What is read is not what we write there."""


def text(value: Any) -> bool:
    """Whether it is text."""
    return isinstance(value, str)


def truth(value: Any) -> bool:
    """Whether it is a truth value."""
    return isinstance(value, bool)


def whole(value: Any) -> bool:
    """Whether it is a whole number of 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def number(value: Any) -> bool:
    """Whether it is a number."""
    return isinstance(value, float) or whole(value)


def nothing(value: Any) -> bool:
    """Whether it is None."""
    return value is None


def plain(value: Any) -> bool:
    """Whether it is a number, a truth value, a text, None, or a list of these, in any depth."""
    if isinstance(value, list):
        return all(map(plain, value))
    return any_of(text, truth, number, nothing)(value)


def any_of(*checks: Check) -> Check:
    """Return the check that one of them holds."""
    return lambda value: any(check(value) for check in checks)


def each(check: Check, most: int = MOST_ITEMS) -> Check:
    """Return the check of a list, by its items."""
    return lambda value: isinstance(value, list) and len(value) <= most and all(map(check, value))


def row(*checks: Check) -> Check:
    """Return the check of a list of so many items, one by one."""
    return lambda value: (
        isinstance(value, list)
        and len(value) == len(checks)
        and all(check(item) for check, item in zip(checks, value, strict=True))
    )


def by_name(check: Check, name: Check = text) -> Check:
    """Return the check of a dict, by its values and its names."""
    return lambda value: (
        isinstance(value, dict) and all(map(check, value.values())) and all(map(name, value))
    )


def fields(needed: Mapping[str, Check], further: Mapping[str, Check] | None = None) -> Check:
    """Return the check of a dict with these names, and perhaps further ones; others are let be."""
    known = {**needed, **(further or {})}
    return lambda value: (
        isinstance(value, dict)
        and all(name in value for name in needed)
        and all(check(value[name]) for name, check in known.items() if name in value)
    )


def signed(value: Any, owner: str = "") -> str:
    """Return a value as JSON, and its checksum in a last line of its own.

    Args:
        value: what it says.
        owner: the key of the run that it is of: the checksum is of that too.

    >>> signed([1])
    '[1]\\n#crc32 4c2f32b8\\n'
    """
    told = json.dumps(value)  # `dump` is several times slower
    return f"{told}\n#crc32 {sum_of((told + owner).encode())}\n"


def sum_of(given: bytes) -> str:
    """Return the checksum of a text."""
    return f"{zlib.crc32(given):08x}"


def sum_of_file(path: Path) -> str:
    """Return the checksum of a file."""
    total = 0
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            total = zlib.crc32(piece, total)
    return f"{total:08x}"


def read_json(path: Path, check: Check, owner: str = "") -> Any:
    """Return what a file holds; None if there is none, or it is empty.

    After a power failure a name may be there without its content. Files of earlier versions have
    no checksum, or one that knows no owner, and are read as they are.

    Args:
        path: where it is.
        check: of its shape.
        owner: whose it has to be, see `signed`.

    Raises:
        Damaged: it is no file, too long, no JSON (NULs are none), of another shape, not what was
            written, or another run's.
    """
    found = read_text(path)
    if not found:
        return None
    if sums := SUM.fullmatch(found[-LAST:]):
        found = found[:-LAST]
        if sums[1] not in {sum_of((found + whose).encode()) for whose in (owner, "")}:
            raise Damaged(f"{path} is damaged: it is not what was written")
    return parsed(found, check, str(path))


def is_signed(path: Path, owner: str) -> bool:
    """Whether a file is one that `signed` made for a run."""
    try:
        found = read_text(path) or ""
    except Damaged:
        return False
    sums = SUM.fullmatch(found[-LAST:])
    return sums is not None and sums[1] == sum_of((found[:-LAST] + owner).encode())


def read_or(path: Path, check: Check, instead: Any, owner: str = "") -> Any:
    """Return what a file holds; something else if there is none, or it is damaged, which is said.

    For files that can be done without.
    """
    try:
        found = read_json(path, check, owner)
    except Damaged as error:
        log.warning("%s", say("{why}; it is done without", why=str(error)))
        return instead
    return instead if found is None else found


def read_text(path: Path, most: int = MOST_BYTES, crc: str | None = None) -> str | None:
    """Return the text of a file; None if there is none.

    Args:
        path: where it is.
        most: bytes.
        crc: its checksum, as it was written; None: nobody knows it.

    Raises:
        Damaged: it is no file, too long, not UTF-8, or not what was written.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise Damaged(f"{path} is damaged: it is not a file")
        if about.st_size > most:
            raise Damaged(f"{path} is damaged: {about.st_size:,} bytes, more than {most:,}")
        found = path.read_bytes()
        if crc is not None and crc != sum_of(found):
            raise Damaged(f"{path} is damaged: it is not what was written")
        return found.decode().replace("\r\n", "\n").replace("\r", "\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeError as error:
        raise Damaged(f"{path} is damaged ({reason(error)})") from error


def parsed(given: str | bytes, check: Check, what: str) -> Any:
    """Return what a text of JSON says.

    Raises:
        Damaged: no JSON, or of another shape; `what` names it.
    """
    try:
        value = json.loads(given)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{what} is damaged ({reason(error)})") from None
    try:
        fits = check(value)
    except RecursionError:
        fits = False
    if not fits:
        raise Damaged(f"{what} is damaged: it does not hold what belongs there")
    return value


# ---- what we write ---------------------------------------------------------------------------

TEXTS = by_name(text)
OPTIONAL_TEXT = any_of(text, nothing)
POINTS = each(row(text, whole, number, whole))  # key, step, value, time
# files of a run's own folder, see `journal`
OPENING = fields(
    {"store": text, "study": text, "name": text, "tags": TEXTS},
    {
        "params": TEXTS,
        "points": each(row(text, whole, number)),
        "data": any_of(nothing, fields({"name": text, "digest": text, "profile": by_name(plain)})),
        "metrics": each(text),
        "start_ms": whole,
    },
)
SENT = fields({"run_id": OPTIONAL_TEXT, "uri": OPTIONAL_TEXT, "opened": truth})
CLOSING = fields(
    {"status": lambda value: value in ("FINISHED", "KILLED", "FAILED")},
    {
        "tags": TEXTS,
        "points": POINTS,
        "end_ms": whole,
        "note": OPTIONAL_TEXT,
        "stands": truth,
        "views": OPTIONAL_TEXT,
        "charts": by_name(any_of(text, each(text))),
    },
)
# tags
OPTIONS = by_name(plain)
GRID = by_name(each(plain, most=100_000))
# claims.json of an answer
CLAIMS = each(
    fields(
        {"name": text, "arm": text, "expected": plain, "measured": plain, "tolerance": plain},
        {
            "holds": any_of(truth, nothing),
            "source": text,
            "kind": lambda value: value in ("prediction", "identity", "description"),
            "guess": lambda value: number(value) or value in (None, "inf", "-inf"),
        },
    ),
    most=100_000,
)
