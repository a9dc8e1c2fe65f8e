"""Random reshuffling: enumeration of all orders, closed forms, then particles and drawn seeds."""

from itertools import permutations, product

import numpy as np
import pytest
from conftest import one_line
from scipy.optimize import brentq

import sgdstudy as ss
from sgdstudy import theory
from sgdstudy.theory import particles, reshuffling
from sgdstudy.theory.medians import median, median_band

FEW = {"particles": 600, "repeats": 8, "epochs": 48}


def curve(d, noise=0.0):
    """Return the notebook's curve with d points."""
    x = np.linspace(-10, 10, d, endpoint=False)
    y = 0.3 * x * x - 1.7 * x + 2.5 + noise * np.random.default_rng(0).normal(size=d)
    return ss.Problem(x, y, ss.problems.parabola, w_init=np.zeros(3))


def line(h):
    """Return a problem with one parameter whose samples have these Hessians."""
    x = np.sqrt(np.asarray(h) / 2)
    return ss.Problem(x, x, lambda w, x: w[0] * x, w_init=[0.0])


def orders(d, size, order):
    """Yield every order of an epoch as a list of batches."""
    cut = range(0, d, size)
    if order == "shuffle":
        for found in permutations(range(d)):
            yield [list(found[k : k + size]) for k in cut]
        return
    blocks = [list(range(k, min(k + size, d))) for k in cut]
    full = d // size
    for found in permutations(blocks[:full]):
        yield [*found, *blocks[full:]]


def epoch(ls, parts, lr):
    """Return the epoch's map of (z, 1), from the samples' gradients."""
    p, found = ls.features.shape[1], np.eye(ls.features.shape[1] + 1)
    for part in parts:
        phi, step = ls.features[part], np.eye(p + 1)
        step[:p, :p] -= lr * 2 / len(part) * phi.T @ phi
        step[:p, p] = -lr * 2 / len(part) * phi.T @ ls.residual[part]
        found = step @ found
    return found


@pytest.fixture
def drawn(monkeypatch):
    """Make theory draw where it could enumerate."""

    def draw():
        monkeypatch.setattr(reshuffling, "MOST_PAIRS", 0)

    return draw


CASES = [
    (6, 2, "shuffle"),
    (7, 3, "shuffle"),  # a ragged batch of one
    (5, 1, "shuffle"),
    (10, 2, "block_shuffle"),
    (11, 2, "block_shuffle"),  # its ragged batch stays last
]


# ---- exact ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "size", "order"), CASES)
def test_the_recursion_over_sets_is_the_mean_over_all_orders(d, size, order):
    ls = curve(d, noise=1.0).least_squares
    lr = 1.2 * theory.mean_square_lr_limit(ls, d, size)
    maps = np.array([epoch(ls, parts, lr) for parts in orders(d, size, order)])
    square = np.mean([np.kron(m, m) for m in maps[:, :3, :3]], axis=0)
    radius = np.abs(np.linalg.eigvals(square)).max()
    assert theory.reshuffling_radius(ls, d, size, lr, order) == pytest.approx(radius, rel=1e-9)

    epochs, (u,) = 3, [np.append(-ls.w_star, 1.0)]
    state = np.outer(u, u)
    found = theory.reshuffling_losses(ls, np.zeros(3), d, size, lr, epochs, order)
    for k in range(epochs):
        state = (maps @ state @ maps.swapaxes(1, 2)).mean(0)
        loss = ls.least_loss + (ls.hessian * state[:3, :3]).sum() / 2
        assert found[k] == pytest.approx(loss, rel=1e-8)


def test_one_parameter_has_a_closed_form():
    h = np.array([0.5, 1.0, 1.5, 4.0])
    ls = line(h).least_squares
    for lr in (0.3, 1.1):
        expected = np.prod((1 - lr * h) ** 2)
        assert theory.reshuffling_radius(ls, 4, 1, lr) == pytest.approx(expected)
    limit = brentq(
        lambda lr: np.log(np.abs(1 - lr * h)).sum(), 2.1, 2.5
    )  # up to there it is below 1
    found = theory.reshuffling_lr_limit(ls, 4, 1)
    assert found.exact
    assert found.value == pytest.approx(limit, rel=1e-8)


