"""Panels of a chart as data: lines over one pair of axes, and what is marked on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sgdstudy.figures.palette import GREY
from sgdstudy.secrecy import without_secrets
from sgdstudy.text import powers

MOST_POINTS = 1500  # of a line: more than there are pixels
MOST = 1e300  # of a value: an axis that goes further overflows
FEW_POINTS = 8  # of a line with less, each has a dot


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes:
        label: what it is, in few words; "" for one that stands back and needs no name.
        x: places `(n,)`.
        y: values `(n,)`; what is infinite or beyond 1e300 is left out.
        color: `#rrggbb`; two named lines of a panel differ.
        band: low and high `(n,)` of the seeds, bars where there are dots; None: none.
        theory: what was expected `(k,)`, k <= n, at the first places, or at places of its own:
            `(k,)` twice, places and values; None: nothing.
        dots: marks instead of a line.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    color: str = GREY
    band: tuple[np.ndarray, np.ndarray] | None = None
    theory: np.ndarray | tuple[np.ndarray, np.ndarray] | None = None
    dots: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", powers(without_secrets(self.label)))

    @property
    def expected(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Places and values of what was expected; None: nothing."""
        if self.theory is None:
            return None
        x, y = self.theory if isinstance(self.theory, tuple) else (None, self.theory)
        y = np.asarray(y, float)
        return (np.asarray(self.x[: len(y)] if x is None else x, float), drawable(y))


@dataclass(frozen=True)
class Panel:
    """Lines over one pair of axes.

    Attributes:
        lines: what is drawn, the last on top.
        x: name and unit of the horizontal axis.
        y: of the vertical one.
        title: what tells this panel from the others; "" of a single one.
        log: the logarithmic axes: "", "x", "y" or "xy".
        levels: horizontal lines with a name, as {"epsilon": 0.1}.
        marks: vertical lines with a name.
        limits: lowest and highest y that is shown; None: as the lines need it.
    """

    lines: Sequence[Line]
    x: str
    y: str
    title: str = ""
    log: str = ""
    levels: Mapping[str, float] = field(default_factory=dict)
    marks: Mapping[str, float] = field(default_factory=dict)
    limits: tuple[float | None, float | None] | None = None

    def __post_init__(self) -> None:
        for name in ("x", "y", "title"):
            object.__setattr__(self, name, powers(getattr(self, name)))
        for name in ("levels", "marks"):
            found = getattr(self, name).items()
            object.__setattr__(self, name, {powers(words): at for words, at in found})


def share_scale(panels: Sequence[Panel]) -> bool:
    """Whether panels side by side can have one vertical axis."""
    return len({(panel.y, panel.log, panel.limits) for panel in panels}) == 1


def names_of_y(panels: Sequence[Panel]) -> list[str]:
    """Return the names of the vertical axes: each once, "" where that of its left holds.

    >>> names_of_y([Panel([], "epoch", name) for name in ("loss", "loss", "norm")])
    ['loss', '', 'norm']
    """
    before = ["", *(panel.y for panel in panels)]
    return [p.y if p.y != left else "" for left, p in zip(before, panels, strict=False)]


def drawable(values: np.ndarray) -> np.ndarray:
    """Return the values, NaN for what is infinite or too large to be drawn, 0 for what is tiny.

    >>> drawable(np.array([1, np.inf, -1e305, 1e-305])).tolist()
    [1.0, nan, nan, 0.0]
    """
    values = np.asarray(values, float)
    size = np.abs(values)
    return np.where(size > MOST, np.nan, np.where(size < 1 / MOST, 0, values))


def dotted(x: np.ndarray, y: np.ndarray, log: str) -> np.ndarray:
    """Return which points of a line have a dot: of a few each, else those without a neighbour.

    >>> nan = np.nan
    >>> dotted(np.arange(9), np.array([1, nan, 3, nan, 5, 6, 7, 8, 9]), "y").nonzero()[0].tolist()
    [0, 2]

    Args:
        x: places `(n,)`.
        y: values `(n,)`; no line leads to what is not finite, or is not above 0 on a log axis.
        log: the logarithmic axes, as those of a `Panel`.
    """
    if len(y) < FEW_POINTS:
        return np.full(len(y), True)
    shown = np.isfinite(x) & np.isfinite(y)
    for name, values in (("x", x), ("y", y)):
        shown &= (values > 0) | (name not in log)
    beside = np.concatenate([[False], shown, [False]])
    return np.asarray(shown & ~beside[:-2] & ~beside[2:])


def thinned(x: np.ndarray, log: bool) -> np.ndarray:
    """Return the places in `x` that a line of pixels can show: all of a few, else spread evenly.

    Args:
        x: places, rising.
        log: whether the axis is logarithmic.
    """
    if len(x) <= MOST_POINTS:
        return np.arange(len(x))
    if not log or x[-1] <= 0:
        return np.unique(np.linspace(0, len(x) - 1, MOST_POINTS).astype(int))
    first = int(np.searchsorted(x, 0, side="right"))  # what lies at or below 0 is not drawn
    wanted = np.geomspace(x[first], x[-1], MOST_POINTS)
    return np.unique(np.searchsorted(x, wanted).clip(first, len(x) - 1))
