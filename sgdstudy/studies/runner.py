"""Running a study: its arms trained and tracked, its claims judged, its answer logged."""

from __future__ import annotations

import functools
import json
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sgdstudy.errors import Interrupted, SgdstudyError, failed, place, stripped, without_secrets
from sgdstudy.figures import palette
from sgdstudy.history.history import History
from sgdstudy.history.rows import Files
from sgdstudy.language import say as in_words
from sgdstudy.language import speaking, to_say, translated
from sgdstudy.recipe.identity import Identity
from sgdstudy.studies import guesses, helpers, workers
from sgdstudy.studies.arm import Arm, Options, in_charts, own_options
from sgdstudy.studies.claims import PLURAL, Claim, Claims, claims_markdown
from sgdstudy.studies.making import Making
from sgdstudy.studies.outcome import Result, Runs
from sgdstudy.studies.scripts import load_study
from sgdstudy.studies.study import HIDDEN, LAYERED, Study
from sgdstudy.theory.predictions import MOST_WORK, predict
from sgdstudy.tracking import aside, chart_views, describe, recovery, resume, shapes
from sgdstudy.tracking.entries import Closing
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.runs import FIGURES, FINGERPRINT, OF_FIGURES
from sgdstudy.tracking.scratch import scratch
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.writing import writing
from sgdstudy.training.interrupts import interrupt_flag, visible
from sgdstudy.training.train import train

NOTE_LENGTH = 5000  # what MLflow keeps of an experiment's description
log = logging.getLogger("sgdstudy")
Trained = tuple[str, str, History]  # arm, run id, history


