"""Charts by plotly: the same lines, to zoom, to hide and to read values off."""

from __future__ import annotations

import base64
import textwrap
import zlib
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from sgdstudy.errors import FIXED
from sgdstudy.figures.palette import light
from sgdstudy.figures.panels import Line, Panel, dotted, drawable, names_of_y, share_scale, thinned
from sgdstudy.language import catalogue, language, say, to_say

FONT = 'system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
HEIGHT = 430  # pixels
THEORY = to_say("Light and dashed: what theory expects.")


def draw(title: str, panels: Sequence[Panel], note: str = "") -> Any:
    """Draw panels side by side under a title; see `Chart.interactive`."""
    from plotly.subplots import make_subplots

    figure = make_subplots(
        cols=len(panels),
        shared_yaxes=share_scale(panels),
        horizontal_spacing=0.09 if share_scale(panels) else 0.11,
    )
    together = panels if share_scale(panels) else None
    room = 2.2 if len(panels) == 1 else 1.2  # decades with numbers between the powers of ten
    named: set[str] = set()
    for column, (panel, y) in enumerate(zip(panels, names_of_y(panels), strict=True), start=1):
        where = {"row": 1, "col": column}
        for line in panel.lines:
            for trace in _traces(line, panel, first=line.label not in named):
                figure.add_trace(trace, **where)
            named.add(line.label)
        axis = {"exponentformat": "power", "automargin": True}
        figure.update_xaxes(title=panel.x, **_scale("x", [panel], room), **axis, **where)
        figure.update_yaxes(
            title=y, **_scale("y", together or [panel]), range=_range(panel), **axis, **where
        )
        _name(figure, panel, where)
        _add_marks(figure, panel, where)
    theory = any(line.theory is not None for panel in panels for line in panel.lines)
    rows = textwrap.wrap(title, 66)
    top = 34 + 22 * len(rows) + 24 * any(panel.title for panel in panels)
    figure.update_layout(
        title={"text": "<br>".join(rows), "x": 0.01, "xanchor": "left", "y": 0.97,
               "yanchor": "top"},
        template="plotly_white", font={"family": FONT, "size": 13, "color": "#222"}, height=HEIGHT,
        meta={"note": f"{note} {say(THEORY)}" if theory else note},
        separators=None if (sign := catalogue(language()).decimal) == "." else sign + FIXED,
        hovermode="closest", margin={"l": 60, "r": 16, "t": top, "b": 50},
        legend={"orientation": "h", "x": 0, "yref": "container", "y": 0, "yanchor": "bottom"},
    )  # fmt: skip
    return figure


