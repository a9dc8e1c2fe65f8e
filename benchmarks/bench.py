"""Measure us beside our peers: one run, one table.

Command: python benchmarks/bench.py [--quick] [--full] [--only ROW ...]

A run of all rows that is not `--quick` writes docs/benchmark.md and docs/benchmark.png.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import report
import rows_cockpit
import rows_log
import rows_networks
import rows_process
import rows_step
import rows_sweep
import rows_track
import torch
from measure import Goal, Options, Table, reason
from rich.console import Console

ROWS: dict[str, Callable[[Options], list[Table]]] = {
    "step": rows_step.step,
    "jax": rows_step.jax,
    "networks": rows_networks.networks,
    "run": rows_track.run,
    "log": rows_log.logging,
    "disk": rows_log.disk,
    "read": rows_track.reading,
    "diagnostics": rows_step.diagnostics,
    "cockpit": rows_cockpit.cockpit,
    "samples": rows_step.samples,
    "memory": rows_process.memory,
    "help": rows_process.help_time,
    "sweep": rows_sweep.sweep,
}
DOCS = Path(__file__).resolve().parent.parent / "docs"


def main() -> None:
    """Run the rows that were asked for, and print each as it is done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="shorter runs, under 3 minutes")
    parser.add_argument("--full", action="store_true", help="a run of 10 million steps too")
    parser.add_argument("--only", nargs="+", choices=ROWS, help="these rows only")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    console, started = Console(width=None if os.isatty(1) else 150), time.perf_counter()
    tables: list[Table] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        options = Options(chosen.quick, chosen.full, Path(scratch))
        for name in chosen.only or ROWS:
            begun = time.perf_counter()
            found = measure(name, options)
            for table in found:
                report.show(console, table)
            console.print(f"row {name}: {time.perf_counter() - begun:.0f} s\n", style="dim")
            tables += found
    goals: list[Goal] = [goal for table in tables for goal in table.goals]
    report.show_goals(console, goals)
    seconds = time.perf_counter() - started
    console.print(f"{seconds / 60:.1f} minutes")
    if chosen.quick or chosen.only:
        console.print("only a run of all rows that is not --quick is written to docs/")
        return
    report.write(DOCS, tables, seconds)
    console.print("written: docs/benchmark.md, docs/benchmark.png")


def measure(name: str, options: Options) -> list[Table]:
    """Return a row's tables; one that says why, where the row itself failed."""
    try:
        return ROWS[name](options)
    except Exception as error:
        return [Table(f"Row {name}", "", f"Not measured: {reason(error)}.")]


if __name__ == "__main__":
    main()
