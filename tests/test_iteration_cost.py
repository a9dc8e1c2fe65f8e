"""Steps to a target against closed forms and against the mean itself; memory maps stay maps."""

import tempfile

import numpy as np
import pytest

import sgdstudy as ss
from sgdstudy import theory


def curve(d=40):
    x = np.linspace(-2, 2, d)
    y = ss.problems.parabola([0.3, -1.7, 2.5], x)
    return ss.Problem(x, y, ss.problems.parabola, w_init=np.zeros(3))


def test_steps_of_full_batches_are_those_of_descent():
    problem = curve()
    ls, w0 = problem.least_squares, np.zeros(3)
    lr = 0.5 * theory.lr_limit(ls)
    steps = theory.steps_to_target(ls, w0, problem.d, problem.d, lr, 1e-4)
    # the closed form counts from 1, the loss read before the update
    assert np.ceil(steps) == theory.descent_stop(ls, w0, lr, 1e-4) - 1


@pytest.mark.parametrize("twice", [False, True])
def test_steps_are_those_of_the_expected_losses(twice):
    problem, size = curve(), 40
    ls, w0 = problem.least_squares, np.zeros(3)
    lr = 0.5 * theory.mean_square_lr_limit(ls, problem.d, size, twice)
    _, full = theory.expected_losses(ls, w0, problem.d, size, lr, 100, twice)  # a step an epoch
    steps = theory.steps_to_target(ls, w0, problem.d, size, lr, 1e-4, twice)
    assert np.ceil(steps) == theory.first_below(full, 1e-4)


def test_targets_that_are_met_at_once_or_never():
    problem = curve()
    ls, w0 = problem.least_squares, np.zeros(3)
    lr = theory.lr_limit(ls)
    assert theory.steps_to_target(ls, ls.w_star, problem.d, 1, 0.01, 1.0) == 0
    assert theory.steps_to_target(ls, w0, problem.d, problem.d, 2 * lr, 1e-4) == np.inf
    assert theory.steps_to_target(ls, w0, problem.d, 1, 0.01, 1e-4, most=3) == np.inf


def test_a_memory_map_is_not_copied():
    with tempfile.TemporaryFile() as file:
        x = np.memmap(file, np.float32, "w+", shape=(100,))
        x[:] = np.linspace(-1, 1, 100)
        problem = ss.Problem(x, x, lambda w, x: w[0] * x, w_init=[0.0])
        assert np.shares_memory(problem.x.numpy(), x)
        assert np.shares_memory(problem.y.numpy(), x)
