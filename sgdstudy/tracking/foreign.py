"""Rows that another program wrote: numbers and texts are read, exactly; other columns are named.

number, truth value        as it is; as a float where some are missing
text, dictionary of texts  as text; not where it is not UTF-8, or far longer than numbers are
seed, step                 as whole numbers, also where they were written as floats
times, lists, ...          left out, and so is what is called like one of our labels

Only columns that are wanted are looked at.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from sgdstudy.history.checksums import not_its_fault
from sgdstudy.history.files import ROW_GROUP
from sgdstudy.tracking.parquet import AXES, LABELS, TEXT_WIDTH, chunks_of

MOST_TEXT = 100_000_000  # bytes of the texts of a column


def adapted(
    path: Path, axis: str, columns: Collection[str] | None = None
) -> tuple[ds.Dataset, list[str]]:
    """Return the rows of a Parquet file, and which of its columns are left out.

    Args:
        path: where it is.
        axis: the column that numbers them.
        columns: those that are wanted, beside what orders the rows; None: all.

    Raises:
        ValueError: the column of the seed, or that one, holds no whole numbers.
        pa.ArrowException: the file cannot be read.
    """
    fields, left = [], list[str]()
    file = pq.ParquetFile(path, memory_map=True)
    for field in ds.dataset(path, format="parquet").schema:
        name, key = field.name, field.name in ("seed", axis)
        wanted = columns is None or name in columns or name in ("seed", *AXES)
        found = (_as_kind(path, file, name, kind, wanted) for kind in _kinds(field, key))
        kept = next((field for field in found if field is not None), None)
        if key and kept is None:
            raise ValueError(f"its column {name} holds no whole numbers")
        if kept is not None and name not in LABELS:
            fields.append(kept)
        elif columns is None or name in columns:
            left.append(f"{name} ({field.type})")
    read = [field.name for field in fields if columns is None or field.name in columns]
    next(file.iter_batches(1, columns=read), None)  # can it be read?
    return ds.dataset(path, format="parquet", schema=pa.schema(fields)), left


def allowed(axis: str) -> str:
    """Return what rows of another program have to be."""
    return f"it has to be a Parquet file, seed and {axis} whole numbers in it, none missing"


def require_numbers(path: Path, axis: str) -> None:
    """Refuse rows that cannot be compared with those of a run.

    Raises:
        ValueError: they hold more than numbers, or nothing tells which row is which.
        pa.ArrowException: the file cannot be read.
    """
    rows, left = adapted(path, axis)
    kept = dict(zip(rows.schema.names, rows.schema.types, strict=True))
    left += [f"{name} ({kind})" for name, kind in kept.items() if pa.types.is_string(kind)]
    if left:
        raise ValueError(f"columns that hold no numbers: {', '.join(left)}")
    if lacking := [name for name in ("seed", axis) if name not in kept]:
        raise ValueError(f"it has no column {lacking[0]}")


def _kinds(field: pa.Field, key: bool) -> list[pa.DataType]:
    """Return what a column may be read as, the best first; [] for what is no number and no text."""
    is_a = pa.types
    kind = field.type.value_type if is_a.is_dictionary(field.type) else field.type
    if key:
        return [pa.int64()] if is_a.is_integer(kind) or is_a.is_floating(kind) else []
    if is_a.is_string(kind) or is_a.is_large_string(kind) or is_a.is_string_view(kind):
        return [pa.string()]
    if is_a.is_integer(kind) or is_a.is_boolean(kind):
        return [kind, pa.float64()]
    if is_a.is_floating(kind):
        return [kind]
    return [pa.float64()] if is_a.is_null(kind) else []


def _as_kind(
    path: Path, file: pq.ParquetFile, name: str, kind: pa.DataType, wanted: bool
) -> pa.Field | None:
    """Return a column as a kind; None: it cannot be read as that. One not wanted is not read."""
    as_it_is = pa.types.is_floating(kind) and file.schema_arrow.field(name).type == kind
    if as_it_is or not wanted:
        return pa.field(name, kind)
    try:
        if pa.types.is_string(kind):
            size = _bytes_of_texts(path, file, name)
            if size > MOST_TEXT:
                return None
            width = -(-size // max(1, file.metadata.num_rows))
            return pa.field(name, kind, metadata={TEXT_WIDTH: str(width)})
        return pa.field(name, kind) if _holds(file, name, kind) else None
    except pa.ArrowException as error:
        if not_its_fault(error):
            raise
        return None


def _holds(file: pq.ParquetFile, name: str, kind: pa.DataType) -> bool:
    """Whether a column can be read as a kind of number, exactly: only floats may be missing."""
    nulls = (
        batch[name].cast(kind).null_count for batch in file.iter_batches(ROW_GROUP, columns=[name])
    )
    return not any(n and not pa.types.is_floating(kind) for n in nulls)


def _bytes_of_texts(path: Path, file: pq.ParquetFile, name: str) -> int:
    """Return the bytes that all texts of a column take, each text of a file once in memory.

    Raises:
        pa.ArrowInvalid: one is not UTF-8.
    """
    told = sum(int(chunk.total_uncompressed_size) for chunk in chunks_of(file.metadata, name))
    if told > MOST_TEXT:
        return told
    size = 0
    once = pq.ParquetFile(path, memory_map=True, read_dictionary=[name])
    for batch in once.iter_batches(ROW_GROUP, columns=[name]):
        texts = batch[name]
        texts.dictionary.cast(pa.string()).validate(full=True)
        lengths = pc.binary_length(texts.dictionary).cast(pa.int64())
        size += pc.sum(lengths.take(texts.indices)).as_py() or 0
    return size
