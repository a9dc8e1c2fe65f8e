"""A run's folder: on this disk before the store hears of it, and in the store once, whatever fails.

The store is a real one; what fails are the calls of MLflow's client to it.
"""

import errno
import json
import os
import shutil
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import one_line
from mlflow.exceptions import MlflowException

import sgdstudy as ss
from sgdstudy.history.rows import AXIS, Rows
from sgdstudy.tracking import aside, recovery, shapes
from sgdstudy.tracking import journal as module
from sgdstudy.tracking.durable import write_json
from sgdstudy.tracking.entries import KEY, Closing, Opening
from sgdstudy.tracking.journal import Journal
from sgdstudy.tracking.pack import pack
from sgdstudy.tracking.places import local_path, remove_folder
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.retry import is_away
from sgdstudy.tracking.runs import search
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.store import open_store
from sgdstudy.tracking.tracked_run import TrackedRun

CALLS = ("create_run", "log_batch", "log_inputs", "set_terminated")  # those a run makes
ONE = np.ones((1, 1), bool)
DATA = {"name": "small", "digest": "0a1b", "profile": {"d": 1}}


@pytest.fixture
def opened(store, monkeypatch):
    monkeypatch.setattr(module, "_AWAY", set())  # what other tests saw
    return open_store(store)


@pytest.fixture
def calls(monkeypatch):
    """What the store is asked, one name after the other; `calls.fail` maps a place to an error."""

    class Calls(list):
        fail: dict[int, Exception] = {}  # noqa: RUF012

    seen = Calls()

    def watched(name):
        real = getattr(mlflow.MlflowClient, name)

        def call(client, *args, **named):
            seen.append(name)
            if error := seen.fail.get(len(seen) - 1):
                raise error
            return real(client, *args, **named)

        return call

    for name in CALLS:
        monkeypatch.setattr(mlflow.MlflowClient, name, watched(name))
    return seen


def begin(store, send=True, **changes):
    given = {"params": {"lr": "0.1"}, "points": [("predicted/rho", 0, 0.5)], "data": DATA}
    opening = Opening("study", "arm", {"mine": "1"}, **(given | changes))
    return Journal.begin(store, opening, {"data.png": lambda p: p.write_bytes(b"png")}, send)


def end(journal, patience=0.0):
    journal.add("rows.csv", lambda path: path.write_text("a\n"))
    points = [("result/loss", 3, 0.25, 1_700_000_000_000)]
    return journal.close(Closing("FINISHED", {"late": "2"}, points), patience)


def runs(store):
    return store.client.search_runs([store.experiment("study")])


def assert_whole(run, store, opening):
    """The store has all of a run that `begin` and `end` told it of."""
    assert (run.info.run_name, run.info.status) == ("arm", "FINISHED")
    assert run.info.start_time == opening.start_ms
    assert run.data.params == {"lr": "0.1"}
    assert run.data.tags.items() >= {"mine": "1", "late": "2"}.items()
    points = {
        key: [(p.step, p.value) for p in store.client.get_metric_history(run.info.run_id, key)]
        for key in run.data.metrics
    }
    assert points == {"predicted/rho": [(0, 0.5)], "result/loss": [(3, 0.25)]}
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("small", "0a1b")
    files = sorted(path.name for path in local_path(run.info.artifact_uri).iterdir())
    assert files == ["data.png", "rows.csv"]


# ---- in the order of things --------------------------------------------------------------------


def test_a_run_that_ended_is_in_the_store_and_its_folder_is_gone(opened):
    journal = begin(opened)
    assert [run.info.status for run in runs(opened)] == ["RUNNING"]
    assert journal.folder.is_dir()
    assert end(journal)
    (run,) = runs(opened)
    assert run.info.run_id == journal.run_id
    assert_whole(run, opened, journal.opening)
    assert not journal.folder.exists()


def test_what_a_run_is_lies_on_the_disk_before_the_store_hears_of_it(opened, calls):
    """The first call fails as no outage does: what is on the disk then was there before it."""
    calls.fail = {0: ConnectionError("away")}
    journal = begin(opened)
    assert calls == ["create_run"]
    told = shapes.read_json(journal.folder / "opening.json", shapes.OPENING)
    assert (told["name"], told["params"], told["store"]) == ("arm", {"lr": "0.1"}, opened.shown)
    assert (journal.folder / "artifacts" / "data.png").read_bytes() == b"png"


