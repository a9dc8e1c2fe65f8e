"""What lies in a store is a file of it: no link, no pipe; nothing is written over a store's own."""

import json
import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import one_line
from misbehaving import deadline
from test_power import ROW
from test_store import files, tracked

import sgdstudy as ss
from sgdstudy.cli.main import main
from sgdstudy.report.report import write_report
from sgdstudy.tracking import aside
from sgdstudy.tracking.journal import Journal, Opening
from sgdstudy.tracking.pack import pack
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.runs import find_run, place_of
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.store import open_store, read_store

NOT_OURS = ["{", "[]", "3", "null", '{"store": 3, "study": [], "name": {}, "tags": 5}', "[" * 10**5]


def a_socket(path):
    here = os.getcwd()
    os.chdir(path.parent)  # the name of one is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(here)


@pytest.fixture
def kept(store):
    """A store with a study of two runs, and the ids of these."""
    return open_store(store), tracked(store, "kept")


def command(*words):
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlflow.db", "aside", "writing", "streams", "artifacts"])
@pytest.mark.parametrize("opens", [open_store, read_store])
def test_no_part_of_a_store_is_a_link(kept, tmp_path, name, opens):
    opened, _ = kept
    outside = tmp_path / "outside"
    (opened.root / name).exists() or (opened.root / name).mkdir()
    shutil.move(opened.root / name, outside)
    (opened.root / name).symlink_to(outside)
    before = files(outside) if outside.is_dir() else outside.read_bytes()
    with pytest.raises(ss.InputError, match="symbolic link") as error:
        opens(str(opened.root))
    assert one_line(error)
    assert (files(outside) if outside.is_dir() else outside.read_bytes()) == before


def test_a_link_to_another_stores_database_drops_no_run_of_it(kept, tmp_path, capsys):
    opened, _ = kept
    shutil.copytree(opened.root, tmp_path / "another")
    (opened.root / "mlflow.db").unlink()
    (opened.root / "mlflow.db").symlink_to(tmp_path / "another" / "mlflow.db")
    assert command("prune", "--keep", "0", "--yes", "--store", str(opened.root)) == 2
    assert len(ss.load_runs("kept", store=str(tmp_path / "another"))) == 2


@pytest.mark.parametrize("level", ["streams/KEY", "steps.arrow"])
def test_rows_that_are_going_on_are_read_from_no_link(kept, tmp_path, level):
    opened, (run_id, _) = kept
    run = find_run(opened, run_id)
    key = run.tags["sgdstudy.key"]
    shutil.rmtree(place_of(opened, run).parent)
    own = opened.streams / key
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "steps.arrow").write_bytes(b"secret")
    opened.streams.mkdir(exist_ok=True)
    if level == "steps.arrow":
        own.mkdir()
        (own / "steps.arrow").symlink_to(target / "steps.arrow")
    else:
        own.symlink_to(target)
    with pytest.raises(ss.InputError, match="symbolic link"):
        ss.load_steps("kept", store=str(opened.root))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["steps.parquet", "epochs.parquet", "claims.json"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, a_socket])
def test_what_is_no_file_is_named_and_not_waited_for(kept, tmp_path, caplog, name, make):
    opened, (run_id, _) = kept
    path = place_of(opened, find_run(opened, run_id)) / name
    path.unlink(missing_ok=True)
    make(path)
    load = ss.load_epochs if name.startswith("epochs") else ss.load_steps
    if name.endswith("parquet"):
        with pytest.raises(ss.InputError, match="is not a file"):
            load("kept", store=str(opened.root))
    if name == "claims.json":  # another's: the arm has none
        pack(opened, [run_id], tmp_path / "runs.zip")
        assert "'claims.json' of the run one" in caplog.text
        assert "is left out" in caplog.text
        return
    with pytest.raises(ss.InputError, match="is not a file"):
        pack(opened, [run_id], tmp_path / "runs.zip")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["mlflow.db", "script.py", "steps.parquet", "a new one"])
def test_pack_writes_over_nothing_but_what_it_packed(kept, tmp_path, what):
    opened, (run_id, _) = kept
    folder = place_of(opened, find_run(opened, run_id))
    path = {"mlflow.db": opened.root / what, "script.py": tmp_path / what}.get(what, folder / what)
    if what == "script.py":
        path.write_text("print(1)")
    before = files(tmp_path)
    assert command("pack", "kept", str(path), "--store", str(opened.root)) == 2
    assert files(tmp_path) == before
    for _ in range(2):
        assert command("pack", "kept", str(tmp_path / "a.zip"), "--store", str(opened.root)) == 0