def run(
    study: Study,
    options: Options | None = None,
    *,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Result:
    """Run all arms of a study, judge its claims, and log everything; see `Study.run`."""
    chosen = None if options is None else options.lang
    with helpers.beside(study.file), speaking(chosen):
        return _begun(study, options, progress, say)


def _begun(
    study: Study, options: Options | None, progress: bool | None, say: Callable[[str], None]
) -> Result:
    started = time.perf_counter()
    options = study.chosen() if options is None else options
    declared = study.placed_arms(options)
    arms = in_charts(declared)
    told = guesses.asked(study, options, arms)
    store = recovery.start(options.store, say)
    say(in_words("tracking to {store}", store=store.shown))
    _say_charted(declared, arms, say)
    code = helpers.code_of(study.file)
    code = code if options.answer else code.by_hash()  # a copy of the script tells the answer
    invocation = replace(
        Invocation.start(store, study.name, study.tags(options), code),
        resume=options.resume,
        checkpoint_seconds=options.checkpoint_seconds,
    )
    with writing(store, study.name, invocation.id):
        return _run(study, options, arms, told, invocation, progress, say, started)


def _say_charted(
    declared: Mapping[str, Arm], arms: Mapping[str, Arm], say: Callable[[str], None]
) -> None:
    """Say which arms the charts show, where more are declared to be in them."""
    n, shown = sum(arm.charted for arm in declared.values()), [a for a in arms if arms[a].charted]
    if n > len(shown):
        text = to_say("of {n} charted arms MLflow's charts show the first: {names}")
        say(in_words(text, n=n, names=", ".join(shown)))


def _run(
    study: Study,
    options: Options,
    arms: Mapping[str, Arm],
    told: guesses.Guesses,
    invocation: Invocation,
    progress: bool | None,
    say: Callable[[str], None],
    started: float,
) -> Result:
    store = invocation.store
    found: dict[str, History] = {}
    run_ids: dict[str, str] = {}
    for name, run_id, history in train_arms(study, options, arms, invocation, progress):
        run_ids[name], found[name] = run_id, history
        say(f"  {name:<28} {_outcome(history, options.answer)}")
    runs = Runs({name: found[name] for name in arms})  # in the order of the script
    claims, short, full = Claims(), "", in_words(HIDDEN)
    if options.answer:
        claims = guesses.beside(_judged(study, options, runs), told)
        short, full = map(without_secrets, study.answered(options, runs, claims))  # of the store
    making = Making(study, options, runs, say)
    shown = making.text()
    answer = "\n\n".join(filter(None, [short, full]))
    run_ids["answer"] = _log_answer(making, invocation, claims, answer, bool(short))
    if any((store.streams / run_id).exists() for run_id in run_ids.values()):
        say(str(recovery.recover(store)))
    return Result(
        study=study.name,
        runs=runs,
        run_ids=run_ids,
        claims=claims,
        answer=answer,
        url=invocation.url(),
        seconds=time.perf_counter() - started,
        shown=shown,
        missing=tuple(making.missing),
        refused=[str(one) for one in aside.listed(store) if one.invocation == invocation.id],
    )


# ---- arms ------------------------------------------------------------------------------------


@dataclass
class _Work:
    """The arms of one invocation, and whether Ctrl-C was pressed."""

    study: Study
    options: Options
    arms: Mapping[str, Arm]
    invocation: Invocation
    progress: bool | None
    interrupted: list[int]

    def train(self, name: str) -> tuple[str, History]:
        """Train one of the arms; return its run's id and history."""
        foretold = self.options.answer
        return train_arm(self.invocation, name, self.arms[name], self.progress, foretold=foretold)

    def note(self, history: History) -> None:
        """Notice a Ctrl-C that the trainer caught."""
        if "interrupted" in history.stop_reason:
            self.interrupted.append(signal.SIGINT)


def train_arms(
    study: Study,
    options: Options,
    arms: Mapping[str, Arm],
    invocation: Invocation,
    progress: bool | None,
) -> Iterator[Trained]:
    """Train every arm as a tracked run; yield each as it ends.

    Raises:
        Interrupted: Ctrl-C; the arms that were running are saved.
    """
    jobs = min(options.jobs, len(arms))
    with interrupt_flag() as interrupted:
        work = _Work(study, options, arms, invocation, progress, interrupted)
        yield from _one_by_one(work) if jobs == 1 else _side_by_side(work, jobs)
        if interrupted:
            text = to_say("{study} was stopped; what ran is saved")
            raise Interrupted(in_words(text, study=study.name))


def train_arm(
    invocation: Invocation,
    name: str,
    arm: Arm,
    progress: bool | None = None,
    tags: Mapping[str, str] | None = None,
    work: float = MOST_WORK,
    foretold: bool = True,
) -> tuple[str, History]:
    """Predict one arm, then train it, as a tracked run; return the run's id and history.

    Args:
        invocation: what the run belongs to.
        name: the run's name.
        arm: what is trained.
        progress: show a bar; None: when there is someone to see it.
        tags: further tags.
        work: how much of it a prediction may take, see `predict`.
        foretold: whether there is a prediction.

    Raises:
        StoreError: the rows cannot be written; what was recorded is kept.
    """
    problem, config, ours = arm.problem, arm.config, arm.trajectory is None
    hash_ = describe.config_hash(problem, describe.parameters(problem, config))
    wanted = {resume.CONFIG: hash_, **invocation.code.same}
    own = own_options(invocation.tags)
    known = Identity.of(problem, config, own)
    color = {} if arm.color is None else {chart_views.COLOR: arm.color}
    tags = {FINGERPRINT: known.hash or f"none: {known.unseen}", **color, **(tags or {})}

    def take(sink: RunSink) -> History:
        seconds = invocation.checkpoint_seconds
        kept = known.parts, lambda: Identity.of(problem, config, own).parts
        keeper = resume.Keeper(sink, hash_, seconds, former, *kept) if ours else None
        how: dict[str, Any] = {"trajectory": arm.trajectory, "keeper": keeper}
        how |= {"progress": progress, "description": without_secrets(name), "sink": sink}
        with _told(name, invocation):
            return train(problem, config=config, **how)

    with scratch() as folder:
        former = None
        if invocation.resume and ours and known.unseen:
            text = to_say("{name} starts from the beginning: {why}")
            log.warning("%s", in_words(text, name=name, why=known.unseen))
        elif invocation.resume and ours:
            store, study = invocation.store, invocation.study
            former = resume.find_former(store, study, name, wanted, folder)
        with _told(name, invocation):
            predicted = predict(problem, config, work) if foretold else {}
        about: dict[str, Any] = {"about": arm.about, "charted": arm.charted, "tags": tags}
        run_id, history = invocation.track(name, problem, config, predicted, take, **about)
        return run_id, replace(history, color=arm.color)


@contextmanager
def _told(name: str, invocation: Invocation) -> Iterator[None]:
    """Say in one line what a function of the script raises while an arm is trained.

    Raises:
        InputError: it raised an error, or would have ended the program.
    """
    script = invocation.tags.get("sgdstudy.script", "")
    try:
        yield
    except SgdstudyError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) or (script and place(error, script)):
            raise failed(f"the arm {name!r}", error, script or None) from error
        raise


