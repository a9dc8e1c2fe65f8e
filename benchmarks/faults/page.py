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
exactly once. Rows keep NaN and infinities bit for bit. A store is the folder that its database lies
in, wherever that was moved or copied to: nothing outside it is read, written or deleted, whatever
its database or a symbolic link says; what is mounted within a run's folder is not deleted, and a
folder with a database of its own is another store. A database that is replaced between two calls of
a program is opened anew. Reading makes, changes and locks nothing. **The power may fail**: a run's
folder under `streams/` goes when its Parquet files, the folders that name them and the database are
on the disk (`fsync`), of a sweep a group of runs at a time. **What was damaged on the disk is not
read as numbers**: Parquet files, streams, checkpoints, the JSON files of a run that goes on, an
answer's claims, text and figures carry checksums (CRC-32: of every column of a row group, of the
footer, of every block of a stream and those before it, of all of a smaller file; those of a run's
Parquet files and of an answer are its tags too, and a stream's begin with the key of its run, so
that no file of another run passes for its own), and what is read is compared with them. Nothing
makes MLflow's database tell: SQLite has no checksums of its pages. One command at a time writes to
an invocation; `prune` leaves it alone then, also where the other begins while `prune` asks. A file
of a store is a file: links and pipes are named and neither followed nor waited for. **What a
command writes for you** (`report`, `pack`,
`export`, `grade`, `guesses`) is there whole or not at all, what was there stays until then, and
nothing of another kind is written over.

**Data and caller.** A `Problem` has its own copy of the data, so that what the caller changes later
changes no run; maps of files and data beyond 256 MB stay where they are, every training looks at
a sample of them (64 stretches, a megabyte each), and refuses data that changed. Values are held
exactly (float64 where float32 does not), or refused. What the caller has set in torch or numpy
(default dtype and device, `no_grad`, `inference_mode`, autocast, anomaly mode, precision, threads,
modes of dispatch and functions, hooks on saved tensors, on all modules and on all optimisers,
`np.seterr`) changes no number and is as it was afterwards. A change of a large file between the
stretches, or while a run trains, is not seen.

**Not promised.** Steps of the chunk that was being computed are gone with their process; a chunk is
256 steps at first (of quick compiled ones up to 4096) and never longer than all the steps before
it, without a stop rule than three times as many. Of a loop of one's own that logs a step at a time
(`RunSink.log`), a kill loses what came within a second of the last block written; any other end, an
exception or Ctrl-C, writes that too. A study does not *begin* on a server that does not answer: it
says so in one line. Runs of another machine are closed only there,
of one of the same name too: a machine knows its earlier starts by the file `starts` beside its
`streams/`.
A run whose folder under `streams/` was deleted is closed as KILLED, without rows. MLflow has no key
that makes creating a run repeatable: we look for the run before making it a second time, but a
request that something on the way holds back for longer than the time-out (20 s), and lets through
after we have looked, could make an empty second run. A power failure was tried on copies of a loop
device (below), and on a played disk that keeps nothing but what was synced
(`tests/tracking/test_power.py`); not on hardware: a disk that says it has written what it has not
may lose it. Runs of a sweep that ended within the last second are trained again. A byte that
is gone from the last block of a stream whose process was killed reads as a block that was being
written then, whose rows nobody counted. Files of versions
before the checksums are read as they are. Network file systems were not tried.

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

Nothing has to be done. The next command that writes (`run`, `study`, `sweep`, `prune`, `ui`)
finishes what was left, and says so:

    finished 1 run that had been cut off

- `sgdstudy recover` does only that. The run is KILLED, `stop_reason` is `interrupted`, the tag
  `sgdstudy.last_step` says how far it came, and `ss.load_steps` gives its rows.
- Before that, `ss.load_steps` reads the rows of a run that was cut off from its stream.
- **A stream is damaged**: `ss.load_steps` refuses it in one line. `recover` closes the run with
  the rows before the damage, says how many are missing (also the tag `sgdstudy.damaged`), and keeps
  the stream as it is among the run's artifacts, as `steps.arrow.damaged`.
- **A Parquet file is damaged**:
  `load_*` and `export` name it, and `rerun` refuses before it trains; restore the file from a
  backup, or run the study again. A file that another program wrote anew has lost its checksums and
  is refused too.
- **Another command writes to this sweep**: wait until it ends. On a server the lock is a tag of the
  experiment; one whose writer was killed on another machine is watched for 20 s, then taken over.
