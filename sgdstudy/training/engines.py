"""What takes the steps of a chunk: eager torch, or a compiled step (`compiled/`).

Both turn parameters, state and a stream of samples into the record of the steps, everything of
it: the parameters, losses and gradients of every replica. They agree to rounding, and to the last
bit on the notebook's curve under the notebook's rule and SGD. Where the outcome hangs on the last
bit (RMSprop's luck at its last batch), they are two draws of the same law.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from sgdstudy.errors import InputError, Unsupported
from sgdstudy.language import say, to_say
from sgdstudy.problems import trial
from sgdstudy.problems.evaluation import EVALUATE_AT_ONCE, Evaluated
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe import groups, rules, schedules
from sgdstudy.recipe.clipping import clipped
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.recipe.one_by_one import OneByOne
from sgdstudy.training.recorded import ALL, Recorded, Sparing, Wanted, of_every_step

log = logging.getLogger("sgdstudy")
WORTH_STEPS = 2000  # eager steps that take as long as compiling does, about 0.2 s


class Samples(NamedTuple):
    """The samples of a chunk's steps.

    Attributes:
        indices: rows of x and y, the steps' samples one after the other, `(R, n)`; None: all of
            them, every step.
        x: inputs `(N, ...)`.
        y: targets `(N, ...)`.
    """

    indices: torch.Tensor | None
    x: torch.Tensor
    y: torch.Tensor


class Ahead(NamedTuple):
    """The steps of a chunk, as they come: the arguments of `Engine.steps`."""

    w: torch.Tensor
    state: Any
    samples: Samples
    sizes: np.ndarray
    n_epochs: int
    first: int
    wanted: Wanted


Taken = tuple[torch.Tensor, Any, Recorded]  # parameters and state after steps, and their record


class Engine(Protocol):
    """Takes steps."""

    name: str
    chunk_steps: int  # the most steps worth taking at once
    gathers: bool  # whether the batches of a chunk lie in memory at once
    spares: float  # from how many parameters on it is faster not to keep every step's vectors

    def init(self, w: torch.Tensor) -> Any:
        """Return the state for parameters `(R, p)`."""

    def select(self, w: torch.Tensor, state: Any, live: torch.Tensor) -> Any:
        """Return the state of the replicas at positions `live`; w holds their parameters."""

    def evaluate(self, w: np.ndarray) -> Evaluated:
        """Return what all the data say at parameters `(N, p)`."""

    def steps(
        self,
        w: torch.Tensor,
        state: Any,
        samples: Samples,
        sizes: np.ndarray,
        n_epochs: int,
        first: int,
        wanted: Wanted = ALL,
    ) -> Taken:
        """Take the steps of a chunk.

        Args:
            w: parameters `(R, p)`.
            state: see `init`.
            samples: those that come, n_epochs * sum(sizes) for each replica.
            sizes: of the batches of one epoch, or of a part of one, `(m,)`.
            n_epochs: how often these sizes come.
            first: number of the first step, from 1.
            wanted: what of them is recorded.

        Returns:
            The parameters and the state after the last step, and what was recorded.
        """


@cache
def tell(line: str) -> None:
    """Warn of what is so in every run of an optimiser, once in a process."""
    log.warning("%s", line)


class Eager:
    """Steps by torch's autograd and torch.optim."""

    name = "eager"
    chunk_steps = 256
    gathers = True
    spares: float = 10_000

    def __init__(self, problem: Problem, config: TrainConfig) -> None:
        self.problem = problem
        self.rule = _rule(problem, config)
        self.clips = {"norm": config.clip_norm, "value": config.clip_value}
        self.note, self.asks = "", isinstance(self.rule, OneByOne) and self.rule.closure
        if isinstance(self.rule, OneByOne) and len(config.seeds) > 1:
            asks = to_say("the optimizer {name} takes a closure: its replicas step one by one")
            text = to_say(
                "the optimizer {name} is not known to be element-wise: its replicas step one by one"
            )
            self.note = say(asks if self.asks else text, name=rules.name_of(config.optimizer))
            tell(say("{why}, which takes longer", why=self.note))
        # None: the optimiser's own
        self.rates = None if config.schedule is None else _rates(config, problem.d)

    def init(self, w: torch.Tensor) -> Any:
        """Return the rule's state."""
        return self.rule.init(w)

    def select(self, w: torch.Tensor, state: Any, live: torch.Tensor) -> Any:
        """Return the state of some replicas."""
        return self.rule.select(w, state, live)

    def evaluate(self, w: np.ndarray) -> Evaluated:
        """Return what all the data say at parameters `(N, p)`."""
        return self.problem.evaluate(w)

    def steps(
        self,
        w: torch.Tensor,
        state: Any,
        samples: Samples,
        sizes: np.ndarray,
        n_epochs: int,
        first: int,
        wanted: Wanted = ALL,
    ) -> Taken:
        """Take the steps one by one; see `Engine`."""
        walk = Walk(self, Ahead(w, state, samples, sizes, n_epochs, first, wanted))
        for batch in walk.batches:
            walk.move(batch, *self.evaluated(walk.w, batch))
        return walk.taken()

    def evaluated(self, w: torch.Tensor, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return losses `(R,)` and gradients `(R, p)` of batches; None: of all the data."""
        if self.asks and len(w) > 1:  # rounded as its closure does, which compares
            rows = [self.evaluated(w[r : r + 1], _replica_of(batch, r)) for r in range(len(w))]
            loss, gradient = (torch.cat(part) for part in zip(*rows, strict=True))
            return loss, gradient
        if batch is not None:
            return self.problem.losses_and_gradients(w, *batch)
        loss, gradient = self.problem.over_all(w)
        return loss.to(w.dtype), gradient.to(w.dtype)

    def again(self, batch: Any, r: int, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return loss and gradient, clipped, of replica r's batch at parameters `(p,)`."""
        loss, gradient = self.evaluated(w[None], _replica_of(batch, r))
        return loss[0], clipped(gradient, **self.clips)[0]


class Walk:
    """The eager steps of a chunk, one at a time: whoever takes them evaluates their batches.

    Args:
        eager: whose rule moves the parameters.
        ahead: the steps.

    Attributes:
        w: the parameters by now, `(R, p)`.
        batches: of the steps, `(R, B, ...)` each; None: all the data.
    """

    def __init__(self, eager: Eager, ahead: Ahead) -> None:
        n_steps, samples = ahead.n_epochs * len(ahead.sizes), ahead.samples
        self.eager, self.w, self._state = eager, ahead.w, ahead.state
        self._sizes, self._wanted = ahead.sizes, ahead.wanted
        self.batches: Iterable[Any] = [None] * n_steps
        if samples.indices is not None:
            by_epoch = samples.indices.reshape(len(self.w), ahead.n_epochs, -1)
            self.batches = _batches(samples, by_epoch, ahead.sizes)
        rates: list[Any] = [None] * n_steps
        if eager.rates is not None:
            first = ahead.first - 1
            rates = eager.rates(np.arange(first, first + n_steps)).tolist()
        self._rates = iter(rates)
        self._ws, self._losses, self._gradients = [self.w], list[Any](), list[Any]()
        self._sparing: Sparing | None = None
        if not self._wanted.every_step:
            self._sparing = Sparing(self.w, self._sizes, ahead.n_epochs, self._wanted)

    def move(self, batch: Any, loss: torch.Tensor, gradient: torch.Tensor) -> None:
        """Take the next step, given the losses `(R,)` and gradients `(R, p)` of its batch."""
        eager = self.eager
        along = clipped(gradient, **eager.clips)
        step = rules.Step(along, loss, next(self._rates), partial(eager.again, batch))
        self.w, self._state = eager.rule.update(self.w, self._state, step)
        if self._sparing is not None:
            self.w = self._sparing.add(loss, gradient, self.w)
            return
        self._ws.append(self.w)
        self._losses.append(loss)
        self._gradients.append(gradient)

    def taken(self) -> Taken:
        """Return where the steps led, and what was recorded of them."""
        if self._sparing is not None:
            return self.w, self._state, self._sparing.recorded()
        w, loss, gradient = map(torch.stack, (self._ws, self._losses, self._gradients))
        record = of_every_step(w, loss, gradient, self._sizes, self._wanted)
        return self.w, self._state, record


def steps_beside(engines: Sequence[Eager], ahead: Sequence[Ahead]) -> list[Taken]:
    """Take the steps of several runs of a problem side by side, whose batches are of equal sizes.

    Their losses and gradients are evaluated in one batch of all their replicas.
    """
    walks = [Walk(*pair) for pair in zip(engines, ahead, strict=True)]
    sizes = [len(walk.w) for walk in walks]
    for batches in zip(*(walk.batches for walk in walks), strict=True):
        every = None
        if batches[0] is not None:
            every = tuple(map(torch.cat, zip(*batches, strict=True)))
        found = engines[0].evaluated(torch.cat([walk.w for walk in walks]), every)
        parts = zip(*(values.split(sizes) for values in found), strict=True)
        for walk, batch, (loss, gradient) in zip(walks, batches, parts, strict=True):
            walk.move(batch, loss, gradient)
    return [walk.taken() for walk in walks]


def _rule(problem: Problem, config: TrainConfig) -> rules.Rule:
    given = config.optimizer, config.lr, config.options, problem
    return groups.make(config.groups, *given) if config.groups else rules.make(*given)


def _rates(config: TrainConfig, d: int) -> schedules.Rates:
    """Return the step sizes, by the number of the step; of groups, those of each, `(S, G)`."""
    every = [config.rates(d, lr) for lr in config.lrs]
    return (lambda steps: np.stack([of(steps) for of in every], 1)) if config.groups else every[0]


def _replica_of(batch: Any, r: int) -> Any:
    """Return replica r's part of a batch; None stays."""
    return batch and tuple(part[r : r + 1] for part in batch)


def _batches(
    samples: Samples, indices: torch.Tensor, sizes: np.ndarray
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the batches, `(R, B, ...)` each, contiguous; indices are `(R, epochs, n)`."""
    size, count = int(sizes[0]), int((sizes == sizes[0]).sum())
    n, n_epochs = indices.shape[:2]
    whole = indices[:, :, : size * count].reshape(n, n_epochs, count, size)
    xs, ys = _gather(samples, whole.permute(1, 2, 0, 3))
    rest = _gather(samples, indices[:, :, size * count :].transpose(0, 1))
    for epoch in range(n_epochs):
        for step in range(count):
            yield xs[epoch, step], ys[epoch, step]
        if count < len(sizes):  # the ragged last batch
            yield rest[0][epoch], rest[1][epoch]


def _gather(samples: Samples, indices: torch.Tensor) -> list[torch.Tensor]:
    flat = indices.flatten().to(samples.x.device)
    return [
        data.index_select(0, flat).reshape(*indices.shape, *data.shape[1:])
        for data in (samples.x, samples.y)
    ]


class Compiled:
    """Steps in C++, made from the problem's own operations.

    Raises:
        Unsupported: a step that cannot be compiled, or no compiler.
    """

    name = "compiled"
    chunk_steps = 65_536
    gathers = False
    spares: float = 0

    def __init__(self, problem: Problem, config: TrainConfig) -> None:
        from sgdstudy.training.compiled import compile_steps

        self.problem = problem
        self._steps = compile_steps(problem, config)

    def init(self, w: torch.Tensor) -> torch.Tensor:
        """Return the rule's state, `(R, n_state, p)`."""
        return self._steps.init(w)

    def select(self, w: torch.Tensor, state: torch.Tensor, live: torch.Tensor) -> torch.Tensor:
        """Return the state of some replicas."""
        return state[live]

    def evaluate(self, w: np.ndarray) -> Evaluated:
        """Return what all the data say at parameters `(N, p)`."""
        return self._steps.evaluate(w)

    def steps(
        self,
        w: torch.Tensor,
        state: torch.Tensor,
        samples: Samples,
        sizes: np.ndarray,
        n_epochs: int,
        first: int,
        wanted: Wanted = ALL,
    ) -> tuple[torch.Tensor, torch.Tensor, Recorded]:
        """Take the steps in one call; see `Engine`."""
        sizes, data = np.tile(sizes, n_epochs), (samples.x, samples.y)
        own = samples.x is self.problem.x
        return self._steps(
            w, state, samples.indices, sizes, first, None if own else data, n_epochs, wanted
        )


def choose(problem: Problem, config: TrainConfig) -> tuple[Engine, str]:
    """Return the engine of a run, and why it is not compiled where that was wanted ("" if it is).

    `auto` compiles where the eager steps would take longer than compiling, however many seeds
    there are: the bits of a seed do not depend on the others.

    Raises:
        InputError: `engine="compiled"`, and the step cannot be compiled.
    """
    _try_sizes(problem, config)
    _require_reached(problem, config)
    if not is_worth_compiling(config, config.n_steps(problem.d)):
        eager = Eager(problem, config)
        return eager, eager.note

    try:
        return Compiled(problem, config), ""
    except Unsupported as reason:
        if config.engine == "compiled":
            raise InputError(
                f"this run cannot be compiled: {reason}. engine='auto' or 'eager' runs it in torch"
            ) from None
        eager = Eager(problem, config)
        return eager, eager.note or str(reason)


def _require_reached(problem: Problem, config: TrainConfig) -> None:
    """Refuse to move parameters that the loss does not depend on: torch's optimisers skip them."""
    if not problem.unreached:
        return
    rule, w = _rule(problem, config), torch.ones(1, problem.p).to(problem.x.device, problem.dtype)
    zero = torch.zeros_like(w)
    step = rules.Step(zero, w.new_zeros(1), None, lambda *_: (w.new_zeros(()), zero[0]))
    moved = (rule.update(w, rule.init(w), step)[0] != w)[0]
    parts = moved.split([shape.numel() for shape in problem.shapes])
    for name, part in zip(problem.names, parts, strict=True):
        if name in problem.unreached and part.any():
            raise InputError(
                f"the loss does not depend on {name!r}, and the optimizer "
                f"{rules.name_of(config.optimizer)} moves it all the same (weight_decay?), which "
                f"torch, where it has no gradient, does not; freeze it by requires_grad_(False)"
            )


def is_worth_compiling(config: TrainConfig, n_steps: int) -> bool:
    """Whether the compiled engine is to take so many steps, if it can."""
    return config.engine == "compiled" or (config.engine == "auto" and n_steps >= WORTH_STEPS)


def compiler_fault() -> str:
    """Return why nothing can be compiled on this machine; "" where something can."""
    from sgdstudy.training.compiled.steps import compiler_fault

    return compiler_fault()


def _try_sizes(problem: Problem, config: TrainConfig) -> None:
    """Try the problem on batches as they will come: a model may draw, or fail, at some sizes only.

    Raises:
        InputError: it does.
    """
    if problem.x.device.type != "cpu":  # others need not add up in the same order twice
        return
    for size in config.phases(problem.d).every_size:
        trial.check(problem, problem.x, problem.y, min(size, EVALUATE_AT_ONCE))
