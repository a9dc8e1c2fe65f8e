"""Which batches a run took, told from its losses and gradients alone."""

import numpy as np
import pytest

import sgdstudy as ss


def trained(dtype="float64", **settings):
    """A run that moves, and the batches of its first seed as its order has them."""
    arm = ss.Arm("curve", lr=1e-4, batch_size=300, epochs=2, dtype=dtype, **settings)
    listed = ss.orders.listing(arm.problem, arm.config).groupby(["epoch", "batch"])["index"]
    return ss.train(arm.problem, config=arm.config), listed.apply(np.array).to_list()


@pytest.mark.parametrize(("dtype", "eps"), [("float64", 2.0**-52), ("float32", 2.0**-23)])
@pytest.mark.parametrize("order", ["shuffle", "sequential", "with_replacement"])
def test_the_batches_that_were_taken_are_off_by_rounding(dtype, eps, order):
    run, batches = trained(dtype, order=order, seeds=[3, 4])
    assert len(batches[6]) == 200  # a short last one
    # some ten operations a term: prediction, difference, square, products with the features
    assert run.batches_off(batches) < ss.theory.sum_rounding(300, operations=10, eps=eps)


@pytest.mark.parametrize("loss", ["abs", "mse"])
def test_other_batches_are_off_by_what_they_differ_in(loss):
    problem = ss.problems.curve(loss=loss).replace(w_init=[0.1, -1.0, 1.0])
    still = {"optimizer": "none", "lr": 1e-4, "epochs": 1, "dtype": "float64"}
    run = ss.train(problem, batch_size=1000, order="sequential", **still)
    halves = [np.arange(1000), np.arange(1000, 2000)]
    assert run.batches_off(halves) < 1e-12
    x, y = (v.double().numpy() for v in (problem.x, problem.y))
    w = problem.initial([0])[0].double().numpy()
    error = w[0] * x * x + w[1] * x + w[2] - y
    slope = 2 * error if loss == "mse" else np.sign(error)
    value = error**2 if loss == "mse" else np.abs(error)
    each = slope[:, None] * np.stack([x * x, x, np.ones_like(x)], 1)
    off = 0.0
    for mine, other in zip(halves, halves[::-1], strict=True):
        loss_off = abs(value[mine].mean() / value[other].mean() - 1)
        norms = [np.linalg.norm(each[half].mean(0)) for half in (mine, other)]
        size = np.linalg.norm(np.abs(each[other]).mean(0))
        off = max(off, loss_off, abs(norms[0] - norms[1]) / size)
    assert run.batches_off(halves[::-1]) == pytest.approx(off, rel=1e-9)


def test_one_sample_in_another_batch_is_seen():
    run, batches = trained("float32")
    batches[0][0], batches[1][0] = batches[1][0], batches[0][0]
    assert run.batches_off(batches) > 100 * ss.theory.sum_rounding(300, operations=10)


def test_another_number_of_steps_is_infinitely_off():
    run, batches = trained()
    assert run.batches_off(batches[1:]) == run.batches_off([]) == np.inf


def test_where_nothing_is_left_to_learn_nothing_is_off():
    problem = ss.Problem(np.ones(4), np.zeros(4), lambda w, x: w[0] * x, w_init=[0.0])
    run = ss.train(problem, batch_size=2, lr=0.1, epochs=1)
    assert run.batches_off([np.arange(2), np.arange(2)]) == 0


def test_where_the_gradients_cancel_what_is_left_of_them_is_no_scale():
    """At the minimum the mean of all gradients is rounding alone, of terms that are not small."""
    given = ss.problems.curve(noise=0.5)
    problem = given.replace(w_init=np.polyfit(given.x.numpy(), given.y.numpy(), 2))
    still = {"optimizer": "none", "lr": 1e-4, "epochs": 1, "dtype": "float64"}
    run = ss.train(problem, batch_size=None, **still)
    assert run.batches_off([np.arange(2000)]) < ss.theory.sum_rounding(
        2000, operations=10, eps=2.0**-52
    )


def test_a_run_that_diverged_is_off_by_no_number():
    run = ss.train("curve", lr=1e30, batch_size=1000, epochs=5)
    batches = [np.arange(1000)] * int(run.n_steps[0])
    assert not run.batches_off(batches) < np.inf
