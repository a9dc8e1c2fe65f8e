"""How values are written for people."""

from __future__ import annotations

import math
from typing import Any


def as_python(value: Any) -> Any:
    """Return numpy scalars, arrays and tensors as Python values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [as_python(item) for item in value]
    return value


def written(value: Any) -> str:
    """Write a value for a table.

    >>> written([0.30791, -1.7]), written(9340), written(True), written(None), written(float("inf"))
    ('0.3079, -1.7', '9340', 'yes', '–', '∞')
    """
    value = as_python(value)
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isinf(value):
        return "∞" if value > 0 else "-∞"  # a stop epoch: never
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 or abs(value) >= 1e6 else f"{value:.0f}"
    if isinstance(value, list):
        return ", ".join(written(item) for item in value)
    return str(value)
