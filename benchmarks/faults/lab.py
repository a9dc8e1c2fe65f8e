"""What every fault needs: forked processes, a small tracked study, a look at what it left.

Starting Python with torch and MLflow takes seconds, so this process imports everything once, opens
nothing, and forks: every trial runs in a process of its own that is a real one in every respect but
its start. What looks at the outcome reads the database and the streams by itself, not through the
package.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import sgdstudy as ss
from sgdstudy.cli import main
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking import database, describe, recovery, sink
from sgdstudy.tracking.address import DATABASE
from sgdstudy.tracking.code import package_tags
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.store import open_store
from sgdstudy.training import run as training_run

LATE_IMPORTS = (
    "alembic.command",
    "alembic.config",
    "mlflow.store.artifact.local_artifact_repo",
    "mlflow.store.artifact.mlflow_artifacts_repo",
    "mlflow.store.tracking.rest_store",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "sgdstudy.tracking.load",
    "sgdstudy.tracking.ui",
    "sqlalchemy.dialects.sqlite",
    "torch.fx.experimental.symbolic_shapes",
)
ROOT = Path(__file__).resolve().parent.parent.parent
SEED = 20240607  # of every random moment
STUDY = "faults"
SEEDS, EPOCHS, PER_EPOCH = 2, 16, 200  # steps of an arm: 16 epochs of 200, for two seeds
ROWS = SEEDS * EPOCHS * PER_EPOCH


@dataclass
class Outcome:
    """What came of one kind of fault.

    Attributes:
        fault: what went wrong.
        how: how it is injected.
        times: trials.
        problems: what was found, one list per trial.
        note: figures worth a cell of the table.
        skipped: why it was not run.
    """

    fault: str
    how: str
    problems: list[list[str]] = field(default_factory=list)
    note: str = ""
    skipped: str = ""

    @property
    def times(self) -> int:
        """How often the fault was injected."""
        return len(self.problems)

    @property
    def good(self) -> int:
        """How many trials went as promised."""
        return sum(not found for found in self.problems)


@dataclass(frozen=True)
class Options:
    """How thorough, and where to.

    Attributes:
        quick: a few trials of each.
        scratch: an empty folder.
    """

    quick: bool
    scratch: Path

    def folder(self, name: str) -> Path:
        """Return a new folder."""
        made = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.scratch))
        return made


# ---- processes ------------------------------------------------------------------------------


def warm_up() -> None:
    """Import what a tracked run imports, and open nothing."""
    for name in LATE_IMPORTS:
        importlib.import_module(name)
    importlib.import_module("sqlalchemy.orm").configure_mappers()
    schema = importlib.import_module("mlflow.store.db.utils")
    newest = functools.cache(schema._get_latest_schema_revision)
    newest()  # of seventy migrations, which MLflow reads for every store that it opens
    setattr(schema, newest.__name__, newest)
    package_tags()
    describe.data_picture(problem())
    for name in ("MLFLOW_TRACKING_URI", "SGDSTUDY_PREFIX", "SGDSTUDY_HOST_TAGS"):
        os.environ.pop(name, None)


def start(action: Callable[[], object], folder: Path, **environment: str) -> int:
    """Fork a process that does something, its output in `folder/log.txt`; return its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 0
    try:
        log = os.open(folder / "log.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(environment)
        os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
        action()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end(pid: int, seconds: float = 600.0) -> int:
    """Wait for a process; return its exit code, or minus the signal that ended it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    kill(pid)
    raise TimeoutError(f"a process did not end within {seconds:.0f} s")


def kill(pid: int, number: int = signal.SIGKILL) -> int:
    """Send a signal to a process of ours and wait for its end."""
    os.kill(pid, number)
    return end(pid)


def do(action: Callable[[], object], folder: Path, **environment: str) -> tuple[int, str]:
    """Do something in a forked process; return exit code and output."""
    log = folder / "log.txt"
    before = log.stat().st_size if log.exists() else 0
    code = end(start(action, folder, **environment))
    return code, log.read_bytes()[before:].decode() if log.exists() else ""


def found_by(look: Callable[[], list[str]], folder: Path, **environment: str) -> list[str]:
    """Return the problems that a look finds; it is taken in a forked process."""

    def told() -> None:
        (folder / "problems.json").write_text(json.dumps(look()))

    code, said = do(told, folder, **environment)
    if code:
        return [f"the check failed: {said.strip().splitlines()[-1]}"]
    return list(json.loads((folder / "problems.json").read_text()))


def command(*words: str) -> Callable[[], None]:
    """Return the command line's own entry, with these words."""
    return functools.partial(main.main, words)


def said_wrong(code: int, said: str, allowed: tuple[int, ...] = (0,)) -> list[str]:
    """Return what is wrong with how a command ended: its exit code, or a traceback."""
    problems = [] if code in allowed else [f"exit code {code}: {said.strip()[-300:]}"]
    return [*problems, *["a traceback was shown: " + said[-300:]] * ("Traceback" in said)]


# ---- the study that is disturbed --------------------------------------------------------------


@functools.cache
def problem() -> ss.Problem:
    """Return the notebook's curve."""
    return ss.problems.curve()


def arm(epochs: int = EPOCHS, seeds: int = SEEDS, **settings: Any) -> ss.Arm:
    """Return a short arm of it; eager, so that most of its time is training."""
    same = {"optimizer": "notebook", "lr": 2e-4, "batch_size": 10, "engine": "eager"}
    given = same | settings
    return ss.Arm(problem(), "", epochs=epochs, seeds=range(seeds), **given)


def small_chunks(interim_seconds: float | None = None) -> None:
    """Let a chunk be one epoch, and points be sent early: in this process."""
    training_run.FIRST_STEPS = PER_EPOCH
    training_run.CHUNK_VALUES = PER_EPOCH * SEEDS * training_run.ROW_VALUES
    if interim_seconds is not None:
        sink.INTERIM_SECONDS = interim_seconds


def study(
    given: str | None, arms: int = 2, interim_seconds: float | None = None, name: str = STUDY
) -> None:
    """Run a tracked study as the package does: open, recover, train."""
    small_chunks(interim_seconds)
    store = recovery.start(given, print)
    print("opened", flush=True)
    call = Invocation.start(store, name)
    for i in range(arms):
        train_arm(call, f"arm {i}", arm(), False)


def template(o: Options) -> Path:
    """Return a store without runs, to be copied: making one takes seconds."""
    folder = o.scratch / "template"
    if not folder.exists():
        made = o.folder("making") / "store"
        code, said = do(lambda: open_store(str(made)), made.parent)
        assert code == 0, said
        os.rename(made, folder)
    return folder


def new_store(o: Options, folder: Path) -> Path:
    """Return a store without runs, which knows where it is."""
    store = Path(shutil.copytree(template(o), folder / "store"))
    database.rebase(store / DATABASE)
    return store


def reference(o: Options) -> Path:
    """Return the rows of an arm that nothing disturbed, as the package does not store them."""
    path = o.scratch / "reference.arrow"
    if not path.exists():
        code, said = do(lambda: _reference(path), o.folder("reference"))
        assert code == 0, said
    return path


def _reference(path: Path) -> None:
    small_chunks()
    history = ss.train(problem(), config=arm().config)
    table = pa.Table.from_batches(history.sink.batches("steps"))
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_reference(path: Path) -> pa.Table:
    """Read what `reference` wrote."""
    with pa.OSFile(str(path), "rb") as file:
        return pa.ipc.open_file(file).read_all()


# ---- what is in a store -----------------------------------------------------------------------


def query(store: Path, text: str, *values: Any) -> list[tuple[Any, ...]]:
    """Ask the database itself."""
    with closing(sqlite3.connect(store / DATABASE, timeout=30)) as connection:
        return connection.execute(text, values).fetchall()


@dataclass(frozen=True)
class Stored:
    """A run as the database holds it."""

    id: str
    name: str
    status: str
    folder: Path
    tags: dict[str, str]

    def points(self, store: Path) -> list[tuple[str, int, float]]:
        """Return its metric points: key, step, value."""
        text = "SELECT key, step, value FROM metrics WHERE run_uuid = ?"
        return [(key, step, value) for key, step, value in query(store, text, self.id)]

    def rows(self, kind: str = "steps") -> pa.Table | None:
        """Return the rows of its Parquet file."""
        path = self.folder / f"{kind}.parquet"
        return pq.ParquetFile(path).read() if path.exists() else None


def stored(store: Path) -> list[Stored]:
    """Return all runs of a database."""
    found = []
    for run in query(store, "SELECT run_uuid, name, status, artifact_uri FROM runs"):
        tags = dict(query(store, "SELECT key, value FROM tags WHERE run_uuid = ?", run[0]))
        served = run[3].removeprefix("mlflow-artifacts:/")
        folder = (
            store / "artifacts" / served if served != run[3] else run[3].removeprefix("file://")
        )
        found.append(Stored(*run[:3], folder=Path(folder), tags=tags))
    return found


def read_flushed(path: Path) -> pa.Table | None:
    """Return the whole blocks of a stream that was cut off, None where there is none."""
    batches: list[pa.RecordBatch] = []
    try:
        with open(path, "rb") as file:
            reader = pa.ipc.open_stream(file)
            while True:
                batches.append(reader.read_next_batch())
    except (pa.ArrowInvalid, OSError, StopIteration):
        return pa.Table.from_batches(batches) if batches else None


def same(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables hold the same values, bit for bit; NaN is NaN."""
    return one.schema.names == other.schema.names and all(
        np.array_equal(one[name].to_numpy(), other[name].to_numpy(), equal_nan=True)
        for name in one.schema.names
    )


def by_step(table: pa.Table) -> pa.Table:
    """Return the rows in an order that does not depend on how they were cut into chunks."""
    return table.sort_by([("step", "ascending"), ("seed", "ascending")])


def general(store: Path, streams: Path | None = None) -> list[str]:
    """Return what is wrong with a store, whatever happened to it."""
    problems = []
    if query(store, "PRAGMA integrity_check") != [("ok",)]:
        problems.append("the database is damaged")
    runs = stored(store)
    left = [run.name for run in runs if run.status in ("RUNNING", "SCHEDULED")]
    problems += [f"{name} is still RUNNING" for name in left]
    keys = [run.tags["sgdstudy.key"] for run in runs]
    if len(set(keys)) < len(keys):
        problems.append("a run is there twice")
    doubled = query(
        store, "SELECT key, step FROM metrics GROUP BY run_uuid, key, step HAVING COUNT(*) > 1"
    )
    problems += [f"{key} has more than one point at step {step}" for key, step in doubled[:3]]
    waiting = [path.parent.name for path in (streams or store / "streams").glob("*/opening.json")]
    problems += [f"{name} is not in the store" for name in waiting]
    return problems


def truthful(store: Path, run: Stored, full: pa.Table) -> list[str]:
    """Return what is wrong with a run of the study: status, rows, points.

    `full` holds the rows of an arm that nothing disturbed; a run that was cut off has the first
    ones of them, bit for bit.
    """
    rows = run.rows()
    n = 0 if rows is None else rows.num_rows
    problems = []
    if rows is not None and not same(by_step(rows), by_step(full).slice(0, n)):
        problems.append(f"{run.name}: its rows are not those of an undisturbed run")
    reason = run.tags.get("stop_reason")
    expected = ("FINISHED", "max_epochs") if n == full.num_rows else ("KILLED", "interrupted")
    # killed when all rows were there, but not how it ended
    allowed = {expected, ("KILLED", "interrupted")}
    if (run.status, reason) not in allowed:
        problems.append(f"{run.name}: {run.status}, {reason}, with {n} rows")
    last = run.tags.get("sgdstudy.last_step")
    if reason == "interrupted" and n and last != str(max(rows["step"].to_pylist())):
        problems.append(f"{run.name}: last step {last} with {n} rows")
    return problems + wrong_points(run, run.points(store), rows)


def wrong_points(run: Stored, points: list[tuple[str, int, float]], rows: Any) -> list[str]:
    """Return the points of `batch/` that are not the medians of the rows."""
    if rows is None:
        charted = any(key.startswith("batch/") for key, *_ in points)
        return [f"{run.name}: points without rows"] * charted
    steps = rows["step"].to_numpy()
    order = np.argsort(steps, kind="stable")
    medians: dict[str, np.ndarray] = {}
    problems = []
    for key, step, value in points:
        name = key.removeprefix("batch/")
        if name == key or name == "live":
            continue
        if name not in medians:
            medians[name] = np.median(rows[name].to_numpy()[order].reshape(-1, SEEDS), axis=1)
        if medians[name][step] != value:
            problems.append(f"{run.name}: {key} is {value} at step {step}")
    return problems[:3]
