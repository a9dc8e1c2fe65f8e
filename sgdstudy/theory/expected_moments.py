"""What theory expects of random batches, by second moments, and of many epochs, by their laws.

The part of `expect.Expected` about batches that are drawn at random, and about orders that start
at the minimiser.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch

from sgdstudy.errors import InputError, quoted
from sgdstudy.known import Known
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.recipe.orders import Sampler
from sgdstudy.theory import (
    batch_size,
    batch_vs_full,
    descent,
    paths,
    random_order,
    rates,
    reshuffling,
    stationary,
    step_sizes,
)
from sgdstudy.theory.follow import FIXED_ORDERS
from sgdstudy.theory.predictions import run_dtype

MOMENTS = "theory: recursion of second moments"
PATHS = "theory: Lyapunov exponent; four standard errors of both"


@dataclass(frozen=True, eq=False)
class ExpectedMoments:
    """What theory expects of random batches; its numbers know their source.

    Attributes:
        problem: what is trained.
        config: how.
    """

    problem: Problem
    config: TrainConfig

    @property
    def ls(self) -> LeastSquares:
        """The moments of the problem."""
        return descent.moments(self.problem)

    @property
    def start(self) -> np.ndarray:
        """The parameters that the first seed starts from, `(p,)`."""
        w: np.ndarray = self.problem.initial([self.config.seeds[0]])[0].double().cpu().numpy()
        return w

    @property
    def eps(self) -> float:
        """The relative distance of two neighbouring numbers of the run's dtype."""
        return float(torch.finfo(run_dtype(self.problem, self.config)).eps)

    @property
    def eigenvalues(self) -> np.ndarray:
        """Those of the Hessian, `(p,)`, smallest first."""
        return descent.eigenvalues(self.ls)

    @property
    def plain(self) -> Self:
        """The same with plain steps, whatever steps the arm takes."""
        c = replace(self.config, optimizer="SGD", options={}, groups={})
        c = replace(c, clip_norm=None, clip_value=None, batch_schedule=None)
        return replace(self, config=replace(c, schedule=None, schedule_options={}))

    def _steps_are_plain(self, whatever_lr: bool = False) -> None:
        """Refuse what is not w - lr g, and unless the step size does not matter, a schedule.

        Raises:
            InputError: another optimiser, its options, clipping; a schedule.
        """
        c = self.config
        if not (c.plain if whatever_lr else c.steps_are_plain):
            self._refuse("plain steps w - lr g alone (SGD without options or a schedule)")

    def _steps_have_momentum(self, *more: str) -> None:
        """Refuse what is not SGD with momentum, and a schedule.

        Args:
            more: further options that may be there.
        """
        c = self.config
        rule = c.optimizer in ("notebook", "SGD") and not c.clips and c.schedule is None
        if not rule or set(c.options) - {"momentum", *more}:
            self._refuse("plain steps, and of SGD with momentum")

    def _refuse(self, known: str) -> None:
        c = self.config
        given = c.schedule if c.schedule is not None else "batch_schedule"
        given = given if c.plain else " ".join(map(str, (c.optimizer, *c.options)))
        raise InputError(f"theory has this of {known}, and this arm has {quoted(given)}")

    @property
    def _lr(self) -> float:
        """The step size of plain steps, which is always the same."""
        self._steps_are_plain()
        return self.config.lr

    # ---- limits of the step ----------------------------------------------------------------

    @property
    def mean_square_lr_limit(self) -> Known:
        """The step size from which the mean square of independent batches diverges."""
        self._steps_are_plain(whatever_lr=True)
        twice = self.config.order == "with_replacement"
        limit = stationary.mean_square_lr_limit(self.ls, self.problem.d, self._size, twice)
        return Known(limit, source=MOMENTS)

    @property
    def mean_square_factor(self) -> Known:
        """The factor per step of the mean square of w - w* in the long run, noise aside."""
        given = (self.problem.d, self._size, self._lr, self._twice)
        return Known(stationary.mean_square_radius(self.ls, *given), source=MOMENTS)

    def lr_limit_to_reach(self, excess: float) -> float:
        """Return the largest step whose stationary excess is not above this."""
        self._steps_are_plain(whatever_lr=True)
        given = (self.problem.d, self._size, excess, self._twice)
        return batch_size.lr_limit_to_reach(self.ls, *given)

    @property
    def critical_size_of_lr(self) -> float:
        """The B_c with lr = (2 / lambda_max) / (1 + B_c / B)."""
        return batch_size.critical_size_of_lr(self.ls, self._size, self._lr)

    @cached_property
    def log_rate(self) -> Known:
        """How log|w - w*| changes per step on almost every path, noise at the minimum aside."""
        return Known(paths.log_rate(self.problem, self.config), source=PATHS)

    def almost_sure_lr_limit(self, low: float | None = None, high: float | None = None) -> float:
        """Return the step beyond which almost no path converges; see `theory.lyapunov_zero_lr`.

        Args:
            low: a step at which they converge; None: this one.
            high: one at which they do not; None: thrice this one.
        """
        self._steps_are_plain(whatever_lr=True)
        low, high = low or self.config.lr, high or 3 * self.config.lr
        return paths.lyapunov_zero_lr(self.problem, self._size, low, high, self._twice)

    # ---- losses of random batches ----------------------------------------------------------

    @cached_property
    def excess(self) -> np.ndarray:
        """The expected excess loss at the ends of the epochs, from 0 on, `(E + 1,)`.

        Of independent batches (shuffled ones are, up to their memory within an epoch), or of all
        the data; of the mean of the parameters where the configuration keeps one.
        """
        c, d, twice = self.config, self.problem.d, self._twice
        if c.batch_schedule:
            return self._resized_excess()
        m = len(c.batch_sizes(d))
        given = (self.ls, self.start, d, self._size)
        if step_sizes.is_projection(c):
            return self._above(step_sizes.polyak_losses(*given[:3], c.epochs * m)[::m])
        if not c.plain:
            raise InputError("the expected excess is known of plain steps, or of projections")
        if c.average is None and c.schedule is None:
            full = random_order.expected_losses(*given, c.lr, c.epochs, twice)[1]
            return self._above(np.append(self.ls.loss(self.start), full))
        steps = c.rates(d)(np.arange(c.epochs * m))
        if c.average is None:
            return self._above(step_sizes.scheduled_losses(*given, steps, twice)[::m])
        skipped = int(c.average * c.epochs) * m
        return self._above(step_sizes.averaged_losses(*given, steps, twice, skipped)[::m])

    def _resized_excess(self) -> np.ndarray:
        """Return `excess` where the batch size changes."""
        c, d = self.config, self.problem.d
        if not c.plain or c.average is not None:
            raise InputError(
                "where the batch size changes, the expected excess is known of plain steps, and "
                "not at a mean of the parameters"
            )
        phases = c.phases(d)
        given = phases.sizes_of_steps(), c.rates(d)(np.arange(phases.n_steps)), self._twice
        losses = step_sizes.resized_losses(self.ls, self.start, d, *given)
        return self._above(losses[phases.steps_before(np.arange(c.epochs + 1))])

    @property
    def decay_places(self) -> tuple[np.ndarray, np.ndarray]:
        """Where `decay_power` looks: the epochs, a fifth of the run and its end, and 1 + decay t.

        Raises:
            InputError: another schedule than `inverse_time`.
        """
        c = self.config
        if c.schedule != "inverse_time":
            raise InputError(f"the decay is that of 'inverse_time', not of {quoted(c.schedule)}")
        epochs = np.array([max(1, c.epochs // 5), c.epochs])
        steps = epochs * len(c.batch_sizes(self.problem.d))
        return epochs, 1 + c.schedule_options["decay"] * steps

    @property
    def decay_power(self) -> float:
        """The expected power of 1 + decay t with which the start is forgotten.

        As `History.decay_power`, of the expected excess loss.
        """
        epochs, x = self.decay_places
        return float(rates.log_slope(x, self.excess[epochs]))

    def path(self, target: float = 0.0, most: int = 100_000) -> batch_size.ExpectedPath:
        """Return excess loss and noise scales by step, until the expected excess is at a target.

        Args:
            target: 0: `most` steps.
            most: the most steps.
        """
        given = (self.ls, self.start, self.problem.d, self._size, self._lr)
        return batch_size.expected_path(*given, most, target, self._twice)

    @property
    def stationary_excess(self) -> Known:
        """The excess loss at which a constant step settles; infinite where there is none."""
        given = (self.problem.d, self._size, self._lr, self._twice)
        return Known(stationary.stationary_excess(self.ls, *given), source=MOMENTS)

    def stationary_excess_at(self, shares: np.ndarray) -> np.ndarray:
        """Return `stationary_excess` at these shares of the step size, of any shape."""
        given, lr = (self.problem.d, self._size), self._lr
        settled = np.vectorize(
            lambda x: stationary.stationary_excess(self.ls, *given, x * lr, self._twice)
        )
        return np.asarray(settled(shares), dtype=float)

    @property
    def small_step_excess(self) -> float:
        """What it is for small steps, lr tr(Sigma) / (4 B)."""
        noise = batch_vs_full.trace_sigma(self.ls, self.ls.w_star, self.problem.d)
        return self._lr * noise / (4 * self._size)

    @property
    def averaged_excess_law(self) -> float:
        """The excess loss of the mean of the parameters, many steps of a small size; any size."""
        c, d = self.config, self.problem.d
        self._steps_are_plain(whatever_lr=True)
        if c.average is None:
            raise InputError("this configuration keeps no mean of the parameters: give average=")
        samples = (c.epochs - int(c.average * c.epochs)) * d
        return step_sizes.averaged_excess_law(self.ls, d, samples)

    @property
    def mode_noise(self) -> np.ndarray:
        """The stationary variance of w - w* in each mode, where all samples have one Hessian."""
        given = (self.problem.d, self._size, self._lr)
        return reshuffling.mode_noise(self.ls, *given)

    @property
    def _size(self) -> int:
        return self.config.batch_sizes(self.problem.d)[0]

    @property
    def _twice(self) -> bool:
        """Whether a batch may hold a sample twice."""
        c = self.config
        if c.batch_size is not None and c.order not in ("shuffle", "with_replacement"):
            raise InputError(
                f"second moments are those of the orders 'shuffle' and 'with_replacement', not of "
                f"{quoted(c.order)}"
            )
        return c.batch_size is not None and c.order == "with_replacement"

    def _above(self, losses: np.ndarray) -> np.ndarray:
        return np.asarray(losses - self.ls.least_loss)

    # ---- orders, from the minimiser --------------------------------------------------------

    @property
    def rate_law(self) -> rates.Law | None:
        """The law of E|w - w*|^2 over K at this lr d K, for large K; None: the order has none."""
        c, d = self.config, self.problem.d
        time = self._lr * d * c.epochs
        if c.order in FIXED_ORDERS:
            own = Sampler(c.order, [0], d, 1).take(d).numpy()[0]
            return rates.fixed_order_law(self.ls, own, time)
        return rates.rate_laws(self.ls, d, time).get(c.order)

    @property
    def reshuffling_bias(self) -> np.ndarray:
        """The mean of w - w* that shuffling single samples leaves, to first order in lr, `(p,)`."""
        return rates.reshuffling_bias(self.ls, self.problem.d, self._lr)

    def error_at_end(self, draws: int = 2000) -> np.ndarray:
        """Return E|w - w*|^2 at the end of single samples' steps, from the minimiser, exactly.

        Of samples drawn independently `(1,)`; of an order that is kept for ever, whose mean over
        the orders is the expected one, for each of so many drawn orders `(draws,)`.

        Raises:
            InputError: another order than `with_replacement` or `shuffle_once`.
        """
        c, d = self.config, self.problem.d
        if c.order == "with_replacement":
            return np.array([rates.independent_error(self.ls, d, self._lr, c.epochs * d)])
        if c.order != "shuffle_once":
            allowed = "'with_replacement' or 'shuffle_once'"
            raise InputError(f"error_at_end is of the order {allowed}, not {quoted(c.order)}")
        rows = np.tile(np.arange(d), (draws, 1))
        drawn = np.random.default_rng(0).permuted(rows, axis=1)
        return rates.kept_order_error(self.ls, drawn, self._lr, c.epochs)

    @property
    def own_error_at_end(self) -> np.ndarray:
        """|w - w*|^2 at the end for every seed, whose own order is kept; as `error_at_end`."""
        c, d = self.config, self.problem.d
        if c.order not in ("shuffle_once", *FIXED_ORDERS):
            raise InputError(f"the order {quoted(c.order)} is not the same in every epoch")
        own = Sampler(c.order, list(c.seeds), d, 1).take(d).numpy()
        return rates.kept_order_error(self.ls, own, self._lr, c.epochs)
