"""Where the files of a local store are, whatever its database is called, and by whatever path."""

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from conftest import call, one_line, small_curve

import sgdstudy as ss
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking import prune
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.places import others_in, require_outside, size_of
from sgdstudy.tracking.store import open_store

SETTINGS = {"lr": 0.1, "batch_size": 10, "epochs": 3, "seeds": range(2), "optimizer": "notebook"}
ROWS = 2 * 3 * 6  # seeds, epochs, steps an epoch of 53 samples in batches of 10
NAMES = ["my.db", "runs.sqlite", "runs"]  # the last is known by how it begins


def track(invocation, name="one"):
    return train_arm(invocation, name, ss.Arm(small_curve(), "", **SETTINGS), False)[0]


def tracked(store, study="moving"):
    """Track a study of one arm; return the id of its run."""
    return track(Invocation.start(open_store(str(store)), study))


def doomed(store):
    return [run for runs in prune.plan(store, 0).values() for run in runs]


def steps(store):
    return len(ss.load_steps("moving", store=str(store), invocation="all"))


def change(store, sql, *values):
    with closing(sqlite3.connect(Path(store) / "mlflow.db")) as connection, connection:
        connection.execute(sql, values)


def location(store):
    text = "SELECT artifact_location FROM experiments WHERE name = 'moving'"
    with closing(sqlite3.connect(Path(store) / "mlflow.db")) as connection:
        return connection.execute(text).fetchone()[0]


def parquets(folder):
    return sorted(path.relative_to(folder) for path in Path(folder).rglob("*.parquet"))


@pytest.fixture
def called(empty_store, tmp_path, no_server):
    """Make a store whose database has a name, with a run; return the folder, and the address."""

    def make(folder, name):
        folder.mkdir(parents=True)
        shutil.copy(empty_store / "mlflow.db", folder / name)
        address = f"sqlite:///{folder}/{name}"
        tracked(address)
        return folder, address

    return make


# ---- whatever its database is called -------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_around_its_original_is_pruned_alone(called, tmp_path, name):
    """As it was seen: the copy kept its files, and the original's were gone."""
    inner, original = called(tmp_path / "outer" / "deep" / "inner", name)
    outer = tmp_path / "outer"
    shutil.copytree(inner, outer, dirs_exist_ok=True)
    before = parquets(inner)
    assert call("prune", "--keep", "0", "--yes", "--store", f"sqlite:///{outer}/{name}") == 0
    assert parquets(inner) == before
    assert steps(original) == ROWS
    assert not list((outer / "artifacts").rglob("*.parquet"))


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_is_written_while_the_original_is_there(called, tmp_path, name, caplog):
    """As it was seen: the experiment keeps its files elsewhere, it said."""
    original, _ = called(tmp_path / "original", name)
    copy = f"sqlite:///{shutil.copytree(original, tmp_path / 'copy')}/{name}"
    before = parquets(original)
    tracked(copy)
    assert steps(copy) == 2 * ROWS
    assert parquets(original) == before
    assert "was moved or copied" in caplog.text


def test_a_run_has_the_files_of_its_own_store_where_it_has_some(store, tmp_path):
    """A copy around an original whose database is gone: whose files are they?"""
    run = tracked(store)
    inner = Path(store) / "inner"
    shutil.copytree(Path(store) / "artifacts", inner / "artifacts")
    change(
        store,
        "UPDATE runs SET artifact_uri = ?",
        f"file://{inner}/artifacts/moving/{run}/artifacts",
    )
    opened = open_store(store)
    assert prune.remove(opened, doomed(opened))[0] == 1
    assert len(parquets(inner)) == 2
    assert not parquets(Path(store) / "artifacts")


@pytest.mark.parametrize("name", [*NAMES, "mlflow.db"])
def test_nothing_is_written_among_the_files_of_a_store(empty_store, tmp_path, name):
    shutil.copy(empty_store / "mlflow.db", tmp_path / name)
    with pytest.raises(ss.InputError, match="lies among the files of") as error:
        require_outside(tmp_path / "artifacts" / "x" / "report.html")
    assert one_line(error)
    require_outside(tmp_path / "report.html")


def test_what_is_no_database_makes_no_store(tmp_path):
    (tmp_path / "notes.txt").write_text("SQLite")
    (tmp_path / "folder.db").mkdir()
    os.mkfifo(tmp_path / "pipe.db")
    require_outside(tmp_path / "artifacts" / "report.html")


