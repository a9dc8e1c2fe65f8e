"""Theory bound to one problem and one configuration: what to expect of an arm, or of its run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from sgdstudy.errors import InputError, quoted
from sgdstudy.known import Known
from sgdstudy.language import say
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.theory import (
    batch_size,
    batch_vs_full,
    descent,
    drift,
    paths,
    random_order,
    random_step,
    reshuffling,
    rounding,
    stability,
)
from sgdstudy.theory.expected_orders import OWN, ExpectedOrders
from sgdstudy.theory.predictions import RANDOM_ORDERS, WITHIN, predict, run_dtype

SIGMA = "theory: |g|² + tr(Σ) (d - B) / (B (d - 1)); its own standard error"
CLOSED = "theory: loss of descent in closed form"
ONE_STEP = "theory: second moments of a step; four standard errors"
DESCENT = "theory: second moments of a step; rounding"
LUCK = "random batches at the same parameters; four standard errors of both counts"
DRAWN = 250  # orders, of the law of random ones


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
        raise InputError(f"expect takes an arm or a run, not {quoted(arm)}")
    if arm.config.drops(arm.problem.d):
        raise InputError(
            f"theory has all {arm.problem.d} samples in an epoch, and drop_last leaves some out; "
            f"give a batch_size that divides their number"
        )
    if arm.config.clips:
        raise InputError(
            "theory follows gradients as they are; clip_norm and clip_value change them"
        )
    if arm.config.groups:
        raise InputError("theory has one step size for all parameters, and groups have their own")
    config = arm.config.by_epochs(arm.problem.d)
    if config is None:
        raise InputError(
            f"theory has whole epochs, and steps={arm.config.steps} cuts the last one short; give "
            f"epochs= instead"
        )
    return Expected(arm.problem, config)


@dataclass(frozen=True, eq=False)
class Expected(ExpectedOrders):
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
        self._steps_are_plain(whatever_lr=True)
        limit = descent.lr_limit(self.ls)
        pull, own = 2 * self.config.lr / limit, rounding.growth_rounding
        off = limit * own(pull, self.eps) / 2 if pull > 2 else 0.0
        return Known(limit, off, "theory: 2 / λmax")

    @property
    def stop_epoch(self) -> Known | None:
        """The epoch at which the median seed stops; None: theory does not know."""
        found = predict(self.problem, self.config)
        if "stop_epoch" not in found:
            return None
        law = CLOSED if self.config.batch_size is None else OWN
        return Known(found["stop_epoch"], found[f"stop_epoch{WITHIN}"], law)

    @property
    def growth_per_epoch(self) -> Known | None:
        """By how much an epoch multiplies the loss beyond the limit; None: no run to see it in."""
        found = predict(self.problem, self.config)
        if "growth_per_epoch" not in found:
            return None
        return Known(found["growth_per_epoch"], found[f"growth_per_epoch{WITHIN}"], CLOSED)

    def stop_under(self, rule: str, epsilon: float) -> Known | None:
        """Return the median stop epoch under another stop rule; None where theory has none."""
        config = replace(self.config, stop=(rule, epsilon), patience=1)
        return Expected(self.problem, config).stop_epoch

    # ---- full batches ----------------------------------------------------------------------

    @property
    def edge(self) -> float:
        """lr times the sharpness above which the rule grows on a quadratic.

        2 for descent; see `theory.sharpness_limit`.

        Raises:
            InputError: another rule than SGD with momentum, Nesterov's or not.
        """
        self._steps_have_momentum("nesterov")
        return stability.sharpness_limit(1.0, **self.config.options)

    @property
    def lr_best_asymptotic(self) -> float:
        """The step size of the best rate per epoch; see `theory.lr_best_asymptotic`."""
        self._steps_are_plain(whatever_lr=True)
        return descent.lr_best_asymptotic(self.ls)

    @property
    def lr_best_for_epsilon(self) -> float:
        """The step size that stops first; see `theory.lr_best_for_epsilon`.

        Raises:
            InputError: no stop rule, or no step size reaches it.
        """
        self._steps_are_plain(whatever_lr=True)
        if self.config.simple_stop is None:
            raise InputError("lr_best_for_epsilon needs a stop rule; give stop=('running', 0.1)")
        return descent.lr_best_for_epsilon(self.ls, self.start, self.config.simple_stop[1])

    def contraction(self, epochs: int = 10) -> Known | None:
        """Return the factor of the error per epoch from the last losses, as `History.contraction`.

        (L(w_k) / L(w_{k-n}))^{1/2n}, k the last epoch, n = `epochs`, k - 1 at most. Every step
        rounds the parameters once, all to the same side at worst: k eps; and both losses are sums
        over the data, of which this is a root. None of a single epoch.

        Raises:
            InputError: mini-batches, or a stop rule.
        """
        c = self.config
        if c.batch_size is not None or c.stop is not None:
            raise InputError(
                "contraction is of full batches without a stop rule; rho is that of mini-batches"
            )
        if c.epochs < 2:
            return None
        n = min(epochs, c.epochs - 1)
        k = c.epochs - np.array([0, n])
        last, before = descent.descent_loss(self.ls, self.start, self._lr, k)
        rate = float((last / before) ** (1 / (2 * n)))
        within = c.epochs * self.eps + rate * self.sum_rounding / n  # of two losses, halved by n
        return Known(rate, within, "theory: ratio of the same two losses")

    @property
    def float32_floor(self) -> Known:
        """The excess loss at which float32 descent from 0 stops moving."""
        ls, lr = self.ls, self._lr
        floor = descent.float32_floor(ls, lr)
        off = floor * descent.float32_floor_rounding(ls, lr)
        return Known(floor, off, "theory: ulp(w)² / (8 lr² λmin)")

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
        d, given = self.problem.d, (self.ls, self.start, self.problem.d, self._size)
        value = batch_vs_full.mean_square_batch_norm(*given)
        spread = batch_vs_full.batch_norm_spread(*given)
        rounded = rounding.sum_rounding(d, eps=self.eps) * value
        return Known(value, 4 * spread / len(self.config.seeds) ** 0.5 + rounded, SIGMA)

    # ---- independent batches ---------------------------------------------------------------

    @property
    def at_lr_limit(self) -> Expected:
        """The same at the step from which second moments diverge, `mean_square_lr_limit`."""
        return self.at(float(self.mean_square_lr_limit))

    @property
    def momentum(self) -> float:
        """The heavy-ball momentum of SGD, 0 without."""
        return float(self.config.options.get("momentum", 0.0))

    @property
    def has_mean(self) -> bool:
        """Whether theory has the mean over random batches: least squares, SGD or heavy ball."""
        c, ls = self.config, self.problem.least_squares
        rule = c.optimizer in ("notebook", "SGD") and not set(c.options) - {"momentum"}
        order = c.batch_size is not None and str(c.order) in RANDOM_ORDERS
        most = random_step.MOST_PARAMETERS // (2 if self.momentum else 1)
        small = ls is not None and len(ls.w_star) <= most
        stays = c.schedule is None and not c.batch_schedule
        return rule and order and stays and small

    def mean_loss(self, column: str) -> np.ndarray:
        """Return the expectation of a loss by epoch, `(E,)`; see `theory.expected_losses`.

        Args:
            column: `running_loss` or `full_loss`.

        Raises:
            InputError: of this arm theory has none.
        """
        if not self.has_mean:
            raise InputError(
                "theory has the mean loss of random batches on least squares only, with plain "
                "steps of SGD or heavy-ball momentum"
            )
        c, given = self.config, (self.ls, self.start, self.problem.d, self._size)
        more = (c.lr, c.epochs, c.order == "with_replacement", self.momentum)
        both = random_order.expected_losses(*given, *more)
        return both[("running_loss", "full_loss").index(column)]

    def steps_to_excess(self, target: float) -> Known:
        """Return for how many steps the expected excess loss is above a target.

        Full batches are off by rounding: every step rounds residuals, differences of values as
        large as the target's terms, at an excess of which the root is their size.
        """
        path, eps = self.path(target).excess, float(np.finfo(float).eps)
        steps = batch_size.time_above(path, target)
        if self.config.batch_size is not None:
            return Known(steps, 0.0, ONE_STEP)
        off = (
            steps * 4 * float(self.ls.terms.max()) * eps / target**0.5
        )  # of the logarithm, all steps
        return Known(steps, off / float(np.log(path[-2] / path[-1])), DESCENT)

    def levels(self, shares: Sequence[float], blind: float = 1.0) -> dict[float, float]:
        """Return the losses that leave these shares of what there is to lose, by share.

        From the loss at the start down to the least. Where theory knows neither, the least is
        taken for 0, and the start for a blind guess.

        Args:
            shares: from 0 to 1.
            blind: the loss of a blind guess, as log(classes).
        """
        least, gain = 0.0, blind
        if self.problem.least_squares is not None:
            least = self.ls.least_loss
            gain = float(self.ls.loss(self.start)) - least
        return {share: least + share * gain for share in shares}

    def first_lr(self, limit: float | None = None) -> float:
        """Return a step size to try first, without having run anything.

        SGD: a third of the step at which second moments diverge. With momentum beta: halfway, in
        logarithms, between the same lr / (1 - beta) and the same share of its own limit, 1 + beta
        times as large. RMSprop and Adam: 0.01, default of the first and ten times the second's.

        Args:
            limit: a step at which SGD diverges, where theory knows none.
        """
        if self.config.optimizer in ("RMSprop", "Adam"):
            return 0.01
        limit = float(self.plain.mean_square_lr_limit) if limit is None else limit
        return 10**-0.5 * limit * float((1 - self.momentum**2) ** 0.5)

    def log_growth(self, epochs: int = 3, replicas: int = 8) -> float:
        """Return by what almost every path's error has grown at the end, its logarithm.

        The Lyapunov exponent times the steps; see `theory.lyapunov` for the arguments.
        """
        self._steps_have_momentum()
        c, twice = self.config, self.config.order == "with_replacement"
        given = (self.problem, self._size, c.lr, epochs, replicas, twice, self.momentum)
        return paths.lyapunov(*given) * c.n_steps(self.problem.d)

    @property
    def mean_square_gradient(self) -> np.ndarray:
        """E|g|^2 of the gradient of all the data at the ends of the epochs, `(E,)`."""
        m = len(self.config.batch_sizes(self.problem.d))
        gradient: np.ndarray = self.path(most=self.config.epochs * m).terms[1][m::m]
        return gradient

    def lucky_batches(
        self, ws: np.ndarray, level: float, where: np.ndarray, draws: int = 4
    ) -> Known:
        """Return which share of one batch at each of the parameters `(k, ..., p)` is below a level.

        Given the parameters a batch is with probability p, of variance p (1 - p); both the batches
        met and the random ones that p is counted from scatter.

        Args:
            ws: parameters met.
            level: of the loss.
            where: which of them count, `(k, ...)`.
            draws: random batches at each, 2 at least.
        """
        given = (self.problem.d, self._size, level, draws)
        chance = batch_vs_full.lucky_share(self.ls, ws, *given)[where]
        variance = (chance * (1 - chance)).mean() * draws / (draws - 1) * (1 + 1 / draws)
        return Known(float(chance.mean()), 4 * float(np.sqrt(variance / chance.size)), LUCK)

    # ---- samples that come once ------------------------------------------------------------

    def tracking_path(
        self, law: drift.SampleLaw, steps: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return E[w] and the expected excess before every step and after the last.

        See `theory.tracking_path`; the parameters that are true move as the problem says.

        Args:
            law: that the samples are drawn from.
            steps: how many, None: all of the run.

        Raises:
            InputError: a problem whose true parameters are not known.
        """
        self._steps_are_plain(whatever_lr=True)
        c, d = self.config, self.problem.d
        first = np.arange(c.n_steps(d) if steps is None else steps)
        true = self.problem.true_at(np.append(first, len(first)))
        if true is None:
            raise InputError(f"the true parameters of {self.problem.name!r} are not known")
        rates = np.asarray(c.rates(d)(first))
        return drift.tracking_path(law, self._size, rates, true, self.start)

    # ---- orders drawn anew every epoch ------------------------------------------------------

    def lyapunov(self, epochs: int, replicas: int = 64) -> float:
        """Return the exponent per epoch of as many paths, averaged; see `theory.lyapunov`."""
        c, m = self.config, len(self.config.batch_sizes(self.problem.d))
        twice = c.order == "with_replacement"
        return m * paths.lyapunov(self.problem, self._size, self._lr, epochs, replicas, twice)

    @property
    def late_excess(self) -> Known | None:
        """The mean over the seeds of `History.late_excess`: of so many orders drawn apart.

        Off by four standard errors, of the seeds and of the draws. None where one of these has a
        loss that the run's dtype does not hold.

        Raises:
            InputError: seeds that start apart; another order than `shuffle` or `block_shuffle`.
        """
        problem, config = self.problem, self.config
        if len(np.unique(problem.initial(list(config.seeds)).numpy(force=True), axis=0)) > 1:
            raise InputError("late_excess is of seeds that start alike; these start apart")
        one = (problem.d, self._size, self._lr, config.epochs, str(config.order), DRAWN)
        _, full = reshuffling.reshuffled_losses(self.ls, self.start, *one)
        if not full.max() < torch.finfo(run_dtype(problem, config)).max / problem.d:
            return None
        drawn = reshuffling.late_excess(full, self.ls.least_loss)
        error = drawn.std(ddof=1) * np.sqrt(1 / len(config.seeds) + 1 / DRAWN)
        source = say("theory: {n} orders drawn apart", n=DRAWN)
        return Known(float(drawn.mean()), float(rounding.DEVIATIONS * error), source)
