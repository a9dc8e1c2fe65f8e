"""Runs by their epochs: their losses and norms, and where they stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sgdstudy.errors import InputError
from sgdstudy.figures import palette, style
from sgdstudy.figures.backend import styled
from sgdstudy.figures.lines import known_losses
from sgdstudy.figures.shown import Figure
from sgdstudy.figures.style import Runs
from sgdstudy.figures.tables import curves, numbered
from sgdstudy.language import say
from sgdstudy.recipe import stop as stops
from sgdstudy.recipe.columns import CLOCK
from sgdstudy.recipe.columns import title as title_of
from sgdstudy.theory import predictions
from sgdstudy.theory.expect import expect

if TYPE_CHECKING:
    pass


@styled
def by_epoch(
    runs: Runs,
    *columns: str,
    title: str = "",
    top: float | None = None,
    clock: bool = False,
    beside: pd.DataFrame | None = None,
) -> Figure:
    """Draw quantities over the epoch, one panel each: median over the seeds and 10-90 % band.

    Args:
        runs: by arm.
        columns: of `epochs`.
        title: of the figure.
        top: the upper end of the axis, for runs that diverge.
        clock: over the time since training began instead; the runs were trained with `clock=True`.
        beside: rows of other runs with the columns `arm`, `seed`, the axis (epochs count from 1)
            and those drawn, as `load_losses` returns them; drawn in grey.

    Raises:
        InputError: no such column; a run without a clock.
    """
    axis = CLOCK if clock else "epoch"
    others = {} if beside is None else _by_arm(beside, ["seed", axis, *columns])
    figure = Figure(figsize=(3 + 5 * len(columns), 5), layout="constrained")
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    curves = {arm: predictions.expected_losses(h.problem, h.config) for arm, h in runs.items()}
    for axes, column in zip(panels, columns, strict=True):
        for (arm, history), color in zip(runs.items(), palette.of_runs(runs), strict=True):
            rows = history.load("epochs", columns=["seed", "epoch", *([axis] * clock), column])
            style.line(axes, rows, axis, column, arm, color)
            expected = curves[arm].get(column, np.empty(0))[: history.stop_epoch.max()]
            ends = np.arange(1, len(expected) + 1)
            if clock:  # every seed has the same: they train side by side
                ends = rows.groupby("epoch")[axis].first().to_numpy()[: len(expected)]
            style.dashed(axes, ends, expected[: len(ends)], color)
        for k, (arm, rows) in enumerate(others.items()):
            style.line(axes, rows, axis, column, arm, str(0.3 + 0.5 * k / len(others)))
        name = title_of("epochs", axis) if clock else say("epoch")
        axes.set(xlabel=name, ylabel=title_of("epochs", column))
        axes.set(xscale="log", yscale="log")
        if top is not None:
            axes.set_ylim(top=top)
        _mark_epsilon(axes, column, runs)
        axes.grid(alpha=0.3)
    style.legend(
        figure, panels[0], dashed=any(column in curves[arm] for arm in runs for column in columns)
    )
    figure.suptitle(title)
    return figure


@styled
def loss_by_epoch(runs: Runs, top: float | None = None, clock: bool = False) -> Figure:
    """Draw running loss and full loss by epoch, or by the clock; see `by_epoch`."""
    return by_epoch(runs, "running_loss", "full_loss", top=top, clock=clock)


def _by_arm(rows: pd.DataFrame, columns: list[str]) -> dict[str, pd.DataFrame]:
    """Return the rows of runs from elsewhere by arm."""
    missing = {"arm", *columns} - set(rows.columns)
    if missing:
        raise InputError(
            f"the rows to be drawn beside have no column {', '.join(sorted(missing))}; rename "
            f"theirs, as rows.rename(columns={{'loss': {columns[-1]!r}}})"
        )
    return {str(arm): some for arm, some in rows.groupby("arm")}


@styled
def within_epoch(runs: Runs, epoch: int = 1, column: str = "loss") -> Figure:
    """Draw a quantity over the batches of one epoch, median over the seeds."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes, known = figure.subplots(), False
    for (arm, history), color in zip(runs.items(), palette.of_runs(runs), strict=True):
        window = slice(epoch, epoch + 1)
        rows = history.load(columns=["seed", "epoch", "batch", column], epochs=window)
        style.line(axes, rows, "batch", column, arm, color)
        if column == "loss" and predictions.order_is_known(history.problem, history.config):
            expected = known_losses(history, epoch)[: rows["batch"].max() + 1]
            style.dashed(axes, np.arange(len(expected)), expected, color)
            known = True
    axes.set(
        xlabel=say("batch of epoch {n}", n=epoch), ylabel=title_of("steps", column), yscale="log"
    )
    axes.grid(alpha=0.3)
    style.legend(figure, axes, dashed=known)
    return figure


