"""Single runs taken from one store to another, as a file that may come from anybody."""

import contextlib
import dataclasses
import datetime as dt
import errno
import json
import math
import os
import shutil
import signal
import sqlite3
import stat
import struct
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import call, one_line
from mlflow import MlflowClient
from pandas.testing import assert_frame_equal
from test_store import files, tracked

import sgdstudy as ss
from sgdstudy.tracking import pack as packing
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.pack import pack, unpack
from sgdstudy.tracking.places import local_path
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.store import open_store, read_store

IDENT = "0" * 32
LABELS = ["run_id", "study"]


@pytest.fixture
def other(empty_store, tmp_path):
    """Another store."""
    return str(shutil.copytree(empty_store, tmp_path / "other"))


@pytest.mark.slow
def test_a_study_and_a_single_run_arrive_as_they_were(store, other, tmp_path, capsys):
    tracked(store, "sent")
    (single, _) = tracked(store, "more")
    file = str(tmp_path / "runs.zip")
    for words in (["pack", "sent", single, file, "--store", store],) + (
        (["unpack", file, "--store", other],) * 2
    ):
        assert call(*words) == 0
    assert "added 0 runs; 3 were there already" in capsys.readouterr().out
    for study, arms in (("sent", None), ("more", "one")):
        for load in (ss.load_steps, ss.load_epochs, ss.load_runs):
            before, after = (load(study, arms=arms, store=place) for place in (store, other))
            assert_frame_equal(*(t.drop(columns=LABELS) for t in (before, after)), check_exact=True)
    old, new = (open_store(place).client for place in (store, other))
    moved = ss.load_runs("more", store=other)["run_id"][0]
    one, two = old.get_run(single), new.get_run(moved)
    assert two.data.tags["sgdstudy.unpacked_from"] == single
    assert (one.info.start_time, one.info.end_time) == (two.info.start_time, two.info.end_time)
    assert (
        one.inputs.dataset_inputs[0].dataset.digest == two.inputs.dataset_inputs[0].dataset.digest
    )
    points = [
        sorted((p.step, p.value, p.timestamp) for p in client.get_metric_history(ident, key))
        for client, ident in ((old, single), (new, moved))
        for key in ("batch/loss",)
    ]
    assert points[0] == points[1]
    assert len(points[0]) > 5
    assert not list(open_store(other).streams.glob("*"))


@pytest.mark.slow
def test_what_was_unpacked_goes_back_to_where_it_came_from_once(store, other, tmp_path):
    tracked(store, "sent", ["one"])
    pack(read_store(store), ["sent"], tmp_path / "a.zip")
    unpack(open_store(other), tmp_path / "a.zip")
    pack(read_store(other), ["sent"], tmp_path / "b.zip")
    assert unpack(open_store(other), tmp_path / "b.zip").added == []


def test_a_run_that_was_deleted_is_named_where_it_is_unpacked_anew(store, tmp_path, caplog):
    """As it was seen: it was added as if the store had never had it."""
    (ident,) = tracked(store, "sent", ["one"])
    pack(read_store(store), ["sent"], tmp_path / "a.zip")
    opened, gone = open_store(store), ident
    for _ in ("itself", "unpacked"):
        opened.client.delete_run(gone)
        caplog.clear()
        assert unpack(opened, tmp_path / "a.zip").added == [ident]
        (line,) = caplog.messages
        assert line == f"the run one ({ident[:8]}) was deleted in MLflow; it is added as a new one"
        gone = ss.load_runs("sent", store=store)["run_id"][0]
    caplog.clear()
    assert unpack(opened, tmp_path / "a.zip").there == [ident]
    assert not caplog.messages


