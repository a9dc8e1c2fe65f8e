"""How far parameters are behind the true ones, which may move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sgdstudy.history.arrays import array, parameters
from sgdstudy.theory import Estimate, SampleLaw
from sgdstudy.theory.expect import expect

if TYPE_CHECKING:
    from sgdstudy.figures.style import Run


@dataclass(frozen=True)
class Behind:
    """What R seeds are off by before S of their steps, and what theory expects.

    Attributes:
        step: the steps, `(S,)`.
        excess: z^T H z / 2 with z = w - w*(step), `(S, R)`: the loss that strangers have above that
            of the true parameters, H their Hessian.
        loss: of the step's own batch, `(S, R)`.
        expected: the mean that theory expects of the excess, `(S,)`.
    """

    step: np.ndarray
    excess: np.ndarray
    loss: np.ndarray
    expected: np.ndarray

    @property
    def mean_excess(self) -> Estimate:
        """The excess, a mean over the steps and the seeds."""
        return Estimate.mean(self.excess.mean(0))

    @property
    def over_expected(self) -> np.ndarray:
        """Excess over its expectation, a mean over the logarithm of the time, `(R,)`."""
        weights = 1 / (self.step + 1)
        share: np.ndarray = weights @ (self.excess / self.expected[:, None]) / weights.sum()
        return share


def behind(run: Run, law: SampleLaw, first: int = 0) -> Behind:
    """Return how far the seeds are behind the true parameters, which may move.

    Args:
        law: that the samples are drawn from.
        first: the step looked at first.

    Raises:
        InputError: the true parameters are not known.
    """
    total, seed = run.config.n_steps(run.problem.d), run.config.seeds[0]
    which = slice(first, total)
    step = run.load(columns=["step"], seeds=seed, steps=which)["step"].to_numpy()
    expected = expect(run).tracking_path(law)[1][step]
    true = run.problem.true_at(step)
    assert true is not None
    excess = excess_behind(parameters(run, steps=which), true, law.hessian)
    return Behind(step, excess, array(run, "steps", "loss", steps=which), expected)


def excess_behind(w: np.ndarray, true: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Return z^T H z / 2 with z = w - true, `(S, R)`, of w `(S, R, p)` and true `(S, p)`.

    >>> w, true = np.ones((2, 1, 1)), np.array([[1.0], [3.0]])
    >>> excess_behind(w, true, np.full((1, 1), 2.0)).ravel()
    array([0., 4.])
    """
    z = w - true[:, None]
    found: np.ndarray = np.einsum("srp,pq,srq->sr", z, hessian, z) / 2
    return found
