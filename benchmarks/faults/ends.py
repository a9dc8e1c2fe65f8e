"""How runs end: signals, mistakes, processes that are not ours, values that are no numbers."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import lab
import numpy as np
from lab import Options, Outcome

SCRIPT = '''"""What is left of a run that is cut off?"""

import os
import sys

import sgdstudy as ss

CHUNKS = []


def trouble(chunk):
    """Cause what FAULT says, in the fourth chunk."""
    CHUNKS.append(len(chunk.loss))
    if len(CHUNKS) == 4 and os.environ["FAULT"] == "exception":
        raise RuntimeError("a mistake of the user's own")
    if len(CHUNKS) == 4 and os.environ["FAULT"] == "sys.exit":
        sys.exit(3)
    return 0.0 * chunk.loss


def arms(o):
    same = {"optimizer": "notebook", "lr": 2e-4, "batch_size": 10, "engine": "eager"}
    epochs = int(os.environ["EPOCHS"])
    curve = ss.problems.curve()
    return {"arm": ss.Arm(curve, "", epochs=epochs, seeds=range(2), diagnostics=[trouble], **same)}


STUDY = ss.Study(__file__, __doc__, ss.Options, arms, lambda o, r: [], lambda o, r, c: "done")
'''
LONG = {"SIGINT": 130, "SIGTERM": 130, "exception": 2, "sys.exit": 2}  # exit codes
STATUS = {"SIGINT": "KILLED", "SIGTERM": "KILLED", "exception": "FAILED", "sys.exit": "FAILED"}


def ends(o: Options) -> Outcome:
    """End a study by Ctrl-C, SIGTERM, a mistake of the user's, `sys.exit`."""
    outcome = Outcome(
        "SIGINT, SIGTERM, an exception in the arm, `sys.exit` in it",
        "`sgdstudy run SCRIPT`; signals at a random moment of the training, the others in the "
        "fourth chunk; no command afterwards",
    )
    rng = random.Random(lab.SEED + 3)
    for _ in range(1 if o.quick else 5):
        for kind in LONG:
            outcome.problems.append(_ended(o, kind, rng.uniform(0, 0.5)))
    return outcome


def run_script(o: Options, folder: Path, store: Path) -> Callable[[], None]:
    """Return `sgdstudy run` of the script above, in small chunks."""
    (folder / "cut_off.py").write_text(SCRIPT)

    def action() -> None:
        lab.small_chunks()
        lab.main.main(["run", str(folder / "cut_off.py"), "--store", str(store)])

    return action


def _ended(o: Options, kind: str, seconds: float) -> list[str]:
    folder = o.folder("ends")
    store = lab.new_store(o, folder)
    pid = lab.start(run_script(o, folder, store), folder, FAULT=kind, EPOCHS="3000")
    if kind.startswith("SIG"):
        wait_for_rows(store)
        time.sleep(seconds)
        code = lab.kill(pid, getattr(signal, kind))
    else:
        code = lab.end(pid)
    said = (folder / "log.txt").read_text()
    problems = [f"{kind}: exit code {code}: {said[-300:]}"] * (code != LONG[kind])
    problems += [f"{kind}: a traceback"] * ("Traceback" in said)
    problems += lab.found_by(lambda: _kept(store, kind, lab.reference(o)), folder)
    shutil.rmtree(folder)
    return problems


def wait_for_rows(store: Path) -> None:
    """Wait until a run has written rows."""
    deadline = time.monotonic() + 60
    while not list(store.glob("streams/*/steps.arrow")):
        assert time.monotonic() < deadline, "no rows within 60 s"
        time.sleep(0.005)


def _kept(store: Path, kind: str, reference: Path) -> list[str]:
    problems = lab.general(store)
    runs = lab.stored(store)
    if [(run.name, run.status) for run in runs] != [("arm", STATUS[kind])]:
        return [*problems, f"{kind}: {[(run.name, run.status) for run in runs]}"]
    (run,) = runs
    if run.tags.get("stop_reason") != "interrupted":
        problems.append(f"{kind}: stop_reason {run.tags.get('stop_reason')}")
    full = lab.by_step(lab.read_reference(reference))
    rows = run.rows()
    if rows is None:
        return [*problems, f"{kind}: no rows"]
    both = min(rows.num_rows, full.num_rows)
    shared = [name for name in full.schema.names if name in rows.schema.names]
    rows, full = lab.by_step(rows).select(shared), full.select(shared)
    if not lab.same(rows.slice(0, both), full.slice(0, both)):
        problems.append(f"{kind}: the rows are not those of an undisturbed run")
    return problems


# ---- processes that are not ours to end -----------------------------------------------------