# ---- ids ---------------------------------------------------------------------------------------


def renamed(store, run, new, uri):
    change(
        store, "UPDATE runs SET run_uuid = ?, artifact_uri = ? WHERE run_uuid = ?", new, uri, run
    )
    change(store, "UPDATE tags SET run_uuid = ? WHERE run_uuid = ?", new, run)


@pytest.mark.parametrize("name", ["moving", "a" * 32])
def test_a_run_that_is_called_as_its_study_takes_no_other_with_it(store, name, caplog):
    """As it was seen: pruned, it took the files of all runs of the study."""
    tracked(store, name)
    folder = Path(store) / "artifacts" / name
    renamed(store, tracked(store, name), name, f"file://{folder}/artifacts")
    opened = open_store(store)
    (bad,) = (run for run in doomed(opened) if run.run_id == name)
    before = parquets(store)
    assert prune.remove(opened, [bad]) == (0, 0)
    assert parquets(store) == before
    why = "which is not its own" if name == "moving" else "holds the files of another run"
    assert why in caplog.text
    assert "the run is kept" in caplog.text


def test_only_the_folders_of_runs_are_those_of_others(tmp_path):
    """A model that MLflow logs has a folder `artifacts` of its own."""
    run = tmp_path / ("b" * 32)
    (run / "artifacts" / "model" / "artifacts").mkdir(parents=True)
    assert not list(others_in(run))
    other = run / "artifacts" / "x" / ("c" * 32) / "artifacts"
    other.mkdir(parents=True)
    assert list(others_in(run)) == [other]


@pytest.mark.parametrize("uri", ["file:///{run}/artifacts", "{run}/artifacts", "/"])
def test_a_place_outside_of_every_store_is_not_a_runs_own(store, uri):
    run = "d" * 32
    with pytest.raises(ss.InputError, match="not its own") as error:
        open_store(store).place(run, uri.format(run=run))
    assert one_line(error)


def test_what_is_removed_while_it_is_counted_counts_as_nothing(tmp_path, monkeypatch):
    """As it was seen: two prunes at once, and the second ended at a file that was gone."""
    (tmp_path / "there").write_bytes(b"12345")
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda top: [*walk(top), (str(tmp_path), ["x"], ["gone"])])
    assert size_of(tmp_path) == 5
    assert size_of(tmp_path / "nowhere") == 0


# ---- by whatever path ----------------------------------------------------------------------------


@pytest.fixture
def alias(store, tmp_path):
    """Another path of the store's folder: a bind mount; where that is not allowed, a link."""
    place = tmp_path / "alias"
    place.mkdir()
    if subprocess.run(["mount", "--bind", store, place], capture_output=True).returncode:
        place.rmdir()
        place.symlink_to(store)
        yield place
        return
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize("through", ["store", "alias"])
def test_a_store_of_two_paths_says_one_of_them(store, alias, through, caplog):
    """As it was seen: commands rewrote the places of all runs, and stopped a study."""
    tracked(store)
    other = Path(store) if through == "store" else alias
    change(
        store, "UPDATE experiments SET artifact_location = ?", f"file://{alias}/artifacts/moving"
    )
    before = location(store)
    open_store(str(other))
    assert location(store) == before
    assert "was moved or copied" not in caplog.text
    tracked(other)
    assert steps(store) == steps(alias) == 2 * ROWS


@pytest.mark.parametrize("where", ["/nowhere/else", "{alias}"])
def test_a_study_goes_on_when_another_path_of_its_store_is_told(store, alias, where, monkeypatch):
    """As it was seen, and of a container, whose paths are not those of its neighbours."""
    monkeypatch.setattr("sgdstudy.tracking.store.EXPERIMENT_SECONDS", -1.0)
    invocation = Invocation.start(open_store(store), "moving")
    track(invocation, "one")
    told = f"file://{where.format(alias=alias)}/artifacts/moving"
    change(store, "UPDATE experiments SET artifact_location = ? WHERE name = 'moving'", told)
    run = track(invocation, "two")
    assert (Path(store) / "artifacts" / "moving" / run / "artifacts" / "steps.parquet").exists()
    assert steps(store) == 2 * ROWS
    assert not os.path.exists("/nowhere")
