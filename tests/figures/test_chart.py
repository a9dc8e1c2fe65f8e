"""Charts as data: what is refused, what is drawn, and that both ways of drawing say the same."""

import io
import itertools
import re

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

import sgdstudy as ss
from sgdstudy.figures import interactive, palette, static
from sgdstudy.figures.chart import Chart
from sgdstudy.figures.panels import MOST_POINTS, Line, Panel, thinned

X = np.arange(1.0, 101.0)


def chart(n=3, panels=1, **axes):
    lines = [Line(f"line {i}", X, X**-i, palette.color(i), theory=X**-i) for i in range(n)]
    return Chart("It falls by 100", [Panel(lines, "epoch", "loss", log="xy", **axes)] * panels)


def visible(figure):
    figure.draw_without_rendering()
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


@pytest.mark.parametrize("panels", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 3, 6])
def test_every_text_can_be_read_at_700_pixels(n, panels):
    """8 pt at 100 dots per inch, and nothing is cut off at the left, the right or the top."""
    figure = chart(n, panels).figure()
    assert figure.get_figwidth() * 100 == 700
    texts = visible(figure)
    assert min(text.get_fontsize() for text in texts) >= 8
    width, height = figure.bbox.width, figure.bbox.height
    ticks = {t for axes in figure.axes for t in (*axes.get_xticklabels(), *axes.get_yticklabels())}
    # matplotlib holds ticks beyond the axes, and draws none of them
    boxes = [text.get_window_extent() for text in set(texts) - ticks]
    assert min(box.x0 for box in boxes) > -1
    assert max(box.x1 for box in boxes) < width + 1
    assert max(box.y1 for box in boxes) < height + 1


def test_a_name_stands_beside_each_line_and_none_on_another():
    figure = chart(6).figure()
    names = [t for t in visible(figure) if t.get_text().startswith("line")]
    boxes = sorted((t.get_window_extent() for t in names), key=lambda box: box.y0)
    assert len(boxes) == 6
    assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes))


def test_what_is_expected_lies_under_what_was_measured():
    axes = chart(1).figure().axes[0]
    expected, measured = sorted(axes.lines, key=lambda line: line.get_zorder())
    assert expected.get_linestyle() != "-"
    assert measured.get_linestyle() == "-"
    assert expected.get_color() == palette.light(measured.get_color())


def test_both_ways_draw_the_same_values():
    own = chart(2)
    drawn = [line for line in own.figure().axes[0].lines if line.get_linestyle() == "-"]
    traces = [t for t in own.interactive().data if t.showlegend]
    assert [t.name for t in traces] == ["line 0", "line 1"]
    for line, trace in zip(drawn, traces, strict=True):
        assert np.allclose(line.get_ydata(), trace.y, rtol=0)
        assert line.get_color() == trace.line.color
        assert "line" in trace.hovertemplate
        assert "%{y" in trace.hovertemplate


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "no line with a name"),
        ([Line("", X, X)], "no line with a name"),
        ([Line(f"line {i}", X, X, f"#00000{i}") for i in range(7)], "6 lines at the most"),
        ([Line("a", X, X), Line("b", X, X)], "one colour"),
    ],
)
def test_a_chart_that_nobody_could_read_is_refused(lines, said):
    with pytest.raises(ss.InputError, match=said):
        Chart("title", [Panel(lines, "x", "y")])


@pytest.mark.parametrize("values", [[np.nan] * 3, [np.inf, 1, 2], [0, -1, 2], [1, 1, 1], [1]])
def test_odd_values_are_drawn_without_a_warning(values):
    y = np.array(values, float)
    line = Line("odd", np.arange(1.0, len(y) + 1), y, palette.BLUE, theory=y)
    for log in ("", "x", "y", "xy"):
        own = Chart("It is 0", [Panel([line], "x", "y", log=log, limits=(0.1, 10))])
        assert Image.open(io.BytesIO(own._repr_png_())).width == 700
        assert "odd" in interactive.html(own.interactive(), script=False)


def test_a_long_line_keeps_what_can_be_seen():
    x = np.arange(100_000.0)
    for log in (True, False):
        kept = thinned(x, log)
        assert len(kept) <= MOST_POINTS
        assert kept[-1] == len(x) - 1
        assert (np.diff(kept) > 0).all()
    assert thinned(np.arange(5), True).tolist() == [0, 1, 2, 3, 4]


def test_settings_of_the_user_do_not_change_our_figures():
    import matplotlib

    with matplotlib.rc_context({"text.usetex": True, "axes.grid": False, "font.size": 40}):
        figure = chart(2).figure()
        assert min(t.get_fontsize() for t in visible(figure)) < 12


def test_colours_of_arms_differ_and_belong_to_the_order():
    same = {"problem": "curve", "batch_size": 10}
    orders = {o: ss.Arm(order=o, **same).config for o in ("sequential", "strided", "shuffle")}
    found = palette.of_arms(orders)
    assert found == {order: palette.ORDERS[order] for order in orders}
    many = {f"lr {i}": ss.Arm(lr=1e-4 * (i + 1), **same).config for i in range(14)}
    found = palette.of_arms(many)
    assert len(set(found.values())) == 14
    twice = {"a": ss.Arm(order="shuffle", **same).config} | orders
    assert len(set(palette.of_arms(twice).values())) == 4


def test_no_two_colours_of_a_table_are_alike():
    for table in (palette.CYCLE, palette.ORDERS.values()):
        assert len(set(table)) == len(table)
    colors = [*palette.CYCLE, *palette.FURTHER, palette.GREY]
    assert all(re.fullmatch("#[0-9A-F]{6}", color) for color in colors)
    assert len(set(colors)) == len(colors)


def test_heights_of_names_keep_apart():
    for heights in ([0, 0, 0, 0], [0.1, 0.11, 0.5, 0.52, 0.9], [1.0] * 6):
        apart = static._apart(sorted(heights))
        assert all(b - a >= static.GAP - 1e-9 for a, b in itertools.pairwise(apart))