def test_a_run_that_is_over_is_told_in_one_go(opened, calls):
    journal = begin(opened, send=False)
    assert calls == []
    assert end(journal)
    assert calls == list(CALLS)
    (run,) = runs(opened)
    assert_whole(run, opened, journal.opening)


# ---- what fails --------------------------------------------------------------------------------


def test_these_are_the_calls_of_a_run(opened, calls):
    assert end(begin(opened))
    assert calls == ["create_run", "log_batch", "log_inputs", "log_batch", "set_terminated"]


@pytest.mark.parametrize("place", range(5))
def test_whichever_call_fails_the_next_command_brings_the_rest(opened, calls, place):
    """Of the calls in which a run begins and ends the store loses one; then our process ends."""
    calls.fail = {place: ConnectionError("away")}
    journal = begin(opened)
    went_well = end(journal)
    # a failure of the beginning is made good at the end, without a word to the user
    assert went_well is (place < 3)
    if not went_well:
        left = Journal.orphan(opened, journal.folder)
        assert left.closed
        assert left.send()
    (run,) = runs(opened)
    assert_whole(run, opened, journal.opening)
    assert not journal.folder.exists()


def test_a_run_whose_id_we_were_not_told_is_found_by_its_key(opened, monkeypatch):
    """The store makes the run, and the answer is lost on its way."""
    real = mlflow.MlflowClient.create_run

    def lost(*args, **named):
        real(*args, **named)
        raise ConnectionError("reset")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "create_run", lost)
        journal = begin(opened)
        assert journal.run_id is None
        journal.let_go()
    (there,) = runs(opened)
    left = Journal.orphan(opened, journal.folder)
    assert end(left)
    (run,) = runs(opened)
    assert run.info.run_id == there.info.run_id
    assert_whole(run, opened, journal.opening)


def test_an_outage_is_said_once(opened, calls, caplog):
    calls.fail = {n: ConnectionError("Connection refused") for n in range(50)}
    journals = [begin(opened) for _ in range(2)]
    assert [end(journal) for journal in journals] == [False, False]
    (said,) = [record.getMessage() for record in caplog.records]
    assert "does not answer" in said
    assert "sent later" in said
    calls.fail = {}
    for journal in journals:
        assert Journal.orphan(opened, journal.folder).send()
    assert len(runs(opened)) == 2


def test_what_the_store_refuses_is_one_line_and_leaves_nothing(opened, calls):
    calls.fail = {0: MlflowException("no such\nexperiment", error_code=1000)}
    with pytest.raises(ss.InputError, match="refuses to answer: no such") as error:
        begin(opened)
    assert one_line(error)
    assert list(opened.streams.iterdir()) == []


@pytest.mark.parametrize("how", ["deleted in the UI", "a right taken away"])
def test_what_the_store_refuses_later_is_set_aside_and_slows_nothing(opened, calls, how, caplog):
    """As it was seen: "kept here and sent later", and every later command waited for it."""
    journal = begin(opened)
    if how == "deleted in the UI":
        opened.client.delete_run(journal.run_id)
    else:
        calls.fail = dict.fromkeys(range(99), MlflowException("no right", error_code=1004))
    began = time.monotonic()
    assert not end(journal, patience=60.0)
    assert recovery.recover(opened) == recovery.Recovered()
    assert time.monotonic() - began < 30.0
    assert list(opened.streams.glob("*")) == []
    (kept,) = aside.listed(opened)
    assert kept.name == "study: arm"
    assert kept.reason == journal.refusal
    assert {"opening.json", "closing.json", "artifacts"} <= {p.name for p in kept.folder.iterdir()}
    assert sum("set aside" in message for message in caplog.messages) == 1
    calls.fail = {}
    if how == "deleted in the UI":
        opened.client.restore_run(journal.run_id)
    aside.put_back(opened)  # as `sgdstudy recover` does
    assert recovery.recover(opened).sent == ["study: arm"]
    assert_whole(runs(opened)[0], opened, journal.opening)
    assert aside.listed(opened) == []