def test_one_batch_of_all_the_data_is_descent():
    ls = curve(8).least_squares
    found = theory.reshuffling_lr_limit(ls, 8, 8)
    assert found.value == pytest.approx(theory.lr_limit(ls), rel=1e-8)


def test_directions_without_data_do_not_count():
    x = np.array([0.5, 1.0, 2.0, 1.5])
    twice = ss.Problem(x, x, lambda w, x: (w[0] + w[1]) * x, w_init=np.zeros(2))
    once = ss.Problem(x, x, lambda w, x: w[0] * x, w_init=[0.0])
    found = theory.reshuffling_lr_limit(twice.least_squares, 4, 1).value
    assert 2 * found == pytest.approx(theory.reshuffling_lr_limit(once.least_squares, 4, 1).value)


@pytest.mark.slow
@pytest.mark.parametrize(("d", "size"), [(8, 2), (12, 3), (12, 1)])
def test_the_limit_is_above_that_of_independent_batches(d, size):
    ls = curve(d).least_squares  # measured apart, by enumeration: 12 to 69 % above on small curves
    limit = theory.reshuffling_lr_limit(ls, d, size).value
    assert 1.12 < limit / theory.mean_square_lr_limit(ls, d, size) < 1.69
    assert theory.reshuffling_radius(ls, d, size, limit) == pytest.approx(1, abs=1e-6)


# ---- particles ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("d", "size", "order"), [(12, 3, "shuffle"), (11, 3, "shuffle"), (23, 2, "block_shuffle")]
)
@pytest.mark.parametrize("share", [1.1, 1.3])
def test_particles_find_the_exact_growth(drawn, d, size, order, share):
    ls = curve(d).least_squares
    lr = share * theory.reshuffling_lr_limit(ls, d, size, order).value
    exact = theory.reshuffling_growth(ls, d, size, lr, order)
    assert exact.value == pytest.approx(np.log(theory.reshuffling_radius(ls, d, size, lr, order)))
    drawn()
    found = theory.reshuffling_growth(ls, d, size, lr, order, **FEW, confidence=0.999)
    assert exact.exact
    assert not found.exact
    assert found.low < exact.value < found.high
    assert found.low > 0  # narrow enough to tell the side of the limit


@pytest.mark.slow
def test_particles_do_not_depend_on_their_guide(drawn, monkeypatch):
    ls = curve(12).least_squares
    exact = theory.reshuffling_growth(ls, 12, 3, 6e-4).value
    drawn()
    for share in (0.0, 1.0):
        monkeypatch.setattr(particles, "GUIDE", share)
        found = theory.reshuffling_growth(ls, 12, 3, 6e-4, **FEW, confidence=0.999)
        assert found.low < exact < found.high


def test_potentials_are_even_without_a_difference_and_high_where_samples_are_steep():
    same = reshuffling.items_of(line(np.ones(12)).least_squares, 12, 3, "shuffle")
    assert particles._potentials(same, 1.5) == pytest.approx(np.zeros(12), abs=1e-6)
    h = np.linspace(0.1, 4, 12)
    steep = reshuffling.items_of(line(h).least_squares, 12, 3, "shuffle")
    assert (np.diff(particles._potentials(steep, 1.5)) > 0).all()


