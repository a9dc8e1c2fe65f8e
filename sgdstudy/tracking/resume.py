"""Going on with a run that was cut off: finding it, and keeping checkpoints of the new one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sgdstudy.errors import InputError, StoreError
from sgdstudy.history.checksums import Sealed, checked, readable
from sgdstudy.history.rows import AXIS
from sgdstudy.language import say, to_say
from sgdstudy.secrecy import recordable
from sgdstudy.tracking.retry import is_away, reason_of
from sgdstudy.tracking.runs import artifact, search
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.store import Store
from sgdstudy.tracking.tracked_run import CONFIG, TrackedRun
from sgdstudy.training.checkpoint import (
    NAME,
    PLAIN,
    Values,
    identity,
    joined,
    part,
    read,
    restore,
    snapshot,
    write,
)
from sgdstudy.training.run import Run

SECONDS = 60.0  # between two checkpoints
ENDED = ("FINISHED", "KILLED", "FAILED")
log = logging.getLogger("sgdstudy")


@dataclass(frozen=True)
class Former:
    """A run to go on with.

    Attributes:
        run_id: MLflow's id.
        values: its checkpoint.
        rows: its `steps.parquet` and `epochs.parquet`.
    """

    run_id: str
    values: Values
    rows: dict[str, Path]

    def check(self, now: Mapping[str, Any]) -> None:
        """Raise `InputError` where another run was meant, or rows are missing."""
        then = part(self.values, "identity")
        other = [name for name, value in now.items() if then.get(name) != value]
        if other:
            raise InputError(f"its checkpoint is of another configuration ({', '.join(other)})")
        for kind, n in part(self.values, "rows").items():
            there = Sealed.open(self.rows[kind]).metadata.num_rows if kind in self.rows else 0
            if there < n:
                raise InputError(f"its {kind} have {there} rows, its checkpoint knows of {n}")


def find_former(
    store: Store, study: str, arm: str, tags: Mapping[str, str], folder: Path
) -> Former | None:
    """Return the latest run of an arm that has a checkpoint; None, and a line, if there is none.

    Args:
        store: where to look.
        study: the experiment's name, without prefix.
        arm: the run's name.
        tags: what it must have: the configuration's hash, the version of the code.
        folder: where files of a remote store are put.
    """
    for run in _ended_runs(store, study, arm, tags):
        try:
            path = artifact(store, run, NAME, folder)
            if path is None:
                continue
            values = read(path)
            rows = {kind: artifact(store, run, f"{kind}.parquet", folder) for kind in AXIS}
            there = {kind: path for kind, path in rows.items() if path is not None}
            for path in there.values():
                with readable(path):
                    checked(path, run.sums.get(path.name))
        except InputError as error:
            if is_away(error):
                raise
            which = {"arm": arm, "run": run.run_id, "why": str(error)}
            log.warning("%s", say("{arm}: run {run} is left out: {why}", **which))
            continue
        return Former(run.run_id, values, there)
    config = {CONFIG: tags[CONFIG]}
    of_other_code = (
        run
        for run in _ended_runs(store, study, arm, config)
        if not tags.items() <= run.tags.items()
    )
    why = say("no run of it can be gone on with")
    if next(of_other_code, None):
        why = say(
            "no run of it can be gone on with; what there is is of another version of the code, "
            "or of torch"
        )
    elif next(_ended_runs(store, study, arm, {}), None):
        why = say(
            "no run of it can be gone on with; what there is had other settings, data, functions "
            "or first parameters"
        )
    log.warning("%s", say("{name} starts from the beginning: {why}", name=arm, why=why))
    return None


def _ended_runs(
    store: Store, study: str, arm: str, tags: Mapping[str, str]
) -> Iterator[TrackedRun]:
    """Yield the runs of an arm that are over, the latest first."""
    only = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    try:
        experiment = store.experiment(study)
        found = search(store, [experiment], only)
    except Exception as error:
        if not is_away(error):
            raise
        raise StoreError(f"{arm} cannot be gone on with now: {reason_of(error)}") from error
    for run in sorted(found, key=lambda run: run.order, reverse=True):
        if run.name == recordable(arm) and run.status in ENDED:
            yield run


class Keeper:
    """Saves a training run between its chunks, and lets it begin where another one stood.

    Args:
        sink: where its rows go.
        config_hash: see `described.config_hash`.
        seconds: how long after the beginning, and after one another; 0: after every chunk.
        former: the run to go on with.
        parts: fingerprints of what the run is made of, see `recipe.identity`.
        now: returns them as they are now; None: they are what they were.
    """

    def __init__(
        self,
        sink: RunSink,
        config_hash: str,
        seconds: float = SECONDS,
        former: Former | None = None,
        parts: Mapping[str, str] | None = None,
        now: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        self.sink, self.config_hash, self.seconds, self.former = sink, config_hash, seconds, former
        self.parts, self.now = parts or {}, now
        self.path = sink.journal.folder / NAME
        self._failed = False
        self._began = self._saved = time.perf_counter()

    def begin(self, run: Run) -> float:
        """Bring the run to where the former one stood; return the seconds that one had taken."""
        name = self.sink.journal.opening.name
        if self.former is None:
            return 0.0
        try:
            self.former.check(identity(run, self.config_hash, self.parts))
            restore(run, self.former.values)
        except InputError as error:
            which = {"name": name, "run": self.former.run_id, "why": str(error)}
            text = to_say(
                "{name} starts from the beginning: run {run} cannot be gone on with: {why}"
            )
            log.warning("%s", say(text, **which))
            self.former = None
            return 0.0
        values = self.former.values
        self.sink.take_over(self.former.rows, part(values, "rows"), part(values, "series"))
        which = {"name": name, "run": self.former.run_id, "epoch": str(run.epoch)}
        after = to_say("{name} goes on after epoch {epoch} of run {run}")
        text = to_say("{name} is taken over from run {run}") if run.over else after
        log.warning("%s", say(text, **which))
        seconds = float(values["at.seconds"])
        self._began -= seconds
        values.clear()  # they may be many times the model
        self.save(run)  # from here on nothing depends on the former run
        return seconds

    def between(self, run: Run) -> None:
        """Save the run if it is time to; one that was saved once is saved when it is over."""
        due = time.perf_counter() >= self._saved + self.seconds
        if due or (run.over and self.path.exists()):
            self.save(run)

    def save(self, run: Run) -> None:
        """Save the run; where that is not possible it goes on without, and says so.

        What its functions have changed of what they read is in no checkpoint: another process would
        go on with what was there at the beginning.
        """
        try:
            if not run.over and self.now is not None:
                self._require_same(self.now())
            series, rows = self.sink.state()
            values = snapshot(run) | joined(
                identity=identity(run, self.config_hash, self.parts),
                series=series,
                rows=rows,
                at={"seconds": time.perf_counter() - self._began},
                former={} if self.former is None else {"run_id": self.former.run_id},
            )
            write(self.path, values)
        except (OSError, TypeError, SafetensorError) as error:
            if not self._failed:
                name = self.sink.journal.opening.name
                which = {"name": name, "why": reason_of(error)}
                log.warning("%s", say("{name} has no new checkpoint: {why}", **which))
            self._failed = True
        self._saved = time.perf_counter()

    def _require_same(self, now: Mapping[str, str]) -> None:
        """Raise `TypeError` where what the run is made of is not what it was."""
        compared = {name: value for name, value in self.parts.items() if name not in PLAIN}
        changed = [name for name, value in compared.items() if now.get(name) != value]
        if changed:
            raise TypeError(
                f"what its functions read has changed since it began ({', '.join(changed)}), which "
                f"no checkpoint holds; what changes no number may be named, see docs/training.md"
            )