@pytest.mark.parametrize("ended", [True, False])
def test_a_run_that_cannot_be_set_aside_keeps_no_other_from_its_end(opened, monkeypatch, ended):
    """As it was seen: in a folder of several users, and every command that writes ended there."""
    bad, good = begin(opened), begin(opened)
    opened.client.delete_run(bad.run_id)
    for journal in (bad, good):
        if ended:
            journal.draft(Closing("FINISHED"))
            journal.seal()
        journal.let_go()

    def refuse(store, folder, reason):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(aside, "put", refuse)
    found = recovery.recover(opened)
    assert len(found.left) == 1
    assert "Permission denied" in found.left[0]
    assert (found.sent if ended else found.closed) == ["study: arm"]
    assert [folder.name for folder in opened.streams.iterdir()] == [bad.folder.name]
    monkeypatch.undo()
    assert recovery.recover(opened).refused == ["study: arm"]


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["between the question and the look", "with its folder left"])
def test_a_run_that_ends_while_we_look_is_not_called_killed(opened, monkeypatch, ends):
    """As CI saw it: eight first starts at once, and a run that had finished was closed again."""
    started = []

    def listed(store, ids):  # as it was a moment ago: it begins after the folders were looked at
        started.append(begin(store))
        found = runs(store)
        if ends == "between the question and the look":
            end(started[0])
        return [TrackedRun.of(run) for run in found]

    class Gone(recovery.Process):
        def is_gone(self, starts=None):
            return True

    monkeypatch.setattr(recovery, "_running", listed)
    monkeypatch.setattr(recovery, "Process", Gone)
    assert recover(opened).closed == []
    if ends == "with its folder left":
        end(started[0])
    assert [run.info.status for run in runs(opened)] == ["FINISHED"]
    assert "stop_reason" not in runs(opened)[0].data.tags


def test_what_can_pass_and_what_cannot():
    away = [
        ConnectionError("refused"),
        TimeoutError("silence"),
        MlflowException("oh", error_code=1),  # INTERNAL_ERROR
        MlflowException("later", error_code=2),  # TEMPORARILY_UNAVAILABLE
        MlflowException("slower", error_code=1007),  # REQUEST_LIMIT_EXCEEDED
        MlflowException("failed with error code 404 != 200. Body: '<html>'", error_code=3002),
    ]
    refusals = [
        MlflowException("no", error_code=1000),  # INVALID_PARAMETER_VALUE
        MlflowException("none", error_code=3002),  # RESOURCE_DOES_NOT_EXIST
        MlflowException("no right", error_code=1004),  # PERMISSION_DENIED
        UnicodeEncodeError("utf-8", "a", 0, 1, "surrogates not allowed"),
        ValueError("a bug"),
        ss.InputError("what was given"),
    ]
    in_a_database = MlflowException("text", error_code=1)
    in_a_database.__cause__ = refusals[3]
    assert [error for error in away if not is_away(error)] == []
    assert [error for error in [*refusals, in_a_database] if is_away(error)] == []


def test_a_file_that_cannot_be_written_leaves_no_run(opened):
    def fails(path):
        path.write_text("half of it")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Journal.begin(opened, Opening("study", "arm", {}), {"a.png": fails})
    assert runs(opened) == []
    assert list(opened.streams.iterdir()) == []


def test_half_a_file_is_never_an_artifact(opened):
    journal = begin(opened)

    def fails(path):
        path.write_text("half of it")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        journal.add("half.csv", fails)
    assert [path.name for path in journal.artifacts()] == []
    assert end(journal)
    assert_whole(runs(opened)[0], opened, journal.opening)


def test_points_that_did_not_arrive_arrive_at_the_end(opened, calls):
    journal = begin(opened)
    calls.fail = {len(calls): ConnectionError("away")}
    assert not journal.show([("epoch/loss", 1, 4.0)])
    assert journal.show([("epoch/loss", 2, 2.0)])
    assert journal.close(Closing("FINISHED", points=journal.interim))
    history = opened.client.get_metric_history(journal.run_id, "epoch/loss")
    assert sorted((point.step, point.value) for point in history) == [(1, 4.0), (2, 2.0)]


# ---- whose folder it is ------------------------------------------------------------------------


def test_a_run_that_lives_is_left_alone(opened):
    journal = begin(opened)
    assert Journal.orphan(opened, journal.folder) is None
    journal.let_go()
    left = Journal.orphan(opened, journal.folder)
    assert (left.run_id, left.closed) == (journal.run_id, False)
    as_json = [json.dumps(vars(opening)) for opening in (left.opening, journal.opening)]
    assert as_json[0] == as_json[1]


def test_a_run_of_another_store_is_left_alone(opened):
    journal = begin(opened)
    journal.let_go()
    told = shapes.read_json(journal.folder / "opening.json", shapes.OPENING)
    write_json(journal.folder / "opening.json", told | {"store": "http://127.0.0.1:1"})
    assert Journal.orphan(opened, journal.folder) is None
    assert (journal.folder / "opening.json").exists()


