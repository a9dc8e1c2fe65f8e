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


# ---- an order inside its epoch (Exercise 6) ------------------------------------------------


THREE = [[1.0, 0.0], [1.8, 2.4], [1.8, 2.4], [0.0, 1.0]]


def plane(lr, x=THREE, order="sequential", **settings):
    """Two parameters: curvature 2 along the first axis, 18 along (0.6, 0.8) twice, 2 along y."""
    x = torch.tensor(x, dtype=torch.float64)
    true = torch.tensor([1.0, -1.0], dtype=torch.float64)
    made = ss.Problem(x, x @ true, lambda w, at: at @ w, w_init=[3.0, 1.0])
    given = {"batch_size": 1, "epochs": 6, "dtype": "float64", "optimizer": "SGD"}
    return ss.Arm(made, lr=lr, order=order, **(given | settings))


def test_batches_beyond_their_limit_and_how_alike_their_directions_are():
    """Beyond 2 / curvature: 18 from lr = 1/9 on, all from lr = 1 on."""
    assert ss.expect(plane(0.11)).beyond_limit.tolist() == []
    assert ss.expect(plane(0.12)).beyond_limit.tolist() == [1, 2]
    assert ss.expect(plane(1.01)).beyond_limit.tolist() == [0, 1, 2, 3]
    assert ss.expect(plane(0.12)).least_cosine == pytest.approx(1, rel=1e-12)
    assert ss.expect(plane(1.01)).least_cosine == pytest.approx(0.6, rel=1e-12)  # axis x and 0.6
    assert ss.expect(plane(0.11)).least_cosine == 1


def test_the_share_of_an_error_along_its_batchs_steepest_direction():
    """Along (1, 0), (0.6, 0.8) twice and (0, 1); whichever its length and sign."""
    batches = ss.expect(plane(0.1)).batches
    met = np.array([[3.0, 0.0], [-2.0, 0.0], [-0.8, 0.6], [5.0, 5.0]])
    due = [1, 0.6, 0, 0.5**0.5]
    assert batches.share_along_steepest(met).tolist() == pytest.approx(due, abs=1e-15)
    assert batches.share_along_steepest(met[:2]).tolist() == pytest.approx(due[:2], abs=1e-15)


def test_a_stretch_alone_multiplies_its_error_by_its_growth():
    arm = plane(0.3)
    for across in (False, True):
        known = ss.expect(arm)
        worst = arm.but(**known.alone(across))
        run = ss.train(worst.problem, config=worst.config)
        stretch = known.stretch(across)
        assert len(run.steps) == stretch.last - stretch.first + 1
        assert np.linalg.norm(
            worst.problem.initial([0])[0].numpy() - known.ls.w_star
        ) == pytest.approx(1)
        grown, due = np.linalg.norm(run.w[0] - known.ls.w_star), known.growth(across)
        assert abs(grown - due.value) <= due.within + 1e-14 * due.value


def test_a_stretch_beyond_float64_is_refused_in_one_line():
    with pytest.raises(ss.InputError, match="more than float64 holds; give a smaller") as error:
        ss.expect(ss.Arm("curve", lr=0.2, batch_size=10, order="sequential")).alone()
    assert one_line(error)


def test_a_stretch_with_a_smaller_batch_is_refused_in_one_line():
    with pytest.raises(ss.InputError, match="of 4 samples the last has 1, the others 3") as error:
        ss.expect(plane(0.3, batch_size=3)).alone()
    assert one_line(error)


