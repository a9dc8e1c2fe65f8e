"""Asking MLflow: each call to another machine ends in time, each error is one line of ours."""

from __future__ import annotations

import functools
import logging
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from sgdstudy.errors import (
    Away,
    InputError,
    Refused,
    StoreError,
    one_line,
    quoted,
    shortage,
    shortened,
)
from sgdstudy.language import say, to_say
from sgdstudy.secrecy import without_secrets
from sgdstudy.tracking import address, bounds
from sgdstudy.tracking.places import is_own, local_path
from sgdstudy.tracking.retry import PLAIN, is_away, patiently, reason_of, within

log = logging.getLogger("sgdstudy")
T = TypeVar("T")
DAY = 86_400
SECONDS = 20  # for a call, where `MLFLOW_HTTP_REQUEST_TIMEOUT` does not say it
OPEN_SECONDS = 10.0  # for the first answer
FIRST_SECONDS = 1.0  # in which a first answer that is an error may be followed by a better one
SILENT_SECONDS = 5.0  # for one that did not answer in time before
SLOW = 100e3  # bytes a second: slower is not waited for
MOST_SECONDS = 3600.0  # for a file, however large
UNKNOWN_SIZE = 100_000_000
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_silent: set[str] = set()  # stores whose last call took too long


def seconds() -> float:
    """Return the time that a call to another machine may take, all in all.

    Raises:
        InputError: `MLFLOW_HTTP_REQUEST_TIMEOUT` is nothing that MLflow can read, or no such time.
    """
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT as variable

    if not variable.get_raw():  # MLflow reads it too, and fails at an empty one
        variable.set(SECONDS)
    try:
        found = float(variable.get())
    except ValueError:
        found = 0.0
    if not 0 < found <= DAY:
        text = to_say("{variable} is a whole number of seconds from 1 to {most}, not {given}")
        given = quoted(variable.get_raw())
        raise InputError(say(text, variable=variable.name, most=DAY, given=given))
    return found


def require_settings() -> None:
    """Raise `InputError` where MLflow can make nothing of what says how it reaches a server.

    An empty one counts as not set, for MLflow too: it would check no certificate, for one.
    """
    from mlflow.environment_variables import (
        MLFLOW_TRACKING_AWS_SIGV4,
        MLFLOW_TRACKING_CLIENT_CERT_PATH,
        MLFLOW_TRACKING_INSECURE_TLS,
        MLFLOW_TRACKING_SERVER_CERT_PATH,
    )

    flags = (MLFLOW_TRACKING_AWS_SIGV4, MLFLOW_TRACKING_INSECURE_TLS)
    for variable in (*flags, MLFLOW_TRACKING_CLIENT_CERT_PATH, MLFLOW_TRACKING_SERVER_CERT_PATH):
        if not (variable.get_raw() or "").strip():
            variable.unset()
    for variable in flags:
        try:
            variable.get()
        except ValueError:
            text = to_say("{variable} is true or false, not {given}")
            given = quoted(variable.get_raw())
            raise InputError(say(text, variable=variable.name, given=given)) from None