def excess_grid(
    runs: Mapping[tuple[str, str], Mapping[str, Any]], bottom: Mapping[str, float]
) -> Figure:
    """Draw the mean loss above the least one over the epoch, from 0 on, on a grid of panels.

    Args:
        runs: panel and column -> runs of least squares by the name of their line; see `curves`.
        bottom: column -> the least loss shown.
    """
    found: dict[tuple[str, str, str], tuple[list[float], list[float]]] = {}
    for place, lines in runs.items():
        for line, run in lines.items():
            known = expect(run).excess
            found[*place, line] = [known[0], *run.excess().mean(1)], known.tolist()
    return curves(numbered(found), say("epoch"), say("excess loss, mean"), bottom)


@styled
def stop_epochs(runs: Runs, printed: int | None = None) -> Figure:
    """Draw the histogram of the stop epochs over the seeds; seeds that never stop are counted."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for (arm, history), color in zip(runs.items(), palette.of_runs(runs), strict=True):
        epochs = history.converged_epoch
        stopped = epochs[np.isfinite(epochs)]
        never = len(epochs) - len(stopped)
        told = say(
            "{arm} (never stopped)",
            "{arm} ({never} of {n} never stopped)",
            arm=arm,
            never=never,
            n=len(epochs),
        )
        label = told if never else arm
        bins = (np.arange(history.config.n_epochs(history.problem.d) + 1) + 0.5).tolist()
        axes.hist(stopped, bins=bins, alpha=0.6, color=color, label=label)
        expected = history.predicted.get("stop_epoch", np.inf)
        if np.isfinite(expected):
            axes.axvline(
                expected,
                color=style.dark(color),
                linestyle="--",
                label=say("{arm}: theory", arm=arm),
            )
    if printed is not None:
        axes.axvline(
            printed, color="black", linestyle=":", label=say("the notebook: {n}", n=printed)
        )
    axes.set(xlabel=say("stop epoch"), ylabel=say("seeds"))
    axes.legend(fontsize="small")
    return figure


@styled
def batch_losses(runs: Runs) -> Figure:
    """Draw, per arm, the full loss beside the sum and the means of its batch losses in epoch 1."""
    columns = ["full_loss", "running_loss", "mean_loss", "sum_loss"]
    names = [say("full"), say("weighted mean"), say("unweighted mean"), say("sum")]
    return _bars(runs, columns, names, say("loss, epoch 1"))


@styled
def batch_gradients(runs: Runs) -> Figure:
    """Draw, per arm, full gradient norm, mean of batch norms, norm of the mean, in epoch 1."""
    columns = ["full_grad_norm", "mean_grad_norm", "norm_mean_grad"]
    names = [say("full gradient"), say("mean of the batch norms"), say("norm of the mean gradient")]
    return _bars(runs, columns, names, say("gradient norm, epoch 1"))


def _bars(runs: Runs, columns: list[str], names: list[str], label: str) -> Figure:
    figure = Figure(figsize=(2 + 1.1 * len(runs), 5), layout="constrained")
    axes = figure.subplots()
    place, width = np.arange(len(runs)), 0.8 / len(columns)
    first = [h.load("epochs", epochs=slice(1, 2)).median(numeric_only=True) for h in runs.values()]
    for i, (column, name) in enumerate(zip(columns, names, strict=True)):
        axes.bar(
            place + (i - len(columns) / 2 + 0.5) * width,
            [f[column] for f in first],
            width,
            label=name,
        )
    axes.set(ylabel=label, yscale="log", xticks=place)
    axes.set_xticklabels(list(runs), rotation=30, ha="right")
    axes.legend(fontsize="small")
    return figure


def _mark_epsilon(axes: Any, column: str, runs: Runs) -> None:
    rules = {h.config.stop for h in runs.values() if isinstance(h.config.stop, tuple)}
    for epsilon in {epsilon for rule, epsilon in rules if stops.column_of(rule) == column}:
        if epsilon is not None:
            axes.axhline(epsilon, color="black", linestyle=":", linewidth=1)
