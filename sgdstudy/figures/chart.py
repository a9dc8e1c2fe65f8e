"""A chart as data: what it says, its panels, their lines. Drawn as a picture and as a page.

`Chart.figure` draws it with matplotlib, `Chart.interactive` with plotly, from the same values: a
picture for paper and for those without scripts, and the same to zoom and to read values off.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from sgdstudy.errors import InputError
from sgdstudy.figures import interactive, shown, static
from sgdstudy.figures.backend import style_of
from sgdstudy.figures.panels import Panel
from sgdstudy.figures.style import LINES
from sgdstudy.language import parted, plain, say
from sgdstudy.secrecy import without_secrets
from sgdstudy.text import powers

MOST_LINES = 6  # of a chart that a person takes in at once


@dataclass(frozen=True)
class Chart:
    """A picture that answers one question.

    Attributes:
        title: the finding, with its number, as a sentence without a full stop; line breaks and
            indents of the source are undone, large numbers written as powers of ten.
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
            text = plain(without_secrets(getattr(self, name)))
            object.__setattr__(self, name, powers(text))
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

    def figure(self) -> Figure:
        """Draw it with matplotlib; 700 pixels wide at 100 dots per inch."""
        return static.draw(self.title, self.panels)

    def interactive(self) -> Any:
        """Draw it with plotly: hover tells the values, a click on a name hides its line."""
        return interactive.draw(self.title, self.panels, self.note)

    def png(self, dpi: int = 200) -> bytes:
        """Return it as PNG, twice as fine as a plain screen; its description says what it shows."""
        buffer, figure = io.BytesIO(), self.figure()
        with style_of(figure):
            said = {"Description": self.describe()}
            figure.savefig(buffer, format="png", dpi=dpi, metadata=said)
        return buffer.getvalue()

    def describe(self) -> str:
        """Say what it shows, for those who cannot see it."""
        every = (say("{y} over {x}", y=panel.y, x=panel.x) for panel in self.panels)
        axes = parted(dict.fromkeys(every))
        lines = {line.label for panel in self.panels for line in panel.lines if line.label}
        note = f" {self.note}" if self.note else ""
        return f"{self.title}.{note} {axes}. {say(LINES)} {', '.join(sorted(lines))}."

    def show(self) -> None:
        """Show it in a notebook, or the interactive chart in the browser of this machine."""
        shown.show(self, interactive.page(self.interactive(), self.png()).encode(), ".html")

    def _repr_png_(self) -> bytes:
        return self.png(dpi=100)
