"""Main figures in a page: what is kept of a picture.json that anybody may have written."""

import json

import numpy as np
import pytest

from sgdstudy.errors import InputError
from sgdstudy.figures import Chart, Line, Panel, interactive
from sgdstudy.report import charts

X = np.arange(1.0, 6)
LEVEL = {"epsilon": 0.1}
OURS = Chart("It is 5", [Panel([Line("an arm", X, X)], "x", "y", log="xy", levels=LEVEL)] * 2)


def drawn(**changes):
    """The text of a figure of ours, with further entries."""
    found = json.loads(OURS.interactive().to_json())
    found["data"][0] |= changes.pop("trace", {})
    found["layout"] |= changes
    return json.dumps(found)


def test_a_figure_of_ours_is_kept_but_for_its_title_that_stands_above():
    live = charts.live(drawn())
    kept, own = json.loads(live.json), json.loads(OURS.interactive().to_json())
    assert live.title == "It is 5"
    assert live.note == own["layout"]["meta"]["note"]
    assert live.note.endswith("what theory expects.") == any(
        line.theory is not None for panel in OURS.panels for line in panel.lines
    )
    assert {"xaxis", "xaxis2"} <= {*kept["layout"]}
    assert kept["data"] == own["data"]
    assert "title" not in kept["layout"]
    for name in ("annotations", "shapes", "legend"):
        assert kept["layout"][name] == own["layout"][name]
    for name, value in own["layout"]["yaxis2"].items():
        assert kept["layout"]["yaxis2"][name] == value


def test_what_plotly_could_load_or_run_is_left_out():
    bad = drawn(
        images=[{"source": "http://elsewhere/x.png"}],
        mapbox={"style": "http://elsewhere"},
        trace={"name": "</script><img src=x>", "customdata": ["x"], "meta": {}, "x": [1, 1e999]},
        xaxis={"title": {"text": "<a href='javascript:1'>x</a><br>y"}, "__proto__": {"a": 1}},
    )
    found = charts.live(bad).json
    assert "<" not in found
    kept = json.loads(found)
    assert not {"images", "mapbox", "template"} & set(kept["layout"])
    assert not {"customdata", "meta"} & set(kept["data"][0])
    assert kept["data"][0]["x"] == [1, None]  # no browser reads Infinity
    assert kept["data"][0]["name"].startswith("&lt;/script>")
    assert kept["layout"]["xaxis"]["title"]["text"] == "&lt;a href='javascript:1'>x&lt;/a><br>y"
    assert "__proto__" not in kept["layout"]["xaxis"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"data": 3, "layout": {}}',
        '{"data": [{"type": "image"}], "layout": {}}',
        "[" * 9999,
    ],
)
def test_what_is_no_figure_is_noted(text):
    with pytest.raises(InputError, match="damaged"):
        charts.live(text)
    notes = []
    assert charts.live_or_none(text, notes) is None
    assert "cannot be zoomed" in notes[0]
    assert charts.live_or_none("", notes) is None
    assert len(notes) == 1


def test_a_figure_that_is_too_long_or_too_deep_is_not_drawn(monkeypatch):
    deep = 3
    for _ in range(50):
        deep = {"a": deep}
    assert len(charts.live(drawn(font=deep)).json) < 10_000
    monkeypatch.setattr(charts, "MOST_LETTERS", 100)
    with pytest.raises(InputError, match="100 are allowed"):
        charts.live(drawn())


def test_a_page_of_one_figure_loads_nothing_and_no_text_of_it_acts():
    own = Chart("</title><script>x", [Panel([Line("</script><b>", X, X)], "x", "y")])
    text = interactive.page(own.interactive(), b"png")
    assert text.count("<script") == text.count("</script>") == 3
    assert "<b>" not in text
    assert 'src="data:image/png;base64,cG5n"' in text
    assert 1_500_000 < len(text) < 2_100_000
    assert "</" not in interactive.script()  # it lies within a page
