"""The power fails, and no row is lost: all of a run is on the disk before its folder goes.

The disk is played: what a file holds is what it held at its last `fsync`, and a folder has the
names that it had at its own. Nothing else survives, but the database, which syncs by itself.
"""

import os
import random
import shutil
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import small_curve
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

import sgdstudy as ss
from sgdstudy.history.history import History
from sgdstudy.history.rows import AXIS, Memory, Rows
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking import journal as journal_module
from sgdstudy.tracking import provenance, recovery
from sgdstudy.tracking.entries import Opening
from sgdstudy.tracking.group import grouped
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.journal import Journal
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.store import open_store
from sgdstudy.training.train import train

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
DATABASE = "mlflow.db"
SETTINGS = {"lr": 0.1, "batch_size": 10, "epochs": 3, "seeds": range(2), "optimizer": "notebook"}
ROW = Rows(
    {"seed": np.zeros((1, 1), int), "step": np.zeros((1, 1), int), "loss": np.ones((1, 1))},
    np.ones((1, 1), bool),
)
ARM = ss.Arm(small_curve(), "", engine="eager", **SETTINGS)


class Disk:
    """What of a folder would be there after a power failure.

    Attributes:
        root: the folder.
        events: what happened to it, one line after the other.
        cuts: after which of them the power fails.
        images: what was there then.
    """

    def __init__(self, root, images, patch, cuts=()):
        self.root, self.cuts, self.images, self._into = Path(root), set(cuts), [], images
        self.events: list[str] = []
        self._lock = threading.Lock()
        self._content: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}
        for folder, _, files in os.walk(self.root):
            self._sync_folder(Path(folder))
            for name in files:
                self._synced(Path(folder) / name)
        self._watch(patch, "fsync", lambda handle: Path(os.readlink(f"/proc/self/fd/{handle}")))
        self._watch(patch, "replace", lambda source, target: Path(target))
        self._watch(patch, "unlink", lambda path, **_: Path(path))
        self._watch(patch, "rmdir", lambda path, **_: Path(path))

    def _watch(self, patch, name, path_of):
        real = getattr(os, name)

        def call(*given, **named):
            path = path_of(*given, **named)
            inside = path.is_absolute() and path.is_relative_to(self.root)
            done = real(*given, **named)
            with self._lock:  # a group is synced by several threads
                if inside and name == "fsync":
                    self._synced(path)
                if inside and not path.name.startswith((DATABASE, "lock")):
                    self.note(f"{name} {path.relative_to(self.root)}")
            return done

        patch.setattr(os, name, call)

    def _synced(self, path):
        if path.is_dir():
            self._sync_folder(path)
        elif path.exists():
            self._content[self._kept(path)] = path.read_bytes()

    def _kept(self, path):
        """Return the number of a file, which no other gets as long as we hold it."""
        number = path.stat().st_ino
        held = self._into / "held" / str(number)
        held.parent.mkdir(parents=True, exist_ok=True)
        if not held.exists() and not path.name.startswith(DATABASE):  # with two it is refused
            os.link(path, held)
        return number

    def _sync_folder(self, folder):
        paths = [Path(entry.path) for entry in os.scandir(folder)]
        self._names[folder] = {p.name: 0 if p.is_dir() else self._kept(p) for p in paths}
        for path in paths:
            if path.is_dir():
                self._names.setdefault(path, {})

    def note(self, event):
        """Note that something happened; the power may fail after it."""
        if len(self.events) in self.cuts:
            self.images.append((event, self._written_down(self._into / str(len(self.images)))))
        self.events.append(event)

    def _written_down(self, into):
        """Write what is on the disk now into a folder."""
        into.mkdir(parents=True)
        self._write(self.root, into)
        for path in self.root.glob(f"{DATABASE}*"):
            shutil.copyfile(path, into / path.name)
        return into

    def _write(self, folder, into):
        for name, inode in self._names.get(folder, {}).items():
            path = folder / name
            if path in self._names:
                (into / name).mkdir()
                self._write(path, into / name)
            elif not name.startswith(DATABASE):
                (into / name).write_bytes(self._content.get(inode, b""))


def study(store):
    """Two arms one after the other; three runs that are over, as a sweep tracks them."""
    opened = recovery.start(store, lambda line: None)
    call = Invocation.start(opened, "study")
    for i in range(2):
        train_arm(call, f"arm {i}", ARM, False)
    with grouped() as group:
        together = Invocation(opened, "swept", call.id, "", later=group)
        for i in range(3):
            over(together, f"run {i}")


def over(invocation, name):
    memory = Memory()
    history = train(ARM.problem, config=ARM.config, progress=False, sink=memory)
    rows = memory.whole()

    def take(sink):
        for kind, batch in rows.items():
            sink.write(kind, Rows.of(batch, AXIS[kind]))
        figures = {
            name: getattr(history, name)
            for name in History.__dataclass_fields__
            if name not in ("problem", "config", "sink")
        }
        return History(ARM.problem, ARM.config, sink, **figures)

    invocation.track(name, ARM.problem, ARM.config, {}, take, over=True)


