"""Each replica has an optimiser of its own, over the model's own parameters, as a loop would.

So step those that look at more than one number at a time, and those whose `step(closure)`
evaluates the loss again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from sgdstudy.errors import failed
from sgdstudy.recipe.step import Step

Optimizer = torch.optim.Optimizer
LENGTH, ITEM = "#n", "#@"  # of a list, in what is written
Closure = Callable[[], Any]  # the loss, a tensor without dimensions


class Replica(NamedTuple):
    """The optimiser of one replica."""

    optimizer: Optimizer
    params: list[torch.Tensor]

    def step(self, gradient: torch.Tensor, lr: float | None, *closure: Closure) -> torch.Tensor:
        """Take a step along a gradient `(p,)`, or by a closure; return the parameters after it."""
        self._lay(gradient)
        if lr is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
        take_step(self.optimizer, *closure)
        return self.values()

    def values(self) -> torch.Tensor:
        """Return the parameters as they are, `(p,)`."""
        return torch.cat([p.detach().flatten() for p in self.params])

    def closure(self, at: Step, r: int) -> Closure:
        """Return what gives the loss of the batch, and lays its gradient, where parameters are.

        Where they have not moved, these are the loss and the gradient that the step has already.
        """
        start, loss, gradient = self.values(), at.loss[r], at.gradient[r]

        @torch.enable_grad()
        def closure() -> Any:
            assert at.again is not None
            w = self.values()
            here = (loss, gradient) if torch.equal(w, start) else at.again(r, w)
            self._lay(here[1])
            return here[0].clone()

        return closure

    def _lay(self, gradient: torch.Tensor) -> None:
        sizes = [p.numel() for p in self.params]
        for p, part in zip(self.params, gradient.split(sizes), strict=True):
            p.grad = part.reshape(p.shape).clone()  # what clips it in place leaves ours alone


class Replicas(list[Replica]):
    """The optimisers of R replicas: the state of `OneByOne`.

    Attributes:
        complete: whether `Optimizer.state` holds all that an optimiser remembers.
    """

    complete = True


def take_step(optimizer: Optimizer, *closure: Closure) -> None:
    """Take an optimiser's step, or raise `InputError`."""
    try:
        optimizer.step(*closure)
    except Exception as error:
        raise failed(f"the step of the optimizer {type(optimizer).__name__!r}", error) from error


@dataclass(frozen=True)
class OneByOne:
    """A rule that gives each replica its own optimiser, over the model's own parameters.

    Attributes:
        factory: params -> Optimizer.
        shapes: of the model's parameters, in the order in which w holds them.
        complete: see `Replicas`.
        closure: whether `step` is given a closure.
    """

    factory: Callable[[list[torch.Tensor]], Optimizer]
    shapes: Sequence[Sequence[int]]
    complete: bool = True
    closure: bool = False

    def init(self, w: torch.Tensor) -> Replicas:
        """Return an optimiser for each row of w `(R, p)`."""
        state = Replicas(self.replica(row) for row in w)
        state.complete = self.complete
        return state

    def replica(self, w: torch.Tensor) -> Replica:
        """Return an optimiser for parameters `(p,)`."""
        parts = w.split([math.prod(shape) for shape in self.shapes])
        pairs = zip(parts, self.shapes, strict=True)
        params = [part.detach().clone().reshape(shape).requires_grad_() for part, shape in pairs]
        return Replica(self.factory(params), params)

    def update(self, w: torch.Tensor, state: Replicas, at: Step) -> tuple[torch.Tensor, Replicas]:
        """Take one step of every replica; see `Step`. One that has diverged stays where it is."""
        finite = (at.loss.isfinite() & at.gradient.isfinite().all(1)).tolist()
        rows = []
        for r, replica in enumerate(state):
            closure = [replica.closure(at, r)] if self.closure else []
            rows.append(replica.step(at.gradient[r], at.lr, *closure) if finite[r] else w[r])
        return torch.stack(rows), state

    def select(self, w: torch.Tensor, state: Replicas, live: torch.Tensor) -> Replicas:
        """Return the optimisers of the replicas at positions `live`."""
        chosen = Replicas(state[r] for r in live.tolist())
        chosen.complete = state.complete
        return chosen


# ---- what is written of them -----------------------------------------------------------------


def state_dict(state: Replicas) -> dict[str, Any]:
    """Return what the optimisers of R replicas keep, as values.

    Raises:
        TypeError: they remember what `Optimizer.state` does not hold.
    """
    if not state.complete:
        name = type(state[0].optimizer).__name__
        raise TypeError(f"the optimizer {name} keeps its state elsewhere than in Optimizer.state")
    found: dict[str, Any] = {}
    for r, (optimizer, params) in enumerate(state):
        for i, p in enumerate(params):
            for key, value in optimizer.state.get(p, {}).items():
                found |= _packed(f"{r}.state.{i}.{key}", value)
        for g, group in enumerate(optimizer.param_groups):
            own = {
                key: value for key, value in group.items() if key not in ("params", "param_names")
            }
            found |= {f"{r}.group.{g}.{key}": value for key, value in own.items()}
    return found


def load_state_dict(fresh: Replicas, values: Mapping[str, Any]) -> Replicas:
    """Return the optimisers of R replicas with the values of a `state_dict`."""
    for name, value in _unpacked(values).items():
        r, kind, i, key = name.split(".", 3)
        optimizer, params = fresh[int(r)]
        if kind == "state":
            optimizer.state[params[int(i)]][key] = value
        else:
            group = optimizer.param_groups[int(i)]
            group[key] = tuple(value) if isinstance(group.get(key), tuple) else value
    return fresh


def _packed(name: str, value: Any) -> dict[str, Any]:
    """Return a value by its name; the items of a list of tensors, as LBFGS keeps, by theirs."""
    if not (isinstance(value, list) and any(isinstance(item, torch.Tensor) for item in value)):
        return {name: value}
    return {f"{name}{LENGTH}": len(value)} | {f"{name}{ITEM}{j}": v for j, v in enumerate(value)}


def _unpacked(values: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in values.items() if ITEM not in name}
    for name in [name for name in found if name.endswith(LENGTH)]:
        whole = name.removesuffix(LENGTH)
        found[whole] = [values[f"{whole}{ITEM}{j}"] for j in range(found.pop(name))]
    return found
