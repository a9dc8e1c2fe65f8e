"""The one place that talks to MLflow while something runs.

A run's rows go to an Arrow stream in its journal as they come. Closing the run turns the stream
into Parquet artifacts, and sends them with the few points that charts need, in one go.
"""

from __future__ import annotations

import atexit
import errno
import functools
import math
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sgdstudy import checkpoint, described, processes, views
from sgdstudy.errors import StoreError
from sgdstudy.history import History
from sgdstudy.journal import Closing, Journal, Opening, Point, Stamped, stamp
from sgdstudy.points import AXIS, INTERIM_POINTS, Series
from sgdstudy.predict import MOST_WORK, predict
from sgdstudy.record import Files, Held, Rows, Stream
from sgdstudy.store import Store, is_away, local_path, reason_of, remove_folder
from sgdstudy.trainer import train

if TYPE_CHECKING:
    from sgdstudy.study import Arm

INTERIM_SECONDS = 30.0
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@dataclass(frozen=True)
class Invocation:
    """One call of a study: what its runs have in common.

    Attributes:
        store: where it is tracked.
        study: the experiment's name, without prefix.
        id: sorts by time.
        command: what was typed.
        scratch: where a server's runs keep their files for this process to read.
        tags: of every run.
        resume: whether arms go on with runs that the store has of them.
        checkpoint_seconds: between two checkpoints of a run; 0: one after every chunk.
    """

    store: Store
    study: str
    id: str
    command: str
    scratch: Path | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    resume: bool = False
    checkpoint_seconds: float = checkpoint.SECONDS

    @classmethod
    def start(cls, store: Store, study: str, tags: Mapping[str, str] | None = None) -> Invocation:
        """Begin an invocation now; tags are for all of its runs."""
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
        words = [Path(sys.argv[0]).name, *sys.argv[1:]]
        scratch = None
        if store.root is None:
            scratch = Path(tempfile.mkdtemp(prefix="sgdstudy-"))
            atexit.register(remove_folder, scratch)
        label = f"{stamp}-{uuid.uuid4().hex[:4]}"
        return cls(store, study, label, " ".join(words), scratch, tags or {})

    def outside(self) -> Invocation:
        """Return the same for runs that belong to no invocation: `latest` stays what it was."""
        return replace(self, id="")

    def url(self) -> str:
        """Return the address of the charts; of the store's UI alone while the store is away."""
        try:
            experiment = self.store.client.get_experiment(self.store.experiment(self.study))
        except Exception as error:
            if not is_away(error):
                raise
            return self.store.server
        return views.url(self.store.server, experiment, self.id)

    @contextmanager
    def run(
        self,
        name: str,
        note: str,
        tags: dict[str, str],
        files: dict[str, Callable[[Path], object]] | None = None,
        *,
        over: bool = False,
        **opening: Any,
    ) -> Iterator[Journal]:
        """Open a run; whatever ends the block, the run is closed with a truthful status.

        Args:
            name: the run's name.
            note: its description.
            tags: further tags.
            files: artifacts of its beginning.
            over: the training is over already: the store hears of it once, when it is closed.
            opening: params, points, data, metrics; see `Opening`.
        """
        all_tags = {
            "mlflow.user": processes.user(),
            "mlflow.source.name": Path(sys.argv[0]).name,
            "mlflow.note.content": note,
            "sgdstudy.study": self.study,
            "sgdstudy.invocation": self.id,
            "sgdstudy.command": self.command,
            **processes.code_tags(),
            "sgdstudy.hardware": processes.hardware(),
            **processes.process_tags(),
            **self.tags,
            **tags,
        }
        with room_on_disk(name, self.store):
            told = Opening(self.study, name, all_tags, **opening)
            journal = Journal.begin(self.store, told, files or {}, send=not over)
            try:
                yield journal
            except BaseException as error:
                if not journal.closed:
                    killed = isinstance(error, KeyboardInterrupt)
                    try:
                        if journal.sink:
                            journal.sink.flush()
                        close_interrupted(journal, "KILLED" if killed else "FAILED", error)
                    except (OSError, StoreError):  # the disk is full: the next command closes it
                        journal.let_go()
                raise
            if not journal.closed and journal.sink:
                journal.sink.end()
            elif not journal.closed:
                journal.close(Closing("FINISHED"))

    def train(
        self,
        name: str,
        arm: Arm,
        progress: bool | None,
        tags: Mapping[str, str] | None = None,
        work: float = MOST_WORK,
    ) -> tuple[str, History]:
        """Predict one arm, then train it, as a tracked run; return the run's id and history.

        Args:
            name: the run's name.
            arm: what is trained.
            progress: show a bar; None: when there is someone to see it.
            tags: further tags.
            work: how much of it a prediction may take, see `predict`.

        Raises:
            StoreError: the rows cannot be written; what was recorded is kept.
        """
        fingerprint = described.config_hash(
            arm.problem, described.parameters(arm.problem, arm.config)
        )

        def take(sink: RunSink, former: checkpoint.Former | None) -> History:
            keeper = checkpoint.Keeper(sink, fingerprint, self.checkpoint_seconds, former)
            return train(
                arm.problem,
                config=arm.config,
                progress=progress,
                description=name,
                sink=sink,
                trajectory=arm.trajectory,
                keeper=keeper if arm.trajectory is None else None,
            )

        with tempfile.TemporaryDirectory(prefix="sgdstudy-") as folder:
            former = None
            if self.resume and arm.trajectory is None:
                wanted = {"sgdstudy.config_hash": fingerprint, **processes.code_tags()}
                former = checkpoint.find(self.store, self.study, name, wanted, Path(folder))
            predicted = predict(arm.problem, arm.config, work)
            made = functools.partial(take, former=former)
            return self.track(name, arm, predicted, made, tags or {})

    def track(
        self,
        name: str,
        arm: Arm,
        predicted: dict[str, float],
        take: Callable[[RunSink], History],
        tags: Mapping[str, str],
        over: bool = False,
    ) -> tuple[str, History]:
        """Track an arm whose history `take` makes, handing its rows to the sink as they come.

        Args:
            name: the run's name.
            arm: what is tracked.
            predicted: what theory expects.
            take: returns the history.
            tags: further tags.
            over: the training is over already: the store hears of it in one go.
        """
        problem, config = arm.problem, arm.config
        params = described.parameters(problem, config)
        known = [(f"predicted/{k}", 0, v) for k, v in predicted.items() if math.isfinite(v)]
        all_tags = {
            "sgdstudy.config_hash": described.config_hash(problem, params),
            views.CHARTED: "yes" if arm.charted else "no",
            **tags,
        }
        metrics = config.metrics or ()
        about: dict[str, Any] = {
            "params": params,
            "points": known,
            "data": described.data(problem),
            "metrics": metrics,
            "over": over,
        }
        note = f"{arm.about}\n\n{described.sentence(params)}"
        with self.run(name, note, all_tags, described.data_files(problem), **about) as journal:
            sink = RunSink(journal)
            try:
                history = take(sink)
            except BaseException:
                sink.stream.drop()
                raise
            history = replace(history, sink=sink.finish(history, self.scratch), predicted=predicted)
        return journal.run_id or journal.folder.name, history


