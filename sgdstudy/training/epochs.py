"""What a run's epochs add up to: sums over their batches, and what is looked at when they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np

from sgdstudy.problems.problem import Problem
from sgdstudy.quantities import norm
from sgdstudy.recipe import columns
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.recipe.phases import Phases
from sgdstudy.training.chunk import Ends, Span, Trace
from sgdstudy.training.recorded import sum_batches

COLUMNS = tuple(column.name for column in columns.OF_EPOCHS)


class Epochs:
    """The epochs of R replicas, a chunk of steps at a time.

    Args:
        problem: what is trained.
        config: how.
        phases: which batches its epochs have.

    Attributes:
        columns: what is known of an epoch when it ends.
        sums: over the batches so far of the present epoch, `(1, R, ...)`; empty between two.
        averaged: sum of the parameters to be averaged, of the epochs before it, `(R, p)`.
        ema: their moving average by now, `(R, p)`; None: before the first step, or not wanted.
    """

    def __init__(self, problem: Problem, config: TrainConfig, phases: Phases) -> None:
        self.problem, self.config, self.phases = problem, config, phases
        self.sums: dict[str, np.ndarray] = {}
        self.averaged = np.zeros((len(config.seeds), problem.p))
        self.ema: np.ndarray | None = None
        self._ema_ends = np.empty(0)
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self.columns = tuple(config.epoch_columns(problem))
        self._measured = {
            f"{prefix}{name}": (name, function, bool(prefix))
            for name, function in config.measures.items()
            for prefix in ("", "test_")
            if f"{prefix}{name}" in self.columns
        }
        self._optional = [
            name for name in self.columns[len(COLUMNS) :] if name not in self._measured
        ]

    @property
    def gradients(self) -> np.ndarray | None:
        """Sum of the present epoch's gradients so far, `(R, p)`; None: it has yet to begin."""
        return self.sums["grad"][0] if self.sums else None

    def add(self, span: Span, trace: Trace) -> None:
        """Add the batches of E whole epochs, or of a part of one, as they were recorded."""
        sizes = span.sizes

        def by_epoch(values: np.ndarray) -> np.ndarray:
            return values.reshape(span.n_epochs, span.m, *values.shape[1:])

        loss = by_epoch(trace.loss).astype(float)
        terms = {
            "loss": loss,
            "weighted_loss": sizes[:, None] * loss,
            "grad_norm": sizes[:, None] * by_epoch(trace.grad_norm),
        }
        if self.config.average is not None:
            terms["w"] = by_epoch(trace.w[1:]).astype(float)
        sums = {name: sum_batches(value, self.sums.get(name)) for name, value in terms.items()}
        self.sums = sums | {"grad": trace.sums}
        self._last = loss[:, -1], trace.ends(span)
        if self.config.ema is not None:
            self._move(by_epoch(trace.w[1:]).astype(float), self.config.ema)

    def _move(self, w_next: np.ndarray, decay: float) -> None:
        """Follow e <- decay e + (1 - decay) w over steps `(E, m, R, p)`, from the first w on."""
        from scipy.signal import lfilter  # late: 0.3 s

        w = w_next.reshape(-1, *w_next.shape[2:])
        before = w[0] if self.ema is None else self.ema
        moved, _ = lfilter([1 - decay], [1.0, -decay], w, axis=0, zi=decay * before[None])
        self._ema_ends = moved[w_next.shape[1] - 1 :: w_next.shape[1]].copy()
        self.ema = self._ema_ends[-1]

    def of_batches(self, done: int) -> dict[str, np.ndarray]:
        """Return what the batches of the epochs that were added say, `(E, R)` each.

        Args:
            done: number of epochs before them.
        """
        assert self._last is not None
        sums, sizes = self.sums, self.phases.at(done).sizes
        n = int(sizes.sum())
        return {
            "running_loss": sums["weighted_loss"] / n,
            "last_loss": self._last[0],
            "sum_loss": sums["loss"],
            "mean_loss": sums["loss"] / len(sizes),
            "mean_grad_norm": sums["grad_norm"] / n,
            "norm_mean_grad": norm(sums["grad"] / n),
        }

    def close(
        self, done: int, of_batches: Mapping[str, np.ndarray], ends: Ends, due: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return all columns of the epochs that were added, `(E, R)` each.

        Args:
            done: number of epochs before them.
            of_batches: what their batches say, see `of_batches`.
            ends: what all the data say at their ends.
            due: which of them are evaluated, `(E,)`; of the others some columns are NaN.
        """
        assert self._last is not None
        length = ends.gradient.put(norm(ends.gradient.vectors))
        values = {"full_loss": ends.loss, "full_grad_norm": length, **of_batches}
        values = {name: values[name] for name in COLUMNS}
        values |= self._at_the_end(done, self._last[1], self.sums.get("w"), due, ends.accuracy)
        self.sums, self._last = {}, None
        return values

    def state_dict(self) -> dict[str, Any]:
        """Return the sums that were reached."""
        moving = {} if self.ema is None else {"ema": self.ema}
        return {"sums": self.sums, "averaged": self.averaged, **moving}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the sums that another one had reached."""
        self.sums = {name: np.asarray(value) for name, value in state["sums"].items()}
        self.averaged = np.asarray(state["averaged"])
        self.ema = np.asarray(state["ema"]) if "ema" in state else None

    def retain(self, live: np.ndarray) -> None:
        """Go on with these replicas only (positions)."""
        self.sums = {name: value[:, live] for name, value in self.sums.items()}
        self.averaged = self.averaged[live]
        self.ema = None if self.ema is None else self.ema[live]

    def _at_the_end(
        self,
        done: int,
        end_w: np.ndarray,
        sums: np.ndarray | None,
        due: np.ndarray,
        accuracy: np.ndarray | None,
    ) -> dict[str, np.ndarray]:
        """Return the optional columns, from the parameters at the ends and their sums `(E, R, p)`.

        Until averaging begins, the parameters themselves are their mean. The accuracies `(E, R)` on
        the training data may be known.
        """
        problem, epoch = self.problem, done + 1 + np.arange(len(end_w))
        mean_w = end_w if sums is None else self._average(end_w, sums, epoch)
        at, ends, means = epoch[due], end_w[due].astype(float), mean_w[due].astype(float)
        emas = self._ema_ends[due] if len(self._ema_ends) else ends
        flat, mean, ema = (w.reshape(-1, w.shape[-1]) for w in (ends, means, emas))

        def distance(w: np.ndarray) -> np.ndarray:
            true_w = problem.true_at(self.phases.steps_before(at))
            assert true_w is not None
            return norm(w - true_w[:, None])

        tested, ema_tested = (
            cache(partial(problem.scores, w, test=True)) for w in (flat, ema)
        )  # losses and accuracies, of one pass
        ways: dict[str, Callable[[], np.ndarray]] = {
            "distance": lambda: distance(ends),
            "test_loss": lambda: tested()[0],
            "accuracy": lambda: problem.accuracy(flat) if accuracy is None else accuracy[due],
            "test_accuracy": lambda: tested()[1],
            "average_loss": lambda: problem.full_loss(mean),
            "average_distance": lambda: distance(means),
            "ema_loss": lambda: problem.full_loss(ema),
            "ema_distance": lambda: distance(emas),
            "ema_test_loss": lambda: ema_tested()[0],
            "ema_test_accuracy": lambda: ema_tested()[1],
        }
        found = {name: ways[name]() for name in self._optional}
        for column, (name, function, test) in self._measured.items():
            found[column] = problem.measured(name, function, flat, test)
        evaluated = {name: np.full(end_w.shape[:-1], np.nan) for name in found}
        for name, values in found.items():
            evaluated[name][due] = values.reshape(ends.shape[:-1])
        return evaluated

    def _average(self, end_w: np.ndarray, sums: np.ndarray, epoch: np.ndarray) -> np.ndarray:
        """Return the mean of the parameters after every step so far that counts, `(E, R, p)`."""
        assert self.config.average is not None
        skipped = int(self.config.average * self.phases.epochs)
        counts = (epoch > skipped)[:, None, None]
        within = np.where(counts, sums, 0.0)
        total = np.add.accumulate(np.concatenate([self.averaged[None], within]))[1:]
        self.averaged = total[-1]
        before = self.phases.steps_before
        n = (before(epoch) - before(skipped))[:, None, None]
        return np.where(counts, total / np.maximum(n, 1), end_w)
