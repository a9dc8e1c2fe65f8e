"""Rows on their way out of the trainer: kept in memory, or streamed to disk, then Parquet."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgdstudy.errors import Away, InputError, quoted, reason
from sgdstudy.history.checksums import (
    CHAINED,
    KIND,
    NAME,
    OWNER,
    UNREADABLE,
    Damaged,
    Within,
    checked,
    checked_blocks,
    is_cut,
    not_its_fault,
    readable,
    seal,
    sum_of,
    sum_of_owner,
    undamaged,
)
from sgdstudy.language import say, to_say
from sgdstudy.text import as_python

SCHEMA_VERSION = "1"
AXIS = {"steps": "step", "epochs": "epoch"}  # the column that numbers a kind of rows
ROW_GROUP = 50_000  # small enough that a reader of one seed can skip most
WHOLE_NUMBERS = ["seed", "epoch", "batch", "size"]  # worth a dictionary in Parquet; floats are not
WHOLE = {"seed": np.int64, "step": np.int64} | dict.fromkeys(("epoch", "batch", "size"), np.int32)
COUNT = "rows.count"  # beside the streams: how many rows each has
LONGEST_COUNT = 1000  # bytes
LARGEST_WHOLE = 2**53  # up to here every whole number is a float
HELD_SECONDS, HELD_ROWS = 1.0, 65_536
log = logging.getLogger("sgdstudy")


@dataclass(frozen=True)
class Rows:
    """One block of rows: `keep` marks which of the (S, R) places exist.

    Attributes:
        columns: name -> `(S, R)`; `(S, 1)` and `(1, R)` broadcast.
        keep: `(S, R)`, False once a replica has stopped or diverged.
    """

    columns: dict[str, np.ndarray]
    keep: np.ndarray

    def batch(self) -> pa.RecordBatch:
        """Return the rows that exist, seed by seed."""
        keep = slice(None) if self.keep.all() else self.keep.T.ravel()
        flat = {
            name: np.broadcast_to(values, self.keep.shape).T.ravel()[keep]
            for name, values in self.columns.items()
        }
        return pa.RecordBatch.from_pydict(flat)

    @classmethod
    def of(cls, batch: pa.RecordBatch, axis: str) -> Rows:
        """Return the block that a batch was: its steps (or epochs) by its seeds."""
        names = [name for name in batch.schema.names if name not in ("seed", axis)]
        points, row = np.unique(batch[axis].to_numpy(), return_inverse=True)
        seeds, replica = np.unique(batch["seed"].to_numpy(), return_inverse=True)
        shape = (len(points), len(seeds))
        keep = np.zeros(shape, bool)
        keep[row, replica] = True
        columns = {"seed": seeds[None, :], axis: points[:, None]}
        for name in names:
            values = batch[name].to_numpy()
            columns[name] = np.zeros(shape, values.dtype)
            columns[name][row, replica] = values
        return cls(columns, keep)


class Held:
    """Rows that come one at a time, held until they make a block.

    A row that comes a second or more after the last block is a block at once: only rows that
    come quickly wait, and none waits longer than until the first row after that second.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._rows: list[list[float]] = []
        self._keys: list[tuple[int, int]] = []  # seed and step of each
        self._rounded = set[str]()  # names of which that was said
        self._count, self._due = 0, 0.0

    def add(self, values: Mapping[str, float], step: int | None = None, seed: int = 0) -> bool:
        """Take the numbers of one step, by name; whether it is time for a block.

        Raises:
            InputError: other names than in the first step, or a value that is not a number.
        """
        if not self._names:
            self._names = tuple(values)
        try:
            row = [float(values[name]) for name in self._names]
        except (KeyError, TypeError, ValueError, OverflowError, RuntimeError):
            row = []
        if not row or len(values) != len(row):
            raise InputError(
                f"every step logs one number each of {', '.join(self._names) or 'some names'}; "
                f"this one has {quoted(dict(values))}"
            )
        self._count = (self._count if step is None else int(step)) + 1
        for name, kept in zip(self._names, row, strict=True):
            if abs(kept) >= LARGEST_WHOLE and name not in self._rounded:
                self._say_rounded(name, as_python(values[name]), kept)
        self._rows.append(row)
        self._keys.append((seed, self._count - 1))
        return len(self._rows) >= HELD_ROWS or time.monotonic() >= self._due

    def take(self) -> Rows | None:
        """Return what is held as one block, and let go of it; None: nothing is."""
        if not self._rows:
            return None
        table, keys = np.array(self._rows), np.array(self._keys, np.int64)
        columns = {
            name: table[:, i, None].astype(WHOLE.get(name, float))
            for i, name in enumerate(self._names)
        } | {"seed": keys[:, :1], "step": keys[:, 1:]}
        first = {name: columns.pop(name) for name in WHOLE if name in columns}
        self._rows, self._keys, self._due = [], [], time.monotonic() + HELD_SECONDS
        return Rows({**first, **columns}, np.ones((len(table), 1), bool))

    def _say_rounded(self, name: str, given: Any, kept: float) -> None:
        if isinstance(given, int) and given != kept:
            self._rounded.add(name)
            text = to_say(
                "{name}: {given} is kept as {kept}, as floats have 16 digits; log it in two parts"
            )
            log.warning("%s", say(text, name=name, given=str(given), kept=f"{kept:.0f}"))


