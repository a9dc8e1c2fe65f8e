"""Replicas run together only where each has the values and gradients that it has alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import sgdstudy as ss
from sgdstudy.problems import together

D = 20
draw = torch.Generator().manual_seed(0)
x, y = torch.randn(2, D, generator=draw)
X, CLASSES = torch.randn(D, 4, generator=draw), torch.randint(0, 3, (D,), generator=draw)
SYMMETRIC = torch.linspace(-1, 1, D)
TOKENS = torch.randint(0, 4, (D, 3), generator=draw)


class Padded(nn.Module):
    """torch's rule for the gradient of an embedding under vmap trains the padding, too."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.e, self.o = nn.Embedding(4, 2, padding_idx=2), nn.Linear(6, 3)

    def forward(self, t):
        return self.o(self.e(t).flatten(1))


class Clipped(nn.Module):
    """The hook is never set under vmap, where no tensor wants a gradient."""

    def __init__(self, most=1e-3):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.most = nn.Linear(4, 4), nn.Linear(4, 3), most

    def forward(self, z):
        h = torch.tanh(self.a(z))
        if h.requires_grad:
            h.register_hook(lambda g: g.clamp(-self.most, self.most))
        return self.b(h)


class Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a):
        return a * 1.0

    @staticmethod
    def backward(ctx, g):
        return g / g.norm()


class Half(torch.autograd.Function):
    """Its gradient is right for one w alone, of shape ()."""

    @staticmethod
    def forward(ctx, w, z):
        ctx.save_for_backward(z)
        return w * z

    @staticmethod
    def backward(ctx, g):
        return (g * ctx.saved_tensors[0] * 0.5).sum(), None


def normalised(w, z):
    f = torch.tanh(w[0] * z + w[1])
    if f.requires_grad:
        f.register_hook(lambda g: g / g.abs().max())
    return f


def branch(w, z):
    return w[0] * z + w[1] if (z > 1).any() else w[0] * z.sin()


FUNCTIONS = {
    "largest": lambda w, z: torch.tanh(w[0] * z / z.max() + w[1]),
    "largest size": lambda w, z: torch.tanh(w[0] * z / z.abs().max() + w[1]),
    "smallest": lambda w, z: torch.tanh(w[0] * (z - z.min()) / (z.max() - z.min()) + w[1]),
    "mean": lambda w, z: torch.tanh(w[0] * (z - z.mean()) + w[1]),
    "median": lambda w, z: torch.tanh(w[0] * (z > z.median()) + w[1] * z),
    "any": lambda w, z: torch.tanh(w[0] * z + w[1] * (z > 1).any()),
    "all": lambda w, z: torch.tanh(w[0] * z + w[1] * (z < 1).all()),
    "branch": branch,
    "first": lambda w, z: torch.tanh(w[0] * z + w[1] * z[0]),
    "count": lambda w, z: torch.tanh(w[0] * z + w[1] * len(z)),
    "linear": lambda w, z: w[0] * z / z.max() + w[1],
    "own gradient": lambda w, z: Unit.apply(torch.tanh(w[0] * z + w[1])),
    "own shape": lambda w, z: Half.apply(w[0], z) + w[1],
    "hook": normalised,
}


def guarded(f, t):
    """Return errors whose gradients are clipped, where gradients are taken."""
    if f.requires_grad:
        f.register_hook(lambda g: g.clamp(-1e-2, 1e-2))
    return (f - t) ** 2


def guarded_penalty(w):
    total = (w * w).sum()
    if total.requires_grad:
        total.register_hook(lambda g: g / 2)
    return total


def problems():
    by_function = {
        name: (SYMMETRIC if name == "largest size" else x, y, model, {"w_init": [0.5, -0.3]})
        for name, model in FUNCTIONS.items()
    }
    plain = FUNCTIONS["mean"]
    return by_function | {
        "padding": (TOKENS, CLASSES, Padded(), {"loss": "cross_entropy"}),
        "clipped": (X, CLASSES, Clipped(), {"loss": "cross_entropy"}),
        "clipped late": (X, CLASSES, Clipped(10.0), {"loss": "cross_entropy"}),
        "loss": (x, y, plain, {"loss": guarded, "w_init": [0.5, -0.3]}),
        "penalty": (x, y, plain, {"penalty": guarded_penalty, "w_init": [0.5, -0.3]}),
    }


@pytest.mark.parametrize("name", problems())
def test_a_seed_ends_beside_others_as_alone(name):
    def trained(seeds):
        *data, more = problems()[name]
        given = {"lr": 0.2, "batch_size": 5, "epochs": 3, "diagnostics": "off"}
        return ss.train(ss.Problem(*data, **more), seeds=seeds, **given)

    alone, first, last = trained([1]), trained([1, 0]), trained([0, 5, 1])
    for beside, place in ((first, 0), (last, 2)):
        assert np.array_equal(beside.w[place], alone.w[0])
        norms = beside.epochs.query("seed == 1")["full_grad_norm"]
        assert np.allclose(norms, alone.epochs["full_grad_norm"], rtol=1e-6)


@pytest.mark.parametrize("name", problems())
def test_gradients_at_many_parameters_are_those_of_autograd(name):
    *data, more = problems()[name]
    problem = ss.Problem(*data, **more)
    noise = torch.randn(4, problem.p, generator=torch.Generator().manual_seed(1))
    w = problem.initial([0]) + 0.3 * noise
    found = problem.full(w.numpy())[1]
    for row, ours in zip(w, found, strict=True):
        row.requires_grad_()
        loss = problem.batch_loss(problem.model(row, problem.x)[None], problem.y[None])[0]
        if more.get("penalty"):
            loss = loss + guarded_penalty(row)
        (expected,) = torch.autograd.grad(loss, row)
        assert np.allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_what_is_right_together_stays_together(caplog):
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False))
    assert ss.Problem(X, CLASSES, net, "cross_entropy")._batches
    assert ss.Problem(X, CLASSES, nn.Linear(4, 3), "cross_entropy")._batches
    assert ss.Problem(x, y, lambda w, z: torch.exp(w[0] * z) + w[1], w_init=[0.0, 0.0])._broadcasts
    assert not caplog.records


def test_every_kind_of_whole_number_is_tried():
    tokens = torch.zeros(5000, 2)
    tokens[1234, 1], tokens[77, 0] = 3, 7
    (low, high), _ = together.batches(tokens)[0][0], None
    seen = set(tokens[torch.cat([low, high])].flatten().tolist())
    assert seen == {0.0, 3.0, 7.0}


def test_what_notes_its_calls_can_leave_out_those_of_a_trial():
    noted = []

    def model(w, z):
        if not together.is_trying():
            noted.append(len(z))
        return torch.tanh(w[0] * z)

    problem = ss.Problem(x, y, model, w_init=[0.5])
    before = len(noted)
    assert problem._broadcasts
    assert len(noted) == before
    assert not together.is_trying()


@pytest.mark.parametrize("first", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_how_replicas_are_computed_does_not_depend_on_who_asks_first(first):
    """As it was seen: a checkpoint was compared first, without gradients, and rounding changed."""
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    problem = ss.Problem(X, CLASSES, net, loss="cross_entropy")
    with first():
        assert (problem._broadcasts, problem._batches) == (False, True)
    line = ss.Problem(x, y, lambda w, x: w[0] * x + w[1], w_init=[0.0, 0.0])
    with first():
        assert line._broadcasts
