"""What a rule sees of a step."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Step(NamedTuple):
    """What a rule sees of a step, for R replicas.

    Attributes:
        gradient: of the batch losses, `(R, p)`.
        loss: the batch losses, `(R,)`.
        lr: step size of this step; None: the rule's own.
    """

    gradient: torch.Tensor
    loss: torch.Tensor
    lr: float | None = None