@pytest.mark.parametrize("lr", [0.2, 1.0])
def test_potentials_use_all_items_as_often(lr):
    """In an epoch of two steps of three, drawn again and again: a sum over all such batches."""
    rows, n, size, m = np.random.default_rng(0).normal(size=(6, 1, 2)), 6, 3, 2
    items = reshuffling.Items(rows, np.zeros((n, 1)), [size] * m, [size] * m)
    nu = particles._potentials(items, lr)

    def uses(nu):
        q = np.exp(-nu) / np.exp(-nu).sum()
        by_first = np.zeros((n, 4, 4))
        for part in map(list, product(range(n), repeat=size)):
            step = np.eye(2) - lr * items.hessians[part].mean(0)
            by_first[part[0]] += q[part].prod() * np.kron(step, step)
        mean = by_first.sum(0)
        others = np.linalg.matrix_power(mean, m - 1)
        return n * np.trace(others @ by_first, axis1=1, axis2=2) / np.trace(others @ mean)

    assert uses(nu) == pytest.approx(np.ones(n), abs=1e-4)  # the search ends at slopes of 1e-5
    assert np.abs(uses(np.zeros(n)) - 1).max() > 0.05
    assert nu.sum() == pytest.approx(0, abs=1e-12)


@pytest.mark.slow
def test_particles_find_the_limit(drawn):
    ls = curve(12).least_squares
    exact = theory.reshuffling_lr_limit(ls, 12, 3).value
    drawn()
    found = theory.reshuffling_lr_limit(ls, 12, 3, **FEW, confidence=0.999)
    assert found.low < exact < found.high
    assert found.high / found.low < 1.05


# ---- samples of one curvature ---------------------------------------------------------------


