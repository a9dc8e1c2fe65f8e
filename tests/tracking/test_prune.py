"""What ends a prune in the middle: a lock, a Ctrl-C, another prune; each run is there or gone."""

import os
import shutil
import signal
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from conftest import call, small_curve

import sgdstudy as ss
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking import database, prune
from sgdstudy.tracking.entries import Opening
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.journal import Journal
from sgdstudy.tracking.runs import named
from sgdstudy.tracking.store import open_store

SETTINGS = {"lr": 0.1, "batch_size": 10, "epochs": 3, "seeds": range(2), "optimizer": "notebook"}
ROWS = 2 * 3 * 6  # seeds, epochs, steps an epoch of 53 samples in batches of 10


@pytest.fixture
def three(store):
    """A store with three runs."""
    invocation = Invocation.start(open_store(store), "pruned")
    for name in ("one", "two", "three"):
        train_arm(invocation, name, ss.Arm(small_curve(), "", **SETTINGS), False)
    return Path(store)


def doomed(store):
    return [run for runs in prune.plan(store, 0).values() for run in runs]


def whole(store):
    """How many runs a store has; each has all its rows."""
    n = len(ss.load_runs("pruned", store=str(store), invocation="all"))
    if n:
        assert len(ss.load_steps("pruned", store=str(store), invocation="all")) == n * ROWS
    assert len(list((store / "artifacts" / "pruned").iterdir())) == n
    return n


def hold(store, how):
    connection = sqlite3.connect(store / "mlflow.db", check_same_thread=False, isolation_level=None)
    connection.execute(how)
    return connection


@pytest.mark.slow
@pytest.mark.parametrize("how", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_prune_waits_for_a_program_that_holds_the_database(three, how, capsys):
    """As it was seen: the files were gone, then a traceback."""
    with closing(hold(three, how)) as connection:
        timer = threading.Timer(1.2, connection.rollback)
        timer.start()
        assert call("prune", "--keep", "0", "--yes", "--store", three) == 0
        timer.join()
    assert "dropped 3 runs" in capsys.readouterr().out
    assert whole(three) == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_prune_removes_nothing_while_the_database_is_held(three, how, capsys, monkeypatch):
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.1)
    with closing(hold(three, how)):
        assert call("prune", "--keep", "0", "--yes", "--store", three) == 1
    said = capsys.readouterr().err
    assert said == "error: the database is locked by another program; end it, or wait\n"
    assert whole(three) == 3
    assert call("prune", "--keep", "0", "--yes", "--store", three) == 0


@pytest.mark.parametrize("at", ["before", "during"])
def test_a_ctrl_c_leaves_each_run_whole_or_takes_it_away(three, monkeypatch, capsys, at):
    """As it was seen: the first run had no files, and was there, also after `recover`."""
    count = []
    real = prune.remove_folder

    def remove(path):
        count.append(path)
        if len(count) == 2 and at == "before":
            raise KeyboardInterrupt
        if len(count) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return real(path)

    monkeypatch.setattr(prune, "remove_folder", remove)
    assert call("prune", "--keep", "0", "--yes", "--store", three) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert whole(three) == {"before": 2, "during": 1}[at]
    monkeypatch.setattr(prune, "remove_folder", real)
    assert call("prune", "--keep", "0", "--yes", "--store", three) == 0
    assert whole(three) == 0


def test_of_two_prunes_at_once_each_run_is_dropped_by_one(three):
    opened = [open_store(str(three)) for _ in range(2)]
    runs = doomed(opened[0])
    found = []
    work = [
        threading.Thread(target=lambda one=one: found.append(prune.remove(one, runs)))
        for one in opened
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert sum(n for n, _ in found) == 3
    assert whole(three) == 0


def test_files_that_somebody_else_removed_are_no_end(three):
    opened = open_store(str(three))
    runs = doomed(opened)
    shutil.rmtree(three / "artifacts" / "pruned" / runs[1].run_id)
    assert prune.remove(opened, runs)[0] == 3
    assert whole(three) == 0


def test_where_the_files_of_one_run_make_no_room_those_of_the_others_do(three, monkeypatch, capsys):
    """As it was seen: the first run had no files and was there, whatever was tried."""
    real, left = database._delete, lambda: list((three / "artifacts" / "pruned").iterdir())

    def delete(connection, run_id):
        if left():
            raise database.DiskFull("full")
        return real(connection, run_id)

    monkeypatch.setattr(database, "_delete", delete)
    assert call("prune", "--keep", "0", "--yes", "--store", three) == 0
    assert "dropped 3 runs" in capsys.readouterr().out
    assert whole(three) == 0


def test_a_disk_that_stays_full_is_said_and_the_next_prune_goes_on(three, monkeypatch, capsys):
    real = database._delete

    def full(connection, run_id):
        raise database.DiskFull("full")

    monkeypatch.setattr(database, "_delete", full)
    assert call("prune", "--keep", "0", "--yes", "--store", three) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "3 runs to drop have lost their files" in said
    monkeypatch.setattr(database, "_delete", real)
    assert call("prune", "--keep", "0", "--yes", "--store", three) == 0
    assert whole(three) == 0


LONG = "é" * 200_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    ["experiments SET name", "runs SET name", "tags SET value"],
    ids=["experiment", "run", "user"],
)
def test_names_of_others_are_cut_where_a_command_shows_them(three, capsys, caplog, change):
    """As it was seen: an experiment's name of 200 kB was printed whole."""
    only = " WHERE key = 'mlflow.user'" if change.startswith("tags") else ""
    only = only or " WHERE name != 'Default'"
    each = "substr(?, 1, length(?) - experiment_id)" if change.startswith("exp") else "?"
    with closing(sqlite3.connect(three / "mlflow.db")) as connection, connection:
        given = (LONG,) * each.count("?")
        connection.execute(f"UPDATE {change} = {each}{only}", given)
    opened = open_store(str(three))
    for run in doomed(opened):
        assert len(named([run])) < 200
    assert call("prune", "--keep", "0", "--yes", "--store", three) == 0
    said = capsys.readouterr()
    assert max(map(len, [*said.out.splitlines(), *said.err.splitlines(), caplog.text])) < 500


@pytest.mark.parametrize("after", ["recover", "set aside"])
def test_the_names_of_a_folder_of_others_are_cut(store, capsys, caplog, after):
    opened = open_store(store)
    journal = Journal.begin(opened, Opening("cut", LONG, {}), {}, send=False)
    journal.let_go()
    if after == "set aside":
        journal.set_aside("no")
    call("recover", "--store", store)
    said = capsys.readouterr()
    lines = [*said.out.splitlines(), *said.err.splitlines(), *caplog.messages]
    assert max(map(len, lines), default=0) < 700
