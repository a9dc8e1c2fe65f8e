"""Spreading work over a Dask cluster that somebody else has started."""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sgdstudy.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PACKAGES = ("sgdstudy", "torch", "numpy")


def spread(
    client: Client, function: Callable[..., Any], tasks: Iterator[tuple[Any, ...]]
) -> Iterator[Any]:
    """Call a function with each of the tasks on a cluster; yield what comes, as it comes.

    Args:
        client: see `connect`.
        function: importable by the workers.
        tasks: arguments; twice as many as there are threads are handed out at a time.
    """
    from distributed import as_completed

    def submit(count: int) -> list[Any]:
        some = itertools.islice(tasks, count)
        return [client.submit(function, *task, pure=False) for task in some]

    running = as_completed(submit(2 * sum(client.nthreads().values())), loop=client.loop)
    for future in running:
        yield future.result()
        for fresh in submit(1):
            running.add(fresh)


def connect(address: str) -> Client:
    """Return a client of a cluster whose workers run our versions.

    Args:
        address: of the scheduler, as `tcp://127.0.0.1:8786` or `tls://host:8786`, or its
            scheduler file.

    Raises:
        InputError: no such cluster, one without workers, with other versions, or without TLS on
            another machine: what is sent to it can be read and changed on the way.
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError('--dask needs a package: pip install "sgdstudy[cluster]"') from None
    given: dict[str, Any] = (
        {"scheduler_file": address} if _is_file(address) else {"address": address}
    )
    try:
        client = Client(**given, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address} ({type(error).__name__}); start one, as "
            f"dask scheduler --host 127.0.0.1, or leave --dask out"
        ) from None
    try:
        _check(client)
    except InputError:
        client.close()
        raise
    return client


def _is_file(address: str) -> bool:
    if "://" in address:
        return False
    if not Path(address).is_file():
        raise InputError(
            f"--dask {address}: no such scheduler file; give one, or an address as "
            f"tcp://127.0.0.1:8786"
        )
    return True


def _check(client: Client) -> None:
    address = client.scheduler.address
    if urlsplit(address).scheme != "tls" and urlsplit(address).hostname not in LOOPBACK:
        raise InputError(
            f"the scheduler at {address} is on another machine and without TLS: anybody on the "
            f"way could run code here and there; start it with TLS, or on 127.0.0.1"
        )
    if not client.nthreads():
        raise InputError(f"the scheduler at {address} has no workers; start one: dask worker")
    mine = versions()
    for worker, theirs in client.run(versions).items():
        if theirs != mine:
            name = next(n for n in PACKAGES if theirs.get(n) != mine[n])
            raise InputError(
                f"the worker {worker} has {name} {theirs.get(name)}, this machine {mine[name]}; "
                f"install the same versions on both"
            )


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}
