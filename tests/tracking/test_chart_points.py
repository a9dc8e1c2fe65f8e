"""The points chosen for MLflow's charts: few, and no spike lost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgdstudy.figures.extremes import FINAL_POINTS, Extremes
from sgdstudy.tracking.chart_points import INTERIM_POINTS, median_over_live

limits = st.integers(6, 40)
numbers = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf]))
series = st.lists(numbers, max_size=600)


def chosen(values, limit, cuts=()):
    """The points for a series over the steps 0, 1, ..., added in parts."""
    extremes = Extremes(limit)
    values = np.array(values, dtype=float)
    parts = zip(
        np.split(np.arange(len(values)), sorted(cuts)), np.split(values, sorted(cuts)), strict=True
    )
    for steps, part in parts:
        extremes.add(steps, part)
    return extremes.points()


def test_final_and_interim_points_fit_what_the_ui_asks_for():
    assert FINAL_POINTS + INTERIM_POINTS <= 320


@pytest.mark.slow
@given(values=series, limit=limits)
def test_points_are_few_in_order_and_of_the_series(values, limit):
    points = chosen(values, limit)
    steps = [step for step, _ in points]
    assert len(points) <= limit
    assert steps == sorted(set(steps))
    assert all(values[step] == value for step, value in points)


@given(values=series, limit=limits)
def test_minimum_maximum_first_and_last_survive(values, limit):
    finite = [(step, value) for step, value in enumerate(values) if np.isfinite(value)]
    points = chosen(values, limit)
    if not finite:
        assert points == []
        return
    assert points[0] == finite[0]
    assert points[-1] == finite[-1]
    kept = [value for _, value in points]
    assert min(kept) == min(value for _, value in finite)
    assert max(kept) == max(value for _, value in finite)


@given(
    n=st.integers(0, 3000),
    seed=st.integers(0, 99),
    limit=limits,
    cuts=st.lists(st.integers(0, 3000), max_size=12),
)
def test_points_do_not_depend_on_how_the_series_was_cut(n, seed, limit, cuts):
    values = np.random.default_rng(seed).integers(0, 50, n).astype(float)  # with ties
    values[values > 45] = np.nan
    cuts = [min(cut, n) for cut in cuts]
    assert chosen(values, limit, cuts) == chosen(values, limit)


@pytest.mark.slow
@pytest.mark.parametrize("n", [0, 1, 2, 254, 256, 10_000, 1_000_003])
def test_long_series_are_reduced_to_the_limit_and_no_further_than_needed(n):
    values = np.random.default_rng(0).normal(size=n)
    points = chosen(values, FINAL_POINTS, range(1000, n, 1000))
    assert len(points) <= FINAL_POINTS
    # stretches double: at worst the number of points halves once too often
    assert len(points) >= min(n, FINAL_POINTS // 2 - 2)


def test_a_series_within_the_limit_is_kept_whole():
    values = np.random.default_rng(0).normal(size=FINAL_POINTS - 2)
    assert chosen(values, FINAL_POINTS) == list(enumerate(values))


def test_single_spikes_survive_in_a_long_series():
    values = np.ones(100_000)
    values[[12_345, 77_777]] = 1e9, -1e9
    points = dict(chosen(values, FINAL_POINTS, range(256, 100_000, 256)))
    assert points[12_345] == 1e9
    assert points[77_777] == -1e9


def test_values_that_are_not_finite_are_left_out():
    values = [np.nan, 1.0, np.inf, 2.0, -np.inf, np.nan]
    assert chosen(values, 10) == [(1, 1.0), (3, 2.0)]


def test_steps_need_not_be_neighbours():
    extremes = Extremes(10)
    extremes.add(np.arange(0, 10_000, 100), np.arange(100.0))
    points = extremes.points()
    assert len(points) <= 10
    assert points[0] == (0, 0.0)
    assert points[-1] == (9900, 99.0)


@given(
    rows=st.integers(0, 6),
    replicas=st.integers(1, 7),
    seed=st.integers(0, 99),
    share=st.floats(0, 1),
)
@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_the_median_over_the_live_is_numpys(rows, replicas, seed, share):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(rows, replicas))
    keep = generator.random((rows, replicas)) < share
    expected = np.nanmedian(np.where(keep, values, np.nan), axis=1)
    assert np.array_equal(median_over_live(values, keep), expected, equal_nan=True)


def test_the_median_broadcasts_and_takes_infinity():
    keep = np.array([[True, True, True], [True, False, False]])
    assert median_over_live(np.array([[1.0], [2.0]]), keep).tolist() == [1.0, 2.0]
    assert median_over_live(np.array([[1.0, 2.0, np.inf]] * 2), keep).tolist() == [2.0, 1.0]