@pytest.mark.parametrize("how", ["dropped", "deleted in the UI"])
def test_a_run_that_is_dropped_while_it_is_packed_is_named(store, tmp_path, monkeypatch, how):
    """As it was seen: one of its files "is not a file", or the store "refuses to answer"."""
    with Invocation.start(open_store(store), "sent").run("one", "", {}) as journal:
        journal.add("a.txt", lambda path: path.write_text("a"))
    real = packing.names_of_artifacts

    def drop(opened, run, *given, **named):
        found = real(opened, run, *given, **named)
        shutil.rmtree(local_path(run.artifact_uri), ignore_errors=True)
        if how == "dropped":
            with sqlite3.connect(Path(store) / "mlflow.db") as database:
                for table in ("tags", "params", "latest_metrics", "metrics", "runs"):
                    database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", [run.run_id])
        else:
            MlflowClient(opened.uri).delete_run(run.run_id)
        return found

    opened = read_store(store)
    monkeypatch.setattr(packing, "names_of_artifacts", drop)
    with pytest.raises(ss.InputError, match="was dropped meanwhile") as error:
        pack(opened, ["sent"], tmp_path / "a.zip")
    assert one_line(error)
    assert not (tmp_path / "a.zip").exists()


def test_a_run_that_lacks_its_files_is_not_packed(store, tmp_path):
    (ident,) = tracked(store, "sent", ["one"])
    (Path(store) / "artifacts" / "sent" / ident / "artifacts" / "steps.parquet").unlink()
    with pytest.raises(ss.InputError, match="lacks the steps") as error:
        pack(read_store(store), ["sent"], tmp_path / "a.zip")
    assert one_line(error)
    assert not list(tmp_path.glob("*a.zip*"))


@pytest.mark.parametrize("where", ["local", "server"])
def test_what_else_people_log_into_a_run_is_left_out_and_named(
    store, other, tmp_path, caplog, monkeypatch, where
):
    """As it was seen: a folder logged with `log_artifacts` kept a whole study from being packed."""
    monkeypatch.chdir(tmp_path)  # MLflow's own place for files lies there
    opened = open_store(store)
    opened = opened if where == "local" else dataclasses.replace(opened, root=None)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with Invocation.start(opened, "sent").run("one", "", {}) as journal:
        journal.add("ours.txt", lambda path: path.write_text("a"))
    (tmp_path / "model").mkdir()
    odd = os.fsdecode(b"caf\xe9.png")  # not UTF-8
    for name in ("model/weights", "notes.txt", "a\\b", odd):
        (tmp_path / name).write_text("b")
    client = MlflowClient(tracking_uri=opened.uri)
    client.log_artifacts(journal.run_id, str(tmp_path / "model"), "model")
    for name in ("notes.txt", "a\\b", odd):
        client.log_artifact(journal.run_id, str(tmp_path / name))
    caplog.clear()
    assert pack(opened, ["sent"], tmp_path / "a.zip") == [journal.run_id]
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(" of the run one")[0] for line in said] == [
        "'model'",
        "'a\\\\b'",
        "'caf\\udce9.png'",
    ]
    unpack(open_store(other), tmp_path / "a.zip")
    place = next(Path(other).glob("artifacts/sent/*/artifacts"))
    assert sorted(path.name for path in place.iterdir()) == ["notes.txt", "ours.txt"]


ABOUT = {
    **{"format": 1, "study": "s", "name": "n", "status": "FINISHED", "data": None, "params": {}},
    **{"tags": {}, "points": [["k", 0, 1.0, 5]], "start_ms": 1, "end_ms": 2},
}


def packed(path, names=(), about=None, mode=None, text="x"):
    """Write a file as an attacker would."""
    with zipfile.ZipFile(path, "w") as file:
        if about is not None:
            file.writestr(
                f"{IDENT}/run.json", about if isinstance(about, str) else json.dumps(about)
            )
        for name in names:
            info = zipfile.ZipInfo(name)
            if mode is not None:
                info.external_attr = mode << 16
            file.writestr(info, text)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/tmp/evil",
        f"{IDENT}/artifacts/../../evil",
        f"{IDENT}/artifacts/..",
        f"{IDENT}/artifacts/a/b",
        f"{IDENT}/artifacts/a\\b",
        f"{IDENT}/closing.json",
        f"{IDENT}/artifacts/",
        f"{IDENT}/artifacts/{'a' * 256}",
        f"{IDENT}/artifacts/{'é' * 128}",
        "streams/x/opening.json",
        "x/run.json",
    ],
)
def test_names_that_lead_elsewhere_are_refused(other, tmp_path, name):
    before = files(tmp_path)
    path = packed(tmp_path / "evil.zip", [name], ABOUT)
    with pytest.raises(ss.InputError, match="not a file of a run's") as error:
        unpack(open_store(other), path)
    assert one_line(error)
    path.unlink()
    assert files(tmp_path) == before


