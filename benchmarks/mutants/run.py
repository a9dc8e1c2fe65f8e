"""Plant small faults in the package, one at a time, and see whether its tests find them.

Command: python benchmarks/mutants/run.py [--jobs 2] [--only train]

A fault is caught when a test fails, or when the tests do not end in three times their usual time
and a minute. First come the tests that call the function it is in, the short ones first, in a fork
of a process that has collected them; what they do not catch is planted in a fresh process, and
survives when all tests of its files pass. A run of the whole table writes docs/mutants.md; with
`--json FILE` it may be done in pieces: outcomes that are in the file count as well, and a test that
found a fault earlier comes first. `--left` goes on with those not caught yet.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import plant
import pytest
import swap
import torch
import verdicts
from fault import ROOT, Fault
from table import faults

# imported once; each process is a fork of this one where the system can fork
LIBRARIES = "joblib matplotlib.pyplot mlflow mpmath pandas pyarrow.dataset scipy.linalg"
LIBRARIES += " scipy.optimize scipy.sparse.linalg scipy.stats sklearn.datasets safetensors torch"
LIBRARIES += " torch.func tqdm.auto"
METHOD = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
AT_LEAST = 60.0  # seconds that tests may take, and three times what they took without a fault
WITHOUT_WATCH = 1800.0  # the same of the tests of a file without a fault
DIED = -1  # in place of pytest's code
FOR_ALL = 24 * 3600.0
Table = Sequence[tuple[Fault, Sequence[str]]]
Task = tuple[Callable[[Path], None], float]  # writes an answer to a file; seconds it may take


def main() -> None:
    """Run the tests without a fault, then with each; print and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--only", nargs="+", default=[""], help="faults of files with such names")
    parser.add_argument("--left", action="store_true", help="those not yet caught in --json")
    parser.add_argument("--known", type=Path, help="what tests call: from this file if it is there")
    parser.add_argument("--json", type=Path, help="add the outcomes to those in this file")
    chosen = parser.parse_args()
    table = faults(chosen.only)
    if chosen.left and chosen.json:
        caught = {name for name, test in Ledger(chosen.json).read().items() if test}
        table = [(fault, files) for fault, files in table if verdicts.key(fault) not in caught]
    if not table:
        parser.error(f"no file of the table has {' or '.join(chosen.only)} in its name")
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as scratch:
        ledger = Ledger(chosen.json or Path(scratch) / "outcomes.json")
        pool = Pool(chosen.jobs, Path(scratch), chosen.known)
        if METHOD == "fork":
            table, known = quick(pool, table, ledger)
        else:
            known = baseline(pool, table)
        for fault, caught in judge(pool, table, known):
            ledger.add(fault, caught)
        outcomes = ledger.read()
    print(verdicts.summary([fault for fault, _ in faults(chosen.only)], outcomes))
    every = [fault for fault, _ in faults()]
    if all(verdicts.key(fault) in outcomes for fault in every):
        (ROOT / "docs" / "mutants.md").write_text(verdicts.text(every, outcomes), encoding="utf-8")
        print("written: docs/mutants.md")


@dataclass(frozen=True)
class Ledger:
    """The outcomes, in a file: several processes write it, one after the other."""

    path: Path

    def read(self) -> dict[str, str | None]:
        """Return what is known."""
        if not self.path.exists():
            return {}
        found: dict[str, str | None] = json.loads(self.path.read_text(encoding="utf-8"))
        return found

    def add(self, fault: Fault, caught: str | None) -> None:
        """Print and keep an outcome."""
        print(f"{'survived' if caught is None else 'caught':<9} {fault.file}: {fault.means}")
        print(f"          {caught or fault.reason or '?'}", flush=True)
        outcomes = self.read() | {verdicts.key(fault): caught}
        self.path.write_text(json.dumps(outcomes, indent=1), encoding="utf-8")