def others(o: Options) -> Outcome:
    """Reap beside a living run, and beside the runs of another machine."""
    outcome = Outcome(
        "`sgdstudy recover` beside a living run, and a dead one of another machine",
        "the same while a study trains, with its folder and without; SIGKILL; then with the tag "
        "`sgdstudy.host` changed, then with the tag put back",
    )
    for _ in range(1 if o.quick else 5):
        folder = o.folder("others")
        store = lab.new_store(o, folder)
        pid = lab.start(run_script(o, folder, store), folder, FAULT="", EPOCHS="3000")
        wait_for_rows(store)
        problems = _recovered(store, folder, "RUNNING", "a living run")
        shutil.move(store / "streams", folder / "elsewhere")
        problems += _recovered(store, folder, "RUNNING", "a living run without its folder")
        lab.kill(pid)
        (host,) = (run.tags["sgdstudy.host"] for run in lab.stored(store))
        _set_host(store, "another-machine")
        problems += _recovered(store, folder, "RUNNING", "a run of another machine")
        _set_host(store, host)
        problems += _recovered(store, folder, "KILLED", "a dead run without its folder")
        outcome.problems.append(problems)
        shutil.rmtree(folder)
    return outcome


def _recovered(store: Path, folder: Path, status: str, what: str) -> list[str]:
    code, said = lab.do(lab.command("recover", "--store", str(store)), folder)
    found = [run.status for run in lab.stored(store)]
    return lab.said_wrong(code, said) + [f"{what} became {found}"] * (found != [status])


def _set_host(store: Path, host: str) -> None:
    with closing(sqlite3.connect(store / lab.DATABASE, timeout=30)) as connection, connection:
        connection.execute("UPDATE tags SET value = ? WHERE key = 'sgdstudy.host'", (host,))


# ---- values that are no numbers -------------------------------------------------------------


ODD = [np.nan, np.inf, -np.inf, 1e308, -0.0, 5e-324, 1.0]


def values(o: Options) -> Outcome:
    """Track runs that diverge and columns of NaN and infinities; read them back."""
    outcome = Outcome(
        "NaN and infinities: runs that diverge, columns that are not finite",
        "8 step sizes that diverge for all or some of 6 seeds, with a column of NaN, both "
        "infinities, 1e308 and the smallest double; "
        "`load_steps` against the same training kept in memory, bit for bit",
    )
    rates = [0.2] if o.quick else [2e-3, 3e-3, 5e-3, 1e-2, 3e-2, 0.1, 0.2, 1.0]
    for lr in rates:
        folder = o.folder("values")
        store = lab.new_store(o, folder)
        code, said = lab.do(lambda store=store, lr=lr: _track_odd(store, lr), folder)
        problems = lab.said_wrong(code, said)
        problems += lab.found_by(lambda store=store, lr=lr: _odd(store, lr), folder)
        outcome.problems.append(problems)
        shutil.rmtree(folder)
    return outcome


def odd(chunk: object) -> np.ndarray:
    """Return a column of what is hard to keep."""
    shape = chunk.loss.shape  # type: ignore[attr-defined]
    return np.resize(ODD, shape)


def _odd_arm(lr: float) -> lab.ss.Arm:
    metrics = ["loss", "odd", "full_loss"]
    return lab.arm(4, 6, lr=lr, diagnostics=["distance", odd], metrics=metrics)


def _track_odd(store: Path, lr: float) -> None:
    opened = lab.recovery.start(str(store), print)
    lab.train_arm(lab.Invocation.start(opened, lab.STUDY), "arm", _odd_arm(lr), False)


def _odd(store: Path, lr: float) -> list[str]:
    problems = lab.general(store)
    (run,) = lab.stored(store)
    direct = lab.ss.train(lab.problem(), config=_odd_arm(lr).config)
    if run.tags["stop_reason"] != lab.describe.summary_of_reasons(direct):
        problems.append(f"stop_reason {run.tags['stop_reason']}")
    loaded = lab.ss.load_steps(lab.STUDY, store=str(store))
    if len(loaded) != len(direct.steps):
        problems.append(f"{len(loaded)} rows of {len(direct.steps)}")
    for name in direct.steps:
        if loaded[name].to_numpy().tobytes() != direct.steps[name].to_numpy().tobytes():
            problems.append(f"{name} is not what was recorded")
    if np.isfinite(direct.steps.loss).all() and np.isfinite(direct.steps.grad_norm).all():
        problems.append("the run did not diverge: nothing was tested")
    text = "SELECT COUNT(*) FROM metrics WHERE is_nan OR ABS(value) >= 1.7976931348623157e308"
    if lab.query(store, text) != [(0,)]:
        problems.append("a chart has a point that is not finite")
    return problems
