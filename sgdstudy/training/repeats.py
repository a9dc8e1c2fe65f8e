"""Whether a run could be repeated: a model that draws, counts or remembers is found on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sgdstudy.errors import InputError
from sgdstudy.problems import trial
from sgdstudy.problems.problem import Problem
from sgdstudy.problems.torch_module import Functional
from sgdstudy.training.engines import Samples
from sgdstudy.training.recorded import Recorded

FIRST_LOOK, LATER = 16, 4  # steps until the first look; by what the next ones are further apart
ROUNDING = 1e-3  # of compiled steps beside eager ones, of the loss
ROUNDINGS = 1000  # of eager ones at other places in memory
FEW = 1000  # samples
MOST_ALONE = 16  # replicas that are looked at one by one


class Repeats:
    """Looks whether the losses of a run are a function of parameters and samples alone.

    After 16, 64, 256, ... steps, and at the end, those of its first step are computed again, and
    those of the last one and of the farthest from the start twice: what happens there is not seen
    at the first. Where a global generator moved meanwhile, those of all steps of the chunk are, to
    see whether it was the model.
    What is tried before a run (`trial.check`) sees a model only as it is at first.

    Args:
        problem: what is trained.
        compiled: whether its steps are.
        n_steps: how many there are, if nothing stops the run.
    """

    def __init__(self, problem: Problem, compiled: bool, n_steps: int) -> None:
        self.problem, self.compiled, self.n_steps = problem, compiled, n_steps
        self._steps, self._due = 0, FIRST_LOOK
        self._first: tuple[torch.Tensor, Any, torch.Tensor] | None = None  # w, batch, losses
        self._before: dict[str, Any] = {}

    def begin(self) -> None:
        """Note where the global generators are, before a chunk of steps."""
        if not self.compiled:  # there the model is not called
            self._before = trial.generators()

    def end(self, samples: Samples, sizes: np.ndarray, recorded: Recorded) -> None:
        """Look at a chunk of steps.

        Args:
            samples: theirs.
            sizes: of their batches, `(S,)`.
            recorded: what they gave.

        Raises:
            InputError: the model, or its loss, draws, counts or remembers.
        """
        starts = (np.cumsum(sizes) - sizes)[:: recorded.every]

        def losses() -> None:
            for w, start, size in zip(recorded.w, starts, sizes[:: recorded.every], strict=False):
                self._losses(w, self._batch(samples, int(start), int(size)))

        if not self.compiled and trial.moved(self._before):
            try:
                trial.undrawn("the model, or its loss,", losses)
            except InputError:
                trial.put_back(self._before)
                raise
        if self.problem.x.device.type != "cpu":  # others need not add up in the same order twice
            return
        if self._first is None:
            batch = self._batch(samples, 0, int(sizes[0]))
            self._first = recorded.w[0].clone(), batch, recorded.loss[0].clone()
        self._steps += len(sizes)
        if self._steps >= min(self._due, max(self.n_steps, FIRST_LOOK)):
            self._due = LATER * self._steps
            self._look(*self._first)
            last = len(recorded.w) - 2  # with vectors
            ways = np.nan_to_num(recorded.norms[2, :: recorded.every].max(1), posinf=0.0)
            # the last step, and where the model itself is called the farthest one
            for s in {last} if self.compiled else {last, int(ways.argmax())}:
                at = self._batch(samples, int(starts[s]), int(sizes[s * recorded.every]))
                self._require_still(recorded.w[s], at)
                if s == last:
                    self._require_unwritten(recorded.w[s], at)

    def _look(self, w: torch.Tensor, batch: Any, then: torch.Tensor) -> None:
        now = self._losses(w, batch)
        if _same_values(now, then):
            return
        x, y = (self.problem.x[None], self.problem.y[None]) if batch is None else batch
        with torch.no_grad():  # what a loss is large or small beside
            nothing = 0 * self.problem.predict(w[:1], x[:1, :FEW])
            scale = self.problem.batch_loss(nothing, y[:1, :FEW])
        share = ROUNDINGS * torch.finfo(w.dtype).eps * (then.abs() + scale.abs())
        off = (now - then).abs() - (ROUNDING * then.abs() if self.compiled else 0.0)
        if not _same_values(self._losses(w, batch), now) or bool((off > share).any()):
            raise _changed("another loss than at the beginning")

    def _require_still(self, w: torch.Tensor, batch: Any) -> None:
        """Refuse a model that by now draws, counts or writes, as where parameters are large."""
        given = w.clone()
        once = self._losses(given, batch)
        if not _same_values(given, w):
            raise InputError(
                "the model changes its parameters where they are now; let it make new values, as "
                "w.clamp(max=1) instead of w.clamp_(max=1)"
            )
        if not _same_values(once, self._losses(given, batch)):
            raise _changed("two losses")

    def _require_unwritten(self, w: torch.Tensor, batch: Any) -> None:
        """Refuse a module that by now writes into its parameters."""
        if isinstance(model := self.problem.model, Functional):
            for r in range(min(len(w), MOST_ALONE)):
                x = self.problem.x if batch is None else batch[0][r]
                model.require_unwritten(w[r], x[:FEW])

    def _losses(self, w: torch.Tensor, batch: Any) -> torch.Tensor:
        with torch.no_grad():  # what takes notes of gradients, as `ss.check`, sees none of it
            if batch is not None:
                return self.problem.losses(w, *batch)
            return self.problem.losses_over_all(w).to(w.dtype)

    def _batch(self, samples: Samples, start: int, size: int) -> Any:
        """Return the batch of a step, `(R, B, ...)`; None: all the data."""
        if samples.indices is None:
            return None
        rows = samples.indices[:, start : start + size].to(samples.x.device)
        return samples.x[rows], samples.y[rows]


def _changed(what: str) -> InputError:
    return InputError(
        f"the model, or its loss, gives {what} for the same parameters and samples: it draws, "
        f"counts or remembers; a run could not be repeated"
    )


def _same_values(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(torch.nan_to_num(a, nan=1.25), torch.nan_to_num(b, nan=1.25))
