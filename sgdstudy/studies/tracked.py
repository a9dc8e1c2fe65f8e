"""Histories of a plain `ss.train`, put into a store as the runs of a study are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted
from sgdstudy.history.history import History
from sgdstudy.history.rows import AXIS, Rows
from sgdstudy.recipe.identity import Identity
from sgdstudy.tracking import recovery
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.tracked_run import FINGERPRINT
from sgdstudy.tracking.writing import writing


def track(
    history: History | Mapping[str, History],
    study: str,
    arm: str | None = None,
    *,
    about: str = "",
    store: str | None = None,
) -> dict[str, str]:
    """Put one or several histories into a store, as one invocation; return run ids by arm.

    `ss.load_runs(study)` and the UI show them as the runs of a script: of several calls those of
    the last one, all with `ss.load_runs(study, invocation="all")`. `rerun` and `--resume` need a
    script.

    Args:
        history: of one arm; or of several, by name.
        study: the name of the experiment.
        arm: the name of the run; with several they have theirs.
        about: what they are there for.
        store: folder of the store, or tracking URI; default: the nearest mlruns/.

    Raises:
        InputError: what is not a history, a name that is not allowed, no such store.
        StoreError: the rows cannot be written.
    """
    if isinstance(history, Mapping) != (arm is None):
        raise InputError("give one history and arm=, or histories by the name of their arm")
    every: Mapping[Any, Any] = history if isinstance(history, Mapping) else {arm: history}
    for name, one in every.items():
        checks.name("an arm's name", name)
        if not isinstance(one, History):
            raise InputError(f"{name} is not a history, but {quoted(one)}")
    checks.folder_name("the study's name", study)
    invocation = Invocation.start(recovery.start(store, lambda line: None), study)
    with writing(invocation.store, study, invocation.id):
        return {name: _tracked(invocation, name, one, about) for name, one in every.items()}


def _tracked(invocation: Invocation, name: str, history: History, about: str) -> str:
    problem, config = history.problem, history.config

    def take(sink: RunSink) -> History:
        for kind, axis in AXIS.items():
            for batch in history.sink.batches(kind):
                sink.write(kind, Rows.of(batch, axis))
        return History(problem, config, sink, **history.outcome)

    known = Identity.of(problem, config)
    tags = {FINGERPRINT: known.hash or f"none: {known.unseen}"}
    given: dict[str, Any] = {"about": about, "tags": tags, "over": True}
    return invocation.track(name, problem, config, dict(history.predicted), take, **given)[0]
