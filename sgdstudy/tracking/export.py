"""A study's results as files, for other programs than Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from sgdstudy import checks
from sgdstudy.errors import InputError
from sgdstudy.history.rows import ROW_GROUP, WHOLE_NUMBERS
from sgdstudy.tracking.load import load_claims, load_runs, sources
from sgdstudy.tracking.parquet import LABELS, Source, dtype_of, gather
from sgdstudy.tracking.scratch import scratch
from sgdstudy.tracking.store import read_store

FORMATS = ("csv", "parquet")
FILES = ("runs", "claims", "epochs", "steps")


def export(
    study: str,
    folder: str | Path,
    to: str = "csv",
    *,
    arms: Any = None,
    invocation: str = "latest",
    store: str | None = None,
    force: bool = False,
) -> list[Path]:
    """Write the runs, claims, epochs and steps of a study as four files into a folder.

    The rows are those of `load_runs`, `load_claims`, `load_epochs` and `load_steps`; they are
    written run by run, so that no more than one run is in memory at a time. In CSV, what is not
    known is empty, and non-finite values are `nan`, `inf` and `-inf`.

    Args:
        study: an experiment's name, as `ex6_shuffle`.
        folder: where the files go; it is made.
        to: `csv` or `parquet`.
        arms: the arms wanted; None for all.
        invocation: `latest` (yours, where several people share a server), `all`, or an id.
        store: see `store.locate`.
        force: replace files that are there.

    Returns:
        Their paths.

    Raises:
        InputError: an unknown study, arm or format; files that are there already, or a folder
            that cannot be written.
    """
    checks.choice("format", to, FORMATS)
    folder = checks.path("the folder", folder)
    paths = [folder / f"{name}.{to}" for name in FILES]
    there = [path.name for path in paths if path.exists()]
    if there and not force:
        raise InputError(
            f"{folder} has {', '.join(there)} already; give another folder, or force=True (--force)"
        )
    where: dict[str, Any] = {"invocation": invocation, "store": store}
    tables = {"runs": load_runs(study, arms=arms, **where), "claims": load_claims(study, **where)}
    opened = read_store(store)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # whole or not at all: files are made beside their places, then renamed
        with scratch() as fetched, scratch(folder, ".export-") as draft:
            for name, path in zip(FILES, paths, strict=True):
                if name in tables:
                    _write(draft / path.name, iter([_without_dictionaries(tables[name])]))
                else:
                    found = sources(name, study, arms, invocation, opened, fetched)
                    _write(draft / path.name, _blocks(found))
            for path in paths:
                (draft / path.name).replace(path)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
    return paths


def _blocks(found: list[Source]) -> Iterator[pa.Table]:
    """Return the rows run after run, all with the columns of all runs."""
    names = list(dict.fromkeys(name for part in found for name in part.names))
    types = {name: dtype_of(name, found) for name in names}
    yield _table({name: np.empty(0, types[name]) for name in names} | {x: [] for x in LABELS})
    for part in found:
        rows = gather([part], part.names, None, None)
        columns: dict[str, Any] = {}
        for name in names:
            have = name in part.names
            columns[name] = rows[name].to_numpy(types[name]) if have else np.full(len(rows), np.nan)
        labels = {name: pa.repeat(text, len(rows)) for name, text in part.labels.items()}
        yield _table(columns | labels)


def _table(columns: dict[str, Any]) -> pa.Table:
    """Return an Arrow table in which NaN stays NaN."""
    arrays = {name: pa.array(values) for name, values in columns.items() if name not in LABELS}
    texts = {name: pa.array(columns[name], pa.string()) for name in LABELS}
    return pa.table(arrays | texts)


def _without_dictionaries(frame: pd.DataFrame) -> pa.Table:
    """Return a table for files: columns that hold several kinds of values become text."""
    for name in frame.columns:
        if frame[name].dtype != np.dtype(object):
            continue
        kinds = {type(value) for value in frame[name].dropna()}
        if len(kinds) > 1 or list in kinds:
            frame[name] = frame[name].map(str, na_action="ignore")
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()


def _write(path: Path, tables: Iterator[pa.Table]) -> None:
    """Write tables of the same columns to one file."""
    first = next(tables)
    with _writer(path, first.schema) as writer:
        for table in (first, *tables):
            for start in range(0, len(table), ROW_GROUP):
                writer.write_table(table.slice(start, ROW_GROUP))


def _writer(path: Path, schema: pa.Schema) -> Any:
    if path.suffix == ".csv":
        return pyarrow.csv.CSVWriter(str(path), schema)
    repeated = [name for name in (*WHOLE_NUMBERS, *LABELS) if name in schema.names]
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeated)
