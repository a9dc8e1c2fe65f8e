"""Where runs are tracked: an SQLite file beside the artifacts, or an MLflow server."""

from __future__ import annotations

import logging
import math
import os
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, cast

from filelock import FileLock

from sgdstudy import checks
from sgdstudy.errors import InputError, StoreError, quoted, unknown
from sgdstudy.tracking import database
from sgdstudy.tracking.places import OURS, local_path, place_of_run
from sgdstudy.tracking.retry import patiently, reason_of
from sgdstudy.tracking.shared import group_rights, make_folder

# before mlflow is first imported: it reports its use over the network otherwise
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# MLflow repeats any request, even one that makes a run, and holds the training up for minutes;
# what could not be sent is kept and sent again by our own `journal`
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
SCHEMES = ("http", "https", "sqlite", "file", "postgresql", "mysql", "mssql", "databricks")
SERVER_SECONDS = 5.0
LOCK_SECONDS = 20.0
EXPERIMENT_SECONDS = 1.0  # a sweep makes dozens of runs a second


@dataclass(frozen=True)
class Store:
    """A place that runs are tracked to.

    Attributes:
        uri: MLflow's tracking URI.
        root: the local folder of database and artifacts; None for a server.
        reads: whether a local one is opened for reading only.
    """

    uri: str
    root: Path | None
    reads: bool = False

    @property
    def shown(self) -> str:
        """The URI for people and files: without a password."""
        return re.sub(r"//[^/@]*@", "//", self.uri)

    @property
    def database(self) -> Path | None:
        """The file of a local store's database; None for a server."""
        return None if self.root is None else Path(self.uri.removeprefix("sqlite:///"))

    def is_called(self, uri: str) -> bool:
        """Whether a URI, as `shown` once wrote it, is of this store, wherever it lay then."""
        if self.database is None:
            return uri == self.shown
        return uri.startswith("sqlite:") and Path(uri).name == self.database.name

    def place(self, run_id: str, uri: str) -> Path | None:
        """Return the folder of a run's artifacts in a local store; None: MLflow takes them there.

        Args:
            run_id: MLflow's id.
            uri: where MLflow says the artifacts are.

        Raises:
            InputError: they are not in a folder of the run's own; see `places.place_of_run`.
        """
        recorded = local_path(uri)
        if self.root is None or recorded is None:
            return None
        return place_of_run(self.root, run_id, recorded)

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client for this store.

        Raises:
            InputError: a database of an older or a newer MLflow.
        """
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        logging.getLogger("alembic").setLevel(logging.WARNING)
        # it prints a traceback of what we say in one line
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        if self.reads and self.database is not None:
            return cast("MlflowClient", database.Reader(self.database))
        try:
            return MlflowClient(tracking_uri=self.uri)
        except MlflowException as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> Exception:
        """Say in one line what is wrong with a database's schema."""
        import mlflow.store.db_migrations

        found = re.search(r"found version (\w+)", str(error))
        if found is None:
            return error
        versions = Path(mlflow.store.db_migrations.__path__[0]) / "versions"
        if any(versions.glob(f"{found[1]}_*")):
            return InputError(
                f"{self.shown} was made by an older MLflow; make a copy of it, then run: "
                f"mlflow db upgrade {self.shown}"
            )
        return InputError(
            f"{self.shown} was made by a newer MLflow than {version('mlflow')}; "
            f"upgrade mlflow, or give another folder with --store"
        )

    @property
    def streams(self) -> Path:
        """Local folder of the runs that are going on, or not sent yet; see `journal`."""
        return (self.root or _state_folder()) / "streams"

    @property
    def server(self) -> str:
        """Address of the UI: the server's own, or the one `sgdstudy ui` starts by default."""
        return self.shown.rstrip("/") if self.root is None else "http://127.0.0.1:5000"

    def experiment_name(self, study: str) -> str:
        """Name of a study's experiment; `SGDSTUDY_PREFIX` prefixes it on a shared server.

        Raises:
            InputError: no text, or a prefix that no folder can have.
        """
        if not isinstance(study, str):
            raise InputError(f"study is a name, not {quoted(study)}")
        prefix = os.environ.get("SGDSTUDY_PREFIX", "")
        if prefix:
            checks.folder_name("SGDSTUDY_PREFIX, before the study's name,", prefix + study)
        return prefix + study

    @cached_property
    def _experiments(self) -> dict[str, tuple[str, float]]:
        return {}  # by name: its id, and when that was looked up

    def experiment(self, study: str) -> str:
        """Return the id of a study's experiment, made on first use."""
        name = self.experiment_name(study)
        known, looked_up = self._experiments.get(name, ("", -math.inf))
        if time.monotonic() - looked_up > EXPERIMENT_SECONDS:
            known = self._experiment(name)
            self._experiments[name] = known, time.monotonic()
        return known

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            if self.root is not None:
                checks.folder_name("the experiment", name)
            # absolute, so that scripts agree wherever they are started from
            location = None if self.root is None else (self.root / OURS / name).as_uri()
            try:
                return self.client.create_experiment(name, artifact_location=location)
            except MlflowException:  # another process was faster
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return found.experiment_id


