"""Training the arms of a study, each as a tracked run: one after another, or side by side."""

from __future__ import annotations

import functools
import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sgdstudy.errors import Interrupted, SgdstudyError, failed, place
from sgdstudy.history.files import Files
from sgdstudy.history.history import History
from sgdstudy.language import say as in_words
from sgdstudy.language import to_say
from sgdstudy.recipe.identity import Identity
from sgdstudy.secrecy import without_secrets
from sgdstudy.studies import helpers, workers
from sgdstudy.studies.arm import Arm, Options, in_charts, own_options
from sgdstudy.studies.scripts import load_study
from sgdstudy.studies.study import Study
from sgdstudy.theory.predictions import MOST_WORK, predict
from sgdstudy.tracking import chart_views, describe, resume
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.scratch import scratch
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.tracked_run import CONFIG, FINGERPRINT
from sgdstudy.training.interrupts import interrupt_flag, unforked, visible
from sgdstudy.training.train import train

log = logging.getLogger("sgdstudy")
Trained = tuple[str, str, History]  # arm, run id, history


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
    wanted = {CONFIG: hash_, **invocation.code.same}
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
        with unforked():
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
def _arms(
    script: str, values: tuple[tuple[str, Any], ...], invocation: str
) -> tuple[Study, Options, Any]:
    """Build a script's arms, once per worker and invocation: some compute their step sizes.

    The next invocation may have options that are equal and others, as 1 and True.
    """
    study = load_study(script)
    options = study.chosen(**dict(values))
    return study, options, in_charts(study.placed_arms(options))


def _train_one(
    script: str, values: dict[str, Any], name: str, invocation: Invocation
) -> tuple[str, str, dict[str, Path], dict[str, Any]]:
    """Train one arm in a worker; hand back what a history needs beside the rows on disk."""
    with helpers.beside(script), interrupt_flag() as interrupted:
        study, options, arms = _arms(script, tuple(values.items()), invocation.id)
        work = _Work(study, options, arms, invocation, False, interrupted)
        run_id, history = work.train(name)
    assert isinstance(history.sink, Files)
    return name, run_id, history.sink.paths, history.outcome
