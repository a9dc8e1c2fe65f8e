"""Modules as functions of their parameters: layers with two names, and what no gradient reaches."""

import copy
import weakref

import numpy as np
import pytest
import torch
from conftest import literal, one_line, small_curve
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import sgdstudy as ss

CURVE = small_curve(noise=0.1)
X, Y = CURVE.x[:, None], CURVE.y[:, None]
FEW = {"lr": 0.05, "batch_size": 10, "epochs": 3}


def twice():
    """One layer in two places of a list."""
    layer = nn.Linear(4, 4)
    return nn.Sequential(nn.Linear(1, 4), layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(4, 1))


def renamed():
    """One layer as two attributes."""
    made = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
    made.again = made[2]
    return nn.Sequential(*made[:3])


def tied_and_twice():
    """Two layers of one weight, one of them in two places."""
    made = twice()
    made[0] = nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 4))
    made[0][1].weight = made[1].weight
    return made


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("make", [twice, renamed, tied_and_twice])
def test_a_layer_with_two_names_is_one(make, engine):
    torch.manual_seed(3)
    module = make()
    moving = list(module.parameters())
    problem = ss.Problem(X, Y, module)
    assert problem.p == sum(value.numel() for value in moving)
    history = ss.train(problem, optimizer="SGD", engine=engine, seeds=[0, 1], **FEW)
    assert all(value.is_leaf for value in problem.source.parameters())
    loop = literal(module, moving, X, Y, **FEW)
    assert np.allclose(history.w[0], loop.w, rtol=1e-4, atol=1e-5)  # float32, 18 steps
    with torch.no_grad():
        assert torch.allclose(history.module(0)(X), module(X), rtol=1e-4, atol=1e-5)


MASK = torch.tril(torch.ones(4, 4))


class Masked(nn.Module):
    """Masks by a constant that no `module.to(dtype)` reaches; keeps what it computed."""

    def __init__(self, mask):
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b, self.mask, self.seen = nn.Linear(1, 4), nn.Linear(4, 1), mask, None

    def forward(self, x):
        self.seen = torch.tanh(self.a(x)) @ self.mask()
        return self.b(self.seen)


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("mask", [lambda: MASK, lambda: torch.tril(torch.ones(4, 4))])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_module_with_constants_in_float32_that_keeps_what_it_computes(seeds, mask, engine):
    """As it was seen: refused, since its moments were sought in float64; then not to be copied."""
    module = Masked(mask)
    problem = ss.Problem(X, Y, module)
    history = ss.train(problem, optimizer="SGD", engine=engine, seeds=range(seeds), **FEW)
    assert problem.least_squares is None
    loop = literal(module, list(module.parameters()), X, Y, **FEW)
    assert np.allclose(history.w[0], loop.w, rtol=1e-4, atol=1e-5)  # float32, 18 steps
    assert history.module(0).seen is None  # what the user's own module held
    again = ss.train(copy.deepcopy(problem), optimizer="SGD", engine=engine, **FEW)
    assert np.array_equal(again.w[0], history.w[0])
    sent = ss.train(problem.replace(name="other"), optimizer="SGD", engine=engine, **FEW)
    assert np.array_equal(sent.w[0], history.w[0])


class Itself(nn.Module):
    """Reads its second layer by what it holds of itself."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b, self.scale = nn.Linear(1, 4), nn.Linear(4, 1), nn.Parameter(torch.ones(()))
        self.me, self.seen = weakref.ref(self), {}
        self.head = {"lambda": lambda h: self.b(h), "reference": lambda h: self.me().b(h)}.get(
            how, self.whole
        )
        if how == "hook":
            self.a.register_forward_hook(lambda module, given, out: self.scale * out)
        if how == "note":
            self.a.register_forward_hook(lambda module, given, out: self.seen.update(a=out))

    def whole(self, h):
        return self.b(h) * self.scale

    def forward(self, x):
        return self.head(torch.tanh(self.a(x)))


@pytest.mark.parametrize("how", ["lambda", "reference", "hook"])
def test_a_module_that_reads_itself_by_another_way_is_refused(how):
    """As it was seen: a copy of the lambda read the user's own layer, which nothing trained."""
    module = Itself(how)
    before = [value.clone() for value in module.parameters()]
    with pytest.raises(ss.InputError, match="by what it holds of itself") as error:
        ss.Problem(X, Y, module)
    assert one_line(error)
    assert all(map(torch.equal, module.parameters(), before))


@pytest.mark.parametrize("how", ["method", "note"])
def test_a_module_may_hold_methods_and_note_what_it_computes(how):
    module = Itself(how)
    for _ in range(2):  # what a hook put into the user's own module is left out
        history = ss.train(ss.Problem(X, Y, module), optimizer="SGD", seeds=[0, 1], **FEW)
    loop = literal(module, list(module.parameters()), X, Y, **FEW)
    assert np.allclose(history.w[0], loop.w, rtol=1e-4, atol=1e-5)  # float32, 18 steps


