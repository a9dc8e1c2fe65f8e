"""Checksums of rows on a disk: what was damaged there is never read as numbers.

A Parquet file of ours holds, between its last column and its footer, where readers of Parquet look
for nothing, a CRC-32 of every column of every row group as it lies there, headers of pages
included, and one of the footer. Only what is read is checked. A block of an Arrow stream carries a
CRC-32 of its values in its own metadata, which goes on from that of the block before: none is there
twice, or missing between two. That of the first goes on from whose stream it is, which its schema
says too. Files of earlier versions have neither, and are read as they are.
"""

from __future__ import annotations

import errno
import functools
import os
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgdstudy.errors import Away, InputError, StoreError, reason, shortage

NAME, KIND = b"checksums", b"crc32"  # in the metadata of a schema: the file has some
CHAINED = b"crc32 chained"  # of a stream: those of an earlier version know only of their own block
OWNER = b"rows of"  # in the metadata of a stream's schema: the key of its run, and its kind
MAGIC = b"SGDSUMS1"
MARK = b"\xff\xff\xff\xff"  # how a message of Arrow begins; its head's length follows
MOST_HEAD = 1 << 16  # bytes: a thousand columns
UNREADABLE = (pa.ArrowException, OSError, ValueError, MemoryError)
PIECE = 1 << 20  # bytes that are read at a time
MOST_FOOTER = 64_000_000  # bytes: thousands of row groups
TAIL = 8  # of a Parquet file: the length of its footer, and PAR1
WORD = np.dtype("<u4")


class Damaged(StoreError):
    """What was written cannot be read back.

    Attributes:
        missing: how many rows; None where nothing tells.
    """

    def __init__(self, text: str, missing: int | None = None) -> None:
        super().__init__(text)
        self.missing = missing


# what keeps a file from being read that may be as it was: rights, a disk that fails
NOT_ITS_FAULT = (
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT, errno.ESTALE, errno.ETIMEDOUT),
)


def not_its_fault(error: BaseException) -> str:
    """Return in words why a file cannot be read that may be as it was; "": it is damaged."""
    if isinstance(error, OSError) and error.errno in NOT_ITS_FAULT:
        return os.strerror(error.errno or 0)
    return shortage(error)


@contextmanager
def readable(path: str | Path, foreign: str = "") -> Iterator[None]:
    """Say in one line which file is damaged, or cannot be read.

    Args:
        path: where it is.
        foreign: what it has to be, where another program wrote it; "": we did.

    Raises:
        InputError: what is read in the block is damaged, or may not be read.
        Away: there is too little memory, or no handle.
    """
    try:
        yield
    except (Damaged, *UNREADABLE) as error:
        if isinstance(error, InputError):
            raise
        if why := not_its_fault(error):
            kind = Away if shortage(error) else InputError
            raise kind(f"{path} cannot be read ({why})") from error
        if foreign:
            raise InputError(f"{path} cannot be used ({reason(error)}); {foreign}") from error
        raise InputError(
            f"{path} is damaged ({reason(error)}); run the study again, or drop the run"
        ) from error


def undamaged(batches: Iterator[pa.RecordBatch], found: list[Damaged]) -> Iterator[pa.RecordBatch]:
    """Yield the blocks before the first that is damaged, if one is; that is put into the list."""
    try:
        yield from batches
    except Damaged as error:
        found.append(error)


# ---- Parquet -----------------------------------------------------------------------------------


def seal(path: Path) -> None:
    """Put the checksums into a Parquet file that was written to the end."""
    with open(path, "r+b") as file:
        footer, start = _footer(file)
        metadata = pq.read_metadata(file)
        columns = range(metadata.num_columns)
        sums = [
            _sum(file, *place)
            for group in range(metadata.num_row_groups)
            for place in _places(metadata, group, columns)
        ]
        words = np.array([*sums, zlib.crc32(footer), len(sums)], WORD).tobytes()
        file.seek(start)
        file.write(words + np.array([zlib.crc32(words)], WORD).tobytes() + MAGIC + footer)