@pytest.mark.parametrize("order", ["sequential", "reversed"])
def test_along_its_slowest_direction_every_epoch_multiplies_by_rho(order):
    """For noisy labels too, whose offset every epoch adds alike."""
    arm = ss.Arm(small_curve(noise=0.3), lr=0.1, batch_size=7, order=order, dtype="float64")
    arm = arm.but(epochs=8, optimizer="SGD")
    run, known = ss.train(arm.problem, config=arm.config), ss.expect(arm)
    matrix, _ = ss.theory.epoch_map(known.batches, 0.1)
    left = known.slowest_direction
    np.testing.assert_allclose(left @ matrix, known.rho.value * left, atol=1e-12)
    due, seen = known.rho_along(8), run.contraction_along(left)
    assert due.value == known.rho.value
    assert abs(seen - due.value) <= due.within < 1e-12
    assert run.contraction_along() == seen
    assert not abs(run.contraction_along(np.ones(3)) - due.value) <= due.within


def test_of_few_epochs_or_beyond_the_limit_there_is_no_factor():
    arm = plane(0.05, epochs=2)
    run = ss.train(arm.problem, config=arm.config)
    assert ss.expect(arm).rho_along(2) is None
    assert np.isnan(run.contraction_along(np.ones(2)))
    assert ss.expect(plane(5.0)).rho_along(6) is None


def test_where_the_error_turns_there_is_no_slowest_direction():
    """At lr = 0.9 two near reflections: trace 0.36 * 1.8^2 - 1.6, determinant 0.64, so complex."""
    turning = ss.expect(plane(0.9, x=[[1.0, 0.0], [0.6, 0.8]]))
    assert turning.rho.value == pytest.approx(0.8, rel=1e-12)
    assert np.isnan(turning.slowest_direction).all()
    assert turning.rho_along(6) is None


def test_the_stop_without_rounding_is_that_of_the_loop_in_float64():
    """The error is multiplied by 0.6 an epoch: 4 * 0.36^k < 0.01 from k = 6 on."""
    for rule, first in (("full", 6), ("running", 7)):
        arm = ss.Arm(line(), lr=0.2, stop=(rule, 0.01), batch_size=8, epochs=9)
        assert ss.expect(arm).stop_without_rounding == first
        assert ss.expect(arm.but(epochs=5)).stop_without_rounding == np.inf
    with pytest.raises(ss.InputError, match="nothing stops this one") as error:
        _ = ss.expect(ss.Arm(line(), lr=0.2)).stop_without_rounding
    assert one_line(error)


# ---- label noise, and drawn orders (study_neighbours) --------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_excess_at_the_end_is_that_of_the_seeds_own_orders(dtype):
    arm = ss.Arm(small_curve(noise=0.3), lr=0.1, batch_size=7, epochs=5, seeds=range(6))
    arm = arm.but(dtype=dtype, order="shuffle_once")
    run, due = ss.train(arm.problem, config=arm.config), ss.expect(arm).excess_at_end
    x, y = (part.double().numpy() for part in (arm.problem.x, arm.problem.y))
    residuals = [
        arm.problem.model(torch.tensor(w).double(), torch.tensor(x)).numpy() - y for w in run.w
    ]
    ends = sorted((r**2).mean() for r in residuals)
    assert run.excess_at_end == pytest.approx(ends[2] - ss.expect(arm).ls.least_loss, abs=1e-5)
    assert abs(run.excess_at_end - due.value) <= due.within
    assert due.within < {"float32": 1e-4, "float64": 1e-12}[dtype]


def test_the_rounding_of_a_sum_covers_what_sums_in_float32_are_off():
    """Of 400 sums of 2000 squares, one after the other, none is further off, most are far less."""
    draws = np.random.default_rng(0).standard_normal((400, 2000)).astype(np.float32) ** 2
    off = np.abs(np.add.accumulate(draws, axis=1)[:, -1] / draws.astype(float).sum(1) - 1)
    within = ss.expect(ss.Arm("curve", lr=1e-4)).sum_rounding
    assert within == 4 * 2000**0.5 * 2.0**-24
    assert off.max() < within < 100 * np.median(off)
    assert ss.expect(plane(0.1)).sum_rounding == 4 * 2 * 2.0**-53


