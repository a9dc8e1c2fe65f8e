"""What batches where a run stands still say of all the data: estimates, and their tolerance."""

import numpy as np
import pytest

import sgdstudy as ss
from sgdstudy import theory


def still(seeds=40, **changes):
    problem = ss.problems.curve(noise=1.0).replace(w_init=[0.3, -1.6, 2.0])
    arm = ss.Arm(problem, optimizer="none", lr=1e-4, batch_size=50, epochs=1, seeds=range(seeds))
    return arm.but(**changes)


def test_of_two_equal_sizes_the_estimate_is_not_defined():
    assert np.isnan(theory.two_batch_estimate(2.0, 10, 2.0, 10))


@pytest.mark.parametrize("batch_size", [10, 64, 2000])
def test_the_mean_square_of_a_run_is_within_its_error_and_its_error_is_no_wider(batch_size):
    arm = still(batch_size=batch_size)
    run, known = ss.train(arm.problem, config=arm.config), ss.expect(arm).mean_square_batch_norm
    assert run.mean_square_batch_norm() == pytest.approx(known.value, abs=known.within)
    rows = run.steps[run.steps["size"] == batch_size]
    each = (rows["grad_norm"].astype(float) ** 2).groupby(rows["seed"]).mean()
    rounding = theory.sum_rounding(2000) * known.value
    assert known.within - rounding < 8 * float(ss.standard_error(each)) + rounding
    assert run.mean_square_batch_norm() == pytest.approx(each.mean(), rel=1e-12)


def test_a_wrong_mean_square_would_be_seen():
    arm = still()
    run = ss.train(arm.problem, config=arm.config)
    with_replacement = theory.trace_sigma(arm.problem.least_squares, run.w[0], 2000) / 50
    square = np.square(ss.expect(arm).gradients.mean(0)).sum()
    known = ss.expect(arm).mean_square_batch_norm
    assert known.value < square + with_replacement  # a finite population scatters less
    assert abs(known.value - square) > known.within


def test_the_gradients_are_those_where_the_first_seed_starts():
    arm = still(problem=ss.problems.curve().replace(w_init=lambda g: [0.1, 0.2, 0.3]))
    x, y = (v.double().numpy() for v in (arm.problem.x, arm.problem.y))
    w = arm.problem.initial([0])[0].double().numpy()
    error = w[0] * x * x + w[1] * x + w[2] - y
    each = 2 * error[:, None] * np.stack([x * x, x, np.ones_like(x)], 1)
    assert np.allclose(ss.expect(arm).gradients, each, rtol=1e-9)
