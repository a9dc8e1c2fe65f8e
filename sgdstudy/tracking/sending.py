"""Sending a run: the store gets what it has not got of it, in an order that may end anywhere.

The part of `journal.Journal` that talks to the store.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgdstudy.errors import Away, InputError, Refused
from sgdstudy.history.rows import AXIS
from sgdstudy.history.shared import make_folder, share
from sgdstudy.language import say, to_say
from sgdstudy.tracking import chart_views, database, shapes
from sgdstudy.tracking.durable import move, write_json
from sgdstudy.tracking.entries import A_KEY, KEY, Closing, Opening, Stamped
from sgdstudy.tracking.runs import names_of_artifacts, search
from sgdstudy.tracking.store import Store
from sgdstudy.tracking.tracked_run import CHANGED, FINGERPRINT, INVOCATION, SWEPT, TrackedRun

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

NOTE = "mlflow.note.content"
# tag of an experiment: no, if its description is of changed options
STANDS = "sgdstudy.note_stands"


class Sending:
    """A run's folder as far as the store has heard of it.

    Attributes:
        store: where it is sent.
        folder: on this machine.
        opening: what the run is.
        key: the run's.
        run_id: MLflow's id; None as long as the store has not heard of it.
        uri: where the store keeps the run's artifacts; None as long as that is not known.
        changed: files and folders of the store to be synced before its own folder goes.
    """

    def __init__(self, store: Store, folder: Path, opening: Opening) -> None:
        self.store, self.folder, self.opening = store, folder, opening
        self.key = opening.tags[KEY]
        sent = self._told("sent.json", shapes.SENT, {})
        self.run_id: str | None = sent.get("run_id")
        self.uri: str | None = sent.get("uri")
        self.changed: list[Path] = []
        self._opened: bool = sent.get("opened", False)
        self._tried = True  # an earlier try may have created the run in the store
        self._doubted = bool(self.run_id)  # the run may be gone from the store since

    def artifacts(self) -> list[Path]:
        """Return the files that the store has not got yet."""
        return sorted((self.folder / "artifacts").glob("*"))

    @property
    def closing(self) -> Closing | None:
        """How the run ended; None: that is not written down."""
        written = self._told("closing.json", shapes.CLOSING)
        return Closing.of(written) if written else None

    @property
    def place(self) -> Path | None:
        """Where a local store keeps the run's artifacts; None where MLflow takes them to it."""
        known = self.run_id and self.uri
        return self.store.place(self.run_id or "", self.uri or "") if known else None

    def _deliver(self) -> None:
        """Send everything there is, in an order that leaves a readable run wherever it ends."""
        opening, closing = self.opening, self.closing
        self.store.require_same()
        self._forget_unknown(closing)
        points, tags = (closing.points, closing.tags) if closing else ([], {})
        if self.run_id is None:
            run = self._find(closing)
            if run is None:
                run, tags = self._create({**opening.tags, **tags}), {}
            else:
                self._require_unfinished(run, closing)
            self.run_id, self.uri = run.run_id, run.artifact_uri
            if closing is None:  # one that closes now is found by its key, should we be killed
                self._note_sent(opened=False)
        if self._opened and closing is None:
            return
        if self._opened:
            self._log(points, tags, {})
        else:
            first = [(key, step, value, opening.start_ms) for key, step, value in opening.points]
            self._log([*first, *points], tags, opening.params)
            if opening.data:
                self._log_data(_data_input(opening.data))
        files = [path.name for path in self.artifacts()]
        if files:
            self._log_artifacts()
        if closing:
            self._end(closing)
            self._require_there(closing, files)
        else:
            self._opened = True
            self._note_sent(opened=True)
            for path in self.artifacts():
                path.unlink()

    def _forget_unknown(self, closing: Closing | None) -> None:
        """Begin anew where the run that we know is not this one: of an older copy, or another."""
        if not self._doubted or self.run_id is None:
            return
        self._doubted = False
        try:
            run = TrackedRun.of(self.store.client.get_run(self.run_id))
        except Refused as error:
            if error.code != "RESOURCE_DOES_NOT_EXIST" or self.store.root is None:
                raise
        else:
            told, key = run.tags.get(KEY, ""), self.opening.tags[KEY]
            if not A_KEY.fullmatch(told) and run.start_ms == self.opening.start_ms:
                self.store.client.set_tag(self.run_id, KEY, key)  # people delete tags in the UI
                told = key
            if told == key:
                return self._require_unfinished(run, closing)
        self.run_id, self.uri, self._opened, self._tried = None, None, False, True

    def _require_unfinished(self, run: TrackedRun, closing: Closing | None) -> None:
        """Refuse to write over a run that ended otherwise than this folder says: it is a copy.

        One that was closed without its rows, because its folder was gone, may get them.

        Raises:
            InputError: it did.
        """
        ours = (closing.status, closing.end_ms) if closing else None
        if run.end_ms is None or run.status == "RUNNING" or (run.status, run.end_ms) == ours:
            return
        names = () if run.finished else names_of_artifacts(self.store, run)
        if run.finished or {f"{kind}.parquet" for kind in AXIS} & set(names):
            text = to_say("the store has the run as it ended ({status}), and this is an older copy")
            raise InputError(say(text, status=run.status))

    def _told(self, name: str, check: shapes.Check, instead: Any = None) -> Any:
        """Return what a file of the folder holds, if it is of this run."""
        return shapes.read_or(self.folder / name, check, instead, self.key)

    def _tell(self, name: str, value: Any) -> None:
        """Write a file of the folder, as one of this run."""
        write_json(self.folder / name, value, owner=self.key)

    def _note_sent(self, opened: bool) -> None:
        about = {"run_id": self.run_id, "uri": self.uri, "opened": opened}
        self._tell("sent.json", about)

    def _find(self, closing: Closing | None) -> TrackedRun | None:
        """Return the run where an earlier attempt made it and could not tell us.

        Raises:
            InputError: it was dropped since, by a prune or a resumed sweep, or deleted in MLflow;
                or a sweep was resumed while its folder was elsewhere.
        """
        if not self._tried:
            self._tried = True
            return None
        experiment = self.store.experiment(self.opening.study)
        only = f"tags.`{KEY}` = '{self.opening.tags[KEY]}'"
        found = search(self.store, [experiment], only, most=1)
        if found:
            return found[0]
        path = self.store.database
        if search(self.store, [experiment], only, most=1, deleted=True) or (
            path is not None and database.was_dropped(path, self.key)
        ):
            raise InputError(say("the store had the run, and it was deleted there"))
        if closing is not None and closing.status != "FINISHED" and self._came_anew(experiment):
            raise InputError(say("a resumed sweep has trained its combination again"))
        return None

    def _came_anew(self, experiment: str) -> bool:
        """Whether the store has a finished run of the same combination of the same sweep."""
        told = {name: self.opening.tags.get(name, "") for name in (INVOCATION, FINGERPRINT)}
        if SWEPT not in self.opening.tags or not all(told.values()):
            return False
        only = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in told.items())
        found = search(self.store, [experiment], only)
        return any(run.finished and CHANGED not in run.tags for run in found)

    def _create(self, tags: dict[str, str]) -> TrackedRun:
        opening = self.opening
        made = self.store.client.create_run(
            self.store.experiment(opening.study),
            start_time=opening.start_ms,
            tags=tags,
            run_name=opening.name,
        )
        return TrackedRun.of(made)

    def _log(self, points: list[Stamped], tags: dict[str, str], params: dict[str, str]) -> None:
        """Send points, tags and params, in one call where they are not too many."""
        from mlflow.entities import Metric, Param, RunTag

        assert self.run_id is not None
        self.store.client.log_batch(
            self.run_id,
            [Metric(key, value, time_ms, step) for key, step, value, time_ms in points],
            [Param(name, value[:6000]) for name, value in params.items()],
            [RunTag(name, value) for name, value in tags.items()],
        )

    def _log_data(self, data: DatasetInput) -> None:
        assert self.run_id is not None
        for attempts_left in (2, 1, 0):
            try:
                return self.store.client.log_inputs(self.run_id, [data])
            except Refused as error:
                # two processes may log the same new data set at once; the second try finds it
                if error.code != "BAD_REQUEST" or not attempts_left:
                    raise

    def _log_artifacts(self) -> None:
        assert self.run_id is not None
        place = self.place
        if place is None:
            self.store.client.log_artifacts(self.run_id, str(self.folder / "artifacts"))
            return
        self.changed += [*make_folder(place), place]
        for path in self.artifacts():  # what was moved before a kill is there, and whole
            move(path, place / path.name)
            share(place / path.name)
            self.changed.append(place / path.name)

    def _end(self, closing: Closing) -> None:
        assert self.run_id is not None
        client = self.store.client
        if closing.note is not None:
            self._describe(closing.note, closing.stands)
        if closing.views is not None:
            experiment = self.store.experiment(self.opening.study)
            chart_views.save(self.store, experiment, closing.views, closing.charts)
        client.set_terminated(self.run_id, status=closing.status, end_time=closing.end_ms)

    def _describe(self, note: str, stands: bool) -> None:
        """Describe the experiment; results of changed options do not replace the defaults'."""
        client, experiment = self.store.client, self.store.experiment(self.opening.study)
        if not stands:
            tags = client.get_experiment(experiment).tags
            if NOTE in tags and tags.get(STANDS) != "no":
                return
        client.set_experiment_tag(experiment, NOTE, note)
        client.set_experiment_tag(experiment, STANDS, "yes" if stands else "no")

    def _require_there(self, closing: Closing, files: list[str]) -> None:
        """Look whether a server has what it said yes to: something on the way may say so to all."""
        if self.store.root is not None:
            return
        assert self.run_id is not None
        found = self.store.client.get_run(self.run_id)
        there = {item.path for item in self.store.client.list_artifacts(self.run_id)}
        points = {key for key, _, _, _ in closing.points}
        whole = found.info.status == closing.status and points <= set(found.data.metrics)
        if not whole or not set(files) <= there:
            raise Away(f"{self.store.shown} said yes to the run, and does not have all of it")


def _data_input(data: dict[str, Any]) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    found = Dataset(
        name=data["name"],
        digest=data["digest"],
        source_type="code",
        source=json.dumps({"tags": {"package": "sgdstudy"}}),
        profile=json.dumps(data["profile"]),
    )
    return DatasetInput(found, [InputTag("mlflow.data.context", "training")])