@pytest.fixture(scope="module")
def rows():
    """The rows of an arm that nothing disturbed."""
    history = train(ARM.problem, config=ARM.config, progress=False)
    return {kind: pa.Table.from_batches(list(history.sink.batches(kind))) for kind in AXIS}


def events(store, tmp_path, action):
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(store, tmp_path / "first", patch)
        action()
    return disk.events


def checked(store, rows):
    """What is in the store after the next command: truthful, every run once, nothing open."""
    recovery.recover(open_store(store))
    opened = open_store(store)
    experiments = [e.experiment_id for e in opened.client.search_experiments()]
    found = opened.client.search_runs(experiments)
    keys = [run.data.tags["sgdstudy.key"] for run in found]
    assert len(set(keys)) == len(keys)
    for run in found:
        assert run.info.status in ("FINISHED", "KILLED")
        for kind, whole in rows.items():
            folder = Path(run.info.artifact_uri.removeprefix("file://"))
            path = folder / f"{kind}.parquet"
            if run.info.status == "FINISHED":
                assert path.exists(), (run.info.run_name, kind)
            if path.exists():
                there = pq.read_table(path)
                there = there.select(whole.schema.names)
                assert there.equals(whole.slice(0, there.num_rows)), run.info.run_name
                if run.info.status == "FINISHED":
                    assert there.num_rows == whole.num_rows
    return {run.info.run_name: run.info.status for run in found}


def cut(store, tmp_path, rows, n_cuts, seed):
    """Run a study, let the power fail at random moments of it, and look at each."""
    template = tmp_path / "template"
    shutil.copytree(store, template)
    every = events(store, tmp_path, lambda: study(store))
    shutil.rmtree(store)
    shutil.copytree(template, store)
    chosen = random.Random(seed).sample(range(len(every)), n_cuts)
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(store, tmp_path / "images", patch, chosen)
        study(store)
    assert len(disk.images) == n_cuts
    finished = 0
    for _, image in disk.images:
        shutil.rmtree(store)
        shutil.move(image, store)  # the database knows where it lies
        for engine in SqlAlchemyStore._engine_map.values():
            engine.dispose()  # it holds the database that lay there before
        for folder in Path(store).glob("streams/*"):
            os.utime(folder, (0, 0))  # begun long ago
        patched = pytest.MonkeyPatch()
        patched.setattr(journal_module, "_AWAY", set())
        after = replace(provenance.here(), boot_id="the start after the power failed")
        patched.setattr(provenance, "here", lambda after=after: after)
        outcome = checked(store, rows)
        patched.undo()
        finished += list(outcome.values()).count("FINISHED")
        left = [path for path in Path(store).glob("streams/*") if path.is_dir()]
        assert not left, left
    return finished


@pytest.mark.slow
def test_no_row_is_lost_when_the_power_fails_during_a_study(store, tmp_path, rows):
    assert cut(store, tmp_path, rows, 5, seed=1) > 0


@pytest.mark.faults
@pytest.mark.parametrize("seed", [2, 3])
def test_no_row_is_lost_when_the_power_fails_30_times(store, tmp_path, rows, seed):
    assert cut(store, tmp_path, rows, 15, seed) > 0


# ---- the order of things -----------------------------------------------------------------------


def interrupted(store):
    """A run that its process leaves behind, and the next command finishes."""
    call = Invocation.start(open_store(store), "study")
    told = Opening("study", "arm", {"sgdstudy.study": "study"})
    journal = Journal.begin(call.store, told, {})
    sink = RunSink(journal)
    sink.write("steps", ROW)
    sink.stream.drop()
    journal.let_go()
    recovery.recover(call.store)


def swept(store):
    with grouped() as group:
        over(Invocation(open_store(store), "swept", "1", "", later=group), "run")


ENDS = {
    "finish": lambda store: train_arm(
        Invocation.start(open_store(store), "study"), "a", ARM, False
    ),
    "sweep": swept,
    "recover": interrupted,
}


@pytest.mark.parametrize("end", ENDS)
def test_everything_is_on_the_disk_before_the_runs_folder_goes(store, tmp_path, end):
    happened = events(store, tmp_path, lambda: ENDS[end](store))

    def all_of(act, ending, within=""):
        start = f"{act} {within}"
        return [i for i, e in enumerate(happened) if e.startswith(start) and e.endswith(ending)]

    (gone,) = all_of("unlink", "/opening.json")
    assert min(all_of("rmdir", "")) > gone
    (closed,) = all_of("replace", "/closing.json")
    for kind in ["steps", "epochs"] if end != "recover" else ["steps"]:
        synced = all_of("fsync", f"/{kind}.parquet")
        (moved,) = all_of("replace", f"/{kind}.parquet", within="artifacts")
        assert min(synced) < closed < moved
        place = Path(happened[moved].split(" ", 1)[1])
        assert moved < max(all_of("fsync", str(place.parent))) < gone
        for folder in list(place.parents)[1:4]:  # made for it: the run's, the study's, all
            assert min(all_of("fsync", str(folder))) < gone


def test_a_database_commits_to_the_disk(store):
    """The default of MLflow's connection to a local store: FULL (2), or EXTRA (3)."""
    with closing(sqlite3.connect(Path(store) / DATABASE)) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone()[0] >= 2
