"""The work that everyone does: the notebook's curve, batches of 10, and our ways of doing it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

import sgdstudy as ss
from sgdstudy.history.rows import Rows
from sgdstudy.training.engines import Compiled, Eager, Engine, Samples

LR, BATCH, STEPS_PER_EPOCH = 2e-4, 10, 200
INDICES_AT_ONCE = 2_048_000  # an epoch of 1024 replicas
CLASSES: dict[str, Callable[[ss.Problem, ss.TrainConfig], Engine]] = {
    "eager": Eager,
    "compiled": Compiled,
}


def points() -> torch.Tensor:
    """Return the notebook's points, `(2000, 2)`."""
    x = np.arange(-10, 10, 0.01, dtype="f")
    return torch.tensor(np.stack([x, 0.3 * x * x - 1.7 * x + 2.5], 1).astype("f"))


def notebook(
    n_epochs: int,
    each_step: Callable[[int, float, torch.Tensor], None] | None = None,
    n_points: int = 2000,
) -> float:
    """Run the notebook's mini-batch loop, in its own manner; return seconds per step."""
    t: Any = points()[:n_points]
    w: Any = torch.zeros(3, requires_grad=True)
    criterion = torch.nn.MSELoss()
    loader: Any = torch.utils.data.DataLoader(t, batch_size=BATCH, shuffle=True)
    step, started = 0, time.perf_counter()
    for _ in range(n_epochs):
        running = 0.0
        for data in loader:
            x, y = data[:, 0], data[:, 1]
            loss = criterion(w[0] * x * x + w[1] * x + w[2], y)
            loss.backward()
            w.data.sub_(LR * w.grad)
            if each_step is not None:
                each_step(step, loss.item(), w)
            w.grad.data.zero_()
            running += loss.item() * len(data)
            step += 1
        running /= len(t)
    return (time.perf_counter() - started) / step


def config(n_seeds: int, n_epochs: int, **settings: Any) -> ss.TrainConfig:
    """Return the settings of everyone's work."""
    same = {"optimizer": "notebook", "lr": LR, "batch_size": BATCH, "order": "shuffle"}
    return ss.TrainConfig(**{**same, "epochs": n_epochs, "seeds": range(n_seeds), **settings})


def bare(
    engine: str, problem: ss.Problem, settings: ss.TrainConfig, n_steps: int
) -> Callable[[], float]:
    """Return a run that goes on by n_steps a call: orders drawn, steps taken and recorded.

    A call returns seconds per replica and step.
    """
    kept: dict[str, Any] = {}

    def start() -> None:
        seeds, d = list(settings.seeds), problem.d
        kept["engine"] = CLASSES[engine](problem, settings)
        kept["sampler"] = ss.orders.Sampler(settings.order, seeds, d, BATCH)
        kept["w"] = problem.initial(seeds)
        kept["state"] = kept["engine"].init(kept["w"])
        kept["done"] = 0

    def run() -> float:
        if not kept:
            start()
        made, sampler, n = kept["engine"], kept["sampler"], len(settings.seeds)
        most = max(1, min(INDICES_AT_ONCE // (BATCH * n), made.chunk_steps))
        started, left = time.perf_counter(), n_steps
        while left:
            now = min(left, most)
            samples = Samples(sampler.take(now * BATCH), problem.x, problem.y)
            sizes = np.full(now, BATCH)
            kept["w"], kept["state"], _ = made.steps(
                kept["w"], kept["state"], samples, sizes, 1, kept["done"] + 1
            )
            kept["done"] += now
            left -= now
        return (time.perf_counter() - started) / (n_steps * n)

    return run


def whole(problem: ss.Problem, settings: ss.TrainConfig) -> Callable[[], float]:
    """Return a whole `ss.train` into memory; a call returns seconds per replica and step."""

    def run() -> float:
        started = time.perf_counter()
        history = ss.train(problem, config=settings, progress=False)
        return (time.perf_counter() - started) / int(history.n_steps.sum())

    return run


class Enough(Exception):
    """The clock has seen enough rows."""


class Clock:
    """A sink that notes when rows come, and ends the run after n steps."""

    def __init__(self, n_steps: int) -> None:
        self.n_steps, self.seen = n_steps, 0
        self.times: list[tuple[int, float]] = []

    def write(self, kind: str, rows: Rows) -> None:
        """Take rows as a memory sink does, and note the time."""
        if kind != "steps":
            return
        self.seen += rows.batch().num_rows
        self.times.append((self.seen, time.perf_counter()))
        if self.seen >= self.n_steps:
            raise Enough

    def batches(self, kind: str) -> Iterator[Any]:
        """Give back nothing."""
        yield from ()


def slope(problem: ss.Problem, settings: ss.TrainConfig, n_steps: int) -> float:
    """Return seconds per step of `ss.train` after its first chunks, setting up not counted."""
    clock = Clock(n_steps)
    with contextlib.suppress(Enough):
        ss.train(problem, config=settings, progress=False, sink=clock)
    half = next(i for i, (seen, _) in enumerate(clock.times) if seen >= clock.n_steps // 8)
    (first, begun), (last, ended) = clock.times[half], clock.times[-1]
    return (ended - begun) / (last - first)
