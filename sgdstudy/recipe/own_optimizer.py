"""Optimisers of the user's own: the step size they use, and whether they mix replicas.

A class or factory is asked what step size it starts from, so that what is recorded is what is used.
Side by side, R replicas are one parameter `(R, p)`; an optimiser that looks at more than a number
at a time (a norm, a matrix) would mix them, one with a counter of its own would lose it when others
stop, and one whose `step(closure)` evaluates the loss again has one of each. No trial shows what
comes late in a run: `one_by_one` is for all but torch's own element-wise ones.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from sgdstudy import checks
from sgdstudy.errors import InputError, failed, quoted
from sgdstudy.recipe.one_by_one import OneByOne, as_written, load_state_dict, state_dict
from sgdstudy.recipe.step import Step

DEFAULT_LR = 1e-3  # of an optimiser by name, and of a class without a default of its own
TRIAL_STEPS = 6
SHAPE = "as lambda params: torch.optim.SGD(params, lr=0.1)"

Optimizer = torch.optim.Optimizer
Factory = Callable[..., Optimizer]


def name_of(factory: Any) -> str:
    """Return what a class or factory is called."""
    return getattr(factory, "__name__", "factory")


def lr_of(optimizer: Optimizer) -> float:
    """Return the step size of an optimiser; NaN where it has none, or several."""
    sizes = {_number(group.get("lr")) for group in optimizer.param_groups}
    return sizes.pop() if len(sizes) == 1 else math.nan


def build(
    factory: Factory, params: list[torch.Tensor], lr: float | None, options: Mapping[str, Any]
) -> Optimizer:
    """Return the optimiser of a class or factory, whose step size is `lr`; None: its own.

    `lr` and the options go to a callable that takes them: any class, and
    `lambda params, lr: MyOptimizer(params, lr=lr)`.

    Raises:
        InputError: it fails, sets another step size, takes no such option, or returns what is not
            an optimiser of these parameters.
    """
    takes, needs = _arguments(factory, "lr")
    check_options(name_of(factory), options, options_of(factory))
    if not needs:
        try:
            made = _called(factory, params, options)
            if lr is None or _same_number(lr_of(made), lr):
                return made
        except InputError as error:
            if not (takes and isinstance(error.__cause__, TypeError)):
                raise  # else it may be the step size that is missing
    if not takes:
        assert lr is not None
        if _same_number(lr_of(_called(factory, [_trial_parameter()], options)), lr):
            raise InputError(
                f"the optimizer {name_of(factory)!r} reads its lr off the parameters, "
                f"{lr_of(made):g} here and {lr:g} elsewhere: give a number, or a schedule"
            )
        raise InputError(
            f"the optimizer {name_of(factory)!r} sets its own lr, {lr_of(made):g}, and lr={lr:g} "
            f"is given too: leave lr out, or let it take it, as lambda params, lr: "
            f"torch.optim.SGD(params, lr=lr)"
        )
    wanted = DEFAULT_LR if lr is None else lr
    made = _called(factory, params, {**options, "lr": wanted})
    if not _same_number(lr_of(made), wanted):
        raise InputError(
            f"the optimizer {name_of(factory)!r} was given lr={wanted:g} and uses "
            f"{lr_of(made):g}: leave lr out"
        )
    return made


def starting_lr(factory: Factory, lr: Any, options: Mapping[str, Any]) -> float:
    """Return the step size that a class or factory starts from, given one or None.

    Raises:
        InputError: as `build`; or a step size that is not a positive number.
    """

    def used(lr: float | None) -> float:
        return lr_of(build(factory, [_trial_parameter()], lr, options))

    if isinstance(lr, float) and math.isnan(lr) and math.isnan(own := used(None)):
        return own  # NaN, as it is recorded of an optimiser without a step size
    return used(None if lr is None else checks.number("lr", lr))


def _trial_parameter() -> torch.Tensor:
    """Return a parameter to make an optimiser of, where only its step size is asked for."""
    return torch.zeros(1, 1, requires_grad=True)


def _called(factory: Factory, params: list[torch.Tensor], given: Mapping[str, Any]) -> Optimizer:
    try:
        made = factory(params, **given)
    except Exception as error:
        raise failed(f"the optimizer {name_of(factory)!r}", error) from error
    if not isinstance(made, Optimizer):
        raise InputError(
            f"the optimizer factory returned {type(made).__name__}; "
            f"expected a torch.optim.Optimizer"
        )
    theirs = [id(p) for group in made.param_groups for p in group["params"]]
    if sorted(theirs) != sorted(map(id, params)):
        raise InputError(
            f"the optimizer factory returned one of other parameters than it was given; "
            f"expected params -> Optimizer, {SHAPE}"
        )
    return made


def _arguments(factory: Callable[..., Any], name: str) -> tuple[bool, bool]:
    """Return whether a callable takes an argument of this name, and whether it needs it."""
    try:
        known = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False, False
    if name in known:
        return True, known[name].default is inspect.Parameter.empty
    return any(p.kind is p.VAR_KEYWORD for p in known.values()), False


def options_of(factory: Factory) -> list[str]:
    """Return the names of the options that a class or factory takes, `**` for any."""
    try:
        known = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):
        return []
    named = [p.name for p in known[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    some = ["**"] if any(p.kind is p.VAR_KEYWORD for p in known) else []
    return [name for name in named if name != "lr"] + some


def check_options(name: str, options: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Raise `InputError` where an optimiser takes no such option, or one is not finite.

    Args:
        name: of the optimiser.
        options: given to it.
        allowed: the options that it takes; `**`: any.
    """
    for option, value in options.items():
        if option == "lr":
            raise InputError(f"lr is given as lr={quoted(value)}, not in options")
        if not allowed:
            raise InputError(
                f"the optimizer {name!r} takes no option {quoted(option)}; options go "
                f"to a name, a class, or a factory with arguments of these names"
            )
        if "**" not in allowed or option == "params":
            known = [one for one in allowed if one != "**"]
            checks.choice(f"option of {name}", option, known)
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{option} of {name} must be finite, got {value!r}")


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return math.nan