def _scale(axis: str, panels: Sequence[Panel], room: float = 2.2) -> dict[str, Any]:
    """Return the kind of an axis of these panels; a logarithmic one with ticks that can be read."""
    if axis not in panels[0].log:
        return {"type": "linear"}
    lines = [line for panel in panels for line in panel.lines]
    values = np.concatenate([np.asarray(getattr(line, axis), float) for line in lines])
    seen = drawable(values)
    seen = seen[seen > 0]
    if not len(seen):
        return {"type": "log"}
    limits = (axis == "y" and panels[0].limits) or (None, None)
    ends = [x if at is None else at for x, at in zip((seen.min(), seen.max()), limits, strict=True)]
    decades = float(np.log10(ends[1]) - np.log10(ends[0]))
    if decades < room:  # 10, 20, 50: else plotly writes 10, 2, 5; all of 1 to 9 where there is room
        letters = "~s" if ends[0] >= 1 and ends[1] >= 1e4 else "~g"  # 20k: five digits would touch
        return {"type": "log", "tickformat": letters, "dtick": "D2" if decades > 0.7 else None}
    return {"type": "log", "dtick": int(1 + decades // 8)}


def _name(figure: Any, panel: Panel, where: dict[str, int]) -> None:
    """Write the title of a panel above it, wherever it stands."""
    if panel.title:
        figure.add_annotation(
            text=panel.title, x=0, xref="x domain", xanchor="left", y=1, yref="y domain",
            yanchor="bottom", yshift=3, showarrow=False, font_size=14, **where,
        )  # fmt: skip


def _add_marks(figure: Any, panel: Panel, where: dict[str, int]) -> None:
    """Draw the levels and the marks of a panel, with their names."""
    dotted = {"line_dash": "dot", "line_color": "#555", "line_width": 1.2}
    text = {"showarrow": False, "font": {"size": 12, "color": "#555"}, "xanchor": "left"}
    for name, at in panel.levels.items():
        place = float(np.log10(at)) if "y" in panel.log else at  # a text's, a line's own is `at`
        figure.add_hline(at, **dotted, **where)
        figure.add_annotation(
            text=name, x=0.01, xref="x domain", y=place, yanchor="bottom", **text, **where
        )
    for name, at in panel.marks.items():
        place = float(np.log10(at)) if "x" in panel.log else at
        figure.add_vline(at, **dotted, **where)
        figure.add_annotation(
            text=name, y=0.99, yref="y domain", x=place, yanchor="top", **text, **where
        )


@cache
def packed() -> str:
    """Return plotly.js, deflated and in base64: 2 MB instead of 4.8; `draw.js` unpacks it."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(zlib.compress(get_plotlyjs().encode(), 9)).decode()


def script() -> str:
    """Return what draws the charts of a page in its browser; see `draw.js`."""
    return files("sgdstudy.figures").joinpath("draw.js").read_text(encoding="utf-8")


def page(figure: Any, png: bytes) -> str:
    """Return a figure of `draw` as a page that loads nothing.

    Args:
        figure: the figure.
        png: what stands there until it is drawn, and where no script runs.
    """
    from plotly.io.json import to_json_plotly

    said, bare = escape(title_of(figure)), figure.to_dict()
    note = escape((figure.layout.meta or {}).get("note", ""))
    bare["layout"] |= {"title": None, "margin": bare["layout"]["margin"] | {"t": 34}}
    chart = to_json_plotly(bare).replace("<", "\\u003c")
    picture = base64.b64encode(png).decode()
    return f"""<!DOCTYPE html>
<html lang="{language()}"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{said}</title>
<style>body {{ margin: 1rem; background: #fff; color: #222; font: 1rem/1.4 {FONT}; }}
h1 {{ font-size: 1.25rem; margin: 0; max-width: 48rem; }} img {{ max-width: 100%; }}
.drawn > img, .chart:not(.drawn) > :is(div, h1, p) {{ display: none; }}</style></head>
<body><div class="chart"><h1>{said}</h1><img alt="{said}" src="data:image/png;base64,{picture}">
<div></div><p>{note}</p><script type="application/json">{chart}</script></div>
<script type="text/plain" id="plotly">{packed()}</script>
<script>{script()}</script></body></html>
"""


def title_of(figure: Any) -> str:
    """Return the title in one line."""
    return str(figure.layout.title.text or "").replace("<br>", " ")


def _range(panel: Panel) -> list[float | None] | None:
    if panel.limits is None:
        return None
    if "y" not in panel.log:
        return list(panel.limits)
    return [None if at is None else float(np.log10(at)) for at in panel.limits]


def _traces(line: Line, panel: Panel, first: bool) -> list[Any]:
    """Return the band, what theory expects, and the line itself, in the order they lie."""
    from plotly.graph_objects import Scatter

    x, y = np.asarray(line.x, float), drawable(line.y)
    at = np.arange(len(x)) if line.dots else thinned(x, "x" in panel.log)
    where = ": %{y:.4g} at %{x}<extra></extra>"
    group = {"legendgroup": line.label, "name": line.label or "", "showlegend": False}
    traces = []
    if line.band is not None and not line.dots:
        low, high = (drawable(part)[at] for part in line.band)
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
                x=places[k], y=expected[k], mode="lines",
                hovertemplate=f"{say('{line}, theory', line=line.label)}{where}",
                line={"color": light(line.color), "width": 4, "dash": "dash"}, **group,
            )
        )  # fmt: skip
    own = group | {"showlegend": bool(line.label) and first}
    hover = f"{line.label}{where}" if line.label else None
    dots = np.full(len(at), True) if line.dots else dotted(x[at], y[at], panel.log)
    mode = "markers" if line.dots else "lines+markers" if dots.any() else "lines"
    traces.append(
        Scatter(
            x=x[at], y=y[at], mode=mode,
            line={"color": line.color, "width": 2 if line.label else 1},
            marker={"color": line.color, "size": 5 if dots.all() else 5 * dots},
            hovertemplate=hover,
            hoverinfo=None if line.label else "skip", error_y=_bars(line, y), **own,
        )
    )  # fmt: skip
    return traces


def _bars(line: Line, y: np.ndarray) -> dict[str, Any] | None:
    """Return the intervals of dots."""
    if line.band is None or not line.dots:
        return None
    low, high = (np.asarray(part, float) for part in line.band)
    return {
        "array": drawable(high - y),
        "arrayminus": drawable(y - low),
        "width": 0,
        "thickness": 1.5,
    }
