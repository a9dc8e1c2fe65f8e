"""Rows about sweeps: two processes beside one, and a resume that finds nothing to do."""

from __future__ import annotations

import subprocess
import sys
import time

from measure import Goal, Options, Table, interleave

SCALING = 1.7  # times as fast with two processes
ONE, TWO, RESUME = "1 process", "2 processes", "--resume of the finished one"


def sweep(o: Options) -> list[Table]:
    """Measure a sweep over the step size of Exercise 4, from the command line."""
    n = 60 if o.quick else 1000
    table = Table(
        f"A sweep of {n:,} configurations of Exercise 4",
        "s",
        "64 seeds each, 48 epochs; predictions, results and epochs tracked. `sgdstudy sweep` with "
        "a new store each, its start and its answer included; each once.",
    )
    words = [sys.executable, "-m", "sgdstudy", "sweep", "ex4_minibatch", "--seeds", "64"]
    words += ["--grid", f"lr=logspace(1e-5,2e-4,{n})", "epochs=48"]
    stores = {jobs: str(o.folder("sweep")) for jobs in (2, 1)}

    def run(jobs: int, *more: str) -> float:
        started = time.perf_counter()
        line = [*words, "--jobs", str(jobs), "--store", stores[jobs], *more]
        subprocess.run(line, capture_output=True, check=True)
        return time.perf_counter() - started

    costs = interleave({TWO: lambda: run(2), ONE: lambda: run(1)}, 1, warm_up=False)
    again = interleave({RESUME: lambda: run(2, "--resume")}, 1 if o.quick else 3, warm_up=False)
    table.lines += [costs.line(ONE, ours=True), costs.line(TWO, ONE, ours=True)]
    table.lines.append(again.line(RESUME, ours=True))
    if not o.quick:
        table.goals.append(Goal.of(f"{table.title}: 2 over 1", 1 / SCALING, costs.ratio(TWO, ONE)))
        table.goals.append(Goal(f"{table.title}, {TWO}", 600, costs.cost(TWO), unit="s"))
        table.goals.append(Goal(f"{table.title}, {RESUME}", 10, again.cost(RESUME), unit="s"))
    return [table]
