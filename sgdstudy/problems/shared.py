"""Which of the arrays and lists that a run is made of are one in memory, wholly or in part."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def overlaps(values: Sequence[Any]) -> list[str]:
    """Return which lists are there again, and which arrays overlap, by their places in values."""
    first: dict[int, int] = {}
    for i, value in enumerate(values):
        first.setdefault(id(value), i)
    found = [f"{first[id(v)]}={i}" for i, v in enumerate(values) if first[id(v)] != i]
    spans = sorted((*_span(values[i]), i) for i in first.values() if _is_array(values[i]))
    for (low, high, i), (start, _, j) in itertools.pairwise(_joined(spans)):
        if start < high:
            found.append(f"{i}+{start - low}={j}")
    return sorted(found)


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray)


def _joined(spans: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return spans of memory, in order, each with the end of the longest that began before."""
    ends = itertools.accumulate((high for _, high, _ in spans), max)
    return [(low, end, i) for (low, _, i), end in zip(spans, ends, strict=True)]


def _span(value: Any) -> tuple[int, int]:
    """Return where an array begins and ends in memory."""
    if isinstance(value, torch.Tensor):
        start, size, strides = value.data_ptr(), value.element_size(), value.stride()
        strides = tuple(size * stride for stride in strides)
    else:
        start, size = value.__array_interface__["data"][0], value.itemsize
        strides = value.strides
    reach = [(n - 1) * step for n, step in zip(value.shape, strides, strict=True)]
    if 0 in value.shape:
        return start, start
    return start + sum(r for r in reach if r < 0), start + sum(r for r in reach if r > 0) + size
