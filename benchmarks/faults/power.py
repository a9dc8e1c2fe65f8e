"""The power fails: what a disk holds at a moment is all there is; on a disk in a file."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lab
from lab import Options, Outcome

SIZE = 64 * 1024 * 1024
ARMS = 3
LATEST = 10.0  # seconds after the end of the study


def cuts(o: Options) -> Outcome:
    """Copy the disk of a study at a random moment, and go on with the copy."""
    outcome = Outcome(
        f"the power fails during a study of {ARMS} arms, or up to {LATEST:.0f} s after its end",
        "the store lies on ext4 on a loop device; its file is copied while the study is stopped "
        "(SIGSTOP), every second time after its end; the copy is mounted; `sgdstudy recover` there",
    )
    if os.getuid() != 0 or not _can_loop(o):
        outcome.skipped = "only root can mount a loop device"
        return outcome
    rng = random.Random(lab.SEED + 7)
    folder = o.folder("power")
    life = _life(o, folder / "life")
    lost = 0
    for trial in range(2 if o.quick else 30):
        after = trial % 2 == 1
        seconds = rng.uniform(0, (1.0 if o.quick else LATEST) if after else life)
        problems = _cut(o, folder / str(trial), seconds, after)
        lost += any("rows" in problem for problem in problems)
        outcome.problems.append(problems)
    outcome.note = f"{lost} with rows lost"
    return outcome


def _cut(o: Options, folder: Path, seconds: float, after: bool) -> list[str]:
    image = folder / "image"
    with _disk(folder, new=True) as place:
        store = lab.new_store(o, place)
        os.sync()
        pid = lab.start(lambda: _study(store), folder)
        if after:
            code = lab.end(pid)
            time.sleep(seconds)
        else:
            _wait_until_open(folder / "log.txt")
            time.sleep(seconds)
            code = 0
            found, _ = os.waitpid(pid, os.WNOHANG)
            if not found:
                os.kill(pid, signal.SIGSTOP)
        ended = (folder / "log.txt").read_text().count("ended")
        cut = folder / "cut"
        cut.mkdir()
        subprocess.run(["cp", "--sparse=always", image, cut / "image"], check=True)
        if not after and not found:
            lab.kill(pid)
    problems = [f"exit code {code}"] * (code != 0)
    with _disk(cut) as place:
        store = place / "store"
        problems += lab.said_wrong(*lab.do(lab.command("recover", "--store", str(store)), cut))
        full = lab.reference(o)
        problems += lab.found_by(lambda: _look(store, full, ended), cut)
    shutil.rmtree(folder)
    return problems


def _study(store: Path) -> None:
    lab.small_chunks()
    opened = lab.recovery.start(str(store), print)
    print("opened", flush=True)
    call = lab.Invocation.start(opened, lab.STUDY)
    for i in range(ARMS):
        lab.train_arm(call, f"arm {i}", lab.arm(), False)
        print("ended", flush=True)  # told to somebody who is not on that disk


def _life(o: Options, folder: Path) -> float:
    with _disk(folder, new=True) as place:
        store = lab.new_store(o, place)
        begun = time.monotonic()
        code, said = lab.do(lambda: _study(store), folder)
        assert code == 0, said
        return time.monotonic() - begun


def _look(store: Path, reference: Path, ended: int) -> list[str]:
    """Compare what is there with what was told to have ended before."""
    problems = lab.general(store)
    full = lab.read_reference(reference)
    runs = lab.stored(store)
    problems += [p for run in runs for p in lab.truthful(store, run, full)]
    whole = [run for run in runs if run.status == "FINISHED"]
    problems += [f"{run.name} is finished without its rows" for run in whole if run.rows() is None]
    if len(whole) < ended:
        problems.append(f"{ended} arms had ended, {len(whole)} are finished: rows are lost")
    return problems


def _wait_until_open(log: Path) -> None:
    deadline = time.monotonic() + 60
    while not log.exists() or "opened" not in log.read_text():
        assert time.monotonic() < deadline, "the study did not begin"
        time.sleep(0.01)


@contextmanager
def _disk(folder: Path, new: bool = False) -> Iterator[Path]:
    """Mount the disk that a file of a folder is; make it first where it is new."""
    image, place = folder / "image", folder / "disk"
    place.mkdir(parents=True)
    if new:
        with open(image, "wb") as file:
            file.truncate(SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def _can_loop(o: Options) -> bool:
    try:
        with _disk(o.folder("loop") / "try", new=True):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
