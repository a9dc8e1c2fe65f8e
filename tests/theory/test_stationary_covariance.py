"""The covariance at which SGD settles, against all batches one by one; the law of small steps."""

from itertools import combinations, product

import numpy as np
import pytest

import sgdstudy as ss
from sgdstudy import theory


def line(w, x):
    return w[0] + w[1] * x


def noisy_line(d=5):
    draw = np.random.default_rng(3)
    x, y = np.linspace(-0.5, 1.5, d), draw.normal(size=d)
    return ss.Problem(x, y, line, w_init=np.zeros(2)).least_squares


def after_a_batch(ls, d, size, lr, replacement, c):
    """E[z z^T] after a step, of every batch that may be drawn."""
    every = list(product(range(d), repeat=size) if replacement else combinations(range(d), size))
    total = np.zeros_like(c)
    for batch in map(list, every):
        phi, residual = ls.features[batch], ls.residual[batch]
        step = np.eye(2) - lr * 2 / size * phi.T @ phi
        noise = lr * 2 / size * phi.T @ residual
        total += step @ c @ step.T + np.outer(noise, noise)
    return total / len(every)


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_each_batch_of_an_epoch_leads_to_the_next_covariance(size, replacement):
    """Sizes 1 1 1 1 1, 2 2 1 and 3 2: the one after the last is the first again."""
    ls, d = noisy_line(), 5
    lr = 0.4 * theory.mean_square_lr_limit(ls, d, size, replacement)
    found = theory.stationary_covariance(ls, d, size, lr, replacement)
    sizes = [min(size, d - start) for start in range(0, d, size)]
    assert len(found) == len(sizes)
    for before, after, b in zip(np.roll(found, 1, axis=0), found, sizes, strict=True):
        by_hand = after_a_batch(ls, d, b, lr, replacement, before)
        assert after == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize("size", [2, 5])
def test_its_excess_loss_is_the_stationary_one(size):
    ls = noisy_line(12)
    found = theory.stationary_covariance(ls, 12, size, 0.1, True)[-1]
    excess = theory.stationary_excess(ls, 12, size, 0.1, True)
    assert (ls.hessian * found).sum() / 2 == pytest.approx(excess, rel=1e-12)


def test_it_is_infinite_beyond_the_limit():
    ls = noisy_line(12)
    lr = 1.01 * theory.mean_square_lr_limit(ls, 12, 5, True)
    assert (theory.stationary_covariance(ls, 12, 5, lr, True) == np.inf).all()


def test_directions_without_curvature_do_not_scatter():
    """Two parameters of one feature: only their sum moves."""
    x, y = np.linspace(1, 2, 6), np.random.default_rng(0).normal(size=6)
    both = ss.Problem(x, y, lambda w, x: (w[0] + w[1]) * x, w_init=np.zeros(2)).least_squares
    one = ss.Problem(x, y, lambda w, x: w[0] * x, w_init=np.zeros(1)).least_squares
    for law in (lambda *given: theory.stationary_covariance(*given)[-1], theory.ou_covariance):
        sums = law(one, 6, 2, 0.2, True)  # w0 + w1 has twice the step of each
        halves = law(both, 6, 2, 0.1, True)
        assert halves == pytest.approx(np.full((2, 2), sums[0, 0] / 4), rel=1e-9)


@pytest.mark.parametrize("replacement", [True, False])
def test_the_law_of_small_steps_solves_its_equation(replacement):
    """H C + C H = lr S / B, with the share of a batch without replacement."""
    ls, d, size, lr = noisy_line(), 5, 2, 0.3
    c, h = theory.ou_covariance(ls, d, size, lr, replacement), ls.hessian
    g = 2 * ls.features * ls.residual[:, None]
    share = 1 / size if replacement else (d - size) / (size * (d - 1))
    assert h @ c + c @ h == pytest.approx(lr * share * g.T @ g / d, rel=1e-12)


def test_the_exact_law_goes_over_into_that_of_small_steps():
    """By a factor of 1 + O(lr): a tenth of the step has a tenth of the difference."""
    ls = noisy_line(12)
    off = []
    for lr in (1e-3, 1e-4):
        given = (ls, 12, 4, lr, True)
        ratio = theory.stationary_covariance(*given)[-1] / theory.ou_covariance(*given)
        off.append(np.abs(ratio - 1).max())
    assert off[0] < 0.02
    assert off[1] == pytest.approx(off[0] / 10, rel=0.05)
