"""What a function compares with epsilon, found from where it stops for several epsilons."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from sgdstudy.course.notes import BATCH, NEPOCH, D, Run, Runner, loss_and_gradient
from sgdstudy.course.samples import epochs_of, whole
from sgdstudy.course.steps import Step
from sgdstudy.language import say, to_say

ALWAYS = 1e6  # an epsilon that is met at once
CARRIED = to_say("the running loss goes on from epoch to epoch: set it to 0 at the start of each")
STOPS = {
    "never": to_say("epsilon is never looked at: stop once the epoch's running loss is below it"),
    "full": to_say(
        "the stop looks at the loss of all samples after the epoch; the exercise asks for the "
        "running loss, added up over the batches as w moves"
    ),
    "unweighted": to_say(
        "the stop looks at the plain mean of the batch losses, where the smaller last batch counts "
        "too much: add loss.item() * len(x), divide by len(t)"
    ),
    "last": to_say(
        "the stop looks at the last batch's loss alone: add up the losses of all batches"
    ),
    "sum": to_say(
        "the stop looks at the sum of the batch losses: take their mean over the samples"
    ),
    "total": to_say(
        "the stop looks at the sum over the samples: divide the running loss by len(t)"
    ),
    "means by d": to_say(
        "the stop looks at the sum of the batch losses, divided by the number of samples: each "
        "loss is a mean, so multiply it by len(x) before adding it up"
    ),
    "by minibatch": to_say(
        "the running loss adds loss.item() * minibatch, though the last batch is smaller: multiply "
        "by len(x)"
    ),
    "total by m": to_say(
        "the running loss is divided by the number of batches, though each loss was multiplied by "
        "its number of samples: divide by len(t)"
    ),
    "kept": CARRIED,
    "leak": CARRIED,
    "late": to_say(
        "the stop comes one epoch late: compare the running loss of the epoch just done"
    ),
}


def _rules(
    run: Run, epochs: list[list[int]], step: Step | None, once: bool
) -> dict[tuple[str, bool], np.ndarray]:
    """Return, per rule, what it compares with epsilon at the end of each epoch.

    A step that is wrong may come from a wrong loss, which is then in the stop too: each rule is
    there with the right loss, and with the one that the step shows (True).

    Args:
        run: as recorded.
        epochs: its updates, by epoch.
        step: what the updates are.
        once: one update is made of the losses of several batches.
    """
    ends = [run.w_next[epoch[-1]] for epoch in epochs]
    full = np.array([loss_and_gradient("mse", w, list(range(D)))[0] for w in ends])
    batches = [
        [(k, part) for k in epoch for part in (run.parts[k] if once else [run.batches[k]])]
        for epoch in epochs
    ]
    kinds = {False: ("mse", 1.0, 0)}
    if step and not once and not step.loss_is_right:
        kinds[True] = (step.kind, step.loss_scale, step.power)
    rules: dict[tuple[str, bool], np.ndarray] = {}
    for own, (kind, scale, power) in kinds.items():
        sizes = [np.array([len(part) for _, part in epoch]) for epoch in batches]
        loss = [
            scale * n.astype(float) ** power
            * np.array([loss_and_gradient(kind, run.w[k], part)[0] for k, part in epoch])
            for epoch, n in zip(batches, sizes, strict=True)
        ]  # fmt: skip
        total = np.array([values @ n for values, n in zip(loss, sizes, strict=True)])
        sums = np.array([values.sum() for values in loss])
        leak = itertools.accumulate(total, lambda kept, new: (kept + new) / D, initial=0.0)
        found = {
            "running": total / D,
            "full": scale * full,
            "unweighted": np.array([values.mean() for values in loss]),
            "last": np.array([values[-1] for values in loss]),
            "sum": sums,
            "total": total,
            "means by d": sums / D,
            "by minibatch": sums * BATCH / D,
            "total by m": total / [len(values) for values in loss],
            "kept": np.cumsum(total) / D,
            "leak": np.array(list(leak)[1:]),
            "late": np.concatenate([[np.inf], total[:-1] / D]),
            "never": np.full(len(total), np.inf),
        }
        rules |= {(name, own): values for name, values in found.items()}
    return rules


def _explains(values: np.ndarray, epsilon: float, ran_through: bool) -> bool:
    """Whether a rule with these values stops after the last of them and not before."""
    if (values[:-1] < epsilon * (1 - 1e-4)).any():
        return False
    return ran_through or not values[-1] > epsilon * (1 + 1e-4)


def _epsilons(
    rules: dict[tuple[str, bool], np.ndarray], alive: set[tuple[str, bool]]
) -> Iterator[float]:
    """Yield the epsilons to try: first those of the running loss, then of what is left over."""
    running = [rules["running", own] for own in (False, True) if ("running", own) in rules]
    yield from (ALWAYS, 10 * running[0][0], 2 * running[0][0])
    yield from np.quantile(running, [0.5, 0.2, 0.8, 0.1, 0.65, 0.35], axis=1).flatten()
    for rule in sorted(alive):
        if rule in alive and np.isfinite(rules[rule][1:]).all():
            yield float(np.median(rules[rule]))


def stop_faults(
    run: Runner,
    first: Run,
    epochs: list[list[int]],
    step: Step | None,
    once: bool,
    right: frozenset[str],
) -> list[str]:
    """Run with several epsilons and keep the rules that explain every stop.

    Args:
        run: runs the function.
        first: the run that never stops.
        epochs: its updates, by epoch.
        step: what the updates are.
        once: one update is made of the losses of several batches.
        right: the rules that the exercise allows.
    """
    tried = _rules(first, epochs[:NEPOCH], step, once)
    alive = set(tried)
    example = ""
    for epsilon in _epsilons(tried, alive):
        met = run(epsilon)
        if met.error:
            return [met.error]
        if not met.batches:  # met before any update
            alive -= {rule for rule in alive if rule[0] == "never"}
            continue
        done = epochs_of(met)
        if not whole(met, done):
            return [
                say(
                    "it stops inside an epoch, with epsilon = {epsilon} after {n} batch: compare "
                    "the running loss once all batches are done",
                    "it stops inside an epoch, with epsilon = {epsilon} after {n} batches: compare "
                    "the running loss once all batches are done",
                    epsilon=epsilon,
                    n=len(done[0]),
                )
            ]
        rules = _rules(met, done, step, once)
        through = met.endless or met.diverged or len(done) >= len(epochs)
        alive &= {rule for rule, values in rules.items() if _explains(values, epsilon, through)}
        if not example and not _explains(rules["running", False], epsilon, through):
            below = np.flatnonzero(rules["running", False] < epsilon)
            example = _example(epsilon, len(done), below)
    names = {name for name, _ in alive}
    texts = {STOPS[name] for name in names - right - {"running"}}
    if names & right:
        return []
    if len(texts) == 1:
        return [f"{say(texts.pop())} ({example})"]
    # where the loss is not known, the stop is not either
    known = step is not None and (once or step.loss_is_right)
    line = say("the stop does not follow the epoch's running loss: {example}", example=example)
    return [line] if known else []


def _example(epsilon: float, epochs: int, below: np.ndarray) -> str:
    """Say where it ends, and from which epoch, counted from 0, the running loss is below."""
    if len(below):
        return say(
            "with epsilon = {epsilon} it ends after epoch {epochs}, the running loss is below "
            "after {due}",
            epsilon=epsilon,
            epochs=epochs,
            due=int(below[0]) + 1,
        )
    return say(
        "with epsilon = {epsilon} it ends after epoch {epochs}, where the running loss is not "
        "below",
        epsilon=epsilon,
        epochs=epochs,
    )
