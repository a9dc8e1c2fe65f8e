"""What theory expects of an arm, before it runs, and the claims that check it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from sgdstudy import orders, theory
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

    Theory speaks of plain gradient steps (`notebook`, `SGD` without options or schedule) on least
    squares:

    - full batch within the limit: `stop_epoch`, `distance_at_stop`; beyond it `growth_per_epoch`;
    - mini-batches in a fixed order: `rho`, the contraction from one epoch's end to the next, and
      `stop_epoch`, from the order's own steps, unless rounding would decide it;
    - mini-batches in random order: `stop_epoch` of the expected loss, where the mean of the loss
      is finite and the noise of the labels does not matter at epsilon.
    """
    ls = problem.least_squares
    if not _plain(config) or ls is None:
        return {}
    if config.batch_size is None:
        return _full_batch(problem, config, ls)
    found = {}
    if _has_no_moments(config, ls):
        return {}
    if config.order in FIXED_ORDERS:
        b = theory.batches(problem, config)
        found["rho"] = theory.spectral_radius(b, config.lr)
        calm = _rounding(problem, config, b) < 1e-3
    else:
        calm = config.order in RANDOM_ORDERS and not _label_noise_decides(problem, config, ls)
    rule, epsilon = config.stop or (None, 0.0)
    if rule in ("running", "full") and calm:
        losses = expected_losses(problem, config)[f"{rule}_loss"]
        found["stop_epoch"] = theory.first_below(losses, epsilon)
    return found


def expected_losses(problem: Problem, config: TrainConfig) -> dict[str, np.ndarray]:
    """Return the expected `running_loss` and `full_loss` by epoch, `(epochs,)` each.

    Of full batches in closed form, of fixed orders from their own steps, of random orders the
    mean over independent batches; nothing where theory has nothing, or the mean is infinite.
    """
    ls = problem.least_squares
    if not _plain(config) or ls is None:
        return {}
    start, epochs = _start(problem, config), config.epochs
    if config.batch_size is None:
        losses = theory.descent_loss(ls, start, config.lr, np.arange(epochs + 1))
        both = (losses[:-1], losses[1:])
    elif config.order in FIXED_ORDERS:
        b = theory.batches(problem, config)
        both = theory.fixed_order_losses(ls, b, start, config.lr, epochs)
    elif config.order in RANDOM_ORDERS and not _has_no_moments(config, ls):
        size, twice = config.batch_sizes(problem.d)[0], config.order == "with_replacement"
        if theory.mean_square_radius(ls, problem.d, size, config.lr, twice) >= 1:
            return {}  # the mean of the loss diverges while most paths converge
        both = theory.expected_losses(ls, start, problem.d, size, config.lr, epochs, twice)
    else:
        return {}
    return dict(zip(("running_loss", "full_loss"), both, strict=True))


def order_is_known(problem: Problem, config: TrainConfig) -> bool:
    """Whether theory can follow the very steps of a configuration's first seed."""
    fixed = config.batch_size is not None and str(config.order) not in orders.UNKNOWN
    return _plain(config) and problem.least_squares is not None and fixed


def known_order(problem: Problem, config: TrainConfig, epochs: int) -> theory.OrderLosses:
    """Return the losses of the first seed's own order, from its steps in float64.

    Raises:
        InputError: the loss is not `mse`, or the model not linear in w.
    """
    ls, order = theory.moments(problem), theory.batches_by_epoch(problem, config)
    return theory.order_losses(ls, _start(problem, config), config.lr, islice(order, epochs))


def _has_no_moments(config: TrainConfig, ls: LeastSquares) -> bool:
    """Whether a random order has too many parameters for the theory of second moments."""
    return config.order in RANDOM_ORDERS and len(ls.w_star) > theory.MOST_PARAMETERS


def _plain(config: TrainConfig) -> bool:
    """Whether every step is w - lr g, with the same lr."""
    known = config.optimizer in ("notebook", "SGD") and not config.options
    return known and config.schedule is None


def _start(problem: Problem, config: TrainConfig) -> np.ndarray:
    return problem.initial([config.seeds[0]])[0].double().cpu().numpy()


def _full_batch(problem: Problem, config: TrainConfig, ls: LeastSquares) -> dict[str, float]:
    if config.lr >= theory.lr_limit(ls):
        return {"growth_per_epoch": theory.growth_per_epoch(ls, config.lr)}
    rule, epsilon = config.stop or (None, 0.0)
    if rule not in ("running", "last_batch"):
        return {}
    start = _start(problem, config)
    found = {"stop_epoch": theory.descent_stop(ls, start, config.lr, epsilon)}
    if np.isfinite(found["stop_epoch"]) and problem.w_true is not None:
        w = theory.descent_w(ls, start, config.lr, int(found["stop_epoch"]))
        found["distance_at_stop"] = float(np.linalg.norm(w - problem.w_true.cpu().numpy()))
    return found


def _rounding(problem: Problem, config: TrainConfig, b: theory.Batches) -> float:
    """Return how far rounding may be multiplied inside an epoch of a fixed order."""
    eps = float(np.finfo(config.dtype or str(problem.dtype).removeprefix("torch.")).eps)
    return theory.growth(b, config.lr, epochs=2).factor * eps


def _label_noise_decides(problem: Problem, config: TrainConfig, ls: LeastSquares) -> bool:
    """Whether seeds cross epsilon by luck; reshuffling removes part of that noise."""
    size = config.batch_sizes(problem.d)[0]
    excess = theory.stationary_excess(ls, problem.d, size, config.lr)  # infinite without a mean
    epsilon = config.stop[1] if config.stop else 0.0
    return excess > 0.01 * (epsilon - ls.least_loss)


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


def gaps(history: History) -> list[theory.Gap]:
    """Return what separates running and full loss in every epoch of a run's first seed."""
    seed = history.config.seeds[0]
    steps = history.load(columns=["seed", "epoch", "size", "loss", "full_loss"], seeds=seed)
    ends = history.load("epochs", columns=["seed", "epoch", "full_loss"], seeds=seed)
    by_epoch = dict(iter(steps.groupby("epoch")))
    found = []
    for epoch, end in zip(ends["epoch"], ends["full_loss"], strict=True):
        rows = by_epoch[epoch]
        loss, full, size = (rows[k].to_numpy(dtype=float) for k in ("loss", "full_loss", "size"))
        found.append(theory.gap(loss, full, size, end))
    return found


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
