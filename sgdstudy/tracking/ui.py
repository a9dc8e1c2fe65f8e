"""MLflow's own UI on our store."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import requests

from sgdstudy.errors import InputError, StoreError
from sgdstudy.language import VARIABLE, language, to_say
from sgdstudy.language import say as in_words
from sgdstudy.tracking import app, chart_views, read_only, recovery, watched
from sgdstudy.tracking.runs import every_experiment
from sgdstudy.tracking.store import Store, locate, read_store
from sgdstudy.training.interrupts import STOP_SIGNALS

START_SECONDS = 60.0
QUIET = {  # of the server's environment; job execution is not used, and costs over a gigabyte
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONWARNINGS": "ignore",
}


def serve(given: str | None, port: int, say: Callable[[str], None], browse: bool = False) -> int:
    """Start the server on loopback, print its first page and each study's, and wait for Ctrl-C.

    With `browse`, the first page is opened in a browser.

    Raises:
        InputError: a port that is not one, or a server that does not start.
    """
    store = _opened(given, say)
    if store.root is None and not store.uri.startswith("http"):
        text = to_say(
            "{store} is a database, which has no charts; start mlflow server on it, as "
            "docs/server.md shows, and give its address"
        )
        raise InputError(in_words(text, store=store.shown))
    if store.root is None:
        _show_addresses(store, store.server, say, browse)
        return 0
    if not 1 <= port <= 65535:
        raise InputError(in_words("port is a number from 1 to 65535, got {port}", port=str(port)))
    for number in STOP_SIGNALS:  # also where a shell that started us had them ignored
        signal.signal(number, signal.default_int_handler)
    try:
        with _served(store, port, say) as (address, process):
            _show_addresses(store, address, say, browse)
            say(in_words("Ctrl-C stops the server."))
            return process.wait()
    except KeyboardInterrupt:
        say(in_words("stopped"))
        return 0


@contextmanager
def _served(
    store: Store, port: int, say: Callable[[str], None]
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a server on the first port that it gets; it ends with the block, or with us."""
    first = port
    while True:
        free = _free_port(first)
        if free != port:
            say(in_words("port {port} is taken, using {free}", port=str(port), free=str(free)))
        say(in_words("starting MLflow on {store} ...", store=store.shown))
        watcher = [sys.executable, str(Path(watched.__file__))]
        process = subprocess.Popen(
            [*watcher, *server_command(store, free)],
            stdin=subprocess.PIPE,  # it ends with us, however we end
            env=_environment(store),
            start_new_session=True,  # Ctrl-C is ours
        )
        try:
            if _is_up(free, process):
                yield f"http://127.0.0.1:{free}", process
                return
        finally:
            _stop(process)
        if _free_port(free) == free:
            text = to_say("the MLflow server ended with exit code {code}")
            raise InputError(in_words(text, code=process.returncode))
        first = free + 1  # another program was faster


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(2 * watched.END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _opened(given: str | None, say: Callable[[str], None]) -> Store:
    """Open the store as other commands do; one that cannot be written is only shown."""
    try:
        return recovery.start(given, say, make=False)
    except (InputError, StoreError) as error:
        if locate(given).database is None:
            raise
        store = read_store(given)
        say(in_words("{why}. It is shown as it is now.", why=str(error)))
        return store


def server_command(store: Store, port: int) -> list[str]:
    """Return the command that serves a local store: loopback only, exact hosts, one worker."""
    hosts = f"127.0.0.1:{port},localhost:{port}"
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", _address(store)),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--allowed-hosts", hosts, "--workers", "1"),
        *("--app-name", "sgdstudy"),  # our page first, see `app`
        *("--uvicorn-opts", "--log-level warning"),
    ]


def _address(store: Store) -> str:
    if store.database is None or not store.reads:
        return store.uri
    return read_only.address(store.database, read_only.query(store.database))


def _environment(store: Store) -> dict[str, str]:
    return {**os.environ, **QUIET, app.SERVED: store.uri, VARIABLE: language()}


def _free_port(first: int) -> int:
    for port in range(first, min(first + 100, 65536)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    text = to_say("no free port from {port} on; give another with --port")
    raise InputError(in_words(text, port=str(first)))


def _is_up(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the server answers; False if it ended, perhaps because the port was taken."""
    session = requests.Session()
    session.trust_env = False  # no proxy: the address is of this machine
    how: dict[str, Any] = {"timeout": 2, "stream": True, "allow_redirects": False}  # its head alone
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return False
        with suppress(requests.RequestException):
            with session.get(f"http://127.0.0.1:{port}/health", **how) as answer:
                up = answer.status_code == 200
            if up and _holds(process, port):
                return True
        time.sleep(0.2)
    text = to_say("the MLflow server did not answer within {time} s")
    raise InputError(in_words(text, time=START_SECONDS))


def _holds(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it is our server that listens there, not another one that was faster."""
    try:
        ours = psutil.Process(process.pid)
        family = [ours, *ours.children(recursive=True)]
        found = [place for one in family for place in one.net_connections("tcp")]
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # it cannot be told: macOS asks for rights
        return True
    return any(place.status == psutil.CONN_LISTEN and place.laddr.port == port for place in found)


def _show_addresses(store: Store, server: str, say: Callable[[str], None], browse: bool) -> None:
    found = {
        experiment.name: chart_views.url(server, experiment)
        for experiment in every_experiment(store)
        if experiment.name != "Default"
    }
    first = f"{server}/"
    say(
        in_words(
            "Open {page} for every question, its answer and picture. Its charts alone are at:",
            page=first,
        )
    )
    for name, address in sorted(found.items()):
        say(f"  {name:<24} {address}")
    if browse:
        webbrowser.open(first)
