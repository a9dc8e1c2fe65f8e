"""A chart as data: what it says, its panels, their lines. Drawn as a picture and as a page.

`Chart.figure` draws it with matplotlib, `Chart.interactive` with plotly, from the same values: a
picture for paper and for those without scripts, and the same to zoom and to read values off.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sgdstudy.errors import InputError
from sgdstudy.figures.palette import GREY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LINES = 6  # of a chart that a person takes in at once
MOST_POINTS = 1500  # of a line: more than there are pixels


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes:
        label: what it is, in few words; "" for one that stands back and needs no name.
        x: places `(n,)`.
        y: values `(n,)`; what is not finite is left out.
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

    @property
    def expected(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Places and values of what was expected; None: nothing."""
        if self.theory is None:
            return None
        x, y = self.theory if isinstance(self.theory, tuple) else (None, self.theory)
        y = np.asarray(y, float)
        return (np.asarray(self.x[: len(y)] if x is None else x, float), finite(y))


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


@dataclass(frozen=True)
class Chart:
    """A picture that answers one question.

    Attributes:
        title: the finding, with its number, as a sentence without a full stop; line breaks and
            indents of the source are undone.
        panels: side by side, at most three.
        note: what to see in it, in one or two sentences.

    Raises:
        InputError: no line, more than six named ones, two of one colour, an unknown axis.
    """

    title: str
    panels: Sequence[Panel]
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("title", "note"):
            object.__setattr__(self, name, " ".join(getattr(self, name).split()))
        names = {line.label for panel in self.panels for line in panel.lines if line.label}
        if not names:
            raise InputError(f"the chart {self.title!r} has no line with a name")
        if len(names) > MOST_LINES:
            listed = ", ".join(sorted(names))
            raise InputError(f"a chart names {MOST_LINES} lines at the most, not {listed}")
        for panel in self.panels:
            named = [line for line in panel.lines if line.label]
            if len({line.color for line in named}) < len(named):
                raise InputError(f"two lines of the chart {self.title!r} have one colour")
            if panel.log not in ("", "x", "y", "xy"):
                raise InputError(f'log is "", "x", "y" or "xy", not {panel.log!r}')

    @property
    def has_theory(self) -> bool:
        """Whether anything was expected."""
        return any(line.theory is not None for panel in self.panels for line in panel.lines)

    def figure(self) -> Figure:
        """Draw it with matplotlib; 700 pixels wide at 100 dots per inch."""
        from sgdstudy.figures.static import draw

        return draw(self)

    def interactive(self) -> Any:
        """Draw it with plotly: hover tells the values, a click on a name hides its line."""
        from sgdstudy.figures.interactive import draw

        return draw(self)

    def describe(self) -> str:
        """Say what it shows, for those who cannot see it."""
        axes = "; ".join(dict.fromkeys(f"{panel.y} over {panel.x}" for panel in self.panels))
        lines = {line.label for panel in self.panels for line in panel.lines if line.label}
        note = f" {self.note}" if self.note else ""
        return f"{self.title}.{note} {axes}. Lines: {', '.join(sorted(lines))}."

    def show(self) -> None:
        """Open the interactive chart in a browser, or show it in a notebook."""
        self.interactive().show()

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.figure().savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def finite(values: np.ndarray) -> np.ndarray:
    """Return the values, NaN for what is infinite."""
    return np.where(np.isfinite(values), values, np.nan)


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
