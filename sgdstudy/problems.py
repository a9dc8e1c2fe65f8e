"""Problems by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sgdstudy.errors import InputError, unknown
from sgdstudy.problem import Problem


def parabola(w: Any, x: Any) -> Any:
    """Return w0 x^2 + w1 x + w2, the notebook's model (section 1, equation 2)."""
    return w[0] * x * x + w[1] * x + w[2]


def curve(noise: float = 0.0, loss: Any = "mse", seed: int = 0) -> Problem:
    """Return the notebook's curve fit: 2000 float32 points of 0.3 x^2 - 1.7 x + 2.5 on [-10, 10).

    Args:
        noise: standard deviation of normal noise added to the labels.
        loss: see `Problem`.
        seed: seed of the noise.

    Raises:
        InputError: a noise that is negative or not finite.
    """
    if not (np.isfinite(noise) and noise >= 0):
        raise InputError(f"noise is a standard deviation, at least 0 and finite, not {noise!r}")
    w_true = [0.3, -1.7, 2.5]
    x = np.arange(-10, 10, 0.01, dtype="f")
    y = parabola(w_true, x)
    if noise:
        generator = torch.Generator().manual_seed(seed)
        y = y + noise * torch.randn(len(y), generator=generator, dtype=torch.float64).numpy()
    name = "curve" if not noise else f"curve, label noise {noise:g}"
    return Problem(x, y.astype("f"), parabola, loss, w_true=w_true, name=name)


PROBLEMS = {"curve": curve}


def get(problem: Problem | str) -> Problem:
    """Return the problem, made with its defaults where a name of `PROBLEMS` is given."""
    if isinstance(problem, Problem):
        return problem
    if problem not in PROBLEMS:
        raise unknown("problem", problem, PROBLEMS)
    return PROBLEMS[problem]()
