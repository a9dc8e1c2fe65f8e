"""The SQLite file of a local store, read without a trace, also while others write it."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sgdstudy.errors import InputError, StoreError
from sgdstudy.language import say
from sgdstudy.tracking.address import sqlite_uri
from sgdstudy.tracking.database import SETTINGS, beside, names_beside, opened, require_plain

NO_POOL = {  # of the environment
    f"{SETTINGS}POOLCLASS": "NullPool",
    f"{SETTINGS}POOL_SIZE": None,  # which that does not take
    f"{SETTINGS}MAX_OVERFLOW": None,
}
ATTEMPTS = 20  # to read a database that others write meanwhile

T = TypeVar("T")


# ---- reading -----------------------------------------------------------------------------------


def query(path: Path) -> str:
    """Return how a database is opened by who only reads: nothing is made, written, or locked.

    With a write-ahead log beside it, other processes may be writing: their index of it is used.
    Without one, SQLite would make both files, under the reader's name; `immutable` forbids that,
    and forgoes looking whether somebody begins to write (see `Reader`).
    """
    wal, _, journal = names_beside(path)
    if _has_rows(wal):
        return "mode=ro&readonly_shm=1"
    return "mode=ro" if _has_rows(journal) else "mode=ro&immutable=1"


def _has_rows(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _looked_at(path: Path, look: Callable[[str], T]) -> T:
    """Return what somebody sees who is told how to open a database; who was disturbed looks again.

    Raises:
        StoreError: it is written all the time.
    """
    for _ in range(ATTEMPTS):
        before = _state(path)
        how = query(path)
        try:
            found = look(how)
        except Exception:
            if _state(path) == before:
                raise
            continue
        if "immutable" not in how or _state(path) == before:
            return found
    raise StoreError(f"{path} is written all the time; try again")


def _state(path: Path) -> list[tuple[str, int, int]]:
    """Return what differs once somebody has written."""
    found = []
    for file in (path, *beside(path)):
        with contextlib.suppress(FileNotFoundError):  # between the two looks
            about = file.stat()
            found.append((file.name, about.st_size, about.st_mtime_ns))
    return found


class Reader:
    """MLflow's client of a database that is only read, also while others write it.

    Args:
        path: the database.

    Raises:
        InputError: an older MLflow made it.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._clients = path, dict[str, Any]()
        try:
            _looked_at(path, self._client)
        except Exception as error:
            if "readonly database" not in str(error):
                raise
            raise InputError(  # MLflow adds the tables that it misses
                f"{path} was made by an older MLflow; make a copy of it, then run: "
                f"mlflow db upgrade {sqlite_uri(path)}"
            ) from error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return functools.partial(self._call, name)

    def _call(self, name: str, *given: Any, **named: Any) -> Any:
        return _looked_at(self._path, lambda how: getattr(self._client(how), name)(*given, **named))

    def _client(self, how: str) -> Any:
        from mlflow import MlflowClient

        if how not in self._clients:
            with _no_pool():
                self._clients[how] = MlflowClient(tracking_uri=address(self._path, how))
        return self._clients[how]


def address(path: Path, how: str) -> str:
    """Return MLflow's URI of a database that is only read."""
    from sqlalchemy import URL

    settings = dict(word.split("=") for word in how.split("&")) | {"uri": "true"}
    # MLflow makes the folder of any sqlite:///..., and would make one called "file:"
    uri = URL.create("sqlite+pysqlite", database=f"file:{quote(path.as_posix())}", query=settings)
    return uri.render_as_string(hide_password=False)


@contextlib.contextmanager
def _no_pool() -> Iterator[None]:
    """Let MLflow close a connection after each call: an immutable one would never look again."""
    before = {name: os.environ.get(name) for name in NO_POOL}
    _set(NO_POOL)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    """Set variables of the environment; None: there is none."""
    for name, value in values.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def require_exists(path: Path) -> None:
    """Raise `InputError` where there is no database."""
    if not path.is_file():
        raise InputError(
            say(
                "there is no store at {path}; run a study first, or name another folder "
                "(store=...)",
                path=str(path),
            )
        )


def require_readable(path: Path) -> None:
    """Raise what is wrong with a database that is to be read only.

    Raises:
        InputError: there is none, it may not be read, or it is not MLflow's.
        StoreError: its disk fails.
    """
    require_exists(path)

    def look(how: str) -> None:
        with opened(path, how) as connection:
            require_plain(connection, path)

    try:
        _looked_at(path, look)
    except InputError as error:
        if "immutable" in query(path) or not path.exists():
            raise
        raise InputError(
            f"{path} was left in the middle of a write, which only its owner can finish: "
            f"sgdstudy recover --store {path.parent} ({error.__cause__})"
        ) from error
