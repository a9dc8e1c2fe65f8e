"""A disk that is full, a database that somebody else holds."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ends
import lab
from lab import Options, Outcome

MB = 1_000_000
EPOCHS = "120"  # 5 MB of rows
HELD_SECONDS = 3.0


def full_disk(o: Options) -> Outcome:
    """Run a study on a disk too small for it; then make room."""
    outcome = Outcome(
        "the disk is full",
        "`sgdstudy run SCRIPT` on a tmpfs of a random size, 0.2 to 7 MB more than an empty store; "
        "`sgdstudy recover` there; the tmpfs is made larger; `sgdstudy recover`",
    )
    if os.getuid() != 0 or not _can_mount(o):
        outcome.skipped = "only root can mount a tmpfs"
        return outcome
    rng = random.Random(lab.SEED + 4)
    for _ in range(1 if o.quick else 10):
        folder = o.folder("full")
        with _tmpfs(folder / "disk", 64 * MB) as disk:
            store = lab.new_store(o, disk)
            used = _used(disk)
            _resize(disk, used + int(rng.uniform(0.2, 7) * MB))
            action = ends.run_script(o, folder, store)
            done = lab.do(action, folder, FAULT="", EPOCHS=EPOCHS)
            shutil.copytree(store / "streams", folder / "copy")
            recovered = lab.do(lab.command("recover", "--store", str(store)), folder)
            problems = lab.said_wrong(*recovered, (0, 1))
            _resize(disk, 64 * MB)
            problems += _stopped(folder, store, *done)
            outcome.problems.append(problems)
    return outcome


def too_large(o: Options) -> Outcome:
    """Run a study that may not write files as large as it needs."""
    outcome = Outcome(
        "no file may grow any more (`RLIMIT_FSIZE`)",
        "`sgdstudy run SCRIPT` with a limit of 1.8 to 5.5 MB a file, SIGXFSZ ignored; then "
        "`sgdstudy recover` without the limit",
    )
    rng = random.Random(lab.SEED + 5)
    for _ in range(1 if o.quick else 5):
        folder = o.folder("large")
        store = lab.new_store(o, folder)
        limit = int(rng.uniform(1.8, 5.5) * MB)
        action = _limited(limit, ends.run_script(o, folder, store))
        done = lab.do(action, folder, FAULT="", EPOCHS=EPOCHS)
        shutil.copytree(store / "streams", folder / "copy")
        outcome.problems.append(_stopped(folder, store, *done))
        shutil.rmtree(folder)
    return outcome


def _limited(limit: int, action: Callable[[], None]) -> Callable[[], None]:
    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        action()

    return limited


def _stopped(folder: Path, store: Path, code: int, said: str) -> list[str]:
    """Return what is wrong with how a study stopped, and with what the next command makes of it.

    `folder/copy` holds the streams as the study left them.
    """
    problems = lab.said_wrong(code, said, (0, 1))
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    if code == 1 and len(lines) != 1:
        problems.append(f"not one line: {said[-300:]}")
    done = lab.do(lab.command("recover", "--store", str(store)), folder)
    problems += lab.said_wrong(*done)
    status = "FINISHED" if code == 0 else "KILLED"
    return problems + lab.found_by(lambda: _kept(store, folder / "copy", status), folder)


def _kept(store: Path, copy: Path, status: str) -> list[str]:
    problems = lab.general(store)
    runs = {run.tags["sgdstudy.key"]: run for run in lab.stored(store)}
    for journal in copy.glob("*"):
        flushed = lab.read_flushed(journal / "steps.arrow")
        kept = runs[journal.name].rows() if journal.name in runs else None
        if flushed is not None and (kept is None or not lab.same(kept, flushed)):
            there = 0 if kept is None else kept.num_rows
            problems.append(f"{flushed.num_rows} rows were on the disk, {there} are in the store")
    allowed = {"FINISHED", "FAILED", status}
    wrong = [run.status for run in runs.values() if run.status not in allowed]
    return problems + [f"a run is {found}" for found in wrong]


def _can_mount(o: Options) -> bool:
    folder = o.folder("mount")
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True)
    if done.returncode == 0:
        subprocess.run(["umount", folder], check=True)
    return done.returncode == 0


@contextmanager
def _tmpfs(folder: Path, size: int) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _resize(folder: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


def _used(folder: Path) -> int:
    usage = os.statvfs(folder)
    return (usage.f_blocks - usage.f_bfree) * usage.f_frsize


# ---- a database that somebody else holds ------------------------------------------------------


def locked(o: Options) -> Outcome:
    """Hold the database for a while, or until the study has ended."""
    outcome = Outcome(
        "the database is locked by another program",
        f"another process holds `BEGIN EXCLUSIVE`: for {HELD_SECONDS:.0f} s from before the start; "
        "from before the start, or from the training on, until the study has ended (then "
        "`sgdstudy recover`)",
    )
    for _ in range(1 if o.quick else 3):
        outcome.problems.append(_held_a_while(o))
        outcome.problems.append(_held_for_good(o, from_start=False))
        if not o.quick:
            outcome.problems.append(_held_for_good(o, from_start=True))
    return outcome


def _held_a_while(o: Options) -> list[str]:
    folder = o.folder("locked")
    store = lab.new_store(o, folder)
    holder = _holder(folder, store, HELD_SECONDS)
    code, said = lab.do(lambda: lab.study(str(store), 1), folder)
    lab.end(holder)
    lines = [line for line in said.splitlines() if "locked" in line]
    problems = lab.said_wrong(code, said) + [f"it spoke of a lock: {lines}"] * bool(lines)
    return problems + lab.found_by(lambda: _finished(store, lab.reference(o)), folder)


def _held_for_good(o: Options, from_start: bool) -> list[str]:
    folder = o.folder("locked")
    store = lab.new_store(o, folder)
    holder = _holder(folder, store, 300.0) if from_start else 0
    pid = lab.start(lambda: lab.study(str(store), 1), folder)
    if not from_start:
        ends.wait_for_rows(store)
        holder = _holder(folder, store, 300.0)
    code, said = lab.end(pid), (folder / "log.txt").read_text()
    lab.kill(holder)
    lines = [line for line in said.splitlines() if "locked" in line]
    problems = lab.said_wrong(code, said) + [f"not one line: {lines}"] * (len(lines) != 1)
    problems += lab.said_wrong(*lab.do(lab.command("recover", "--store", str(store)), folder))
    return problems + lab.found_by(lambda: _finished(store, lab.reference(o)), folder)


def _holder(folder: Path, store: Path, seconds: float) -> int:
    """Start the process that holds the database; return its number once it does."""
    pid = lab.start(lambda: _hold(store, seconds), folder)
    deadline = time.monotonic() + 30
    while "held" not in _read(folder / "log.txt"):
        assert time.monotonic() < deadline, "the database could not be locked"
        time.sleep(0.005)
    return pid


def _hold(store: Path, seconds: float) -> None:
    connection = sqlite3.connect(store / lab.DATABASE, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    print("held", flush=True)
    time.sleep(seconds)
    connection.execute("ROLLBACK")


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _finished(store: Path, reference: Path) -> list[str]:
    problems = lab.general(store)
    full = lab.read_reference(reference)
    runs = lab.stored(store)
    problems += [p for run in runs for p in lab.truthful(store, run, full)]
    found = [(run.name, run.status) for run in runs]
    return problems + [f"runs: {found}"] * (found != [("arm 0", "FINISHED")])
