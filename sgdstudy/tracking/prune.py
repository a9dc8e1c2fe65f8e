"""Dropping older invocations."""

from __future__ import annotations

from sgdstudy.errors import InputError
from sgdstudy.tracking.runs import TrackedRun, every_run
from sgdstudy.tracking.store import Store, local_path, remove_folder
from sgdstudy.tracking.writing import alive

Doomed = dict[tuple[str, str], list[TrackedRun]]  # by experiment and user


def plan(store: Store, keep: int) -> Doomed:
    """Return the runs of all but the latest `keep` invocations of each study and user.

    Invocations that a command writes to now are left alone.

    Raises:
        InputError: a negative number.
    """
    if keep < 0:
        raise InputError(f"keep is the number of invocations to keep, at least 0, got {keep}")
    found: Doomed = {}
    for experiment in store.client.search_experiments():
        for run in every_run(store, experiment.experiment_id):
            if run.invocation and run.status != "RUNNING":
                whose = run.tags.get("mlflow.user", "unknown")
                found.setdefault((experiment.name, whose), []).append(run)
    doomed = {of: _older(runs, keep) for of, runs in sorted(found.items())}
    living = alive(store, {run.invocation for runs in doomed.values() for run in runs})
    doomed = {
        of: [run for run in runs if run.invocation not in living] for of, runs in doomed.items()
    }
    return {of: runs for of, runs in doomed.items() if runs}


def _older(runs: list[TrackedRun], keep: int) -> list[TrackedRun]:
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
        several = len({run.invocation for run in runs})
        lines.append(
            f"{name}, of {whose}: {len(runs)} run{'s' * (len(runs) > 1)} "
            f"of {several} invocation{'s' * (several > 1)}"
        )
    return lines


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
