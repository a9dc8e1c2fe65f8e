"""`sgdstudy guesses`: what a class guessed, from whatever it hands in."""

import contextlib
import csv
import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from conftest import call, small_curve

import sgdstudy as ss
from sgdstudy.tracking.guesses import COLUMNS


def predicted(store, monkeypatch, *replies, study="bets"):
    left = list(replies)
    monkeypatch.setattr("builtins.input", lambda question: left.pop(0))
    made = ss.Study(
        f"/somewhere/{study}.py",
        "Is it?",
        ss.Options,
        lambda o: {"a": ss.Arm(small_curve(), lr=0.1, batch_size=10, epochs=2)},
        lambda o, runs: [ss.Claim("steps", "a", [12, 12], [12, 12], source="theory")],
        lambda o, runs, claims: "Yes.",
        ask={("steps", "a"): "How many?", ("gone", "a"): "And?"},
    )
    made.run(ss.Options(store=str(store), predict=True), progress=False)


@pytest.fixture
def handed_in(store, tmp_path, monkeypatch):
    """A folder as a class fills it: Ada's store, Bob's file, and what Eve sent."""
    folder = tmp_path / "class"
    predicted(store, monkeypatch, "12", "never")
    predicted(store, monkeypatch, "11,5", "", study="dice")
    shutil.move(store, folder / "ada" / "mlruns")
    monkeypatch.chdir(tmp_path)
    (source, *_) = sorted((folder / "ada").rglob("claims.json"))
    (folder / "bob").mkdir()
    listed = json.loads(source.read_text(encoding="utf-8"))
    told = [{**listed[0], "name": "=cmd.py", "guess": -3.5}, {**listed[0], "guess": None}]
    (folder / "bob" / "claims.json").write_text(json.dumps(told))
    (folder / "eve").mkdir()
    (folder / "eve" / "claims.json").write_text('[{"name": 1}]')
    return folder


def rows_of(path):
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")  # a spreadsheet knows that it is UTF-8
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def test_all_that_a_folder_holds_is_in_one_table(handed_in, tmp_path, capsys, caplog):
    assert call("guesses", "class") == 0
    assert "4 guesses: guesses.csv" in capsys.readouterr().out
    rows = rows_of(tmp_path / "guesses.csv")
    assert tuple(rows[0]) == COLUMNS
    told = [(Path(r["from"]).parts[-2], r["study"], r["name"], r["guess"]) for r in rows]
    assert told == [
        ("ada", "bets", "steps", "12.0"),
        ("ada", "bets", "gone", "inf"),
        ("ada", "dice", "steps", "11.5"),
        ("bob", "", "'=cmd.py", "-3.5"),
    ]
    assert all(row["user"] and row["invocation"] for row in rows[:3])
    assert (rows[0]["expected"], rows[0]["measured"]) == ("12, 12", "12, 12")
    assert (rows[1]["expected"], rows[1]["measured"]) == ("", "")
    (line,) = [m for m in caplog.messages if "left out" in m]
    assert "eve" in line
    assert "damaged" in line


def test_stores_and_files_one_by_one_or_the_store(handed_in, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store, file = handed_in / "ada" / "mlruns", handed_in / "bob" / "claims.json"
    assert call("guesses", file, store, "--out", "both.csv") == 0
    both = rows_of(tmp_path / "both.csv")
    assert [row["name"] for row in both] == ["'=cmd.py", "steps", "gone", "steps"]
    assert call("guesses", store / "mlflow.db", "--out", "database.csv") == 0
    assert rows_of(tmp_path / "database.csv") == both[1:]
    monkeypatch.chdir(handed_in / "ada")
    assert call("guesses") == 0
    assert len(rows_of(handed_in / "ada" / "guesses.csv")) == 3


def test_every_time_that_someone_guessed_is_there_the_first_one_first(store, tmp_path, monkeypatch):
    for guess in ("1", "2"):
        predicted(store, monkeypatch, guess, "")
    assert call("guesses", store, "--out", tmp_path / "g.csv") == 0
    rows = rows_of(tmp_path / "g.csv")
    assert [row["guess"] for row in rows] == ["1.0", "2.0"]
    assert rows[0]["invocation"] < rows[1]["invocation"]


def test_a_store_is_known_by_what_it_holds(handed_in, tmp_path, capsys, caplog):
    ada = handed_in / "ada" / "mlruns"
    with contextlib.closing(sqlite3.connect(ada / "mlflow.db")) as store:
        store.execute("VACUUM INTO ?", [str(ada / "ada lovelace.db")])
    (ada / "mlflow.db").unlink()
    for name in ("browser.db", "notes.sqlite"):
        with contextlib.closing(sqlite3.connect(handed_in / name)) as other:
            other.execute("CREATE TABLE experiments (a)")  # no store of MLflow's
    assert call("guesses", "class", "--out", "all.csv") == 0
    rows = rows_of(tmp_path / "all.csv")
    assert [row["name"] for row in rows] == ["steps", "gone", "steps", "'=cmd.py"]
    assert {row["from"] for row in rows[:3]} == {str(ada / "ada lovelace.db")}
    assert len([m for m in caplog.messages if "left out" in m]) == 1  # what Eve sent


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "nowhere"),
        (["empty"], "holds neither a store (mlflow.db) nor a claims.json"),
        (["class", "--out", "class/ada/mlruns/artifacts/x.csv"], "lies among the files of"),
        (["class", "--out", "nowhere/x.csv"], "cannot be written"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_collected_is_one_line(handed_in, tmp_path, words, says, capsys):
    (tmp_path / "empty").mkdir()
    assert call("guesses", *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert says in error
    assert not (tmp_path / "guesses.csv").exists()
