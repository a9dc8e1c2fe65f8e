"""The runs that a store has: finding them, and their files."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sgdstudy import checks
from sgdstudy.errors import Away, InputError, Refused, shortened
from sgdstudy.language import say, to_say, unknown
from sgdstudy.tracking import garbage
from sgdstudy.tracking.bounds import TooLong
from sgdstudy.tracking.provenance import user
from sgdstudy.tracking.store import Store
from sgdstudy.tracking.tracked_run import (
    CHANGED,
    FINGERPRINT,
    INVOCATION,
    NUMBER,
    SWEPT,
    TrackedRun,
    moment_of,
    number_of,
)

if TYPE_CHECKING:
    from mlflow.entities import Experiment

MOST = 1000  # runs of one page
MOST_PAGES = 10_000
FEW = 10  # of the first page, where the last run is looked for
log = logging.getLogger("sgdstudy")
LAST_FIRST = (f"tags.`{NUMBER}` DESC", f"tags.`{INVOCATION}` DESC")


def runs_of(
    store: Store, study: str, invocation: str, arms: Any, answers: bool = False
) -> list[TrackedRun]:
    """Return the runs of a study, oldest first.

    Args:
        store: where to look.
        study: the experiment's name, without prefix.
        invocation: `latest`, `all`, or an id.
        arms: one or several; None: all.
        answers: the answers instead of the arms.

    Raises:
        InputError: a study, an arm or an invocation that is not in the store, or a study that was
            deleted in MLflow.
    """
    experiment = experiment_of(store, study)
    if experiment is None:
        names = [name for name, _ in experiments(store) if name != "Default"]
        raise unknown(to_say("study"), study, names or [say("none has run yet: sgdstudy study")])
    if not isinstance(invocation, str):
        raise unknown("invocation", invocation, ["latest", "all", "or an id"])
    if invocation == "latest":
        invocation = _latest(store, experiment.experiment_id, answers)
    only = "" if invocation in ("", "all") else _tag(INVOCATION, invocation)
    every = every_run(store, experiment.experiment_id, only)
    if only and not every:
        every = every_run(store, experiment.experiment_id)
        ids = sorted({run.invocation for run in every} - {""})
        raise unknown("invocation", invocation, ["latest", "all", *ids])
    runs = [run for run in every if run.is_answer == answers]
    name_doubled(runs)
    return runs if arms is None else _chosen(runs, arms)


def experiment_of(store: Store, study: str) -> Experiment | None:
    """Return the experiment of a study; None where it never ran.

    Raises:
        InputError: it was deleted in MLflow, which shows none of its runs.
    """
    found = store.client.get_experiment_by_name(store.experiment_name(study))
    if found is not None:
        _require_not_deleted(store, found)
    return found


def require_none_deleted(store: Store) -> None:
    """Refuse to say that a store is empty where its studies were deleted in MLflow."""
    from mlflow.entities import ViewType

    prefix = store.experiment_name("")
    for one in store.client.search_experiments(ViewType.DELETED_ONLY):
        if isinstance(one.name, str) and one.name.startswith(prefix):
            _require_not_deleted(store, one)


def without_runs(store: Store, study: str) -> InputError:
    """Build the error for a study that has no runs, or whose runs were deleted in MLflow."""
    experiment = experiment_of(store, study)
    if experiment and (deleted := search(store, [experiment.experiment_id], "", deleted=True)):
        text = to_say(
            "the last run of {study} was deleted in MLflow; restore it: "
            "MLFLOW_TRACKING_URI={store} mlflow runs restore --run-id {run}"
        )
        which = {"store": shlex.quote(store.shown), "run": deleted[0].run_id}
        return InputError(say(text, study=study, **which))
    return InputError(say("{study} has no runs", study=study))


def _require_not_deleted(store: Store, experiment: Experiment) -> None:
    if experiment.lifecycle_stage == "deleted":
        text = to_say(
            "{name} was deleted in MLflow; restore it: MLFLOW_TRACKING_URI={store} "
            "mlflow experiments restore -x {id}"
        )
        where = shlex.quote(store.shown)
        which = {"name": shortened(experiment.name), "id": experiment.experiment_id}
        raise InputError(say(text, store=where, **which))


def every_experiment(store: Store) -> list[Experiment]:
    """Return all experiments; a database may hold anything as their names."""
    return [one for one in store.client.search_experiments() if isinstance(one.name, str)]


def experiments(store: Store) -> list[tuple[str, Experiment]]:
    """Return the studies of this `SGDSTUDY_PREFIX`: their names without it, and MLflow's own."""
    prefix = store.experiment_name("")
    every = every_experiment(store)
    return [(one.name.removeprefix(prefix), one) for one in every if one.name.startswith(prefix)]


