"""Rows of several runs, read from Arrow data sets into one DataFrame.

What is not asked for is not read, as far as the row groups of a Parquet file allow.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from sgdstudy import checks
from sgdstudy.checks import SeedsLike
from sgdstudy.errors import InputError
from sgdstudy.history.checksums import Sealed, readable
from sgdstudy.history.files import ROW_GROUP
from sgdstudy.history.rows import LARGEST_WHOLE
from sgdstudy.tracking import memory

LABELS = ["study", "arm", "run_id", "invocation"]
AXES = ("step", "epoch")
KEYS = ("seed", "step")  # what conditions are on
A_TEXT = 64  # bytes: of an empty text as Python holds it, and of where it is
TEXT_WIDTH = b"width"  # in the metadata of a column of texts: bytes of one, on average
LONGEST_GROUP = 16 * ROW_GROUP  # rows: many times what we write


@dataclass(frozen=True)
class Order:
    """Where rows go, told by stretches of rows that are in order already.

    The trainer hands over chunks seed by seed, so stretches are few. Nothing as long as the rows is
    held or sorted: in a new process fresh memory costs more than reading the file.

    Attributes:
        first: which row of the file each stretch begins with.
        place: where that row goes.
        n_rows: the number of all rows.
    """

    first: np.ndarray
    place: np.ndarray
    n_rows: int

    @classmethod
    def of(cls, first: np.ndarray, order: np.ndarray, n_rows: int) -> Order:
        """Put the stretches one after the other, in an order."""
        lengths = np.diff(first, append=n_rows)[order]
        place = np.empty_like(first)
        place[order] = np.cumsum(lengths) - lengths
        return cls(first, place, n_rows)

    def places(self, start: int, n: int) -> np.ndarray:
        """Return where n rows go, from a row of the file on."""
        low = np.searchsorted(self.first, start, side="right") - 1
        high = np.searchsorted(self.first, start + n)
        first = self.first[low:high]
        lengths = np.diff(np.maximum(first, start), append=start + n)
        return np.repeat(self.place[low:high] - first, lengths) + np.arange(start, start + n)


@dataclass(frozen=True)
class Source:
    """The rows of one run, not read yet.

    Attributes:
        labels: study, arm, run_id, invocation.
        rows: where they lie.
        sealed: the checksums of their file; None: they are in memory.
    """

    labels: dict[str, str]
    rows: ds.Dataset
    sealed: Sealed | None = None

    @functools.cached_property
    def names(self) -> list[str]:
        """The columns."""
        return list(self.rows.schema.names)

    @property
    def bytes(self) -> int:
        """What all of it takes in memory."""
        return self.n_rows * self.width(self.names)

    @functools.cached_property
    def n_rows(self) -> int:
        """The number of all rows, as the file's end says it: nothing is read."""
        return int(self.rows.count_rows())

    def width(self, names: list[str]) -> int:
        """Return the bytes that a row of these columns takes in memory, with its labels."""
        fields = [field for field in self.rows.schema if field.name in names]
        return sum(map(_width, fields)) + len(LABELS)

    @property
    def keys(self) -> list[str]:
        """The columns that rows are ordered by."""
        found = [key for key in ("seed", *AXES) if key in self.names]
        return [key for key in found if not self.is_text(key)][:2]

    def is_text(self, name: str) -> bool:
        """Whether a column holds texts, as only those of other programs do."""
        return bool(pa.types.is_string(self.rows.schema.field(name).type))

    def fits_float(self, name: str) -> bool:
        """Whether a column holds no whole number that may be rounded as a float."""
        if self.rows.schema.field(name).type not in (pa.int64(), pa.uint64()):
            return True
        return all(abs(value) <= LARGEST_WHOLE for value in self._bounds(name))

    def _bounds(self, name: str) -> Iterator[int]:
        """Yield the least and largest values of a column, as the file's end says, or as read."""
        if self.sealed is not None:
            told = [chunk.statistics for chunk in chunks_of(self.sealed.metadata, name)]
            known = [one for one in told if one is not None and one.has_min_max]
            if len(known) == self.sealed.metadata.num_row_groups:
                yield from (value for one in known for value in (one.min, one.max))
                return
        for batch in self.batches([name], None, None):
            yield from filter(None, pc.min_max(batch[name]).as_py().values())

    def order(self, seeds: SeedsLike | None, steps: slice | None, single: bool = False) -> Order:
        """Return where the chosen rows go: by seed, then step or epoch.

        Args:
            seeds: the seeds wanted; None for all.
            steps: the steps wanted; None for all.
            single: take every row for itself, for files whose rows are in no order.
        """
        depth = max(1, len(self.keys))
        heads, tails = [np.empty((depth, 0), int)], [np.empty((depth, 0), int)]
        first, n_rows = [np.empty(0, int)], 0
        for batch in self.batches(self.keys or self.names[:1], seeds, steps):
            n = len(batch)
            found = [batch[key].to_numpy(zero_copy_only=False) for key in self.keys]
            keys = np.array(found or [n_rows + np.arange(n)])
            new = (keys[:-1, 1:] != keys[:-1, :-1]).any(axis=0) | (keys[-1, 1:] < keys[-1, :-1])
            at = np.flatnonzero(np.append(True, new | single))[:n]
            heads.append(keys[:, at])
            tails.append(keys[:, np.append(at, n)[1:] - 1])
            first.append(n_rows + at)
            n_rows += n
        head, tail = np.concatenate(heads, axis=1), np.concatenate(tails, axis=1)
        order = np.lexsort(head[::-1])
        head, tail = head[:, order], tail[:, order]
        overlap = tail[-1, :-1] >= head[-1, 1:]
        if not single and (overlap & (head[:-1, :-1] == head[:-1, 1:]).all(axis=0)).any():
            return self.order(seeds, steps, single=True)
        return Order.of(np.concatenate(first), order, n_rows)

    def batches(
        self, columns: list[str], seeds: SeedsLike | None, steps: slice | None
    ) -> Iterator[pa.RecordBatch]:
        """Read the chosen rows as they lie, a row group at a time; Arrow would run far ahead."""
        wanted = [name for name in columns if name in self.names]
        condition = self.condition(seeds, steps)
        conditions = {"seed": seeds, "step": steps}
        schema = self.rows.schema
        read = {*wanted, *(name for name, given in conditions.items() if given is not None)}
        for fragment in self.rows.get_fragments():
            whole = not isinstance(fragment, ds.ParquetFileFragment)  # in memory already
            with readable(fragment.path if not whole else ""):
                for part in [fragment] if whole else fragment.split_by_row_group(condition, schema):
                    if self.sealed is not None:
                        groups = [group.id for group in part.row_groups]
                        self.sealed.check(groups, read.intersection(self.names))
                    yield from _read(part, wanted, condition, schema)

    def condition(self, seeds: SeedsLike | None, steps: slice | None) -> pc.Expression | None:
        """Return what the chosen rows fulfil; None: all are chosen."""
        parts = []
        if seeds is not None:
            parts.append(_any_seed_of(seeds) if "seed" in self.names else pc.scalar(False))
        if steps is not None:
            parts.append(_within(steps) if "step" in self.names else pc.scalar(False))
        return functools.reduce(operator.and_, parts) if parts else None


