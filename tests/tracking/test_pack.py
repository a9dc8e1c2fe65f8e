"""Single runs taken from one store to another, as a file that may come from anybody."""

import errno
import json
import os
import shutil
import signal
import stat
import zipfile
from pathlib import Path

import pytest
from conftest import call, one_line
from pandas.testing import assert_frame_equal
from test_store import files, tracked

import sgdstudy as ss
from sgdstudy.tracking.pack import pack, unpack
from sgdstudy.tracking.recovery import recover
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
    assert unpack(open_store(other), tmp_path / "b.zip")[0] == []


def test_a_run_that_lacks_its_files_is_not_packed(store, tmp_path):
    (ident,) = tracked(store, "sent", ["one"])
    (Path(store) / "artifacts" / "sent" / ident / "artifacts" / "steps.parquet").unlink()
    with pytest.raises(ss.InputError, match="lacks the steps") as error:
        pack(read_store(store), ["sent"], tmp_path / "a.zip")
    assert one_line(error)
    assert not list(tmp_path.glob("*a.zip*"))


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
    ],
)
def test_a_damaged_description_adds_nothing(other, tmp_path, about):
    path = packed(tmp_path / "evil.zip", [], about)
    with pytest.raises(ss.InputError) as error:
        unpack(open_store(other), path)
    assert one_line(error)
    assert [e.name for e in open_store(other).client.search_experiments()] == ["Default"]
    assert not list(open_store(other).streams.glob("*"))


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


# ---- cut off, and by ways round --------------------------------------------------------------


@pytest.mark.slow
def test_on_whatever_way_it_comes_back_a_run_is_there_once(store, other, empty_store, tmp_path):
    """A to B, and B to A and to C: what is known is the store where it was trained."""
    third = str(shutil.copytree(empty_store, tmp_path / "third"))
    tracked(store, "sent", ["one"])
    pack(read_store(store), ["sent"], tmp_path / "a.zip")
    unpack(open_store(other), tmp_path / "a.zip")
    pack(read_store(other), ["sent"], tmp_path / "b.zip")
    assert unpack(open_store(store), tmp_path / "b.zip")[0] == []
    for file, added in (("b.zip", 1), ("b.zip", 0), ("a.zip", 0)):
        assert len(unpack(open_store(third), tmp_path / file)[0]) == added
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
    assert len(unpack(opened, tmp_path / "a.zip")[0]) == 1
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
