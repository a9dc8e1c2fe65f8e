"""What the updates of a recorded run are: of which loss, which rule, how many times too large."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sgdstudy.course.notes import ETA, D, Run
from sgdstudy.language import say, to_say

PLAIN = "SGD"
RULES: dict[str, Callable[..., Any]] = {
    PLAIN: torch.optim.SGD,
    "RMSprop": torch.optim.RMSprop,
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "Adagrad": torch.optim.Adagrad,
    "momentum": functools.partial(torch.optim.SGD, momentum=0.9),
}
LOSSES = ("mse", "pairs", "abs", "norm", "rmse", "parts", "last part")


@dataclass(frozen=True)
class Step:
    """Each update is factor times a rule's, of (a sum of) size**power * gradient."""

    rule: str  # of `RULES`
    fresh: str  # its memory begins anew in each "run", "epoch" or "step"
    kind: str  # of the loss: "mse"; "abs", unsquared; "pairs", each prediction with each y; ...
    since: str  # gradients of this "step", of the "epoch" so far, or of the whole "run" so far
    power: int
    factor: float

    @property
    def loss_is_right(self) -> bool:
        """Whether the losses are the mean squares, so far as the steps tell."""
        known = near(self.factor, 1) or self.rule != PLAIN
        return self.kind in ("mse", "parts", "last part") and self.power == 0 and known

    @property
    def loss_scale(self) -> float:
        """By how much the loss is too large, if the steps are because the loss is."""
        return abs(self.factor) if self.rule == PLAIN else 1.0


def near(a: float, b: float) -> bool:
    """Whether two factors are the same within a hundredth."""
    return abs(a - b) <= 0.01 * abs(b)


def agree(run: Run, move: np.ndarray) -> np.ndarray:
    """Whether each recorded update is the one given `(n, 3)`, up to float32 rounding."""
    error = np.linalg.norm(run.w_next - run.w - move, axis=1)
    close = error <= 1e-4 * np.linalg.norm(move, axis=1) + 1e-6 * (1 + np.abs(run.w).max(1))
    return close | np.isnan(error)


def fit(run: Run, epochs: list[list[int]], rule: str, eta: float = ETA) -> Step | None:
    """Return the simplest explanation of all updates, or None.

    Args:
        run: as recorded.
        epochs: its updates, by epoch.
        rule: the one that the exercise asks for.
        eta: the step size that was given.
    """
    first = np.zeros(len(run.w), int)  # of the epoch
    for epoch in epochs:
        first[epoch[0] :] = epoch[0]
    begins = {"step": np.arange(len(run.w)), "epoch": first, "run": 0 * first}
    gradients = {kind: run.table(kind)[1] for kind in LOSSES}
    known = ~np.isnan(run.w_next).any(1)
    moved = (run.w_next - run.w)[known]
    found: list[Step] = []
    for name, fresh, since, power, kind in _explanations(rule):
        sums = np.cumsum(gradients[kind] * run.sizes[:, None] ** power, axis=0)
        slopes = sums - np.vstack([np.zeros(3), sums])[begins[since]]
        move = _moves(name, slopes, run.w, eta, begins[fresh])
        if not move[known].any():
            return None
        factor = float((moved * move[known]).sum() / (move[known] ** 2).sum())
        if agree(run, factor * move).all():
            found.append(Step(name, fresh, kind, since, power, factor))
            if near(abs(factor), 1):  # nothing is simpler
                return found[-1]
    return found[0] if found else None


def _explanations(rule: str) -> list[tuple[str, str, str, int, str]]:
    """Return what may explain updates, the simplest first."""
    shapes = list(itertools.product(("step", "epoch", "run"), (0, 1, -1), LOSSES))
    found = [(rule, "run", *shape) for shape in shapes]
    found += [(rule, fresh, "step", 0, "mse") for fresh in ("epoch", "step")]
    others = [name for name in RULES if name != rule]
    found += [(name, "run", since, 0, "mse") for name in others for since in ("step", "run")]
    return found


def _moves(
    rule: str, slopes: np.ndarray, w: np.ndarray, eta: float, begins: np.ndarray
) -> np.ndarray:
    """Return what a rule of torch.optim makes of gradients `(n, 3)`: its updates `(n, 3)`."""
    if rule == PLAIN:
        return -eta * slopes
    parameter = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    moves = np.zeros_like(slopes)
    for k, slope in enumerate(slopes):
        if k == 0 or begins[k] != begins[k - 1]:
            optimizer = RULES[rule]([parameter], lr=eta)
        parameter.data = torch.tensor(w[k])
        parameter.grad = torch.tensor(slope)
        optimizer.step()
        moves[k] = parameter.detach().numpy() - w[k]
    return moves


def due(run: Run, rule: str) -> np.ndarray:
    """Return the right updates `(n, 3)`."""
    return _moves(rule, run.table("mse")[1], run.w, ETA, np.zeros(len(run.w), int))


