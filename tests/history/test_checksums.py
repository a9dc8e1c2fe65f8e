"""What was damaged on a disk is never read as numbers: bit flips, zeroed blocks, cuts, anywhere."""

import errno
import os
import random
import shutil
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import one_line

import sgdstudy as ss
from sgdstudy.errors import Away
from sgdstudy.history import files as written
from sgdstudy.history.checksums import (
    CHAINED,
    KIND,
    NAME,
    Damaged,
    Sealed,
    Within,
    checked,
    readable,
    sum_of,
)
from sgdstudy.history.files import Files, write_parquet
from sgdstudy.history.rows import Rows
from sgdstudy.history.stream import COUNT, ArrowStream, counted, read_stream

BLOCKS, STEPS = 6, 40


def block(i):
    generator = np.random.default_rng(i)
    step = i * STEPS + np.arange(STEPS)
    columns = {
        "seed": np.arange(3)[None, :],
        "step": step[:, None],
        "size": np.full((STEPS, 1), 10, np.int32),
        "loss": generator.random((STEPS, 3)).astype(np.float32),
        "w0": generator.random((STEPS, 3)),
    }
    return Rows(columns, np.ones((STEPS, 3), bool))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A stream in its folder, a Parquet file of it, and its rows."""
    folder = tmp_path_factory.mktemp("whole")
    stream = ArrowStream(folder)
    for i in range(BLOCKS):
        stream.write("steps", block(i))
    stream.close()
    stream.to_parquet("steps", folder / "steps.parquet")
    return folder, pa.Table.from_batches([block(i).batch() for i in range(BLOCKS)])


def flip(raw, at, rng):
    raw[at] ^= 1 << rng.randrange(8)


def zero(raw, at, rng):
    end = at + rng.choice([1, 8, 64, 512, 4096])
    raw[at:end] = bytes(len(raw[at:end]))


def noise(raw, at, rng):
    end = at + rng.choice([1, 8, 64, 512])
    raw[at:end] = rng.randbytes(len(raw[at:end]))


def cut(raw, at, rng):
    del raw[at:]


def lose(raw, at, rng):
    del raw[at : at + rng.choice([8, 512, 4096])]


def insert(raw, at, rng):
    raw[at:at] = rng.randbytes(rng.choice([1, 8, 512]))


DAMAGES = [flip, zero, noise, cut, lose, insert]


def damaged(path, into, damage, rng):
    raw = bytearray(path.read_bytes())
    damage(raw, rng.randrange(len(raw)), rng)
    into.write_bytes(raw)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_read_as_it_was_or_not_at_all(whole, tmp_path, damage):
    folder, rows = whole
    rng, path, refused = random.Random(damage.__name__), tmp_path / "steps.parquet", 0
    for _ in range(50):
        damaged(folder / "steps.parquet", path, damage, rng)
        try:
            with readable(path):
                found = checked(path).read()
        except ss.InputError:
            refused += 1
            continue
        assert found.equals(rows)
    assert refused > 30


def test_any_single_bit_of_a_small_file(tmp_path):
    """Every byte in turn: headers of pages and the footer are most of it."""
    rows = pa.table({"seed": [0, 0, 1], "step": [0, 1, 0], "loss": [0.5, 0.25, 0.125]})
    path = tmp_path / "steps.parquet"
    write_parquet(iter(rows.to_batches()), path)
    raw, rng = path.read_bytes(), random.Random(0)
    for at in range(len(raw)):
        changed = bytearray(raw)
        flip(changed, at, rng)
        path.write_bytes(changed)
        try:
            assert checked(path).read().equals(rows)
        except (Damaged, pa.ArrowException, OSError, ValueError):
            continue


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_stream_is_read_up_to_there_and_the_rows_that_are_missing_are_counted(
    whole, tmp_path, damage
):
    folder, rows = whole
    shutil.copyfile(folder / COUNT, tmp_path / COUNT)
    rng, path, refused = random.Random(damage.__name__), tmp_path / "steps.arrow", 0
    for _ in range(50):
        damaged(folder / "steps.arrow", path, damage, rng)
        found, missing = [], 0
        try:
            for batch in read_stream(path):
                found.append(batch)
        except Damaged as error:
            refused, missing = refused + 1, error.missing
        n = sum(batch.num_rows for batch in found)
        assert not found or pa.Table.from_batches(found).equals(rows.slice(0, n))
        assert missing == rows.num_rows - n
    assert refused > 30


def test_a_block_that_was_being_written_when_its_process_was_killed_is_no_damage(tmp_path):
    stream = ArrowStream(tmp_path)
    stream.write("steps", block(0))
    before = (tmp_path / COUNT).read_bytes()
    stream.write("steps", block(1))
    stream.drop()
    raw = (tmp_path / "steps.arrow").read_bytes()
    (tmp_path / COUNT).write_bytes(before)
    (tmp_path / "steps.arrow").write_bytes(raw[:-100])
    assert [batch.num_rows for batch in read_stream(tmp_path / "steps.arrow")] == [3 * STEPS]
    (tmp_path / COUNT).unlink()  # an older version wrote none
    assert [batch.num_rows for batch in read_stream(tmp_path / "steps.arrow")] == [3 * STEPS]


def messages(raw):
    """Where the schema and the blocks of a stream lie."""
    starts, end = [], 0
    while end < len(raw) and int.from_bytes(raw[end + 4 : end + 8], "little"):
        reader = pa.BufferReader(raw[end:])
        pa.ipc.read_message(reader)
        starts.append((end, end + reader.tell()))
        end += reader.tell()
    return starts


def read_back(path):
    """How many rows a stream has, and whether it is called damaged."""
    n = 0
    try:
        for batch in read_stream(path):
            n += batch.num_rows
    except Damaged:
        return n, True
    return n, False


@pytest.mark.parametrize("count", [None, b""])
def test_a_stream_whose_head_is_damaged_is_damaged_though_nothing_tells_its_rows(tmp_path, count):
    """As it was seen: without `rows.count` such a stream passed for one without rows."""
    stream, path = ArrowStream(tmp_path), tmp_path / "steps.arrow"
    for i in range(2):
        stream.write("steps", block(i))
    stream.drop()
    raw = path.read_bytes()
    (tmp_path / COUNT).unlink() if count is None else (tmp_path / COUNT).write_bytes(count)
    schema, first, last = (start for start, _ in messages(raw))
    places = [(schema + at, 0) for at in (0, 2, 4, 60)]
    places += [(first + at, 0) for at in (0, 5, 7, 40)]
    places += [(last + at, 3 * STEPS) for at in (0, 6, 7, 2000)]
    for at, n in places:
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :])
        assert read_back(path) == (n, True), at
    path.write_bytes(bytes(64) + raw[64:])
    assert read_back(path) == (0, True)
    path.write_bytes(raw[: first - 1] + bytes(9) + raw[first + 8 :])
    assert read_back(path) == (0, True)


@pytest.mark.slow
def test_a_stream_that_ends_anywhere_is_no_damage(tmp_path):
    """Where its writer was killed, or the disk became full: only the last block is missed."""
    stream, path = ArrowStream(tmp_path), tmp_path / "steps.arrow"
    for i in range(2):
        stream.write("steps", block(i))
    stream.drop()
    (tmp_path / COUNT).unlink()
    raw = path.read_bytes()
    ends = [end for _, end in messages(raw)]
    for cut in range(0, len(raw) + 1, 7):
        path.write_bytes(raw[:cut])
        assert read_back(path) == (3 * STEPS * sum(end <= cut for end in ends[1:]), False)


def test_a_block_that_is_twice_in_a_stream_or_in_anothers_place_is_damage(tmp_path):
    stream, path = ArrowStream(tmp_path), tmp_path / "steps.arrow"
    for i in range(3):
        stream.write("steps", block(i))
    stream.drop()
    raw = path.read_bytes()
    schema, *blocks = (raw[start:end] for start, end in messages(raw))
    for order, n in ((0, 1, 2, 2), 3), ((0, 0, 1), 1), ((0, 2), 1), ((0, 2, 1), 1), ((1, 2), 0):
        path.write_bytes(b"".join([schema, *(blocks[i] for i in order)]))
        assert read_back(path) == (3 * STEPS * n, True), order
    path.write_bytes(raw)
    assert read_back(path) == (9 * STEPS, False)


def test_the_number_of_rows_is_on_the_disk_with_the_first_block(tmp_path, monkeypatch):
    """Not with every other: that would take as long as the rows."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    stream = ArrowStream(tmp_path)
    for i in range(3):
        stream.write("steps", block(i))
    stream.drop()
    assert synced.count((tmp_path / COUNT).stat().st_ino) == 1
    assert synced.count((tmp_path / "steps.arrow").stat().st_ino) == 3


