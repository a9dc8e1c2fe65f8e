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


def test_means_with_momentum_are_those_of_many_seeds():
    arm = independent(options={"momentum": 0.5}, lr=0.05)
    found = ss.train(arm.problem, config=arm.config).array("epochs", "full_loss")
    off = np.abs(found.mean(1) - ss.expect(arm).mean_loss("full_loss"))
    assert (off <= 4 * standard_error(found)).all()
    assert ss.expect(arm).momentum == 0.5
    assert not ss.expect(arm.but(options={"momentum": 0.5, "nesterov": True})).has_mean


def test_the_growth_of_almost_every_path_is_the_mean_logarithm_of_its_factors():
    x = np.array([0.5, 1.0, 2.0, 4.0])
    line = ss.Problem(x, 0 * x, lambda w, x: w[0] * x, w_init=[1.0])
    arm = ss.Arm(line, lr=0.3, batch_size=1, order="with_replacement", epochs=50)
    factors = np.log(np.abs(1 - 2 * 0.3 * x**2))
    known, steps, draws = ss.expect(arm), 200, 400 * 64 * 4
    off = 4 * steps * factors.std() / draws**0.5
    assert known.log_growth(400, 64) == pytest.approx(steps * factors.mean(), abs=off)


def test_levels_and_a_first_step_by_hand():
    arm = independent()
    ls, limit = arm.problem.least_squares, ss.expect(arm).mean_square_lr_limit.value
    start = float(ls.loss(arm.problem.initial([0])[0].double().numpy()))
    found = ss.expect(arm).levels((0.5, 0.1))
    assert found == pytest.approx(
        {0.5: (start + ls.least_loss) / 2, 0.1: 0.9 * ls.least_loss + 0.1 * start}
    )
    network = ss.Arm(ss.problems.chebyshev())
    assert ss.expect(network).levels((0.5,), 3.0) == {0.5: 1.5}
    assert ss.expect(network).first_lr(1.0) == pytest.approx(10**-0.5)
    assert ss.expect(arm).first_lr() == pytest.approx(10**-0.5 * limit)
    heavy = ss.expect(arm.but(options={"momentum": 0.9})).first_lr()
    ends = 10**-0.5 * limit * np.array([1 - 0.9, 1 + 0.9])
    assert heavy == pytest.approx(np.sqrt(ends.prod()))  # halfway, in logarithms
    assert ss.expect(arm.but(optimizer="Adam")).first_lr() == 0.01
    with pytest.raises(ss.InputError, match="linear in w"):
        ss.expect(network).first_lr()


def test_steps_to_an_excess_are_those_of_runs():
    arm = independent(100, batch_size=2, epochs=60, dtype="float64")
    arm = arm.but(problem=small_curve(10), lr=0.05)
    run, target = ss.train(arm.problem, config=arm.config), 1e-3
    known = ss.expect(arm).steps_to_excess(target)
    steps, error = run.steps_to_excess(target)
    assert 20 < known.value < 300
    assert known.within == 0
    assert 0 < error < 0.2 * known.value
    assert steps == pytest.approx(known.value, abs=4 * error)
    whole = arm.but(batch_size=None, order="shuffle", epochs=600, lr=0.1, seeds=[0])
    known = ss.expect(whole).steps_to_excess(target)
    steps, _ = ss.train(whole.problem, config=whole.config).steps_to_excess(target)
    assert steps == pytest.approx(known.value, abs=known.within)
    assert 0 < known.within < 1e-6


@pytest.mark.slow
def test_the_error_of_the_steps_to_an_excess_is_that_of_repetitions():
    arm = independent(16, batch_size=2, epochs=60).but(problem=small_curve(10), lr=0.05)
    found = []
    for first in range(0, 16 * 40, 16):
        each = arm.but(seeds=range(first, first + 16))
        found.append(ss.train(each.problem, config=each.config).steps_to_excess(1e-3))
    steps, errors = np.array(found).T
    assert errors.mean() == pytest.approx(steps.std(ddof=1), rel=0.5)  # of 40: 4 / sqrt(80)
