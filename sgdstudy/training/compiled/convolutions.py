"""Convolutions, taken apart into copies and products of matrices.

The pixels that each weight sees are copied side by side, `(C k l, N h w)`. Then a convolution of a
whole batch is one product by its weights, and so are its gradients. They are copied once for both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from sgdstudy.errors import Unsupported
from sgdstudy.language import say
from sgdstudy.problems.torch_operations import address

Sizes = Sequence[int]  # of rows and columns


class Ways(NamedTuple):
    """How a convolution goes over images; a series is an image of one row."""

    padding: Sizes
    shape: Sizes  # of the result
    kernel: Sizes
    stride: Sizes
    dilation: Sizes


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


class Convolutions:
    """Convolutions of one run of a step, and their gradients."""

    def __init__(self) -> None:
        # by the images and how they are looked at; they are held, so that no address is used twice
        self._seen: dict[Any, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    @property
    def operations(self) -> dict[Any, Callable[..., Any]]:
        """What stands for which operation of ATen's."""
        aten = torch.ops.aten
        return {
            aten.convolution.default: self.forward,
            aten.convolution_backward.default: self.backward,
        }

    def forward(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *settings: Any
    ) -> torch.Tensor:
        """Return `aten.convolution`, `(N, O, h, w)`."""
        ways = _ways(x, weight, settings)
        out = torch.mm(weight.flatten(1), self._looked_at(x, ways)[1])
        if bias is not None:
            out = out + bias[:, None]
        return out.view(len(weight), len(x), *ways.shape[4 - x.dim() :]).transpose(0, 1)

    def backward(
        self, gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, _: Any, *given: Any
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Return the gradients of x, of the weights and of the bias, those that are wanted."""
        *settings, wanted = given
        ways = _ways(x, weight, settings)
        padded, columns = self._looked_at(x, ways)
        flat = gradient.transpose(0, 1).flatten(1)  # (O, N h w)
        of_x = of_weight = of_bias = None
        if wanted[0]:
            seen = torch.empty_like(padded).zero_()
            parts = torch.mm(weight.flatten(1).t(), flat)
            places = windows(seen, *ways[1:])
            parts = parts.view(padded.shape[0], -1, padded.shape[1], *ways.shape)
            for place, part in zip(places, parts.unbind(1), strict=True):
                place.add_(part)
            (top, left), (height, width) = ways.padding, padded.shape[2:]
            inner = seen[:, :, top : height - top, left : width - left]
            of_x = inner.transpose(0, 1).reshape(x.shape)
        if wanted[1]:
            of_weight = torch.mm(columns, flat.t()).t().reshape(weight.shape)
        if wanted[2]:
            of_bias = flat.sum(1)
        return of_x, of_weight, of_bias

    def forget(self, written: Sequence[torch.Tensor]) -> None:
        """Forget what was seen of images that may hold something else now."""
        places = {address(tensor) for tensor in written}
        self._seen = {key: found for key, found in self._seen.items() if key[0] not in places}

    def _looked_at(self, x: torch.Tensor, ways: Ways) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images with zeros around them, and what every weight sees of them."""
        key = (address(x), x.storage_offset(), x.shape, x.stride(), str(ways))
        if key not in self._seen:
            padded = _padded(x, ways.padding)
            columns = torch.stack(windows(padded, *ways[1:]), 1).flatten(2).flatten(0, 1)
            self._seen[key] = x, padded, columns
        return self._seen[key][1:]


def _ways(x: torch.Tensor, weight: torch.Tensor, settings: Sequence[Any]) -> Ways:
    """Return how a convolution goes over images.

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
    return Ways(padding, shape, kernel, stride, dilation)


def _padded(x: torch.Tensor, padding: Sizes) -> torch.Tensor:
    """Return images with zeros around them, channels first, `(C, N, H, W)`."""
    images = (x if x.dim() == 4 else x.unsqueeze(2)).transpose(0, 1)
    top, left = padding
    return F.pad(images, (left, left, top, top)) if any(padding) else images
