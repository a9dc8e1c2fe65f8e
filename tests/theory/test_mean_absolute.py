"""The gradient of the mean absolute error, against every pattern of signs and the trainer."""

import numpy as np
import pytest

import sgdstudy as ss
from sgdstudy import theory


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_least_of_all_signs_that_change_twice_at_most(seed):
    draw = np.random.default_rng(seed)
    d = int(draw.integers(1, 12))
    phi = draw.normal(size=(d, 3))
    norms = []
    for first in range(d + 1):
        for last in range(first, d + 1):
            signs = np.ones(d)
            signs[first:last] = -1
            norms.append(np.linalg.norm(np.mean(signs[:, None] * phi, axis=0)))
    assert theory.least_absolute_gradient(phi) == pytest.approx(min(norms), rel=1e-12)


def test_a_sign_counts_once():
    """Of 1 and -3 the signs make |1 - 3| / 2 or |1 + 3| / 2; three times the first would be 0."""
    assert theory.least_absolute_gradient(np.array([[1.0], [-3.0]])) == pytest.approx(1.0)


def test_no_step_on_a_parabola_has_a_smaller_gradient():
    x = np.linspace(-1, 1, 9)
    true, away = [0.3, -1.0, 0.5], [1.0, 1.0, 1.0]
    y, parabola = 0.3 * x * x - x + 0.5, ss.problems.ready_made.parabola
    problem = ss.Problem(x, y, parabola, loss="abs", w_init=away, w_true=true)
    least = theory.least_absolute_gradient(np.stack([x * x, x, np.ones_like(x)], 1))
    run = ss.train(problem, optimizer="notebook", lr=0.01, epochs=2000)
    assert run.steps["grad_norm"].min() >= least * (1 - 1e-9) > 0
    assert run.distance[0] < 0.1  # and yet it is near the solution
