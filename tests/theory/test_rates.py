"""Rates in the number of epochs: against all orders, one by one, and against closed forms."""

import itertools

import numpy as np
import pytest
from conftest import one_line

import sgdstudy as ss
from sgdstudy import theory

D, TIME = 5, 6.0


def small(target="cubic"):
    """Five samples: all their 120 orders can be tried."""
    return ss.problems.legendre(target, d=D).least_squares


def every_epoch(ls, lr):
    """M `(120, p, p)` and c `(120, p)` of an epoch z -> M z + c, for every order."""
    hessians = 2 * np.einsum("ip,iq->ipq", ls.features, ls.features)
    gradients = 2 * ls.residual[:, None] * ls.features
    p, maps, offsets = 3, [], []
    for order in itertools.permutations(range(D)):
        matrix, offset = np.eye(p), np.zeros(p)
        for i in order:
            factor = np.eye(p) - lr * hessians[i]
            matrix, offset = factor @ matrix, factor @ offset - lr * gradients[i]
        maps.append(matrix)
        offsets.append(offset)
    return np.array(maps), np.array(offsets)


def settled(maps, offsets):
    """Mean `(p,)` and covariance `(p, p)` of z when every epoch draws one of these maps."""
    p = offsets.shape[1]
    mean = np.linalg.solve(np.eye(p) - maps.mean(0), offsets.mean(0))
    pairs = np.einsum("npq,nrs->prqs", maps, maps).reshape(p * p, -1) / len(maps)
    cross = np.einsum("npq,q,nr->npr", maps, mean, offsets)
    added = (cross + cross.swapaxes(1, 2)).mean(0) + offsets.T @ offsets / len(offsets)
    second = np.linalg.solve(np.eye(p * p) - pairs, added.ravel()).reshape(p, p)
    return mean, second - np.outer(mean, mean)


@pytest.mark.parametrize("target", ["normal", "cubic"])
def test_noise_and_bias_of_shuffling_are_those_of_all_orders(target):
    ls, k = small(target), 10_000
    law = theory.rate_laws(ls, D, TIME)["shuffle"]
    mean, covariance = settled(*every_epoch(ls, TIME / (D * k)))
    # what is left out is of the next order in 1 / K
    assert np.trace(covariance) * k**3 == pytest.approx(law[-3], rel=20 / k)
    assert mean @ mean * k**2 == pytest.approx(law[-2], rel=20 / k, abs=20 / k)


def test_the_bias_of_shuffling_is_the_mean_of_all_orders():
    ls, k = small(), 10_000
    lr = TIME / (D * k)
    mean, _ = settled(*every_epoch(ls, lr))
    assert theory.reshuffling_bias(ls, D, lr) == pytest.approx(mean, rel=20 / k)


def test_an_order_that_is_kept_ends_where_the_powers_of_its_map_say():
    ls, lr = small(), 0.01
    orders = np.array(list(itertools.permutations(range(D))))
    expected = []
    for matrix, offset in zip(*every_epoch(ls, lr), strict=True):
        power = np.linalg.matrix_power(matrix, 40)
        z = np.linalg.solve(np.eye(3) - matrix, offset)  # where it settles
        expected.append(np.sum((z - power @ z) ** 2))
    found = theory.kept_order_error(ls, orders, lr, 40)
    assert found == pytest.approx(np.array(expected), rel=1e-9)


def test_the_error_of_independent_draws_settles_where_its_law_says():
    ls, k = ss.problems.legendre("cubic").least_squares, 10_000
    law = theory.rate_laws(ls, 100, TIME)["with_replacement"]
    found = theory.independent_error(ls, 100, TIME / (100 * k), 100 * k)
    # exp(-2 * 2 * TIME) of the noise is not yet there, and what is left out is of the next order
    assert found == pytest.approx(theory.law_at(law, k), rel=20 / k)


def test_shuffle_once_is_the_mean_of_all_fixed_orders():
    ls = small("normal")
    orders = [np.array(order) for order in itertools.permutations(range(D))]
    each = [theory.fixed_order_law(ls, order, TIME)[-2] for order in orders]
    law = theory.rate_laws(ls, D, TIME)["shuffle_once"]
    assert law == {-2: pytest.approx(np.mean(each), rel=1e-9)}