def test_the_late_excess_of_runs_is_within_that_of_orders_drawn_apart():
    arm = ss.Arm(small_curve(noise=0.5), lr=0.1, batch_size=7, epochs=20, seeds=range(32))
    for order in ("shuffle", "block_shuffle"):
        drawn = arm.but(order=order, optimizer="SGD")
        run, due = ss.train(drawn.problem, config=drawn.config), ss.expect(drawn).late_excess
        full = run.array("epochs", "full_loss") - ss.expect(drawn).ls.least_loss
        np.testing.assert_allclose(run.late_excess, np.log10(full[10:]).mean(0), rtol=1e-12)
        assert abs(run.late_excess.mean() - due.value) <= due.within
        assert due.within < 0.5
        with pytest.raises(ss.InputError):
            _ = ss.expect(drawn.but(order="strided")).late_excess


def test_the_late_excess_of_seeds_that_start_apart_is_refused_in_one_line():
    curve = small_curve(w_init=lambda generator: torch.randn(3, generator=generator))
    with pytest.raises(ss.InputError, match="start apart") as error:
        _ = ss.expect(ss.Arm(curve, lr=0.1, batch_size=7, seeds=range(2))).late_excess
    assert one_line(error)


def test_the_exponent_per_epoch_of_one_direction_is_a_sum_of_logarithms():
    x = [0.5, 1.0, 1.5]
    arm = ss.Arm(problem(x, x), lr=0.3, batch_size=1, order="shuffle", epochs=6)
    expected = np.log(np.abs(1 - 0.3 * 2 * np.square(x))).sum()
    assert ss.expect(arm).lyapunov(6) == pytest.approx(expected, rel=1e-9)
    run = ss.train(arm.problem, config=arm.config)
    assert run.error_growth(6)[0] == pytest.approx(expected, rel=1e-6)


# ---- batches against all the data (Exercise 7) ---------------------------------------------


@pytest.mark.parametrize("order", ["shuffle", "sequential"])
def test_drift_and_sampling_are_those_of_a_literal_loop(order):
    arm = ss.Arm(small_curve(noise=0.1), lr=0.2, batch_size=10, epochs=3, dtype="float64")
    arm = arm.but(order=order, seeds=[4])
    x, y = (part.double() for part in (arm.problem.x, arm.problem.y))
    run = ss.train(arm.problem, config=arm.config)
    steps = run.steps[run.steps["epoch"] == 3]
    w = torch.tensor(steps[["w0", "w1", "w2"]].to_numpy(float))
    full = torch.stack([((arm.problem.model(one, x) - y) ** 2).mean() for one in w]).numpy()
    end = float(((arm.problem.model(torch.tensor(run.w[0]), x) - y) ** 2).mean())
    share = steps["size"].to_numpy() / 53
    known = ss.expect(arm).gap(3)
    for name, value in {
        "drift": share @ (full - end),
        "sampling": share @ (steps["loss"].to_numpy() - full),
    }.items():
        assert abs(known[name].value - value) <= known[name].within < 1e-10
        assert abs(getattr(run.gaps()[2], name) - known[name].value) <= known[name].within


def test_a_stop_under_another_rule_is_that_of_the_loop():
    """The error is multiplied by 0.6 an epoch: 4 * 0.36^k < 0.01 from k = 6 on."""
    known = ss.expect(ss.Arm(line(), lr=0.2, epochs=9, optimizer="SGD"))
    assert (known.stop_under("full", 0.01).value, known.stop_under("running", 0.01).value) == (6, 7)
    drawn = ss.expect(ss.Arm(small_curve(), lr=0.2, batch_size=10, epochs=9))
    assert drawn.stop_under("last_batch", 0.01) is None


