"""Numbers estimated from seeds: their errors are those that repeated trials scatter by."""

import numpy as np
import pytest
from conftest import one_line

import sgdstudy as ss

TRIALS, R = 2000, 50
WIDE = 4 / np.sqrt(2 * TRIALS)  # a standard deviation of so many trials is known to 1 / sqrt(2 n)


def scatter(trial):
    """The mean value of trials, their standard deviation, and their mean error."""
    draw = np.random.default_rng(1)
    found = [trial(draw) for _ in range(TRIALS)]
    values = np.array([one.value for one in found])
    return values.mean(), values.std(), np.mean([one.error for one in found])


def test_a_mean_has_its_standard_error():
    samples = np.array([1.0, 2.0, 3.0, 6.0])
    seen = ss.Estimate.mean(samples)
    assert (seen.value, seen.seeds) == (3.0, 4)
    assert seen.error == pytest.approx(samples.std(ddof=1) / 2)
    assert np.isnan(ss.Estimate.mean(samples[:1]).error)


def test_a_mean_beside_a_mean_of_others_includes_their_error():
    draw = np.random.default_rng(0)
    apart = [draw.normal(size=R).mean() - draw.normal(size=3 * R).mean() for _ in range(TRIALS)]
    errors = [ss.Estimate.mean(draw.normal(size=R), others=3 * R).error for _ in range(TRIALS)]
    assert np.mean(errors) == pytest.approx(np.std(apart), rel=WIDE + 1 / (2 * R))


@pytest.mark.parametrize("expected", [None, 2.0])
def test_a_ratio_of_means_that_share_their_luck(expected):
    def trial(draw):
        luck = draw.normal(size=R)
        a = 2 + 0.3 * luck + 0.1 * draw.normal(size=R)
        return ss.Estimate.ratio(a, 1 + 0.1 * luck, expected)

    value, spread, error = scatter(trial)
    assert value == pytest.approx(2, abs=4 * spread / TRIALS**0.5 + 1e-3)  # biased by 1 / R
    assert error == pytest.approx(spread, rel=WIDE + 2 / R)


def test_the_error_of_a_ratio_is_that_under_what_is_expected():
    """Of a = 2 b nothing is left at the ratio 2; at 3 what is off is -b / mean b."""
    b = np.array([1.0, 2.0, 3.0, 6.0])
    assert ss.Estimate.ratio(2 * b, b) == ss.Estimate(2.0, 0.0, 4)
    seen = ss.Estimate.ratio(2 * b, b, 3.0)
    assert (seen.value, seen.error) == (2.0, pytest.approx(b.std(ddof=1) / 2 / 3))


def test_a_height_is_a_geometric_mean_in_the_unit_of_what_is_expected():
    """4 times here and as expected there: 2 times; the seeds are off by 0.1 of it at both."""
    luck = np.array([-1.0, 1.0]) * 0.1
    seen = ss.Estimate.height(np.array([[12.0], [5.0]]) * (1 + luck), np.array([3.0, 5.0]))
    assert seen.value == pytest.approx(2.0)
    assert seen.error == pytest.approx(2 * 0.1)  # 0.1 sqrt(2) of the two seeds, over their root


def test_a_slope_and_a_height():
    k = np.array([8, 16, 32, 64])

    def samples(draw):
        return k[:, None] ** -3.0 * draw.chisquare(20, (4, R)) / 20

    value, spread, error = scatter(lambda draw: ss.Estimate.slope(k, samples(draw)))
    assert value == pytest.approx(-3, abs=4 * spread / TRIALS**0.5)
    assert error == pytest.approx(spread, rel=WIDE + 1 / R)
    value, spread, error = scatter(lambda draw: ss.Estimate.height(samples(draw), k**-3.0))
    assert value == pytest.approx(1, abs=4 * spread / TRIALS**0.5 + 0.1 / R)
    assert error == pytest.approx(spread, rel=WIDE + 1 / R)

    def beside_others(draw):
        return ss.Estimate.height(samples(draw), samples(draw))

    _, both, error = scatter(beside_others)
    assert both == pytest.approx(2**0.5 * spread, rel=2 * WIDE)
    assert error == pytest.approx(both, rel=WIDE + 1 / R)


@pytest.mark.parametrize("grows", [False, True])
def test_the_time_that_curves_take(grows):
    """A seed is ahead of the others by as much all along, or more and more."""
    k, target = np.arange(150), np.exp(-2.0)
    known = np.exp(-k / 50)

    def trial(draw):
        luck = draw.normal(size=R)
        ahead = np.exp(-k[:, None] / 50 * 0.02 * luck) if grows else 1 + 0.2 * luck
        return ss.Estimate.time_above(known[:, None] * ahead, target, known[:102])

    value, spread, error = scatter(trial)
    assert value == pytest.approx(100, abs=4 * spread / TRIALS**0.5 + 0.1)
    assert error == pytest.approx(spread, rel=WIDE + 1 / R)


def test_beside_what_is_expected():
    seen = ss.Estimate(2.0, 3.0, 9)
    assert seen.beside(1.5) == (2.0, 1.5, 3.0, 9)
    assert seen.beside(ss.Estimate(1.0, 4.0, 99)) == (2.0, 1.0, 5.0, 9)
    known = ss.Known(1.5, 0.0, "theory: three halves")
    claim = ss.Claim.estimated("a", "b", *ss.Estimate(2.0, 0.05, 9).beside(known))
    assert (claim.expected, claim.source) == (1.5, "theory: three halves")
    assert ss.Claim.estimated("a", "b", *seen.beside(known)).kind == "description"  # 0 would do
    assert -3 * seen == ss.Estimate(-6.0, 9.0, 9)
    assert (float(seen), f"{seen:.2f}") == (2.0, "2.00")


def test_curves_that_end_too_early_are_refused():
    with pytest.raises(ss.InputError, match="ends before") as error:
        ss.Estimate.time_above(np.ones((3, 2)), 0.1, np.ones(4))
    assert one_line(error)


def test_estimates_are_points_with_their_intervals():
    rows = ss.figures.points([("a", 1, ss.Estimate(2.0, 0.1, 9)), ("b", 1, 2.0, 0.1)])
    assert rows["low"].tolist() == pytest.approx([1.804, 1.804])
    rows = ss.figures.numbered({("p", "c", "a"): ([1.0, 0.5], [1.0, np.nan])})
    assert rows[["panel", "column", "line", "x", "y"]].to_numpy().tolist() == [
        ["p", "c", "a", 0, 1.0],
        ["p", "c", "a", 1, 0.5],
    ]


def test_a_ratio_by_rows_is_that_of_means():
    draw = np.random.default_rng(0)
    a, b = 2 + draw.normal(size=(3, R)), 4 + draw.normal(size=(3, R))
    seen = ss.Estimate.ratios(a, b, np.full(3, 0.5))
    assert seen.value == pytest.approx((a.mean(1) / b.mean(1)).mean())
    assert (seen.value, seen.error) == ss.theory.ratio_of_means(a, b, np.full(3, 0.5))
    assert seen.seeds == R
