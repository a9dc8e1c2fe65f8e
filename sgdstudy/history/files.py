"""Rows in Parquet files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sgdstudy.history.checksums import KIND, NAME, Damaged, checked, readable, seal, undamaged
from sgdstudy.history.rows import Rows

SCHEMA_VERSION = "1"
ROW_GROUP = 50_000  # small enough that a reader of one seed can skip most
WHOLE_NUMBERS = ["seed", "epoch", "batch", "size"]  # worth a dictionary in Parquet; floats are not


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
