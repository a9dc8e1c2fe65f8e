"""The SQLite file of a local store: made, opened, moved, and shrunk; `read_only` reads it."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sgdstudy.errors import InputError, StoreError, shortage
from sgdstudy.history.shared import share
from sgdstudy.language import say, to_say
from sgdstudy.tracking.address import sqlite_uri
from sgdstudy.tracking.places import local_path, place_of_experiment, place_of_run
from sgdstudy.tracking.retry import patiently, reason_of
from sgdstudy.tracking.scratch import scratch
from sgdstudy.training.interrupts import held

LITTLE = 2**17  # bytes: with less room on its disk SQLite cannot even begin
PAYS = 2**20  # bytes: a database with less to give back is not shrunk
LOCK_SECONDS = 20.0  # that another program may hold what is to be written
DROPPED = "sgdstudy_dropped"  # a table of ours: the keys of runs that were dropped
SETTINGS = "MLFLOW_SQLALCHEMYSTORE_"  # variables that say how MLflow connects to a database

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("sgdstudy")


class DiskFull(StoreError):
    """There is no room for what a database is to hold."""


_open: dict[str, list[tuple[int, int] | None]] = {}  # by URI: the files that MLflow has open


def imported() -> None:
    """Import what MLflow keeps a database with; what it warns of is not ours, nor a script's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def make(path: Path) -> None:
    """Make a database beside its place, then rename: nobody ever sees half of it."""
    imported()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with scratch(path.parent) as folder:
        draft = folder / path.name
        try:
            made = SqlAlchemyStore(sqlite_uri(draft), path.parent.as_uri())
        except Exception as error:
            if is_full(path.parent):
                raise DiskFull(_disk_is_full(path)) from error
            raise
        made.engine.dispose()
        with opened(draft) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # persists; several writers go faster
        os.replace(draft, path)
    share(path)  # SQLite gives the files beside it the same rights


@contextlib.contextmanager
def opened(path: Path, query: str = "mode=rw") -> Iterator[sqlite3.Connection]:
    """Open a database, and say in one line what is wrong with it.

    Raises:
        TimeoutError: another program holds it.
        OSError: too many files are open.
        DiskFull: it has no room.
        StoreError: its disk fails.
        InputError: it may not be opened, is damaged, or is not a database of MLflow's.
    """
    try:
        uri = f"file:{quote(path.as_posix())}?{query}"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0.5)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise _as_our_error(path, error) from error
    except UnicodeDecodeError as error:  # of SQLite's own words about a damaged name
        raise _damaged(path, error) from error


def explained(path: Path, error: BaseException) -> Exception | None:
    """Return what an error of MLflow's means where SQLite's is behind it; None: it is not."""
    for behind in (error, error.__cause__, error.__context__):
        found = getattr(behind, "orig", behind)  # sqlalchemy's has it there
        if isinstance(found, sqlite3.Error):
            return _as_our_error(path, found)
    return None


def require_settings(uri: str) -> None:
    """Raise `InputError` where MLflow cannot connect as the environment says: `SETTINGS`."""
    given = sorted(name for name in os.environ if name.startswith(SETTINGS))
    if not given:
        return
    from mlflow.store.db.utils import create_sqlalchemy_engine

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    try:
        create_sqlalchemy_engine(uri).dispose()  # connects to nothing
    except Exception as error:
        why = reason_of(error)
        named = [name for name in given if name in why] or given
        raise InputError(
            f"MLflow cannot use {', '.join(named)} of the environment ({why}); unset "
            f"{'it' if len(named) == 1 else 'what is wrong'}, and try again"
        ) from None


