"""Asking MLflow: each call to another machine ends in time, each error is one line of ours."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sgdstudy.errors import Away, InputError, Refused, StoreError, without_secrets
from sgdstudy.tracking import address
from sgdstudy.tracking.retry import PLAIN, is_away, reason_of, within

T = TypeVar("T")
OPEN_SECONDS = 10.0  # for the first answer
SILENT_SECONDS = 5.0  # for one that did not answer in time before
SLOW = 100e3  # bytes a second: slower is not waited for
UNKNOWN_SIZE = 100e6
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_silent: set[str] = set()  # stores whose last call took too long


def seconds() -> float:
    """Return the time that a call may take, all in all."""
    return float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "20"))


class Client:
    """MLflow's client of a store.

    A call to another machine has a deadline for the whole of it, with time for the files it takes
    there or fetches. Errors are `Away`, which can pass, or `Refused`; those of this machine's disk
    stay what they are.

    Args:
        client: MLflow's own.
        uri: the store's.
    """

    def __init__(self, client: Any, uri: str) -> None:
        self._client, self._uri, self._sizes = client, uri, dict[tuple[str, str], int]()
        self._places: dict[str, str] = {}  # of the artifacts of the runs that were seen

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        call = functools.partial(self._call, name, getattr(self._client, name))
        setattr(self, name, call)
        return call

    def _call(self, name: str, method: Callable[..., Any], *given: Any, **named: Any) -> Any:
        remote = not self._uri.startswith("sqlite")
        files = remote and name.endswith("_artifacts")
        does = functools.partial(self._reach_files, name) if files else method
        call = functools.partial(does, *given, **named)
        found = ask(self._uri, call, seconds() + self._transfer(name, given))
        if remote:
            _require_real(self._uri, name, found)
            self._remember(name, given, found)
        return found

    def _remember(self, name: str, given: tuple[Any, ...], found: Any) -> None:
        """Keep what later calls need."""
        runs = {"create_run": [found], "get_run": [found], "search_runs": found}.get(name, ())
        self._places |= {run.info.run_id: run.info.artifact_uri for run in runs}
        if name == "list_artifacts":
            self._sizes |= {(given[0], item.path): item.file_size or 0 for item in found}

    def _reach_files(self, name: str, run_id: str, *given: Any, **named: Any) -> Any:
        """Call MLflow's access to a run's artifacts.

        MLflow itself would ask for the run first, and keep for good what one odd answer says: that
        they lie in the present folder, for one.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
        from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

        if not self._places.get(run_id):
            self.get_run(run_id)
        place = add_databricks_profile_info_to_artifact_uri(self._places[run_id], self._uri)
        repository = get_artifact_repository(place, tracking_uri=self._uri)
        return getattr(repository, name)(*given, **named)

    def _transfer(self, name: str, given: tuple[Any, ...]) -> float:
        """Return the seconds that files may take on their way."""
        if name == "log_artifacts":
            size = sum(path.stat().st_size for path in Path(given[1]).rglob("*") if path.is_file())
        elif name == "download_artifacts":
            size = self._sizes.get((given[0], given[1]), int(UNKNOWN_SIZE))
        else:
            return 0.0
        return size / SLOW


def ask(uri: str, call: Callable[[], T], limit: float) -> T:
    """Return what a store answers.

    Args:
        uri: the store's.
        call: asks it.
        limit: in seconds, all in all; a local database has its own.

    Raises:
        Away: it does not answer, or not in time, or what nobody can read.
        Refused: it says no.
    """
    if uri.startswith("sqlite"):
        try:
            return call()
        except Exception as error:
            raise _ours(uri, error) from error
    limit = min(limit, SILENT_SECONDS) if uri in _silent else limit
    try:
        found = within(limit, call)
    except TimeoutError as error:
        _silent.add(uri)
        raise _ours(uri, error) from error
    except Exception as error:
        raise _ours(uri, error) from error
    _silent.discard(uri)
    return found


def first(uri: str, make: Callable[[], T]) -> T:
    """Return MLflow's client: of a database of another machine only once that is reached.

    MLflow tries to connect for minutes, whatever is wrong.

    Raises:
        InputError: there is no driver for it, or it does not answer.
    """
    if uri.startswith("sqlite"):
        return make()
    if uri.startswith("http"):
        if address.is_loopback(uri):
            spare_loopback()
        # whoever sets MLFLOW_TRACKING_INSECURE_TLS knows, and is told once too often otherwise
        warnings.filterwarnings("ignore", "Unverified HTTPS request")
        return make()
    shown = without_secrets(uri, whole=True)
    try:
        return within(OPEN_SECONDS, lambda: _connected(uri, make))
    except InputError:
        raise
    except Exception as error:
        raise Away(f"the store {shown} does not answer ({_without_password(uri, error)})") from None


def check(uri: str, client: Callable[[], Any]) -> None:
    """Ask a server the first question.

    Raises:
        InputError: it does not answer, does not know us, or is not MLflow's.
    """
    shown = without_secrets(uri, whole=True)
    try:
        opened = client()
        ask(uri, lambda: opened._client.search_experiments(max_results=1), OPEN_SECONDS)
    except Refused as error:
        if error.status == 401:
            raise InputError(
                f"the tracking server {shown} does not know you; set MLFLOW_TRACKING_USERNAME and "
                f"MLFLOW_TRACKING_PASSWORD to what its admin gave you"
            ) from None
        raise
    except Away as error:
        raise Away(
            f"{error}; start it, or unset MLFLOW_TRACKING_URI (or leave out --store) to use a "
            f"local store"
        ) from None


def spare_loopback() -> None:
    """Let nothing that is asked of this machine go through a proxy: that would ask its own."""
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        return
    for name in ("no_proxy", "NO_PROXY"):  # the small letters win where both are there
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        if hosts != ["*"]:
            missing = [host for host in address.LOOPBACK if host not in hosts]
            os.environ[name] = ",".join([*hosts, *missing])


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


def _ours(uri: str, error: Exception) -> Exception:
    """Return what an error of MLflow's means, as one of ours."""
    from mlflow.exceptions import MlflowException

    remote, shown = not uri.startswith("sqlite"), without_secrets(uri, whole=True)
    store = f"the {'tracking server' if uri.startswith('http') else 'store'} {shown}"
    reason = _without_password(uri, error)
    if isinstance(error, (InputError, StoreError)):
        return error
    if isinstance(error, ImportError):
        return _without_package(uri, error)
    if is_away(error):
        if reason in PLAIN.values():
            return Away(reason)
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
