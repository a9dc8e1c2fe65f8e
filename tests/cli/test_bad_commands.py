"""Bad input on the command line: one line, exit code 2, and a store that is as it was."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import programs
from test_cli import SCRIPT, call

import sgdstudy as ss
from sgdstudy import language
from sgdstudy.cli.main import DISK, SYSTEM
from sgdstudy.errors import SHORT_OF
from sgdstudy.studies.scripts import find_scripts, load_study

LONG = "x" * 300
ROWS = [
    (["lst"], "did you mean 'list'"),
    (["\x1b[31m"], "unknown command"),
    (["list", "all"], "Unrecognized options: all"),
    (["list", "--x"], "Unrecognized options: --x"),
    (["list", ""], "Unrecognized options: '';"),
    (["list", " ", "a", ""], "Unrecognized options: '', a, '';"),
    (["list", "--lang", "fr", "--lang=en"], "--lang is given twice; give it once"),
    (["help", "lst"], "did you mean 'list'"),
    (["cli_bad"], "did you mean sgdstudy run cli_bad?"),
    (["experiments/cli_bad.py"], "did you mean sgdstudy run cli_bad?"),
    # what was meant
    (["run", "-x"], "name a study to run, before '-x': cli_bad"),
    (["run", "--seeds", "2", "cli_bad"], "name a study to run, before '--seeds': cli_bad"),
    (["run", "experiments/cli_bad"], "did you mean 'cli_bad'?"),
    (["run", "experiments/bad"], "did you mean 'cli_bad'?"),
    (["run", "CLI_BAD"], "did you mean 'cli_bad'?"),
    (["run", "cli_bad.py"], "there is no script cli_bad.py; did you mean cli_bad?"),
    (["run", "cli_bad", "lr=0.1"], "'lr=0.1' is not a study; did you mean --lr 0.1?"),
    (["run", "cli_bad", "first_seed=1"], "did you mean --first-seed 1?"),
    (["run", "cli_bad", "-seeds", "2"], "Unrecognized options: -seeds, 2; did you mean --seeds?"),
    (["run", "cli_bad", "--SEEDS", "2"], "did you mean --seeds?"),
    (["run", "cli_bad", "--strict=false"], "did you mean --no-strict?"),
    (["run", "cli_bad", "--no-strict=true"], "Unrecognized options: true"),
    (["run", "cli_bad", "--lr", "0.1", "--lr=0.2"], "--lr is given twice; give it once"),
    (["run", "cli_bad", "--first_seed", "1", "--first-seed", "2"], "--first-seed is given twice"),
    (["run", "cli_bad", "--seeds", "1e3"], "--seeds: '1e3' is not a whole number; write 1000;"),
    (["run", "cli_bad", "--seeds", "2.0"], "--seeds: '2.0' is not a whole number; write 2;"),
    (["run", "cli_bad", "--device", "GPU"], "give cpu"),
    (["sweep", "cli_bad", "lr=0.1,0.2"], "did you mean --grid lr=0.1,0.2?"),
    (["sweep", "cli_bad", "--lr", "0.1,0.2"], "did you mean --grid lr=0.1,0.2?"),
    (["sweep", "cli_bad", "--grid", "lr=1", "--seeds", "1e3"], "not a whole number; write 1000;"),
    (["sweep", "cli_bad", "--grid", "lr=1", "--grid", "epochs=2"], "--grid is given twice"),
    (["sweep", "cli_bad", "--batch-size", "10"], "did you mean --grid batch_size=10?"),
    (["sweep", "cli_bad", "--first-seed", "3"], "--first-seed, 3; for full helptext"),
    (["sweep", "cli_bad", "--grid", "lr=1", "epochs=2", "--rank", "x"], "--rank, x; for full"),
    (["run", "cli_bad", "lr="], "did you mean --lr?"),
    (["sweep", "cli_bad", "--grid", "lr=1", "--dask", ""], "--dask ''"),
    (["report", "-o", "x.html"], "did you mean --out?"),
    (["report", "--out", "-"], "--out '-' is a stream; give the path of a file"),
    (["report", "--out", "/dev/stdout"], "--out '/dev/stdout' is a stream"),
    (["guesses", "--out", "/dev/fd/1"], "--out '/dev/fd/1' is a stream"),
    (["export", "cli_bad", "--folder", "-"], "'-' is a stream"),
    (["pack", "cli_bad", "-"], "'-' is a stream"),
    (["unpack", "/dev/stdin"], "'/dev/stdin' is a stream"),
    (["run", "cli_bad", "--store", "-"], "'-' is a stream"),
    # run, and the options that every script has
    (["run", ""], "unknown study ''"),
    (["run", "../cli_bad"], "unknown study '../cli_bad'"),
    (["run", "a\nb"], r"unknown study 'a\nb'"),
    (["run", "no.py"], "there is no script no.py"),
    (["run", "experiments"], "unknown study 'experiments'"),
    (["run", "nothing"], "declares no study"),
    (["run", "--lr", "1"], "name a study to run"),
    (["run", "cli_bad", "--lr", "abc"], "--lr: 'abc' is not a number; expected --lr FLOAT"),
    (["run", "cli_bad", "--lr", ""], "--lr: '' is not a number"),
    (["run", "cli_bad", "--lr"], "Missing value for argument '--lr'"),
    (["run", "cli_bad", "--lr", "nan"], "positive and finite, got nan"),
    (["run", "cli_bad", "--lr", "1e400"], "positive and finite, got inf"),
    (["run", "cli_bad", "--lr", "0"], "positive and finite, got 0.0"),
    (["run", "cli_bad", "--lrr", "1"], "perhaps you meant: --lr FLOAT"),
    (["run", "cli_bad", "--seeds", "1.5"], "--seeds: '1.5' is not a whole number"),
    (["run", "cli_bad", "--device", ""], "give cpu"),
    (["run", "cli_bad", "--device", "meta"], "give cpu"),
    (["run", "cli_bad", "--engine", "fast"], "unknown engine 'fast'"),
    (["run", "cli_bad", "--jobs", "x"], "--jobs: 'x' is not a whole number"),
    (["run", "cli_bad", "--checkpoint-seconds", "nan"], "got nan"),
    (["run", "cli_bad", "--strict", "yes"], "Unrecognized options: yes"),
    (["study", "--jobs", "-1"], "jobs must be at least 0, got -1"),
    (["study", "--jobs", "many"], "--jobs: 'many' is not a whole number"),
    (["study", "ex1"], "Unrecognized options: ex1"),
    # stores
    (["run", "cli_bad", "--store", "file"], "file cannot be written (File exists)"),
    (["run", "cli_bad", "--store", "/proc/none"], "/proc/none cannot be written"),
    (["run", "cli_bad", "--store", "text"], "text/mlflow.db is not an MLflow database"),
    (["run", "cli_bad", "--store", "cut"], "cut/mlflow.db is damaged"),
    (["run", "cli_bad", "--store", "other"], "other/mlflow.db is not an MLflow database"),
    (["report", "--store", "cut"], "cut/mlflow.db is damaged"),
    (["export", "cli_bad", "--folder", "new", "--store", "text"], "is not an MLflow database"),
    (["prune", "--keep", "0", "--yes", "--store", "cut"], "is damaged"),
    (["rerun", "0" * 32, "--store", "other"], "is not an MLflow database"),
    (["reap", "--store", "text"], "is not an MLflow database"),
    (["sync", "--store", "text"], "is not an MLflow database"),
    (["ui", "--store", "text"], "is not an MLflow database"),
    (["run", "cli_bad", "--store", "linked"], "linked/streams is a symbolic link"),
    (["report", "--store", "mistyped"], "there is no store at"),
    (["pack", "cli_bad"], "name studies or run ids, then the file"),
    (["pack", "cli_bad", "/proc/none/x.zip"], "x.zip cannot be written"),
    (["pack", "nothing", "x.zip"], "unknown study 'nothing'"),
    (["pack", "0" * 32, "x.zip"], "there is no run '000"),
    (["unpack", "file"], "file is damaged, or not packed by sgdstudy"),
    (["unpack", "none.zip"], "there is no file none.zip"),
    (["unpack", "text"], "text cannot be read"),
    (["run", "cli_bad", "--store", "ftp://x"], "unknown kind of store 'ftp'"),
    (["run", "cli_bad", "--store", "http://[x"], "is not an address"),
    (["reap", "--store", "http://"], "names no machine"),
    # ui
    (["ui", "--port", "65536"], "from 1 to 65535, got 65536"),
    (["ui", "--port", "-1"], "got -1"),
    (["ui", "--port", "http"], "--port: 'http' is not a whole number"),
    # report
    (["report", "--out", ""], "--out '' is no path"),
    (["report", "--out", "a\0b"], r"--out 'a\x00b' is no path"),
    (["report", "--out", LONG], "255 bytes at the most"),
    (["report", "--out", "text"], "is not a file"),
    (["report", "--out", "file/report.html"], "file/report.html cannot be written"),
    # export
    (["export"], "Missing from sgdstudy export"),
    (["export", ""], "is no path"),
    (["export", "cli_bod", "--folder", "new"], "did you mean 'cli_bad'"),
    (["export", "../cli_bad", "--folder", "new"], "unknown study '../cli_bad'"),
    (["export", "a'b", "--folder", "new"], "unknown study"),
    (["export", 'a"b\n', "--folder", "new"], r"unknown study 'a\"b\n'".replace('\\"', '"')),
    (["export", "cli_bad", "--to", "xlsx"], "Expected one of ('csv', 'parquet')"),
    (["export", "cli_bad", "--folder", "file"], "file cannot be written"),
    (["export", "cli_bad", "--folder", "file/new"], "file/new cannot be written"),
    (["export", "cli_bad", "--folder", "a\0b"], "is no path"),
    (["export", LONG], "255 bytes at the most"),
    # prune
    (["prune"], "--keep INT how many invocations"),
    (["prune", "--keep", "-1"], "at least 0, got -1"),
    (["prune", "--keep", "1.5"], "--keep: '1.5' is not a whole number"),
    (["prune", "--keep", ""], "--keep: '' is not a whole number"),
    # reap, sync, rerun
    (["reap", "all"], "Unrecognized options: all"),
    (["sync", "--x"], "Unrecognized options: --x"),
    (["rerun"], "name a run"),
    (["rerun", ""], "there is no run ''"),
    (["rerun", "../x"], "there is no run '../x'"),
    (["rerun", "' OR 1=1"], "there is no run"),
    (["rerun", "é\n"], r"there is no run 'é\n'"),
    # sweep
    (["sweep"], "name a study to sweep"),
    (["sweep", "cli_bad"], "the grid is empty"),
    (["sweep", "cli_bad", "--grid", "lr"], "name=values"),
    (["sweep", "cli_bad", "--grid", "lr="], "empty value"),
    (["sweep", "cli_bad", "--grid", "lr=a"], "lr is a number, not 'a'"),
    (["sweep", "cli_bad", "--grid", "lr=nan"], "got nan"),
    (["sweep", "cli_bad", "--grid", "batch_size=1.5"], "whole number, got 1.5"),
    (["sweep", "cli_bad", "--grid", "order=spiral"], "unknown order 'spiral'"),
    (["sweep", "cli_bad", "--grid", "optimizer.momentun=1"], "did you mean 'momentum'"),
    (["sweep", "cli_bad", "--grid", "lr=1", "--jobs", "-1"], "at least 0, got -1"),
    (["sweep", "cli_bad", "--grid", "lr=1", "--seeds", "x"], "--seeds: 'x' is not a whole number"),
    (["sweep", "cli_bad", "--grid", "lr=1", "--arm", "nope"], "unknown arm 'nope'"),
    (["sweep", "cli_bad", "--grid", "lr=1", "--record", "all"], "invalid choice 'all'"),
    (["sweep", "cli_bad", "--config", "none.yaml"], "'none.yaml' cannot be read"),
]


@pytest.fixture(scope="module")
def filled(empty_store, tmp_path_factory):
    """A project with one tracked run, and stores of other kinds."""
    folder = tmp_path_factory.mktemp("bad")
    shutil.copytree(empty_store, folder / "mlruns")
    (folder / "experiments").mkdir()
    (folder / "experiments" / "cli_bad.py").write_text(SCRIPT.format(name="cli_bad"))
    (folder / "experiments" / "nothing.py").write_text("")
    for name in ("text", "cut", "other"):
        (folder / name).mkdir()
    (folder / "linked").mkdir()
    (folder / "linked" / "streams").symlink_to(folder / "text")
    (folder / "file").write_text("a file where a folder should be")
    (folder / "text" / "mlflow.db").write_text("this is no database\n" * 99)
    whole = (folder / "mlruns" / "mlflow.db").read_bytes()
    (folder / "cut" / "mlflow.db").write_bytes(whole[:5000])
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "SGDSTUDY_PREFIX"):
            patch.delenv(name, raising=False)
        patch.chdir(folder)
        patch.setattr(sys, "dont_write_bytecode", True)
        connection = sqlite3.connect("other/mlflow.db")
        connection.execute("CREATE TABLE songs (name)")
        connection.commit()
        connection.close()
        assert call("run", "cli_bad") == 0
        yield folder


def content(folder):
    """Return what is in a folder: every file's hash; of a database, its tables."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name.endswith(("-wal", "-shm", ".lock")):
            continue
        if path.is_file() and name == "mlruns/mlflow.db":
            connection = sqlite3.connect(path)
            found[name] = hash(tuple(connection.iterdump()))
            connection.close()
        else:
            found[name] = hashlib.md5(path.read_bytes()).digest() if path.is_file() else ""
    return found


