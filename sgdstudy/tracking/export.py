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
from sgdstudy.errors import InputError, unwritable
from sgdstudy.history.files import ROW_GROUP, WHOLE_NUMBERS
from sgdstudy.language import say, to_say
from sgdstudy.tracking import memory
from sgdstudy.tracking.claims import claims_of, claims_table
from sgdstudy.tracking.load import runs_table, sources
from sgdstudy.tracking.parquet import LABELS, Source, dtype_of, gather
from sgdstudy.tracking.places import require_outside
from sgdstudy.tracking.runs import runs_of, without_runs
from sgdstudy.tracking.scratch import scratch
from sgdstudy.tracking.store import read_store

FORMATS = ("csv", "parquet")
FILES = ("runs", "claims", "epochs", "steps")
LEAST_BLOCK = 1_000_000.0  # bytes of rows that are held at a time
MOST_STEPS_A_ROW = 10  # of a seed; ours have 1, or more where rows were left out


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
    written run by run, long runs seed by seed: an eighth of the free memory is used. In CSV, what
    is not known is empty, and non-finite values are `nan`, `inf` and `-inf`. A column that holds
    numbers in one run and whole numbers in another that no float holds exactly is text.

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
        InputError: an unknown study, arm or format; a study without runs; files that are there
            already, or a folder that cannot be written; a file of the store that is damaged:
            nothing is written then.
    """
    checks.choice("format", to, FORMATS)
    folder = checks.path("the folder", folder)
    require_outside(folder)
    paths = _places(folder, to, force)
    opened = read_store(store)
    claims = claims_table(claims_of(opened, study, invocation, whole=True))  # none is left out
    runs = runs_of(opened, study, invocation, arms)
    if not runs and claims.empty:
        raise without_runs(opened, study)
    tables = {"runs": runs_table(opened, study, runs), "claims": claims}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # whole or not at all: files are made beside their places, then renamed
        with scratch() as fetched, scratch(folder, ".export-") as draft:
            for name, path in zip(FILES, paths, strict=True):
                if name in tables:
                    _write(draft / path.name, iter([_without_dictionaries(tables[name])]))
                else:
                    found = sources(name, study, runs, opened, fetched)
                    _write(draft / path.name, _blocks(found))
            for path in paths:
                (draft / path.name).replace(path)
    except OSError as error:
        raise unwritable(folder, error) from error
    return paths


def _places(folder: Path, to: str, force: bool) -> list[Path]:
    """Return where the files go; `InputError` where they are already, unless they may be.

    What is no file is never replaced, and would end the others half way.
    """
    paths = [folder / f"{name}.{to}" for name in FILES]
    for path in paths:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is there and is not a file; give another folder")
    there = [path.name for path in paths if path.exists()]
    if there and not force:
        text = to_say("{folder} has {names} already; give another folder, or force=True (--force)")
        raise InputError(say(text, folder=folder, names=", ".join(there)))
    return paths


def _blocks(found: list[Source]) -> Iterator[pa.Table]:
    """Return the rows run after run, all with the columns of all runs."""
    names = list(dict.fromkeys(name for part in found for name in part.names))
    kinds = {name: _kind(name, found) for name in names}
    yield _table({}, kinds, dict.fromkeys(LABELS, ""), 0)
    for part in found:
        for seeds, steps in _windows(part):
            rows = gather([part], part.names, seeds, steps)
            own = {name: rows[name].to_numpy() for name in part.names}
            yield _table(own, kinds, part.labels, len(rows))


def _kind(name: str, found: list[Source]) -> pa.DataType:
    """Return what a column of all runs is in a file, exactly: text, if no kind of number is."""
    dtype = dtype_of(name, found)
    if dtype != np.dtype(object):
        return pa.from_numpy_dtype(dtype)
    kinds = {part.rows.schema.field(name).type for part in found if name in part.names}
    return kinds.pop() if len(kinds) == 1 else pa.string()


def _windows(part: Source) -> Iterator[tuple[list[int] | None, slice | None]]:
    """Return parts of a run's rows, in their order, that memory has room for one at a time.

    Raises:
        InputError: its steps do not count its rows.
    """
    most = int(_block_bytes() / part.width(part.names)) + 1  # rows
    if part.n_rows <= most or not {"seed", "step"} <= set(part.names):
        yield None, None
        return
    together, n_together = list[int](), 0
    for seed, (n, last) in sorted(_by_seed(part).items()):
        if together and n_together + n > most:
            yield together, None
            together, n_together = [], 0
        if n <= most:
            together, n_together = [*together, seed], n_together + n
            continue
        if last >= MOST_STEPS_A_ROW * n:
            raise InputError(f"{part.labels['arm']} has {n:,} rows of a seed, up to step {last:,}")
        yield from (([seed], slice(first, first + most)) for first in range(0, last + 1, most))
    if together:
        yield together, None


def _by_seed(part: Source) -> dict[int, tuple[int, int]]:
    """Return how many rows each seed has, and its last step."""
    found: dict[int, tuple[int, int]] = {}
    wanted = [("step", "count"), ("step", "max")]
    for batch in part.batches(["seed", "step"], None, None):
        grouped = pa.Table.from_batches([batch]).group_by("seed").aggregate(wanted)
        for row in grouped.to_pylist():
            n, last = found.get(row["seed"], (0, 0))
            found[row["seed"]] = n + row["step_count"], max(last, row["step_max"])
    return found


def _block_bytes() -> float:
    """Return how much of the rows is held in memory at a time."""
    return max(LEAST_BLOCK, memory.free() / 8)


def _table(
    own: dict[str, np.ndarray], kinds: dict[str, pa.DataType], labels: dict[str, str], n: int
) -> pa.Table:
    """Return rows of a run with the columns of all runs; floats are NaN where it has none."""
    columns = {}
    for name, kind in kinds.items():
        if name in own:  # NaN stays NaN; texts of another program may be missing
            values = own[name]
            columns[name] = pa.array(values, from_pandas=values.dtype.kind == "O").cast(kind)
        elif pa.types.is_floating(kind):
            columns[name] = pa.array(np.full(n, np.nan, kind.to_pandas_dtype()))
        else:
            columns[name] = pa.nulls(n, kind)
    return pa.table(columns | {name: pa.repeat(labels[name], n) for name in LABELS})


def _without_dictionaries(frame: pd.DataFrame) -> pa.Table:
    """Return a table for files: several kinds in a column, lists and huge numbers become text."""
    for name in frame.columns:
        if frame[name].dtype != np.dtype(object):
            continue
        values = frame[name].dropna()
        kinds = set(map(type, values))
        huge = kinds == {int} and not values.between(-(2**63), 2**63 - 1).all()
        if len(kinds) > 1 or kinds & {list, tuple} or huge:
            frame[name] = frame[name].map(str, na_action="ignore")
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()


def _write(path: Path, tables: Iterator[pa.Table]) -> None:
    """Write tables of the same columns to one file."""
    first = next(tables)
    # a file of our own: Arrow takes no path that is not UTF-8
    with open(path, "wb") as file, _writer(file, path.suffix, first.schema) as writer:
        for table in (first, *tables):
            for start in range(0, len(table), ROW_GROUP):
                writer.write_table(table.slice(start, ROW_GROUP))


def _writer(file: Any, suffix: str, schema: pa.Schema) -> Any:
    if suffix == ".csv":
        return pyarrow.csv.CSVWriter(file, schema)
    repeated = [name for name in (*WHOLE_NUMBERS, *LABELS) if name in schema.names]
    return pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=repeated)
