"""What an engine records of a chunk of steps: numbers of each of them, vectors of some."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from sgdstudy.quantities.chunk import norm

STRETCH = 1024  # numbers whose squares are added up in their own dtype
TINY = 1e-15  # a length: squares of many smaller numbers vanish in float32
FEW = 1000  # numbers of a step: below, a line of Python for each costs more than its sum


class Wanted(NamedTuple):
    """What is to be recorded of steps.

    Attributes:
        every_step: whether parameters and gradients of every step are kept; else only those at the
            first step of each epoch, and the parameters at the end of each. A replica whose loss or
            gradient is not finite then stands still, so that its last parameters are the ones it
            had; in float64 the norm of a finite gradient may be infinite.
        start: parameters that distances are measured from, `(R, p)`; None: those of the first step.
        sums: of the first epoch's gradients before these steps, `(R, p)`; None: there were none.
    """

    every_step: bool = True
    start: torch.Tensor | None = None
    sums: np.ndarray | None = None


ALL = Wanted()


class Recorded(NamedTuple):
    """S steps of R replicas, in E epochs (or in a part of one); k of them, all or E, with vectors.

    Attributes:
        w: parameters before these k steps, and after the last, `(k+1, R, p)`.
        loss: of the batch, before the step, `(S, R)`.
        gradient: of the k steps, `(k, R, p)`.
        norms: lengths of the gradient, the update, and the way from the start to w, `(3, S, R)`.
        sums: of the epochs' gradients, weighted by the sizes of the batches, `(E, R, p)`.
    """

    w: torch.Tensor
    loss: torch.Tensor
    gradient: torch.Tensor
    norms: np.ndarray
    sums: np.ndarray

    @property
    def every(self) -> int:
        """From how many steps one has its vectors kept."""
        return len(self.loss) // len(self.gradient)


def of_every_step(
    w: torch.Tensor, loss: torch.Tensor, gradient: torch.Tensor, sizes: np.ndarray, wanted: Wanted
) -> Recorded:
    """Return the record of steps `(S, R, p)` all of whose vectors are kept."""
    path, slopes = w.cpu().numpy(), gradient.cpu().numpy()
    start = path[0] if wanted.start is None else wanted.start.cpu().numpy()
    by_epoch = slopes.reshape(-1, len(sizes), *slopes.shape[1:])
    before = None if wanted.sums is None else wanted.sums[None]
    sums = sum_weighted(by_epoch, sizes, before)
    return Recorded(w, loss, gradient, norms_of(path, slopes, start), sums)


def norms_of(path: np.ndarray, slopes: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the norms `(3, S, R)` of steps all of whose vectors are kept."""
    return np.stack([norm(slopes), norm(path[1:], path[:-1]), norm(path[:-1], start)])


class Sparing:
    """Takes down steps whose vectors are too large to be kept, each at once.

    Args:
        w: parameters before the first step, `(R, p)`.
        sizes: of the batches of an epoch, or of a part of one, `(m,)`.
        n_epochs: how often these come.
        wanted: what is recorded.
    """

    def __init__(self, w: torch.Tensor, sizes: np.ndarray, n_epochs: int, wanted: Wanted) -> None:
        self.sizes: list[int] = sizes.tolist()
        self.w, self.start = w, w if wanted.start is None else wanted.start
        self.over = torch.zeros(len(w), dtype=torch.bool, device=w.device)
        self.sums = torch.zeros(n_epochs, *w.shape, dtype=torch.float64, device=w.device)
        if wanted.sums is not None:
            self.sums[0] = torch.as_tensor(wanted.sums)
        self.ws: list[torch.Tensor] = [w]
        self.losses: list[torch.Tensor] = []
        self.gradients: list[torch.Tensor] = []
        self.norms = w.new_empty(3, n_epochs * len(sizes), len(w), dtype=torch.float64)
        self.way = torch.empty_like(w)  # one for all steps: large memory that is new is slow

    def add(self, loss: torch.Tensor, gradient: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Take down a step that led to w; return w, but for replicas that stand still."""
        step = len(self.losses)
        epoch, batch = divmod(step, len(self.sizes))
        self.norms[0, step] = lengths(gradient)
        self.norms[1, step] = lengths(torch.sub(w, self.w, out=self.way))
        self.norms[2, step] = lengths(torch.sub(self.w, self.start, out=self.way))
        self.sums[epoch].add_(gradient, alpha=self.sizes[batch])
        self.losses.append(loss)
        self.over |= ~torch.isfinite(loss + self.norms[0, step])
        if self.over.any():  # a host sync
            w = torch.where(self.over[:, None], self.w, w)
        if batch == 0:
            self.gradients.append(gradient.clone())
        self.w = w
        if batch == len(self.sizes) - 1:
            self.ws.append(w)
        return w

    def recorded(self) -> Recorded:
        """Return what was taken down."""
        vectors = torch.stack(self.ws), torch.stack(self.losses), torch.stack(self.gradients)
        return Recorded(*vectors, self.norms.cpu().numpy(), self.sums.cpu().numpy())


def lengths(vectors: torch.Tensor) -> torch.Tensor:
    """Return the Euclidean norms `(R,)` of vectors `(R, p)`, in float64.

    Stretches of a vector in its own dtype, which needs no copy of it; all of it in float64 where a
    square would be too large for that, or too small.
    """
    n, rest = divmod(vectors.shape[1], STRETCH)
    norm_of = torch.linalg.vector_norm
    parts = norm_of(vectors[:, : n * STRETCH].unflatten(1, (n, STRETCH)), dim=2).double()
    if rest:
        parts = torch.cat([parts, norm_of(vectors[:, n * STRETCH :], dim=1).double()[:, None]], 1)
    found = norm_of(parts, dim=1)
    if ((found > TINY) & (found < torch.inf)).all():
        return found
    return norm_of(vectors, dim=1, dtype=torch.float64)


def sum_batches(values: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """Add up `(E, m, R, ...)` over m one by one, after what came before `(E, R, ...)`.

    A sum of sums would round by where the chunks end, and numpy's own sum does by how many seeds
    run: it adds up in pairs where m is the axis that is fast in memory, one by one elsewhere.
    """
    if before is not None:
        values = np.concatenate([before[:, None], values], axis=1)
    if values[0, 0].size > 1:
        return np.add.reduce(np.ascontiguousarray(values), axis=1)
    return np.add.accumulate(values, axis=1)[:, -1]


def sum_weighted(values: np.ndarray, weights: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """Add up the weighted `(E, m, R, p)` over m one by one, in float64; see `sum_batches`."""
    if values[:, 0].size < FEW:
        return sum_batches(values * weights[:, None, None], before)
    total = values[:, 0] * weights[0] if before is None else before + values[:, 0] * weights[0]
    for k in range(1, values.shape[1]):  # all products at once would be twice the gradients
        total += values[:, k] * weights[k]
    return total
