"""Dropping older invocations."""

from __future__ import annotations

import logging
from functools import partial

from sgdstudy.errors import InputError, shortened
from sgdstudy.language import say, to_say
from sgdstudy.tracking import database
from sgdstudy.tracking.places import others_in, remove_folder, size_of
from sgdstudy.tracking.runs import experiments, place_of, readable_runs
from sgdstudy.tracking.store import Store
from sgdstudy.tracking.tracked_run import TrackedRun
from sgdstudy.tracking.writing import alive

Doomed = dict[tuple[str, str], list[TrackedRun]]  # (experiment, user) -> the runs to drop
log = logging.getLogger("sgdstudy")


def plan(store: Store, keep: int) -> Doomed:
    """Return the runs of all but the latest `keep` invocations of each study and user.

    Invocations that a command writes to now are left alone, and so are the studies of those who
    have another `SGDSTUDY_PREFIX`.

    Raises:
        InputError: a negative number.
    """
    if keep < 0:
        text = say(
            "keep is the number of invocations to keep, at least 0, got {keep}", keep=str(keep)
        )
        raise InputError(text)
    found: Doomed = {}
    for _, experiment in experiments(store):
        for run in readable_runs(store, experiment):
            if run.invocation and run.status != "RUNNING":
                whose = run.tags.get("mlflow.user", "unknown")
                found.setdefault((experiment.name, whose), []).append(run)
    doomed = {of: _older_runs(runs, keep) for of, runs in sorted(found.items())}
    living = alive(store, {run.invocation for runs in doomed.values() for run in runs})
    doomed = {
        of: [run for run in runs if run.invocation not in living] for of, runs in doomed.items()
    }
    return {of: runs for of, runs in doomed.items() if runs}


def _older_runs(runs: list[TrackedRun], keep: int) -> list[TrackedRun]:
    """Return the runs of all but the latest invocations."""
    latest = dict.fromkeys(
        run.invocation for run in sorted(runs, key=lambda run: run.order, reverse=True)
    )
    kept = set(list(latest)[:keep])
    return [run for run in runs if run.invocation not in kept]


def described(doomed: Doomed) -> list[str]:
    """Return a line for each study and user: what is dropped of them."""
    lines = []
    for (name, whose), runs in doomed.items():
        n = len({run.invocation for run in runs})
        text = say("{n} run", "{n} runs", n=len(runs))
        given = {"study": shortened(name), "user": shortened(whose), "runs": text, "n": n}
        lines.append(
            say(
                "{study}, of {user}: {runs} of {n} invocation",
                "{study}, of {user}: {runs} of {n} invocations",
                **given,
            )
        )
    return lines


def still(store: Store, runs: list[TrackedRun]) -> list[TrackedRun]:
    """Return the runs of a plan that no command writes to now: somebody was asked meanwhile."""
    living = alive(store, {run.invocation for run in runs})
    return [run for run in runs if run.invocation not in living]


def remove(store: Store, runs: list[TrackedRun]) -> tuple[int, int]:
    """Delete the runs and their local artifacts; return how many went, and the bytes freed.

    One run after the other, so that whatever ends this leaves each whole or takes it away. Its
    files go first: where the disk is full they make the room that the database needs, and if those
    of one are too few for that, the next ones' do. A folder
    that is not the run's own, in the store, is left alone, and its run with it; so is one that
    cannot be deleted, or within which something is mounted, or lies of another run.

    Raises:
        Away: the database is another one now than when the runs were found.
        TimeoutError: another program holds it.
        DiskFull: it has no room without the files of all these runs either.
    """
    if store.database is None:
        for run in runs:
            store.client.delete_run(run.run_id)
        return len(runs), 0
    path, dropped, freed, later = store.database, 0, list[int](), list[TrackedRun]()
    for run in runs:
        store.require_same()
        try:
            remove_files = partial(_remove_files, store, run, freed)
            dropped += database.forget(path, run.run_id, remove_files)
        except database.DiskFull:
            later.append(run)
    for done, run in enumerate(later):  # their files are gone
        try:
            dropped += database.forget(path, run.run_id)
        except database.DiskFull:
            text = to_say(
                "the disk of {store} is still full: {n} runs to drop have lost their files and are "
                "in the database; free some other space, and prune again"
            )
            raise database.DiskFull(say(text, store=store.shown, n=len(later) - done)) from None
    return dropped, sum(freed)


def _remove_files(store: Store, run: TrackedRun, freed: list[int]) -> bool:
    """Delete a run's local artifacts, and note the bytes freed; whether they are gone."""
    try:
        folder = place_of(store, run)
    except InputError as error:
        log.warning("%s", say("{why}; the run is kept", why=str(error)))
        return False
    if folder is None or not folder.parent.exists():
        return True
    if other := next(others_in(folder.parent), None):
        text = to_say("{folder} holds the files of another run ({other}); the run is kept")
        log.warning("%s", say(text, folder=str(folder.parent), other=str(other)))
        return False
    size = size_of(folder.parent)
    if why := remove_folder(folder.parent):
        text = to_say("{folder} cannot be deleted ({why}); the run is kept")
        log.warning("%s", say(text, folder=str(folder.parent), why=why))
        size -= size_of(folder.parent)
    freed.append(size)
    return not why


def shrink(store: Store) -> int:
    """Give the room of dropped runs, earlier ones too, back to the disk; return the bytes."""
    if store.database is None:
        return 0
    store.require_same()
    for run_id in database.remains(store.database):
        database.forget(store.database, run_id)
    return database.shrink(store.database)