@contextmanager
def _enough_memory() -> Iterator[None]:
    """Say in one line what helps where memory ends all the same: an estimate is none of it all."""
    try:
        yield
    except MemoryError as error:
        raise InputError(
            "there is too little memory for these rows; give columns=[...], seeds= or "
            "steps=slice(...), or fewer arms"
        ) from error


@_enough_memory()
def gather(
    found: list[Source], names: list[str], seeds: SeedsLike | None, steps: slice | None
) -> pd.DataFrame:
    """Read run after run, block by block, into arrays as long as all rows: no second copy."""
    widths = [part.width(names) for part in found]
    if seeds is None and steps is None:
        require_room(part.n_rows * width for part, width in zip(found, widths, strict=True))
    orders = [part.order(seeds, steps) for part in found]
    n_rows = [order.n_rows for order in orders]
    require_room(n * width for n, width in zip(n_rows, widths, strict=True))
    arrays = {name: np.empty(sum(n_rows), dtype_of(name, found)) for name in names}
    for part, order, end in zip(found, orders, np.cumsum(n_rows), strict=True):
        start = end - order.n_rows
        for name in set(names) - set(part.names):
            arrays[name][start:end] = np.nan
        done = 0
        for batch in part.batches(names, seeds, steps):
            where = start + order.places(done, len(batch))
            done += len(batch)
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                arrays[name][where] = column.to_numpy(zero_copy_only=False)
    labels = {}
    for label in LABELS:
        values = [part.labels[label] for part in found]
        kinds = pd.Index(dict.fromkeys(values), dtype=str)
        labels[label] = pd.Categorical(values, kinds).repeat(n_rows)
    return pd.DataFrame(arrays | labels, columns=[*names, *LABELS], copy=False)


