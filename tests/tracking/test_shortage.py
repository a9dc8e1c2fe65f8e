"""Too little memory, no thread, no open file: nothing is taken for damage or for a refusal."""

import errno
import functools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from conftest import one_line
from filelock import FileLock

import sgdstudy as ss
from sgdstudy.errors import Away
from sgdstudy.history.checksums import Within, checked, require_threads
from sgdstudy.history.rows import Rows
from sgdstudy.tracking import durable, journal, memory, parquet, sink
from sgdstudy.tracking.database import opened as database_opened
from sgdstudy.tracking.entries import Opening
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.journal import Journal
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.runs import find_run
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.store import open_store
from sgdstudy.training import checkpoint

SHORT = {
    "memory": MemoryError(),
    "threads": RuntimeError("can't start new thread"),
    "files": OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
}


@pytest.fixture
def opened(store, monkeypatch):
    monkeypatch.setattr(journal, "_AWAY", set())
    return open_store(store)


@pytest.fixture(params=SHORT)
def short(request):
    return SHORT[request.param]


def left_behind(store, n=10, more=0):
    """A run with two blocks of rows, whose process is gone."""
    left = Journal.begin(store, Opening("study", "arm", {}), {})
    sink = RunSink(left)
    for i in range(2):
        step = n * i + np.arange(n)[:, None]
        columns = {"seed": np.zeros((1, 1), int), "step": step}
        columns |= {f"w{j}": np.sqrt(step) for j in range(more + 1)}
        sink.write("steps", Rows(columns, np.ones((n, 1), bool)))
    sink.stream.drop()
    left.let_go()
    return left


def raising(error):
    def fail(*given, **named):
        raise error

    return fail


@contextmanager
def no_more_files():
    """Nothing can be opened within the block."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[0], 256), before[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for handle in taken:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# ---- runs that were cut off --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "of"),
    [(Within, "memory"), (Within, "files"), *((sink, what) for what in SHORT)],
    ids=lambda given: getattr(given, "__name__", given),
)
def test_a_run_is_left_to_the_next_command(opened, monkeypatch, where, of):
    left = left_behind(opened)
    with monkeypatch.context() as patched:
        patched.setattr(where, "read" if where is Within else "to_parquet", raising(SHORT[of]))
        found = recover(opened)
    assert (found.closed, found.refused, found.damaged) == ([], [], [])
    (line,) = found.left
    assert line.startswith("study: arm is left to sgdstudy recover: ")
    assert str(found) == line
    assert "\n" not in line
    assert find_run(opened, left.run_id).status == "RUNNING"
    assert recover(opened).closed == ["study: arm"]
    assert len(ss.load_steps("study", store=str(opened.root))) == 20
    assert "sgdstudy.damaged" not in find_run(opened, left.run_id).tags


LITTLE = """
import gc, resource, sys
from pathlib import Path
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.store import open_store

recover(open_store(sys.argv[2]))  # what it takes is imported then
opened = open_store(sys.argv[1])
gc.collect()
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 20_000_000,) * 2)
found = recover(opened)
print(found.closed, found)
"""


@pytest.mark.slow
def test_a_process_with_little_memory_closes_no_run_without_its_rows(opened, tmp_path):
    """As it was seen: `ulimit -v`, and blocks that are longer than what is left."""
    n = 200_000
    left_behind(opened, n, more=15)
    small = open_store(str(tmp_path / "small"))
    left_behind(small)
    command = [sys.executable, "-c", LITTLE, str(opened.root), str(small.root)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith("[] ")
    assert "too little memory" in said
    assert recover(opened).closed == ["study: arm"]
    assert len(ss.load_steps("study", columns=["step"], store=str(opened.root))) == 2 * n


@pytest.mark.parametrize("what", [(FileLock, "acquire"), (journal.shapes, "read_json")])
def test_a_folder_that_cannot_be_looked_into_is_not_called_damaged(
    opened, monkeypatch, caplog, what
):
    left = left_behind(opened)
    with monkeypatch.context() as patched:
        patched.setattr(*what, raising(SHORT["files"]))
        with pytest.raises(OSError, match="Too many open files"):
            Journal.orphan(opened, left.folder)
    assert "remove it" not in caplog.text
    assert Journal.orphan(opened, left.folder) is not None


@pytest.mark.parametrize("files", ["a few", "one more"])
def test_what_is_synced_needs_no_thread(tmp_path, monkeypatch, files):
    paths = [tmp_path / str(i) for i in range(9 if files == "a few" else durable.FEW + 1)]
    synced = []
    monkeypatch.setattr(durable, "sync", synced.append)
    monkeypatch.setattr(threading.Thread, "start", raising(SHORT["threads"]))
    durable.sync_all(paths)
    assert synced == paths


def test_the_error_that_ends_a_run_is_the_one_that_is_seen(opened, monkeypatch, short):
    """As it was seen: the run could not be closed either, and that was the traceback."""
    invocation = Invocation.start(opened, "study")
    with monkeypatch.context() as patched:
        patched.setattr("sgdstudy.tracking.invocation.close_interrupted", raising(short))
        with pytest.raises(ZeroDivisionError), invocation.run("arm", "", {}):
            _ = 1 / 0
    assert recover(opened).closed == ["study: arm"]


def test_a_file_of_a_run_that_cannot_be_written_is_not_left_out(opened, short):
    with pytest.raises(type(short)):
        Journal.begin(opened, Opening("study", "arm", {}), {"data.png": raising(short)})
    assert list(opened.streams.iterdir()) == []


def test_a_store_that_is_not_reached_for_want_of_memory_is_not_waited_for(opened, monkeypatch):
    import time

    left = left_behind(opened)
    monkeypatch.setattr(Journal, "_deliver", raising(MemoryError()))
    monkeypatch.setattr(time, "sleep", raising(AssertionError("it waits")))
    assert not left.deliver(10.0)
    assert (left.failure, left.refusal) == ("there is too little memory", None)


def test_memory_that_mlflow_lacks_is_no_refusal(opened, monkeypatch):
    """MLflow makes an internal error of everything."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    def fail(*given, **named):
        raise MlflowException("no message") from MemoryError()

    monkeypatch.setattr(SqlAlchemyStore, "_search_experiments", fail)
    with pytest.raises(Away, match="too little memory"):
        opened.client.search_experiments()


