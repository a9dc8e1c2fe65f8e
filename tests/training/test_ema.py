"""The moving average of the parameters against torch's own, `AveragedModel`."""

import numpy as np
import pytest
import torch
from conftest import one_line, small_curve
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import sgdstudy as ss
from sgdstudy.tracking import describe

X = torch.linspace(-1, 1, 53)[:, None]
CLASSES = (X[:, 0] > 0.3).long()
SAME = {"optimizer": "SGD", "lr": 0.5, "batch_size": 10, "epochs": 5}


def net():
    torch.manual_seed(2)
    return torch.nn.Sequential(torch.nn.Linear(1, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_the_columns_are_those_of_torchs_averaged_model(engine):
    test = (X[::2] * 0.9, CLASSES[::2])
    problem = ss.Problem(X, CLASSES, net(), "cross_entropy", test=test)
    rows = ss.train(problem, ema=0.8, engine=engine, **SAME).epochs
    model = net()
    moving = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    order = ss.orders.Sampler("shuffle", [0], 53, 10).take(53 * 5)[0].reshape(5, 53)
    loss = torch.nn.functional.cross_entropy
    for epoch, samples in enumerate(order):
        for at in samples.split(10):
            model.zero_grad()
            loss(model(X[at]), CLASSES[at]).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.5 * p.grad
            moving.update_parameters(model)
        with torch.no_grad():
            row, logits = rows.iloc[epoch], moving(test[0])
            assert row.ema_loss == pytest.approx(float(loss(moving(X), CLASSES)), rel=1e-4)
            assert row.ema_test_loss == pytest.approx(float(loss(logits, test[1])), rel=1e-4)
            share = float((logits.argmax(1) == test[1]).float().mean())
            assert abs(row.ema_test_accuracy - share) <= 1 / len(test[1]) + 1e-6


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_chunks_neighbours_and_stops_change_nothing(engine, monkeypatch):
    curve = small_curve(noise=0.1)
    given = {"lr": 0.1, "batch_size": 10, "epochs": 30, "optimizer": "notebook", "ema": 0.9}
    given |= {"engine": engine, "stop": ("last_batch", 1e-2)}
    whole = ss.train(curve, seeds=range(9), **given)
    assert len(set(whole.stop_epoch)) > 1
    without = ss.train(curve, seeds=range(9), **{**given, "ema": None})
    assert np.array_equal(whole.w, without.w)
    monkeypatch.setattr("sgdstudy.training.run.FIRST_STEPS", 4)
    cut = ss.train(curve, seeds=range(9), **given).epochs
    alone = ss.train(curve, seeds=[5], **given).epochs
    for name in ("ema_loss", "ema_distance"):
        assert np.array_equal(whole.epochs[name], cut[name])
        assert np.array_equal(whole.epochs[whole.epochs.seed == 5][name], alone[name])


def test_a_constant_gradient_has_a_moving_average_in_closed_form():
    """w_k = -lr k for the loss w: e_k = -lr (k - beta / (1 - beta) (1 - beta^(k - 1)))."""
    ones = torch.ones(4, dtype=torch.float64)
    line = ss.Problem(
        ones, ones, lambda w, x: w[0] * x, loss=lambda f, y: f, w_init=[0.0], w_true=[0.0]
    )
    run = ss.train(line, optimizer="SGD", lr=0.25, epochs=7, ema=0.75)
    k = np.arange(1, 8)
    expected = 0.25 * (k - 3 * (1 - 0.75 ** (k - 1)))
    assert np.allclose(run.epochs["ema_distance"], expected, rtol=1e-14)
    assert np.allclose(run.epochs["ema_loss"], -expected, rtol=1e-14)
    assert describe.parameters(line, run.config)["ema"] == "0.75"
    assert describe.results(run)["ema_loss"] == pytest.approx(-expected[-1])


def test_a_decay_lies_between_0_and_1():
    for bad in (0, 1, -0.5, "much"):
        with pytest.raises(ss.InputError, match="ema") as error:
            ss.TrainConfig(ema=bad)
        assert one_line(error)
