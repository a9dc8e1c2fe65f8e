"""Folders that go to another place: also where the system cannot rename them."""

import errno
import os
import shutil

import pytest

import sgdstudy as ss
from sgdstudy.tracking import aside, durable, recovery, scratch, strays
from sgdstudy.tracking.entries import Opening
from sgdstudy.tracking.journal import Journal
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.store import open_store

LOSSES = [0.0, 1.0]


@pytest.fixture
def opened(store):
    return open_store(store)


@pytest.fixture
def killed(opened):
    """The folder of a run that was killed."""
    begun = Journal.begin(opened, Opening("lost", "a", {}, metrics=("loss",)), {})
    sink = RunSink(begun)
    for loss in LOSSES:
        sink.log({"loss": loss})
    sink.flush()
    sink.stream.drop()
    begun.let_go()
    return begun.folder


def lower(monkeypatch, *folders):
    """Let these be in a lower layer of an overlay: none is renamed, what is copied may be."""
    rename = os.rename

    def refuse(source, target, **how):
        if source in folders:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source), None, str(target))
        rename(source, target, **how)

    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, refuse)


def rows(opened):
    return ss.load_steps("lost", store=str(opened.root), invocation="all").loss.tolist()


def names(place):
    return sorted(path.name for path in place.iterdir())


@pytest.mark.parametrize("name", ["{} - Copy", "mine", "{}-again"])
def test_a_stray_of_a_lower_layer_gets_its_name_back(opened, killed, monkeypatch, name):
    """As it was seen: the run was closed without its rows."""
    stray = killed.with_name(name.format(killed.name))
    os.rename(killed, stray)
    lower(monkeypatch, stray)
    assert recover(opened).closed == ["lost: a"]
    assert rows(opened) == LOSSES
    assert names(opened.streams) == []


def test_a_run_of_a_lower_layer_is_set_aside_and_tried_again(opened, killed, monkeypatch):
    """As it was seen: "Invalid cross-device link" at every command."""
    lower(monkeypatch, killed)
    place = aside.put(opened, killed, "it is deleted")
    assert (names(opened.streams), names(place.parent)) == ([], [killed.name])
    assert [one.reason for one in aside.listed(opened)] == ["it is deleted"]
    lower(monkeypatch, place)
    aside.put_back(opened)
    assert (names(opened.streams), names(place.parent)) == ([killed.name], [])
    assert recover(opened).closed == ["lost: a"]
    assert rows(opened) == LOSSES


def test_what_is_cut_off_while_it_is_copied_is_whole_where_it_was(opened, killed, monkeypatch):
    lower(monkeypatch, killed)

    def cut(source, target):
        (target / "opening.json").parent.mkdir()
        shutil.copyfile(source / "opening.json", target / "opening.json")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = names(killed)
    monkeypatch.setattr(shutil, "copytree", cut)
    with pytest.raises(OSError, match="No space"):
        durable.move_folder(killed, killed.with_name("other"))
    assert (names(killed), names(killed.parent)) == (before, [killed.name])


@pytest.mark.parametrize("place", ["streams", "aside", "."])
def test_what_a_killed_process_was_copying_is_cleared_and_is_not_a_run(opened, killed, place):
    shutil.copytree(killed, opened.root / place / "sgdstudy-abc" / killed.name)
    lock = opened.root / place / "sgdstudy-abc" / scratch.LOCK
    lock.touch()
    found = recover(opened)
    assert (found.closed, found.left) == (["lost: a"], [])
    os.utime(lock, (0, 0))
    recover(opened)
    assert not lock.parent.exists()


def test_a_run_whose_stray_keeps_its_name_is_not_closed(opened, killed, monkeypatch):
    """As it was seen: it was closed without its rows, which lay beside."""

    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    killed.rename(killed.with_name("mine"))
    monkeypatch.setattr(strays, "move_folder", refuse)
    monkeypatch.setattr(recovery.Process, "is_gone", lambda *_: True)
    found = recover(opened)
    assert found.closed == []
    assert "it is the only one" in found.left[0]
    monkeypatch.setattr(strays, "move_folder", durable.move_folder)
    assert recover(opened).closed == ["lost: a"]
    assert rows(opened) == LOSSES
