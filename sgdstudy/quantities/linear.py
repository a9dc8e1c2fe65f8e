"""Statistics of a least-squares problem: closed forms at every step, rows in blocks.

With z = w - w*, sample i has e_i = phi_i.z + r_i and the gradient g_i = 2 e_i phi_i, averaged over
its m outputs; the batch's Hessian is (2 / (B m)) sum phi phi^T. Measured, one core, R = 1024,
B = 10, p = 3: 0.4 us a row for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np

from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.quantities import eigen, spread
from sgdstudy.quantities.chunk import Chunk, ratio
from sgdstudy.quantities.spread import nowhere

BLOCK_VALUES = 65_536  # features gathered at once: few calls, and what they touch stays in cache
MAX_QR_OPERATIONS = 5e9  # about a second
SPREAD = frozenset(spread.SPREAD)
Place = tuple[slice | np.ndarray, slice]  # where a block lies in `(S, R)`: steps, replicas
Block = tuple[Place, int, dict[str, np.ndarray]]  # its place, its rows, their values by name


class Linear:
    """Statistics of a least-squares problem on d samples, in float64."""

    def __init__(self, ls: LeastSquares, d: int) -> None:
        self.d, self.p, self.outputs = d, ls.features.shape[1], len(ls.features) // d
        self.w_star, self.hessian = ls.w_star, ls.hessian
        by_sample = ls.features.reshape(d, self.outputs, self.p)
        self.features = np.ascontiguousarray(by_sample.transpose(1, 2, 0))  # (m, p, d)
        self.residual = np.ascontiguousarray(ls.residual.reshape(d, self.outputs).T)  # (m, d)
        self.curvature = 2 * (by_sample**2).sum((1, 2)) / self.outputs  # (d,), traces

    # ---- of the batches ----------------------------------------------------------------------

    def batch(self, chunk: Chunk, wanted: frozenset[str]) -> dict[str, np.ndarray]:
        """Return statistics of the batches, `(S, R)` each, NaN off the schedule."""
        shape = chunk.loss.shape
        found = nowhere(shape, wanted)
        for positions, samples in chunk.groups():
            names = wanted
            if samples is None:
                whole = wanted & self._of_whole
                names = wanted - whole
                self._fill(found, self._whole_batches(chunk, positions, whole))
                every = np.arange(self.d)
                samples = np.broadcast_to(every, (shape[1], len(positions), self.d))
            if names:
                self._fill(found, self._batches(chunk, positions, samples, names))
        return found

    def _fill(self, found: dict[str, np.ndarray], blocks: Iterable[Block]) -> None:
        for place, count, values in blocks:
            for name, value in values.items():
                target = found[name][place]
                found[name][place] = value[:count].reshape(target.shape)

    def _batches(
        self, chunk: Chunk, positions: np.ndarray, samples: np.ndarray, wanted: frozenset[str]
    ) -> Iterator[Block]:
        """Yield blocks of rows: their place in `(S, R)`, how many, and their values."""
        size = samples.shape[2]
        rows = max(2, BLOCK_VALUES // (size * self.p * self.outputs))
        room = _Room()
        for steps, place in self._blocks(positions, chunk.loss.shape[1], rows):
            index = samples[place[1], steps].transpose(2, 1, 0).reshape(size, -1)
            count = index.shape[1]
            index = _at_least_two(index)
            z = _rows_last(chunk.w[place] - self.w_star)
            update = _rows_last(chunk.w_next[place] - chunk.w[place]) if "alpha" in wanted else z
            yield place, count, self._block(index, z, update, wanted, room)

    def _blocks(self, positions: np.ndarray, n: int, rows: int) -> Iterator[tuple[slice, Place]]:
        """Cut steps at `positions` of n replicas into blocks of about `rows`."""
        together = max(1, rows // n)
        for start in range(0, len(positions), together):
            steps = slice(start, start + together)
            part = positions[steps]
            # neighbouring steps are taken by a slice: no copy
            neighbours = part[-1] - part[0] == len(part) - 1
            where = slice(part[0], part[-1] + 1) if neighbours else part
            for first in range(0, n, rows):
                yield steps, (where, slice(first, first + rows))

    def _block(
        self,
        index: np.ndarray,
        z: np.ndarray,
        update: np.ndarray,
        wanted: frozenset[str],
        room: _Room,
    ) -> dict[str, np.ndarray]:
        """Return statistics of n rows: samples `(B, n)`, z and the update `(p, n)`."""
        (size, n), m = index.shape, self.outputs
        values: dict[str, np.ndarray] = {}
        if "hess_trace" in wanted:
            curvature = self.curvature.take(index, mode="clip", out=room("error", 1, size, n)[0])
            values["hess_trace"] = np.add.reduce(curvature, axis=0) / size
        if wanted <= {"hess_trace"}:
            return values
        phi, work = room("phi", m, self.p, size, n), room("work", self.p, size, n)
        for o in range(m):
            np.take(self.features[o], index, axis=1, out=phi[o], mode="clip")
        if "hess_max_eig" in wanted:
            values["hess_max_eig"] = _top_of_gram(phi) * 2 / (size * m)
        if wanted <= {"hess_trace", "hess_max_eig"}:
            return values
        error = room("error", m, size, n)
        for o in range(m):
            self.residual[o].take(index, mode="clip", out=error[o])
            error[o] += _dot(phi[o], z, room("dot", size, n), work[0])
        if "alpha" in wanted:
            values["alpha"] = _alpha(phi, error, update, room("dot", size, n), work[0])
        if wanted & SPREAD or "histogram" in wanted:
            gradients = phi[0]  # phi is not needed any more
            for o in range(m):
                error[o] *= 2 / m
                phi[o] *= error[o]
                if o:
                    gradients += phi[o]
            if "histogram" in wanted:
                values["histogram"] = spread.histogram(gradients)
            mean = spread.centre(gradients)
            sums = spread.sums(gradients, mean, wanted, work)
            values |= spread.statistics(sums, mean, size, wanted)
        return values

    # ---- batches of all the data -------------------------------------------------------------

    @cached_property
    def _of_whole(self) -> frozenset[str]:
        """What is known of a batch of all the data without going through the samples."""
        known = {"alpha", "hess_max_eig", "hess_trace"}
        if self.p * (self.p + 1) ** 2 < 2 * self.d:
            known |= SPREAD
        return frozenset(known)

    @cached_property
    def _stand_ins(self) -> np.ndarray:
        """Maps `(p, p + 1, q)`: q = p (p + 1) centred gradients that spread as all d do.

        g_i - g = A_i (z, 1), and the triangular root of the stacked A_i has few rows.
        """
        p = self.p
        root = _root((c.reshape(-1, p * (p + 1)) for c in self._centred_maps()), p * (p + 1))
        return np.ascontiguousarray(root.reshape(-1, p, p + 1).transpose(1, 2, 0))

    def _whole_batches(
        self, chunk: Chunk, positions: np.ndarray, wanted: frozenset[str]
    ) -> Iterator[Block]:
        rows = max(2, BLOCK_VALUES // (self.p * self.p * (self.p + 1)))
        for _, place in self._blocks(positions, chunk.loss.shape[1], rows):
            z = _rows_last(chunk.w[place] - self.w_star)
            mean = _matrix(self.hessian, z)
            count, values = chunk.loss[place].size, {}
            if "alpha" in wanted:
                s = _rows_last(chunk.w_next[place] - chunk.w[place])
                values["alpha"] = ratio(-_inner(s, _matrix(self.hessian, s)), _inner(mean, s)) - 1
            for name in wanted & {"hess_max_eig", "hess_trace"}:
                values[name] = np.full(z.shape[1], self._constants[name])
            if wanted & SPREAD:
                maps = self._stand_ins[..., None]
                centred = maps[:, -1] + np.zeros(z.shape[1])
                for k, row in enumerate(z):
                    centred += maps[:, k] * row
                sums = spread.sums(centred, mean, wanted)
                values |= spread.statistics(sums, mean, self.d, wanted)
            yield place, count, values

    # ---- of all the data ---------------------------------------------------------------------

    def full(self, chunk: Chunk, wanted: frozenset[str]) -> dict[str, np.ndarray]:
        """Return statistics of all the data at every step, `(S, R)` each."""
        shape = chunk.loss.shape
        found = {}
        for name in wanted & {"full_hess_max_eig", "full_hess_trace"}:
            found[name] = np.full(shape, self._constants[name.removeprefix("full_")])
        if "full_square" in wanted:
            rows = chunk.full_gradient.reshape(-1, self.p).T
            found["full_square"] = spread.square(_at_least_two(rows))[: rows.shape[1]]
            found["full_square"] = found["full_square"].reshape(shape)
        if "full_trace_sigma" in wanted:
            found["full_trace_sigma"] = np.empty(shape)
            every = np.arange(shape[0])
            for _, place in self._blocks(every, shape[1], BLOCK_VALUES // (self.p + 1)):
                z = _rows_last(chunk.w[place] - self.w_star)
                terms = _matrix(self._root[:, :-1], z) + self._root[:, -1:]
                value = spread.square(terms) / self.d
                target = found["full_trace_sigma"][place]
                found["full_trace_sigma"][place] = value[: target.size].reshape(target.shape)
        return found

    @cached_property
    def _constants(self) -> dict[str, float]:
        eigenvalues = np.linalg.eigvalsh(self.hessian)
        return {
            "hess_max_eig": float(eigenvalues[-1]),
            "hess_trace": float(np.mean(self.curvature)),
        }

    @cached_property
    def _root(self) -> np.ndarray:
        """Triangular root `(p + 1, p + 1)`: sum |g_i - g|^2 over all data is |root (z, 1)|^2."""
        return _root((c.reshape(-1, self.p + 1) for c in self._centred_maps()), self.p + 1)

    def _centred_maps(self) -> Iterator[np.ndarray]:
        """Yield, in blocks of samples, A_i `(b, p, p + 1)` with g_i - g = A_i (z, 1)."""
        step = max(1, 1_000_000 // (self.p * (self.p + 1) * self.outputs))

        def maps(block: slice) -> np.ndarray:
            phi = self.features[:, :, block]
            both = np.concatenate([phi, self.residual[:, None, block]], axis=1)
            terms = (2 / self.outputs) * phi[:, :, None] * both[:, None]
            return terms.sum(0).transpose(2, 0, 1)

        blocks = [slice(start, start + step) for start in range(0, self.d, step)]
        first = maps(slice(0, 1))
        mean = sum((maps(block) - first).sum(0) for block in blocks) / self.d
        for block in blocks:
            yield maps(block) - first - mean


class _Room:
    """Arrays used again and again: the system would clear fresh memory every time, at length."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    def __call__(self, name: str, *shape: int) -> np.ndarray:
        """Return an array of this name and shape, holding anything."""
        if name not in self._arrays or self._arrays[name].shape != shape:
            self._arrays[name] = np.empty(shape)
        return self._arrays[name]


