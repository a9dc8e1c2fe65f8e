"""What the loss and the sharpness do around the edge of stability (Cohen et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sgdstudy.errors import InputError
from sgdstudy.history.arrays import array
from sgdstudy.theory import linearised, mean_square_lr_limit, sharpness_limit

if TYPE_CHECKING:
    from sgdstudy.figures.style import Run

    class Ended(Run, Protocol):
        """A run that has its final parameters."""

        @property
        def w(self) -> np.ndarray:
            """Final parameters, `(R, p)`."""


@dataclass(frozen=True)
class Edge:
    """What R seeds of a full-batch rule do before and beyond its edge, by seed, `(R,)` each.

    The edge is the sharpness (top eigenvalue of the Hessian) above which the rule's steps grow on a
    quadratic. Before it is up to the last sharpness known below it, beyond from the first above.

    Attributes:
        largest: the largest sharpness.
        late: its median over the last quarter of the run.
        rises_before: steps at which the loss of all the data rises before the edge.
        rises_beyond: the share of the steps at which it does beyond; NaN: never there.
        loss_there: the loss where the edge is first known to be passed; NaN: never there.
        late_loss: its median over the last quarter.
    """

    largest: np.ndarray
    late: np.ndarray
    rises_before: np.ndarray
    rises_beyond: np.ndarray
    loss_there: np.ndarray
    late_loss: np.ndarray


def edge(run: Run) -> Edge:
    """Return what the seeds do around the edge of their rule, `theory.sharpness_limit`.

    Raises:
        InputError: the run has no column `full_hess_max_eig`.
    """
    if run.config.groups:
        raise InputError(
            "groups of parameters have edges of their own, and no run has a common one"
        )
    sharpness, loss = (array(run, "steps", name) for name in ("full_hess_max_eig", "full_loss"))
    return around_edge(sharpness, loss, sharpness_limit(run.config.lr, **run.config.options))


def lr_over_mean_square_limit(run: Ended) -> np.ndarray:
    """Return lr over the step from which second moments grow where each seed ended, `(R,)`.

    The limit of independent batches on the model linearised there (`theory.linearised`).

    Raises:
        InputError: see `theory.linearised`.
    """
    c, problem = run.config, run.problem
    size = c.batch_sizes(problem.d)[0]
    near = [linearised(problem, w) for w in run.w]
    return c.lr / np.array([mean_square_lr_limit(ls, problem.d, size, True) for ls in near])


def around_edge(sharpness: np.ndarray, loss: np.ndarray, edge: float) -> Edge:
    """Return what the seeds do around an edge.

    Args:
        sharpness: by step and seed, `(S, R)`; NaN where it was not looked at.
        loss: of all the data, `(S, R)`.
        edge: the sharpness above which steps grow on a quadratic.

    Example:
        >>> sharpness, loss = np.array([8.0, 9, 11, 10, 12]), np.array([5.0, 4, 3, 4, 2])
        >>> found = around_edge(sharpness[:, None], loss[:, None], 10.0)
        >>> found.rises_before, found.rises_beyond, found.loss_there
        (array([0.]), array([0.5]), array([3.]))
    """
    each = [_seed_around_edge(*both, edge) for both in zip(sharpness.T, loss.T, strict=True)]
    return Edge(*np.array(each, dtype=float).T)


def _seed_around_edge(sharpness: np.ndarray, loss: np.ndarray, edge: float) -> tuple[float, ...]:
    """Return a seed's part of `Edge`, value by value."""
    step, loss = np.flatnonzero(~np.isnan(sharpness)), loss[~np.isnan(loss)]
    seen = sharpness[step]
    ends = seen.max(), np.median(_last_quarter(seen))
    rises, late_loss = np.diff(loss) > 0, np.median(_last_quarter(loss))
    above = np.flatnonzero(seen >= edge)
    if not len(above):
        return *ends, rises.sum(), np.nan, np.nan, late_loss
    last, first = step[max(above[0] - 1, 0)], step[above[0]]
    return *ends, rises[:last].sum(), rises[first:].mean(), loss[first], late_loss


def _last_quarter(values: np.ndarray) -> np.ndarray:
    return values[3 * len(values) // 4 :]
