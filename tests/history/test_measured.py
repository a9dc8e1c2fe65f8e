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
    """Of 5 samples theory takes 59 epochs of 64 replicas, half as many steps as the run."""
    x = np.linspace(0.5, 2, 5)
    problem = ss.Problem(x, x, lambda w, x: w[0] * x, w_init=[0.0])
    given = {"lr": 0.02, "batch_size": 1, "order": "with_replacement", "seeds": range(400)}
    run = ss.train(problem, epochs=21, progress=False, **given)
    logs = np.log(1 - 0.02 * 2 * x**2)
    steps, others = 400 * 20 * 5, 59 * 64 * 5
    error = logs.std() * np.sqrt(1 / steps + 1 / others)
    assert run.log_rate(1).error == pytest.approx(error, rel=4 / np.sqrt(2 * 399))


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


def noisy(**settings):
    problem = ss.problems.even_parabola(1, 20, 0.5, excess=(1.0, 0.5, 0.5))
    given = {"lr": 0.1, "batch_size": 4, "epochs": 12, "order": "with_replacement"}
    return ss.train(problem, progress=False, **(given | {"seeds": range(9)} | settings))


def test_the_first_step_below_is_that_of_the_loss_itself():
    run = noisy()
    least = run.problem.least_squares.least_loss
    for target in (1e-9, 0.1, 1.0, 9.0):
        due = ss.time_to_target(run, least + target, over="step").to_numpy()
        assert run.first_step_below(target).tolist() == due.tolist()
    assert np.isinf(run.first_step_below(1e-9)).all()


def test_an_excess_over_its_expectation_is_about_one():
    run = noisy(seeds=range(400))
    due = ss.expect(run).excess[1:]
    for first in (0, 6):
        each = (run.excess()[first:] / due[first:, None]).mean(0)
        assert run.over_expected(first) == pytest.approx(each)
        assert abs(each.mean() - 1) < 4 * ss.standard_error(each)


def test_late_losses_and_gradients_go_together_as_moments_say():
    run = noisy(seeds=range(400))
    found = run.late_ratios(4)
    least = run.problem.least_squares
    loss, square = run.array("epochs", "full_loss")[4:], run.array("epochs", "full_grad_norm")[4:]
    lowest = ss.theory.eigenvalues(least)[0]
    bound = (square**2).mean(1) / (2 * lowest * loss.mean(1))  # Polyak (1963)
    assert found["square_of_gradient_over_bound"][0].value == pytest.approx(bound.mean())
    running = run.array("epochs", "running_loss")[4:].mean(1) / loss.mean(1)
    assert found["running_over_full_loss"][0].value == pytest.approx(running.mean())
    assert found["full_loss_over_theory"][1] == 1
    for seen, due in found.values():
        assert abs(seen.value - due) < 4 * seen.error


def test_a_start_is_forgotten_with_a_power_of_the_time():
    """In one direction: (1 + decay t)^(-2 lr lambda / decay) in the end."""
    x = np.ones((4, 1))
    problem = ss.Problem(x, 0 * x[:, 0], lambda w, x: x @ w, w_init=[1.0])  # lambda = 2
    decay = {"schedule": "inverse_time", "schedule_options": {"decay": 0.2}}
    run = ss.train(problem, lr=0.05, batch_size=2, epochs=2000, order="with_replacement", **decay)
    assert run.decay_power().value == pytest.approx(-2 * 0.05 * 2 / 0.2, rel=0.01)
    assert ss.expect(run).decay_power == pytest.approx(run.decay_power().value, rel=1e-5)
    with pytest.raises(ss.InputError, match="inverse_time") as error:
        noisy().decay_power()
    assert one_line(error)


def test_what_of_an_error_is_steep_and_what_is_left_of_it():
    run = noisy(order="sequential", epochs=3, batch_size=5)
    ls, z = run.problem.least_squares, run.from_minimiser("steps")[:, 0]
    for epoch in (1, 3):
        share = run.share_along_steepest(epoch)
        for batch, met in enumerate(z[4 * epoch - 4 : 4 * epoch]):
            phi = ls.features[5 * batch : 5 * batch + 5]
            steepest = np.linalg.eigh(phi.T @ phi)[1][:, -1]
            assert share[batch] == pytest.approx(abs(steepest @ met) / np.linalg.norm(met))
    assert run.last_error == pytest.approx(np.linalg.norm(run.w[0] - ls.w_star))