def test_a_fixed_order_settles_where_its_law_says():
    ls, k = small(), 10_000
    maps, offsets = every_epoch(ls, TIME / (D * k))
    for n, order in enumerate(itertools.permutations(range(D))):
        z = np.linalg.solve(np.eye(3) - maps[n], offsets[n])
        law = theory.fixed_order_law(ls, np.array(order), TIME)
        assert z @ z * k**2 == pytest.approx(law[-2], rel=100 / k, abs=20 / k)


def test_with_replacement_is_the_stationary_noise_of_small_steps():
    ls, k = ss.problems.legendre("cubic").least_squares, 100_000
    law = theory.rate_laws(ls, 100, TIME)["with_replacement"]
    moments = theory.step_moments(ls, 100, 1, TIME / (100 * k))
    c = np.linalg.solve(np.eye(9) - moments.second, moments.noise).reshape(3, 3)
    assert np.trace(c) * k == pytest.approx(law[-1], rel=1e-3)


@pytest.mark.parametrize("order", ["shuffle", "flip_flop"])
def test_noise_of_a_mean_is_that_of_its_geometric_weights(order):
    """Where all samples have the same Hessian, an epoch is a weighted sum of the residuals."""
    d, k = 1000, 400
    y = np.random.default_rng(0).standard_normal(d)
    problem = ss.Problem(np.ones(d), y, lambda w, x: w[0] * x, w_init=[y.mean()])
    law = theory.rate_laws(problem.least_squares, d, TIME)[order]
    a = 1 - 2 * TIME / (d * k)  # a step, Hessian 2
    weights = 2 * TIME / (d * k) * a ** np.arange(d - 1, -1, -1)
    if order == "flip_flop":
        weights = a**d * weights + weights[::-1]
    noise = y.var() * d / (d - 1) * d * weights.var()
    steps = 2 * d if order == "flip_flop" else d
    settled_ = noise / (1 - a ** (2 * steps))
    assert theory.law_at({min(law): law[min(law)]}, k) == pytest.approx(settled_, rel=0.02, abs=0)
    # the bias is of one sample in d
    assert law[-2] == pytest.approx(0, abs=1e-20)


def test_flip_flop_leaves_the_bias_of_shuffling():
    ls, k = small(), 10_000
    maps, offsets = every_epoch(ls, TIME / (D * k))
    # the 120 orders come sorted: the reverse of the n-th is found by name
    orders = list(itertools.permutations(range(D)))
    back = [orders.index(order[::-1]) for order in orders]
    mean, covariance = settled(
        maps[back] @ maps, np.einsum("npq,nq->np", maps[back], offsets) + offsets[back]
    )
    law = theory.rate_laws(ls, D, TIME)["flip_flop"]
    assert mean @ mean * k**2 == pytest.approx(law[-2], rel=20 / k)
    # at five samples the constant of the noise is another, its exponent is not
    half = settled_noise_of_pairs(ls, back, 2 * k)
    assert np.log2(np.trace(covariance) / half) == pytest.approx(5, abs=0.05)


def settled_noise_of_pairs(ls, back, k):
    maps, offsets = every_epoch(ls, TIME / (D * k))
    pairs = np.einsum("npq,nq->np", maps[back], offsets) + offsets[back]
    return np.trace(settled(maps[back] @ maps, pairs)[1])


def test_slopes_are_those_of_power_laws():
    k = np.array([8.0, 16.0, 64.0])
    law = {-3: 2.0, -2: 0.5}
    assert theory.law_at(law, k) == pytest.approx(2 / k**3 + 0.5 / k**2)
    assert theory.log_slope(k, theory.law_at({-3: 7.0}, k)) == pytest.approx(-3)
    both = theory.log_slope(k, np.stack([k, 1 / k], 1))
    assert both == pytest.approx([1, -1])


