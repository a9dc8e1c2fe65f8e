"""What is on the disk when the power fails: files, and the folders that name them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sgdstudy.history.rows import sync_folder

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
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        list(pool.map(sync, found))
