"""Peers at training networks on digits: JAX, batched products by hand, vmap, the literal loop.

Each is written as a good researcher would, and keeps nothing but the losses; none looks at all the
data. All return seconds per replica and step; index batches are drawn before, outside the clock.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np

LR, BATCH = 0.1, 64


def dense(inputs: int, hidden: int, outputs: int = 10) -> Any:
    """Return a network of one hidden tanh layer."""
    from torch import nn

    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))


def convolutional() -> Any:
    """Return two convolutions and a linear layer, 994 parameters, for digits as rows of 64."""
    from torch import nn

    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


@functools.cache
def data(inputs: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return digits `(1797, 64)`, or 512 normal draws of another width, and their classes."""
    if inputs == 64:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return (x / 16).astype("f"), y
    draw = np.random.default_rng(0)
    return draw.standard_normal((512, inputs), dtype="f"), draw.integers(10, size=512)


def _batches(n: int, d: int, steps: int) -> np.ndarray:
    draw = np.random.default_rng(0)
    orders = [draw.permutation(d)[: d // BATCH * BATCH] for _ in range(n * -(-steps * BATCH // d))]
    return np.concatenate(orders).reshape(n, -1, BATCH)[:, :steps]


def jax_scan(n: int, hidden: int, steps: int) -> float:
    """Scan over the steps of n networks of one hidden layer, batched over networks by `vmap`."""
    jax, run, start, rows = _scan(n, hidden, steps)
    jax.block_until_ready(run(start, rows))  # compiles, the first time
    started = time.perf_counter()
    jax.block_until_ready(run(start, rows))
    return (time.perf_counter() - started) / (n * steps)


@functools.cache
def _scan(n: int, hidden: int, steps: int) -> Any:
    import jax
    import jax.numpy as jnp

    x, y = map(jnp.asarray, data())
    draw = np.random.default_rng(1)
    shapes = [(n, 64, hidden), (n, 1, hidden), (n, hidden, 10), (n, 1, 10)]
    start = [jnp.asarray(0.1 * draw.standard_normal(shape), jnp.float32) for shape in shapes]

    def loss(w: Any, rows: Any) -> Any:
        logits = jnp.tanh(x[rows] @ w[0] + w[1]) @ w[2] + w[3]
        right = jnp.take_along_axis(jax.nn.log_softmax(logits), y[rows][:, None], 1)
        return -right.mean()

    def step(w: Any, rows: Any) -> Any:
        values, slopes = jax.vmap(jax.value_and_grad(loss))(w, rows)
        return [a - LR * g for a, g in zip(w, slopes, strict=True)], values

    rows = jnp.asarray(_batches(n, len(x), steps).transpose(1, 0, 2).astype(np.int32))
    return jax, jax.jit(lambda w, rows: jax.lax.scan(step, w, rows)), start, rows


def products(n: int, hidden: int, steps: int) -> float:
    """Train n networks of one hidden layer by batched products, the gradient written by hand."""
    import torch

    torch.set_num_threads(1)
    x, y = map(torch.as_tensor, data())
    draw = torch.Generator().manual_seed(1)
    shapes = [(n, 64, hidden), (n, 1, hidden), (n, hidden, 10), (n, 1, 10)]
    a, b, c, e = (0.1 * torch.randn(shape, generator=draw) for shape in shapes)
    rows, losses = torch.as_tensor(_batches(n, len(x), steps)), []
    started = time.perf_counter()
    for k in range(steps):
        some, classes = x[rows[:, k]], y[rows[:, k]]
        h = torch.baddbmm(b, some, a).tanh_()
        log_p = torch.baddbmm(e, h, c).log_softmax(2)
        losses.append(-log_p.gather(2, classes[:, :, None]).mean((1, 2)))
        g = log_p.exp().scatter_add_(2, classes[:, :, None], -torch.ones(n, BATCH, 1)).div_(BATCH)
        back = torch.bmm(g, c.transpose(1, 2)).mul_(1 - h * h)
        c.baddbmm_(h.transpose(1, 2), g, alpha=-LR)
        e.sub_(g.sum(1, keepdim=True), alpha=LR)
        a.baddbmm_(some.transpose(1, 2), back, alpha=-LR)
        b.sub_(back.sum(1, keepdim=True), alpha=LR)
    return (time.perf_counter() - started) / (n * steps)


def vmapped(n: int, network: str, inputs: int, hidden: int, steps: int) -> float:
    """Train n networks by `vmap` of `grad` of a functional call."""
    import torch
    from torch.func import functional_call, grad_and_value, stack_module_state, vmap

    torch.set_num_threads(1)
    torch.manual_seed(1)
    x, y = map(torch.as_tensor, data(inputs))
    nets = [_network(network, inputs, hidden) for _ in range(n)]
    w, _ = stack_module_state(nets)

    def loss(w: Any, some: Any, classes: Any) -> Any:
        logits = functional_call(nets[0], w, (some,))
        return torch.nn.functional.cross_entropy(logits, classes)

    both = vmap(grad_and_value(loss))
    rows, losses = torch.as_tensor(_batches(n, len(x), steps)), []
    w = {name: value.detach() for name, value in w.items()}
    both(w, x[rows[:, 0]], y[rows[:, 0]])  # the first one imports much
    started = time.perf_counter()
    for k in range(steps):
        slopes, values = both(w, x[rows[:, k]], y[rows[:, k]])
        losses.append(values)
        for name, value in w.items():
            value.sub_(slopes[name], alpha=LR)
    return (time.perf_counter() - started) / (n * steps)


def literal(n: int, network: str, inputs: int, hidden: int, steps: int) -> float:
    """Train n networks one after the other, `zero_grad`, `backward`, `step`."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(1)
    x, y = map(torch.as_tensor, data(inputs))
    rows = torch.as_tensor(_batches(n, len(x), steps))
    seconds = 0.0
    for r in range(n):
        net = _network(network, inputs, hidden)
        optimizer = torch.optim.SGD(net.parameters(), lr=LR)
        losses, started = [], time.perf_counter()
        for k in range(steps):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(x[rows[r, k]]), y[rows[r, k]])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        seconds += time.perf_counter() - started
    return seconds / (n * steps)


def _network(network: str, inputs: int, hidden: int) -> Any:
    return convolutional() if network == "convolutional" else dense(inputs, hidden)
