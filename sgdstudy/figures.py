"""Figures of runs, each a plain matplotlib `Figure`."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from sgdstudy.points import Extremes

if TYPE_CHECKING:
    from sgdstudy.history import History
    from sgdstudy.problem import Problem

Runs = Mapping[str, "History"]
POINTS = 1000  # per line
LABELS = {
    "running_loss": "running loss of the epoch",
    "full_loss": "loss of all the data",
    "distance": "distance to the true parameters",
    "mean_grad_norm": "mean norm of the batch gradients",
    "full_grad_norm": "norm of the full gradient",
}


def data(problem: Problem) -> Figure:
    """Draw one-dimensional data, and the curve of the true parameters where they are known."""
    import torch

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    x, y = problem.x.cpu(), problem.y.cpu()
    axes.plot(x, y, ".", markersize=2, color="tab:blue", label=f"{problem.d} points")
    if problem.w_true is not None:
        with torch.no_grad():
            curve = problem.model(problem.w_true.cpu(), x)
        axes.plot(x, curve, color="tab:orange", linewidth=1, label="true parameters")
    axes.set(xlabel="x", ylabel="y", title=problem.name)
    axes.legend()
    return figure


def by_epoch(runs: Runs, *columns: str, title: str = "") -> Figure:
    """Draw quantities over the epoch, one panel each: median over the seeds and 10-90 % band."""
    figure = Figure(figsize=(3 + 5 * len(columns), 5), layout="constrained")
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    for axes, column in zip(panels, columns, strict=True):
        for (arm, history), color in zip(runs.items(), _colors(len(runs)), strict=True):
            rows = history.load("epochs", columns=["seed", "epoch", column])
            _line(axes, rows, "epoch", column, arm, color)
        axes.set(xlabel="epoch", ylabel=LABELS.get(column, column), xscale="log", yscale="log")
        _mark_epsilon(axes, column, runs)
        axes.grid(alpha=0.3)
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside right upper", fontsize="small")
    figure.suptitle(title)
    return figure


def loss_by_epoch(runs: Runs) -> Figure:
    """Draw running loss and full loss by epoch."""
    return by_epoch(runs, "running_loss", "full_loss")


def within_epoch(runs: Runs, epoch: int = 1, column: str = "loss") -> Figure:
    """Draw a quantity over the batches of one epoch, median over the seeds."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for (arm, history), color in zip(runs.items(), _colors(len(runs)), strict=True):
        window = slice(epoch, epoch + 1)
        rows = history.load(columns=["seed", "epoch", "batch", column], epochs=window)
        _line(axes, rows, "batch", column, arm, color)
    axes.set(xlabel=f"batch of epoch {epoch}", ylabel=f"{column} of the batch", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def stop_epochs(runs: Runs, printed: int | None = None) -> Figure:
    """Draw the histogram of the stop epochs over the seeds; seeds that never stop are counted."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for (arm, history), color in zip(runs.items(), _colors(len(runs)), strict=True):
        epochs = history.converged_epoch
        stopped = epochs[np.isfinite(epochs)]
        never = len(epochs) - len(stopped)
        label = arm + (f" ({never} of {len(epochs)} never stopped)" if never else "")
        bins = (np.arange(0, history.config.epochs + 1) + 0.5).tolist()
        axes.hist(stopped, bins=bins, alpha=0.6, color=color, label=label)
    if printed is not None:
        axes.axvline(printed, color="black", linestyle=":", label=f"the notebook: {printed}")
    axes.set(xlabel="stop epoch", ylabel="seeds")
    axes.legend(fontsize="small")
    return figure


def batch_losses(runs: Runs) -> Figure:
    """Draw, per arm, the full loss beside the sum and the means of its batch losses in epoch 1."""
    columns = ["full_loss", "running_loss", "mean_loss", "sum_loss"]
    names = ["full", "weighted mean", "unweighted mean", "sum"]
    return _bars(runs, columns, names, "loss")


def batch_gradients(runs: Runs) -> Figure:
    """Draw, per arm, full gradient norm, mean of batch norms, norm of the mean, in epoch 1."""
    columns = ["full_grad_norm", "mean_grad_norm", "norm_mean_grad"]
    names = ["full gradient", "mean of the batch norms", "norm of the mean gradient"]
    return _bars(runs, columns, names, "gradient norm")


def png(figure: Figure) -> bytes:
    """Return the figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


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
    axes.set(ylabel=f"{label}, epoch 1", yscale="log", xticks=place)
    axes.set_xticklabels(list(runs), rotation=30, ha="right")
    axes.legend(fontsize="small")
    return figure


def _line(axes: Any, rows: Any, x: str, y: str, arm: str, color: Any) -> None:
    finite = rows[np.isfinite(rows[y]) & (rows[y] > 0)]  # log axes
    if finite.empty:
        axes.plot([], [], color=color, label=f"{arm} (no finite value)")
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


def _mark_epsilon(axes: Any, column: str, runs: Runs) -> None:
    rules = {"running": "running_loss", "full": "full_loss"}
    limits = {
        h.config.stop[1]
        for h in runs.values()
        if h.config.stop is not None and rules.get(h.config.stop[0]) == column
    }
    for epsilon in limits:
        axes.axhline(epsilon, color="black", linestyle=":", linewidth=1)


def _colors(n: int) -> list[Any]:
    cycle = colormaps["tab10"] if n <= 10 else colormaps["tab20"]
    return [cycle(i % cycle.N) for i in range(n)]
