"""The steps of runs: their diagnostics, and what batches differ in from all the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sgdstudy import theory
from sgdstudy.figures import palette, style
from sgdstudy.figures.backend import styled
from sgdstudy.figures.shown import Figure
from sgdstudy.figures.style import Run, Runs
from sgdstudy.language import say, to_say
from sgdstudy.recipe.columns import of_parameters
from sgdstudy.theory.expect import expect

if TYPE_CHECKING:
    pass

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