def _alpha(
    phi: np.ndarray, error: np.ndarray, update: np.ndarray, out: np.ndarray, work: np.ndarray
) -> np.ndarray:
    """Return -(g(w + s).s) / (g(w).s) = -1 - sHs / g.s; the factors 2 / (B m) cancel."""
    curved, slope = np.zeros(phi.shape[-1]), np.zeros(phi.shape[-1])
    for part, e in zip(phi, error, strict=True):
        along = _dot(part, update, out, work)
        slope += np.add.reduce(np.multiply(along, e, out=work), axis=0)
        along *= along
        curved += np.add.reduce(along, axis=0)
    return -1 - ratio(curved, slope)


def _top_of_gram(phi: np.ndarray) -> np.ndarray:
    """Return the top eigenvalue of sum phi phi^T for features `(m, p, B, n)`, per row.

    That of the smaller Gram matrix: of the p parameters, or of the m B samples.
    """
    m, p, size, n = phi.shape
    vectors = phi[0] if m == 1 else phi.transpose(1, 0, 2, 3).reshape(p, m * size, n)
    if m * size < p:
        vectors = vectors.transpose(1, 0, 2)
    k = len(vectors)
    if k > 3:
        stacked = np.ascontiguousarray(vectors.transpose(2, 0, 1))
        return eigen.largest(np.moveaxis(stacked @ stacked.transpose(0, 2, 1), 0, -1))
    gram = np.empty((k, k, n))
    for i in range(k):
        for j in range(i, k):
            gram[i, j] = np.add.reduce(vectors[i] * vectors[j], axis=0)
    return eigen.largest(gram)


