"""Faults injected into tracked runs: a shorter form of `make faults`, in two processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import small_curve
from pandas.testing import assert_frame_equal

import sgdstudy as ss
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.store import open_store

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "faults" / "faults.py"
# two groups that take about as long; those that wait beside those that compute
GROUPS = (
    ("outages", "bad-answers", "locked", "values", "network", "damaged", "power", "users"),
    (
        *("sigkill", "first-starts", "ends", "others", "full-disk", "file-limit", "writers"),
        *("disk-fails", "moved", "read-only", "two-resumes"),
    ),
)
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="faults are injected into forks")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What came of every fault, by name: see `lab.Outcome`."""
    folder = tmp_path_factory.mktemp("faults")
    files = [folder / f"{i}.json" for i in range(len(GROUPS))]
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), "--quick", "--json", str(file), "--only", *names],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for file, names in zip(files, GROUPS, strict=True)
    ]
    said = [process.communicate(timeout=600)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    return {k: v for file in files for k, v in json.loads(file.read_text()).items()}


@pytest.mark.faults
@pytest.mark.parametrize("name", [name for names in GROUPS for name in names])
def test_nothing_is_lost(outcomes, name):
    outcome = outcomes[name]
    if outcome["skipped"]:
        pytest.skip(outcome["skipped"])
    assert outcome["problems"]
    assert [found for found in outcome["problems"] if found] == []


@pytest.mark.slow
def test_a_point_that_is_shown_again_stays_one_point(store):
    invocation = Invocation.start(open_store(store), "shown")
    with invocation.run("run", "", {}) as journal:
        for value in (1.0, 2.0):
            assert journal.show([("epoch/loss", 4, 1.0), ("batch/loss", int(value), value)])
            time.sleep(0.002)  # another time would be another point to MLflow
    client = open_store(store).client
    assert len(client.get_metric_history(journal.run_id, "epoch/loss")) == 1
    assert len(client.get_metric_history(journal.run_id, "batch/loss")) == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"store": 1}', '{"store": "x", "other": 2}', "\0"])
def test_a_damaged_folder_is_left_alone_and_said(store, text):
    folder = open_store(store).streams / "damaged"
    folder.mkdir(parents=True)
    (folder / "opening.json").write_text(text)
    (line,) = recover(open_store(store)).left
    assert f"{folder} is left alone: its opening.json is damaged" in line
    assert (folder / "opening.json").read_text() == text


@pytest.mark.slow
@pytest.mark.parametrize("moves", [0, 1, 2], ids=["before", "between two", "after both"])
def test_a_kill_while_the_rows_are_moved_loses_none(store, moves):
    """Every file is in one of two places at any moment; the next command finishes the run."""
    same = {"lr": 0.1, "batch_size": 10, "epochs": 3, "seeds": range(2), "optimizer": "notebook"}
    arm = ss.Arm(small_curve(), "", **same)
    done, real = [], os.replace

    def replace(source, target):
        rows = Path(source).parts[-2] == Path(target).parts[-2] == "artifacts"
        rows = rows and Path(source).stem in ("steps", "epochs")
        if rows and len(done) == moves:
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)
        done.extend([target] * rows)
        if len(done) == moves == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if not pid:
        os.replace = replace
        train_arm(Invocation.start(open_store(store), "moved"), "arm", arm, False)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    opened = open_store(store)
    assert ss.load_runs("moved", store=store)["status"].tolist() == ["RUNNING"]
    assert len(list(opened.streams.glob("*/artifacts/*.parquet"))) == 2 - moves
    assert recover(opened).sent == ["moved: arm"]
    assert ss.load_runs("moved", store=store)["status"].tolist() == ["FINISHED"]
    expected = ss.train(arm.problem, config=arm.config)
    for kind, load in (("steps", ss.load_steps), ("epochs", ss.load_epochs)):
        rows = load("moved", store=store).drop(columns=["study", "arm", "run_id", "invocation"])
        assert_frame_equal(rows, getattr(expected, kind), check_exact=True)
    assert not list(opened.streams.glob("*"))
