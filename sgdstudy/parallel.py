"""Training a study's arms, one after the other or in several processes."""

from __future__ import annotations

import functools
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgdstudy.errors import InputError, Interrupted, StoreError
from sgdstudy.history import History
from sgdstudy.record import Files
from sgdstudy.session import interrupt_flag, visible
from sgdstudy.tracking import Invocation

if TYPE_CHECKING:
    from sgdstudy.study import Arm, Options, Study

WORKER_NICE = 10  # whoever takes their results goes first: one that lags makes them wait

Trained = tuple[str, str, History]  # arm, run id, history


@dataclass
class _Work:
    """The arms of one invocation, and whether Ctrl-C was pressed."""

    study: Study
    options: Options
    arms: dict[str, Arm]
    invocation: Invocation
    progress: bool | None
    interrupted: list[int]

    def note(self, history: History) -> None:
        """Notice a Ctrl-C that the trainer caught."""
        if "interrupted" in history.stop_reason:
            self.interrupted.append(signal.SIGINT)


def train_arms(
    study: Study,
    options: Options,
    arms: dict[str, Arm],
    invocation: Invocation,
    progress: bool | None,
) -> Iterator[Trained]:
    """Train every arm as a tracked run; yield each as it ends.

    Raises:
        InputError: jobs below one.
        Interrupted: Ctrl-C; the arms that were running are saved.
    """
    if options.jobs < 1:
        raise InputError(f"jobs is a number of processes, at least 1, got {options.jobs}")
    jobs = min(options.jobs, len(arms))
    with interrupt_flag() as interrupted:
        work = _Work(study, options, arms, invocation, progress, interrupted)
        yield from _one_by_one(work) if jobs == 1 else _side_by_side(work, jobs)
        if interrupted:
            raise Interrupted(f"{study.name} was stopped; what ran is saved")


def default_jobs() -> int:
    """Return how many processes a whole study uses: one per core that we may use."""
    count = getattr(os, "process_cpu_count", os.cpu_count)()
    return min(count or 1, 8)


def _one_by_one(work: _Work) -> Iterator[Trained]:
    for name, arm in work.arms.items():
        if work.interrupted:
            return
        run_id, history = work.invocation.train(name, arm, work.progress)
        yield name, run_id, history
        work.note(history)


def _side_by_side(work: _Work, jobs: int) -> Iterator[Trained]:
    """Give the arms to worker processes, the longest first.

    A worker builds its arm from the script: nothing of the user's has to be pickled.
    """
    from tqdm.auto import tqdm

    shared = replace(work.invocation)  # without cached connections
    longest_first = sorted(work.arms, key=lambda name: -work.arms[name].n_steps)
    bar = tqdm(
        total=len(work.arms),
        desc=work.study.name,
        unit="arm",
        delay=1,
        leave=False,
        disable=not (visible() if work.progress is None else work.progress),
    )

    def waiting() -> Iterator[tuple[Any, ...]]:
        for name in longest_first:
            # the terminal sends Ctrl-C to the workers too: they end their arm, we start no other
            if work.interrupted:
                return
            yield work.study.file, asdict(work.options), name, shared

    with bar:
        for name, run_id, paths, outcome in spread(_train_one, waiting(), jobs):
            bar.update()
            arm = work.arms[name]
            history = History(arm.problem, arm.config, Files(paths), **outcome)
            yield name, run_id, history
            work.note(history)


def spread(
    function: Callable[..., Any], tasks: Iterator[tuple[Any, ...]], jobs: int
) -> Iterator[Any]:
    """Call a function with each of the tasks in worker processes; yield what comes, as it comes.

    Raises:
        StoreError: a worker was killed; what it had recorded is kept.
    """
    from joblib import Parallel, delayed

    if jobs == 1:
        yield from itertools.starmap(function, tasks)
        return
    pool = Parallel(
        jobs,
        return_as="generator_unordered",
        pre_dispatch=jobs,
        max_nbytes=None,  # arrays stay in memory
        initializer=_begin_worker,
    )
    try:
        yield from pool(delayed(function)(*task) for task in tasks)
    except BrokenProcessPool as error:
        raise StoreError(
            "a worker process was killed, perhaps for want of memory; what it had recorded is "
            "kept, and the next command finishes its run"
        ) from error


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a worker hears Ctrl-C only while it trains
    if hasattr(os, "nice"):  # not on Windows
        os.nice(WORKER_NICE)


@functools.lru_cache(maxsize=1)
def _arms(script: str, values: tuple[tuple[str, Any], ...]) -> tuple[Study, Options, Any]:
    """Build a script's arms, once per worker and invocation: some compute their step sizes."""
    from sgdstudy.scripts import load_study

    study = load_study(script)
    options = study.options(**dict(values))
    return study, options, study.placed_arms(options)


def _train_one(
    script: str, values: dict[str, Any], name: str, invocation: Invocation
) -> tuple[str, str, dict[str, Path], dict[str, Any]]:
    """Train one arm in a worker; hand back what a history needs beside the rows on disk."""
    study, options, arms = _arms(script, tuple(values.items()))
    with interrupt_flag() as interrupted:
        work = _Work(study, options, {name: arms[name]}, invocation, False, interrupted)
        ((_, run_id, history),) = _one_by_one(work)
    assert isinstance(history.sink, Files)
    kept = [f.name for f in fields(History) if f.name not in ("problem", "config", "sink")]
    return name, run_id, history.sink.paths, {name: getattr(history, name) for name in kept}