def test_a_database_is_not_another_persons_where_no_file_can_be_opened(opened):
    path = opened.root / "mlflow.db"
    with no_more_files(), pytest.raises(OSError, match="Too many open files") as error:  # noqa: SIM117
        with database_opened(path) as connection:
            connection.execute("SELECT 1 FROM runs")
    assert "chmod" not in str(error.value)


# ---- how much memory there is ------------------------------------------------------------------


@pytest.fixture
def bounded(tmp_path, monkeypatch):
    """Bounds memory to 60 MB, in a way."""

    def bound(how):
        if how == "ulimit":
            size = memory.psutil.Process().memory_info().vms
            monkeypatch.setattr(resource, "getrlimit", lambda what: (size + 60_000_000,) * 2)
            return
        names, line, root = {
            "v2": (memory.V2, "0::/job\n", tmp_path / "cgroup"),
            "v1": (memory.V1, "7:cpu:/x\n4:memory:/job\n", tmp_path / "cgroup" / "memory"),
        }[how]
        (root / "job" / "step").mkdir(parents=True)
        for name, text in zip(names, ("100000000", "70000000"), strict=False):
            (root / "job" / name).write_text(text)
        (root / "job" / "memory.stat").write_text(f"anon 1\n{names[2]} 30000000\n")
        told = tmp_path / "told"
        told.write_text(line.replace("/job", "/job/step"))
        monkeypatch.setattr(memory, "GROUPS", tmp_path / "cgroup")
        monkeypatch.setattr(memory, "OF_GROUPS", told)

    return bound


@pytest.mark.parametrize("how", ["ulimit", "v1", "v2"])
def test_memory_is_free_as_far_as_the_process_may_take_it(bounded, how):
    before = memory.free()
    bounded(how)
    assert 40_000_000 < memory.free() <= 60_000_000 < before
    parquet.require_room([1_000])
    if how == "ulimit":  # nobody is killed for it: it is an error where it comes
        return
    with pytest.raises(ss.InputError, match="would take 50 MB of memory") as error:
        parquet.require_room([50_000_000])
    assert one_line(error)


def test_rows_that_memory_ends_at_are_one_line(opened, monkeypatch):
    left_behind(opened)
    recover(opened)
    monkeypatch.setattr(parquet.Order, "places", raising(MemoryError("Unable to allocate 2 MiB")))
    with pytest.raises(ss.InputError, match="too little memory for these rows") as error:
        ss.load_steps("study", store=str(opened.root))
    assert one_line(error)


def test_a_checkpoint_that_cannot_be_opened_now_is_not_called_none(tmp_path):
    """Safetensors says that there is no such file."""
    checkpoint.write(tmp_path / checkpoint.NAME, {"at.epoch": 1})
    with no_more_files(), pytest.raises(Away, match="Too many open files"):
        checkpoint.read(tmp_path / checkpoint.NAME)
    assert checkpoint.read(tmp_path / checkpoint.NAME)["at.epoch"] == 1


# ---- threads -----------------------------------------------------------------------------------


@pytest.fixture
def no_threads(monkeypatch):
    """No thread can be started."""
    require_threads.cache_clear()
    monkeypatch.setattr(threading.Thread, "start", raising(SHORT["threads"]))
    yield
    require_threads.cache_clear()


@pytest.mark.parametrize("what", ["of a store", "of a run going on", "to compare"])
def test_rows_are_not_read_where_arrow_would_end_the_process(opened, no_threads, what):
    """As it was seen: terminate called after throwing an instance of 'std::system_error'."""
    left_behind(opened)
    if what != "of a run going on":
        recover(opened)
    if what == "to compare":
        read = functools.partial(checked, next(opened.root.rglob("steps.parquet")))
    else:
        read = functools.partial(ss.load_steps, "study", store=str(opened.root))
    with pytest.raises(Away, match="no more threads can be started") as error:
        read()
    assert one_line(error)


PROCESSES = "setpriv --reuid 12345 --regid 12345 --clear-groups {caps} prlimit --nproc=1"
CAPS = " ".join(f"--{kind}-caps=-all,+dac_override,+dac_read_search" for kind in ("inh", "ambient"))


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("setpriv") and shutil.which("prlimit") and os.geteuid() == 0),
    reason="needs root, to be another user",
)
def test_a_user_who_may_start_no_thread_reads_one_line(opened):
    left_behind(opened)
    recover(opened)
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        os.chmod(folder, 0o755)
        store = shutil.copytree(opened.root, f"{folder}/mlruns")
        code = f"import sgdstudy as ss; ss.load_steps('study', store={store!r})"
        command = [*PROCESSES.format(caps=CAPS).split(), sys.executable, "-c", code]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith("no more threads can be started")
