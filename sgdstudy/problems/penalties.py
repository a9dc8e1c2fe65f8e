"""Penalties on the parameters, added to the loss: `l1`, `l2`, or a function of w."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sgdstudy import checks
from sgdstudy.errors import InputError, Unsupported, failed, quoted
from sgdstudy.problems import together, trial

Penalty = Callable[[torch.Tensor], torch.Tensor]  # parameters (R, p) -> (R,)
SUMS: dict[str, Penalty] = {"l1": lambda w: w.abs().sum(1), "l2": lambda w: (w * w).sum(1)}


def resolve(penalty: Any) -> Penalty | None:
    r"""Return what is added to the losses of R replicas; None: nothing.

    Args:
        penalty: `("l2", c)`, \(c \sum w_i^2\); `("l1", c)`, \(c \sum |w_i|\); or a callable from
            parameters `(p,)` to a number.

    Raises:
        InputError: anything else.
    """
    if penalty is None:
        return None
    if callable(penalty):
        return _of_rows(checks.made("penalty", penalty))
    if not isinstance(penalty, (tuple, list)) or len(penalty) != 2:
        raise InputError(f"penalty is as ('l2', 0.01), or a function of w, not {quoted(penalty)}")
    total = SUMS[checks.choice("penalty", penalty[0], SUMS)]
    size = checks.number("the penalty", penalty[1], lambda v: v >= 0, "at least 0 and finite")
    return lambda w: size * total(w)


def _of_rows(penalty: Callable[[torch.Tensor], torch.Tensor]) -> Penalty:
    def of_one(w: torch.Tensor) -> torch.Tensor:
        found = penalty(w)
        if isinstance(found, torch.Tensor) and found.shape == ():
            return found
        tensor = isinstance(found, torch.Tensor)
        what = f"shape {tuple(found.shape)}" if tensor else quoted(found)
        raise InputError(
            f"the penalty {name_of(penalty)!r} returns {what}; "
            f"expected a number, a tensor of shape ()"
        )

    of_each = together.by_rows(of_one)

    def of_rows(w: torch.Tensor) -> torch.Tensor:
        try:
            return of_each(w)
        except (InputError, Unsupported):
            raise
        except Exception as error:
            raise failed(f"the penalty {name_of(penalty)!r}", error) from error

    return of_rows


def name_of(penalty: Any) -> str:
    """Return what a penalty is logged as.

    >>> name_of(("l2", 0.01))
    'l2 0.01'
    """
    if callable(penalty):
        return str(getattr(penalty, "__name__", type(penalty).__name__))
    return f"{penalty[0]} {float(penalty[1]):g}"


def check(penalty: Penalty | None, w: torch.Tensor) -> None:
    """Raise `InputError` where a penalty on parameters `(1, p)` has no gradient, or draws."""
    if penalty is None:
        return
    with torch.enable_grad():
        trial.pure("the penalty", penalty, w.requires_grad_())
        trial.require_gradient("the penalty", penalty, "w", w)
