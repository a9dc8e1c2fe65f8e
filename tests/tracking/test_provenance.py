"""Where a run lives, and telling that its process is gone."""

import dataclasses
import os
import shutil
import subprocess

import pytest

from sgdstudy.tracking import provenance
from sgdstudy.tracking.entries import Opening
from sgdstudy.tracking.journal import Journal
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.store import open_store


def process(number):
    """A process of this machine, by its number."""
    there = provenance.here()
    space = there.pid.partition("@")[2]
    return dataclasses.replace(there, pid=f"{number}@{space}")


def test_a_process_that_runs_is_not_gone():
    assert not provenance.here().is_gone()
    assert not process(os.getppid()).is_gone()
    assert not process(1).is_gone()  # another user's, for most


def test_a_process_that_has_ended_is_gone():
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    assert process(ended.pid).is_gone()


def test_what_cannot_be_seen_from_here_is_not_called_gone():
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    here = process(ended.pid)
    assert not dataclasses.replace(here, host="elsewhere").is_gone()
    assert not dataclasses.replace(here, pid=f"{ended.pid}@another space").is_gone()
    assert not dataclasses.replace(here, boot_id="").is_gone()
    if here.boot_id:  # the machine was started again since
        assert dataclasses.replace(provenance.here(), boot_id="an earlier start").is_gone()


@pytest.mark.parametrize("error", [KeyError, OSError, ImportError])
def test_users_without_an_entry_are_told_apart(monkeypatch, error):
    """As it was seen: all were "unknown", and `prune` of one dropped the runs of another."""

    def nobody():
        raise error

    monkeypatch.setattr("getpass.getuser", nobody)
    users = set()
    for uid in (61001, 61002):
        monkeypatch.setattr("os.getuid", lambda uid=uid: uid)
        users.add(provenance.user())
    assert users == {"uid 61001", "uid 61002"}
    monkeypatch.delattr("os.getuid")  # as on Windows
    assert provenance.user() == "unknown"


def test_the_starts_of_this_machine_are_noted_once_each(tmp_path, monkeypatch):
    assert provenance.starts_in(tmp_path) == set()
    for boot_id in ("first", "second", "second", "first", ""):
        started(monkeypatch, boot_id)
        provenance.note_start(tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.read_text(encoding="utf-8") == "first\nsecond\n"
    file.write_bytes(b"\xff\nfirst\n")
    assert "first" in provenance.starts_in(tmp_path)


def started(monkeypatch, boot_id):
    there = dataclasses.replace(provenance.here(), boot_id=boot_id)
    monkeypatch.setattr(provenance, "here", lambda: there)


@pytest.mark.parametrize("other", ["of the same name", "a copy", "of an earlier version"])
def test_a_run_that_lives_on_another_machine_of_this_name_is_left(
    store, tmp_path, monkeypatch, other
):
    """As it was seen: two machines of one name, and a server; one closed the run of the other."""
    server = dataclasses.replace(open_store(store), root=None)
    mine, others = tmp_path / "mine", tmp_path / "others"

    def sit_at(machine, boot_id):
        monkeypatch.setenv("XDG_STATE_HOME", str(machine))
        started(monkeypatch, boot_id)

    def track(name):
        tags = {**provenance.process_tags(), "sgdstudy.study": "study"}
        journal = Journal.begin(server, Opening("study", name, tags), {})
        return journal.run_id

    sit_at(mine, "a start")
    first = track("first")
    if other == "a copy":
        shutil.copytree(mine, others)
    sit_at(mine, "the next start")
    second = track("second")
    folders = list(mine.rglob("streams/*"))
    assert len(folders) == 2
    sit_at(others, "another's start")
    for folder in others.rglob("streams/*"):
        shutil.rmtree(folder)
    assert recover(server).closed == (["study: first"] if other == "a copy" else [])
    assert server.client.get_run(second).info.status == "RUNNING"
    if other == "of an earlier version":
        (mine / "sgdstudy" / "starts").unlink()
    sit_at(mine, "the last start")
    for folder in folders:
        shutil.rmtree(folder)
    recover(server)
    left = {server.client.get_run(run_id).info.status for run_id in (first, second)}
    assert left == {"RUNNING" if other == "of an earlier version" else "KILLED"}