def require_plain(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `InputError` where a database is not as MLflow makes one: tables, and its version.

    A view, or what a trigger selects, may be without an end.
    """
    found = connection.execute(
        "SELECT type, name FROM sqlite_master WHERE type = 'view' "
        "OR (type = 'trigger' AND tbl_name != 'secrets') LIMIT 1"  # MLflow's own is on that table
    ).fetchone()
    if found is not None:
        kind, name = found
        raise InputError(
            f"{path} has the {kind} {name}, which MLflow does not make; remove it from a copy "
            f"(DROP {kind.upper()} {_quoted(name)}), or give another folder with --store"
        )
    connection.execute("SELECT 1 FROM experiments LIMIT 1")
    versions = connection.execute("SELECT version_num FROM alembic_version LIMIT 2").fetchall()
    if len(versions) != 1:
        raise InputError(
            f"{path} does not say which version of MLflow made it (its table alembic_version has "
            f"{'several rows' if versions else 'no row'}, not one); put a copy back, or give "
            f"another folder with --store"
        )


def _as_our_error(path: Path, error: sqlite3.Error) -> Exception:
    """Return what an error of SQLite means, as one of ours or of Python's."""
    name = getattr(error, "sqlite_errorname", None) or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return TimeoutError(reason_of(error))
    fails = name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN"))
    if name == "SQLITE_FULL" or (fails and is_full(path.parent)):
        return DiskFull(_disk_is_full(path))
    if fails and (short := _no_handle(path)):
        return short
    if name.startswith("SQLITE_IOERR"):
        return StoreError(f"{path} cannot be read or written ({error}); is its disk in order?")
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
        return InputError(f"{path} cannot be opened ({error}); {mend(path.parent)}")
    if name.startswith("SQLITE_CORRUPT"):
        return _damaged(path, error)
    if name == "SQLITE_NOTADB" or "no such table: experiments" in str(error):
        return InputError(
            f"{path} is not an MLflow database ({error}); move it away and a new one is made"
        )
    return InputError(f"{path} cannot be read or written ({error})")


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is damaged ({error}); put a copy back, or save what can be read: "
        f"sqlite3 {path.name} .recover"
    )


def _no_handle(path: Path) -> OSError | None:
    """Return the system's word where no more files can be opened; SQLite does not tell that."""
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        return error if shortage(error) else None
    return None


def _disk_is_full(path: Path) -> str:
    """Say that a disk is full, and what helps."""
    return (
        f"the disk that {path} is on is full; free some space, as sgdstudy prune does. "
        f"What is in the store can be read"
    )


def is_full(folder: Path) -> bool:
    """Whether a disk has no room for another file."""
    try:
        if hasattr(os, "statvfs"):
            found = os.statvfs(folder)
            if found.f_files and not found.f_favail:
                return True
        return shutil.disk_usage(folder).free < LITTLE
    except OSError:
        return False