def _dot(phi: np.ndarray, vector: np.ndarray, out: np.ndarray, work: np.ndarray) -> np.ndarray:
    """Return phi.v `(B, n)` for features `(p, B, n)` and v `(p, n)`, in `out`."""
    np.multiply(phi[0], vector[0], out=out)
    for k in range(1, len(phi)):
        out += np.multiply(phi[k], vector[k], out=work)
    return out


def _inner(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.add.reduce(a * b, axis=0)


def _matrix(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return matrix @ vectors `(k, n)`; up to 16 parameters without BLAS, see `_times` there."""
    if len(vectors) > 16:
        return matrix @ vectors
    total = matrix[:, :1] * vectors[0]
    for k in range(1, len(vectors)):
        total += matrix[:, k : k + 1] * vectors[k]
    return total


def _rows_last(vectors: np.ndarray) -> np.ndarray:
    """Return `(p, n)` of vectors `(s, r, p)`."""
    return _at_least_two(np.ascontiguousarray(vectors.reshape(-1, vectors.shape[-1]).T))


def _at_least_two(rows: np.ndarray) -> np.ndarray:
    """Double a single row: numpy would add up along the wrong axis, and round otherwise."""
    return rows if rows.shape[1] > 1 else np.repeat(rows, 2, axis=1)


def _root(blocks: Iterable[np.ndarray], width: int) -> np.ndarray:
    """Return a root `(k, width)` with root^T root = sum of block^T block, by QR, block by block.

    Where that would take long, by the eigenvectors of that sum, its columns scaled.
    """
    root, gram, operations = np.zeros((0, width)), np.zeros((width, width)), 0.0
    for block in blocks:
        operations += 2 * len(block) * width**2
        if operations < MAX_QR_OPERATIONS:
            root = np.asarray(np.linalg.qr(np.vstack([root, block]), mode="r"))
        else:
            gram += block.T @ block
    if not gram.any():
        return root
    gram += root.T @ root
    scale = np.sqrt(np.diag(gram))
    scale[scale == 0] = 1
    values, vectors = np.linalg.eigh(gram / np.outer(scale, scale))
    return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T * scale
