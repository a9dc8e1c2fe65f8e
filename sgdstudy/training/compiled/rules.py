"""Update rules as C++: what happens to one parameter `w`, given its gradient `d`.

The arithmetic is that of torch.optim's single-tensor code, rounding by rounding: `add(alpha=)`,
`addcmul` and `lerp` are fused multiply-adds in ATen, everything else rounds after each operation.
Only square roots may differ: torch's come from MKL, where one in six is off by a bit.

Numbers (lr, momentum, betas, ...) are scalars given at run time, so that rules that differ in
them only are the same text; which branches there are (momentum, nesterov, ...) is in the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sgdstudy.errors import Unsupported
from sgdstudy.language import say, to_say
from sgdstudy.recipe import clipping
from sgdstudy.recipe import rules as eager_rules

NUMBERS = ("lr", "momentum", "dampening", "weight_decay", "alpha", "eps")
BRANCHES = ("nesterov", "centered", "decoupled_weight_decay")


Rates = Callable[[np.ndarray], np.ndarray]  # numbers of the steps, from 1 -> step sizes
Scalar = float | Rates


@dataclass(frozen=True)
class Rule:
    """An update rule.

    Attributes:
        lines: C++ statements that change `w`, and the state's parts `s0, s1, ...`; they may use
            the scalars' names, and change `d`, the gradient.
        scalars: name to number, or to `numbers of the steps (S,), from 1 -> (S,)`.
        n_state: numbers of state per parameter, all zero before the first step.
        before: statements that come once a step, before the parameters move; they may use the
            scalars' names, the gradient `g[0..P-1]` and the batch's loss `loss[0]`.
    """

    lines: tuple[str, ...]
    scalars: Mapping[str, Scalar]
    n_state: int = 0
    before: tuple[str, ...] = ()

    def table(self, first: int, n_steps: int) -> np.ndarray:
        """Return the scalars of the steps, `(S, C)` in float64."""
        step = np.arange(first, first + n_steps, dtype=float)
        table = np.empty((n_steps, len(self.scalars)))
        for column, value in enumerate(self.scalars.values()):
            table[:, column] = value(step) if callable(value) else value
        return table


def make(optimizer: Any, lr: float, options: Mapping[str, Any], rates: Rates) -> Rule:
    """Return the rule for an optimizer's name.

    Args:
        optimizer: its name.
        lr: the step size it starts from.
        options: its options.
        rates: the step sizes of the steps.

    Raises:
        Unsupported: any other optimizer, or an option that is not handled.
    """
    if optimizer == "none":
        return Rule((), {})
    if optimizer == "notebook":
        return Rule(("w = w - lr * d;",), {"lr": rates})
    if optimizer == "polyak":
        return _polyak(eager_rules.polyak_options(options), rates)
    if not isinstance(optimizer, str) or optimizer not in TORCH_RULES:
        name = optimizer if isinstance(optimizer, str) else "given as a function"
        text = to_say("the optimizer {name} is not one of {names}")
        raise Unsupported(say(text, name=name, names=", ".join(NAMES)))
    parameter = torch.zeros(1, requires_grad=True)
    settings = getattr(torch.optim, optimizer)([parameter], lr=lr, **options).defaults
    for name, value in settings.items():
        numbers = value if name == "betas" else (value,) if name in NUMBERS else ()
        if not all(isinstance(number, int | float) for number in numbers):
            text = to_say("the option {name} of {optimizer} is not a number")
            raise Unsupported(say(text, name=name, optimizer=optimizer))
        if value and not numbers and name not in BRANCHES:
            given = f"{name}={value}"
            raise Unsupported(say("{optimizer} with {given}", optimizer=optimizer, given=given))
    rule = TORCH_RULES[optimizer](settings | {"lr": rates})
    words = set(re.findall(r"\w+", " ".join(rule.lines)))
    return replace(rule, scalars={n: v for n, v in rule.scalars.items() if n in words})


def clipped(rule: Rule, norm: float | None, value: float | None) -> Rule:
    """Return a rule whose gradients are clipped first, as `clipping.clipped` does.

    Raises:
        Unsupported: a rule that looks at all the gradient itself.
    """
    lines, before, scalars = list[str](), list[str](), dict[str, Scalar]()
    if norm is None and value is None:
        return rule
    if rule.before:
        raise Unsupported(say("the gradient is clipped before a rule that looks at its norm"))
    if value is not None:
        scalars["most"] = value
        lines += ["d = d < -most ? -most : (d > most ? most : d);"]
    if norm is not None:
        scalars |= {"longest": norm, "tiny": clipping.TINY}
        one = f"V d = g[j]; {' '.join(lines)} square += d * d;"
        before += [
            f"V square = V0; for (int j = 0; j < P; j++) {{ {one} }}",
            "V shrink = longest / (v_sqrt(square) + tiny);",
            "shrink = shrink > V1 ? V1 : shrink;",
        ]
        lines += ["d = d * shrink;"]
    lines += rule.lines
    return replace(
        rule, lines=tuple(lines), before=tuple(before), scalars={**scalars, **rule.scalars}
    )


def _sgd(o: Mapping[str, Any]) -> Rule:
    lines = ["d = v_fma(w, decay, d);"] * bool(o["weight_decay"])
    if o["momentum"]:  # the first step, from zero, copies the gradient
        lines += ["s0 = v_fma(d, share, s0 * momentum);"]
        lines += ["d = v_fma(s0, momentum, d);" if o["nesterov"] else "d = s0;"]
    share = 1 - o["dampening"]
    scalars: dict[str, Scalar] = {
        "minus_lr": lambda step: -o["lr"](step),
        "decay": o["weight_decay"],
        "momentum": o["momentum"],
        "share": lambda step: np.where(step == 1, 1.0, share),
    }
    return Rule((*lines, "w = v_fma(d, minus_lr, w);"), scalars, int(bool(o["momentum"])))


def _rmsprop(o: Mapping[str, Any]) -> Rule:
    lines = ["d = v_fma(w, decay, d);"] * bool(o["weight_decay"])
    lines += ["s0 = v_fma(fresh * d, d, s0 * alpha);"]
    fresh, n_state = 1 - o["alpha"], 1
    if o["centered"]:
        lines += [_lerp("s1", fresh), "const V size = v_sqrt(v_fma(-s1, s1, s0)) + eps;"]
        n_state = 2
    else:
        lines += ["const V size = v_sqrt(s0) + eps;"]
    if o["momentum"]:
        buffer, n_state = f"s{n_state}", n_state + 1
        lines += [f"{buffer} = {buffer} * momentum + d / size;"]
        lines += [f"w = v_fma({buffer}, minus_lr, w);"]
    else:
        lines += ["w = w + minus_lr * d / size;"]
    scalars: dict[str, Scalar] = {
        "minus_lr": lambda step: -o["lr"](step),
        "decay": o["weight_decay"],
        "alpha": o["alpha"],
        "fresh": fresh,
        "eps": o["eps"],
        "momentum": o["momentum"],
    }
    return Rule(tuple(lines), scalars, n_state)


def _adam(o: Mapping[str, Any]) -> Rule:
    lr, (beta1, beta2), decay = o["lr"], o["betas"], o["weight_decay"]
    decoupled = o.get("decoupled_weight_decay", False)
    lines = ["w = w * keep;" if decoupled else "d = v_fma(w, decay, d);"] * bool(decay)
    lines += [
        _lerp("s0", 1 - beta1),
        "s1 = v_fma(fresh2 * d, d, s1 * beta2);",
        "w = w + minus_size * s0 / (v_sqrt(s1) / root + eps);",
    ]
    scalars: dict[str, Scalar] = {
        "decay": decay,
        "keep": lambda step: 1 - lr(step) * decay,
        "fresh": 1 - beta1,
        "beta2": beta2,
        "fresh2": 1 - beta2,
        "eps": o["eps"],
        "minus_size": lambda step: -(lr(step) / (1 - beta1**step)),
        "root": lambda step: (1 - beta2**step) ** 0.5,
    }
    return Rule(tuple(lines), scalars, 2)


def _polyak(o: Mapping[str, float], rates: Rates) -> Rule:
    before = (
        "V square = V0; for (int j = 0; j < P; j++) square += g[j] * g[j];",
        "V size = (loss[0] - least) / (c * square);",
        "size = size < V0 ? V0 : size; size = size > lr ? lr : size;",
        "size = square > V0 ? size : V0;",
    )
    scalars: dict[str, Scalar] = {"least": o["least_loss"], "c": o["c"], "lr": rates}
    return Rule(("w = w - size * d;",), scalars, before=before)


def _lerp(old: str, weight: float) -> str:
    """Move `old` towards d by the scalar `fresh`; ATen starts from the end that is nearer."""
    if abs(weight) < 0.5:
        return f"{old} = v_fma(fresh, d - {old}, {old});"
    return f"{old} = v_fma(fresh - V1, d - {old}, d);"


TORCH_RULES = {"SGD": _sgd, "RMSprop": _rmsprop, "Adam": _adam, "AdamW": _adam}
NAMES = ("notebook", "none", "polyak", *TORCH_RULES)
