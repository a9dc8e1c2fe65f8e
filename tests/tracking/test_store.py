"""The store on disk: moved, copied, shared, read-only, hostile; nothing outside it is touched."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import call, one_line, small_curve

import sgdstudy as ss
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking import places, prune
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.runs import every_run
from sgdstudy.tracking.store import Store, open_store

SETTINGS = {"lr": 0.1, "batch_size": 10, "epochs": 3, "seeds": range(2), "optimizer": "notebook"}
ROWS = 2 * 3 * 6  # seeds, epochs, steps an epoch of 53 samples in batches of 10


def tracked(store, study="moving", arms=("one", "two")):
    """Track a study of small arms; return the ids of its runs."""
    invocation = Invocation.start(open_store(str(store)), study)
    arm = ss.Arm(small_curve(), "", **SETTINGS)
    return [train_arm(invocation, name, arm, False)[0] for name in arms]


def files(folder):
    """What is in a folder: names, and the bytes of the files but for the database's own."""
    paths = sorted(Path(folder).rglob("*"))
    paths = [path for path in paths if not path.name.startswith(("mlflow.db", ".lock"))]
    return {str(p.relative_to(folder)): p.is_file() and p.read_bytes() for p in paths}


@pytest.mark.slow
@pytest.mark.parametrize("python", [["-OO"], ["-OO", "-W", "error"]], ids=" ".join)
def test_mlflow_says_nothing_of_docstrings_that_are_left_out(python):
    """As it was seen: `python -OO -m sgdstudy rerun` printed a warning of MLflow's."""
    code = "import sgdstudy.tracking.store, mlflow.data.dataset_source_registry"
    words = [sys.executable, *python, "-c", code]
    made = subprocess.run(words, capture_output=True, timeout=300, encoding="utf-8")
    assert (made.returncode, made.stderr) == (0, "")


def doomed(store):
    """All runs of all studies that are over."""
    return [run for runs in prune.plan(store, 0).values() for run in runs]


def ids(store, study="moving"):
    return sorted(ss.load_runs(study, store=str(store), invocation="all")["run_id"])


@pytest.fixture
def original(store):
    """A store with two invocations of a study."""
    tracked(store)
    tracked(store)
    return Path(store)


# ---- moved and copied ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("pruned", ["copy", "original"])
def test_pruning_one_of_two_copies_leaves_the_other_whole(original, tmp_path, pruned, capsys):
    copy = shutil.copytree(original, tmp_path / "deep" / "copy")
    one, other = (copy, original) if pruned == "copy" else (original, copy)
    before = files(other)
    assert call("prune", "--keep", "0", "--yes", "--store", one) == 0
    assert "dropped 4 runs" in capsys.readouterr().out
    assert files(other) == before
    assert not list(one.rglob("*.parquet"))
    assert len(ss.load_steps("moving", store=str(other), invocation="all")) == 4 * ROWS


@pytest.mark.slow
def test_a_copy_is_read_while_the_original_is_gone_and_never_from_it(original, tmp_path):
    copy = shutil.copytree(original, tmp_path / "copy")
    changed = next(original.rglob("steps.parquet"))
    changed.write_bytes(b"not a Parquet file")
    assert len(ss.load_steps("moving", store=str(copy), invocation="all")) == 4 * ROWS
    shutil.rmtree(original)
    assert len(ss.load_epochs("moving", store=str(copy), invocation="all")) == 4 * 6


def test_a_store_is_read_whatever_mlflow_is_told_of_its_pools(original, monkeypatch):
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "5")
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW", "3")
    assert len(ss.load_runs("moving", store=str(original)))
    assert os.environ["MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"] == "5"


@pytest.mark.slow
def test_a_moved_store_is_read_exported_written_and_shown(original, tmp_path, caplog):
    moved = tmp_path / "elsewhere" / "a b%20c"
    moved.parent.mkdir()
    os.rename(original, moved)
    assert len(ss.load_steps("moving", store=str(moved))) == 2 * ROWS  # before it is rewritten
    paths = ss.export("moving", tmp_path / "out", "parquet", store=str(moved))
    assert paths[-1].stat().st_size > 1000
    (new,) = tracked(moved, arms=["three"])
    assert not original.exists()
    assert "was moved or copied" in caplog.text
    caplog.clear()
    client = open_store(str(moved)).client
    assert "was moved" not in caplog.text
    for run_id in [*ids(moved), new]:  # what MLflow's own UI shows
        names = [item.path for item in client.list_artifacts(run_id)]
        assert "steps.parquet" in names
        assert client.get_run(run_id).info.artifact_uri.startswith(moved.as_uri())


