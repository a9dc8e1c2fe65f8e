"""Rows that another program wrote: numbers and texts are read, exactly; other columns are named.

number, truth value        as it is; as a float where some are missing
text, dictionary of texts  as text
seed, step                 as whole numbers, also where they were written as floats
times, lists, ...          left out, and so is what is called like one of our labels
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from sgdstudy.history.checksums import not_its_fault
from sgdstudy.history.rows import ROW_GROUP
from sgdstudy.tracking.parquet import LABELS


def adapted(path: Path, axis: str) -> tuple[ds.Dataset, list[str]]:
    """Return the rows of a Parquet file, and which of its columns are left out.

    Args:
        path: where it is.
        axis: the column that numbers them.

    Raises:
        ValueError: the column of the seed, or that one, holds no whole numbers.
        pa.ArrowException: the file cannot be read.
    """
    fields, left = [], list[str]()
    file = pq.ParquetFile(path, memory_map=True)
    for field in ds.dataset(path, format="parquet").schema:
        key = field.name in ("seed", axis)
        kind = next((kind for kind in _kinds(field, key) if _holds(file, field.name, kind)), None)
        if key and kind is None:
            raise ValueError(f"its column {field.name} holds no whole numbers")
        if kind is None or field.name in LABELS:
            left.append(f"{field.name} ({field.type})")
        else:
            fields.append(pa.field(field.name, kind))
    next(file.iter_batches(1, columns=[field.name for field in fields]), None)  # can it be read?
    return ds.dataset(path, format="parquet", schema=pa.schema(fields)), left


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


def _holds(file: pq.ParquetFile, name: str, kind: pa.DataType) -> bool:
    """Whether a column can be read as a kind, exactly: only floats and texts may be missing."""
    if pa.types.is_floating(kind) and file.schema_arrow.field(name).type == kind:
        return True
    may_lack = pa.types.is_floating(kind) or pa.types.is_string(kind)
    try:
        for batch in file.iter_batches(ROW_GROUP, columns=[name]):
            if batch[name].cast(kind).null_count and not may_lack:
                return False
    except pa.ArrowException as error:
        if not_its_fault(error):
            raise
        return False
    return True
