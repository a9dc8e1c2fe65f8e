"""A store that anybody may have written: each tag, name, path and file of it is an attack.

Whatever a store says, a command ends in one line or does its work on the rest; nothing outside the
store is read, written or deleted, and no script is run that is not of the project.
"""

import os
import shutil
import sqlite3
import sys
import uuid
from contextlib import closing, contextmanager
from typing import Any

import pytest

import sgdstudy as ss
from sgdstudy.cli.terminal import say
from sgdstudy.errors import SgdstudyError
from sgdstudy.report import landing
from sgdstudy.report.report import page
from sgdstudy.studies.rerun import rerun
from sgdstudy.studies.scripts import load_study
from sgdstudy.sweeps import grid, sweep
from sgdstudy.tracking import prune
from sgdstudy.tracking.export import export
from sgdstudy.tracking.pack import pack
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.store import open_store, read_store

pytestmark = pytest.mark.slow
SECRET = "the secret of somebody else"
SCRIPT = '''"""Is it hostile?"""
import sgdstudy as ss


def arms(o):
    yield "arm", ss.Arm("curve", lr=1e-4, batch_size=1000, epochs=1)


def claims(o, runs):
    yield ss.Claim("fine", "arm", 1, 1, always=True)


def answer(o, runs, claims):
    return "No."


STUDY = ss.study(__name__)
'''
CANARY = "import pathlib; pathlib.Path(__file__).with_name('executed').touch(); STUDY = None\n"

# ---- the attacks -----------------------------------------------------------------------------

PATHS = [  # {out}: the folder of somebody else
    "../../../out/secret.txt",
    "{out}/secret.txt",
    "{out}/canary.py",
    "/etc/passwd",
    "file://{out}",
    "~",
    "..",
    "a\0b",
    "x" * 6000,
]
TEXTS = [
    "",
    "null",
    "[" * 5000,
    "'; DROP TABLE runs; --",
    '" OR "" = "',
    "\x1b[2J\x1b]0;owned\x07",
    "<script>alert(1)</script>",
    "[link=file:///etc/passwd]\u202e%s{{7*7}}",
    "99999999999999999999",
    "nan",
    "%",
    "`",
]
JSONS = [
    '{"seeds": 1e400}',
    '{"seeds": -1, "store": "{out}"}',
    '{"jobs": 10000, "first_seed": 99999999999999999999}',
    '{"lr": [[[[]]]]}',
    '{"__class__": 1, "device": "cuda:99"}',
    "{",
    "[]",
    '"a"',
    '{"store": {}}',
    '{"seeds": "many"}',
    '{"seeds": 1000000, "lr": [[[]]]}',
    '{"arms": 1000000}',
    '{"jobs": null}',
]
TAGS = {
    "sgdstudy.script": [*PATHS, *TEXTS[:7]],
    "sgdstudy.key": PATHS,
    "sgdstudy.study": [*PATHS[::2], *TEXTS[:7]],
    "sgdstudy.arm": [*PATHS[1::2], *TEXTS[:7]],
    "sgdstudy.figures": [*PATHS[::3], *TEXTS[:7]],
    "sgdstudy.unpacked_from": PATHS[1::3],
    "sgdstudy.options": [*JSONS, *TEXTS[:4]],
    "sgdstudy.given": [*JSONS, *TEXTS[:3]],
    "sgdstudy.grid": [*JSONS[3:], *TEXTS[:4]],
    "sgdstudy.settings": [*JSONS, *TEXTS[:3]],
    "sgdstudy.record": [JSONS[0], *TEXTS[:7]],
    "sgdstudy.invocation": TEXTS,
    "sgdstudy.number": TEXTS[4:],
    "sgdstudy.config_hash": TEXTS[:7],
    "sgdstudy.command": TEXTS[4:8],
    "sgdstudy.engine": TEXTS[4:8],
    **{f"sgdstudy.{name}": TEXTS[3:9:2] for name in ("pid", "code", "version", "damaged")},
    **{f"sgdstudy.{name}": TEXTS[::4] for name in ("crc32.claims.json", "crc32.answer.md")},
    "mlflow.runColor": ["red;}</style><script>", "url(file:///etc/passwd)", ""],
    "mlflow.user": TEXTS[3:8],
    "mlflow.note.content": [TEXTS[6], "![x](file:///etc/passwd)", "[x](javascript:alert(1))"],
    "mlflow.source.git.commit": TEXTS[5:8],
    "stop_reason": TEXTS[4:8],
}
PLACES = [
    "{out}",
    "file://{out}",
    "{out}/{run}/artifacts",
    "file://{out}/{run}/artifacts/../../",
    "{root}/../out",
    "{root}/artifacts/../../out",
    "{root}/{run}/artifacts",
    "{root}",
    "file:{root}/artifacts",
    "/",
    "",
    ".",
    "~/x",
    "\0",
    "file:///\0/{run}/artifacts",
    "x" * 300,
    "http://127.0.0.1:9/{run}/artifacts",
    "s3://bucket/{run}/artifacts",
    "mlflow-artifacts:/{run}",
    "ftp://ada:pw@127.0.0.1:9/{run}",
    "dbfs:/x",
    "runs:/{run}",
    "models:/x/1",
    "nothing://x",
]
COLUMNS = {
    ("runs", "artifact_uri"): [*PLACES, None],
    ("runs", "name"): [*PATHS[1::2], *TEXTS[::2], "answer", None, b"\xff"],
    ("runs", "start_time"): [-1, 0, 2**62, None, "yesterday"],
    ("runs", "end_time"): [-1, 2**62, None],
    ("runs", "user_id"): TEXTS[:2],
    ("experiments", "artifact_location"): [*PLACES[:14:2], None],
    ("experiments", "name"): [*PATHS[::2], *TEXTS[3:]],
}
VALUES = {
    ("params", "lr"): ["nan", "-inf", "1e999", "x" * 6000, "__import__('os')", "\x1b[2J"],
    ("params", "seeds"): ["0-99999999999999999999", "", "a"],
    ("latest_metrics", "result/full_loss"): [1e308, -1.0, "many"],
}
NEW_NAMES = ["result/../../x", "batch/", "epoch/\x1b[2J", "predicted/<script>", "x" * 240]
FILES = {
    "claims.json": ["", "{", "[1]", "[" * 50_000, '[{"name": "a"}]', '{"a": 1}', "[]"],
    "answer.md": ["", "<script>alert(1)</script>", "# ![](file:///etc/passwd)", "x" * 300_000],
    "picture.json": ["{", "[]", '{"data": [], "layout": {"images": [{"source": "/etc/passwd"}]}}'],
    "steps.parquet": ["", "PAR1", "PAR1" * 1000],
    "epochs.parquet": ["", "ARROW1"],
    "-rf.png": ["\x89PNG\r\n\x1a\n"],
    "a\nb.png": ["GIF89a"],
    "<b>.png": ["no picture"],
    "checkpoint.safetensors": ["", "\xff" * 100],
}
DATA = [("profile", value) for value in ("{", "", None, "[" * 5000, "3")] + [
    ("name", "../x"),
    ("digest", "<b>"),
    ("source", "{"),
]