class Pool:
    """Runs tasks in processes, some at once."""

    def __init__(self, jobs: int, scratch: Path, known: Path | None) -> None:
        self.jobs, self.scratch, self.known = max(1, jobs), scratch, known
        self.context: Any = multiprocessing.get_context(METHOD)  # each has a Process
        for name in LIBRARIES.split() if METHOD == "fork" else ():
            importlib.import_module(name)

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yield each task's number and what came of it, as they end; None: over its limit."""
        waiting, running = list(enumerate(tasks))[::-1], dict[Any, tuple[Any, int, float, Path]]()
        while waiting or running:
            while waiting and len(running) < self.jobs:
                number, (work, limit) = waiting.pop()
                folder = Path(tempfile.mkdtemp(dir=self.scratch))
                answer = folder / "answer.json"
                process = self.context.Process(target=work, args=(answer,))
                process.start()
                end = time.monotonic() + limit
                running[process.sentinel] = process, number, end, answer
            soonest = min(end for _, _, end, _ in running.values())
            ready = wait(list(running), max(0.0, soonest - time.monotonic()))
            late = [s for s, (_, _, end, _) in running.items() if end <= time.monotonic()]
            for sentinel in {*ready, *late}:
                process, number, _, answer = running.pop(sentinel)
                _end(process)
                yield number, None if sentinel not in ready else _read(answer)
                shutil.rmtree(answer.parent, ignore_errors=True)


def _read(answer: Path) -> dict[str, Any]:
    """Return the answer of a process that has ended."""
    if answer.exists():
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found
    log = answer.with_suffix(".log")
    said = log.read_text(encoding="utf-8", errors="replace")[-300:] if log.exists() else ""
    return {"code": DIED, "failed": [f"the process died {said}"]}


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

    @classmethod
    def of_json(cls, found: dict[str, Any], items: Sequence[Any] = ()) -> Known:
        """Return what a file holds; of tests that it does not know, that they may call anything."""
        called = {test: set(names) for test, names in found["called"].items()}
        new = {item.nodeid for item in items} - set(called)
        return cls(found["seconds"] | dict.fromkeys(new, 0.0), called | {t: {"*"} for t in new})

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        called = {test: sorted(names) for test, names in self.called.items()}
        return {"seconds": self.seconds, "called": called}

    def of_files(self, files: Sequence[str]) -> dict[str, float]:
        """Return the seconds of the tests in these files, in the order of the files."""
        there = [(t.partition("::")[0], t) for t in self.seconds]
        return {t: self.seconds[t] for file in files for place, t in there if place == file}

    def that_call(self, fault: Fault, files: Sequence[str]) -> dict[str, float]:
        """Return the seconds of the tests that call the function a fault is in; {} outside of one.

        What is computed once for several tests (on import, or kept) counts for the first only.
        """
        if (function := enclosing(fault)) is None:
            return {}
        calls = {function, "*"}
        return {t: s for t, s in self.of_files(files).items() if calls & self.called[t]}


