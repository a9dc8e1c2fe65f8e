"""How far a run's records are off what holds by definition, whatever the run does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import numpy as np
import pandas as pd

from sgdstudy import checks, theory
from sgdstudy.figures.style import Run
from sgdstudy.known import Known
from sgdstudy.theory.expect import expect


class Off(NamedTuple):
    """How far a run's records are off an identity.

    Attributes:
        value: the largest relative difference, over seeds and epochs.
        due: 0, what the rounding of the sums may make of it, and why.
    """

    value: float
    due: Known

    def __float__(self) -> float:
        return self.value


def off(run: Run, identity: str) -> Off:
    """Return how far a run's records are off an identity.

    Args:
        identity: `sum`: the sum of an epoch's batch losses is their number times `mean_loss`;
            `split`: drift and sampling add up to running - full(end), relative to the former.
            Where w stays: `mean`: the running loss is the full one, of losses that add up;
            `weighting`: what the plain mean adds is sum (1 / m - n_b / d) L_b, by theory, in an
            order known ahead (of the first seed's first epoch);
            `triangle`: the sum of the batches' norms lies in `theory.triangle_bounds`; `jensen`:
            the running root mean square lies in `theory.jensen_bounds`.

    Raises:
        InputError: another identity; `weighting` of what is not least squares.
    """
    measure, source = _IDENTITIES[checks.choice("identity", identity, list(_IDENTITIES))]
    in_float64 = run.problem.d * float(np.finfo(float).eps)  # of as many numbers, at worst
    near = in_float64 if identity in ("sum", "split") else expect(run).sum_rounding
    return Off(float(measure(run)), Known(0.0, near, source))


def _sum(run: Run) -> float:
    steps = run.load(columns=["seed", "epoch", "loss"]).astype({"loss": float})
    total = steps.groupby(["seed", "epoch"])["loss"].sum().to_numpy()
    return _largest(total / (len(_sizes(run)) * run.load("epochs")["mean_loss"]) - 1)


def _split(run: Run) -> float:
    ends = run.load("epochs", seeds=run.config.seeds[0])
    both = np.array([gap.drift + gap.sampling for gap in run.gaps()])
    total = ends["running_loss"] - ends["full_loss"]
    return _largest((both - total) / ends["running_loss"])


def _mean(run: Run) -> float:
    ends = run.load("epochs")
    return _largest(ends["running_loss"] / ends["full_loss"] - 1)


def _weighting(run: Run) -> float:
    ls, row = theory.moments(run.problem), run.load("epochs").iloc[0]
    order = islice(theory.batches_by_epoch(run.problem, run.config), 1)
    still = theory.order_losses(ls, expect(run).start, 0.0, order)
    return (
        float(abs(row["mean_loss"] - row["full_loss"] - still.gap(1).weighting)) / row["full_loss"]
    )


def _triangle(run: Run) -> float:
    ends = run.load("epochs")
    return _outside(ends["sum_loss"], *theory.triangle_bounds(ends["full_loss"], len(_sizes(run))))


def _jensen(run: Run) -> float:
    ends = run.load("epochs")
    return _outside(ends["running_loss"], *theory.jensen_bounds(ends["full_loss"], _sizes(run)))


def _largest(off: pd.Series) -> float:
    return float(np.abs(off).max())


def _outside(values: pd.Series, low: pd.Series, high: pd.Series) -> float:
    """Return how far values are outside bounds, relative: 0 inside."""
    return max(0.0, float((low / values - 1).max()), float((values / high - 1).max()))


def _sizes(run: Run) -> np.ndarray:
    return np.array(run.config.batch_sizes(run.problem.d))


_IDENTITIES: dict[str, tuple[Callable[[Run], float], str]] = {
    "sum": (_sum, "definition"),
    "split": (_split, "running - full(end), relative to running"),
    "mean": (_mean, "sums"),
    "weighting": (_weighting, "theory: weighting, sum (1/m - n_b/d) L_b"),
    "triangle": (_triangle, "triangle inequality: |r| <= sum |r_b| <= sqrt(m) |r|"),
    "jensen": (_jensen, "Jensen"),
}
