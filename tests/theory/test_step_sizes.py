"""Expected losses under step sizes that change: against all draws, one by one, and closed forms."""

import itertools

import numpy as np
import pytest
from conftest import one_line

import sgdstudy as ss
from sgdstudy import theory

D, B = 4, 2
RATES = np.array([0.3, 0.0, 0.1])
START = np.array([1.0, -2.0])


def tiny(noise=1.0):
    """Four samples, two parameters: all draws of a few steps can be tried."""
    draw = np.random.default_rng(3)
    x = draw.normal(size=(D, 2))
    y = x @ [0.5, 1.5] + noise * draw.normal(size=D)
    return ss.Problem(x, y, ss.problems.linear, w_init=START)


def all_paths(draws, move, w0, n_steps):
    """Parameters along every sequence of draws, `(paths, n_steps + 1, p)`."""
    paths = [[w0]]
    for t in range(n_steps):
        paths = [[*path, move(t, path[-1], draw)] for path in paths for draw in draws]
    return np.array(paths)


def sgd(problem):
    x, y = problem.x.numpy(), problem.y.numpy()

    def move(t, w, batch):
        rows = x[list(batch)]
        return w - RATES[t] * 2 / B * rows.T @ (rows @ w - y[list(batch)])

    return move


@pytest.mark.parametrize("replacement", [True, False])
def test_expected_losses_are_the_means_over_all_draws(replacement):
    problem = tiny()
    ls = problem.least_squares
    twice, once = itertools.product(range(D), repeat=B), itertools.combinations(range(D), B)
    paths = all_paths(list(twice if replacement else once), sgd(problem), START, len(RATES))
    given = (ls, START, D, B, RATES, replacement)
    assert np.allclose(theory.scheduled_losses(*given), ls.loss(paths).mean(0), rtol=1e-10)
    for skipped in (None, 1):
        first = skipped or 0
        means = [paths[:, t] for t in range(first + 1)]
        means += [paths[:, first + 1 : t + 1].mean(1) for t in range(first + 1, len(RATES) + 1)]
        expected = ls.loss(np.stack(means)).mean(1)
        assert np.allclose(theory.averaged_losses(*given, skipped), expected, rtol=1e-10)


@pytest.mark.parametrize("replacement", [True, False])
def test_a_smaller_last_batch_is_a_step_of_its_own(replacement):
    """Four samples in batches of three: three, one, three, ... ."""
    problem, lr = tiny(), 0.1
    ls, x, y = problem.least_squares, problem.x.numpy(), problem.y.numpy()
    paths = [[START]]
    for size in (3, 1, 3):
        twice = itertools.product(range(D), repeat=size)
        batches = list(twice if replacement else itertools.combinations(range(D), size))
        paths = [
            [*path, path[-1] - lr * 2 / size * x[b].T @ (x[b] @ path[-1] - y[b])]
            for path in paths
            for b in map(list, batches)
        ]
    expected = ls.loss(np.array(paths)).mean(0)
    given = (ls, START, D, 3)
    found = theory.scheduled_losses(*given, np.full(3, lr), replacement)
    assert np.allclose(found, expected, rtol=1e-10)
    running, full = theory.expected_losses(*given, lr, 1, replacement)
    assert running[0] == pytest.approx((3 * expected[0] + expected[1]) / 4, rel=1e-10)
    assert full[0] == pytest.approx(expected[2], rel=1e-10)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_polyaks_step_is_the_mean_over_all_draws(noise):
    problem = tiny(noise)
    ls, x, y = problem.least_squares, problem.x.numpy(), problem.y.numpy()

    def move(t, w, i):
        error = x[i] @ w - y[i]
        gradient = 2 * error * x[i]
        if abs(error) < 1e-12:  # solved already
            return w
        return w - error**2 / (0.5 * gradient @ gradient) * gradient

    paths = all_paths(range(D), move, START, 4)
    losses = theory.polyak_losses(ls, START, D, 4)
    assert np.allclose(losses, ls.loss(paths).mean(0), rtol=1e-10)


def test_polyaks_step_stays_where_a_sample_has_no_feature():
    ls = ss.Problem([[1.0], [0.0]], [2.0, 1.0], ss.problems.linear, w_init=[0.0]).least_squares
    # the first sample is drawn in three of four: then its equation holds for ever
    excess = theory.polyak_losses(ls, np.zeros(1), 2, 2) - ls.least_loss
    assert excess == pytest.approx([2.0, 1.0, 0.5])


@pytest.mark.parametrize("replacement", [True, False])
def test_a_constant_step_is_the_map_of_an_epoch(replacement):
    problem = ss.problems.legendre("cubic", d=20)
    ls, start = problem.least_squares, np.ones(3)
    losses = theory.scheduled_losses(ls, start, 20, 5, np.full(12, 0.1), replacement)
    _, full = theory.expected_losses(ls, start, 20, 5, 0.1, 3, replacement)
    assert np.allclose(losses[4::4], full, rtol=1e-10)
    long = theory.scheduled_losses(ls, start, 20, 5, np.full(400, 0.1), replacement)[-1]
    stationary = theory.stationary_excess(ls, 20, 5, 0.1, replacement)
    assert long - ls.least_loss == pytest.approx(stationary)


