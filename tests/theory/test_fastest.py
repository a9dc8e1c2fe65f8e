"""The fastest step size and momentum; second moments of every rule, against torch's own steps."""

from itertools import product

import numpy as np
import pytest
import torch

import sgdstudy as ss
from sgdstudy import theory
from sgdstudy.errors import InputError

RULES = {
    "descent": {},
    "heavy ball": {"momentum": 0.7},
    "Nesterov": {"momentum": 0.7, "nesterov": True},
}


def valley(kappa, top=1):
    """Two samples along the axes: all of them have the curvatures `top` and `top` / kappa."""
    x = top**0.5 * np.diag([1, kappa**-0.5])
    return ss.Problem(x, x.sum(1), lambda w, x: x @ w, w_init=np.zeros(2)).least_squares


def noisy():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(3, 2)), draw.normal(size=3)
    return ss.Problem(x, y, lambda w, x: x @ w, w_init=np.zeros(2))


def ends(problem, lr, options, steps):
    """w after every sequence of so many samples, by torch.optim.SGD, `(d^steps, p)`."""
    found = []
    for sequence in product(range(problem.d), repeat=steps):
        w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        rule = torch.optim.SGD([w], lr=lr, **options)
        for i in sequence:
            rule.zero_grad()
            ((problem.x[i] @ w - problem.y[i]) ** 2).backward()
            rule.step()
        found.append(w.detach().numpy())
    return np.array(found)


