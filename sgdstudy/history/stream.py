"""Rows in Arrow streams on this disk, readable whatever happens to who writes them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from sgdstudy.errors import Away, reason
from sgdstudy.history.checksums import (
    CHAINED,
    KIND,
    NAME,
    OWNER,
    UNREADABLE,
    Damaged,
    Within,
    checked_blocks,
    is_cut,
    not_its_fault,
    sum_of,
    sum_of_owner,
)
from sgdstudy.history.files import write_parquet
from sgdstudy.history.rows import AXIS, Rows
from sgdstudy.history.shared import make_within, share

COUNT = "rows.count"  # beside the streams: how many rows each has
LONGEST_COUNT = 1000  # bytes


class ArrowStream:
    """Append the rows to Arrow IPC streams in a folder; readable whatever happens to us.

    Args:
        folder: where they lie.
        sync: whether every block is on the disk before anything else happens; False: whoever
            writes sees to that himself.
        run: the key of the run that they are of.
    """

    def __init__(self, folder: Path, sync: bool = True, run: str = "") -> None:
        make_within(folder)
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
        share(self._path(kind))

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


def sync_folder(folder: Path) -> None:
    """Bring to the disk which files a folder has, where the system knows such a thing."""
    if os.name == "nt":  # NTFS writes that down by itself
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