@pytest.mark.parametrize("year", [2290, 9999])
def test_what_is_packed_of_a_clock_that_is_far_ahead_is_unpacked(
    store, other, tmp_path, monkeypatch, year
):
    """As it was seen: "run.json is damaged"."""
    ms = int(dt.datetime(year, 6, 1, tzinfo=dt.UTC).timestamp() * 1000)
    with monkeypatch.context() as patch:
        patch.setattr("sgdstudy.tracking.entries.now_ms", lambda: ms)
        patch.setattr("time.time", lambda: ms / 1000)
        patch.setattr("time.time_ns", lambda: ms * 1_000_000)
        with Invocation.start(open_store(store), "far").run("one", "", {}) as journal:
            RunSink(journal).log({"loss": 1.0})
        pack(read_store(store), ["far"], tmp_path / "a.zip")
    assert len(unpack(open_store(other), tmp_path / "a.zip").added) == 1
    assert len(ss.load_runs("far", store=other)) == 1


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFDIR])
def test_links_and_devices_are_refused(other, tmp_path, kind):
    names = [f"{IDENT}/artifacts/steps.parquet"]
    path = packed(tmp_path / "evil.zip", names, ABOUT, kind | 0o777, "/etc/passwd")
    with pytest.raises(ss.InputError, match="not a file of a run's"):
        unpack(open_store(other), path)


def wrong(**changes):
    return {**ABOUT, **changes}


@pytest.mark.parametrize(
    "about",
    [
        "{",
        "[]",
        "null",
        "[" * 100_000,
        {},
        wrong(format=2),
        wrong(tags=[]),
        wrong(tags={"a": 1}),
        wrong(params={"a": None}),
        wrong(points=[["k", 0]]),
        wrong(points=[["k", "x", 1, 1]]),
        wrong(start_ms="now"),
        wrong(status="RUNNING"),
        wrong(study="../x"),
        wrong(study=""),
        wrong(data={"name": "x"}),
        wrong(data=3),
        wrong(points=[["k", math.inf, 1.0, 5]]),
        json.dumps(ABOUT).replace("0, 1.0", "1e400, 1.0"),
        wrong(points=[["k", 2**63, 1.0, 5]]),
        wrong(points=[["k", 0, 1.0, 2**63]]),
        wrong(points=[["k", 0, 1.0, -5]]),
        wrong(points=[["\ud800", 0, 1.0, 5]]),
        wrong(points=[["", 0, 1.0, 5]]),
        wrong(end_ms=2**63),
        wrong(start_ms=-1),
        wrong(params={"a" * 251: "x"}),
        wrong(tags={"\udc00": "x"}),
        wrong(data={"name": "x", "digest": "\ud800", "profile": {}}),
    ],
)
def test_a_damaged_description_adds_nothing(other, tmp_path, about):
    path = packed(tmp_path / "evil.zip", [], about)
    with pytest.raises(ss.InputError) as error:
        unpack(open_store(other), path)
    assert one_line(error)
    assert [e.name for e in open_store(other).client.search_experiments()] == ["Default"]
    assert not list(open_store(other).streams.glob("*"))