def refused(capsys, *words):
    """Return the one line that a command ends with; it exits with 2."""
    capsys.readouterr()
    assert call(*words) == 2
    out, error = capsys.readouterr()
    assert "Traceback" not in out
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert len(error) < 600
    return error


@pytest.mark.parametrize(("words", "says"), ROWS, ids=[repr(" ".join(w))[:60] for w, _ in ROWS])
def test_a_bad_command_is_one_line_and_changes_nothing(filled, capsys, words, says):
    before = content(filled)
    assert says in refused(capsys, *words)
    assert content(filled) == before


@pytest.mark.parametrize("secret", ["hunter2pa55w0rd", "pw", "-x", "e" * 300, "a b'c\n│ d"])
@pytest.mark.parametrize("option", ["--api-key", "--password"])
def test_a_secret_of_an_unknown_option_is_not_shown(filled, capsys, option, secret):
    for words in (["report"], ["run", "cli_bad", "--seeds", "1"]):
        for given in ([option, secret], [f"{option}={secret}"]):
            said = refused(capsys, *words, *given)
            assert re.match(rf"error: Unrecognized options: {option}(, |=)\.\.\.; ", said)
            assert not {*secret.split()} & {*re.split(r"[\s,;=]+", said)}
            assert "eeee" not in said


