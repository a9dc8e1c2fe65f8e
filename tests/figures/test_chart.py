"""Charts as data: what is refused, what is drawn, and that both ways of drawing say the same."""

import io
import itertools
import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

import sgdstudy as ss
from sgdstudy.figures import interactive, lines, palette, static
from sgdstudy.figures.chart import Chart
from sgdstudy.figures.panels import MOST_POINTS, Line, Panel, thinned
from sgdstudy.language import speaking

X = np.arange(1.0, 101.0)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


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


def test_a_decimal_comma_has_no_gap_after_it():
    with speaking("fr"):
        panel = Panel([Line("line", X, X / 100)], "epoch", "loss")
        figure = Chart("It grows", [panel]).figure()
        ticks = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert any("{,}" in text for text in ticks)  # in mathematics a bare comma parts a list
    assert not any(re.search(r"(?<!\{),", text) for text in ticks)


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


@pytest.mark.slow
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


NAN, INF = np.nan, np.inf
LONE = {  # values of a line -> where it has dots
    "few": ([INF, 196, INF], [0, 1, 2]),
    "many": ([1, NAN, 3, INF, 5, 6, 0, 8, -1, 10], [0, 2, 7, 9]),
    "none": ([1, 2, 3, 4, 5, 6, 7, 8, 9], []),
}


@pytest.mark.parametrize("case", LONE)
def test_a_point_that_no_line_reaches_is_a_dot_in_both_ways(case):
    y, due = LONE[case]
    line = Line("alone", np.arange(1.0, len(y) + 1), np.array(y, float), palette.BLUE)
    own = Chart("It is 196", [Panel([line], "x", "y", log="xy")])
    (static_line,) = own.figure().axes[0].lines
    every = static_line.get_markevery()
    assert np.flatnonzero(every).tolist() == due
    (trace,) = own.interactive().data
    assert trace.mode == ("lines+markers" if due else "lines")
    if due:
        sizes = np.broadcast_to(trace.marker.size, len(y))
        assert np.flatnonzero(sizes).tolist() == due


OVERLAP = """() => {
    const texts = [...document.querySelectorAll('.xtick text')];
    const labels = texts.map(text => text.getBoundingClientRect());
    return labels.flatMap((a, i) => labels.slice(i + 1).filter(b => Math.abs(a.top - b.top) < 9 &&
        a.left < b.right + 2 && b.left < a.right + 2).map(b => [a.left, a.right, b.left, b.right]));
}"""


