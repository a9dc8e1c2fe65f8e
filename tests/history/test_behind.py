"""How far runs are behind parameters that move: by hand, and as theory expects on average."""

import numpy as np
import pytest
from conftest import small_curve

import sgdstudy as ss
from sgdstudy.history.drift import Behind

LAW = ss.theory.uniform_law(ss.problems.parabola, 3, 0.3)
V = np.array([1e-2, 0.0, -1e-2])


def drifting(**changes):
    settings = {"lr": 0.1, "batch_size": 1, "order": "stream", "epochs": 3, "seeds": range(300)}
    return ss.train(ss.problems.drifting_parabola(V), **settings | changes)


def test_the_excess_is_that_of_the_rows():
    run = drifting(seeds=[4, 2], record_rows=200)  # thinned
    seen = run.behind(LAW, first=100)
    assert (seen.step >= 100).all()
    assert len(seen.step) == len(seen.excess) < 200
    rows = run.steps[(run.steps["seed"] == 2) & (run.steps["step"] >= 100)]
    assert seen.step.tolist() == rows["step"].tolist()
    assert np.array_equal(seen.loss[:, 1], rows["loss"])
    for k in (0, -1):
        w = rows[["w0", "w1", "w2"]].to_numpy()[k]
        z = w - (np.array([0.3, -1.7, 2.5]) + seen.step[k] * V)
        x = np.linspace(-1, 1, 100_001)  # the mean square of its parabola, by quadrature
        mean = np.trapezoid((z[0] * x**2 + z[1] * x + z[2]) ** 2, x) / 2
        assert seen.excess[k, 1] == pytest.approx(mean, rel=1e-6)


@pytest.mark.slow
def test_the_mean_of_many_seeds_is_the_expected_one():
    seen = drifting().behind(LAW)
    off = np.abs(seen.excess.mean(1) - seen.expected)[[50, 150, 299]]
    assert (off <= 4 * ss.standard_error(seen.excess)[[50, 150, 299]]).all()
    each = drifting().behind(LAW, first=10).over_expected  # before, nobody is behind
    assert each.mean() == pytest.approx(1, abs=4 * ss.standard_error(each))


def test_the_mean_over_the_logarithm_of_the_time_is_the_integral():
    step = np.arange(10, 100_000)
    grows = (step + 1.0)[:, None]
    found = Behind(step, grows, grows, np.ones(len(step))).over_expected[0]
    assert found == pytest.approx((100_000 - 10.5) / np.log(100_000 / 10.5), rel=1e-4)


def test_the_steps_of_a_seed_are_one_sample_of_its_mean():
    """Four seeds, each as far behind at all of its steps."""
    excess = np.tile([1.0, 2.0, 3.0, 6.0], (25, 1))
    seen = Behind(np.arange(25), excess, excess, np.ones(25)).mean_excess
    assert (seen.value, seen.seeds) == (3.0, 4)
    assert seen.error == pytest.approx(excess[0].std(ddof=1) / 2)


def test_parameters_that_are_not_known_have_nothing_behind_them():
    free = ss.train(small_curve(w_true=None, w_init=np.zeros(3)), lr=0.1, epochs=2)
    with pytest.raises(ss.InputError, match="true parameters"):
        free.behind(LAW)