@pytest.mark.parametrize("words", [["--threads", "9" * 5000], ["--nope", "x" * 5000]])
def test_what_cannot_be_used_is_shown_in_part(filled, capsys, words):
    assert words[1][:40] in refused(capsys, "run", "cli_bad", *words)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="it has no such terminals")
@pytest.mark.parametrize("columns", [80, 20, 200])
def test_on_a_terminal_it_is_the_same_line(columns):
    """As it was seen: the colours of tyro's box, spelled out, in a line of over 1,000 signs."""
    long = "a,b" * 20 + "x" * 10
    rows = [
        (["export", "one", "--out", "x"], "Unrecognized options: --out, x; for full helptext, run"),
        (["list", f"--{long}"], f"Unrecognized options: --{long}; for full helptext, run"),
        (["prune"], "Missing from sgdstudy prune: --keep INT how many"),
        (["prune", "--keep", "1.5"], "--keep: '1.5' is not a whole number; expected"),
        (["export", "one", "--to", "xlsx"], "invalid choice 'xlsx' for argument '--to'."),
    ]
    code = f"""
import contextlib
from sgdstudy.cli.main import main
for words in {[words for words, _ in rows]}:
    with contextlib.suppress(SystemExit):
        main(words)
"""
    ours, theirs = os.openpty()
    __import__("fcntl").ioctl(
        theirs, __import__("termios").TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0)
    )
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    said = b""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ):
        os.close(theirs)
        with contextlib.suppress(OSError):  # it has ended
            while part := os.read(ours, 9999):
                said += part
    os.close(ours)
    lines = said.decode().splitlines()
    for line, (_, says) in zip(lines, rows, strict=True):
        assert line.startswith(f"error: {says}")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MLFLOW_TRACKING_URI", "ftp://x", "unknown kind of store 'ftp'"),
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:1", "unset MLFLOW_TRACKING_URI"),
        ("MLFLOW_TRACKING_URI", "/proc/none", "/proc/none"),
        ("MLFLOW_TRACKING_URI", "text", "is not an MLflow database"),
        ("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "x", "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"),
        ("MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE", "", "MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE"),
        ("MLFLOW_SQLALCHEMYSTORE_ECHO", "maybe", "MLFLOW_SQLALCHEMYSTORE_ECHO"),
        ("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "Nope", "MLFLOW_SQLALCHEMYSTORE_POOLCLASS"),
        ("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "AsyncAdaptedQueuePool", "cannot be used with"),
    ],
)
def test_a_bad_environment_is_one_line_too(filled, capsys, monkeypatch, name, value, says):
    before = content(filled)
    monkeypatch.setenv(name, value)
    for words in (["run", "cli_bad"], ["prune", "--keep", "0", "--yes"], ["export", "cli_bad"]):
        assert says in refused(capsys, *words)
    assert content(filled) == before


def test_every_port_from_a_taken_one_on_may_be_taken(filled, capsys):
    """Two programs on the last port there is."""
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # taken already: as well
            taken.bind(("127.0.0.1", 65535))
        assert "no free port from 65535 on" in refused(capsys, "ui", "--port", "65535")


FILES = [
    (["run", "cli_bad", "--seeds", "0"], "seeds must be at least 1, got 0"),
    (["run", "broken"], "broken.py cannot be loaded"),
    (["run", LONG + ".py"], "there is no script"),
    (["run", "cli_bad", "--store", "a\0b"], "is no path"),
    (["run", "cli_bad", "--store", "half"], "half/mlflow.db cannot be read or written (no"),
    (["sweep", "cli_bad", "--grid", "two=a"], "two"),
]


@pytest.mark.parametrize(("words", "says"), FILES, ids=[" ".join(w)[:40] for w, _ in FILES])
def test_a_bad_file_or_grid_is_one_line(filled, capsys, words, says):
    (filled / "half").mkdir(exist_ok=True)
    connection = sqlite3.connect(filled / "half" / "mlflow.db")
    connection.execute("CREATE TABLE IF NOT EXISTS experiments (b)")
    connection.close()
    script = filled / "experiments" / "broken.py"
    script.write_text("1 / 0\n")
    before = content(filled)
    try:
        assert says in refused(capsys, *words)
        assert content(filled) == before
    finally:
        script.unlink()


@pytest.mark.parametrize("prefix", ["../x", "a/b", "a\nb", "x" * 300])
def test_a_prefix_that_is_no_folder_is_refused(filled, capsys, monkeypatch, prefix):
    monkeypatch.setenv("SGDSTUDY_PREFIX", prefix)
    before = content(filled)
    assert "SGDSTUDY_PREFIX" in refused(capsys, "run", "cli_bad")
    assert content(filled) == before


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        ({"invocation": 3}, "unknown invocation 3"),
        ({"arms": 3}, "unknown arm 3"),
        ({"arms": []}, "arms is empty"),
        ({"columns": 3}, "unknown column 3"),
        ({"seeds": 10**30}, "whole numbers"),
        ({"steps": slice("a")}, "steps count from 0"),
        ({"steps": slice(1.5, None)}, "steps count from 0"),
    ],
)
def test_rows_that_cannot_be_chosen_are_refused(filled, ask, says):
    with pytest.raises(ss.InputError) as error:
        ss.load_steps("cli_bad", **ask)
    assert says in str(error.value)