def test_a_stream_that_is_gone_or_empty_is_missed(whole, tmp_path):
    shutil.copyfile(whole[0] / COUNT, tmp_path / COUNT)
    for content in (None, b""):
        if content is not None:
            (tmp_path / "steps.arrow").write_bytes(content)
        with pytest.raises(Damaged) as error:
            list(ArrowStream(tmp_path).batches("steps"))
        assert error.value.missing == whole[1].num_rows


def test_only_what_is_read_is_looked_at(whole, tmp_path):
    path = tmp_path / "steps.parquet"
    raw = bytearray((whole[0] / "steps.parquet").read_bytes())
    column = pq.read_metadata(path_of := whole[0] / "steps.parquet").row_group(0).column(3)
    assert column.path_in_schema == "loss"
    raw[column.data_page_offset + 100] ^= 1
    path.write_bytes(raw)
    assert path_of.stat().st_size == len(raw)
    Sealed.open(path).check([0], ["seed", "step", "w0"])
    with pytest.raises(Damaged, match="column loss, row group 0"):
        Sealed.open(path).check([0], ["loss"])
    with pytest.raises(ss.InputError, match="column loss, row group 0") as error:
        list(Files({"steps": path}).batches("steps"))
    assert one_line(error)


def test_every_row_group_has_its_own_checksums(whole, tmp_path, monkeypatch):
    """Blocks of 120 rows, row groups of 100 at most: two of each block."""
    monkeypatch.setattr(written, "ROW_GROUP", 100)
    path = tmp_path / "steps.parquet"
    blocks = (block(i).batch() for i in range(BLOCKS))
    assert write_parquet(blocks, path) == whole[1].num_rows
    assert checked(path).read().equals(whole[1])
    groups = range(pq.read_metadata(path).num_row_groups)
    assert len(groups) >= 2 * BLOCKS
    column, raw = pq.read_metadata(path).row_group(2).column(3), bytearray(path.read_bytes())
    raw[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(raw)
    Sealed.open(path).check([group for group in groups if group != 2])
    with pytest.raises(Damaged, match="column loss, row group 2"):
        checked(path)


def test_other_programs_read_the_files(whole):
    """The checksums lie where Parquet and Arrow let readers look for nothing."""
    folder, rows = whole
    assert pq.read_table(folder / "steps.parquet").equals(rows)
    assert (
        pq.ParquetFile(folder / "steps.parquet", page_checksum_verification=True)
        .read()
        .equals(rows)
    )
    with pa.OSFile(str(folder / "steps.arrow")) as file:
        assert pa.ipc.open_stream(file).read_all().equals(rows)


def test_files_of_earlier_versions_are_read_as_they_are(whole, tmp_path):
    _, rows = whole
    pq.write_table(rows.replace_schema_metadata({"schema_version": "1"}), tmp_path / "old.parquet")
    assert checked(tmp_path / "old.parquet").read().equals(rows)
    assert Sealed.open(tmp_path / "old.parquet").sums is None
    path = tmp_path / "steps.arrow"
    with open(path, "wb") as file, pa.ipc.new_stream(file, rows.schema) as writer:
        writer.write_table(rows)
    assert pa.Table.from_batches(list(read_stream(path))).equals(rows)
    batches = [block(i).batch().replace_schema_metadata({NAME: KIND}) for i in range(BLOCKS)]
    with open(path, "wb") as file, pa.ipc.new_stream(file, batches[0].schema) as writer:
        for batch in batches:  # sums that know of no other block
            writer.write_batch(batch, {KIND: sum_of(batch)})
    assert pa.Table.from_batches(list(read_stream(path))).equals(rows)
    batches, before = [batch.replace_schema_metadata({NAME: CHAINED}) for batch in batches], b"0"
    with open(path, "wb") as file, pa.ipc.new_stream(file, batches[0].schema) as writer:
        for batch in batches:  # that know not whose stream it is
            before = sum_of(batch, before)
            writer.write_batch(batch, {KIND: before})
    assert pa.Table.from_batches(list(read_stream(path, "a run"))).equals(rows)


def test_a_checksum_stands_for_names_kinds_and_values():
    """That of a block does not depend on the version of Arrow: zlib's of what is written here."""
    batch = pa.record_batch({"a": np.array([1.0, 2.0]), "b": np.array([3, 4], np.int32)})
    others = [
        batch.rename_columns(["a", "c"]),
        batch.slice(0, 1),
        pa.record_batch({"a": np.array([1.0, 2.0]), "b": np.array([3, 5], np.int32)}),
        pa.record_batch({"a": np.array([1.0, 2.0]).view(np.int64), "b": batch["b"]}),
        pa.record_batch({"b": batch["b"], "a": batch["a"]}),
    ]
    sums = [sum_of(one) for one in (batch, *others)]
    assert len(set(sums)) == len(sums)
    assert sum_of(batch.slice(1, 1)) == sum_of(pa.record_batch({"a": [2.0], "b": batch["b"][1:]}))
    assert (NAME, KIND) == (b"checksums", b"crc32")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_a_file_that_cannot_be_read_now_is_not_called_damaged(tmp_path, number):
    """As it was seen: too many open files, and "run the study again, or drop the run"."""
    with pytest.raises(ss.InputError, match="cannot be read") as error, readable(tmp_path / "x"):
        raise OSError(number, os.strerror(number))
    assert "drop" not in str(error.value)


def test_a_file_for_which_there_is_no_memory_is_not_called_damaged(tmp_path):
    with pytest.raises(Away, match="too little memory") as error, readable(tmp_path / "x"):
        raise pa.ArrowMemoryError("malloc of size 64 failed")
    assert "drop" not in str(error.value)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), pa.ArrowMemoryError("malloc"), *map(OSError, [errno.EMFILE, errno.EIO], "ab")],
    ids=repr,
)
@pytest.mark.parametrize("at", [0, 1000])
def test_a_stream_that_cannot_be_read_now_is_not_called_damaged(whole, monkeypatch, error, at):
    folder, rows = whole
    read = Within.read

    def fails(file, n=-1):
        if file._file.tell() >= at:
            raise error
        return read(file, n)

    with monkeypatch.context() as patched:
        patched.setattr(Within, "read", fails)
        with pytest.raises(Away, match="cannot be read now"):
            list(read_stream(folder / "steps.arrow"))
    assert pa.Table.from_batches(list(read_stream(folder / "steps.arrow"))).equals(rows)


