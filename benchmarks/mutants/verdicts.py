"""docs/mutants.md: how many faults were caught, and which were not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fault import Fault

Outcomes = Mapping[str, str | None]
HEAD = """# Faults planted in the code

`make mutants` (or `python benchmarks/mutants/run.py`) plants small faults in the package, one at a
time, and runs the tests of that module: a wrong sign, a mean that is a sum, an epoch too many, a
weight forgotten. Each is one that a person could make, and each changes results by more than
rounding; `benchmarks/mutants/of_*.py` lists them. A fault is caught when a test fails, or when the
tests do not end in three times their usual time and a minute. `make test` checks that every fault
still fits its file.

Why a table, not mutmut or cosmic-ray: they vary every operator and every number of every line, here
of about eight thousand lines. Most variants crash, or change a message or a rounding, and each that
survives has to be judged by a person. A fault of the table has a meaning from the beginning: one
phrase says what would be wrong.
"""


def key(fault: Fault) -> str:
    """Return what an outcome is kept under."""
    return f"{fault.file}: {fault.old} -> {fault.new}"


def summary(faults: Sequence[Fault], outcomes: Outcomes) -> str:
    """Return one line."""
    caught = sum(outcomes[key(fault)] is not None for fault in faults)
    return f"{caught} of {len(faults)} faults are caught ({caught / len(faults):.1%})"


def text(faults: Sequence[Fault], outcomes: Outcomes) -> str:
    """Return the page."""
    lines = [HEAD, f"{summary(faults, outcomes)}.", "", "| module | faults | caught |"]
    lines.append("|---|---:|---:|")
    for area in sorted({fault.area for fault in faults}):
        here = [fault for fault in faults if fault.area == area]
        caught = sum(outcomes[key(fault)] is not None for fault in here)
        lines.append(f"| `{area}` | {len(here)} | {caught} |")
    lost = [fault for fault in faults if outcomes[key(fault)] is None]
    lines += ["", "## What survives", ""]
    if not lost:
        return "\n".join([*lines, "Nothing.", ""])
    lines += [
        "| where | instead of | stands | what is wrong | why no test says so |",
        "|---" * 5 + "|",
    ]
    for fault in lost:
        cells = (fault.file, fault.old, fault.new, fault.means, fault.reason or "a missing test")
        where, old, new, means, reason = (" ".join(c.split()).replace("|", "\\|") for c in cells)
        lines.append(f"| {where} | `{old}` | `{new}` | {means} | {reason} |")
    return "\n".join([*lines, ""])
