"""Main figures to zoom and to read off, as plotly's JSON; anybody may have put it into the store.

Of a figure only what our own have is kept: plain values under known names. Nothing else that
plotly can do, such as to load a picture or a map, reaches the page; texts have no markup.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from sgdstudy.errors import InputError
from sgdstudy.language import say
from sgdstudy.report.markup import cut
from sgdstudy.text import printable
from sgdstudy.tracking import shapes

MOST_LETTERS = 2_000_000  # of a figure: ten times the largest of ours
MOST_DEPTH = 8
_TRACE = """
    error_y fill fillcolor hoverinfo hovertemplate legendgroup line marker mode name showlegend
    type x xaxis y yaxis
"""
TRACE = frozenset(_TRACE.split())
LAYOUT = {"annotations", "font", "hovermode", "legend", "margin", "separators", "shapes"}
NAME = re.compile(r"[a-z]\w*")
MARKUP = re.compile("<(?!br>|extra></extra>|(?<=<extra><)/extra>)")  # but for ours
AXIS = re.compile(r"[xy]axis\d*")
AXES = {"gridcolor": "#e4e6ea", "zeroline": False, "linecolor": "#8a8f98", "ticks": "outside"}
FIGURE = shapes.fields(
    {
        "data": shapes.each(shapes.fields({}, {"type": lambda kind: kind == "scatter"}), most=200),
        "layout": shapes.fields({}),
    }
)


@dataclass(frozen=True)
class Live:
    """A figure that the page's script draws.

    Attributes:
        title: the finding, in one line; it stands above the figure.
        note: what to see, below it.
        json: what plotly draws, safe within a page.
    """

    title: str
    note: str
    json: str


def live(text: str) -> Live:
    """Return a figure from the text of picture.json.

    Raises:
        InputError: it is not one of ours, or too long.
    """
    if len(text) > MOST_LETTERS:
        raise InputError(f"picture.json has {len(text):,} letters; {MOST_LETTERS:,} are allowed")
    found = shapes.parsed(text, FIGURE, "picture.json")
    layout = {k: v for k, v in found["layout"].items() if k in LAYOUT or AXIS.fullmatch(k)}
    axes = [name for name in layout if AXIS.fullmatch(name) and isinstance(layout[name], dict)]
    layout |= {name: {**AXES, **layout[name]} for name in axes}
    layout["margin"] = {"l": 60, "r": 16, "t": 30 if len(axes) > 2 else 14, "b": 50}
    layout["height"] = 410
    traces = [{k: v for k, v in trace.items() if k in TRACE} for trace in found["data"]]
    title = shapes.fields({"title": shapes.fields({"text": shapes.text})})(found["layout"])
    meta = found["layout"].get("meta")
    note = meta.get("note") if isinstance(meta, dict) else None
    kept = _without_markup({"data": traces, "layout": layout}, MOST_DEPTH)
    return Live(
        title=printable(found["layout"]["title"]["text"].replace("<br>", " ")) if title else "",
        note=cut(printable(note)) if isinstance(note, str) else "",
        json=json.dumps(kept, separators=(",", ":")).replace("<", "\\u003c"),
    )


def live_or_none(text: str, notes: list[str]) -> Live | None:
    """Return a figure to zoom; None where there is none, or a damaged one, which is noted."""
    try:
        return live(text) if text else None
    except InputError as error:
        notes.append(say("the main figure cannot be zoomed: {why}", why=str(error)))
        return None


def _without_markup(value: Any, depth: int) -> Any:
    """Return values without markup, None for what lies too deep.

    >>> _without_markup({"text": "a<br>b <a href='x'>c</a>", "x": [1, 2.5, None]}, 3)
    {'text': "a<br>b &lt;a href='x'>c&lt;/a>", 'x': [1, 2.5, None]}
    """
    if isinstance(value, str):
        return MARKUP.sub("&lt;", printable(value))
    if not depth:
        return value if shapes.any_of(shapes.number, shapes.truth)(value) else None
    if isinstance(value, dict):
        return {k: _without_markup(v, depth - 1) for k, v in value.items() if NAME.fullmatch(k)}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return (
        [_without_markup(item, depth - 1) for item in value] if isinstance(value, list) else value
    )
