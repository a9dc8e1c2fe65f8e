"""Statistics of any differentiable problem, by torch.func, on the chunk's schedule, in float64.

Per-sample gradients by vmap(grad), whatever the model is made of; Hessians exactly up to
`EXACT_PARAMETERS`, above by products with it: the top eigenvalue by Lanczos, the trace by
Hutchinson. What probes those is drawn once, from a generator of this module's own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.func import grad, vmap

from sgdstudy.errors import InputError, first_line
from sgdstudy.problems import together, trial
from sgdstudy.quantities import eigen, spread
from sgdstudy.quantities.spread import nowhere

if TYPE_CHECKING:
    from sgdstudy.problems.problem import Problem
    from sgdstudy.quantities.chunk import Chunk

EXACT_PARAMETERS = 64
LANCZOS_STEPS = 24  # the top eigenvalue to 1e-8 or so on small networks
PROBES = 32  # of the trace: its relative standard error is sqrt(2 / 32) |H|_F / tr(H)
BLOCK_VALUES = 4_000_000  # values of gradients, or of products with Hessians, held at once
SPREAD = frozenset(spread.SPREAD)
ROUNDING = 64 * np.finfo(float).eps  # relative to the gradients; smaller differences are rounding

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # w (n, p), x (n, B, ...), y (n, B, ...)


class Autograd:
    """Statistics of a problem whose loss is any differentiable function."""

    def __init__(self, problem: Problem) -> None:
        self.problem = _exact(problem)
        # a norm of all residuals is no mean over samples: no sample has a gradient of its own
        self.adds_up = self.problem.adds_up
        self.loss: Callable[..., torch.Tensor] = self._loss

    def batch(self, chunk: Chunk, wanted: frozenset[str]) -> dict[str, np.ndarray]:
        """Return statistics of the batches, `(S, R)` each, NaN off the schedule."""
        found = nowhere(chunk.loss.shape, wanted)
        if not self.adds_up:
            wanted -= SPREAD | {"histogram"}
        n = chunk.loss.shape[1]
        for positions, samples in chunk.groups():
            rows = np.repeat(positions, n), np.tile(np.arange(n), len(positions))
            index = None
            if samples is not None:
                index = samples.transpose(1, 0, 2).reshape(len(rows[0]), -1)
            self._fill(found, chunk, rows, index, wanted)
        return found

    def full(self, chunk: Chunk, wanted: frozenset[str]) -> dict[str, np.ndarray]:
        """Return statistics of all the data where the full gradient is known too.

        That is where an epoch starts, and with full batch everywhere; of these the scheduled
        steps, with full batch or where `diagnostics_every` asks for a schedule.
        """
        of_batch = {
            "full_square": "square",
            "full_trace_sigma": "scatter",
            "full_hess_max_eig": "hess_max_eig",
            "full_hess_trace": "hess_trace",
        }
        found = nowhere(chunk.loss.shape, [of_batch[name] for name in wanted])
        known = np.isfinite(chunk.full.put(chunk.full.vectors[..., 0]))
        if chunk.indices is None or chunk.every is not None:
            known &= chunk.scheduled[:, None]
        names = frozenset(found) if self.adds_up else frozenset(found) - SPREAD
        self._fill(found, chunk, np.nonzero(known), None, names)
        if "scatter" in found:
            found["scatter"] /= self.problem.d
        return {name: found[of_batch[name]] for name in wanted}

    def _fill(
        self,
        found: dict[str, np.ndarray],
        chunk: Chunk,
        rows: tuple[np.ndarray, ...],
        index: np.ndarray | None,
        wanted: frozenset[str],
    ) -> None:
        """Put the statistics of rows (positions of steps, of replicas) in their places."""
        size = self.problem.d if index is None else index.shape[1]
        at_once = max(1, BLOCK_VALUES // (self.problem.p * max(size, EXACT_PARAMETERS)))
        for start in range(0, len(rows[0]) if wanted else 0, at_once):
            part = slice(start, start + at_once)
            place = rows[0][part], rows[1][part]
            samples = None if index is None else torch.as_tensor(index[part])
            w, w_next = (self._tensor(values[place]) for values in (chunk.w, chunk.w_next))
            try:
                values = self._values(w, w_next, samples, wanted)
            except (RuntimeError, NotImplementedError, ValueError) as error:
                raise InputError(
                    f"torch.func cannot go through this model for the diagnostics: "
                    f"{first_line(error)}. diagnostics='light' works without it"
                ) from error
            for name, value in values.items():
                found[name][place] = value

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, dtype=self.problem.dtype)

    def _values(
        self,
        w: torch.Tensor,
        w_next: torch.Tensor,
        samples: torch.Tensor | None,
        wanted: frozenset[str],
    ) -> dict[str, np.ndarray]:
        x, y = self.problem.x, self.problem.y
        if samples is None:
            batch = w, x.expand(len(w), *x.shape), y.expand(len(w), *y.shape)
        else:
            batch = w, x[samples], y[samples]
        values: dict[str, np.ndarray] = {}
        if wanted & SPREAD or "histogram" in wanted:
            values |= self._spread(batch, wanted)
        if "alpha" in wanted:
            values["alpha"] = self._alpha(batch, w_next)
        if wanted & {"hess_max_eig", "hess_trace"}:
            values |= self._curvature(batch, wanted)
        return values

    # ---- how ---------------------------------------------------------------------------------

    @cached_property
    def follows(self) -> bool:
        """Whether `torch.func`, where it runs, gives the derivatives of plain autograd.

        It skips hooks, and not all of its rules are right; see `problems.together`.
        """
        w = trial.points(self.problem)
        with together.trying():
            for rows, scale in together.batches(self.problem.x):
                batch = w, self.problem.x[rows], self.problem.y[rows]
                if not all(self._agree(batch, scale)):
                    return False
        return True

    def _agree(self, batch: Batch, scale: float) -> Iterator[bool]:
        """Yield of each derivative of a multiple of the loss whether both ways agree."""
        ours, plain = copy.copy(self), copy.copy(self)
        ours.follows, plain.follows = True, False
        draw = torch.Generator().manual_seed(0)
        vectors = torch.randn(2, *batch[0].shape, generator=draw).to(batch[0])
        for way in (ours, plain):
            way.loss = lambda *given: scale * self._loss(*given)
        derivatives: tuple[Callable[[Autograd], torch.Tensor], ...] = (
            lambda way: way._gradients(batch),
            lambda way: way.map(way._of_each)(*batch),
            lambda way: way.map(way._products(batch))(vectors),
        )
        for derivative in derivatives:
            try:
                found = derivative(ours), derivative(plain)
            except Exception:  # as with batch normalisation of one sample: said where it is wanted
                continue
            yield together.near(*found)

    @property
    def map(self) -> Callable[[Any], Any]:
        """What makes a function of one replica one of several."""
        return vmap if self.follows else together.one_by_one

    @property
    def slope(self) -> Callable[[Any], Any]:
        """What makes a function its gradient."""
        return grad if self.follows else _plain

    # ---- gradients ---------------------------------------------------------------------------

    def _loss(self, w: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Loss of one batch at one w `(p,)`."""
        loss, penalties = self.problem.batch_loss, self.problem.penalties
        found = loss(self.problem.model(w, x)[None], y[None])[0]
        return found if penalties is None else found + penalties(w[None])[0]

    def _loss_of_one(self, w: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.loss(w, x[None], y[None])

    def _gradients(self, batch: Batch) -> torch.Tensor:
        """Gradients of the batch losses, `(n, p)`."""
        return self.map(self.slope(self.loss))(*batch)

    def _by_sample(self, batch: Batch) -> Iterator[np.ndarray]:
        """Yield the samples' gradients `(p, b, n)`, some samples at a time where they are many."""
        each = self.map(self._of_each)
        w, x, y = batch
        at_once = max(1, BLOCK_VALUES // w.numel())
        for start in range(0, x.shape[1], at_once):
            part = slice(start, start + at_once)
            gradients = each(w, x[:, part], y[:, part]).double().numpy()
            yield np.ascontiguousarray(gradients.transpose(2, 1, 0))

    def _of_each(self, w: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Gradients of the samples at one w, `(b, p)`."""
        slope = self.slope(self._loss_of_one)
        return self.map(lambda *sample: slope(w, *sample))(x, y)

    def _spread(self, batch: Batch, wanted: frozenset[str]) -> dict[str, np.ndarray]:
        size = batch[1].shape[1]
        at_once = size * batch[0].numel() <= BLOCK_VALUES
        total: dict[str, np.ndarray] = {}
        # gradients that do not fit into memory at once take a first pass for their mean
        mean = np.empty(0) if at_once else self._gradients(batch).double().numpy().T
        counts = np.zeros((len(batch[0]), len(spread.EDGES) + 1))
        for gradients in self._by_sample(batch):
            if "histogram" in wanted:
                counts += spread.histogram(gradients)
            noise = ROUNDING * np.abs(gradients).max(1, keepdims=True)
            if at_once:
                mean = spread.centre(gradients)
            else:
                gradients -= mean[:, None]
            # rounding: a kernel may treat its last samples differently
            gradients[np.abs(gradients) <= noise] = 0
            for name, value in spread.sums(gradients, mean, wanted).items():
                total[name] = total.get(name, 0.0) + value
        values = spread.statistics(total, mean, size, wanted)
        if "histogram" in wanted:
            values["histogram"] = counts
        return values

    def _alpha(self, batch: Batch, w_next: torch.Tensor) -> np.ndarray:
        w, x, y = batch
        update = w_next - w
        before = (self._gradients(batch) * update).sum(1)
        after = (self._gradients((w_next, x, y)) * update).sum(1)
        return torch.where(before == 0, torch.nan, -after / before).numpy()

    # ---- curvature ---------------------------------------------------------------------------

    def _curvature(self, batch: Batch, wanted: frozenset[str]) -> dict[str, np.ndarray]:
        values: dict[str, np.ndarray] = {}
        product = self._products(batch)
        n, p = batch[0].shape
        if p <= EXACT_PARAMETERS:
            columns = self.map(product)(torch.eye(p).to(batch[0])[:, None].expand(p, n, p))
            matrices = columns.double().numpy()  # (p, n, p)
            if "hess_trace" in wanted:
                values["hess_trace"] = np.trace(matrices, axis1=0, axis2=2)
            if "hess_max_eig" in wanted:
                values["hess_max_eig"] = eigen.largest(matrices.transpose(0, 2, 1))
            return values
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(p, generator=generator, dtype=torch.float64).to(batch[0])
        signs = torch.randint(0, 2, (PROBES, 1, p), generator=generator).to(batch[0]) * 2 - 1
        if "hess_max_eig" in wanted:
            values["hess_max_eig"] = lanczos(product, start.expand(n, p))
        if "hess_trace" in wanted:
            products = self.map(product)(signs.expand(PROBES, n, p))
            values["hess_trace"] = (products * signs).sum(2).mean(0).double().numpy()
        return values

    def _products(self, batch: Batch) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return v -> H v, `(n, p)` each, by going backward twice.

        The way back from the gradients is kept, so that a product costs one pass. (Forward over
        backward would need rules that fewer operations have.)
        """
        w, x, y = batch
        w = w.clone().requires_grad_()
        values = self.map(self.loss)(w, x, y)
        (gradients,) = torch.autograd.grad(values.sum(), w, create_graph=True)

        def product(vectors: torch.Tensor) -> torch.Tensor:
            if not gradients.requires_grad:  # a loss linear in w
                return torch.zeros_like(vectors)
            (found,) = torch.autograd.grad(
                gradients, w, vectors, retain_graph=True, materialize_grads=True
            )
            return found

        return product


def _plain(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return the gradient of a function of w, by autograd as in a plain loop."""

    def gradient(w: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        w = w.detach().clone().requires_grad_()
        (found,) = torch.autograd.grad(function(w, *given), w)
        return found

    return gradient


def lanczos(product: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor) -> np.ndarray:
    """Return the largest eigenvalues of n symmetric operators, from below (Lanczos 1950).

    With every new direction made orthogonal to all before. A start that is spent (few distinct
    eigenvalues) goes on with zeros, whose place in the small matrix is filled so that it
    changes nothing.

    Args:
        product: vectors `(n, p)` -> products `(n, p)`.
        start: `(n, p)`.

    Returns:
        `(n,)`.
    """
    n, steps = len(start), min(LANCZOS_STEPS, start.shape[1])
    q = start / start.norm(dim=1, keepdim=True)
    basis, diagonal, beside = [q], list[torch.Tensor](), list[torch.Tensor]()
    for _ in range(steps):
        v = product(q)
        inner = (q * v).sum(1)
        spent = ~(q != 0).any(1)
        diagonal.append(torch.where(spent, diagonal[0], inner) if diagonal else inner)
        for _again in range(2):  # twice is enough (Giraud, Langou 2005)
            for other in basis:
                v = v - (other * v).sum(1, keepdim=True) * other
        length = v.norm(dim=1)
        scale = torch.stack([d.abs() for d in diagonal] + beside).amax(0)
        length = torch.where(length > 1e-10 * scale, length, 0)
        q = torch.where(length[:, None] > 0, v / length[:, None], 0)
        basis.append(q)
        beside.append(length)
    small = np.zeros((steps, steps, n))
    for i in range(steps):
        small[i, i] = diagonal[i].double().numpy()
        if i + 1 < steps:
            small[i, i + 1] = beside[i].double().numpy()
    return eigen.largest(small)


def _exact(problem: Problem) -> Problem:
    """Return the problem in float64 on the CPU; in its own dtype if the model cannot run so.

    A copy: what is kept for a problem must not keep it alive.
    """
    exact = copy.copy(problem.to(torch.float64, "cpu"))
    try:
        with torch.no_grad():
            x, y = exact.x[: trial.TRIED], exact.y[: trial.TRIED]
            exact.batch_loss(exact.model(exact.initial([0])[0], x)[None], y[None])
    except (RuntimeError, TypeError, ValueError):
        return copy.copy(problem.to(problem.dtype, "cpu"))
    return exact
