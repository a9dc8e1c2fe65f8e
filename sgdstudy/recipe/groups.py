"""Parameters in groups: those whose names match a pattern have settings of the optimiser's own.

As torch's parameter groups, `[{"params": ..., "lr": 0.01}, ...]`, told by names of a module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch

from sgdstudy.errors import InputError, quoted
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe import rules
from sgdstudy.recipe.step import Step

Groups = Mapping[str, Mapping[str, Any]]  # by pattern: `lr` and options


def settle(groups: Any, optimizer: Any, lr: float, options: Mapping[str, Any]) -> Groups:
    """Return groups, checked, each with what differs.

    Args:
        groups: by pattern, what differs: `lr`, and options of the optimiser.
        optimizer: of all parameters.
        lr: of those in no group.
        options: of those in no group, and of groups that do not name them.

    Raises:
        InputError: not such a dict, an option that the optimiser does not take, or an optimiser
            that looks at all parameters at once, or that the user makes.
    """
    if not isinstance(groups, Mapping) or not all(
        isinstance(pattern, str) and isinstance(own, Mapping) for pattern, own in groups.items()
    ):
        raise InputError(
            f"groups is a dict of patterns of parameters' names, as {{'0.*': {{'lr': 0.01}}}}, not "
            f"{quoted(groups)}"
        )
    if groups and optimizer not in (*rules.ELEMENT_WISE, "notebook"):
        raise InputError(
            f"groups go with {', '.join(('notebook', *rules.ELEMENT_WISE))}, not "
            f"{quoted(rules.name_of(optimizer))}; a factory makes its own, see docs/training.md"
        )
    found = {}
    for pattern, own in groups.items():
        given = {**options, **own}
        _, rate = rules.settle(optimizer, given.pop("lr", lr), given)
        found[pattern] = {**own, "lr": rate} if "lr" in own else dict(own)
    return found


def columns(groups: Groups, problem: Problem) -> list[torch.Tensor]:
    """Return which numbers of w are of each group, and last those that are of none.

    Raises:
        InputError: the model is no module, or a pattern matches no parameter, or one that another
            matches too.
    """
    if not problem.names:
        raise InputError(
            "groups are told by names of a module's parameters, and the model is a function of w"
        )
    owners: list[str] = []
    for name in problem.names:
        matching = [pattern for pattern in groups if fnmatchcase(name, pattern)]
        if len(matching) > 1:
            raise InputError(f"two groups, {matching[0]!r} and {matching[1]!r}, match {name!r}")
        owners += matching or [""]
    for pattern in groups:
        if pattern not in owners:
            names = ", ".join(problem.names)
            raise InputError(f"the group {pattern!r} matches no parameter; there are {names}")
    of = np.repeat(owners, [shape.numel() for shape in problem.shapes])
    return [torch.as_tensor(np.flatnonzero(of == pattern)) for pattern in (*groups, "")]


def text(groups: Groups) -> str:
    """Return groups as they are logged."""
    return "; ".join(
        f"{pattern}: {', '.join(f'{name}={value}' for name, value in own.items())}"
        for pattern, own in groups.items()
    )


@dataclass(frozen=True)
class Grouped:
    """A rule for each group of parameters; its state is a list of theirs.

    Attributes:
        parts: the numbers of w that are of a group, and its rule.
    """

    parts: Sequence[tuple[torch.Tensor, rules.Rule]]

    def init(self, w: torch.Tensor) -> list[Any]:
        """Return the states for parameters `(R, p)`."""
        return [rule.init(w[:, at]) for at, rule in self.parts]

    def update(self, w: torch.Tensor, state: list[Any], at: Step) -> tuple[Any, Any]:
        """Take one step of every group, each with its own step size."""
        moved, states = torch.empty_like(w), []
        for i, ((here, rule), old) in enumerate(zip(self.parts, state, strict=True)):
            lr = None if at.lr is None else at.lr[i]
            own = at._replace(gradient=at.gradient[:, here], lr=lr)
            moved[:, here], new = rule.update(w[:, here], old, own)
            states.append(new)
        return moved, states

    def select(self, w: torch.Tensor, state: list[Any], live: torch.Tensor) -> list[Any]:
        """Return the states of the replicas at positions `live`."""
        pairs = zip(self.parts, state, strict=True)
        return [rule.select(w[:, here], old, live) for (here, rule), old in pairs]


def make(
    groups: Groups, optimizer: str, lr: float, options: Mapping[str, Any], problem: Problem
) -> Grouped:
    """Return the rule of groups that `settle` returns; those in none have `lr` and options."""
    made = []
    for at, own in zip(columns(groups, problem), (*groups.values(), {}), strict=True):
        given = {**options, "lr": lr, **own}
        made.append((at.to(problem.x.device), rules.make(optimizer, given.pop("lr"), given)))
    return Grouped(made)