@pytest.mark.parametrize("points", [[["k", 0, 1e9, 5]], [["k", 0, 1.0, 5]] * 9])
def test_a_description_that_a_journal_could_not_hold_is_too_large(
    other, tmp_path, points, monkeypatch
):
    """Read back it would be damaged, and the run go on for ever; short numbers are written long."""
    about = json.dumps(wrong(points=points)).replace("1000000000.0", "1e9")
    monkeypatch.setattr(packing, "MOST_JSON", len(about) + 1)
    path = packed(tmp_path / "a.zip", [], about + " " * 2 * len(points[1:]))
    with pytest.raises(ss.InputError, match=r"run\.json is too large") as error:
        unpack(open_store(other), path)
    assert one_line(error)


def test_a_description_that_takes_much_memory_is_not_read(other, tmp_path):
    """As it was seen: a small file whose description is millions of empty lists."""
    path = packed(tmp_path / "a.zip", [], "[" + "[]," * 3_000_000 + "[]]")
    with pytest.raises(ss.InputError, match=r"run\.json is too large") as error:
        unpack(open_store(other), path)
    assert one_line(error)


def test_a_name_that_is_no_text_is_damage(other, tmp_path):
    path = packed(tmp_path / "a.zip", [f"{IDENT}/artifacts/é"], ABOUT)
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xff"))
    with pytest.raises(ss.InputError, match=r"a\.zip is damaged") as error:
        unpack(open_store(other), path)
    assert one_line(error)


