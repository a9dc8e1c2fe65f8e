"""Rows of several runs, read from Arrow data sets into one DataFrame.

What is not asked for is not read, as far as the row groups of a Parquet file allow.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from sgdstudy.errors import InputError

LABELS = ["study", "arm", "run_id", "invocation"]
AXES = ("step", "epoch")


@dataclass(frozen=True)
class Source:
    """The rows of one run, not read yet.

    Attributes:
        labels: study, arm, run_id, invocation.
        rows: where they lie.
    """

    labels: dict[str, str]
    rows: ds.Dataset

    @functools.cached_property
    def names(self) -> list[str]:
        """The columns."""
        return list(self.rows.schema.names)

    @property
    def bytes(self) -> int:
        """What all of it takes in memory."""
        widths = [_width(field.type) for field in self.rows.schema]
        return self.rows.count_rows() * (sum(widths) + len(LABELS))

    @property
    def keys(self) -> list[str]:
        """The columns that rows are ordered by."""
        return [key for key in ("seed", *AXES) if key in self.names][:2]

    def order(self, seeds: Any, steps: slice | None) -> np.ndarray:
        """Return the places of the chosen rows in the file, by seed, then step or epoch."""
        keys = self.keys or self.names[:1]
        table = self.rows.to_table(columns=keys, filter=self.condition(seeds, steps))
        if not self.keys:
            return np.arange(len(table))
        return np.lexsort([table[key].to_numpy() for key in reversed(keys)])

    def batches(
        self, columns: list[str], seeds: Any, steps: slice | None
    ) -> Iterator[pa.RecordBatch]:
        """Read the chosen rows as they lie, a block at a time."""
        wanted = [name for name in columns if name in self.names]
        condition = self.condition(seeds, steps)
        yield from self.rows.to_batches(columns=wanted, filter=condition, batch_readahead=2)

    def condition(self, seeds: Any, steps: slice | None) -> pc.Expression | None:
        """Return what the chosen rows fulfil; None: all are chosen."""
        parts = []
        if seeds is not None:
            parts.append(_one_of(seeds) if "seed" in self.names else pc.scalar(False))
        if steps is not None:
            parts.append(_within(steps) if "step" in self.names else pc.scalar(False))
        return functools.reduce(operator.and_, parts) if parts else None


def gather(found: list[Source], names: list[str], seeds: Any, steps: slice | None) -> pd.DataFrame:
    """Read run after run, block by block, into arrays as long as all rows: no second copy."""
    orders = [part.order(seeds, steps) for part in found]
    n_rows = [len(order) for order in orders]
    arrays = {name: np.empty(sum(n_rows), dtype_of(name, found)) for name in names}
    for part, order, end in zip(found, orders, np.cumsum(n_rows), strict=True):
        start = end - len(order)
        places = np.empty_like(order)
        places[order] = np.arange(start, end)
        for name in set(names) - set(part.names):
            arrays[name][start:end] = np.nan
        first = 0
        for batch in part.batches(names, seeds, steps):
            where = places[first : first + len(batch)]
            first += len(batch)
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                if column.null_count and arrays[name].dtype.kind in "iu":
                    arrays[name] = arrays[name].astype(float)
                arrays[name][where] = column.to_numpy(zero_copy_only=False)
    frame = pd.DataFrame(arrays, columns=names, copy=False)
    for label in LABELS:
        values = [part.labels[label] for part in found]
        kinds = list(dict.fromkeys(values))
        codes = np.repeat(np.array([kinds.index(v) for v in values], dtype=np.int32), n_rows)
        frame[label] = pd.Categorical.from_codes(codes, pd.Index(kinds, dtype=str))
    return frame


def dtype_of(name: str, found: list[Source]) -> np.dtype[Any]:
    """Return the type that holds a column of all runs, NaN where a run has no such column."""
    kinds = [p.rows.schema.field(name).type.to_pandas_dtype() for p in found if name in p.names]
    if not kinds:
        return np.dtype(float)
    dtype = np.result_type(*kinds)
    if len(kinds) == len(found) or dtype.kind in "fcOMm":
        return dtype
    return np.dtype(float) if dtype.kind in "iu" else np.dtype(object)


def _width(kind: pa.DataType) -> int:
    return kind.bit_width // 8 if pa.types.is_primitive(kind) else 8


def _one_of(seeds: Any) -> pc.Expression:
    """Return the condition on the seed, with bounds that let whole row groups be left out."""
    try:
        wanted = sorted({operator.index(seed) for seed in np.atleast_1d(seeds).tolist()})
    except TypeError:
        raise InputError(f"seeds are whole numbers, one or several, not {seeds!r}") from None
    if not wanted:
        raise InputError("seeds is empty; give at least one, or None for all")
    seed = pc.field("seed")
    return (seed >= wanted[0]) & (seed <= wanted[-1]) & seed.isin(wanted)


def _within(steps: slice) -> pc.Expression:
    """Return the condition on the global step."""
    if not isinstance(steps, slice):
        raise InputError(f"steps is a slice, as slice(0, 1000), not {steps!r}")
    first, end = steps.start or 0, steps.stop
    if steps.step not in (None, 1) or first < 0 or (end is not None and end < 0):
        raise InputError(f"steps count from 0, without a stride; got {steps}")
    step = pc.field("step")
    return step >= first if end is None else (step >= first) & (step < end)
