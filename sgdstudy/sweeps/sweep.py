"""One arm of a study over a grid of settings: every combination is a run of one invocation."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm.auto import tqdm

from sgdstudy import checks
from sgdstudy.errors import Interrupted
from sgdstudy.history.history import History
from sgdstudy.history.rows import AXIS, Rows
from sgdstudy.language import say as in_words
from sgdstudy.language import to_say
from sgdstudy.studies import helpers, workers
from sgdstudy.sweeps import cluster, results
from sgdstudy.sweeps.plan import Combination, Plan
from sgdstudy.sweeps.worker import Outcome, Task, work
from sgdstudy.tracking import chart_views, garbage, recovery
from sgdstudy.tracking.group import grouped
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.prune import remove
from sgdstudy.tracking.runs import every_run, experiment_of, name_doubled
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.store import locate, read_store
from sgdstudy.tracking.tracked_run import CHANGED, FINGERPRINT, NUMBER, TrackedRun
from sgdstudy.tracking.writing import writing
from sgdstudy.training.interrupts import interrupt_flag, visible

if TYPE_CHECKING:
    from sgdstudy.tracking.store import Store

MOST_POINTS = 1_000_000
log = logging.getLogger("sgdstudy")
Spread = Callable[[Callable[..., Any], Iterator[tuple[Any, ...]]], Iterator[Any]]


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
        InputError: a combination that is not allowed (nothing has run then), no such cluster, jobs
            below one, or several for what other processes cannot be given.
        Interrupted: Ctrl-C; what is finished is saved.
    """
    jobs = checks.count("jobs", jobs)
    with helpers.beside(plan.study.file):
        return _started(plan, jobs, dask, resume, progress, say)


def _started(
    plan: Plan,
    jobs: int,
    dask: str | None,
    resume: bool,
    progress: bool | None,
    say: Callable[[str], None],
) -> Swept:
    everything = plan.combinations
    if dask is not None:
        with cluster.connect(dask) as client:
            spread = functools.partial(cluster.spread, client)
            return _run(plan, everything, spread, resume, progress, say)
    jobs = min(jobs, len(everything))
    if plan.own and jobs > 1:
        workers.require_carried(plan.own, plan.arm)
    spread = functools.partial(workers.spread, jobs=jobs)
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
    say(in_words("tracking to {store}", store=store.shown))
    for unseen in sorted({one.unseen for one in everything} - {""}):
        text = to_say("{why}: no combination is taken for another, and --resume runs them again")
        log.warning("%s", in_words(text, why=unseen))
    with ExitStack() as held:
        if resume:  # two at once would both begin what none has begun
            again = f"{store.experiment_name(plan.name)}, {plan.arm}, {plan.record}"
            held.enter_context(writing(store, plan.name, again, fresh=False))
        earlier = _runs(store, plan) if resume else []
        invocation = _invocation(store, plan, everything, earlier)
        goes_on = any(run.invocation == invocation.id for run in earlier)
        held.enter_context(writing(store, plan.name, invocation.id, fresh=not goes_on))
        if goes_on and _todo(everything, earlier):
            earlier = _runs(store, plan)  # whoever wrote to it when we looked has ended by now
        if resume:
            done = len(everything) - len(_todo(everything, earlier))
            found = in_words(
                "{n} of {all} is finished already",
                "{n} of {all} are finished already",
                n=done,
                all=len(everything),
            )
            say(found)
        return _swept(plan, everything, invocation, earlier, spread, progress, say)


def _swept(
    plan: Plan,
    everything: list[Combination],
    invocation: Invocation,
    earlier: list[TrackedRun],
    spread: Spread,
    progress: bool | None,
    say: Callable[[str], None],
) -> Swept:
    """Run what is not finished, and answer."""
    store, todo = invocation.store, _todo(everything, earlier)
    _drop(store, earlier, invocation, todo)
    bar = tqdm(
        total=len(todo),
        desc=plan.name,
        unit="run",
        leave=False,
        disable=not (visible() if progress is None else progress),
    )
    with bar, interrupt_flag() as interrupted, garbage.old_set_aside(), grouped() as group:
        together = replace(invocation, later=group)
        for done, (combination, outcome) in enumerate(
            _outcomes(plan, todo, invocation, spread, interrupted)
        ):
            if store.root is not None:
                _track(_keeping_code(together, done == 0), plan.anew(combination), outcome)
            bar.update()
        if interrupted:
            text = to_say("{study} was stopped; what ran is saved, --resume goes on")
            raise Interrupted(in_words(text, study=plan.name))
    runs = _runs(store, plan) if todo else earlier  # a thousand take seconds
    name_doubled(_of_invocation(invocation, runs))
    table = _table(everything, runs, invocation)
    answer = results.summary(plan, table)
    answers = [run for run in _of_invocation(invocation, runs) if run.is_answer and run.finished]
    same = [run for run in answers if results.says(run, plan, answer)]
    if not same:  # runs that were not in the store then may be there now
        remove(store, answers)
        if chart_views.wanted(store):
            results.chart(store, plan, table, _of_invocation(invocation, runs))
        results.log_answer(invocation, plan, table, answer)
    return Swept(plan.name, table, answer, len(everything) - len(todo))


def waiting(plan: Plan, resume: bool) -> list[Combination]:
    """Return what `run` would run; the store is read, and nothing is written."""
    database = locate(plan.options.store).database
    there = resume and (database is None or database.exists())
    return _todo(plan.combinations, _runs(read_store(plan.options.store), plan) if there else [])


