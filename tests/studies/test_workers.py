"""Worker processes end with the command that started them, however that ends."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import psutil
import pytest

from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.store import open_store

SCRIPT = '''"""Two arms that would train for hours."""

import os
from pathlib import Path

import torch

import sgdstudy as ss


def tells(generator, d):
    """Random reshuffling; a file says which process trains."""
    Path(__file__).with_name(f"trains {os.getpid()}").touch()
    return torch.randperm(d, generator=generator)


def arms(o):
    same = {"optimizer": "notebook", "lr": 1e-5, "batch_size": 10, "epochs": 1_000_000}
    same |= {"seeds": o.seed_range(), "engine": "eager", "record_rows": 1000, "order": tells}
    return {name: ss.Arm(ss.problems.curve(), "", **same) for name in ("one", "two")}


STUDY = ss.Study(__file__, __doc__, ss.Options, arms, lambda o, r: [], lambda o, r, c: "none")
'''
WORDS = {
    "run": lambda script, store: ["run", script, "--jobs", "2", "--store", store],
    "sweep": lambda script, store: [
        *["sweep", script, "--grid", "lr=1e-5,2e-5", "--seeds", "1", "--jobs", "2"],
        *["--store", store],
    ],
}


def wait_for(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def at_work(kind, tmp_path, store):
    """Start a command of two workers, and yield it when both train."""
    script = tmp_path / "endless.py"
    script.write_text(SCRIPT)
    words = WORDS[kind](str(script), store)
    process = subprocess.Popen(
        [sys.executable, "-m", "sgdstudy", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    parent, streams = psutil.Process(process.pid), open_store(store).streams

    def working():
        """Whether both workers train; of a study's arms, whether their rows are on the disk."""
        assert process.poll() is None
        if kind == "run":
            return len(list(streams.glob("*/steps.arrow"))) == 2
        at_it = [p for p in parent.children() if (tmp_path / f"trains {p.pid}").exists()]
        return len(at_it) == 2

    try:
        wait_for(working)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def statuses(opened):
    experiments = [e.experiment_id for e in opened.client.search_experiments()]
    return [run.info.status for run in opened.client.search_runs(experiments)]


@pytest.mark.faults
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("kind", WORDS)
def test_workers_end_with_their_parent_and_their_runs_are_closed(kind, tmp_path, store):
    with at_work(kind, tmp_path, store) as process:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        gone, alive = psutil.wait_procs(family, timeout=30)
        assert not alive
        assert len(gone) >= 2
    opened = open_store(store)
    found = recover(opened)
    assert sorted(found.closed) == (["endless: one", "endless: two"] if kind == "run" else [])
    assert set(statuses(opened)) <= {"KILLED"}


@pytest.mark.faults
@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM")
@pytest.mark.parametrize(
    ("kind", "number", "group"),
    [
        ("run", signal.SIGTERM, False),
        ("run", signal.SIGINT, True),  # a terminal's Ctrl-C: the workers get it too
        ("sweep", signal.SIGTERM, True),  # a service's end
    ],
)
def test_a_signal_to_stop_is_handed_on_to_the_workers(kind, number, group, tmp_path, store):
    with at_work(kind, tmp_path, store) as process:
        if group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130
    assert said.count("\n") == 1
    assert "what ran is saved" in said
    assert statuses(open_store(store)) == (["KILLED"] * 2 if kind == "run" else [])


@pytest.mark.faults
@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM")
def test_a_second_signal_ends_it_at_once_in_one_line(tmp_path, store):
    with at_work("sweep", tmp_path, store) as process:
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        said = process.communicate(timeout=60)[1].decode()
    # the second may come when all is done, and nobody listens any more: it ends us as it ends any
    assert process.returncode in (130, -signal.SIGTERM)
    assert said.count("\n") == 1
