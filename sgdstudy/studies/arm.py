"""What a script declares of its arms: the options that all scripts take, and one arm."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, dataclass_transform

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted

if TYPE_CHECKING:
    from sgdstudy.problems.problem import Problem
    from sgdstudy.recipe.config import TrainConfig
    from sgdstudy.training.trajectory import Trajectory

MOST_CHARTED = 6  # arms: lines of a chart that a person takes in at once
# what a grid may name of an arm
SETTINGS = (
    "lr",
    "batch_size",
    "drop_last",
    "order",
    "optimizer",
    "clip_norm",
    "clip_value",
    "schedule",
    "average",
    "ema",
    "epochs",
    "epsilon",
    "patience",
    "dtype",
)
# prefixes of an optimiser's or a schedule's own option, as optimizer.momentum
OPTIONS = {"optimizer.": "options", "schedule.": "schedule_options"}


@dataclass_transform(frozen_default=True)
@dataclass(frozen=True)
class Options:
    """What every script takes; those of a script are frozen too, decorated or not (`Study`)."""

    # functions of a script that read its options are the same whatever these are
    changes_no_number: ClassVar[tuple[str, ...]] = (
        "store",
        "jobs",
        "strict",
        "answer",
        "predict",
        "resume",
        "checkpoint_seconds",
    )

    seeds: int = 16
    """number of seeds, where an arm is random"""
    first_seed: int = 0
    """the first seed; the others follow it"""
    device: str = "cpu"
    """where to train, as cpu or cuda"""
    engine: str = "auto"
    """what takes the steps: eager, compiled, or auto: compiled where it pays"""
    store: str | None = None
    """folder of the store, or tracking URI; default: the nearest mlruns/"""
    jobs: int = 1
    """processes that train arms side by side"""
    strict: bool = False
    """end with exit code 1 when a claim fails or a figure is missing"""
    answer: bool = True
    """write answer, claims, predictions and figures; --no-answer keeps them from the class"""
    predict: bool = False
    """ask for your guesses before the run, and show them beside the outcome"""
    resume: bool = False
    """go on where interrupted runs of the same configuration stopped"""
    checkpoint_seconds: float = 60.0
    """seconds between two checkpoints of a long run"""
    lang: str | None = None
    """language of questions and answers, as fr or en; default: that of the environment"""

    def seed_range(self) -> range:
        """Return the seeds of a random arm.

        Raises:
            InputError: fewer than one, or a first one below 0.
        """
        checks.count("seeds", min(self.seeds, 1))  # how many are too many, `checks.seeds` says
        checks.count("first_seed", min(self.first_seed, 0), least=0)
        return range(self.first_seed, self.first_seed + self.seeds)


SHARED = frozenset(option.name for option in fields(Options))  # of all scripts


def own_options(tags: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of a run that are its script's own, from its tags."""
    every: dict[str, Any] = json.loads(tags.get("sgdstudy.options", "{}"))
    return {name: value for name, value in every.items() if name not in SHARED}


def told_apart(options: Mapping[str, Any]) -> str:
    """Return a text that tells options from others, also from equal ones: 1 is not True or 1.0."""
    return repr(tuple(options.items()))


