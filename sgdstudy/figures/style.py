"""What all figures share: lines with bands, dashed theory, legends, PNG with a description."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import ScalarFormatter

from sgdstudy.checks import SeedsLike
from sgdstudy.figures import palette
from sgdstudy.figures.backend import style_of
from sgdstudy.figures.extremes import Extremes
from sgdstudy.figures.panels import drawable
from sgdstudy.language import on_axis, parted, say, to_say
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.secrecy import without_secrets
from sgdstudy.theory import Gap

POINTS = 30_000  # per line
LINES = to_say("Lines:")  # in a description, before their names
THEORY: Any = {"linewidth": 4.4, "dashes": (1.6, 0.8), "zorder": 1.9}  # below what was measured


class Run(Protocol):
    """What a figure asks of a run, wherever its rows lie; a `History` is one."""

    @property
    def problem(self) -> Problem:
        """What was trained."""

    @property
    def config(self) -> TrainConfig:
        """How."""

    @property
    def color(self) -> str | None:
        """Its colour in all charts, as an arm of a study; None: of none."""

    @property
    def predicted(self) -> Mapping[str, float]:
        """What theory expected, by name."""

    @property
    def stop_epoch(self) -> np.ndarray:
        """Last epochs `(R,)`."""

    @property
    def stop_reason(self) -> np.ndarray:
        """Why each seed ended `(R,)`, as `converged`; see `History`."""

    @property
    def converged_epoch(self) -> np.ndarray:
        """Stop epochs `(R,)`; infinite where there is none."""

    def load(
        self,
        kind: str = "steps",
        *,
        columns: str | list[str] | None = None,
        seeds: SeedsLike | None = None,
        steps: slice | None = None,
        epochs: slice | None = None,
    ) -> pd.DataFrame:
        """Return chosen rows and columns of `steps` or `epochs`."""

    def gaps(self) -> list[Gap]:
        """Return what separates running and full loss, epoch by epoch, of the first seed."""


Runs = Mapping[str, Run]


class Numbers(ScalarFormatter):
    """Writes the numbers of a linear axis as the language does."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Return the number at a tick."""
        text = on_axis(super().__call__(x, pos))
        return text.replace(",", "{,}") if text.startswith("$") else text  # no gap after the sign


def png(figure: Figure) -> bytes:
    """Return the figure as PNG; its description says what it shows."""
    buffer = io.BytesIO()
    said = {"Description": without_secrets(describe(figure))}
    for text in figure.findobj(Text):
        text.set_text(without_secrets(text.get_text()))
    with style_of(figure):
        for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
            if type(axis.get_major_formatter()) is ScalarFormatter:
                axis.set_major_formatter(Numbers())
        figure.savefig(buffer, format="png", dpi=110, metadata=said)
    return buffer.getvalue()


def describe(figure: Figure) -> str:
    """Say what a figure shows, for those who cannot see it: its panels, then its lines."""
    panels, lines = [], []
    for axes in figure.axes:
        x, y = axes.get_xlabel(), axes.get_ylabel()
        words = say("{y} over {x}", y=y, x=x) if x and y else x or y
        scales = {axes.get_xscale(), axes.get_yscale()} & {"log", "symlog"}
        words = say("{axes} (log scale)", axes=words) if scales and words else words
        title = axes.get_title()
        both = say("{title}: {what}", title=title, what=words) if title and words else ""
        panels.append(both or title or words)
        lines += axes.get_legend_handles_labels()[1]
    own = (axes.get_legend() for axes in figure.axes)
    for legend in [*figure.legends, *(found for found in own if found is not None)]:
        lines += [text.get_text() for text in legend.get_texts()]
    text, names = (parted(dict.fromkeys(filter(None, part)) or [""]) for part in (panels, lines))
    return f"{text}. {say(LINES)} {names}." if names else text


def line(axes: Any, rows: Any, x: str, y: str, arm: str, color: Any) -> None:
    """Draw an arm's median over its seeds, with the band from the 10th to the 90th percentile."""
    finite = rows[drawable(rows[y]) > 0]  # log axes
    if finite.empty:
        axes.plot([], [], color=color, label=say("{arm} (no finite value)", arm=arm))
        return
    groups = finite.groupby(x)[y]
    median = groups.median()
    series = Extremes(POINTS)
    series.add(median.index.to_numpy(), median.to_numpy())
    steps, values = zip(*series.points(), strict=True)
    marker = "." if len(steps) < 3 else None
    axes.plot(steps, values, color=color, linewidth=1.3, marker=marker, label=arm)
    if rows["seed"].nunique() > 1 and len(median) <= POINTS:
        low, high = groups.quantile(0.1), groups.quantile(0.9)
        axes.fill_between(low.index, low, high, color=color, alpha=0.15, linewidth=0)


def stretches(marks: np.ndarray) -> list[tuple[int, int]]:
    """Return first and last place of every run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marks, [False]]).astype(int)))
    return [(int(first), int(last) - 1) for first, last in edges.reshape(-1, 2)]


def dashed(axes: Any, x: Any, y: np.ndarray, color: str) -> None:
    """Draw what theory expects: broad, light and dashed, under the measured line of this color."""
    if len(y):
        axes.plot(x, drawable(y), color=palette.light(color), **THEORY)


def dark(color: Any) -> Any:
    """Return the color at half its brightness."""
    return tuple(0.5 * part for part in to_rgb(color))


def legend(figure: Figure, axes: Any, dashed: bool) -> None:
    """Name the lines of a panel outside of it, and the dashed ones once."""
    lines, names = with_theory(axes) if dashed else axes.get_legend_handles_labels()
    figure.legend(lines, names, loc="outside right upper", fontsize="small")


def with_theory(axes: Any) -> tuple[list[Any], list[str]]:
    """Return lines and names of a panel's legend, and one more for the dashed lines."""
    lines, names = axes.get_legend_handles_labels()
    broad = {"linewidth": 3.2, "dashes": THEORY["dashes"]}
    return [*lines, Line2D([], [], color="#b5b8bd", **broad)], [*names, say("theory")]


def colors(n: int) -> list[str]:
    """Return n colors that are easy to tell apart; grey where there are no more."""
    every = [*palette.CYCLE, *palette.FURTHER]
    return [every[i] if i < len(every) else palette.GREY for i in range(n)]
