"""One arm of a study over a grid of settings: every combination is a run of one invocation."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
from tqdm.auto import tqdm

from sgdstudy import cluster, heat_map, parallel, recovery, tracking
from sgdstudy import grid as grids
from sgdstudy.errors import InputError, Interrupted, unknown
from sgdstudy.history import History
from sgdstudy.journal import Closing
from sgdstudy.load import every_run
from sgdstudy.points import AXIS
from sgdstudy.predict import predict
from sgdstudy.prune import remove
from sgdstudy.record import Memory, Rows
from sgdstudy.session import interrupt_flag, visible
from sgdstudy.study import Arm, Options, Study, load_study
from sgdstudy.tracking import Invocation
from sgdstudy.trainer import train

if TYPE_CHECKING:
    from sgdstudy.config import TrainConfig
    from sgdstudy.store import Store

SETTINGS = ("lr", "batch_size", "order", "optimizer", "epochs", "epsilon", "dtype")
OPTION = "optimizer."  # prefix of an optimiser's own option, as optimizer.momentum
MOST_POINTS = 1_000_000
TRACK_SECONDS = 0.1  # of a run, in MLflow
RECORDS = ("epochs", "steps")
Spread = Callable[[Callable[..., Any], Iterator[tuple[Any, ...]]], Iterator[Any]]


@dataclass(frozen=True)
class Plan:
    """What a sweep runs.

    Attributes:
        study: the script.
        options: its options, seeds included.
        arm: the arm whose settings are changed.
        grid: values by name of a setting, or of an option of the script.
        record: `epochs`, or `steps` too.
    """

    study: Study
    options: Options
    arm: str
    grid: grids.Grid
    record: str = "epochs"

    @classmethod
    def of(
        cls, study: Study, options: Options, arm: str | None, grid: grids.Grid, record: str
    ) -> Plan:
        """Check the parts and return the plan; `arm` None is the script's first.

        Raises:
            InputError: an empty grid, an unknown name in it, an unknown arm.
        """
        if not grid:
            raise InputError("the grid is empty; give --grid lr=1e-4,2e-4 or a file with one")
        if record not in RECORDS:
            raise unknown("record", record, RECORDS)
        own = [f.name for f in fields(study.options) if f.name not in _SHARED]
        for name in grid:
            if name not in (*SETTINGS, *own) and not name.startswith(OPTION):
                raise unknown("setting of a grid", name, [*SETTINGS, f"{OPTION}<name>", *own])
        arms = study.arms(options)
        if arm is not None and arm not in arms:
            raise unknown("arm", arm, arms)
        return cls(study, options, arm or next(iter(arms)), grid, record)

    @property
    def name(self) -> str:
        """The experiment's name."""
        return f"{self.study.name}_sweep"

    @cached_property
    def combinations(self) -> list[Combination]:
        """All of them; a setting that is not allowed is an `InputError`."""
        return [self.combination(point) for point in grids.points(self.grid)]

    def combination(self, point: dict[str, Any]) -> Combination:
        """Return one combination.

        Raises:
            InputError: a setting that is not allowed, or does not fit the problem.
        """
        settings = {k: v for k, v in point.items() if k in SETTINGS or k.startswith(OPTION)}
        own = {k: v for k, v in point.items() if k not in settings}
        base = self._arms(tuple(own.items()))[self.arm]
        config = changed(base.config, settings, self.record)
        config.check(base.problem)
        arm = Arm.__new__(Arm)
        arm.__dict__ |= {**vars(base), "config": config, "about": f"{self.arm}: {base.about}"}
        return Combination(grids.name_of(point), point, arm)

    def _arms(self, own: tuple[tuple[str, Any], ...]) -> dict[str, Arm]:
        if own not in self._built:
            self._built[own] = self.study.placed_arms(replace(self.options, **dict(own)))
        return self._built[own]

    @cached_property
    def _built(self) -> dict[Any, dict[str, Arm]]:
        return {}

    @property
    def tags(self) -> dict[str, str]:
        """What it takes to run a combination again."""
        return {
            **self.study.tags(self.options),
            "sgdstudy.arm": self.arm,
            "sgdstudy.record": self.record,
        }


