"""The submissions of a class, each run in a process of its own, and the table of their verdicts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from sgdstudy.course.check import EXERCISES
from sgdstudy.errors import InputError, one_line
from sgdstudy.language import VARIABLE, language, say, speaking, to_say, unknown

START_SECONDS = 120.0  # in which Python and torch are there
SPARE = 3.0  # a process that does not end by itself is killed after so many times its limit
LOOK_SECONDS = 0.05
COLUMNS = ("file", "exercise", "verdict", "faults", "seconds", "lines")
WARNING = to_say(
    "Submissions are programs of other people: they run here with your rights, and can read, "
    "change and send whatever you can. Check them on a machine where nothing of value is."
)
VERDICTS = {
    "correct": to_say("correct"),
    "faults": to_say("has faults"),
    "not checked": to_say("could not be checked"),
    "stopped": to_say("was stopped"),
    "ended": to_say("ended by itself"),
}


@dataclass(frozen=True)
class Grade:
    """The verdict of one submission.

    Attributes:
        file: its name.
        exercise: that was checked.
        verdict: "correct", "faults", "not checked" (no such function), "stopped" (its time was
            over) or "ended" (it ended its own process).
        lines: what is wrong, one line each.
        seconds: that it took, from when it began.
    """

    file: str
    exercise: str
    verdict: str
    lines: tuple[str, ...]
    seconds: float

    def row(self) -> tuple[object, ...]:
        """Return it as a row of the table."""
        faults = len(self.lines) if self.verdict == "faults" else ""
        lines = " | ".join(self.lines)
        return self.file, self.exercise, self.verdict, faults, f"{self.seconds:.1f}", lines


def submissions(folder: Path, exercise: str) -> list[Path]:
    """Return the .py files of a folder.

    Raises:
        InputError: an unknown exercise, no such folder, or no file in it.
    """
    if exercise not in EXERCISES:
        raise unknown(to_say("exercise"), exercise, EXERCISES)
    if not folder.is_dir():
        raise InputError(say("there is no folder {folder}", folder=str(folder)))
    found = sorted(path for path in folder.glob("*.py") if path.is_file())
    if not found:
        text = to_say("there is no submission in {folder}: a .py file for each")
        raise InputError(say(text, folder=str(folder)))
    return found


def grade(files: list[Path], exercise: str, seconds: float, jobs: int) -> Iterator[Grade]:
    """Yield the verdicts of submissions, in their order.

    Each runs with our rights on this machine: a process of its own keeps it from the others and
    from us, not from the files.

    Args:
        files: the submissions.
        exercise: that they are for.
        seconds: the time limit of each.
        jobs: how many run side by side.
    """
    running: set[subprocess.Popen[bytes]] = set()
    spoken = language()  # threads do not know it
    with ThreadPoolExecutor(jobs) as pool, tempfile.TemporaryDirectory() as scratch:
        try:
            yield from pool.map(
                lambda numbered: _one(numbered, exercise, seconds, Path(scratch), running, spoken),
                enumerate(files),
            )
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                _kill(process)


def _one(
    numbered: tuple[int, Path], exercise: str, seconds: float, scratch: Path,
    running: set[subprocess.Popen[bytes]], spoken: str,
) -> Grade:  # fmt: skip
    number, file = numbered
    folder, result = scratch / str(number), scratch / f"{number}.json"
    folder.mkdir()
    words = [sys.executable, "-m", "sgdstudy.course.submission", str(file.resolve())]
    here = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [*words, exercise, str(seconds), str(result)],
        cwd=folder,
        env={**os.environ, VARIABLE: spoken, "PYTHONPATH": here, "MPLBACKEND": "Agg"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    running.add(process)
    took, over = _wait(process, result, seconds)
    _kill(process)
    running.discard(process)
    with speaking(spoken):
        verdict, lines = _read(result) or _without_result(took, over)
    return Grade(file.name, exercise, verdict, lines, took)


def _wait(process: subprocess.Popen[bytes], result: Path, seconds: float) -> tuple[float, bool]:
    """Wait for a submission; return how long it took, and whether its time was over."""
    began, limit = time.monotonic(), START_SECONDS
    while process.poll() is None:
        if limit == START_SECONDS and result.exists():
            began, limit = time.monotonic(), SPARE * seconds
        if time.monotonic() - began > limit:
            return time.monotonic() - began, True
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - began if limit != START_SECONDS else 0.0, False


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started."""
    with suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
    if hasattr(os, "killpg"):  # also those whose parent is gone
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _read(result: Path) -> tuple[str, tuple[str, ...]] | None:
    """Return the verdict and the lines that a submission's process has written, if it has."""
    try:
        found = json.loads(result.read_text(encoding="utf-8"))
        lines = tuple(one_line(str(line)) for line in found["lines"])
        return (str(found["verdict"]), lines) if found["verdict"] in VERDICTS else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _without_result(took: float, over: bool) -> tuple[str, tuple[str, ...]]:
    if not over:
        return "ended", (say("it ended its own process"),)
    line = say(
        "it does not end: its process was killed after {n} second",
        "it does not end: its process was killed after {n} seconds",
        n=round(took),
    )
    return "stopped", (line,)