def attacks():
    """Every attack: the table, what is changed there, and to what."""
    for name, values in TAGS.items():
        yield from (("tag", name, value) for value in values)
    for (table, column), values in COLUMNS.items():
        yield from ((table, column, value) for value in values)
    for (table, key), values in VALUES.items():
        yield from ((table, key, value) for value in values)
    for table in ("params", "latest_metrics", "tag"):
        yield from ((f"new {table}", name, "1") for name in NEW_NAMES)
    for name, values in FILES.items():
        yield from (("file", name, value) for value in values)
    yield from (("datasets", column, value) for column, value in DATA)


# ---- the store --------------------------------------------------------------------------------


class Attacked:
    """A project whose store has a study for every attack, and one that is as we write it."""

    def __init__(self, folder):
        self.folder, self.root, self.out = folder, folder / "mlruns", folder / "out"
        self.runs = {}  # by the number of the attack: ids of the arm and the answer
        self.names = {}  # of the studies

    def spoil(self, connection, number, table, name, value):
        """Copy the study, and change one thing in the copy."""
        experiment, runs = self._copy(connection, number)
        self.first = experiment - number
        self.runs[number], self.names[number] = runs, f"study_{number:03d}"
        for run in runs.values():
            self._change(connection, experiment, run, table, name, self._said(value, run))

    def _copy(self, connection, number):
        execute = connection.execute
        study = f"study_{number:03d}"
        (old,) = execute("SELECT experiment_id FROM experiments WHERE name = 'ex1'").fetchone()
        place = self.root / "artifacts" / study
        columns = "artifact_location, lifecycle_stage, creation_time, last_update_time, workspace"
        there = {row[1] for row in execute("PRAGMA table_info(experiments)")}
        columns = ", ".join(name for name in columns.split(", ") if name in there)
        execute(
            f"INSERT INTO experiments (name, {columns}) "
            f"SELECT ?, {columns} FROM experiments WHERE experiment_id = ?",
            (study, old),
        )
        (new,) = execute("SELECT max(experiment_id) FROM experiments").fetchone()
        execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            (place.as_uri(), new),
        )
        runs = {}
        for run, name in execute(
            "SELECT run_uuid, name FROM runs WHERE experiment_id = ?", (old,)
        ).fetchall():
            twin = runs[name] = uuid.uuid4().hex
            shutil.copytree(
                self.root / "artifacts" / "ex1" / run, place / twin, copy_function=os.link
            )
            uri = f"{place.as_uri()}/{twin}/artifacts"
            changed = {"run_uuid": twin, "experiment_id": new, "artifact_uri": uri}
            _insert(connection, "runs", "run_uuid", run, changed)
            for table in ("tags", "params", "latest_metrics"):
                _insert(connection, table, "run_uuid", run, {"run_uuid": twin})
            key = f"{1790000000000 + number:013d}-{uuid.uuid4().hex[:12]}"
            for tag, text in (("sgdstudy.study", study), ("sgdstudy.key", key)):
                execute(
                    "UPDATE tags SET value = ? WHERE run_uuid = ? AND key = ?", (text, twin, tag)
                )
        return new, runs

    def twin(self, connection, run, table, name, value):
        """Copy a run within its experiment, as one that failed, and change one thing in it."""
        new = uuid.uuid4().hex
        place = next(self.root.glob(f"artifacts/*/{run}"))
        shutil.copytree(place, place.with_name(new))
        uri = f"{place.with_name(new).as_uri()}/artifacts"
        changed = {"run_uuid": new, "artifact_uri": uri, "status": "FAILED"}
        _insert(connection, "runs", "run_uuid", run, changed)
        for rows in ("tags", "params", "latest_metrics"):
            _insert(connection, rows, "run_uuid", run, {"run_uuid": new})
        self._change(connection, None, new, table, name, self._said(value, new))

    def _said(self, value, run):
        if isinstance(value, str):
            for word, text in (("out", self.out), ("root", self.root), ("run", run)):
                value = value.replace(f"{{{word}}}", str(text))
        return value

    def _change(self, connection, experiment, run, table, name, value):
        execute = connection.execute
        if table == "tag" or table == "new tag":
            execute("DELETE FROM tags WHERE run_uuid = ? AND key = ?", (run, name))
            execute("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", (name, value, run))
        elif table == "runs":
            execute(f"UPDATE runs SET {name} = ? WHERE run_uuid = ?", (value, run))
        elif table == "experiments":
            if name == "name":
                value = self.names[experiment - self.first] = f"study_x{experiment}{value}"
            sql = f"UPDATE experiments SET {name} = ? WHERE experiment_id = ?"
            execute(sql, (value, experiment))
        elif table in ("params", "latest_metrics"):
            sql = f"UPDATE {table} SET value = ? WHERE run_uuid = ? AND key = ?"
            execute(sql, (value, run, name))
        elif table == "new params":
            execute("INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)", (name, "1", run))
        elif table == "new latest_metrics":
            execute(
                "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) "
                "VALUES (?, 1.5, 1, 1, 0, ?)",
                (name, run),
            )
        elif table == "file":
            (path,) = self.root.glob(f"artifacts/*/{run}/artifacts")
            (path / name).unlink(missing_ok=True)  # it is the same for all
            (path / name).write_bytes(value.encode("latin-1"))
        else:
            self._change_data(connection, experiment, run, name, value)

    def _change_data(self, connection, experiment, run, name, value):
        old = connection.execute("SELECT dataset_uuid FROM datasets LIMIT 1").fetchone()[0]
        if connection.execute(
            "SELECT 1 FROM datasets WHERE experiment_id = ?", (experiment,)
        ).fetchone():
            return  # one for both runs
        new, given = uuid.uuid4().hex, {"dataset_uuid": uuid.uuid4().hex}
        given |= {"experiment_id": experiment, "digest": new[:8], name: value}
        _insert(connection, "datasets", "dataset_uuid", old, given)
        columns = ("input_uuid", "source_type", "source_id", "destination_type", "destination_id")
        marks = ", ".join("?" * len(columns))
        connection.execute(
            f"INSERT INTO inputs ({', '.join(columns)}) VALUES ({marks})",
            (new, "DATASET", given["dataset_uuid"], "RUN", run),
        )


