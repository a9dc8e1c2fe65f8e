"""Orders of other seeds than the run's, and of torch's global generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from sgdstudy import checks
from sgdstudy.errors import InputError, failed, quoted


def manual_seed(generator: torch.Generator, d: int, batch_size: int) -> Iterator[torch.Tensor]:
    """Draw the permutations of `DataLoader(shuffle=True)` after `torch.manual_seed(seed)`.

    The generator stands for torch's global one. In every epoch the loader's iterator draws one
    int64 from it (for workers), and the sampler another, which seeds a generator of its own; that
    one gives `randperm(d)`. Nothing else may draw from the global one; see `after`.
    """
    number = torch.empty((), dtype=torch.int64)
    while True:
        number.random_(generator=generator)
        own = torch.Generator().manual_seed(int(number.random_(generator=generator)))
        yield torch.randperm(d, generator=own)


def after(
    before: Callable[[], Any] | None = None, between: int = 0
) -> Callable[[torch.Generator, int], torch.Tensor]:
    """Return the order `manual_seed` of a script that draws from the global generator itself.

    Args:
        before: what the script draws between `torch.manual_seed(seed)` and the first epoch, as
            `lambda: nn.Linear(2, 1)` for a module that it makes there. Called once per seed, with
            the global generator at that seed, which is then as it was.
        between: int64 numbers drawn after each epoch: 1 for another loader that is gone through
            (of test data), 2 where that shuffles.

    Raises:
        InputError: a `before` that cannot be called, a number that is negative.

    Example:
        >>> order = after(lambda: torch.nn.Linear(2, 1))
        >>> sorted(order(torch.Generator().manual_seed(0), 5).tolist())
        [0, 1, 2, 3, 4]
    """
    if not (before is None or callable(before)):
        raise InputError(f"before is a function without arguments, not {quoted(before)}")
    skipped = torch.empty(checks.count("between", between, least=0), dtype=torch.int64)

    def manual_seed_after(generator: torch.Generator, d: int) -> torch.Tensor:
        fresh = torch.Generator().manual_seed(generator.initial_seed()).get_state()
        if before is not None and torch.equal(generator.get_state(), fresh):
            _draw(generator, before)
        permutation = next(manual_seed(generator, d, d))
        for number in skipped:
            number.random_(generator=generator)
        return permutation

    return manual_seed_after


def _draw(generator: torch.Generator, before: Callable[[], Any]) -> None:
    """Let a function draw from a generator as if it were the global one."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator.get_state())
        try:
            before()
        except Exception as error:
            raise failed("before", error) from error
        generator.set_state(torch.get_rng_state())


@dataclass(frozen=True)
class Seeded:
    """A named order whose every replica draws as one seed does."""

    order: str
    seed: int

    @property
    def __name__(self) -> str:
        """What it is logged as."""
        return f"{self.order}, seed {self.seed}"


def seeded(order: str, seed: int) -> Seeded:
    """Return a named order that is that of one seed, whatever the seed of a replica is.

    The seeds of the run are then those of the initial values (and of a problem's stream) only;
    `Problem.start_of` holds those fixed instead.

    Raises:
        InputError: no seed; an order that is not a name.

    Example:
        >>> seeded("shuffle", 3)
        Seeded(order='shuffle', seed=3)
    """
    if not isinstance(order, str) or order == "stream":
        raise InputError(f"seeded takes the name of an order of indices, not {quoted(order)}")
    return Seeded(order, checks.seed(seed))
