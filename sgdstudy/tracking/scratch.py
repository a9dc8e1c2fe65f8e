"""Folders for a while: gone when they are done with, those of processes that were killed too.

Who uses one holds a lock in it as long as its process lives; the next one to make such a folder in
the same place removes those whose lock is free.
"""

from __future__ import annotations

import atexit
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sgdstudy.tracking.places import remove_folder

PREFIX = "sgdstudy-"
LOCK = ".scratch.lock"  # another name than a store's lock: a store may lie in such a folder
MADE_SECONDS = 60.0  # a younger folder may belong to a process that is about to lock it
NOWHERE = Path(os.devnull) / "no temporary folder"


def make(parent: Path | None = None, prefix: str = PREFIX) -> tuple[Path, FileLock]:
    """Return a new folder, and its lock, which is held.

    Args:
        parent: where it is made; None: where the system keeps such folders.
        prefix: of its name.
    """
    place = Path(tempfile.gettempdir()) if parent is None else parent
    remove_left(place, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire()
    except BaseException:  # no room for it: without a lock nobody would ever remove the folder
        remove(folder, lock)
        raise
    return folder, lock


def let_go(lock: FileLock) -> None:
    """Release a lock; it is free where a function of the user's closed its file."""
    with suppress(OSError):
        lock.release()


def remove(folder: Path, lock: FileLock) -> None:
    """Remove a folder that was made here."""
    let_go(lock)
    remove_folder(folder)


def remove_at_exit(folder: Path, lock: FileLock) -> None:
    """Remove a folder that was made here when this process ends, not one that it forks."""
    process = os.getpid()
    atexit.register(lambda: remove(folder, lock) if os.getpid() == process else None)


@contextmanager
def scratch(parent: Path | None = None, prefix: str = PREFIX) -> Iterator[Path]:
    """Give a new folder, and remove it at the end; see `make`.

    Where the system has no room for one it is a place where nothing can be put: whoever reads a
    local store needs none.
    """
    try:
        folder, lock = make(parent, prefix)
    except OSError:
        if parent is not None:
            raise
        yield NOWHERE
        return
    try:
        yield folder
    finally:
        remove(folder, lock)


def remove_left(place: Path, prefix: str = PREFIX) -> None:
    """Remove folders of ours whose process is gone; what is not surely one is left alone."""
    for folder in place.glob(f"{prefix}*"):
        try:
            if folder.is_symlink() or not folder.is_dir():
                continue
            mine = not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
            made = (folder / LOCK).lstat().st_mtime
            if not mine or time.time() - made < MADE_SECONDS:
                continue
            lock = FileLock(folder / LOCK)
            lock.acquire(timeout=0)
        except (OSError, Timeout):  # none of ours, being removed, or in use
            continue
        remove(folder, lock)