def _insert(connection, table, key, old, changed):
    """Copy rows of a table, with some columns changed."""
    found = connection.execute(f"SELECT * FROM {table} WHERE {key} = ?", (old,))
    names = [column[0] for column in found.description]
    for row in found.fetchall():
        values = {**dict(zip(names, row, strict=True)), **changed}
        marks = ", ".join("?" * len(names))
        connection.execute(
            f"INSERT INTO {table} VALUES ({marks})", [values[name] for name in names]
        )


# ---- what is watched ---------------------------------------------------------------------------

_watched, _opened = [], []


def _hook(event, given):
    if _watched and event in ("open", "os.listdir", "os.scandir", "os.remove", "os.rename"):
        path = given[0]
        if isinstance(path, (str, bytes)) and any(
            os.path.abspath(os.fsdecode(path)).startswith(place) for place in _watched
        ):
            _opened.append((event, path))


sys.addaudithook(_hook)


@contextmanager
def nothing_touched(out):
    """Nothing that is somebody else's is opened, listed, changed or run."""
    before = {path: path.stat() for path in [out, *out.rglob("*")]}
    _watched.extend([str(out), "/etc/passwd"])
    _opened.clear()
    try:
        yield
    finally:
        _watched.clear()
    assert _opened == []
    after = {path: path.stat() for path in [out, *out.rglob("*")]}
    assert {p: (s.st_mtime_ns, s.st_size) for p, s in after.items()} == {
        p: (s.st_mtime_ns, s.st_size) for p, s in before.items()
    }


