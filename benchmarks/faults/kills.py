"""SIGKILL at random moments of a tracked run, and many first starts at once."""

from __future__ import annotations

import collections
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import lab
from lab import Options, Outcome

FRESH = 4  # every fourth trial begins without a store
CODE = """
import sys
import sgdstudy as ss
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking import invocation, recovery
curve = ss.problems.curve()
store = recovery.start(sys.argv[1], print)
arm = ss.Arm(curve, "", optimizer="notebook", lr=2e-4, batch_size=10, epochs=16, seeds=range(2))
call = invocation.Invocation.start(store, "faults")
for name in ("arm 0", "arm 1"):
    train_arm(call, name, arm, False)
"""


def sigkill(o: Options) -> Outcome:
    """Kill a tracked study at any moment of its life; then the next command."""
    outcome = Outcome(
        "SIGKILL at a random moment of a tracked study of two arms",
        "forked process, killed after a time drawn evenly over its whole life; then `sgdstudy "
        "recover`; the streams are copied in between and read with pyarrow",
    )
    rng = random.Random(lab.SEED)
    lives = {fresh: _life(o, fresh) for fresh in (False, True)}
    moments: collections.Counter[str] = collections.Counter()
    for trial in range(5 if o.quick else 200):
        fresh = trial % FRESH == 0
        moment, problems = _trial(o, fresh, rng.uniform(0, 1.02 * lives[fresh]))
        moments[moment] += 1
        outcome.problems.append(problems)
    outcome.note = "hit: " + ", ".join(f"{n} {name}" for name, n in moments.most_common())
    return outcome


