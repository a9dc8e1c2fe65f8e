"""The notebook's function, with the notebook's signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sgdstudy.errors import InputError
from sgdstudy.history.history import History
from sgdstudy.problems.data import as_tensor
from sgdstudy.problems.problem import Problem
from sgdstudy.training.train import train


def sgd(
    f: Callable[[Any, torch.Tensor], torch.Tensor],
    w: torch.Tensor,
    t: Any,
    eta: float = 0.0001,
    epsilon: float = 0.01,
    nepoch: int = 200,
    minibatch: int | None = 10,
    *,
    seed: int = 0,
) -> History:
    """Run the course's gradient descent: updates w in place, as the exercises ask.

    Args:
        f: the model, `f(w, x)`.
        w: parameters `(p,)`, changed in place.
        t: points `(d, n + 1)`: inputs, then the target in the last column.
        eta: step size.
        epsilon: stop once the running loss of an epoch is below.
        nepoch: the most epochs.
        minibatch: samples per batch; None for the full batch of Exercise 1.
        seed: which permutations; the global generator is not touched.

    Returns:
        The history of the run.

    Raises:
        InputError: as `train`; t that is no table of numbers; w that is no vector of floats.

    Example:
        >>> import torch, sgdstudy as ss
        >>> points = torch.stack([ss.problems.curve().x, ss.problems.curve().y], 1)
        >>> w = torch.zeros(3, requires_grad=True)
        >>> history = sgd(ss.problems.parabola, w, points, eta=0.0002, epsilon=0.1, nepoch=50)
        >>> int(history.stop_epoch[0])
        48
    """
    points = as_tensor(t, "t")
    if points.dim() != 2 or points.shape[1] < 2:
        raise InputError(f"t has shape {tuple(points.shape)}; expected (d, n + 1): inputs, target")
    if not isinstance(w, torch.Tensor) or not w.is_floating_point():
        raise InputError("w must be a tensor of floats, as torch.zeros(3, requires_grad=True)")
    x = points[:, 0] if points.shape[1] == 2 else points[:, :-1]
    problem = Problem(x, points[:, -1], model=f, w_init=w.detach().clone(), name="sgd")
    history = train(
        problem,
        optimizer="notebook",
        lr=eta,
        batch_size=minibatch,
        epochs=nepoch,
        stop=("running", epsilon),
        seeds=[seed],
        description="sgd",
    )
    with torch.no_grad():
        w.copy_(torch.as_tensor(history.w[0]))
    return history
