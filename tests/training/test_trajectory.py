"""Trajectories computed elsewhere are recorded as our own."""

import numpy as np
import pandas as pd
import pytest
from conftest import one_line, recorded, small_curve

import sgdstudy as ss
from sgdstudy.recipe.orders import Sampler

LR, B, EPOCHS = 0.05, 10, 6


def ours(problem, seeds=3, **settings):
    """One of our runs, and its parameters `(S+1, R, p)`."""
    run = ss.train(problem, optimizer="SGD", lr=LR, seeds=range(seeds), **settings)
    steps = np.stack([recorded(run, seed) for seed in range(seeds)], axis=1)
    return run, np.concatenate([steps, run.w[None]])


def test_our_own_arrays_give_our_own_rows_to_the_last_bit():
    problem = small_curve(d=50, noise=0.1)
    run, w = ours(problem, batch_size=B, epochs=EPOCHS)
    indices = Sampler("shuffle", [0, 1, 2], 50, B).take(50 * EPOCHS).numpy()
    indices = indices.reshape(3, -1, B).swapaxes(0, 1)
    again = ss.History.from_arrays(problem, w, indices, lr=LR)
    pd.testing.assert_frame_equal(again.steps, run.steps, check_exact=True)
    pd.testing.assert_frame_equal(again.epochs, run.epochs, check_exact=True)
    assert np.array_equal(again.w, run.w)
    assert again.engine == "elsewhere"


def test_full_batches_need_no_indices():
    problem = small_curve()
    run, w = ours(problem, seeds=1, epochs=40, stop=("running", 0.05))
    again = ss.History.from_arrays(problem, w[:, 0], lr=LR, stop=("running", 0.05))
    pd.testing.assert_frame_equal(again.steps, run.steps, check_exact=True)
    assert again.stop_epoch == run.stop_epoch


def test_replicas_that_stop_leave_the_others_their_own_steps(monkeypatch):
    problem, rule = small_curve(d=50, noise=0.1), {"batch_size": B, "epochs": 30}
    free, w = ours(problem, seeds=8, **rule)
    losses = free.array("epochs", "last_loss")[4:20]
    stop = ("last_batch", float(np.quantile(losses, 0.1)))
    monkeypatch.setattr(ss.Trajectory, "chunk_steps", 10)  # two epochs, then seeds may leave
    run = ss.train(problem, optimizer="SGD", lr=LR, seeds=range(8), stop=stop, **rule)
    late = np.argsort(run.stop_epoch)[4:]
    assert set(late) != set(range(4))  # those that go on are not the first ones
    assert len(set(run.stop_epoch)) > 2
    indices = Sampler("shuffle", list(range(8)), 50, B).take(50 * 30).numpy()
    indices = indices.reshape(8, -1, B).swapaxes(0, 1)
    again = ss.History.from_arrays(problem, w, indices, lr=LR, stop=stop)
    pd.testing.assert_frame_equal(again.steps, run.steps, check_exact=True)
    pd.testing.assert_frame_equal(again.epochs, run.epochs, check_exact=True)
    assert np.array_equal(again.stop_epoch, run.stop_epoch)
    assert np.array_equal(again.w, run.w)


@pytest.mark.parametrize("given", ["losses", "gradients"])
def test_what_elsewhere_did_not_record_is_computed(given):
    problem = small_curve(d=50, noise=0.1)
    run, w = ours(problem, seeds=1, batch_size=B, epochs=2)
    indices = Sampler("shuffle", [0], 50, B).take(100).numpy().reshape(-1, B)
    known = {"losses": np.arange(10.0)} if given == "losses" else {"gradients": np.ones((10, 3))}
    again = ss.History.from_arrays(problem, w[:, 0], indices, lr=LR, **known).steps
    losses, norms = again["loss"].tolist(), again["grad_norm"].tolist()
    expected = run.steps["loss"].tolist(), run.steps["grad_norm"].tolist()
    if given == "losses":
        assert (losses, norms) == (list(range(10)), expected[1])
    else:
        assert losses == expected[0]
        assert np.allclose(norms, np.sqrt(3))


def test_less_than_a_pass_over_the_data_is_one_epoch():
    again = ss.History.from_arrays(
        small_curve(d=50), np.zeros((4, 3)), np.arange(30).reshape(3, 10), lr=LR
    )
    assert again.steps["epoch"].tolist() == [1, 1, 1]
    assert again.config.epochs == 1