def _life(o: Options, fresh: bool) -> float:
    """Return how long the study lives when nothing disturbs it: the median of three."""
    seconds = []
    for _ in range(1 if o.quick else 3):
        folder = o.folder("life")
        store = folder / "store" if fresh else lab.new_store(o, folder)
        begun = time.monotonic()
        code, said = lab.do(lambda store=store: lab.study(str(store)), folder)
        assert code == 0, said
        seconds.append(time.monotonic() - begun)
        shutil.rmtree(folder)
    return sorted(seconds)[len(seconds) // 2]


def _trial(o: Options, fresh: bool, seconds: float) -> tuple[str, list[str]]:
    """Return the moment that was hit, in words, and what was wrong afterwards."""
    folder = o.folder("kill")
    store = folder / "store" if fresh else lab.new_store(o, folder)
    pid = lab.start(lambda: lab.study(str(store)), folder)
    time.sleep(seconds)
    lab.kill(pid)
    copy = folder / "copy"
    if (store / "streams").exists():
        shutil.copytree(store / "streams", copy)
    moment = _moment(store, copy)
    if not _made(store):
        problems = _not_made(store, folder)
        shutil.rmtree(folder)
        return moment, problems
    problems = lab.said_wrong(*lab.do(lab.command("recover", "--store", str(store)), folder))
    full = lab.reference(o)
    problems += lab.found_by(lambda: _look(store, copy, full), folder)
    shutil.rmtree(folder)
    return moment, problems


def _made(store: Path) -> bool:
    """Whether there is a database with a table of runs: it comes to its place when it is whole."""
    if not (store / "mlflow.db").exists():
        return False
    try:
        lab.query(store, "SELECT COUNT(*) FROM runs")
    except sqlite3.OperationalError:
        return False
    return True


def _not_made(store: Path, folder: Path) -> list[str]:
    """Killed before there was a store: a command says so in a line, and the next study makes it."""
    code, said = lab.do(lab.command("recover", "--store", str(store)), folder)
    problems = [] if code == 2 and "there is no store" in said else [f"exit code {code}: {said}"]
    return problems + lab.said_wrong(*lab.do(lambda: lab.study(str(store)), folder))


def _moment(store: Path, copy: Path) -> str:
    """Say what the process was doing when it was killed."""
    journals = list(copy.glob("*")) if copy.exists() else []
    if not (store / "mlflow.db").exists():
        return "making the store"
    if not journals:
        return "between runs, or before the first" if _begun(store) else "opening the store"
    folder = journals[0]
    if (folder / "closing.json").exists() or not (folder / "opening.json").exists():
        return "sending the run's end" if (folder / "steps.arrow").exists() else "beginning a run"
    return "training" if (folder / "steps.arrow").exists() else "beginning a run"


def _begun(store: Path) -> bool:
    return (store / "artifacts").exists()


def _look(store: Path, copy: Path, reference: Path) -> list[str]:
    """Compare what is in the store with the streams as they were when the process died."""
    problems = lab.general(store)
    full = lab.read_reference(reference)
    runs = {run.tags["sgdstudy.key"]: run for run in lab.stored(store)}
    for run in runs.values():
        problems += lab.truthful(store, run, full)
    for journal in copy.glob("*") if copy.exists() else []:
        flushed = lab.read_flushed(journal / "steps.arrow")
        if flushed is None:
            if (journal / "opening.json").exists() and journal.name not in runs:
                problems.append("a run that had begun is not in the store")
            continue
        kept = runs[journal.name].rows() if journal.name in runs else None
        if kept is None or not lab.same(kept, flushed):
            there = 0 if kept is None else kept.num_rows
            problems.append(f"{flushed.num_rows} rows were on the disk, {there} are in the store")
    loaded = lab.ss.load_steps(lab.STUDY, store=str(store)) if runs else []
    if len(loaded) != sum(_n_rows(run) for run in runs.values()):
        problems.append(f"load_steps gives {len(loaded)} rows")
    return problems


def _n_rows(run: lab.Stored) -> int:
    rows = run.rows()
    return 0 if rows is None else rows.num_rows


def sigkill_real(o: Options) -> Outcome:
    """The same with processes of their own, not forked."""
    outcome = Outcome(
        "the same, a Python process of its own",
        "`python -c ...` in a new session, killed after a random time from its first line of rows "
        "or earlier; then `python -m sgdstudy recover`",
    )
    rng = random.Random(lab.SEED + 1)
    for _ in range(1 if o.quick else 5):
        folder = o.folder("real")
        store = lab.new_store(o, folder)
        process = subprocess.Popen([sys.executable, "-c", CODE, str(store)], env=_environment())
        _wait_for_rows(store, process)
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        copy = Path(shutil.copytree(store / "streams", folder / "copy"))
        recovery = [sys.executable, "-m", "sgdstudy", "recover"]
        done = subprocess.run(
            [*recovery, "--store", str(store)], capture_output=True, text=True, env=_environment()
        )
        problems = lab.said_wrong(done.returncode, done.stdout + done.stderr)
        full = lab.reference(o)
        problems += lab.found_by(
            lambda store=store, copy=copy, full=full: _look(store, copy, full), folder
        )
        outcome.problems.append(problems)
    return outcome


def _wait_for_rows(store: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while not list(store.glob("streams/*/steps.arrow")) and process.poll() is None:
        assert time.monotonic() < deadline, "no rows within 90 s"
        time.sleep(0.01)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONWARNINGS": "ignore"}


def first_starts(o: Options) -> Outcome:
    """Eight processes that all begin where there is no store."""
    outcome = Outcome(
        "8 processes start at once where there is no store",
        "8 forked processes, released together; each opens the store and tracks a run",
    )
    for _ in range(1 if o.quick else 50):
        folder = o.folder("starts")
        store = folder / "store"
        begin = time.monotonic() + 0.3

        def run(i: int, store: Path = store, begin: float = begin) -> None:
            time.sleep(max(0.0, begin - time.monotonic()))
            opened = lab.recovery.start(str(store), print)
            invocation = lab.Invocation.start(opened, lab.STUDY)
            lab.train_arm(invocation, f"arm {i}", lab.arm(epochs=1), False)

        logs = [folder / str(i) for i in range(8)]
        for log in logs:
            log.mkdir()
        pids = [lab.start(lambda i=i, run=run: run(i), log) for i, log in enumerate(logs)]
        problems = []
        for pid, log in zip(pids, logs, strict=True):
            problems += lab.said_wrong(lab.end(pid), (log / "log.txt").read_text())
        problems += lab.found_by(lambda store=store: _eight(store), folder)
        outcome.problems.append(problems)
        shutil.rmtree(folder)
    return outcome


def _eight(store: Path) -> list[str]:
    problems = lab.general(store)
    found = sorted((run.name, run.status) for run in lab.stored(store))
    if found != [(f"arm {i}", "FINISHED") for i in range(8)]:
        problems.append(f"runs: {found}")
    steps = lab.ss.load_steps(lab.STUDY, store=str(store), invocation="all", columns=["loss"])
    if len(steps) != 8 * lab.SEEDS * lab.PER_EPOCH:
        problems.append(f"{len(steps)} rows")
    return problems