def which(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one of its name; None: there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def named(path: Path) -> tuple[tuple[int, int] | None, int | None]:
    """Return what tells a store's database from another's, also from one copied over it in place.

    That is the file, and when its first experiment was made, None where it cannot be read. Only the
    file itself is asked: what SQLite holds beside it is of the database that was there before.
    """
    born = None
    with contextlib.suppress(sqlite3.Error, TypeError):
        uri = f"file:{quote(path.as_posix())}?mode=ro&immutable=1"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            text = "SELECT creation_time FROM experiments ORDER BY experiment_id LIMIT 1"
            (born,) = connection.execute(text).fetchone()
    return which(path), born


def names_beside(path: Path) -> list[Path]:
    """Return the files that SQLite may keep beside a database."""
    return [path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal")]


def beside(path: Path) -> list[Path]:
    """Return those of them that are there."""
    return [file for file in names_beside(path) if file.exists()]


# ---- writing -----------------------------------------------------------------------------------


def let_go(uri: str, path: Path) -> None:
    """Let MLflow open a database anew where the files that it has open are not those here now.

    MLflow keeps its store and its connections of a URI as long as the process lives, and would
    write to the files that were moved away, deleted or replaced since.
    """
    if _open.get(uri, now := _files(path)) == now:
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracking._tracking_service import utils

    if engine := SqlAlchemyStore._engine_map.pop(uri, None):
        engine.dispose()  # connections in use are closed by who uses them
    utils._tracking_store_registry._get_store_with_resolved_uri.cache_clear()


def client(uri: str, path: Path) -> MlflowClient:
    """Return MLflow's client of a database that is written."""
    from mlflow import MlflowClient

    made = MlflowClient(tracking_uri=uri)
    _open[uri] = _files(path)
    return made


def _files(path: Path) -> list[tuple[int, int] | None]:
    """Return which files a database is now; while it is open, nobody removes those beside it."""
    return [which(file) for file in (path, *names_beside(path)[:2])]


def require_writable(path: Path, *others: Path) -> None:
    """Raise `InputError` where a database cannot be written, with SQLite's own words.

    Args:
        path: the database.
        others: files and folders that have to be written too.
    """
    wanted = [path.parent, path, *beside(path), *others]
    shut = [file for file in wanted if file.exists() and not os.access(file, os.W_OK)]
    if not shut:
        return
    said = ""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as connection:
            # deletes nothing, but needs the right to write
            connection.execute("DELETE FROM alembic_version WHERE 0")
            connection.rollback()
    except sqlite3.Error as error:
        said = f"; SQLite says: {error}"
    about = f"{shut[0].name} is {owner(shut[0])}'s, {stat.filemode(shut[0].stat().st_mode)}"
    raise InputError(
        f"the store {path.parent} cannot be written ({about}{said}); {mend(path.parent)}. "
        f"Reading works: ss.load_runs, sgdstudy export, report --out FILE"
    )


def require_one_name(path: Path) -> None:
    """Raise `InputError` where a database has two names: it is that of another store as well."""
    for file in (path, *beside(path)):
        if file.exists() and file.stat().st_nlink > 1:
            raise InputError(
                f"{file} has another name too (a hard link, as cp -l makes): what is written or "
                f"dropped here would be there too; make a copy without links, cp -r {path.parent} "
                f"COPY, and use that"
            )


def owner(path: Path) -> str:
    """Return whose a file is, by name where it has one."""
    try:
        return path.owner()
    except (KeyError, NotImplementedError, OSError):
        return f"user {path.stat().st_uid}"


def mend(root: Path) -> str:
    """Return in words what lets this user use a store."""
    if hasattr(os, "statvfs") and os.statvfs(root).f_flag & os.ST_RDONLY:
        return "it is on a read-only file system; give another folder with --store"
    return (
        f"give another folder with --store, or let {owner(root)} share this one: "
        f"chmod -R g+rwX {root}"
    )


def rebase(path: Path) -> None:
    """Check a database, and where it was moved or copied, let it say where its files are now.

    MLflow keeps absolute paths; its own UI finds the artifacts only by those.
    """
    with opened(path) as connection:
        require_plain(connection, path)
        if not _moved(connection, path.parent):
            return
        connection.execute("BEGIN IMMEDIATE")
        moved = _moved(connection, path.parent)  # again: another process may have been faster
        runs = 0
        for experiment, (old, new) in moved.items():
            _set_prefix(connection, "experiments", "artifact_location", experiment, old, new)
            runs += _set_prefix(connection, "runs", "artifact_uri", experiment, old, new)
        connection.commit()
    if runs:
        line = say(
            "{path} was moved or copied: its {n} run names its new place now",
            "{path} was moved or copied: its {n} runs name their new place now",
            path=path,
            n=runs,
        )
        log.warning("%s", line)


def _moved(connection: sqlite3.Connection, root: Path) -> dict[int, tuple[str, str]]:
    """Return where the artifacts of experiments were, and are now, by the experiments' ids."""
    found = {}
    rows = connection.execute("SELECT experiment_id, name, artifact_location FROM experiments")
    for experiment, name, location in rows:
        if not (isinstance(name, str) and isinstance(location, str)):  # anything may be there
            continue
        old = local_path(location)
        new = None if old is None else place_of_experiment(root, name, old)
        if new is not None and new != old:
            found[experiment] = (location, new.as_uri())
    return found


def _set_prefix(
    connection: sqlite3.Connection, table: str, column: str, experiment: int, old: str, new: str
) -> int:
    """Let the paths of an experiment begin with another folder; return how many did."""
    return connection.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
        f"WHERE experiment_id = ? AND substr({column} || '/', 1, ?) = ?",
        (new, len(old) + 1, experiment, len(old) + 1, f"{old}/"),
    ).rowcount


def shrink(path: Path) -> int:
    """Give the room of deleted rows back to the disk, where it pays; return the bytes.

    SQLite keeps that room for new rows otherwise. It writes the database anew, so the disk needs
    the size of what remains once more; where others are at it, or there is no room, it stays.
    """
    before = _size(path)
    try:
        with opened(path) as connection:
            unused, pages, size = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("freelist_count", "page_count", "page_size")
            )
            if unused * size < PAYS or 10 * unused < pages:
                return 0
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except (TimeoutError, StoreError) as error:
        text = to_say("{name} keeps the room of what was dropped for new runs: {why}")
        log.warning("%s", say(text, name=path.name, why=str(error)))
    return max(0, before - _size(path))


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *beside(path)))