class Keeps(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b, self.few = nn.Linear(1, 4), nn.Linear(4, 1), {}

    def forward(self, x):
        self.seen = torch.tanh(self.a(x))
        self.few["seen"] = [self.seen]
        self.decay = self.b.weight.square().sum()
        return self.b(self.seen)


def test_a_module_that_its_owner_has_called_is_copied():
    """As it was seen: only tensors created explicitly by the user support deepcopy."""
    module = Keeps()
    module(X[:2])
    problem = ss.Problem(X, Y, module)
    history = ss.train(problem, optimizer="SGD", seeds=[0, 1], **FEW)
    trained = history.module(0)
    trained(X[:2])
    again = ss.Problem(X, Y, trained)
    assert np.allclose(again.initial([0])[0], history.w[0])
    assert ss.train(again, optimizer="SGD", **FEW).n_steps[0] == history.n_steps[0]


class Encoder(nn.Module):
    """What torch computes by other means where no gradient is wanted."""

    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(3)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.layer, self.out = layer.to(dtype), nn.Linear(8, 1).to(dtype)

    def forward(self, x):
        return self.out(self.layer(x.reshape(-1, 3, 8)).mean(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_another_way_without_gradients_is_no_draw(dtype):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(40, 24, generator=draw, dtype=dtype)
    problem = ss.Problem(x, x[:, :1], Encoder(dtype).eval())
    assert ss.train(problem, optimizer="SGD", engine="eager", **FEW).n_steps[0] == 12


def test_a_module_that_begins_with_nan_trains_and_diverges():
    module = nn.Sequential(nn.Linear(1, 1), Root())
    history = ss.train(ss.Problem(X, Y, module), optimizer="SGD", **FEW)
    assert history.stop_reason[0] == "diverged"


class Root(nn.Module):
    def forward(self, x):
        return torch.sqrt(x - 1e3)


class Part(nn.Module):
    """A network of which a part gets no gradient."""

    def __init__(self, unused):
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b, self.unused = nn.Linear(1, 4), nn.Linear(4, 1), unused

    def forward(self, x):
        if self.unused:
            return self.b(torch.tanh(self.a.weight.detach()[:, 0] * x))
        with torch.no_grad():
            z = torch.tanh(self.a(x))
        return self.b(z)


def decays(params):
    return torch.optim.AdamW(params, lr=0.01)


@pytest.mark.parametrize("unused", [True, False])
@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("how", ["SGD", "Adam", "own"])
def test_what_no_gradient_reaches_does_not_decay_without_a_word(how, engine, unused):
    settings = {**FEW, "engine": engine, "options": {"weight_decay": 0.1}, "optimizer": how}
    if how == "own":
        settings = {"batch_size": 10, "epochs": 3, "optimizer": decays}
    problem = ss.Problem(X, Y, Part(unused))
    with pytest.raises(ss.InputError, match=r"does not depend on 'a\.weight'.*freeze it") as error:
        ss.train(problem, **settings)
    assert one_line(error)


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("settings", [{}, {"options": {"momentum": 0.9}}, {"optimizer": "Adam"}])
def test_where_nothing_would_move_it_all_is_as_in_torch(settings, engine):
    module = Part(unused=False)
    start = module.a.weight.detach().flatten().numpy().copy()
    problem = ss.Problem(X, Y, module)
    assert problem.unreached == ["a.weight", "a.bias"]
    history = ss.train(problem, engine=engine, **{"optimizer": "SGD", **FEW, **settings})
    assert np.array_equal(history.w[0][:4], start)


def test_with_a_penalty_the_loss_reaches_all():
    problem = ss.Problem(X, Y, Part(unused=False), penalty=("l2", 0.1))
    history = ss.train(problem, optimizer="SGD", **FEW)
    assert (abs(history.w[0][:4]) < abs(problem.initial([0])[0][:4].numpy())).all()


class Late(Part):
    """A network a part of which is computed once more for its gradient."""

    def forward(self, x):
        z = checkpoint(lambda x: torch.tanh(self.a(x)), x, use_reentrant=False)
        return self.b(z)


class InPlace(Part):
    """A network that changes what its gradient needs."""

    def forward(self, x):
        return self.b(self.a(x).relu_().add_(1))


class Embedded(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.e, self.b = kind(5, 4, **options), nn.Linear(4, 1)

    def forward(self, x):
        return self.b(self.e(x).reshape(len(x), 4))


class Writes(nn.Module):
    """Writes into its own parameter, in the forward pass."""

    def __init__(self, write, start):
        super().__init__()
        self.w, self.write = nn.Parameter(torch.full((5, 1), start)), write

    def forward(self, x):
        self.write(self.w)
        return F.embedding(x[:, 0], self.w)


def clamped_data(w):
    w.data.clamp_(-1.0, 1.0)


def another_data(w):
    w.data = w.data.clamp(-1.0, 1.0)


def renormed(w):
    F.embedding(torch.arange(5), w, max_norm=1.0)


@torch.no_grad()
def clamped(w):
    w.clamp_(max=1.0)


CODES = torch.arange(len(X))[:, None] % 5
EMBEDDINGS = [nn.Embedding, nn.EmbeddingBag]


@pytest.mark.parametrize(
    ("module", "x", "words"),
    [
        (Late(False), X, "not again for its gradient"),
        (InPlace(False), X, "the gradient of the model.*inplace"),
        *(
            (Embedded(kind, sparse=True), CODES, "the gradient of the model.*leave out sparse=True")
            for kind in EMBEDDINGS
        ),
        *(
            (Embedded(kind, max_norm=0.5), CODES, "the module holds e, .*leave max_norm out")
            for kind in EMBEDDINGS
        ),
        *(
            (Writes(write, start), CODES, "changes its parameter 'w', .*let it make new values")
            for write in (renormed, clamped, clamped_data, another_data)
            for start in (0.1, 3.0)  # nothing is changed there yet; all is
            if write is not clamped_data or start > 1  # else nobody sees it yet
        ),
    ],
)
def test_a_gradient_that_cannot_be_had_is_one_line_when_the_problem_is_made(module, x, words):
    with pytest.raises(ss.InputError, match=words) as error:
        ss.Problem(x, Y, module)
    assert one_line(error)
