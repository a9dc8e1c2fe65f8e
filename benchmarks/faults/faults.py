"""Injure tracked runs in every way we know, many times; see what is left.

Command: python benchmarks/faults/faults.py [--quick] [--only NAME ...]

A run of all faults that is not `--quick` writes docs/reliability.md. With `--json FILE` it may be
done in pieces: the outcomes that are in the file count as well.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import crowd
import disk
import ends
import kills
import lab
import mutations
import outages
import page
import places
import played
import power
from lab import Options, Outcome

DOCS = lab.ROOT / "docs"
FAULTS: dict[str, Callable[[Options], Outcome]] = {
    "sigkill": kills.sigkill,
    "sigkill-real": kills.sigkill_real,
    "first-starts": kills.first_starts,
    "ends": ends.ends,
    "others": ends.others,
    "values": ends.values,
    "full-disk": disk.full_disk,
    "file-limit": disk.too_large,
    "disk-fails": played.disk_fails,
    "power": power.cuts,
    "damaged": mutations.mutated,
    "locked": disk.locked,
    "moved": places.moved,
    "read-only": places.mounted,
    "users": places.shared,
    "network": places.network,
    "two-resumes": crowd.two_resumes,
    "outages": outages.outages,
    "bad-answers": outages.bad_answers,
    "writers": crowd.writers,
    "ten-thousand": crowd.ten_thousand,
}


def main() -> None:
    """Inject the faults that were asked for, and print each outcome as it is known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few trials of each")
    parser.add_argument("--only", nargs="+", choices=FAULTS, help="these faults only")
    parser.add_argument("--json", type=Path, help="add the outcomes to those in this file")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    lab.warm_up()
    outcomes = read(chosen.json)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        options = Options(chosen.quick, Path(scratch))
        for name in chosen.only or FAULTS:
            started = time.monotonic()
            outcomes[name] = outcome = inject(name, options)
            verdict = outcome.skipped or f"{outcome.good} of {outcome.times} good"
            print(
                f"{name:<16} {verdict}  {outcome.note}  ({time.monotonic() - started:.0f} s)",
                flush=True,
            )
            for problem in sorted({p for found in outcome.problems for p in found})[:10]:
                print(f"    {problem}", flush=True)
            if chosen.json:
                found = {name: asdict(outcome) for name, outcome in outcomes.items()}
                chosen.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if chosen.quick or set(outcomes) != set(FAULTS):
        print("only a run of all faults that is not --quick is written to docs/")
    else:
        page.write(DOCS / "reliability.md", [outcomes[name] for name in FAULTS])
        print("written: docs/reliability.md")


def read(path: Path | None) -> dict[str, Outcome]:
    """Return the outcomes of an earlier run."""
    if path is None or not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {name: Outcome(**fields) for name, fields in found.items()}


def inject(name: str, options: Options) -> Outcome:
    """Return a fault's outcome; a trial that could not be carried out counts as a bad one."""
    try:
        return FAULTS[name](options)
    except Exception as error:
        return Outcome(name, "", [[f"not carried out: {type(error).__name__}: {error}"]])


if __name__ == "__main__":
    main()
