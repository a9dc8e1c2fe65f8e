"""Where the files of a local store are: found from its database, wherever both were moved to.

MLflow keeps absolute paths. A store that was moved has none that is right; a copy has those of the
original, and whoever follows them reads, writes or deletes the original's files.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import url2pathname

from sgdstudy import checks
from sgdstudy.errors import InputError
from sgdstudy.language import say
from sgdstudy.tracking.address import DATABASE

OURS = "artifacts"  # below it, a folder for each of our experiments
FOLDERS = (OURS, "streams", "aside", "writing")
MOUNTS = Path("/proc/self/mountinfo")


def local_path(uri: str) -> Path | None:
    """Return the folder behind a `file:` artifact URI, None for a remote one."""
    if not uri.startswith("file:"):
        # a scheme has two letters or more; one is a drive
        return None if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", uri) else Path(uri)
    return Path(url2pathname(uri.removeprefix("file://")))


def place_of_run(root: Path, run_id: str, recorded: Path) -> Path:
    """Return where a run's artifacts are, below the folder of its store.

    Args:
        root: that folder.
        run_id: MLflow's id.
        recorded: where MLflow says they are, or were: `.../<experiment>/<run_id>/artifacts`.

    Raises:
        InputError: what is recorded is another thing's folder, or a symbolic link lies on the way.
    """
    own = -4 if recorded.parts[-4:-3] == (OURS,) else -3
    place = _below(root, recorded, 3) or root.joinpath(*recorded.parts[own:])
    if place.parts[-2:] != (run_id, "artifacts") or place == root / run_id / "artifacts":
        raise InputError(
            f"run {run_id} says that its files are in {recorded}, which is not its own"
        )
    inside = place.relative_to(root).parts
    links = (root.joinpath(*inside[: i + 1]) for i in range(len(inside)))
    if ".." in inside or any(map(os.path.islink, links)):  # `resolve` would look from the top
        raise InputError(
            f"the files of run {run_id} are left alone: {place} is reached by a symbolic link or .."
        )
    if not is_below(root, place):
        raise InputError(f"the files of run {run_id} are left alone: {place} is another store's")
    return place


def place_of_experiment(root: Path, name: str, recorded: Path) -> Path | None:
    """Return where an experiment's artifacts are; None: outside of the store, by someone's wish.

    That is what a folder outside is that is there, unless a store lies beside it: then ours is a
    copy of that.
    """
    outside = not is_below(root, recorded)
    stores = (folder / DATABASE for folder in recorded.parents[:2])
    if outside and os.path.exists(recorded) and not any(map(os.path.exists, stores)):
        return None
    if outside and recorded.parts[-2:] == (OURS, name):
        return root / OURS / name
    if found := _below(root, recorded, 1):
        return found
    return root / recorded.name if name == "Default" and not recorded.exists() else None


def _below(root: Path, recorded: Path, least: int) -> Path | None:
    """Return a recorded path if it is below the root, else the longest end of it that is there."""
    if is_below(root, recorded):
        return recorded
    ends = (recorded.parts[i:] for i in range(1, len(recorded.parts) - least + 1))
    places = (root.joinpath(*end) for end in ends if ".." not in end)
    return next((place for place in places if os.path.isdir(place) and is_below(root, place)), None)


def is_below(root: Path, path: Path) -> bool:
    """Whether a path is below a store's folder, and in no other store, as a backup within it."""
    if not path.is_relative_to(root):
        return False
    inside = (folder for folder in path.parents if folder != root and folder.is_relative_to(root))
    return not any(os.path.exists(folder / DATABASE) for folder in inside)


def require_outside(path: Path) -> None:
    """Refuse to write among the files of runs, of this store or another one."""
    place = checks.resolved(path)
    for store in place.parents:
        if (store / DATABASE).exists() and place.relative_to(store).parts[0] in FOLDERS:
            raise InputError(f"{path} lies among the files of {store}; give a place outside of it")


def links_in(folder: Path) -> Iterator[Path]:
    """Yield the symbolic links that a folder is, or holds."""
    yield from (path for path in (folder, *folder.rglob("*")) if path.is_symlink())


def odd_in(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield what a folder is, or holds, that is no file and no folder, and what it is in words.

    A link leads what we read, write or remove to someone else's files; a pipe is waited for.
    """
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):  # its owner is moving or removing it
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                yield path, say("a symbolic link")
            elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                yield path, say("neither a file nor a folder")


def size_of(folder: Path) -> int:
    """Return the bytes of the files in a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def remove_folder(path: Path) -> str:
    """Remove a folder and what is in it; it may be gone already, or be looked at by others.

    Returns:
        Why it is still there; "" where it is gone.
    """
    if mount := next(mounts_in(path), None):
        return say("{path} is a mount", path=str(mount))
    why = ""
    for _ in range(3):  # one that asks for its lock at this moment puts a file into it
        try:
            shutil.rmtree(path)
        except OSError as error:
            why = str(error)
        if not path.exists():
            return ""
    return why


def mounts_in(folder: Path) -> Iterator[Path]:
    """Yield what is mounted at or within a folder: another disk, or another folder of this one.

    Whoever deletes goes through such a mount, to files that are elsewhere.
    """
    folder = folder.resolve()
    try:
        lines = MOUNTS.read_bytes().splitlines()
    except OSError:  # not Linux, which alone mounts a folder of the same disk
        yield from (path for path in (folder, *folder.rglob("*")) if os.path.ismount(path))
        return
    for line in lines:  # in its fifth word spaces and the like stand as \040
        word = re.sub(rb"\\([0-7]{3})", lambda byte: bytes([int(byte[1], 8)]), line.split(b" ")[4])
        if (place := Path(os.fsdecode(word))).is_relative_to(folder):
            yield place