def require_room(sizes: Iterable[int]) -> None:
    """Refuse rows that memory has no room for, before they are read.

    Raises:
        InputError: they would take more than half of what is free.
    """
    size, free = sum(sizes), memory.of_system()
    if size > free / 2:
        raise InputError(
            f"these rows would take {size / 1e6:,.0f} MB of memory, of which {free / 1e6:,.0f} MB "
            f"are free; give columns=[...], seeds= or steps=slice(...), or fewer arms"
        )


def _read(
    part: ds.Fragment, columns: list[str], condition: pc.Expression | None, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Read the chosen rows of a row group; one that is far longer than ours are, bit by bit."""
    groups = getattr(part, "row_groups", [])
    if sum(group.num_rows for group in groups) <= LONGEST_GROUP:
        yield from part.to_table(schema, columns=columns, filter=condition).to_batches()
        return
    needed = list(dict.fromkeys([*columns, *(n for n in schema.names if n in KEYS)]))
    kinds = pa.schema([schema.field(name) for name in needed])
    file = pq.ParquetFile(part.path, memory_map=True)
    for batch in file.iter_batches(ROW_GROUP, [group.id for group in groups], needed):
        table = pa.Table.from_batches([batch]).select(needed).cast(kinds)
        chosen = table if condition is None else table.filter(condition)
        yield from chosen.select(columns).to_batches()


def dtype_of(name: str, found: list[Source]) -> np.dtype[Any]:
    """Return the type that holds a column of all runs exactly, NaN where a run has no such column.

    That is `object` for texts, and for whole numbers that would be floats and are too large.
    """
    having = [part for part in found if name in part.names]
    kinds = [part.rows.schema.field(name).type.to_pandas_dtype() for part in having]
    dtype = np.result_type(*kinds or [float])
    if len(having) < len(found) and dtype.kind in "iub":
        dtype = np.dtype(float)
    long = not {np.int64, np.uint64}.isdisjoint(kinds)
    if dtype.kind == "f" and long and not all(part.fits_float(name) for part in having):
        return np.dtype(object)
    return dtype


def chunks_of(metadata: pq.FileMetaData, name: str) -> list[pq.ColumnChunkMetaData]:
    """Return what the end of a file says of a column, row group by row group."""
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    every = (group.column(i) for group in groups for i in range(metadata.num_columns))
    return [chunk for chunk in every if chunk.path_in_schema == name]


def _width(field: pa.Field) -> int:
    if pa.types.is_primitive(field.type):
        return int(field.type.bit_width) // 8
    return A_TEXT + int((field.metadata or {}).get(TEXT_WIDTH, 0))


def _any_seed_of(seeds: SeedsLike) -> pc.Expression:
    """Return the condition on the seed, with bounds that let whole row groups be left out."""
    wanted = checks.wanted_seeds(seeds)
    seed = pc.field("seed")
    return (seed >= wanted[0]) & (seed <= wanted[-1]) & seed.isin(wanted)


def _within(steps: slice) -> pc.Expression:
    """Return the condition on the global step."""
    first, end = checks.stretch("steps", steps)
    return (pc.field("step") >= first) & (pc.field("step") < end)
