"""Charts by plotly: the same lines, to zoom, to hide and to read values off."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from sgdstudy.figures.palette import light
from sgdstudy.figures.panels import Line, Panel, finite, thinned

FONT = 'system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
HEIGHT = 430  # pixels


def draw(title: str, panels: Sequence[Panel]) -> Any:
    """Draw panels side by side under a title; see `Chart.interactive`."""
    from plotly.subplots import make_subplots

    titles = [panel.title for panel in panels]
    figure = make_subplots(rows=1, cols=len(panels), subplot_titles=titles)
    named: set[str] = set()
    for column, panel in enumerate(panels, start=1):
        where = {"row": 1, "col": column}
        for line in panel.lines:
            for trace in _traces(line, panel, first=line.label not in named):
                figure.add_trace(trace, **where)
            named.add(line.label)
        figure.update_xaxes(title=panel.x, type="log" if "x" in panel.log else "linear", **where)
        figure.update_yaxes(
            title=panel.y, type="log" if "y" in panel.log else "linear", exponentformat="power",
            range=_range(panel), **where,
        )  # fmt: skip
        for name, at in panel.levels.items():
            figure.add_hline(at, line_dash="dot", line_color="#555", annotation_text=name,
                             annotation_position="top left", **where)  # fmt: skip
        for name, at in panel.marks.items():
            figure.add_vline(at, line_dash="dot", line_color="#555", annotation_text=name, **where)
    title = "<br>".join(textwrap.wrap(title, 66))
    figure.update_layout(
        title={"text": title, "x": 0.01, "xanchor": "left"}, template="plotly_white",
        font={"family": FONT, "size": 14}, height=HEIGHT, hovermode="closest",
        legend={"orientation": "h", "yanchor": "top", "y": -0.2},
        margin={"l": 70, "r": 20, "t": 80, "b": 60},
    )  # fmt: skip
    return figure


def html(figure: Any, script: bool | str = True) -> str:
    """Return a figure of `draw` as HTML: `script` as plotly's `include_plotlyjs`."""
    found: str = figure.to_html(
        full_html=bool(script), include_plotlyjs=script, config={"displaylogo": False}
    )
    return found


def _range(panel: Panel) -> list[float | None] | None:
    if panel.limits is None:
        return None
    if "y" not in panel.log:
        return list(panel.limits)
    return [None if at is None else float(np.log10(at)) for at in panel.limits]


def _traces(line: Line, panel: Panel, first: bool) -> list[Any]:
    """Return the band, what theory expects, and the line itself, in the order they lie."""
    from plotly.graph_objects import Scatter

    x, y = np.asarray(line.x, float), np.asarray(line.y, float)
    at = np.arange(len(x)) if line.dots else thinned(x, "x" in panel.log)
    group = {"legendgroup": line.label, "name": line.label or "", "showlegend": False}
    traces = []
    if line.band is not None and not line.dots:
        low, high = (np.asarray(part, float)[at] for part in line.band)
        red, green, blue = (int(line.color[i : i + 2], 16) for i in (1, 3, 5))
        traces.append(
            Scatter(
                x=np.concatenate([x[at], x[at][::-1]]), y=np.concatenate([high, low[::-1]]),
                fill="toself", fillcolor=f"rgba({red},{green},{blue},0.16)", line_width=0,
                hoverinfo="skip", mode="lines", **group,
            )
        )  # fmt: skip
    if line.expected is not None:
        places, expected = line.expected
        k = thinned(places, "x" in panel.log)
        traces.append(
            Scatter(
                x=places[k], y=expected[k], mode="lines", hovertemplate="theory: %{y:.4g}",
                line={"color": light(line.color), "width": 4, "dash": "dash"}, **group,
            )
        )  # fmt: skip
    own = group | {"showlegend": bool(line.label) and first}
    hover = f"{line.label}: %{{y:.4g}} at %{{x}}<extra></extra>" if line.label else None
    traces.append(
        Scatter(
            x=x[at], y=finite(y[at]), mode="markers" if line.dots else "lines",
            line={"color": line.color, "width": 2 if line.label else 1},
            marker={"color": line.color, "size": 5}, hovertemplate=hover,
            hoverinfo=None if line.label else "skip", error_y=_bars(line, y), **own,
        )
    )  # fmt: skip
    return traces


def _bars(line: Line, y: np.ndarray) -> dict[str, Any] | None:
    """Return the intervals of dots."""
    if line.band is None or not line.dots:
        return None
    low, high = (np.asarray(part, float) for part in line.band)
    return {"array": finite(high - y), "arrayminus": finite(y - low), "width": 0, "thickness": 1.5}
