"""Theory bound to one problem and one configuration: what to expect of an arm, or of its run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from sgdstudy.errors import InputError, shown
from sgdstudy.known import Known
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.theory import batch_vs_full, descent, fixed_order, paths, rounding
from sgdstudy.theory.expected_moments import ExpectedMoments
from sgdstudy.theory.predictions import WITHIN, followed_losses, known_order, predict, run_dtype

MAP = "theory: the epoch's product of I - lr H_b"
SIGMA = "theory: |g|^2 + tr(Sigma) (d - B) / (B (d - 1)); its own standard error"
CLOSED = "theory: loss of descent in closed form"
OWN = "theory: the steps of the seeds' own orders, in float64"


class Planned(Protocol):
    """An arm or a run: what is trained, and how."""

    @property
    def problem(self) -> Problem:
        """What is trained."""

    @property
    def config(self) -> TrainConfig:
        """How."""


def expect(arm: Planned) -> Expected:
    """Return what theory expects of an arm or a run: least squares, with plain steps.

    Raises:
        InputError: neither, or (of what needs it) a problem that is not least squares.

    Example:
        >>> import sgdstudy as ss
        >>> known = expect(ss.Arm("curve", lr=2e-4, batch_size=10, order="sequential"))
        >>> round(float(known.rho), 4), known.rho.source
        (0.9779, "theory: the epoch's product of I - lr H_b")
    """
    if not isinstance(getattr(arm, "config", None), TrainConfig):
        raise InputError(f"expect takes an arm or a run, not {shown(arm)}")
    return Expected(arm.problem, arm.config)


@dataclass(frozen=True, eq=False)
class Expected(ExpectedMoments):
    """What theory expects of a problem and a configuration; its numbers know their source.

    Attributes:
        problem: what is trained.
        config: how.
    """

    # ---- the problem -----------------------------------------------------------------------

    def at(self, lr: float) -> Expected:
        """Return what is expected at another step size."""
        return Expected(self.problem, replace(self.config, lr=lr))

    @property
    def lr_limit(self) -> Known:
        """The step size from which full batches diverge.

        Within: how far off it may be as the growth of a run beyond it shows it, once the steepest
        direction is all of its loss; it goes with the root of that growth. Of other arms 0.
        """
        limit = descent.lr_limit(self.ls)
        pull, own = 2 * self.config.lr / limit, rounding.growth_rounding
        off = limit * own(pull, self.eps) / 2 if pull > 2 else 0.0
        return Known(limit, off, "theory: 2 / lambda_max")

    @property
    def stop_epoch(self) -> Known | None:
        """The epoch at which the median seed stops; None: theory does not know."""
        found = predict(self.problem, self.config)
        if "stop_epoch" not in found:
            return None
        law = CLOSED if self.config.batch_size is None else OWN
        return Known(found["stop_epoch"], found[f"stop_epoch{WITHIN}"], law)

    # ---- full batches ----------------------------------------------------------------------

    @property
    def eps(self) -> float:
        """The relative distance of two neighbouring numbers of the run's dtype."""
        return float(torch.finfo(run_dtype(self.problem, self.config)).eps)

    @property
    def lr_best_asymptotic(self) -> float:
        """The step size of the best rate per epoch; see `theory.lr_best_asymptotic`."""
        return descent.lr_best_asymptotic(self.ls)

    @property
    def lr_best_for_epsilon(self) -> float:
        """The step size that stops first; see `theory.lr_best_for_epsilon`.

        Raises:
            InputError: no stop rule, or no step size reaches it.
        """
        if self.config.stop is None:
            raise InputError("lr_best_for_epsilon needs a stop rule; give stop=('running', 0.1)")
        return descent.lr_best_for_epsilon(self.ls, self.start, self.config.stop[1])

    def contraction(self, epochs: int = 10) -> Known:
        """Return the factor of the error per epoch from the last losses, as `History.contraction`.

        (L(w_k) / L(w_{k-n}))^{1/2n}, k the last epoch, n = `epochs`, k - 1 at most. Every step
        rounds the parameters once, all to the same side at worst: k eps.

        Raises:
            InputError: mini-batches, a stop rule, or fewer than two epochs.
        """
        c = self.config
        if c.batch_size is not None or c.stop is not None or c.epochs < 2:
            raise InputError(
                "contraction is of full batches, two epochs at least and without a stop rule; "
                "rho is that of mini-batches"
            )
        n = min(epochs, c.epochs - 1)
        last, before = descent.descent_loss(self.ls, self.start, c.lr, c.epochs - np.array([0, n]))
        rate = float((last / before) ** (1 / (2 * n)))
        return Known(rate, c.epochs * self.eps, "theory: ratio of the same two losses")

    @property
    def float32_floor(self) -> Known:
        """The excess loss at which float32 descent from 0 stops moving."""
        ls, lr = self.ls, self.config.lr
        floor = descent.float32_floor(ls, lr)
        off = floor * descent.float32_floor_rounding(ls, lr)
        return Known(floor, off, "theory: ulp(w)^2 / (8 lr^2 lambda_min)")

    # ---- batches where a run stands still --------------------------------------------------

    @property
    def gradients(self) -> np.ndarray:
        """The gradient of every sample's loss where the first seed starts, `(d, p)`."""
        return batch_vs_full.gradients(self.ls, self.start, self.problem.d)

    @property
    def mean_square_batch_norm(self) -> Known:
        """E|g_B|^2 where the first seed starts; within: of one epoch of every seed.

        Four standard errors of that mean, and the rounding of a sum over the data.
        """
        size, d = self.config.batch_sizes(self.problem.d)[0], self.problem.d
        value = batch_vs_full.mean_square_batch_norm(self.ls, self.start, d, size)
        spread = batch_vs_full.batch_norm_spread(self.ls, self.start, d, size)
        rounded = rounding.sum_rounding(d, eps=self.eps) * value
        return Known(value, 4 * spread / len(self.config.seeds) ** 0.5 + rounded, SIGMA)

    # ---- a fixed order ---------------------------------------------------------------------

    @cached_property
    def batches(self) -> fixed_order.Batches:
        """The batches of the first seed's first epoch."""
        return fixed_order.batches(self.problem, self.config)

    @property
    def steepest(self) -> np.ndarray:
        """The largest eigenvalue of every batch of the first epoch, `(m,)`."""
        return np.linalg.eigvalsh(self.batches.hessians)[:, -1]

    @property
    def rho(self) -> Known:
        """The factor of the error per epoch in the long run: the radius of the epoch's map."""
        return Known(fixed_order.spectral_radius(self.batches, self.config.lr), source=MAP)

    def stretch(self, across: bool = False) -> fixed_order.Growth:
        """Return the consecutive batches that multiply some error most.

        Args:
            across: also across the end of an epoch.
        """
        return self._stretches[across]

    @cached_property
    def _stretches(self) -> tuple[fixed_order.Growth, fixed_order.Growth]:
        one, two = (fixed_order.growth(self.batches, self.config.lr, n) for n in (1, 2))
        return one, two

    def growth(self, across: bool = False) -> Known:
        """Return by how much these batches multiply that error.

        Off by what the labels' rounding adds, lr |g_b| a batch, multiplied by the factor at most.
        """
        found, b = self.stretch(across), self.batches
        rows = np.arange(found.first, found.last + 1) % len(b.sizes)
        added = self.config.lr * np.linalg.norm(b.gradients[rows], axis=1).sum()
        added += len(rows) * np.finfo(float).eps * np.abs(self.ls.w_star).max()
        return Known(found.factor, float(found.factor * added), MAP)

    @property
    def fixed_point_loss(self) -> Known:
        """The loss of all the data where the ends of the epochs settle."""
        loss = fixed_order.fixed_point_loss(self.ls, self.batches, self.config.lr)
        return Known(loss, source="theory: fixed point of the epoch's map")

    def usable_lr(self, epsilon: float, low: float, high: float) -> float:
        """Return the largest step whose fixed point is below epsilon; see `theory.usable_lr`."""
        return fixed_order.usable_lr(self.ls, self.batches, epsilon, low, high)

    def critical_lr(self, low: float, high: float) -> float:
        """Return the step from which the order diverges; see `theory.critical_lr`."""
        return fixed_order.critical_lr(self.batches, low, high)

    # ---- the seeds' own orders -------------------------------------------------------------

    def losses(self, column: str, epochs: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return a loss by epoch and seed in the seeds' own orders, and its rounding, `(E, R)`.

        Args:
            column: `running_loss` or `full_loss`.
            epochs: how many; None: all.
        """
        rule = column.removesuffix("_loss")
        return followed_losses(self.problem, self.config, rule, epochs or self.config.epochs)

    def loss(self, column: str, epoch: int) -> Known:
        """Return a loss of the first seed at an epoch, from its own order."""
        first = self.of(self.config.seeds[:1])
        value, off = (float(part[-1, 0]) for part in first.losses(column, epoch))
        return Known(value, off, OWN)

    def of(self, seeds: Sequence[int]) -> Expected:
        """Return the same of some seeds."""
        return Expected(self.problem, replace(self.config, seeds=tuple(seeds)))

    def running_over_full(self, epoch: int) -> Known | None:
        """Return running over full loss at an epoch, a mean over the seeds; None: not finite.

        Rounding moves the parameters, and so both losses to the same side: their ratio by no more
        than the larger of the two, relative.
        """
        losses = (self.losses(f"{rule}_loss", epoch) for rule in ("running", "full"))
        (running, full), off = ([part[-1] for part in parts] for parts in zip(*losses, strict=True))
        with np.errstate(all="ignore"):  # of seeds that diverge
            ratio = running / full
            within = (ratio * np.maximum(off[0] / running, off[1] / full)).mean()
        known = Known(float(ratio.mean()), float(within), OWN)
        return known if np.isfinite([known.value, known.within]).all() else None

    def own_order(self, epochs: int, seed: int | None = None) -> fixed_order.OrderLosses:
        """Return the losses of a seed's own order, batch by batch; None: the first seed's."""
        seeds: Any = self.config.seeds[:1] if seed is None else [seed]
        return known_order(self.problem, replace(self.config, seeds=seeds), epochs)

    @property
    def first_overflow(self) -> np.ndarray:
        """The step at which each seed's loss is not finite any more, `(R,)`; infinite: never."""
        return paths.first_overflow(self.problem, self.config)
