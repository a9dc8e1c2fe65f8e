"""Where a run's rows go: all of them to disk, the chosen ones to MLflow.

Rows go to an Arrow stream in the run's journal as they come. Closing the run turns the stream into
Parquet artifacts, and sends them with the few points that charts need, in one go.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sgdstudy.errors import Away, InputError, StoreError, message, shortened
from sgdstudy.history.checksums import Damaged, Sealed, checked, readable, undamaged
from sgdstudy.history.files import Files, write_parquet
from sgdstudy.history.history import History
from sgdstudy.history.rows import AXIS, Held, Rows
from sgdstudy.history.shared import make_within, share
from sgdstudy.history.stream import ArrowStream
from sgdstudy.language import parted, say, to_say
from sgdstudy.tracking import describe
from sgdstudy.tracking.chart_points import INTERIM_POINTS, Series
from sgdstudy.tracking.durable import move, sync
from sgdstudy.tracking.entries import KEY, Closing, Point, Stamped, stamp
from sgdstudy.tracking.journal import Journal
from sgdstudy.tracking.retry import reason_of
from sgdstudy.tracking.shapes import SUM_OF
from sgdstudy.tracking.store import Store
from sgdstudy.training import checkpoint
from sgdstudy.training.interrupts import end_fork

INTERIM_SECONDS = 30.0
log = logging.getLogger("sgdstudy")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
RESUMED_FROM = "sgdstudy.resumed_from"
DAMAGED = "sgdstudy.damaged"


class RunSink:
    """Takes a run's rows: all of them to disk, the chosen ones to MLflow."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.stream = _stream_of(journal, sync=journal.later is None)
        self._series = Series(journal.opening.metrics)
        self._next = time.monotonic() + INTERIM_SECONDS
        self._interim = 0
        self._held, self._process = Held(), os.getpid()
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
        end_fork(self._process)
        with room_on_disk(self.journal.opening.name, self.journal.store):
            self.stream.write(kind, rows)
        self._series.add(kind, rows)
        if time.monotonic() > self._next and self._interim < INTERIM_POINTS:
            with room_on_disk(self.journal.opening.name, self.journal.store):
                self.journal.show(self._series.latest())
            self._interim += 1
            self._next = time.monotonic() + INTERIM_SECONDS * 1.1**self._interim

    def batches(self, kind: str) -> Iterator[pa.RecordBatch]:
        """Give back what was written."""
        return self.stream.batches(kind)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Return the points chosen so far, and how many rows were written."""
        return self._series.state_dict(), dict(self.stream.n_rows)

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
        self._series.load_state_dict({name: values.numpy() for name, values in series.items()})

    def finish(self, history: History, scratch: Path | None = None) -> Files:
        """Close the run, and return where its rows lie now.

        Args:
            history: what the training returned.
            scratch: where this process keeps its own files of a run that goes to a server.
        """
        reason = describe.summary_of_reasons(history)
        engine = ": ".join(filter(None, [history.engine, history.engine_note]))
        figures = [
            (f"result/{name}", 0, value) for name, value in describe.results(history).items()
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
        tags = {**tags, **adopt(journal), **to_parquet(journal, self.stream.n_rows)}
        status = "FAILED" if journal.lost else status
        closing = Closing(status, tags, points_of(journal, self._series, figures))
        if scratch is not None:
            scratch = scratch / journal.folder.name
            shutil.copytree(journal.folder / "artifacts", scratch, copy_function=_link)
        journal.close(closing)
        paths = {kind: _place_of(f"{kind}.parquet", scratch, journal) for kind in AXIS}
        return Files({kind: path for kind, path in paths.items() if path is not None})


def close_interrupted(
    journal: Journal, status: str, error: BaseException | None = None, patience: float | None = 0.0
) -> bool:
    """Close a run that was cut off, with the rows its stream held; whether the store has it."""
    tags = {"stop_reason": "interrupted", **adopt(journal)}
    for path in journal.artifacts():
        if not path.stat().st_size:  # its content never reached the disk
            path.unlink()
    if error is not None and message(error):
        tags["sgdstudy.error"] = f"{type(error).__name__}: {reason_of(error)}"
    series, n_rows, last = Series(journal.opening.metrics), 0, None
    for kind, axis in AXIS.items():
        for batch in undamaged(_stream_of(journal).batches(kind), []):
            if batch.num_rows:
                series.add(kind, Rows.of(batch, axis))
            if kind == "steps" and batch.num_rows:
                n_rows += batch.num_rows
                last = max(last or 0, pc.max(batch["step"]).as_py())
    if last is not None:
        tags["sgdstudy.last_step"] = str(last)
    tags |= to_parquet(journal)
    steps = [("result/steps", 0, float(n_rows))] if journal.opening.params else []
    closing = Closing(status, tags, points_of(journal, series, steps))
    return journal.close(closing, patience)


def points_of(journal: Journal, series: Series, figures: list[Point]) -> list[Stamped]:
    """Return all points of a run; those sent while it went on keep their time, so none doubles."""
    sent = {(key, step) for key, step, _, _ in journal.interim}
    rest = [point for point in series.points() if point[:2] not in sent]
    return [*journal.interim, *stamp([*figures, *rest])]


def to_parquet(journal: Journal, written: Mapping[str, int] | None = None) -> dict[str, str]:
    """Turn a run's streams into Parquet files among its artifacts; return the tags it asks for.

    A stream that cannot be read to its end is kept beside them as it is.

    Args:
        journal: the run's.
        written: how many rows of each kind there have to be, as far as that is known.
    """
    stream, lost, sums = _stream_of(journal), list[str](), dict[str, str]()
    for kind in AXIS:
        damaged: list[Damaged] = []
        n_rows = 0
        (journal.folder / "artifacts" / f"{kind}.parquet").unlink(
            missing_ok=True
        )  # written by an earlier attempt
        if next(undamaged(stream.batches(kind), damaged), None) is not None:
            name = f"{kind}.parquet"
            journal.add(name, functools.partial(_rows_to_parquet, stream, kind, damaged))
            sealed = Sealed.open(journal.folder / "artifacts" / name)
            sums[SUM_OF + name], n_rows = sealed.crc, sealed.metadata.num_rows
        missing = (written or {}).get(kind, n_rows) - n_rows
        if missing and not damaged:
            damaged.append(Damaged("it is not the one that they were written to", missing))
        path = stream.folder / f"{kind}.arrow"
        if damaged and path.exists():
            kept = journal.folder / "artifacts" / f"{path.name}.damaged"
            make_within(kept.parent)
            kept.unlink(missing_ok=True)
            _link(str(path), str(kept))
            share(kept)
            sync(kept)
        for error in damaged[:1]:
            which = {"kind": kind, "why": str(error), "n": error.missing or 0}
            if error.missing is None:
                lost.append(say("some rows of {kind} cannot be read back ({why})", **which))
                continue
            line = say(
                "{n} row of {kind} cannot be read back ({why})",
                "{n} rows of {kind} cannot be read back ({why})",
                **which,
            )
            lost.append(line)
    journal.lost = parted(lost) if lost else ""
    if lost:
        which = {"name": shortened(journal.opening.name), "what": journal.lost}
        log.warning("%s", say("{name}: {what}", **which))
    return sums | ({DAMAGED: journal.lost} if lost else {})


def restore_rows(journal: Journal) -> None:
    """Make the Parquet files of a run that ended again, where they are not what it wrote.

    Until the store has the run its streams lie beside them. What lies in a file's place is kept.

    Raises:
        InputError: a stream is gone too, or damaged.
        Away: one of them cannot be read now.
    """
    closing, sums = journal.closing, dict[str, str]()
    if closing is None:
        return
    for kind in AXIS:
        crc = closing.tags.get(f"{SUM_OF}{kind}.parquet")
        rows = undamaged(_stream_of(journal).batches(kind), [])
        if crc is None and next(rows, None) is None:
            continue
        place = journal.folder / "artifacts" / f"{kind}.parquet"
        path = place if place.exists() else journal.find(place.name) or place
        try:
            with readable(path):
                checked(path, crc)
        except Away:
            raise
        except InputError:
            sums[SUM_OF + place.name] = _written_again(journal, kind, path)
    if sums:
        journal.write_down(replace(closing, tags=closing.tags | sums))


def _written_again(journal: Journal, kind: str, former: Path) -> str:
    """Write a Parquet file again from its stream, and keep the one there was; its checksum."""
    place = journal.folder / "artifacts" / f"{kind}.parquet"

    def write(path: Path) -> None:
        _stream_of(journal).to_parquet(kind, path)
        if not path.exists():
            raise Damaged("it is gone")
        if former.exists():
            move(former, place.with_name(f"{place.name}.damaged"))

    which = {"name": shortened(journal.opening.name), "file": place.name, "stream": f"{kind}.arrow"}
    try:
        journal.add(place.name, write)
    except Damaged as error:
        text = to_say(
            "{file} is gone or damaged, and {stream} too: {why}; put one of them back, then "
            "sgdstudy recover"
        )
        raise InputError(say(text, **which, why=str(error))) from error
    text = to_say("{name}: {file} was gone or damaged; it was made again from {stream}")
    log.warning("%s", say(text, **which))
    return Sealed.open(place).crc


def _stream_of(journal: Journal, sync: bool = True) -> ArrowStream:
    return ArrowStream(journal.folder, sync, journal.opening.tags[KEY])


def _rows_to_parquet(stream: ArrowStream, kind: str, damaged: list[Damaged], path: Path) -> None:
    write_parquet(undamaged(stream.batches(kind), damaged), path)


def _place_of(name: str, scratch: Path | None, journal: Journal) -> Path | None:
    """Return where an artifact of a run that was closed lies: in our own files of it first."""
    if scratch is not None and (scratch / name).exists():
        return scratch / name
    return journal.find(name)


def _link(source: str, target: str) -> None:
    """Give a file a second name; a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def room_on_disk(name: str, store: Store) -> Iterator[None]:
    """Say in one line that a run was stopped because nothing can be written any more."""
    try:
        yield
    except OSError as error:
        gone = not (store.streams.is_dir() and store.is_there()) or error.errno == errno.ESTALE
        if gone and str(error.filename).startswith(str(store.streams)):
            raise StoreError(
                f"{name} was stopped: {store.streams.parent} was moved, deleted or replaced. What "
                f"it had recorded is in it; the next command there finishes the run"
            ) from error
        if error.errno not in (*NO_ROOM, errno.EBADF):
            raise
        why = "a function closed files that are not its own"
        why = why if error.errno == errno.EBADF else reason_of(error)
        raise StoreError(
            f"{name} was stopped: {why}. What it had recorded is kept in "
            f"{store.streams}; the next command finishes the run"
        ) from error


def adopt(journal: Journal) -> dict[str, str]:
    """Make a run's checkpoint one of its artifacts; return the tags that it asks for."""
    if (journal.folder / checkpoint.NAME).exists():
        journal.adopt(journal.folder / checkpoint.NAME)
    try:
        path = journal.folder / "artifacts" / checkpoint.NAME
        former = checkpoint.read(path, tensors=False).get("former.run_id")
    except Away:
        raise
    except InputError:  # there is none
        return {}
    return {} if former is None else {RESUMED_FROM: former}
