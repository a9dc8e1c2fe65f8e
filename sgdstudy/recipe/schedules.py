"""Step sizes that change over a run: those of `torch.optim.lr_scheduler`, and 1/t, 1/sqrt(t).

A schedule is known before the run: it gives every step its step size, whatever the losses are. It
is counted in steps, or in epochs where `schedule_unit` says so.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler

from sgdstudy import checks
from sgdstudy.errors import InputError, failed, quoted, reason

Rates = Callable[[np.ndarray], np.ndarray]  # numbers of steps from 0, (S,) -> step sizes (S,)
OURS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "inverse_time": lambda t: 1 / (1 + t),
    "inverse_sqrt": lambda t: 1 / np.sqrt(1 + t),
}
BY_STEP = (
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "PolynomialLR",
    "StepLR",
)
NAMES = (*OURS, *BY_STEP)
LENGTHS = ("T_max", "total_iters", "total_steps")  # the steps of the run, unless given
UNITS = ("step", "epoch")
BLOCK = 4096  # steps that a scheduler of torch is asked for at once


def make(
    schedule: Any, lr: float, options: Mapping[str, Any], n_steps: int, unit: str = "step"
) -> Rates:
    """Return the step sizes of a run.

    Args:
        schedule: None (constant), a name of `NAMES`, or a factory `optimizer -> LRScheduler`.
        lr: the step size it starts from, as the optimiser's in torch.
        options: of the schedule: `decay` of ours, lr / (1 + decay t) and lr / sqrt(1 + decay t);
            the arguments of torch's. `T_max`, `total_iters` and `total_steps` are the steps of the
            run unless given.
        n_steps: the most steps of the run.
        unit: what a step is called, of `UNITS`.

    Raises:
        InputError: an unknown name or option, or step sizes that are negative or not finite.

    Example:
        >>> make("CosineAnnealingLR", 1.0, {}, 4)(np.arange(5)).round(3).tolist()
        [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if not isinstance(options, Mapping):
        raise InputError(f"schedule_options is a dict, as {{'T_max': 100}}, not {quoted(options)}")
    if schedule is None:
        if options:
            raise InputError("schedule_options go with a schedule; name one")
        return lambda steps: np.full(len(steps), lr)
    if isinstance(schedule, str) and schedule in OURS:
        return _inverse(schedule, lr, options)
    if isinstance(schedule, str):
        checks.choice("schedule", schedule, NAMES)
        return _Torch(_by_name(schedule, options, n_steps), lr, schedule, unit)
    if not callable(schedule):
        raise InputError(
            f"schedule is a name or a factory optimizer -> LRScheduler, not {quoted(schedule)}"
        )
    if options:
        raise InputError("schedule_options go with a schedule's name; a factory sets its own")
    return _Torch(schedule, lr, name_of(schedule), unit)


def name_of(schedule: Any) -> str:
    """Return the name under which a schedule is logged."""
    if schedule is None:
        return "constant"
    return schedule if isinstance(schedule, str) else getattr(schedule, "__name__", "factory")


def _inverse(name: str, lr: float, options: Mapping[str, Any]) -> Rates:
    """Return the step sizes of `inverse_time` or `inverse_sqrt`."""
    for option in options:
        checks.choice(f"option of {name}", option, ("decay",))
    allowed = "at least 0 and finite"
    decay = checks.number("decay", options.get("decay", 1.0), lambda v: v >= 0, allowed)
    return lambda steps: lr * OURS[name](decay * np.asarray(steps, dtype=float))


def _by_name(
    name: str, options: Mapping[str, Any], n_steps: int
) -> Callable[[torch.optim.Optimizer], Any]:
    kind = getattr(lr_scheduler, name)
    allowed = [k for k in inspect.signature(kind).parameters if k not in ("optimizer", "verbose")]
    for option in options:
        checks.choice(f"option of {name}", option, allowed)
    defaults: dict[str, Any] = {k: n_steps for k in LENGTHS if k in allowed}
    if "cycle_momentum" in allowed:
        if options.get("cycle_momentum"):
            raise InputError(f"{name} may change the step size only: leave cycle_momentum out")
        defaults["cycle_momentum"] = False
    return lambda optimizer: kind(optimizer, **{**defaults, **options})


class _Torch:
    """The step sizes of a torch scheduler, read off an optimiser that moves nothing."""

    def __init__(self, factory: Callable[[Any], Any], lr: float, name: str, unit: str) -> None:
        self.name, self.unit, self.rates = name, unit, np.empty(0)
        parameter = torch.zeros(1, requires_grad=True)
        self.optimizer = torch.optim.SGD([parameter], lr=lr)
        self.others = self._others()
        try:
            self.scheduler = factory(self.optimizer)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{name} refuses these options: {reason(error)}") from error
        except (Exception, SystemExit) as error:
            raise failed(f"the schedule {name!r}", error) from error
        kind = lr_scheduler.LRScheduler
        if isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau):
            raise InputError("ReduceLROnPlateau follows the losses: it is not known before the run")
        if not isinstance(self.scheduler, kind):
            raise InputError(
                f"the schedule factory returned {type(self.scheduler).__name__}; "
                f"expected a torch.optim.lr_scheduler.LRScheduler"
            )
        self._read(1)

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        """Return the step sizes of some steps."""
        if len(steps) and steps.max() >= len(self.rates):
            self._read(int(steps.max()) + 1)
        return self.rates[steps]

    def _read(self, n: int) -> None:
        """Go on to step n."""
        found: list[float] = []
        # torch warns that no optimiser step came before: there is none here
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(max(n - len(self.rates), 1 if n == 1 else BLOCK)):
                rate = float(self.optimizer.param_groups[0]["lr"])
                place = len(self.rates) + len(found)
                if not (math.isfinite(rate) and rate >= 0):
                    if place < n:
                        raise InputError(
                            f"{self.name} gives {self.unit} {place} the step size {rate!r}"
                        )
                    break  # a bad step size that was only computed ahead; the run may end before it
                self._refuse_others()
                found.append(rate)
                try:
                    self.scheduler.step()
                except (Exception, SystemExit) as error:
                    if place + 1 < n:
                        raise failed(f"the schedule {self.name!r}", error) from error
                    break  # it ends with the run, as OneCycleLR does
        self.rates = np.concatenate([self.rates, found])

    def _others(self) -> dict[str, Any]:
        """Return what else an optimiser has beside its step size."""
        group, known = self.optimizer.param_groups[0], self.optimizer.defaults
        return {name: group[name] for name in known if name != "lr"}

    def _refuse_others(self) -> None:
        """Raise `InputError` where more than the step size changed: it would be dropped."""
        for name, value in self._others().items():
            if value != self.others[name]:
                raise InputError(
                    f"the schedule {self.name!r} changes {name} too, and may change the step size "
                    f"only: give cycle_momentum=False, or another schedule"
                )
