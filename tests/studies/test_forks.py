"""A process that a function of the user's forks ends there: its parent's runs are not its own."""

import os
import sys

import pytest
import torch
from conftest import small_curve

import sgdstudy as ss
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking import scratch
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.store import open_store
from sgdstudy.tracking.writing import alive, writing
from sgdstudy.training.interrupts import called

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def exits():
    sys.exit(0)


def exits_with_a_word():
    sys.exit("no good")


def raises():
    raise ValueError("no good")


def is_interrupted():
    raise KeyboardInterrupt


def returns():
    pass


WAYS = {exits: 0, exits_with_a_word: 1, raises: 1, is_interrupted: 1, returns: 1}


def forks(act):
    """Fork a process that does something; return its exit code."""
    child = os.fork()
    if not child:
        act()
        return None
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def ends_here():
    """Let nobody else than this process go on with a block."""
    process = os.getpid()

    def run(block):
        try:
            return block()
        finally:
            if os.getpid() != process:
                os._exit(99)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("act", WAYS)
def test_a_process_that_an_order_forks_ends_and_nothing_is_lost(store, ends_here, act, capfd):
    """As it was seen: the run was FINISHED with 16 of 80 rows, exit code 0."""
    codes, drawn = [], []

    def order(generator, d):
        drawn.append(d)
        if len(drawn) == 150:  # the first chunk is on the disk
            codes.append(forks(act))
        return torch.randperm(d, generator=generator)

    given = {"lr": 0.1, "batch_size": 10, "epochs": 100, "seeds": range(2), "order": order}
    call = Invocation.start(open_store(store), "forks")
    ends_here(lambda: train_arm(call, "one", ss.Arm(small_curve(), "", **given), False))
    assert codes == [WAYS[act]]
    assert list(ss.load_runs("forks", store=store)["status"]) == ["FINISHED"]
    assert len(ss.load_epochs("forks", store=store)) == 200
    said = capfd.readouterr().err
    assert ("ends here" in said) == (act is not exits)
    assert said.count("\n") == (act is not exits)


@pytest.mark.parametrize("act", [exits, returns])
def test_a_process_that_a_loop_of_ones_own_forks_closes_nothing(store, ends_here, act):
    codes = []

    def loop():
        with Invocation.start(open_store(store), "forks").run("loop", "", {}) as journal:
            sink = RunSink(journal)
            for step in range(10):
                if step == 5:
                    codes.append(forks(act))
                sink.log({"loss": 1.0}, step=step)
                sink.flush()

    ends_here(loop)
    assert codes == [WAYS[act]]
    assert list(ss.load_runs("forks", store=store)["status"]) == ["FINISHED"]
    assert list(ss.load_steps("forks", store=store)["step"]) == list(range(10))


@pytest.mark.parametrize("act", [exits, raises, returns])
def test_a_process_that_a_function_of_a_script_forks_ends_in_it(ends_here, act):
    assert ends_here(lambda: called(lambda: forks(act))) == WAYS[act]


@pytest.mark.parametrize("act", [raises, returns])
def test_a_process_that_is_forked_takes_no_lock_away(store, ends_here, act):
    opened = open_store(store)

    def block():
        with writing(opened, "forks", "one"):
            return forks(act), alive(opened, ["one"])

    assert ends_here(block) == (1, {"one"})


def test_a_folder_goes_with_the_process_that_made_it(tmp_path, monkeypatch):
    ends = []
    monkeypatch.setattr(scratch.atexit, "register", ends.append)
    folder, lock = scratch.make(tmp_path)
    scratch.remove_at_exit(folder, lock)

    def leaves():
        ends[0]()
        os._exit(0)

    assert forks(leaves) == 0
    assert folder.exists()
    ends[0]()
    assert not folder.exists()
