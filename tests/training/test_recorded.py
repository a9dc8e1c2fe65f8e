"""What is recorded of steps while they are taken: norms and mean gradients of a loop in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sgdstudy as ss
from sgdstudy.training.compiled import steps
from sgdstudy.training.engines import Compiled, Eager, Samples
from sgdstudy.training.recorded import Wanted, lengths

WITHOUT_COMPILER = bool(steps.compiler_fault())
ENGINES: dict[str, Any] = {"eager": Eager, "compiled": Compiled}
BATCH, EPOCHS, D = 8, 3, 29  # 4 batches an epoch, the last of 5
RULES = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("RMSprop", {"momentum": 0.5, "centered": True, "eps": 1e-3}),
    ("Adam", {"eps": 1e-3}),
    ("AdamW", {"eps": 1e-3, "weight_decay": 0.1}),
]


def network(hidden=6, dtype=torch.float32, inputs=4):
    """A small network of (inputs + 4) hidden + 3 parameters."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(D, inputs, generator=draw, dtype=dtype)
    y = torch.randint(3, (D,), generator=draw)
    torch.manual_seed(0)
    layers = [nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, 3)]
    return ss.Problem(x, y, nn.Sequential(*layers).to(dtype), "cross_entropy")


def by_hand(problem, rule, order, start):
    """Return norms `(3, S)`, mean gradients `(E, p)` and the last w of a loop in torch, float64."""
    optimizer, options = rule
    net = nn.Sequential(
        nn.Linear(problem.x.shape[1], (problem.p - 3) // (problem.x.shape[1] + 4)),
        nn.Tanh(),
        nn.Linear((problem.p - 3) // (problem.x.shape[1] + 4), 3),
    ).double()
    nn.utils.vector_to_parameters(start.double().clone(), net.parameters())
    x, y = problem.x.double(), problem.y
    stepper = getattr(torch.optim, optimizer)(net.parameters(), lr=0.05, **options)
    norms, means = [], []
    for epoch in order.reshape(EPOCHS, D):
        total = torch.zeros(problem.p, dtype=torch.float64)
        for rows in epoch.split(BATCH):
            w = nn.utils.parameters_to_vector(net.parameters()).detach().clone()
            stepper.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            g = torch.cat([one.grad.flatten() for one in net.parameters()])
            total += len(rows) * g
            stepper.step()
            after = nn.utils.parameters_to_vector(net.parameters()).detach()
            norms.append([g.norm(), (after - w).norm(), (w - start.double()).norm()])
        means.append(total / D)
    return torch.tensor(norms).T, torch.stack(means), after


def taken(engine, problem, n, wanted, rule=("SGD", {})):
    """Return the samples of some epochs, the start and the record."""
    optimizer, options = rule
    settings = {"optimizer": optimizer, "options": options, "lr": 0.05, "batch_size": BATCH}
    config = ss.TrainConfig(**settings, seeds=range(n))
    made = ENGINES[engine](problem, config)
    draw = torch.Generator().manual_seed(2)
    order = torch.stack(
        [torch.cat([torch.randperm(D, generator=draw) for _ in range(EPOCHS)]) for _ in range(n)]
    )
    w = problem.initial(list(range(n)))
    w += 0.1 * torch.randn(w.shape, generator=draw, dtype=w.dtype)
    state, sizes = made.init(w), np.array(config.batch_sizes(D))
    wanted = wanted._replace(start=w)
    _, _, record = made.steps(
        w, state, Samples(order, problem.x, problem.y), sizes, EPOCHS, 1, wanted
    )
    return order, w, record


@pytest.mark.skipif(WITHOUT_COMPILER, reason="no C++ compiler")
@pytest.mark.parametrize("every_step", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 9])  # one replica after the other, and side by side
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_norms_and_mean_gradients_are_those_of_a_loop_in_torch(engine, rule, n, dtype, every_step):
    problem = network(dtype=dtype)
    order, start, record = taken(engine, problem, n, Wanted(every_step), rule)
    rounding = 200 * torch.finfo(dtype).eps  # twelve steps, each from where the last one rounded
    for r in range(n):
        norms, means, w = by_hand(problem, rule, order[r], start[r])
        scale = norms.max(1, keepdim=True).values.numpy()
        assert (np.abs(record.norms[:, :, r] - norms.numpy()) <= rounding * scale).all()
        assert np.abs(record.sums[:, r] / D - means.numpy()).max() <= rounding * float(scale[0, 0])
        assert torch.allclose(record.w[-1, r].double(), w, 0, rounding * float(w.abs().max()))


@pytest.mark.skipif(WITHOUT_COMPILER, reason="no C++ compiler")
@pytest.mark.parametrize("n", [1, 17])
@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_what_is_kept_once_an_epoch_are_the_same_vectors(engine, n):
    problem = network(hidden=200)  # more than a thousand parameters: parts, and a rest
    every, few = (taken(engine, problem, n, Wanted(kept))[2] for kept in (True, False))
    assert torch.equal(few.w, every.w[::4])
    assert torch.equal(few.gradient, every.gradient[::4])
    assert torch.equal(few.loss, every.loss)
    np.testing.assert_allclose(few.norms, every.norms, rtol=1e-6)
    np.testing.assert_array_equal(few.sums, every.sums)
    assert (every.every, few.every) == (1, 4)


@pytest.mark.slow
@pytest.mark.skipif(WITHOUT_COMPILER, reason="no C++ compiler")
def test_bits_of_norms_do_not_depend_on_who_runs_beside():
    problem = network(hidden=77)
    order, w, among = taken("compiled", problem, 20, Wanted())
    config = ss.TrainConfig(optimizer="SGD", lr=0.05, batch_size=BATCH)
    samples = Samples(order[7:8], problem.x, problem.y)
    alone = Compiled(problem, config)
    state, sizes = alone.init(w[7:8]), np.array(config.batch_sizes(D))
    _, _, record = alone.steps(w[7:8], state, samples, sizes, EPOCHS, 1, Wanted())
    assert np.array_equal(record.norms[:, :, 0], among.norms[:, :, 7])
    assert np.array_equal(record.sums[:, 0], among.sums[:, 7])


@pytest.mark.skipif(WITHOUT_COMPILER, reason="no C++ compiler")
@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_where_an_epoch_is_cut_changes_no_bit(engine):
    problem = network(hidden=30)
    config = ss.TrainConfig(optimizer="SGD", lr=0.05, batch_size=BATCH)
    made = ENGINES[engine](problem, config)
    order, w = torch.randperm(D)[None], problem.initial([0])
    sizes = np.array(config.batch_sizes(D))
    wanted = Wanted(False, w.clone())
    _, _, whole = made.steps(
        w, made.init(w), Samples(order, problem.x, problem.y), sizes, 1, 1, wanted
    )
    state = made.init(w)
    half, state, first = made.steps(
        w, state, Samples(order[:, : 2 * BATCH], problem.x, problem.y), sizes[:2], 1, 1, wanted
    )
    wanted = wanted._replace(sums=first.sums[0])
    _, _, rest = made.steps(
        half, state, Samples(order[:, 2 * BATCH :], problem.x, problem.y), sizes[2:], 1, 3, wanted
    )
    assert np.array_equal(rest.sums, whole.sums)
    assert np.array_equal(np.concatenate([first.norms, rest.norms], 1), whole.norms)
    assert torch.equal(rest.w[-1], whole.w[-1])


@pytest.mark.parametrize("size", [1.0, 1e25, 1e-25, 0.0])
@pytest.mark.parametrize("p", [5, 1024, 5000])
def test_lengths_of_large_vectors_are_those_of_float64(size, p):
    draw = torch.Generator().manual_seed(0)
    vectors = size * torch.randn(3, p, generator=draw)
    expected = vectors.double().square().sum(1).sqrt()
    assert torch.allclose(lengths(vectors), expected, 3e-7, 0)


@pytest.mark.skipif(WITHOUT_COMPILER, reason="no C++ compiler")
@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_a_replica_that_diverges_keeps_its_parameters_whatever_is_kept(engine, monkeypatch):
    """The same rows and the same last parameters, whether every step's vectors were kept."""
    draw = torch.Generator().manual_seed(1)
    x, net = torch.randn(D, 4, generator=draw), nn.Sequential(nn.Linear(4, 20), nn.Linear(20, 2))
    problem = ss.Problem(x, x[:, :2], net)  # of degree 4 in w: its gradient grows without end
    settings = {"lr": 0.5, "batch_size": BATCH, "epochs": 9, "seeds": range(9), "engine": engine}
    few = Eager if engine == "eager" else Compiled
    monkeypatch.setattr(few, "spares", 0)
    sparing = ss.train(problem, **settings)
    monkeypatch.setattr(few, "spares", 10**9)
    all_kept = ss.train(problem, **settings)
    assert "diverged" in sparing.stop_reason
    assert np.isfinite(sparing.w).all()
    assert np.array_equal(sparing.w, all_kept.w)
    assert np.array_equal(sparing.n_steps, all_kept.n_steps)
    ours, theirs = sparing.steps, all_kept.steps
    assert list(ours) == list(theirs)
    np.testing.assert_allclose(ours.to_numpy(float), theirs.to_numpy(float), rtol=1e-6)


@pytest.mark.skipif(WITHOUT_COMPILER, reason="no C++ compiler")
@pytest.mark.parametrize("diagnostics", ["off", "light", "full"])
@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_rows_do_not_depend_on_which_vectors_are_kept(engine, diagnostics, monkeypatch):
    problem = network(hidden=20)
    settings = {"lr": 0.1, "batch_size": BATCH, "epochs": 5, "seeds": range(3), "engine": engine}
    settings |= {"diagnostics": diagnostics, "stop": ("running", 1.0), "evaluate_every": 2}
    kind = Eager if engine == "eager" else Compiled
    found = []
    for spares in (0, 10**9):
        monkeypatch.setattr(kind, "spares", spares)
        history = ss.train(problem, **settings)
        found.append((history.steps, history.epochs))
    for ours, theirs in zip(*found, strict=True):
        assert list(ours) == list(theirs)
        np.testing.assert_allclose(ours.to_numpy(float), theirs.to_numpy(float), 1e-6, 1e-12)
