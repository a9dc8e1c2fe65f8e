"""How the sharpness of a network grows up to the edge of its rule, and what the loss does then."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from sgdstudy.figures.backend import styled
from sgdstudy.figures.style import Runs
from sgdstudy.figures.tables import over_steps
from sgdstudy.language import say

SHARPNESS = "full_hess_max_eig"


@styled
def sharpness(columns: Mapping[str, Runs], edges: Mapping[str, float]) -> Figure:
    """Draw sharpness and loss of each first seed over time, lr times steps, the edges dashed.

    Args:
        columns: title -> runs that have `full_hess_max_eig`.
        edges: arm -> the sharpness above which its steps grow on a quadratic.
    """
    drawn: dict[str, dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]] = {}
    for title, runs in columns.items():
        sharp, loss = say("sharpness"), say("loss")
        drawn[title] = {sharp: {}, loss: {}}
        for arm, run in runs.items():
            names = ["seed", "step", "full_loss", SHARPNESS]
            rows = run.load(columns=names, seeds=run.config.seeds[:1])
            time = run.config.lr * rows["step"].to_numpy()
            for label, column in ((sharp, SHARPNESS), (loss, "full_loss")):
                y = rows[column].to_numpy()
                drawn[title][label][arm] = time[np.isfinite(y)], y[np.isfinite(y)]
    return over_steps(drawn, edges, say("time = lr times steps"))
