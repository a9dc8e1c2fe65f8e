"""Dropping older invocations."""

from __future__ import annotations

from sgdstudy.errors import InputError
from sgdstudy.tracking.runs import TrackedRun, every_run
from sgdstudy.tracking.store import Store, local_path, remove_folder


def plan(store: Store, keep: int) -> list[TrackedRun]:
    """Return the runs of all but the latest `keep` invocations of each study.

    Raises:
        InputError: a negative number.
    """
    if keep < 0:
        raise InputError(f"keep is the number of invocations to keep, at least 0, got {keep}")
    doomed = []
    for experiment in store.client.search_experiments():
        runs = [
            run
            for run in every_run(store, experiment.experiment_id)
            if run.invocation and run.status != "RUNNING"
        ]
        ids = sorted({run.invocation for run in runs})
        kept = set(ids[len(ids) - keep :]) if keep else set()
        doomed += [run for run in runs if run.invocation not in kept]
    return doomed


def remove(store: Store, runs: list[TrackedRun]) -> int:
    """Delete the runs and their local artifacts; return the bytes freed."""
    freed = 0
    for run in runs:
        store.client.delete_run(run.run_id)
        folder = local_path(run.artifact_uri)
        if folder is not None and folder.exists():
            freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            remove_folder(folder.parent)
    return freed