@runtime_checkable
class Sink(Protocol):
    """Where a run's rows go."""

    def write(self, kind: str, rows: Rows) -> None:
        """Take a block of `steps` or of `epochs`."""

    def batches(self, kind: str) -> Iterator[pa.RecordBatch]:
        """Give back what was written."""


class Memory:
    """Keep the rows in memory."""

    def __init__(self) -> None:
        self._batches: dict[str, list[pa.RecordBatch]] = {"steps": [], "epochs": []}

    def write(self, kind: str, rows: Rows) -> None:
        """Take a block of `steps` or of `epochs`."""
        self.append(kind, rows.batch())

    def append(self, kind: str, batch: pa.RecordBatch) -> None:
        """Take rows as they are."""
        self._batches[kind].append(batch)

    def batches(self, kind: str) -> Iterator[pa.RecordBatch]:
        """Give back what was written."""
        yield from self._batches[kind]

    def whole(self) -> dict[str, pa.RecordBatch]:
        """Return the rows of each kind that there are as one block, and let go of them."""
        found = {}
        for kind, batches in self._batches.items():
            if batches:
                found[kind] = pa.concat_batches(batches)
                batches.clear()
        return found


class ArrowStream:
    """Append the rows to Arrow IPC streams in a folder; readable whatever happens to us.

    Args:
        folder: where they lie.
        sync: whether every block is on the disk before anything else happens; False: whoever
            writes sees to that himself.
        run: the key of the run that they are of.
    """

    def __init__(self, folder: Path, sync: bool = True, run: str = "") -> None:
        folder.mkdir(exist_ok=True)  # in one that is there: it may have been moved
        self.folder, self._sync, self._run = folder, sync, run
        self._files: dict[str, Any] = {}
        self._opened: dict[str, os.stat_result] = {}  # what these are
        self._writers: dict[str, pa.ipc.RecordBatchStreamWriter] = {}
        self._sums: dict[str, bytes] = {}  # of the last block
        self.n_rows: dict[str, int] = {}  # by kind, written so far

    def write(self, kind: str, rows: Rows) -> None:
        """Append a block; once this returns it is on the disk, whatever happens to us."""
        self.append(kind, rows.batch())

    def append(self, kind: str, batch: pa.RecordBatch) -> None:
        """Append rows as they are."""
        new, owner = kind not in self._writers, _owner(self._run, kind)
        about = {NAME: CHAINED, OWNER: owner}
        if new:
            self._open(kind)
            schema = batch.schema.with_metadata(about)
            self._writers[kind] = pa.ipc.new_stream(self._files[kind], schema)
            self._sums[kind] = sum_of_owner(owner)
        self._require_open()
        marked = batch.replace_schema_metadata(about)
        self._sums[kind] = sum_of(batch, self._sums[kind])
        self._writers[kind].write_batch(marked, {KIND: self._sums[kind]})
        self._files[kind].flush()
        if self._sync:
            os.fsync(self._files[kind].fileno())
        self.n_rows[kind] = self.n_rows.get(kind, 0) + batch.num_rows
        self._note()
        if new and self._sync:
            os.fsync(self._files["count"].fileno())
            sync_folder(self.folder)
        self._require_there()

    def _open(self, kind: str, **how: Any) -> None:
        self._files[kind] = open(self._path(kind), "wb", **how)  # noqa: SIM115
        self._opened[kind] = os.fstat(self._files[kind].fileno())

    def _path(self, kind: str) -> Path:
        return self.folder / (COUNT if kind == "count" else f"{kind}.arrow")

    def _require_open(self) -> None:
        """Raise `OSError` where a function of the user's closed a file that is ours.

        Another file may have its number by now, as the database: we would write into that.
        """
        for kind, opened in self._opened.items():
            if not os.path.samestat(os.fstat(self._files[kind].fileno()), opened):
                raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(self._path(kind)))

    def _require_there(self) -> None:
        """Raise `OSError` where a file that we write to is not the one of its name any more.

        Its folder was moved or replaced: nobody looks for what we wrote where we would.
        """
        for kind, opened in self._opened.items():
            try:
                same = os.path.samestat(os.stat(self._path(kind)), opened)
            except OSError:
                same = False
            if not same:
                self.drop()
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self._path(kind)))

    def _note(self) -> None:
        """Write down how many rows there are: a stream that is cut short tells nobody.

        Synced with the first block only: after a power failure it may be an older number, which is
        true as well.
        """
        if "count" not in self._files:
            self._open("count", buffering=0)
        text = json.dumps(self.n_rows).encode()
        self._files["count"].seek(0)
        self._files["count"].write(b"%s %08x\n" % (text, zlib.crc32(text)))

    def close(self) -> None:
        """End the streams."""
        self._require_open()
        for writer in self._writers.values():
            writer.close()
        self._require_there()
        self.drop()

    def drop(self) -> None:
        """Let go of the files as they are: what was written stays."""
        for file in self._files.values():
            with contextlib.suppress(OSError):  # the disk may be full
                file.close()

    def batches(self, kind: str) -> Iterator[pa.RecordBatch]:
        """Give back what was written.

        Raises:
            Damaged: there are less rows than were written; what comes before is as it was.
        """
        if has_stream(self.folder, kind):
            yield from read_stream(self._path(kind), self._run)

    def to_parquet(self, kind: str, path: Path) -> int:
        """Write one Parquet file of all blocks, without holding them; return its rows.

        Raises:
            Damaged: there are less rows than were written; the others are in the file.
        """
        return write_parquet(self.batches(kind), path)


