"""The validated, immutable settings of one training run."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from sgdstudy import orders, quantities, rules
from sgdstudy.errors import InputError, unknown
from sgdstudy.problem import DTYPES, Problem

ENGINES = ("auto", "eager", "compiled")
STEP_COLUMNS = ("loss", "grad_norm", "full_loss", "full_grad_norm", "update_norm")
# with live and the epochs' three, twelve keys in MLflow at the most
METRICS = (*STEP_COLUMNS[:4], "distance", "noise_scale", "lr_sharpness", "alpha")
STOP_RULES = ("running", "full", "last_batch", "grad_norm")


@dataclass(frozen=True, eq=False)
class TrainConfig:
    """How a problem is trained; every argument of `train` but the problem.

    Attributes:
        optimizer: a name of `rules.NAMES`, or a factory `params -> Optimizer`. `"notebook"` is
            the notebook's own rule; `"none"` moves nothing (batches at fixed parameters).
        lr: step size.
        options: further options of the optimiser, as `{"momentum": 0.9}`.
        batch_size: samples per step, None for full batch.
        order: a name of `orders.ORDERS`, an array `(epochs, steps, B)`, or
            `callable(generator, d)` returning an epoch's indices.
        epochs: the most epochs.
        stop: `(rule, epsilon)`, tested at the end of each epoch, or None. Rules: `running` (the
            size-weighted mean of the epoch's batch losses as w moves), `full` (loss of all the
            data), `last_batch`, `grad_norm` (norm of the full gradient).
        seeds: one replica each.
        dtype: `float32` or `float64`; None keeps the data's.
        device: where to train, as `cpu` or `cuda`.
        engine: `eager`, `compiled`, or `auto`: compiled where a run is long enough to pay for it.
        diagnostics: `off`, `light`, `full`, or a list of names and callables.
        diagnostics_every: steps between two that get the costly ones; None: every step of a
            least-squares problem, every tenth of others.
        metrics: columns of `steps` that MLflow gets, as `batch/<name>`; None: the losses, gradient
            norms and distance and, where they are asked for, a few diagnostics.
        record_rows: the most rows of `steps` kept; longer runs keep every k-th step.

    Raises:
        InputError: any value that is not allowed, saying what is.
    """

    optimizer: Any = "SGD"
    lr: float = 1e-3
    options: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    order: Any = "shuffle"
    epochs: int = 100
    stop: tuple[str, float] | None = None
    seeds: Any = (0,)
    dtype: str | None = None
    device: str = "cpu"
    engine: str = "auto"
    diagnostics: Any = "light"
    diagnostics_every: int | None = None
    metrics: Sequence[str] | None = None
    record_rows: int = 5_000_000

    def __post_init__(self) -> None:
        def settle(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        settle("lr", _number("lr", self.lr))
        settle("epochs", _count("epochs", self.epochs))
        settle("record_rows", _count("record_rows", self.record_rows))
        if self.diagnostics_every is not None:
            settle("diagnostics_every", _count("diagnostics_every", self.diagnostics_every))
        if self.batch_size is not None:
            settle("batch_size", _count("batch_size", self.batch_size))
        settle("order", orders.check(self.order))
        settle("stop", _stop(self.stop))
        settle("seeds", _seeds(self.seeds))
        settle("device", _device(self.device))
        if self.engine not in ENGINES:
            raise unknown("engine", self.engine, ENGINES)
        settle("metrics", _metrics(self.metrics, quantities.resolve(self.diagnostics)))
        rules.make(self.optimizer, self.lr, self.options)
        if self.dtype is not None and self.dtype not in DTYPES:
            raise unknown("dtype", self.dtype, DTYPES)

    def check(self, problem: Problem) -> None:
        """Raise `InputError` where the settings do not fit the problem."""
        if self.batch_size is not None and self.batch_size > problem.d:
            raise InputError(
                f"batch_size {self.batch_size} is more than the {problem.d} samples; "
                f"give 1 to {problem.d}, or None for full batch"
            )
        if isinstance(self.order, torch.Tensor):
            lowest, highest = int(self.order.min()), int(self.order.max())
            if lowest < 0 or highest >= problem.d:
                raise InputError(
                    f"the order's indices go from {lowest} to {highest}; "
                    f"expected 0 to {problem.d - 1}"
                )
            if len(self.order) < self.epochs:
                raise InputError(
                    f"the order holds {len(self.order)} epochs, fewer than epochs={self.epochs}"
                )
            if self.batch_size != self.order.shape[2]:
                raise InputError(
                    f"batch_size is {self.batch_size}, but the order's batches hold "
                    f"{self.order.shape[2]} samples"
                )

    def batch_sizes(self, d: int) -> list[int]:
        """Return the sizes of an epoch's batches for d samples."""
        return orders.batch_sizes(self.order, d, self.batch_size or d)


def _metrics(metrics: Any, diagnostics: Mapping[str, Any]) -> tuple[str, ...]:
    if metrics is None:
        return tuple(name for name in METRICS if name in STEP_COLUMNS or name in diagnostics)
    if isinstance(metrics, str) or not hasattr(metrics, "__iter__"):
        raise InputError(f"metrics is a list of columns, as ['loss', 'alpha'], not {metrics!r}")
    allowed = [*STEP_COLUMNS, *diagnostics]
    for name in metrics:
        if name not in allowed and not re.fullmatch(r"w\d+", str(name)):
            raise unknown("column for MLflow", str(name), allowed)
    return tuple(metrics)


def _number(name: str, value: Any) -> float:
    if isinstance(value, (str, bool)):
        raise InputError(f"{name} is a number, not {value!r}")
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name} is a number, not {type(value).__name__}") from None
    if not (math.isfinite(number) and number > 0):
        raise InputError(f"{name} must be positive and finite, got {number!r}")
    return number


def _count(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be a whole number, got {value!r}") from None
    if isinstance(value, bool) or number < 1:
        raise InputError(f"{name} must be at least 1, got {value!r}")
    return number


def _stop(stop: Any) -> tuple[str, float] | None:
    if stop is None:
        return None
    if isinstance(stop, str) or not hasattr(stop, "__len__") or len(stop) != 2:
        raise InputError(f"stop is a pair (rule, epsilon) or None, not {stop!r}")
    rule, epsilon = stop
    if rule not in STOP_RULES:
        raise unknown("stop rule", rule, STOP_RULES)
    return rule, _number("epsilon", epsilon)


def _seeds(seeds: Any) -> tuple[int, ...]:
    values = tuple(seeds) if hasattr(seeds, "__iter__") else (seeds,)
    if not values:
        raise InputError("seeds is empty; give at least one, as seeds=range(64)")
    numbers = []
    for seed in values:
        number = operator.index(seed) if hasattr(seed, "__index__") else -1
        if isinstance(seed, bool) or not 0 <= number < 2**63:
            raise InputError(f"a seed is a whole number from 0 to 2**63 - 1, got {seed!r}")
        if number in numbers:
            raise InputError(f"seed {number} is given twice; each replica needs its own seed")
        numbers.append(number)
    return tuple(numbers)


def _device(device: Any) -> str:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"device {device!r} cannot be used here: {first}") from error
    return str(device)