def _one_by_one(work: _Work) -> Iterator[Trained]:
    for name in work.arms:
        if work.interrupted:
            return
        run_id, history = work.train(name)
        yield name, run_id, history
        work.note(history)


def _side_by_side(work: _Work, jobs: int) -> Iterator[Trained]:
    """Give the arms to worker processes, the longest first.

    A worker builds its arm from the script: nothing of the user's has to be pickled.
    """
    from tqdm.auto import tqdm

    longest_first = sorted(work.arms, key=lambda name: -work.arms[name].n_steps)
    bar = tqdm(
        total=len(work.arms),
        desc=work.study.name,
        unit="arm",
        delay=1,
        leave=False,
        disable=not (visible() if work.progress is None else work.progress),
    )

    def waiting() -> Iterator[tuple[Any, ...]]:
        for name in longest_first:
            # the workers are told to end their arm, and we start no other
            if work.interrupted:
                return
            yield work.study.file, asdict(work.options), name, work.invocation

    with bar:
        for name, run_id, paths, outcome in workers.spread(_train_one, waiting(), jobs):
            bar.update()
            arm = work.arms[name]
            history = History(arm.problem, arm.config, Files(paths), **outcome)
            yield name, run_id, history
            work.note(history)


@functools.lru_cache(maxsize=1)
def _arms(script: str, values: tuple[tuple[str, Any], ...]) -> tuple[Study, Options, Any]:
    """Build a script's arms, once per worker and invocation: some compute their step sizes."""
    study = load_study(script)
    options = study.chosen(**dict(values))
    return study, options, in_charts(study.placed_arms(options))


def _train_one(
    script: str, values: dict[str, Any], name: str, invocation: Invocation
) -> tuple[str, str, dict[str, Path], dict[str, Any]]:
    """Train one arm in a worker; hand back what a history needs beside the rows on disk."""
    with helpers.beside(script), interrupt_flag() as interrupted:
        study, options, arms = _arms(script, tuple(values.items()))
        work = _Work(study, options, arms, invocation, False, interrupted)
        run_id, history = work.train(name)
    assert isinstance(history.sink, Files)
    return name, run_id, history.sink.paths, history.outcome


def _outcome(history: History, told: bool) -> str:
    """Say in one line how an arm ended; or only that it did, where the class is to find out."""
    epochs = history.stop_epoch
    note = ""
    if history.engine_note:
        note = " " + in_words("(not compiled: {why})", why=translated(history.engine_note))
    if not told:
        return in_words("recorded in {time:.1f} s", time=history.train_seconds) + note
    low, high = int(epochs.min()), int(epochs.max())
    span = low if low == high else f"{low}-{high}"
    given = {
        "reason": describe.ended(describe.summary_of_reasons(history)),
        "span": span,
        "total": int(np.sum(history.n_steps)),
        "time": history.train_seconds,
    }
    if len(epochs) > 1:
        text = to_say("{n} seeds, {reason} at epoch {span}, {total} steps in {time:.1f} s")
    else:
        text = to_say("{reason} at epoch {span}, {total} steps in {time:.1f} s")
    return in_words(text, n=len(epochs), **given) + note