def _same_number(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


# ---- side by side, or not --------------------------------------------------------------------


def mixes(together: Any, alone: OneByOne, w: torch.Tensor) -> bool:
    """Return whether two replicas side by side move otherwise than each alone, to the last bit.

    Args:
        together: the rule for both side by side, `rules.TorchOptimizer`.
        alone: the rule for each.
        w: parameters `(2, p)`.

    Raises:
        InputError: the steps of each alone fail.
    """
    gradients = _trial_gradients(w)
    expected = _followed(alone, w, gradients)
    try:
        found = _followed(together, w, gradients)
    except InputError:
        return True
    return not all(_equal(a, b) for a, b in zip(expected, found, strict=True))


def asks_again(alone: OneByOne, w: torch.Tensor) -> bool:
    """Return whether an optimiser's `step` needs a closure: it fails or does not move without.

    One that steps without gets none, as in the loop that most write: `loss.backward()`, `step()`.
    What it does to the gradients before its step, a closure would undo. One that fails either way
    counts as asking: it says then what it would with a closure.

    Raises:
        InputError: it cannot be made of these parameters `(2, p)`.
    """
    try:
        known = inspect.signature(alone.replica(w[0]).optimizer.step).parameters.values()
    except (TypeError, ValueError):
        return False
    first = next(iter(known), None)  # whatever it is called
    if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        return False
    if first.default is first.empty and first.kind is not first.VAR_POSITIONAL:
        return True
    start = torch.zeros_like(w)  # from which the least step moves
    without, given = _ends(alone, start), _ends(replace(alone, closure=True), start)
    if without is None or given is None:
        return without is None
    return _equal(without, start) and not _equal(given, start)


def _ends(rule: OneByOne, w: torch.Tensor) -> torch.Tensor | None:
    """Return the parameters after the trial steps; None where they fail."""
    try:
        return _followed(rule, w, _trial_gradients(w))[-1]
    except InputError:
        return None


def is_complete(alone: OneByOne, w: torch.Tensor) -> bool:
    """Return whether `Optimizer.state` holds all that an optimiser remembers, of parameters (2, p).

    Raises:
        InputError: its replicas are not independent: they share a state, or the global generator.
    """
    gradients = _trial_gradients(w)
    both, last = _followed(alone, w, gradients), _followed(alone, w[1:], gradients[:, 1:])
    if not all(_equal(a[1:], b) for a, b in zip(both, last, strict=True)):
        name = type(alone.replica(w[0]).optimizer).__name__
        raise InputError(
            f"the optimizer {name!r} moves otherwise each time it is tried: it draws from the "
            f"global generator, or keeps a state that its copies share (an attribute of its class?)"
            f"; give each its own torch.Generator and state, in __init__"
        )
    state = alone.init(w)
    for gradient in gradients[:3]:
        w, state = alone.update(w, state, _trial_step(w, gradient))
    try:
        state = load_state_dict(alone.init(w), as_written(state_dict(state)))
    except TypeError:
        return False
    for gradient, row in zip(gradients[3:], both[3:], strict=True):
        w, state = alone.update(w, state, _trial_step(w, gradient))
        if not _equal(w, row):
            return False
    return True


def _trial_gradients(w: torch.Tensor) -> torch.Tensor:
    """Return gradients of the trial steps, `(S, 2, p)`."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(TRIAL_STEPS, *w.shape, generator=draw).to(w.device, w.dtype)


def _trial_step(w: torch.Tensor, gradient: torch.Tensor) -> Step:
    """Return a step of |g|^2 + g (v - w) + |v - w|^2 / 2 in v, a bowl that each step has anew."""
    loss = (gradient * gradient).sum(1)

    def again(r: int, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        off = v - w[r]
        return loss[r] + (gradient[r] * off).sum() + (off * off).sum() / 2, gradient[r] + off

    return Step(gradient, loss, None, again)


def _followed(rule: Any, w: torch.Tensor, gradients: torch.Tensor) -> list[torch.Tensor]:
    """Return the parameters after each step."""
    state, found = rule.init(w), []
    for gradient in gradients:
        w, state = rule.update(w, state, _trial_step(w, gradient))
        found.append(w)
    return found


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(((a == b) | (a.isnan() & b.isnan())).all())
