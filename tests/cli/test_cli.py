"""The command line: exit codes, one-line errors, and an answer to --help at once."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import call

import sgdstudy as ss
from sgdstudy.cli.commands import COMMANDS, OLD_WORDS
from sgdstudy.tracking.store import open_store

SCRIPT = '''"""Does a {name} script run from the command line?

The rest of the docstring.
"""

from dataclasses import dataclass

import torch

import sgdstudy as ss


@dataclass(frozen=True)
class Options(ss.Options):
    lr: float = 0.1
    """step size"""
    two: int = 2
    """what the claim expects"""


def arms(o):
    x = torch.linspace(-1, 1, 20)
    problem = ss.Problem(x, 2 * x, lambda w, x: w[0] * x, w_init=[0.0])
    return {{"arm": ss.Arm(problem, lr=o.lr, batch_size=5, epochs=2)}}


def claims(o, runs):
    return [ss.Claim("two", "arm", 2, o.two, 0, "arithmetic", always=True)]


def answer(o, runs, claims):
    return "The answer of {name}."


ask = {{("two", "arm"): "What is one and one?"}}
STUDY = ss.Study(__file__, __doc__, Options, arms, claims, answer, ask=ask)
'''


@pytest.fixture
def project(tmp_path, monkeypatch, store):
    """A folder with two scripts and a store of its own, which is the current folder."""
    assert Path(store) == tmp_path / "mlruns"
    (tmp_path / "experiments").mkdir()
    for name in ("cli_small", "cli_tiny"):
        path = tmp_path / "experiments" / f"{name}.py"
        path.write_text(SCRIPT.format(name=name))
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(words, capsys):
    assert call(*words) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    assert not any(f"  {name} " in shown for name in OLD_WORDS)


@pytest.mark.parametrize("word", ["recover", "reap", "sync"])
def test_recover_has_two_older_names(word, store, capsys):
    assert call(word, "--store", store) == 0
    assert capsys.readouterr().out.strip() == "nothing to do: no run is left behind"


def test_list_shows_every_study_with_its_question(project, capsys):
    assert call("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["cli_small", "cli_tiny"]
    assert lines[1].endswith("Does a cli_tiny script run from the command line?")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["lst"], "did you mean 'list'"),
        (["run", "cli_tinny"], "did you mean 'cli_tiny'"),
        (["run"], "cli_small, cli_tiny"),
        (["run", "experiments/none.py"], "none.py"),
        (["run", "cli_tiny", "--lr", "-1"], "lr must be positive"),
        (["run", "cli_tiny", "--jobs", "0"], "jobs"),
        (["run", "cli_tiny", "--device", "gpu"], "gpu"),
        (["prune", "--keep", "-1"], "keep"),
        (["ui", "--port", "0"], "port"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line_and_exit_code_2(project, capsys, words, says):
    assert call(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert says in error


@pytest.mark.parametrize("words", [["run", "cli_tiny", "--lrr", "1"], ["prune"], ["list", "all"]])
def test_a_wrong_option_ends_with_exit_code_2(project, words, capsys):
    assert call(*words) == 2
    assert capsys.readouterr().err


def test_run_shows_the_answer_and_the_claims(project, store, capsys):
    assert call("run", "cli_tiny", "cli_small", "--store", store) == 0
    shown = capsys.readouterr().out
    for name in ("cli_tiny", "cli_small"):
        assert f"The answer of {name}." in shown
    assert shown.count("holds") == 2
    assert Path(store).as_posix() in shown
    assert ss.load_runs("cli_tiny", store=store).arm.tolist() == ["arm"]


def test_run_takes_a_path_and_the_scripts_own_options(project, store):
    assert call("run", "experiments/cli_tiny.py", "--lr", "0.05", "--store", store) == 0
    assert ss.load_runs("cli_tiny", store=store).lr.tolist() == [0.05]


@pytest.mark.slow
def test_no_answer_keeps_answer_and_claims_from_the_class(project, store, capsys):
    assert call("run", "cli_tiny", "--two", "3", "--no-answer", "--store", store) == 0
    out = capsys.readouterr().out
    assert "run without --no-answer" in out
    assert "FAILS" not in out
    assert "expected" not in out
    client = open_store(store).client
    experiment = client.get_experiment_by_name("cli_tiny")
    assert "run without --no-answer" in experiment.tags["mlflow.note.content"]
    assert "expected" not in experiment.tags["mlflow.note.content"]
    written = "".join(
        path.read_text(encoding="utf-8")
        for path in Path(store).rglob("*")
        if path.name in ("answer.md", "claims.json")
    )
    assert "run without --no-answer" in written
    assert "expected" not in written
    assert ss.load_claims("cli_tiny", store=store).empty


def test_predict_asks_first_and_shows_the_guess_beside(project, store, capsys, monkeypatch):
    replies = iter(["many", "7"])
    monkeypatch.setattr("builtins.input", lambda question: next(replies))
    assert call("run", "cli_tiny", "--predict", "--store", store) == 0
    out = capsys.readouterr().out
    assert out.index("'many' is not a number") < out.index("tracking to")
    assert "your guess" in out
    (path,) = Path(store).rglob("answer.md")
    row = next(line for line in path.read_text(encoding="utf-8").splitlines() if "two" in line)
    assert row.split("|")[3].strip() == "7"


def test_predict_without_anyone_to_ask_is_one_line_and_writes_nothing(
    project, store, capsys, monkeypatch
):
    def nobody(question):
        raise EOFError

    monkeypatch.setattr("builtins.input", nobody)
    before = sorted(Path(store).rglob("*"))
    assert call("run", "cli_tiny", "--predict", "--store", store) == 2
    assert "run it in a terminal" in capsys.readouterr().err
    assert call("run", "cli_tiny", "--predict", "--no-answer", "--store", store) == 2
    assert "drop one" in capsys.readouterr().err
    assert sorted(Path(store).rglob("*")) == before


@pytest.mark.parametrize(("strict", "code"), [([], 0), (["--strict"], 1)])
def test_a_failing_claim_is_shown_and_counts_when_strict(project, store, capsys, strict, code):
    assert call("run", "cli_tiny", "--two", "3", "--store", store, *strict) == code
    assert "FAILS" in capsys.readouterr().out


@pytest.mark.slow
def test_study_runs_every_script(project, store, capsys):
    assert call("study", "--store", store, "--jobs", "1") == 0
    assert "2 studies: 2 predictions hold" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("strict", "code"), [([], 1), (["--no-strict"], 0)])
def test_study_ends_red_and_says_which_claim_failed(project, store, capsys, strict, code):
    script = project / "experiments" / "cli_small.py"
    script.write_text(script.read_text().replace("two: int = 2", "two: int = 3"))
    assert call("study", "--store", store, "--jobs", "1", *strict) == code
    out = capsys.readouterr().out
    assert "2 studies: 1 of 2 predictions holds, 1 FAILS" in out
    assert out.splitlines()[-1] == (
        "FAILS  cli_small: two (arm): expected 3, tolerance 0, measured 2"
    )


def test_a_scripts_help_names_its_options(project, capsys):
    assert call("run", "cli_tiny", "--help") == 0
    shown = capsys.readouterr().out
    assert "--lr" in shown
    assert "--seeds" in shown
    assert "what the claim expects" in shown


@pytest.mark.slow
def test_prune_asks_before_it_drops(project, store, capsys, monkeypatch):
    def left():
        try:
            return len(ss.load_runs("cli_tiny", store=store, invocation="all"))
        except ss.InputError:
            return 0

    asked = []

    def reply(question):
        asked.append(question)
        return replies.pop(0)

    monkeypatch.setattr("builtins.input", reply)
    call("run", "cli_tiny", "--store", store)
    replies = ["", "n"]
    for _ in range(2):
        assert call("prune", "--keep", "0", "--store", store) == 0
        assert "kept everything" in capsys.readouterr().out
        assert left() == 1
    assert "2 runs" in asked[0]  # the arm and the answer
    replies = ["y"]
    assert call("prune", "--keep", "0", "--store", store) == 0
    assert "dropped 2 runs" in capsys.readouterr().out
    assert left() == 0


def test_prune_with_yes_does_not_ask(project, store, capsys, monkeypatch):
    def refuse(question):
        raise AssertionError("asked all the same")

    monkeypatch.setattr("builtins.input", refuse)
    call("run", "cli_tiny", "--store", store)
    assert call("prune", "--keep", "1", "--yes", "--store", store) == 0
    assert "nothing to drop" in capsys.readouterr().out
    assert call("prune", "--keep", "0", "--yes", "--store", store) == 0
    assert "dropped 2 runs" in capsys.readouterr().out


@pytest.mark.slow
def test_help_does_not_wait_for_torch_or_mlflow():
    code = (
        "import sys; from sgdstudy.cli.main import main; main(['--help']); "
        "slow = {'torch', 'mlflow', 'pandas', 'matplotlib'} & set(sys.modules); "
        "sys.exit(f'imported {slow}' if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == 0
    assert "usage: sgdstudy" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("words", [["list"], ["--help"]])
def test_a_reader_that_has_seen_enough_is_no_error(words):
    """As in `sgdstudy list | head -1`."""
    line = [sys.executable, "-m", "sgdstudy", *words]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