@dataclass(frozen=True)
class Sealed:
    """A Parquet file whose footer is as it was written.

    Attributes:
        path: where it is.
        metadata: its footer.
        sums: of its columns, row group by row group; None: an earlier version wrote it.
        crc: the checksum of all these; "" where there are none.
    """

    path: Path
    metadata: pq.FileMetaData
    sums: np.ndarray | None
    crc: str

    @classmethod
    def open(cls, path: str | Path, crc: str | None = None) -> Sealed:
        """Read the footer.

        Args:
            path: where it is.
            crc: the checksum that its run knows; None: nobody knows it.

        Raises:
            Damaged: it is not what was written, or another's.
        """
        with open(path, "rb") as file:
            footer, start = _footer(file)
            sums, own = _sums(file, footer, start)
            metadata = pq.read_metadata(file)
        told = metadata.metadata or {}
        if (sums is None) != (told.get(NAME) != KIND):
            raise Damaged(
                "its checksums are gone: another program wrote it, or a part of it is lost"
            )
        if sums is not None and len(sums) != metadata.num_row_groups * metadata.num_columns:
            raise Damaged("its footer is that of another file")
        if crc is not None and crc != own:
            raise Damaged("it is the file of another run, or of other rows")
        return cls(Path(path), metadata, sums, own)

    def check(
        self, groups: Iterable[int] | None = None, columns: Iterable[str] | None = None
    ) -> None:
        """Compare columns of row groups with what was written; None: all.

        Raises:
            Damaged: they are not the same.
        """
        require_threads()
        if self.sums is None:
            return
        names = self._names
        chosen = range(len(names)) if columns is None else sorted(map(names.index, columns))
        with open(self.path, "rb") as file:
            for group in range(self.metadata.num_row_groups) if groups is None else groups:
                for column, place in zip(
                    chosen, _places(self.metadata, group, chosen), strict=True
                ):
                    if _sum(file, *place) != self.sums[group * len(names) + column]:
                        raise Damaged(f"column {names[column]}, row group {group}")

    @functools.cached_property
    def _names(self) -> list[str]:
        return list(self.metadata.schema.to_arrow_schema().names)


@functools.cache
def require_threads() -> None:
    """Refuse to read rows where no more threads can be started: Arrow would end the process.

    It starts one per core when it first reads some.

    Raises:
        Away: it could not.
    """
    done = threading.Event()
    threads = [threading.Thread(target=done.wait, daemon=True) for _ in range(pa.cpu_count())]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError as error:
        raise Away(f"rows cannot be read now: {shortage(error) or reason(error)}") from error
    finally:
        done.set()


def checked(path: str | Path, crc: str | None = None) -> pq.ParquetFile:
    """Return a Parquet file after a look at all of it; see `Sealed.open`.

    Raises:
        Damaged: it is not what was written, or another's.
    """
    Sealed.open(path, crc).check()
    return pq.ParquetFile(path)


def _footer(file: BinaryIO) -> tuple[bytes, int]:
    """Return the footer, with the tail, and where it begins."""
    end = file.seek(0, 2)
    file.seek(max(0, end - TAIL))
    tail = file.read(TAIL)
    start = end - TAIL - int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or start < len(b"PAR1") or end - start > MOST_FOOTER:
        raise Damaged("it is no Parquet file, or only a part of one")
    file.seek(start)
    return file.read(), start


def _sums(file: BinaryIO, footer: bytes, start: int) -> tuple[np.ndarray | None, str]:
    """Return the checksums of the columns, and that of all; None and "": there are none."""
    size = 3 * WORD.itemsize + len(MAGIC)
    file.seek(max(0, start - size))
    end = file.read(min(size, start))
    if not end.endswith(MAGIC):
        return None, ""
    of_footer, count, of_words = np.frombuffer(end, WORD, 3).tolist()
    first = start - size - count * WORD.itemsize
    if first < 0 or of_footer != zlib.crc32(footer):
        raise Damaged("its footer is not what was written")
    file.seek(first)
    words = file.read((count + 2) * WORD.itemsize)
    if zlib.crc32(words) != of_words:
        raise Damaged("its checksums are not what was written")
    return np.frombuffer(words, WORD, count), f"{of_words:08x}"