@pytest.mark.parametrize("name", ["steps.parquet", "epochs.parquet", "claims.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "foreign"])
def test_a_damaged_file_is_named_and_nothing_is_exported(filled, capsys, name, damage):
    found = [path for path in filled.rglob(name) if path.stat().st_size > 2]
    whole = {path: path.read_bytes() for path in found}
    foreign = (filled / "mlruns" / "mlflow.db").read_bytes()[:999]
    for path, data in whole.items():
        path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "foreign": foreign}[damage])
    try:
        assert name in refused(capsys, "export", "cli_bad", "--folder", "new")
        assert not list(filled.glob("new/*"))
    finally:
        for path, data in whole.items():
            path.write_bytes(data)


MISTAKES = [  # of a student's, in French
    (["stdy"], "'stdy' n'existe pas (commande) ; vouliez-vous dire 'study' ?"),
    (["run"], "indiquer une étude à exécuter : cli_bad"),
    (["run", "cli_bd"], "'cli_bd' n'existe pas (étude) ; vouliez-vous dire 'cli_bad' ?"),
    (["run", "cli_bad", "--lrr", "1"], "options inconnues : --lrr, 1 ; vouliez-vous dire : --lr"),
    (["run", "cli_bad", "--lr"], "il manque une valeur après --lr ; pour l'aide complète : "),
    (["run", "cli_bad", "--lr", "abc"], "--lr : 'abc' n'est pas un nombre ; attendu : --lr FLOAT"),
    (["run", "cli_bad", "--lr", "0,1"], "--lr : '0,1' n'est pas un nombre ; écrire 0.1 ; attendu"),
    (["run", "cli_bad", "--seeds", "1.5"], "--seeds : '1.5' n'est pas un nombre entier ; attendu"),
    (["run", "cli_bad", "--lr", "-1"], "lr doit être positif et fini, et non -1.0"),
    (["run", "cli_bad", "--seeds", "0"], "seeds doit être d'au moins 1, et non 0"),
    (["run", "cli_bad", "--engine", "fast"], "'fast' n'existe pas (moteur) ; possibles : auto, "),
    (["run", "cli_bad", "--no-answer", "--predict"], "--predict compare aux affirmations que "),
    (["sweep", "cli_bad", "--grid", "lr=1", "--arm", "nope"], "'nope' n'existe pas (bras) ; "),
    (["report", "--store", "none"], "il n'y a pas de dépôt en "),
    (["grade", "none", "--exercise", "ex4"], "il n'y a pas de dossier none"),
    (["grade", ".", "--exercise", "ex4"], "il n'y a aucune copie dans . : il faut un fichier .py"),
    (["grade", ".", "--exercise", "ex6"], "'ex6' n'existe pas (exercice) ; "),
    (
        ["course"],
        "il manque, pour sgdstudy course : STR le dossier où les écrire (à donner) ; pour l'aide",
    ),
]


