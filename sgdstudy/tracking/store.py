"""Where runs are tracked: an SQLite file beside the artifacts, or an MLflow server."""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import stat
import sys
import time
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from filelock import FileLock

from sgdstudy import checks
from sgdstudy.errors import Away, InputError, Refused, StoreError, quoted, shortened
from sgdstudy.history.shared import group_rights, make_folder
from sgdstudy.language import say, to_say
from sgdstudy.secrecy import without_secrets
from sgdstudy.tracking import address, database, read_only, server
from sgdstudy.tracking.places import FOLDERS, OURS, local_path, place_of_experiment, place_of_run
from sgdstudy.tracking.retry import patiently

# before mlflow is first imported: it reports its use over the network otherwise
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# MLflow repeats any request, even one that makes a run, and holds the training up for minutes;
# what could not be sent is kept and sent again by our own `journal`
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
# files come from the server that was asked, not from addresses of any machine that it names
os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false")
# it makes docstrings out of others, and `python -OO` has none
warnings.filterwarnings("ignore", "Failed to register a dataset source", UserWarning)

if TYPE_CHECKING:
    from mlflow import MlflowClient

ENVIRONMENT = "MLFLOW_TRACKING_URI"
LOCK = ".lock"  # held while a database is made
EXPERIMENT_SECONDS = 1.0  # an id is trusted so long: a sweep makes dozens of runs a second
log = logging.getLogger("sgdstudy")


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
        return without_secrets(self.uri, whole=True)

    @property
    def database(self) -> Path | None:
        """The file of a local store's database; None for a server."""
        return None if self.root is None else address.sqlite_path(self.uri)

    def owns(self, uri: str, key: str) -> bool:
        """Whether a run that lies in `streams`, or aside, is of this store.

        A local one's database may have another name by now: then the run is its own if it has it,
        or if no other database lies there.

        Args:
            uri: of its store, as `shown` once wrote it, in whatever spelling.
            key: the run's.
        """
        identity, path = address.identity(uri), self.database
        if path is None or identity == address.identity(self.shown):
            return identity == address.identity(self.shown)
        if not identity.startswith("sqlite:"):
            return False
        others = {file.name for file in address.databases_in(path.parent)} - {path.name}
        named = address.sqlite_path(uri).name in others
        return not named and (not others or database.has_run(path, key))

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
    def _named(self) -> tuple[Any, Any]:
        """Which database a local store had when it was opened; see `database.named`."""
        return (None, None) if self.database is None else database.named(self.database)

    def is_there(self) -> bool:
        """Whether a local store's database is the file that it was when it was opened.

        In a few microseconds; what was copied over it in place only `require_same` tells.
        """
        return self.database is None or database.which(self.database) == self._named[0]

    def require_same(self) -> None:
        """Raise `Away` where a local store's database is another one now than when it was opened.

        SQLite would go on with the one that nobody finds any more, or write into the other.
        """
        if self.database is None:
            return
        for pause in (0, 0.05, 0.2):  # another process may be writing what we look at
            time.sleep(pause)
            file, born = database.named(self.database)
            # while another process writes on a full disk, no single file can be read
            if file == self._named[0] and (born == self._named[1] or born is None):
                return
        raise Away(f"{self.database} was moved, deleted or replaced while it was in use")

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client for this store, whose every call ends in time; see `server.Client`.

        Raises:
            InputError: a database of an older or a newer MLflow.
        """
        from mlflow.exceptions import MlflowException

        logging.getLogger("alembic").setLevel(logging.WARNING)
        # its loggers print tracebacks where we say one line
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        self._named  # noqa: B018  from now on
        try:
            made: Any = server.first(self.uri, self._mlflow_client)
        except MlflowException as error:
            raise self._explained(error) from error
        return cast("MlflowClient", server.Client(made, self.uri))

    def _mlflow_client(self) -> Any:
        if not self.uri.startswith("http"):
            database.imported()
        from mlflow import MlflowClient

        if self.database is None:
            return MlflowClient(tracking_uri=self.uri)
        if self.reads:
            return read_only.Reader(self.database)
        return database.client(self.uri, self.database)

    def _explained(self, error: Exception) -> Exception:
        """Say in one line what is wrong with a database, or its schema."""
        import mlflow.store.db_migrations

        found = re.search(r"found version (\w+)", str(error))
        if found is None:
            behind = database.explained(self.database, error) if self.database else None
            return behind or error
        versions = Path(mlflow.store.db_migrations.__path__[0]) / "versions"
        if any(versions.glob(f"{found[1]}_*")):
            text = to_say(
                "{store} was made by an older MLflow; make a copy of it, then run: "
                "mlflow db upgrade {store}"
            )
            return InputError(say(text, store=self.shown))
        text = to_say(
            "{store} was made by a newer MLflow than {version}; upgrade mlflow, or give another "
            "folder with --store"
        )
        return InputError(say(text, store=self.shown, version=version("mlflow")))

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
        found = self.client.get_experiment_by_name(name)
        if found is None:
            if self.root is not None:
                checks.folder_name("the experiment", name)
            # absolute, so that scripts agree wherever they are started from
            location = None if self.root is None else (self.root / OURS / name).as_uri()
            try:
                return self.client.create_experiment(name, artifact_location=location)
            except Refused:  # another process was faster
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        self.require_within(found)
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
            text = to_say("{name} was deleted in MLflow; it is restored, with the runs it had")
            log.warning("%s", say(text, name=name))
        return found.experiment_id

    def require_within(self, experiment: Any) -> None:
        """Raise `InputError` where a local store cannot take files to an experiment of MLflow's."""
        name, location = experiment.name, experiment.artifact_location
        if not isinstance(location, str):  # a database may hold anything
            raise Refused(f"{self.shown} does not say where the files of {shortened(name)} are")
        place = local_path(location)
        served = location.startswith("mlflow-artifacts:")  # by a server only
        if self.root is None:
            return
        # told anew each time: it may name the place as another user sees it, or another container
        within = place is not None and place_of_experiment(self.root, name, place) is not None
        if served if place is None else not within:
            raise InputError(
                f"the experiment {shortened(name)} of {self.root} keeps its files elsewhere, in "
                f"{without_secrets(location)}; rename it in MLflow, or give another folder with "
                f"--store"
            )


