"""Naming the faults of a recorded run: its steps, its samples, its stop."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from sgdstudy.course.notes import ETA, NEPOCH, START, D, Run, Runner, loss_and_gradient
from sgdstudy.language import say, to_say

OUT_OF_REACH, ALWAYS = 1e-12, 1e6  # an epsilon that is never met, and one met at once


def judge(run: Runner, batch: int) -> list[str]:
    """Return the faults of a function, one line each, in the order in which to mend them.

    Args:
        run: runs it on the small data.
        batch: samples per batch that the exercise asks for.
    """
    first = run(OUT_OF_REACH)
    faults = [first.error] if first.error else []
    if not first.readable:
        return [*faults, say(NOT_AS_GIVEN["unreadable"])]
    if not first.batches:
        return faults or [say(NOT_AS_GIVEN["no gradient" if first.calls else "no call"])]
    if len(first.w) == 1 and first.unchanged:
        return faults or [say(NOT_AS_GIVEN["still"])]
    if not np.array_equal(first.w[0], START):
        faults.append(say(NOT_AS_GIVEN["elsewhere"]))
    elif first.unchanged:
        faults.append(say(NOT_AS_GIVEN["rebound"]))
    epochs = _epochs(first)
    step = _fit(first, epochs)
    faults += _step_faults(step, first, run) if step else [_unexplained(first)]
    if first.error:
        return faults
    faults += _sampling_faults([[first.batches[k] for k in epoch] for epoch in epochs], batch)
    run.limit = 100 + (NEPOCH * first.calls // len(epochs) if first.endless else first.calls)
    if first.endless:
        faults.append(
            say("it does not end at nepoch = {n}: count the epochs, epoch += 1", n=NEPOCH)
        )
    elif len(epochs) != NEPOCH and _whole(first, epochs) and not first.diverged:
        if len(epochs) < NEPOCH - 1:  # it stops for a reason of its own
            return [
                *faults,
                say(
                    "it ends after epoch {epochs}, though nepoch = {n} and no loss is below "
                    "epsilon",
                    epochs=len(epochs),
                    n=NEPOCH,
                ),
            ]
        faults.append(
            say("it runs {epochs} epochs where nepoch = {n} is asked", epochs=len(epochs), n=NEPOCH)
        )
    if not _whole(first, epochs):
        met = run(ALWAYS)
        on = met.endless or len(met.batches) >= len(first.batches)
        return faults + [say(STOPS["never"])] * on
    return faults + _stop_faults(run, first, epochs, step, batch)


def _epochs(run: Run) -> list[list[int]]:
    """Group the updates: an epoch ends when all samples were seen, or one is seen again."""
    epochs: list[list[int]] = []
    seen = set(range(D))
    for k, samples in enumerate(run.batches):
        if len(seen) == D or seen & set(samples):
            epochs.append([])
            seen = set()
        epochs[-1].append(k)
        seen |= set(samples)
    if (run.endless or run.error or run.diverged) and len(epochs) > 1:
        return epochs if _whole(run, epochs) else epochs[:-1]  # the last is cut short
    size, rest = divmod(len(run.batches), NEPOCH)
    if size and not rest and not _whole(run, epochs):  # drawn in another way: NEPOCH equal parts
        return [list(range(k, k + size)) for k in range(0, len(run.batches), size)]
    return epochs


def _whole(run: Run, epochs: list[list[int]]) -> bool:
    """Whether every epoch uses every sample once."""
    drawn = [sorted(i for k in epoch for i in run.batches[k]) for epoch in epochs]
    return all(samples == list(range(D)) for samples in drawn)


# ---- the step -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """Each update is -eta * factor * (a sum of) size**power * gradient."""

    kind: str  # of the loss: "mse"; "abs", unsquared; "pairs", each prediction with each y
    since: str  # gradients of this "step", of the "epoch" so far, or of the whole "run" so far
    power: int
    factor: float

    @property
    def loss_is_right(self) -> bool:
        return (self.kind, self.power) == ("mse", 0) and _near(self.factor, 1)


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= 0.01 * abs(b)


def _agree(run: Run, move: np.ndarray) -> np.ndarray:
    """Whether each recorded update is the one given `(n, 3)`, up to float32 rounding."""
    error = np.linalg.norm(run.w_next - run.w - move, axis=1)
    close = error <= 1e-4 * np.linalg.norm(move, axis=1) + 1e-6 * (1 + np.abs(run.w).max(1))
    return close | np.isnan(error)


def _fit(run: Run, epochs: list[list[int]], eta: float = ETA) -> _Step | None:
    """Return the simplest explanation of all updates, or None."""
    first = np.zeros(len(run.w), int)  # of the epoch
    for epoch in epochs:
        first[epoch[0] :] = epoch[0]
    begins = {"step": np.arange(len(run.w)), "epoch": first, "run": 0 * first}
    gradients = {kind: run.table(kind)[1] for kind in ("mse", "pairs", "abs")}
    known = ~np.isnan(run.w_next).any(1)
    moved = (run.w_next - run.w)[known]
    for since, power, kind in itertools.product(begins, (0, 1, -1), gradients):
        sums = np.cumsum(gradients[kind] * run.sizes[:, None] ** power, axis=0)
        move = -eta * (sums - np.vstack([np.zeros(3), sums])[begins[since]])
        if not move[known].any():
            return None
        factor = float((moved * move[known]).sum() / (move[known] ** 2).sum())
        if _agree(run, factor * move).all():
            return _Step(kind, since, power, factor)
    return None


def _unexplained(run: Run) -> str:
    move = -ETA * run.table("mse")[1]
    k = int(np.argmin(_agree(run, move)))
    seen, due = (", ".join(f"{v:.3g}" for v in u) for u in ((run.w_next - run.w)[k], move[k]))
    return say(
        "the update is not -eta times the gradient of the batch's mean squared error: update {k} "
        "moves w by ({seen}), where ({due}) is right",
        k=k + 1,
        seen=seen,
        due=due,
    )


def _step_faults(step: _Step, run: Run, again: Runner) -> list[str]:
    faults = [say(KINDS[step.kind])] if step.kind in KINDS else []
    if step.since != "step":
        faults.append(say(NOT_ZEROED[step.since]))
    if step.factor < 0:
        faults.append(say("the step goes uphill: subtract eta times the gradient from w"))
    factor = abs(step.factor)
    if not _near(factor, 1):
        half = again(OUT_OF_REACH, ETA / 2)
        other = _fit(half, _epochs(half), ETA / 2)
        if other and other.power == step.power and _near(other.factor, 2 * step.factor):
            faults.append(say("eta is ignored: the step is {lr} whatever eta is", lr=factor * ETA))
            factor = 1.0
    return faults + _scale_faults(factor, step.power, run)


def _scale_faults(factor: float, power: int, run: Run) -> list[str]:
    """Name a step that is factor * size**power times the right one."""
    small, size = int(run.sizes.min()), int(run.sizes.max())
    if power == 0 and _near(factor, 1):
        return []
    known = {(1, 1.0): "sum", (1, 1 / D): "by all", (1, 1 / size): "last", (-1, 1.0): "twice"}
    given = {"size": size, "small": small, "d": D}
    for (q, value), fault in known.items():
        one_size = small == size > 1 and _near(factor, value * size ** (q - power))
        if one_size or (q == power and _near(factor, value)):
            return [say(SCALES[fault], **given)]
    large = factor > 1
    fault = "large" if large else "half" if _near(factor, 0.5) else "small"
    line = say(SCALES[fault], times=factor if large else 1 / factor)
    return [say(SCALES[known[power, 1.0]], **given), line] if power else [line]


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
        "w is rebound, not updated: the caller's w is unchanged; change it in place, "
        "w.data.sub_(eta * w.grad)"
    ),
}
NOT_ZEROED = {
    "run": to_say(
        "the gradient is not zeroed: each update uses the sum of all gradients so far; call "
        "w.grad.zero_() after each update"
    ),
    "epoch": to_say(
        "the gradient is not zeroed: each update uses the sum of the epoch's gradients so far; "
        "call w.grad.zero_() after each update"
    ),
}
SCALES = {
    "sum": to_say(
        "the step uses the sum over the batch, not the mean: {size} times too large in a batch of "
        "{size}; divide the loss by len(x)"
    ),
    "by all": to_say("the batch's gradient is divided by all {d} samples, not by len(x)"),
    "last": to_say(
        "the sum over the last batch, of {small}, is divided by {size} as the others are"
    ),
    "twice": to_say("the mean is divided by the batch size again: {size} times too small"),
    "large": to_say(
        "the step is {times} times too large: it should be eta times the gradient of the mean"
    ),
    "small": to_say(
        "the step is {times} times too small: it should be eta times the gradient of the mean"
    ),
    "half": to_say(
        "the step is {times} times too small: it should be eta times the gradient of the mean; is "
        "there a 1/2 in the loss?"
    ),
}
KINDS = {
    "pairs": to_say(
        "f(w, x) and y differ in shape, so every prediction meets every y of the batch: give both "
        "the same shape"
    ),
    "abs": to_say("the gradient is that of the mean of |y - f(w, x)|: square the differences"),
}


# ---- the samples --------------------------------------------------------------------------------


def _sampling_faults(epochs: list[list[list[int]]], batch: int) -> list[str]:
    """Judge the batches of each epoch."""
    faults = []
    sizes = sorted({len(samples) for epoch in epochs for samples in epoch})
    drawn = [[i for samples in epoch for i in samples] for epoch in epochs]
    once = all(sorted(epoch) == list(range(D)) for epoch in drawn)
    odd = [size for size in sizes if once and size not in (batch, D % batch)] or sizes[-1:]
    if odd[-1] != batch:
        given = {"n": odd[-1], "batch": batch, "d": D}
        if batch < D:
            line = say(
                "the batches have {n} sample where minibatch = {batch} is asked",
                "the batches have {n} samples where minibatch = {batch} is asked",
                **given,
            )
        else:
            line = say(
                "the batches have {n} sample where all {d} samples at once are asked",
                "the batches have {n} samples where all {d} samples at once are asked",
                **given,
            )
        faults.append(line)
    orders = {tuple(frozenset(samples) for samples in epoch) for epoch in epochs}
    if len(epochs) > 1 and len(epochs[0]) > 1 and len(orders) == 1:
        faults.append(say("the order is the same in every epoch: shuffle the samples anew in each"))
    if once:
        return faults
    worst = max(drawn, key=lambda epoch: len(epoch) - len(set(epoch)))
    n, different = len(worst), len(set(worst))
    given = {"different": different, "n": n, "d": D}
    if different < n:
        text = to_say(
            "an epoch uses samples twice, {different} different ones in {n} draws: permute all {d}"
        )
    elif n == D - D % sizes[-1]:
        text = to_say(
            "an epoch uses {n} of the {d} samples: the last, smaller batch is left out (drop_last)"
        )
    else:
        text = to_say("an epoch uses {n} of the {d} samples: each is due once")
    return [*faults, say(text, **given)]


# ---- the stop -----------------------------------------------------------------------------------

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
    "kept": CARRIED,
    "leak": CARRIED,
    "late": to_say(
        "the stop comes one epoch late: compare the running loss of the epoch just done"
    ),
}


def _rules(
    run: Run, epochs: list[list[int]], step: _Step | None
) -> dict[tuple[str, bool], np.ndarray]:
    """Return, per rule, what it compares with epsilon at the end of each epoch.

    A step that is wrong may come from a wrong loss, which is then in the stop too: each rule is
    there with the right loss, and with the one that the step shows (True).
    """
    ends = [run.w_next[epoch[-1]] for epoch in epochs]
    full = np.array([loss_and_gradient("mse", w, list(range(D)))[0] for w in ends])
    losses = {False: (run.table("mse")[0], full)}
    if step and not step.loss_is_right:
        scale = abs(step.factor) * run.sizes**step.power
        losses[True] = (scale * run.table(step.kind)[0], abs(step.factor) * full)
    rules: dict[tuple[str, bool], np.ndarray] = {}
    for own, (loss, after) in losses.items():
        total = np.array([loss[epoch] @ run.sizes[epoch] for epoch in epochs])
        leak = itertools.accumulate(total, lambda kept, new: (kept + new) / D, initial=0.0)
        rules[("running", own)] = total / D
        rules[("full", own)] = after
        rules[("unweighted", own)] = np.array([loss[epoch].mean() for epoch in epochs])
        rules[("last", own)] = np.array([loss[epoch[-1]] for epoch in epochs])
        rules[("sum", own)] = np.array([loss[epoch].sum() for epoch in epochs])
        rules[("total", own)] = total
        rules[("kept", own)] = np.cumsum(total) / D
        rules[("leak", own)] = np.array(list(leak)[1:])
        rules[("late", own)] = np.concatenate([[np.inf], total[:-1] / D])
        rules[("never", own)] = np.full(len(total), np.inf)
    return rules


def _explains(values: np.ndarray, epsilon: float, ran_through: bool) -> bool:
    """Whether a rule with these values stops after the last of them and not before."""
    if (values[:-1] < epsilon * (1 - 1e-4)).any():
        return False
    return ran_through or not values[-1] > epsilon * (1 + 1e-4)


def _stop_faults(
    run: Runner, first: Run, epochs: list[list[int]], step: _Step | None, batch: int
) -> list[str]:
    """Run with several epsilons and keep the rules that explain every stop."""
    right = {"running"} if batch < D else {"running", "full"}  # one batch: before or after it
    alive = set(itertools.product([*STOPS, "running"], (False, True)))
    example = ""
    tried = _rules(first, epochs[:NEPOCH], step)
    running = [tried["running", own] for own in (False, True) if ("running", own) in tried]
    levels = np.quantile(running, [0.5, 0.2, 0.8, 0.1, 0.65, 0.35], axis=1).flatten()
    for epsilon in (ALWAYS, 10 * running[0][0], 2 * running[0][0], *levels):
        met = run(epsilon)
        if met.error:
            return [met.error]
        if not met.batches:  # met before any update
            alive = {rule for rule in alive if rule[0] != "never"}
            continue
        done = _epochs(met)
        if not _whole(met, done):
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
        rules = _rules(met, done, step)
        through = met.endless or met.diverged or len(done) >= len(epochs)
        alive &= {rule for rule, values in rules.items() if _explains(values, epsilon, through)}
        if not example and not _explains(rules["running", False], epsilon, through):
            below = np.flatnonzero(rules["running", False] < epsilon)
            example = _example(epsilon, len(done), below)
    names = {name for name, _ in alive}
    texts = {STOPS[name] for name in names - right}
    if names & right:
        return []
    if len(texts) == 1:
        return [f"{say(texts.pop())} ({example})"]
    # where the loss is not known, the stop is not either
    known = step is not None and step.loss_is_right
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
