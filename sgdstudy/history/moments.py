"""What a run of least squares has beside theory's moments: excess losses, w - w*, rates, noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sgdstudy import theory
from sgdstudy.history.arrays import array, parameters
from sgdstudy.quantities import norm
from sgdstudy.theory import medians, reshuffling
from sgdstudy.theory.estimates import Estimate
from sgdstudy.theory.expect import expect

if TYPE_CHECKING:
    from sgdstudy.figures.style import Run


def excess(run: Run, kind: str = "epochs", **which: Any) -> np.ndarray:
    """Return the excess loss of all the data by epoch (at its end) or step, and seed.

    `(E, R)` or `(S, R)`, above the least loss; at the ends of epochs of the mean of the
    parameters, where the configuration keeps one.

    Args:
        kind: `steps` or `epochs`.
        which: `seeds`, `steps`, `epochs`, as for `History.load`.

    Raises:
        InputError: a problem that is not least squares.
    """
    averaged = kind == "epochs" and run.config.average is not None
    loss = array(run, kind, "average_loss" if averaged else "full_loss", **which)
    return np.asarray(loss - theory.moments(run.problem).least_loss)


def excess_at_end(run: Run) -> float:
    """Return the median over the seeds of how far the last loss of all the data is above least.

    Infinite of a seed that diverges.
    """
    last = run.load("epochs", columns=["seed", "full_loss"]).groupby("seed")["full_loss"].last()
    lost = run.stop_reason == "diverged"
    loss = np.where(lost, np.inf, last.reindex(run.config.seeds).to_numpy(float))
    return medians.median(loss) - theory.moments(run.problem).least_loss


def late_excess(run: Run) -> np.ndarray:
    """Return by seed `(R,)` the excess loss of late epochs; see `reshuffling.late_excess`."""
    loss = array(run, "epochs", "full_loss")
    return reshuffling.late_excess(loss, theory.moments(run.problem).least_loss)


def steps_to_excess(run: Run, target: float) -> tuple[float, float]:
    """Return for how many steps the seeds' mean excess loss is above a target; standard error.

    See `Estimate.time_above`, with the curve that theory expects. Infinite where three times the
    steps that it expects are not enough, or the run is shorter.
    """
    expected = expect(run).path(target).excess
    curves = excess(run, "steps", steps=slice(0, 3 * len(expected)))
    seen = Estimate.time_above(curves, target, expected[: len(curves)])
    return seen.value, seen.error


def first_step_below(run: Run, target: float) -> np.ndarray:
    """Return the step before which each seed's excess loss is first below a target, `(R,)`.

    As many steps were taken until then; infinite: never.
    """
    loss = array(run, "steps", "full_loss")
    below = loss < theory.moments(run.problem).least_loss + target
    return np.where(below, np.arange(len(below))[:, None], np.inf).min(0, initial=np.inf)


def over_expected(run: Run, first: int) -> np.ndarray:
    """Return the excess loss over what second moments expect, a mean over late epochs, `(R,)`.

    Args:
        first: the epochs before it, all but the late ones.

    Raises:
        InputError: theory has no mean of this run.
    """
    least = theory.moments(run.problem).least_loss
    due = expect(run).mean_loss("full_loss")[first:, None] - least
    each: np.ndarray = ((array(run, "epochs", "full_loss")[first:] - least) / due).mean(0)
    return each


def late_ratios(run: Run, first: int) -> dict[str, tuple[Estimate, float]]:
    """Return how losses and gradient of late epochs go together, and what second moments expect.

    Ratios of means over the seeds, each a mean over the epochs, with its standard error (see
    `theory.ratio_of_means`): `full_loss_over_theory`, `running_over_full_loss` and
    `square_of_gradient_over_bound`, |g|^2 over 2 lambda_min L, the Polyak-Lojasiewicz bound of what
    reaches the loss 0.

    Args:
        first: the epochs before it, all but the late ones.

    Raises:
        InputError: theory has no mean of this run.
    """
    known, late = expect(run), slice(first, None)
    names = ("running_loss", "full_loss", "full_grad_norm")
    running, full, slope = (array(run, "epochs", name)[late] for name in names)
    true_running, true = (known.mean_loss(name)[late] for name in names[:2])
    bound = theory.gradient_bound(known.ls, 1) ** 2
    ratios = {
        "full_loss_over_theory": (full, true[:, None], true / true),
        "running_over_full_loss": (running, full, true_running / true),
        "square_of_gradient_over_bound": (
            slope**2,
            bound * full,
            known.mean_square_gradient[late] / (bound * true),
        ),
    }
    return {name: (Estimate.ratios(*each), float(each[2].mean())) for name, each in ratios.items()}


def decay_power(run: Run) -> Estimate:
    """Return the power of 1 + decay t with which a start is forgotten, under `inverse_time`.

    The slope of the logarithm of the seeds' mean excess loss over that of 1 + decay t, t steps,
    between the ends of the epoch at a fifth of the run and of the last one.

    Raises:
        InputError: another schedule.
    """
    places, x = expect(run).decay_places
    return Estimate.slope(x, excess(run)[places - 1])


def gradient_over_bound(run: Run) -> np.ndarray:
    """Return |g| of all the data over the least it may be there, by epoch and seed, `(E, R)`.

    See `theory.gradient_bound`; the excess loss is that of the parameters, as a difference of
    losses is rounding where it is small.
    """
    ls = theory.moments(run.problem)
    bound = theory.gradient_bound(ls, ls.excess(parameters(run, "epochs")))
    return array(run, "epochs", "full_grad_norm") / bound


def from_minimiser(run: Run, kind: str = "epochs", **which: Any) -> np.ndarray:
    """Return w - w* by epoch (at its end) or step (before it), seed and parameter, `(E, R, p)`.

    NaN beyond a seed's end. The arguments and what is refused: see `excess`.
    """
    return parameters(run, kind, **which) - theory.moments(run.problem).w_star


def share_along_steepest(run: Run, epoch: int = 1) -> np.ndarray:
    """Return which share of the first seed's w - w* lies along each batch's steepest direction.

    `(m,)`, at the parameters that the batches of an epoch meet; see
    `theory.Batches.share_along_steepest`.
    """
    z = from_minimiser(run, "steps", epochs=slice(epoch, epoch + 1))[:, 0]
    return theory.batches(run.problem, run.config, epoch).share_along_steepest(z)


def mode_variance(run: Run, epochs: slice | None = None) -> np.ndarray:
    """Return the variance of w in each mode of the Hessian, flattest first, `(p,)`.

    At the ends of epochs, over epochs and seeds, about their mean: a bias is not noise.

    Args:
        epochs: `slice(first, end)`, from 1; None: all.
    """
    z = from_minimiser(run, epochs=epochs) @ theory.moments(run.problem).modes[1]
    return np.asarray(z.var((0, 1)))


def log_rate(run: Run, first: int, last: int | None = None) -> theory.Estimate:
    """Return how log|w - w*| changes per step, between the ends of two epochs, over the seeds.

    Its error includes that of `ss.expect(run).log_rate`, which is a mean of as many steps as
    `theory.PRODUCTS` says, taken to scatter as these do.

    Args:
        first: an epoch, from 1, at whose end the start is forgotten.
        last: a later one; None: the last.
    """
    d = run.problem.d
    last, m = last or run.config.n_epochs(d), len(run.config.batch_sizes(d))
    z = from_minimiser(run, epochs=slice(first, last + 1))
    steps = (last - first) * m
    products = (theory.PRODUCTS["epochs"] - 1) * theory.PRODUCTS["replicas"] * m
    each = np.diff(np.log(norm(z[[0, -1]])), axis=0)[0] / steps
    return theory.Estimate.mean(each, others=products / steps)


def noise_scale(run: Run, part: slice, weights: np.ndarray | None = None) -> theory.Estimate:
    """Return the gradient noise scale of a stretch of steps: mean tr(Sigma) over mean |g|^2.

    Means over steps and seeds, at the parameters before the steps; see `theory.noise_terms`.

    Args:
        part: the steps, `slice(first, end)`.
        weights: of the steps `(n,)`, as 1 / the expected excess; None: they count alike.
    """
    ls = theory.moments(run.problem)
    w = ls.w_star + from_minimiser(run, "steps", steps=part)
    terms = theory.noise_terms(ls, w, run.problem.d)[:2]  # (2, S, R)
    noise, square = np.average(terms, 1, weights)
    return theory.Estimate.ratio(noise, square)
