"""A store that is moved, deleted or replaced while a run goes on: its rows stay."""

import os
import shutil
import traceback
from pathlib import Path

import pytest
from test_power import ROW
from test_store import files

import sgdstudy as ss
from sgdstudy.errors import SgdstudyError
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
