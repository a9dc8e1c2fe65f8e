"""Rows about logging 12 quantities a step, and writing them to disk."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import peers_log
from measure import Bar, Costs, Goal, Line, Options, Ratio, Table, Worker, interleave
from rows_step import in_us, us
from store import SETTINGS, new_store

import sgdstudy as ss
from sgdstudy.history.history import History
from sgdstudy.history.rows import Rows
from sgdstudy.history.stream import ArrowStream
from sgdstudy.recipe.own_columns import METRICS
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.journal import Journal
from sgdstudy.tracking.sink import RunSink

MLFLOW = ("mlflow.log_metrics", "mlflow log_batch, 1,000 points a call")
BLOCKS, SINGLY = "in blocks", "one at a time"
LOGGING = (
    "From the first value to the end of what closes or flushes. Peers get a dict a step. Ours "
    "both ways: *one at a time*, the same dicts to `RunSink.log`, which writes them to disk "
    "every second; *in blocks* of up to 65,536 steps, as our trainer hands them over. Every "
    "step goes to disk (Arrow while it runs, then Parquet as an artifact), chosen points of 5 "
    "quantities to MLflow. *to_parquet + log_artifact* keeps a list of dicts, and writes it "
    "when all is over: nothing is on disk before, and MLflow draws no chart. Peers whose steps "
    "cost the same throughout are measured on fewer: 6,000 of W&B, 2,000 of TensorBoard, 1,000 "
    "of log_batch, 60 of log_metrics."
)
Parts = dict[int, list[float]]  # by number of steps, seconds


def logging(o: Options) -> list[Table]:
    """Measure logging 12 quantities a step against the number of steps."""
    table = Table("Logging 12 quantities a step", "us per step", LOGGING)
    counts = [1_000, 10_000, 100_000] + [1_000_000] * (not o.quick)
    long = min(counts[-1], 100_000) // (5 if o.quick else 1)
    costs, parts, contest = _logged(o, counts, long)
    for name in contest:
        mine = name.startswith("ours")
        table.lines.append(in_us(costs.line(name, "" if mine else _name(100_000), ours=mine)))
    table.lines += _mlflows_part(parts)
    table.goals += _goals(costs, parts, f"Trackio, {long:,} steps")
    for name in (_name(counts[-1]), _name(10_000), *contest[len(counts) + 2 :]):
        bar = Bar("logging 12 quantities", name, us(costs.cost(name)), name.startswith("ours"))
        table.bars.append(bar)
    return [table]


def _logged(o: Options, counts: list[int], long: int) -> tuple[Costs, Parts, list[str]]:
    """Return what logging took, MLflow's part of ours, and the names of all contestants."""
    store, client = new_store(o)
    invocation = Invocation.start(store, "log")
    history = ss.train("curve", epochs=1, **SETTINGS, progress=False)
    parts: Parts = {n: [] for n in counts}

    def ours(n: int, log: Callable[[Journal, History, int], float]) -> float:
        with invocation.run("log", "", {}, metrics=METRICS) as journal:
            client.take()
            seconds = log(journal, history, n)
            if log is in_blocks:
                parts[n].append(client.take())
        return seconds / n

    contest: dict[str, Callable[[], float]] = {}
    for n in counts:
        contest[_name(n)] = functools.partial(ours, n, in_blocks)
    for n in counts[:3]:
        contest[_name(n, SINGLY)] = functools.partial(ours, n, one_at_a_time)
    with Worker(o.folder("loggers")) as worker:
        contest |= _loggers(worker, long, 1 if o.quick else 2)
        costs = interleave(contest, 1 if o.quick else 3)
    return costs, {n: each[1:] for n, each in parts.items()}, list(contest)  # the first warmed up


def _mlflows_part(parts: Parts) -> list[Line]:
    base, found = min(parts), []
    for n, each in parts.items():
        seconds = median(each)
        ratio = Ratio.of(each, parts[base], f"that of {base:,} steps") if n != base else None
        name, note = f"of this in MLflow, {n:,} steps", f"{seconds:.3f} s a run"
        found.append(Line(name, 1e6 * seconds / n, ratio, note, True))
    return found