def test_a_store_of_nothing_yet_can_be_copied(store, tmp_path):
    copy = shutil.copytree(store, tmp_path / "copy")
    client = open_store(str(copy)).client
    assert client.get_experiment("0").artifact_location == f"{copy.as_uri()}/0"


@pytest.mark.faults
@pytest.mark.parametrize("how", ["move", "copy"])
def test_a_run_that_was_killed_is_recovered_where_its_store_is_now(store, tmp_path, how):
    pid = os.fork()
    if not pid:
        invocation = Invocation.start(open_store(store), "killed")

        def die(sink):
            for step in range(10):
                sink.log({"loss": 1.0 / (1 + step)})
            sink.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        from sgdstudy.tracking.sink import RunSink

        with invocation.run("loop", "", {}, metrics=("loss",)) as journal:
            die(RunSink(journal))
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    place = tmp_path / "place"
    os.rename(store, place) if how == "move" else shutil.copytree(store, place)
    before = files(store)
    assert recover(open_store(str(place))).closed == ["killed: loop"]
    assert len(ss.load_steps("killed", store=str(place))) == 10
    assert list(ss.load_runs("killed", store=str(place))["status"]) == ["KILLED"]
    assert files(store) == before
    assert how == "copy" or not os.path.exists(store)


@pytest.mark.slow
def test_a_database_made_by_mlflow_alone_keeps_its_files_where_it_wants(tmp_path, no_server):
    from mlflow import MlflowClient

    place, outside = tmp_path / "db", tmp_path / "outside"
    place.mkdir()
    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    location = (outside / "artifacts" / "5").as_uri()
    ident = client.create_experiment("theirs", artifact_location=location)
    run = client.create_run(ident).info
    client.log_text(run.run_id, "theirs", "note.txt")
    opened = open_store(str(place))
    assert opened.client.get_run(run.run_id).info.artifact_uri == run.artifact_uri
    prune.remove(opened, every_run(opened, ident))
    assert (outside / "artifacts" / "5" / run.run_id / "artifacts" / "note.txt").exists()


def located(place, name, location):
    """Make an experiment that MLflow keeps elsewhere, with a run of its own."""
    client = open_store(str(place)).client
    run = client.create_run(client.create_experiment(name, artifact_location=location)).info
    client.log_text(run.run_id, "theirs", "note.txt")
    return client, run.run_id


@pytest.mark.parametrize("where", ["artifacts/theirs", "theirs"])
def test_an_experiment_that_mlflow_keeps_elsewhere_stays_there(store, tmp_path, where):
    """As it was seen: the next command wrote our place over it, and MLflow showed no files."""
    client, run_id = located(store, "theirs", (tmp_path / "outside" / where).as_uri())
    (Path(store) / where).mkdir(parents=True)
    before = client.get_run(run_id).info.artifact_uri
    client = open_store(store).client
    assert client.get_run(run_id).info.artifact_uri == before
    assert [item.path for item in client.list_artifacts(run_id)] == ["note.txt"]
    copy = shutil.copytree(store, tmp_path / "copy")
    assert open_store(str(copy)).client.get_run(run_id).info.artifact_uri == before


@pytest.mark.parametrize("scheme", ["file", "path", "mlflow-artifacts:/x"])
def test_nothing_is_tracked_to_an_experiment_that_is_kept_elsewhere(store, tmp_path, scheme):
    """As it was seen: written into the store, or refused after the training."""
    outside = tmp_path / "outside" / "moving"
    locations = {"file": outside.as_uri(), "path": str(outside)}
    client = open_store(store).client
    client.create_experiment("moving", artifact_location=locations.get(scheme, scheme))
    before = files(store)
    with pytest.raises(ss.InputError, match="keeps its files elsewhere") as error:
        Invocation.start(open_store(store), "moving")
    assert one_line(error)
    assert files(store) == before
    assert not outside.exists()


@pytest.mark.skipif(os.name == "nt", reason="`cp -l` is of Unix")
@pytest.mark.parametrize("of_all", [True, False], ids=["cp -al", "ln"])
def test_a_database_with_two_names_is_not_written(store, tmp_path, of_all, capsys):
    """As it was seen: prune of a copy made by `cp -al` emptied the original."""
    tracked(store)
    other = tmp_path / "other"
    if of_all:
        shutil.copytree(store, other, copy_function=os.link)
    else:
        shutil.copytree(store, other)
        (other / "mlflow.db").unlink()
        os.link(Path(store) / "mlflow.db", other / "mlflow.db")
    assert call("prune", "--keep", "0", "--yes", "--store", other) == 2
    said = capsys.readouterr().err
    assert "has another name too" in said
    assert said.count("\n") == 1
    assert len(ss.load_runs("moving", store=str(other))) == 2
    assert len(ss.load_steps("moving", store=store)) == 2 * ROWS
    copy = shutil.copytree(other, tmp_path / "copy")  # as the line says
    assert call("prune", "--keep", "0", "--yes", "--store", copy) == 0
    assert len(ss.load_steps("moving", store=store)) == 2 * ROWS