def half(opened):
    """A run that goes on, and where a copy of its folder lies, of its first rows."""
    journal = Journal.begin(opened, Opening("copied", "a", {}, metrics=("loss",)), {})
    sink = RunSink(journal)
    sink.log({"loss": 1.0})
    sink.flush()
    copy = shutil.copytree(journal.folder, opened.root / "copy")
    sink.log({"loss": 2.0})
    return journal, sink, copy


def in_store(opened):
    """How the run ended, by the store, and its rows."""
    (run,) = search(opened, [opened.experiment("copied")], "")
    losses = ss.load_steps("copied", store=str(opened.root)).loss
    return run.status, run.end_ms, losses.tolist()


@pytest.mark.parametrize("lives", [True, False])
@pytest.mark.parametrize("suffix", [".bak", " (conflicted copy)", "-again"])
def test_a_copy_of_a_runs_folder_under_another_name_is_named_and_left(opened, suffix, lives):
    """As it was seen: a backup beside a run that trained closed it, with the rows of then."""
    journal, sink, copy = half(opened)
    os.rename(copy, opened.streams / (journal.folder.name + suffix))
    if not lives:
        sink.flush()
        sink.stream.drop()
        journal.let_go()
    found = recover(opened)
    (said,) = found.left
    assert f"{suffix} is a copy of {journal.folder.name} and left alone" in said
    assert len(found.closed) == (not lives)
    if lives:
        sink.end()
    status, _, losses = in_store(opened)
    assert (status, losses) == ("FINISHED" if lives else "KILLED", [1.0, 2.0])
    assert [p.name for p in opened.streams.iterdir()] == [journal.folder.name + suffix]


@pytest.mark.parametrize("sent", ["as it was", "gone", "of another run"])
def test_an_older_copy_that_is_put_back_writes_over_nothing(opened, sent):
    journal, sink, copy = half(opened)
    sink.end()
    before = in_store(opened)
    place = opened.streams / journal.folder.name
    os.rename(copy, place)
    if sent == "gone":
        (place / "sent.json").unlink()
    elif sent == "of another run":
        other = begin(opened)
        told = shapes.read_json(other.folder / "sent.json", shapes.SENT, other.key)
        write_json(place / "sent.json", told)
        other.remove()
    assert len(recover(opened).refused) == 1
    assert in_store(opened) == before
    (kept,) = aside.listed(opened)
    assert "(FINISHED), and this is an older copy" in kept.reason
    aside.put_back(opened)
    recover(opened)
    assert in_store(opened) == before


@pytest.mark.parametrize("edited", [None, "mine"])
def test_a_run_whose_key_was_edited_is_closed_and_not_made_twice(opened, edited):
    """As it was seen: the tag deleted in the UI, and the run stayed RUNNING beside another."""
    journal, sink, _ = half(opened)
    sink.stream.drop()
    journal.let_go()
    opened.client.delete_tag(journal.run_id, KEY)
    if edited:
        opened.client.set_tag(journal.run_id, KEY, edited)
    assert len(recover(opened).closed) == 1
    (run,) = search(opened, [opened.experiment("copied")], "")
    assert (run.run_id, run.status) == (journal.run_id, "KILLED")
    assert run.tags[KEY] == journal.folder.name
    assert in_store(opened)[2] == [1.0]


def test_a_folder_that_comes_back_brings_the_rows_of_a_run_closed_without(opened):
    journal, sink, copy = half(opened)
    sink.stream.drop()
    journal.let_go()
    remove_folder(journal.folder)
    opened.client.set_terminated(journal.run_id, "KILLED")
    os.rename(copy, journal.folder)
    assert len(recover(opened).closed) == 1
    assert in_store(opened)[2] == [1.0]


@pytest.mark.parametrize(("age", "stays"), [(0.0, True), (3600.0, False)])
def test_a_folder_without_an_opening_is_being_begun_or_is_waste(opened, age, stays):
    folder = opened.streams / "begun"
    folder.mkdir(parents=True)
    then = time.time() - age
    os.utime(folder, (then, then))
    assert Journal.orphan(opened, folder) is None
    assert folder.exists() is stays


# ---- the files ---------------------------------------------------------------------------------


