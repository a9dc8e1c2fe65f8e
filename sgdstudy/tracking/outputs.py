"""Files that a person asks for: a report, a packed file, a table. Whole or not at all, over none.

What lies there stays until its replacement is whole and on the disk; what is not of the kind that
is written is never replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sgdstudy import checks
from sgdstudy.errors import InputError
from sgdstudy.tracking.durable import sync
from sgdstudy.tracking.places import require_outside
from sgdstudy.tracking.scratch import scratch

PREFIX = ".sgdstudy-"  # of the folder beside a file that is being written
FIRST = 500  # bytes that tell what a file is


def require_free(path: Path, what: str, is_one: Callable[[bytes], bool]) -> None:
    """Refuse to write over what is not of a kind: the database, somebody's script, a device.

    Args:
        path: where something is to be written.
        what: the kind, with its article.
        is_one: whether a file that begins so is of it.

    Raises:
        InputError: another thing lies there, or it is among the files of runs.
    """
    require_outside(path)
    place = checks.resolved(path)
    if not place.exists():
        return
    if not place.is_file():
        raise InputError(f"{path} is there and is not a file; give another name")
    try:
        with open(place, "rb") as file:
            first = file.read(FIRST)
    except OSError:  # said when it is written
        return
    if first and not is_one(first):
        raise InputError(
            f"{path} is there and is not {what}, which alone is written over; give another name"
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a file to write, beside its place; it goes there when the block ends well.

    A link stays, and what it leads to is replaced. What a killed process left of it is removed by
    the next one that writes into the folder.
    """
    place = checks.resolved(path)
    with scratch(place.parent, PREFIX) as folder:
        draft = folder / "draft"
        yield draft
        if place.exists():
            draft.chmod(place.stat().st_mode & 0o777)
        sync(draft)
        draft.replace(place)
        sync(place.parent)