def forget(path: Path, run_id: str, remove: Callable[[], bool] = lambda: True) -> bool:
    """Delete a run for good, with its rows in all tables of MLflow's, once its files are removed.

    MLflow's own `delete_run` marks it only; one run at a time needs little room. While its files
    are removed nobody else writes, and a Ctrl-C waits.

    Args:
        path: the database.
        run_id: MLflow's.
        remove: removes its files; whether they are gone.

    Returns:
        Whether the run was there, and is not any more.

    Raises:
        TimeoutError: another program holds the database; no file was removed.
        DiskFull: the files made too little room for the database: the run is there without them.
    """
    with contextlib.ExitStack() as stack:
        full = False
        try:
            connection = stack.enter_context(_written(path))
        except DiskFull:
            full = True
        stack.enter_context(held())
        if not remove():
            return False
        if full:  # the files made the room that the database needs
            connection = stack.enter_context(_written(path))
        return _delete(connection, run_id)


@contextlib.contextmanager
def _written(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database as the only one who writes to it; what is not committed is undone."""
    with opened(path) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA wal_autocheckpoint = 64")  # pages: the log stays short

        def hold() -> None:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise _as_our_error(path, error) from error

        patiently(hold, LOCK_SECONDS)
        yield connection


def _delete(connection: sqlite3.Connection, run_id: str) -> bool:
    """Delete the rows of a run, and note its key; whether there were any."""
    key_of = "SELECT value FROM tags WHERE run_uuid = ? AND key = 'sgdstudy.key'"
    connection.execute(f"CREATE TABLE IF NOT EXISTS {DROPPED} (key TEXT PRIMARY KEY) WITHOUT ROWID")
    connection.execute(f"INSERT OR IGNORE INTO {DROPPED} {key_of}", (run_id,))
    tables = [
        (table, key[3])
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for key in connection.execute(f"PRAGMA foreign_key_list({_quoted(table)})")
        if key[2] == "runs" and key[6] == "NO ACTION"
    ]
    for table, column in tables:
        where = f"{_quoted(table)} WHERE {_quoted(column)} = ?"
        connection.execute(f"DELETE FROM {where}", (run_id,))
    connection.execute("DELETE FROM inputs WHERE destination_id = ?", (run_id,))
    gone = connection.execute("DELETE FROM runs WHERE run_uuid = ?", (run_id,)).rowcount
    connection.commit()
    return gone > 0


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def has_run(path: Path, key: str) -> bool:
    """Whether a database has the run of this key; see `journal`."""
    with opened(path, "mode=ro") as connection:
        only = "key = 'sgdstudy.key' AND value = ? LIMIT 1"
        return connection.execute(f"SELECT 1 FROM tags WHERE {only}", (key,)).fetchone() is not None


def was_dropped(path: Path, key: str) -> bool:
    """Whether a database had the run of this key, and it was dropped; see `forget`."""
    with opened(path, "mode=ro") as connection:
        tables = "SELECT 1 FROM sqlite_master WHERE name = ?"
        if connection.execute(tables, (DROPPED,)).fetchone() is None:  # none ever was
            return False
        only = f"SELECT 1 FROM {DROPPED} WHERE key = ?"
        return connection.execute(only, (key,)).fetchone() is not None


def remains(path: Path) -> list[str]:
    """Return the runs of ours that were dropped once, and are marked as deleted only.

    Earlier versions left them so. One that was deleted in the UI has its files still: it may be
    wanted back.
    """
    ours = "SELECT run_uuid FROM tags WHERE key = 'sgdstudy.key'"
    gone = f"lifecycle_stage = 'deleted' AND run_uuid IN ({ours})"
    with opened(path) as connection:
        found = connection.execute(
            f"SELECT run_uuid, artifact_uri FROM runs WHERE {gone}"
        ).fetchall()
    return [run_id for run_id, uri in found if not _has_files(path.parent, run_id, uri)]


def _has_files(root: Path, run_id: str, uri: str) -> bool:
    try:
        place = local_path(uri if isinstance(uri, str) else "")
        return place is None or place_of_run(root, run_id, place).exists()
    except InputError:
        return True