# ---- claims and answer -----------------------------------------------------------------------


def _judged(study: Study, options: Options, runs: Runs) -> list[Claim]:
    """Return the claims, without the expectations that the options given make void."""
    claims = study.claimed(options, runs)
    if options != study.defaults(options):
        return [c if c.always or c.identity else c.described() for c in claims]
    return claims


def _log_answer(
    making: Making, invocation: Invocation, claims: Claims, answer: str, short: bool
) -> str:
    """Log the `answer` run and the experiment's description; return the run's id.

    Under changed options it leaves a description alone that is there: that of the defaults.
    """
    study, options = making.study, making.options
    head = without_secrets(f"**{study.question}**\n\n{answer}")
    table = without_secrets(claims_markdown(claims))
    failed = {"sgdstudy.claims_failed": str([c.holds for c in claims].count(False))}
    listed = {chart_views.CHARTED: "yes", chart_views.COLOR: palette.GREY}  # it leads the list
    listing = json.dumps(stripped([c.as_json() for c in claims], whole=False), indent=1)
    texts = {
        name: text.encode(errors="backslashreplace")
        for name, text in {"claims.json": listing, "answer.md": f"{head}\n\n{table}"}.items()
    }
    sums = {shapes.SUM_OF + name: shapes.sum_of(text) for name, text in texts.items()}
    tags = listed | sums | (failed if claims else {}) | ({LAYERED: "yes"} if short else {})
    with invocation.run("answer", answer, tags, points=_counts(claims)) as journal:
        for name, text in texts.items():
            journal.add(name, functools.partial(Path.write_bytes, data=text))
        names = making.picture(journal, claims) + making.figures(journal) if options.answer else []
        making.tables(journal)
        look = [
            in_words("Look first at **{name}**, of the run `answer`.", name=name) for name in names
        ]
        stands = not (study.changed(options) and options.answer)
        other = [] if stands else [_changed(study, options)]
        note = "\n\n".join([head, *other, *look[:1], table])
        if len(note) > NOTE_LENGTH:
            whole = note[: NOTE_LENGTH - 40].rpartition("\n")[0]  # no row of a table is cut
            note = whole + "\n\n" + in_words("…see answer.md")
        shown = invocation.id if chart_views.wanted(invocation.store) else None
        there = {path.name: shapes.sum_of_file(path) for path in journal.artifacts()}
        drawn = {FIGURES: ", ".join(names), "mlflow.note.content": note}
        drawn[shapes.SUM_OF + OF_FIGURES] = ", ".join(there[name] for name in names)
        if "picture.json" in there:
            drawn[shapes.SUM_OF + "picture.json"] = there["picture.json"]
        parts: dict[str, Any] = {"note": note, "stands": stands, "views": shown}
        titled = study.charts if options.answer else {key: key for key in study.charts.values()}
        journal.close(Closing("FINISHED", drawn, charts=titled, **parts))
    return journal.run_id or journal.folder.name


def _changed(study: Study, options: Options) -> str:
    """Say which options were not the script's own."""
    return in_words(
        "These are the results with other options than the script's own: {words}.",
        words=", ".join(
            f"{name} = {value}" for name, value in stripped(study.changed(options)).items()
        ),
    )


def _counts(claims: list[Claim]) -> list[tuple[str, int, float]]:
    """Return how many claims hold and fail, as metrics."""
    if not claims:
        return []
    verdicts = [claim.holds for claim in claims]
    counts = [("result/claims_hold", 0, float(verdicts.count(True)))]
    counts.append(("result/claims_fail", 0, float(verdicts.count(False))))
    for kind, plural in PLURAL.items():
        of_kind = [c.holds for c in claims if c.kind == kind]
        name = plural if kind == "description" else f"{plural}_hold"
        counts.append((f"result/{name}", 0, float(len(of_kind) - of_kind.count(False))))
    return counts
