"""Figures of runs and of what studies computed of them; what theory expects is dashed.

A `Chart` is data, panels of lines, drawn as a picture by matplotlib and as a page by plotly; other
figures are plain matplotlib ones.

Promises: a figure asks a run for what the Protocol `style.Run` names and for nothing else, so that
stored runs are drawn like fresh ones; no figure computes what a claim would have to know.
May import: `theory`, `recipe`, `quantities`, `problems` and below.
Start reading: `chart.py` and `panels.py` (charts), `lines.py` (their lines, from runs); `style.py`
(what plain figures share), then `runs.py` (by epoch), `steps.py`, `parameters.py` and `tables.py`;
`backend.py` imports matplotlib, and is imported first.
"""

from sgdstudy.figures import backend, interactive, lines, palette, tuning
from sgdstudy.figures.chart import Chart
from sgdstudy.figures.drift import followed, tracking
from sgdstudy.figures.panels import Line, Panel
from sgdstudy.figures.parameters import data, path, radius_by_lr, steep_batches
from sgdstudy.figures.runs import (
    batch_gradients,
    batch_losses,
    by_epoch,
    excess_grid,
    loss_by_epoch,
    stop_epochs,
    within_epoch,
)
from sgdstudy.figures.stability import sharpness
from sgdstudy.figures.steps import cockpit, drift_and_sampling, gradient_norms
from sgdstudy.figures.style import describe, png
from sgdstudy.figures.tables import curves, numbered, over_steps, points, strips
from sgdstudy.figures.tuning import lr_sensitivity, times_to_targets

__all__ = [
    "Chart",
    "Line",
    "Panel",
    "batch_gradients",
    "batch_losses",
    "by_epoch",
    "cockpit",
    "curves",
    "data",
    "describe",
    "drift_and_sampling",
    "excess_grid",
    "followed",
    "gradient_norms",
    "interactive",
    "lines",
    "loss_by_epoch",
    "lr_sensitivity",
    "numbered",
    "over_steps",
    "palette",
    "path",
    "png",
    "points",
    "radius_by_lr",
    "sharpness",
    "steep_batches",
    "stop_epochs",
    "strips",
    "times_to_targets",
    "tracking",
    "tuning",
    "within_epoch",
]
