"""Folders for a while: none is left, not by a kill either, and nobody else's is touched."""

import os
import signal
import subprocess
import sys
import time

import pytest

from sgdstudy.tracking import scratch

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
