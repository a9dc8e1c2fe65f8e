"""Rows on their way out of the trainer: blocks of them, and where they go."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from sgdstudy.errors import InputError, quoted
from sgdstudy.language import say, to_say
from sgdstudy.text import as_python

AXIS = {"steps": "step", "epochs": "epoch"}  # the column that numbers a kind of rows
WHOLE = {"seed": np.int64, "step": np.int64} | dict.fromkeys(("epoch", "batch", "size"), np.int32)
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