def _chosen(runs: list[TrackedRun], arms: Any) -> list[TrackedRun]:
    names = list(dict.fromkeys(run.name for run in runs))
    listed = list(arms) if isinstance(arms, (list, tuple, set, np.ndarray, pd.Series)) else [arms]
    if not listed:
        raise InputError("arms is empty; give at least one, or None for all")
    chosen = [checks.choice("arm", arm, names) for arm in listed]
    return [run for run in runs if run.name in chosen]


def _latest(store: Store, experiment_id: str, answers: bool) -> str:
    """Return the latest invocation of this user, else of anybody; "" where there is none."""
    for whose in (_tag("mlflow.user", user()), ""):
        if last := last_run(store, experiment_id, lambda run: run.is_answer == answers, whose):
            return last.invocation
    return ""


def last_run(
    store: Store, experiment_id: str, wanted: Callable[[TrackedRun], bool], only: str = ""
) -> TrackedRun | None:
    """Return a run of the last invocation; what is no id or no number of ours is not the last.

    Args:
        store: where to look.
        experiment_id: MLflow's.
        wanted: which runs count.
        only: a filter of MLflow.
    """
    only = " AND ".join(filter(None, [_tag(INVOCATION, "%", "LIKE"), only]))
    pages = _pages(store, experiment_id, only, LAST_FIRST, FEW)
    for run in filter(wanted, chain.from_iterable(pages)):
        told = number_of(run.tags) if NUMBER in run.tags else moment_of(run.invocation)
        if run.invocation and told is not None:
            return run
        # that one sorts last by tags that are not ours: look through all
        every = filter(wanted, every_run(store, experiment_id, only))
        return max(
            (run for run in every if run.invocation), key=lambda run: run.order, default=None
        )
    return None


def next_number(store: Store, study: str) -> str:
    """Return the number of an invocation that begins: milliseconds since 1970.

    It is more than that of any before, though a clock was wrong: then the last one's and one.

    Raises:
        InputError: see `Store.require_within`.
    """
    last = 0
    try:
        found = store.client.get_experiment_by_name(store.experiment_name(study))
        if found is not None:
            store.require_within(found)
            run = last_run(store, found.experiment_id, lambda run: True)
            last = run.order[0] if run else 0
    except Away:  # the clock alone, then
        pass
    return f"{max(time.time_ns() // 1_000_000, last + 1):015d}"


def _tag(name: str, value: str, relation: str = "=") -> str:
    value = value.replace('"', "")  # no name or id has quotes
    return f'tags.`{name}` {relation} "{value}"'


def every_run(store: Store, experiment_id: str, only: str = "") -> list[TrackedRun]:
    """Return all runs of an experiment, oldest first, or those that a filter of MLflow leaves.

    Raises:
        Away: a server has one page after another, without an end.
    """
    pages = _pages(store, experiment_id, only, ("start_time",))
    return sorted(chain.from_iterable(pages), key=lambda run: run.order)


def _pages(
    store: Store, experiment_id: str, only: str, order: Sequence[str], first: int = MOST
) -> Iterator[list[TrackedRun]]:
    """Yield the runs of an experiment a page at a time; of how many is the first."""
    tokens: list[str | None] = [None]
    while len(tokens) <= MOST_PAGES:
        with garbage.paused():  # three times as fast
            most = MOST if tokens[-1] else first
            page = _page(store, experiment_id, only, tokens[-1], order, most)
            runs = list(map(TrackedRun.of, page))
        yield runs
        if not page.token:
            return
        if page.token in tokens[-2:] or not page:
            break
        tokens.append(page.token)
    raise Away(f"{store.shown} names one page of runs after another, without an end")


def readable_runs(store: Store, experiment: Experiment) -> list[TrackedRun]:
    """Return all runs of one experiment of many."""
    with _left_out(experiment):
        return every_run(store, experiment.experiment_id)
    return []


def last_answer(store: Store, experiment: Experiment) -> TrackedRun | None:
    """Return the finished answer of the last invocation that has one, of an experiment of many."""
    with _left_out(experiment):
        return last_run(store, experiment.experiment_id, lambda run: run.is_answer and run.finished)
    return None


@contextmanager
def _left_out(experiment: Experiment) -> Iterator[None]:
    """Leave an experiment out, and say so, of which MLflow cannot read something."""
    try:
        yield
    except Refused as error:
        which = {"name": shortened(experiment.name), "why": str(error)}
        log.warning("%s", say("{name} is left out: {why}", **which))


def _page(
    store: Store, experiment_id: str, only: str, token: str | None, order: Sequence[str], most: int
) -> Any:
    """Return a page of runs: a smaller one where a server's answer would be too long."""
    while True:
        how: dict[str, Any] = {"page_token": token, "order_by": list(order)}
        try:
            return store.client.search_runs([experiment_id], only, max_results=most, **how)
        except TooLong:
            if most == 1:
                raise
            most //= 10