def test_a_json_file_is_whole_or_what_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    assert shapes.read_json(path, shapes.OPTIONS) is None
    write_json(path, {"a": [1, None]})
    for failing in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(module.os, failing, lambda *given: (_ for _ in ()).throw(OSError()))
            with pytest.raises(OSError):  # noqa: PT011
                write_json(path, {"a": 2})
        assert shapes.read_json(path, shapes.OPTIONS) == {"a": [1, None]}
    with pytest.raises(TypeError):
        write_json(path, {"a": Path})
    assert shapes.read_json(path, shapes.OPTIONS) == {"a": [1, None]}


# ---- rows that were damaged --------------------------------------------------------------------


def left_behind(store, n_blocks=3):
    """A run with some blocks of rows, whose process is gone; return its journal."""
    journal = begin(store, data=None)
    sink = RunSink(journal)
    for i in range(n_blocks):
        step = np.arange(10)[:, None] + 10 * i
        rows = {"seed": np.zeros((1, 1), int), "step": step, "loss": np.sqrt(step)}
        sink.write("steps", Rows(rows, np.ones((10, 1), bool)))
    sink.stream.drop()
    journal.let_go()
    return journal


def renamed(opened, new):
    """A store whose database has another name, as `mv` gives it."""
    old = opened.database
    for end in ("", "-wal", "-shm"):
        if os.path.exists(f"{old}{end}"):
            os.rename(f"{old}{end}", old.with_name(new + end))
    return open_store(f"sqlite:///{old.with_name(new)}")


@pytest.mark.parametrize("new", ["old.db", "store.sqlite", "runs"])
@pytest.mark.parametrize("beside", [False, True])
def test_a_database_with_a_new_name_has_its_runs_still(opened, empty_store, new, beside):
    """As it was seen: they wait for an address that is not there, it said, RUNNING for ever."""
    key = left_behind(opened).folder.name
    now = renamed(opened, new)
    if beside:
        shutil.copy(empty_store / "mlflow.db", now.root / "another.db")
        other = open_store(f"sqlite:///{now.root}/another.db")
        assert str(recover(other)) == ""
        assert list(aside.elsewhere(other)) == [opened.shown]
    assert (now.streams / key).exists()
    assert aside.elsewhere(now) == {}
    assert recover(now).closed == ["study: arm"]
    assert [run.info.status for run in runs(now)] == ["KILLED"]