@dataclass(frozen=True)
class Combination:
    """A point of the grid, and the arm it makes."""

    name: str
    point: dict[str, Any]
    arm: Arm

    @cached_property
    def hash(self) -> str:
        """Fingerprint of data and settings."""
        params = tracking.parameters(self.arm.problem, self.arm.config)
        return tracking.config_hash(self.arm.problem, params)

    @property
    def tags(self) -> dict[str, str]:
        """What tells this run from the others of the sweep."""
        return {"sgdstudy.settings": json.dumps(self.point)}


@dataclass(frozen=True)
class Swept:
    """What a sweep found.

    Attributes:
        name: the experiment.
        table: one row per combination: its point, run_id, status, stop_epoch, full_loss, ...
        answer: the summary.
        skipped: combinations that an earlier sweep had finished.
    """

    name: str
    table: pd.DataFrame
    answer: str
    skipped: int


_SHARED = {f.name for f in fields(Options)}


def changed(config: TrainConfig, settings: Mapping[str, Any], record: str) -> TrainConfig:
    """Return a config with other settings; without diagnostics where steps are not recorded.

    Raises:
        InputError: a setting that is not allowed.
    """
    changes: dict[str, Any] = {k: v for k, v in settings.items() if k in SETTINGS}
    own = {k.removeprefix(OPTION): v for k, v in settings.items() if k.startswith(OPTION)}
    if own:
        changes["options"] = {**config.options, **own}
    if "epsilon" in changes:
        if config.stop is None:
            raise InputError("the grid names epsilon, but the arm has no stop rule")
        changes["stop"] = (config.stop[0], changes.pop("epsilon"))
    if record == "epochs":
        changes |= {"diagnostics": "off", "metrics": None}
    return replace(config, **changes)


def run(
    plan: Plan,
    *,
    jobs: int = 1,
    dask: str | None = None,
    resume: bool = False,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Swept:
    """Run a sweep; results go to the store as they come.

    Args:
        plan: what to run.
        jobs: processes side by side.
        dask: address or scheduler file of a Dask cluster, instead of local processes.
        resume: skip what is finished, with the same settings and the same version of the code.
        progress: show a bar; None: when there is someone to see it.
        say: takes lines of text.

    Raises:
        InputError: a combination that is not allowed (nothing has run then), or no such cluster.
        Interrupted: Ctrl-C; what is finished is saved.
    """
    everything = plan.combinations
    if dask is not None:
        with cluster.connect(dask) as client:
            spread = functools.partial(cluster.spread, client)
            return _run(plan, everything, spread, resume, progress, say)
    spread = functools.partial(parallel.spread, jobs=min(jobs, len(everything)))
    return _run(plan, everything, spread, resume, progress, say)


def _run(
    plan: Plan,
    everything: list[Combination],
    spread: Spread,
    resume: bool,
    progress: bool | None,
    say: Callable[[str], None],
) -> Swept:
    store = recovery.start(plan.options.store, say)
    earlier = _runs(store, plan.name) if resume else []
    finished = _finished(earlier)
    todo = [c for c in everything if c.hash not in finished]
    say(f"tracking to {store.uri}")
    if resume:
        say(f"{len(everything) - len(todo)} of {len(everything)} are finished already")
    invocation = _invocation(store, plan, earlier)
    remove(store, [r for r in earlier if _tag(r, "invocation") == invocation.id and _cut_off(r)])
    bar = tqdm(
        total=len(todo),
        desc=plan.name,
        unit="run",
        leave=False,
        disable=not (visible() if progress is None else progress),
    )
    with bar, interrupt_flag() as interrupted:
        for combination, outcome in _outcomes(plan, todo, invocation, spread, interrupted):
            if store.root is not None:
                _keep(invocation, combination, outcome)
            bar.update()
        if interrupted:
            raise Interrupted(f"{plan.name} was stopped; what ran is saved, --resume goes on")
    table = _table(everything, _runs(store, plan.name))
    answer = summary(plan, table)
    if todo or not earlier:
        _log_answer(invocation, plan, table, answer)
    return Swept(plan.name, table, answer, len(everything) - len(todo))


def estimate(plan: Plan, jobs: int) -> str:
    """Say how many combinations there are and about how long they take, from a short trial."""
    first = plan.combinations[0].arm
    short = replace(first.config, epochs=min(2, first.config.epochs), stop=None)
    seconds = []
    for _ in range(2):  # the first compiles
        started = time.perf_counter()
        trial = train(first.problem, config=short, progress=False, sink=EpochsOnly())
        seconds.append(time.perf_counter() - started)
    per_step = seconds[1] / max(1, trial.n_steps.sum())
    steps = sum(c.arm.n_steps * len(c.arm.config.seeds) for c in plan.combinations)
    total = per_step * steps / jobs + TRACK_SECONDS * len(plan.combinations)
    return (
        f"{len(plan.combinations)} combinations, at most {steps:,} steps over all seeds: "
        f"about {total:.0f} s on {jobs} processes"
    )


# ---- where the work is done -----------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What a worker is told: all of it plain values, so that nothing of the user's is pickled."""

    script: str
    options: dict[str, Any]
    arm: str
    grid_point: dict[str, Any]
    record: str
    invocation: Invocation | None  # the worker tracks the run itself: the store is a server


@dataclass(frozen=True)
class Outcome:
    """What a worker hands back: an error, or what a history needs beside problem and config."""

    error: str = ""
    predicted: dict[str, float] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, list[pa.RecordBatch]] = field(default_factory=dict)


