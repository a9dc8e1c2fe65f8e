"""`ss.expect` of random orders: against runs of many seeds, and against closed forms."""

import numpy as np
import pytest
from conftest import one_line

import sgdstudy as ss
from sgdstudy import theory

SEEDS = 400
RULES = {
    "constant": {"lr": 0.15},
    "schedule": {"lr": 0.15, "schedule": "inverse_time", "schedule_options": {"decay": 0.1}},
    "mean": {"lr": 0.15, "average": 0.5},
    "polyak": {"optimizer": "polyak", "lr": 1e3, "batch_size": 1, "options": {"c": 0.5}},
}


def fit(noise=0.5):
    return ss.problems.even_parabola(1, 8, noise, excess=(1.0, 0.5, 0.5))


def arm(problem=None, **changes):
    given = {"lr": 0.15, "batch_size": 2, "order": "with_replacement", "epochs": 5}
    quiet = {"diagnostics": "off", "metrics": []}
    return ss.Arm(problem or fit(), **given | quiet | changes)


def train(one):
    return ss.train(one.problem, config=one.config, progress=False)


@pytest.mark.parametrize("rule", RULES)
def test_the_excess_is_the_mean_of_many_seeds(rule):
    one = arm(seeds=range(SEEDS), **RULES[rule])
    found, known = train(one).excess(), ss.expect(one).excess
    assert known.shape == (6,)
    assert known[0] == pytest.approx(2.0)
    off = np.abs(found.mean(1) - known[1:]) / ss.standard_error(found)
    assert (off < 4).all()


def test_the_excess_of_all_the_data_is_descent():
    one = arm(batch_size=None, order="shuffle")
    losses = theory.descent_loss(
        one.problem.least_squares, ss.expect(one).start, 0.15, np.arange(6)
    )
    assert ss.expect(one).excess == pytest.approx(losses - one.problem.least_squares.least_loss)


def test_the_path_goes_through_the_ends_of_the_epochs():
    known = ss.expect(arm())
    assert known.path(most=20).excess[::4] == pytest.approx(known.excess)
    target = known.excess[2]
    assert known.path(target * 1.001).steps == pytest.approx(8, abs=0.1)


def test_a_long_run_settles_at_the_stationary_excess():
    known = ss.expect(arm(epochs=2000))
    assert known.excess[-1] == pytest.approx(known.stationary_excess.value, rel=1e-9)
    small = known.at(1e-6)
    assert small.small_step_excess == pytest.approx(small.stationary_excess.value, rel=1e-4)
    lr = known.lr_limit_to_reach(0.02)
    assert known.at(lr).stationary_excess.value == pytest.approx(0.02)


def test_limits_and_factors():
    known = ss.expect(arm())
    limit = known.mean_square_lr_limit.value
    assert known.at(limit).mean_square_factor.value == pytest.approx(1, abs=1e-8)
    whole = ss.expect(arm(batch_size=None))
    assert whole.lr_limit_to_reach(0.1) == pytest.approx(whole.lr_limit.value)
    assert whole.at(whole.lr_limit.value / 2).critical_size_of_lr == pytest.approx(8)
    assert known.eigenvalues == pytest.approx(np.linalg.eigvalsh(known.ls.hessian))


def test_the_law_of_averages_is_that_of_the_samples_that_count():
    known = ss.expect(arm(epochs=40, average=0.25))
    law = theory.averaged_excess_law(known.ls, 8, 30 * 8)
    assert known.averaged_excess_law == law


def line(x):
    return ss.Problem(x, x, lambda w, x: w[0] * x, w_init=[0.0])


def test_the_rate_of_almost_every_path_is_a_mean_logarithm():
    x = np.linspace(0.5, 2, 50)
    one = arm(line(x), lr=0.3, batch_size=1)
    logs = np.log(np.abs(1 - 0.3 * 2 * x**2))
    steps = 59 * 64 * 50
    rate = ss.expect(one).log_rate.value
    assert rate == pytest.approx(logs.mean(), abs=4 * logs.std() / steps**0.5)
    crossing = ss.expect(one).almost_sure_lr_limit(0.05, 5.0)
    means = [np.log(np.abs(1 - crossing * s * 2 * x**2)).mean() for s in (0.95, 1.05)]
    assert means[0] < 0 < means[1]


