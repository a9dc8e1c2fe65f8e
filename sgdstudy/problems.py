"""Problems by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sgdstudy import checks
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
        InputError: a noise that is negative, not finite, or beyond float32; no seed.
    """
    allowed = "a standard deviation, at least 0 and finite"
    noise = checks.number("noise", noise, lambda v: v >= 0, allowed)
    generator = torch.Generator().manual_seed(checks.seed(seed))
    w_true = [0.3, -1.7, 2.5]
    x = np.arange(-10, 10, 0.01, dtype="f")
    y = parabola(w_true, x)
    if noise:
        y = y + noise * torch.randn(len(y), generator=generator, dtype=torch.float64).numpy()
    name = "curve" if not noise else f"curve, label noise {noise:g}"
    with np.errstate(over="ignore"):  # too much noise: the problem says so
        y = y.astype("f")
    return Problem(x, y, parabola, loss, w_true=w_true, name=name)


def legendre_parabola(w: Any, x: Any) -> Any:
    """Return w0 + w1 sqrt(3) x + w2 sqrt(5) (3 x^2 - 1) / 2, orthonormal for x uniform on +-1."""
    return w[0] + w[1] * (3**0.5 * x) + w[2] * (5**0.5 / 2 * (3 * x * x - 1))


def legendre(target: str = "normal", d: int = 100, seed: int = 0) -> Problem:
    """Return a fit whose Hessian is 2 I but for O(1/d^2), float64, started at its minimiser.

    The inputs are x_i = 2 (i + 1/2) / d - 1; the residuals are scaled to a root mean square of 1,
    so that all its loss is noise.

    Args:
        target: what the parabola is fitted to: `normal` draws, which go with nothing, or the
            `cubic` x^3, which the model misses systematically.
        d: number of samples, at least 4.
        seed: seed of the draws.

    Raises:
        InputError: a target that is not known, fewer than 4 samples, no seed.
    """
    checks.choice("target", target, TARGETS)
    d, seed = checks.count("d", d, least=4), checks.seed(seed)  # more samples than parameters
    x = 2 * (np.arange(d) + 0.5) / d - 1
    y = TARGETS[target](x, seed)
    fit = Problem(x, y, legendre_parabola, w_init=np.zeros(3)).least_squares
    assert fit is not None
    y = fit.features @ fit.w_star - fit.residual / np.sqrt(fit.least_loss)
    name = f"legendre, {target} target"
    return Problem(x, y, legendre_parabola, w_init=fit.w_star, w_true=fit.w_star, name=name)


def _normal(x: np.ndarray, seed: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(x), generator=generator, dtype=torch.float64).numpy()


TARGETS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "normal": _normal,
    "cubic": lambda x, seed: x**3,
}
PROBLEMS: dict[str, Callable[[], Problem]] = {"curve": curve, "legendre": legendre}


def get(problem: Problem | str) -> Problem:
    """Return the problem, made with its defaults where a name of `PROBLEMS` is given."""
    if isinstance(problem, Problem):
        return problem
    return PROBLEMS[checks.choice("problem", problem, PROBLEMS)]()
