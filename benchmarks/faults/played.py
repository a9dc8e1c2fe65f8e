"""A disk that is played: from its k-th call on, what writes to it fails, whoever calls.

`failing.c` stands before libc (LD_PRELOAD), so this file is also a program: it tries the commands
in a process that has it, and writes what it found.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import random
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import disk
import lab
from lab import Options, Outcome

from sgdstudy.tracking import journal, scratch

SOURCE = Path(__file__).with_name("failing.c")
ROOM, NAMES, SYNC = 1, 2, 4  # as in failing.c
FOR_GOOD = 10**9
KINDS = {  # which calls fail, with which error, how many of them
    "full": (ROOM, errno.ENOSPC, FOR_GOOD),
    "broken": (ROOM | NAMES | SYNC, errno.EIO, FOR_GOOD),
    "broken once": (ROOM | NAMES | SYNC, errno.EIO, 1),
    "read-only": (ROOM | NAMES, errno.EROFS, FOR_GOOD),
}
ROWS = 2 * 2 * 3 * 20  # arms, seeds, epochs, steps
SCRIPT = '''"""Is it kept?"""

import sgdstudy as ss


class Options(ss.Options):
    seeds: int = 2


def arms(o):
    same = {"lr": 1e-4, "batch_size": 100, "epochs": 3, "optimizer": "notebook", "engine": "eager"}
    for name in ("one", "two"):
        yield name, ss.Arm(ss.problems.curve(), "", seeds=o.seed_range(), **same)


def claims(o, runs):
    return []


def answer(o, runs, claims):
    return "It is."


STUDY = ss.study(__name__)
'''
STORE, OTHER, OUT = "disk/mlruns", "disk/other", "disk/out"
IN_STORE = ["--store", STORE]
SWEEP = ["sweep", "kept.py", "--seeds", "2", "--jobs", "1", *IN_STORE, "--grid"]
COMMANDS = {
    "run": ["run", "kept.py", *IN_STORE],
    "sweep": [*SWEEP, "lr=2e-4,3e-4"],
    "sweep --resume": [*SWEEP, "lr=1e-4,2e-4", "--resume"],
    "report": ["report", *IN_STORE, "--out", f"{OUT}/report.html"],
    "export": ["export", "kept", *IN_STORE, "--folder", f"{OUT}/exported", "--force"],
    "pack": ["pack", "kept", f"{OUT}/runs.zip", *IN_STORE],
    "unpack": ["unpack", "packed.zip", "--store", OTHER],
    "prune": ["prune", "--keep", "1", "--yes", *IN_STORE],
    "recover": ["recover", *IN_STORE],
}
LATE_IMPORTS = (
    "sgdstudy.report.report",
    "sgdstudy.sweeps.sweep",
    "sgdstudy.tracking.export",
    "sgdstudy.tracking.pack",
    "sgdstudy.tracking.prune",
)


def disk_fails(o: Options) -> Outcome:
    """Try every command on a disk that fails from some call on; then on one that works."""
    outcome = Outcome(
        "the disk fails at the k-th call that writes: full, broken for good or once, read-only",
        f"a library before libc, so that SQLite and Arrow meet it too; {', '.join(COMMANDS)}, with "
        "random k; what was there stays, what is written is whole or not at all; then `sgdstudy "
        "recover` and the same command on a disk that works",
    )
    library = o.scratch / "failing.so"
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    except (OSError, subprocess.CalledProcessError):
        outcome.skipped = "there is no C compiler"
        return outcome
    told = o.scratch / "played.json"
    words = [sys.executable, __file__, str(o.folder("played")), str(told), "1" if o.quick else "4"]
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONWARNINGS": "ignore"}
    subprocess.run(words, check=True, env=environment)
    outcome.problems = json.loads(told.read_text())
    return outcome


# ---- in a process that has the library -----------------------------------------------------------


def main() -> None:
    """Try the commands; the arguments are a folder, a file for the outcomes, and how many."""
    warnings.simplefilter("ignore")
    lab.warm_up()
    for name in LATE_IMPORTS:
        importlib.import_module(name)
    o, times = Options(False, Path(sys.argv[1])), int(sys.argv[3])
    only = sys.argv[4:] or list(COMMANDS)
    world = _world(o)
    rng = random.Random(lab.SEED + 6)
    found = []
    for i, name in enumerate(only):
        kinds = list(KINDS) if times > 1 else [list(KINDS)[(i + j) % len(KINDS)] for j in range(2)]
        for kind in kinds:
            n = _calls(o, world, name, kind)
            for k in sorted(rng.sample(range(n), min(times, n))):
                problems = _trial(o, world, name, kind, k)
                found.append([f"{name}, {kind}, call {k} of {n}: {text}" for text in problems])
                for line in found[-1]:
                    print(line, file=sys.stderr, flush=True)
    Path(sys.argv[2]).write_text(json.dumps(found))


def _world(o: Options) -> Path:
    """Return a project's folder with a store that has runs, results of commands, and a dead run."""
    world = o.folder("world")
    (world / "kept.py").write_text(SCRIPT)
    (world / OUT).mkdir(parents=True)
    lab.new_store(o, world / "disk").rename(world / STORE)
    shutil.copytree(world / STORE, world / OTHER)
    first = [COMMANDS[name] for name in ("run", "run", "report", "export", "pack")]
    for words in [*first[:2], [*SWEEP, "lr=1e-4"], *first[2:]]:
        code, said = lab.do(_command(world, words), o.folder("log"))
        assert code == 0, said
    shutil.copy(world / OUT / "runs.zip", world / "packed.zip")
    pid = lab.start(lambda: lab.study(str(world / STORE)), o.folder("log"))
    disk.ends.wait_for_rows(world / STORE)
    lab.kill(pid)
    return world


