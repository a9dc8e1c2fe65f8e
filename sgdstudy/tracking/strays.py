"""Folders of runs that lie under another name than their own: renamed, exchanged, or copies.

A run's folder is called by its key, which its opening names. Without that name nobody finds its
rows, and they may be the only ones.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sgdstudy.history.rows import AXIS
from sgdstudy.history.stream import counted, is_stream_of
from sgdstudy.language import say, to_say
from sgdstudy.tracking import aside, shapes
from sgdstudy.tracking.durable import move_folder
from sgdstudy.tracking.entries import A_KEY, KEY
from sgdstudy.tracking.store import Store


def put_right(store: Store) -> list[str]:
    """Give the folders of runs their names back, where no other one has them by right.

    Returns:
        Those that still have another name, and why, a line each.
    """
    strays = [
        (folder, key)
        for folder, key in misnamed(store)
        if A_KEY.fullmatch(key) and not _holds(folder, folder.name)
    ]
    # of several copies the one with most rows
    strays.sort(key=lambda stray: sum(counted(stray[0]).values()), reverse=True)
    taken_by_strays = {folder.name for folder, _ in strays}
    again = dict[str, Path]()
    for folder, key in strays:
        place = store.streams / key
        free = key in taken_by_strays or _is_free(place, folder)
        if free and key not in again and not aside.folders_of(store, key):
            again[key] = place.with_name(key + aside.AGAIN)
            _rename(folder, again[key])
    for key, folder in again.items():  # two may have had each other's
        _rename(folder, store.streams / key)
    return [_why(store, folder, key) for folder, key in misnamed(store)]


def _why(store: Store, folder: Path, key: str) -> str:
    """Return in words why a folder is left alone whose opening names another key."""
    which = {"folder": str(folder), "key": key}
    if _holds(folder, folder.name):
        text = to_say(
            "{folder} is left alone: its opening.json is that of {key}, the rest is not; put its "
            "own back"
        )
    elif (store.streams / key).exists() or aside.folders_of(store, key):
        text = to_say(
            "{folder} is a copy of {key} and left alone: remove it by hand, unless it has more rows"
        )
    else:
        text = to_say("{folder} is left alone: it is the only one of {key}; rename it to {key}")
    return say(text, **which)


def misnamed(store: Store) -> list[tuple[Path, str]]:
    """Return the folders of runs of a store that have another name than their key, and this."""
    told = [one for one in aside.told_in(store.streams) if aside.is_of(store, one[1])]
    keys = [(folder, told["tags"].get(KEY, "")) for folder, told in told]
    return [(folder, key) for folder, key in keys if key != folder.name]


def _holds(folder: Path, key: str) -> bool:
    """Whether rows or notes in a folder say that they are of a run."""
    streams = any(is_stream_of(folder / f"{kind}.arrow", key) for kind in AXIS)
    return streams or any(shapes.is_signed(path, key) for path in folder.glob("*.json"))


def _is_free(place: Path, folder: Path) -> bool:
    """Whether nothing has a name; a file system may take it for that of the folder itself."""
    with suppress(OSError):
        return not place.exists() or place.samefile(folder)
    return False


def _rename(folder: Path, place: Path) -> None:
    """Rename a folder; where that cannot be, it is named as one that is left alone."""
    with suppress(OSError):
        move_folder(folder, place)