def test_a_run_whose_database_lies_there_is_not_of_another(opened, empty_store):
    """Also where that was copied from its own, and has it too."""
    left_behind(opened)
    with closing(sqlite3.connect(opened.database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(opened.database, opened.root / "copy.db")
    other = open_store(f"sqlite:///{opened.root}/copy.db")
    assert str(recover(other)) == ""
    assert recover(opened).closed == ["study: arm"]


@pytest.mark.parametrize("cut", [False, True])
def test_a_damaged_stream_is_kept_and_the_rows_that_are_missing_are_counted(opened, caplog, cut):
    journal = left_behind(opened)
    path = journal.folder / "steps.arrow"
    raw = bytearray(path.read_bytes())
    at = len(raw) * 2 // 3
    if cut:
        del raw[at:]
    else:
        raw[at : at + 64] = bytes(64)
    path.write_bytes(raw)
    with pytest.raises(ss.InputError, match="is damaged") as error:
        ss.load_steps("study", store=str(opened.root))
    assert one_line(error)
    found = recover(opened)
    (run,) = runs(opened)
    rows = ss.load_steps("study", store=str(opened.root))
    assert rows.step.tolist() == list(range(len(rows)))
    assert len(rows) in (10, 20)
    missing = f"{30 - len(rows)} rows of steps cannot be read back"
    assert missing in str(found)
    assert missing in run.data.tags["sgdstudy.damaged"]
    assert run.info.status == "KILLED"
    assert run.data.metrics["result/steps"] == len(rows)
    kept = local_path(run.info.artifact_uri) / "steps.arrow.damaged"
    assert kept.read_bytes() == bytes(raw)
    assert not journal.folder.exists()


@pytest.mark.parametrize("source", ["another run's", "another kind's", "said to be its own"])
def test_a_stream_in_the_place_of_another_is_not_read_as_its_rows(opened, source):
    """As it was seen: with the rows of another run, of as many steps, in a run and in the store."""
    journal, other = left_behind(opened), left_behind(opened)
    kind = "epochs" if source == "another kind's" else "steps"
    raw = ((journal if kind == "epochs" else other).folder / "steps.arrow").read_bytes()
    if source == "said to be its own":
        raw = raw.replace(other.folder.name.encode(), journal.folder.name.encode())
    (journal.folder / f"{kind}.arrow").write_bytes(raw)
    remove_folder(other.folder)
    load = {"steps": ss.load_steps, "epochs": ss.load_epochs}[kind]
    says = "not what was written" if source == "said to be its own" else "stream of another run"
    with pytest.raises(ss.InputError, match=says) as error:
        load("study", store=str(opened.root))
    assert one_line(error)
    assert says in str(recover(opened))
    run = opened.client.get_run(journal.run_id)
    assert says in run.data.tags["sgdstudy.damaged"]
    place = local_path(run.info.artifact_uri)
    assert (place / f"{kind}.arrow.damaged").read_bytes() == raw
    assert not (place / f"{kind}.parquet").exists()


@pytest.mark.parametrize("kind", ["steps", "epochs"])
@pytest.mark.parametrize("how", ["gone", "a folder"])
def test_a_stream_that_is_missing_is_named(opened, kind, how):
    """As it was seen: no rows, without a word, of a run that had been killed."""
    journal = left_behind(opened, n_blocks=1)
    sink = RunSink(journal)
    sink.write(kind, Rows({"seed": np.zeros((1, 1), int), AXIS[kind]: np.ones((1, 1), int)}, ONE))
    sink.stream.drop()
    (journal.folder / f"{kind}.arrow").unlink()
    if how == "a folder":
        (journal.folder / f"{kind}.arrow").mkdir()
    load = {"steps": ss.load_steps, "epochs": ss.load_epochs}[kind]
    with pytest.raises(ss.InputError, match=rf"{kind}\.arrow (is damaged|cannot be read)") as error:
        load("study", store=str(opened.root))
    assert one_line(error)


def test_a_run_that_ends_while_it_is_read_lacks_no_rows(opened):
    journal = left_behind(opened)
    (journal.folder / "opening.json").unlink()  # the first that goes
    (journal.folder / "steps.arrow").unlink()
    assert ss.load_steps("study", store=str(opened.root)).empty


@pytest.mark.parametrize("again", ["", "-again"])
def test_the_rows_of_a_run_that_is_set_aside_are_read_there(opened, tmp_path, again):
    """As it was seen: no rows, an empty export and a packed file without them."""
    journal = left_behind(opened)
    journal.set_aside("the store refuses it")
    journal.folder.rename(journal.folder.with_name(journal.folder.name + again))
    opened.client.set_terminated(journal.run_id, status="KILLED")
    assert len(ss.load_steps("study", store=str(opened.root))) == 30
    with pytest.raises(ss.InputError, match="set aside: sgdstudy recover") as error:
        pack(opened, ["study"], tmp_path / "a.zip")
    assert one_line(error)
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.parametrize("ms", [10_000_000_000_000, 253_000_000_000_000])
def test_a_clock_after_the_year_2286_hides_no_rows(opened, monkeypatch, ms):
    monkeypatch.setattr("sgdstudy.tracking.entries.now_ms", lambda: ms)
    left_behind(opened)
    assert len(ss.load_steps("study", store=str(opened.root))) == 30
    recover(opened)
    assert len(ss.load_steps("study", store=str(opened.root))) == 30


@pytest.mark.parametrize("how", ["a folder", "closed"])
def test_a_lock_that_cannot_be_looked_at_is_named(opened, monkeypatch, how):
    """As it was seen: `recover` said that there was nothing to do, and the run stayed RUNNING."""
    journal = left_behind(opened)
    lock = journal.folder / "lock"
    lock.unlink()
    if how == "a folder":
        lock.mkdir()
    else:  # to everybody but root

        def refuse(self, **given):
            raise PermissionError(errno.EACCES, "Permission denied", self.lock_file)

        monkeypatch.setattr("sgdstudy.tracking.journal.FileLock.acquire", refuse)
    found = recover(opened)
    assert found.closed == []
    (said,) = found.left
    assert f"{journal.folder} is left alone" in said
    assert str(lock) in said
    assert "\n" not in said


def test_a_run_whose_own_rows_cannot_be_read_back_has_failed(opened, caplog):
    """The disk changes what it was given while the run goes on."""
    journal = begin(opened, data=None)
    sink = RunSink(journal)
    for step in range(5):
        sink.log({"loss": 1.0}, step)
        sink.flush()
    path = journal.folder / "steps.arrow"
    raw = bytearray(path.read_bytes())
    raw[-10] ^= 1  # of the last block's values
    with open(path, "r+b") as file:  # the same file that the run goes on to write
        file.write(raw)
    sink.end()
    (run,) = runs(opened)
    assert run.info.status == "FAILED"
    assert "1 row of steps cannot be read back" in run.data.tags["sgdstudy.damaged"]
    assert "cannot be read back" in caplog.text


def test_rows_that_were_not_damaged_leave_nothing_behind(opened):
    journal = left_behind(opened)
    assert recover(opened).damaged == []
    (run,) = runs(opened)
    assert "sgdstudy.damaged" not in run.data.tags
    assert len(ss.load_steps("study", store=str(opened.root))) == 30
    assert not list(local_path(run.info.artifact_uri).glob("*.damaged"))
    assert not journal.folder.exists()


@pytest.mark.parametrize("act", ["fsync", "replace", "open"])
def test_nothing_that_is_there_is_touched_before_its_replacement_is_whole(opened, monkeypatch, act):
    """The disk is full, or read-only, from the n-th time on that something is written: all n."""
    end(begin(opened))
    (older,) = runs(opened)
    place = local_path(older.info.artifact_uri)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    left_behind(opened)
    real, count, failures = getattr(os, act), 0, 0
    for most in range(40):
        count = 0

        def fails(*given, most=most, **named):
            nonlocal count
            writes = act != "open" or len(given) < 2 or given[1] & (os.O_RDWR | os.O_CREAT)
            count += bool(writes)
            if writes and count > most:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*given, **named)

        with monkeypatch.context() as patch:
            patch.setattr(os, act, fails)
            patch.setattr(module, "PATIENCE_SECONDS", 0.0)
            with suppress(OSError, ss.StoreError):
                recover(opened)
        assert {path.name: path.read_bytes() for path in place.iterdir()} == before
        for run in runs(opened):
            files = local_path(run.info.artifact_uri).glob("*.parquet")
            assert all(pq.read_table(path).num_rows == 30 for path in files)
        if count <= most:
            break
        failures += 1
    assert failures > 0
    monkeypatch.setattr(module, "_AWAY", set())
    recover(opened)
    assert sorted(run.info.status for run in runs(opened)) == ["FINISHED", "KILLED"]
    assert len(ss.load_steps("study", store=str(opened.root))) == 30
    assert not list(opened.streams.iterdir())


def test_charts_of_an_earlier_version_that_drew_several_metrics_in_one(tmp_path):
    """As a run that a killed process of that version left: it is finished, not refused."""
    written = {"status": "FINISHED", "charts": {"losses": ["epoch/a", "epoch/b"], "one": "epoch/c"}}
    write_json(tmp_path / "closing.json", written)
    told = shapes.read_or(tmp_path / "closing.json", shapes.CLOSING, None)
    expected = {"losses: epoch/a": "epoch/a", "losses: epoch/b": "epoch/b", "one": "epoch/c"}
    assert Closing.of(told).charts == expected


# ---- rows of a run that ended, and was not sent -----------------------------------------------


@pytest.fixture
def ended(opened, monkeypatch):
    """The folders of two runs that ended while their store was away, by the runs' names."""
    folders = {}
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "send", lambda journal, patience=None: journal.let_go())
        for name, losses in ENDED.items():
            journal = Journal.begin(opened, Opening("late", name, {}, metrics=("loss",)), {})
            sink = RunSink(journal)
            for loss in losses:
                sink.log({"loss": loss})
            sink.end()
            folders[name] = journal.folder
    return folders


