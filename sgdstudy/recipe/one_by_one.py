"""Each replica has an optimiser of its own, over the model's own parameters, as a loop would.

So step all but torch's own element-wise ones: those that look at more than one number at a time,
at any step of a run, those that keep a state of their own, and those whose `step(closure)`
evaluates the loss again.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from sgdstudy.errors import failed
from sgdstudy.problems.fingerprint import Unseen, fingerprint
from sgdstudy.recipe.step import Step

Optimizer = torch.optim.Optimizer
LENGTH, ITEM = "#n", "#@"  # of a list, in what is written
STEP_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
PLAIN = (bool, int, float, str, type(None))  # attributes that are written
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
        rule: which made them.
    """

    def __init__(self, replicas: Iterable[Replica], rule: OneByOne) -> None:
        super().__init__(replicas)
        self.rule = rule


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
        complete: whether `Optimizer.state` holds all that an optimiser remembers, as far as was
            tried.
        closure: whether `step` is given a closure.
    """

    factory: Callable[[list[torch.Tensor]], Optimizer]
    shapes: Sequence[Sequence[int]]
    complete: bool = True
    closure: bool = False

    def init(self, w: torch.Tensor) -> Replicas:
        """Return an optimiser for each row of w `(R, p)`."""
        return Replicas((self.replica(row) for row in w), self)

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
        return Replicas((state[r] for r in live.tolist()), self)


# ---- what is written of them -----------------------------------------------------------------


def state_dict(state: Replicas) -> dict[str, Any]:
    """Return what the optimisers of R replicas keep, as values.

    Raises:
        TypeError: they remember more: one that is made anew and given these values is another.
    """
    found: dict[str, Any] = {}
    for r, replica in enumerate(state):
        values = _values(replica)
        again = state.rule.replica(replica.values())
        _load(again, _unpacked(values))
        if not state.rule.complete or _others(replica) != _others(again):
            name = type(replica.optimizer).__name__
            raise TypeError(
                f"the optimizer {name} keeps its state elsewhere than in Optimizer.state"
            )
        found |= {f"{r}.{name}": value for name, value in values.items()}
    return found


def load_state_dict(fresh: Replicas, values: Mapping[str, Any]) -> Replicas:
    """Return the optimisers of R replicas with the values of a `state_dict`."""
    for name, value in _unpacked(values).items():
        r, _, key = name.partition(".")
        _load(fresh[int(r)], {key: value})
    return fresh


def attributes(optimizer: Optimizer) -> dict[str, Any]:
    """Return the attributes that an optimiser has and others have not."""
    known = _every_has()
    return {name: value for name, value in vars(optimizer).items() if name not in known}


@functools.cache
def _every_has() -> frozenset[str]:
    """Return the attributes of any optimiser; late, since the first one made takes a second."""
    return frozenset(vars(Optimizer([torch.zeros(1)], {})))


def step_hooks(optimizer: Optimizer) -> list[Any]:
    """Return what is called before and after each of its steps."""
    return [hook for name in STEP_HOOKS for hook in vars(optimizer)[name].values()]


def _others(replica: Replica) -> str:
    """Return what tells what an optimiser has beside the values that are written.

    Raises:
        TypeError: nothing does.
    """
    optimizer, known = replica.optimizer, set(map(id, replica.params))
    rest = [(key, value) for key, value in optimizer.state.items() if id(key) not in known]
    held = attributes(optimizer), step_hooks(optimizer), rest
    try:
        return fingerprint(held, f"the optimizer {type(optimizer).__name__}")
    except Unseen as error:
        raise TypeError(str(error)) from None


def _values(replica: Replica) -> dict[str, Any]:
    """Return the state and the settings of an optimiser's parameters, and its own numbers."""
    found: dict[str, Any] = {}
    for i, p in enumerate(replica.params):
        for key, value in replica.optimizer.state.get(p, {}).items():
            found |= _packed(f"state.{i}.{key}", value)
    for g, group in enumerate(replica.optimizer.param_groups):
        own = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        found |= {f"group.{g}.{key}": value for key, value in own.items()}
    own = attributes(replica.optimizer)
    return found | {f"own.0.{key}": value for key, value in own.items() if type(value) in PLAIN}


def _load(replica: Replica, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        kind, i, key = name.split(".", 2)
        if kind == "state":
            replica.optimizer.state[replica.params[int(i)]][key] = value
        elif kind == "own":
            setattr(replica.optimizer, key, value)
        else:
            group = replica.optimizer.param_groups[int(i)]
            group[key] = tuple(value) if isinstance(group.get(key), tuple) else value


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
