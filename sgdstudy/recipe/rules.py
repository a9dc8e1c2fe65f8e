"""Update rules on parameters `(R, p)`: the notebook's own, and the element-wise torch.optim.

A rule is two functions, `init(w) -> state` and `update(w, state, at: Step) -> (w, state)`, and
`select(w, state, live)` to go on with some replicas only.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted
from sgdstudy.language import to_say, unknown
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe import one_by_one, own_optimizer
from sgdstudy.recipe.one_by_one import OneByOne
from sgdstudy.recipe.own_optimizer import DEFAULT_LR
from sgdstudy.recipe.step import Step as Step

# the optimisers that treat every parameter by itself, so that replicas never mix
ELEMENT_WISE = (
    "SGD",
    "Adam",
    "AdamW",
    "Adagrad",
    "Adadelta",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "ASGD",
)
KINDS = [getattr(torch.optim, name) for name in ELEMENT_WISE]
NAMES = ("notebook", "none", "polyak", *ELEMENT_WISE)
POLYAK = {"least_loss": 0.0, "c": 1.0}  # options of "polyak", and their defaults
OURS = ("params", "lr", "differentiable")  # arguments of optimisers that are no options here


class Rule(Protocol):
    """How parameters move, given a gradient."""

    def init(self, w: torch.Tensor) -> Any:
        """Return the state for parameters `(R, p)`."""

    def update(self, w: torch.Tensor, state: Any, at: Step) -> tuple[Any, Any]:
        """Return the new parameters and the new state."""

    def select(self, w: torch.Tensor, state: Any, live: torch.Tensor) -> Any:
        """Return the state of the replicas at positions `live`; w holds their parameters."""


class Stateless:
    """What a rule without a state starts from, and goes on with: None."""

    def init(self, w: torch.Tensor) -> None:
        """Return no state."""

    def select(self, w: torch.Tensor, state: None, live: torch.Tensor) -> None:
        """Return no state."""


@dataclass(frozen=True)
class Notebook(Stateless):
    """The notebook's rule, `w -= lr * gradient`, rounded as written there."""

    lr: float

    def update(self, w: torch.Tensor, state: None, at: Step) -> tuple[Any, Any]:
        """Return `w - lr * gradient`."""
        return w - (self.lr if at.lr is None else at.lr) * at.gradient, None


@dataclass(frozen=True)
class Still(Stateless):
    """No update: losses and gradients of every batch at the same parameters."""

    def update(self, w: torch.Tensor, state: None, at: Step) -> tuple[Any, Any]:
        """Return `w`."""
        return w, None


@dataclass(frozen=True)
class Polyak(Stateless):
    r"""Polyak's step, read off the loss, for every replica its own.

    \[w \leftarrow w - \min\left(\mathrm{lr},\ \frac{L_b - L^*}{c \|g\|^2}\right) g\]

    Of full batches Polyak (1969); of mini-batches Loizou et al. (2021), SPS_max, where L* is the
    least loss of a batch, 0 where some parameters fit all samples.
    """

    lr: float
    least_loss: float = POLYAK["least_loss"]
    c: float = POLYAK["c"]

    def update(self, w: torch.Tensor, state: None, at: Step) -> tuple[Any, Any]:
        """Return the parameters after Polyak's step; they stay where the gradient is zero."""
        square = (at.gradient * at.gradient).sum(1)
        size = (at.loss - self.least_loss) / (self.c * square)
        size = size.clamp(0.0, self.lr if at.lr is None else at.lr)
        return w - torch.where(square > 0, size, 0.0)[:, None] * at.gradient, None


@dataclass(frozen=True)
class TorchOptimizer:
    """Any element-wise optimiser made by `factory(params)`; the optimiser itself is the state.

    Attributes:
        factory: params -> Optimizer.
        own: whether it is the user's own, which may change the gradient in place.
    """

    factory: Callable[[list[torch.Tensor]], torch.optim.Optimizer]
    own: bool = False

    def init(self, w: torch.Tensor) -> torch.optim.Optimizer:
        """Return an optimiser over a copy of w."""
        return self.factory([w.clone().requires_grad_()])

    def update(
        self, w: torch.Tensor, state: torch.optim.Optimizer, at: Step
    ) -> tuple[torch.Tensor, torch.optim.Optimizer]:
        """Take the optimiser's step."""
        if at.lr is not None:
            state.param_groups[0]["lr"] = at.lr
        (parameter,) = state.param_groups[0]["params"]
        parameter.grad = at.gradient.clone() if self.own else at.gradient
        one_by_one.take_step(state) if self.own else state.step()
        return parameter.detach().clone(), state

    def select(
        self, w: torch.Tensor, state: torch.optim.Optimizer, live: torch.Tensor
    ) -> torch.optim.Optimizer:
        """Move the rows of every state tensor shaped like the parameters to a new optimiser.

        Raises:
            InputError: a state that is neither shaped like them nor a single number.
        """
        other = self.init(w)
        (old,), (new,) = state.param_groups[0]["params"], other.param_groups[0]["params"]
        for key, value in state.state[old].items():
            rows = isinstance(value, torch.Tensor) and value.dim() > 0
            if rows and value.shape != old.shape:
                raise InputError(
                    f"{type(state).__name__} keeps {key!r} of shape {tuple(value.shape)} for "
                    f"parameters {tuple(old.shape)}: it is not known whose rows these are"
                )
            other.state[new][key] = value[live] if rows else value
        options = {k: v for k, v in state.param_groups[0].items() if k != "params"}
        other.param_groups[0].update(options)
        return other


