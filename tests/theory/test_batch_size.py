"""Critical batch sizes, noise scales and expected paths: closed forms, then brute force."""

from itertools import product

import numpy as np
import pytest
from conftest import one_line
from scipy.optimize import minimize

import sgdstudy as ss
from sgdstudy import theory

SIGMA = 0.5


def regression(noise=0.5, d=6, p=2, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(d, p)) * np.linspace(1, 2, p)
    y = x.sum(1) + noise * generator.normal(size=d)
    return ss.Problem(x, y, lambda w, x: x @ w, w_init=np.zeros(p))


def balanced(sigma=SIGMA):
    """A staircase whose every step has the same noise, +-sigma: its theory is in closed form."""
    stairs = ss.problems.staircase(d=16)
    y = stairs.y.numpy() + np.tile([sigma, -sigma], 8)
    return stairs.replace(y=y)


def at_excess(ls, excess):
    """Parameters at which the staircase has this excess loss: |z|^2 / 8."""
    z = np.arange(1.0, 9)
    return ls.w_star + z * np.sqrt(8 * excess / (z @ z))


# ---- closed forms ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 16])
def test_without_noise_the_staircase_saturates_at_its_steps_less_one(size):
    ls = ss.problems.staircase(d=16).least_squares
    limit = theory.lr_limit_to_reach(ls, 16, size, 0.1, replacement=True)
    assert limit == pytest.approx(8 / (1 + 7 / size))
    assert limit == pytest.approx(theory.mean_square_lr_limit(ls, 16, size, replacement=True))
    assert theory.critical_size_of_lr(ls, size, limit) == pytest.approx(7)


@pytest.mark.parametrize("excess", [1.0, 0.01, 1e-5])
def test_with_noise_the_critical_size_of_the_step_is_the_noise_scale_at_the_target(excess):
    ls = balanced().least_squares
    expected = 7 + 8 * SIGMA**2 / excess
    noise, square, curved_noise, curved_square = theory.noise_terms(ls, at_excess(ls, excess), 16)
    assert noise / square == pytest.approx(expected)
    assert curved_noise / curved_square == pytest.approx(expected)  # H is a multiple of I
    for size in (1, 8):
        limit = theory.lr_limit_to_reach(ls, 16, size, excess, replacement=True)
        assert theory.critical_size_of_lr(ls, size, limit) == pytest.approx(expected)


def test_a_path_knows_its_steps_and_its_noise_scale():
    ls = balanced().least_squares
    path = theory.expected_path(ls, np.zeros(8), 16, 8, 0.5, 1000, 0.3, replacement=True)
    assert path.steps == theory.time_above(path.excess, 0.3)
    expected = 7 + 8 * SIGMA**2 / path.excess
    assert path.noise_scale == pytest.approx(expected)
    assert path.noise_scale_at(path.excess[1:3]) == pytest.approx(expected[1:3])
    middle = path.noise_scale_at(np.sqrt(path.excess[1] * path.excess[2]))
    assert middle == pytest.approx(np.sqrt(expected[1] * expected[2]))
    assert np.isnan(path.noise_scale_at(0.01))
    # |g|^2 is the excess but for a factor, so that every step counts alike
    assert path.mean_noise_scale(slice(1, 4)) == pytest.approx(expected[1:4].mean())


def test_the_law_of_steps_is_found_again():
    sizes = np.array([1, 4, 64, 256])
    steps = 30 * (1 + 12 / sizes)
    assert theory.critical_batch_size(sizes, steps) == pytest.approx((30, 12))
    steps[1] = np.inf  # never got there
    assert theory.critical_batch_size(sizes, steps) == pytest.approx((30, 12))
    assert np.isnan(theory.critical_batch_size(sizes[:1], steps[:1])).all()
    assert np.isnan(theory.critical_batch_size(sizes[[0, 0]], steps[[0, 0]])).all()


def test_noisy_steps_are_fitted_with_the_least_relative_error():
    sizes, draw = np.array([1, 2, 4, 16, 64, 256]), np.random.default_rng(4)
    steps = 30 * (1 + 12 / sizes) * (1 + 0.1 * draw.normal(size=6))

    def error(at):
        return np.sum((at[0] * (1 + at[1] / sizes) / steps - 1) ** 2)

    found = theory.critical_batch_size(sizes, steps)
    best = minimize(error, found, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15})
    assert found == pytest.approx(best.x, rel=1e-5)
    assert found != pytest.approx((30, 12), rel=1e-3)
    # a hundred times the steps are a hundred times S_min, and the same B_c
    more = theory.critical_batch_size(sizes, 100 * steps)
    assert more == pytest.approx((100 * found[0], found[1]))


def test_time_above_of_an_exponential_is_a_logarithm():
    curve = 3 * 0.9 ** np.arange(100)
    assert theory.time_above(curve, 0.5) == pytest.approx(np.log(6) / -np.log(0.9))
    assert theory.time_above(curve, 4.0) == 0
    assert theory.time_above(np.array([3.0, 3.0, 1.0, 1.0]), 2.0) == pytest.approx(1.369, abs=1e-3)
    assert theory.time_above(curve, 1e-9) == np.inf
    assert theory.time_above(np.array([2.0, 0.1, -1e-20]), 1.0) == pytest.approx(0.231, abs=1e-3)
    assert theory.time_above(np.array([2.0, np.nan]), 1.0) == np.inf
    assert theory.time_above(np.array([]), 1.0) == np.inf


def test_scatter_does_not_shift_the_time_above():
    k = np.arange(4000)
    noise = np.random.default_rng(0).normal(size=len(k))
    curve = np.exp(-k / 1000 + 0.2 * noise)
    target = np.exp(-2)
    assert theory.time_above(curve, target) == pytest.approx(2000, rel=0.02)
    assert np.argmax(curve < target) < 1700  # while the first value below is hundreds too early


