"""What theory knows of full batches and its rounding, against runs and exact arithmetic."""

import math

import numpy as np
import pytest

import sgdstudy as ss
from sgdstudy import theory
from sgdstudy.errors import InputError
from sgdstudy.theory.descent import float32_floor_rounding


def line(slope, level, d=8):
    """A float32 line whose two directions are the parameters: their curvatures are 2 and 6/7."""
    x = np.linspace(-1, 1, d, dtype="f")
    y = slope * x + level
    return ss.Problem(x, y, lambda w, x: w[0] * x + w[1], w_init=[0.0, 0.0])


def descent(problem, lr, **settings):
    return ss.Arm(problem, optimizer="notebook", lr=lr, **settings)


def trained(arm):
    return ss.train(arm.problem, config=arm.config)


@pytest.mark.parametrize("terms", [10, 300, 2000])
def test_sums_in_float32_are_within_the_rounding_of_sums_and_not_far_within(terms):
    draw, worst = np.random.default_rng(terms), 0.0
    for _ in range(300):
        values = draw.normal(size=terms).astype("f") ** 2  # one operation, the sum another
        total = np.add.accumulate(values)[-1]  # in float32, one after the other
        exact = math.fsum(values.astype(float))
        worst = max(worst, abs(float(total) - exact) / exact)
    within = theory.sum_rounding(terms, operations=2)
    assert within / 30 < worst < within
    assert theory.sum_rounding(4 * terms) == 2 * theory.sum_rounding(terms)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("share", [1.05, 1.5, 40.0])
def test_the_limit_that_a_run_beyond_it_shows_is_the_limit_to_rounding(dtype, share):
    problem = line(0.7, 1.3)
    lr = share * theory.lr_limit(problem.least_squares)
    epochs = 600 if share < 2 else {"float32": 8, "float64": 60}[dtype]
    arm = descent(problem, lr, epochs=epochs, dtype=dtype)
    known = ss.expect(arm).lr_limit
    assert trained(arm).lr_limit() == pytest.approx(known.value, abs=known.within)
    assert 0 < known.within < (1e-4 if dtype == "float32" else 1e-12) * known.value
    assert (known / 4).within == known.within / 4


def test_a_run_within_the_limit_shows_none():
    arm = descent(line(0.7, 1.3), 0.1, epochs=5)
    assert np.isnan(trained(arm).lr_limit())
    assert ss.expect(arm).lr_limit.within == 0


@pytest.mark.parametrize("lr", [0.003, 0.01, 0.03])
@pytest.mark.parametrize("slope", [0.7, -2.9, 1.4])
def test_float32_rests_on_its_floor_as_far_as_its_rounding_goes(lr, slope):
    arm = descent(line(slope, 0.01), lr, epochs=int(40 / lr))
    run, known = trained(arm), ss.expect(arm).float32_floor
    assert run.steps["update_norm"].iloc[-1] == 0
    excess = run.at("full_loss") - arm.problem.least_squares.least_loss
    assert excess == pytest.approx(known.value, abs=known.within)
    assert known.within == known.value * float32_floor_rounding(arm.problem.least_squares, lr)
    assert known.within < 0.5 * known.value


@pytest.mark.parametrize("epochs", [2, 5, 40])
def test_the_contraction_of_the_last_epochs_is_that_of_the_loop(epochs):
    arm = descent(line(0.7, 1.3), 0.05, epochs=epochs, dtype="float64")
    known = ss.expect(arm).contraction(10)
    assert trained(arm).contraction(10) == pytest.approx(known.value, abs=known.within)
    n = min(10, epochs - 1)
    sums = 4 * 8**0.5 * 2.0**-53 / n  # two losses of 8 terms, of which it is a root
    assert known.within == pytest.approx(epochs * 2.0**-52 + known.value * sums, rel=1e-12)
    x, w, losses = np.linspace(-1, 1, 8, dtype="f").astype(float), np.zeros(2), []
    y = arm.problem.y.double().numpy()
    for _ in range(epochs + 1):
        error = w[0] * x + w[1] - y
        losses.append(np.mean(error**2) - arm.problem.least_squares.least_loss)
        w = w - 0.05 * 2 * np.array([error @ x, error.sum()]) / 8
    ratio = (losses[-1] / losses[-1 - n]) ** (1 / (2 * n))
    assert known.value == pytest.approx(ratio, rel=1e-9)


@pytest.mark.parametrize("settings", [{"batch_size": 2}, {"stop": ("running", 0.1)}])
def test_a_contraction_that_is_not_known_is_refused(settings):
    arm = descent(line(0.7, 1.3), 0.05, **settings)
    with pytest.raises(InputError, match="contraction is of full batches"):
        ss.expect(arm).contraction()


def test_a_single_epoch_shows_no_contraction():
    arm = descent(line(0.7, 1.3), 0.05, epochs=1)
    assert ss.expect(arm).contraction() is None
    assert np.isnan(trained(arm).contraction())


def test_the_stop_is_that_of_the_run_and_none_where_nothing_is_known():
    arm = descent(line(0.7, 1.3), 0.05, epochs=200, stop=("running", 1e-3))
    assert ss.expect(arm).stop_epoch.value == trained(arm).median_stop
    orders = arm.but(batch_size=2, seeds=range(5))
    assert ss.expect(orders).stop_epoch.value == trained(orders).median_stop
    assert ss.expect(arm.but(optimizer="Adam")).stop_epoch is None


def test_the_best_step_needs_a_rule_to_be_best_for():
    arm = descent(line(0.7, 1.3), 0.05, stop=("running", 1e-3))
    ls = arm.problem.least_squares
    assert ss.expect(arm).lr_best_for_epsilon == theory.lr_best_for_epsilon(ls, [0, 0], 1e-3)
    assert ss.expect(arm).lr_best_asymptotic == pytest.approx(2 / (2 + 6 / 7))
    with pytest.raises(InputError, match="needs a stop rule"):
        _ = ss.expect(arm.but(stop=None)).lr_best_for_epsilon
