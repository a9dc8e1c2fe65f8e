"""Columns of a run as arrays, by step or epoch and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sgdstudy import checks
from sgdstudy.history.rows import AXIS
from sgdstudy.recipe.columns import of_parameters

if TYPE_CHECKING:
    from sgdstudy.figures.style import Run


def array(run: Run, kind: str, column: str, **which: Any) -> np.ndarray:
    """Return a column by step or epoch and seed, `(S, R)` or `(E, R)`; NaN beyond a seed's end.

    Args:
        kind: `steps` or `epochs`.
        column: its name.
        which: `seeds`, `steps`, `epochs`, as for `History.load`.

    Example:
        >>> import sgdstudy as ss
        >>> history = ss.train("curve", batch_size=10, lr=1e-5, epochs=3, seeds=range(2))
        >>> history.array("epochs", "full_loss").shape
        (3, 2)
    """
    return _columns(run, kind, [column], which)[:, :, 0]


def parameters(run: Run, kind: str = "steps", **which: Any) -> np.ndarray:
    """Return w by step (before it) or epoch (at its end), seed and parameter, `(S, R, p)`.

    NaN beyond a seed's end. The arguments: see `array`.
    """
    return _columns(run, kind, of_parameters(run.problem.p), which)


def _columns(run: Run, kind: str, columns: Sequence[str], which: Mapping[str, Any]) -> np.ndarray:
    """Return columns by step or epoch and seed, `(S, R, columns)`; NaN beyond a seed's end."""
    at = AXIS[checks.choice("rows", kind, list(AXIS))]
    rows = run.load(kind, columns=["seed", at, *columns], **which)
    points, row = np.unique(rows[at], return_inverse=True)
    seeds = list(run.config.seeds)  # one that ended before its first row has none
    if "seeds" in which:
        there = set(rows["seed"].unique())
        seeds = [seed for seed in seeds if seed in there]
    found = np.full((len(points), len(seeds), len(columns)), np.nan)
    found[row, pd.Index(seeds).get_indexer(rows["seed"])] = rows[list(columns)].to_numpy(float)
    return found
