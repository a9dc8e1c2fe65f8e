"""Folders that several people write: what one makes, the others of its group may go on with."""

from __future__ import annotations

import contextlib
import itertools
import stat
from pathlib import Path


def make_folder(path: Path) -> list[Path]:
    """Make a folder and those it lies in, with the group's rights of the one that was there.

    Returns:
        The folders whose names changed: those to be synced where a power failure counts.
    """
    missing = list(itertools.takewhile(lambda folder: not folder.is_dir(), (path, *path.parents)))
    for folder in reversed(missing):
        make_within(folder)
    return [folder.parent for folder in missing]


def make_within(path: Path) -> None:
    """Make a folder, where there is none, in one that is there, with its group's rights.

    The other may have been moved: then nothing is made where it was.
    """
    path.mkdir(exist_ok=True)
    share(path)


def share(path: Path) -> None:
    """Give a new file or folder the group's rights that its folder has.

    Programs make files as their user's umask says, SQLite always without the group's right to
    write. Who may write a folder may replace its files anyway, but in one with the sticky bit.
    """
    mode = path.stat().st_mode
    rights = group_rights(path.parent) & (0o070 if stat.S_ISDIR(mode) else 0o060)
    if rights & ~mode:
        with contextlib.suppress(PermissionError):  # another one's: theirs to share
            path.chmod(stat.S_IMODE(mode) | rights)


def group_rights(folder: Path) -> int:
    """Return the group's bits of a folder that its group may write, else 0."""
    mode = folder.stat().st_mode
    shared = mode & stat.S_IWGRP and not mode & stat.S_ISVTX
    return mode & 0o070 if shared else 0