def test_full_batches_follow_the_scheduled_loop():
    problem = tiny()
    settings = {"lr": 0.2, "epochs": 9, "schedule": "CosineAnnealingLR", "average": 0.5}
    run = ss.train(problem, optimizer="SGD", **settings)
    given = (problem.least_squares, START, D, D, run.config.rates(D)(np.arange(9)))
    assert np.allclose(theory.scheduled_losses(*given)[1:], run.epochs["full_loss"])
    averaged = theory.averaged_losses(*given, skipped=4)[1:]
    assert np.allclose(averaged, run.epochs["average_loss"])


@pytest.mark.parametrize("lr", [0.05, 0.4])
def test_a_mean_of_many_forgets_its_step_size(lr):
    """Of a sample's mean: no other noise than that of the targets, H = 2."""
    y, n = np.random.default_rng(0).normal(size=20), 4000
    ls = ss.Problem(np.ones(20), y, lambda w, x: w[0] * x, w_init=[0.0]).least_squares
    end = theory.averaged_losses(ls, ls.w_star, 20, 1, np.full(n, lr), True)[-1] - ls.least_loss
    law = theory.averaged_excess_law(ls, 20, n)
    assert law == pytest.approx(y.var() / n)
    # the last 1 / (lr H) steps do not yet count in full
    assert end == pytest.approx(law, rel=4 / (n * lr * 2))


def test_noise_that_grows_with_the_distance_is_of_the_next_order_in_the_step():
    ls = ss.problems.legendre("normal", d=20).least_squares
    law, more = theory.averaged_excess_law(ls, 20, 20_000), []
    for lr in (0.005, 0.01):
        rates = np.full(20_000, lr)
        losses = theory.averaged_losses(ls, ls.w_star, 20, 1, rates, True)
        more.append((losses[-1] - ls.least_loss) / law - 1)
    assert 0 < more[0] < more[1] < 5 * 0.01  # lr over its limit, 0.2


@pytest.mark.parametrize("guess", [1, 4])
def test_a_step_that_decays_too_fast_forgets_the_start_slowly(guess):
    """With lr = 1 / (guess mu t) the excess falls as t^(-2 / guess)."""
    ls = ss.Problem(np.ones(2), np.ones(2), lambda w, x: w[0] * x, w_init=[0.0]).least_squares
    rates = 0.1 / (1 + 0.1 * 2 * guess * np.arange(20_000))  # mu = 2
    losses = theory.scheduled_losses(ls, np.zeros(1), 2, 1, rates)
    ends = np.array([5000, 20_000])
    assert theory.log_slope(ends, losses[ends]) == pytest.approx(-2 / guess, rel=2e-3)


def test_the_lyapunov_exponent_of_independent_draws():
    x = np.array([0.5, 1.0, 1.5])
    problem = ss.Problem(x, x, lambda w, x: w[0] * x, w_init=[0.0])
    exact = np.log(np.abs(1 - 2 * 0.2 * x**2)).mean()
    draws = theory.lyapunov(problem, 1, 0.2, epochs=1000, replacement=True)
    # every third draw is anyone of three, and 64 replicas make 192,000 of them
    spread = np.log(np.abs(1 - 2 * 0.2 * x**2)).std() / 191_808**0.5
    assert draws == pytest.approx(exact, abs=4 * spread)


@pytest.mark.parametrize("rates", [[0.1, -0.1], [[0.1]], [np.nan], ["fast"], 0.1])
def test_step_sizes_are_numbers_in_a_row(rates):
    for function in (theory.scheduled_losses, theory.averaged_losses):
        with pytest.raises(ss.InputError, match="rates are") as error:
            function(tiny().least_squares, START, D, B, rates)
        assert one_line(error)


def test_polyaks_step_is_known_for_one_output_a_sample():
    with pytest.raises(ss.InputError, match="one output") as error:
        theory.polyak_losses(two_outputs().least_squares, START, D, 3)
    assert one_line(error)
    with pytest.raises(ss.InputError, match="one output"):
        theory.projected(two_outputs().least_squares)


def two_outputs():
    x = np.random.default_rng(0).normal(size=(D, 2))
    return ss.Problem(x, x, lambda w, x: x * w, w_init=START)


def test_curves_are_drawn_on_a_grid():
    import pandas as pd

    x = np.arange(4)
    parts = [
        pd.DataFrame({"panel": panel, "column": column, "line": line, "x": x, "y": 10.0**-x})
        for panel, column, line in itertools.product("ab", "cd", "ef")
    ]
    rows = pd.concat(parts).assign(theory=np.nan)
    figure = ss.figures.curves(rows, "epoch", "loss", {"c": 1e-2, "d": 1e-4})
    assert len(figure.axes) == 4
    assert [axes.get_title() for axes in figure.axes] == ["c: a", "d: a", "c: b", "d: b"]
    assert [axes.get_ylim()[0] for axes in figure.axes] == [1e-2, 1e-4, 1e-2, 1e-4]
    assert "epoch" in ss.figures.describe(figure)
