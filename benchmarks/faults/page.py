"""The page that tells what is promised, and what the faults left of it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from lab import Outcome

HEAD = """# What is not lost, and how that was tried

*Written by `make faults` ({where}); the text around the table is part of
`benchmarks/faults/page.py`.*

**Promised.** Whatever ends a process, every block of rows that was handed to the disk (a chunk of
steps, followed by `fsync`) is in the run's Parquet file after the next command that writes. No run
stays RUNNING once its process is gone and such a command was typed on its machine; its status and
`stop_reason` say how it ended. A tracking server that goes away does not stop a training: what it
missed is kept on this machine and sent when it answers, or by `sgdstudy recover`, each point
exactly once. Rows keep NaN and infinities bit for bit.

**Data and caller.** A `Problem` has its own copy of the data, so that what the caller changes later
changes no run; maps of files and data beyond 256 MB stay where they are, every training looks at
a sample of them (64 stretches, a megabyte each), and refuses data that changed. Values are held
exactly (float64 where float32 does not), or refused. What the caller has set in torch or numpy
(default dtype and device, `no_grad`, `inference_mode`, autocast, anomaly mode, precision, threads,
`np.seterr`) changes no number and is as it was afterwards. A change of a large file between the
stretches, or while a run trains, is not seen.

**Not promised.** Steps of the chunk that was being computed are gone with their process; a chunk is
256 steps at first and never longer than all the steps before it. Of a loop of one's own that logs
a step at a time (`RunSink.log`), a kill loses what came within a second of the last block written;
any other end, an exception or Ctrl-C, writes that too. A study does not *begin* on a
server that does not answer: it says so in one line. Runs of another machine are closed only there.
A run whose folder under `streams/` was deleted is closed as KILLED, without rows. MLflow has no key
that makes creating a run repeatable: we look for the run before making it a second time, but a
request that something on the way holds back for longer than the time-out (20 s), and lets through
after we have looked, could make an empty second run. A power failure was not tried on hardware: we
rely on `fsync`. Network file systems were not tried.

## The faults

A trial is good when all of this holds, as far as it applies to the fault: the database passes
`integrity_check`; no run is RUNNING, none is there twice; no key has two points at a step; every
flushed row is in Parquet, and all rows are those of an undisturbed training, bit for bit; every
`batch/` point is the median of its rows; status and `stop_reason` are true; no traceback was shown.
Database and streams are read with `sqlite3` and `pyarrow`, not through the package. Random moments
come from seeded generators.

| fault | how it is injected | times | good | |
|---|---|---|---|---|
"""
TAIL = """
Most processes are forked from one that has imported torch and MLflow and opened nothing, which
saves seconds a trial; a row of the table does the same with processes of their own.

To run it: `make faults` (half an hour), `python benchmarks/faults/faults.py --quick` (minutes),
`--only sigkill outages` (some of them). `tests/test_faults.py` holds a shorter form.

## After a crash

Nothing has to be done. The next command that writes (`run`, `study`, `report`, `prune`, `ui`)
finishes what was left, and says so:

    finished 1 run that had been cut off

- `sgdstudy recover` does only that. The run is KILLED, `stop_reason` is `interrupted`, the tag
  `sgdstudy.last_step` says how far it came, and `ss.load_steps` gives its rows.
- Before that, `ss.load_steps` reads the rows of a run that was cut off from its stream.
- **The server was away**: `sgdstudy recover` sends what it missed; its exit code is 1 as long as it
  still does not answer. Rows wait in `$XDG_STATE_HOME/sgdstudy/streams` (`~/.local/state` by
  default), one folder a run.
- **The disk is full**: the study stops with one line and exit code 1. Free some space; the next
  command finishes the run. `sgdstudy prune --keep 1` frees what older invocations hold.
- **The database is locked**: end the program that holds it. A run waits 20 s for it, then goes on
  and keeps what it records; `sgdstudy recover` sends it.
- **A run of a machine that is gone** stays RUNNING: only its own machine can tell that it is dead.
  Set its status in the UI, or with `MlflowClient().set_terminated(run_id, "KILLED")`.

## Known weaknesses of the packages we build on

`pip-audit` compares `constraints.txt` with the published vulnerabilities. **There is no result
here**: the machine that this page was written on reaches a mirror of the package index only.
pip-audit {audit} was installed and run there both ways; the index's vulnerability data was not
answered (every package: "not found on PyPI and could not be audited"), nor could `api.osv.dev` be
resolved. Where there is a network:

    python -m pip install pip-audit
    pip-audit --requirement constraints.txt --no-deps --disable-pip
"""
AUDIT = "2.10.1"


def write(path: Path, outcomes: list[Outcome]) -> None:
    """Write the page."""
    where = (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, MLflow {version('mlflow')}"
    )
    rows = [_row(outcome) for outcome in outcomes]
    text = HEAD.format(where=where) + "\n".join(rows) + "\n" + TAIL.format(audit=AUDIT)
    path.write_text(text, encoding="utf-8")


def _row(outcome: Outcome) -> str:
    bad = sorted({problem for found in outcome.problems for problem in found})
    notes = [outcome.note, outcome.skipped and f"not run: {outcome.skipped}", *bad[:3]]
    cells = [outcome.fault, outcome.how, str(outcome.times), str(outcome.good)]
    cells.append("; ".join(note for note in notes if note))
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"