# ---- files that are missing -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["steps.parquet", "folder", "all"])
def test_a_finished_run_without_its_files_is_named(original, tmp_path, lost, capsys):
    run = ss.load_runs("moving", store=str(original)).iloc[0]
    folder = original / "artifacts" / "moving" / run["run_id"]
    {
        "steps.parquet": lambda: (folder / "artifacts" / lost).unlink(),
        "folder": lambda: shutil.rmtree(folder),
        "all": lambda: shutil.rmtree(original / "artifacts"),
    }[lost]()
    with pytest.raises(ss.InputError, match=run["run_id"][:8]) as error:
        ss.load_steps("moving", store=str(original))
    assert one_line(error)
    assert call("export", "moving", "--folder", tmp_path / "x", "--store", original) == 2
    assert "one (" in capsys.readouterr().err
    assert not list((tmp_path / "x").glob("*"))
    if lost != "all":
        assert len(ss.load_steps("moving", arms="two", store=str(original))) == ROWS


def test_prune_leaves_studies_of_another_prefix_alone(store, monkeypatch, capsys):
    tracked(store)
    monkeypatch.setenv("SGDSTUDY_PREFIX", "ada-")
    tracked(store)
    assert call("prune", "--keep", "0", "--yes", "--store", store) == 0
    assert "dropped 2 runs" in capsys.readouterr().out
    monkeypatch.delenv("SGDSTUDY_PREFIX")
    assert len(ids(store)) == 2


def test_prune_counts_what_it_frees(original, capsys):
    size = sum(p.stat().st_size for p in (original / "artifacts").rglob("*") if p.is_file())
    opened = open_store(str(original))
    runs = doomed(opened)
    shutil.rmtree(original / "artifacts" / "moving" / runs[0].run_id)
    left = sum(p.stat().st_size for p in (original / "artifacts").rglob("*") if p.is_file())
    assert 0 < left < size
    assert prune.remove(opened, runs) == (len(runs), left)


# ---- hostile stores -------------------------------------------------------------------------


def victim(tmp_path):
    folder = tmp_path / "victim" / "artifacts"
    folder.mkdir(parents=True)
    (folder / "steps.parquet").write_bytes(b"precious")
    return folder


def change(store, sql, *values):
    connection = sqlite3.connect(Path(store) / "mlflow.db")
    connection.execute(sql, values)
    connection.commit()
    connection.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "form",
    [
        "{victim}",
        "file://{victim}",
        "file://{store}/artifacts/moving/../../../victim/artifacts",
        "file://{store}/streams/artifacts",
        "{store}/artifacts/moving/{other}/artifacts",
        "..",
    ],
)
def test_prune_deletes_nothing_but_a_runs_own_folder(original, tmp_path, form, caplog):
    folder = victim(tmp_path)
    opened = open_store(str(original))
    bad, other, *_ = runs = doomed(opened)
    uri = form.format(victim=folder, store=original, other=other.run_id)
    change(original, "UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", uri, bad.run_id)
    prune.remove(opened, [r for r in doomed(opened) if r.run_id == bad.run_id])
    assert (folder / "steps.parquet").read_bytes() == b"precious"
    assert (original / "streams").is_dir()
    for run in runs:
        kept = original / "artifacts" / "moving" / run.run_id / "artifacts" / "steps.parquet"
        assert kept.exists()
    assert bad.run_id in caplog.text


@pytest.mark.parametrize("level", ["artifacts", "experiment", "run", "file"])
def test_links_are_not_followed(original, tmp_path, level):
    folder = victim(tmp_path)
    opened = open_store(str(original))
    run = doomed(opened)[0]
    own = original / "artifacts" / "moving" / run.run_id / "artifacts"
    path = {
        "artifacts": own,
        "experiment": own.parent.parent,
        "run": own.parent,
        "file": own / "steps.parquet",
    }[level]
    target = {"file": folder / "steps.parquet", "experiment": tmp_path, "run": folder.parent}
    if level == "experiment":
        os.rename(folder.parent, tmp_path / run.run_id)
        folder = tmp_path / run.run_id / "artifacts"
    os.rename(path, tmp_path / "aside")
    path.symlink_to(target.get(level, folder))
    with pytest.raises(ss.InputError, match="symbolic link"):
        ss.load_steps("moving", store=str(original), invocation="all")
    prune.remove(opened, [run])
    assert (folder / "steps.parquet").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["streams", "artifacts"])