@pytest.mark.parametrize("loss", ["norm", "rmse", "mse", "abs"])
@pytest.mark.parametrize("size", [7, 53])
def test_the_sum_over_the_batches_at_rest_is_the_runs(loss, size):
    curve = small_curve(loss=loss)
    arm = ss.Arm(curve, lr=0.1, batch_size=size, epochs=1, seeds=(3, 1, 2), optimizer="none")
    run, due = ss.train(arm.problem, config=arm.config), ss.expect(arm).sum_at_start
    assert abs(run.at("sum_loss") - due.value) <= due.within < 1e-4 * due.value
    if size == 53:
        off = curve.y.double().numpy()  # w = 0
        whole = {"norm": np.linalg.norm(off), "rmse": (off**2).mean() ** 0.5}
        whole |= {"mse": (off**2).mean(), "abs": np.abs(off).mean()}
        assert due.value == pytest.approx(whole[loss], rel=1e-12)


RULES = {
    "momentum": {"optimizer": "SGD", "options": {"momentum": 0.9}},
    "Nesterov": {"optimizer": "SGD", "options": {"momentum": 0.9, "nesterov": True}},
    "weight decay": {"optimizer": "SGD", "options": {"weight_decay": 0.1}},
    "Adam": {"optimizer": "Adam"},
    "RMSprop": {"optimizer": "RMSprop"},
    "none": {"optimizer": "none"},
    "cosine": {"schedule": "CosineAnnealingLR"},
}
WHATEVER = {  # what does not depend on the rule, or is of more than plain steps and says so
    *("at", "at_lr_limit", "config", "eigenvalues", "eps", "first_lr", "gradients", "has_mean"),
    *("levels", "ls", "mean_square_batch_norm", "momentum", "of", "plain", "problem", "start"),
    *("sum_at_start", "sum_rounding"),
}
MOMENTUM = {"edge", "log_growth", "mean_loss"}  # known of heavy balls too
SCHEDULES = {  # of plain steps whatever their size
    *("mean_square_lr_limit", "lr_limit", "lr_best_asymptotic", "lr_best_for_epsilon"),
    *("lr_limit_to_reach", "almost_sure_lr_limit", "excess", "averaged_excess_law"),
    *("at_lr_limit", "tracking_path", "first_overflow"),
}
FURTHER = {"momentum": MOMENTUM, "Nesterov": {"edge"}, "cosine": SCHEDULES}
NOTHING = {"stop_epoch", "growth_per_epoch", "stop_under"}  # None where theory has nothing
GIVEN = {  # arguments
    "losses": ("full_loss",),
    "loss": ("full_loss", 1),
    "mean_loss": ("full_loss",),
    "stop_under": ("full", 0.1),
    "usable_lr": (0.1, 0.01, 0.1),
    "critical_lr": (0.01, 0.1),
    "lr_limit_to_reach": (0.1,),
    "stationary_excess_at": (np.array([0.5]),),
    "steps_to_excess": (0.1,),
    "lucky_batches": (np.zeros((1, 3)), 0.1, np.array([True])),
    "tracking_path": (None,),
    **dict.fromkeys(("rho_along", "own_order", "running_over_full", "gap", "lyapunov"), (1,)),
}


def asked(known, name, given):
    """A public number of a name, with arguments where it takes some."""
    value = getattr(known, name)
    value = value(*given) if callable(value) else value
    pytest.fail(f"{name} is not refused: {value}")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("order", ["sequential", "shuffle"])
def test_numbers_of_plain_steps_are_refused_of_other_rules(rule, order):
    """Every public name: refused in one line, or one of those that know of the rule."""
    given = {"lr": 1e-3, "batch_size": 10, "epochs": 4, "order": order, "seeds": 2, "average": 0.0}
    given |= {"stop": ("full", 0.1)}
    known = ss.expect(ss.Arm(small_curve(noise=0.3), **given, **RULES[rule]))
    names = {name for name in dir(known) if not name.startswith("_")} - {"lucky_batches"}
    for name in sorted(names - WHATEVER - FURTHER.get(rule, set())):
        given = GIVEN.get(name, ())
        if name in NOTHING:
            value = getattr(known, name)
            assert value is None or value(*given) is None or rule == "momentum", name
            continue
        with pytest.raises(ss.InputError) as error:
            asked(known, name, given)
        assert one_line(error)
