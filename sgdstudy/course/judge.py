"""Naming the faults of a recorded run: how it ends, its steps, its samples, its stop."""

from __future__ import annotations

import numpy as np

from sgdstudy.course.notes import ETA, NEPOCH, START, Run, Runner
from sgdstudy.course.samples import epochs_of, sampling_faults, whole
from sgdstudy.course.steps import (
    Step,
    faults_of,
    fit,
    near,
    once_an_epoch,
    scale_faults,
    unexplained,
)
from sgdstudy.course.stops import ALWAYS, STOPS, stop_faults
from sgdstudy.language import say, to_say

OUT_OF_REACH = 1e-12  # an epsilon that is never met


def judge(run: Runner, batch: int, rule: str, stops: frozenset[str]) -> list[str]:
    """Return the faults of a function, one line each, in the order in which to mend them.

    Args:
        run: runs it on the small data.
        batch: samples per batch that the exercise asks for.
        rule: the optimiser that it asks for.
        stops: what it allows to be compared with epsilon.
    """
    if run.misplaced:
        return [
            say(
                "the arguments are in another order: the exercise asks for {asked}",
                asked=", ".join(run.names),
            )
        ]
    first = run(OUT_OF_REACH)
    if first.error and run.left <= 0:
        return [first.error]
    if early := _as_given(first):
        return early
    faults = [first.error] if first.error and not _rebound(first) else []
    if not np.array_equal(first.w[0], START):
        faults.append(say(NOT_AS_GIVEN["elsewhere"]))
    elif first.unchanged:
        faults.append(say(NOT_AS_GIVEN["rebound"]))
    if np.isnan(first.w_next).all():
        return faults
    epochs = epochs_of(first)
    step, once = fit(first, epochs, rule), once_an_epoch(first, batch)
    if step:
        faults += _step_faults(step, first, run, batch, rule)
    elif first.by_hand:
        return [*faults, say(NOT_AS_GIVEN["no gradient"])]
    else:
        faults.append(unexplained(first, rule))
    if first.error or _rebound(first):
        return faults
    drawn = [
        [part for k in epoch for part in (first.parts[k] if once else [first.batches[k]])]
        for epoch in epochs
    ]
    faults += sampling_faults(drawn, batch)
    length = _length_faults(first, epochs)
    faults += length
    if length and len(epochs) < NEPOCH - 1:  # it stops for a reason of its own
        return faults
    run.limit = 100 + (NEPOCH * first.calls // len(epochs) if first.endless else first.calls)
    if step and step.fresh == "step":
        return faults  # its w comes back to where it was, and does not show where it stops
    if not whole(first, epochs):
        met = run(ALWAYS)
        on = met.endless or len(met.batches) >= len(first.batches)
        return faults + [say(STOPS["never"])] * on
    return faults + stop_faults(run, first, epochs, step, once, stops)


def _rebound(run: Run) -> bool:
    """Whether the error, if any, is but what becomes of a w that was rebound."""
    return run.rebinds and run.unchanged and not run.by_hand


def _as_given(run: Run) -> list[str]:
    """Name what keeps a run from being judged any further."""
    faults = [run.error] if run.error else []
    if run.misuse:
        return [say(MISUSES[run.misuse])]
    if not run.readable:
        return faults or [say(NOT_AS_GIVEN["unreadable"])]
    if not run.batches:
        return faults or [say(NOT_AS_GIVEN["no gradient" if run.calls else "no call"])]
    if run.unchanged and (run.w == START).all() and not _rebound(run):
        return faults or [say(NOT_AS_GIVEN["no gradient" if run.by_hand else "still"])]
    return []


def _step_faults(step: Step, run: Run, again: Runner, batch: int, rule: str) -> list[str]:
    faults, factor = faults_of(step, run, rule, batch), abs(step.factor)
    if not near(factor, 1):
        half = again(OUT_OF_REACH, ETA / 2)
        other = fit(half, epochs_of(half), rule, ETA / 2)
        if other and other.power == step.power and near(other.factor, 2 * step.factor):
            faults.append(
                say(
                    "{name} is ignored: the step is {lr} whatever {name} is",
                    name=again.names[3],
                    lr=factor * ETA,
                )
            )
            factor = 1.0
    return faults + scale_faults(factor, step, run, batch)


def _length_faults(run: Run, epochs: list[list[int]]) -> list[str]:
    """Judge the number of epochs of a run that no epsilon ends."""
    n = len(epochs)
    if run.endless:
        return [say("it does not end at nepoch = {n}: count the epochs, epoch += 1", n=NEPOCH)]
    if n == NEPOCH or not whole(run, epochs) or run.diverged:
        return []
    if n < NEPOCH - 1:
        return [
            say(
                "it ends after epoch {epochs}, though nepoch = {n} and no loss is below epsilon",
                epochs=n,
                n=NEPOCH,
            )
        ]
    return [
        say(
            "it runs {n} epoch where nepoch = {asked} is asked",
            "it runs {n} epochs where nepoch = {asked} is asked",
            n=n,
            asked=NEPOCH,
        )
    ]


NOT_AS_GIVEN = {
    "unreadable": to_say(
        "the calls of f(w, x) cannot be understood: give it w, and x from t[:, 0]"
    ),
    "no gradient": to_say(
        "no gradient is taken through f(w, x): each step needs loss.backward() on the loss of "
        "f(w, x) and y"
    ),
    "no call": to_say(
        "f is never called: each step needs loss.backward() on the loss of f(w, x) and y"
    ),
    "still": to_say("w never moves: subtract eta * w.grad after backward(), before zeroing"),
    "elsewhere": to_say("the descent does not start at the w it is given: use w as it comes"),
    "rebound": to_say(
        "w is rebound, not updated: `w = w - ...` makes a new tensor, without a gradient, and the "
        "caller's w is unchanged; change it in place, w.data.sub_(eta * w.grad)"
    ),
}
MISUSES = {
    "swapped": to_say("f is called as f(x, w): its arguments are f(w, x), first w"),
    "targets": to_say("x and y are swapped: x = t[:, 0] and y = t[:, 1]"),
}
