"""Axes of what is near the limits of float64: their ends and numbers, which matplotlib overflows.

It adds a margin beyond the data, and looks for powers of ten further out; of 1e300 both are
infinite. What is beyond `panels.MOST` or below its inverse is not drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator

from sgdstudy.figures.panels import MOST

FAR = 1e60  # from here on, or below its inverse, matplotlib is not asked
MARGIN = 0.05  # of the axis, beyond the data
# settings while a figure is drawn: matplotlib looks for an axis' ends whenever they are asked for
BARE = {"axes.xmargin": 0, "axes.ymargin": 0}
TICKS = 7  # numbers of an axis, about


Ends = tuple[float | None, float | None]


def settle(axes: Any, y_ends: Ends = (None, None)) -> None:
    """Set margins, where the data is far from 1 also the ends and numbers, of axes made `BARE`.

    Args:
        axes: of matplotlib; what was set by hand stays.
        y_ends: lowest and highest y that is to be shown; None: as the data needs it.
    """
    axes.set_xmargin(MARGIN)
    axes.set_ymargin(MARGIN)
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        found = _ends(axes, name, axis) if getattr(axes, f"get_autoscale{name}_on")() else None
        if found is None:
            continue
        asked = y_ends if name == "y" else (None, None)
        low, high = (end if own is None else own for own, end in zip(asked, found, strict=True))
        getattr(axes, f"set_autoscale{name}_on")(False)  # else setting them looks for them first
        getattr(axes, f"set_{name}lim")(low, high)
        if axis.get_scale() == "log" and (high >= FAR or low <= 1 / FAR):
            _place_ticks(axis, _powers(low, high))
        elif axis.get_scale() == "symlog":
            ticks = _powers(axis.get_transform().linthresh, max(abs(low), abs(high)))
            below, above = [-t for t in ticks if -t >= low], [t for t in ticks if t <= high]
            _place_ticks(axis, [*below, 0.0, *above])


def _place_ticks(axis: Any, ticks: list[float]) -> None:
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())


def _ends(axes: Any, name: str, axis: Any) -> tuple[float, float] | None:
    """Return the ends that an axis needs, with a margin; None where matplotlib finds them."""
    box = axes.dataLim
    low, high = getattr(box, f"interval{name}")
    least = float(getattr(box, f"minpos{name}"))
    if axis.get_scale() == "log":
        if not 0 < least <= high < np.inf:
            return 1.0, 10.0  # nothing is drawn: any ends will do
        if high < FAR and least > 1 / FAR:
            return None
        margin = max(MARGIN * (np.log10(high) - np.log10(least)), 4)  # decades
        near, far = np.log10(least) - margin, np.log10(high) + margin
        most = np.log10(MOST)
        return float(10.0 ** max(near, -most)), float(10.0 ** min(far, most))
    if max(abs(low), abs(high)) < FAR or not np.isfinite([low, high]).all():
        return None
    low, high = max(low, -MOST), min(high, MOST)
    if axis.get_scale() == "linear":
        margin = MARGIN * (high - low) or MARGIN * high
        return float(low - margin), float(high + margin)
    return float(low * 10 if low < 0 else low), float(high * 10 if high > 0 else high)


def _powers(low: float, high: float) -> list[float]:
    """Return powers of ten between two positive numbers, evenly spread.

    >>> _powers(1e-3, 1e300)
    [1.0, 1e+50, 1e+100, 1e+150, 1e+200, 1e+250, 1e+300]
    """
    first, last = np.ceil(np.log10(low)), np.floor(np.log10(high))
    step = next(s for k in range(9) for s in (10**k, 2 * 10**k, 5 * 10**k)
                if (last - first) / s <= TICKS)  # fmt: skip
    first = step * np.ceil(first / step)
    return [float(10.0**k) for k in np.arange(first, last + 1, step)]
