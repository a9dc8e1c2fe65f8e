"""The validated, immutable settings of one training run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch

from sgdstudy import checks, quantities
from sgdstudy.errors import InputError, quoted, reason
from sgdstudy.language import say, to_say, unknown
from sgdstudy.problems import bindings
from sgdstudy.problems.data import DTYPES
from sgdstudy.problems.problem import Problem
from sgdstudy.problems.torch_state import own_state
from sgdstudy.recipe import columns, groups, orders, own_columns, phases, rules, schedules
from sgdstudy.recipe import stop as stops

ENGINES = ("auto", "eager", "compiled")
ELSEWHERE = {"learning_rate": "lr", "eta": "lr", "minibatch": "batch_size", "scheduler": "schedule"}


@dataclass(frozen=True, eq=False)
class TrainConfig:
    """How a problem is trained; every argument of `train` but the problem.

    Attributes:
        optimizer: a name of `rules.NAMES`, or a class or factory `params -> Optimizer`.
            `"notebook"` is the notebook's own rule; `"none"` moves nothing (batches at fixed
            parameters). One's own runs replica by replica.
        lr: step size. None: 1e-3 for a name; that of its own for a class or factory (NaN where it
            has none). A class takes it, and a factory with an argument `lr`; another factory, which
            sets its own, is refused with a second one.
        options: further options of the optimiser, as `{"momentum": 0.9}`; taken like `lr`.
        groups: settings of the parameters of a module whose names match a pattern, as
            `{"0.*": {"lr": 0.01}, "*.bias": {"weight_decay": 0.0}}`; the others have `lr` and
            `options`. A schedule drives each group from its own step size, as torch's do; a column
            `lr` is that of parameters in no group. Of an optimiser by name.
        clip_norm: the largest norm of the gradient that moves the parameters, each replica's by
            itself; see `clipping.clipped`. Rows record the gradient as it was. None: any.
        clip_value: the largest size of a number of it.
        schedule: how the step size goes on from `lr`, step by step: None (constant), a name of
            `schedules.NAMES` (those of `torch.optim.lr_scheduler`, `inverse_time`,
            `inverse_sqrt`), or a factory `optimizer -> LRScheduler`.
        schedule_unit: what the schedule counts, `step` or `epoch`: what is said here of a step is
            then said of an epoch, as where a script calls `scheduler.step()` at its end.
        schedule_options: of the schedule, as `{"eta_min": 1e-5}`; see `schedules.make`.
        average: the share of the epochs after which parameters are averaged, as 0 (all of them:
            Polyak and Ruppert) or 0.5 (the tail); `average_loss` of `epochs` is the loss of all the
            data at their mean. It changes nothing of the run. None: no average.
        ema: the decay of a moving average of the parameters, as 0.999: e <- ema e + (1 - ema) w
            after every step, from the first; `ema_loss` of `epochs` is the loss of all the data at
            it. It changes nothing of the run. None: none.
        batch_size: samples per step, None for full batch.
        batch_schedule: how the batch size goes on from `batch_size`: by the number of epochs done,
            as `{10: 40, 20: 160}`; the epoch after the tenth has batches of 40. None: it stays.
            Not for the orders of `named_orders.SIZED` and arrays, which are made for one size.
        drop_last: whether an epoch leaves out the samples that do not fill a batch; else its last
            batch is smaller and noisier. `with_replacement` then draws fewer in an epoch; orders
            that stay the same (`sequential`, `shuffle_once`, `grab`) never see those samples.
        order: a name of `orders.ORDERS`, an array `(epochs, steps, B)`, one for each seed
            `(seeds, epochs, steps, B)`, or `callable(generator, d)` returning an epoch's indices.
            `stream` takes every sample from the problem's stream, once.
        epochs: the most epochs.
        steps: the most steps of every seed, no more than `epochs` have. The last epoch may have
            fewer batches then, of which its row is. None: those of `epochs`.
        stop: `(rule, epsilon)`, tested at the end of each epoch, or None. Rules: `running` (the
            size-weighted mean of the epoch's batch losses as w moves), `full` (loss of all the
            data), `last_batch`, `grad_norm` (norm of the full gradient); or any column of `epochs`,
            own measures too, as `("test_accuracy", 0.95)`: above epsilon where more is better, as
            of accuracies and scores, else below. `("test_loss", None)`: no better than its best so
            far. Or a function: it gets a seed's row of `epochs` as a dict of numbers by column
            (what is measured of time left out; with `evaluate_every`, what the batches say), and
            returns True to stop.
        patience: at how many ends of epochs in a row the stop rule has to hold.
        seeds: one replica each. A number is that one seed: `seeds=4` is seed 4, `seeds=range(4)`
            are four (of a sweep, `seeds=4` are the seeds 0 to 3).
        dtype: `float32` or `float64`; None keeps the data's.
        device: where to train, as `cpu` or `cuda`.
        engine: `eager`, `compiled`, or `auto`: compiled where a run is long enough to pay for it.
        measures: own functions of predictions `(d, ...)` and targets, as `{"error": f}`, which
            return a number; computed of all the data at the end of every epoch, as a column of
            `epochs`, and of the test data as `test_error`. Less is better, but more of what is
            called accuracy or score, as `f1_score`.
        evaluate_every: at the ends of which epochs all the data is evaluated, every k-th and the
            last: loss, gradient norm, accuracies, test data, averages and measures. Of the others
            `epochs` holds NaN there. It changes nothing of the run, and takes time off it: of a
            network, an evaluation may cost as much as the epoch. Losses of all the data that come
            for nothing (least squares, full batch) stay. A stop rule then looks at the batches.
        diagnostics: `off`, `light`, `full`, or a list of names and callables.
        diagnostics_every: steps between two that get the costly ones; None: every step of a
            least-squares problem, every tenth of others.
        metrics: columns of `steps` that MLflow gets, as `batch/<name>`; None: the losses, gradient
            norms and distance, the step size where it changes and, where they are asked for, a few
            diagnostics; eight at the most. Of several seeds it gets the median over the live ones;
            `loss_p10`, `loss_p90` and `loss_seed3` are a band and a single seed. `epoch/full_loss`
            and so on are of `epochs`.
        clock: whether `elapsed_seconds`, the time since training began, is a column of `steps` and
            `epochs`. It is measured: no two runs have the same.
        record_rows: the most rows of `steps` kept; longer runs keep every k-th step. 0: none, and
            nothing is computed that only they would show.

    Raises:
        InputError: any value that is not allowed, saying what is.
    """

    optimizer: Any = "SGD"
    lr: float = None  # type: ignore[assignment]  # settled below: always a number
    options: Mapping[str, Any] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    clip_norm: float | None = None
    clip_value: float | None = None
    schedule: Any = None
    schedule_options: Mapping[str, Any] = field(default_factory=dict)
    schedule_unit: str = "step"
    average: float | None = None
    ema: float | None = None
    batch_size: int | None = None
    batch_schedule: Any = ()
    drop_last: bool = False
    order: Any = "shuffle"
    epochs: int = 100
    steps: int | None = None
    stop: Any = None
    patience: int = 1
    seeds: Any = (0,)
    dtype: str | None = None
    device: str = "cpu"
    engine: str = "auto"
    measures: Mapping[str, Any] = field(default_factory=dict)
    evaluate_every: int = 1
    diagnostics: Any = "light"
    diagnostics_every: int | None = None
    metrics: Sequence[str] | None = None
    clock: bool = False
    record_rows: int = 5_000_000

    @own_state()
    def __post_init__(self) -> None:
        def settle(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        settle("epochs", checks.count("epochs", self.epochs))
        if self.steps is not None:
            settle("steps", checks.count("steps", self.steps))
        settle("record_rows", checks.count("record_rows", self.record_rows, least=0))
        settle("evaluate_every", checks.count("evaluate_every", self.evaluate_every))
        if self.diagnostics_every is not None:
            settle("diagnostics_every", checks.count("diagnostics_every", self.diagnostics_every))
        if self.batch_size is not None:
            settle("batch_size", checks.count("batch_size", self.batch_size))
        settle("order", orders.checked_order(self.order))
        settle("seeds", checks.seeds(self.seeds))
        settle("device", _device(self.device))
        checks.choice(to_say("engine"), self.engine, ENGINES)
        settle("drop_last", checks.truth("drop_last", self.drop_last))
        settle("batch_schedule", phases.settle(self.batch_schedule, self.epochs))
        self._check_batch_schedule()
        settle("clock", checks.truth("clock", self.clock))
        varies = ["lr"] if self.schedule is not None else []
        varies += [columns.CLOCK] if self.clock else []
        chosen = own_columns.free_names(quantities.resolve(self.diagnostics))
        known = [*own_columns.STEP_COLUMNS, *varies, *chosen]
        settle("measures", own_columns.checked_measures(self.measures))
        settle("stop", stops.settle(self.stop, self.measure_columns))
        settle("patience", checks.count("patience", self.patience))
        if isinstance(self.stop, tuple) and self.evaluate_every > 1:
            of_batches = [stops.RULES.get(name, name) for name in columns.OF_BATCHES]
            checks.choice("stop rule beside evaluate_every", self.stop[0], of_batches)
        if self.stop is None and self.patience != 1:
            raise InputError("patience goes with a stop rule; name one, as stop=('full', 0.1)")
        given = (self.metrics, known, self.seeds, self.measure_columns)
        settle("metrics", own_columns.checked_metrics(*given))
        optimizer, lr = rules.settle(self.optimizer, self.lr, self.options)
        settle("optimizer", optimizer)
        settle("lr", lr)
        if math.isnan(lr) and self.schedule is not None:
            raise InputError("a schedule needs an optimizer with one step size, its group's 'lr'")
        settle("groups", groups.settle(self.groups, optimizer, lr, self.options))
        for rate in self.lrs:
            schedules.make(self.schedule, rate, self.schedule_options, self.epochs)
        settle("options", dict(self.options))  # the caller may go on with its own
        settle("schedule_options", dict(self.schedule_options))
        checks.choice("schedule unit", self.schedule_unit, schedules.UNITS)
        if self.schedule is None and self.schedule_unit != "step":
            raise InputError("schedule_unit goes with a schedule; name one")
        for name in ("clip_norm", "clip_value"):
            if getattr(self, name) is not None:
                settle(name, checks.number(name, getattr(self, name)))
        if self.average is not None:
            allowed = "a share of the epochs, from 0 to below 1"
            settle("average", checks.number("average", self.average, lambda v: 0 <= v < 1, allowed))
        if self.ema is not None:
            settle("ema", checks.number("ema", self.ema, lambda v: 0 < v < 1, "between 0 and 1"))
        if self.dtype is not None:
            checks.choice("dtype", self.dtype, DTYPES)
        bindings.note(self, (getattr(self, setting.name) for setting in fields(self)))

    @classmethod
    def of(cls, **settings: Any) -> TrainConfig:
        """Return the settings given by keyword; an unknown one is an `InputError`."""
        allowed = [f.name for f in fields(cls)]
        for name, value in settings.items():
            if name not in allowed:
                if name in rules.options_of(settings.get("optimizer", cls.optimizer)):
                    given = f"options={{{name!r}: {quoted(value)}}}"
                    raise InputError(f"{name} is an option of the optimizer: give {given}")
                raise unknown("setting", name, allowed, ELSEWHERE)
        return cls(**settings)

    def check(self, problem: Problem) -> None:
        """Raise `InputError` where the settings do not fit the problem."""
        for size in (self.batch_size or problem.d, *dict(self.batch_schedule).values()):
            if size > problem.d:
                raise InputError(
                    f"batch_size {size} is more than the {problem.d} samples; "
                    f"give 1 to {problem.d}, or None for full batch"
                )
        if self.order == "stream" and (problem.stream is None or self.batch_size is None):
            missing = "stream=..." if problem.stream is None else "a batch_size"
            raise InputError(f"the order 'stream' needs a problem with a stream: give {missing}")
        if self.order == "stream" and not isinstance(self.diagnostics, str):
            for name in self.diagnostics:
                if isinstance(name, str) and name.startswith("full_"):
                    raise InputError(f"{name} is of all the data, which a stream does not have")
        self._check_steps(problem.d)
        for lr in self.lrs:
            self.rates(problem.d, lr)
        if self.groups:
            groups.columns(self.groups, problem)
        if isinstance(self.order, torch.Tensor):
            self._check_array(self.order, problem.d)

        there = self.epoch_columns(problem)
        if isinstance(self.stop, tuple) and stops.column_of(self.stop[0]) not in there:
            raise InputError(
                f"the stop rule looks at {self.stop[0]}, which this run does not record; it has "
                f"{', '.join(there)}"
            )
        for _, name, _ in map(columns.line, self.metrics or ()):
            if re.fullmatch(r"w[0-9]+", name) and int(name[1:]) >= problem.p:
                raise InputError(
                    f"there is no parameter {name}; {problem.name} has w0 to w{problem.p - 1}"
                )

    def _check_steps(self, d: int) -> None:
        """Raise `InputError` where the epochs do not have the steps that are asked for."""
        if self.steps is None:
            return
        every = self._whole_phases(d)
        if self.steps > every.n_steps:
            last = len(every.parts[-1].sizes)
            needed = self.epochs - (every.n_steps - self.steps) // last
            raise InputError(
                f"steps={self.steps} is more than the {every.n_steps} steps of "
                f"epochs={self.epochs}; give epochs={needed} too"
            )

    def _check_array(self, order: torch.Tensor, d: int) -> None:
        """Raise `InputError` where an order that is an array does not fit the other settings."""
        lowest, highest = int(order.min()), int(order.max())
        n_epochs, _, size = order.shape[-3:]
        if lowest < 0 or highest >= d:
            raise InputError(
                f"the order's indices go from {lowest} to {highest}; expected 0 to {d - 1}"
            )
        if orders.is_by_seed(order) and len(order) != len(self.seeds):
            raise InputError(
                f"the order is given for {len(order)} seeds, and the run has {len(self.seeds)}; "
                f"give one for each of them, or (epochs, steps, B) for all"
            )
        if n_epochs < self.n_epochs(d):
            raise InputError(
                f"the order holds {n_epochs} epochs, fewer than epochs={self.n_epochs(d)}"
            )
        if self.batch_size != size:
            raise InputError(
                f"batch_size is {self.batch_size}, but the order's batches hold {size} samples"
            )

    def _check_batch_schedule(self) -> None:
        """Raise `InputError` where a batch schedule does not fit the other settings."""
        if not self.batch_schedule:
            return
        if self.batch_size is None:
            raise InputError("batch_schedule changes a batch size: give the first, as batch_size=8")
        if self.drop_last:
            raise InputError("an epoch of a batch_schedule has every sample; leave drop_last out")
        if orders.is_sized(self.order):
            raise InputError(
                f"the order {orders.name_of(self.order)!r} is made for one batch size; with "
                f"batch_schedule give another, as 'shuffle' or 'with_replacement'"
            )

    @property
    def measure_columns(self) -> list[str]:
        """The columns of own measures, of test data too."""
        return [f"{prefix}{name}" for name in self.measures for prefix in ("", "test_")]

    def epoch_columns(self, problem: Problem) -> list[str]:
        """Return what is known of an epoch of a problem when it ends, by its columns."""
        known, classes = problem.w_true is not None, problem.loss == "cross_entropy"
        averages, moving, tests = self.average is not None, self.ema is not None, problem.test
        optional = {
            "distance": known,
            "test_loss": tests is not None,
            "accuracy": classes,
            "test_accuracy": classes and tests is not None,
            "average_loss": averages,
            "average_distance": averages and known,
            "ema_loss": moving,
            "ema_distance": moving and known,
            "ema_test_loss": moving and tests is not None,
            "ema_test_accuracy": moving and classes and tests is not None,
        }
        every = [column.name for column in columns.OF_EPOCHS]
        every += [name for name, there in optional.items() if there]
        step = 2 if tests is None else 1  # of each measure, that of the test data comes second
        return every + self.measure_columns[::step]

    @property
    def simple_stop(self) -> tuple[str, float] | None:
        """The stop rule where it is below epsilon once, of which theory speaks; else None."""
        if not isinstance(self.stop, tuple) or self.patience != 1:
            return None
        rule, epsilon = self.stop
        return (rule, epsilon) if rule in stops.STOP_COLUMNS and epsilon is not None else None

    @property
    def clips(self) -> bool:
        """Whether gradients are clipped."""
        return self.clip_norm is not None or self.clip_value is not None

    @property
    def plain(self) -> bool:
        """Whether every step is w - lr g; with a schedule lr changes on the way."""
        named = self.optimizer in ("notebook", "SGD") and not self.options
        return named and not self.clips and not self.groups

    @property
    def steps_are_plain(self) -> bool:
        """Whether every step is w - lr g, with the same lr and batch size."""
        return self.plain and self.schedule is None and not self.batch_schedule

    def n_steps(self, d: int) -> int:
        """Return the most steps of a run on d samples."""
        return self.phases(d).n_steps

    def n_epochs(self, d: int) -> int:
        """Return the most epochs of a run on d samples, one that is cut short included."""
        return self.phases(d).epochs

    def by_epochs(self, d: int) -> TrainConfig | None:
        """Return the same run of d samples without `steps`; None where they cut an epoch short."""
        if self.steps is None:
            return self
        epochs = self.n_epochs(d)
        if self._whole_phases(d).steps_before(epochs) != self.steps:
            return None
        return self.of_epochs(epochs)

    def of_epochs(self, epochs: int) -> TrainConfig:
        """Return the same with so many epochs, whole ones, and nothing of what comes later."""
        begun = tuple(pair for pair in self.batch_schedule if pair[0] < epochs)
        return replace(self, steps=None, epochs=epochs, batch_schedule=begun)

    def of_seeds(self, seeds: Sequence[int]) -> TrainConfig:
        """Return the same of some seeds, with their orders.

        Raises:
            InputError: an order by seed, which has none of another seed.
        """
        order = orders.of_seeds(self.order, self.seeds, seeds)
        return replace(self, seeds=tuple(seeds), order=order)

    @property
    def lrs(self) -> list[float]:
        """The step sizes of the groups, and last that of parameters in none."""
        return [*(own.get("lr", self.lr) for own in self.groups.values()), self.lr]

    def rates(self, d: int, lr: float | None = None) -> schedules.Rates:
        """Return the step sizes of a run on d samples, by the number of the step, from 0.

        Args:
            d: samples.
            lr: what they start from; None: `lr`.
        """
        given = (self.schedule, self.lr if lr is None else lr, self.schedule_options)
        if self.schedule_unit == "step":
            return schedules.make(*given, self.n_steps(d))
        known = self.phases(d)
        by_epoch = schedules.make(*given, known.epochs, "epoch")
        return lambda steps: by_epoch(known.epochs_before(steps))

    def _whole_phases(self, d: int) -> phases.Phases:
        """Return the phases as if the steps were not counted."""
        sizes = {0: self.batch_size or d} | dict(self.batch_schedule)
        given = (self.order, d)
        every = {k: orders.batch_sizes(*given, size, self.drop_last) for k, size in sizes.items()}
        return phases.Phases(every, self.epochs)

    def phases(self, d: int) -> phases.Phases:
        """Return the stretches of epochs whose batches are alike, for d samples."""
        every = self._whole_phases(d)
        return every if self.steps is None else every.cut(self.steps)

    def batch_sizes(self, d: int) -> list[int]:
        """Return the sizes of an epoch's batches for d samples, the same in every epoch.

        Raises:
            InputError: they are not.
        """
        if self.batch_schedule:
            raise InputError(
                f"this is of runs whose batch size stays, and this one has "
                f"batch_schedule={quoted(dict(self.batch_schedule))}; leave it out"
            )
        if self.by_epochs(d) is None:
            raise InputError(
                f"this is of runs of whole epochs, and steps={self.steps} cuts the last one short; "
                f"give epochs= instead"
            )
        return orders.batch_sizes(self.order, d, self.batch_size or d, self.drop_last)

    def drops(self, d: int) -> bool:
        """Whether an epoch leaves out some of d samples."""
        given = (self.order, d, self.batch_size or d)
        return self.drop_last and sum(orders.batch_sizes(*given, drop_last=True)) < d


def _device(device: Any) -> str:
    try:
        if not isinstance(device, (str, torch.device)):
            raise TypeError("a device is a name, as cpu or cuda")
        device = str(device).lower()
        torch.zeros(1, device=device).item()  # `meta` holds no numbers
    except Exception as error:
        raise InputError(
            say(
                "device {device} cannot be used here; give cpu, or cuda where there is one ({why})",
                device=quoted(device),
                why=reason(error),
            )
        ) from error
    return str(device)
