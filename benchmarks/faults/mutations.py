"""Files of a store that were damaged: nothing of them is read as numbers that are others."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import ends
import lab
import pandas as pd
from lab import Options, Outcome

KINDS = ("a bit", "64 zeros", "cut", "a block twice")
UNHARMED = (".png", ".lock", ".html", ".py")  # nobody takes numbers from them
EPOCHS = "4"


def mutated(o: Options) -> Outcome:
    """Damage one file; load, export, report and recover; compare what is given with what was."""
    outcome = Outcome(
        "a file of the store was damaged",
        f"{', '.join(KINDS)}, at a random place of a random file: Parquet, JSON, text of a run "
        "that ended; streams, JSON of one that was killed; then `load_steps`, "
        "`load_epochs`, `load_claims`, `report`, `recover`, `load_steps`: the same numbers, or one "
        "line",
    )
    rng = random.Random(lab.SEED + 8)
    folder = o.folder("mutated")
    world = _world(o, folder)
    refused = 0
    for _ in range(8 if o.quick else 300):
        trial = folder / "trial"
        shutil.copytree(world, trial)
        paths = sorted(p for p in trial.glob("store/*/**/*") if _concerned(p))
        path = rng.choice(paths)
        kind = rng.choice(KINDS)
        _damage(path, kind, rng)
        for left in trial.glob("store/streams/*"):
            os.utime(left, (0, 0))
        code, said = lab.do(lambda t=trial: _use(t, world), trial)
        problems = lab.said_wrong(code, said)
        problems += [line for line in said.splitlines() if line.startswith("WRONG")]
        outcome.problems.append([f"{path.name}, {kind}: {problem}" for problem in problems])
        refused += "refused" in said
        shutil.rmtree(trial)
    outcome.note = f"{refused} refused"
    return outcome


def _concerned(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0 and path.suffix not in UNHARMED


def _world(o: Options, folder: Path) -> Path:
    """Return a folder with a store of a finished study and of one that was killed."""
    world = folder / "world"
    world.mkdir()
    store = lab.new_store(o, world)
    done = lab.do(ends.run_script(o, folder, store), folder, FAULT="", EPOCHS=EPOCHS)
    assert done[0] == 0, done
    pid = lab.start(ends.run_script(o, folder, store), folder, FAULT="", EPOCHS="3000")
    ends.wait_for_rows(store)
    time.sleep(0.5)
    lab.kill(pid)
    done = lab.do(lambda: _keep(world), folder)
    assert done[0] == 0, done
    return world


def _keep(world: Path) -> None:
    """Write down what a sound store gives."""
    store = world / "store"
    for invocation in {run.tags["sgdstudy.invocation"] for run in lab.stored(store)}:
        for load in (lab.ss.load_steps, lab.ss.load_epochs, lab.ss.load_claims):
            found = load("cut_off", store=str(store), invocation=invocation)
            found.to_parquet(world / f"{load.__name__}-{invocation}.parquet")


def _damage(path: Path, kind: str, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    if kind == "a bit":
        content[at] ^= 1 << rng.randrange(8)
    elif kind == "64 zeros":
        content[at : at + 64] = bytes(len(content[at : at + 64]))
    elif kind == "cut":
        del content[at:]
    else:
        content[at:at] = content[max(0, at - 512) : at]
    path.write_bytes(content)


def _use(trial: Path, world: Path) -> None:
    """Use a damaged store as people do; say what was refused, and what was wrong."""
    store, ss = str(trial / "store"), lab.ss

    def compare(load: Any, **given: Any) -> None:
        try:
            found = load("cut_off", store=store, **given)
        except ss.InputError as error:
            print("refused:", error)
            return
        expected = pd.read_parquet(world / f"{load.__name__}-{given['invocation']}.parquet")
        if not found.equals(expected):
            print(f"WRONG: {load.__name__} gives other values")

    every = [run.tags["sgdstudy.invocation"] for run in lab.stored(world / "store")]
    for invocation in dict.fromkeys(every):
        for load in (ss.load_steps, ss.load_epochs, ss.load_claims):
            compare(load, invocation=invocation)
    for words in (["report", "--out", str(trial / "report.html")], ["recover"]):
        try:
            lab.main.main([*words, "--store", store])
        except SystemExit as error:
            if error.code:
                print("refused:", words[0])
    _whole_prefix(store, world, every)


def _whole_prefix(store: str, world: Path, invocations: list[str]) -> None:
    """What `recover` kept of the run that was killed is how its rows began."""
    for invocation in dict.fromkeys(invocations):
        try:
            found = lab.ss.load_steps("cut_off", store=store, invocation=invocation)
        except lab.ss.InputError as error:
            print("refused:", error)
            continue
        expected = pd.read_parquet(world / f"load_steps-{invocation}.parquet")
        if found.empty:  # all of them were damaged, or none written: `recover` said so
            continue
        for seed, rows in found.groupby("seed"):
            first = expected[expected.seed == seed].iloc[: len(rows)]
            if not rows.reset_index(drop=True).equals(first.reset_index(drop=True)):
                print("WRONG: what was kept is not how the rows began")
