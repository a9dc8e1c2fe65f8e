"""What theory expects of an arm, before it runs, and the claims that check it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from sgdstudy import theory
from sgdstudy.claims import Claim
from sgdstudy.config import TrainConfig
from sgdstudy.least_squares import LeastSquares
from sgdstudy.problem import Problem

if TYPE_CHECKING:
    from sgdstudy.history import History

FIXED_ORDERS = ("sequential", "reversed", "strided")
RANDOM_ORDERS = ("shuffle", "with_replacement")


def predict(problem: Problem, config: TrainConfig) -> dict[str, float]:
    """Return what is expected of a configuration, by name; nothing where theory has nothing.

    Theory speaks of plain gradient steps (`notebook`, `SGD` without options) on least squares:

    - full batch within the limit: `stop_epoch`, `distance_at_stop`; beyond it `growth_per_epoch`;
    - mini-batches in a fixed order: `rho`, the contraction from one epoch's end to the next, and
      `stop_epoch`, from the order's own steps, unless rounding would decide it;
    - mini-batches in random order: `stop_epoch` of the expected loss, where the mean of the loss
      is finite and the noise of the labels does not matter at epsilon.
    """
    plain = config.optimizer in ("notebook", "SGD") and not config.options
    if not plain or problem.least_squares is None:
        return {}
    ls = problem.least_squares
    start = problem.initial([config.seeds[0]])[0].double().cpu().numpy()
    if config.batch_size is None:
        return _full_batch(problem, config, ls, start)
    if config.order in FIXED_ORDERS:
        return _fixed_order(problem, config, ls, start)
    if config.order in RANDOM_ORDERS:
        return _random_order(problem, config, ls, start)
    return {}


def _full_batch(
    problem: Problem, config: TrainConfig, ls: LeastSquares, start: np.ndarray
) -> dict[str, float]:
    if config.lr >= theory.lr_limit(ls):
        return {"growth_per_epoch": theory.growth_per_epoch(ls, config.lr)}
    rule, epsilon = config.stop or (None, 0.0)
    if rule not in ("running", "last_batch"):
        return {}
    stop = theory.descent_stop(ls, start, config.lr, epsilon)
    if not np.isfinite(stop):
        return {"stop_epoch": stop}
    found = {"stop_epoch": stop}
    if problem.w_true is not None:
        w = theory.descent_w(ls, start, config.lr, int(stop))
        found["distance_at_stop"] = float(np.linalg.norm(w - problem.w_true.cpu().numpy()))
    return found


def _fixed_order(
    problem: Problem, config: TrainConfig, ls: LeastSquares, start: np.ndarray
) -> dict[str, float]:
    b = theory.batches(problem, config)
    found = {"rho": theory.spectral_radius(b, config.lr)}
    rule, epsilon = config.stop or (None, 0.0)
    # rounding grows with the products inside the epoch: beyond this it decides the stop
    eps = float(np.finfo(config.dtype or str(problem.dtype).removeprefix("torch.")).eps)
    calm = theory.growth(b, config.lr, epochs=2).factor * eps < 1e-3
    if rule in ("running", "full") and calm:
        both = theory.fixed_order_losses(ls, b, start, config.lr, config.epochs)
        losses = dict(zip(("running", "full"), both, strict=True))[rule]
        found["stop_epoch"] = theory.first_below(losses, epsilon)
    return found


def _random_order(
    problem: Problem, config: TrainConfig, ls: LeastSquares, start: np.ndarray
) -> dict[str, float]:
    rule, epsilon = config.stop or (None, 0.0)
    size = config.batch_sizes(problem.d)[0]
    if rule not in ("running", "full"):
        return {}
    if theory.mean_square_radius(ls, problem.d, size, config.lr) >= 1:
        return {}  # the mean of the loss diverges while most paths converge: it predicts no stop
    if theory.stationary_excess(ls, problem.d, size, config.lr) > 0.01 * (epsilon - ls.least_loss):
        return {}  # reshuffling removes part of that noise, and seeds cross epsilon by luck
    running, full = theory.expected_losses(ls, start, problem.d, size, config.lr, config.epochs)
    return {"stop_epoch": theory.first_below(running if rule == "running" else full, epsilon)}


def growth(history: History) -> float:
    """Return the last finite ratio of successive losses of a run's first seed."""
    rows = history.load(columns=["seed", "loss"], seeds=history.config.seeds[0])
    loss = rows["loss"].to_numpy(dtype=float)
    loss = loss[np.isfinite(loss)]
    return float(loss[-1] / loss[-2])


def contraction(history: History, epochs: int = 10) -> float:
    """Return the factor of the error per epoch, from the last epochs' full loss; NaN for one."""
    columns = ["seed", "epoch", "full_loss"]
    rows = history.load("epochs", columns=columns, seeds=history.config.seeds[0])
    loss = rows["full_loss"].to_numpy()
    epochs = min(epochs, len(loss) - 1)
    if epochs < 1:
        return float("nan")
    return float((loss[-1] / loss[-1 - epochs]) ** (1 / (2 * epochs)))


# name: how it is measured, its tolerance, where the expectation comes from
CHECKS: dict[str, tuple[Callable[[History], float], float, str]] = {
    "stop_epoch": (lambda run: run.median_stop, 1, "theory: loss by epoch"),
    "distance_at_stop": (lambda run: float(np.median(run.distance)), 2e-4, "theory: closed form"),
    "growth_per_epoch": (growth, 1e-4, "theory: (1 - lr lambda_max)^2"),
}


def predicted_claims(runs: Mapping[str, History]) -> list[Claim]:
    """Return one claim per arm and prediction; arms without one describe their stop epoch."""
    found = []
    for arm, run in runs.items():
        for name, (measure, tolerance, source) in CHECKS.items():
            if name in run.predicted:
                expected = run.predicted[name]
                found.append(Claim(name, arm, measure(run), expected, tolerance, source))
        if run.config.stop is not None and not set(CHECKS) & set(run.predicted):
            found.append(Claim("stop_epoch", arm, run.median_stop))
    return found
