"""Do the predictions hold for other seeds than the first? Counts those that fail, by range.

    python benchmarks/seed_ranges.py --ranges 10

Each range is one `sgdstudy study` from another first seed, into a store of its own. Tolerances are
four standard errors, so that hardly any of the predictions should fail for any range.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass

import pandas as pd
import tyro

import sgdstudy as ss
from sgdstudy.studies.scripts import find_scripts
from sgdstudy.text import written

FAR = 1000  # seeds between two ranges: more than any study takes


@dataclass(frozen=True)
class Options:
    """How many ranges of seeds, and which."""

    ranges: int = 10
    """number of ranges"""
    first: int = 0
    """the first range: seeds from this times 1000"""


def claims_of_range(first_seed: int) -> pd.DataFrame:
    """Run every study from this seed on, and return all claims."""
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/mlruns"
        words = ["study", "--store", store, "--first-seed", str(first_seed), "--no-strict"]
        command = [sys.executable, "-m", "sgdstudy", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return pd.concat([ss.load_claims(name, store=store) for name in find_scripts()])


def main() -> None:
    """Run the ranges and print what fails."""
    o, total, failing = tyro.cli(Options), 0, 0
    for i in range(o.first, o.first + o.ranges):
        claims = claims_of_range(i * FAR)
        predictions = claims[claims["kind"] == "prediction"]
        failed = claims[claims["holds"].isin([False])]
        total += len(predictions)
        failing += len(failed)
        print(f"seeds from {i * FAR}: {len(predictions)} predictions, {len(failed)} claims fail")
        for c in failed.itertuples():
            what = f"expected {written(c.expected)} ± {written(c.tolerance)}"
            print(
                f"  {c.study}: {c.name} ({c.arm}): {what}, measured {written(c.measured)}",
                flush=True,
            )
    print(f"{failing} of {total} predictions fail over {o.ranges} ranges of seeds")


if __name__ == "__main__":
    main()