def search(
    store: Store,
    experiment_ids: Sequence[str],
    only: str,
    order: Sequence[str] = ("start_time DESC",),
    most: int = MOST,
    deleted: bool = False,
) -> list[TrackedRun]:
    """Return the first runs that a filter of MLflow leaves, the latest first.

    Args:
        store: where to look.
        experiment_ids: MLflow's ids.
        only: the filter.
        order: what they are sorted by.
        most: how many.
        deleted: those that were deleted in MLflow instead of the others.
    """
    from mlflow.entities import ViewType

    kind = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    found = store.client.search_runs(
        list(experiment_ids), only, kind, max_results=most, order_by=list(order)
    )
    return [TrackedRun.of(run) for run in found]


def find_run(store: Store, run_id: str) -> TrackedRun:
    """Return the run of this id.

    Raises:
        InputError: there is none, or it was deleted in MLflow, or its study was.
    """
    try:
        found = store.client.get_run(run_id)
    except Refused:
        text = to_say("there is no run {run} in {store}; ss.load_runs(study).run_id lists them")
        raise InputError(say(text, run=repr(run_id), store=store.shown)) from None
    if found.info.lifecycle_stage == "deleted":
        _require_not_deleted(store, store.client.get_experiment(found.info.experiment_id))
        text = to_say(
            "the run {run} was deleted in MLflow; restore it: MLFLOW_TRACKING_URI={store} "
            "mlflow runs restore --run-id {run}"
        )
        raise InputError(say(text, run=run_id, store=shlex.quote(store.shown)))
    return TrackedRun.of(found)


def place_of(store: Store, run: TrackedRun) -> Path | None:
    """Return the folder of a run's artifacts in a local store, None in another; see `Store.place`.

    Raises:
        InputError: it is not a folder of the run's own.
    """
    return store.place(run.run_id, run.artifact_uri)


def artifact(store: Store, run: TrackedRun, name: str, into: Path | None = None) -> Path | None:
    """Return a local path of a run's artifact; None if there is none.

    Args:
        store: where the run is.
        run: whose it is.
        name: the artifact's name.
        into: the folder that a remote one is downloaded to; None: a new one, which stays.

    Raises:
        InputError: in a local store it is a symbolic link, or no file, which whoever opens it might
            wait for, or lies in a folder of another's.
    """
    folder = place_of(store, run)
    if folder is not None:
        path = folder / name
        if path.is_symlink():
            raise InputError(f"{path} is a symbolic link, which is not followed; remove it")
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a file; move it elsewhere")
        return path if path.exists() else None
    if name not in names_of_artifacts(store, run):
        return None
    if into is not None:
        into = into / run.run_id
        into.mkdir(parents=True, exist_ok=True)
    target = None if into is None else str(into)
    return Path(store.client.download_artifacts(run.run_id, name, target))


def names_of_artifacts(store: Store, run: TrackedRun, files: bool = True) -> list[str]:
    """Return the names of the files that a run has in the store, or of what else is there.

    That is folders, pipes, sockets; a symbolic link is named among the files, and refused.
    """
    place = place_of(store, run)
    if place is not None:
        found = {path.name: path.is_file() or path.is_symlink() for path in place.glob("*")}
    else:
        found = {item.path: not item.is_dir for item in store.client.list_artifacts(run.run_id)}
    return sorted(name for name, is_file in found.items() if is_file == files)


def lacks_files(store: Store, run: TrackedRun) -> bool:
    """Whether a run of a local store has no folder of files any more."""
    folder = place_of(store, run)
    return folder is not None and not folder.is_dir()


def name_doubled(runs: Sequence[TrackedRun]) -> None:
    """Name the finished runs of a sweep that a later one of its invocation has the settings of.

    A resumed sweep trains again what was deleted in MLflow, and there it can be restored.

    Args:
        runs: oldest first.
    """
    doubled, later = list[TrackedRun](), set[tuple[str, str]]()
    for run in reversed(runs):
        key = run.invocation, run.tags.get(FINGERPRINT, "")
        if SWEPT in run.tags and all(key) and run.finished and CHANGED not in run.tags:
            doubled += [run] if key in later else []
            later.add(key)
    if doubled:
        text = to_say(
            "trained again in the same invocation, where the later run counts: {runs}; delete "
            "these in MLflow"
        )
        log.warning("%s", say(text, runs=named(doubled[::-1])))


def named(runs: Sequence[TrackedRun]) -> str:
    """Return the first few runs, as people find them."""
    few = [f"{shortened(run.name)} ({run.run_id[:8]})" for run in runs[:5]]
    return ", ".join([*few, f"and {len(runs) - 5} more"] if len(runs) > 5 else few)