def test_a_store_whose_own_folders_are_links_is_refused(original, tmp_path, name):
    os.rename(original / name, tmp_path / "outside")
    (original / name).symlink_to(tmp_path / "outside")
    with pytest.raises(ss.InputError, match="symbolic link") as error:
        open_store(str(original))
    assert one_line(error)


@pytest.mark.parametrize("name", ["folder", "artifacts", "steps.arrow", "draft", "lock"])
def test_recover_leaves_a_journal_with_links_alone(store, tmp_path, name):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "closing.json").write_text("precious")
    streams = open_store(store).streams
    streams.mkdir(exist_ok=True)
    about = {"store": f"sqlite:///{store}/mlflow.db", "study": "s", "name": "n", "tags": {}}
    journal = streams / "0"
    if name == "folder":
        journal.symlink_to(secret)
    else:
        journal.mkdir()
        (journal / name).symlink_to(secret / "closing.json" if name != "draft" else secret)
    (journal / "opening.json").write_text(json.dumps(about))
    before = files(tmp_path)
    (line,) = recover(open_store(store)).left
    assert files(tmp_path) == before
    assert "symbolic link" in line


@pytest.mark.slow
def test_a_key_that_is_a_path_reads_nothing(original, tmp_path):
    run = ss.load_runs("moving", store=str(original)).iloc[0]["run_id"]
    stolen = tmp_path / "stolen"
    stolen.mkdir()
    (stolen / "steps.arrow").write_bytes(b"secret")
    change(original, "UPDATE runs SET status = 'RUNNING' WHERE run_uuid = ?", run)
    tag = "UPDATE tags SET value = ? WHERE key = 'sgdstudy.key' AND run_uuid = ?"
    shutil.rmtree(original / "artifacts" / "moving" / run)
    for path in (str(stolen), os.path.relpath(stolen, original / "streams")):
        change(original, tag, path, run)
        assert len(ss.load_steps("moving", store=str(original))) == ROWS  # of the other arm


# ---- what a server has not got yet ---------------------------------------------------------------


@pytest.mark.parametrize("variable", ["XDG_STATE_HOME", "LOCALAPPDATA"])
@pytest.mark.parametrize(
    ("given", "place"),
    [("~/x", "x"), ("x", ".local/state"), ("here/x", ".local/state"), ("", ".local/state")],
)
def test_what_waits_for_a_server_lies_in_a_folder_that_is_named_whole(
    tmp_path, monkeypatch, variable, given, place
):
    """As it was seen: where no shell was, a folder called ~ came."""
    for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(variable, given)
    found = Store("http://127.0.0.1:1", None).streams
    assert found == tmp_path / place / "sgdstudy" / "streams"


@pytest.mark.parametrize("variable", ["XDG_STATE_HOME", "HOME"])
@pytest.mark.parametrize("below", ["", "folder"])
def test_a_folder_that_cannot_be_made_is_named_with_its_variable(
    tmp_path, monkeypatch, variable, below, capsys
):
    """As it was seen: what was recorded is kept, it said, and nothing was."""
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "file" / below))
    monkeypatch.setattr("sgdstudy.tracking.server.check", lambda uri, client: None)
    assert call("recover", "--store", "http://127.0.0.1:1") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'file'}")
    assert f"set {variable} to another folder" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("through", ["the path", "the longest end of it"])