ENDED = {"a": [0.0, 1.0], "b": [10.0, 11.0]}
PARQUET = Path("artifacts", "steps.parquet")


def exchange(folders, name):
    one, other = (folder / name for folder in folders.values())
    spare = one.with_name("spare")
    os.rename(one, spare)
    os.rename(other, one)
    os.rename(spare, other)


def changed(path, at):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def into_the_store(folder, opened):
    """As if we had been killed after the file went there, and then it was damaged."""
    told = shapes.read_json(folder / "sent.json", shapes.SENT, folder.name)
    place = opened.place(told["run_id"], told["uri"])
    place.mkdir(parents=True, exist_ok=True)
    (place / "steps.parquet").write_bytes(b"PAR1")
    (folder / PARQUET).unlink()


PARQUET_IS = {
    "gone": lambda f, _: (f["a"] / PARQUET).unlink(),
    "with its folder gone": lambda f, _: shutil.rmtree(f["a"] / "artifacts"),
    "another run's": lambda f, _: exchange(f, PARQUET),
    "in another run's folder": lambda f, _: exchange(f, "artifacts"),
    "empty": lambda f, _: (f["a"] / PARQUET).write_bytes(b""),
    "cut": lambda f, _: os.truncate(f["a"] / PARQUET, 100),
    "of other bytes": lambda f, _: changed(f["a"] / PARQUET, 40),
    "of another footer": lambda f, _: changed(f["a"] / PARQUET, -20),
    "a folder": lambda f, _: ((f["a"] / PARQUET).unlink(), (f["a"] / PARQUET).mkdir()),
    "damaged in the store": lambda f, opened: into_the_store(f["a"], opened),
}