def _command(world: Path, words: list[str]) -> Callable[[], None]:
    def action() -> None:
        os.chdir(world)
        journal.PATIENCE_SECONDS, scratch.MADE_SECONDS = 0.2, 0.0
        lab.main.main(words)

    return action


def _failing(world: Path, words: list[str], kind: str, k: int, count: Path) -> Callable[[], None]:
    """Return a command on a disk that fails at the k-th call; it tells how many there were."""
    concerned, number, times = KINDS[kind]

    def action() -> None:
        library = ctypes.CDLL(None)
        library.calls.restype = ctypes.c_long
        place = ctypes.c_char_p(str(world / "disk").encode())
        library.fails(place, ctypes.c_long(k), ctypes.c_long(times), concerned, number)
        try:
            _command(world, words)()
        finally:
            count.write_text(str(library.calls()))

    return action


def _copy(o: Options, world: Path) -> Path:
    return Path(shutil.copytree(world, o.folder("trial") / "world"))


def _calls(o: Options, world: Path, name: str, kind: str) -> int:
    """Return how many calls of a command may fail."""
    place = _copy(o, world)
    count = place.parent / "calls"
    code, said = lab.do(_failing(place, COMMANDS[name], kind, FOR_GOOD, count), place.parent)
    assert code == 0, said
    found = int(count.read_text())
    shutil.rmtree(place.parent)
    return found


def _trial(o: Options, world: Path, name: str, kind: str, k: int) -> list[str]:
    """Return what is wrong after a command on a disk that failed, and after it was mended."""
    place = _copy(o, world)
    folder, words = place.parent, COMMANDS[name]
    before = _files(place / "disk")
    code, said = lab.do(_failing(place, words, kind, k, folder / "calls"), folder)
    problems = lab.said_wrong(code, said, (0, 1, 2))
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    told = name in ("run", "recover") or name.startswith("sweep")  # runs that wait, in their lines
    least = code == 2 or (code == 1 and not told)
    problems += [f"not one line: {said[-300:]}"] * (not least <= len(lines) <= (code != 0))
    problems += _touched(place, before, name)
    for store in (STORE, OTHER):
        if (place / store / "streams").exists():
            shutil.copytree(place / store / "streams", folder / "copy", dirs_exist_ok=True)
        for left in (place / store).glob("streams/*"):
            os.utime(left, (0, 0))  # begun long ago
        recovered = lab.do(_command(place, ["recover", "--store", store]), folder)
        problems += lab.said_wrong(*recovered)
    problems += lab.found_by(lambda: _kept(place, folder / "copy", name != "prune"), folder)
    again = [*words, *["--resume"] * (name == "sweep")]
    problems += lab.said_wrong(*lab.do(_command(place, again), folder))
    problems += lab.found_by(lambda: _whole(place, name), folder)
    problems += [f"{left} is left over" for left in _left(place, before)]
    shutil.rmtree(folder)
    return problems


