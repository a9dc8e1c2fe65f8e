"""Plant small faults in the package, one at a time, and see whether its tests find them.

Command: python benchmarks/mutants/run.py [--jobs 2] [--only trainer]

A fault is caught when a test fails, or when the tests do not end in three times their usual time
and a minute. First come the tests that call the function it is in, the short ones first; it
survives when all tests of its files pass. A run of the whole table writes docs/mutants.md; with
`--json FILE` it may be done in pieces: outcomes that are in the file count as well.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import page
import plant
from table import ROOT, Fault, faults

# imported once; each process is a fork of this one where the system can fork
LIBRARIES = "joblib matplotlib.pyplot mlflow mpmath pandas pyarrow.dataset scipy.linalg"
LIBRARIES += " scipy.optimize scipy.sparse.linalg scipy.stats sklearn.datasets safetensors torch"
LIBRARIES += " torch.func tqdm.auto"
METHOD = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
AT_LEAST = 60.0  # seconds that tests may take, and three times what they took without a fault
WITHOUT_WATCH = 600.0  # the same of the tests of a file without a fault


@dataclass(frozen=True)
class Task:
    """Tests to run in a process.

    Attributes:
        fault: what is planted; None: nothing.
        files: the test files.
        order: seconds by test; these only. None: all of them.
        limit: seconds after which the process is killed.
    """

    fault: Fault | None
    files: Sequence[str]
    order: dict[str, float] | None
    limit: float


def main() -> None:
    """Run the tests without a fault, then with each; print and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--only", default="", help="faults of files whose names hold this")
    parser.add_argument("--json", type=Path, help="add the outcomes to those in this file")
    chosen = parser.parse_args()
    table = faults(chosen.only)
    if not table:
        parser.error(f"no file of the table has {chosen.only!r} in its name")
    os.environ["OMP_NUM_THREADS"] = "1"
    outcomes = read(chosen.json)
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as scratch:
        pool = Pool(chosen.jobs, Path(scratch))
        known = baseline(pool, sorted({file for _, files in table for file in files}))
        for fault, caught in judge(pool, table, known):
            outcomes[page.key(fault)] = caught
            print(f"{'survived' if caught is None else 'caught':<9} {fault.file}: {fault.means}")
            print(f"          {caught or fault.reason or '?'}", flush=True)
            if chosen.json:
                chosen.json.write_text(json.dumps(outcomes, indent=1), encoding="utf-8")
    print(page.summary([fault for fault, _ in table], outcomes))
    every = [fault for fault, _ in faults()]
    if all(page.key(fault) in outcomes for fault in every):
        (ROOT / "docs" / "mutants.md").write_text(page.text(every, outcomes), encoding="utf-8")
        print("written: docs/mutants.md")


def read(path: Path | None) -> dict[str, str | None]:
    """Return the outcomes of an earlier run."""
    if path is None or not path.exists():
        return {}
    found: dict[str, str | None] = json.loads(path.read_text(encoding="utf-8"))
    return found


class Pool:
    """Runs tasks in processes, some at once."""

    def __init__(self, jobs: int, scratch: Path) -> None:
        self.jobs, self.scratch = max(1, jobs), scratch
        self.context = multiprocessing.get_context(METHOD)
        for name in LIBRARIES.split() if METHOD == "fork" else ():
            importlib.import_module(name)

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yield each task's number and what came of it, as they end; None: over its limit."""
        waiting, running = list(enumerate(tasks))[::-1], dict[Any, tuple[Any, int, float, Path]]()
        while waiting or running:
            while waiting and len(running) < self.jobs:
                number, task = waiting.pop()
                answer = self.scratch / f"{time.monotonic_ns()}.json"
                arguments = (task.fault, task.files, task.order, answer)
                process = self.context.Process(target=plant.run, args=arguments)
                process.start()
                end = time.monotonic() + task.limit
                running[process.sentinel] = process, number, end, answer
            soonest = min(end for _, _, end, _ in running.values())
            ready = wait(list(running), max(0.0, soonest - time.monotonic()))
            late = [s for s, (_, _, end, _) in running.items() if end <= time.monotonic()]
            for sentinel in {*ready, *late}:
                process, number, _, answer = running.pop(sentinel)
                _end(process)
                if sentinel not in ready:
                    yield number, None
                elif answer.exists():
                    yield number, json.loads(answer.read_text(encoding="utf-8"))
                else:
                    said = answer.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
                    yield number, {"code": 3, "failed": [f"the process died: {said[-300:]}"]}


