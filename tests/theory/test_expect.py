"""Theory bound to an arm: each number against a closed form, with a source to name in a claim.

`line()` has the loss (w - 1)^2 and no noise, curvature 2 in every sample. `pair()` has two samples
of curvature 2 and 8 that want 1 and 2: its epoch in order is a map that is written down here.
"""

import numpy as np
import pytest
import torch
from conftest import literal_curve, one_line, small_curve

import sgdstudy as ss


def problem(x, y, **given):
    x, y = (torch.tensor(part, dtype=torch.float64) for part in (x, y))
    return ss.Problem(x, y, lambda w, at: w[0] * at, w_init=[3.0], **given)


def line():
    return problem([1.0] * 8, [1.0] * 8)


def pair():
    return problem([1.0, 2.0], [1.0, 4.0])


def in_order(lr, **settings):
    given = {"batch_size": 1, "order": "sequential", "epochs": 3}
    return ss.expect(ss.Arm(pair(), lr=lr, **(given | settings)))


def test_a_run_gives_what_its_arm_gives():
    arm = ss.Arm(line(), lr=0.1, batch_size=4, epochs=2)
    run = ss.train(arm.problem, config=arm.config)
    for column in ("running_loss", "full_loss"):
        known = ss.expect(arm).loss(column, 2)
        assert ss.expect(run).loss(column, 2) == known
        assert abs(run.at(column, 2) - known.value) <= known.within


def test_what_has_no_config_is_refused_in_one_line():
    for bad in ("curve", line(), None, ss.TrainConfig()):
        with pytest.raises(ss.InputError, match="takes an arm or a run") as error:
            ss.expect(bad)
        assert one_line(error)


def test_theory_of_what_is_not_least_squares_is_refused_when_it_is_asked_for():
    bent = ss.expect(ss.Arm(small_curve(loss="abs"), lr=0.1))
    assert bent.start.tolist() == [0, 0, 0]
    with pytest.raises(ss.InputError, match="linear in w under loss 'mse'") as error:
        _ = bent.lr_limit
    assert one_line(error)


def test_the_limit_of_full_batches_is_two_over_the_curvature():
    """Of the pair the curvature is 2 (1 + 4) / 2 = 5."""
    assert ss.expect(ss.Arm(line(), lr=0.1)).lr_limit.value == pytest.approx(1.0, rel=1e-12)
    assert in_order(0.1).lr_limit.value == pytest.approx(0.4, rel=1e-12)


def test_the_mean_square_of_independent_batches_has_a_limit_of_its_own():
    """A factor 1 - 2 lr or 1 - 8 lr: the mean of its square is 1 at lr = 20 / 68."""
    arm = ss.Arm(pair(), lr=0.1, batch_size=1, order="with_replacement")
    limit = ss.expect(arm).mean_square_lr_limit
    assert limit.value == pytest.approx(5 / 17, rel=1e-6)
    every = ss.Arm(pair(), lr=0.1, batch_size=2, order="shuffle")  # both samples in every batch
    assert ss.expect(every).mean_square_lr_limit.value == pytest.approx(0.4, rel=1e-6)


@pytest.mark.parametrize("lr", [0.05, 0.2, 0.3])
def test_an_epoch_in_order_multiplies_the_error_by_its_factors(lr):
    known = in_order(lr)
    assert known.steepest.tolist() == pytest.approx([2, 8], rel=1e-12)
    assert known.rho.value == pytest.approx(abs((1 - 2 * lr) * (1 - 8 * lr)), rel=1e-12)


def test_the_stretch_that_multiplies_most_is_found_within_an_epoch_and_across():
    """At lr = 1.5 the factors are -2 and -11: an epoch in order multiplies by 22."""
    known = in_order(1.5)
    for across in (False, True):
        found = known.stretch(across)
        assert (found.first, found.last) == (0, 1)
        assert known.growth(across).value == pytest.approx(22, rel=1e-12)
    second = in_order(0.3)  # 0.4 and -1.4: the second batch alone
    assert (second.stretch().first, second.stretch().last) == (1, 1)
    assert second.growth().value == pytest.approx(1.4, rel=1e-12)


def test_the_stretch_may_lie_across_the_end_of_an_epoch():
    """Curvatures 8, 2, 8 at lr = 0.5: factors -3, 0, -3. Only across the end do two meet."""
    x = [2.0, 1.0, 2.0]
    arm = ss.Arm(problem(x, x), lr=0.5, batch_size=1, order="sequential")
    within, across = (ss.expect(arm).growth(across).value for across in (False, True))
    assert (within, across) == (pytest.approx(3, rel=1e-12), pytest.approx(9, rel=1e-12))


