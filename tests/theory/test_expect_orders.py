"""What theory expects of seeds whose orders are known, against their runs."""

import mpmath
import numpy as np
import pytest

import sgdstudy as ss


def arm(**changes):
    return ss.Arm("curve", lr=2e-4, batch_size=100, epochs=6, seeds=range(4)).but(**changes)


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("order", ["shuffle", "strided"])
def test_running_over_full_loss_is_that_of_the_runs(order, noise):
    exact = arm(problem=ss.problems.curve(noise=noise), order=order, dtype="float64")
    for epoch in (1, 6):
        for one in (exact, exact.but(dtype="float32")):
            rows = ss.train(one.problem, config=one.config).epochs.query("epoch == @epoch")
            seen = (rows["running_loss"] / rows["full_loss"]).mean()
            known = ss.expect(one).running_over_full(epoch)
            assert seen == pytest.approx(known.value, abs=known.within)
            assert known.within < (1e-9 if one is exact else 1e-3)


def test_it_is_a_mean_over_the_seeds_that_are_asked_for():
    every = [ss.expect(arm()).of([seed]).running_over_full(3).value for seed in range(4)]
    assert len(set(every)) == 4
    assert ss.expect(arm()).running_over_full(3).value == pytest.approx(np.mean(every), rel=1e-12)
    some = ss.expect(arm()).of([2, 3]).running_over_full(3).value
    assert some == pytest.approx(np.mean(every[2:]), rel=1e-12)


def test_nothing_is_said_of_seeds_that_diverge():
    assert ss.expect(arm(lr=0.2)).running_over_full(6) is None


def in_many_digits(problem, lr, size):
    """The loss of all the data after one epoch from left to right, with 60 digits."""
    with mpmath.workdps(60):
        x = [mpmath.mpf(float(v)) for v in problem.x]
        y = [mpmath.mpf(float(v)) for v in problem.y]
        w = [mpmath.mpf(0)] * 3

        def residual(i):
            return w[0] * x[i] ** 2 + w[1] * x[i] + w[2] - y[i]

        for first in range(0, len(x), size):
            rows = range(first, first + size)
            off = [2 * residual(i) / size for i in rows]
            for k, power in enumerate((2, 1, 0)):
                w[k] -= mpmath.mpf(lr) * mpmath.fsum(
                    r * x[i] ** power for r, i in zip(off, rows, strict=True)
                )
        return mpmath.fsum(residual(i) ** 2 for i in range(len(x))) / len(x)


@pytest.mark.parametrize("lr", [1e-6, 1e-4, 2e-4, 5e-4, 1e-3])
def test_a_loss_is_as_near_as_theory_says_whatever_the_order_multiplies(lr):
    given = {"batch_size": 10, "order": "sequential", "epochs": 1, "dtype": "float64"}
    arm = ss.Arm("curve", optimizer="notebook", lr=lr, **given)
    known = ss.expect(arm).loss("full_loss", 1)
    exact = in_many_digits(arm.problem, lr, 10)
    assert abs(known.value - exact) <= known.within
    assert known.within < known.value / 100


def parts(run, epoch):
    """What drift and sampling are in an epoch of the first seed, from its rows."""
    rows, last = run.load(epochs=slice(epoch, epoch + 1)), run.at("full_loss", epoch)
    share = rows["size"] / rows["size"].sum()
    drift = (share * (rows["full_loss"] - last)).sum()
    return {"drift": drift, "sampling": (share * (rows["loss"] - rows["full_loss"])).sum()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "order", "epochs"), [(10, "sequential", (1, 60, 110)), (3, "shuffle", (2, 11, 100))]
)
def test_drift_and_sampling_are_as_near_as_theory_says_to_the_end(size, order, epochs):
    one = arm(batch_size=size, order=order, epochs=epochs[-1], dtype="float64", seeds=1)
    run = ss.train(one.problem, config=one.config, progress=False)
    for epoch in epochs:
        seen = parts(run, epoch)
        for name, known in ss.expect(one).gap(epoch).items():
            assert abs(seen[name] - known.value) < known.within, (epoch, name)
            assert known.within < 1e-4 * abs(known.value)


@pytest.mark.parametrize("seed", range(12))
def test_parts_of_nothing_are_as_near_as_theory_says(seed):
    """Small problems: a part may be all rounding, or the difference of losses far above it."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 5))
    x, start = 10 * rng.normal(size=(d, 1)), rng.normal(size=1)
    y = x[:, 0] * rng.normal() + 0.1 * rng.normal(size=d)
    problem = ss.Problem(x, y, model=lambda w, x: x @ w, w_init=start)
    lr = float(rng.choice([1e-3, 0.5])) * float(ss.expect(ss.Arm(problem)).lr_limit)
    size = int(rng.choice([1, d]))
    one = ss.Arm(problem, lr=lr, batch_size=size, epochs=2, order="flip_flop", dtype="float64")
    run = ss.train(one.problem, config=one.config, progress=False)
    for epoch in (1, 2):
        for name, known in ss.expect(one).gap(epoch).items():
            assert abs(parts(run, epoch)[name] - known.value) <= known.within, (epoch, name)


def test_the_excess_of_a_float32_run_is_known_where_its_order_multiplies_rounding():
    noisy = arm(problem=ss.problems.curve(noise=1.0), lr=5e-4, order="strided", batch_size=10)
    one = noisy.but(epochs=20, seeds=2)
    run, known = ss.train(one.problem, config=one.config), ss.expect(one).excess_at_end
    assert abs(run.excess_at_end - known.value) < known.within < known.value / 2


@pytest.mark.parametrize("epochs", [2, 3, 5, 8, 13])
def test_the_contraction_of_a_short_run_is_rounded_as_its_losses_are(epochs):
    limit = float(ss.expect(arm()).lr_limit)
    one = ss.Arm("curve", lr=0.998 * limit, epochs=epochs, dtype="float64")
    run, known = ss.train(one.problem, config=one.config), ss.expect(one).contraction(1000)
    assert abs(run.contraction(1000) - known.value) < known.within < 1e-12