def once_an_epoch(run: Run, batch: int) -> bool:
    """Whether one update is made of the losses of several batches."""
    return any(len(parts) > 1 and sum(map(len, parts)) > batch for parts in run.parts)


# ---- in words -----------------------------------------------------------------------------------

NOT_ZEROED = {
    "run": to_say(
        "the gradient is not zeroed: each update uses the sum of all gradients so far; call "
        "w.grad.zero_() after each update (of an optimizer: optimizer.zero_grad())"
    ),
    "epoch": to_say(
        "the gradient is not zeroed in time: each update uses the sum of the epoch's gradients so "
        "far; call w.grad.zero_() after each update (of an optimizer: optimizer.zero_grad())"
    ),
}
ONE_BACKWARD = to_say(
    "the losses of all batches are added up, and backward() is called once an epoch: that is one "
    "update an epoch, as in Exercise 1; call backward(), and update w, in the loop over the batches"
)
ONE_UPDATE = to_say(
    "w is updated once an epoch, after the loop over the batches: move the update, and the "
    "zeroing, into that loop"
)
KINDS = {
    "pairs": to_say(
        "f(w, x) and y differ in shape, so every prediction meets every y of the batch: give both "
        "the same shape"
    ),
    "abs": to_say("the gradient is that of the mean of |y - f(w, x)|: square the differences"),
    "norm": to_say(
        "the gradient is that of the norm of y - f(w, x), not squared: take the mean of the "
        "squares, as torch.nn.MSELoss does"
    ),
    "rmse": to_say(
        "the gradient is that of the root of the mean square: leave the root out, as "
        "torch.nn.MSELoss does"
    ),
    "last part": to_say(
        "w is updated with the gradient of the last call of f alone: update it after each "
        "backward()"
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


def faults_of(step: Step, run: Run, rule: str, batch: int) -> list[str]:
    """Return what is wrong with a step, but for its size."""
    faults = []
    if step.rule != rule and rule == PLAIN:
        faults.append(
            say("the steps are those of {rule}: the exercise asks for w - eta * w.grad, nothing "
                "else", rule=step.rule)
        )  # fmt: skip
    elif step.rule != rule:
        faults.append(
            say("the steps are those of {found}: the exercise asks for torch.optim.{rule}",
                found=step.rule, rule=rule)
        )  # fmt: skip
    elif step.fresh != "run":
        faults.append(
            say("a new optimizer is made in each epoch or step, and forgets what it has seen: make "
                "it once, before the loops")
        )  # fmt: skip
    if once_an_epoch(run, batch):
        faults.append(say(ONE_UPDATE if max(run.backwards) > 1 else ONE_BACKWARD))
    elif step.kind in KINDS:
        faults.append(say(KINDS[step.kind]))
    if step.since != "step":
        faults.append(say(NOT_ZEROED[step.since]))
    if step.factor < 0:
        faults.append(say("the step goes uphill: subtract eta times the gradient from w"))
    return faults


def scale_faults(factor: float, step: Step, run: Run, batch: int) -> list[str]:
    """Name a step that is factor * size**power times the right one."""
    power = step.power
    if step.kind in ("norm", "rmse", "last part") or once_an_epoch(run, batch):
        return []  # its size says nothing of its own
    small, size = int(run.sizes.min()), int(run.sizes.max())
    if power == 0 and near(factor, 1):
        return []
    known = {(1, 1.0): "sum", (1, 1 / D): "by all", (1, 1 / size): "last", (-1, 1.0): "twice"}
    given = {"size": size, "small": small, "d": D}
    for (q, value), fault in known.items():
        one_size = small == size > 1 and near(factor, value * size ** (q - power))
        if one_size or (q == power and near(factor, value)):
            return [say(SCALES[fault], **given)]
    large = factor > 1
    fault = "large" if large else "half" if near(factor, 0.5) else "small"
    line = say(SCALES[fault], times=factor if large else 1 / factor)
    return [say(SCALES[known[power, 1.0]], **given), line] if power else [line]


def unexplained(run: Run, rule: str) -> str:
    """Return in words the first update that is not the right one."""
    moves = due(run, rule)
    k = int(np.argmin(agree(run, moves)))
    seen, right = (", ".join(f"{v:.3g}" for v in u) for u in ((run.w_next - run.w)[k], moves[k]))
    given = {"k": k + 1, "seen": seen, "due": right}
    if rule != PLAIN:
        return say(
            "the update is not that of {rule} with the gradient of the batch's mean squared error: "
            "update {k} moves w by ({seen}), where ({due}) is right",
            rule=rule, **given,
        )  # fmt: skip
    return say(
        "the update is not -eta times the gradient of the batch's mean squared error: update {k} "
        "moves w by ({seen}), where ({due}) is right",
        **given,
    )
