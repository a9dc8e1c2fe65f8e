"""A run's folder under another name: its rows are found again, or it is named as it is."""

import itertools
import os
import shutil

import pytest
from conftest import call

import sgdstudy as ss
from sgdstudy.tracking import aside, journal, prune
from sgdstudy.tracking.entries import Closing, Opening
from sgdstudy.tracking.journal import Journal
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.runs import search
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.store import open_store
from sgdstudy.tracking.tracked_run import FINGERPRINT, INVOCATION, SWEPT

KILLED = {"a": [0.0, 1.0], "b": [10.0, 11.0], "c": [20.0, 21.0]}


@pytest.fixture
def opened(store):
    return open_store(store)


@pytest.fixture
def killed(opened):
    """The folders of runs that were killed, by the runs' names."""
    folders = {}
    for name, losses in KILLED.items():
        begun = Journal.begin(opened, Opening("lost", name, {}, metrics=("loss",)), {})
        sink = RunSink(begun)
        for loss in losses:
            sink.log({"loss": loss})
        sink.flush()
        sink.stream.drop()
        begun.let_go()
        folders[name] = begun.folder
    return folders


def exchange(*paths):
    """Give each the name of the next, and the last that of the first."""
    spare = paths[0].with_name("spare")
    os.rename(paths[-1], spare)
    for path, following in reversed(list(itertools.pairwise(paths))):
        os.rename(path, following)
    os.rename(spare, paths[0])


def rename(folder, name):
    os.rename(folder, folder.with_name(name))


def twice(folder):
    """Two copies without what they are copies of; the one that comes first lacks a row."""
    rename(folder, folder.name + " - Copy (2)")
    first = folder.with_name(folder.name + " - Copy")
    shutil.copytree(folder.with_name(folder.name + " - Copy (2)"), first)
    for name in ("steps.arrow", "rows.count"):
        (first / name).unlink()


def rows(opened):
    found = ss.load_steps("lost", store=str(opened.root), invocation="all")
    return {name: part.loss.tolist() for name, part in found.groupby("arm", observed=True)}


MENDED = {
    "a copy's name": lambda f: rename(f["a"], f["a"].name + " - Copy"),
    "in capitals": lambda f: rename(f["a"], f["a"].name.upper()),
    "another name": lambda f: rename(f["a"], "mine"),
    "a name of ours": lambda f: rename(f["a"], f["a"].name + aside.AGAIN),
    "two names exchanged": lambda f: exchange(f["a"], f["b"]),
    "three names exchanged": lambda f: exchange(f["a"], f["b"], f["c"]),
    "another's, which has a third": lambda f: (rename(f["b"], "mine"), os.rename(f["a"], f["b"])),
    "several copies": lambda f: twice(f["a"]),
}


@pytest.mark.parametrize("how", MENDED)
def test_a_folder_that_was_renamed_is_closed_with_its_rows(opened, killed, how):
    """As it was seen: "a copy, remove it by hand", and it was the only one."""
    MENDED[how](killed)
    found = recover(opened)
    assert sorted(found.closed) == ["lost: a", "lost: b", "lost: c"]
    assert found.damaged == []
    assert rows(opened) == KILLED


def other_opening(folders):
    shutil.copy(folders["a"] / "opening.json", folders["b"] / "opening.json")


NAMED = {
    "two openings exchanged": lambda f: exchange(f["a"] / "opening.json", f["b"] / "opening.json"),
    "another's opening": other_opening,
    "a damaged opening": lambda f: (f["b"] / "opening.json").write_text("{"),
    "no opening": lambda f: (f["b"] / "opening.json").unlink(),
    "an empty opening": lambda f: (f["b"] / "opening.json").write_text(""),
}


@pytest.mark.parametrize("how", NAMED)
def test_a_folder_whose_opening_is_not_its_own_is_named_and_kept(
    opened, killed, how, capsys, monkeypatch
):
    """As it was seen: "a copy, remove it by hand", "nothing to do", and 0."""
    before = (killed["b"] / "opening.json").read_bytes()
    monkeypatch.setattr(journal, "BEGIN_SECONDS", -1.0)
    NAMED[how](killed)
    for _ in range(2):
        assert call("recover", "--store", opened.root) == 1
        said = capsys.readouterr()
        assert "nothing to do" not in said.out
        assert f"{killed['b']} is left alone: its opening.json is" in said.out + said.err
        assert "remove it by hand" not in said.out + said.err
    assert rows(opened) == KILLED
    if how == "two openings exchanged":
        exchange(killed["a"] / "opening.json", killed["b"] / "opening.json")
    (killed["b"] / "opening.json").write_bytes(before)
    assert "lost: b" in recover(opened).closed
    assert rows(opened) == KILLED


