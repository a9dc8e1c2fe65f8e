"""A store that is moved, deleted or replaced while a run goes on: its rows stay."""

import os
import shutil
import traceback
from pathlib import Path

import pytest
from conftest import one_line
from test_power import ROW
from test_store import files

import sgdstudy as ss
from sgdstudy.errors import SgdstudyError, StoreError
from sgdstudy.tracking import journal as journals
from sgdstudy.tracking.database import make
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.store import open_store

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def restored(root):
    """As a backup is restored, or by a program that keeps two folders the same."""
    deleted(root)
    shutil.copy(root / "backup", root / "mlflow.db")


def renamed_over(root):
    shutil.copy(root / "backup", root / "newer")
    (root / "newer").rename(root / "mlflow.db")


def copied_over(root):
    """Another store's, into the same file."""
    for path in root.glob("mlflow.db?*"):
        path.unlink()
    shutil.copyfile(root / "other" / "mlflow.db", root / "mlflow.db")


def deleted(root):
    for path in root.glob("mlflow.db*"):
        path.unlink()


def moved(root):
    root.rename(root.with_name("moved"))


@pytest.mark.slow
@pytest.mark.parametrize("over", [False, True], ids=["begun", "over"])
@pytest.mark.parametrize("act", [restored, renamed_over, copied_over, deleted, moved])
def test_the_rows_of_a_run_outlive_its_database(store, act, over):
    """As it was seen: exit code 0, and no store had the run: SQLite went on with a deleted file."""
    root = Path(store)
    open_store(store)
    shutil.copy(root / "mlflow.db", root / "backup")
    (root / "other").mkdir()
    make(root / "other" / "mlflow.db")
    pid = os.fork()
    if not pid:
        code = 1
        try:
            journals.PATIENCE_SECONDS = 0.0
            call = Invocation.start(open_store(store), "kept")
            with call.run("one", "", {}, {}, over=over) as journal:
                sink = RunSink(journal)
                sink.write("steps", ROW)
                act(root)
                sink.write("steps", ROW)
            code = 0
        except SgdstudyError:
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    place = root if root.exists() else root.with_name("moved")
    opened = open_store(str(place))
    recover(opened)
    (run,) = ss.load_runs("kept", store=str(place)).to_dict("records")
    assert run["status"] == ("KILLED" if act is moved else "FINISHED")
    assert len(ss.load_steps("kept", store=str(place))) == 2
    assert not list(opened.streams.glob("*"))
    assert not list(place.glob("aside/*"))
    if act is moved:
        assert not root.exists() or not files(root)


def replaced(root):
    """As by `mv st x; cp -r x st`."""
    shutil.copytree(root.rename(root.with_name("moved")), root)


def its_streams_replaced(root):
    replaced(root / "streams")


def stopped(store, act):
    """Why a run stops where something happens between two blocks; and what it wrote them to."""
    sinks = []

    def loop():
        with Invocation.start(open_store(store), "kept").run("one", "", {}, {}) as journal:
            sinks.append(RunSink(journal))
            sinks[0].write("steps", ROW)
            act(sinks[0])
            sinks[0].write("steps", ROW)

    with pytest.raises(StoreError) as error:
        loop()
    sinks[0].stream.drop()
    assert one_line(error)
    return str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("act", [replaced, its_streams_replaced])
def test_a_run_stops_when_its_files_are_replaced_by_a_copy(store, act):
    """As it was seen: exit code 0, and the run was FINISHED with 16 of 80 rows."""
    root = Path(store)
    assert "was moved, deleted or replaced" in stopped(store, lambda sink: act(root))
    recover(open_store(store))
    assert list(ss.load_runs("kept", store=store)["status"]) == ["FAILED"]
    if act is replaced:
        moved = str(root.with_name("moved"))
        recover(open_store(moved))
        assert list(ss.load_runs("kept", store=moved)["status"]) == ["KILLED"]
        assert len(ss.load_steps("kept", store=moved)) == 2


def test_a_run_with_less_rows_than_were_written_is_not_finished(store):
    with Invocation.start(open_store(store), "kept").run("one", "", {}, {}) as journal:
        sink = RunSink(journal)
        sink.write("steps", ROW)
        sink.stream.n_rows["steps"] += 2  # of another stream than the one that lies here
        sink.stream.n_rows["epochs"] = 1
    (run,) = ss.load_runs("kept", store=store).to_dict("records")
    assert run["status"] == "FAILED"
    assert "2 rows of steps cannot be read back" in journal.lost
    assert "1 row of epochs cannot be read back" in journal.lost


@pytest.mark.parametrize("reused", [False, True], ids=["closed", "closed and opened"])
@pytest.mark.parametrize("kind", ["steps", "count"])
def test_a_file_of_ours_that_a_function_closes_stops_the_run(store, tmp_path, kind, reused):
    """As it was seen: `os.closerange(3, 256)` in an order, and a traceback of `OSError(9)`."""
    other = tmp_path / "other"

    def closes(sink):
        number = sink.stream._files[kind].fileno()
        os.close(number)
        if reused:
            assert os.open(other, os.O_RDWR | os.O_CREAT) == number
        os.close(sink.journal._lock._context.lock_file_fd)

    assert "closed files that are not its own" in stopped(store, closes)
    assert not reused or other.read_bytes() == b""
    recover(open_store(store))
    assert list(ss.load_runs("kept", store=store)["status"]) == ["FAILED"]
    assert len(ss.load_steps("kept", store=store)) == 1
