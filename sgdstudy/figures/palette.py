"""One colour for one thing, in every figure and in MLflow's charts: orders, optimisers, the rest.

The hues are those of Okabe and Ito (2008), "Color universal design", which people with any kind of
colour blindness can tell apart; darkened where they would be too light for a line on white.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sgdstudy.recipe.config import TrainConfig

BLUE, ORANGE, GREEN, RED = "#0072B2", "#CC8200", "#009E73", "#D55E00"
PURPLE, SKY, BLACK, GREY = "#B5599A", "#3A9FDB", "#222222", "#8A8F98"
CYCLE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)  # of lines that are neither

ORDERS = {
    "shuffle": BLUE,
    "sequential": RED,
    "strided": GREEN,
    "reversed": PURPLE,
    "shuffle_once": SKY,
    "block_shuffle": ORANGE,
    "with_replacement": BLACK,
    "flip_flop": "#7A5C00",
    "grab": "#5B3FA0",
}
OPTIMIZERS = {
    "SGD": BLUE,
    "notebook": BLUE,
    "RMSprop": RED,
    "Adam": GREEN,
    "AdamW": ORANGE,
    "momentum": SKY,  # SGD with it: the heavy ball
    "Nesterov": PURPLE,
    "Adagrad": "#5B3FA0",
    "NAdam": "#7A5C00",
    "RAdam": "#003F63",
    "Adamax": "#8C3B00",
    "Adadelta": "#6E2F5B",
    "none": GREY,
}
NAMED = {"blue": BLUE, "orange": ORANGE, "green": GREEN, "red": RED}
NAMED |= {"purple": PURPLE, "sky": SKY, "black": BLACK, "grey": GREY}


def color(index: int) -> str:
    """Return the colour of the line with this number; grey after the sixth.

    >>> color(0), color(9) == GREY
    ('#0072B2', True)
    """
    return CYCLE[index] if index < len(CYCLE) else GREY


def named(*names: str) -> list[str]:
    """Return the colours of these names.

    >>> named("sky", "black")
    ['#3A9FDB', '#222222']
    """
    return [NAMED[name] for name in names]


def light(color: str, share: float = 0.55) -> str:
    """Return a colour that is nearer to white by this share.

    >>> light("#000000", 0.5)
    '#808080'
    """
    parts = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in parts)


# of arms beyond the sixth: darker and lighter hues of the same wheel
FURTHER = ("#7A5C00", "#5B3FA0", "#003F63", "#8C3B00", "#005C44", "#B8860B", "#6E2F5B", "#1C5F85")


def of_arms(
    configs: Mapping[str, TrainConfig], declared: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return a colour for each arm, all different as long as there are any.

    That of its order, if the arms differ in it; else of its optimiser; else the next one.

    Args:
        configs: the arms; the first ones choose first.
        declared: arm -> its colour, whatever the rule; two may have the same.
    """
    found = {arm: color for arm, color in (declared or {}).items() if arm in configs}
    for arm, color in _of_kind(configs).items():
        if color and arm not in found and color not in found.values():
            found[arm] = color
    free = [color for color in (*CYCLE, *FURTHER) if color not in found.values()]
    for arm in configs:
        if arm not in found:
            found[arm] = free.pop(0) if free else GREY
    return found


class Coloured(Protocol):
    """What a colour is asked of: a run, whose own one is that of a study's arm."""

    @property
    def config(self) -> TrainConfig:
        """How it was trained."""

    @property
    def color(self) -> str | None:
        """`#RRGGBB`; None: it has none of its own."""


def of_runs(runs: Mapping[str, Coloured]) -> list[str]:
    """Return the colours of runs: those of a study's arms, if they have and differ in them.

    Else those that the rule gives to these runs alone: see `of_arms`.
    """
    own = [run.color for run in runs.values() if run.color is not None]
    if len({*own}) == len(runs):
        return own
    return [*of_arms({name: run.config for name, run in runs.items()}).values()]


def _of_kind(configs: Mapping[str, TrainConfig]) -> dict[str, str | None]:
    """Return the colours of the arms' orders, or of their optimisers, whichever they differ in."""
    orders = {  # in a single batch there is none
        arm: config.order for arm, config in configs.items() if config.batch_size is not None
    }
    for table, values in (
        (ORDERS, orders),
        (OPTIMIZERS, {arm: _optimizer(config) for arm, config in configs.items()}),
    ):
        if len({str(value) for value in values.values()}) > 1:
            named = {arm: value for arm, value in values.items() if isinstance(value, str)}
            return {arm: table.get(value) for arm, value in named.items()}
    return {}


def _optimizer(config: TrainConfig) -> Any:
    """Return an optimiser's name; SGD with momentum is another one."""
    momentum = config.optimizer == "SGD" and config.options.get("momentum")
    nesterov = momentum and config.options.get("nesterov")
    return "Nesterov" if nesterov else "momentum" if momentum else config.optimizer
