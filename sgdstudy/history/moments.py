"""What a run of least squares has beside theory's moments: excess losses, w - w*, rates, noise.

A run is known here by what figures ask of it, wherever its rows lie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sgdstudy import checks, theory
from sgdstudy.figures.style import Run
from sgdstudy.quantities import norm


def excess(run: Run, kind: str = "epochs", **which: Any) -> np.ndarray:
    """Return the excess loss of all the data by epoch (at its end) or step, and seed.

    `(E, R)` or `(S, R)`, above the least loss; at the ends of epochs of the mean of the
    parameters, where the configuration keeps one.

    Args:
        run: a run of least squares.
        kind: `steps` or `epochs`.
        which: `seeds`, `steps`, `epochs`, as for `History.load`.

    Raises:
        InputError: a problem that is not least squares.
    """
    averaged = kind == "epochs" and run.config.average is not None
    loss = _by_seed(run, kind, ["average_loss" if averaged else "full_loss"], which)[:, :, 0]
    return np.asarray(loss - theory.moments(run.problem).least_loss)


def parameters(run: Run, kind: str = "steps", **which: Any) -> np.ndarray:
    """Return w by epoch (at its end) or step (before it), seed and parameter, `(E, R, p)`.

    NaN beyond a seed's end. The arguments: see `excess`.
    """
    return _by_seed(run, kind, [f"w{i}" for i in range(run.problem.p)], which)


def from_minimiser(run: Run, kind: str = "epochs", **which: Any) -> np.ndarray:
    """Return w - w* by epoch (at its end) or step (before it), seed and parameter, `(E, R, p)`.

    NaN beyond a seed's end. The arguments and what is refused: see `excess`.
    """
    return parameters(run, kind, **which) - theory.moments(run.problem).w_star


def mode_variance(run: Run, epochs: slice | None = None) -> np.ndarray:
    """Return the variance of w in each mode of the Hessian, flattest first, `(p,)`.

    At the ends of epochs, over epochs and seeds, about their mean: a bias is not noise.

    Args:
        run: a run of least squares.
        epochs: `slice(first, end)`, from 1; None: all.
    """
    z = from_minimiser(run, epochs=epochs) @ theory.moments(run.problem).modes[1]
    return np.asarray(z.var((0, 1)))


def log_rate(run: Run, first: int, last: int | None = None) -> theory.Estimate:
    """Return how log|w - w*| changes per step, between the ends of two epochs, over the seeds.

    Its error includes that of `ss.expect(run).log_rate`, which is a mean of as many steps as
    `theory.PRODUCTS` says, taken to scatter as these do.

    Args:
        run: a run of least squares.
        first: an epoch, from 1, at whose end the start is forgotten.
        last: a later one; None: the last.
    """
    last, m = last or run.config.epochs, len(run.config.batch_sizes(run.problem.d))
    z = from_minimiser(run, epochs=slice(first, last + 1))
    steps = (last - first) * m
    products = (theory.PRODUCTS["epochs"] - 1) * theory.PRODUCTS["replicas"] * m
    each = np.diff(np.log(norm(z[[0, -1]])), axis=0)[0] / steps
    return theory.Estimate.mean(each, others=products / steps)


def noise_scale(run: Run, part: slice, weights: np.ndarray | None = None) -> theory.Estimate:
    """Return the gradient noise scale of a stretch of steps: mean tr(Sigma) over mean |g|^2.

    Means over steps and seeds, at the parameters before the steps; see `theory.noise_terms`.

    Args:
        run: a run of least squares.
        part: the steps, `slice(first, end)`.
        weights: of the steps `(n,)`, as 1 / the expected excess; None: they count alike.
    """
    ls = theory.moments(run.problem)
    w = ls.w_star + from_minimiser(run, "steps", steps=part)
    terms = theory.noise_terms(ls, w, run.problem.d)[:2]  # (2, S, R)
    noise, square = np.average(terms, 1, weights)
    return theory.Estimate.ratio(noise, square)


def _by_seed(run: Run, kind: str, names: Sequence[str], which: Mapping[str, Any]) -> np.ndarray:
    """Return columns by epoch or step and seed, `(E, R, columns)`; NaN beyond a seed's end."""
    at = {"steps": "step", "epochs": "epoch"}[checks.choice("rows", kind, ("steps", "epochs"))]
    rows = run.load(kind, columns=["seed", at, *names], **which)
    points, row = np.unique(rows[at], return_inverse=True)
    seeds = list(run.config.seeds)  # one that ended before its first row has none
    if "seeds" in which:
        there = set(rows["seed"].unique())
        seeds = [seed for seed in seeds if seed in there]
    found = np.full((len(points), len(seeds), len(names)), np.nan)
    found[row, pd.Index(seeds).get_indexer(rows["seed"])] = rows[list(names)].to_numpy(float)
    return found
