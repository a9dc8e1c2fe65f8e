"""How far one more draw may be from a sample's mean: Student's law in closed form, and by draws."""

import numpy as np
import pytest
from scipy.stats import norm

from sgdstudy import theory


@pytest.mark.parametrize("deviations", [1.0, 2.0, 4.0])
def test_students_quantiles_of_one_and_two_degrees_have_closed_forms(deviations):
    tail = norm.sf(deviations)
    one = 1 / np.tan(np.pi * tail)  # Cauchy's law
    found = theory.draw_within(np.array([0.0, 2.0]), deviations)
    assert found == pytest.approx(one * 2**0.5 * 1.5**0.5, rel=1e-9)
    two = (1 - 2 * tail) * (2 / (4 * tail * (1 - tail))) ** 0.5
    found = theory.draw_within(np.array([-1.0, 0.0, 1.0]), deviations)
    assert found == pytest.approx(two * (4 / 3) ** 0.5, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 5, 40])
def test_one_more_draw_is_farther_as_seldom_as_two_deviations_say(n):
    draws = np.random.default_rng(n).normal(3.0, 2.0, size=(20_000, n + 1))
    off = np.abs(draws[:, -1] - draws[:, :-1].mean(1))
    share = np.mean(off > [theory.draw_within(row, 2.0) for row in draws[:, :-1]])
    expected = 2 * norm.sf(2.0)
    assert share == pytest.approx(expected, abs=4 * (expected / 20_000) ** 0.5)


def test_a_single_sample_says_nothing_of_the_next():
    assert np.isnan(theory.draw_within(np.array([1.0])))
