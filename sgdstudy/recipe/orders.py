"""Batch orders: which samples come when.

An order is one of `named_orders`, an array, or the user's function. The trainer takes an epoch's
indices from its stream and cuts them into batches. One stream per seed, so that a seed's order
never depends on which other seeds run beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from sgdstudy.errors import InputError, failed, quoted
from sgdstudy.language import to_say, unknown
from sgdstudy.problems.data import WHOLE
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe import draw_cache
from sgdstudy.recipe.named_orders import ADAPTIVE, FRESH, SIZED, UNKNOWN, Draws
from sgdstudy.recipe.named_orders import ORDERS as ORDERS
from sgdstudy.recipe.phases import Phases
from sgdstudy.recipe.replay import Seeded
from sgdstudy.recipe.replay import after as after
from sgdstudy.recipe.replay import seeded as seeded

if TYPE_CHECKING:
    import pandas as pd

APART = 0x5851F42D4C957F2D  # of the generators of another purpose: flips half of a seed's bits
# a name of `ORDERS`, indices (epochs, steps, B), for each seed its own (seeds, epochs, steps, B),
# or a callable (generator, d) -> d indices
OrderLike = (
    str | Seeded | torch.Tensor | np.ndarray | Sequence[Any] | Callable[[torch.Generator, int], Any]
)


class Recipe(Protocol):
    """What of a `TrainConfig` says which samples an epoch sees."""

    @property
    def order(self) -> Any:
        """A name, an array or a function."""

    @property
    def seeds(self) -> Any:
        """The seeds."""

    @property
    def epochs(self) -> int:
        """The most epochs."""

    @property
    def batch_size(self) -> int | None:
        """Samples per step, at first; None: all."""

    def check(self, problem: Problem) -> None:
        """Raise `InputError` where the settings do not fit the problem."""

    def phases(self, d: int) -> Phases:
        """Return the stretches of epochs whose batches are alike, for d samples."""


def generator_of(seed: int, apart: bool = False) -> torch.Generator:
    """Return a seed's generator; one apart gives other numbers, for another purpose.

    The orders of `ORDERS` draw as `DataLoader` does from `torch.Generator().manual_seed(seed)`, and
    `w_init` has such a generator as well. What the user draws from the same seed, an order or a
    stream, would repeat its numbers: the first sample would equal the initial parameters.
    """
    # torch reads the lower 32 bits of a seed: with some of them flipped no two seeds become one
    return torch.Generator().manual_seed(seed ^ APART if apart else seed)


def name_of(order: OrderLike) -> str:
    """Return the name under which an order is logged."""
    if isinstance(order, str):
        return order
    return getattr(order, "__name__", "array")


def is_sized(order: OrderLike) -> bool:
    """Whether which samples come when depends on the batch size."""
    name = order.order if isinstance(order, Seeded) else order
    return isinstance(name, torch.Tensor) or (isinstance(name, str) and name in SIZED)


def is_by_seed(order: OrderLike) -> bool:
    """Whether it is an array that has an order for each seed."""
    return isinstance(order, torch.Tensor) and order.dim() == 4


def of_seeds(order: OrderLike, every: Sequence[int], some: Sequence[int]) -> OrderLike:
    """Return the order of some of a run's seeds.

    Args:
        order: that of the run.
        every: its seeds.
        some: those wanted.

    Raises:
        InputError: an array has none for one of them.
    """
    if not isinstance(order, torch.Tensor) or not is_by_seed(order):
        return order
    for seed in some:
        if seed not in every:
            raise InputError(f"the order is an array for the seeds {quoted(every)}, not {seed}")
    return order[[list(every).index(seed) for seed in some]]


def is_known(order: OrderLike) -> bool:
    """Whether it is known before training which samples come."""
    name = order.order if isinstance(order, Seeded) else order
    return not (isinstance(name, str) and name in UNKNOWN)


def checked_order(order: OrderLike) -> OrderLike:
    """Return the order, an integer array as a tensor `(epochs, steps, B)`, or one for each seed.

    Raises:
        InputError: an unknown name, or an array that is not integers of three or four dimensions.
    """
    if isinstance(order, str):
        if order not in ORDERS:
            raise unknown(to_say("order"), order, ORDERS)
        return order
    if isinstance(order, Seeded):
        checked_order(order.order)
        return order
    if callable(order):
        return order
    try:
        array = np.asarray(order)
    except (TypeError, ValueError, RuntimeError):  # rows of different lengths, sparse tensors
        array = np.empty(0)
    if array.ndim not in (3, 4) or array.dtype.kind not in "iu" or array.size == 0:
        raise InputError(
            f"an order given as an array has shape (epochs, steps, B), or for each seed its own "
            f"(seeds, epochs, steps, B), and integers; this one has shape {array.shape} and dtype "
            f"{array.dtype}"
        )
    return torch.as_tensor(array.astype(np.int64))


def batch_sizes(order: OrderLike, d: int, batch_size: int, drop_last: bool = False) -> list[int]:
    """Return the sizes of an epoch's batches, a ragged last one included unless it is dropped.

    >>> batch_sizes("shuffle", 10, 4), batch_sizes("shuffle", 10, 4, drop_last=True)
    ([4, 4, 2], [4, 4])
    """
    if isinstance(order, torch.Tensor):
        return [order.shape[-1]] * order.shape[-2]
    full, rest = divmod(d, batch_size)
    return [batch_size] * full + ([rest] if rest and not drop_last else [])


def _custom(draw: Any) -> Callable[..., Draws]:
    """Return the stream of an order that a function of the user's draws, epoch by epoch."""

    def stream(generator: torch.Generator, d: int, batch_size: int) -> Draws:
        while True:
            try:
                drawn = draw(generator, d)
            except Exception as error:
                raise failed(f"the order {name_of(draw)!r}", error) from error
            try:
                given = drawn.copy() if isinstance(drawn, np.ndarray) else drawn
                indices = torch.as_tensor(given).flatten()
            except (TypeError, ValueError, RuntimeError):
                indices = torch.empty(0)
            if indices.dtype not in WHOLE:  # truth values would be taken for 0 and 1
                indices = torch.empty(0, dtype=torch.int64)
            indices = indices.to(torch.int64)
            if len(indices) != d or indices.min() < 0 or indices.max() >= d:
                raise InputError(
                    f"the order {name_of(draw)!r} returned {type(drawn).__name__} with "
                    f"{len(indices)} whole numbers; expected {d} indices between 0 and {d - 1} for "
                    f"each epoch"
                )
            yield indices

    return stream


