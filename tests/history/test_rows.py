from __future__ import annotations

import math
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import sgdstudy as ss
from sgdstudy.history import rows as record
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.store import open_store


@pytest.fixture
def invocation(store):
    return Invocation.start(open_store(store), "mine")


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is moved."""
    now = [100.0]
    monkeypatch.setattr(record.time, "monotonic", lambda: now[0])
    return now


def logged(n):
    values = np.random.default_rng(0).lognormal(size=(n, 2))
    values[n // 2, 0] = math.nan
    return [{"loss": loss, "grad_norm": norm} for loss, norm in values.tolist()]


def test_steps_logged_one_at_a_time_come_back_as_they_were(invocation, store):
    rows = logged(1000)
    with invocation.run("loop", "", {}, metrics=("loss",)) as journal:
        sink = RunSink(journal)
        for row in rows:
            sink.log(row)
    found = ss.load_steps("mine", store=store)
    np.testing.assert_array_equal(found["step"], np.arange(1000))
    for name in ("loss", "grad_norm"):
        np.testing.assert_array_equal(found[name], [row[name] for row in rows])
    assert ss.load_runs("mine", store=store)["status"].tolist() == ["FINISHED"]


def test_the_first_step_of_every_second_is_on_disk_at_once(invocation, clock):
    """Rows held are those of the second since the last block, and no more than HELD_ROWS."""
    with invocation.run("loop", "", {}) as journal:
        sink = RunSink(journal)
        written = []
        for moment in (0.0, 0.4, 0.9, 1.0, 1.1, 9.0):
            clock[0] = 100.0 + moment
            sink.log({"loss": 1.0})
            written.append(sum(batch.num_rows for batch in sink.batches("steps")))
        assert written == [1, 1, 1, 4, 4, 6]
        for _ in range(record.HELD_ROWS):
            sink.log({"loss": 1.0})
        assert sum(batch.num_rows for batch in sink.batches("steps")) == 6 + record.HELD_ROWS


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_what_is_held_is_kept_when_the_loop_fails(invocation, store, clock, error):
    def loop() -> None:
        with invocation.run("loop", "", {}) as journal:
            sink = RunSink(journal)
            for step in range(7):
                sink.log({"loss": step / 7})
            raise error

    with pytest.raises(type(error)):
        loop()
    found = ss.load_steps("mine", store=store)
    np.testing.assert_array_equal(found["loss"], np.arange(7) / 7)


@pytest.mark.faults
def test_a_killed_loop_loses_no_more_than_its_last_second(tmp_path, store):
    """10 steps a second apart (by its clock), 5 more within that second; then SIGKILL."""
    script = textwrap.dedent("""
        import os, signal, sys
        from sgdstudy.history import rows
        from sgdstudy.tracking.invocation import Invocation
        from sgdstudy.tracking.sink import RunSink
        from sgdstudy.tracking.store import open_store

        now = [100.0]
        rows.time.monotonic = lambda: now[0]
        with Invocation.start(open_store(sys.argv[1]), "killed").run("loop", "", {}) as journal:
            sink = RunSink(journal)
            for step in range(15):
                now[0] += 1.0 if step < 10 else 0.01
                sink.log({"loss": float(step)})
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = subprocess.run([sys.executable, "-c", script, str(store)], cwd=Path.cwd(), check=False)
    assert done.returncode == -signal.SIGKILL
    assert ss.load_steps("killed", store=store)["loss"].tolist() == list(range(10))


@pytest.mark.parametrize(
    "wrong",
    [{"loss": 1.0}, {"loss": 1.0, "norm": 2.0, "more": 3.0}, {"loss": 1.0, "norm": "x"}, {}],
)
def test_a_step_that_does_not_fit_is_refused_at_once(invocation, wrong):
    with invocation.run("loop", "", {}) as journal:
        sink = RunSink(journal)
        sink.log({"loss": 1.0, "norm": 2.0})
        with pytest.raises(ss.InputError, match="loss, norm"):
            sink.log(wrong)


def test_a_block_comes_back_with_its_gaps():
    """The second of three seeds ends after two of four steps."""
    keep = np.ones((4, 3), bool)
    keep[2:, 1] = False
    loss = np.random.default_rng(0).lognormal(size=(4, 3)).astype(np.float32)
    columns = {"seed": np.array([[2, 5, 9]]), "step": np.arange(7, 11)[:, None], "loss": loss}
    batch = record.Rows(columns, keep).batch()
    found = record.Rows.of(batch, "step")
    assert batch["seed"].to_pylist() == [2] * 4 + [5] * 2 + [9] * 4
    assert np.array_equal(found.keep, keep)
    assert np.array_equal(found.columns["loss"][keep], loss[keep])
    assert found.batch().equals(batch)


def test_epoch_and_step_are_whole_numbers(invocation, store):
    with invocation.run("loop", "", {}) as journal:
        sink = RunSink(journal)
        for step in (0, 5):
            sink.log({"loss": 0.5, "epoch": 1 + step}, step=step, seed=3)
    found = ss.load_steps("mine", store=store)
    assert found[["seed", "epoch", "step"]].to_numpy().tolist() == [[3, 1, 0], [3, 6, 5]]
    assert all(found[name].dtype.kind == "i" for name in ("seed", "epoch", "step"))


def test_whole_numbers_of_a_loop_are_kept_or_said_to_be_rounded(invocation, store, caplog):
    """As it was seen: a seed and a count beyond 2**53 were others when they were read."""
    big = 2**53 + 1
    with invocation.run("run", "", {}) as journal:
        sink = RunSink(journal)
        for step in (big, big + 1):
            sink.log({"n": step, "m": 2**60, "loss": 0.5}, step, seed=2**60 + 1)
        with pytest.raises(ss.InputError, match="one number each of n, m, loss"):
            sink.log({"n": 10**400, "m": 1, "loss": 0.5})
        sink.end()
    rows = ss.load_steps("mine", store=store)
    assert rows.seed.tolist() == [2**60 + 1] * 2
    assert rows.step.tolist() == [big, big + 1]
    (line,) = caplog.messages
    assert line.startswith(f"n: {big} is kept as {2**53}, as floats have 16 digits")
