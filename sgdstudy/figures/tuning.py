"""Figures of optimisers compared: over their step sizes, and at the chosen one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D

from sgdstudy.figures import palette
from sgdstudy.figures import style as drawing
from sgdstudy.figures.backend import styled
from sgdstudy.figures.panels import Line, Panel
from sgdstudy.figures.shown import Figure
from sgdstudy.language import say, to_say, translated

if TYPE_CHECKING:
    import pandas as pd


def over_lr(rows: pd.DataFrame) -> list[Panel]:
    """Return a panel for each problem: the median time to its target over the step size.

    Args:
        rows: as of `lr_sensitivity`.
    """
    panels = []
    for name, mine in rows.groupby("problem", sort=False):
        lines = []
        for rule in mine["optimizer"].unique():
            each = mine[mine["optimizer"] == rule].sort_values("lr")
            x, y, known = (each[column].to_numpy() for column in ("lr", "median", "theory"))
            theory = known if np.isfinite(known).sum() > 1 else None
            lines.append(Line(rule, x, y, palette.OPTIMIZERS[rule], theory=theory))
        title = say("{name}, to {target}", name=name, target=mine["target"].iloc[0])
        panels.append(Panel(lines, "lr", say("epochs, median"), title, "xy"))
    return panels


@styled
def lr_sensitivity(
    rows: pd.DataFrame, ylabel: str = to_say("epochs to the hardest target, median")
) -> Figure:
    """Draw the median time to a target over the step size, one panel a problem.

    Args:
        rows: columns `problem, optimizer, lr, target, median, low, high, theory, chosen`, one
            target a problem; an infinite median is a cross at the top; the theory (NaN: none) is
            dashed; `chosen` is ringed.
        ylabel: what the median is of.
    """
    targets = rows.groupby("problem", sort=False)["target"].first()
    titles = {
        name: say("{name}: to {target} of the loss", name=name, target=target)
        for name, target in targets.items()
    }
    figure, drawn = _row_of_panels(len(titles), 5.2)
    names = list(dict.fromkeys(rows["optimizer"]))
    colors = dict(zip(names, drawing.colors(len(names)), strict=True))
    for axes, (problem, title) in zip(drawn, titles.items(), strict=True):
        mine = rows[rows["problem"] == problem]
        shown = mine[["median", "theory"]].to_numpy()
        top = _beyond(shown)
        for name, marker in zip(names, itertools.cycle("os^vDPX"), strict=False):
            line, color = mine[mine["optimizer"] == name], colors[name]
            missed = ~np.isfinite(line["median"].to_numpy())
            axes.plot(line["lr"], line["median"].where(~missed, top), color=color, alpha=0.25)
            met = line[~missed]
            ends = met[["low", "high"]].to_numpy().T.clip(0, top) - met["median"].to_numpy()
            ends = np.abs(np.nan_to_num(ends))
            style = {"fmt": marker + "-", "color": color, "label": name, "capsize": 2}
            axes.errorbar(met["lr"], met["median"], ends, markersize=4, **style)
            axes.plot(line["lr"][missed], np.full(missed.sum(), top), "x", color=color)
            known = line["theory"].replace(np.inf, np.nan)
            dark = {"color": drawing.dark(color), "zorder": 3, "markersize": 9}
            axes.plot(line["lr"], known, "_--", linewidth=1.2, **dark)  # over the error bars
            best = line[line["chosen"]]
            ring = {"mfc": "none", "markersize": 12, "color": color}
            axes.plot(best["lr"], best["median"].clip(upper=top), "o", **ring)
        axes.axhspan(top / 1.25, top * 1.25, color="0.5", alpha=0.12, linewidth=0)
        axes.set(xscale="log", yscale="log", xlabel="lr", title=title, ylim=(None, top * 1.25))
        axes.grid(alpha=0.3)
    drawn[0].set_ylabel(translated(ylabel))
    kinds = {say("theory"): ("", "--"), say("chosen by the tuning seeds"): ("o", "")}
    kinds[say("most never")] = ("x", "")
    marks = [Line2D([], [], color="black", marker=m, ls=ls, mfc="none") for m, ls in kinds.values()]
    lines, labels = drawn[0].get_legend_handles_labels()
    figure.legend([*lines, *marks], [*labels, *kinds], loc="outside lower center", ncols=4)
    return figure


@styled
def times_to_targets(rows: pd.DataFrame, xlabel: str = to_say("epochs, median")) -> Figure:
    """Draw the median time to each target with its interval, one panel a problem.

    Args:
        rows: columns `problem, optimizer, target, median, low, high, reached, seeds, theory`;
            targets from easy to hard; an infinite median stands in the grey strip on the right,
            with the number of seeds that got there.
        xlabel: what the median is of.
    """
    targets = rows.groupby("problem", sort=False)["target"].unique()
    titles = {
        name: say("{title}: {what}", title=name, what=each.tolist())
        for name, each in targets.items()
    }
    figure, drawn = _row_of_panels(len(titles), 4.6)
    names = list(dict.fromkeys(rows["optimizer"]))
    places = {name: y for y, name in enumerate(names[::-1])}
    ranks = rows.groupby("problem")["target"].rank("dense", ascending=False).astype(int) - 1
    levels = drawing.colors(ranks.max() + 1)
    for axes, (problem, title) in zip(drawn, titles.items(), strict=True):
        mine = rows[rows["problem"] == problem]
        top = _beyond(mine[["median", "theory"]].to_numpy())
        for row, rank in zip(mine.itertuples(), ranks[mine.index], strict=True):
            y, color = places[row.optimizer] + 0.25 - 0.25 * rank, levels[rank]
            x = min(row.median, top)
            ends = np.abs(np.clip(np.nan_to_num([[row.low], [row.high]], nan=x), 0, top) - x)
            marker = "osD"[rank % 3] if row.median <= top else "x"
            axes.errorbar(x, y, xerr=ends, fmt=marker, color=color, markersize=5, capsize=2)
            if row.median > top:
                axes.annotate(f" {row.reached}/{row.seeds}", (x, y), va="center", fontsize=7)
            if np.isfinite(row.theory):
                axes.plot(
                    [row.theory] * 2, [y - 0.12, y + 0.12], "--", color="black", linewidth=1.2
                )
        axes.axvspan(top / 1.25, top * 1.9, color="0.5", alpha=0.12, linewidth=0)
        axes.set(xscale="log", xlabel=translated(xlabel), title=title, xlim=(None, top * 1.9))
        axes.set(yticks=list(places.values()), yticklabels=list(places))
        axes.grid(alpha=0.3)
    words = (
        [say("easy target"), say("middle"), say("hard")]
        if len(levels) == 3
        else map(str, range(len(levels)))
    )
    marks = [
        Line2D([], [], color=c, marker=m, ls="")
        for c, m in zip(levels, itertools.cycle("osD"), strict=False)
    ]
    marks += [
        Line2D([], [], color="black", ls="--"),
        Line2D([], [], color="black", marker="x", ls=""),
    ]
    labels = [*words, say("theory"), say("most seeds never: how many did")]
    figure.legend(marks, labels, loc="outside lower center", ncols=len(marks))
    return figure


def _row_of_panels(n: int, height: float) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(1 + 3.6 * n, height), layout="constrained")
    return figure, figure.subplots(1, n, squeeze=False)[0]


def _beyond(values: np.ndarray) -> float:
    """Return where to draw what is infinite: above all that is finite."""
    return 2.0 * float(np.max(values, where=np.isfinite(values), initial=1.0))