def _cut(draws: Draws, d: int, n: int) -> Draws:
    """Yield the first n of every d indices: the others of an epoch are dropped."""
    for part in draws:
        yield torch.cat([epoch[:n] for epoch in part.split(d)])


NONE = torch.empty(0, dtype=torch.int64)  # no samples


class Sampler:
    """The index streams of R seeds, read side by side.

    Args:
        order: a name of `ORDERS`, an array `(epochs, steps, B)`, R of them, or
            `callable(generator, d)`.
        seeds: R seeds; each has a generator, see `seeded`.
        d: number of samples.
        batch_size: B.
        epoch: samples taken of an epoch's d; None: all.
        apart: whether the generators are apart from those of `w_init`.

    Attributes:
        adaptive: whether an epoch is not known before `learn` has the gradients of the last one.
    """

    def __init__(
        self,
        order: OrderLike,
        seeds: list[int],
        d: int,
        batch_size: int,
        epoch: int | None = None,
        apart: bool = False,
    ) -> None:
        if isinstance(order, Seeded):
            seeds, order = [order.seed] * len(seeds), order.order
        self._generators = [generator_of(seed, apart) for seed in seeds]
        if isinstance(order, torch.Tensor):
            arrays = order if is_by_seed(order) else order.expand(len(seeds), *order.shape)
            self._streams = [iter(array.flatten(1)) for array in arrays]
        else:
            draw = ORDERS[order] if isinstance(order, str) else _custom(order)
            self._streams = [draw(generator, d, batch_size) for generator in self._generators]
        fresh = isinstance(order, str) and order in FRESH
        self._shared = fresh and draw_cache.are_shared()
        if self._shared:
            keys = [(order, seed, d, batch_size) for seed in seeds]
            self._streams = list(map(draw_cache.again, keys, self._streams))
        # independent draws have no epochs, and an array says itself what is in them
        has_epochs = not (isinstance(order, torch.Tensor) or order == "with_replacement")
        if epoch is not None and epoch < d and has_epochs:
            self._streams = [_cut(stream, d, epoch) for stream in self._streams]
        # a shared stream's generator is used by others, too
        self._fresh = fresh and not self._shared
        self._rest = [NONE] * len(seeds)
        self._reorder = ADAPTIVE.get(order) if isinstance(order, str) else None
        self.adaptive = self._reorder is not None
        self._batch_size, self._steps = batch_size, -(-(epoch or d) // batch_size)
        # of an adaptive order's present epoch: samples taken, gradients of its batches
        self._taken: list[torch.Tensor] = []
        self._gradients: list[torch.Tensor] = []
        self._before: torch.Tensor | None = None  # the gradients of the epoch before, (m, R, p)

    @classmethod
    def of(cls, problem: Problem, recipe: Recipe, seeds: list[int]) -> Sampler:
        """Return the sampler of some seeds of a recipe, as training reads it."""
        # as many samples in every epoch
        d, n = problem.d, int(recipe.phases(problem.d).at(0).sizes.sum())
        apart = callable(recipe.order) and problem.draws_starts
        order = of_seeds(recipe.order, recipe.seeds, seeds)
        return cls(order, seeds, d, recipe.batch_size or d, n, apart)

    def take(self, n: int) -> torch.Tensor:
        """Return the next n indices of every seed, shape `(R, n)`.

        Raises:
            InputError: an epoch of an adaptive order whose gradients have not been learned.
        """
        out = torch.empty(len(self._streams), n, dtype=torch.int64)
        rows = out.numpy()  # whose parts are written in a fraction of torch's time
        for r, stream in enumerate(self._streams):
            rest, there = self._rest[r], 0
            while (size := rest.shape[0]) < n - there:
                rows[r, there : there + size] = rest.numpy()
                rest, there = next(stream), there + size
            rows[r, there:] = rest.numpy()[: n - there]
            rest = rest[n - there :] if size > n - there else NONE
            # a view would keep all of it, or change with what a user's own order yields; shared
            # draws are kept anyway
            self._rest[r] = rest if self._shared or rest is NONE else rest.clone()
        if self.adaptive:
            self._taken.append(out)
        return out

    def learn(self, gradients: torch.Tensor) -> None:
        """Take the batch gradients `(S, R, p)` of the samples taken last; orders adapt to them."""
        if self._reorder is None:
            return
        self._gradients.append(gradients.cpu())
        if sum(map(len, self._gradients)) < self._steps:
            return
        done, seen = torch.cat(self._taken, 1), torch.cat(self._gradients)
        self._rest = list(self._reorder(done, seen, self._before, self._batch_size))
        self._taken, self._gradients, self._before = [], [], seen

    def retain(self, live: list[int]) -> None:
        """Go on with these replicas only (positions, not seeds)."""
        self._generators = [self._generators[r] for r in live]
        self._streams = [self._streams[r] for r in live]
        self._rest = [self._rest[r] for r in live]
        self._taken = [indices[live] for indices in self._taken]
        self._gradients = [gradients[:, live] for gradients in self._gradients]
        self._before = None if self._before is None else self._before[:, live]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return what `load_state_dict` needs beside the number of indices taken."""
        if not (self._fresh or self.adaptive):
            return {}
        held = {"rest": torch.stack(self._rest)}
        if self._fresh:
            return {**held, "generators": torch.stack([g.get_state() for g in self._generators])}
        if self._taken:
            held |= {"taken": torch.cat(self._taken, 1), "gradients": torch.cat(self._gradients)}
        return held if self._before is None else {**held, "before": self._before}

    def load_state_dict(self, state: Mapping[str, torch.Tensor], taken: int) -> None:
        """Go on where another sampler of the same seeds stood, after so many indices of each.

        An order that is drawn once, or is the user's own, is read again from the beginning: who
        knows what it remembers. To draw the others again would take up to half the time that
        training took.
        """
        if not state:
            self._skip(taken)
            return
        for generator, numbers in zip(self._generators, state.get("generators", ()), strict=False):
            generator.set_state(numbers.clone())  # torch 2.13 crashes on a row of a tensor
        self._rest = list(state["rest"])
        if "taken" in state:
            self._taken, self._gradients = [state["taken"]], [state["gradients"]]
        self._before = state.get("before")

    def _skip(self, n: int) -> None:
        for r, stream in enumerate(self._streams):
            part, missing = self._rest[r], n
            while missing > len(part):
                missing -= len(part)
                part = next(stream)
            self._rest[r] = part[missing:].clone()


def listing(problem: Problem, config: Recipe) -> pd.DataFrame:
    """Return every sample of every batch of the first seed, as the trainer draws them.

    Columns: `epoch` from 1; `batch`, `sample` in the batch and `index` in the data from 0; `x`
    and `y` where they are numbers.

    Raises:
        InputError: more than the first epoch of an adaptive order, or settings that do not fit.
    """
    import pandas as pd

    config.check(problem)
    phases = config.phases(problem.d)
    sizes, step = phases.sizes_of_steps(), np.arange(phases.n_steps)
    sampler, epoch = Sampler.of(problem, config, [config.seeds[0]]), phases.epochs_before(step)
    index = sampler.take(int(sizes.sum()))[0].numpy()
    rows = pd.DataFrame(
        {
            "epoch": np.repeat(epoch + 1, sizes),
            "batch": np.repeat(step - phases.steps_before(epoch), sizes),
            "sample": np.concatenate([np.arange(n) for n in sizes]),
            "index": index,
        }
    )
    for name, values in (("x", problem.x), ("y", problem.y)):
        if values.dim() == 1:
            rows[name] = values.cpu().numpy()[index]
    return rows
