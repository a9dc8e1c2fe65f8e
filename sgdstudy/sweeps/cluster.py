"""Spreading work over a Dask cluster that somebody else has started."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sgdstudy.errors import InputError, StoreError, quoted
from sgdstudy.language import say, to_say

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10
ASK_SECONDS = 5.0
ANSWER_SECONDS = 5.0
SILENT_SECONDS = 20.0  # a worker gives a sign every second, in a large cluster every few
WORKERS_SECONDS = 60.0  # a nanny starts a worker that was killed anew in a few
LOUD = ("distributed", "distributed.client")  # they print tracebacks where we say one line
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PACKAGES = ("sgdstudy", "torch", "numpy")
EXAMPLE = "tcp://127.0.0.1:8786"
MOST_NAMED = 3  # workers, in a message
NOBODY = ""  # the address where there is no worker
log = logging.getLogger("sgdstudy")


def spread(
    client: Client, function: Callable[..., Any], tasks: Iterator[tuple[Any, ...]]
) -> Iterator[Any]:
    """Call a function with each of the tasks on a cluster; yield what comes, as it comes.

    Args:
        client: see `connect`.
        function: importable by the workers.
        tasks: arguments; twice as many as there are workers are handed out at a time.

    Raises:
        StoreError: the cluster went away, or its workers; what was recorded is kept.
    """
    from concurrent.futures import CancelledError

    from distributed import KilledWorker, as_completed

    def submit(count: int) -> list[Any]:
        some = itertools.islice(tasks, count)
        return [client.submit(function, *task, pure=False) for task in some]

    try:
        first = submit(2 * len(client.nthreads()))
        # with results: one that is ready is here, and no longer with a worker that may be gone
        running = as_completed(first, loop=client.loop, with_results=True)
        watch = _Workers(client)
        while not running.is_empty():
            while not running.has_ready():
                with running.thread_condition:
                    running.thread_condition.wait(0.1)
                watch.require()
            _, result = next(running)
            if isinstance(result, CancelledError):  # other errors are raised above
                raise result
            yield result
            for fresh in submit(1):
                running.add(fresh)
    except (KilledWorker, CancelledError, OSError) as error:
        raise StoreError(
            f"the Dask cluster lost our work ({type(error).__name__}); what came back is kept, "
            f"and --resume goes on"
        ) from error


class _Workers:
    """Whether anybody works: Dask waits for ever, without a word, for workers that are gone.

    A process that is stopped, or whose machine sleeps, keeps its connection: it is known by the
    signs that it no longer gives. What counts is when we last saw a new one, by our clock.
    """

    def __init__(self, client: Client) -> None:
        self.client, self.asked = client, time.monotonic()
        self.signs = dict.fromkeys(client.nthreads(), 0.0)
        self.silent: dict[str, float] = {}  # by address: seconds without a new sign
        self.said: set[str] = set()

    def require(self) -> None:
        """Ask now and then; say once who is silent, and give up when all have been for long.

        Raises:
            StoreError: they have been.
            OSError: the scheduler is gone.
        """
        now = time.monotonic()
        if now < self.asked + ASK_SECONDS:
            return
        passed = min(now - self.asked, ASK_SECONDS + ANSWER_SECONDS)  # more: we were stopped
        signs = self._ask()
        self.silent = {
            who: self.silent.get(who, 0.0) + passed if sign == self.signs.get(who) else 0.0
            for who, sign in signs.items()
        }
        self.signs, self.asked = signs, now
        if min(self.silent.values()) > WORKERS_SECONDS:
            raise StoreError(
                f"the Dask cluster has had no {_sign_of(signs)} for {WORKERS_SECONDS:.0f} s; what "
                f"came back is kept; start workers, and --resume goes on"
            )
        quiet = {who for who in signs if who == NOBODY or self.silent[who] >= SILENT_SECONDS}
        if quiet - self.said:
            self._tell(quiet - self.said)
        self.said = quiet

    def _ask(self) -> dict[str, float]:
        """Return the workers' last signs.

        In their place one that does not change: of the scheduler where it does not answer, and of
        nobody where there is no worker.
        """
        try:
            return _signs(self.client) or {NOBODY: 0.0}
        except TimeoutError:
            return {_scheduler(self.client).address: 0.0}

    def _tell(self, quiet: set[str]) -> None:
        """Say for whom we wait, since when, and how to end it."""
        if NOBODY in quiet:
            text = to_say("no Dask worker is left; waiting {time} s for a new one, Ctrl-C stops")
            log.warning("%s", say(text, time=WORKERS_SECONDS))
            return
        since = time.localtime(time.time() - max(self.silent[who] for who in quiet))
        text = to_say(
            "no sign of {names} since {time}: stopped, or its machine sleeps; waiting for it, "
            "Ctrl-C twice ends the sweep, and --resume goes on"
        )
        log.warning("%s", say(text, names=_named(quiet), time=time.strftime("%H:%M:%S", since)))


def _scheduler(client: Client) -> Any:
    return client.scheduler


def _signs(client: Client) -> dict[str, float]:
    """Return of each worker when its last sign was, by the scheduler's clock."""
    known = client.sync(_scheduler(client).identity, callback_timeout=ANSWER_SECONDS)
    return {who: float(each["last_seen"]) for who, each in known["workers"].items()}