@pytest.fixture(scope="module")
def attacked(empty_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile").resolve()
    shutil.copytree(empty_store, folder / "mlruns")
    for place in ("experiments", "out"):
        (folder / place).mkdir()
    (folder / "experiments" / "ex1.py").write_text(SCRIPT)
    (folder / "out" / "secret.txt").write_text(SECRET)
    (folder / "out" / "canary.py").write_text(CANARY)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("HOME", str(folder / "out"))
        patch.chdir(folder)
        ss.run("ex1")
        found = Attacked(folder)
        with closing(sqlite3.connect(found.root / "mlflow.db")) as connection:
            for number, attack in enumerate(ATTACKS):
                found.spoil(connection, number, *attack)
            connection.commit()
        yield found


ATTACKS = list(attacks())
FILES_WRITTEN = ("runs", "claims", "epochs", "steps")


def tried(does, *given, **named):
    """Do something; what it raises other than a line of ours, as a text, else None."""
    try:
        does(*given, **named)
    except SgdstudyError as error:
        return f"more than a line: {error}"[:300] if "\n" in str(error) else None
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
    return None


def of(*tables):
    """Whether an attack is on one of these tables."""
    return lambda attack: attack[0] in tables


def assert_all(attacked, does, which=lambda attack: True):
    """Do something with the study of every attack: nothing falls, nothing is touched."""
    falls = []
    with nothing_touched(attacked.out):
        for number, attack in enumerate(ATTACKS):
            if which(attack):
                _opened.clear()
                fell = tried(does, number) or (_opened and f"touched {_opened[0]}")
                if fell:
                    falls.append((attack[0], attack[1], str(attack[2])[:60], fell))
        _opened.clear()
    assert falls == []
    assert len(ss.load_steps("ex1")) == 2


def test_there_are_enough_of_them():
    assert len(ATTACKS) > 200


def test_loading_all_invocations(attacked):
    def load(number):
        found = ss.load_runs(attacked.names[number], invocation="all").run_id.tolist()
        if ATTACKS[number][0] in ("tag", "new tag"):
            assert found.count(attacked.runs[number]["arm"]) == 1, found

    assert_all(attacked, load)
    places = of("runs", "experiments")
    assert_all(attacked, lambda i: ss.load_steps(attacked.names[i], invocation="all"), places)


def test_export(attacked, tmp_path):
    """It reads runs, claims, epochs and steps of the latest invocation."""

    def write(number):
        fell = tried(export, attacked.names[number], tmp_path / str(number))
        assert fell is None, fell

    assert_all(attacked, write)
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    files = [f"{i}/{name}.csv" for i in range(len(ATTACKS)) for name in FILES_WRITTEN]
    assert names <= {*map(str, range(len(ATTACKS))), *files}
    assert not any(SECRET in (tmp_path / name).read_text() for name in names if "." in name)


def test_pack(attacked, tmp_path):
    store, path = read_store(), tmp_path / "runs.zip"

    def write(number):
        fell = tried(pack, store, list(attacked.runs[number].values()), path)
        assert fell is None, fell

    assert_all(attacked, write, of("datasets", "runs", "file", "new params", "new tag"))
    assert {path.name for path in tmp_path.iterdir()} <= {"runs.zip"}


@pytest.mark.parametrize(
    "make", [lambda: page(read_store(), ""), lambda: landing.page(read_store())]
)
def test_report_and_landing_page(attacked, make):
    with nothing_touched(attacked.out):
        text = make()
    assert "Is it hostile?" in text
    assert SECRET not in text
    assert "<script>alert(1)" not in text
    assert "\x1b" not in text
    assert 'href="javascript:' not in text


# tags that a rerun reads, or that those who list its runs do
READ = ("study", "script", "options", "arm", "record", "settings", "config_hash", "code", "engine")
READ += ("given", "grid", "number", "invocation", "figures", "command")


def test_rerun(attacked):
    """Nothing but a script of the project is run."""

    def again(number):
        fell = tried(rerun, attacked.runs[number]["arm"])
        assert fell is None, fell

    kinds = of("params", "datasets")
    assert_all(attacked, again, kinds)
    assert_all(attacked, again, lambda attack: attack[1].removeprefix("sgdstudy.") in READ)
    assert_all(attacked, again, lambda attack: attack[1] in ("artifact_uri", "steps.parquet"))


def test_list_and_addresses(attacked, capsys):
    from sgdstudy.tracking.ui import _show_addresses

    with nothing_touched(attacked.out):
        _show_addresses(read_store(), "http://127.0.0.1:5000", say, False)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\u202e" not in printed


def test_recover_and_prune(attacked, tmp_path, monkeypatch, capsys):
    """Last: it drops them all."""
    shutil.copytree(attacked.folder, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    out = tmp_path / "copy" / "out"
    with nothing_touched(out), nothing_touched(attacked.out):
        store = open_store()
        with closing(sqlite3.connect(store.database)) as connection:
            connection.execute("UPDATE runs SET status = 'RUNNING' WHERE rowid % 3 = 0")
            connection.commit()
        recover(store)
        doomed = prune.plan(store, 0)
        for line in prune.described(doomed):
            say(line)
        prune.remove(store, prune.still(store, [run for runs in doomed.values() for run in runs]))
        prune.shrink(store)
    assert "\x1b" not in capsys.readouterr().out
    assert (out / "secret.txt").read_text() == SECRET
    assert not (out / "executed").exists()


SWEPT: dict[tuple[str, str], list[Any]] = {
    ("tag", "sgdstudy.config_hash"): TEXTS,
    ("tag", "sgdstudy.settings"): [*JSONS, *TEXTS[:4]],
    ("tag", "sgdstudy.number"): TEXTS,
    ("tag", "sgdstudy.invocation"): TEXTS,
    ("runs", "artifact_uri"): PLACES,
    ("latest_metrics", "result/full_loss"): [1e308],
}


def test_sweep_resume(attacked, tmp_path, monkeypatch):
    """Beside the runs that go on lie others that say they are of the same sweep."""
    folder = tmp_path / "copy"
    (folder / "experiments").mkdir(parents=True)
    shutil.copy(attacked.folder / "experiments" / "ex1.py", folder / "experiments")
    shutil.copytree(attacked.out, folder / "out")
    monkeypatch.chdir(folder)
    study = load_study("ex1")
    options = study.options(seeds=1, store=str(folder / "mlruns"))
    plan = sweep.Plan.of(study, options, None, grid.parse(["lr=1e-4,2e-4"]), "epochs")
    before = sweep.run(plan).table
    twins = Attacked(folder)
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as connection:
        for (table, name), values in SWEPT.items():
            for value in values:
                twins.twin(connection, before.run_id[0], table, name, value)
        connection.execute("DELETE FROM runs WHERE run_uuid = ?", (before.run_id[1],))
        connection.commit()
    with nothing_touched(folder / "out"):
        after = sweep.run(plan, resume=True)
    assert after.table.status.tolist() == ["FINISHED"] * 2
    assert not (folder / "out" / "executed").exists()