@contextmanager
def room_on_disk(name: str, store: Store) -> Iterator[None]:
    """Say in one line that a run was stopped because nothing can be written any more."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise StoreError(
            f"{name} was stopped: {reason_of(error)}. What it had recorded is kept in "
            f"{store.streams}; the next command finishes the run"
        ) from error


class RunSink:
    """Takes a run's rows: all of them to disk, the chosen ones to MLflow."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.stream = Stream(journal.folder)
        self._series = Series(journal.opening.metrics)
        self._next = time.monotonic() + INTERIM_SECONDS
        self._interim = 0
        self._held = Held()
        journal.sink = self

    def log(self, values: Mapping[str, float], step: int | None = None, seed: int = 0) -> None:
        """Take the numbers of one step: what a loop of your own has, as it goes on.

        They are on the disk a second later at most, if the loop goes on; when the run ends, in
        whatever way but a kill, at the latest.

        Args:
            values: by name, the same names in every step.
            step: its number; None: one more than the last, from 0.
            seed: of the loop.

        Raises:
            InputError: other names than in the first step, or a value that is not a number.
            StoreError: the disk is full, or cannot be written.

        Example:
            with Invocation.start(store, "mine").run("run", "", {}, metrics=("loss",)) as journal:
                sink = RunSink(journal)
                for step in range(1000):
                    sink.log({"loss": 1 / (1 + step)})
        """
        if self._held.add(values, step, seed):
            self.flush()

    def flush(self) -> None:
        """Write the steps that are held."""
        rows = self._held.take()
        if rows is not None:
            self.write("steps", rows)

    def write(self, kind: str, rows: Rows) -> None:
        """Take a block of `steps` or of `epochs`.

        Raises:
            StoreError: the disk is full, or cannot be written.
        """
        with room_on_disk(self.journal.opening.name, self.journal.store):
            self.stream.write(kind, rows)
        self._series.add(kind, rows)
        if time.monotonic() > self._next and self._interim < INTERIM_POINTS:
            self.journal.show(self._series.latest())
            self._interim += 1
            self._next = time.monotonic() + INTERIM_SECONDS * 1.1**self._interim

    def batches(self, kind: str) -> Iterator[pa.RecordBatch]:
        """Give back what was written."""
        return self.stream.batches(kind)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Return the points chosen so far, and how many rows were written."""
        return self._series.state(), dict(self.stream.n_rows)

    def take_over(
        self, paths: dict[str, Path], n_rows: dict[str, int], series: dict[str, Any]
    ) -> None:
        """Begin with the first rows of another run, and the points that were chosen of them."""
        for kind, missing in n_rows.items():
            batches = Files(paths).batches(kind) if missing else iter(())
            while missing:
                part = next(batches).slice(0, missing).replace_schema_metadata()
                self.stream.append(kind, part)
                missing -= part.num_rows
        self._series.restore({name: values.numpy() for name, values in series.items()})

    def finish(self, history: History, scratch: Path | None = None) -> Files:
        """Close the run, and return where its rows lie now.

        Args:
            history: what the training returned.
            scratch: where this process keeps its own files of a run that goes to a server.
        """
        reason = described.summary_of_reasons(history)
        engine = ": ".join(filter(None, [history.engine, history.engine_note]))
        figures = [
            (f"result/{name}", 0, value) for name, value in described.results(history).items()
        ]
        status = "KILLED" if "interrupted" in reason else "FINISHED"
        tags = {"stop_reason": reason, "sgdstudy.engine": engine}
        return self._close(status, tags, figures, scratch)

    def end(self) -> Files:
        """Close a run that had no training of ours; return where its rows lie now."""
        self.flush()
        steps = [("result/steps", 0, float(self.stream.n_rows.get("steps", 0)))]
        return self._close("FINISHED", {}, steps, None)

    def _close(
        self, status: str, tags: dict[str, str], figures: list[Point], scratch: Path | None
    ) -> Files:
        self.flush()
        self.stream.close()
        journal = self.journal
        tags = {**tags, **checkpoint.adopt(journal)}
        closing = Closing(status, tags, points_of(journal, self._series, figures))
        to_parquet(journal)
        folder = journal.folder / "artifacts"
        if scratch is not None:
            scratch = scratch / journal.folder.name
            shutil.copytree(folder, scratch, copy_function=_link)
        sent = journal.close(closing)
        if scratch is not None:
            folder = scratch
        elif sent and journal.uri:
            folder = local_path(journal.uri) or folder
        paths = {kind: folder / f"{kind}.parquet" for kind in AXIS}
        return Files({kind: path for kind, path in paths.items() if path.exists()})


def close_interrupted(
    journal: Journal, status: str, error: BaseException | None = None, patience: float = 0.0
) -> bool:
    """Close a run that was cut off, with the rows its stream held; whether the store has it."""
    tags = {"stop_reason": "interrupted", **checkpoint.adopt(journal)}
    if error is not None and str(error):
        tags["sgdstudy.error"] = f"{type(error).__name__}: {reason_of(error)}"
    series, n_rows, last = Series(journal.opening.metrics), 0, None
    for kind, axis in AXIS.items():
        for batch in Stream(journal.folder).batches(kind):
            if batch.num_rows:
                series.add(kind, Rows.of(batch, axis))
            if kind == "steps" and batch.num_rows:
                n_rows += batch.num_rows
                last = max(last or 0, pc.max(batch["step"]).as_py())
    if last is not None:
        tags["sgdstudy.last_step"] = str(last)
    to_parquet(journal)
    steps = [("result/steps", 0, float(n_rows))] if journal.opening.params else []
    closing = Closing(status, tags, points_of(journal, series, steps))
    return journal.close(closing, patience)


def points_of(journal: Journal, series: Series, figures: list[Point]) -> list[Stamped]:
    """Return all points of a run; those sent while it went on keep their time, so none doubles."""
    sent = {(key, step) for key, step, _, _ in journal.interim}
    rest = [point for point in series.points() if point[:2] not in sent]
    return [*journal.interim, *stamp([*figures, *rest])]


def to_parquet(journal: Journal) -> None:
    """Turn a run's streams into Parquet files among its artifacts."""
    stream = Stream(journal.folder)
    for kind in AXIS:
        if next(stream.batches(kind), None) is not None:
            path = functools.partial(stream.to_parquet, kind)
            journal.add(f"{kind}.parquet", path)


def _link(source: str, target: str) -> None:
    """Give a file a second name; a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
