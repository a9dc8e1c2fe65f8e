"""One colour for one thing, in every figure and in MLflow's charts: orders, optimisers, the rest.

The hues are those of Okabe and Ito (2008), "Color universal design", which people with any kind of
colour blindness can tell apart; darkened where they would be too light for a line on white.
"""

from __future__ import annotations

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


def light(color: str, share: float = 0.55) -> str:
    """Return a colour that is nearer to white by this share.

    >>> light("#000000", 0.5)
    '#808080'
    """
    parts = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in parts)
