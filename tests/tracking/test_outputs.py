"""Files that a person asked for: whole or not at all, over nothing of another kind."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest
from conftest import call, one_line
from test_store import files, tracked

import sgdstudy as ss
from sgdstudy.cli.spreadsheet import write_table
from sgdstudy.tracking import scratch
from sgdstudy.tracking.outputs import replacing


def half_of(path):
    with replacing(path) as draft:
        draft.write_text("half of tod")
        raise OSError(errno.ENOSPC, "full")


@pytest.mark.parametrize("name", ["page.html", "link.html", "x" * 255])
def test_what_is_there_stays_until_its_replacement_is_whole(tmp_path, name):
    """As it was seen: the disk ran full, and the report of yesterday was half of today's."""
    there = tmp_path / name
    there.write_text("of yesterday")
    there.chmod(0o640)
    if name == "link.html":
        there.rename(tmp_path / "real.html")
        there.symlink_to(tmp_path / "real.html")
    before = files(tmp_path)
    with pytest.raises(OSError, match="full"):
        half_of(there)
    assert files(tmp_path) == before
    with replacing(there) as draft:
        draft.write_text("of today")
    assert there.read_text() == "of today"
    assert there.is_symlink() == (name == "link.html")
    assert there.stat().st_mode & 0o777 == 0o640
    assert len(files(tmp_path)) == len(before)


def test_what_a_killed_command_left_goes_with_the_next_one(tmp_path, monkeypatch):
    pid = os.fork()
    if not pid:
        with replacing(tmp_path / "page.html") as draft:
            draft.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert [path.name[:10] for path in tmp_path.iterdir()] == [".sgdstudy-"]
    monkeypatch.setattr(scratch, "MADE_SECONDS", 0.0)
    time.sleep(0.01)
    with replacing(tmp_path / "page.html") as draft:
        draft.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


OTHERS = {
    "ex4.py": "def sgd(f):\n",
    "notes.csv": "file,mark\nada,20\n",
    "mlflow.db": "SQLite format",
}


KINDS = [
    (["grade", "class", "--exercise", "ex4", "--out"], ".csv"),
    (["guesses", "store", "--out"], ".csv"),
    (["report", "--store", "store", "--out"], ".html | .htm"),
    (["pack", "kept", "--store", "store"], ".zip"),
]


@pytest.mark.parametrize("name", [*OTHERS, "folder"])
@pytest.mark.parametrize("words", [words for words, _ in KINDS], ids=lambda words: words[0])
def test_no_command_writes_over_a_file_of_another_kind(
    store, tmp_path, monkeypatch, words, name, capsys
):
    """As `grade --out` wrote its table over a submission, and `guesses` over a database."""
    monkeypatch.chdir(tmp_path)
    tracked(store, "kept", ["one"])
    Path(store).rename("store")
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "ada.py").write_text(OTHERS["ex4.py"])
    (tmp_path / "folder").mkdir()
    for other, text in OTHERS.items():
        (tmp_path / other).write_text(text)
    before = files(tmp_path)
    at = 2 if words[0] == "pack" else len(words)
    assert call(*words[:at], name, *words[at:]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["a.pdf", "a.csv.gz", "a", "html", ".zip", "a.csv.html.txt", "Ä.DOCX"]
)
@pytest.mark.parametrize(("words", "ending"), KINDS, ids=lambda words: words[0])
def test_no_command_writes_under_the_name_of_another_kind(
    store, tmp_path, monkeypatch, words, ending, name, capsys
):
    """As it was seen: `report --out x.pdf` wrote HTML into it, `pack a b` a file called b."""
    monkeypatch.chdir(tmp_path)
    tracked(store, "kept", ["one"])
    Path(store).rename("store")
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "ada.py").write_text(OTHERS["ex4.py"])
    before = files(tmp_path)
    at = 2 if words[0] == "pack" else len(words)
    assert call(*words[:at], name, *words[at:]) == 2
    shown = f"{name} does not end in {ending}; give a name that does"
    assert capsys.readouterr().err == f"error: {shown}\n"
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["loop", "loop/file", "one", "missing/../two/file"])
@pytest.mark.parametrize(
    "words", [["report", "--out"], ["pack", "kept"], ["export", "kept", "--folder"]]
)
def test_a_link_that_leads_to_itself_is_one_line(empty_store, tmp_path, words, name, capsys):
    """As it was seen: a traceback of each; a link to itself, and two in a ring."""
    for link, to in (("loop", "loop"), ("one", "two"), ("two", "one")):
        (tmp_path / link).symlink_to(tmp_path / to)
    before = sorted(tmp_path.iterdir())
    assert call(*words, tmp_path / name, "--store", empty_store) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / name} leads nowhere: its links lead in a circle\n"
    )
    assert sorted(tmp_path.iterdir()) == before