def test_a_backup_within_a_store_is_not_its_own(original, tmp_path, through):
    with sqlite3.connect(original / "mlflow.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    backup = original / "backup"
    shutil.copytree(original, tmp_path / "copy")
    shutil.copytree(tmp_path / "copy", backup)
    recover(open_store(str(backup)))
    before = files(backup)
    os.replace(shutil.copy(backup / "mlflow.db", tmp_path), original / "mlflow.db")
    for path in original.glob("mlflow.db-*"):
        path.unlink()
    if through != "the path":  # .../backup/artifacts/moving/<run> of where it was
        moved = tmp_path / "moved"
        os.rename(original, moved)
        original, backup = moved, moved / "backup"
    opened = open_store(str(original))
    assert prune.remove(opened, doomed(opened))[0] == 4
    assert files(backup) == before
    assert not list((original / "artifacts").rglob("*.parquet"))
    (original / "artifacts" / "mlflow.db").touch()  # and its own folder may be another's
    run = "a" * 32
    with pytest.raises(ss.InputError, match="another store's"):
        opened.place(run, f"file:///x/artifacts/moving/{run}/artifacts")


@pytest.mark.parametrize("name", ["Thumbs.db", "._x.db", "notes.sqlite3", "empty.db"])
def test_what_other_programs_call_a_database_makes_no_other_store(original, name):
    (original / "artifacts" / name).write_bytes(b"" if name == "empty.db" else b"\xd0\xcf" * 99)
    opened = open_store(str(original))
    assert len(ss.load_runs("moving", store=str(original), invocation="all")) == 4
    assert prune.remove(opened, doomed(opened))[0] == 4
    assert not list((original / "artifacts").rglob("*.parquet"))


@pytest.mark.parametrize("how", ["bind", "a mount with a space", "as other systems tell"])
def test_prune_goes_through_no_mount(original, tmp_path, how, caplog, monkeypatch):
    opened = open_store(str(original))
    run = doomed(opened)[0]
    place = original / "artifacts" / "moving" / run.run_id / "artifacts" / "deep" / "its data"
    place.mkdir(parents=True)
    if how == "bind":
        outside = victim(tmp_path)
        made = subprocess.run(["mount", "--bind", outside, place], capture_output=True)
        if made.returncode:
            pytest.skip(f"no bind mount here: {made.stderr.decode().strip()}")
    elif how == "a mount with a space":
        told = tmp_path / "mountinfo"
        said = str(place).replace(" ", "\\040")
        told.write_text(f"36 35 98:0 /mnt1 {said} rw,noatime master:1 - ext3 /dev/root rw\n")
        monkeypatch.setattr(places, "MOUNTS", told)
    else:
        monkeypatch.setattr(places, "MOUNTS", tmp_path / "nowhere")
        monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == str(place))
    try:
        before = files(place.parents[1])
        assert prune.remove(opened, [run])[0] == 0
        assert files(place.parents[1]) == before
    finally:
        if how == "bind":
            subprocess.run(["umount", "--lazy", place], check=True)
    assert f"{place} is a mount" in caplog.text
    assert run.run_id in ids(original)


# ---- replaced between two calls of one process -----------------------------------------------


def remake(store, empty):
    shutil.rmtree(store)
    shutil.copytree(empty, store)


def move_away(store, empty):
    os.rename(store, store.with_name("old"))
    shutil.copytree(empty, store)


def delete_the_database(store, empty):
    for path in store.glob("mlflow.db*"):
        path.unlink()
    shutil.copy(empty / "mlflow.db", store / "mlflow.db")


def put_a_backup_back(store, empty):
    os.replace(backed_up(store), store / "mlflow.db")
    for path in store.glob("mlflow.db-*"):
        path.unlink()


def write_a_backup_over_it(store, empty):
    copy = backed_up(store)
    for path in store.glob("mlflow.db-*"):
        path.unlink()
    shutil.copyfile(copy, store / "mlflow.db")


def backed_up(store):
    path = store.with_name("copy.db")
    with sqlite3.connect(store / "mlflow.db") as old, sqlite3.connect(path) as new:
        old.backup(new)
    old.close(), new.close()
    return path


@pytest.mark.parametrize(
    ("act", "kept"),
    [
        (remake, 0),
        (move_away, 0),
        (delete_the_database, 0),
        (put_a_backup_back, 1),
        (write_a_backup_over_it, 1),
    ],
)
def test_a_database_replaced_between_two_calls_is_the_one_written_to(store, empty_store, act, kept):
    store = Path(store)
    before = tracked(store, arms=["one"])
    act(store, empty_store)
    new = tracked(store, arms=["one"])
    assert ids(store) == sorted([*before * kept, *new])
    assert len(ss.load_steps("moving", store=str(store))) == ROWS
    with sqlite3.connect(store / "mlflow.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


@pytest.mark.parametrize("step", ["remove", "shrink"])
def test_prune_leaves_a_database_alone_that_was_replaced_while_it_asked(
    original, empty_store, step
):
    opened = open_store(str(original))
    runs = doomed(opened)
    put_a_backup_back(original, empty_store)
    before = files(original)
    with pytest.raises(ss.InputError, match="replaced") as error:
        prune.remove(opened, runs) if step == "remove" else prune.shrink(opened)
    assert one_line(error)
    assert files(original) == before
    assert len(ids(original)) == 4
