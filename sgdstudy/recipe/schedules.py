"""Step sizes that change over a run: those of `torch.optim.lr_scheduler`, and 1/t, 1/sqrt(t).

A schedule is known before the run: it gives every step its step size, whatever the losses are. It
is counted in steps, or in epochs where `schedule_unit` says so.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler

from sgdstudy import checks
from sgdstudy.errors import InputError, failed, quoted, reason
from sgdstudy.recipe import one_by_one

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
BLOCK = 4096  # the most steps beyond those wanted that a scheduler of torch is asked for at once


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
        return _Torch(_by_name(schedule, options, n_steps), PROBES[:1], lr, schedule, unit)
    if not callable(schedule):
        raise InputError(
            f"schedule is a name or a factory optimizer -> LRScheduler, not {quoted(schedule)}"
        )
    if options:
        raise InputError("schedule_options go with a schedule's name; a factory sets its own")
    return _Torch(schedule, PROBES, lr, name_of(schedule), unit)


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
    known = inspect.signature(kind).parameters
    allowed = [k for k in known if k not in ("optimizer", "verbose")]
    for option in options:
        checks.choice(f"option of {name}", option, allowed)
    defaults: dict[str, Any] = {k: n_steps for k in LENGTHS if k in allowed}
    if "cycle_momentum" in allowed:
        if options.get("cycle_momentum"):
            raise InputError(f"{name} may change the step size only: leave cycle_momentum out")
        defaults["cycle_momentum"] = False
    needed = [k for k in allowed if known[k].default is known[k].empty]
    if missing := [k for k in needed if k not in {**defaults, **options}]:
        given = ", ".join(f"{k!r}: ..." for k in missing)
        raise InputError(f"{name} needs {missing[0]}: give schedule_options={{{given}}}")
    return lambda optimizer: kind(optimizer, **{**defaults, **options})


# What a user's schedule is tried on, other ones in all that it could read; torch's on the first
PROBES: tuple[Callable[..., torch.optim.Optimizer], ...] = (
    lambda lr: torch.optim.SGD([torch.ones(1).requires_grad_()], lr),
    lambda lr: torch.optim.Adam(
        [torch.full((3,), -2.0).requires_grad_(), torch.full((2, 2), 3.0).requires_grad_()],
        lr,
        weight_decay=0.1,
    ),
)


class _Driven:
    """An optimiser that moves nothing, with a state, and the schedule that drives it."""

    def __init__(
        self,
        probe: Callable[..., torch.optim.Optimizer],
        factory: Callable[[Any], Any],
        lr: float,
        called: str,
    ) -> None:
        self.optimizer = probe(lr)
        for p in self.optimizer.param_groups[0]["params"]:
            p.grad = -p.detach()
            name = "momentum_buffer" if isinstance(self.optimizer, torch.optim.SGD) else "exp_avg"
            self.optimizer.state[p][name] = p.detach() / 2
        self.others = self._others()
        try:
            self.scheduler = factory(self.optimizer)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{called} refuses these options: {reason(error)}") from error
        except (Exception, SystemExit) as error:
            raise failed(f"the schedule {called!r}", error) from error
        kind = lr_scheduler.LRScheduler
        if isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau):
            raise InputError("ReduceLROnPlateau follows the losses: it is not known before the run")
        if not isinstance(self.scheduler, kind):
            raise InputError(
                f"the schedule factory returned {type(self.scheduler).__name__}; "
                f"expected a torch.optim.lr_scheduler.LRScheduler"
            )

    @property
    def rate(self) -> float:
        """Return the step size that it has now."""
        return float(self.optimizer.param_groups[0]["lr"])

    def changed(self) -> str:
        """Return what changed beside the step size, "" for nothing: it would be dropped."""
        now = self._others()
        if now == self.others:
            return ""
        return next(name for name, value in self.others.items() if now[name] != value)

    def _others(self) -> dict[str, Any]:
        """Return what else an optimiser has."""
        group, held = self.optimizer.param_groups[0], vars(self.optimizer)
        return {
            **{name: group.get(name) for name in self.optimizer.defaults if name != "lr"},
            "the groups": [list(map(id, one["params"])) for one in self.optimizer.param_groups],
            "the parameters": _numbers(group["params"]),
            "the optimizer's state": _numbers(self.optimizer.state),
            "the hooks": [list(held[name]) for name in one_by_one.STEP_HOOKS],
        }


def _numbers(value: Any) -> Any:
    """Return what tensors of a list or of dicts hold, to compare."""
    if isinstance(value, Mapping):
        return [(id(key), _numbers(held)) for key, held in value.items()]
    if isinstance(value, list):
        return [_numbers(held) for held in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


class _Torch:
    """The step sizes of a torch scheduler, read off optimisers that move nothing."""

    def __init__(
        self,
        factory: Callable[[Any], Any],
        probes: Sequence[Callable[..., torch.optim.Optimizer]],
        lr: float,
        name: str,
        unit: str,
    ) -> None:
        self.name, self.unit, self.rates = name, unit, np.empty(0)
        self.driven = [_Driven(probe, factory, lr, name) for probe in probes]
        self._read(1)

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        """Return the step sizes of some steps."""
        if len(steps) and steps.max() >= len(self.rates):
            self._read(int(steps.max()) + 1)
        return self.rates[steps]

    def _read(self, n: int) -> None:
        """Go on to step n, or beyond; what is wrong there is left alone: the run may end before."""
        found: list[float] = []
        # torch warns that no optimiser step came before: there is none here
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(max(n - len(self.rates), min(len(self.rates), BLOCK))):
                place = len(self.rates) + len(found)
                if wrong := self._wrong(place):
                    if place < n:
                        raise InputError(wrong)
                    break
                found.append(self.driven[0].rate)
                try:
                    for one in self.driven:
                        one.scheduler.step()
                except (Exception, SystemExit) as error:
                    if place + 1 < n:
                        raise failed(f"the schedule {self.name!r}", error) from error
                    break  # it ends with the run, as OneCycleLR does
        self.rates = np.concatenate([self.rates, found])

    def _wrong(self, place: int) -> str:
        """Return what is wrong with a step, "" for nothing."""
        rate = self.driven[0].rate
        if not (math.isfinite(rate) and rate >= 0):
            return f"{self.name} gives {self.unit} {place} the step size {rate!r}"
        if len(self.driven) == 1:  # torch's own
            return ""
        if changed := next(filter(None, (one.changed() for one in self.driven)), ""):
            return (
                f"the schedule {self.name!r} changes {changed} too, and may change the step size "
                f"only: give cycle_momentum=False, or another schedule"
            )
        if any(one.rate != rate for one in self.driven):
            return (
                f"the schedule {self.name!r} gives {self.unit} {place} another step size where the "
                f"optimizer or its parameters are others, or each time it is asked: it must be "
                f"known before the run"
            )
        return ""