def test_the_rate_of_projections_is_that_of_many_seeds():
    clean = ss.problems.even_parabola(1, 8)
    one = arm(clean, seeds=range(200), **RULES["polyak"] | {"epochs": 40})
    seen = train(one).log_rate(20)  # 160 steps, a dozen e-foldings: the start is forgotten
    claim = ss.Claim.estimated("a", "b", *seen.beside(ss.expect(one).log_rate))
    assert claim.holds
    assert claim.measured < -2 * claim.tolerance  # and not because nothing is known


def test_orders_from_the_minimiser_end_where_their_maps_say():
    problem = ss.problems.legendre("cubic", d=12)
    once = arm(problem, lr=0.02, batch_size=1, order="shuffle_once", seeds=range(50))
    run, known = train(once), ss.expect(once)
    assert run.distance**2 == pytest.approx(known.own_error_at_end, rel=1e-9)
    drawn = known.error_at_end(500)
    both = np.hypot(ss.standard_error(run.distance**2), ss.standard_error(drawn))
    assert abs(np.mean(run.distance**2) - drawn.mean()) < 4 * both
    twice = once.but(order="with_replacement", seeds=range(SEEDS))
    (expected,), found = ss.expect(twice).error_at_end(), train(twice).distance ** 2
    assert abs(found.mean() - expected) < 4 * ss.standard_error(found)


def test_rates_are_those_of_the_arms_own_time():
    problem = ss.problems.legendre("cubic", d=12)
    ls, one = problem.least_squares, arm(problem, lr=6 / (12 * 40), batch_size=1, epochs=40)
    laws = theory.rate_laws(ls, 12, 6)
    for order in ("with_replacement", "shuffle"):
        assert ss.expect(one.but(order=order)).rate_law == pytest.approx(laws[order])
    back = theory.fixed_order_law(ls, np.arange(12)[::-1], 6)
    assert ss.expect(one.but(order="reversed")).rate_law == pytest.approx(back)
    assert ss.expect(one.but(order="grab")).rate_law is None
    bias = ss.expect(one.but(order="shuffle")).reshuffling_bias
    assert bias @ bias * 40**2 == pytest.approx(laws["shuffle"][-2])


def test_the_noise_of_the_modes_is_that_of_the_batches_taken():
    x, y = np.tile([0.5, 2.0], (12, 1)), np.random.default_rng(0).normal(size=(12, 2))
    problem = ss.Problem(x, y, lambda w, x: w * x, w_init=np.zeros(2))
    known = ss.expect(arm(problem, batch_size=4, lr=0.1))
    assert (known.mode_noise == theory.mode_noise(known.ls, 12, 4, 0.1)).all()


@pytest.mark.parametrize(
    ("ask", "changes"),
    [
        (lambda e: e.excess, {"order": "sequential"}),
        (lambda e: e.excess, {"optimizer": "Adam"}),
        (lambda e: e.excess, {"optimizer": "polyak", "batch_size": None}),
        (lambda e: e.averaged_excess_law, {}),
        (lambda e: e.log_rate, {"optimizer": "Adam"}),
        (lambda e: e.log_rate, {"order": "strided"}),
        (lambda e: e.error_at_end(), {"order": "shuffle"}),
        (lambda e: e.own_error_at_end, {"order": "shuffle"}),
    ],
)
def test_what_is_not_known_is_refused(ask, changes):
    with pytest.raises(ss.InputError) as error:
        ask(ss.expect(arm(**changes)))
    assert one_line(error)


def test_the_limits_of_a_step_can_be_asked_for_at_any_step():
    known = ss.expect(arm())
    top = known.at_lr_limit
    assert top.config.lr == known.mean_square_lr_limit.value
    shares = np.array([[0.1, 0.5]])
    settled = [[known.at(share * top.config.lr).stationary_excess.value for share in shares[0]]]
    assert top.stationary_excess_at(shares) == pytest.approx(np.array(settled))
    assert np.isinf(top.stationary_excess_at(np.array(1.01)))


def test_the_almost_sure_limit_lies_between_the_step_and_thrice_that():
    one = arm(line(np.linspace(0.5, 2, 50)), lr=0.3, batch_size=1)
    between = ss.expect(one).almost_sure_lr_limit(0.3, 0.9)
    assert ss.expect(one).almost_sure_lr_limit() == pytest.approx(between, rel=1e-9)


def test_the_edge_of_a_rule_is_lr_times_its_sharpness_limit():
    rules = {"descent": {}, "heavy": {"momentum": 0.5}}
    edges = [ss.expect(arm(lr=0.05, options=rule)).edge for rule in rules.values()]
    assert edges == [2, 3]