def locate(given: str | Path | None = None) -> Store:
    """Return the store: `given`, else `MLFLOW_TRACKING_URI`, else the nearest `mlruns/`.

    Args:
        given: a folder for database and artifacts, or a tracking URI; see `address.parse`.

    Raises:
        InputError: what is neither, or a kind of URI that cannot be used.
    """
    if not isinstance(given, (str, Path, type(None))):
        raise InputError(f"the store is a folder or a tracking URI, not {quoted(given)}")
    if isinstance(given, Path):  # a path is a folder, even one called localhost:5000
        given = str(given.expanduser().absolute())
    choice = (_from_environment() or _nearest()) if given is None else given
    uri, file = address.parse(choice)
    return Store(uri, None if file is None else file.parent)


def _from_environment() -> str | None:
    """Return what the environment says, not what `mlflow.set_tracking_uri` put into it."""
    said = os.environ.get(ENVIRONMENT)
    module = sys.modules.get("mlflow.tracking._tracking_service.utils")
    if not said or said != getattr(module, "_tracking_uri", None):
        return said
    try:  # what this process began with
        words = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:  # not Linux: it cannot be told
        return said
    prefix = f"{ENVIRONMENT}=".encode()
    found = [os.fsdecode(word.removeprefix(prefix)) for word in words if word.startswith(prefix)]
    return found[0] if found else None


def _nearest() -> str:
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise InputError(
            "the folder that you are in was deleted; change to another one, or give --store"
        ) from None
    found = next((p for p in (here, *here.parents) if (p / "mlruns").is_dir()), here)
    return str(found / "mlruns")


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
        server.check(store.uri, lambda: store.client)
        _require_state(store)
        return store
    _require_own(store.root, path)
    database.require_settings(store.uri)
    if not make:
        read_only.require_exists(path)
    lock = store.root / LOCK
    try:
        make_folder(store.root)
        database.let_go(store.uri, path)
        database.require_writable(path, lock, store.streams)
        database.require_one_name(path)
        with FileLock(lock, mode=0o644 | (0o020 & group_rights(store.root))):
            if not path.exists():
                database.make(path)
    except OSError as error:
        if database.is_full(store.root):
            raise StoreError(
                f"the disk that {store.root} is on is full; free some space"
            ) from error
        reason = error.strerror or error
        text = to_say(
            "the store {folder} cannot be written ({why}); give another folder with --store, or "
            "mend its permissions"
        )
        raise InputError(say(text, folder=str(store.root), why=str(reason))) from error
    try:
        patiently(lambda: database.rebase(path), database.LOCK_SECONDS)
    except TimeoutError as error:
        raise InputError(f"{path} cannot be told where it is now: {error}") from error
    return store


def read_store(given: str | None = None) -> Store:
    """Locate a store that is there, to be read only: nothing is made, changed or locked.

    Raises:
        InputError: there is none, it may not be read, a server that does not answer.
    """
    store = locate(given)
    if store.database is None:
        server.check(store.uri, lambda: store.client)
        return store
    _require_own(store.database.parent, store.database)
    database.require_settings(store.uri)
    read_only.require_readable(store.database)
    return replace(store, reads=True)


def _require_own(root: Path, path: Path) -> None:
    """Raise `InputError` where a file or a folder of a store is elsewhere, or is none."""
    if root.is_dir() and not os.access(root, os.X_OK):
        raise InputError(
            f"the store {root} is not open to you (it is {database.owner(root)}'s, "
            f"{stat.filemode(root.stat().st_mode)}); {database.mend(root)}"
        )
    files = [path, *database.names_beside(path), root / LOCK]
    for found in (*files, *(root / name for name in FOLDERS)):
        if found.is_symlink():
            raise InputError(
                f"{found} is a symbolic link: what is in a store lies in its folder, which may be "
                f"a link itself; move here what this one leads to"
            )
        if found.exists() and not (found.is_file() if found in files else found.is_dir()):
            raise InputError(
                f"{found} is not a {'file' if found in files else 'folder'}, as it is in a store; "
                f"move it away, or give another folder with --store"
            )


def _state_folder() -> Path:
    """Return where this user's programs keep what must outlive them."""
    return _state()[1] / "sgdstudy"


def _state() -> tuple[str, Path]:
    """Return the variable that says where programs keep their state, and the folder.

    One that is not absolute is ignored, as the standard of the XDG wants it.

    Raises:
        InputError: a home folder that nobody knows.
    """
    for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        given = os.environ.get(name)
        folder = checks.path(name, given) if given else Path()
        if folder.is_absolute():
            return name, folder
    return "HOME", checks.path("HOME", "~/.local/state")


def _require_state(store: Store) -> None:
    """Make the folder that a server's runs lie in until it has them.

    Raises:
        InputError: it cannot be made, or written.
    """
    name, _ = _state()
    try:
        make_folder(store.streams)
        for folder in (store.streams.parent, store.streams):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        text = to_say(
            "{folder}, where {variable} puts what a server has not got yet, cannot be written "
            "({why}); set {variable} to another folder"
        )
        given = {"folder": str(store.streams), "variable": name, "why": str(error.strerror)}
        raise InputError(say(text, **given)) from error
