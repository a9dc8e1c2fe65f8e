"""One colour for one thing, in every figure and in MLflow's charts: orders, optimisers, the rest.

The hues are those of Okabe and Ito (2008), "Color universal design", which people with any kind of
colour blindness can tell apart; darkened where they would be too light for a line on white.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

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
    "Adagrad": PURPLE,
    "Adamax": SKY,
    "NAdam": "#7A5C00",
    "Adadelta": "#5B3FA0",
    "none": GREY,
}


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
    return [globals()[name.upper()] for name in names]


def light(color: str, share: float = 0.55) -> str:
    """Return a colour that is nearer to white by this share.

    >>> light("#000000", 0.5)
    '#808080'
    """
    parts = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in parts)


# of arms beyond the sixth: darker and lighter hues of the same wheel
FURTHER = ("#7A5C00", "#5B3FA0", "#003F63", "#8C3B00", "#005C44", "#B8860B", "#6E2F5B", "#1C5F85")


def of_arms(configs: Mapping[str, TrainConfig]) -> dict[str, str]:
    """Return a colour for each arm, all different as long as there are any.

    That of its order, if the arms differ in it; else of its optimiser; else the next one.
    """
    found: dict[str, str] = {}
    free = [*CYCLE, *FURTHER]
    for table, name in ((ORDERS, "order"), (OPTIMIZERS, "optimizer")):
        values = {arm: getattr(config, name) for arm, config in configs.items()}
        if len({str(value) for value in values.values()}) < 2:
            continue
        for arm, value in values.items():
            color = table.get(value) if isinstance(value, str) else None
            if color and arm not in found and color not in found.values():
                found[arm] = color
        break
    free = [color for color in free if color not in found.values()]
    for arm in configs:
        if arm not in found:
            found[arm] = free.pop(0) if free else GREY
    return found