@pytest.mark.parametrize(
    "changes",
    [
        {"params": {"a,b": "1"}},
        {"points": [["k$", 0, 1.0, 5]]},
        {"data": {"name": "x", "digest": "d" * 40, "profile": {}}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_run_that_the_store_refuses_is_counted_apart(other, tmp_path, capsys, changes):
    """As it was seen: added, exit code 0, and it was not there; or RUNNING for ever."""
    path = packed(tmp_path / "a.zip", [], wrong(**changes))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(f"{'1' * 32}/run.json", json.dumps(ABOUT))
    for counts in ("added 1 run; 0 were there", "added 0 runs; 1 was there"):
        assert call("unpack", path, "--store", other) == 1
        said = capsys.readouterr().err
        assert f"error: {counts} already; 1 is not in the store, sgdstudy recover says why" in said
    runs = open_store(other).client.search_runs(
        [open_store(other).experiment("s")], "attributes.status != 'FAILED'"
    )
    assert [run.data.tags["sgdstudy.unpacked_from"] for run in runs] == ["1" * 32]
    assert call("recover", "--store", other) == 1
    assert "refused: " in capsys.readouterr().out
    assert len(list((Path(other) / "aside").iterdir())) == 1


def numbered(number, invocation="20260101-000000-000000-abcd"):
    return {"sgdstudy.invocation": invocation, "sgdstudy.number": number}


@pytest.mark.parametrize("ahead", [None, "0" + "9" * 14, "x", 50 * 31_536_000_000])
def test_a_number_of_another_store_comes_before_those_that_follow(other, tmp_path, ahead):
    """As it was seen: a number that anybody wrote was copied, and hid every later invocation."""
    now = int(time.time() * 1000)
    tags = numbered(ahead if isinstance(ahead, str) else f"{now + (ahead or -5000):015d}")
    unpack(open_store(other), packed(tmp_path / "a.zip", [], wrong(tags=tags)))
    opened = open_store(other)
    (run,) = opened.client.search_runs([opened.experiment("s")])
    number = run.data.tags["sgdstudy.number"]
    assert (number == tags["sgdstudy.number"]) == (ahead is None)
    assert int(number) <= time.time() * 1000
    with Invocation.start(opened, "s").run("new", "", {}):
        pass
    assert ss.load_runs("s", store=other).arm.tolist() == ["new"]


def test_a_run_of_no_invocation_gets_no_number(other, tmp_path):
    path = packed(tmp_path / "a.zip", [], wrong(tags=numbered("000000000000005", "")))
    unpack(open_store(other), path)
    (run,) = open_store(other).client.search_runs([open_store(other).experiment("s")])
    assert "sgdstudy.number" not in run.data.tags


def test_a_run_that_is_too_large_is_not_packed(store, tmp_path, monkeypatch):
    tracked(store, "sent", ["one"])
    monkeypatch.setattr(packing, "MOST_JSON", 1000)
    with pytest.raises(ss.InputError, match="too many points") as error:
        pack(read_store(store), ["sent"], tmp_path / "a.zip")
    assert one_line(error)
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "noise", "text", "gone", "bomb"])
def test_a_damaged_file_is_named(store, other, tmp_path, damage, monkeypatch):
    tracked(store, "sent", ["one"])
    path = tmp_path / "a.zip"
    pack(read_store(store), ["sent"], path)
    data = path.read_bytes()
    if damage == "bomb":
        monkeypatch.setattr("shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 10))
    else:
        path.write_bytes({"cut": data[:-100], "text": b"hello"}.get(damage, data))
    if damage == "noise":
        path.write_bytes(data[:3000] + bytes(400) + data[3400:])
    if damage == "gone":
        path.unlink()
    with pytest.raises(ss.InputError, match=r"a\.zip") as error:
        unpack(open_store(other), path)
    assert one_line(error)
    monkeypatch.undo()
    assert not list(open_store(other).streams.glob("*/opening.json"))


@pytest.fixture
def two(tmp_path):
    """A packed file of two runs."""
    path = packed(tmp_path / "two.zip", [f"{IDENT}/artifacts/a.txt"], ABOUT)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(f"{'1' * 32}/run.json", json.dumps(ABOUT))
    return path


def listed(path):
    """What a packed file holds, as `unpack` sees it."""
    with packing._opened(path) as file:
        runs = packing._listed(file, path, SimpleNamespace(streams=path.parent))
        return {run: [(name, file.read(f"{run}/{name}")) for name in runs[run]] for run in runs}


@pytest.mark.slow
def test_one_wrong_bit_in_the_list_of_files_loses_none(two):
    """As it was seen: "added 1 run", of two, and without its files; an OSError."""
    whole, data = listed(two), two.read_bytes()
    numbers, at = [], struct.unpack_from("<I", data, len(data) - 6)[0]
    while data[at : at + 4] == b"PK\x01\x02":
        numbers += range(at + 16, at + 46)  # checksum, sizes, lengths, place
        at += 46 + struct.unpack_from("<H", data, at + 28)[0]
    assert at == len(data) - 22
    for place in [*numbers, *range(at, len(data))]:
        for bit in range(8):
            wrong = bytearray(data)
            wrong[place] ^= 1 << bit
            two.write_bytes(wrong)
            with contextlib.suppress(ss.InputError):
                assert listed(two) == whole


@pytest.mark.parametrize("place", [2**40, 2**62, 2**63])
def test_a_place_that_no_file_has_is_damage(other, tmp_path, place):
    name, path = f"{IDENT}/run.json".encode(), tmp_path / "a.zip"
    extra = struct.pack("<HHQ", 1, 8, place)
    numbers = (20, 20, 0, 0, 0, 0, 0, 1, 1, len(name), len(extra), 0, 0, 0, 0, 2**32 - 1)
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", *numbers) + name + extra
    path.write_bytes(entry + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(entry), 0, 0))
    with pytest.raises(ss.InputError, match=r"a\.zip is damaged") as error:
        unpack(open_store(other), path)
    assert one_line(error)


def test_a_file_with_very_much_in_it_is_read(two, monkeypatch):
    whole = listed(two)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    with zipfile.ZipFile(two, "a") as file:
        file.writestr(f"{IDENT}/artifacts/b.txt", "y")
    assert two.read_bytes()[-98:-94] == b"PK\x06\x06"
    assert listed(two) == whole | {IDENT: [*whole[IDENT], ("artifacts/b.txt", b"y")]}
    two.write_bytes(two.read_bytes().replace(b"PK\x06\x06", b"PK\x06\x07"))
    with pytest.raises(ss.InputError, match="is damaged"):
        listed(two)


FIGURES = {"sgdstudy.crc32.figures": "0, 0", "sgdstudy.figures": "a.txt, b.png"}


@pytest.mark.parametrize("status", ["FINISHED", "KILLED"])
@pytest.mark.parametrize(
    ("tags", "lost"),
    [
        ({"sgdstudy.crc32.steps.parquet": "0"}, "steps.parquet"),
        ({"sgdstudy.crc32.claims.json": "0", "sgdstudy.crc32.a.txt": "0"}, "claims.json"),
        (FIGURES, "b.png"),
    ],
)
def test_a_file_without_what_its_run_names_is_damaged(other, tmp_path, tags, lost, status):
    """As it was seen: unpacked without a word; whoever loaded it was told of a damaged store."""
    about = wrong(tags=tags, status=status)
    path = packed(tmp_path / "a.zip", [f"{IDENT}/artifacts/a.txt"], about)
    opened = open_store(other)
    if status == "KILLED" and lost != "steps.parquet":  # it was cut off before it had them
        assert unpack(opened, path).added == [IDENT]
        return
    with pytest.raises(ss.InputError, match=f"a.zip is damaged: .*lacks the {lost} of n") as error:
        unpack(opened, path)
    assert one_line(error)
    assert not list(opened.streams.glob("*"))


# ---- cut off, and by ways round --------------------------------------------------------------


@pytest.mark.slow
def test_on_whatever_way_it_comes_back_a_run_is_there_once(store, other, empty_store, tmp_path):
    """A to B, and B to A and to C: what is known is the store where it was trained."""
    third = str(shutil.copytree(empty_store, tmp_path / "third"))
    tracked(store, "sent", ["one"])
    pack(read_store(store), ["sent"], tmp_path / "a.zip")
    unpack(open_store(other), tmp_path / "a.zip")
    pack(read_store(other), ["sent"], tmp_path / "b.zip")
    assert unpack(open_store(store), tmp_path / "b.zip").added == []
    for file, added in (("b.zip", 1), ("b.zip", 0), ("a.zip", 0)):
        assert len(unpack(open_store(third), tmp_path / file).added) == added
    assert len(ss.load_runs("sent", store=third, invocation="all")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "the disk is full"])
