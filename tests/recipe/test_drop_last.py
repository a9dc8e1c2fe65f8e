"""Epochs without their last, smaller batch: as `DataLoader(drop_last=True)` has them."""

import numpy as np
import pytest
import torch
from conftest import one_line, small_curve
from torch.utils.data import DataLoader

import sgdstudy as ss
from sgdstudy.recipe import draw_cache, orders
from sgdstudy.recipe.orders import Sampler
from sgdstudy.theory import predictions
from sgdstudy.tracking import describe

CURVE = small_curve(noise=0.1)  # 53 samples
FEW = {"batch_size": 10, "drop_last": True, "lr": 0.05, "epochs": 4}
NAMED = [name for name in orders.ORDERS if name not in ("stream", "grab", "with_replacement")]


def backwards(generator, d):
    return torch.randperm(d, generator=generator).flip(0)


def loader(seed, shuffle):
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(torch.arange(53), 10, shuffle=shuffle, drop_last=True, generator=generator)


@pytest.mark.parametrize(("order", "shuffle"), [("shuffle", True), ("sequential", False)])
def test_the_samples_are_those_of_dataloader(order, shuffle):
    batches = loader(4, shuffle)
    expected = torch.cat([torch.cat(list(batches)) for _ in range(3)])
    sampler = Sampler.of(CURVE, ss.TrainConfig(order=order, **FEW), [4])
    assert torch.equal(sampler.take(150)[0], expected)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("order", [*NAMED, backwards])
def test_every_epoch_is_the_beginning_of_one_with_all_samples(order, shared):
    whole = Sampler(order, [4, 9], 53, 10).take(53 * 6).reshape(2, 6, 53)
    with draw_cache.shared() if shared else torch.no_grad():
        for _ in range(2):
            cut = Sampler.of(CURVE, ss.TrainConfig(order=order, **FEW), [4, 9])
            parts = [cut.take(n) for n in (7, 50, 150, 93)]  # not at the ends of epochs
            assert torch.equal(torch.cat(parts, 1).reshape(2, 6, 50), whole[:, :, :50])


def test_independent_draws_and_arrays_leave_nothing_out():
    drawn = Sampler("with_replacement", [4], 53, 10).take(150)
    config = ss.TrainConfig(order="with_replacement", **FEW)
    assert torch.equal(Sampler.of(CURVE, config, [4]).take(150), drawn)
    array = np.arange(4 * 3 * 10).reshape(4, 3, 10) % 53
    config = ss.TrainConfig(order=array, **FEW)
    assert config.batch_sizes(53) == [10] * 3
    assert Sampler.of(CURVE, config, [4]).take(120)[0].tolist() == array.ravel().tolist()


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_training_is_the_loop_with_a_dataloader(engine):
    history = ss.train(CURVE, optimizer="notebook", seeds=[4, 7], engine=engine, **FEW)
    for r, seed in enumerate((4, 7)):
        w, batches = torch.zeros(3, requires_grad=True), loader(seed, shuffle=True)
        for _ in range(4):
            for rows in batches:
                ((CURVE.model(w, CURVE.x[rows]) - CURVE.y[rows]) ** 2).mean().backward()
                w.data.sub_(0.05 * w.grad)
                w.grad.zero_()
        assert np.array_equal(history.w[r], w.detach().numpy())
    assert set(history.steps["size"]) == {10}
    assert history.steps.groupby("seed").size().tolist() == [20, 20]
    mean = history.steps.groupby(["seed", "epoch"])["loss"].mean().to_numpy()
    assert np.allclose(history.epochs["running_loss"], mean, rtol=1e-6)


def test_grab_orders_the_samples_that_it_kept():
    history = ss.train(CURVE, optimizer="notebook", order="grab", seeds=[4], **FEW)
    order = torch.randperm(53, generator=torch.Generator().manual_seed(4))[:50].reshape(5, 10)
    still = ss.train(CURVE, optimizer="none", order="grab", seeds=[4], **FEW)
    loss = np.array([float(((CURVE.y[rows]) ** 2).mean()) for rows in order])  # at w = 0
    assert np.allclose(still.steps["loss"][:5], loss, rtol=1e-6)
    for epoch in (2, 3, 4):  # the same batches in another order
        rows = still.steps[still.steps.epoch == epoch]
        assert np.allclose(sorted(rows["loss"]), sorted(loss), rtol=1e-6)
    assert set(history.steps["size"]) == {10}


def test_the_last_batch_of_independent_draws_adds_the_noise_it_is_said_to():
    """d = 354, B = 10: the mean of 1/n_b is 4.2 % above 1/B; without the last one it is 1/B."""
    problem = small_curve(d=354, noise=0.5)
    config = ss.TrainConfig(order="with_replacement", batch_size=10)
    assert 10 * np.mean(1 / np.array(config.batch_sizes(354))) == pytest.approx(1.0417, abs=5e-5)
    given = {"order": "with_replacement", "batch_size": 10, "epochs": 40, "seeds": range(64)}
    x, y = (values.double().numpy() for values in (problem.x, problem.y))
    each = (
        -2 * y[:, None] * np.stack([x**2, x, np.ones(354)], 1)
    )  # gradients of single samples, at 0
    g, trace = each.mean(0), each.var(0).sum()
    for drop_last in (False, True):
        run = ss.train(problem, optimizer="none", drop_last=drop_last, **given)
        square = run.steps["grad_norm"].astype(float) ** 2
        mean = np.mean(1 / np.array(run.config.batch_sizes(354)))
        error = 4 * square.std() / len(square) ** 0.5
        assert abs(square.mean() - (g @ g + trace * mean)) < error
        assert run.config.drops(354) == drop_last


def test_theory_follows_the_orders_that_it_knows_and_refuses_the_others():
    order = {"order": "sequential", "optimizer": "SGD", "dtype": "float64", **FEW}
    arm = ss.Arm(CURVE, stop=("full", 1e-9), **order)
    x = CURVE.x.double().numpy()
    phi, m = np.stack([x**2, x, np.ones(53)], 1), np.eye(3)
    for b in range(5):
        rows = phi[10 * b : 10 * b + 10]
        m = (np.eye(3) - 0.05 * 2 / 10 * rows.T @ rows) @ m
    rho = np.abs(np.linalg.eigvals(m)).max()
    assert predictions.predict(CURVE, arm.config)["rho"] == pytest.approx(rho, rel=1e-10)
    with pytest.raises(ss.InputError, match="drop_last leaves some out") as error:
        ss.expect(arm)
    assert one_line(error)
    random = ss.TrainConfig(optimizer="SGD", **FEW)
    assert predictions.expected_losses(CURVE, random) == {}
    whole = ss.TrainConfig(optimizer="SGD", batch_size=53, drop_last=True, lr=0.05, epochs=4)
    assert predictions.expected_losses(CURVE, whole) != {}


def test_it_is_a_param_only_where_it_is_asked_for():
    config = ss.TrainConfig(batch_size=10)
    assert "drop_last" not in describe.parameters(CURVE, config)
    assert describe.parameters(CURVE, ss.TrainConfig(**FEW))["drop_last"] == "True"
    with pytest.raises(ss.InputError, match="drop_last is True or False"):
        ss.TrainConfig(drop_last=1)
