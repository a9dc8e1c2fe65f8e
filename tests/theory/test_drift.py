"""Theory of parameters that move: closed forms, simulation, limits."""

import numpy as np
import pytest

import sgdstudy as ss

T = ss.theory
NODES, WEIGHTS = np.polynomial.legendre.leggauss(8)
LAW = T.sample_law(np.stack([NODES**2, NODES, np.ones(8)], 1), WEIGHTS / 2, 0.3)
V = np.array([1e-3, 1e-3, 0.0])


def test_one_parameter_by_hand():
    """f = w, H = 2 without spread: a = 1 - 2 lr, variance lr^2 S / (B (1 - a^2))."""
    law, lr, v, size = T.sample_law(np.ones((1, 1)), np.ones(1), 0.5), 0.1, 0.01, 4
    found = T.stationary_tracking(law, size, lr, np.array([v]))
    variance = lr**2 * 4 * 0.25 / size / (1 - (1 - 2 * lr) ** 2)
    assert found.lag == pytest.approx(-v / (2 * lr))
    assert found.second[0, 0] == pytest.approx(variance + (v / (2 * lr)) ** 2)
    assert T.tracking_lr_limit(law, size) == pytest.approx(1)
    walk = T.stationary_tracking(law, size, lr, np.zeros(1), np.array([[v**2]]))
    assert walk.excess == pytest.approx(variance + v**2 / (1 - (1 - 2 * lr) ** 2))


def test_standing_still_is_the_stationary_excess_of_a_sample():
    """Noise that goes with nothing: every x with both signs of the noise."""
    x = np.repeat(np.linspace(-1, 1, 7), 2)
    y = ss.problems.parabola([0.3, -1.7, 2.5], x) + np.tile([0.2, -0.2], 7)
    ls = ss.Problem(x, y, ss.problems.parabola, w_init=np.zeros(3)).least_squares
    law = T.sample_law(ls.features, np.full(14, 1 / 14), 0.2)
    for size, lr in (
        (1, 0.1),
        (2, 0.2),
    ):  # no batch is smaller: samples that come once have no epochs
        found = T.stationary_tracking(law, size, lr, np.zeros(3)).excess
        assert found == pytest.approx(T.stationary_excess(ls, 14, size, lr, True), rel=1e-6)
        limit = T.mean_square_lr_limit(ls, 14, size, True)
        assert T.tracking_lr_limit(law, size) == pytest.approx(limit, rel=1e-6)


def test_a_long_path_ends_where_theory_settles():
    steps = np.arange(4001)[:, None]
    mean, excess = T.tracking_path(LAW, 2, np.full(4000, 0.05), steps * V, np.ones(3))
    settled = T.stationary_tracking(LAW, 2, 0.05, V)
    assert excess[-1] == pytest.approx(settled.excess, rel=1e-9)
    assert np.allclose(mean[-1] - 4000 * V, settled.lag)


def test_a_path_is_what_simulation_finds():
    draw, replicas, size = np.random.default_rng(0), 20_000, 2
    rates, true = 0.3 / (1 + np.arange(12)), np.cumsum(draw.normal(size=(13, 3)) / 10, 0)
    w = np.zeros((replicas, 3))
    mean, excess = T.tracking_path(LAW, size, rates, true, w[0])
    for lr, at in zip(rates, true[:-1], strict=True):
        x = draw.uniform(-1, 1, (replicas, size))
        phi = np.stack([x**2, x, np.ones_like(x)], 2)
        error = np.einsum("rbp,rp->rb", phi, w - at) - 0.3 * draw.normal(size=x.shape)
        w = w - lr * 2 / size * np.einsum("rb,rbp->rp", error, phi)
    z = w - true[-1]
    each = np.einsum("rp,pq,rq->r", z, LAW.hessian, z) / 2
    assert abs(each.mean() - excess[-1]) < 4 * each.std() / replicas**0.5
    assert (abs(w.mean(0) - mean[-1]) < 4 * w.std(0) / replicas**0.5).all()


def test_small_steps_have_the_simple_formula_and_the_best_is_least():
    for lr in (1e-4, 1e-3):
        exact = T.stationary_tracking(LAW, 1, lr, V).excess
        assert sum(T.tracking_terms(LAW, 1, lr, V)) == pytest.approx(exact, rel=10 * lr)
    slow = V / 1e4
    noise, lag = T.tracking_terms(LAW, 1, 1.0, slow)
    best = T.best_tracking_lr(LAW, 1, slow)
    assert best == pytest.approx((2 * lag / noise) ** (1 / 3), rel=0.01)
    best = T.best_tracking_lr(LAW, 1, V)
    least, *others = (T.stationary_tracking(LAW, 1, best * s, V).excess for s in (1, 0.98, 1.02))
    assert least < min(others)


def test_beyond_the_limit_it_is_infinite():
    limit = T.tracking_lr_limit(LAW, 1)
    assert np.isfinite(T.stationary_tracking(LAW, 1, 0.99 * limit, V).excess)
    assert T.stationary_tracking(LAW, 1, 1.01 * limit, V).excess == np.inf


def test_the_law_of_a_uniform_x_is_that_of_its_samples():
    """Moments of 1, x, x^2 by hand: E x^2 = 1/3, E x^4 = 1/5, E x^6 = 1/7, E x^8 = 1/9."""
    law = T.uniform_law(ss.problems.parabola, 3, 0.5)
    even = 1 / np.array([1, np.inf, 3, np.inf, 5, np.inf, 7, np.inf, 9])
    powers = np.array([2, 1, 0])  # of w0, w1, w2
    pairs = powers[:, None] + powers
    assert np.allclose(law.hessian, 2 * even[pairs])
    both = pairs[:, None, :, None] + pairs[None, :, None, :]  # p r, q s
    assert np.allclose(law.products, 4 * even[both].reshape(9, 9))
    assert np.allclose(law.noise, 2 * 0.25 * law.hessian)


def test_a_stream_of_a_drifting_parabola_has_its_labels_and_its_noise():
    problem = ss.problems.drifting_parabola(V, noise=0.0)
    from torch import Generator

    stream, first = problem.stream(Generator().manual_seed(0)), 0
    for _ in range(2):
        x, y = (part.numpy() for part in next(stream))
        w = np.array([0.3, -1.7, 2.5]) + np.arange(first, first + len(x))[:, None] * V
        assert np.allclose(y, w[:, 0] * x**2 + w[:, 1] * x + w[:, 2])
        first += len(x)
    noisy = next(ss.problems.drifting_parabola(V, noise=0.3).stream(Generator().manual_seed(0)))
    clean = next(problem.stream(Generator().manual_seed(0)))
    assert (noisy[1] - clean[1]).std().item() == pytest.approx(0.3, rel=0.05)
    for bad in ([1.0], [np.nan, 0, 0], "fast"):
        with pytest.raises(ss.InputError):
            ss.problems.drifting_parabola(bad)