def _outcomes(
    plan: Plan,
    todo: list[Combination],
    invocation: Invocation,
    spread: Spread,
    interrupted: list[int],
) -> Iterator[tuple[Combination, Outcome]]:
    """Hand the combinations to the workers, and yield what comes back, as it comes."""
    # a server's runs are tracked by the workers; the copy has no open connections
    logs = replace(invocation) if invocation.store.root is None else None

    def tasks() -> Iterator[tuple[int, Task]]:
        for number, combination in enumerate(todo):
            if interrupted:
                return
            options = asdict(plan.options)
            yield (
                number,
                Task(plan.study.file, options, plan.arm, combination.point, plan.record, logs),
            )

    for number, outcome in spread(work, tasks()):
        if outcome.error == "interrupted":
            interrupted.append(2)
        else:
            yield todo[number], outcome


def work(number: int, task: Task) -> tuple[int, Outcome]:
    """Train one combination in a worker; an error of its own is handed back, not raised."""
    with interrupt_flag() as interrupted:
        try:
            outcome = _work(task)
        except InputError:
            raise
        except Exception as error:
            first = next(iter(str(error).splitlines()), "")
            outcome = Outcome(error=f"{type(error).__name__}: {first}")
    return number, Outcome(error="interrupted") if interrupted else outcome


def _work(task: Task) -> Outcome:
    plan = _plan(task.script, tuple(task.options.items()), task.arm, task.record)
    combination = plan.combination(task.grid_point)
    if task.invocation is not None:
        task.invocation.train(combination.name, combination.arm, False, combination.tags)
        return Outcome()
    arm = combination.arm
    sink = Memory() if task.record == "steps" else EpochsOnly()
    history = train(arm.problem, config=arm.config, progress=False, sink=sink)
    kept = [f.name for f in fields(History) if f.name not in ("problem", "config", "sink")]
    return Outcome(
        predicted=predict(arm.problem, arm.config),
        figures={name: getattr(history, name) for name in kept},
        rows={kind: list(sink.batches(kind)) for kind in AXIS},
    )


class EpochsOnly(Memory):
    """Keep the epochs, let the steps go."""

    def write(self, kind: str, rows: Rows) -> None:
        """Take a block of `steps` or of `epochs`."""
        if kind == "epochs":
            super().write(kind, rows)


_plans: dict[Any, Plan] = {}  # a worker builds a script's arms once


def _plan(script: str, options: tuple[tuple[str, Any], ...], arm: str, record: str) -> Plan:
    key = (script, options, arm, record)
    if key not in _plans:
        study = load_study(script)
        _plans.clear()
        _plans[key] = Plan(study, study.options(**dict(options)), arm, {}, record)
    return _plans[key]


def _keep(invocation: Invocation, combination: Combination, outcome: Outcome) -> None:
    """Track a run that a worker did for us."""

    def take(sink: tracking.RunSink) -> History:
        if outcome.error:
            raise Failed(outcome.error)
        for kind, batches in outcome.rows.items():
            for batch in batches:
                sink.write(kind, Rows.of(batch, AXIS[kind]))
        arm = combination.arm
        return History(arm.problem, arm.config, sink, **outcome.figures)

    try:
        invocation.track(
            combination.name, combination.arm, outcome.predicted, take, combination.tags
        )
    except Failed:  # recorded as failed; the others go on
        return