def test_samples_that_depend_on_each_other_have_the_law_of_what_they_span():
    """A feature given twice: the fit, and its z along both, is that of the feature once, halved."""
    x = np.random.default_rng(2).normal(size=(6, 2))
    y = np.random.default_rng(3).normal(size=6)
    once, twice = (
        ss.Problem(rows, y, ss.problems.linear, w_init=np.zeros(rows.shape[1])).least_squares
        for rows in (x, np.column_stack([x[:, 0] / 2**0.5, x[:, 0] / 2**0.5, x[:, 1]]))
    )  # (z / sqrt 2, z / sqrt 2) is as long as z
    for order, law in theory.rate_laws(once, 6, TIME).items():
        assert theory.rate_laws(twice, 6, TIME)[order] == pytest.approx(law, rel=1e-9, abs=0)
    law = theory.fixed_order_law(once, np.arange(6), TIME)
    assert theory.fixed_order_law(twice, np.arange(6), TIME) == pytest.approx(law, rel=1e-9, abs=0)
    excess = theory.averaged_excess_law(once, 6, 1000)
    assert theory.averaged_excess_law(twice, 6, 1000) == pytest.approx(excess, rel=1e-9, abs=0)
    with pytest.raises(ss.InputError, match="once, from 0") as error:
        theory.fixed_order_law(once, np.zeros(6, int), TIME)
    assert one_line(error)


def test_a_slope_through_one_point_is_refused():
    with pytest.raises(ss.InputError, match="two different x") as error:
        theory.log_slope(np.array([8.0, 8.0]), np.array([1.0, 2.0]))
    assert one_line(error)


@pytest.mark.slow
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_the_interval_of_a_slope_covers_the_truth_as_often_as_it_says(confidence):
    k, generator, trials = np.array([8, 16, 32, 64]), np.random.default_rng(1), 1000
    above = below = 0
    for _ in range(trials):
        samples = k[:, None] ** -3.0 * generator.chisquare(3, (4, 200))
        low, high = theory.slope_interval(k, samples, confidence, draws=200)
        above, below = above + (low > -3), below + (high < -3)
    missed = (1 - confidence) / 2  # on either side
    error = 4 * (missed * (1 - missed) / trials) ** 0.5
    # a quantile of 200 draws is one of 199 steps, and the means of 200 seeds are nearly normal
    assert abs(above / trials - missed) < error + 1 / 200
    assert abs(below / trials - missed) < error + 1 / 200


def test_the_standard_error_of_a_slope_is_that_of_what_its_seeds_add():
    k, generator, seeds, trials = np.array([8, 16, 32, 64]), np.random.default_rng(1), 200, 400
    slopes, errors = [], []
    for _ in range(trials):
        samples = k[:, None] ** -3.0 * generator.chisquare(3, (4, seeds))
        slopes.append(theory.log_slope(k, samples.mean(1)))
        errors.append(ss.standard_error(theory.slope_samples(k, samples)))
    # the relative variance of chi^2 is 2/3; log K is 0, 1, 2, 3 in units of log 2, about its mean
    exact = np.sqrt(2 / 3 / seeds / 5) / np.log(2)
    assert np.mean(errors) == pytest.approx(exact, rel=0.02)
    # a standard deviation of so many trials is known to 1 / sqrt(2 trials)
    assert np.std(slopes) == pytest.approx(exact, rel=4 / np.sqrt(2 * trials))


def test_seeds_that_share_their_luck_do_not_blur_a_slope():
    k = np.array([8, 16, 32, 64])
    luck = np.random.default_rng(0).chisquare(3, 200)
    assert theory.slope_interval(k, k[:, None] ** -2.0 * luck) == pytest.approx((-2, -2))
    assert theory.slope_samples(k, k[:, None] ** -2.0 * luck) == pytest.approx(0, abs=1e-12)


@pytest.mark.slow
def test_the_least_of_a_parabola_in_logarithms_and_its_error():
    x = np.array([1.0, 2.0, 4.0])
    true = np.exp(0.7 * np.log(x / 2.5) ** 2 + 1)
    assert theory.log_minimum(x, true) == pytest.approx(2.5)
    assert np.isnan(theory.log_minimum(x, 1 / true))
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(1000, 1, 40)) * 0.2  # repetitions, x, seeds
    samples = true[:, None] * np.exp(shared + 0.1 * draw.normal(size=(1000, 3, 40)))
    found = np.array([theory.minimum_of_means(x, each) for each in samples])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.1)
    assert np.isnan(theory.minimum_of_means(x, samples[0, :, :1])[1])
