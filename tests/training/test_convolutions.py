"""Convolutions and poolings in compiled steps, against torch's own, differentiated by autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import sgdstudy as ss
from sgdstudy.problems.torch_state import own_state
from sgdstudy.training.compiled import Unsupported, compile_steps, steps

pytestmark = pytest.mark.skipif(bool(steps.compiler_fault()), reason="no C++ compiler")
B, N_STEPS = 4, 3


@pytest.fixture(autouse=True)
def one_thread():
    with own_state():
        yield


def problem(layers, shape, dtype=torch.float64, x=None):
    """Return a problem of 11 images or series, six numbers wide at most, in three classes."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(11, *shape, generator=draw, dtype=dtype) if x is None else x
    torch.manual_seed(1)
    body = nn.Sequential(*layers(), nn.Flatten()).to(dtype)
    outputs = body(x[:1]).shape[1]
    body.append(nn.Linear(outputs, 3, dtype=dtype))
    return ss.Problem(x, torch.arange(11) % 3, body, "cross_entropy")


def taken(given, n):
    """Return the gradients of some steps of n replicas, compiled and by autograd, `(S, n, p)`."""
    config = ss.TrainConfig(lr=0.1, batch_size=B, optimizer="none", seeds=range(n))
    draw = torch.Generator().manual_seed(2)
    w = given.initial([0] * n)
    w = w + 0.3 * torch.randn(w.shape, generator=draw, dtype=w.dtype)
    indices = torch.randint(given.d, (n, N_STEPS * B), generator=draw)
    made = compile_steps(given, config)
    *_, recorded = made(w, made.init(w), indices, np.full(N_STEPS, B), 1)
    expected = [
        given.losses_and_gradients(w, given.x[rows], given.y[rows])[1]
        for rows in indices.split(B, 1)
    ]
    return recorded.gradient, torch.stack(expected)


class Summed(nn.Module):
    """The sum of what two layers make of some channels."""

    def __init__(self, *parts):
        super().__init__()
        self.layers = nn.ModuleList(layer for layer, _ in parts)
        self.channels = [channels for _, channels in parts]

    def forward(self, x):
        return sum(
            layer(x[:, here]) for layer, here in zip(self.layers, self.channels, strict=True)
        )