def _sign_of(signs: Iterable[str]) -> str:
    return "worker" if NOBODY in signs else f"sign of {_named(signs)}"


def _named(addresses: Iterable[str]) -> str:
    """Return some addresses, and how many more there are."""
    first, more = sorted(addresses)[:MOST_NAMED], len(set(addresses)) - MOST_NAMED
    return ", ".join([*first, *([f"… (+{more})"] if more > 0 else [])])


def connect(given: str) -> Client:
    """Return a client of a cluster whose workers run our versions.

    Args:
        given: address of the scheduler, as `tcp://127.0.0.1:8786` or `tls://host:8786`, or its
            scheduler file. Certificates are those of Dask's own settings.

    Raises:
        InputError: no such cluster, one without workers, with other versions, with several threads
            in a worker, or without TLS on another machine: what is sent to it can be read and
            changed on the way.
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError('--dask needs a package: pip install "sgdstudy[cluster]"') from None
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    address = given if "://" in given else _address_in_file(given)
    _reach(address)
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TypeError, ValueError) as error:  # TypeError: TLS without certificates
        reason = " ".join(str(error).split())[:150]
        raise InputError(f"no Dask scheduler answers at {address}: {reason}") from None
    try:
        _require_same_versions(client)
    except InputError:
        client.close()
        raise
    return client


def _address_in_file(name: str) -> str:
    """Return the address that a scheduler wrote down."""
    try:
        return str(json.loads(Path(name).read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"--dask {quoted(name)}: there is no such scheduler file; give one, or an address as "
            f"{EXAMPLE}"
        ) from None


def _reach(address: str) -> None:
    """Refuse an address before anything is sent to it."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None or parts.scheme not in ("tcp", "tls"):
        raise InputError(f"--dask is an address as {EXAMPLE}, or a scheduler file; got {address!r}")
    if not _is_safe(address):
        raise InputError(
            f"the scheduler at {address} is on another machine and without TLS: anybody on the "
            f"way could run code here and there; start it with TLS, or on 127.0.0.1"
        )
    if parts.scheme == "tls":
        _check_certificates(address)
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"no Dask scheduler answers at {address} ({error.strerror or error}); start one, as "
            f"dask scheduler --host 127.0.0.1, or leave --dask out"
        ) from None


def _is_safe(address: str) -> bool:
    return urlsplit(address).scheme == "tls" or urlsplit(address).hostname in LOOPBACK


def _check_certificates(address: str) -> None:
    """Refuse TLS without certificates before Dask waits for what cannot come."""
    from distributed.security import Security

    try:
        found = Security().get_connection_args("client").get("ssl_context")
    except OSError as error:
        raise InputError(f"the certificates for {address} cannot be read: {error}") from None
    if found is None:
        raise InputError(
            f"{address} needs certificates: set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, and CERT and "
            f"KEY of DASK_DISTRIBUTED__COMM__TLS__CLIENT, as docs/sweeps.md shows"
        )


def _require_same_versions(client: Client) -> None:
    """Refuse workers whose results would not be ours, or that anybody could speak for."""
    workers, scheduler = client.nthreads(), getattr(client.scheduler, "address", "its address")
    if not workers:
        raise InputError(
            f"the scheduler at {scheduler} has no workers; start some, as "
            f"dask worker {scheduler} --nthreads 1"
        )
    for address, threads in workers.items():
        if not _is_safe(address):
            raise InputError(
                f"the worker at {address} is on another machine and without TLS: anybody on the "
                f"way could run code here and there; start the cluster with TLS"
            )
        if threads > 1:  # torch's number of threads, and the plan in hand, are a process's
            raise InputError(f"the worker at {address} has {threads} threads; add --nthreads 1")
    _compare(client)


def _compare(client: Client) -> None:
    mine = versions()
    try:
        each = client.run(versions, on_error="return", callback_timeout=WORKERS_SECONDS)
    except TimeoutError:
        signs = _signs(client)
        oldest = min(signs, key=lambda who: signs[who])
        raise InputError(
            f"the worker at {oldest} has not answered for {WORKERS_SECONDS:.0f} s: stopped, or its "
            f"machine sleeps; wake it up, or end it"
        ) from None
    for worker, theirs in each.items():
        if isinstance(theirs, Exception):
            reason = " ".join(str(theirs).split())[:150]
            raise InputError(f"the worker at {worker} cannot run our code: {reason}")
        for name in PACKAGES:
            if theirs.get(name) != mine[name]:
                raise InputError(
                    f"the worker at {worker} has {name} {theirs.get(name)}, this machine "
                    f"{mine[name]}; install the same versions on both"
                )


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}
