"""Data, and how parameters move: paths, and the batches that make an error grow."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sgdstudy import theory
from sgdstudy.figures import palette, style
from sgdstudy.figures.backend import styled
from sgdstudy.figures.panels import MOST
from sgdstudy.figures.shown import Figure
from sgdstudy.figures.style import Run, Runs
from sgdstudy.language import say
from sgdstudy.recipe.columns import of_parameters

if TYPE_CHECKING:
    from sgdstudy.problems.least_squares import LeastSquares
    from sgdstudy.problems.problem import Problem


@styled
def data(problem: Problem) -> Figure:
    """Draw one-dimensional data, and the curve of the true parameters where they are known."""
    import torch

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    some = slice(None, None, -(-problem.d // style.POINTS))  # more would take minutes to draw
    x, y = problem.x[some].cpu(), problem.y[some].cpu()
    label = say("{n} point", "{n} points", n=problem.d)
    if len(x) < problem.d:
        label = say("{points}, {n} of them drawn", points=label, n=len(x))
    axes.plot(x, y, ".", markersize=2, color="tab:blue", label=label)
    if problem.w_true is not None:
        with torch.no_grad():
            curve = problem.model(problem.w_true.cpu(), x)
        axes.plot(x, curve, color="tab:orange", linewidth=1, label=say("true parameters"))
    axes.set(xlabel="x", ylabel="y", title=problem.name)
    axes.legend()
    return figure


@styled
def path(runs: Runs, i: int, j: int, epochs: int) -> Figure:
    """Draw the path of two parameters over level lines of the loss, first seed, first epochs.

    The level lines are those of the loss minimised over the other parameters.
    """
    columns = min(len(runs), 3)
    figure = Figure(figsize=(5.5 * columns, 5 * -(-len(runs) // columns)), layout="constrained")
    panels = figure.subplots(-(-len(runs) // columns), columns, squeeze=False).ravel()
    for axes in panels[len(runs) :]:
        axes.set_visible(False)
    colors = palette.of_runs(runs)
    for axes, (arm, history), color in zip(panels, runs.items(), colors, strict=False):
        ls, seed = theory.moments(history.problem), history.config.seeds[0]
        names = [f"w{i}", f"w{j}"]
        window = slice(1, 1 + epochs)
        rows = history.load(columns=["seed", "epoch", *names], seeds=seed, epochs=window)
        w = rows[names].to_numpy(dtype=float)
        axes.plot(*w.T, ".-", markersize=2, linewidth=0.5, color=color, label=say("steps"))
        axes.plot(*w[0], "o", color="black", label=say("start"))
        best = {"color": "black", "markersize": 12, "markerfacecolor": "white"}
        axes.plot(ls.w_star[i], ls.w_star[j], "*", **best, label=say("optimum"))
        axes.margins(0.08)
        _level_lines(axes, ls, i, j)
        axes.set(xlabel=names[0], ylabel=names[1], title=arm)
    panels[0].legend(fontsize="small")
    return figure


@styled
def steep_batches(history: Run, epoch: int = 1) -> Figure:
    """Draw why an epoch's error grows or shrinks, batch by batch, of the first seed.

    A batch multiplies the error along its steepest direction v by 1 - lr lambda: it grows where
    lr lambda is above 2, if the error lies along v.
    """
    problem, config, seed = history.problem, history.config, history.config.seeds[0]
    ls, b = theory.moments(problem), theory.batches(problem, config, epoch)
    names = of_parameters(problem.p)
    window = slice(epoch, epoch + 1)
    rows = history.load(columns=["seed", "epoch", *names], seeds=seed, epochs=window)
    z = rows[names].to_numpy(dtype=float) - ls.w_star
    values, vectors = np.linalg.eigh(b.hessians[: len(z)])
    size = np.linalg.norm(z, axis=1)
    share = np.abs(np.einsum("bp,bp->b", z, vectors[:, :, -1])) / size
    figure = Figure(figsize=(10, 9), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    panels[0].plot(config.lr * values[:, -1], color="tab:red")
    panels[0].set(ylabel=say("lr x top eigenvalue"), yscale="log")
    panels[0].axhline(2, color="black", linestyle="--", linewidth=0.8)
    panels[1].plot(share, color="tab:blue")
    share_of = textwrap.fill(say("share of the error along the steepest direction"), 26)
    panels[1].set(ylabel=share_of, ylim=(0, 1.05))
    panels[2].plot(size, color="tab:green")
    panels[2].set(
        ylabel=say("distance to the minimum"),
        yscale="log",
        xlabel=say("batch of epoch {n}", n=epoch),
    )
    for axes in panels:
        for first, last in style.stretches(config.lr * values[:, -1] > 2):
            axes.axvspan(first - 0.5, last + 0.5, color="tab:red", alpha=0.1, linewidth=0)
        axes.grid(alpha=0.3)
    figure.suptitle(say("Shaded: batches beyond their own limit"))
    return figure


@styled
def radius_by_lr(
    orders: Mapping[str, theory.Batches],
    lr: np.ndarray,
    measured: Mapping[str, tuple[float, float]],
    marks: Mapping[str, float],
) -> Figure:
    """Draw the spectral radius of an epoch over the step size, order by order.

    Args:
        orders: batches of each order.
        lr: step sizes.
        measured: (step size, contraction per epoch) of runs.
        marks: step sizes to name.
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for (name, b), color in zip(orders.items(), style.colors(len(orders)), strict=True):
        radius = [theory.spectral_radius(b, step) for step in lr]
        axes.plot(lr, radius, "--", color=color, label=say("{line}, theory", line=name))
    for (name, (step, contraction)), marker in zip(measured.items(), "os^vDPX", strict=False):
        axes.plot(step, contraction, marker, color="black", fillstyle="none", label=name)
    for name, step in marks.items():
        axes.axvline(step, color="gray", linestyle=":", linewidth=1)
        axes.annotate(name, (step, 1.005), rotation=90, ha="right", va="bottom", fontsize="small")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(xlabel=say("step size lr"), ylabel=say("error at the end of an epoch / at its start"))
    axes.set_ylim(min(0.85, *(c for _, c in measured.values())), 1.1)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower left")
    return figure


def _level_lines(axes: Any, ls: LeastSquares, i: int, j: int) -> None:
    """Draw level lines of the loss over w_i and w_j, the other parameters at their best."""
    inverse = np.linalg.inv(ls.hessian)[np.ix_([i, j], [i, j])]
    hessian = np.linalg.inv(inverse)  # Schur complement: what is left of H
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    x, y = np.meshgrid(np.linspace(left, right, 200), np.linspace(low, high, 200))
    z = np.stack([x - ls.w_star[i], y - ls.w_star[j]], -1)
    excess = np.einsum("...p,pq,...q->...", z, hessian, z) / 2
    if not 0 < excess.max() <= MOST:  # so far away there is nothing else to see
        return
    levels = np.geomspace(excess.max() * 1e-5, excess.max(), 11)
    axes.contour(x, y, excess, levels=levels, colors="gray", linewidths=0.6, alpha=0.7)