def enclosing(fault: Fault) -> str | None:
    """Return the innermost function around a fault, as `file:qualified name`; None outside."""
    lines, found = fault.lines(), list[str]()

    def look(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            below = name
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                full = f"{name}{child.name}"
                below = f"{full}." if isinstance(child, ast.ClassDef) else f"{full}.<locals>."
                around = child.body[0].lineno <= lines[0] <= (child.end_lineno or 0)
                if isinstance(child, ast.FunctionDef) and around:
                    found.append(full)
            look(child, below)

    look(ast.parse(fault.path.read_text(encoding="utf-8")), "")
    return f"{fault.file}:{found[-1]}" if found else None


def baseline(
    pool: Pool, table: Table, items: Sequence[Any] = (), there: swap.Functions | None = None
) -> Known:
    """Return what the tests do without a fault; end here unless all pass."""
    if pool.known and pool.known.exists():
        return Known.of_json(json.loads(pool.known.read_text(encoding="utf-8")), items)
    files = sorted({file for _, files in table for file in files})
    seconds: dict[str, float] = {}
    called: dict[str, set[str]] = {}
    started, red = time.monotonic(), list[str]()
    if items:
        files = [f for f in files if any(item.nodeid.startswith(f"{f}::") for item in items)]
        tasks = [_forked(_of(items, file), None, there or {}, WITHOUT_WATCH) for file in files]
    else:
        tasks = [(partial(plant.run, None, [file], None), WITHOUT_WATCH) for file in files]
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
    known = Known(seconds, called)
    if pool.known:
        pool.known.write_text(json.dumps(known.as_json()), encoding="utf-8")
    return known


def quick(pool: Pool, table: Table, ledger: Ledger) -> tuple[Table, Known]:
    """Judge what can be judged in forks of a process that has collected the tests.

    Returns:
        The faults that this did not catch, and what the tests do without a fault.
    """
    (_, found) = next(pool.run([(partial(_collect, pool, table, ledger), FOR_ALL)]))
    if found is None or found["code"]:
        sys.exit(1 if found is None else "\n".join(found["failed"]) or 1)
    caught = set(found["caught"])
    left = [(fault, files) for fault, files in table if verdicts.key(fault) not in caught]
    return left, Known.of_json(found)


def _collect(pool: Pool, table: Table, ledger: Ledger, answer: Path) -> None:
    """Collect the tests once, and fork for each fault."""
    plant.alone(answer)
    result: dict[str, Any] = {"code": 1, "failed": ["the tests cannot be collected"]}

    def work(items: list[Any]) -> None:
        for fault, _ in table:
            importlib.import_module(fault.module)
        torch.func.vmap(torch.sin)(torch.zeros(2))  # the first one imports much
        there = swap.functions()
        gc.freeze()  # the forks share what is here as long as no collection touches it
        known = baseline(pool, table, items, there)
        first = [(f, order) for f, files in table if (order := known.that_call(f, files))]
        before = ledger.read()  # a test that found one fault may well find another
        found_some = Counter(test for test in before.values() if test)
        tasks = []
        for fault, order in first:
            some, own = plant.by_length(items, order), before.get(verdicts.key(fault))
            tasks.append(_forked(some, fault, there, _limit(order), found_some, own))
        caught = []
        for number, found in pool.run(tasks):
            said = _caught(found, tasks[number][1])
            if said and not (found and found["code"] == DIED):  # a fork may die of something else
                ledger.add(first[number][0], said)
                caught.append(verdicts.key(first[number][0]))
                found_some[said] += 1
        result.update(known.as_json() | {"code": 0, "caught": caught})

    files = sorted({file for _, files in table for file in files})
    options = [*plant.OPTIONS, "-o", "addopts=--doctest-modules", "-p", "no:terminal", "-s"]
    pytest.main([*options, *files], plugins=[swap.Loop(work)])
    plant.finish(answer, result)


def _of(items: Sequence[Any], file: str) -> list[Any]:
    return [item for item in items if item.nodeid.startswith(f"{file}::")]


def _forked(
    items: list[Any],
    fault: Fault | None,
    there: swap.Functions,
    limit: float,
    first: Mapping[str, int] | None = None,
    own: str | None = None,
) -> Task:
    """Return the task to run collected tests in a fork.

    Args:
        items: the tests.
        fault: what is planted; None: nothing.
        there: the functions it may be in.
        limit: seconds they may take.
        first: how many faults some tests have found by then: these come first.
        own: the test that found this fault earlier: it comes before all.
    """

    def work(answer: Path) -> None:
        plant.alone(answer)
        swap.silence()
        some = first or {}
        order = sorted(items, key=lambda item: (item.nodeid != own, -some.get(item.nodeid, 0)))
        plant.finish(answer, swap.run_items(order, fault, there))

    return work, limit


def judge(pool: Pool, table: Table, known: Known) -> Iterator[tuple[Fault, str | None]]:
    """Yield each fault and the test that caught it in a fresh process; None: it survived."""
    tasks: list[Task] = []
    for fault, files in table:
        order = known.of_files(files)
        tasks.append((partial(plant.run, fault, files, order), _limit(order)))
    for number, found in pool.run(tasks):
        yield table[number][0], _caught(found, tasks[number][1])


def _limit(order: Mapping[str, float]) -> float:
    return AT_LEAST + 3 * sum(order.values())


def _caught(found: dict[str, Any] | None, limit: float) -> str | None:
    """Return what caught a fault; None if nothing did."""
    if found is None:
        return f"a hang: not at its end after {limit:.0f} s"
    if found["code"] in (0, 5):
        return None
    return str(found["failed"][0]) if found["failed"] else f"pytest ended with {found['code']}"


if __name__ == "__main__":
    main()