def _files(folder: Path) -> dict[str, bytes]:
    """Return the files of a disk, but for databases and what is going on."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        changes = path.name.startswith((lab.DATABASE, ".lock")) or "/streams/" in name
        if path.is_file() and not changes:
            found[name] = path.read_bytes()
    return found


def _touched(place: Path, before: dict[str, bytes], name: str) -> list[str]:
    """Return which of the files that were there are neither what they were nor whole."""
    now, problems = _files(place / "disk"), []
    for file, content in before.items():
        if file not in now and not (name in ("prune", "sweep --resume") and "/artifacts/" in file):
            problems.append(f"{file} is gone")
        elif file in now and now[file] != content:
            said = _half(place / "disk" / file)
            problems += [f"{file}: {said}"] * bool(said)
    return problems


def _half(path: Path) -> str:
    """Return what is wrong with a file that a command wrote anew."""
    if path.suffix == ".html":
        return "" if path.read_bytes().rstrip().endswith(b"</html>") else "half a page"
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as file:
            return "damaged" if file.testzip() else ""
    return "" if path.suffix == ".csv" else "it is another file now"


def _kept(place: Path, copy: Path, whole: bool) -> list[str]:
    """Return what is wrong once the disk works again: with stores, with rows that were there.

    Not `whole`: files of runs that are being dropped may be gone, until that is done again.
    """
    problems = []
    for store in (STORE, OTHER):
        problems += lab.general(place / store)
        problems += [f"{path} is set aside" for path in (place / store).glob("aside/*")]
        for run in lab.stored(place / store):
            journal, rows = copy / run.tags["sgdstudy.key"], _rows(place / store, run)
            flushed = lab.read_flushed(journal / "steps.arrow")
            if flushed is not None and rows < flushed.num_rows:
                problems.append(f"{run.name}: {flushed.num_rows} rows were on the disk, now {rows}")
            arm = run.name in ("one", "two") and run.status == "FINISHED"
            if whole and arm and 2 * rows != ROWS:
                problems.append(f"{run.name} is finished with {rows} rows")
    return problems


def _rows(store: Path, run: lab.Stored) -> int:
    moved = replace(run, folder=store.joinpath(*run.folder.parts[-4:]))
    rows = moved.rows()
    return 0 if rows is None else rows.num_rows


def _whole(place: Path, name: str) -> list[str]:
    """Return what is wrong with the outcome of a command that was given again."""
    problems = []
    store = str(place / (OTHER if name == "unpack" else STORE))
    if name in ("run", "unpack"):
        runs, rows = lab.ss.load_runs("kept", store=store), lab.ss.load_steps("kept", store=store)
        problems += [f"runs: {list(runs.status)}"] * (list(runs.status) != ["FINISHED"] * 2)
        problems += [f"{len(rows)} rows"] * (len(rows) != ROWS)
    if name.startswith("sweep"):
        found = lab.ss.load_runs("kept_sweep", store=store).set_index("lr").status.to_dict()
        wanted = (1e-4, 2e-4) if name.endswith("--resume") else (2e-4, 3e-4)
        problems += [f"combinations: {found}"] * (found != dict.fromkeys(wanted, "FINISHED"))
    if name in ("report", "pack"):
        file = place / OUT / {"report": "report.html", "pack": "runs.zip"}[name]
        problems += [_half(file)] * bool(_half(file))
    if name == "export":
        rows = len((place / OUT / "exported" / "steps.csv").read_text().splitlines())
        problems += [f"{rows} lines of steps"] * (rows != ROWS + 1)
    if name == "prune":
        left = [run.name for run in lab.stored(Path(store)) if run.tags["sgdstudy.study"] == "kept"]
        problems += [f"left: {left}"] * (sorted(left) != ["answer", "one", "two"])
    return problems + lab.general(Path(store))


def _left(place: Path, before: dict[str, bytes]) -> list[str]:
    """Return the files that nobody needs any more."""
    found = _files(place / "disk").keys() - before.keys()
    return sorted(x for x in found if "/artifacts/" not in x and "/writing/" not in x)


if __name__ == "__main__":
    main()
