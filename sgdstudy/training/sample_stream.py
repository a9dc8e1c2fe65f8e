"""Samples that come one after the other, and are never stored: `order="stream"`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from sgdstudy.errors import InputError, failed, quoted
from sgdstudy.problems import data
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.recipe.orders import Sampler, generator_of

Block = tuple[torch.Tensor, torch.Tensor]


def sampler(problem: Problem, config: TrainConfig, seeds: list[int]) -> Sampler | SampleStreams:
    """Return what says which samples a run takes when."""
    if config.order == "stream" and config.batch_size is not None:
        return SampleStreams(problem, seeds)
    return Sampler.of(problem, config, seeds)


class SampleStreams:
    """The streams of R seeds, read side by side, each with a generator: see `orders.generator_of`.

    Attributes:
        x: the inputs of the samples taken last, seed after seed, `(R * n, ...)`.
        y: their targets.
    """

    adaptive = False

    def __init__(self, problem: Problem, seeds: list[int]) -> None:
        self.problem = problem
        self._parts = [self._blocks(seed) for seed in seeds]
        self._rest: list[Block] = [(problem.x[:0], problem.y[:0]) for _ in seeds]
        self.x, self.y = self._rest[0]

    def take(self, n: int) -> torch.Tensor:
        """Draw the next n samples of every seed; return their rows in x and y, `(R, n)`.

        Raises:
            InputError: a stream that ends, or blocks that do not fit the problem.
        """
        taken = []
        for r, part in enumerate(self._parts):
            blocks = [self._rest[r]]
            missing = n - len(blocks[0][0])
            while missing > 0:
                blocks.append(next(part))
                missing -= len(blocks[-1][0])
            x, y = (torch.cat(some) for some in zip(*blocks, strict=True))
            taken.append((x[:n], y[:n]))
            self._rest[r] = x[n:].clone(), y[n:].clone()  # views would keep all of them
        self.x, self.y = (torch.cat(some) for some in zip(*taken, strict=True))
        return torch.arange(len(self.x)).reshape(len(taken), n)

    def retain(self, live: list[int]) -> None:
        """Go on with these replicas only (positions, not seeds)."""
        self._parts = [self._parts[r] for r in live]
        self._rest = [self._rest[r] for r in live]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return nothing: who knows what a stream remembers; it is read again."""
        return {}

    def load_state_dict(self, state: Mapping[str, torch.Tensor], taken: int) -> None:
        """Go on after so many samples of each seed."""
        while taken:
            n = min(taken, 100_000)
            self.take(n)
            taken -= n

    def _blocks(self, seed: int) -> Iterator[Block]:
        """Yield a seed's blocks, checked, in the problem's dtype and on its device."""
        assert self.problem.stream is not None
        count, like = 0, (self.problem.x, self.problem.y)
        try:
            stream = iter(self.problem.stream(generator_of(seed, self.problem.draws_starts)))
        except Exception as error:
            raise failed("the stream", error) from error
        while True:
            try:
                block = next(stream)
            except StopIteration:
                raise InputError(
                    f"the stream of seed {seed} ended after {count} samples, before the run did; "
                    f"give fewer epochs"
                ) from None
            except Exception as error:
                raise failed("the stream", error) from error
            x, y = self._checked(block)
            count += len(x)
            yield tuple(t.to(own.device, own.dtype) for t, own in zip((x, y), like, strict=True))  # type: ignore[misc]

    def _checked(self, block: Any) -> Block:
        if not isinstance(block, (tuple, list)) or len(block) != 2:
            raise InputError(f"a stream yields pairs (x, y) of blocks, not {quoted(block)}")
        x, y = data.samples(block[0], block[1], self.problem.loss, "a block of the stream")
        for name, given, own in (("x", x, self.problem.x), ("y", y, self.problem.y)):
            if given.shape[1:] != own.shape[1:]:
                raise InputError(
                    f"{name} of a block of the stream has shape {tuple(given.shape)}; expected "
                    f"{('n', *own.shape[1:])} as the problem's own"
                )
            if not data.holds(own.dtype, given):
                raise InputError(
                    f"{name} of a block of the stream holds values that the problem's "
                    f"{str(own.dtype).removeprefix('torch.')} does not hold; make the blocks so, "
                    f"or give the problem's x in float64"
                )
        return x, y
