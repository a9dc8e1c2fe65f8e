"""Figures of parameters that follow true ones which move."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sgdstudy import theory
from sgdstudy.figures import palette
from sgdstudy.figures.backend import styled
from sgdstudy.figures.lines import with_laws
from sgdstudy.figures.panels import Panel
from sgdstudy.figures.shown import Figure
from sgdstudy.figures.style import Runs
from sgdstudy.figures.tables import points
from sgdstudy.language import say
from sgdstudy.theory.estimates import Estimate
from sgdstudy.theory.expect import expect


def tracking(
    rows: Sequence[tuple[str, float, float, float] | tuple[str, float, Estimate]],
    law: theory.SampleLaw,
    velocities: Mapping[str, np.ndarray],
    batch_size: int = 1,
) -> Panel:
    """Return a panel of the excess over the step size, beside what theory says it settles at.

    Both of its parts for small steps, noise and lag, and the best step are those of the first
    velocity.

    Args:
        rows: line, step size, and an estimate of the excess, or it and its standard error.
        law: that the samples are drawn from.
        velocities: line -> what the true parameters move by in a step, `(p,)`.
        batch_size: samples a step.
    """
    first = next(iter(velocities.values()))

    def settled(velocity: np.ndarray) -> Callable[[float], float]:
        return lambda lr: theory.stationary_tracking(law, batch_size, lr, velocity).excess

    def part(i: int) -> Callable[[float], float]:
        return lambda lr: theory.tracking_terms(law, batch_size, lr, first)[i]

    laws = {line: np.vectorize(settled(velocity)) for line, velocity in velocities.items()}
    laws[say("lag, small steps")] = np.vectorize(part(1))
    laws[say("noise, small steps")] = np.vectorize(part(0))
    best = theory.best_tracking_lr(law, batch_size, first)
    axes = {"x": say("step size lr"), "y": say("loss above the true parameters', mean")}
    drawn = points(rows)
    top = 2 * float(drawn["y"].max())
    colors = [palette.BLUE, palette.GREEN, palette.ORANGE, palette.RED]
    marks = {say("best: {lr:.2}", lr=best): best}
    names = {line: line for line in laws}
    return with_laws(drawn, laws, names, colors=colors, marks=marks, limits=(None, top), **axes)


@styled
def followed(runs: Runs, law: theory.SampleLaw, parameter: int, steps: int, ylabel: str) -> Figure:
    """Draw a parameter of each first seed that follows a true one, one panel for each run.

    Args:
        runs: title -> run, of a problem whose true parameters are known.
        law: that their samples are drawn from.
        parameter: which one.
        steps: how many are drawn.
        ylabel: what the parameter is.
    """
    figure = Figure(figsize=(1 + 4 * len(runs), 4.5), layout="constrained")
    drawn, name = figure.subplots(1, len(runs), squeeze=False, sharey=True)[0], f"w{parameter}"
    for axes, (title, run) in zip(drawn, runs.items(), strict=True):
        which = {"steps": slice(0, steps), "seeds": run.config.seeds[:1]}
        rows = run.load(columns=["seed", "step", name], **which)
        x = rows["step"].to_numpy()
        true = run.problem.true_at(x)
        assert true is not None
        axes.plot(x, rows[name], color="tab:blue", linewidth=0.8, label=say("SGD, one seed"))
        axes.plot(
            x, true[:, parameter], color="black", linewidth=1.5, label=say("the true parameter")
        )
        mean = expect(run).tracking_path(law, steps)[0][x, parameter]
        axes.plot(x, mean, "--", color="tab:red", label=say("SGD's mean, theory"))
        axes.set(xlabel=say("steps, one new sample each"), title=title)
        axes.grid(alpha=0.3)
    drawn[0].set_ylabel(ylabel)
    figure.legend(*drawn[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