def test_the_exponent_of_independent_draws_is_a_mean_logarithm():
    x = np.linspace(0.5, 2, 50)
    problem = ss.Problem(x, x, lambda w, x: w[0] * x, w_init=[0.0])
    logs = np.log(np.abs(1 - 0.3 * 2 * x**2))
    found = theory.lyapunov(problem, 1, 0.3, epochs=21, replacement=True)
    error = logs.std() / (64 * 20 * 50) ** 0.5
    assert found == pytest.approx(logs.mean(), abs=4 * error)
    assert found != theory.lyapunov(problem, 1, 0.3, epochs=21)


# ---- brute force ----------------------------------------------------------------------------


def terms_by_hand(ls, w, d):
    g, h = theory.gradients(ls, w, d), ls.hessian
    mean, sigma = g.mean(0), np.cov(g.T, bias=True)
    return np.trace(sigma), mean @ mean, np.trace(h @ sigma), mean @ h @ mean


def test_noise_terms_are_those_of_the_samples_gradients():
    ls = regression().least_squares
    ws = np.random.default_rng(1).normal(size=(2, 3, 2))
    found = theory.noise_terms(ls, ws, 6)
    assert found.shape == (4, 2, 3)
    for place in np.ndindex(2, 3):
        by_hand = terms_by_hand(ls, ws[place], 6)
        assert found[(slice(None), *place)] == pytest.approx(by_hand)
        assert by_hand[0] / by_hand[1] == pytest.approx(theory.noise_scale(ls, ws[place], 6))


def test_the_expected_path_is_the_mean_over_all_draws():
    d, lr, steps = 4, 0.05, 3
    problem = regression(d=d)
    ls = problem.least_squares
    hessians = 2 * np.einsum("ip,iq->ipq", ls.features, ls.features)
    path = theory.expected_path(ls, np.zeros(2), d, 1, lr, steps, replacement=True)
    assert path.excess.shape == (steps + 1,)
    assert path.terms.shape == (4, steps + 1)
    for k in range(steps + 1):
        excess, terms = [], []
        for draws in product(range(d), repeat=k):
            w = np.zeros(2)
            for i in draws:
                g = hessians[i] @ (w - ls.w_star) + 2 * ls.residual[i] * ls.features[i]
                w = w - lr * g
            excess.append(ls.loss(w) - ls.least_loss)
            terms.append(terms_by_hand(ls, w, d))
        assert path.excess[k] == pytest.approx(np.mean(excess))
        assert path.terms[:, k] == pytest.approx(np.mean(terms, axis=0))
    assert path.noise_scale[0] == pytest.approx(theory.noise_scale(ls, np.zeros(2), d))
    assert path.curvature_noise_scale == pytest.approx(path.terms[2] / path.terms[3])


def test_a_batch_of_all_samples_is_full_descent():
    ls = regression().least_squares
    lr = 0.3 * theory.lr_limit(ls)
    path = theory.expected_path(ls, np.zeros(2), 6, 6, lr, 20)
    losses = theory.descent_loss(ls, np.zeros(2), lr, np.arange(21))
    assert path.excess + ls.least_loss == pytest.approx(losses)


def test_the_path_ends_below_its_target_and_agrees_with_the_losses_by_epoch():
    ls, lr = regression(noise=0.0).least_squares, 0.05
    path = theory.expected_path(ls, np.zeros(2), 6, 2, lr, 1000, 0.1)
    assert (path.excess[:-1] >= 0.1).all()
    assert path.excess[-1] < 0.1
    whole = theory.expected_path(ls, np.zeros(2), 6, 2, lr, 12)
    _, full = theory.expected_losses(ls, np.zeros(2), 6, 2, lr, 4)
    assert whole.excess[3::3] + ls.least_loss == pytest.approx(full)


@pytest.mark.parametrize("replacement", [True, False])
def test_the_floor_of_the_limit_is_the_excess_asked_for(replacement):
    ls = regression(d=20, p=3).least_squares
    lr = theory.lr_limit_to_reach(ls, 20, 2, 0.02, replacement)
    assert theory.stationary_excess(ls, 20, 2, lr, replacement) == pytest.approx(0.02)


# ---- what it rests on -----------------------------------------------------------------------


def test_an_excess_that_cannot_be_reached_is_refused():
    with pytest.raises(ss.InputError, match="above 0") as error:
        theory.lr_limit_to_reach(regression().least_squares, 6, 1, 0.0)
    assert one_line(error)


def test_the_staircase_is_as_it_says():
    problem = ss.problems.staircase(noise=0.1, d=800)
    ls, clean = problem.least_squares, ss.problems.staircase().least_squares
    assert ls.hessian == pytest.approx(np.eye(8) / 4)
    assert ls.least_loss == pytest.approx(0.01, rel=0.2)
    assert clean.loss(np.zeros(8)) == pytest.approx(1)
    assert clean.least_loss < 1e-30
    assert (ss.problems.staircase(0.1, seed=1).y != ss.problems.staircase(0.1).y).any()
    with pytest.raises(ss.InputError, match="multiple of 8") as error:
        ss.problems.staircase(d=100)
    assert one_line(error)


def test_points_have_their_intervals_and_unknown_ones_are_left_out():
    rows = ss.figures.points([("a", 1, 2.0, 0.1), ("a", 2, np.inf, np.nan)])
    assert rows.columns.tolist() == ["line", "x", "y", "low", "high"]
    assert rows.to_numpy().tolist() == [["a", 1, 2.0, pytest.approx(1.804), pytest.approx(2.196)]]