@dataclass(frozen=True, init=False, eq=False)
class Arm:
    """One line of a comparison: a problem, how it is trained, and what it is there for.

    Args:
        problem: what is trained: a `Problem`, or the name of one that stands ready.
        about: what the arm is there for, in a few words.
        charted: whether the prepared view of the MLflow UI shows it; not where it would dwarf the
            others. Of more than six, the view shows the first six.
        color: of its line in all charts, as "red" or "#d55e00"; None: that of its order or of its
            optimiser, else the next one.
        trajectory: steps taken elsewhere, as `ss.Trajectory(problem, w, indices)`, to be recorded
            and tracked like our own.
        reveals: whether it gives the answer away, as by a step size that theory finds best:
            `--no-answer` leaves it out.
        settings: see `TrainConfig`; with a trajectory, see `Trajectory.config`.

    Attributes:
        config: the settings, checked.

    Raises:
        InputError: a setting that is not allowed, or does not fit the problem.

    Example:
        >>> import sgdstudy as ss
        >>> sgd = ss.Arm("curve", "as printed", lr=2e-4, batch_size=10)
        >>> sgd.but("half the step", lr=1e-4).config.lr
        0.0001
    """

    problem: Problem
    about: str
    charted: bool
    color: str | None
    trajectory: Trajectory | None
    reveals: bool
    settings: Mapping[str, Any]
    config: TrainConfig

    def __init__(
        self,
        problem: Problem | str,
        about: str = "",
        *,
        charted: bool = True,
        color: str | None = None,
        trajectory: Trajectory | None = None,
        reveals: bool = False,
        **settings: Any,
    ) -> None:
        from sgdstudy import problems
        from sgdstudy.recipe.config import TrainConfig
        from sgdstudy.training.trajectory import Trajectory

        problem = problems.get(problem)
        if not (trajectory is None or isinstance(trajectory, Trajectory)):
            raise InputError(f"trajectory is a ss.Trajectory, not {quoted(trajectory)}")
        if trajectory is not None and "lr" not in settings:
            raise InputError("an arm with a trajectory needs lr=, the step size that it had")
        made = TrainConfig.of if trajectory is None else trajectory.config
        config = made(**settings)
        config.check(problem)
        parts = (problem, about, charted, _hex(color), trajectory, reveals, settings, config)
        for part, value in zip(fields(self), parts, strict=True):
            object.__setattr__(self, part.name, value)

    @property
    def n_steps(self) -> int:
        """The most steps it can take."""
        return self.config.n_steps(self.problem.d)

    def but(self, about: str | None = None, **changes: Any) -> Arm:
        """Return another arm that differs in what is named, settings or arguments of `Arm`.

        Raises:
            InputError: a setting that is not allowed, or does not fit the problem.
        """
        kept = ("problem", "charted", "color", "trajectory", "reveals")
        same = {name: getattr(self, name) for name in kept}
        about = self.about if about is None else about
        return Arm(**(same | dict(self.settings) | {"about": about} | changes))


def in_charts(arms: Mapping[str, Arm]) -> dict[str, Arm]:
    """Return the arms as charts show them: six of them charted at the most, each with its colour.

    Of more that are charted the first six are, in the order of the script.

    Raises:
        InputError: two that are shown declare one colour.
    """
    from sgdstudy.figures import palette

    shown = [name for name, arm in arms.items() if arm.charted][:MOST_CHARTED]
    declared = {name: arm.color for name, arm in arms.items() if arm.color is not None}
    alike = Counter(declared[name] for name in shown if name in declared)
    for color, count in alike.items():
        if count > 1:
            both = " and ".join(repr(name) for name in shown if declared.get(name) == color)
            raise InputError(f"the charts show {both} in one colour, {color}; change one")
    configs = {name: arm.config for name, arm in arms.items()}
    of_shown = {name: color for name, color in declared.items() if name in shown}
    of_shown = palette.of_arms({name: configs[name] for name in shown}, of_shown)
    colors = palette.of_arms(configs, declared | of_shown)
    return {name: arm.but(charted=name in shown, color=colors[name]) for name, arm in arms.items()}


def _hex(color: str | None) -> str | None:
    """Return a colour as `#RRGGBB`.

    Raises:
        InputError: it is none that we know.
    """
    if color is None:
        return None
    from sgdstudy.figures.palette import NAMED

    if isinstance(color, str) and re.fullmatch("#[0-9a-fA-F]{6}", color):
        return color.upper()
    if not isinstance(color, str) or color not in NAMED:
        raise InputError(f'color is "#rrggbb" or one of {", ".join(NAMED)}, not {quoted(color)}')
    return NAMED[color]


def split_point(point: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of an arm that a point of a grid names, and the script's own options."""
    settings = {k: v for k, v in point.items() if k in SETTINGS or k.startswith(tuple(OPTIONS))}
    return settings, {k: v for k, v in point.items() if k not in settings}


def at_settings(arm: Arm, settings: Mapping[str, Any], record: str) -> Arm:
    """Return an arm with settings of a grid; without diagnostics where steps are not recorded.

    Raises:
        InputError: a setting that is not allowed, or does not fit the problem.
    """
    changes: dict[str, Any] = {k: v for k, v in settings.items() if k in SETTINGS}
    for prefix, name in OPTIONS.items():
        own = {k.removeprefix(prefix): v for k, v in settings.items() if k.startswith(prefix)}
        if own:
            changes[name] = {**getattr(arm.config, name), **own}
    if "epsilon" in changes:
        if arm.config.stop is None:
            raise InputError("the grid names epsilon, but the arm has no stop rule")
        if callable(arm.config.stop):
            raise InputError("the grid names epsilon, but the arm stops by a function")
        changes["stop"] = (arm.config.stop[0], changes.pop("epsilon"))
    if record == "epochs":
        changes |= {"diagnostics": "off", "metrics": None, "record_rows": 0}
    return arm.but(**changes)
