"""The figures of the exercises."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sgdstudy import theory
from sgdstudy.errors import InputError
from sgdstudy.figures import palette, style
from sgdstudy.figures.backend import styled
from sgdstudy.figures.lines import known_losses
from sgdstudy.figures.panels import MOST
from sgdstudy.figures.shown import Figure
from sgdstudy.figures.style import Run, Runs
from sgdstudy.figures.tables import curves, numbered
from sgdstudy.language import say, to_say
from sgdstudy.recipe import stop as stops
from sgdstudy.recipe.columns import CLOCK, of_parameters
from sgdstudy.recipe.columns import title as title_of
from sgdstudy.theory import predictions
from sgdstudy.theory.expect import expect

if TYPE_CHECKING:
    from sgdstudy.problems.least_squares import LeastSquares
    from sgdstudy.problems.problem import Problem

# panel: columns, scale, and where a dashed line tells two cases apart
COCKPIT: dict[str, tuple[tuple[str, ...], str, float | None]] = {
    to_say("loss"): (("loss", "full_loss"), "log", None),
    to_say("step"): (("update_norm", "distance_start", "distance"), "log", None),
    to_say("step over the parabola's minimum"): (("alpha",), "symlog", 0.0),
    to_say("cosine of batch and full gradient"): (("grad_cosine",), "linear", 0.0),
    to_say("gradient norm"): (("grad_norm", "full_grad_norm"), "log", None),
    to_say("gradient tests"): (("norm_test", "inner_test", "ortho_test"), "log", 1.0),
    to_say("gradient noise"): (("trace_sigma", "full_trace_sigma"), "log", None),
    to_say("noise scale, in samples"): (
        ("noise_scale", "noise_scale_two_batch", "full_noise_scale"),
        "log",
        None,
    ),
    to_say("curvature"): (("hess_max_eig", "hess_trace", "full_hess_max_eig"), "log", None),
    to_say("lr x top eigenvalue; over 2 is unstable"): (("lr_sharpness",), "log", 2.0),
    to_say("signal to noise"): (("gsnr", "cabs", "tic"), "log", None),
    to_say("early stopping, above 0: only noise"): (("early_stopping",), "symlog", 0.0),
}
COCKPIT_POINTS = 4000


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
        told = say("{arm} ({never} of {n} never stopped)", arm=arm, never=never, n=len(epochs))
        label = told if never else arm
        bins = (np.arange(0, history.config.epochs + 1) + 0.5).tolist()
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
def drift_and_sampling(runs: Runs, title: str = "") -> Figure:
    """Draw what makes the running loss differ from the full one, by epoch, of each first seed.

    See `theory.Gap`; dashed: the steps of the seed's own order, computed before it ran.
    """
    figure = Figure(figsize=(3 + 5 * len(runs), 5), layout="constrained")
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, (arm, history) in zip(panels, runs.items(), strict=True):
        seen = history.gaps()
        path = expect(history).own_order(len(seen))
        expected = [path.gap(epoch + 1) for epoch in range(len(seen))]
        epochs = np.arange(1, len(seen) + 1)
        names = {"drift": say("drift"), "sampling": say("sampling")}
        for part, color in zip(names, (palette.BLUE, palette.ORANGE), strict=True):
            values = np.array([getattr(gap, part) for gap in seen])
            axes.plot(epochs, values, color=color, linewidth=1.5, label=names[part])
            style.dashed(axes, epochs, np.array([getattr(gap, part) for gap in expected]), color)
        linear = max(np.abs([gap.drift for gap in seen]).min(), 1e-9)
        axes.set_yscale("symlog", linthresh=linear)
        axes.axhline(0, color="black", linewidth=0.5)
        axes.set(xlabel=say("epoch"), ylabel=say("part of running loss - full loss"), title=arm)
        axes.grid(alpha=0.3)
    style.legend(figure, panels[0], dashed=True)
    figure.suptitle(title)
    return figure


@styled
def gradient_norms(runs: Runs) -> Figure:
    """Draw the norms of the batch gradients beside the full one, along each first seed.

    Dashed: the root mean square that the covariance of the samples' gradients gives at the
    parameters of the epoch's end.
    """
    figure = Figure(figsize=(3 + 5 * len(runs), 5), layout="constrained")
    panels = figure.subplots(1, len(runs), squeeze=False, sharey=True)[0]
    for axes, (arm, history) in zip(panels, runs.items(), strict=True):
        seed, ls, d = history.config.seeds[0], theory.moments(history.problem), history.problem.d
        rows = history.load(columns=["seed", "step", "grad_norm", "full_grad_norm"], seeds=seed)
        rows = rows.iloc[:: max(1, len(rows) // 4000)]
        names = {"grad_norm": say("batch gradient"), "full_grad_norm": say("full gradient")}
        for name, label in names.items():
            axes.plot(rows["step"], rows[name], ".", markersize=2, alpha=0.5, label=label)
        ends = history.load("epochs", seeds=seed)
        size = history.config.batch_sizes(d)[0]
        w = ends[of_parameters(history.problem.p)].to_numpy(dtype=float)
        expected = [theory.mean_square_batch_norm(ls, row, d, size) ** 0.5 for row in w]
        steps = ends["epoch"] * len(history.config.batch_sizes(d))
        style.dashed(axes, steps, np.array(expected), palette.BLACK)
        axes.set(xlabel=say("step"), ylabel=say("norm"), yscale="log", title=arm)
        axes.grid(alpha=0.3)
    style.legend(figure, panels[0], dashed=True)
    return figure


@styled
def cockpit(history: Run, title: str = "") -> Figure:
    """Draw the diagnostics of a run's first seed on one page; those that were recorded."""
    seed = history.config.seeds[0]
    rows = history.load(seeds=seed)
    rows = rows.iloc[:: max(1, len(rows) // COCKPIT_POINTS)]
    figure = Figure(figsize=(16, 10), layout="constrained")
    panels = figure.subplots(3, 4).ravel()
    for axes, (name, (columns, scale, line)) in zip(panels, COCKPIT.items(), strict=True):
        axes.set_title(say(name), fontsize="medium")
        for column in columns:
            if column in rows and rows[column].notna().any():
                known = rows[rows[column].notna()]
                axes.plot(known["step"], known[column], ".", markersize=2, alpha=0.6, label=column)
        if not axes.lines:
            axes.text(
                0.5, 0.5, say("not recorded"), ha="center", transform=axes.transAxes, color="gray"
            )
            axes.set(xticks=[], yticks=[])
            continue
        if line is not None:
            axes.axhline(line, color="black", linewidth=0.8, linestyle="--")
        axes.set_yscale(scale)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small", markerscale=4)
    figure.suptitle(
        title or say("{problem}, seed {seed}, by step", problem=history.problem.name, seed=seed)
    )
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


def _mark_epsilon(axes: Any, column: str, runs: Runs) -> None:
    rules = {h.config.stop for h in runs.values() if h.config.stop is not None}
    for epsilon in {epsilon for rule, epsilon in rules if stops.column_of(rule) == column}:
        if epsilon is not None:
            axes.axhline(epsilon, color="black", linestyle=":", linewidth=1)