- Worker processes end within a second when the command that started them is killed. A Ctrl-C or
  SIGTERM to it is handed on to them: their arms stop after a chunk, and are saved.
- **The server was away**: `sgdstudy recover` sends what it missed; its exit code is 1 as long as it
  still does not answer. Rows wait in `$XDG_STATE_HOME/sgdstudy/streams` (`~/.local/state` by
  default), one folder a run.
- **The store refuses a run** (deleted in the UI while it trained, a right was taken away), or
  a server fails at it three times and takes others: the run is set aside, under `aside/` beside
  `streams/`, with its reason, and slows nothing down. `sgdstudy recover` lists these and tries them
  again, `sgdstudy recover --discard KEY` drops one.
- **The server answers nonsense** (500, 503 with a page, 429, a page or garbage with 200, nothing,
  a byte now and then): each call ends in time, each command in one line. A run is dropped here only
  when the server, asked again, has its status, its points and its files.
- **It answers without end**, or with a small file that inflates to a large one: no call reads more
  than 64 MB after inflation (of an artifact, its listed size on top), and says so in one line.
- **It does not know us any more** (401, 403 in the middle of a run): the run is closed on it when
  it takes us again, by the next command or by `sgdstudy recover`; until then it is set aside here.
- **The same server under another address**: `sgdstudy recover` takes spellings for the same
  (`localhost` and `127.0.0.1`, a name in the address, a port that goes without saying), and says
  for which other addresses runs of this machine wait.
- **The disk is full**: the study stops with one line and exit code 1. Free some space; the next
  command finishes the run. `sgdstudy prune --keep 1` frees what older invocations hold, and works
  on a full disk: files go first, and the database gets smaller after. Reading works too.
- **Memory, threads or open files are short** (`ulimit`, a container): one line, exit code 1 or 2.
  Nothing is taken for damaged or refused: `recover` leaves the run as it is, and finishes it once
  there is enough. Rows that would not fit are refused before they are read; `export` writes them in
  parts.
- **The disk fails or is read-only** in the middle of a command: one line, exit code 1 or 2. Once it
  works, the next command finishes the run; a sweep goes on with `--resume`; what `unpack` had not
  finished is unpacked from its file again.
- **The store was moved or copied**: nothing has to be done. A copy of the database alone, beside
  the original, shares its files. A database may have another name. A store of two paths (a bind
  mount, containers) is one store. A run that trains stops with one line within a chunk. A copy by
  hard links (`cp -al`) is the same database, and is refused when something is to be written.
- **An experiment has a place of its own in MLflow** (`artifact_location`), outside of the store:
  it stays there, and a study of its name is refused in one line.
- **A function forks**: the new process ends where it comes back to us, with a line if it did not
  call `sys.exit`; one that closes files which are not its own stops the run with a line.
- **Files are missing** of a run that had ended: `load_*`, `export`, `pack` and `report` name it,
  and `rerun` refuses before it trains. Put its folder back below `artifacts/`, or name other arms.
- **A copy of a run's folder** lies in `streams/`: under another name it is named and left alone; an
  older one of a run that has ended is set aside, and writes over nothing.
- **Another user's store** that cannot be written is refused when it is opened, with the mend; what
  is in it can be read.
- **The database is locked**: end the program that holds it. A run waits 20 s for it, then goes on
  and keeps what it records; `sgdstudy recover` sends it. `prune` waits as long, then ends in one
  line: each run is whole or gone.
- **Whatever becomes of its lines, a study runs to its end**: standard output that is closed, full,
  a pipe that nobody reads, or of an encoding without the character. Exit code 1 says that lines are
  lost; one that was closed before it began (`>&-`) is as `/dev/null`, no loss. A figure, a table
  or `show` that fails is named in a line and left out; `--strict` ends with exit code 1 then.
- **A worker was killed**: the study or the sweep ends in one line within seconds, also where the
  worker was handing back a result; `--resume` goes on.
- **One run, answer or picture is not as we write it** (damaged, or written by somebody else): it is
  named, and the others go on. `recover` sets a run that it cannot finish aside; a report says what
  it leaves out, and bounds number and size of pictures and texts; rows are estimated before they
  are read, and refused in one line where they would take more than half of the free memory;
  `export` writes long runs in parts. `rerun` runs only scripts of the present `experiments/`, or
  one named by `--script`.
- **A run of a machine that is gone** stays RUNNING: only its own machine can tell that it is dead,
  and only while its state folder is there. Set its status in the UI, or with
  `MlflowClient().set_terminated(run_id, "KILLED")`.

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
