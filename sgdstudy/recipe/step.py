"""What a rule sees of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

# a replica's number and other parameters (p,) -> loss and gradient of its batch there
Again = Callable[[int, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Step(NamedTuple):
    """What a rule sees of a step, for R replicas.

    Attributes:
        gradient: of the batch losses, `(R, p)`.
        loss: the batch losses, `(R,)`.
        lr: step size of this step; None: the rule's own. Where there are groups, that of each.
        again: evaluates the batch of one of the replicas at other parameters.
    """

    gradient: torch.Tensor
    loss: torch.Tensor
    lr: Any = None
    again: Again | None = None