class Written(nn.Module):
    """A convolution of images before and after something is written into them."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(2, 1, 2)
        self.register_buffer("kernel", torch.linspace(-1, 1, 8).reshape(1, 2, 2, 2).double())

    def forward(self, x):
        images, made = x.clone(), self.layer(x)
        before = nn.functional.conv2d(images, self.kernel)
        images += made.mean()
        return made * before + nn.functional.conv2d(images, self.kernel)


IMAGES, SERIES = (2, 6, 5), (2, 9)
ALL, FIRST, LAST = slice(None), slice(0, 1), slice(1, 2)
LAYERS = {
    "plain": (lambda: [nn.Conv2d(2, 3, 3), nn.Tanh()], IMAGES),
    "padded": (lambda: [nn.Conv2d(2, 3, 3, padding=(2, 1)), nn.Tanh()], IMAGES),
    "same": (lambda: [nn.Conv2d(2, 3, (1, 3), padding="same"), nn.Tanh()], IMAGES),
    "strides": (lambda: [nn.Conv2d(2, 3, 2, stride=(2, 3), bias=False), nn.Tanh()], IMAGES),
    "dilated": (lambda: [nn.Conv2d(2, 3, (3, 2), dilation=(2, 3), padding=1)], IMAGES),
    "one pixel": (lambda: [nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 3)], IMAGES),
    "many": (lambda: [nn.Conv2d(2, 18, 3, padding=1), nn.ReLU(), nn.Conv2d(18, 2, 3)], IMAGES),
    "series": (lambda: [nn.Conv1d(2, 3, 3, stride=2, padding=1), nn.Tanh()], SERIES),
    "two series": (lambda: [nn.Conv1d(2, 3, 2), nn.ReLU(), nn.Conv1d(3, 2, 3, dilation=2)], SERIES),
    "pooled": (lambda: [nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)], IMAGES),
    "overlapping": (lambda: [nn.Conv2d(2, 3, 2), nn.MaxPool2d(3, stride=1)], IMAGES),
    "far windows": (lambda: [nn.Conv2d(2, 3, 1), nn.MaxPool2d((2, 1), stride=(3, 2))], IMAGES),
    "dilated pool": (lambda: [nn.Conv2d(2, 3, 1), nn.MaxPool2d(2, dilation=2)], IMAGES),
    "pooled series": (lambda: [nn.Conv1d(2, 3, 2), nn.MaxPool1d(2)], SERIES),
    "written into": (lambda: [Written()], IMAGES),
    "halves": (lambda: [Summed((nn.Conv2d(1, 3, 3), FIRST), (nn.Conv2d(1, 3, 3), LAST))], IMAGES),
    "two ways": (
        lambda: [
            Summed(
                (nn.Conv2d(2, 3, 3, padding=1), ALL),
                (nn.Conv2d(2, 3, 3, padding=2, dilation=2), ALL),
            )
        ],
        IMAGES,
    ),
    "causal": (lambda: [nn.Conv1d(2, 3, 2), nn.ConstantPad1d((2, 0), 0.5), nn.Tanh()], SERIES),
    "cut": (lambda: [nn.Conv1d(2, 3, 2), nn.ConstantPad1d((-2, -1), 0.0), nn.Tanh()], SERIES),
    "moved": (lambda: [nn.Conv2d(2, 3, 2), nn.ConstantPad2d((-1, 2, 1, -2), 0.5)], IMAGES),
    "averages": (lambda: [nn.Conv2d(2, 3, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1)], IMAGES),
}


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 17])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_autograd(name, n):
    ours, theirs = taken(problem(*LAYERS[name]), n)
    assert float((ours - theirs).abs().max()) < 1e-13 * float(theirs.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "pooled"])
def test_a_replica_alone_has_the_bits_of_one_among_others(name):
    given = problem(*LAYERS[name], torch.float32)
    draw = torch.Generator().manual_seed(3)
    w = given.initial([0] * 17) + 0.3 * torch.randn(17, given.p, generator=draw)
    rows = torch.randint(given.d, (17, B), generator=draw)
    found = []
    for n in (1, 17):
        made = compile_steps(given, ss.TrainConfig(lr=0.1, batch_size=B, seeds=range(n)))
        assert f"L = {16 if n == 17 else 1}," in made.source
        found.append(made(w[:n], made.init(w[:n]), rows[:n], np.array([B]), 1)[2][:3])
    assert all(torch.equal(one[:, 0], many[:, 0]) for one, many in zip(*found, strict=True))


def test_of_equal_pixels_the_first_gets_the_gradient():
    layers = lambda: [nn.Conv2d(1, 2, 2, stride=2), nn.MaxPool2d(2)]  # noqa: E731
    pixels = torch.zeros(11, 1, 4, 4, dtype=torch.float64)
    pixels[:, 0, 0, 3], pixels[:, 0, 3, 0] = 1.0, 2.0  # of four equal places, two differ below
    given = problem(layers, (1, 4, 4), x=pixels)
    w = given.initial([0])
    w[:, :8] = 0.0  # the outputs are all equal, but what they saw is not
    made = compile_steps(given, ss.TrainConfig(lr=0.1, batch_size=11))
    rows = torch.arange(11)[None]
    *_, ours = made(w, made.init(w), rows, np.array([11]), 1)
    theirs = given.losses_and_gradients(w, given.x[rows], given.y[rows])[1]
    assert float((ours.gradient[0] - theirs).abs().max()) < 1e-15


@pytest.mark.slow
def test_the_evaluation_is_that_of_torch():
    given = problem(*LAYERS["pooled"])
    made = compile_steps(given, ss.TrainConfig(lr=0.1, batch_size=B))
    w = given.initial([0])
    found, scores = made.evaluate(w.numpy()), given.model(w[0], given.x)
    assert made.block == B
    assert found.loss[0] == pytest.approx(nn.functional.cross_entropy(scores, given.y).item())
    assert found.accuracy[0] == pytest.approx((scores.argmax(1) == given.y).double().mean().item())


@pytest.mark.slow
def test_a_run_is_that_of_eager_steps():
    given = problem(*LAYERS["pooled"])
    settings = {"lr": 0.1, "batch_size": B, "epochs": 5, "seeds": range(3), "optimizer": "Adam"}
    ours, theirs = (ss.train(given, engine=e, **settings) for e in ("compiled", "eager"))
    assert abs(ours.w - theirs.w).max() < 1e-9


class Indexed(nn.Module):
    def forward(self, x):
        values, indices = nn.functional.max_pool2d(x, 2, return_indices=True)
        return values * indices


REFUSED = {
    "groups": (lambda: [nn.Conv2d(2, 4, 3, groups=2)], IMAGES, "in groups"),
    "transposed": (lambda: [nn.ConvTranspose2d(2, 3, 2)], IMAGES, "transposed"),
    "volumes": (lambda: [nn.Conv3d(2, 3, 2)], (2, 3, 3, 3), "in 3D"),
    "padded pool": (lambda: [nn.Conv2d(2, 3, 1), nn.MaxPool2d(2, padding=1)], IMAGES, "padding"),
    "beyond": (lambda: [nn.Conv2d(2, 3, 1), nn.MaxPool2d(2, ceil_mode=True)], IMAGES, "beyond"),
    "indices": (lambda: [nn.Conv2d(2, 3, 1), Indexed()], IMAGES, "disagrees|integers|dtypes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_left_to_torch(name):
    layers, shape, why = REFUSED[name]
    with pytest.raises(Unsupported, match=why):
        compile_steps(problem(layers, shape), ss.TrainConfig(lr=0.1, batch_size=B))
