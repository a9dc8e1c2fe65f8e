"""Rows about a whole tracked run, and reading it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import work
from measure import Bar, Costs, Goal, Line, Options, Table, Worker, interleave
from rows_step import NOTEBOOK, in_us, us
from store import SETTINGS, new_store

import sgdstudy as ss
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.store import open_store

EX4_STEPS = 9_600  # 48 epochs, as the notebook prints
EX6_STEPS = 24_000  # 120 epochs, where Exercise 6 ends at the latest


def run(o: Options) -> list[Table]:
    """Measure a fully tracked run of Exercise 4, end to end."""
    table = Table(
        "A fully tracked run, end to end",
        "us per step",
        "Exercise 4: one seed, 48 epochs of 200 steps. Ours: predicted, trained, every step in "
        "Parquet, chosen points, params, tags and data set in MLflow, in a store made before. The "
        "peers' steps cost the same throughout, so they are measured on fewer: 200 with "
        "`mlflow.log_metrics` of 5 keys a step, 1,000 of Lightning and 200 where its MLFlowLogger "
        "logs 5 keys a step, 60 to 1,000 of Cockpit, which keeps its quantities in memory. Making "
        "the store and imports are counted for nobody. *Compiling included*: a new process each.",
    )
    store, client = new_store(o)
    invocation = Invocation.start(store, "ex4")
    curve = ss.problems.curve()
    stop = {"stop": ("running", 0.1), "epochs": 50, "seeds": [0], **SETTINGS}
    in_mlflow: list[float] = []

    def tracked() -> float:
        client.take()
        started = time.perf_counter()
        history = train_arm(invocation, "descent", ss.Arm(curve, **stop), progress=False)[1]
        assert int(history.n_steps[0]) == EX4_STEPS
        in_mlflow.append(client.take())
        return (time.perf_counter() - started) / EX4_STEPS

    with Worker(o.folder("tracked")) as worker:
        contest = _tracked_peers(worker, curve, stop, tracked, 2 if o.quick else 5)
        costs = interleave(contest, 1 if o.quick else 5)
    fresh = interleave({FRESH: functools.partial(_fresh, o)}, 1 if o.quick else 3, warm_up=False)
    for name in contest:
        table.lines.append(in_us(costs.line(name, OURS, ours=name.startswith("ours"))))
    table.lines.insert(1, in_us(fresh.line(FRESH, ours=True)))
    if OURS in costs.values and UNTRACKED in costs.values:
        _tracking_alone(table, costs, in_mlflow)
    for name in (OURS, FRESH, NOTEBOOK, LOGGED, *LIGHTNING, *COCKPIT):
        label = f"{name}, nothing tracked" if name == NOTEBOOK else name
        cost = fresh.cost(FRESH) if name == FRESH else costs.cost(name)
        bar = Bar("a step of a whole run, tracked", label, us(cost), name in (OURS, FRESH))
        table.bars.append(bar)
    return [table]


OURS, UNTRACKED = "ours, tracked", "ours, the same untracked"
FRESH = "ours, tracked, compiling included"
LOGGED = f"{NOTEBOOK} + mlflow.log_metrics"
LIGHTNING = ("Lightning, untracked", "Lightning, MLFlowLogger")
HISTORY = "get_metric_history"
COCKPIT = ("Cockpit, bare", "Cockpit, economy", "Cockpit, full")


def _tracked_peers(
    worker: Worker,
    curve: ss.Problem,
    stop: dict[str, Any],
    tracked: Callable[[], float],
    n_epochs: int,
) -> dict[str, Callable[[], float]]:
    """Return everyone who trains and tracks."""

    @functools.cache
    def uri() -> str:
        return str(worker.call("peers_train:prepare_store", folder=str(worker.folder)))

    def call(name: str, **arguments: Any) -> float:
        return float(worker.call(f"peers_train:{name}", **arguments))

    contest: dict[str, Callable[[], float]] = {
        OURS: tracked,
        UNTRACKED: work.whole(curve, ss.TrainConfig(**stop)),
        NOTEBOOK: functools.partial(work.notebook, n_epochs),
        LOGGED: lambda: call("notebook_mlflow", n_steps=40 * n_epochs, uri=uri()),
        LIGHTNING[0]: lambda: call("lightning", n_epochs=n_epochs),
        LIGHTNING[1]: lambda: call("lightning", n_epochs=1, n_steps=40 * n_epochs, uri=uri()),
    }
    for name, n_steps in zip(COCKPIT, (200 * n_epochs, 20 * n_epochs, 12 * n_epochs), strict=True):
        preset = name.split(", ")[1]
        contest[name] = functools.partial(call, "cockpit", preset=preset, n_steps=n_steps)
    return contest


def _fresh(o: Options) -> float:
    """Track Exercise 4 in a new process; return seconds per step."""
    with Worker(o.folder("fresh")) as worker:
        worker.call("rows_process:imported")
        found = worker.call("rows_track:fresh_run", folder=str(worker.folder / "store"))
    return float(found)


def fresh_run(folder: str) -> float:
    """Track Exercise 4, in a store made before; return seconds per step."""
    store = open_store(folder)
    arm = ss.Arm(ss.problems.curve(), stop=("running", 0.1), epochs=50, **SETTINGS)
    started = time.perf_counter()
    history = train_arm(Invocation.start(store, "ex4"), "descent", arm, progress=False)[1]
    return (time.perf_counter() - started) / int(history.n_steps[0])


def _tracking_alone(table: Table, costs: Costs, mlflow: list[float]) -> None:
    pairs = zip(costs.values[OURS], costs.values[UNTRACKED], strict=True)
    extra = sorted(EX4_STEPS * (a - b) for a, b in pairs)
    middle, part = median(extra), median(mlflow)
    note = f"{middle:.2f} s a run ({extra[0]:.2f} to {extra[-1]:.2f}), MLflow {part:.2f} s of it"
    table.lines.insert(2, Line("ours, tracking alone", 1e6 * middle / EX4_STEPS, None, note, True))
    what = "tracking one run of Exercise 4 into MLflow and Parquet"
    table.goals.append(Goal(what, 0.5, middle, extra[0], extra[-1], "s"))


def reading(o: Options) -> list[Table]:
    """Measure reading the tracked steps."""
    n, keys = EX4_STEPS if o.quick else EX6_STEPS, 11
    table = Table(
        "Reading what was tracked",
        "us per value",
        f"One seed on the curve, {n:,} steps (as many as Exercise 6 may take); all that was "
        f"recorded: {keys} quantities. Ours: `ss.load_steps(study)`, finding the run too, from "
        f"Parquet; it also reads seed, epoch, batch, step and size, not counted as values. Peer: "
        f"`get_metric_history`, a call per quantity, of as many values logged by `log_batch`.",
    )
    folder = o.folder("store")
    arm = ss.Arm(ss.problems.curve(), epochs=n // 200, seeds=[0], **SETTINGS)
    train_arm(Invocation.start(open_store(str(folder)), "read"), "descent", arm, progress=False)
    with Worker(o.folder("history")) as worker:
        uri = worker.call("peers_train:prepare_store", folder=str(worker.folder))

        def ours() -> float:
            started = time.perf_counter()
            found = ss.load_steps("read", store=str(folder))
            seconds = time.perf_counter() - started
            assert found.shape == (n, keys + 5 + 4)  # 4: study, arm, run_id, invocation
            return seconds / (n * keys)

        theirs = functools.partial(
            worker.call, "peers_log:metric_history", uri=uri, n_steps=n, keys=keys
        )
        costs = interleave({HISTORY: theirs, "ours, load_steps": ours}, o.repeats)
    table.lines += [in_us(costs.line(HISTORY))]
    table.lines += [in_us(costs.line("ours, load_steps", HISTORY, ours=True))]
    ratio = costs.ratio("ours, load_steps", HISTORY)
    table.goals.append(Goal.of(f"reading a run: load_steps over {HISTORY}", 0.01, ratio))
    return [table]