@pytest.mark.server
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_numbers_below_panels_side_by_side_do_not_run_together(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    x = np.geomspace(1e-3, 1e-1, 30)
    panel = Panel([Line("a", x, x, palette.BLUE)], "lr", "epochs", log="xy")
    for n in (2, 3):
        own = Chart("It is 1", [panel] * n)
        (tmp_path / f"{n}.html").write_text(interactive.page(own.interactive(), b""))
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for n, width in itertools.product((2, 3), (390, 590, 860)):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.goto((tmp_path / f"{n}.html").as_uri())
            page.locator(".xtick text").first.wait_for()
            assert page.evaluate(OVERLAP) == [], (n, width)
        browser.close()


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


ODD = {
    "nothing": [NAN] * 3,
    "infinite": [INF] * 9,
    "one": [INF, 196, INF],
    "first infinite": [INF, 1, 2],
    "not positive": [0, -1, 2],
    "constant": [1, 1, 1],
    "single": [1],
    "single, far": [1e300],
    "grows far": np.geomspace(1, 1e300, 20),
    "beyond": [1, 1e300, 1.7e308, INF],
    "beyond, both signs": [-1.7e308, 1, 1.7e308],
    "far, both signs": [-1e300, 1e300],
    "shrinks far": np.geomspace(1, 1e-320, 20),
    "all there is": np.geomspace(5e-324, 1.7e308, 20),
}


@pytest.mark.slow
@pytest.mark.parametrize("limits", [None, (0.1, 10), (0.1, None), (None, 10)])
@pytest.mark.parametrize("case", ODD)
def test_odd_values_are_drawn_without_a_warning(case, limits):
    y = np.array(ODD[case], float)
    line = Line("odd", np.arange(1.0, len(y) + 1), y, palette.BLUE, (y / 2, y), theory=y)
    other = Line("plain", line.x, line.x, palette.RED, dots=True)
    for log in ("", "y", *["xy"] * (limits is None)):  # the limits are of y
        own = Chart("It is 0", [Panel([line, other], "x", "y", log=log, limits=limits)])
        assert Image.open(io.BytesIO(own._repr_png_())).width == 700
        found = json.loads(own.interactive().to_json())
        assert "odd" in {trace["name"] for trace in found["data"]}


def test_the_numbers_of_a_far_axis_are_few_and_within_it():
    y = np.geomspace(1e-3, 1e300, 20)
    line = Line("far", np.arange(1.0, 21), y, palette.BLUE)
    axes = Chart("It is 1", [Panel([line], "x", "y", log="y")]).figure().axes[0]
    low, high = axes.get_ylim()
    assert low < 1e-3
    assert 1e300 <= high < INF
    ticks = axes.yaxis.get_major_locator()()
    assert 4 <= len(ticks) <= 8
    assert all(low <= tick <= high for tick in ticks)


FIGURES = {
    "by epoch": lambda run: ss.figures.loss_by_epoch({"a": run}),
    "within an epoch": lambda run: ss.figures.within_epoch({"a": run}),
    "cockpit": ss.figures.cockpit,
    "steep batches": ss.figures.steep_batches,
    "path": lambda run: ss.figures.path({"a": run}, 0, 1, 4),
    "norms": lambda run: ss.figures.gradient_norms({"a": run}),
    "stops": lambda run: ss.figures.stop_epochs({"a": run}),
    "batch losses": lambda run: ss.figures.batch_losses({"a": run}),
    "batch gradients": lambda run: ss.figures.batch_gradients({"a": run}),
}


@pytest.fixture(scope="module", params=[1e2, 1e6, 1e30])
def diverged(request):
    """Runs whose losses end at the limit of float64, soon and sooner."""
    given = {"order": "sequential", "batch_size": 100, "epochs": 40, "seeds": [0, 1]}
    return ss.train("curve", lr=request.param, diagnostics="full", progress=False, **given)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_a_run_that_diverges_is_drawn(diverged, name):
    assert not np.isfinite(diverged.array("steps", "loss")).all()
    figure = FIGURES[name](diverged)
    assert ss.figures.png(figure)
    panel = lines.by_epoch({"a": diverged}, "full_loss")
    assert Chart("It is 1", [panel, lines.within_epoch({"a": diverged})]).png(100)


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


def test_sgd_with_momentum_is_another_optimiser_and_a_full_batch_has_no_order():
    momentum = {"a": {}, "b": {"momentum": 0.9}, "c": {"momentum": 0.9, "nesterov": True}}
    rules = {name: ss.Arm("curve", lr=1e-4, options=own).config for name, own in momentum.items()}
    rules["d"] = ss.Arm("curve", lr=1e-4, batch_size=10, order="sequential").config
    found = palette.of_arms(rules)
    due = [palette.OPTIMIZERS[name] for name in ("SGD", "momentum", "Nesterov")]
    assert [found[name] for name in "abc"] == due
    assert found["d"] not in due


def test_declared_colours_are_kept_and_the_runs_of_a_study_have_theirs():
    configs = {f"lr {i}": ss.Arm("curve", lr=1e-4 * (i + 1)).config for i in range(3)}
    found = palette.of_arms(configs, {"lr 2": palette.BLUE, "another": palette.RED})
    assert found == dict(zip(configs, palette.named("red", "green", "blue"), strict=True))
    runs = {name: replace(small(), color=palette.SKY) for name in "ab"}
    assert palette.of_runs(runs) == palette.named("blue", "red")  # two of one colour
    runs["b"] = replace(runs["b"], color=palette.BLACK)
    assert palette.of_runs(runs) == palette.named("sky", "black")
    drawn = lines.by_epoch(runs, "full_loss").lines
    assert [line.color for line in drawn] == palette.named("sky", "black")


def test_no_two_colours_of_a_table_are_alike():
    tables = (palette.CYCLE, palette.ORDERS.values(), palette.NAMED.values())
    for table in tables:
        assert len(set(table)) == len(table)
    colors = [*palette.CYCLE, *palette.FURTHER, palette.GREY]
    assert all(re.fullmatch("#[0-9A-F]{6}", color) for color in colors)
    assert len(set(colors)) == len(colors)


def test_heights_of_names_keep_apart():
    for heights in ([0, 0, 0, 0], [0.1, 0.11, 0.5, 0.52, 0.9], [1.0] * 6):
        apart = static._apart(sorted(heights))
        assert all(b - a >= static.GAP - 1e-9 for a, b in itertools.pairwise(apart))


def points(**more):
    rows = {"line": ["a", "a", "b"], "x": [1.0, 100, 1], "y": [2.0, 200, 5]}
    return pd.DataFrame(rows | more)


def test_a_law_lies_under_its_points_and_is_a_line_where_there_are_none():
    laws = {"a": lambda x: 2 * x, "law": lambda x: x}
    given = {"low": [1.0, -5, 5], "high": [3.0, 300, 5]}
    panel = lines.with_laws(points(**given), laws, colors=("#000000", "#000001", "#000002"))
    a, b, law = panel.lines
    assert (a.dots, b.dots, law.dots) == (True, False, False)
    assert a.expected[0][[0, -1]].tolist() == pytest.approx([1, 100])
    assert a.expected[1] == pytest.approx(2 * a.expected[0])
    assert [part.tolist() for part in a.band] == [[1, 20], [3, 300]]  # a log axis has no -5
    assert b.expected is None
    assert law.y == pytest.approx(law.x)
    assert [line.color for line in panel.lines] == ["#000000", "#000001", "#000002"]
    found = Chart("2 times", [panel]).interactive()
    bars = [t.error_y.array for t in found.data if t.name == "a" and t.mode == "markers"]
    assert bars[0].tolist() == [1, 100]


def test_a_name_stands_where_its_law_ends():
    short, wide = np.array([1.0, 2]), np.array([1.0, 100])
    line = Line("law", short, short, palette.BLUE, theory=(wide, wide), dots=True)
    figure = Chart("It is 1", [Panel([line], "x", "y", log="x")]).figure()
    (name,) = [t for t in visible(figure) if t.get_text() == "law"]
    assert name.xy[0] > static.INSIDE


def test_what_overflows_is_cut_without_a_warning():
    y = np.array([1.0, 1e300, 1e308])
    line = Line("far", np.arange(1.0, 4), y, palette.BLUE, band=(y / 2, y))
    chart = Chart("It is 1", [Panel([line], "x", "y", log="xy", limits=(0.1, 1e9))] * 2)
    assert chart.figure().axes[0].get_ylim() == (0.1, 1e9)


def test_only_the_first_of_panels_with_one_scale_names_it():
    names = [axes.get_ylabel() for axes in chart(2, 3).figure().axes]
    assert names == ["loss", "", ""]


@pytest.mark.slow
@pytest.mark.parametrize("n", range(1, 8))
def test_a_legend_fits(n):
    panel = Panel([Line(f"a line of a name {i}", X, X, f"#00000{i}") for i in range(n)], "x", "y")
    figure = Chart("It is 1", [panel] * 2).figure() if n < 7 else chart(6, 2).figure()
    figure.draw_without_rendering()
    assert figure.legends[0].get_window_extent().x1 < figure.bbox.width + 1


def test_the_share_that_has_stopped_counts_those_that_never_do():
    panel = lines.stopped({"rule": np.array([1, 3, np.inf, np.inf])}, 4, ["#000000"])
    assert panel.lines[0].y.tolist() == [25, 25, 50, 50]


def test_an_excess_is_a_mean_beside_theory_or_a_median_with_a_band():
    problem = ss.problems.even_parabola(1, 20, 0.5, (0.9, 0.05, 0.05))
    given = {"lr": 1e-2, "batch_size": 2, "epochs": 3, "seeds": [0, 1, 2]}
    run = ss.train(problem, order="with_replacement", **given)
    mean = lines.excess({"mean": run}).lines[0]
    assert mean.y == pytest.approx(run.excess().mean(1))
    assert mean.expected[0].tolist() == [0, 1, 2, 3]
    assert mean.expected[1] == pytest.approx(ss.expect(run).excess)
    half = lines.excess({"median": run}, known=(), median=True).lines[0]
    assert half.y == pytest.approx(np.median(run.excess(), axis=1))
    assert half.expected is None
    assert (half.band[0] <= half.y).all()
    assert (half.band[1] >= half.y).all()


def test_the_panels_of_optimisers_have_a_line_a_rule_and_theory_where_it_is_known():
    rows = {
        "problem": ["a"] * 4,
        "optimizer": ["SGD", "SGD", "momentum", "momentum"],
        "lr": [0.2, 0.1, 0.1, 0.2],
        "target": 0.01,
        "median": [1, 2, 3, np.inf],
        "theory": [1.5, 2.5, np.nan, np.nan],
    }
    (panel,) = ss.figures.tuning.over_lr(pd.DataFrame(rows))
    sgd, momentum = panel.lines
    assert (sgd.x.tolist(), sgd.y.tolist()) == ([0.1, 0.2], [2, 1])
    assert sgd.expected[1].tolist() == [2.5, 1.5]
    assert momentum.expected is None
    assert sgd.color != momentum.color
    assert panel.title == "a, to 0.01"


def test_steps_that_follow_a_drift_lie_on_what_theory_says_they_settle_at():
    law = ss.theory.uniform_law(ss.problems.parabola, 3, 0.3)
    moves = {"drift": np.array([1e-3, 1e-3, 0.0]), "still": np.zeros(3)}
    lrs = (0.01, 0.03, 0.1)
    due = {
        n: [ss.theory.stationary_tracking(law, 1, a, v).excess for a in lrs]
        for n, v in moves.items()
    }
    rows = [(n, a, y, 0.1 * y) for n in moves for a, y in zip(lrs, due[n], strict=True)]
    panel = ss.figures.tracking(rows, law, moves)
    for name in moves:
        (line,) = [line for line in panel.lines if line.label == name]
        x, y = line.expected
        np.testing.assert_allclose(np.interp(np.log(lrs), np.log(x), y), due[name], rtol=0.02)
    assert list(panel.marks.values()) == [ss.theory.best_tracking_lr(law, 1, moves["drift"])]
    assert visible(Chart("A drift of 0.001 a step", [panel]).figure())


def small(**settings):
    given = {"lr": 0.05, "batch_size": 4, "epochs": 3, "seeds": [0, 1, 2]}
    return ss.train(ss.problems.even_parabola(1, 20, 0.5), progress=False, **(given | settings))


def test_where_a_rule_stops_is_a_level_with_its_name():
    run = small(stop=("running", 0.25))
    for panel in (
        lines.by_epoch({"a": run}, "running_loss", epsilon=0.25),
        lines.within_epoch({"a": run}, epsilon=0.25),
        lines.of_run(run, {"a": "full_loss"}, epsilon=0.25),
        lines.excess({"a": run}, known=(), epsilon=0.25),
    ):
        assert panel.levels == {"epsilon 0.25": 0.25}
    assert lines.by_epoch({"a": run}, "running_loss").levels == {}


def test_lines_have_the_colours_of_what_they_differ_in():
    orders = {order: small(order=order) for order in ("shuffle", "sequential")}
    due = [palette.ORDERS["shuffle"], palette.ORDERS["sequential"]]
    for panel in (
        lines.by_epoch(orders, "full_loss"),
        lines.within_epoch(orders),
        lines.excess(orders, known=()),
    ):
        assert [line.color for line in panel.lines] == due
    rules = {"a": small(optimizer="Adam"), "b": small()}
    drawn = lines.by_epoch(rules, "full_loss").lines
    assert [line.color for line in drawn] == [palette.OPTIMIZERS["Adam"], palette.OPTIMIZERS["SGD"]]
    steps = {"a": small(), "b": small(lr=0.01)}
    drawn = lines.by_epoch(steps, "full_loss").lines
    assert [line.color for line in drawn] == palette.named("blue", "red")
    drawn = lines.by_epoch(steps, "full_loss", colors=palette.named("sky", "black")).lines
    assert [line.color for line in drawn] == [palette.SKY, palette.BLACK]


def test_a_panel_for_each_run_has_its_title():
    runs = {"slow": small(lr=0.01), "fast": small()}
    panels = lines.of_each(runs, {"whole": "full_loss", "running": "running_loss"}, y="a loss")
    assert [panel.title for panel in panels] == ["slow", "fast"]
    assert {panel.y for panel in panels} == {"a loss"}
    for panel, run in zip(panels, runs.values(), strict=True):
        whole = np.median(run.array("epochs", "full_loss"), axis=1)
        assert panel.lines[0].y == pytest.approx(whole)


def test_series_are_points_with_their_bars_on_their_law_or_lines():
    seen = [ss.Estimate(2.0, 0.5, 9), ss.Estimate(8.0, 1.0, 9)]
    series = {
        "seen": ((1, 4), seen, lambda x: 2 * x),
        "law": ((), (), lambda x: x),
        "plain": ((1, 2), (3, 4), None),
    }
    first, law, plain = lines.measured(series, colors=palette.named("red", "sky", "blue")).lines
    assert [first.label, law.label, plain.label] == ["seen", "law", "plain"]
    assert (first.dots, law.dots, plain.dots) == (True, False, False)
    assert first.y.tolist() == [2, 8]
    assert [part.tolist() for part in first.band] == [[1.02, 6.04], [2.98, 9.96]]  # 1.96 errors
    assert first.expected[1] == pytest.approx(2 * first.expected[0])
    assert law.x[[0, -1]].tolist() == pytest.approx([1, 4])
    assert law.y == pytest.approx(law.x)
    assert (plain.x.tolist(), plain.y.tolist(), plain.band) == ([1, 2], [3, 4], None)
    assert [first.color, law.color, plain.color] == palette.named("red", "sky", "blue")


def test_a_line_of_seeds_is_their_median_and_band():
    values = np.arange(11.0) + np.array([[0.0], [100]])
    line = lines.of_seeds("seeds", np.arange(2), values, palette.GREEN)
    assert line.y.tolist() == [5, 105]
    assert [part.tolist() for part in line.band] == [[1, 101], [9, 109]]
    assert lines.of_seeds("one", np.arange(2), values[:, :1], palette.GREEN).band is None


def test_of_a_quadratic_lr_times_the_sharpness_does_not_move():
    problem, options = ss.problems.even_parabola(1, 20), {"momentum": 0.5}
    given = {"lr": 0.1, "epochs": 9, "diagnostics": ["full_hess_max_eig"]}
    run = ss.train(problem, options=options, **given)

    def seldom(**which):  # as of a network, whose sharpness is not looked at in every step
        rows = run.load(**which)
        return rows.assign(full_hess_max_eig=rows["full_hess_max_eig"].where(rows["step"] % 4 == 0))

    rare = SimpleNamespace(problem=problem, config=run.config, load=seldom, color=None)
    runs = {"descent": ss.train(problem, **given), "heavy ball": rare}
    plain, heavy = lines.lr_sharpness(runs, ["heavy ball"]).lines
    top = 0.1 * ss.theory.eigenvalues(problem.least_squares)[-1]
    assert plain.y == pytest.approx(top, rel=1e-5)
    assert plain.x == pytest.approx(0.1 * np.arange(9))
    assert heavy.x == pytest.approx([0, 0.4, 0.8])
    assert plain.expected is None
    assert heavy.expected[1].tolist() == [3, 3]  # 2 + 2 beta
    assert (plain.color, heavy.color) == (palette.BLUE, palette.OPTIMIZERS["momentum"])


def test_a_grid_of_excess_losses_starts_at_the_start():
    run = ss.train(
        ss.problems.even_parabola(1, 20, 0.5, (0.9, 0.05, 0.05)),
        **{"lr": 0.05, "batch_size": 4, "epochs": 3, "seeds": [0, 1], "order": "with_replacement"},
    )
    axes = ss.figures.excess_grid({("some", "noisy"): {"constant": run}}, {"noisy": 1e-3}).axes[0]
    drawn = axes.lines[0].get_ydata()
    assert drawn[0] == pytest.approx(1.0)
    assert drawn[1:] == pytest.approx(run.excess().mean(1))
    assert axes.get_title() == "noisy: some"