class Files:
    """Rows that lie in Parquet files."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self.paths = paths

    def write(self, kind: str, rows: Rows) -> None:
        """Refuse: these files are finished."""
        raise TypeError("a finished run takes no more rows")

    def batches(self, kind: str) -> Iterator[pa.RecordBatch]:
        """Read the file in blocks.

        Raises:
            InputError: it is damaged.
        """
        if kind not in self.paths:
            return
        with readable(self.paths[kind]):
            file = checked(self.paths[kind])
        if file.metadata.num_rows == 0:  # iter_batches would yield nothing, not even the columns
            yield from file.read().to_batches() or [
                pa.RecordBatch.from_pylist([], schema=file.schema_arrow)
            ]
        yield from file.iter_batches(ROW_GROUP)


def _owner(run: str, kind: str) -> bytes:
    """Return whose a stream is, as it says itself."""
    return f"{run} {kind}".encode()


def read_stream(path: Path, run: str = "") -> Iterator[pa.RecordBatch]:
    """Read an Arrow stream, up to the point where its writer was cut off.

    Args:
        path: where it is.
        run: the key of the run that it has to be of.

    Raises:
        Damaged: there are less rows than were written, or it is another's; what comes before is as
            it was.
        Away: it cannot be read now, and may be as it was.
    """
    n_rows, what, expected = 0, "", None
    try:
        expected = counted(path.parent).get(path.stem)  # before the stream, which may be growing
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise Damaged("it is no file", expected)
        with open(path, "rb") as file:
            size, start = os.fstat(file.fileno()).st_size, 0
            try:
                reader = pa.ipc.open_stream(pa.PythonFile(Within(file), mode="r"))
                start = file.tell()
                for batch in checked_blocks(reader, _owner(run, path.stem)):
                    n_rows, start = n_rows + batch.num_rows, file.tell()
                    yield batch
                if file.read(1):
                    what = "it ends before its end"
            except UNREADABLE as error:
                if not_its_fault(error):
                    raise
                grew = os.fstat(file.fileno()).st_size != size  # its writer lives
                what = "" if size == 0 or grew or is_cut(file, start) else reason(error)
    except Damaged as error:
        what = str(error)
    except FileNotFoundError:
        what = "it is gone" if expected else ""
    except (OSError, MemoryError) as error:
        if why := not_its_fault(error):
            raise Away(f"{path} cannot be read now ({why})") from error
        what = getattr(error, "strerror", None) or reason(error)  # without its path
    missing = None if expected is None else max(0, expected - n_rows)
    if what or missing:
        raise Damaged(what or "it is shorter than what was written", missing)


def is_stream_of(path: Path, run: str) -> bool:
    """Whether an Arrow stream says that it is of a run."""
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        with open(path, "rb") as file:
            schema = pa.ipc.open_stream(pa.PythonFile(Within(file), mode="r")).schema
    except UNREADABLE:
        return False
    return (schema.metadata or {}).get(OWNER) == _owner(run, path.stem)


def has_stream(folder: Path, kind: str) -> bool:
    """Whether there is a stream of a kind of rows in a folder, or was one."""
    return (folder / f"{kind}.arrow").exists() or kind in counted(folder)


def counted(folder: Path) -> dict[str, int]:
    """Return how many rows of each kind a stream's folder had at least; {}: nothing tells."""
    try:
        if not (folder / COUNT).is_file():  # a pipe would be waited for
            return {}
        with open(folder / COUNT, "rb") as file:
            text, _, crc = file.read(LONGEST_COUNT).partition(b"\n")[0].rpartition(b" ")
        found = json.loads(text) if int(crc, 16) == zlib.crc32(text) else {}
    except (OSError, ValueError) as error:
        if not_its_fault(error) and not isinstance(error, FileNotFoundError):
            raise
        return {}
    known = found.items() if isinstance(found, dict) else ()
    return {kind: n for kind, n in known if kind in AXIS and isinstance(n, int)}