class Failed(Exception):
    """A combination failed in its worker."""


# ---- what is in the store -------------------------------------------------------------------


def _runs(store: Store, name: str) -> list[Any]:
    found = store.client.get_experiment_by_name(store.experiment_name(name))
    return every_run(store, found.experiment_id) if found else []


def _finished(runs: list[Any]) -> dict[str, Any]:
    """Return the finished runs of this version of the code by the hash of their settings."""
    now = tracking.code_tags()
    return {
        _tag(run, "config_hash"): run
        for run in runs
        if run.info.status == "FINISHED"
        and all(run.data.tags.get(name) == value for name, value in now.items())
    }


def _invocation(store: Store, plan: Plan, earlier: list[Any]) -> Invocation:
    """Begin an invocation, or go on with the latest where that came to no end."""
    fresh = Invocation.start(store, plan.name, plan.tags)
    ended = {_tag(run, "invocation") for run in earlier if run.info.run_name == "answer"}
    open_ones = {_tag(run, "invocation") for run in earlier} - ended
    return replace(fresh, id=max(open_ones)) if open_ones else fresh


def _tag(run: Any, name: str) -> str:
    return str(run.data.tags.get(f"sgdstudy.{name}", ""))


def _cut_off(run: Any) -> bool:
    return run.info.status != "FINISHED"


def _table(combinations: list[Combination], runs: list[Any]) -> pd.DataFrame:
    """Return one row per combination, of its last run."""
    by_hash = {_tag(run, "config_hash"): run for run in runs}
    rows = []
    for combination in combinations:
        row: dict[str, Any] = dict(combination.point)
        run = by_hash.get(combination.hash)
        row |= {"status": run.info.status if run else "", "run_id": run.info.run_id if run else ""}
        for key, value in (run.data.metrics if run else {}).items():
            if key.startswith("result/"):
                row[key.removeprefix("result/")] = value
        rows.append(row)
    return pd.DataFrame(rows)


def measure(plan: Plan) -> str:
    """Return what the combinations are judged by."""
    stops = plan.combinations[0].arm.config.stop is not None
    return "stop_epoch" if stops else "full_loss"


def summary(plan: Plan, table: pd.DataFrame) -> str:
    """Say in words what a sweep found."""
    what = measure(plan)
    good = table[table.status == "FINISHED"]
    failed = len(table) - len(good)
    parts = [f"{len(table)} combinations of {plan.arm}, {plan.options.seeds} seeds where random."]
    if failed:
        parts.append(f"{failed} failed; their runs say why.")
    values = good[what].dropna() if what in good else pd.Series(dtype=float)
    if values.empty:
        parts.append(f"None has a {what}.")
    else:
        best = table.loc[values.idxmin()]
        point = grids.name_of({name: best[name] for name in plan.grid})
        parts.append(f"Lowest {what}: {values.min():.6g} (median over the seeds), at {point}.")
    if "diverged" in good:
        parts.append(f"At least one seed diverges in {int((good.diverged > 0).sum())} of them.")
    return " ".join(parts)


def _log_answer(invocation: Invocation, plan: Plan, table: pd.DataFrame, answer: str) -> None:
    """Log the sweep's own run: the table, the summary, the heat map."""
    from sgdstudy import figures

    figure = heat_map.draw(plan, table, measure(plan))
    question = f"How does {plan.arm} of {plan.study.name} depend on {', '.join(plan.grid)}?"
    text = f"**{question}**\n\n{answer}"
    name = {"sgdstudy.figures": "heat_map.png"} if figure else {}
    with invocation.run("answer", text, name) as journal:
        journal.add("claims.json", lambda path: path.write_text("[]", encoding="utf-8"))
        journal.add("answer.md", lambda path: path.write_text(text, encoding="utf-8"))
        journal.add("sweep.csv", lambda path: table.to_csv(path, index=False))
        if figure:
            journal.add("heat_map.png", lambda path: path.write_bytes(figures.png(figure)))
        journal.close(Closing("FINISHED", note=text))
