"""Models and losses that see a sample beside others: all the data is evaluated as one batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sgdstudy as ss
from sgdstudy.training.compiled import steps

D, INPUTS = 50, 6
ENGINES = ["eager"] if steps.compiler_fault() else ["eager", "compiled"]


def contrastive(z, y):
    unit = nn.functional.normalize(z, dim=1)
    own = torch.arange(len(z))
    return nn.functional.cross_entropy(unit @ unit.T / 0.5, own, reduction="none")


def unexplained(f, y):
    """Return the terms of 1 - R^2."""
    return len(y) * ((f - y) ** 2).sum(1) / ((y - y.mean(0)) ** 2).sum()


def squares(f, y):
    return ((f - y) ** 2).mean(1)


class Net(nn.Module):
    def __init__(self, between=lambda z: z):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.between = nn.Linear(INPUTS, 8), nn.Linear(8, 2), between

    def forward(self, x):
        return self.b(torch.tanh(self.between(self.a(x))))


def placed(z):
    return z * torch.linspace(0.5, 1.5, len(z))[:, None]


MIXING = {
    "contrastive": (Net, contrastive),
    "1 - R^2": (Net, unexplained),
    "centred": (lambda: Net(lambda z: z - z.mean(0)), squares),
    "by number": (lambda: Net(lambda z: z / len(z) ** 0.5), squares),
    "by place": (lambda: Net(placed), squares),
}


def problem(module, loss):
    draw = torch.Generator().manual_seed(3)
    x, y = torch.randn(D, INPUTS, generator=draw), torch.randn(D, 2, generator=draw)
    return ss.Problem(x.sort(0).values, y, module(), loss)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", MIXING)
def test_the_loss_of_all_the_data_is_that_of_one_batch(name, engine, monkeypatch):
    monkeypatch.setattr("sgdstudy.problems.evaluation.EVALUATE_AT_ONCE", 7 * INPUTS)
    module, loss = MIXING[name]
    mixes = problem(module, loss)
    history = ss.train(mixes, lr=0.01, batch_size=8, epochs=3, seeds=[1], engine=engine)
    with torch.no_grad():
        expected = loss(history.module(1)(mixes.x), mixes.y).mean().item()
    assert history.epochs["full_loss"].iloc[-1] == pytest.approx(expected, rel=1e-5)
    assert mixes.full_loss(history.w)[0] == pytest.approx(expected, rel=1e-5)
    assert not mixes.adds_up


@pytest.mark.parametrize("loss", [squares, "mse", "abs"])
def test_others_are_evaluated_in_parts(loss):
    assert problem(Net, loss).adds_up


def test_of_what_mixes_no_sample_has_a_gradient_of_its_own():
    history = ss.train(
        problem(*MIXING["centred"]), lr=0.01, batch_size=8, epochs=1, diagnostics=["gsnr"]
    )
    assert history.steps["gsnr"].isna().all()
