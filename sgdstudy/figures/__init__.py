"""Figures of runs, each a plain matplotlib `Figure`; what theory expects is dashed."""

from sgdstudy.figures.drawing import describe, png
from sgdstudy.figures.exercises import (
    batch_gradients,
    batch_losses,
    by_epoch,
    cockpit,
    data,
    drift_and_sampling,
    gradient_norms,
    loss_by_epoch,
    path,
    radius_by_lr,
    steep_batches,
    stop_epochs,
    within_epoch,
)
from sgdstudy.figures.studies import curves, followed, over_steps, points, power_laws, strips
from sgdstudy.figures.tuned import lr_sensitivity, times_to_targets

__all__ = [
    "batch_gradients",
    "batch_losses",
    "by_epoch",
    "cockpit",
    "curves",
    "data",
    "describe",
    "drift_and_sampling",
    "followed",
    "gradient_norms",
    "loss_by_epoch",
    "lr_sensitivity",
    "over_steps",
    "path",
    "png",
    "points",
    "power_laws",
    "radius_by_lr",
    "steep_batches",
    "stop_epochs",
    "strips",
    "times_to_targets",
    "within_epoch",
]
