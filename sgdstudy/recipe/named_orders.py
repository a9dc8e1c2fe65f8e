"""The orders that have a name, and what each promises.

An order is a function `(generator, d, batch_size)` that yields index tensors without end.

An adaptive order also needs what training saw. Its stream yields the first epoch; a function of
`ADAPTIVE` makes every later one from the batch gradients of the two epochs before, for all seeds
at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from sgdstudy.errors import InputError
from sgdstudy.recipe.replay import manual_seed

Draws = Iterator[torch.Tensor]


def sequential(generator: torch.Generator, d: int, batch_size: int) -> Draws:
    """Yield 0, 1, ..., d-1 in every epoch: `DataLoader(shuffle=False)`."""
    while True:
        yield torch.arange(d)


def reversed_(generator: torch.Generator, d: int, batch_size: int) -> Draws:
    """Yield d-1, ..., 1, 0 in every epoch."""
    while True:
        yield torch.arange(d - 1, -1, -1)


def strided(generator: torch.Generator, d: int, batch_size: int) -> Draws:
    """Spread every batch over all the data: batch b holds b, b + m, b + 2m, ... (m batches).

    Where batch_size does not divide d, the same sequence is cut every batch_size samples.
    """
    m = -(-d // batch_size)
    order = torch.cat([torch.arange(b, d, m) for b in range(m)])
    while True:
        yield order


def shuffle(generator: torch.Generator, d: int, batch_size: int) -> Draws:
    """Draw a new permutation in every epoch (random reshuffling).

    The very permutations of `DataLoader(shuffle=True, generator=generator)`: its iterator draws
    one int64 for the workers' base seed, the sampler draws `randperm(d)`, and at the end of the
    epoch a second `randperm(d)` that it throws away; here that comes before the epoch.
    """
    unused_seed = torch.empty((), dtype=torch.int64)
    unused_permutation = torch.empty(d - 1, dtype=torch.int32)
    while True:
        unused_seed.random_(generator=generator)
        permutation = torch.randperm(d, generator=generator)
        # advances the generator as the discarded randperm does, several times faster
        unused_permutation.random_(generator=generator)
        yield permutation


def shuffle_once(generator: torch.Generator, d: int, batch_size: int) -> Draws:
    """Draw one permutation and use it in every epoch."""
    permutation = torch.randperm(d, generator=generator)
    while True:
        yield permutation


def with_replacement(generator: torch.Generator, d: int, batch_size: int) -> Draws:
    """Draw every sample independently; an epoch is d draws."""
    while True:  # blocks of fixed length: the cost of a step does not depend on d
        yield torch.randint(d, (4096,), generator=generator)


def block_shuffle(generator: torch.Generator, d: int, batch_size: int) -> Draws:
    """Keep neighbours together: contiguous batches, visited in random order.

    A ragged last batch stays last, so that every other batch is full.
    """
    full = d // batch_size
    blocks = torch.arange(full * batch_size).reshape(full, batch_size)
    rest = torch.arange(full * batch_size, d)
    while True:
        yield torch.cat([blocks[torch.randperm(full, generator=generator)].flatten(), rest])


def flip_flop(generator: torch.Generator, d: int, batch_size: int) -> Draws:
    """Draw a permutation as `shuffle` does, go through it, then through it backwards, and so on.

    Rajput, Lee, Papailiopoulos: Permutation-Based SGD: Is Random Optimal? (ICLR 2022), FlipFlop.
    """
    for permutation in shuffle(generator, d, batch_size):
        yield torch.cat([permutation, permutation.flip(0)])


def grab(generator: torch.Generator, d: int, batch_size: int) -> Draws:
    """Draw a permutation for the first epoch; `balance` orders all later ones.

    Lu, Guo, De Sa: GraB: Finding Provably Better Data Permutations than Random Reshuffling
    (NeurIPS 2022), Algorithm 4.
    """
    yield torch.randperm(d, generator=generator)
    raise InputError(
        "the order 'grab' follows the gradients of every epoch: only training knows more than its "
        "first epoch; to look ahead, take another order"
    )


def stream(generator: torch.Generator, d: int, batch_size: int) -> Draws:
    """Refuse: training takes the samples of `order="stream"` from the problem's stream."""
    raise InputError(
        "the order 'stream' has no indices: its samples come from the problem's stream and are "
        "never stored; to look ahead, take another order"
    )
    yield


def balance(
    order: torch.Tensor, gradients: torch.Tensor, before: torch.Tensor | None, batch_size: int
) -> torch.Tensor:
    """Return GraB's next epoch, from the epoch just done, for R seeds.

    With c_b the batch gradient less the mean of the epoch before (0 in the first), a running sum s
    takes the sign that keeps it short, eps = +1 if |s + c_b| <= |s - c_b| else -1, s += eps c_b.
    The batches with +1 come first, as they came; those with -1 come last, in reverse.

    The means are of the raw gradients, as published; the authors' code averages the centred ones.
    The samples of a batch stay together, and a ragged last batch stays last.

    Args:
        order: the samples of the epoch, `(R, d)`.
        gradients: the gradient of each of its batches, `(m, R, p)`.
        before: the same of the epoch before, or None.
        batch_size: B.
    """
    n, full = len(order), order.shape[1] // batch_size
    total, front = np.zeros(gradients.shape[1:]), np.empty((full, n), bool)
    mean = total
    if before is not None:  # added one by one: another sum would round by how many seeds run
        mean = np.add.accumulate(before[:full].double().numpy())[-1] / full
    for b, gradient in enumerate(gradients[:full].double().numpy()):
        centred = gradient - mean
        front[b] = (total * centred).sum(1) <= 0  # where |s + c| <= |s - c|
        total = total + np.where(front[b], 1.0, -1.0)[:, None] * centred
    place = np.where(front, front.cumsum(0) - 1, full - (~front).cumsum(0))  # (m, R)
    batches = order[:, : full * batch_size].reshape(n, full, batch_size)
    moved = torch.empty_like(batches)
    moved[torch.arange(n)[:, None], torch.as_tensor(place.T)] = batches
    return torch.cat([moved.flatten(1), order[:, full * batch_size :]], 1)


ORDERS: dict[str, Callable[[torch.Generator, int, int], Draws]] = {
    "sequential": sequential,
    "shuffle": shuffle,
    "manual_seed": manual_seed,
    "shuffle_once": shuffle_once,
    "with_replacement": with_replacement,
    "strided": strided,
    "reversed": reversed_,
    "block_shuffle": block_shuffle,
    "flip_flop": flip_flop,
    "grab": grab,
    "stream": stream,
}
ADAPTIVE = {"grab": balance}
SIZED = ("strided", "block_shuffle", "grab")  # made for one batch size
UNKNOWN = (*ADAPTIVE, "stream")  # what comes is not known before the run
# drawn anew for every part of the stream: what comes next is known from the generator alone
FRESH = ("shuffle", "manual_seed", "with_replacement", "block_shuffle", "flip_flop")