def write_parquet(batches: Iterator[pa.RecordBatch], path: Path) -> int:
    """Write the batches to one Parquet file in large row groups; return the number of rows.

    Raises:
        Damaged: the batches ended so; those before are in the file.
    """
    rows = 0
    damaged: list[Damaged] = []
    given = undamaged(batches, damaged)
    first = next(given, None)
    if first is not None:
        with _writer(path, first.schema) as writer:
            held: list[pa.RecordBatch] = []
            waiting = 0
            for batch in itertools.chain([first], given):
                held.append(batch)
                waiting += batch.num_rows
                rows += batch.num_rows
                if waiting >= ROW_GROUP:
                    writer.write_table(pa.Table.from_batches(held), row_group_size=ROW_GROUP)
                    held, waiting = [], 0
            writer.write_table(pa.Table.from_batches(held, first.schema), row_group_size=ROW_GROUP)
        seal(path)
    if damaged:
        raise damaged[0]
    return rows


def sync_folder(folder: Path) -> None:
    """Bring to the disk which files a folder has, where the system knows such a thing."""
    if os.name == "nt":  # NTFS writes that down by itself
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    schema = schema.with_metadata({b"schema_version": SCHEMA_VERSION, NAME: KIND})
    # floats by bytes of equal weight: under LZ4 they take less room than under zstd as they are,
    # and half the time to read
    return pq.ParquetWriter(
        path,
        schema,
        compression="lz4",
        use_dictionary=[name for name in WHOLE_NUMBERS if name in schema.names],
        write_page_checksum=True,
        use_byte_stream_split=[f.name for f in schema if pa.types.is_floating(f.type)],
    )