@pytest.mark.parametrize("name", ["opening.json", "steps.parquet", "closing.json"])
def test_a_run_that_is_cut_off_while_it_is_unpacked_is_unpacked_the_next_time(
    store, other, tmp_path, how, name
):
    """Closed by the next command, it would be there without its rows, and pass for unpacked."""
    tracked(store, "sent", ["one"])
    pack(read_store(store), ["sent"], tmp_path / "a.zip")
    opened = open_store(other)
    pid = os.fork()
    if not pid:
        real = os.replace

        def fails(source, target):
            if Path(target).name == name and how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if Path(target).name == name:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(source, target)

        os.replace = fails
        try:
            unpack(opened, tmp_path / "a.zip")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    for left in opened.streams.glob("*"):
        os.utime(left, (0, 0))
    assert recover(opened).closed == []
    assert len(unpack(opened, tmp_path / "a.zip").added) == 1
    assert len(ss.load_steps("sent", store=other)) == len(ss.load_steps("sent", store=store))
    assert not list(opened.streams.glob("*"))


def test_a_file_of_another_kind_is_not_packed_over(store, tmp_path):
    """A zip of somebody's: a document, an archive of arrays; a pipe, a device."""
    tracked(store, "sent", ["one"])
    with zipfile.ZipFile(tmp_path / "thesis.docx", "w") as file:
        file.writestr("word/document.xml", "years of work")
    os.mkfifo(tmp_path / "pipe")
    before = files(tmp_path)
    for name in ("thesis.docx", "pipe"):
        with pytest.raises(ss.InputError, match="is there and is not a") as error:
            pack(read_store(store), ["sent"], tmp_path / name)
        assert one_line(error)
    assert files(tmp_path) == before
