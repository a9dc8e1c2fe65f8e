"""The few points of a long series: which ones, and going on from a checkpoint."""

import numpy as np
import pytest

from sgdstudy.figures.extremes import FINAL_POINTS, Extremes


def added(extremes, values, first=0):
    extremes.add(np.arange(first, first + len(values)), np.array(values, dtype=float))
    return extremes


def test_a_short_series_is_kept_as_it_is():
    values = [3.0, 1.0, 2.0, 5.0]
    assert added(Extremes(6), values).points() == list(enumerate(values))


def test_of_every_stretch_the_lowest_and_the_highest_are_kept():
    """Ten values at a limit of 6: two stretches of eight steps, cut at 8; and the two ends."""
    values = [5, 9, 4, 6, 1, 7, 3, 5, 2, 8]
    assert added(Extremes(6), values).points() == [(0, 5), (1, 9), (4, 1), (8, 2), (9, 8)]


@pytest.mark.parametrize("n", [300, 20_000, 1_000_000])
@pytest.mark.parametrize("every", [1, 50])
def test_a_logarithmic_axis_has_points_from_its_beginning_on(n, every):
    """As it was seen: the first hundred epochs of 10,000 were a straight line between two points.

    Between two points that follow each other the step grows by a third at most, up to a few steps;
    the rest is spread evenly.
    """
    extremes = Extremes()
    for first in range(0, n, 1000):
        steps = np.arange(first, min(first + 1000, n), every)
        extremes.add(steps, np.exp(-steps / 300))
    steps = np.array([step for step, _ in extremes.points()])
    assert len(steps) <= FINAL_POINTS
    assert np.all(steps[1:] <= np.ceil(steps[:-1] * 4 / 3) + 2 * every)
    assert np.diff(steps).max() <= max(every, 2 * n / (FINAL_POINTS / 4))


def test_what_is_not_finite_is_left_out():
    points = added(Extremes(6), [np.nan, 2.0, np.inf, -np.inf, 1.0]).points()
    assert points == [(1, 2.0), (4, 1.0)]
    assert added(Extremes(6), [np.nan]).points() == []


@pytest.mark.parametrize("cut", [0, 1, 2, 777, 5000])
def test_one_that_is_restored_goes_on_as_if_nothing_had_happened(cut):
    values = np.random.default_rng(0).normal(size=5000)
    first = added(Extremes(20), values[:cut])
    second = Extremes(20)
    second.load_state_dict(first.state_dict())
    added(second, values[cut:], cut)
    assert second.points() == added(Extremes(20), values).points()


def test_memory_does_not_grow_with_the_series():
    extremes, limit = Extremes(20), 20
    for first in range(0, 100_000, 50):
        added(extremes, np.sin(np.arange(first, first + 50)), first)
        assert len(extremes.state_dict()["steps"]) <= 4 * limit + 50 + 2