@pytest.mark.parametrize("rule", RULES)
def test_second_moments_are_the_mean_over_all_sequences_of_samples(rule):
    problem, lr = noisy(), 0.1
    ls, options = problem.least_squares, RULES[rule]
    _, full = theory.expected_losses(ls, np.zeros(2), 3, 1, lr, 1, True, *options.values())
    by_hand = ls.loss(ends(problem, lr, options, 3)).mean()
    assert full[0] == pytest.approx(by_hand, rel=1e-12, abs=0)
    z0 = -ls.w_star
    p = 2 * len(z0) if options else len(z0)
    state = np.pad(z0, (0, p - 2))
    mean, second = state, np.outer(state, state).ravel()
    step = theory.step_moments(ls, 3, 1, lr, True, *options.values())
    for _ in range(4):
        mean, second = step.mean @ mean, step.second @ second + step.cross @ mean + step.noise
    z = ends(problem, lr, options, 4) - ls.w_star
    assert second.reshape(p, p)[:2, :2] == pytest.approx(z.T @ z / len(z), rel=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_the_radius_is_that_of_the_second_moments_of_the_rule(rule):
    ls, options = valley(4), RULES[rule].values()
    second = theory.step_moments(ls, 2, 1, 0.3, True, *options).second
    radius = theory.mean_square_radius(ls, 2, 1, 0.3, True, *options)
    assert radius == pytest.approx(np.abs(np.linalg.eigvals(second)).max(), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kappa", [9, 100])
def test_with_exact_gradients_they_are_those_in_closed_form(kappa):
    """Polyak (1964) for heavy ball; Lessard, Recht, Packard (2016), Table 1, for all three."""
    root = kappa**0.5
    known = {
        "descent": (2 / (1 + 1 / kappa), 0, (kappa - 1) / (kappa + 1)),
        "heavy ball": (
            4 / (1 + 1 / root) ** 2,
            ((root - 1) / (root + 1)) ** 2,
            (root - 1) / (root + 1),
        ),
        "Nesterov": (
            4 / (3 + 1 / kappa),
            ((3 * kappa + 1) ** 0.5 - 2) / ((3 * kappa + 1) ** 0.5 + 2),
            1 - 2 / (3 * kappa + 1) ** 0.5,
        ),
    }
    for rule, (lr, momentum, rate) in known.items():
        found = theory.fastest_steps(valley(kappa), 2, 2, rule=rule)
        assert found.factor == pytest.approx(rate**2, rel=1e-4), rule
        assert found.factor >= rate**2 * (1 - 1e-9), rule
        assert (found.lr, found.momentum) == pytest.approx((lr, momentum), rel=0.02), rule


@pytest.mark.parametrize("rule", RULES)
def test_nothing_on_a_fine_grid_is_faster_with_noise(rule):
    ls = valley(64)
    best = theory.fastest_steps(ls, 2, 1, True, rule)
    options = (best.momentum, rule == "Nesterov")
    radius = theory.mean_square_radius(ls, 2, 1, best.lr, True, *options)
    assert best.factor == pytest.approx(radius, rel=1e-12)
    momenta = [0.0] if rule == "descent" else 1 - np.geomspace(1, 0.01, 25)
    for momentum, share in product(momenta, np.geomspace(0.01, 1, 25)):
        given = (2 * share, True, momentum, rule == "Nesterov")
        assert theory.mean_square_radius(ls, 2, 1, *given) >= best.factor * (1 - 1e-6)


def test_descent_on_two_samples_is_fastest_where_both_directions_are_as_fast():
    """(1 + (1 - 2 lr)^2) / 2 along one, (1 + (1 - 2 lr / kappa)^2) / 2 along the other."""
    kappa = 50
    best = theory.fastest_steps(valley(kappa), 2, 1, True)
    assert best.lr == pytest.approx(1 / (1 + 1 / kappa), rel=1e-6)
    assert best.factor == pytest.approx((1 + (1 - 2 * best.lr) ** 2) / 2, rel=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_the_step_goes_with_one_over_the_curvature(rule):
    one, large = (theory.fastest_steps(valley(9, top), 2, 1, True, rule) for top in (1, 400))
    assert large.lr == pytest.approx(one.lr / 400, rel=1e-3)
    assert (large.momentum, large.factor) == pytest.approx((one.momentum, one.factor), rel=1e-3)


def test_an_unknown_rule_is_refused():
    with pytest.raises(InputError, match="Nesterov"):
        theory.fastest_steps(valley(4), 2, 1, rule="nesterov")


def one_far_out(d=2000):
    """One parameter, whose second and fourth moments are far apart: m2 and m4 of the inputs."""
    x = np.ones(d)
    x[0] = 200
    ls = ss.Problem(x, x, lambda w, x: w[0] * x, w_init=np.zeros(1)).least_squares
    return ls, d, np.mean(x**2), np.mean(x**4)


@pytest.mark.parametrize("rule", RULES)
def test_one_sample_far_out_needs_tiny_steps(rule):
    """E[(1 - 2 lr x^2)^2] is least at lr = m2 / (2 m4): 1 - m2^2 / m4, where momentum adds none."""
    ls, d, m2, m4 = one_far_out()
    best = theory.fastest_steps(ls, d, 1, True, rule)
    assert best.factor == pytest.approx(1 - m2**2 / m4, rel=1e-9)
    if rule == "descent":
        assert best.lr == pytest.approx(m2 / (2 * m4), rel=1e-4)


@pytest.mark.parametrize("lr", [1e-3, 0.1, 50])
@pytest.mark.parametrize("momentum", [0.0, 1e-12])
@pytest.mark.parametrize("size", [1, 3])
def test_an_epoch_of_many_steps_neither_overflows_nor_vanishes(lr, momentum, size):
    """Of 2000 samples in batches of 3 the last one is of 2."""
    ls, d, m2, m4 = one_far_out()
    sizes = [min(size, d - start) for start in range(0, d, size)]
    steps = [1 - 4 * lr * m2 + 4 * lr**2 * (m2**2 + (m4 - m2**2) / b) for b in sizes]
    radius = theory.mean_square_radius(ls, d, size, lr, True, momentum)
    assert radius == pytest.approx(np.exp(np.mean(np.log(steps))), rel=1e-9)


def test_a_quick_epoch_of_many_steps_does_not_vanish():
    """(1 - 2 lr)^2 = 0.01 a step, whose power of 667 is below the least float64."""
    x = np.ones(2000)
    ls = ss.Problem(x, x, lambda w, x: w[0] * x, w_init=np.zeros(1)).least_squares
    assert theory.mean_square_radius(ls, 2000, 3, 0.45, True) == pytest.approx(0.01, rel=1e-9)