def late_rows(opened):
    found = ss.load_steps("late", store=str(opened.root), invocation="all")
    return {name: part.loss.tolist() for name, part in found.groupby("arm", observed=True)}


def statuses(opened):
    found = search(opened, [opened.experiment("late")], "")
    return sorted((run.name, run.status, run.metrics["result/steps"]) for run in found)


@pytest.mark.parametrize("how", PARQUET_IS)
def test_a_parquet_file_that_is_not_what_was_written_is_made_again(opened, ended, how, caplog):
    """As it was seen: sent as FINISHED without its rows, and the stream, whole, deleted."""
    found = {path.read_bytes() for folder in ended.values() for path in [folder / PARQUET]}
    PARQUET_IS[how](ended, opened)
    assert sorted(recover(opened).sent) == ["late: a", "late: b"]
    assert late_rows(opened) == ENDED
    assert statuses(opened) == [("a", "FINISHED", 2.0), ("b", "FINISHED", 2.0)]
    assert "steps.parquet was gone or damaged; it was made again" in caplog.text
    if "another" in how and how != "of another footer":
        kept = (opened.root / "artifacts").rglob("steps.parquet.damaged")
        assert {path.read_bytes() for path in kept} == found
    assert not list(opened.streams.iterdir())


STREAM_IS = {
    "gone": lambda folder: (folder / "steps.arrow").unlink(),
    "gone, and its count": lambda folder: [
        (folder / name).unlink() for name in ("steps.arrow", "rows.count")
    ],
    "cut": lambda folder: os.truncate(folder / "steps.arrow", 700),
    "another run's": lambda folder: shutil.copy(
        next(path for path in folder.parent.iterdir() if path != folder) / "steps.arrow", folder
    ),
}


@pytest.mark.parametrize("how", STREAM_IS)
def test_where_the_stream_is_lost_too_the_run_is_set_aside(opened, ended, how):
    """Whoever puts the file back gets the rows."""
    raw = (ended["a"] / PARQUET).read_bytes()
    (ended["a"] / PARQUET).write_bytes(b"PAR1")
    STREAM_IS[how](ended["a"])
    found = recover(opened)
    assert (found.sent, found.refused) == (["late: b"], ["late: a"])
    (kept,) = aside.listed(opened)
    assert "steps.parquet is gone or damaged, and steps.arrow too" in kept.reason
    assert str(opened.root) not in kept.reason
    assert (kept.folder / PARQUET).read_bytes() == b"PAR1"
    (kept.folder / PARQUET).write_bytes(raw)
    aside.put_back(opened)
    assert recover(opened).sent == ["late: a"]
    assert late_rows(opened) == ENDED


def test_a_parquet_file_that_is_whole_needs_no_stream(opened, ended, caplog):
    (ended["a"] / "steps.arrow").unlink()
    assert sorted(recover(opened).sent) == ["late: a", "late: b"]
    assert late_rows(opened) == ENDED
    assert caplog.messages == []


@pytest.mark.parametrize("how", ["gone", "cut", "another run's"])
def test_what_is_said_of_a_lost_stream_names_no_path(opened, how):
    """As it was seen: a folder of this machine in a tag that everybody reads."""
    journal, _ = left_behind(opened), left_behind(opened)
    STREAM_IS[how](journal.folder)
    (said,) = recover(opened).damaged
    assert "rows of steps cannot be read back" in said
    assert str(opened.root) not in said
    told = opened.client.get_run(journal.run_id).data.tags["sgdstudy.damaged"]
    assert str(opened.root) not in told
