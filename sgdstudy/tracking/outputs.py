"""Files that a person asks for: a report, a packed file, a table. Whole or not at all, over none.

What lies there stays until its replacement is whole and on the disk; what is not of the kind that
is written is never replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from sgdstudy import checks
from sgdstudy.errors import InputError
from sgdstudy.language import say, to_say
from sgdstudy.tracking.durable import sync
from sgdstudy.tracking.places import require_outside
from sgdstudy.tracking.scratch import scratch

PREFIX = ".sgdstudy-"  # of the folder beside a file that is being written
FIRST = 500  # bytes that tell what a file is


def require_free(
    path: Path, what: str, endings: Collection[str], is_one: Callable[[bytes], bool]
) -> None:
    """Refuse to write over what is not of a kind: the database, somebody's script, a device.

    And to write it under a name that promises another kind, as `report --out notes.pdf`.

    Args:
        path: where something is to be written.
        what: the kind, with its article.
        endings: of its name.
        is_one: whether a file that begins so is of it.

    Raises:
        InputError: another thing lies there, its name has another ending, or it is among the files
            of runs.
    """
    require_outside(path)
    place = checks.resolved(path)
    if place.exists():
        _require_kind(path, place, what, is_one)
    if place.suffix.lower() not in endings:
        text = to_say("{path} does not end in {endings}; give a name that does")
        raise InputError(say(text, path=path, endings=" | ".join(endings)))


def _require_kind(path: Path, place: Path, what: str, is_one: Callable[[bytes], bool]) -> None:
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
