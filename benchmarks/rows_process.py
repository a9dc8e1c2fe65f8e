"""Rows about the process: peak memory, time of `--help`."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from pathlib import Path

from measure import Goal, Line, Options, Ratio, Table, Worker, interleave

HELP = "sgdstudy --help"


def memory(o: Options) -> list[Table]:
    """Measure the peak memory of long tracked runs."""
    table = Table(
        "Peak memory of a tracked run, R=1",
        "MB",
        "The highest resident memory of a process that does nothing else; all steps recorded and "
        "streamed to disk, then made one Parquet file. Beside it: the process once torch, MLflow "
        "and sgdstudy are imported.",
    )
    counts = [100_000, 1_000_000] + [10_000_000] * o.full
    found: dict[int, float] = {}
    for n in counts:
        name = f"{n:,} steps"
        try:
            with Worker(o.folder("memory")) as worker:
                before = worker.call("rows_process:imported")
                folder = str(worker.folder / "store")
                answer = worker.call("rows_process:tracked_run", folder=folder, n_steps=n)
        except Exception as error:
            table.lines.append(Line(name, None, note=f"not measured: {error}", ours=True))
            continue
        if not found:
            table.lines.append(Line("imports alone", before))
        peak, seconds, rows = answer
        found[n] = peak
        more = peak / found[counts[0]]
        ratio = Ratio(more, more, more, f"{counts[0]:,} steps")
        note = f"{seconds:.1f} s, {rows:,} rows"
        table.lines.append(Line(name, peak, ratio if n != counts[0] else None, note, True))
    if counts[-1] in found and counts[0] in found:
        what = f"peak memory of {counts[-1]:,} steps over {counts[-2]:,} (bounded)"
        table.goals.append(Goal(what, 1.25, found[counts[-1]] / found[counts[-2]]))
    return [table]


def peak() -> float:
    """Return this process's highest resident memory so far, MB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count what the parent held when it started us
        words = next(line for line in status.read_text().splitlines() if "VmHWM" in line).split()
        return int(words[1]) / 1000
    import resource

    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def imported() -> float:
    """Import what a tracked run needs; return the peak so far, MB."""
    import mlflow
    import torch

    import sgdstudy.tracking.invocation

    del mlflow, torch, sgdstudy
    return peak()


def tracked_run(folder: str, n_steps: int) -> tuple[float, float, int]:
    """Track a run; return peak MB, seconds and recorded rows."""
    import pyarrow.parquet as pq

    import sgdstudy as ss
    from sgdstudy.studies.train_arms import train_arm
    from sgdstudy.tracking.invocation import Invocation
    from sgdstudy.tracking.store import open_store

    store = open_store(folder)
    arm = ss.Arm(
        ss.problems.curve(),
        optimizer="notebook",
        lr=2e-4,
        batch_size=10,
        epochs=n_steps // 200,
        record_rows=n_steps,
    )
    started = time.perf_counter()
    train_arm(Invocation.start(store, "memory"), "long", arm, progress=False)
    seconds = time.perf_counter() - started
    rows = sum(pq.read_metadata(f).num_rows for f in Path(folder).rglob("steps.parquet"))
    return peak(), seconds, rows


def help_time(o: Options) -> list[Table]:
    """Measure how long `sgdstudy --help` takes."""
    table = Table("Time of `sgdstudy --help`", "ms", "A new process each.")
    command = Path(sys.executable).with_name("sgdstudy")
    words = [str(command)] if command.exists() else [sys.executable, "-m", "sgdstudy"]
    contest = {"python -c pass": [sys.executable, "-c", "pass"], HELP: [*words, "--help"]}

    def once(line: list[str]) -> float:
        started = time.perf_counter()
        subprocess.run(line, capture_output=True, check=True)
        return 1e3 * (time.perf_counter() - started)

    runs = {name: functools.partial(once, line) for name, line in contest.items()}
    costs = interleave(runs, 5)
    table.lines += [costs.line(name, ours=name == HELP) for name in contest]
    for name in ("import torch", "import mlflow"):
        table.lines.append(Line(name, once([sys.executable, "-c", name]), note="once"))
    cost = costs.cost(HELP)
    seconds = None if cost is None else cost / 1e3
    spread = sorted(costs.values.get(HELP, [0.0]))
    table.goals.append(Goal(HELP, 0.5, seconds, spread[0] / 1e3, spread[-1] / 1e3, "s"))
    return [table]
