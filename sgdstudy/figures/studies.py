"""Figures of the studies that go beyond the notebook."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sgdstudy.figures import drawing

if TYPE_CHECKING:
    import pandas as pd


def power_laws(
    rows: pd.DataFrame,
    panels: Mapping[str, Sequence[str]],
    laws: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    xlabel: str,
    ylabel: str,
) -> Figure:
    """Draw points with their intervals on log axes, and theory's law through each line's points.

    Args:
        rows: one row a point, columns `line, x, y, low, high`.
        panels: title of a panel -> its lines, in the order of the legend.
        laws: line -> what theory expects of y at x. The points of a line without a law are
            joined; a line without points is its law alone.
        xlabel: what x is.
        ylabel: what y is.
    """
    figure = Figure(figsize=(2 + 5 * len(panels), 5.5), layout="constrained")
    drawn = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    names = list(dict.fromkeys(line for lines in panels.values() for line in lines))
    colors = dict(zip(names, drawing.colors(len(names)), strict=True))
    for axes, (title, lines) in zip(drawn, panels.items(), strict=True):
        shown = rows[rows["line"].isin(lines)]
        along = np.geomspace(shown["x"].min(), shown["x"].max(), 100)
        for line, marker in zip(lines, itertools.cycle("os^vDPX"), strict=False):
            points, color = shown[shown["line"] == line], colors[line]
            if points.empty:
                axes.plot(along, laws[line](along), ":", color=color, label=line)
                continue
            span = np.abs(points[["low", "high"]].to_numpy().T - points["y"].to_numpy())
            style = {"fmt": marker + ("" if line in laws else "-"), "color": color, "label": line}
            axes.errorbar(points["x"], points["y"], span, markersize=4, capsize=2, **style)
            drawing.dashed(axes, along, laws[line](along) if line in laws else np.empty(0), color)
        axes.set(xlabel=xlabel, yscale="log", title=title)
        axes.set_xscale("log", base=2)
        axes.grid(alpha=0.3)
        lines_, labels = axes.get_legend_handles_labels()
        dashed = Line2D([], [], color="black", linestyle="--")
        axes.legend([*lines_, dashed], [*labels, "theory"], fontsize="small")
    drawn[0].set_ylabel(ylabel)
    return figure
