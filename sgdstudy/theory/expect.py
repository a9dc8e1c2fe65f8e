"""Theory bound to one problem and one configuration: what to expect of an arm, or of its run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from sgdstudy.errors import InputError, shown
from sgdstudy.known import Known
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.theory import (
    batch_size,
    batch_vs_full,
    descent,
    drift,
    fixed_order,
    paths,
    random_order,
)
from sgdstudy.theory.predictions import expected_losses, followed_losses, known_order

MAP = "theory: the epoch's product of I - lr H_b"
OWN = "theory: the steps of the seeds' own orders, in float64"
LUCK = "random batches at the same parameters; four standard errors of both counts"


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
class Expected:
    """What theory expects of a problem and a configuration; its numbers know their source.

    Attributes:
        problem: what is trained.
        config: how.
    """

    problem: Problem
    config: TrainConfig

    # ---- the problem -----------------------------------------------------------------------

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
    def lr_limit(self) -> Known:
        """The step size from which full batches diverge."""
        return Known(descent.lr_limit(self.ls), source="theory: 2 / lambda_max")

    @property
    def mean_square_lr_limit(self) -> Known:
        """The step size from which the mean square of independent batches diverges."""
        size = self.config.batch_sizes(self.problem.d)[0]
        twice = self.config.order == "with_replacement"
        limit = random_order.mean_square_lr_limit(self.ls, self.problem.d, size, twice)
        return Known(limit, source="theory: recursion of second moments")

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

    # ---- independent batches ---------------------------------------------------------------

    def mean_loss(self, column: str) -> np.ndarray:
        """Return the expectation of a loss by epoch, `(E,)`; see `theory.expected_losses`.

        Args:
            column: `running_loss` or `full_loss`.

        Raises:
            InputError: of this arm theory has none.
        """
        found = expected_losses(self.problem, self.config)
        if column not in found:
            raise InputError(f"theory has no expected {column} of this arm: it takes plain steps")
        return found[column]

    @property
    def mean_square_gradient(self) -> np.ndarray:
        """E|g|^2 of the gradient of all the data at the ends of the epochs, `(E,)`."""
        c, d = self.config, self.problem.d
        size, m, twice = c.batch_sizes(d)[0], len(c.batch_sizes(d)), c.order == "with_replacement"
        path = batch_size.expected_path(
            self.ls, self.start, d, size, c.lr, c.epochs * m, 0.0, twice
        )
        return path.terms[1][m::m]

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
        size, d = self.config.batch_sizes(self.problem.d)[0], self.problem.d
        chance = batch_vs_full.lucky_share(self.ls, ws, d, size, level, draws)[where]
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
        c, d = self.config, self.problem.d
        first = np.arange(c.n_steps(d) if steps is None else steps)
        true = self.problem.true_at(np.append(first, len(first)))
        if true is None:
            raise InputError(f"the true parameters of {self.problem.name!r} are not known")
        size, rates = c.batch_sizes(d)[0], np.asarray(c.rates(d)(first))
        return drift.tracking_path(law, size, rates, true, self.start)

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
        first = Expected(self.problem, replace(self.config, seeds=self.config.seeds[:1]))
        value, off = (float(part[-1, 0]) for part in first.losses(column, epoch))
        return Known(value, off, OWN)

    def own_order(self, epochs: int, seed: int | None = None) -> fixed_order.OrderLosses:
        """Return the losses of a seed's own order, batch by batch; None: the first seed's."""
        seeds: Any = self.config.seeds[:1] if seed is None else [seed]
        return known_order(self.problem, replace(self.config, seeds=seeds), epochs)

    @property
    def first_overflow(self) -> np.ndarray:
        """The step at which each seed's loss is not finite any more, `(R,)`; infinite: never."""
        return paths.first_overflow(self.problem, self.config)