def _places(
    metadata: pq.FileMetaData, group: int, columns: Iterable[int]
) -> Iterator[tuple[int, int]]:
    """Yield where columns of a row group lie: first byte, length."""
    rows = metadata.row_group(group)
    for column in map(rows.column, columns):
        first = column.data_page_offset
        if column.dictionary_page_offset is not None:
            first = min(first, column.dictionary_page_offset)
        yield first, column.total_compressed_size


def _sum(file: BinaryIO, first: int, length: int) -> int:
    file.seek(first)
    return zlib.crc32(file.read(length))


# ---- Arrow -------------------------------------------------------------------------------------


def sum_of(batch: pa.RecordBatch, before: bytes = b"0") -> bytes:
    """Return the checksum of a block: names and kinds of its columns, all values.

    Args:
        batch: the block.
        before: the checksum of the block before it.
    """
    names = [f"{field.name}: {field.type}" for field in batch.schema]
    total = zlib.crc32("\n".join([*names, str(batch.num_rows)]).encode(), int(before, 16))
    for column in batch.columns:
        values = column.to_numpy(zero_copy_only=False)
        if values.dtype.kind in "biuf":
            total = zlib.crc32(np.ascontiguousarray(values).data, total)
        else:  # text, times: seldom
            total = zlib.crc32("\0".join(map(repr, column.to_pylist())).encode(), total)
    return f"{total:08x}".encode()


def sum_of_owner(owner: bytes | None) -> bytes:
    """Return what the checksums of a stream begin with; None: an earlier version wrote it."""
    return b"0" if owner is None else b"%08x" % zlib.crc32(owner)


def checked_blocks(
    reader: pa.ipc.RecordBatchStreamReader, owner: bytes
) -> Iterator[pa.RecordBatch]:
    """Yield the blocks of a stream as they were written, without what was written beside them.

    Args:
        reader: of the stream.
        owner: whose it has to be.

    Raises:
        Damaged: one is not what was written, or the stream is another's.
    """
    schema = reader.schema.metadata or {}
    if schema.get(OWNER, owner) != owner:
        raise Damaged("it is the stream of another run, or of other rows")
    kind, before = schema.get(NAME), sum_of_owner(schema.get(OWNER))
    for batch, told in reader.iter_batches_with_custom_metadata():
        try:
            batch.validate(full=True)  # Arrow's own lengths are read from the file too
        except pa.ArrowException as error:
            if not_its_fault(error):
                raise
            raise Damaged(reason(error)) from error
        expected = (told or {}).get(KIND)
        whole = batch.replace_schema_metadata()
        if kind in (KIND, CHAINED) or expected is not None:
            found = sum_of(whole, before if kind == CHAINED else b"0")
            if found != expected:
                raise Damaged("a block is not what was written")
            before = found
        yield whole


class Within:
    """A file of which nobody asks for more than there is: a length that is damaged takes no memory.

    Args:
        file: where to read on.
    """

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, n: int = -1) -> bytes:
        """Return the next bytes, at most so many."""
        left = max(0, os.fstat(self._file.fileno()).st_size - self._file.tell())
        return self._file.read(left if n < 0 else min(n, left))


def is_cut(file: BinaryIO, start: int) -> bool:
    """Whether a stream ends, from there on, in one block that was being written, or in its schema.

    Every block but the last was on the disk before the next was begun: what else cannot be read is
    damaged. The head of each block has the name of its checksum, and that of the schema.
    """
    file.seek(start)
    try:
        pa.ipc.read_message(pa.PythonFile(Within(file), mode="r"))
        return False  # it is whole
    except (*UNREADABLE, EOFError) as error:
        if not_its_fault(error):
            raise
    if file.read(1):
        return False
    file.seek(start)
    head = file.read(8)
    length = int.from_bytes(head[4:], "little")
    with_head = start + 8 + length <= os.fstat(file.fileno()).st_size
    if head[:4] != MARK[: len(head)] or length > MOST_HEAD or (with_head and not start):
        return False  # a schema has nothing but its head
    file.seek(start)
    return _count(file, KIND) <= 1


def _count(file: BinaryIO, word: bytes) -> int:
    """Return how often a word is in what follows of a file."""
    found, end = 0, b""
    while piece := file.read(PIECE):
        found += (end + piece).count(word)
        end = (end + piece)[-len(word) + 1 :]
    return found
