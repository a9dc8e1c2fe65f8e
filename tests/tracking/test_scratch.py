"""Folders for a while: none is left, not by a kill either, and nobody else's is touched."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock
from test_store import tracked

import sgdstudy as ss
from sgdstudy.tracking import export as exporting
from sgdstudy.tracking import outputs, scratch
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.store import open_store


class Unlockable(FileLock):
    """A lock of a folder of an export that cannot be taken."""

    error: BaseException

    @classmethod
    def of(cls, error):
        return type("Lock", (cls,), {"error": error})

    def acquire(self, *given, **options):
        if ".export-" in str(self.lock_file):
            raise self.error
        return super().acquire(*given, **options)


HOLDS = """
import sys, time
from pathlib import Path
from sgdstudy.tracking import scratch
folder, lock = scratch.make(Path(sys.argv[1]))
(folder / "rows").write_text("many")
print(folder, flush=True)
time.sleep(600)
"""


def old(folder):
    then = time.time() - 3600
    os.utime(folder / scratch.LOCK, (then, then))


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_what_a_killed_process_left_is_removed_and_a_living_ones_stays(tmp_path):
    words = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        left = tmp_path / process.stdout.readline().strip().rpartition("/")[2]
        old(left)
        with scratch.scratch(tmp_path) as mine:
            assert left.is_dir()
            assert mine.is_dir()
        process.send_signal(signal.SIGKILL)
    old(left)
    with scratch.scratch(tmp_path) as mine:
        assert [path for path in tmp_path.iterdir() if path != mine] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", ["the lock", "a file", "moving"])
def test_what_cannot_be_exported_leaves_nothing(store, tmp_path, monkeypatch, error, at):
    """As it was seen: the disk had room for a folder but not for its lock, and it stayed."""
    tracked(store, "kept", ["one"])

    def ends(*given):
        raise error

    names = {"the lock": (scratch, "FileLock"), "a file": (exporting, "_write")}
    if at == "moving":
        monkeypatch.setattr(Path, "replace", ends)
    else:
        monkeypatch.setattr(*names[at], ends if at == "a file" else Unlockable.of(error))
    with pytest.raises((ss.InputError, KeyboardInterrupt)):
        exporting.export("kept", tmp_path / "out", store=store)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_not_surely_ours_is_left_alone(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / scratch.LOCK).touch()
    old(elsewhere)
    (tmp_path / "sgdstudy-link").symlink_to(elsewhere)
    (tmp_path / "sgdstudy-theirs").mkdir()  # without a lock
    new = tmp_path / "sgdstudy-new"  # being made
    new.mkdir()
    (new / scratch.LOCK).touch()
    (tmp_path / "sgdstudy-file").touch()
    before = sorted(tmp_path.rglob("*"))
    with scratch.scratch(tmp_path):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_it_is_gone_after_an_error_too(tmp_path):
    def fails():
        with scratch.scratch(tmp_path, ".export-") as folder:
            (folder / "half.csv").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prefix", [scratch.PREFIX, outputs.PREFIX, ".export-"])
def test_a_store_of_such_a_name_is_no_folder_for_a_while(store, tmp_path, monkeypatch, prefix):
    """A store has a lock too: one in /tmp/sgdstudy-results went with the next `load_steps`."""
    monkeypatch.setattr(scratch, "MADE_SECONDS", 0.0)
    place = Path(shutil.move(store, tmp_path / f"{prefix}results"))
    tracked(place, "kept", ["one"])
    time.sleep(0.01)
    for _ in range(2):
        with scratch.scratch(tmp_path, prefix):
            assert len(ss.load_runs("kept", store=str(place))) == 1


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process that is killed")
def test_what_a_process_left_that_was_killed_as_it_made_a_store_is_removed(tmp_path, no_server):
    """As it was seen: tmpXXXXXXXX in the store, for good."""
    place = tmp_path / "mlruns"
    pid = os.fork()
    if not pid:
        os.replace = lambda *_: os._exit(0)
        try:
            open_store(str(place))
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    (left,) = (path for path in place.iterdir() if path.is_dir())
    old(left)
    recover(open_store(str(place)))
    assert not left.exists()
    assert {path.name for path in place.iterdir() if path.is_dir()} == set()