@pytest.mark.parametrize(("words", "says"), MISTAKES)
def test_a_students_mistake_is_named_in_the_students_language(filled, capsys, words, says):
    before = content(filled)
    assert call(*words, "--lang", "fr") == 2
    (line,) = capsys.readouterr().err.splitlines()
    line = line.replace("\u00a0", " ")
    assert line.startswith(f"erreur : {says}")
    assert not {"the", "is", "got", "Valid", "default", "required"} & set(re.findall(r"\w+", line))
    assert content(filled) == before


@pytest.mark.parametrize("words", [["study"], ["grade"], ["run", "cli_bad"]])
def test_help_is_in_the_language_of_who_asks_for_it(filled, capsys, words):
    assert call(*words, "--help", "--lang", "fr") == 0
    page = capsys.readouterr().out.replace("\u00a0", " ")
    assert page.startswith("utilisation : ")
    assert "afficher cette aide et quitter" in page
    assert "(défaut :" in page
    assert not {"show", "default", "required"} & set(re.findall(r"\w+", page))
    assert len({len(line) for line in page.splitlines() if line.startswith(("│", "╭", "╰"))}) <= 1


SCRIPTS = {name: path for name, path in find_scripts().items() if path.parent.name == "experiments"}


WRONG = [
    (["--nope"], "Unrecognized options: --nope"),
    (["--momentum", "0.9", "--nope"], "Unrecognized options: --momentum, 0.9, --nope"),
    (["--lr", "abc"], "--lr: 'abc' is not a number"),
    (["--seeds"], "Missing value for argument '--seeds'"),
]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_a_terminal_of_any_kind_names_the_option_that_is_wrong(encoding):
    """The parser draws other boxes where the terminal has other letters."""
    script = SCRIPTS["ex6_shuffle"]
    found = programs(*(words for words, _ in WRONG), script=script, encodings=(encoding,))
    for (_, says), (code, _, error) in zip(WRONG, found, strict=True):
        assert code == 2
        assert error.startswith(f"error: {says}")
        assert "ex6_shuffle.py --help" in error


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_scripts_own_options_refuse_text_for_numbers(filled, capsys, name):
    path = str(SCRIPTS[name])
    options = vars(load_study(path).options())
    before = content(filled)
    for option, value in options.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            word = f"--{option.replace('_', '-')}"
            assert f"{word}: 'many' is not a" in refused(capsys, "run", path, word, "many")
    assert "Unrecognized options: --none" in refused(capsys, "run", path, "--none")
    assert content(filled) == before


