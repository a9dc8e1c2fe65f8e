"""What `ss.expect` says of independent batches: by enumeration, and in the mean of many seeds."""

from itertools import product

import numpy as np
import pytest
from conftest import small_curve

import sgdstudy as ss
from sgdstudy.theory.medians import ratio_of_means, standard_error


def independent(seeds=400, **changes):
    settings = {"lr": 0.1, "batch_size": 5, "epochs": 4, "seeds": range(seeds)}
    return ss.Arm(small_curve(10, noise=0.3), order="with_replacement", **settings | changes)


def test_means_are_those_of_many_seeds():
    arm = independent()
    run, known = ss.train(arm.problem, config=arm.config), ss.expect(arm)
    for column, expected in (
        ("running_loss", known.mean_loss("running_loss")),
        ("full_loss", known.mean_loss("full_loss")),
    ):
        found = run.array("epochs", column)
        assert (np.abs(found.mean(1) - expected) <= 4 * standard_error(found)).all()
    square = run.array("epochs", "full_grad_norm") ** 2
    off = np.abs(square.mean(1) - known.mean_square_gradient)
    assert (off <= 4 * standard_error(square)).all()
    with pytest.raises(ss.InputError, match="plain steps"):
        ss.expect(arm.but(optimizer="Adam")).mean_loss("full_loss")


def test_lucky_batches_by_enumeration():
    arm = independent(batch_size=2)
    ls, draws = arm.problem.least_squares, 3
    ws = ls.w_star + 0.3 * np.random.default_rng(2).normal(size=(1000, 2, 3))
    level, where = 0.1, np.random.default_rng(3).uniform(size=(1000, 2)) < 0.7
    batches = list(product(range(10), repeat=2))
    error = (ws - ls.w_star) @ ls.features.T + ls.residual
    exact = np.mean([(error[..., b] ** 2).mean(-1) < level for b in map(list, batches)], 0)[where]
    known = ss.expect(arm).lucky_batches(ws, level, where, draws)
    spread = np.sqrt((exact * (1 - exact)).mean() / where.sum())
    assert known.value == pytest.approx(exact.mean(), abs=4 * spread / draws**0.5)
    assert known.within == pytest.approx(4 * spread * (1 + 1 / draws) ** 0.5, rel=0.05)


def test_the_error_of_a_ratio_of_means_is_that_of_repetitions():
    draw = np.random.default_rng(4)
    shared = draw.gamma(2, size=(2000, 1, 50))  # repetitions, rows, samples
    a, b = shared + draw.gamma(3, size=(2, 2000, 3, 50))
    true = np.ones(3)
    found = np.array([ratio_of_means(x, y, true) for x, y in zip(a, b, strict=True)])
    assert found[:, 0].mean() == pytest.approx(1, abs=0.005)
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.1)
