"""How far a run's records are off what holds by definition, whatever the run does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from sgdstudy import checks, theory
from sgdstudy.history.arrays import parameters
from sgdstudy.history.batches import way_off
from sgdstudy.known import Known
from sgdstudy.language import to_say
from sgdstudy.quantities import norm
from sgdstudy.theory.expect import expect

if TYPE_CHECKING:
    from sgdstudy.figures.style import Run


class Off(NamedTuple):
    """How far a run's records are off an identity.

    Attributes:
        value: the largest relative difference, over seeds and epochs; NaN of a run without any.
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
            `split`: drift and sampling add up to running - full(end), relative to their sizes.
            Where w stays: `mean`: the running loss is the full one, of losses that add up;
            `weighting`: what the plain mean adds is sum (1 / m - n_b / d) L_b, by theory, in an
            order known ahead (of the first seed's first epoch);
            `triangle`: the sum of the batches' norms lies in `theory.triangle_bounds`; `jensen`:
            the running root mean square lies in `theory.jensen_bounds`. Of gradients there,
            `full_grad`: the full one's norm is that of the mean of the samples' own, which
            theory has (relative to 1 where it is less); relative to the mean of the batches' norms,
            `mean_grad`: the norm of their mean is the full one's; `grad_triangle`: the full
            one's is not above that mean.
            Of plain steps of batches of one size, `way`: see `History.way_off`. Of single samples
            in an order that is kept, `own_error`: |w - w*|^2 at the end is that of the epoch's map
            to the power of the epochs, started at the minimiser.

    Raises:
        InputError: another identity; a run that is not of its kind.
    """
    measure, near, source = _IDENTITIES[checks.choice("identity", identity, list(_IDENTITIES))]
    if run.load("epochs", columns=["epoch"]).empty:
        return Off(float("nan"), Known(0.0, source=source))
    return Off(float(measure(run)), Known(0.0, near(run), source))


def _sum(run: Run) -> float:
    steps = run.load(columns=["seed", "epoch", "loss"]).astype({"loss": float})
    total = steps.groupby(["seed", "epoch"])["loss"].sum()
    mean = run.load("epochs").set_index(["seed", "epoch"])["mean_loss"]
    # a seed that diverges has steps of an epoch that it did not complete
    return _largest(total.loc[mean.index] / (len(_sizes(run)) * mean) - 1)


def _split(run: Run) -> float:
    ends = run.load("epochs", seeds=run.config.seeds[0])
    drift, sampling = np.array([[gap.drift, gap.sampling] for gap in run.gaps()]).T
    total = ends["running_loss"] - ends["full_loss"]
    return _largest(
        (drift + sampling - total) / (abs(drift) + abs(sampling) + ends["running_loss"])
    )


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


def _full_grad(run: Run) -> float:
    due = float(np.sqrt(np.sum(expect(run).gradients.mean(0) ** 2)))
    return _largest(run.load("epochs")["full_grad_norm"] - due) / max(due, 1)


def _mean_grad(run: Run) -> float:
    ends = run.load("epochs")
    return _largest((ends["norm_mean_grad"] - ends["full_grad_norm"]) / ends["mean_grad_norm"])


def _grad_triangle(run: Run) -> float:
    ends = run.load("epochs")
    return max(0.0, float((ends["full_grad_norm"] / ends["mean_grad_norm"] - 1).max()))


def _own_error(run: Run) -> float:
    known = expect(run)
    square = norm(parameters(run, "epochs")[-1] - known.start) ** 2
    return float(np.abs(square / known.own_error_at_end - 1).max())


def _in_float64(run: Run) -> float:
    return run.problem.d * float(np.finfo(float).eps)  # of as many numbers, at worst


def _of_sums(run: Run) -> float:
    return expect(run).sum_rounding


def _of_gradient_sums(run: Run) -> float:
    # the rounding of a sum is relative to its terms, which cancel; the identity to what is left
    known, left = expect(run), run.load("epochs")["mean_grad_norm"].min()
    return float(known.sum_rounding * norm(known.gradients).mean() / left)


def _of_kept_steps(run: Run) -> float:
    # the 1 / (2 lr) last steps count, and each rounds w: |z|^2 moves by twice their sum
    known = expect(run)
    off = np.finfo(float).eps * np.linalg.norm(known.ls.w_star) / run.config.lr
    return float(off / np.sqrt(known.own_error_at_end.min()))


def _largest(off: pd.Series) -> float:
    return float(np.abs(off).max())


def _outside(values: pd.Series, low: pd.Series, high: pd.Series) -> float:
    """Return how far values are outside bounds, relative: 0 inside."""
    return max(0.0, float((low / values - 1).max()), float((values / high - 1).max()))


def _sizes(run: Run) -> np.ndarray:
    return np.array(run.config.batch_sizes(run.problem.d))


Measure = Callable[["Run"], float]
# how far off it is, what rounding may make of that, and why it holds
_IDENTITIES: dict[str, tuple[Measure, Measure, str]] = {
    "sum": (_sum, _in_float64, to_say("definition")),
    "split": (_split, _in_float64, to_say("running - full(end), relative to its parts")),
    "mean": (_mean, _of_sums, to_say("sums")),
    "weighting": (_weighting, _of_sums, to_say("theory: weighting, sum (1/m - n_b/d) L_b")),
    "triangle": (
        _triangle,
        _of_sums,
        to_say("triangle inequality: |r| <= sum |r_b| <= sqrt(m) |r|"),
    ),
    "jensen": (_jensen, _of_sums, to_say("Jensen")),
    "full_grad": (_full_grad, lambda run: 1e-9, to_say("theory: the samples' gradients; float64")),
    "mean_grad": (_mean_grad, _of_gradient_sums, to_say("the mean of the g_B is g")),
    "grad_triangle": (_grad_triangle, _of_gradient_sums, to_say("triangle: |g| <= mean |g_B|")),
    "way": (way_off, _of_sums, to_say("mean g_B = (w_start - w_end) / (lr m)")),
    "own_error": (
        _own_error,
        _of_kept_steps,
        to_say("theory: Mᴷ of the seed's own order; rounding of the steps that are remembered"),
    ),
}
