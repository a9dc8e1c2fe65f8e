"""What separates an epoch's losses: ratios of them, parts of their difference, the largest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sgdstudy import theory

if TYPE_CHECKING:
    from sgdstudy.figures.style import Run


def gaps(run: Run) -> list[theory.Gap]:
    """Return what separates running and full loss, epoch by epoch, of the first seed."""
    seed = run.config.seeds[0]
    steps = run.load(columns=["seed", "epoch", "size", "loss", "full_loss"], seeds=seed)
    ends = run.load("epochs", columns=["seed", "epoch", "full_loss"], seeds=seed)
    by_epoch = dict(iter(steps.groupby("epoch")))
    found = []
    for epoch, end in zip(ends["epoch"], ends["full_loss"], strict=True):
        rows = by_epoch[epoch]
        loss, full, size = (rows[k].to_numpy(dtype=float) for k in ("loss", "full_loss", "size"))
        found.append(theory.gap(loss, full, size, end))
    return found


def ratio(run: Run, column: str, other: str) -> np.ndarray:
    """Return a column of `epochs` over another, the median over the seeds by epoch, `(E,)`."""
    rows = run.load("epochs", columns=["seed", "epoch", column, other])
    by_epoch = (rows[column] / rows[other]).groupby(rows["epoch"]).median()
    found: np.ndarray = by_epoch.to_numpy(dtype=float)
    return found


def over_full(run: Run, column: str) -> np.ndarray:
    """Return a loss of `epochs` over the full loss, by epoch `(E,)`, median over the seeds."""
    return ratio(run, column, "full_loss")


def peak(run: Run, epoch: int = 1) -> tuple[float, int]:
    """Return the largest loss of a batch of the first seed in an epoch, and which, from 1."""
    which = {"seeds": run.config.seeds[0], "epochs": slice(epoch, epoch + 1)}
    rows = run.load(columns=["loss", "batch"], **which)
    at = rows["loss"].idxmax()
    return float(rows["loss"][at]), int(rows["batch"][at]) + 1