@pytest.mark.parametrize("holds", ["lock", "opening.new", "a run that has ended", "artifacts"])
def test_of_folders_without_an_opening_those_go_that_hold_nothing_else(
    opened, killed, holds, monkeypatch
):
    """As it was seen: each was removed a minute later, with its rows."""
    monkeypatch.setattr(journal, "BEGIN_SECONDS", -1.0)
    folder = killed["b"]
    recover(opened)
    folder.mkdir()
    if holds == "artifacts":  # of a run that the store has not got
        folder = folder.rename(folder.with_name("1" * 13 + "-" + "a" * 12))
    part = folder / ("steps.arrow" if holds == "a run that has ended" else holds)
    part.write_text("a") if holds != "artifacts" else part.mkdir()
    found = recover(opened)
    assert folder.exists() is (holds == "artifacts")
    assert len(found.left) == (holds == "artifacts")


def test_a_copy_of_a_run_that_ended_writes_over_nothing(opened, killed):
    copy = killed["a"].with_name(killed["a"].name + " - Copy")
    shutil.copytree(killed["a"], opened.root / "elsewhere")
    recover(opened)
    os.rename(opened.root / "elsewhere", copy)
    assert recover(opened).refused == ["lost: a"]
    (kept,) = aside.listed(opened)
    assert "this is an older copy" in kept.reason
    assert rows(opened) == KILLED


DROPPED = {
    "pruned": prune.remove,
    "deleted in MLflow": lambda opened, runs: [opened.client.delete_run(r.run_id) for r in runs],
}


@pytest.mark.parametrize("sent", [True, False], ids=["sent", "of a sweep"])
@pytest.mark.parametrize("back", ["beside", "in its place", "in another's place", "aside"])
@pytest.mark.parametrize("how", DROPPED)
def test_a_copy_of_a_run_that_was_dropped_does_not_bring_it_back(opened, killed, how, back, sent):
    """As it was seen: a sweep's cut-off run, trained again by --resume, was there a second time.

    A sweep's runs are sent once, when they are over: their folders have no run's id.
    """
    folder = killed["a"]
    if not sent:
        (folder / "sent.json").unlink()
    copy = shutil.copytree(folder, opened.root / "elsewhere")
    places = {
        "beside": folder.with_name(folder.name + " - Copy"),
        "in another's place": folder.with_name("1" * 13 + "-" + "a" * 12),
        "aside": aside.place_of(opened) / folder.name,
    }
    recover(opened)
    DROPPED[how](opened, search(opened, [opened.experiment("lost")], ""))
    place = places.get(back, folder)
    place.parent.mkdir(exist_ok=True)
    os.rename(copy, place)
    aside.put_back(opened)
    assert recover(opened).refused == ["lost: a"]
    assert search(opened, [opened.experiment("lost")], "") == []
    (kept,) = aside.listed(opened)
    said = ("the store had the run, and it was deleted there", "this is an older copy")
    assert kept.reason.endswith(said)
    assert (kept.folder / "steps.arrow").exists()
    aside.discard(opened, kept.folder.name)
    assert str(recover(opened)) == ""


@pytest.mark.parametrize("ended", ["FINISHED", "KILLED"])
def test_a_run_of_a_sweep_that_was_resumed_without_its_folder_is_set_aside(opened, ended):
    """Its combination was trained again while the folder was elsewhere."""
    tags = {SWEPT: "{}", INVOCATION: "20260101-000000-000000-abcd", FINGERPRINT: "a" * 16}
    first, second = (
        Journal.begin(opened, Opening("lost", "lr=1", dict(tags)), {}, send=False) for _ in "ab"
    )
    second.close(Closing(ended))
    first.let_go()
    found = recover(opened)
    again = ended == "FINISHED"
    assert (found.refused, found.closed) == (["lost: lr=1"] * again, ["lost: lr=1"] * (not again))
    assert len(search(opened, [opened.experiment("lost")], "")) == (1 if again else 2)
    assert [run.reason.endswith("combination again") for run in aside.listed(opened)] == [1] * again


def test_a_copy_of_a_run_that_is_set_aside_is_named(opened, killed):
    copy = shutil.copytree(killed["a"], killed["a"].with_name("mine"))
    aside.put(opened, killed["a"], "refused")
    (left,) = recover(opened).left
    assert f"{copy} is a copy of {killed['a'].name}" in left