@pytest.mark.parametrize("lr", [0.05, 0.2, 0.3])
def test_the_ends_of_the_epochs_settle_where_the_map_leaves_them(lr):
    """w -> a w + (1 - a) 1 -> b (..) + (1 - b) 2; L(w) = ((w - 1)^2 + 4 (w - 2)^2) / 2."""
    a, b = 1 - 2 * lr, 1 - 8 * lr
    w = (b * (1 - a) + 2 * (1 - b)) / (1 - a * b)
    loss = ((w - 1) ** 2 + 4 * (w - 2) ** 2) / 2
    assert in_order(lr).fixed_point_loss.value == pytest.approx(loss, rel=1e-9)


def test_the_critical_step_is_where_the_epochs_factor_is_one():
    """(1 - 2 lr) (1 - 8 lr) = 1 at lr = 10 / 16; before, at -1 never: 16 lr^2 - 10 lr + 2 > 0."""
    assert in_order(0.1).critical_lr(0.01, 2.0) == pytest.approx(10 / 16, rel=2e-6)


def test_the_usable_step_ends_where_the_fixed_point_is_as_high_as_epsilon():
    known = in_order(0.1)
    epsilon = 0.4 + 0.1  # the least loss is 0.4, at w = 1.8
    found = known.usable_lr(epsilon, 1e-3, 0.6)
    below, above = (in_order(found * by).fixed_point_loss.value for by in (0.999, 1.001))
    assert below < epsilon < above


@pytest.mark.parametrize("column", ["running_loss", "full_loss"])
def test_losses_are_those_of_each_seeds_own_order(column):
    curve = small_curve(noise=0.1)
    arm = ss.Arm(curve, lr=0.2, batch_size=10, epochs=3, seeds=(5, 3))
    found, off = ss.expect(arm).losses(column)
    sizes = np.array([10] * 5 + [3]) / 53
    for place, seed in enumerate((5, 3)):
        loop = literal_curve(curve, seed=seed, dtype=torch.float64, lr=0.2, batch_size=10, epochs=3)
        ends = [*loop.ws[6::6], loop.w]
        expected = {
            "running_loss": loop.losses.reshape(3, 6).numpy() @ sizes,
            "full_loss": [float(((curve.model(w, curve.x) - curve.y) ** 2).mean()) for w in ends],
        }[column]
        # off is of float32; the loop ran in float64
        np.testing.assert_allclose(found[:, place], expected, rtol=1e-6)
    assert (off > 0).all()
    assert ss.expect(arm).loss(column, 2).value == found[1, 0]


def test_one_seeds_own_order_is_that_seeds():
    arm = ss.Arm(small_curve(), lr=0.2, batch_size=10, epochs=2, seeds=(5, 3))
    first, other = (ss.expect(arm).own_order(2, seed) for seed in (None, 3))
    alone = ss.expect(arm.but(seeds=[3])).own_order(2)
    np.testing.assert_array_equal(other.full, alone.full)
    assert not np.array_equal(first.full, other.full)


def test_the_first_overflow_is_that_of_the_largest_float():
    """L = 4 q^(2k), q = 1 - 2 lr = -99: beyond 2^1024 from k = 77 on."""
    steps = ss.expect(ss.Arm(line(), lr=50.0, epochs=400)).first_overflow
    expected = next(k for k in range(400) if 2 + 2 * k * np.log2(99) >= 1024)
    assert steps.tolist() == [expected]
    calm = ss.expect(ss.Arm(line(), lr=0.1, epochs=400)).first_overflow
    assert calm.tolist() == [np.inf]


@pytest.mark.parametrize(
    "name", ["lr_limit", "mean_square_lr_limit", "rho", "growth", "fixed_point_loss", "loss"]
)
def test_every_number_names_its_source(name):
    drawn = name == "mean_square_lr_limit"  # of random orders only
    arm = ss.Arm(line(), lr=0.1, batch_size=2, epochs=4) if drawn else None
    found = getattr(ss.expect(arm) if drawn else in_order(0.1), name)
    known = {"growth": lambda: found(), "loss": lambda: found("full_loss", 2)}.get(
        name, lambda: found
    )()
    assert known.source.startswith("theory: ")
    assert known.within >= 0
