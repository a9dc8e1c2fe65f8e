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
from sgdstudy.tracking.address import databases_in

OURS = "artifacts"  # below it, a folder for each of our experiments
FOLDERS = (OURS, "streams", "aside", "writing")
RUN_ID = re.compile("[0-9a-f]{32}")  # as MLflow makes them
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
    ours, foreign = recorded.parts[-4:-3] == (OURS,), not is_own(run_id, recorded)
    place = root.joinpath(*recorded.parts[-4 if ours else -3 :])
    if not foreign and not (ours and os.path.isdir(place)):
        place = _below(root, recorded, 2) or place
    if foreign or not place.is_relative_to(root) or place == root / run_id / "artifacts":
        raise InputError(
            f"run {run_id} says that its files are in {recorded}, which is not its own"
        )
    inside = place.relative_to(root).parts
    links = (root.joinpath(*inside[: i + 1]) for i in range(len(inside)))
    if ".." in inside or any(map(os.path.islink, links)):  # `resolve` would look from the top
        raise InputError(
            f"the files of run {run_id} are left alone: {place} is reached by a symbolic link or .."
        )
    if not is_below(root, place.parents[1]):
        raise InputError(f"the files of run {run_id} are left alone: {place} is another store's")
    return place


def is_own(run_id: str, place: Path) -> bool:
    """Whether a folder of artifacts is that of a run, by its name.

    An id that is none of MLflow's may be the name of an experiment, whose folder is all its runs'.
    """
    return RUN_ID.fullmatch(run_id) is not None and place.parts[-2:] == (run_id, "artifacts")


def place_of_experiment(root: Path, name: str, recorded: Path) -> Path | None:
    """Return where an experiment's artifacts are; None: outside of the store, by someone's wish.

    That is what a folder outside is that is there, unless a store lies beside it: then ours is a
    copy of that. One within the store has another name where the store itself has two, as by a
    bind mount: it stays as it is, for whoever uses that name.
    """
    if is_below(root, _by_its_name(root, recorded)):
        return recorded
    if os.path.exists(recorded) and not any(map(is_store, recorded.parents[:2])):
        return None
    if recorded.parts[-2:] == (OURS, name):
        return root / OURS / name
    if found := _below(root, recorded):
        return found
    return root / recorded.name if name == "Default" and not recorded.exists() else None


def _by_its_name(root: Path, path: Path) -> Path:
    """Return a path as it begins with the root, where a folder that it lies in is the root."""
    for folder in path.parents:
        with suppress(OSError):
            if os.path.samefile(folder, root):
                return root / path.relative_to(folder)
    return path


def _below(root: Path, recorded: Path, depth: int = 0) -> Path | None:
    """Return a recorded path if it is below the root, else the longest end of it that is there.

    Args:
        root: a store's folder.
        recorded: an experiment's folder, or one within that.
        depth: how far within that.
    """

    def lies(place: Path) -> bool:
        return is_below(root, (place, *place.parents)[depth])

    if lies(recorded):
        return recorded
    ends = (recorded.parts[i:] for i in range(1, len(recorded.parts) - depth))
    places = (root.joinpath(*end) for end in ends if ".." not in end)
    return next((place for place in places if os.path.isdir(place) and lies(place)), None)


def is_below(root: Path, path: Path) -> bool:
    """Whether a path is below a store's folder, and in no other store, as a backup within it.

    Args:
        root: the store's folder.
        path: an experiment's folder. Those of its runs may be many, and are not looked through.
    """
    if not path.is_relative_to(root):
        return False
    inside = (folder for folder in path.parents if folder != root and folder.is_relative_to(root))
    return not any(map(is_store, inside))


def is_store(folder: Path) -> bool:
    """Whether a database lies in a folder."""
    return next(databases_in(folder), None) is not None


def require_outside(path: Path) -> None:
    """Refuse to write among the files of runs, of this store or another one."""
    place = checks.resolved(path)
    for store in place.parents:
        if place.relative_to(store).parts[0] in FOLDERS and is_store(store):
            raise InputError(f"{path} lies among the files of {store}; give a place outside of it")


def all_in(folder: Path) -> Iterator[Path]:
    """Yield a folder and what is in it, links too; what is removed meanwhile is passed over."""
    yield folder
    for place, folders, names in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *names))


def links_in(folder: Path) -> Iterator[Path]:
    """Yield the symbolic links that a folder is, or holds."""
    yield from (path for path in all_in(folder) if path.is_symlink())


def others_in(folder: Path) -> Iterator[Path]:
    """Yield the files of runs within a run's folder: those of others."""
    for path in all_in(folder):
        if path.parent != folder and is_own(path.parent.name, path):
            yield path


def odd_in(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield what a folder is, or holds, that is no file and no folder, and what it is in words.

    A link leads what we read, write or remove to someone else's files; a pipe is waited for.
    """
    for path in all_in(folder):
        with suppress(FileNotFoundError):  # its owner is moving or removing it
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                yield path, say("a symbolic link")
            elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                yield path, say("neither a file nor a folder")


def size_of(folder: Path) -> int:
    """Return the bytes of the files in a folder; somebody may be removing them."""
    size = 0
    for path in all_in(folder):
        with suppress(FileNotFoundError):
            about = path.lstat()
            size += about.st_size if stat.S_ISREG(about.st_mode) else 0
    return size


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
        yield from (path for path in all_in(folder) if os.path.ismount(path))
        return
    for line in lines:  # in its fifth word spaces and the like stand as \040
        word = re.sub(rb"\\([0-7]{3})", lambda byte: bytes([int(byte[1], 8)]), line.split(b" ")[4])
        if (place := Path(os.fsdecode(word))).is_relative_to(folder):
            yield place
