"""What is on the disk when the power fails: files, and the folders that name them."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sgdstudy.errors import shortage
from sgdstudy.history.shared import share
from sgdstudy.history.stream import sync_folder
from sgdstudy.tracking import shapes
from sgdstudy.tracking.places import all_in, mounts_in, remove_folder
from sgdstudy.tracking.scratch import scratch

FEW, SIDE_BY_SIDE = 2, 8


def sync(path: Path) -> None:
    """Bring a file's content, or the names in a folder, to the disk; what is gone needs none."""
    if path.is_dir():
        sync_folder(path)
        return
    try:
        handle = os.open(path, os.O_RDWR)  # Windows syncs what may be written only
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_all(paths: Iterable[Path]) -> None:
    """Bring files and folders to the disk, in any order."""
    found = list(dict.fromkeys(paths))
    if len(found) <= FEW:
        for path in found:
            sync(path)
        return
    try:
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            list(pool.map(sync, found))
    except (RuntimeError, MemoryError) as error:
        if not shortage(error):
            raise
        for path in found:
            sync(path)


def move(path: Path, target: Path) -> None:
    """Move a file, so that the target is there whole or not at all, whatever happens to us."""
    try:
        os.replace(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        draft = target.with_name(f"{target.name}.new")  # on the other file system
        shutil.copyfile(path, draft)
        share(draft)
        sync(draft)
        os.replace(draft, target)
        path.unlink()


def move_folder(path: Path, target: Path) -> None:
    """Move a folder, as `move` does a file.

    A folder cannot be renamed to another file system, nor one of a lower layer of an overlay, as
    the folders of a container's image are.
    """
    try:
        os.rename(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV or next(mounts_in(path), None) is not None:
            raise
        with scratch(target.parent) as folder:
            draft = folder / target.name
            shutil.copytree(path, draft)
            sync_all(all_in(draft))
            os.rename(draft, target)
        sync(target.parent)
        remove_folder(path)


def write_json(path: Path, value: Any, synced: bool = True, owner: str = "") -> None:
    """Write a file that is there whole or not at all; see `shapes.signed`."""
    draft = path.with_suffix(".new")
    with open(draft, "w", encoding="utf-8") as file:
        file.write(shapes.signed(value, owner))
        file.flush()
        if synced:
            os.fsync(file.fileno())
    share(draft)
    os.replace(draft, path)
