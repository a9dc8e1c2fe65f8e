"""What theory expects of a given order of the samples: of an epoch, of the seeds' own steps.

The part of `expect.Expected` about orders that are known before the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch

from sgdstudy.errors import InputError
from sgdstudy.known import Known
from sgdstudy.theory import fixed_order, order_batches, paths, random_order, rounding
from sgdstudy.theory.expected_moments import ExpectedMoments
from sgdstudy.theory.medians import median
from sgdstudy.theory.predictions import followed_losses, known_order

MAP = "theory: the epoch's product of I - lr H_b"
OWN = "theory: the steps of the seeds' own orders, in float64"


@dataclass(frozen=True, eq=False)
class ExpectedOrders(ExpectedMoments):
    """What theory expects of an order that is known; its numbers know their source."""

    # ---- a fixed order ---------------------------------------------------------------------

    @cached_property
    def batches(self) -> order_batches.Batches:
        """The batches of the first seed's first epoch."""
        self._steps_are_plain()
        return order_batches.batches(self.problem, self.config)

    @property
    def steepest(self) -> np.ndarray:
        """The largest eigenvalue of every batch of the first epoch, `(m,)`."""
        return self.batches.steepest[0]

    @property
    def rho(self) -> Known:
        """The factor of the error per epoch in the long run: the radius of the epoch's map."""
        return Known(fixed_order.spectral_radius(self.batches, self._lr), source=MAP)

    @property
    def beyond_limit(self) -> np.ndarray:
        """The numbers, from 0, of the batches beyond their own limit: lr times that is over 2."""
        return np.flatnonzero(self._lr * self.steepest > 2)

    @property
    def least_cosine(self) -> float:
        """The least cosine of the steepest directions of consecutive batches beyond their limit.

        Of lines, so that it is never below 0; 1 where no two are consecutive.
        """
        beyond, along = self.beyond_limit, self.batches.steepest[1]
        pairs = beyond[:-1][np.diff(beyond) == 1]
        return float(np.abs((along[pairs] * along[pairs + 1]).sum(1)).min(initial=1))

    @property
    def slowest_direction(self) -> np.ndarray:
        """The direction `(p,)` along which every epoch multiplies the error by rho alone."""
        return fixed_order.slowest_direction(self.batches, self._lr)

    def rho_along(self, epochs: int) -> Known | None:
        """Return rho as `History.contraction_along` measures it there, over so many epochs.

        Its rounding is that of the loss, of which w's error is a root: half of it relative to w.
        The difference of two starts is at least 1 - rho of w, and two of them are compared.
        None of fewer than three epochs, of an order that diverges, and where w turns.
        """
        rho = self.rho
        if epochs < 3 or not rho.value < 1 or np.isnan(self.slowest_direction).any():
            return None
        full, off = self.losses("full_loss", epochs)
        within = 2 * (off / full).max() / (1 - rho.value) / (epochs - 2)
        return Known(rho.value, float(within), rho.source)

    def stretch(self, across: bool = False) -> fixed_order.Growth:
        """Return the consecutive batches that multiply some error most.

        Args:
            across: also across the end of an epoch.
        """
        return self._stretches[across]

    @cached_property
    def _stretches(self) -> tuple[fixed_order.Growth, fixed_order.Growth]:
        one, two = (fixed_order.growth(self.batches, self._lr, n) for n in (1, 2))
        return one, two

    def alone(self, across: bool = False) -> dict[str, Any]:
        """Return what `Arm.but` takes to train these batches alone, from that error, of length 1.

        Raises:
            InputError: the last batch is smaller than the others; a product overflows.
        """
        found, problem = self.stretch(across), self.problem
        if not np.isfinite(found.factor):
            raise InputError(
                f"at lr {self._lr:g} batches multiply an error by more than float64 holds; "
                "give a smaller step size"
            )
        pieces = next(order_batches.indices_by_epoch(problem, self.config, self.config.seeds[0]))
        if len(pieces[-1]) != len(pieces[0]):
            raise InputError(
                f"batches are taken alone where all are as large; of {problem.d} samples the last "
                f"has {len(pieces[-1])}, the others {len(pieces[0])}"
            )
        order = np.array(pieces)[None, found.batches(len(pieces))]
        start = problem.replace(w_init=self.ls.w_star + found.direction)
        return {"problem": start, "order": order, "epochs": 1, "stop": None, "patience": 1}

    def growth(self, across: bool = False) -> Known:
        """Return by how much these batches multiply that error.

        Off by what the rounding of labels, lr |g_b| a batch, and of the start adds, multiplied by
        the factor at most, and by that of the steps; see `_moved`.
        """
        found, b = self.stretch(across), self.batches
        rows = found.batches(len(b.sizes))
        added = self._lr * np.linalg.norm(b.gradients[rows], axis=1).sum()
        begun = self.ls.w_star + found.direction
        rounded = torch.as_tensor(begun).to(self.problem.dtype).double().numpy()  # as `alone` does
        added += np.linalg.norm(rounded - begun)
        added += len(rows) * np.finfo(float).eps * np.abs(self.ls.w_star).max()
        ends = [
            np.linalg.norm(fixed_order.after(found.direction, b.factors(lr)[rows]))
            for lr in self._rates()
        ]
        steps = 4 * np.abs(np.subtract(ends, ends[0])).max()
        return Known(found.factor, float(found.factor * added + steps), MAP)

    @property
    def fixed_point_loss(self) -> Known:
        """The loss of all the data where the ends of the epochs settle."""
        loss = fixed_order.fixed_point_loss(self.ls, self.batches, self._lr)
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
        self._steps_are_plain()
        rule = column.removesuffix("_loss")
        return followed_losses(self.problem, self.config, rule, epochs or self.config.epochs)

    def loss(self, column: str, epoch: int) -> Known:
        """Return a loss of the first seed at an epoch, from its own order.

        Off by the rounding of its steps, see `losses`, and of what they multiply on the way, the
        run's and theory's own; see `_moved`.
        """
        first = self.of(self.config.seeds[:1])
        value, off = (float(part[-1, 0]) for part in first.losses(column, epoch))
        rule = column.removesuffix("_loss")
        _, steps = self._moved(epoch, lambda path: [getattr(path, rule)[epoch - 1]])
        return Known(value, float(off + steps[0]), OWN)

    def _moved(
        self, epochs: int, read: Callable[[fixed_order.OrderLosses], Sequence[float]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return values of the first seed's losses, and how far its steps' rounding may move them.

        The order may multiply it, by how much, step sizes and residuals tell that differ in their
        last bits only: four times the largest difference.
        """
        found = []
        for lr in self._rates():
            config, off = replace(self.config, lr=lr), abs(lr / self._lr - 1)
            path = known_order(self.problem, config, epochs, off)
            found.append(np.array(read(path), dtype=float))
        return found[0], 4 * np.max([abs(other - found[0]) for other in found[1:]], axis=0)

    def _rates(self) -> list[float]:
        """Return the step size, and others that differ in their last bits only."""
        return [self._lr * (1 + bits * self.eps) for bits in (0, -8, -2, 2, 8)]

    @property
    def stop_without_rounding(self) -> float:
        """The epoch at which the first seed's own order stops in exact arithmetic, or infinity.

        Raises:
            InputError: neither the running nor the full loss stops it.
        """
        rule, epsilon = self.config.simple_stop or ("nothing", 0.0)
        if rule not in ("running", "full"):
            raise InputError(f"the stop is known of a running or full loss; {rule} stops this one")
        first = self.of(self.config.seeds[:1])
        return random_order.first_below(first.losses(rule)[0][:, 0], epsilon)

    def of(self, seeds: Sequence[int]) -> Self:
        """Return the same of some seeds."""
        return replace(self, config=self.config.of_seeds(seeds))

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
        self._steps_are_plain()
        seeds: Any = self.config.seeds[:1] if seed is None else [seed]
        return known_order(self.problem, self.config.of_seeds(seeds), epochs)

    def gap(self, epoch: int) -> dict[str, Known]:
        """Return `drift` and `sampling` of the first seed's running loss, at an epoch, by name.

        Every sample rounds its loss once an epoch, at worst to the same side; its residual rounds,
        in the losses of the way and of the end; and the steps do, see `_moved`.
        """
        names = ("drift", "sampling")

        def read(path: fixed_order.OrderLosses) -> list[float]:
            gap = path.gap(epoch)
            losses = path.running[epoch - 1], path.full[epoch - 1]
            return [*losses, *(getattr(gap, name) for name in names)]

        found, moved = self._moved(epoch, read)
        (*losses, drift, sampling), off = found, moved[2:]
        seen = rounding.Rounding(self.ls, self._lr, self.eps).of_seen(np.array(losses))
        sums = self.problem.d * epoch * self.eps * losses[0] + seen.sum()
        pairs = zip(names, (drift, sampling), off, strict=True)
        return {name: Known(value, float(sums + steps), OWN) for name, value, steps in pairs}

    @property
    def sum_at_start(self) -> Known:
        """The sum of the losses of the first epoch's batches where w starts, if it stays there.

        Of any loss, in the seeds' own orders, in float64; the median over the seeds. Off by the
        rounding of sums, not by the model's own.
        """
        exact, sums = self.problem.to(torch.float64, "cpu"), []
        for seed in self.config.seeds:
            w = exact.initial([seed])
            parts = next(order_batches.indices_by_epoch(exact, self.config, seed))
            losses = [exact.losses(w, exact.x[part][None], exact.y[part][None]) for part in parts]
            sums.append(float(sum(losses)))
        value = float(np.median(sums))
        return Known(value, self.sum_rounding * value, "theory: the seeds' own orders, w at rest")

    @property
    def excess_at_end(self) -> Known:
        """How far the last loss of all the data is above the least, in the seeds' own orders.

        The median over the seeds. Off by the rounding of the steps, of what they multiply on the
        way (see `_moved`; as much of each seed's loss as of the first's), and of the sum over the
        data.
        """
        losses, off = (part[-1] for part in self.losses("full_loss"))
        first = self.of(self.config.seeds[:1])
        (loss,), (moved,) = first._moved(self.config.epochs, lambda path: [path.full[-1]])
        with np.errstate(invalid="ignore"):
            off = off + (self.sum_rounding + moved / loss) * losses
        with np.errstate(invalid="ignore"):  # of seeds that diverge
            value, low, high = (median(losses + by) - self.ls.least_loss for by in (0.0, -off, off))
        return Known(value, max(value - low, high - value), OWN)

    @property
    def sum_rounding(self) -> float:
        """How far rounding may put a sum over the data, relative; see `rounding.sum_rounding`."""
        return rounding.sum_rounding(self.problem.d, eps=self.eps)

    @property
    def first_overflow(self) -> np.ndarray:
        """The step at which each seed's loss is not finite any more, `(R,)`; infinite: never."""
        return paths.first_overflow(self.problem, self.config)