@pytest.mark.parametrize("of", ["a head", "a block", "the last block"])
def test_a_length_that_is_damaged_is_damage_and_takes_no_memory(whole, tmp_path, of):
    folder, _ = whole
    raw = bytearray((folder / "steps.arrow").read_bytes())
    with pa.ipc.open_stream(raw) as reader:
        size = pa.ipc.read_message(reader.read_next_batch().serialize()).body.size
    heads = [at for at in range(0, len(raw), 8) if raw[at : at + 4] == b"\xff" * 4][1:-1]
    at = heads[-1 if of == "the last block" else 2] + 4
    if of == "a head":
        raw[at : at + 4] = (2**31 - 8).to_bytes(4, "little")
    else:
        at = raw.index(size.to_bytes(8, "little"), at)
        raw[at : at + 8] = (2**40).to_bytes(8, "little")
    shutil.copyfile(folder / COUNT, tmp_path / COUNT)
    (tmp_path / "steps.arrow").write_bytes(raw)
    tracemalloc.start()
    try:
        with pytest.raises(Damaged) as error:
            list(read_stream(tmp_path / "steps.arrow"))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert error.value.missing == 3 * STEPS * (1 if of == "the last block" else BLOCKS - 2)


@pytest.mark.parametrize("what", ["a footer", "a number of rows"])
def test_what_is_far_too_long_is_not_read(tmp_path, what):
    """As it was seen: a file with holes, of gigabytes that nobody wrote, filled the memory."""
    path = tmp_path / {"a footer": "steps.parquet"}.get(what, COUNT)
    with open(path, "wb") as file:
        file.truncate(300_000_000)
        file.seek(0, 2)
        file.write((290_000_000).to_bytes(4, "little") + b"PAR1")
    tracemalloc.start()
    try:
        if what == "a footer":
            with pytest.raises(Damaged, match="no Parquet file"):
                Sealed.open(path)
        else:
            assert counted(tmp_path) == {}
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