@pytest.mark.slow
def test_export_and_report_write_not_among_the_files_of_runs(kept, tmp_path):
    opened, (run_id, _) = kept
    folder = place_of(opened, find_run(opened, run_id))
    before = files(opened.root)
    words = ["export", "kept", "--to", "parquet", "--force", "--store", str(opened.root)]
    for place in (folder, folder.parent, opened.streams / "x"):
        assert command(*words, "--folder", str(place)) == 2
    with pytest.raises(ss.InputError, match="among the files"):
        write_report(opened, folder / "picture.html")
    assert files(opened.root) == before
    assert command(*words, "--folder", str(opened.root / "exported")) == 0  # beside a database


@pytest.mark.parametrize("text", NOT_OURS)
def test_what_is_set_aside_and_not_ours_keeps_no_command_from_its_work(store, text, capsys):
    opened = open_store(store)
    for folder in ("aside", "streams"):
        bad = Path(store) / folder / "1795714329308-437171b90add"
        bad.mkdir(parents=True)
        (bad / "opening.json").write_text(text)
    assert command("recover", "--store", store) == 1  # it may be a run's
    assert capsys.readouterr().out.count("its opening.json is damaged") == 1
    assert command("prune", "--keep", "1", "--yes", "--store", store) == 0
    assert aside.listed(opened) == []


@pytest.mark.parametrize("how", ["no reason", "reason is a pipe", "there twice", "link"])
def test_a_run_set_aside_is_tried_again_whatever_lies_beside_it(store, tmp_path, how, capsys):
    opened = open_store(store)
    journal = Journal.begin(opened, Opening("odd", "one", {}), {})
    journal.set_aside("tried")
    reason = journal.folder / aside.REASON
    if how == "no reason":
        reason.unlink()
    elif how == "reason is a pipe":
        reason.unlink()
        os.mkfifo(reason)
    elif how == "there twice":
        shutil.copytree(journal.folder, opened.streams / journal.folder.name)
    else:
        (journal.folder / "points.json").symlink_to(tmp_path / "secret")
    code = command("recover", "--store", store)
    assert code in (0, 1)
    told = json.dumps(capsys.readouterr().out)
    assert "Traceback" not in told
    found = find_run(opened, journal.run_id)
    assert found.status == ("RUNNING" if how == "link" else "KILLED")
    recover(opened)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("steps.arrow", "epochs.arrow", "rows.count", "checkpoint.safetensors", "tries.json"),
        *("artifacts/data.png", "artifacts/steps.parquet", "closing.json", "lock", "draft/x"),
    ],
)
@pytest.mark.parametrize("make", [os.mkfifo, a_socket])
def test_nothing_of_a_run_that_is_no_file_is_waited_for(store, name, make):
    """A pipe among the files of a run that was killed: no command ended any more."""
    opened = open_store(store)
    bad = Journal.begin(opened, Opening("odd", "bad", {}), {"data.png": Path.touch})
    good = Journal.begin(opened, Opening("odd", "good", {}), {})
    for journal in (bad, good):
        sink = RunSink(journal)
        sink.write("steps", ROW)
        sink.stream.drop()
        journal.let_go()
    path = bad.folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    make(path)
    with deadline(20):
        found = recover(opened)
        assert found.closed == ["odd: good"]
        assert [f"{path} is neither a file nor a folder" in line for line in found.left] == [True]
        with suppress(ss.InputError):
            ss.load_steps("odd", store=store, invocation="all")


@pytest.mark.parametrize("name", ["mlflow.db", ".lock", "streams", "report.html"])
def test_a_store_whose_own_files_are_pipes_is_not_waited_for(kept, name):
    opened, _ = kept
    path = opened.root / name
    path.rename(opened.root / "away") if path.exists() else None
    os.mkfifo(path)
    with deadline(40):
        for words in (["recover"], ["report"], ["prune", "--keep", "0", "--yes"]):
            assert command(*words, "--store", str(opened.root)) in (0, 2)
    assert path.is_fifo()


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
def test_what_sqlite_keeps_beside_a_database_is_no_link(kept, tmp_path, end):
    opened, _ = kept
    for path in opened.root.glob("mlflow.db-*"):
        path.unlink()
    victim = tmp_path / "thesis.txt"
    victim.write_text("years of work")
    (opened.root / f"mlflow.db{end}").symlink_to(victim)
    for opens in (open_store, read_store):
        with pytest.raises(ss.InputError, match="symbolic link") as error:
            opens(str(opened.root))
        assert one_line(error)
    assert victim.read_text() == "years of work"


def test_the_report_beside_a_database_is_no_link(kept, tmp_path):
    opened, _ = kept
    page = tmp_path / "index.html"
    page.write_text("<!doctype html><p>mine")
    (opened.root / "report.html").symlink_to(page)
    assert command("report", "--store", str(opened.root)) == 2
    assert page.read_text() == "<!doctype html><p>mine"
