"""Rows on their way out of the trainer: kept in memory, or streamed to disk, then Parquet."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgdstudy.errors import InputError, quoted

SCHEMA_VERSION = "1"
AXIS = {"steps": "step", "epochs": "epoch"}  # the column that numbers a kind of rows
ROW_GROUP = 50_000  # small enough that a reader of one seed can skip most
WHOLE_NUMBERS = ["seed", "epoch", "batch", "size"]  # worth a dictionary in Parquet; floats are not
WHOLE = {"seed": np.int64, "step": np.int64} | dict.fromkeys(("epoch", "batch", "size"), np.int32)
HELD_SECONDS, HELD_ROWS = 1.0, 65_536


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
        keep = self.keep.T
        flat = {
            name: np.broadcast_to(values, self.keep.shape).T[keep]
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
        except (KeyError, TypeError, ValueError, RuntimeError):
            row = []
        if not row or len(values) != len(row):
            raise InputError(
                f"every step logs one number each of {', '.join(self._names) or 'some names'}; "
                f"this one has {quoted(dict(values))}"
            )
        self._count = (self._count if step is None else int(step)) + 1
        self._rows.append([*row, seed, self._count - 1])
        return len(self._rows) >= HELD_ROWS or time.monotonic() >= self._due

    def take(self) -> Rows | None:
        """Return what is held as one block, and let go of it; None: nothing is."""
        if not self._rows:
            return None
        names = (*self._names, "seed", "step")
        table = np.array(self._rows)
        columns = {
            name: table[:, i, None].astype(WHOLE.get(name, float)) for i, name in enumerate(names)
        }
        first = {name: columns.pop(name) for name in WHOLE if name in columns}
        self._rows, self._due = [], time.monotonic() + HELD_SECONDS
        return Rows({**first, **columns}, np.ones((len(table), 1), bool))


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
        self._batches[kind].append(rows.batch())

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
    """Append the rows to Arrow IPC streams in a folder; readable whatever happens to us."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._files: dict[str, Any] = {}
        self._writers: dict[str, pa.ipc.RecordBatchStreamWriter] = {}
        self.n_rows: dict[str, int] = {}  # by kind, written so far

    def write(self, kind: str, rows: Rows) -> None:
        """Append a block; once this returns it is on the disk, whatever happens to us."""
        self.append(kind, rows.batch())

    def append(self, kind: str, batch: pa.RecordBatch) -> None:
        """Append rows as they are."""
        if kind not in self._writers:
            self._files[kind] = open(self.folder / f"{kind}.arrow", "wb")  # noqa: SIM115
            self._writers[kind] = pa.ipc.new_stream(self._files[kind], batch.schema)
        self._writers[kind].write_batch(batch)
        self._files[kind].flush()
        os.fsync(self._files[kind].fileno())
        self.n_rows[kind] = self.n_rows.get(kind, 0) + batch.num_rows

    def close(self) -> None:
        """End the streams."""
        for kind, writer in self._writers.items():
            writer.close()
            self._files[kind].close()

    def drop(self) -> None:
        """Let go of the files as they are: what was written stays."""
        for file in self._files.values():
            with contextlib.suppress(OSError):  # the disk may be full
                file.close()

    def batches(self, kind: str) -> Iterator[pa.RecordBatch]:
        """Give back what was written."""
        path = self.folder / f"{kind}.arrow"
        if path.exists():
            yield from read_stream(path)

    def to_parquet(self, kind: str, path: Path) -> int:
        """Write one Parquet file of all blocks, without holding them; return its rows."""
        return write_parquet(self.batches(kind), path)


class Files:
    """Rows that lie in Parquet files."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self.paths = paths

    def write(self, kind: str, rows: Rows) -> None:
        """Refuse: these files are finished."""
        raise TypeError("a finished run takes no more rows")

    def batches(self, kind: str) -> Iterator[pa.RecordBatch]:
        """Read the file in blocks."""
        if kind not in self.paths:
            return
        file = pq.ParquetFile(self.paths[kind])
        if file.metadata.num_rows == 0:  # iter_batches would yield nothing, not even the columns
            yield from file.read().to_batches() or [
                pa.RecordBatch.from_pylist([], schema=file.schema_arrow)
            ]
        yield from file.iter_batches(ROW_GROUP)


def read_stream(path: Path) -> Iterator[pa.RecordBatch]:
    """Read an Arrow stream, up to the point where its writer was cut off."""
    with open(path, "rb") as file:
        try:
            reader = pa.ipc.open_stream(file)
            yield from reader
        except (pa.ArrowInvalid, OSError):  # the last block was being written
            return


def write_parquet(batches: Iterator[pa.RecordBatch], path: Path) -> int:
    """Write the batches to one Parquet file in large row groups; return the number of rows."""
    rows = 0
    first = next(batches, None)
    if first is None:
        return rows
    with _writer(path, first.schema) as writer:
        held: list[pa.RecordBatch] = []
        waiting = 0
        for batch in itertools.chain([first], batches):
            held.append(batch)
            waiting += batch.num_rows
            rows += batch.num_rows
            if waiting >= ROW_GROUP:
                writer.write_table(pa.Table.from_batches(held), row_group_size=ROW_GROUP)
                held, waiting = [], 0
        writer.write_table(pa.Table.from_batches(held, first.schema), row_group_size=ROW_GROUP)
    return rows


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    schema = schema.with_metadata({"schema_version": SCHEMA_VERSION})
    # floats by bytes of equal weight: under LZ4 they take less room than under zstd as they are,
    # and half the time to read
    return pq.ParquetWriter(
        path,
        schema,
        compression="lz4",
        use_dictionary=[name for name in WHOLE_NUMBERS if name in schema.names],
        use_byte_stream_split=[f.name for f in schema if pa.types.is_floating(f.type)],
    )
