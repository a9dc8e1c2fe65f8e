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
    steps = theory.expected_steps(ls, w0, problem.d, problem.d, lr, 1e-4)
    # the closed form counts from 1, the loss read before the update
    assert np.ceil(steps) == theory.descent_stop(ls, w0, lr, 1e-4) - 1


@pytest.mark.parametrize("twice", [False, True])
def test_steps_are_those_of_the_expected_losses(twice):
    problem, size = curve(), 40
    ls, w0 = problem.least_squares, np.zeros(3)
    lr = 0.5 * theory.mean_square_lr_limit(ls, problem.d, size, twice)
    _, full = theory.expected_losses(ls, w0, problem.d, size, lr, 100, twice)  # a step an epoch
    steps = theory.expected_steps(ls, w0, problem.d, size, lr, 1e-4, twice)
    assert np.ceil(steps) == theory.first_below(full, 1e-4)


def test_targets_that_are_met_at_once_or_never():
    problem = curve()
    ls, w0 = problem.least_squares, np.zeros(3)
    lr = theory.lr_limit(ls)
    assert theory.expected_steps(ls, ls.w_star, problem.d, 1, 0.01, 1.0) == 0
    assert theory.expected_steps(ls, w0, problem.d, problem.d, 2 * lr, 1e-4) == np.inf
    assert theory.expected_steps(ls, w0, problem.d, 1, 0.01, 1e-4, most=3) == np.inf


def test_the_time_of_a_step_is_a_part_of_that_of_the_run():
    history = ss.train(curve(), batch_size=1, lr=0.01, epochs=30, seeds=range(3))
    steps = history.n_steps[0]
    assert 0 < history.seconds_per_step * steps <= history.train_seconds


def test_full_batches_in_blocks_are_the_same_descent(monkeypatch):
    problem = curve(1000).replace(exact=False)
    given = {"optimizer": "SGD", "lr": 0.1, "epochs": 20, "seeds": range(2), "engine": "eager"}
    whole = ss.train(problem, **given)
    monkeypatch.setattr("sgdstudy.problems.evaluation.EVALUATE_AT_ONCE", 137)
    blocks = ss.train(problem, **given)
    assert np.allclose(blocks.w, whole.w, rtol=1e-12)
    assert np.allclose(blocks.epochs["full_loss"], whole.epochs["full_loss"], rtol=1e-12)


def test_an_array_by_step_and_seed_has_holes_where_seeds_have_ended():
    history = ss.train(curve(), batch_size=4, lr=0.05, epochs=9, seeds=[5, 2], stop=("full", 1e-2))
    assert set(history.stop_epoch) != {9}
    losses = history.array("epochs", "full_loss")
    assert losses.shape == (history.stop_epoch.max(), 2)
    for r, seed in enumerate([5, 2]):
        own = history.epochs[history.epochs.seed == seed]["full_loss"].to_numpy()
        assert np.array_equal(losses[: len(own), r], own)
        assert np.isnan(losses[len(own) :, r]).all()
    assert history.array("steps", "loss", seeds=[2], steps=slice(0, 5)).shape == (5, 1)


def test_a_memory_map_is_not_copied():
    with tempfile.TemporaryFile() as file:
        x = np.memmap(file, np.float32, "w+", shape=(100,))
        x[:] = np.linspace(-1, 1, 100)
        problem = ss.Problem(x, x, lambda w, x: w[0] * x, w_init=[0.0])
        assert np.shares_memory(problem.x.numpy(), x)
        assert np.shares_memory(problem.y.numpy(), x)