def test_what_elsewhere_recorded_is_kept():
    losses, gradients = np.arange(5.0), np.ones((5, 3))
    indices = np.arange(50).reshape(5, 10)
    again = ss.History.from_arrays(
        small_curve(d=50), np.zeros((6, 3)), indices, lr=LR, losses=losses, gradients=gradients
    )
    assert again.steps["loss"].tolist() == losses.tolist()
    assert np.allclose(again.steps["grad_norm"], np.sqrt(3))
    assert again.steps["epoch"].tolist() == [1] * 5


def test_the_order_of_the_settings_is_that_of_each_seed():
    problem = small_curve(d=50, noise=0.1)
    indices = Sampler("shuffle", [4, 7], 50, B).take(50 * EPOCHS).numpy()
    indices = indices.reshape(2, -1, B).swapaxes(0, 1)  # (S, R, B)
    known = ss.Trajectory(problem, np.zeros((len(indices) + 1, 2, 3)), indices)
    config = known.config(LR, seeds=[4, 7])
    assert (config.epochs, config.batch_size) == (EPOCHS, B)
    assert np.array_equal(config.order, indices.swapaxes(0, 1).reshape(2, EPOCHS, 5, B))
    for seed in (4, 7):
        own = ss.TrainConfig(lr=LR, batch_size=B, epochs=EPOCHS, seeds=[seed])
        for epoch in (1, EPOCHS):  # theory follows the very batches
            both = (ss.theory.batches(problem, c, epoch) for c in (config.of_seeds([seed]), own))
            here, there = both
            assert np.array_equal(here.gradients, there.gradients)


def test_one_order_of_all_replicas_is_given_once():
    indices = np.arange(50).reshape(5, 10)
    known = ss.Trajectory(small_curve(d=50), np.zeros((6, 2, 3)), indices)
    assert known.config(LR).order.shape == (1, 5, 10)


@pytest.mark.slow
def test_an_arm_may_be_a_trajectory_and_is_tracked(store):
    problem = small_curve(d=50)
    run, w = ours(problem, seeds=2, batch_size=B, epochs=EPOCHS, order="sequential")
    indices = np.tile(np.arange(50).reshape(-1, B), (EPOCHS, 1))
    known = ss.Trajectory(problem, w, indices)
    study = ss.Study(
        "elsewhere.py",
        "Is a trajectory an arm?",
        ss.Options,
        lambda o: {"known": ss.Arm(problem, "as computed elsewhere", trajectory=known, lr=LR)},
        lambda o, runs: ss.predicted_claims(runs),
        lambda o, runs, claims: "It is.",
    )
    study.run(ss.Options(store=store))
    steps = ss.load_steps("elsewhere", store=store)
    assert np.array_equal(steps["loss"], run.steps["loss"])
    assert ss.load_runs("elsewhere", store=store)["order"].tolist() == ["array"]


@pytest.mark.parametrize(
    ("w", "indices", "settings", "says"),
    [
        (np.zeros((6, 2)), None, {}, "expected (steps + 1, replicas, 3)"),
        (np.zeros((1, 3)), None, {}, "expected (steps + 1, replicas, 3)"),
        ("abc", None, {}, "not an array of numbers"),
        (np.zeros((6, 3)), np.zeros((4, 10), int), {}, "(5, B)"),
        (np.zeros((6, 2, 3)), np.zeros((5, 3, 10), int), {}, "(5, 2, 'B')"),
        (np.zeros((6, 3)), np.zeros((5, 10)), {}, "expected integers"),
        (np.zeros((6, 3)), np.full((5, 10), 50), {}, "samples 0 to 49"),
        (np.zeros((6, 3)), np.zeros((5, 10), int), {"losses": np.zeros(4)}, "expected (5, 1)"),
        (np.zeros((6, 3)), np.zeros((5, 10), int), {"steps_per_epoch": 2}, "whole epochs of 2"),
        (np.zeros((6, 3)), np.zeros((5, 10), int), {"optimizer": "Adamm"}, "did you mean 'Adam'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_line(w, indices, settings, says):
    with pytest.raises(ss.InputError) as error:
        ss.History.from_arrays(small_curve(d=50), w, indices, lr=LR, **settings)
    assert says in str(error.value)
    assert one_line(error)