# ---- to the workers and back ----------------------------------------------------------------


def _outcomes(
    plan: Plan,
    todo: list[Combination],
    invocation: Invocation,
    spread: Spread,
    interrupted: list[int],
) -> Iterator[tuple[Combination, Outcome]]:
    """Hand the combinations to the workers, and yield what comes back, as it comes."""
    # a server's runs are tracked by the workers; nobody reads the files of a run here
    remote = replace(invocation, scratch=None) if invocation.store.root is None else None

    def tasks() -> Iterator[tuple[int, Task]]:
        for number, combination in enumerate(todo):
            if interrupted:
                return
            yield (
                number,
                Task(
                    plan.study.file,
                    asdict(plan.options),
                    plan.arm,
                    combination.name,
                    combination.point,
                    plan.record,
                    combination.tags,
                    remote and _keeping_code(remote, number == 0),
                    plan.own,
                ),
            )

    for number, outcome in spread(work, tasks()):
        if outcome.interrupted:
            interrupted.append(number)
        else:
            yield todo[number], outcome


def _keeping_code(invocation: Invocation, keep: bool) -> Invocation:
    """Return an invocation whose runs keep a copy of the code: the first run's and the answer's."""
    return invocation if keep else replace(invocation, code=invocation.code.by_hash())


def _track(invocation: Invocation, combination: Combination, outcome: Outcome) -> None:
    """Track a run that a worker did for us."""

    def take(sink: RunSink) -> History:
        if outcome.error:
            kind, text = outcome.error
            raise type(kind, (Failed,), {})(text)  # the run's tag gives the error's own name
        for kind, batch in outcome.rows.items():
            sink.write(kind, Rows.of(batch, AXIS[kind]))
        arm = combination.arm
        return History(arm.problem, arm.config, sink, **outcome.figures)

    try:
        arm = combination.arm
        about: dict[str, Any] = {"about": arm.about, "charted": False}  # the best are, in the end
        tags = combination.tags | ({CHANGED: "yes"} if outcome.changed else {})
        about |= {"tags": tags, "over": True}
        invocation.track(
            combination.name, arm.problem, arm.config, outcome.predicted, take, **about
        )
    except Failed:  # recorded as failed; the others go on
        return


class Failed(Exception):
    """A combination failed in its worker."""


# ---- what is in the store -------------------------------------------------------------------


def _runs(store: Store, plan: Plan) -> list[TrackedRun]:
    """Return the runs of this arm that this version of the code swept, oldest first."""
    found = experiment_of(store, plan.name)
    every = every_run(store, found.experiment_id) if found else []
    same = plan.same.items()
    return [run for run in every if same <= run.tags.items()]


def _todo(everything: list[Combination], runs: list[TrackedRun]) -> list[Combination]:
    """Return what is not finished; of combinations that mean the same, the first."""
    distinct: dict[str, Combination] = {}
    for combination in everything:
        distinct.setdefault(combination.hash, combination)
    finished = _finished(runs)
    return [combination for hash_, combination in distinct.items() if hash_ not in finished]


def _finished(runs: list[TrackedRun]) -> dict[str, TrackedRun]:
    """Return the finished runs by the hash of their settings, which they were trained with."""
    return {_hash(run): run for run in runs if run.finished and CHANGED not in run.tags}


def _invocation(
    store: Store, plan: Plan, everything: list[Combination], earlier: list[TrackedRun]
) -> Invocation:
    """Begin an invocation, or go on with the latest that ran some of these combinations."""
    fresh = Invocation.start(store, plan.name, plan.tags, plan.code)
    hashes = {combination.hash for combination in everything}
    ours = [run for run in earlier if _hash(run) in hashes and run.invocation]  # no reruns
    if not ours:
        return fresh
    last = max(ours, key=lambda run: run.order)
    return replace(fresh, id=last.invocation, number=last.tags.get(NUMBER, ""))


def _of_invocation(invocation: Invocation, runs: list[TrackedRun]) -> list[TrackedRun]:
    return [run for run in runs if run.invocation == invocation.id]


def _drop(
    store: Store, runs: list[TrackedRun], invocation: Invocation, todo: list[Combination]
) -> None:
    """Remove what comes anew: runs that failed or were cut off, and the answer."""
    anew = {combination.hash for combination in todo}
    doomed = [
        run
        for run in _of_invocation(invocation, runs)
        if _hash(run) in anew or (run.is_answer and (todo or not run.finished))
    ]
    remove(store, doomed)


def _hash(run: TrackedRun) -> str:
    return run.tags.get(FINGERPRINT, "")


def _table(
    combinations: list[Combination], runs: list[TrackedRun], invocation: Invocation
) -> pd.DataFrame:
    """Return one row per combination, of its run."""
    ours = _of_invocation(invocation, runs)
    by_hash = {_hash(run): run for run in ours} | _finished(runs) | _finished(ours)
    rows = []
    for combination in combinations:
        row: dict[str, Any] = dict(combination.point)
        run = by_hash.get(combination.hash)
        row |= {"status": run.status if run else "", "run_id": run.run_id if run else ""}
        for key, value in (run.metrics if run else {}).items():
            if key.startswith("result/"):
                row[key.removeprefix("result/")] = value
        rows.append(row)
    table = pd.DataFrame(rows)
    for name in combinations[0].point:
        if table[name].isna().any():  # pandas makes NaN of None, and then 1.0 of 1
            table[name] = pd.Series([c.point[name] for c in combinations], dtype=object)
    return table