def _end(process: Any) -> None:
    """End a process of ours, and what its tests have started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


@dataclass(frozen=True)
class Known:
    """What the tests do without a fault: seconds, and functions called, by test."""

    seconds: dict[str, float]
    called: dict[str, set[str]]

    def of_files(self, files: Sequence[str]) -> dict[str, float]:
        """Return the seconds of the tests in these files."""
        return {t: s for t, s in self.seconds.items() if t.partition("::")[0] in files}

    def that_call(self, fault: Fault, files: Sequence[str]) -> dict[str, float]:
        """Return the seconds of the tests that call the function a fault is in; {} outside of one.

        A session's fixtures are called by the first that uses them only.
        """
        if (function := enclosing(fault)) is None:
            return {}
        return {t: s for t, s in self.of_files(files).items() if function in self.called[t]}


def enclosing(fault: Fault) -> str | None:
    """Return the innermost function around a fault, as `file:line`; None outside of one."""
    first, last = fault.lines()
    tree = ast.parse(fault.path.read_text(encoding="utf-8"))
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.body[0].lineno <= first
        if last - 1 <= (node.end_lineno or 0) and first <= (node.end_lineno or 0)
    ]
    if not around:
        return None
    inner = max(around, key=lambda node: node.lineno)
    return f"{fault.file}:{min([inner.lineno, *(d.lineno for d in inner.decorator_list)])}"


def baseline(pool: Pool, files: Sequence[str]) -> Known:
    """Return what the tests do without a fault; end here unless all pass."""
    seconds: dict[str, float] = {}
    called: dict[str, set[str]] = {}
    started, red = time.monotonic(), list[str]()
    tasks = [Task(None, [file], None, WITHOUT_WATCH) for file in files]
    for number, found in pool.run(tasks):
        if found is None or found["code"] not in (0, 5):  # 5: no tests in it
            red += [f"{files[number]}: {found['failed'] if found else 'no end'}"]
            continue
        seconds |= found["seconds"]
        called |= {test: set(names) for test, names in found["called"].items()}
    if red:
        sys.exit("without a fault these fail, so that nothing can be said:\n" + "\n".join(red))
    took = time.monotonic() - started
    print(f"without a fault: {len(seconds)} tests pass ({took:.0f} s)", flush=True)
    return Known(seconds, called)


def judge(
    pool: Pool, table: Sequence[tuple[Fault, Sequence[str]]], known: Known
) -> Iterator[tuple[Fault, str | None]]:
    """Yield each fault and the test that caught it; None: it survived."""
    first, missed = [], []
    for fault, files in table:
        if order := known.that_call(fault, files):
            first.append((fault, files, order))
        else:
            missed.append((fault, files))
    tasks = [_task(fault, sorted({t.partition("::")[0] for t in o}), o) for fault, _, o in first]
    for number, found in pool.run(tasks):
        fault, files, _ = first[number]
        if caught := _caught(found, tasks[number].limit):
            yield fault, caught
        else:
            missed.append((fault, files))
    tasks = [_task(fault, files, known.of_files(files)) for fault, files in missed]
    for number, found in pool.run(tasks):
        yield missed[number][0], _caught(found, tasks[number].limit)


def _task(fault: Fault, files: Sequence[str], order: dict[str, float]) -> Task:
    return Task(fault, files, order, AT_LEAST + 3 * sum(order.values()))


def _caught(found: dict[str, Any] | None, limit: float) -> str | None:
    """Return what caught a fault; None if nothing did."""
    if found is None:
        return f"a hang: not at its end after {limit:.0f} s"
    if found["code"] in (0, 5):
        return None
    return str(found["failed"][0]) if found["failed"] else f"pytest ended with {found['code']}"


if __name__ == "__main__":
    main()
