"""Around the edge of stability: a run whose sharpness and loss are made up, and one that is not."""

import numpy as np
import pytest
from conftest import small_curve

import sgdstudy as ss
from sgdstudy.history.edge import around_edge


def test_a_run_that_passes_its_edge_once():
    steps = np.arange(100)
    sharpness = np.where(steps % 10 == 0, steps / 10.0, np.nan)  # 0, 1, ..., 9
    loss = 200.0 - steps
    # one rise up to step 40, the last below; one that is neither; four of the 49 steps from 50
    loss[[20, 45, 55, 62, 64, 70]] += 1.5
    found = around_edge(np.stack([sharpness, sharpness], 1), np.stack([loss, loss], 1), 4.5)
    assert found.rises_before.tolist() == [1, 1]
    assert found.rises_beyond == pytest.approx(4 / 49)
    assert (found.largest[0], found.late[0]) == (9, 8)  # the last of ten eigenvalues from the 7th
    assert found.loss_there[0] == 150
    assert found.late_loss[0] == np.median(loss[75:])
    never = around_edge(sharpness[:, None], loss[:, None], 99.0)
    assert never.rises_before.tolist() == [6]
    assert np.isnan([never.rises_beyond[0], never.loss_there[0]]).all()


def test_a_seed_that_ends_early_has_its_own_last_quarter():
    sharpness, loss = np.ones((8, 2)), np.arange(8.0, 0, -1)[:, None] * np.ones(2)
    sharpness[4:, 1], loss[4:, 1] = np.nan, np.nan
    found = around_edge(sharpness, loss, 2.0)
    assert found.late_loss.tolist() == [1.5, 5.0]
    assert found.late.tolist() == [1, 1]


def test_of_a_quadratic_the_sharpness_is_that_of_its_moments():
    problem = small_curve()
    top = ss.theory.eigenvalues(problem.least_squares)[-1]
    run = ss.train(problem, lr=0.1, epochs=30, diagnostics=["full_hess_max_eig"])
    edge = run.edge()
    assert edge.largest[0] == pytest.approx(top, rel=1e-5)
    assert edge.late[0] == pytest.approx(top, rel=1e-5)
    assert edge.rises_before[0] == 0
    with pytest.raises(ss.InputError, match="full_hess_max_eig"):
        ss.train(problem, lr=0.1, epochs=3, diagnostics="off").edge()


def test_momentum_moves_the_edge_away():
    """It is at 2 / lr, and with heavy-ball momentum of 0.5 at 3 / lr (Cohen et al. 2021)."""
    problem = small_curve()
    lr = 2.5 / ss.theory.eigenvalues(problem.least_squares)[-1]
    given = {"lr": lr, "epochs": 10, "diagnostics": ["full_hess_max_eig"]}
    plain, heavy = (
        ss.train(problem, options=options, **given).edge() for options in ({}, {"momentum": 0.5})
    )
    assert plain.rises_beyond[0] > 0.5
    assert np.isnan(heavy.rises_beyond[0])


def test_a_step_beside_the_limit_of_second_moments_where_it_ended():
    """A parabola is its own linearisation: the limit is that of its moments anywhere."""
    problem = ss.problems.even_parabola(1, 20, 0.1)
    given = {"lr": 0.05, "batch_size": 4, "epochs": 2, "seeds": [0, 1]}
    run = ss.train(problem, order="with_replacement", **given)
    limit = ss.theory.mean_square_lr_limit(problem.least_squares, 20, 4, True)
    assert run.lr_over_mean_square_limit() == pytest.approx([0.05 / limit] * 2)
