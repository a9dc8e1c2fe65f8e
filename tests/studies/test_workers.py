"""Worker processes end with the command that started them, however that ends."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.store import open_store

SCRIPT = '''"""Two arms that would train for hours."""

import sgdstudy as ss


def arms(o):
    same = {"optimizer": "notebook", "lr": 1e-5, "batch_size": 10, "epochs": 1_000_000}
    same |= {"seeds": o.seed_range(), "engine": "eager", "record_rows": 1000}
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


@pytest.mark.faults
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("kind", WORDS)
def test_workers_end_with_their_parent_and_their_runs_are_closed(kind, tmp_path, store):
    script = tmp_path / "endless.py"
    script.write_text(SCRIPT)
    words = WORDS[kind](str(script), store)
    process = subprocess.Popen(
        [sys.executable, "-m", "sgdstudy", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    parent = psutil.Process(process.pid)

    def working():
        """Whether two workers have taken a second of the processor each, beyond their imports."""
        assert process.poll() is None
        if kind == "run":
            return len(list(open_store(store).streams.glob("*/steps.arrow"))) == 2
        busy = [p for p in parent.children() if sum(p.cpu_times()[:2]) > 8]
        return len(busy) == 2

    try:
        wait_for(working)
        family = parent.children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        gone, alive = psutil.wait_procs(family, timeout=10)
        assert not alive
        assert len(gone) >= 2
    finally:
        os.killpg(process.pid, signal.SIGKILL) if psutil.pid_exists(process.pid) else None
    opened = open_store(store)
    found = recover(opened)
    assert sorted(found.closed) == (["endless: one", "endless: two"] if kind == "run" else [])
    experiments = [e.experiment_id for e in opened.client.search_experiments()]
    statuses = {run.info.status for run in opened.client.search_runs(experiments)}
    assert statuses <= {"KILLED"}
