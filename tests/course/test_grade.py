"""`sgdstudy grade`: whatever a submission does, the table has a row for each."""

import csv
import os

import pytest
from conftest import call
from submissions import EX3, EX4, but

from sgdstudy.cli.spreadsheet import write_table
from sgdstudy.course.grade import Grade

HEAD = "import os, signal, sys, time\n"
FILES = {
    "right.py": (EX4, "correct", ""),
    "prints.py": (
        but(
            EX4,
            "        running = 0.0\n",
            "        running = 0.0\n        print('correct' * 10**5)\n",
        ),
        "correct",
        "",
    ),
    "wrong.py": (but(EX4, "sub_", "add_"), "faults", "uphill"),
    "raises.py": ("raise ValueError('no')\n", "not checked", "ValueError: no"),
    "syntax.py": ("def sgd(:\n", "not checked", "SyntaxError"),
    "empty.py": ("", "not checked", "no function sgd"),
    "arguments.py": ("def sgd(f):\n    pass\n", "faults", "expected sgd(f, w, t, eta"),
    "asks.py": ("input('who are you?')\n" + EX4, "not checked", "EOFError"),
    "exits.py": (HEAD + "os._exit(0)\n", "ended", "ended its own process"),
    "kills.py": (
        HEAD
        + (
            "def sgd(f, w, t, eta, epsilon, nepoch, minibatch):\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        ),
        "ended",
        "ended its own process",
    ),
    "hangs.py": (
        HEAD
        + "def sgd(f, w, t, eta, epsilon, nepoch, minibatch):\n    while True:\n        pass\n",
        "faults",
        "it does not end",
    ),
    "holds.py": (
        HEAD + "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\ntime.sleep(1000)\n",
        "stopped",
        "its process was killed",
    ),
    "waits.py": ("import time\n\ntime.sleep(1000)\n" + EX4, "not checked", "(line 3)"),
    "closes.py": (HEAD + "os.closerange(0, 100)\n" + EX4, "correct", ""),
    "=1+1.py": (EX4, "correct", ""),
    "déjà vu.py": (EX4, "correct", ""),
}


@pytest.mark.slow
def test_every_submission_has_its_row(tmp_path, capsys):
    for name, (source, _, _) in FILES.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
    (tmp_path / "notes.txt").write_text("no submission")
    assert call("grade", tmp_path, "--exercise", "ex4", "--seconds", "3", "--jobs", "2") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Submissions are programs of other people")
    assert "5 of 16 submissions are correct" in " ".join(shown.split())
    with open(tmp_path / "grades_ex4.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"].removeprefix("'") for row in rows] == sorted(FILES)
    assert not [row for row in rows if row["file"].startswith("=")]
    for row in rows:
        _, verdict, line = FILES[row["file"].removeprefix("'")]
        assert row["verdict"] == verdict, row
        assert line in row["lines"], row
        assert row["exercise"] == "ex4"
        assert float(row["seconds"]) < 30


@pytest.mark.slow
def test_exercise_3_and_the_language(tmp_path):
    (tmp_path / "a.py").write_text(EX3)
    (tmp_path / "b.py").write_text(but(EX3, "(x, y)", "(y, x)"))
    out = tmp_path / "table.csv"
    words = ["grade", tmp_path, "--exercise", "ex3", "--out", out, "--lang", "fr"]
    assert call(*words) == 0
    text = out.read_text(encoding="utf-8-sig")
    assert "a.py,ex3,correct" in text
    assert "x et y sont échangés" in text


def test_a_row_counts_the_faults():
    row = Grade("a.py", "ex4", "faults", ("one", "two"), 1.25).row()
    assert row == ("a.py", "ex4", "faults", 2, "1.2", "one | two")


def test_no_cell_is_a_formula(tmp_path):
    write_table(tmp_path / "a.csv", ("x",), [("=cmd.py",), (-1.5,), ("@x",)])
    assert (tmp_path / "a.csv").read_bytes() == b"\xef\xbb\xbfx\r\n'=cmd.py\r\n-1.5\r\n'@x\r\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "--exercise", "ex4"], "there is no folder nowhere"),
        ([".", "--exercise", "ex4"], "there is no submission"),
        ([".", "--exercise", "ex6"], "Valid: ex1, ex2, ex3, ex4, ex5"),
        ([".", "--exercise", "ex4", "--seconds", "0"], "no submission"),
        (["."], "exercise"),
    ],
)
def test_what_cannot_be_graded_is_one_line(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call("grade", *words) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1
    assert os.listdir(tmp_path) == []
