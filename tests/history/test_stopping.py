"""Stops of rules and of luck: by hand, by loops over the epochs, by simulation."""

import numpy as np
import pytest
import torch
from conftest import small_curve

import sgdstudy as ss
from sgdstudy.history.stopping import stops, stops_by_chance


def test_stops_are_those_of_a_loop_over_the_epochs():
    draw = np.random.default_rng(0)
    quantity, loss = draw.uniform(size=(2, 6, 200))
    found = stops(quantity, 0.2, loss, 0.3)
    for seed in range(200):
        below = [e for e in range(6) if quantity[e, seed] < 0.2]
        done = [e for e in range(6) if loss[e, seed] < 0.3]
        assert found.epoch[seed] == (below[0] + 1 if below else np.inf)
        assert found.truth[seed] == (done[0] + 1 if done else np.inf)
        assert found.false[seed] == (bool(below) and below[0] not in done)
    right = found.stopped & ~found.false
    assert found.late == np.median(found.epoch[right] - found.truth[right])


def test_only_seeds_stopped_rightly_say_how_late_a_rule_is():
    quantity, loss = np.array([[0.9, 2.0], [0.9, 0.9]]), np.array([[3.0, 3.0], [0.4, 0.4]])
    found = stops(quantity, 1.0, loss, 0.5)  # the first is stopped an epoch before the truth
    assert found.false.tolist() == [True, False]
    assert found.late == 0.0


def test_a_run_is_stopped_as_training_with_the_rule_stops_it():
    settings = {"lr": 0.1, "batch_size": 10, "epochs": 40, "seeds": range(12)}
    problem = small_curve(noise=0.1)
    epsilon = problem.least_squares.least_loss + 0.02
    free = ss.train(problem, **settings)
    thresholds = {"grad_norm": ss.theory.gradient_bound(problem.least_squares, 0.02)}
    for rule in ("running", "full", "last_batch", "grad_norm"):
        stopped = ss.train(problem, **settings, stop=(rule, thresholds.get(rule, epsilon)))
        found = free.stops(rule, epsilon)
        assert found.stopped.any()
        assert np.array_equal(found.epoch, stopped.converged_epoch)
        assert found.false.any() == (rule in ("running", "last_batch") and found.false.any())
    assert not free.stops("full", epsilon).false.any()
    with pytest.raises(ss.InputError, match="stop rule"):
        free.stops("best", epsilon)


def test_chances_add_up_as_in_simulation():
    draw = np.random.default_rng(1)
    chance, done = draw.uniform(0, 0.5, (4, 1)), np.array([[False], [True], [False], [True]])
    stop = draw.uniform(size=(4, 200_000)) < chance
    first = stop.argmax(0)
    false = stop.any(0) & ~done[first, 0]
    error = np.sqrt(false.mean() * (1 - false.mean()) / len(false))
    assert stops_by_chance(chance, done)[0] == pytest.approx(false.mean(), abs=4 * error)


def test_lucky_stops_are_those_of_last_batches_that_nothing_moves():
    """Parameters that stand still: a last batch is a random one, whatever came before."""
    settings = {"optimizer": "none", "batch_size": 4, "order": "with_replacement"}
    run = ss.train(small_curve(noise=0.3), **settings, epochs=6, seeds=range(2000))
    epsilon = 0.2 * run.at("full_loss", 1)
    false = run.stops("last_batch", epsilon).false
    few = ss.train(run.problem, **settings, epochs=6, seeds=range(40))
    chance = few.lucky_stops(epsilon, 2000)
    error = np.sqrt(false.var() / len(false) + chance.var() / len(chance))
    assert 0.1 < false.mean() < 0.9
    assert chance.mean() == pytest.approx(false.mean(), abs=4 * error)


def test_a_lucky_stop_is_at_the_parameters_before_the_epochs_last_step():
    run = ss.train(small_curve(noise=0.3), lr=0.1, batch_size=1, epochs=1, seeds=1)
    x, y, ws = run.problem.x, run.problem.y, run.parameters()[:, 0]
    epsilon, draws = 0.9 * run.at("full_loss", 1), 4000
    chance = [
        float(((run.problem.model(torch.tensor(w), x) - y) ** 2 < epsilon).double().mean())
        for w in (ws[0], ws[-1])
    ]
    assert abs(chance[0] - chance[1]) > 0.1  # the first step's parameters have another
    error = np.sqrt(chance[1] * (1 - chance[1]) / draws)
    assert run.lucky_stops(epsilon, draws)[0] == pytest.approx(chance[1], abs=4 * error)


def test_the_gradient_is_never_below_its_bound_and_meets_it_along_the_flattest_direction():
    problem = small_curve(noise=0.3)
    run = ss.train(problem, lr=0.1, batch_size=10, epochs=20, seeds=range(3), dtype="float64")
    assert run.gradient_over_bound().shape == (20, 3)
    assert (run.gradient_over_bound() >= 1).all()
    ls = problem.least_squares
    flat = problem.replace(w_init=ls.w_star + ls.modes[1][:, 0])
    along = ss.train(flat, lr=0.1, epochs=5, dtype="float64").gradient_over_bound()
    assert np.allclose(along, 1, rtol=1e-4)


def test_parameters_are_the_columns_of_the_rows():
    run = ss.train(small_curve(), lr=0.1, batch_size=10, epochs=2, seeds=[3, 1])
    steps = run.steps[run.steps["seed"] == 1][["w0", "w1", "w2"]].to_numpy()
    assert np.array_equal(run.parameters()[:, 1], steps)
    assert np.array_equal(run.parameters("epochs")[-1], run.w.astype(float))


def test_seeds_without_an_epoch_still_have_their_columns():
    run = ss.train(small_curve(), lr=1e30, batch_size=10, epochs=2, seeds=[0, 1])
    assert len(run.epochs) == 0
    assert run.array("epochs", "full_loss").shape == (0, 2)
    assert run.stops("full", 1.0).epoch.tolist() == [np.inf, np.inf]
    found = ss.tuning.outcomes(run.array("epochs", "full_loss"), [0, 1], {"easy": 1.0})
    assert found["time"].tolist() == found["final"].tolist() == [np.inf, np.inf]