def locate(given: str | None = None) -> Store:
    """Return the store: `MLFLOW_TRACKING_URI`, else `given`, else the nearest `mlruns/`.

    Args:
        given: a folder for database and artifacts, or a tracking URI.

    Raises:
        InputError: a kind of URI that cannot be used.
    """
    choice = os.environ.get("MLFLOW_TRACKING_URI") or given
    if not isinstance(choice, (str, Path, type(None))):
        raise InputError(f"the store is a folder or a tracking URI, not {quoted(choice)}")
    choice = str(choice) if isinstance(choice, Path) else choice
    if choice in ("sqlite://", "sqlite:///"):
        raise InputError(
            "sqlite:// alone is a database in memory, lost at once; give sqlite:///file"
        )
    if choice and choice.startswith("sqlite:///"):
        path = Path(choice.removeprefix("sqlite:///")).resolve()
        return Store(f"sqlite:///{path.as_posix()}", path.parent)
    if choice and "://" in choice and not choice.startswith("file:"):
        scheme = choice.split(":")[0].split("+")[0]
        if scheme not in SCHEMES:
            raise unknown("kind of store", scheme, SCHEMES)
        return Store(choice, None)
    if choice:
        root = checks.path("the store", choice.removeprefix("file://")).resolve()
    else:
        here = Path.cwd()
        near = [p / "mlruns" for p in (here, *here.parents) if (p / "mlruns").is_dir()]
        root = near[0] if near else here / "mlruns"
    return Store(f"sqlite:///{(root / DATABASE).as_posix()}", root)


def open_store(given: str | None = None, make: bool = True) -> Store:
    """Locate the store and make it ready to be written: database made, server answering.

    A local one that was moved or copied is told so; see `database.rebase`.

    Args:
        given: see `locate`.
        make: whether one that does not exist is made.

    Raises:
        InputError: there is none, a folder that cannot be written, a file that is no database, a
            server that does not answer.
        StoreError: the disk is full.
    """
    store = locate(given)
    path = store.database
    if store.root is None or path is None:
        _check_server(store)
        return store
    if not make:
        database.require_exists(path)
    for folder in (store.streams, store.root / OURS):
        if folder.is_symlink():
            raise InputError(
                f"{folder} is a symbolic link: what is in a store lies below its folder, which may "
                f"be a link itself; move the files that this one leads to here"
            )
    lock = store.root / ".lock"
    try:
        make_folder(store.root)
        database.require_writable(path, lock, store.streams)
        with FileLock(lock, mode=0o644 | (0o020 & group_rights(store.root))):
            if not path.exists():
                database.make(path)
    except OSError as error:
        if database.is_full(store.root):
            raise StoreError(
                f"the disk that {store.root} is on is full; free some space"
            ) from error
        reason = error.strerror or error
        raise InputError(
            f"the store {store.root} cannot be written ({reason}); "
            f"give another folder with --store, or mend its permissions"
        ) from error
    try:
        patiently(lambda: database.rebase(path), LOCK_SECONDS)
    except TimeoutError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return store


def read_store(given: str | None = None) -> Store:
    """Locate a store that is there, to be read only: nothing is made, changed or locked.

    Raises:
        InputError: there is none, it may not be read, a server that does not answer.
    """
    store = locate(given)
    if store.database is None:
        _check_server(store)
        return store
    database.require_readable(store.database)
    return replace(store, reads=True)


def _check_server(store: Store) -> None:
    uri = store.uri
    if not uri.startswith(("http://", "https://")):
        return
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=SERVER_SECONDS):
            pass
    except urllib.error.HTTPError:  # it answers, whatever it thinks of /health
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise InputError(
            f"the tracking server {store.shown} does not answer ({reason}); "
            f"start it, or unset MLFLOW_TRACKING_URI to use a local store"
        ) from error
    _check_access(store)


def _check_access(store: Store) -> None:
    """Ask for what needs a name and a password; /health needs none."""
    from mlflow.exceptions import MlflowException

    try:
        store.client.search_experiments(max_results=1)
    except MlflowException as error:
        code = error.get_http_status_code()
        if code == 401:
            raise InputError(
                f"the tracking server {store.shown} does not know you; set "
                f"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to what its admin gave you"
            ) from None
        if code == 403:
            raise InputError(
                f"the tracking server {store.shown} refuses to answer: {reason_of(error)}"
            ) from None


def _state_folder() -> Path:
    """Return where this user's programs keep what must outlive them."""
    given = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(given) if given else Path.home() / ".local" / "state") / "sgdstudy"
