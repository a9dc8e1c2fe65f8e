"""What a worker of a sweep is told, does and hands back."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa

from sgdstudy.errors import Ended, InputError, StoreError
from sgdstudy.history.rows import Memory
from sgdstudy.language import say, to_say
from sgdstudy.recipe import draw_cache
from sgdstudy.studies import helpers
from sgdstudy.studies.arm import told_apart
from sgdstudy.studies.scripts import load_study
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.sweeps.own import Own
from sgdstudy.sweeps.plan import Combination, Plan
from sgdstudy.theory.predictions import SWEEP_WORK, predict
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.retry import reason_of
from sgdstudy.tracking.tracked_run import CHANGED, FINGERPRINT
from sgdstudy.training.interrupts import called, interrupt_flag
from sgdstudy.training.train import train

log = logging.getLogger("sgdstudy")


@dataclass(frozen=True)
class Task:
    """What a worker is told: of a script plain values, so that nothing of the user's is pickled.

    Attributes:
        script: its file; "" where no script declares the arm.
        own: the arm then.
        invocation: the worker tracks the run itself: the store is a server.
    """

    script: str
    options: dict[str, Any]
    arm: str
    name: str
    grid_point: dict[str, Any]
    record: str
    tags: dict[str, str]
    invocation: Invocation | None
    own: Own | None = None


@dataclass(frozen=True)
class Outcome:
    """What a worker hands back.

    Attributes:
        error: kind and text of what went wrong, or None.
        changed: what its functions read was not what it was when the sweep began: another run of
            this process had changed it.
        interrupted: Ctrl-C came: what there is of it is not kept.
        predicted: what theory expects.
        figures: what a history needs beside problem, config and rows.
        rows: the rows of each kind that there are, as Arrow.
    """

    error: tuple[str, str] | None = None
    interrupted: bool = False
    changed: bool = False
    predicted: dict[str, float] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, pa.RecordBatch] = field(default_factory=dict)


def work(number: int, task: Task) -> tuple[int, Outcome]:
    """Train one combination in a worker; an error of its own is handed back, not raised.

    Raises:
        InputError: this machine has no such script, or another one; another process makes another
            arm.
        StoreError: the worker tracks the run itself, and cannot any more.
    """
    with helpers.beside(task.script), interrupt_flag() as interrupted, draw_cache.shared():
        plan = _plan(task)
        combination = plan.combination(task.grid_point)
        changed = not combination.unseen and combination.hash != task.tags[FINGERPRINT]
        if changed and plan.own and plan.own.process != os.getpid():
            raise InputError(
                f"{task.name} is another one in another process, where a module may be older than "
                f"here, or a function reads what is only here; give jobs=1"
            )
        if changed:
            text = to_say(
                "{name}: what its functions read was changed by another run; --resume runs it again"
            )
            log.warning("%s", say(text, name=task.name))
            task = replace(task, tags={**task.tags, CHANGED: "yes"})
        try:
            outcome = called(partial(_trained, combination, task))
        except StoreError:
            raise
        except Exception as error:
            raised = error.raised if isinstance(error, Ended) else error
            outcome = Outcome(error=(type(raised).__name__, reason_of(raised)))
    outcome = Outcome(interrupted=True) if interrupted else outcome
    return number, replace(outcome, changed=changed)


def _trained(combination: Combination, task: Task) -> Outcome:
    arm = combination.arm
    if task.invocation is not None:
        _, history = train_arm(task.invocation, task.name, arm, False, task.tags, SWEEP_WORK)
        return Outcome(interrupted="interrupted" in history.stop_reason)
    sink = Memory()
    history = train(arm.problem, config=arm.config, progress=False, sink=sink)
    return Outcome(
        interrupted="interrupted" in history.stop_reason,
        predicted=predict(arm.problem, arm.config, SWEEP_WORK),
        figures=history.outcome,
        rows=sink.whole(),
    )


_plans: dict[Any, Plan] = {}  # a worker builds the arms of a study once


def _plan(task: Task) -> Plan:
    which = task.own.key if task.own else task.script
    key = (which, told_apart(task.options), task.arm, task.record)
    if key not in _plans:
        study = task.own or load_study(task.script)
        _plans.clear()
        _plans[key] = Plan(study, study.chosen(**task.options), task.arm, {}, task.record)
    return _plans[key]