def _goals(costs: Costs, parts: Parts, flush: str) -> list[Goal]:
    ratio, most = costs.ratio, max(parts)
    bounded = Ratio.of(parts[most], parts[10_000], "")
    name = "100,000 steps {}: ours over Trackio"
    return [
        Goal.of(name.format(BLOCKS), 1, ratio(_name(100_000), flush)),
        Goal.of(name.format(SINGLY), 1, ratio(_name(100_000, SINGLY), flush)),
        Goal.of("10,000 steps: ours over log_metrics", 0.01, ratio(_name(10_000), MLFLOW[0])),
        Goal.of(f"MLflow's part of {most:,} steps over that of 10,000 (bounded)", 2, bounded),
    ]


def _name(n: int, how: str = BLOCKS) -> str:
    return f"ours, {n:,} steps {how}"


def _loggers(worker: Worker, long: int, scale: int) -> dict[str, Callable[[], float]]:
    @functools.cache
    def uri() -> str:
        return str(worker.call("peers_train:prepare_store", folder=str(worker.folder)))

    def call(name: str, **arguments: Any) -> float:
        return float(worker.call(f"peers_log:{name}", **arguments))

    return {
        f"Trackio, {long:,} steps": functools.partial(call, "trackio", n_steps=long),
        **{
            f"{how} to_parquet + log_artifact, {long:,} steps": lambda how=how: call(
                "mlflow_parquet", n_steps=long, uri=uri(), how=how
            )
            for how in ("pandas", "pyarrow")
        },
        "W&B offline": functools.partial(call, "wandb", n_steps=3_000 * scale),
        "TensorBoard": functools.partial(call, "tensorboard", n_steps=1_000 * scale),
        MLFLOW[0]: lambda: call("mlflow_log_metrics", n_steps=60, uri=uri()),
        MLFLOW[1]: lambda: call("mlflow_log_batch", n_steps=500 * scale, uri=uri()),
    }


def blocks(n: int) -> list[Rows]:
    """Return n steps of 12 quantities as the trainer hands them over, chunks growing."""
    values, made, first = peers_log.values(n), [], 0
    while first < n:
        last = min(n, first + min(max(256, first), 65_536))
        step = np.arange(first, last)[:, None]
        whole: dict[str, np.ndarray] = {
            "seed": np.zeros((1, 1), np.int64),
            "epoch": (1 + step // 200).astype(np.int32),
        }
        whole |= {"batch": (step % 200).astype(np.int32), "step": step}
        columns = {k: values[first:last, i, None] for i, k in enumerate(peers_log.NAMES)}
        made.append(Rows({**whole, **columns}, np.ones(step.shape, bool)))
        first = last
    return made


def in_blocks(journal: Journal, history: History, n: int) -> float:
    """Log n steps as a tracked run does; return seconds."""
    rows = blocks(n)
    started = time.perf_counter()
    sink = RunSink(journal)
    for block in rows:
        sink.write("steps", block)
    sink.finish(history)
    return time.perf_counter() - started


def one_at_a_time(journal: Journal, history: History, n: int) -> float:
    """Log n steps as a loop of one's own does, a dict each; return seconds."""
    rows = peers_log.rows(n)
    started = time.perf_counter()
    sink = RunSink(journal)
    for step, row in enumerate(rows):
        sink.log(row, step=step)
    sink.finish(history)
    return time.perf_counter() - started


def disk(o: Options) -> list[Table]:
    """Measure writing rows to disk."""
    n = 20_000 if o.quick else 100_000
    table = Table(
        "Writing rows to disk",
        "us per row",
        f"{n:,} rows of 12 quantities and their seed, epoch, batch and step. Ours: an Arrow stream "
        "as they come, then one Parquet file of it.",
    )
    rows = blocks(n)
    frame = pd.concat([block.batch().to_pandas() for block in rows])
    folder = o.folder("disk")

    def ours() -> float:
        started = time.perf_counter()
        stream = ArrowStream(o.folder("stream"))
        for block in rows:
            stream.write("steps", block)
        stream.close()
        stream.to_parquet("steps", stream.folder / "steps.parquet")
        return (time.perf_counter() - started) / n

    def other(write: Callable[[Path], None]) -> float:
        started = time.perf_counter()
        write(folder / "rows")
        return (time.perf_counter() - started) / n

    contest = {
        "ours, both files": ours,
        "pandas to_parquet": lambda: other(lambda path: frame.to_parquet(path)),
        "pandas to_csv": lambda: other(lambda path: frame.to_csv(path, index=False)),
    }
    costs = interleave(contest, o.repeats)
    first = next(iter(contest))
    for name in contest:
        table.lines.append(in_us(costs.line(name, first, ours=name == first)))
    return [table]
