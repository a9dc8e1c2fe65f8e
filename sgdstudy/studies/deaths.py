"""What becomes of workers that were killed, or whose command is to stop.

joblib's pool notices a death between results. Of half a result it waits for the other half, for
ever: other processes hold the pipe open, and we do.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import Any

import psutil

from sgdstudy.training.interrupts import stopping

LOOK_SECONDS = 1.0
GRACE_SECONDS = 5.0  # in which the pool notices by itself


@contextmanager
def watched(pool: Any) -> Iterator[None]:
    """Break a pool of joblib's off whose worker is dead, and which has not noticed.

    Its workers are told, once each, when the first Ctrl-C or SIGTERM has come.
    """
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(pool, over), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _watch(pool: Any, over: threading.Event) -> None:
    since: dict[int, float] = {}  # by process: when it was first seen dead
    told: set[int] = set()
    while not over.wait(LOOK_SECONDS):
        executor = getattr(getattr(pool, "_backend", None), "_workers", None)
        processes = dict(getattr(executor, "_processes", None) or {})
        dead = [pid for pid, process in processes.items() if _was_killed(process)]
        since = {pid: since.get(pid, time.monotonic()) for pid in dead}
        if stopping() and os.name != "nt":
            for pid in processes.keys() - dead - told:
                _tell(pid)
            told |= processes.keys()
        if any(time.monotonic() - seen > GRACE_SECONDS for seen in since.values()):
            _break_off(executor, processes)
            return


def _was_killed(process: Any) -> bool:
    """Whether a worker has ended, and not of its own will."""
    return bool(wait([process.sentinel], 0)) and process.exitcode != 0


def _tell(pid: int) -> None:
    """Ask a worker to stop after its chunk."""
    with suppress(psutil.Error):
        psutil.Process(pid).send_signal(signal.SIGTERM)


def _break_off(executor: Any, processes: dict[int, Any]) -> None:
    """End the other workers and our own end of the pipe: who reads it meets its end."""
    for pid in processes:
        with suppress(psutil.Error):
            psutil.Process(pid).kill()
    with suppress(AttributeError, OSError):
        executor._result_queue._writer.close()
