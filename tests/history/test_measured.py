"""What a run is asked for beside theory: excess losses, distances, rates, noise scales."""

import numpy as np
import pytest
from conftest import one_line

import sgdstudy as ss
from sgdstudy import theory


@pytest.fixture(scope="module")
def run():
    problem = ss.problems.even_parabola(1, 20, 0.5, excess=(1.0, 0.5, 0.5))
    given = {"lr": 0.1, "batch_size": 4, "epochs": 6, "seeds": [3, 1], "average": 0.5}
    return ss.train(problem, progress=False, **given)


def test_an_excess_is_above_the_least_loss(run):
    ls = run.problem.least_squares
    steps = run.excess("steps")
    assert steps.shape == (30, 2)
    assert steps[0] == pytest.approx(2.0)
    w = run.load("steps", seeds=3)[["w0", "w1", "w2"]].to_numpy()
    assert steps[:, 0] == pytest.approx(ls.loss(w) - ls.least_loss)
    # at the ends of epochs, of the mean of the parameters
    ends = np.vstack([w[1:], run.w[0]])[15:]
    assert run.excess()[-1, 0] == pytest.approx(ls.loss(ends.mean(0)) - ls.least_loss)
    assert run.excess(epochs=slice(2, 4)) == pytest.approx(run.excess()[1:3])


def test_differences_from_the_minimiser_come_by_seed(run):
    z = run.from_minimiser()
    assert z.shape == (6, 2, 3)
    assert z[-1] == pytest.approx(run.w - run.problem.least_squares.w_star)
    assert run.from_minimiser("steps", steps=slice(4, 6)).shape == (2, 2, 3)
    vectors = run.problem.least_squares.modes[1]
    late = (z[2:].reshape(-1, 3) @ vectors).var(0)
    assert run.mode_variance(slice(3, 7)) == pytest.approx(late)


def test_a_seed_that_ended_has_no_distance():
    run = ss.train("curve", lr=1e-4, batch_size=10, epochs=40, seeds=range(4), stop=("full", 1.0))
    assert len(set(run.stop_epoch)) > 1
    z = run.from_minimiser()
    assert (np.isfinite(z[..., 0]).sum(0) == run.stop_epoch).all()


def test_the_rate_of_a_known_contraction():
    """One parameter, all samples alike: every step multiplies the error by 1 - 2 lr."""
    problem = ss.Problem(np.ones(8), np.ones(8), lambda w, x: w[0] * x, w_init=[0.0])
    run = ss.train(problem, lr=0.1, batch_size=2, epochs=5, seeds=range(3), progress=False)
    seen = run.log_rate(1, 4)
    assert seen.value == pytest.approx(np.log(0.8))
    assert seen.error == pytest.approx(0, abs=1e-12)


def test_the_error_of_a_rate_includes_that_of_theory():
    x = np.linspace(0.5, 2, 50)
    problem = ss.Problem(x, x, lambda w, x: w[0] * x, w_init=[0.0])
    given = {"lr": 0.02, "batch_size": 1, "order": "with_replacement", "seeds": range(100)}
    run = ss.train(problem, epochs=3, progress=False, **given)
    logs = np.log(1 - 0.02 * 2 * x**2)
    steps, others = 100 * 100, 59 * 64 * 50
    error = logs.std() * np.sqrt(1 / steps + 1 / others)
    assert run.log_rate(1).error == pytest.approx(error, rel=4 / np.sqrt(2 * 99))


def test_a_noise_scale_is_a_ratio_of_means(run):
    ls = run.problem.least_squares
    w = ls.w_star + run.from_minimiser("steps", steps=slice(3, 9))
    weights = np.arange(1.0, 7)
    noise, square = np.zeros(2), np.zeros(2)
    for step, weight in enumerate(weights):
        for seed in range(2):
            g = theory.gradients(ls, w[step, seed], 20)
            noise[seed] += weight * theory.trace_sigma(ls, w[step, seed], 20)
            square[seed] += weight * np.sum(g.mean(0) ** 2)
    seen = run.noise_scale(slice(3, 9), weights)
    assert seen.value == pytest.approx(noise.sum() / square.sum())
    each = (noise - seen.value * square) / square.mean()
    assert seen.error == pytest.approx(ss.standard_error(each))


def test_the_start_has_the_excess_asked_for():
    problem = ss.problems.even_parabola(2, 30, 1.0, excess=(0.5, 0.25, 0.0))
    ls = problem.least_squares
    start = problem.initial([0])[0].numpy()
    assert ls.loss(start) - ls.least_loss == pytest.approx(0.75)
    values, vectors = np.linalg.eigh(ls.hessian)
    along = (start - ls.w_star) @ vectors
    assert values * along**2 / 2 == pytest.approx([0.5, 0.25, 0.0], abs=1e-12)
    assert problem.w_true == pytest.approx(ls.w_star)
    assert problem.replace(w_init=np.zeros(3)).digest == (
        ss.problems.even_parabola(2, 30, 1.0).replace(w_init=np.zeros(3)).digest
    )


@pytest.mark.parametrize(
    "wrong", [{"width": 0.0}, {"d": 2}, {"noise": -1.0}, {"excess": (1, 2)}, {"excess": (-1, 0, 0)}]
)
def test_a_parabola_that_cannot_be_is_refused(wrong):
    with pytest.raises(ss.InputError) as error:
        ss.problems.even_parabola(**wrong)
    assert one_line(error)
