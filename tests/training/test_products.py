"""Products of large matrices in C++: every sum in the order of k, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sgdstudy as ss
from sgdstudy.training.compiled import compile_steps, operations, steps

pytestmark = pytest.mark.skipif(bool(steps.compiler_fault()), reason="no C++ compiler")


def taken(problem, n_seeds, sizes, blocked, monkeypatch, **settings):
    monkeypatch.setattr(operations, "BLOCKED", blocked)
    monkeypatch.setattr(steps, "_recorded", {})  # of other products
    config = ss.TrainConfig(batch_size=sizes[0], lr=0.01, seeds=range(n_seeds), **settings)
    made = compile_steps(problem, config)
    draw = torch.Generator().manual_seed(0)
    indices = torch.randint(problem.d, (n_seeds, sum(sizes)), generator=draw)
    w = problem.initial(list(range(n_seeds)))
    assert ("product<" in made.source) == (blocked == 1)
    w, state, recorded = made(w, made.init(w), indices, np.array(sizes), 1)
    return w, state, *recorded[:3]


def network(inputs, hidden, outputs, *, dtype=torch.float32, d=40):
    draw = torch.Generator().manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(inputs, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, outputs)
    ).to(dtype)
    x = torch.randn(d, inputs, generator=draw, dtype=dtype)
    return ss.Problem(x, torch.randn(d, outputs, generator=draw, dtype=dtype), model)


# around the blocks: 4 rows, 8, 16 or 32 columns, 512 terms; one replica, and sixteen side by side
@pytest.mark.parametrize("n_seeds", [1, 17])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(1, 3, 1), (5, 17, 2), (8, 33, 16), (31, 4, 7), (513, 3, 1)])
def test_the_bits_are_those_of_plain_loops(sizes, dtype, n_seeds, monkeypatch):
    problem = network(*sizes, dtype=dtype)
    given = (problem, n_seeds, [7, 7, 5])
    blocked = taken(*given[:2], [7, 7, 5], 1, monkeypatch)
    plain = taken(*given[:2], [7, 7, 5], 10**12, monkeypatch)
    for ours, theirs in zip(blocked, plain, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.slow
def test_a_batch_of_products_too(monkeypatch):
    draw = torch.Generator().manual_seed(2)

    def attention(w, x):  # (B, 3, 4): products of (3, 4) by (4, 3), sample by sample
        scores = x @ w.reshape(4, 4) @ x.transpose(1, 2)
        return (scores @ x).mean((1, 2))

    x, y = torch.randn(30, 3, 4, generator=draw), torch.randn(30, generator=draw)
    problem = ss.Problem(x, y, attention, w_init=0.3 * torch.randn(16, generator=draw))
    blocked = taken(problem, 2, [6, 6], 1, monkeypatch)
    plain = taken(problem, 2, [6, 6], 10**12, monkeypatch)
    assert all(torch.equal(a, b) for a, b in zip(blocked, plain, strict=True))


@pytest.mark.slow
def test_many_parameters_do_not_overflow_the_stack():
    problem = network(700, 1000, 2, d=16)  # 2.8 MB of parameters, as much state: beyond 8 MB
    settings = {"optimizer": "SGD", "options": {"momentum": 0.9}, "epochs": 1, "batch_size": 8}
    ours = ss.train(problem, engine="compiled", lr=1e-3, **settings)
    eager = ss.train(problem, engine="eager", lr=1e-3, **settings)
    np.testing.assert_allclose(ours.w, eager.w, rtol=0, atol=1e-5)
