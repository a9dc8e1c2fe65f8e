"""Naming the faults of a recorded run: its steps, its samples, its stop."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from sgdstudy.course.notes import ETA, NEPOCH, START, D, Run, Runner, loss_and_gradient

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
        return [*faults, "the calls of f(w, x) cannot be understood: give it w, and x from t[:, 0]"]
    if not first.batches:
        call = "no gradient is taken through f(w, x)" if first.calls else "f is never called"
        return faults or [f"{call}: each step needs loss.backward() on the loss of f(w, x) and y"]
    if len(first.w) == 1 and first.unchanged:
        return faults or ["w never moves: subtract eta * w.grad after backward(), before zeroing"]
    if not np.array_equal(first.w[0], START):
        faults.append("the descent does not start at the w it is given: use w as it comes")
    elif first.unchanged:
        faults.append(
            "w is rebound, not updated: the caller's w is unchanged; "
            "change it in place, w.data.sub_(eta * w.grad)"
        )
    epochs = _epochs(first)
    step = _fit(first, epochs)
    faults += _step_faults(step, first, run) if step else [_unexplained(first)]
    if first.error:
        return faults
    faults += _sampling_faults([[first.batches[k] for k in epoch] for epoch in epochs], batch)
    run.limit = 100 + (NEPOCH * first.calls // len(epochs) if first.endless else first.calls)
    if first.endless:
        faults.append(f"it does not end at nepoch = {NEPOCH}: count the epochs, epoch += 1")
    elif len(epochs) != NEPOCH and _whole(first, epochs) and not first.diverged:
        if len(epochs) < NEPOCH - 1:  # it stops for a reason of its own
            end = f"it ends after epoch {len(epochs)}"
            return [*faults, f"{end}, though nepoch = {NEPOCH} and no loss is below epsilon"]
        faults.append(f"it runs {len(epochs)} epochs where nepoch = {NEPOCH} is asked")
    if not _whole(first, epochs):
        met = run(ALWAYS)
        on = met.endless or len(met.batches) >= len(first.batches)
        return faults + [STOPS["never"]] * on
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
    return (
        f"the update is not -eta times the gradient of the batch's mean squared error: "
        f"update {k + 1} moves w by ({seen}), where ({due}) is right"
    )


def _step_faults(step: _Step, run: Run, again: Runner) -> list[str]:
    faults = [KINDS[step.kind]] if step.kind in KINDS else []
    if step.since != "step":
        which = "all gradients so far" if step.since == "run" else "the epoch's gradients so far"
        faults.append(
            f"the gradient is not zeroed: each update uses the sum of {which}; "
            f"call w.grad.zero_() after each update"
        )
    if step.factor < 0:
        faults.append("the step goes uphill: subtract eta times the gradient from w")
    factor = abs(step.factor)
    if not _near(factor, 1):
        half = again(OUT_OF_REACH, ETA / 2)
        other = _fit(half, _epochs(half), ETA / 2)
        if other and other.power == step.power and _near(other.factor, 2 * step.factor):
            faults.append(f"eta is ignored: the step is {factor * ETA:.3g} whatever eta is")
            factor = 1.0
    return faults + _scale_faults(factor, step.power, run)


def _scale_faults(factor: float, power: int, run: Run) -> list[str]:
    """Name a step that is factor * size**power times the right one."""
    small, size = int(run.sizes.min()), int(run.sizes.max())
    if power == 0 and _near(factor, 1):
        return []
    known = {
        (1, 1.0): f"the step uses the sum over the batch, not the mean: {size} times too large in "
        f"a batch of {size}; divide the loss by len(x)",
        (1, 1 / D): f"the batch's gradient is divided by all {D} samples, not by len(x)",
        (
            1,
            1 / size,
        ): f"the sum over the last batch, of {small}, is divided by {size} as the others are",
        (-1, 1.0): f"the mean is divided by the batch size again: {size} times too small",
    }
    for (q, value), line in known.items():
        one_size = small == size > 1 and _near(factor, value * size ** (q - power))
        if one_size or (q == power and _near(factor, value)):
            return [line]
    times = f"{factor:.3g} times too large" if factor > 1 else f"{1 / factor:.3g} times too small"
    hint = "; is there a 1/2 in the loss?" if _near(factor, 0.5) else ""
    line = f"the step is {times}: it should be eta times the gradient of the mean{hint}"
    return [known[power, 1.0], line] if power else [line]


KINDS = {
    "pairs": "f(w, x) and y differ in shape, so every prediction meets every y of the batch: "
    "give both the same shape",
    "abs": "the gradient is that of the mean of |y - f(w, x)|: square the differences",
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
        asked = f"minibatch = {batch} is" if batch < D else f"all {D} samples at once are"
        faults.append(f"the batches have {odd[-1]} samples where {asked} asked")
    orders = {tuple(frozenset(samples) for samples in epoch) for epoch in epochs}
    if len(epochs) > 1 and len(epochs[0]) > 1 and len(orders) == 1:
        faults.append("the order is the same in every epoch: shuffle the samples anew in each")
    if once:
        return faults
    worst = max(drawn, key=lambda epoch: len(epoch) - len(set(epoch)))
    n, different = len(worst), len(set(worst))
    if different < n:
        line = f"samples twice, {different} different ones in {n} draws: permute all {D}"
    elif n == D - D % sizes[-1]:
        line = f"{n} of the {D} samples: the last, smaller batch is left out (drop_last)"
    else:
        line = f"{n} of the {D} samples: each is due once"
    return [*faults, f"an epoch uses {line}"]


# ---- the stop -----------------------------------------------------------------------------------

STOPS = {
    "never": "epsilon is never looked at: stop once the epoch's running loss is below it",
    "full": "the stop looks at the loss of all samples after the epoch; the exercise asks for the "
    "running loss, added up over the batches as w moves",
    "unweighted": "the stop looks at the plain mean of the batch losses, where the smaller last "
    "batch counts too much: add loss.item() * len(x), divide by len(t)",
    "last": "the stop looks at the last batch's loss alone: add up the losses of all batches",
    "sum": "the stop looks at the sum of the batch losses: take their mean over the samples",
    "total": "the stop looks at the sum over the samples: divide the running loss by len(t)",
    "kept": "the running loss goes on from epoch to epoch: set it to 0 at the start of each",
    "leak": "the running loss goes on from epoch to epoch: set it to 0 at the start of each",
    "late": "the stop comes one epoch late: compare the running loss of the epoch just done",
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
                f"it stops inside an epoch, with epsilon = {epsilon:.3g} after {len(done[0])} "
                f"batches: compare the running loss once all batches are done"
            ]
        rules = _rules(met, done, step)
        through = met.endless or met.diverged or len(done) >= len(epochs)
        alive &= {rule for rule, values in rules.items() if _explains(values, epsilon, through)}
        if not example and not _explains(rules["running", False], epsilon, through):
            below = np.flatnonzero(rules["running", False] < epsilon)
            example = f"with epsilon = {epsilon:.3g} it " + (
                f"ends after epoch {len(done)}, the running loss is below after {below[0] + 1}"
                if len(below)
                else f"ends after epoch {len(done)}, where the running loss is not below"
            )
    names = {name for name, _ in alive}
    texts = {STOPS[name] for name in names - right}
    if names & right:
        return []
    if len(texts) == 1:
        return [f"{texts.pop()} ({example})"]
    # where the loss is not known, the stop is not either
    known = step is not None and step.loss_is_right
    return [f"the stop does not follow the epoch's running loss: {example}"] if known else []
