"""The step size and momentum with which the mean square of random batches falls fastest."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sgdstudy import checks
from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.theory.descent import eigenvalues
from sgdstudy.theory.stationary import mean_square_radius

RULES = ("descent", "heavy ball", "Nesterov")
# where the least is looked for first: lr times the largest eigenvalue, beta / (1 - beta)
GRID = np.geomspace(0.01, 4, 12), np.geomspace(0.1, 100, 12)
Point = Sequence[float] | np.ndarray  # log(lr times the largest eigenvalue), log of those odds
ROUNDS = 3  # of a simplex that begins anew where the last one ended: it stalls at a kink


@dataclass(frozen=True)
class Fastest:
    """A step size and a momentum, as of `torch.optim.SGD`.

    Attributes:
        lr: the step size.
        momentum: beta; 0 of descent.
        factor: of the mean square of w - w* per step in the long run, noise aside.
    """

    lr: float
    momentum: float
    factor: float


def fastest_steps(
    ls: LeastSquares, d: int, batch_size: int, replacement: bool = False, rule: str = "descent"
) -> Fastest:
    """Return the step size and momentum with the least `mean_square_radius`.

    For independent batches. Of all the data the factor is the square of Polyak's
    (sqrt(kappa) - 1) / (sqrt(kappa) + 1) for heavy ball, of 1 - 2 / sqrt(3 kappa + 1) for
    Nesterov's (Lessard, Recht, Packard 2016), of (kappa - 1) / (kappa + 1) for descent.

    Args:
        rule: `descent`, `heavy ball` or `Nesterov`.

    Raises:
        InputError: another rule; more parameters than second moments are known of.
    """
    from scipy.optimize import minimize  # late: 0.3 s

    checks.choice("rule", rule, RULES)
    top = eigenvalues(ls)[-1]

    def steps(at: Point) -> tuple[float, float]:
        momentum = 1 / (1 + np.exp(-at[1])) if len(at) > 1 else 0.0
        return float(np.exp(at[0]) / top), float(momentum)

    def log_factor(at: Point) -> float:
        lr, momentum = steps(at)
        given = (lr, replacement, momentum, rule == "Nesterov")
        return float(np.log(max(mean_square_radius(ls, d, batch_size, *given), 1e-300)))

    parts = 1 if rule == "descent" else 2
    best = np.array(min(itertools.product(*np.log(GRID[:parts])), key=log_factor))
    for _ in range(ROUNDS):
        simplex = best + np.vstack([np.zeros(parts), np.eye(parts) / 5])
        options = {"initial_simplex": simplex, "xatol": 1e-8, "fatol": 1e-10, "maxiter": 200}
        best = minimize(log_factor, best, method="Nelder-Mead", options=options).x
    return Fastest(*steps(best), float(np.exp(log_factor(best))))
