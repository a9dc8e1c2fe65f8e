"""Steps that were taken elsewhere (JAX, a paper's code), to be recorded as if they were ours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from sgdstudy import checks
from sgdstudy.errors import InputError
from sgdstudy.problems.by_name import get
from sgdstudy.problems.data import as_tensor
from sgdstudy.problems.evaluation import Evaluated
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.training.engines import Samples
from sgdstudy.training.recorded import ALL, Recorded, Wanted, of_every_step

BLOCK = 256  # steps whose losses are computed at once


class Trajectory:
    """The engine and the sampler of a run whose steps are known: it looks them up.

    Args:
        problem: what was trained.
        w: parameters before each step and after the last, `(S+1, p)`, or `(S+1, R, p)`.
        indices: the samples of each step, `(S, B)`, or `(S, R, B)` for each replica its own;
            None: all the data in every step.
        losses: batch losses before the steps, `(S, R)`; None: computed from the problem.
        gradients: their gradients, `(S, R, p)`; None: computed from the problem.

    Raises:
        InputError: arrays whose shapes do not fit each other, or the problem.
    """

    name = "elsewhere"
    chunk_steps = 4096
    gathers = False
    spares: float = math.inf

    def __init__(
        self,
        problem: Problem,
        w: Any,
        indices: Any = None,
        losses: Any = None,
        gradients: Any = None,
    ) -> None:
        self.problem = problem = get(problem)
        self.w = as_tensor(w, "w", finite=False).clone().to(problem.dtype)
        self.w = self.w[:, None] if self.w.dim() == 2 else self.w
        if (
            self.w.dim() != 3
            or self.w.shape[2] != problem.p
            or len(self.w) < 2
            or not self.w.numel()
        ):
            raise InputError(
                f"w has shape {tuple(self.w.shape)}; expected (steps + 1, replicas, {problem.p})"
            )
        self.n_steps, self.n_replicas = len(self.w) - 1, self.w.shape[1]
        self.indices = None if indices is None else self._check_indices(indices)
        self.losses = self._optional("losses", losses, (self.n_steps, self.n_replicas))
        shape = (self.n_steps, self.n_replicas, problem.p)
        self.gradients = self._optional("gradients", gradients, shape)
        self.live, self._taken = torch.arange(self.n_replicas), 0

    def init(self, w: torch.Tensor) -> None:
        """Begin with all replicas."""
        self.live, self._taken = torch.arange(self.n_replicas), 0

    def select(self, w: torch.Tensor, state: None, live: torch.Tensor) -> None:
        """Go on with these replicas only."""
        self.live = self.live[live]

    def evaluate(self, w: np.ndarray) -> Evaluated:
        """Return what all the data say at parameters `(N, p)`."""
        return self.problem.evaluate(w)

    def take(self, n: int) -> torch.Tensor:
        """Return the next n samples of every replica, `(R, n)`, as `orders.Sampler` does."""
        assert self.indices is not None
        size = self.indices.shape[2]
        part = self.indices[self._taken // size : (self._taken + n) // size, self.live]
        self._taken += n
        return part.transpose(0, 1).reshape(len(self.live), -1)

    def retain(self, live: list[int]) -> None:
        """As `orders.Sampler`; `select` has done it."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return nothing: what was taken elsewhere is not gone on with."""
        return {}

    def config(self, lr: float, steps_per_epoch: int | None = None, **settings: Any) -> TrainConfig:
        """Return the settings of the run, for the record and for theory.

        Args:
            lr: the step size it had.
            steps_per_epoch: how many steps made an epoch; None: one pass over the data, or all.
            settings: further ones of `TrainConfig`, as `optimizer="Adam"`.

        Raises:
            InputError: steps that do not make whole epochs, or a setting that is not allowed.
        """
        known = [name for name in ("epochs", "steps", "batch_size", "order") if name in settings]
        if known:
            raise InputError(f"{known[0]} is known from the steps of the trajectory; leave it out")
        lr = checks.number("lr", lr)
        settings.setdefault("seeds", range(self.n_replicas))
        seeds = checks.seeds(settings["seeds"])
        if len(seeds) != self.n_replicas:
            raise InputError(
                f"seeds has {len(seeds)} values, the trajectory {self.n_replicas} replicas; "
                f"give one seed for each"
            )
        if self.indices is None:
            return TrainConfig.of(lr=lr, epochs=self.n_steps, batch_size=None, **settings)
        batch = int(self.indices.shape[2])
        one_pass = self.problem.d // batch if self.problem.d % batch == 0 else self.n_steps
        m = min(one_pass, self.n_steps)
        if steps_per_epoch is not None:
            m = checks.count("steps_per_epoch", steps_per_epoch)
        if self.n_steps % m:
            raise InputError(
                f"{self.n_steps} steps do not make whole epochs of {m}; give steps_per_epoch"
            )
        order = self.indices.transpose(0, 1).reshape(self.n_replicas, -1, m, batch)
        if bool((order == order[:1]).all()):
            order = order[0]
        n_epochs = int(order.shape[-3])
        return TrainConfig.of(lr=lr, epochs=n_epochs, batch_size=batch, order=order, **settings)

    def steps(
        self,
        w: torch.Tensor,
        state: None,
        samples: Samples,
        sizes: np.ndarray,
        n_epochs: int,
        first: int,
        wanted: Wanted = ALL,
    ) -> tuple[torch.Tensor, None, Recorded]:
        """Look the steps up; see `engines.Engine`."""
        steps = slice(first - 1, first - 1 + n_epochs * len(sizes))
        path = self.w[first - 1 : steps.stop + 1, self.live]
        path = path.clone(memory_format=torch.contiguous_format)  # sums round by the strides
        if self.losses is not None and self.gradients is not None:
            loss, gradient = self.losses[steps, self.live], self.gradients[steps, self.live]
        else:
            loss, gradient = self._computed(path[:-1], samples.indices)
            loss = loss if self.losses is None else self.losses[steps, self.live]
            gradient = gradient if self.gradients is None else self.gradients[steps, self.live]
        return path[-1], None, of_every_step(path, loss, gradient, sizes, wanted)

    def _computed(
        self, w: torch.Tensor, indices: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch losses `(S, R)` and gradients `(S, R, p)` at parameters `(S, R, p)`."""
        problem, (n_steps, n, p) = self.problem, w.shape
        if indices is None:
            every = torch.arange(problem.d).expand(n_steps * n, -1)
        else:
            every = indices.reshape(n, n_steps, -1).transpose(0, 1).reshape(n_steps * n, -1)
        found = [
            problem.losses_and_gradients(part, problem.x[rows], problem.y[rows])
            for part, rows in zip(w.reshape(-1, p).split(BLOCK), every.split(BLOCK), strict=True)
        ]
        loss, gradient = (torch.cat(part) for part in zip(*found, strict=True))
        return loss.reshape(n_steps, n), gradient.reshape(n_steps, n, p)

    def _check_indices(self, indices: Any) -> torch.Tensor:
        array = as_tensor(indices, "indices", finite=False).cpu().numpy()
        array = array[:, None] if array.ndim == 2 else array
        shape = (self.n_steps, self.n_replicas)
        fits = array.ndim == 3 and array.shape[0] == shape[0] and array.shape[1] in (1, shape[1])
        if not fits or array.dtype.kind not in "iu" or array.size == 0:
            raise InputError(
                f"indices have shape {array.shape} and dtype {array.dtype}; expected integers "
                f"(steps, B) = ({shape[0]}, B), or (steps, replicas, B) = {(*shape, 'B')}"
            )
        if array.min() < 0 or array.max() >= self.problem.d:
            raise InputError(
                f"indices go from {array.min()} to {array.max()}; the problem has samples 0 to "
                f"{self.problem.d - 1}"
            )
        every = np.broadcast_to(array, (*shape, array.shape[2]))
        return torch.as_tensor(every.astype(np.int64))  # (S, R, B)

    def _optional(self, name: str, values: Any, shape: tuple[int, ...]) -> torch.Tensor | None:
        if values is None:
            return None
        array = as_tensor(values, name, finite=False).clone().to(self.problem.dtype)
        array = array.unsqueeze(1) if array.dim() == len(shape) - 1 else array
        if tuple(array.shape) != shape:
            raise InputError(f"{name} have shape {tuple(array.shape)}; expected {shape}")
        return array
