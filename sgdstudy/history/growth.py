"""How fast a run's error grows or falls, as its losses and parameters show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sgdstudy.history.arrays import array
from sgdstudy.quantities import norm
from sgdstudy.recipe.columns import of_parameters
from sgdstudy.theory.expect import expect

if TYPE_CHECKING:
    from sgdstudy.figures.style import Run


def growth_per_epoch(run: Run) -> float:
    """Return the last finite ratio of successive running losses of the first seed, or NaN."""
    loss = _of_first_seed(run, "running_loss")
    loss = loss[np.isfinite(loss)]
    return float(loss[-1] / loss[-2]) if len(loss) > 1 else float("nan")


def lr_limit(run: Run) -> float:
    """Return the step size limit that the first seed's growth shows; NaN where it is falling.

    2 lr / (1 + sqrt(growth)), as beyond the limit the loss grows by (1 - lr lambda_max)^2.
    """
    growth = growth_per_epoch(run)
    return float(2 * run.config.lr / (1 + np.sqrt(growth))) if growth > 1 else float("nan")


def contraction(run: Run, epochs: int = 10) -> float:
    """Return the first seed's factor of the error per epoch, from the last epochs' full loss.

    It is the square root of that of the loss; NaN of a run of one epoch.
    """
    loss = _of_first_seed(run, "full_loss")
    epochs = min(epochs, len(loss) - 1)
    if epochs < 1:
        return float("nan")
    return float((loss[-1] / loss[-1 - epochs]) ** (1 / (2 * epochs)))


def contraction_along(run: Run, direction: np.ndarray | None = None) -> float:
    """Return the first seed's factor of the error per epoch along a direction `(p,)`.

    Differences of w between successive epochs' starts, the last over the first: what every
    epoch adds alike drops out. NaN of fewer than three epochs.

    Args:
        direction: None: `ss.expect(run).slowest_direction`.
    """
    direction = expect(run).slowest_direction if direction is None else direction
    names = of_parameters(run.problem.p)
    rows = run.load(columns=["epoch", "batch", *names], seeds=run.config.seeds[0])
    starts = rows[rows["batch"] == 0][names].to_numpy(dtype=float)
    moved = np.abs(np.diff(starts @ direction))
    if len(moved) < 2:
        return float("nan")
    return float((moved[-1] / moved[0]) ** (1 / (len(moved) - 1)))


def last_error(run: Run) -> float:
    """Return the first seed's error |w - w*| at its end.

    Raises:
        InputError: a problem that is not least squares.
    """
    names = of_parameters(run.problem.p)
    ends = run.load("epochs", columns=["epoch", *names], seeds=run.config.seeds[0])
    return float(norm(ends[names].to_numpy(dtype=float)[-1] - expect(run).ls.w_star))


def error_growth(run: Run, epochs: int) -> np.ndarray:
    """Return by seed `(R,)` the growth of log |error| per epoch, over the first epochs.

    Half that of the log of the full loss, from the end of the first to that of the last; NaN
    of a single epoch.
    """
    loss = array(run, "epochs", "full_loss", epochs=slice(1, epochs + 1))
    if len(loss) < 2:
        return np.full(len(run.config.seeds), np.nan)
    return np.asarray(np.log(loss[-1] / loss[0]) / (2 * (len(loss) - 1)))


def _of_first_seed(run: Run, column: str) -> np.ndarray:
    """Return a column of `epochs`, of the first seed."""
    columns = ["seed", "epoch", column]
    rows = run.load("epochs", columns=columns, seeds=run.config.seeds[0])
    return rows[column].to_numpy(dtype=float)