@pytest.mark.slow
@pytest.mark.parametrize("bad", ["nan", "0", "-1", "inf"])
def test_every_step_size_and_epsilon_is_positive_and_finite(filled, capsys, bad):
    tried = 0
    for path in map(str, SCRIPTS.values()):
        for option in {"lr", "epsilon"} & set(vars(load_study(path).options())):
            assert option in refused(capsys, "run", path, f"--{option}", bad)
            tried += 1
    assert tried >= 8


@pytest.mark.parametrize("number", [*DISK, *SYSTEM])
def test_a_disk_or_system_that_refuses_anywhere_is_one_line(store, monkeypatch, capsys, number):
    """As it was seen: a right that was taken away while `recover` set a run aside."""

    def refuse(store):
        raise OSError(number, os.strerror(number), "/the/file")

    monkeypatch.setattr("sgdstudy.tracking.recovery.recover", refuse)
    assert call("recover", "--store", store) == 1
    error = capsys.readouterr().err
    who = "disk" if number in DISK else "system"
    assert error.startswith(f"error: the {who} refuses: {os.strerror(number)} (/the/file)")
    assert error.count("\n") == 1


@pytest.mark.parametrize("lang", ["en", "fr"])
@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MemoryError("Unable to allocate 9 MiB"), "there is too little memory"),
        (RuntimeError("can't start new thread"), "no more threads can be started"),
        *((OSError(n, os.strerror(n)), os.strerror(n)) for n in SHORT_OF),
    ],
    ids=repr,
)
def test_too_little_memory_threads_or_files_is_one_line(
    store, monkeypatch, capsys, error, why, lang
):
    """As it was seen: a traceback, of the line itself where no file could be opened."""

    def fail(store):
        monkeypatch.setattr(Path, "open", refuse)
        monkeypatch.setattr(Path, "glob", refuse)
        language.catalogue.cache_clear()
        raise error

    def refuse(*given, **named):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("sgdstudy.tracking.recovery.recover", fail)
    monkeypatch.setenv("SGDSTUDY_LANG", lang)
    assert call("recover", "--store", store) == 1
    language.catalogue.cache_clear()
    line = capsys.readouterr().err
    assert line == f"error: the system refuses: {why}; what was recorded is kept\n"


def test_an_error_of_ours_is_not_the_disks(store, monkeypatch):
    def fail(store):
        raise OSError(errno.EBADF, "ours")

    monkeypatch.setattr("sgdstudy.tracking.recovery.recover", fail)
    with pytest.raises(OSError, match="ours"):
        call("recover", "--store", store)