def settle(optimizer: Any, lr: Any, options: Mapping[str, Any]) -> tuple[Any, float]:
    """Return an optimiser, torch's own classes by their names, and the step size it starts from.

    Args:
        optimizer: a name of `NAMES`, or a class or factory `params -> Optimizer`.
        lr: the step size; None: 1e-3 for a name, its own for a class or factory.
        options: further ones, of a name, a class, or a factory that takes them.

    Raises:
        InputError: an unknown name, one that would mix replicas, an option it does not take, or a
            step size given to a factory that sets another.
    """
    if not isinstance(options, Mapping):
        raise InputError(f"options is a dict, as {{'momentum': 0.9}}, not {quoted(options)}")
    if not isinstance(optimizer, str):
        if isinstance(optimizer, torch.optim.Optimizer):
            kind, lr = type(optimizer), own_optimizer.lr_of(optimizer)
            theirs = getattr(torch.optim, kind.__name__, None) is kind
            own = "torch.optim." * theirs + kind.__name__
            raise InputError(
                f"the optimizer is made already, and every replica needs its own: give "
                f"optimizer={own}" + f" and lr={lr:g}" * math.isfinite(lr)
            )
        if not callable(optimizer):
            raise InputError(
                f"optimizer is a name or a factory params -> Optimizer, as a class is, not "
                f"{quoted(optimizer)}"
            )
        name = getattr(optimizer, "__name__", "")
        if name not in ELEMENT_WISE or getattr(torch.optim, name) is not optimizer:
            return optimizer, own_optimizer.starting_lr(optimizer, lr, options)
        optimizer = name
        lr = (
            inspect.signature(getattr(torch.optim, name)).parameters["lr"].default
            if lr is None
            else lr
        )
    lr = checks.number("lr", DEFAULT_LR if lr is None else lr)
    _by_name(optimizer, lr, options)
    return optimizer, lr


def make(
    optimizer: Any, lr: float, options: Mapping[str, Any], problem: Problem | None = None
) -> Rule:
    """Return the rule of what `settle` returns.

    Args:
        optimizer: a name, or a class or factory.
        lr: the step size it starts from.
        options: further ones.
        problem: whose parameters are trained; a name does without it.

    Raises:
        InputError: a class or factory whose steps fail, or whose replicas are not independent.
    """
    if isinstance(optimizer, str):
        return _by_name(optimizer, lr, options)
    assert problem is not None
    return _own_rule(lambda params: own_optimizer.build(optimizer, params, lr, options), problem)


def _own_rule(
    factory: Callable[[list[torch.Tensor]], torch.optim.Optimizer], problem: Problem
) -> Rule:
    """Return the rule of a class or factory: replica by replica, as no trial shows a whole run.

    Side by side where it makes torch's own element-wise optimisers, all with the same settings.
    """
    w = torch.randn(2, problem.p, generator=torch.Generator().manual_seed(1))
    w = w.to(problem.x.device, problem.dtype)
    with torch.random.fork_rng():
        alone = OneByOne(factory, problem.shapes)
        try:
            alone = replace(alone, closure=own_optimizer.asks_again(alone, w))
            complete = own_optimizer.is_complete(alone, w)
        except InputError:
            # perhaps a factory that was written for parameters (R, p)
            alone = OneByOne(factory, [(1, problem.p)])
            if _fails_or_mixes(TorchOptimizer(factory, own=True), alone, w):
                raise
            complete = own_optimizer.is_complete(alone, w)
        alone = replace(alone, complete=complete)
        return _side_by_side(alone, w) or alone


def _side_by_side(alone: OneByOne, w: torch.Tensor) -> TorchOptimizer | None:
    """Return the rule for all replicas at once, where each has the same optimiser of torch's own.

    It is made anew of its settings: a factory may look at how many numbers it is given.
    """
    made = [alone.replica(row).optimizer for row in w]
    kind, groups = type(made[0]), [group for one in made for group in one.param_groups]
    if kind not in KINDS or not all(
        type(one) is kind and not one_by_one.attributes(one) and not one_by_one.step_hooks(one)
        for one in made
    ):
        return None
    names = [name for name in inspect.signature(kind).parameters if name != "params"]
    settings = {name: groups[0][name] for name in names}
    if any(group[name] != settings[name] for group in groups for name in names):
        return None
    together = TorchOptimizer(lambda params: kind(params, **settings), own=True)
    return None if own_optimizer.mixes(together, alone, w) else together


