"""A sweep on one picture: which value stands in which cell, what is said where there is none."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import LogNorm

from sgdstudy.figures import heat_map
from sgdstudy.figures.heat_map import DIVERGED, LIMIT, NOWHERE, Sketch
from sgdstudy.language import languages, speaking

NAN = float("nan")


def sketch(grid, rows, what="stop_epoch", limit=NAN, seeds=4):
    """Draw what a grid gave: a row for each combination, as the values of its settings, `what`,
    how many seeds diverged."""
    table = pd.DataFrame(rows, columns=[*grid, what, "diverged"])
    return heat_map.draw(Sketch(grid, table, what, seeds, lambda point: limit), "title")


def legend(figure):
    return {text.get_text() for legend in figure.legends for text in legend.get_texts()}


def test_a_grid_of_one_combination_has_no_picture():
    assert sketch({"lr": [0.1]}, [(0.1, 3, 0)]) is None


def test_the_step_size_lies_across_and_every_cell_has_its_value():
    grid: dict[str, Any] = {"batch_size": [10, None], "lr": [0.1, 0.2, 0.4]}
    rows = [(b, lr, 10 * lr + (b is None), 0) for lr in grid["lr"] for b in grid["batch_size"]]
    panel = sketch(grid, rows[::-1]).axes[0]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("lr", "batch_size")
    np.testing.assert_array_equal(panel.images[0].get_array(), [[1, 2, 4], [2, 3, 5]])
    assert [t.get_text() for t in panel.get_yticklabels()] == ["10", "none"]


def test_over_further_axes_a_cell_is_the_median():
    grid: dict[str, Any] = {"lr": [0.1, 0.2], "batch_size": [5, 10], "order": ["a", "b", "c"]}
    value = {"a": 1, "b": 2, "c": 30}  # their median is 2, their mean 11
    rows = [
        (lr, b, o, value[o] * lr * b, 0)
        for lr in grid["lr"]
        for b in grid["batch_size"]
        for o in grid["order"]
    ]
    figure = sketch(grid, rows)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[1, 2], [2, 4]], rtol=1e-15)
    assert figure.axes[0].get_title().endswith("median over 4 seeds, order")


def test_where_nothing_stops_and_where_most_diverge_is_told_apart():
    grid: dict[str, Any] = {"lr": [0.1, 0.2], "order": ["a", "b"]}
    rows = [(0.1, "a", 3, 0), (0.1, "b", NAN, 2), (0.2, "a", NAN, 3), (0.2, "b", 5, 0)]
    figure = sketch(grid, rows)  # of 4 seeds: 2 are not most, 3 are
    crosses = [line for line in figure.axes[0].lines if line.get_label() == DIVERGED]
    assert [line.get_xydata().tolist() for line in crosses] == [[[1, 0]]]
    assert legend(figure) == {NOWHERE["stop_epoch"], DIVERGED}


@pytest.mark.parametrize(("largest", "by_logarithm"), [(19.0, False), (21.0, True)])
def test_values_far_apart_are_told_apart_by_their_logarithm(largest, by_logarithm):
    grid: dict[str, Any] = {"lr": [0.1, 0.2], "order": ["a", "b"]}
    rows = [(0.1, "a", 1.0, 0), (0.1, "b", 2.0, 0), (0.2, "a", 3.0, 0), (0.2, "b", largest, 0)]
    image = sketch(grid, rows, "full_loss").axes[0].images[0]
    assert isinstance(image.norm, LogNorm) is by_logarithm


def test_the_limit_lies_between_the_step_sizes_that_it_is_between():
    """0.2 is the middle of 0.1 and 0.4 by their logarithms; columns are numbered from 0."""
    grid: dict[str, Any] = {"lr": [0.1, 0.4], "order": ["a", "b"]}
    rows = [(lr, o, 1.0, 0) for lr in grid["lr"] for o in grid["order"]]
    (line,) = [x for x in sketch(grid, rows, limit=0.2).axes[0].lines if x.get_label() == LIMIT]
    across = line.get_xdata()
    np.testing.assert_allclose(across[np.isfinite(across)], 0.5, rtol=1e-12)
    outside = sketch(grid, rows, limit=0.5).axes[0].lines
    assert LIMIT not in [x.get_label() for x in outside]


def test_on_one_axis_the_limit_is_a_line_where_it_is_within():
    rows = [(0.1, 5, 0), (0.2, 3, 0), (0.4, NAN, 4)]
    for limit, drawn in ((0.3, [0.3, 0.3]), (0.5, None), (NAN, None)):
        lines = sketch({"lr": [0.1, 0.2, 0.4]}, rows, limit=limit).axes[0].lines
        found = [list(x.get_xdata()) for x in lines if x.get_label() == LIMIT]
        assert found == ([drawn] if drawn else [])


def test_an_axis_of_words_has_a_place_for_each():
    panel = sketch({"order": ["shuffle", "strided"]}, [("strided", 2, 0), ("shuffle", 1, 0)])
    panel = panel.axes[0]
    assert [t.get_text() for t in panel.get_xticklabels()] == ["shuffle", "strided"]


MAP = ({"lr": [0.1, 0.2], "order": ["a", "b"]}, [(0.1, "a"), (0.1, "b"), (0.2, "a"), (0.2, "b")])
LINE = ({"lr": [0.1, 0.2, 0.3, 0.4]}, [(0.1,), (0.2,), (0.3,), (0.4,)])


@pytest.mark.parametrize("lang", languages())
@pytest.mark.parametrize("what", NOWHERE)
@pytest.mark.parametrize(("grid", "points"), [MAP, LINE], ids=["map", "line"])
def test_the_legend_is_not_cut(grid, points, what, lang):
    """With all that it can have."""
    ends = [(3, 0), (NAN, 0), (NAN, 4), (5, 0)]
    with speaking(lang):
        rows = [(*point, *end) for point, end in zip(points, ends, strict=True)]
        figure = sketch(grid, rows, what, limit=0.15)
        (found,) = figure.legends
        figure.draw_without_rendering()
        box = found.get_window_extent()
    assert len(found.get_texts()) == (3 if len(grid) > 1 else 4)
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
