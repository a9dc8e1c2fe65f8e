"""Convolutions, taken apart into copies and products of matrices.

The pixels that each weight sees are copied side by side, `(C k l, N h w)`. Then a convolution of a
whole batch is one product by its weights, and so are its gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from sgdstudy.errors import Unsupported
from sgdstudy.language import say

Sizes = Sequence[int]  # of rows and columns


def windows(
    images: torch.Tensor, shape: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes
) -> list[torch.Tensor]:
    """Return, for each place of a window, what h by w windows see there, views `(..., h, w)`."""
    return [
        images[
            ...,
            slice(k * dilation[0], k * dilation[0] + (shape[0] - 1) * stride[0] + 1, stride[0]),
            slice(m * dilation[1], m * dilation[1] + (shape[1] - 1) * stride[1] + 1, stride[1]),
        ]
        for k in range(kernel[0])
        for m in range(kernel[1])
    ]


def _convolution(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *settings: Any
) -> torch.Tensor:
    """Return `aten.convolution`, `(N, O, h, w)`."""
    padding, look, shape = _ways(x, weight, settings)
    columns = _columns(_padded(x, padding), shape, look)
    out = torch.mm(weight.flatten(1), columns)
    if bias is not None:
        out = out + bias[:, None]
    return out.view(len(weight), len(x), *shape[4 - x.dim() :]).transpose(0, 1)


def _convolution_backward(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, _: Any, *given: Any
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients of x, of the weights and of the bias, those that are wanted."""
    *settings, wanted = given
    padding, look, shape = _ways(x, weight, settings)
    padded = _padded(x, padding)
    flat = gradient.transpose(0, 1).flatten(1)  # (O, N h w)
    of_x = of_weight = of_bias = None
    if wanted[0]:
        columns = torch.mm(weight.flatten(1).t(), flat)
        seen = torch.empty_like(padded).zero_()
        parts = columns.view(padded.shape[0], -1, padded.shape[1], *shape).unbind(1)
        for place, part in zip(windows(seen, shape, *look), parts, strict=True):
            place.add_(part)
        (top, left), (height, width) = padding, padded.shape[2:]
        inner = seen[:, :, top : height - top, left : width - left]
        of_x = inner.transpose(0, 1).reshape(x.shape)
    if wanted[1]:
        columns = _columns(padded, shape, look)
        of_weight = torch.mm(columns, flat.t()).t().reshape(weight.shape)
    if wanted[2]:
        of_bias = flat.sum(1)
    return of_x, of_weight, of_bias


def _ways(
    x: torch.Tensor, weight: torch.Tensor, settings: Sequence[Any]
) -> tuple[list[int], tuple[list[int], list[int], list[int]], list[int]]:
    """Return the padding, kernel, stride and dilation, and the shape of the result, as of images.

    Raises:
        Unsupported: a convolution that is transposed, in groups, or of more dimensions.
    """
    stride, padding, dilation, transposed, _, groups = settings
    if transposed or groups != 1 or x.dim() not in (3, 4):
        raise Unsupported(say("the model holds a convolution in groups, in 3D or transposed"))
    series = [1] * (4 - x.dim())  # a series is an image of one row
    kernel = [*series, *weight.shape[2:]]
    padding = [*([0] * len(series)), *padding]
    stride, dilation = [*series, *stride], [*series, *dilation]
    sizes = zip([*series, *x.shape[2:]], kernel, stride, padding, dilation, strict=True)
    shape = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes]
    return padding, (kernel, stride, dilation), shape


def _padded(x: torch.Tensor, padding: Sizes) -> torch.Tensor:
    """Return images with zeros around them, channels first, `(C, N, H, W)`."""
    images = (x if x.dim() == 4 else x.unsqueeze(2)).transpose(0, 1)
    top, left = padding
    return F.pad(images, (left, left, top, top)) if any(padding) else images


def _columns(padded: torch.Tensor, shape: Sizes, look: tuple[Sizes, Sizes, Sizes]) -> torch.Tensor:
    """Return what every weight sees, `(C k l, N h w)`."""
    return torch.stack(windows(padded, shape, *look), 1).flatten(2).flatten(0, 1)


OWN: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.convolution.default: _convolution,
    torch.ops.aten.convolution_backward.default: _convolution_backward,
}