def _fails_or_mixes(together: TorchOptimizer, alone: OneByOne, w: torch.Tensor) -> bool:
    try:
        return own_optimizer.mixes(together, alone, w)
    except InputError:
        return True


def _by_name(optimizer: str, lr: float, options: Mapping[str, Any]) -> Rule:
    if optimizer in ("notebook", "none"):
        if options:
            raise InputError(f"optimizer {optimizer!r} takes no options, got {sorted(options)}")
        return Notebook(lr) if optimizer == "notebook" else Still()
    if optimizer == "polyak":
        return Polyak(lr, **polyak_options(options))
    _refuse_mixing(optimizer)
    if optimizer not in ELEMENT_WISE:
        wrong = unknown(to_say("optimizer"), optimizer, NAMES)
        raise InputError(f"{wrong}; a class of your own is given itself, not its name")
    kind = getattr(torch.optim, optimizer)
    if options:
        own_optimizer.check_options(optimizer, options, options_of(optimizer))
    arguments = {"foreach": False, **options}

    def factory(params: list[torch.Tensor]) -> torch.optim.Optimizer:
        return kind(params, lr=lr, **arguments)

    try:
        factory([torch.zeros(1, requires_grad=True)])
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{optimizer} refuses these options: {error}") from error
    return TorchOptimizer(factory)


def options_of(optimizer: Any) -> list[str]:
    """Return the names of the options that an optimiser takes, `**` for any."""
    if not isinstance(optimizer, str):
        return own_optimizer.options_of(optimizer) if callable(optimizer) else []
    if optimizer in ELEMENT_WISE:
        known = inspect.signature(getattr(torch.optim, optimizer)).parameters
        return [name for name in known if name not in OURS]
    return list(POLYAK) if optimizer == "polyak" else []


def polyak_options(options: Mapping[str, Any]) -> dict[str, float]:
    """Return the options of `polyak`, checked, with their defaults."""
    own_optimizer.check_options("polyak", options, list(POLYAK))
    least = checks.number("least_loss", options.get("least_loss", 0.0), lambda v: True, "finite")
    return {"least_loss": least, "c": checks.number("c", options.get("c", POLYAK["c"]))}


def state_dict(state: Any) -> dict[str, Any]:
    """Return a rule's state as values: nothing, a tensor, or what a torch optimiser keeps."""
    if isinstance(state, one_by_one.Replicas):
        return one_by_one.state_dict(state)
    if isinstance(state, list):  # groups of parameters: a state each
        parts = enumerate(map(state_dict, state))
        return {f"{i}.{name}": value for i, part in parts for name, value in part.items()}
    if not isinstance(state, torch.optim.Optimizer):
        return {} if state is None else {"tensor": state}
    (parameter,) = state.param_groups[0]["params"]
    group = {key: value for key, value in state.param_groups[0].items() if key != "params"}
    kept = {f"state.{key}": value for key, value in state.state[parameter].items()}
    return kept | {f"group.{key}": value for key, value in group.items()}


def load_state_dict(fresh: Any, values: Mapping[str, Any]) -> Any:
    """Return the state whose values these are; `fresh` is the rule's state at its beginning."""
    if isinstance(fresh, one_by_one.Replicas):
        return one_by_one.load_state_dict(fresh, values)
    if isinstance(fresh, list):
        parts: list[dict[str, Any]] = [{} for _ in fresh]
        for name, value in values.items():
            number, _, key = name.partition(".")
            parts[int(number)][key] = value
        return [load_state_dict(one, part) for one, part in zip(fresh, parts, strict=True)]
    if not isinstance(fresh, torch.optim.Optimizer):
        return None if fresh is None else values["tensor"].to(fresh.device)
    found: dict[str, dict[str, Any]] = {"state": {}, "group": {}}
    for name, value in values.items():
        kind, _, key = name.partition(".")
        found[kind][key] = value
    group = fresh.param_groups[0]
    for key, value in found["group"].items():
        group[key] = tuple(value) if isinstance(group.get(key), tuple) else value
    (parameter,) = group["params"]
    # as torch's own load_state_dict: counters of steps stay with the processor
    on_host = not (group.get("capturable") or group.get("fused"))
    for key, value in found["state"].items():
        moves = isinstance(value, torch.Tensor) and not (key == "step" and on_host)
        fresh.state[parameter][key] = value.to(parameter.device) if moves else value
    return fresh


def _refuse_mixing(name: str) -> None:
    known = getattr(torch.optim, name, None)
    is_optimizer = isinstance(known, type) and issubclass(known, torch.optim.Optimizer)
    if is_optimizer and name not in ELEMENT_WISE:
        raise InputError(
            f"optimizer {name!r} would mix the replicas that train side by side. "
            f"Element-wise ones: {', '.join(ELEMENT_WISE)}; a class or factory of another is "
            f"tried, and runs replica by replica"
        )


def name_of(optimizer: Any) -> str:
    """Return the name under which an optimiser is logged."""
    return optimizer if isinstance(optimizer, str) else own_optimizer.name_of(optimizer)
