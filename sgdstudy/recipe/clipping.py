"""Gradients that are clipped before the step, each replica's by itself."""

from __future__ import annotations

import torch

TINY = 1e-6  # added to the norm, as `torch.nn.utils.clip_grad_norm_` does


def clipped(
    gradient: torch.Tensor, norm: float | None = None, value: float | None = None
) -> torch.Tensor:
    r"""Return gradients `(R, p)` clipped by value, then by norm, as `torch.nn.utils` does.

    \[g \leftarrow \mathrm{clamp}(g, -v, v), \qquad
      g \leftarrow g \min\left(1, \frac{c}{\|g\| + 10^{-6}}\right)\]

    Args:
        gradient: of R replicas; it stays as it is.
        norm: c, the largest norm of a replica's gradient; None: any.
        value: v, the largest size of one of its numbers; None: any.
    """
    if value is not None:
        gradient = gradient.clamp(-value, value)
    if norm is not None:
        length = (gradient * gradient).sum(1, keepdim=True).sqrt()
        gradient = gradient * (norm / (length + TINY)).clamp(max=1.0)
    return gradient
