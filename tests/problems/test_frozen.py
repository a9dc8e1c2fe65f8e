"""Parameters that a module has frozen are not trained."""

import numpy as np
import pytest
import torch
from conftest import flat, literal, one_line, small_curve
from torch import nn

import sgdstudy as ss

CURVE = small_curve(noise=0.1)
X, Y = CURVE.x[:, None], CURVE.y[:, None]
FEW = {"lr": 0.05, "batch_size": 10, "epochs": 3}


def net(*frozen):
    """A small network, some of its layers frozen."""
    torch.manual_seed(3)
    made = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    for k in frozen:
        made[k].requires_grad_(False)
    return made


@pytest.mark.parametrize("frozen", [(0,), (2,), (4,), (0, 4)])
@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_only_the_others_move_as_in_torch(frozen, engine):
    module = net(*frozen)
    problem = ss.Problem(X, Y, module)
    moving = [v for v in module.parameters() if v.requires_grad]
    assert problem.p == sum(v.numel() for v in moving) < 44
    assert problem.shapes == [v.shape for v in moving]
    before = {name: value.clone() for name, value in module.named_parameters()}
    history = ss.train(problem, optimizer="SGD", engine=engine, **FEW)
    assert all(torch.equal(v, before[name]) for name, v in module.named_parameters())
    loop = literal(module, moving, X, Y, **FEW)
    assert np.allclose(history.w[0], loop.w, rtol=1e-4, atol=1e-5)  # float32, 18 steps
    assert not np.allclose(history.w[0], flat(before.values())[: problem.p], atol=1e-2)


def test_in_another_dtype_the_same_ones_are_frozen_though_the_module_changes_later():
    module = net(0)
    problem = ss.Problem(X, Y, module)
    first = ss.train(problem, dtype="float64", **FEW)
    with torch.no_grad():
        module[0].weight += 1
    module.requires_grad_(True)
    assert problem.to(torch.float64, "cpu").shapes == problem.shapes
    assert ss.train(problem, **FEW).w.shape == first.w.shape


def test_a_module_without_a_parameter_to_train_is_refused():
    with pytest.raises(ss.InputError, match="all of its are frozen") as error:
        ss.Problem(X, Y, net(0, 2, 4))
    assert one_line(error)


def test_tied_parameters_stay_tied():
    class Tied(nn.Module):
        def __init__(self, freeze):
            super().__init__()
            torch.manual_seed(1)
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight
            self.a.weight.requires_grad_(not freeze)

        def forward(self, x):
            return self.b(torch.tanh(self.a(x)))

    x = torch.cat([X, X**2, X**3, X**4], 1)
    for freeze, p in ((False, 24), (True, 8)):
        module = Tied(freeze)
        problem = ss.Problem(x, x.flip(1), module)
        assert problem.p == p
        history = ss.train(problem, optimizer="SGD", engine="eager", **FEW)
        moving = [v for v in module.parameters() if v.requires_grad]
        loop = literal(module, moving, x, x.flip(1), **FEW)
        assert np.allclose(history.w[0], loop.w, rtol=1e-4, atol=1e-5)