class Client:
    """MLflow's client of a store.

    A call to another machine has a deadline for the whole of it, with time for the files it takes
    there or fetches, and reads so many bytes at the most (see `bounds`). Errors are `Away`, which
    can pass, or `Refused`; those of this machine's disk stay what they are.

    Args:
        client: MLflow's own.
        uri: the store's.
    """

    def __init__(self, client: Any, uri: str) -> None:
        self._client, self._uri, self._sizes = client, uri, dict[tuple[str, str], int]()
        self._places: dict[str, str] = {}  # run id -> where its artifacts are

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        call = functools.partial(self._call, name, getattr(self._client, name))
        setattr(self, name, call)
        return call

    def _call(self, name: str, method: Callable[..., Any], *given: Any, **named: Any) -> Any:
        remote = not self._uri.startswith("sqlite")
        if name.endswith("_artifacts"):
            return self._reach(name, given, named)
        call = functools.partial(method, *given, **named)
        found = ask(self._uri, call, seconds() if remote else math.inf)
        if remote:
            _require_real(self._uri, name, found)
            self._remember(name, given, found)
        return found

    def _reach(self, name: str, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Fetch, bring or list files of a run, which lie on another machine.

        Raises:
            InputError: they cannot be reached; of a local store that is the fault of this one run.
        """
        call = functools.partial(self._reach_files, name, *given, **named)
        size = self._size(name, given)
        limit = seconds() + min(size / SLOW, MOST_SECONDS)
        fetched = size if name == "download_artifacts" else 0
        local = self._uri.startswith("sqlite")
        try:
            uri = self._place_of(given[0]) if local else self._uri
            found = ask(uri, call, limit, bounds.MOST_ANSWER + fetched)
        except Away as error:
            if not local:
                raise
            raise InputError(f"the files of run {given[0]} cannot be reached: {error}") from error
        self._remember(name, given, found)
        return found

    def _place_of(self, run_id: str) -> str:
        """Return where a run's files are."""
        if not self._places.get(run_id):
            self._remember("get_run", (run_id,), self.get_run(run_id))
        return self._places[run_id]

    def _remember(self, name: str, given: tuple[Any, ...], found: Any) -> None:
        """Keep what later calls need."""
        runs = {"create_run": [found], "get_run": [found], "search_runs": found}.get(name, ())
        self._places |= {run.info.run_id: run.info.artifact_uri for run in runs}
        if name == "list_artifacts":
            sizes = {item.path: item.file_size for item in found if item.file_size is not None}
            self._sizes |= {(given[0], path): size for path, size in sizes.items()}

    def _reach_files(self, name: str, run_id: str, *given: Any, **named: Any) -> Any:
        """Call MLflow's access to a run's artifacts.

        MLflow itself would ask for the run first, and keep for good what one odd answer says: that
        they lie in the present folder, for one.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
        from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

        place = self._place_of(run_id)
        _require_own(run_id, place)
        bounds.begin()  # they may be on a server where the runs are not
        require_settings()
        if place.startswith("s3:"):
            _spare_waits()
        place = add_databricks_profile_info_to_artifact_uri(place, self._uri)
        repository = get_artifact_repository(place, tracking_uri=self._uri)
        repository.thread_pool = bounds.Pool(1)
        return getattr(repository, name)(*given, **named)

    def _size(self, name: str, given: tuple[Any, ...]) -> int:
        """Return the bytes of the files that are taken there, or fetched.

        Raises:
            InputError: this machine has no room for them.
        """
        if name == "log_artifacts":
            files = (path for path in Path(given[1]).rglob("*") if path.is_file())
            return sum(path.stat().st_size for path in files)
        if name != "download_artifacts":
            return 0
        size = self._sizes.get((given[0], given[1]), UNKNOWN_SIZE)
        folder = given[2] if len(given) > 2 and given[2] else tempfile.gettempdir()
        if size > shutil.disk_usage(folder).free:
            raise InputError(
                f"{given[1]} of the run {given[0]} has {size / 1e6:,.0f} MB; there is no room for "
                f"that in {folder}"
            )
        return size


def ask(uri: str, call: Callable[[], T], limit: float, most: int | None = None) -> T:
    """Return what a store answers.

    Args:
        uri: the store's.
        call: asks it.
        limit: in seconds, all in all; a local database has its own.
        most: bytes that are read of a server; None: as many as an answer may have.

    Raises:
        Away: it does not answer, or not in time, or what nobody can read.
        TooLong: it answers with more.
        Refused: it says no.
    """
    if uri.startswith("sqlite"):
        try:
            return call()
        except Exception as error:
            raise _as_our_error(uri, error) from error
    limit = min(limit, SILENT_SECONDS) if uri in _silent else limit
    with bounds.at_most(bounds.MOST_ANSWER if most is None else most) as reading:
        try:
            found = within(limit, call)
        except TimeoutError as error:
            _silent.add(uri)
            raise _as_our_error(uri, error) from error
        except Exception as error:
            ours = _as_our_error(uri, reading.excess or error)
            if reading.redirect and type(ours) is Away and not shortage(error):
                ours = _redirected(uri, reading.redirect)
            raise ours from error
    _silent.discard(uri)
    return found


def first(uri: str, make: Callable[[], T]) -> T:
    """Return MLflow's client: of a database of another machine only once that is reached.

    MLflow tries to connect for minutes, whatever is wrong.

    Raises:
        InputError: there is no driver for it, or it does not answer.
    """
    if uri.startswith("sqlite"):
        try:
            return make()
        except Exception as error:
            if reason_of(error) in PLAIN.values():
                raise _as_our_error(uri, error) from error
            raise
    if uri.startswith("http"):
        if address.is_loopback(uri):
            spare_loopback(urlsplit(uri).hostname or "")
        bounds.begin()
        # whoever sets MLFLOW_TRACKING_INSECURE_TLS knows, and is told once too often otherwise
        warnings.filterwarnings("ignore", "Unverified HTTPS request")
        made = make()
        for handler in logging.getLogger("mlflow").handlers:
            handler.addFilter(_is_shown)  # adding the same filter again changes nothing
        return made
    shown = without_secrets(uri, whole=True)
    try:
        return within(OPEN_SECONDS, lambda: _connected(uri, make))
    except InputError:
        raise
    except Exception as error:
        raise Away(f"the store {shown} does not answer ({_without_password(uri, error)})") from None


def _is_shown(record: logging.LogRecord) -> bool:
    """Whether a line of MLflow's is shown, then without what acts on a terminal.

    What it warns of as it makes an error of an answer is in the error, which we say.
    """
    record.msg, record.args = one_line(record.getMessage()), None
    return record.name != "mlflow.exceptions"


def check(uri: str, client: Callable[[], Any]) -> None:
    """Ask a server the first question.

    Raises:
        InputError: it does not answer, does not know us, or is not MLflow's; see `seconds` too.
    """
    shown = without_secrets(uri, whole=True)
    seconds()  # MLflow would fail at it
    require_settings()
    if uri.startswith("http"):
        _say_of_login(os.environ.get("MLFLOW_TRACKING_AUTH", ""))
    try:
        opened = client()
        look = functools.partial(opened._client.search_experiments, max_results=1)
        patiently(lambda: ask(uri, look, OPEN_SECONDS), FIRST_SECONDS)
    except Refused as error:
        if error.status == 401:
            raise InputError(
                f"the tracking server {shown} does not know you; set MLFLOW_TRACKING_USERNAME and "
                f"MLFLOW_TRACKING_PASSWORD to what its admin gave you"
            ) from None
        raise
    except Away as error:
        mend = "start it, or " if "does not answer (" in str(error) else ""
        raise Away(
            f"{error}; {mend}unset MLFLOW_TRACKING_URI (or leave out --store) to use a local store"
        ) from None


@functools.cache
def _say_of_login(name: str) -> None:
    """Say, once, that no plugin of MLflow's has the name that the environment gives."""
    from mlflow.tracking.request_auth import registry

    # of which MLflow warns at call after call
    warnings.filterwarnings("ignore", "Could not find any registered plugin for")
    if name and name not in {each.get_name() for each in registry._request_auth_provider_registry}:
        text = to_say("MLFLOW_TRACKING_AUTH names no plugin that is here, {name}; it is left out")
        log.warning("%s", say(text, name=quoted(name)))


def spare_loopback(host: str = "") -> None:
    """Let nothing that is asked of this machine go through a proxy: that would ask its own.

    Args:
        host: another name of it.
    """
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        return
    for name in ("no_proxy", "NO_PROXY"):  # the small letters win where both are there
        hosts = [given for given in os.environ.get(name, "").split(",") if given]
        if hosts != ["*"]:
            names = dict.fromkeys([*address.LOOPBACK, host])
            missing = [name for name in names if name and name not in hosts]
            os.environ[name] = ",".join([*hosts, *missing])


def _spare_waits() -> None:
    """Let boto3 give up when we do: else its threads keep the program from ending, for minutes.

    A program that has a session of its own knows what it wants.
    """
    try:
        import boto3
        import botocore.session
        from botocore.config import Config
    except ImportError:  # said where it is asked for
        return
    if boto3.DEFAULT_SESSION is None:
        session = botocore.session.get_session()
        limits = {"connect_timeout": seconds(), "read_timeout": seconds()}
        session.set_default_client_config(Config(**limits, retries={"total_max_attempts": 1}))
        boto3.setup_default_session(botocore_session=session)


def _connected(uri: str, make: Callable[[], T]) -> T:
    """Connect to a database once, then return MLflow's client."""
    if uri.startswith("databricks"):
        return make()
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(uri)
        engine.connect().close()
        engine.dispose()
    except (ModuleNotFoundError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise _without_package(uri, error) from None
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        raise InputError(f"the store is not an address of a database: {error}") from None
    return make()


def _as_our_error(uri: str, error: Exception) -> Exception:
    """Return what an error of MLflow's means, as one of ours."""
    from mlflow.exceptions import MlflowException

    remote, shown = not uri.startswith("sqlite"), without_secrets(uri, whole=True)
    store = f"the {'tracking server' if uri.startswith('http') else 'store'} {shown}"
    reason = _without_password(uri, error)
    if isinstance(error, bounds.TooLong):
        return bounds.TooLong(f"{store} {reason.removeprefix('it ')}")
    if isinstance(error, (InputError, StoreError)):
        return error
    if isinstance(error, ImportError):
        return _without_package(uri, error)
    if reason in PLAIN.values() or shortage(error):
        return Away(reason)
    if (
        getattr(error, "error_code", "") == "INTERNAL_ERROR" and not remote
    ):  # asked again it would fail again
        return Refused(f"{store} holds what MLflow cannot read ({reason})")
    if is_away(error):
        answers = reason.removeprefix("it ")  # "it answers with error 500"
        return Away(
            f"{store} {answers}"
            if answers.startswith("answers ")
            else f"{store} does not answer ({reason})"
        )
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
        return Refused(f"{store} refuses to answer: {reason}", status, error.error_code)
    if isinstance(error, UnicodeError):
        return Refused(f"{store} cannot keep a text that is not UTF-8: {reason}")
    if remote and not (isinstance(error, OSError) and error.errno):
        # neither a refusal nor this machine's disk: MLflow could make nothing of the answer
        return Away(f"{store} does not answer as MLflow does ({type(error).__name__}: {reason})")
    return error


def _redirected(uri: str, to: str) -> Away:
    """Build the error for a server that sends us on to where MLflow is not."""
    here, there = urlsplit(uri), urlsplit(to)
    path = there.path.partition(";")[0]
    place = there._replace(path=path, query="", fragment="")  # the others may hold a secret
    if (here.scheme, here.netloc) == (there.scheme, there.netloc):
        place = place._replace(scheme="", netloc="")
    return Away(
        f"the tracking server {without_secrets(uri, whole=True)} answers with a redirect to "
        f"{shortened(without_secrets(place.geturl(), whole=True))}, where MLflow is not; give the "
        f"address where it is, or set MLFLOW_TRACKING_TOKEN if that is a login"
    )


def _without_package(uri: str, error: Exception) -> InputError:
    shown = without_secrets(uri, whole=True)
    name = getattr(error, "name", None)
    name = {"botocore": "boto3"}.get(name or "", name)  # it comes with boto3
    return Refused(
        f"{shown} needs a package that is not installed here ({name or reason_of(error)}): install "
        f"it, or name another driver in the address, as postgresql+psycopg://..."
        if not uri.startswith("http")
        else f"what {shown} keeps lies where this machine needs a package to reach it: "
        f"pip install {name or reason_of(error)}"
    )


def _without_password(uri: str, error: BaseException) -> str:
    """Return what went wrong; drivers may show the password on its own."""
    reason, secret = reason_of(error), address.password(uri)
    return reason.replace(secret, "...") if secret else reason


def _require_own(run_id: str, uri: str) -> None:
    """Refuse a folder of this machine that is not a run's own: a server may name any.

    Those that share a disk with their server have one.
    """
    place = local_path(uri)
    if place is not None and (not is_own(run_id, place) or ".." in place.parts):
        raise InputError(f"run {run_id} says that its files are in {place}, which is not its own")


def _require_real(uri: str, name: str, found: Any) -> None:
    """Refuse an answer without the id that was asked for: it is another program's."""
    if name == "create_experiment":
        there = bool(found)
    elif name in ("create_run", "get_run"):
        there = bool(found.info.run_id and found.info.artifact_uri)
    elif name in ("get_experiment", "get_experiment_by_name"):
        there = found is None or bool(found.experiment_id)
    else:
        return
    if not there:
        shown = without_secrets(uri, whole=True)
        raise Away(f"the tracking server {shown} does not answer as MLflow does (no id)")