def test_a_report_in_a_store_that_is_a_link_to_itself_is_one_line(store, capsys):
    (Path(store) / "report.html").symlink_to("report.html")
    assert call("report", "--store", store) == 2
    assert "report.html is a symbolic link" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["csv", "parquet"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_an_export_over_what_is_no_file_changes_none(store, tmp_path, to, make, capsys):
    """As it was seen: runs and claims were new, epochs and steps old."""
    tracked(store, "kept", ["one"])
    words = ["export", "kept", "--to", to, "--folder", tmp_path / "out", "--store", store]
    assert call(*words) == 0
    place = tmp_path / "out" / f"epochs.{to}"
    place.unlink()
    make(place)
    (tmp_path / "out" / f"runs.{to}").write_text("older")
    before = files(tmp_path / "out")
    capsys.readouterr()
    assert call(*words, "--force") == 2
    error = capsys.readouterr().err
    assert error == f"error: {place} is there and is not a file; give another folder\n"
    assert files(tmp_path / "out") == before


@pytest.mark.skipif(os.name == "nt", reason="they are paths there")
@pytest.mark.parametrize("name", ["C:\\a.{0}", "out\\a.{0}", "\\\\server\\a.{0}", "C:/a.{0}"])
@pytest.mark.parametrize(("words", "ending"), KINDS, ids=lambda words: words[0])
def test_no_file_is_named_by_a_path_of_windows(tmp_path, monkeypatch, words, ending, name, capsys):
    """As it was seen: `report --out 'C:\\a.html'` wrote a file of that name, `--store` a folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "ada.py").write_text(OTHERS["ex4.py"])
    tracked(tmp_path / "store", "kept", ["one"])
    before = files(tmp_path)
    at = 2 if words[0] == "pack" else len(words)
    assert call(*words[:at], name.format(ending.split()[0][1:]), *words[at:]) == 2
    assert "is a path of Windows; give one of this machine\n" in capsys.readouterr().err
    assert files(tmp_path) == before


def test_a_folder_that_is_there_may_have_any_name(tmp_path):
    folder = tmp_path / "a\\b" / "C:"
    folder.mkdir(parents=True)
    tracked(folder, "kept", ["one"])
    assert ss.load_runs("kept", store=str(folder)).arm.tolist() == ["one"]


def test_a_table_of_ours_is_written_over(tmp_path, monkeypatch):
    write_table(tmp_path / "a.csv", ("x",), [(1,)])
    write_table(tmp_path / "a.csv", ("x",), [(2,)])
    assert (tmp_path / "a.csv").read_text("utf-8-sig") == "x\n2\n"
    with pytest.raises(ss.InputError, match="cannot be written") as error:
        write_table(tmp_path / "none" / "a.csv", ("x",), [])
    assert one_line(error)


def test_a_tilde_that_no_shell_has_seen_is_the_home_folder(store, tmp_path, monkeypatch):
    """As in `--out=~/runs.zip`: a folder called ~ came."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    tracked(store, "kept", ["one"])
    assert call("pack", "kept", "~/runs.zip", "--store", store) == 0
    assert call("export", "kept", "--folder=~/out", "--store", store) == 0
    assert (tmp_path / "home" / "runs.zip").is_file()
    assert (tmp_path / "home" / "out" / "steps.csv").is_file()
    assert not (tmp_path / "~").exists()


def test_nothing_is_not_packed(store, tmp_path, capsys):
    tracked(store, "kept", ["one"])
    assert call("prune", "--keep", "0", "--yes", "--store", store) == 0
    capsys.readouterr()
    assert call("pack", "kept", tmp_path / "runs.zip", "--store", store) == 2
    assert capsys.readouterr().err == "error: there is no run of kept to pack\n"
    assert not (tmp_path / "runs.zip").exists()


def test_a_local_store_is_read_where_there_is_no_room_for_a_temporary_folder(
    store, tmp_path, monkeypatch
):
    """As on a disk that is full, /tmp with it: a traceback of `tempfile`'s."""
    tracked(store, "kept", ["one"])

    def none():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    assert len(ss.load_steps("kept", store=store)) > 0
    assert len(ss.load_runs("kept", store=store)) == 1
    assert call("export", "kept", "--folder", tmp_path / "out", "--store", store) == 0
    assert call("pack", "kept", tmp_path / "runs.zip", "--store", store) == 0
