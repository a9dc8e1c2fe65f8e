"""Worker processes: as many as there are cores, and what becomes of them."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any

import psutil

from sgdstudy.errors import InputError, StoreError, reason
from sgdstudy.language import language, speak
from sgdstudy.studies import deaths, output
from sgdstudy.training import interrupts

# joblib's tracker tidies up when a second Ctrl-C has ended us at once: no news either
QUIET = "ignore:resource_tracker:UserWarning"
WORKER_NICE = 10  # the process that takes their results has priority: if it lags, they wait


def collect_seldom() -> None:
    """Look for garbage seldom: torch and MLflow, once imported, are none; a fifth of a start."""
    gc.set_threshold(50_000, 20, 50)


def default_jobs() -> int:
    """Return how many processes a whole study uses: one per core that we may use."""
    count = getattr(os, "process_cpu_count", os.cpu_count)()
    return min(count or 1, 8)


def require_carried(value: Any, what: str) -> None:
    """Refuse what cannot be handed to other processes.

    Raises:
        InputError: it cannot.
    """
    from joblib.externals.loky.backend import reduction

    try:
        reduction.dumps(value)
    except Exception as error:
        raise InputError(
            f"{what} cannot be handed to other processes ({reason(error)}); give jobs=1"
        ) from None


def spread(
    function: Callable[..., Any], tasks: Iterator[tuple[Any, ...]], jobs: int
) -> Iterator[Any]:
    """Call a function with each of the tasks in worker processes; yield what comes, as it comes.

    A Ctrl-C or SIGTERM is handed on to the workers.

    Raises:
        StoreError: a worker was killed; what it had recorded is kept.
        InputError: a worker cannot read what it is given.
    """
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    if jobs == 1:
        yield from itertools.starmap(function, tasks)
        return
    # a worker that has grown is replaced by a fresh one: that is no news to whoever runs a study
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
    if QUIET not in sys.warnoptions:  # which the processes that joblib starts are given
        sys.warnoptions.append(QUIET)
    pool = Parallel(
        jobs,
        return_as="generator_unordered",
        pre_dispatch=jobs,
        max_nbytes=None,  # arrays stay in memory
        initializer=_begin_worker,
        initargs=(os.getpid(), language()),
    )
    try:
        with deaths.watched(pool):
            yield from pool(delayed(function)(*task) for task in tasks)
    except BrokenProcessPool as error:
        if "un-serialize" in str(error):  # joblib's words
            raise InputError(
                "another process cannot read what it is given, as functions of a module that it "
                "does not find; give jobs=1"
            ) from error
        if not interrupts.stopping():  # a worker that has not begun yet ends at once
            raise StoreError(
                "a worker process was killed, perhaps for want of memory; what it had recorded is "
                "kept, and the next command finishes its run"
            ) from error
    if interrupts.stopping():  # the workers would do so with what a notebook gives them next
        get_reusable_executor(reuse=True).shutdown(kill_workers=True)


def _begin_worker(parent: int, spoken: str) -> None:
    from tqdm import tqdm

    collect_seldom()
    # its own lock holds a semaphore, of which Python tells when a worker is killed
    tqdm.set_lock(threading.RLock())
    speak(spoken)
    output.harden()
    output.keep_warnings_ours()
    _end_with(parent)
    if os.name == "nt":  # which has no SIGTERM: the terminal's Ctrl-C is heard while it trains
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    else:
        interrupts.heed_parent()
    if hasattr(os, "nice"):  # not on Windows
        os.nice(WORKER_NICE)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, killed or not: the pool tells it between tasks.

    What its run recorded is on the disk, and the lock of the run is free then: the next command
    finishes it.
    """

    def watch() -> None:
        with suppress(psutil.Error):
            psutil.Process(parent).wait()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
