"""Each replica has an optimiser of its own, over the model's own parameters, as a loop would.

So step all but torch's own element-wise ones: those that look at more than one number at a time,
at any step of a run, those that keep a state of their own, and those whose `step(closure)`
evaluates the loss again.
"""

from __future__ import annotations

import copyreg
import functools
import json
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
PARAMETER = "#w"  # of what is the memory of its parameter, as "old_p" of SAM
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
        TypeError: they remember more: one that is made anew and given these values, as a file
            holds them, is another.
    """
    found: dict[str, Any] = {}
    for r, replica in enumerate(state):
        if not (state.rule.complete and _comes_back(replica, state.rule)):
            name, groups = type(replica.optimizer).__name__, replica.optimizer.param_groups
            # LBFGS, for one, keeps this very tensor in its state
            tensors = any(isinstance(group.get("lr"), torch.Tensor) for group in groups)
            hint = " (give lr as a number, not as a tensor)" * tensors
            raise TypeError(
                f"the optimizer {name} keeps its state elsewhere than in Optimizer.state, or in a "
                f"form that no checkpoint holds{hint}, see docs/training.md"
            )
        found |= {f"{r}.{name}": value for name, value in _values(replica).items()}
    return found


def load_state_dict(fresh: Replicas, values: Mapping[str, Any]) -> Replicas:
    """Return the optimisers of R replicas with the values of a `state_dict`."""
    for name, value in _unpacked(values).items():
        r, _, key = name.partition(".")
        _load(fresh[int(r)], {key: value})
    return fresh


def as_written(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they come back from a file: tensors by themselves, all else from JSON."""
    return {
        name: value.detach().cpu().contiguous().clone()
        if isinstance(value, torch.Tensor)
        else json.loads(json.dumps(value))
        for name, value in values.items()
    }


def attributes(optimizer: Optimizer) -> dict[str, Any]:
    """Return the attributes that an optimiser has and others have not."""
    known = _every_has()
    slots = copyreg._slotnames(type(optimizer))  # type: ignore[attr-defined]
    held = vars(optimizer) | {k: getattr(optimizer, k) for k in slots if hasattr(optimizer, k)}
    return {name: value for name, value in held.items() if name not in known}


@functools.cache
def _every_has() -> frozenset[str]:
    """Return the attributes of any optimiser; late, since the first one made takes a second."""
    return frozenset(vars(Optimizer([torch.zeros(1)], {})))


def step_hooks(optimizer: Optimizer) -> list[Any]:
    """Return what is called before and after each of its steps."""
    return [hook for name in STEP_HOOKS for hook in vars(optimizer)[name].values()]


def _comes_back(replica: Replica, rule: OneByOne) -> bool:
    """Return whether an optimiser made anew, with what a file holds of this one, is the same.

    Raises:
        TypeError: nothing tells what it has.
    """
    again = rule.replica(replica.values())
    try:
        _load(again, _unpacked(as_written(_values(replica))))
        return _told(replica) == _told(again)
    except Unseen as error:
        raise TypeError(str(error)) from None
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return False  # a group that a new one has not, a key that is no name, no JSON


def _told(replica: Replica) -> tuple[str, list[Any]]:
    """Return what tells an optimiser and its parameters from others, and what shares memory.

    Raises:
        Unseen: nothing does.
    """
    optimizer, params = replica.optimizer, replica.params
    numbers = {id(p): i for i, p in enumerate(params)}
    states = [optimizer.state.get(p, {}) for p in params]
    own = [*states, *optimizer.param_groups, optimizer.defaults, attributes(optimizer)]
    apart = [[(k, v) for k, v in _in_order(held) if k != "params"] for held in own]
    whose = [[numbers.get(id(p), p) for p in g["params"]] for g in optimizer.param_groups]
    rest = [(key, value) for key, value in optimizer.state.items() if id(key) not in numbers]
    held = params, apart, whose, rest, step_hooks(optimizer)
    return fingerprint(held, f"the optimizer {type(optimizer).__name__}"), _layout([params, *own])


def _layout(held: list[Any]) -> list[Any]:
    """Return which tensors, lists and dicts of some are in the same memory, and how they lie."""
    places: dict[Any, int] = {}
    found: list[Any] = []

    def visit(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            place = value.untyped_storage().data_ptr() if value.numel() else None
            number = places.setdefault((str(value.device), place), len(places))
            found.append((number, str(value.device), value.is_contiguous()))
        elif isinstance(value, (dict, list)) and id(value) in places:
            found.append(places[id(value)])
        elif isinstance(value, (dict, list, tuple)):
            if not isinstance(value, tuple):
                found.append(places.setdefault(id(value), len(places)))
            items = [v for _, v in _in_order(value)] if isinstance(value, dict) else value
            for item in items:
                visit(item)

    for one in held:
        visit(one)
    return found


def _in_order(held: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """Return keys and values in an order that does not tell which came first."""
    return sorted(held.items(), key=lambda item: repr(item[0]))


def _values(replica: Replica) -> dict[str, Any]:
    """Return the state and the settings of an optimiser's parameters, and its own numbers."""
    found: dict[str, Any] = {}
    for i, p in enumerate(replica.params):
        for key, value in replica.optimizer.state.get(p, {}).items():
            name = f"state.{i}.{key}"
            found |= {name + PARAMETER: True} if _is_memory_of(p, value) else _packed(name, value)
    for g, group in enumerate(replica.optimizer.param_groups):
        own = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        found |= {f"group.{g}.{key}": value for key, value in own.items()}
    own = {"own": attributes(replica.optimizer), "defaults": replica.optimizer.defaults}
    for kind, held in own.items():
        found |= {f"{kind}.0.{k}": value for k, value in held.items() if type(value) in PLAIN}
    return found


def _load(replica: Replica, values: Mapping[str, Any]) -> None:
    optimizer = replica.optimizer
    for name, value in values.items():
        kind, i, key = name.split(".", 2)
        if kind == "own":
            setattr(optimizer, key, value)
        elif kind == "state":
            p = replica.params[int(i)]
            whole = key.removesuffix(PARAMETER)
            _put(optimizer.state[p], whole, value if whole == key else p.detach())
        else:
            _put(
                optimizer.defaults if kind == "defaults" else optimizer.param_groups[int(i)],
                key,
                value,
            )


def _is_memory_of(p: torch.Tensor, value: Any) -> bool:
    """Return whether a value is all of a parameter's memory."""
    return isinstance(value, torch.Tensor) and (value.data_ptr(), value.shape, value.dtype) == (
        p.data_ptr(),
        p.shape,
        p.dtype,
    )


def _put(held: dict[str, Any], key: str, value: Any) -> None:
    """Set a value; what would be written as this value stays as it was made, whatever its kind."""
    old = held.get(key)
    if key not in held or not _written_alike(old, value):
        held[key] = tuple(value) if isinstance(old, tuple) and isinstance(value, list) else value


def _written_alike(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return fingerprint(a) == fingerprint(b)
    try:
        return json.dumps(a) == json.dumps(b)
    except (TypeError, ValueError):
        return False


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
