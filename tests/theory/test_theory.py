"""Closed forms against brute force on small random problems, never against stored figures."""

from dataclasses import replace
from fractions import Fraction
from itertools import combinations, islice, permutations, product

import mpmath
import numpy as np
import pytest
import torch
from conftest import one_line, small_curve
from hypothesis import given
from hypothesis import strategies as st

import sgdstudy as ss
from sgdstudy import theory
from sgdstudy.errors import InputError
from sgdstudy.problems.least_squares import from_features
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.theory import fixed_order, predictions

RANDOM = dict(seed=st.integers(0, 10**6), p=st.integers(1, 4), noise=st.sampled_from([0.0, 0.5]))


def regression(seed, p, noise=0.5, d=24):
    """A random least-squares problem in float64, started away from its minimum."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(d, p, generator=generator, dtype=torch.float64)
    y = x.sum(1) + noise * torch.randn(d, generator=generator, dtype=torch.float64)
    start = 1 + torch.randn(p, generator=generator, dtype=torch.float64)
    return ss.Problem(x, y, lambda w, x: x @ w, w_init=start)


def start(problem):
    return problem.initial([0])[0].numpy()


@pytest.mark.slow
@given(**RANDOM, share=st.floats(0.05, 0.95))
def test_descent_loss_and_parameters_are_the_loops(seed, p, noise, share):
    problem = regression(seed, p, noise)
    ls = problem.least_squares
    lr = share * theory.lr_limit(ls)
    run = ss.train(problem, optimizer="notebook", lr=lr, epochs=30)
    k = np.arange(30)
    assert np.allclose(theory.descent_loss(ls, start(problem), lr, k), run.steps["loss"], rtol=1e-8)
    assert np.allclose(theory.descent_w(ls, start(problem), lr, 30), run.w[0], rtol=1e-7, atol=1e-9)


@pytest.mark.slow
@given(**RANDOM, share=st.floats(0.1, 0.95), target=st.floats(0.001, 2.0))
def test_descent_stops_where_the_loop_stops(seed, p, noise, share, target):
    problem = regression(seed, p, noise)
    ls = problem.least_squares
    lr, epsilon = share * theory.lr_limit(ls), ls.least_loss + target
    run = ss.train(problem, optimizer="notebook", lr=lr, epochs=500, stop=("running", epsilon))
    predicted = theory.descent_stop(ls, start(problem), lr, epsilon)
    if predicted < 500:
        assert abs(run.converged_epoch[0] - predicted) <= 1


def test_descent_never_stops_beyond_the_limit_or_below_the_least_loss():
    problem = regression(1, 3)
    ls, w0 = problem.least_squares, start(problem)
    limit = theory.lr_limit(ls)
    assert theory.descent_stop(ls, w0, 1.01 * limit, ls.least_loss + 0.01) == np.inf
    assert theory.descent_stop(ls, w0, 0.5 * limit, 0.99 * ls.least_loss) == np.inf
    assert theory.descent_stop(ls, w0, 0.5 * limit, 1e9) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_the_limit_is_where_simulated_runs_turn(seed):
    problem = regression(seed, 3)
    low, high = 0.05, 5.0
    while high / low > 1.003:
        lr = (low * high) ** 0.5
        run = ss.train(problem, optimizer="notebook", lr=lr, epochs=1500)
        grows = not run.epochs["full_loss"].iloc[-1] < problem.full(start(problem)[None])[0][0]
        low, high = (low, lr) if grows else (lr, high)
    assert low == pytest.approx(theory.lr_limit(problem.least_squares), rel=5e-3)


def test_growth_beyond_the_limit_is_that_of_a_run():
    problem = regression(3, 3)
    ls = problem.least_squares
    lr = 1.3 * theory.lr_limit(ls)
    loss = ss.train(problem, optimizer="notebook", lr=lr, epochs=200).steps["loss"].to_numpy()
    assert loss[-1] / loss[-2] == pytest.approx(theory.growth_per_epoch(ls, lr), rel=1e-6)


def test_beyond_the_limit_descent_may_stop_before_it_grows():
    problem = ss.Problem(np.diag([1.0, 0.2]), np.zeros(2), ss.problems.linear, w_init=[0.0, 0.0])
    ls, w0, epsilon = problem.least_squares, np.array([1e-6, 1.0]), 1e-4
    lr = 1.02 * theory.lr_limit(ls)  # the steep direction is all but empty, and grows slowly
    w, losses = w0, []
    for _ in range(400):
        losses.append(float(ls.loss(w)))
        w = w - lr * ls.gradient(w)
    assert losses[-1] > min(losses)
    found = theory.descent_stop(ls, w0, lr, epsilon)
    assert found == theory.first_below(np.array(losses), epsilon) < np.inf
    assert theory.descent_stop(ls, w0, lr, min(losses) / 2) == np.inf


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 1e-2, 1e-4, 1e-8, 1e-16])
@pytest.mark.parametrize("seed", range(5))
def test_no_step_reaches_epsilon_sooner_than_the_best(seed, share):
    """On spectra over up to six decades; the grid is fine at the edge, where the best are."""
    draw = np.random.default_rng(seed)
    p = int(draw.integers(1, 6))
    x = draw.normal(size=(9, p)) * 10 ** draw.uniform(-1.5, 1.5, p)
    ls = ss.Problem(x, x.sum(1), ss.problems.linear, w_init=np.zeros(p)).least_squares
    w0 = draw.normal(size=p)
    epsilon = share * float(ls.loss(w0))
    best = theory.lr_best_for_epsilon(ls, w0, epsilon)
    edge = 1 - np.geomspace(1e-12, 0.99, 400)
    others = theory.lr_limit(ls) * np.concatenate([edge, np.linspace(0.01, 1, 200)[:-1]])
    near = best * (1 + np.linspace(-1e-3, 1e-3, 41))
    stops = [theory.descent_stop(ls, w0, lr, epsilon) for lr in (*others, *near)]
    assert theory.descent_stop(ls, w0, best, epsilon) <= min(stops)


@pytest.mark.slow
def test_the_best_step_of_the_curve_is_that_of_brute_force():
    ls, w0 = ss.problems.curve().least_squares, np.zeros(3)
    grid = np.linspace(4.9e-4, theory.lr_limit(ls), 3001)[:-1]
    stops = np.array([theory.descent_stop(ls, w0, lr, 0.1) for lr in grid])
    best = theory.lr_best_for_epsilon(ls, w0, 0.1)
    assert theory.descent_stop(ls, w0, best, 0.1) == stops.min()
    fewest = grid[stops == stops.min()]
    space = grid[1] - grid[0]
    assert fewest.min() - space < best < fewest.max() + space


def test_the_best_step_where_one_step_is_enough_or_nothing_is():
    problem = regression(0, 3)
    ls, w0 = problem.least_squares, start(problem)
    line = theory.lr_best_for_epsilon(ls, w0, 1e9)  # the least loss after a step
    losses = [
        theory.descent_loss(ls, w0, lr, np.array(1)) for lr in (line, 0.99 * line, 1.01 * line)
    ]
    assert losses[0] == min(losses)
    with pytest.raises(InputError, match="no step size reaches"):
        theory.lr_best_for_epsilon(ls, w0, ls.least_loss)


def test_the_asymptotic_best_step_contracts_fastest():
    ls = regression(4, 4).least_squares
    spectrum = np.linalg.eigvalsh(ls.hessian)

    def rate(lr):
        return np.abs(1 - lr * spectrum).max()

    best = theory.lr_best_asymptotic(ls)
    assert all(rate(best) < rate(best * x) for x in (0.5, 0.999, 1.001, 1.5))
    assert rate(best) == pytest.approx((spectrum[-1] - spectrum[0]) / (spectrum[-1] + spectrum[0]))


ORDERS = ["sequential", "reversed", "strided", "shuffle", "block_shuffle"]


@pytest.mark.slow
@given(**RANDOM, order=st.sampled_from(ORDERS), size=st.integers(1, 24), epoch=st.integers(1, 3))
def test_the_epoch_map_is_the_loops_epoch(seed, p, noise, order, size, epoch):
    problem = regression(seed, p, noise)
    ls = problem.least_squares
    config = TrainConfig(
        optimizer="notebook", lr=0.02, batch_size=size, order=order, epochs=epoch, seeds=[seed]
    )
    run = ss.train(problem, config=config)
    ends = run.epochs[[f"w{i}" for i in range(p)]].to_numpy()
    before = start(problem) if epoch == 1 else ends[epoch - 2]
    matrix, offset = theory.epoch_map(theory.batches(problem, config, epoch), 0.02)
    after = ls.w_star + matrix @ (before - ls.w_star) + offset
    assert np.allclose(after, ends[epoch - 1], rtol=1e-8, atol=1e-10)


@pytest.mark.slow
@given(**RANDOM, order=st.sampled_from(["sequential", "strided"]))
def test_a_fixed_order_settles_at_its_fixed_point(seed, p, noise, order):
    problem = regression(seed, p, noise)
    ls = problem.least_squares
    config = TrainConfig(optimizer="notebook", lr=0.05, batch_size=5, order=order, epochs=300)
    b = theory.batches(problem, config)
    rho = theory.spectral_radius(b, 0.05)
    if rho > 0.93:
        return
    run = ss.train(problem, config=config)
    assert np.allclose(run.w[0], ls.w_star + theory.fixed_point(b, 0.05), rtol=1e-6, atol=1e-8)
    end = run.epochs["full_loss"].iloc[-1]
    assert theory.fixed_point_loss(ls, b, 0.05) == pytest.approx(end, rel=1e-6, abs=1e-12)
    assert theory.exact_radius(b, 0.05) == pytest.approx(rho, rel=1e-8)


def test_a_fixed_order_has_the_losses_of_the_loop():
    problem = regression(6, 3)
    config = TrainConfig(optimizer="notebook", lr=0.05, batch_size=7, order="strided", epochs=9)
    run = ss.train(problem, config=config)
    b = theory.batches(problem, config)
    running, full = theory.fixed_order_losses(
        problem.least_squares, b, start(problem), config.lr, 9
    )
    assert np.allclose(running, run.epochs["running_loss"], rtol=1e-9)
    assert np.allclose(full, run.epochs["full_loss"], rtol=1e-9)


def test_the_usable_step_is_where_the_fixed_point_leaves_epsilon():
    problem = regression(8, 2, noise=1.0)
    ls = problem.least_squares
    b = theory.batches(problem, TrainConfig(batch_size=4, order="sequential"))
    epsilon = (theory.fixed_point_loss(ls, b, 0.02) + theory.fixed_point_loss(ls, b, 0.2)) / 2
    lr = theory.usable_lr(ls, b, epsilon, 0.02, 0.2)
    assert theory.fixed_point_loss(ls, b, lr) < epsilon
    assert theory.fixed_point_loss(ls, b, lr * 1.001) > epsilon


def test_lyapunov_exponent_of_one_direction_is_a_mean_logarithm():
    x = torch.linspace(0.5, 1.5, 40, dtype=torch.float64)
    problem = ss.Problem(x, x, lambda w, x: w[0] * x, w_init=[0.0])
    for lr in (0.3, 1.5):  # every epoch holds every sample once, in some order
        expected = np.log(np.abs(1 - lr * 2 * x.numpy() ** 2)).mean()
        assert theory.lyapunov(problem, 1, lr) == pytest.approx(expected)


def test_between_the_two_limits_paths_converge_while_the_mean_diverges():
    problem = small_curve()
    ls = problem.least_squares
    mean_square = theory.mean_square_lr_limit(ls, problem.d, 2)
    assert theory.mean_square_radius(ls, problem.d, 2, mean_square * 1.001) > 1
    assert theory.mean_square_radius(ls, problem.d, 2, mean_square * 0.999) < 1
    almost_sure = theory.lyapunov_zero_lr(problem, 2, mean_square / 2, 50 * mean_square)
    assert almost_sure > mean_square
    for share, ends in ((0.8, True), (1.25, False)):
        run = ss.train(
            problem,
            optimizer="notebook",
            lr=share * almost_sure,
            batch_size=2,
            epochs=400,
            seeds=range(20),
            dtype="float64",
            stop=("full", 1e-3 * float(problem.full(start(problem)[None])[0][0])),
        )
        assert np.mean(run.stop_reason == "converged") == ends


@pytest.mark.slow
def test_one_order_for_ever_adds_what_reshuffling_averages_out():
    # one mode: z -> a z + noise by sample; the noise of one order repeats, reshuffled it does not
    problem, m, lr = regression(0, 1, noise=1.0, d=40), 40, 0.01
    a = 1 - lr * theory.eigenvalues(problem.least_squares)
    factor = theory.shuffle_once_factor(lr, theory.eigenvalues(problem.least_squares), m)
    assert factor == pytest.approx((1 + a**m) / (1 - a**m))
    excess = {}
    for order in ("shuffle", "shuffle_once"):
        run = ss.train(
            problem,
            optimizer="notebook",
            lr=lr,
            batch_size=1,
            order=order,
            epochs=60,
            seeds=range(2000),
            dtype="float64",
        )
        ends = run.load("epochs", columns=["full_loss"], epochs=slice(30, None))
        excess[order] = ends["full_loss"].mean() - problem.least_squares.least_loss
    assert excess["shuffle_once"] / excess["shuffle"] == pytest.approx(factor[0], rel=0.1)


@pytest.mark.parametrize("x", [1e-6, 0.019, 0.021, 0.5, 3.0, 40.0])
def test_reshuffling_leaves_the_spread_of_the_weights_of_an_epoch(x):
    """Of many samples with one Hessian, an epoch adds sum a^i g_i: drawn once each, or anew."""
    d = 200_000
    weights = np.exp(-x * (np.arange(d) + 0.5) / d)  # a^i
    left = weights.var() / np.mean(weights**2)
    assert theory.reshuffling_factor(x) == pytest.approx(left, rel=1e-4, abs=0)
    assert theory.reshuffling_factor(0) == 0


def test_one_order_for_ever_is_infinitely_noisier_where_nothing_contracts():
    assert theory.shuffle_once_factor(0.0, np.ones(2), 3).tolist() == [np.inf, np.inf]
    assert theory.shuffle_once_factor(0.5, np.array([0.0, 2.0]), 3).tolist() == [np.inf, 1]


def test_growth_is_the_largest_product_of_a_stretch():
    generator = np.random.default_rng(0)
    h = generator.normal(size=(6, 2, 2))
    b = theory.Batches(h @ h.transpose(0, 2, 1), np.zeros((6, 2)), np.zeros(6), np.ones(6))
    factors = b.factors(0.7)

    def largest(pairs):
        norms = []
        for i, j in pairs:
            product = np.eye(2)
            for k in range(i, j + 1):
                product = factors[k % 6] @ product
            norms.append(np.linalg.norm(product, 2))
        return max(norms)

    inside = [(i, j) for i in range(6) for j in range(i, 6)]
    across = inside + [(i, j) for i in range(6) for j in range(i, min(i + 6, 12))]
    assert theory.growth(b, 0.7).factor == pytest.approx(largest(inside))
    found = theory.growth(b, 0.7, epochs=2)
    assert found.factor == pytest.approx(largest(across))
    z = found.direction
    for k in range(found.first, found.last + 1):
        z = factors[k % 6] @ z
    assert np.linalg.norm(z) == pytest.approx(found.factor)


@pytest.mark.parametrize("seed", range(6))
def test_growth_over_the_boundary_is_of_an_epochs_length_at_most(seed):
    """Factors that all grow: the best stretch is a whole epoch, and one batch more is not taken."""
    h = np.random.default_rng(seed).normal(size=(5, 2, 2))
    h = h @ h.transpose(0, 2, 1) + 3 * np.eye(2)  # at lr 1 every factor stretches every vector
    b = theory.Batches(h, np.zeros((5, 2)), np.zeros(5), np.ones(5))
    norms = {}
    for i in range(5):
        stretch = np.eye(2)
        for j in range(i, i + 5):
            stretch = b.factors(1.0)[j % 5] @ stretch
            norms[i, j] = np.linalg.norm(stretch, 2)
    found = theory.growth(b, 1.0, epochs=2)
    assert found.last - found.first == 4
    assert (found.first, found.last) == max(norms, key=norms.get)
    assert found.factor == pytest.approx(max(norms.values()))


@pytest.mark.slow
def test_the_radius_is_exact_where_an_epoch_grows_beyond_float64():
    """Sorted batches of the curve, against rational arithmetic."""
    b, lr = (
        theory.batches(ss.problems.curve(), TrainConfig(batch_size=10, order="sequential")),
        4e-4,
    )
    assert theory.growth(b, lr).factor > 1e10
    matrix = [[Fraction(int(i == j)) for j in range(3)] for i in range(3)]
    for hessian in b.hessians:
        step = [[Fraction(lr) * Fraction(float(v)) for v in row] for row in hessian]
        matrix = [
            [matrix[i][j] - sum(step[i][k] * matrix[k][j] for k in range(3)) for j in range(3)]
            for i in range(3)
        ]
    m = matrix
    minors = sum(m[i][i] * m[j][j] - m[i][j] * m[j][i] for i, j in ((0, 1), (0, 2), (1, 2)))
    cofactors = [
        m[0][i] * (m[1][j] * m[2][k] - m[1][k] * m[2][j])
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1))
    ]
    with mpmath.workdps(80):
        exact = [
            mpmath.mpf(v.numerator) / v.denominator
            for v in (Fraction(1), -(m[0][0] + m[1][1] + m[2][2]), minors, -sum(cofactors))
        ]
        roots = mpmath.polyroots(exact, maxsteps=500, extraprec=400)
        largest = float(max(abs(root) for root in roots))
    assert theory.spectral_radius(b, lr) == pytest.approx(largest, rel=1e-9)


@pytest.mark.slow
def test_the_critical_step_of_an_order_is_where_its_radius_is_one():
    problem = small_curve()
    b = theory.batches(problem, TrainConfig(batch_size=1, order="sequential"))
    critical = theory.critical_lr(b, 0.05, 20.0)
    assert theory.exact_radius(b, critical) <= 1 < theory.exact_radius(b, critical * 1.001)
    with pytest.raises(ss.InputError, match="does not cross 1"):
        theory.critical_lr(b, 1e-4, 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_expected_losses_are_the_means_of_independent_batches(noise, batch_size):
    problem, seeds = regression(5, 2, noise), 1000
    ls, lr, epochs = problem.least_squares, 0.05, 3
    sizes = TrainConfig(batch_size=batch_size).batch_sizes(24)

    def independent(generator, d):  # each batch without replacement, apart from the others
        parts = [torch.randperm(d, generator=generator)[:size] for size in sizes]
        return torch.cat(parts)

    run = ss.train(
        problem,
        optimizer="notebook",
        lr=lr,
        batch_size=batch_size,
        order=independent,
        epochs=epochs,
        seeds=range(seeds),
    )
    running, full = theory.expected_losses(ls, start(problem), 24, batch_size, lr, epochs)
    for column, expected in (("running_loss", running), ("full_loss", full)):
        by_epoch = run.epochs.groupby("epoch")[column]
        error = 4 * by_epoch.std().to_numpy() / seeds**0.5
        assert (np.abs(by_epoch.mean().to_numpy() - expected) < error + 1e-12).all()


def test_stationary_excess_is_where_the_expected_loss_settles():
    problem = regression(2, 3, noise=1.0)
    ls = problem.least_squares
    excess = theory.stationary_excess(ls, 24, 2, 0.02)
    _, full = theory.expected_losses(ls, start(problem), 24, 2, 0.02, 500)
    assert full[-1] - ls.least_loss == pytest.approx(excess, rel=1e-6)
    assert theory.stationary_excess(ls, 24, 1, 5.0) == np.inf
    assert theory.mean_square_radius(ls, 24, 1, 5.0) > 1


def test_small_steps_leave_the_small_step_excess():
    problem = regression(2, 3, noise=1.0, d=400)
    ls, lr = problem.least_squares, 1e-5
    g = theory.gradients(ls, ls.w_star, 400)
    expected = lr * np.trace(g.T @ g / 400) / 4 * (400 - 1) / 399
    assert theory.stationary_excess(ls, 400, 1, lr) == pytest.approx(expected, rel=1e-3)


def test_mean_square_batch_norm_is_the_mean_over_all_batches():
    problem = regression(4, 2, d=8)
    ls, w = problem.least_squares, np.array([0.3, -1.0])
    g = theory.gradients(ls, w, 8)
    every = [np.square(g[list(part)].mean(0)).sum() for part in combinations(range(8), 3)]
    assert theory.mean_square_batch_norm(ls, w, 8, 3) == pytest.approx(np.mean(every))
    assert theory.mean_square_batch_norm(ls, w, 8, 8) == pytest.approx(np.square(g.mean(0)).sum())
    assert theory.noise_scale(ls, w, 8) == pytest.approx(
        g.var(0).sum() / np.square(g.mean(0)).sum()
    )
    assert np.allclose(g.mean(0), ls.gradient(w))


def test_large_batches_have_nearly_the_exponent_of_all_the_data():
    """Two batches an epoch, or one and a single sample: the slow direction takes long to settle."""
    problem = ss.problems.curve()
    full = np.log1p(-2e-4 * np.linalg.eigvalsh(problem.least_squares.hessian)[0])
    assert theory.lyapunov(problem, 2000, 2e-4) == pytest.approx(full, rel=1e-9)
    given = {"replicas": 4, "replacement": False}
    # the halves' Hessians scatter by a few per cent, and both together are the whole
    assert theory.lyapunov(problem, 1000, 2e-4, **given) == pytest.approx(full, rel=0.01)


def test_the_ragged_batch_takes_part_in_the_exponent():
    x = np.array([0.5, 1.0, 1.5, 0.8, 0.2])
    problem = ss.Problem(x, x, lambda w, x: w[0] * x, w_init=[0.0])
    h, lr, logs = 2 * x**2, 0.3, []
    for order in permutations(range(5)):
        parts = [order[:3], order[3:]]
        logs.append(np.mean([np.log(abs(1 - lr * h[list(part)].mean())) for part in parts]))
    error = np.std(logs) / (64 * 200) ** 0.5
    found = theory.lyapunov(problem, 3, lr, epochs=201)
    assert found == pytest.approx(np.mean(logs), abs=4 * error)


def test_a_step_that_ends_at_the_minimum_has_no_finite_exponent():
    problem = ss.Problem(np.ones(4), np.ones(4), lambda w, x: w[0] * x, w_init=[0.0])
    assert theory.lyapunov(problem, 2, 0.5) == -np.inf
    assert theory.lyapunov(problem, 2, 0.0) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("momentum", [0.3, 0.9])
def test_the_exponent_with_momentum_is_the_companions(momentum):
    problem = small_curve()
    lr, logs = 0.3, []
    for value in np.linalg.eigvalsh(problem.least_squares.hessian):
        step = np.array([[1 - lr * value, -lr * momentum], [value, momentum]])
        logs.append(np.log(np.abs(np.linalg.eigvals(step)).max()))
    found = theory.lyapunov(problem, problem.d, lr, momentum=momentum)
    assert found == pytest.approx(max(logs), rel=1e-9)


def test_where_no_exponent_crosses_zero_no_step_is_returned():
    problem = small_curve()
    limit = theory.lr_limit(problem.least_squares)
    for low, high in ((0.1 * limit, 0.2 * limit), (20 * limit, 40 * limit)):
        with pytest.raises(InputError, match="does not cross 0") as error:
            theory.lyapunov_zero_lr(problem, 5, low, high)
        assert one_line(error)
    found = theory.lyapunov_zero_lr(problem, problem.d, 0.5 * limit, 2 * limit)
    assert found == pytest.approx(limit, rel=2e-3)


def test_an_exponent_may_cross_zero_at_the_lower_end():
    """One sample of a staircase moves one height, w -> (1 - 2 lr) w: the crossing is at 1."""
    problem = ss.problems.staircase(d=16)
    low = theory.mean_square_lr_limit(problem.least_squares, 16, 1, True)
    assert low == pytest.approx(1)
    assert theory.lyapunov_zero_lr(problem, 1, low, 3.0, True) == pytest.approx(1, rel=1e-3)


def test_the_ragged_batch_decides_where_a_stationary_loss_is():
    """Of 7 samples, 6 and 1: the single sample ends the epoch, and moves far."""
    problem, lr = regression(3, 2, noise=1.0, d=7), 0.05
    ls = problem.least_squares
    _, full = theory.expected_losses(ls, start(problem), 7, 6, lr, 2000)
    excess = theory.stationary_excess(ls, 7, 6, lr)
    assert full[-1] - ls.least_loss == pytest.approx(excess, rel=1e-6)
    whole = theory.stationary_excess(ls, 7, 7, lr)
    assert excess > 1e6 * whole  # no noise at all in a full batch
    limit = theory.mean_square_lr_limit(ls, 7, 6)
    assert limit < theory.mean_square_lr_limit(ls, 7, 7)
    for share, ends in ((0.99, True), (1.01, False)):
        _, full = theory.expected_losses(ls, start(problem), 7, 6, share * limit, 4000)
        assert (full[-1] < 2 * full[2000]) == ends


def test_a_ragged_batch_and_many_parameters_are_refused():
    problem = ss.problems.ill_conditioned()
    with pytest.raises(InputError, match="up to 32 parameters") as error:
        theory.mean_square_lr_limit(problem.least_squares, problem.d, 7)
    assert one_line(error)


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "ExponentialLR", "schedule_options": {"gamma": 1.02}, "batch_size": 10},
        {"dtype": "float64", "batch_size": 7},
        {"batch_size": None},
    ],
)
def test_an_overflow_is_that_of_the_run_whatever_the_settings(settings):
    problem = small_curve()
    config = TrainConfig(optimizer="SGD", lr=30.0, seeds=range(3), epochs=200, **settings)
    run = ss.train(problem, config=config)
    assert set(run.stop_reason) == {"diverged"}
    assert np.array_equal(theory.first_overflow(problem, config, 10**4), run.n_steps)


@pytest.mark.parametrize("rule", [{"optimizer": "Adam"}, {"options": {"momentum": 0.9}}])
def test_overflow_of_other_rules_is_refused(rule):
    with pytest.raises(InputError, match="plain steps") as error:
        theory.first_overflow(small_curve(), TrainConfig(lr=30.0, batch_size=10, **rule))
    assert one_line(error)


def test_first_overflow_is_found_seed_by_seed():
    problem = ss.problems.curve()
    config = TrainConfig(optimizer="notebook", lr=0.2, batch_size=10, seeds=range(20))
    run = ss.train(problem, config=config)
    assert np.array_equal(theory.first_overflow(problem, config), run.n_steps)
    calm = TrainConfig(optimizer="notebook", lr=2e-4, batch_size=10)
    assert theory.first_overflow(problem, calm).tolist() == [np.inf]


@pytest.mark.slow
@given(**RANDOM, order=st.sampled_from(ORDERS), size=st.integers(1, 24))
def test_a_known_order_has_the_losses_and_the_gap_of_the_loop(seed, p, noise, order, size):
    problem = regression(seed, p, noise)
    ls = problem.least_squares
    config = TrainConfig(lr=0.05, batch_size=size, order=order, epochs=3, seeds=[seed])
    run = ss.train(problem, config=config)
    path = theory.order_losses(
        ls, start(problem), config.lr, islice(theory.batches_by_epoch(problem, config), 3)
    )
    assert np.allclose(path.running, run.epochs["running_loss"], rtol=1e-6)
    assert np.allclose(path.full, run.epochs["full_loss"], rtol=1e-6)
    for epoch, steps in run.steps.groupby("epoch"):
        end = run.epochs.iloc[epoch - 1]
        seen = theory.gap(
            *(steps[name].to_numpy(dtype=float) for name in ("loss", "full_loss", "size")),
            full_end=end["full_loss"],
        )
        scale = end["running_loss"] * 1e-6
        expected = path.gap(epoch)
        assert seen.drift == pytest.approx(expected.drift, abs=scale)
        assert seen.sampling == pytest.approx(expected.sampling, abs=scale)
        assert seen.weighting == pytest.approx(expected.weighting, abs=scale)
        # the identity
        gap, mean = end["running_loss"] - end["full_loss"], end["mean_loss"] - end["full_loss"]
        assert seen.drift + seen.sampling == pytest.approx(gap, abs=scale)
        assert seen.drift + seen.sampling + seen.weighting == pytest.approx(mean, abs=scale)


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=12, max_size=12), size=st.integers(1, 12))
def test_bounds_hold_for_any_residuals_and_are_reached(values, size):
    parts = [np.array(values[i : i + size]) for i in range(0, 12, size)]
    norms = np.array([np.linalg.norm(part) for part in parts])
    sizes = np.array([len(part) for part in parts])
    low, high = theory.triangle_bounds(np.linalg.norm(values), len(parts))
    assert low * (1 - 1e-12) <= norms.sum() <= high * (1 + 1e-12)
    root = norms / np.sqrt(sizes)
    low, high = theory.jensen_bounds(np.linalg.norm(values) / np.sqrt(12), sizes)
    assert low * (1 - 1e-12) <= root @ sizes / 12 <= high * (1 + 1e-12)


def test_bounds_are_reached():
    equal, single = np.ones(4), np.array([0.0, 0, 0, 1])
    assert equal.sum() == theory.triangle_bounds(np.linalg.norm(equal), 4)[1]
    assert single.sum() == theory.triangle_bounds(np.linalg.norm(single), 4)[0]
    sizes = np.array([3, 1])
    assert theory.jensen_bounds(1.0, sizes) == (0.5, 1.0)  # all in the batch of 1: RMSE_b = 2


def test_the_two_batch_estimate_is_off_by_its_bias_without_replacement():
    problem, w = regression(4, 2, d=6), np.array([0.3, -1.0])
    ls = problem.least_squares
    g = theory.gradients(ls, w, 6)

    def mean_square(size, pick):
        return np.mean([np.square(g[list(part)].mean(0)).sum() for part in pick(range(6), size)])

    for pick, bias in (
        (combinations, theory.two_batch_bias(ls, w, 6)),
        (lambda values, size: product(values, repeat=size), 0.0),
    ):
        small, large = mean_square(2, pick), mean_square(4, pick)
        estimate = theory.two_batch_estimate(small, 2, large, 4)
        assert estimate - np.square(g.mean(0)).sum() == pytest.approx(bias)


def test_float32_descent_stops_moving_at_its_floor():
    problem = small_curve()
    ls = problem.least_squares
    lr = 0.5 * theory.lr_limit(ls)
    run = ss.train(problem, optimizer="notebook", lr=lr, epochs=3000)
    moves = run.steps["update_norm"].to_numpy()
    excess = run.epochs["full_loss"].iloc[-1] - ls.least_loss
    assert moves[-1] == 0
    # an upper bound on the excess up to the rounding of the gradient itself
    assert excess < 10 * theory.float32_floor(ls, lr)


def test_theory_says_what_it_cannot_do():
    with pytest.raises(ss.InputError, match="linear in w"):
        theory.moments(ss.problems.curve(loss="abs"))


def test_too_many_parameters_for_second_moments_are_refused_at_once():
    problem = ss.problems.ill_conditioned()
    with pytest.raises(InputError, match="up to 32 parameters"):
        ss.theory.mean_square_radius(problem.least_squares, problem.d, 10, 1e-3)
    config = ss.TrainConfig(lr=1e-3, batch_size=10, stop=("full", 0.1))
    assert predictions.expected_losses(problem, config) == {}


def test_expected_losses_are_those_of_the_steps_one_by_one():
    problem = small_curve(noise=0.3)
    ls, lr = problem.least_squares, 0.1
    running, full = ss.theory.expected_losses(ls, np.zeros(3), problem.d, 10, lr, 4)
    sizes = [10, 10, 10, 10, 10, problem.d - 50]
    z = -ls.w_star
    c, h = np.outer(z, z).ravel(), ls.hessian.ravel()
    for epoch in range(4):
        total = 0.0
        for size in sizes:
            step = ss.theory.step_moments(ls, problem.d, size, lr)
            total += size * (ls.least_loss + h @ c / 2)
            c, z = step.second @ c + step.cross @ z + step.noise, step.mean @ z
        assert running[epoch] == pytest.approx(total / problem.d, rel=1e-12, abs=0)
        assert full[epoch] == pytest.approx(ls.least_loss + h @ c / 2, rel=1e-12, abs=0)


# ---- what planted faults left untested --------------------------------------------------------


def test_an_epoch_whose_loss_is_epsilon_is_not_yet_below_it():
    losses = np.array([3.0, 1.0, 0.5])
    assert theory.first_below(losses, 1.0) == 3
    assert theory.first_below(losses, 0.5) == np.inf


def test_the_radius_is_the_largest_factor_in_size():
    """One batch of all the data beyond the limit: 1 - lr lambda_max is below -1."""
    problem = small_curve()
    spectrum = theory.eigenvalues(problem.least_squares)
    lr = 1.5 * theory.lr_limit(problem.least_squares)
    config = ss.TrainConfig(lr=lr, batch_size=problem.d, order="sequential", epochs=1)
    found = theory.spectral_radius(theory.batches(problem, config), lr)
    assert found == pytest.approx(2.0, rel=1e-9)  # |1 - 1.5 * 2|
    assert (1 - lr * spectrum).max() < 1


def test_the_exponent_of_small_batches_with_momentum_where_all_samples_curve_alike():
    """Then every step is the same: z^2 - (1 + beta - 2 lr) z + beta has the roots 0.6 and 0.5."""
    x = torch.tensor([1.0, -1.0] * 10)
    problem = ss.Problem(x, torch.zeros(20), lambda w, x: w[0] * x, w_init=[1.0])
    for batch_size in (1, 3):
        rate = theory.lyapunov(problem, batch_size, 0.1, epochs=300, replicas=4, momentum=0.3)
        steps = 299 * -(-20 // batch_size)
        assert rate == pytest.approx(np.log(0.6), abs=5 / steps)  # about 1 / steps of the start


@pytest.mark.parametrize("sharp", [1e-3, 1e-5, 1e-9])
def test_beyond_the_limit_descent_may_still_reach_epsilon_in_its_valley(sharp):
    """The flat mode falls while the sharp one grows; compared with the whole curve."""
    ls = from_features(np.diag([1.0, 0.02**0.5]), np.zeros(2))  # eigenvalues 1 and 0.02
    w0, lr = np.array([sharp, 1.0]), 2.02
    losses = theory.descent_loss(ls, w0, lr, np.arange(3000))
    deepest = int(losses.argmin())
    assert deepest & (deepest - 1)  # not where doubling looks
    for epsilon in (losses[deepest] * (1 + 1e-9), losses[deepest] * 1.01, losses[deepest] * 3):
        expected = np.flatnonzero(losses < epsilon)[0] + 1.0
        assert theory.descent_stop(ls, w0, lr, epsilon) == expected
    assert theory.descent_stop(ls, w0, lr, losses[deepest] * (1 - 1e-9)) == np.inf


def rational(b, lr):
    """M and c of an epoch in rational arithmetic."""
    p = b.hessians.shape[1]
    rows = [[Fraction(int(i == j)) for j in range(p + 1)] for i in range(p)]  # (M, c)
    for hessian, gradient in zip(b.hessians, b.gradients, strict=True):
        h = [[Fraction(lr) * Fraction(float(v)) for v in row] for row in hessian]
        g = [Fraction(lr) * Fraction(float(v)) for v in gradient]
        rows = [
            [
                rows[i][j] - sum(h[i][k] * rows[k][j] for k in range(p)) - g[i] * (j == p)
                for j in range(p + 1)
            ]
            for i in range(p)
        ]
    return rows


@pytest.mark.parametrize("labels", [1e-150, 1.0, 1e150])
@pytest.mark.parametrize("size", [1e-100, 1.0, 1e100])
@pytest.mark.parametrize("lr", [0.0, 1e-3, 0.9, 1.9])
def test_an_epochs_exact_map_has_its_digits_whatever_the_units(lr, size, labels):
    """Whole multiples of a unit have no digits of what is far smaller: lr and labels set it."""
    problem = regression(4, 2, noise=1.0)
    b = theory.batches(problem, TrainConfig(batch_size=4, order="sequential"))
    scaled = replace(b, hessians=b.hessians * size, gradients=b.gradients * labels)
    lr = lr / np.linalg.norm(b.hessians, 2, (1, 2)).max() / size
    (*_, exact), expected = fixed_order._exact_map(scaled, lr), rational(scaled, lr)
    matrix, _ = fixed_order._exact_map(scaled, lr)
    with mpmath.workdps(150):
        for i, row in enumerate(expected):
            found = [matrix[i, j] for j in range(2)] + [exact[i]]
            for one, value in zip(found, row, strict=True):
                due = mpmath.mpf(value.numerator) / value.denominator
                most = max(abs(v) for v in (row[:2] if value is not row[2] else [row[2]]))
                unit = mpmath.mpf(most.numerator) / most.denominator
                assert abs(one - due) <= mpmath.mpf(10) ** -100 * unit


def test_a_radius_far_below_one_has_its_digits():
    """2000 factors of 0.75 are 1e-250; equal batches of one parameter."""
    x = torch.ones(2000, dtype=torch.float64)
    problem = ss.Problem(x, x, lambda w, at: w[0] * at, w_init=[0.0])
    b = theory.batches(problem, TrainConfig(batch_size=1, order="sequential"))
    assert theory.exact_radius(b, 0.125) == pytest.approx(0.75**2000, rel=1e-9, abs=0)
