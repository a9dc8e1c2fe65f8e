"""Losses of a batch, for R replicas at once: `(R, B)` or `(R, B, m)` in, `(R,)` out.

Gradients are those of these very expressions, so a run rounds as the notebook's loop does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted
from sgdstudy.language import unknown
from sgdstudy.problems import together

BatchLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def mse(prediction: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    r"""Mean squared error, \(\frac1{Bm}\sum (f - y)^2\), as `torch.nn.MSELoss`."""
    residual = prediction - y  # rounds as F.mse_loss, loss and gradient, and is quicker to call
    return (residual * residual).flatten(1).mean(1)


def abs_(prediction: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    r"""Mean over samples of \(\|y_i - f(x_i)\|\): the text's unsquared Q_i; it adds up."""
    residual = prediction - y
    if residual.dim() == 2:
        return residual.abs().mean(1)
    return torch.linalg.vector_norm(residual.flatten(2), dim=2).mean(1)


def norm(prediction: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    r"""Norm of the batch's stacked residuals, \(\sqrt{\sum_i \|r_i\|^2}\)."""
    return torch.linalg.vector_norm((prediction - y).flatten(1), dim=1)


def rmse(prediction: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Square root of the mean squared error."""
    residual = (prediction - y).flatten(1)
    return torch.linalg.vector_norm(residual, dim=1) / residual.shape[1] ** 0.5


def cross_entropy(prediction: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of class logits `(R, B, C)` against classes `(R, B)`."""
    return F.cross_entropy(prediction.transpose(1, 2), y, reduction="none").mean(1)


LOSSES: dict[str, BatchLoss] = {
    "mse": mse,
    "abs": abs_,
    "norm": norm,
    "rmse": rmse,
    "cross_entropy": cross_entropy,
}
# of torch, by their names
SAME = {
    "cross_entropy": "cross_entropy",
    "CrossEntropyLoss": "cross_entropy",
    "mse_loss": "mse",
    "MSELoss": "mse",
}


def per_sample(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> BatchLoss:
    """Turn a user's `loss(prediction, y) -> (B,)` into the mean over a batch, per replica.

    Where `torch.vmap` cannot follow it (it reads values, as `gaussian_nll_loss`), replicas come one
    after the other.

    Raises:
        InputError: when it does not return one value per sample.
    """
    of_each = together.by_rows(loss)

    def batch_loss(prediction: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        values = of_each(prediction, y)
        shape = tuple(getattr(values, "shape", ()))
        if not isinstance(values, torch.Tensor) or shape != tuple(prediction.shape[:2]):
            given = f"shape {shape[1:]}" if isinstance(values, torch.Tensor) else quoted(values)
            ours = SAME.get(name_of(loss))
            more = isinstance(values, torch.Tensor) and shape[:2] == tuple(prediction.shape[:2])
            how = "the mean of the others, .flatten(1).mean(1)" if more else "reduction='none'"
            raise InputError(
                f"the loss {name_of(loss)!r} returned {given} for a batch of "
                f"{prediction.shape[1]}; expected a tensor of one value per sample (B,), for "
                f"instance with {how}{f', or loss={ours!r}' if ours else ''}"
            )
        return values.mean(1)

    return batch_loss


def resolve(loss: Any) -> BatchLoss:
    """Return the batch loss for a name of `LOSSES` or a callable returning `(B,)`."""
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise unknown("loss", loss, LOSSES)
        return LOSSES[loss]
    if callable(loss):
        return per_sample(checks.made("loss", loss))
    raise InputError(
        f"loss is a name or a callable, not {quoted(loss)}. Valid: {', '.join(LOSSES)}"
    )


def name_of(loss: Any) -> str:
    """Return the name under which a loss is logged."""
    return loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