def test_what_shuffling_leaves_is_the_mean_over_all_orders_of_a_small_epoch():
    shares, d, size = np.array([0.1, 0.4, 0.9]), 6, 2
    g = np.array([1.0, 2.0, -4.0, 0.5, 3.0, -2.5])
    batches = g[list(permutations(range(d)))].reshape(-1, d // size, size).mean(-1)
    powers = (1 - shares[:, None]) ** np.arange(d // size)[::-1]  # (3, m)
    once = ((batches @ powers.T) ** 2).mean(0)
    kept = (1 - shares) ** (2 * d // size)  # of the variance, by an epoch
    independent = g.var() / size / (1 - (1 - shares) ** 2)
    found = theory.reshuffling_share(shares, d, size)
    assert found == pytest.approx(once / (1 - kept) / independent, rel=1e-12, abs=0)
    ends = [once, once * (1 + kept), once * (1 + kept + kept**2)]
    found = theory.reshuffling_share(shares, d, size, np.array([1, 3]))
    assert found == pytest.approx((ends[0] + ends[2]) / 2 / independent, rel=1e-12, abs=0)


def test_many_small_steps_have_the_share_of_the_continuous_law():
    m, x = 100_000, np.array([0.1, 1.0, 30.0])
    found = theory.reshuffling_share(x / m, m, 1)
    # what is left out is of the order lr lambda = x / m, and of a sample in d
    assert found == pytest.approx(theory.reshuffling_factor(x), rel=2e-3)


def test_a_share_that_is_not_known_is_refused():
    for wrong in ((0.1, 7, 2), (0.1, 4, 4), (2.0, 4, 2), (0.0, 4, 2)):
        with pytest.raises(ss.InputError) as error:
            theory.reshuffling_share(np.array([wrong[0]]), *wrong[1:])
        assert one_line(error)


def test_the_noise_of_a_mode_is_the_stationary_variance():
    y = np.random.default_rng(0).normal(size=(12, 3))
    x, lr = np.tile([0.5, 2.0, 1.0], (12, 1)), 0.2
    problem = ss.Problem(x, y, lambda w, x: w * x, w_init=np.zeros(3))
    ls = problem.least_squares
    step = theory.step_moments(ls, 12, 4, lr, True)
    c = np.linalg.solve(np.eye(9) - step.second, step.noise).reshape(3, 3)
    found = theory.mode_noise(ls, 12, 4, lr)
    assert found == pytest.approx(np.diag(ls.modes[1].T @ c @ ls.modes[1]), rel=1e-9)
    assert theory.mode_noise(ls, 12, 4, 1.0)[-1] == np.inf  # lr lambda = 8 / 3


# ---- the law over seeds ---------------------------------------------------------------------


@pytest.mark.parametrize(("d", "size", "order"), CASES)
def test_drawn_seeds_have_the_expected_loss(d, size, order):
    ls = curve(d, noise=1.0).least_squares
    lr = 0.3 * theory.mean_square_lr_limit(ls, d, size)
    given = ls, np.zeros(3), d, size, lr, 4, order
    _, full = theory.reshuffled_losses(*given, draws=4000)
    expected = theory.reshuffling_losses(*given)
    error = ss.standard_error(full)
    assert (np.abs(full.mean(1) - expected) < 4 * error + 1e-9 * expected).all()


@pytest.mark.slow
@pytest.mark.parametrize("order", ["shuffle", "block_shuffle"])
def test_drawn_seeds_have_the_law_of_runs(order):
    problem, lr = curve(23, noise=1.0), 1e-4
    run = ss.train(
        problem,
        optimizer="notebook",
        lr=lr,
        batch_size=5,
        order=order,
        epochs=6,
        seeds=range(64),
        dtype="float64",
    )
    given = problem.least_squares, np.zeros(3), 23, 5, lr, 6, order
    for name, drawn in zip(
        ("running_loss", "full_loss"), theory.reshuffled_losses(*given, draws=20_000), strict=True
    ):
        for k, values in run.epochs.groupby("epoch")[name]:
            low, high = median_band(drawn[k - 1], 64)
            assert low <= median(values.to_numpy()) <= high
            assert high - low < 0.5 * median(drawn[k - 1])


@pytest.mark.slow
def test_the_band_holds_the_median_as_often_as_it_says():
    generator, inside = np.random.default_rng(0), 0
    for _ in range(500):
        low, high = median_band(generator.normal(size=99), 20, deviations=1.0)
        inside += low <= median(generator.normal(size=20)) <= high
    # ranks are whole numbers, so that it holds the median a little more often than 0.683
    assert 0.683 - 4 * 0.0208 < inside / 500 < 0.8 + 4 * 0.0179


def test_a_band_beyond_all_draws_is_open():
    assert median_band(np.arange(3.0), 64, deviations=9.0) == (-np.inf, np.inf)


# ---- what is refused ------------------------------------------------------------------------


def wide():
    x = np.random.default_rng(0).normal(size=(40, 33))
    return ss.Problem(x, x.sum(1), lambda w, x: x @ w, w_init=np.zeros(33))


REFUSED = [
    (theory.reshuffling_radius, (20, 1, 1e-4), {}, "fewer items, or particles"),
    (theory.reshuffling_radius, (20, 5, 1e-4), {"order": "strided"}, "'strided'"),
    (theory.reshuffling_growth, (20, 1, 1e-4), {"repeats": 2}, "got 2 and 6"),
    (theory.reshuffling_growth, (20, 1, 1e-4), {"epochs": 1}, "got 8 and 1"),
    (theory.reshuffling_lr_limit, (20, 1), {"repeats": 2}, "got 2 and 6"),
    (theory.reshuffling_lr_limit, (20, 1), {"seed": -1}, "a seed is a whole number"),
]


@pytest.mark.parametrize(("function", "given", "options", "says"), REFUSED)
def test_what_cannot_be_done_is_refused_in_one_line(function, given, options, says):
    with pytest.raises(ss.InputError) as error:
        function(curve(20).least_squares, *given, **options)
    assert one_line(error)
    assert says in str(error.value)


def test_the_draws_follow_the_seed():
    given = curve(6, noise=1.0).least_squares, np.zeros(3), 6, 2, 1e-4, 3
    one, same, other = (theory.reshuffled_losses(*given, draws=5, seed=s)[1] for s in (0, 0, 1))
    assert (one == same).all()
    assert (one != other).any()


def test_many_parameters_are_refused():
    with pytest.raises(ss.InputError, match="up to 32 parameters, not 33"):
        theory.reshuffling_radius(wide().least_squares, 40, 20, 0.1)
