"""How sharp a minimum may be for a step to stay there: rules of full batches, and any network."""

from __future__ import annotations

import numpy as np
import torch
from torch.func import jacrev

from sgdstudy.errors import InputError
from sgdstudy.problems.least_squares import LeastSquares, from_features
from sgdstudy.problems.linearity import MAX_ENTRIES, scales
from sgdstudy.problems.problem import Problem

FLAT = 1e-5  # singular values of the Jacobian below this share of the largest: nothing moves there


def sharpness_limit(lr: float, momentum: float = 0.0, nesterov: bool = False) -> float:
    """Return the eigenvalue of the Hessian above which full-batch steps grow on a quadratic.

    2 / lr for descent, (2 + 2 beta) / lr with heavy-ball momentum beta, and
    (2 + 2 beta) / ((1 + 2 beta) lr) with Nesterov's, all as torch.optim.SGD steps: at the limit
    a root of z^2 - (1 + beta - lr lambda) z + beta, or, Nesterov's, of
    z^2 - (1 + beta) (1 - lr lambda) z + beta (1 - lr lambda), is -1 (Cohen et al. 2021).

    Example:
        >>> [round(sharpness_limit(0.1, *rule), 9) for rule in ((), (0.5,), (0.5, True))]
        [20.0, 30.0, 15.0]
    """
    if lr == 0:
        return np.inf
    return (2 + 2 * momentum) / (1 + 2 * momentum if nesterov else 1) / lr


def growth_per_step(
    lr: float, curvature: float, momentum: float = 0.0, nesterov: bool = False
) -> float:
    """Return the factor of the loss per full-batch step on a quadratic, in the long run.

    The square of the largest root of the polynomial of `sharpness_limit`: of the loss
    (lambda / 2) z^2 in one direction, above 1 beyond that limit.

    Args:
        curvature: lambda.
        momentum: beta.
        nesterov: whether the momentum is Nesterov's.

    Example:
        >>> [round(growth_per_step(0.1, 30.0, *rule), 9) for rule in ((), (0.5,))]
        [4.0, 1.0]
    """
    left = 1 - lr * curvature
    total, product = momentum + left, momentum
    if nesterov:
        total, product = (1 + momentum) * left, momentum * left
    return float(np.abs(np.roots([1, -total, product])).max() ** 2)


def linearised(problem: Problem, w: np.ndarray) -> LeastSquares:
    """Return the least-squares problem that a model is close to w, for a sum of squares.

    f(w + delta, x) is taken as f(w, x) + J delta, J its Jacobian at w `(N, p)`, N = d m. As no
    gradient ever leaves the rows of J, the parameters are coordinates in their span, `(k,)` with k
    at most N; directions in which J is all but flat are left out. The Hessian is the Gauss-Newton
    matrix (2 / N) J^T J, which is the loss's own where all the data are fitted.

    Args:
        problem: any model, under the loss `mse` or another sum of squares.
        w: `(p,)`.

    Raises:
        InputError: another loss, or a Jacobian of too many numbers.
    """
    if problem.y.numel() * problem.p > MAX_ENTRIES:
        raise InputError(
            f"the Jacobian of {problem.y.numel()} values and {problem.p} parameters is more than "
            f"{MAX_ENTRIES:g} numbers; give fewer samples"
        )
    exact = problem.to(torch.float64, "cpu")
    scale = scales(problem.loss, exact.y)
    if scale is None:
        raise InputError(
            f"linearised takes the loss 'mse' or another sum of squares, not {problem.loss_name!r}"
        )
    at = torch.as_tensor(np.array(w, dtype=float))
    jacobian = jacrev(lambda v: exact.model(v, exact.x).flatten())(at).numpy()
    with torch.no_grad():
        error = (exact.y - exact.model(at, exact.x)).flatten().numpy()
    jacobian, error = scale.numpy()[:, None] * jacobian, scale.numpy() * error
    u, s, _ = np.linalg.svd(jacobian, full_matrices=False)
    keep = s > FLAT * s.max(initial=0)
    return from_features(u[:, keep] * s[keep], error, len(error) // problem.d)
