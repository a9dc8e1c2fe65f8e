"""The epochs of seeds whose orders are known before they run, in float64.

With y = (z, 1), z = w - w*, a step on a batch is y -> A y and the batch's loss y^T S y, where S is
the batch's mean of (phi, residual)(phi, residual)^T and A = I - 2 lr S, but for its last row, which
is (0, 1). The batches of an epoch are multiplied out pair by pair, for all seeds at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sgdstudy.problems.least_squares import LeastSquares
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.recipe.orders import Sampler
from sgdstudy.theory import fixed_order, order_batches

FIXED_ORDERS = ("sequential", "reversed", "strided")


class Ends(NamedTuple):
    """What R seeds have at the end of an epoch.

    Attributes:
        running: the epoch's running loss, `(R,)`.
        z: the parameters less w*, `(R, p)`.
        growth: by how much a stretch of the epoch's batches multiplies an error, `(R,)`, at least
            1: of a fixed order the most, of others the largest of the products that were made.
    """

    running: np.ndarray
    z: np.ndarray
    growth: np.ndarray


def epoch_ends(
    problem: Problem, config: TrainConfig, ls: LeastSquares, starts: np.ndarray
) -> Iterator[Ends]:
    """Yield what the seeds of a configuration have at the end of every epoch.

    Args:
        problem: of mean square loss, linear in w.
        config: plain steps of SGD, in an order that is known before the run.
        starts: where the seeds start, `(R, p)`.
    """
    sizes, d, fixed = config.batch_sizes(problem.d), problem.d, str(config.order) in FIXED_ORDERS
    rows = np.column_stack([ls.features, ls.residual]).reshape(d, -1)  # (d, outputs q)
    seeds = list(config.seeds[:1] if fixed else config.seeds)
    sampler = Sampler.of(problem, config, seeds)
    y = np.column_stack([starts - ls.w_star, np.ones(len(starts))])[:, :, None]
    share, epoch = np.array(sizes) / sum(sizes), None
    while True:
        if epoch is None or not fixed:
            squares = _squares(rows, sampler.take(sum(sizes)).numpy(), sizes, len(ls.w_star) + 1)
            epoch = _multiplied(squares, share, config.lr)
            if fixed:  # once: over all stretches, not only those that were multiplied
                most = fixed_order.growth(order_batches.batches(problem, config), config.lr).factor
                epoch = epoch._replace(growth=np.array([most if most > 1 + 1e-12 else 1.0]))
        with np.errstate(all="ignore"):  # of seeds that diverge
            running = (y.swapaxes(-1, -2) @ epoch.form @ y)[:, 0, 0]
            y = epoch.step @ y
        yield Ends(running, y[:, :-1, 0], np.broadcast_to(epoch.growth, len(y)))


def work(problem: Problem, config: TrainConfig) -> float:
    """Return about how many nanoseconds an epoch of all the seeds takes."""
    q, m, n = problem.p + 1, len(config.batch_sizes(problem.d)), len(config.seeds)
    if str(config.order) in FIXED_ORDERS:
        return 2e5 + 50.0 * n * q
    return 4e5 + float(n * (10 * problem.d * q + m * (200 + 3 * q**3)))


class _Epoch(NamedTuple):
    step: np.ndarray  # A of the whole epoch, (R, q, q)
    form: np.ndarray  # its running loss is y^T form y, (R, q, q)
    growth: np.ndarray  # (R,)


def _squares(rows: np.ndarray, taken: np.ndarray, sizes: list[int], q: int) -> np.ndarray:
    """Return S of every batch `(R, m, q, q)`, of the samples' rows `(d, outputs q)`."""
    full, parts = sizes.count(sizes[0]) * sizes[0], []
    for size, part in ((sizes[0], taken[:, :full]), (sizes[-1], taken[:, full:])):
        if part.size:
            batch = rows.take(part, 0).reshape(len(taken), part.shape[1] // size, -1, q)
            turned = np.ascontiguousarray(batch.swapaxes(-1, -2))
            parts.append(turned @ batch / batch.shape[2])
    return np.concatenate(parts, 1)


@np.errstate(all="ignore")  # products may overflow
def _multiplied(squares: np.ndarray, share: np.ndarray, lr: float) -> _Epoch:
    n, _, q, _ = squares.shape
    step, form = -2 * lr * squares, share[:, None, None] * squares
    step[..., -1, :] = 0.0
    step += np.eye(q)
    growth = np.ones(n)
    while True:
        block = step[..., :-1, :-1]
        norms = np.einsum("rmij,rmij->rm", block, block).max(1) / (q - 1)
        growth = np.maximum(growth, np.sqrt(norms))
        m = step.shape[1]
        if m == 1:
            return _Epoch(step[:, 0], form[:, 0], growth)
        rest = [part[:, m - m % 2 :] for part in (step, form)]
        first, second = (np.ascontiguousarray(step[:, i : m - m % 2 : 2]) for i in (0, 1))
        back = np.ascontiguousarray(first.swapaxes(-1, -2))
        form = form[:, : m - 1 : 2] + back @ (form[:, 1::2] @ first)
        step = second @ first
        if m % 2:
            step, form = (
                np.concatenate([x, y], 1) for x, y in zip((step, form), rest, strict=True)
            )
