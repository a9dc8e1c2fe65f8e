"""An arm that this process makes, declared as a script declares its arms."""

from __future__ import annotations

import functools
import inspect
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, make_dataclass
from typing import Any

from sgdstudy.errors import InputError, quoted
from sgdstudy.language import unknown
from sgdstudy.problems import trial
from sgdstudy.secrecy import stripped
from sgdstudy.studies.arm import SHARED, Arm, Options
from sgdstudy.studies.study import Study
from sgdstudy.sweeps.grid import scalar

PLAIN = (bool, int, float, str, type(None))  # defaults that are recorded as options
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Own(Study):
    """A study that no script declares: an arm, or a function whose parameters are the options.

    Attributes:
        called: its name.
        takes: the function's parameters that are options.
        key: of this one; every task of a worker brings a copy.
        process: where it was made.
        before: where the global generators were: a function that draws from them, as modules do
            their first parameters, draws the same for every combination.
    """

    called: str = ""
    takes: tuple[str, ...] = ()
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    process: int = field(default_factory=os.getpid)
    before: Mapping[str, Any] = field(default_factory=trial.generators)

    @classmethod
    def of(
        cls,
        made: Arm | Callable[..., Arm],
        name: str | None,
        grid: Mapping[str, Sequence[Any]],
        given: Mapping[str, Any],
        seeded: bool,
    ) -> Own:
        """Declare an arm.

        Args:
            made: the arm, or a function that returns it.
            name: of the experiment; None: of the arm's problem, or of the function.
            grid: values by name, of settings and of the function's parameters.
            given: values of others of its parameters.
            seeded: whether the options tell the seeds; else the arm does.

        Raises:
            InputError: the function takes something else, or needs what nobody gives.
        """
        if isinstance(made, Arm):
            name = arm = made.problem.name if name is None else name
        else:
            arm = str(getattr(made, "__name__", ""))
            if name is None and not arm.isidentifier():  # a lambda, or what is no function
                raise InputError("the function has no name: give one, as name='my_own'")
            name = arm if name is None else name
            arm = arm if arm.isidentifier() else name
        values = {} if isinstance(made, Arm) else _values(made, arm, grid, given)
        for option in given:
            if option not in values:
                raise unknown(f"parameter of {arm}", option, values)
        options = make_dataclass(
            "Options",
            [(key, Any, field(default=value)) for key, value in values.items()],
            bases=(Options,),
            frozen=True,
        )
        arms = functools.partial(_arms, made, tuple(values), arm, seeded)
        parts: dict[str, Any] = {"options": options, "arms": arms, "claims": _none, "answer": _none}
        return cls("", "An arm that a program makes.", **parts, called=name, takes=tuple(values))

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.called

    def placed_arms(self, options: Options) -> dict[str, Arm]:
        """Return the arm, by name; see `Study.placed_arms`."""
        now = trial.generators()
        trial.put_back(self.before)
        try:
            return super().placed_arms(options)
        finally:
            trial.put_back(now)

    def tags(self, options: Options) -> dict[str, str]:
        """Return the options; there is no script to run it again."""
        own = {name: v for name, v in stripped(asdict(options)).items() if name not in SHARED}
        return {"sgdstudy.options": json.dumps(own)}


def _values(
    made: Any, arm: str, grid: Mapping[str, Sequence[Any]], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options that a function's parameters are, with their defaults.

    Others with a default are the function's own business.
    """
    try:
        parameters = inspect.signature(made).parameters.values()
    except (TypeError, ValueError):
        text = f"{quoted(made)} does not tell its parameters; give a function, as def arm(lr): ..."
        raise InputError(text) from None
    values: dict[str, Any] = {}
    for parameter in parameters:
        name, default = parameter.name, parameter.default
        if parameter.kind not in NAMED:
            continue
        if name in given and name not in SHARED:
            values[name] = scalar(given[name])
            if type(values[name]) not in PLAIN:
                raise InputError(
                    f"{name} of {arm} is a number, a text, a truth value or None, as an option is; "
                    f"not {quoted(given[name])}"
                )
        elif type(default) in PLAIN and name not in SHARED:
            values[name] = default
        elif name in grid:
            values[name] = grid[name][0]
        elif default is parameter.empty:
            raise InputError(f"{arm} needs {name!r}: name it in the grid, or give it a default")
    return values


def _arms(made: Any, takes: tuple[str, ...], name: str, seeded: bool, options: Any) -> Any:
    """Return the arm, by name."""
    arm = made if isinstance(made, Arm) else made(**{key: getattr(options, key) for key in takes})
    if seeded and isinstance(arm, Arm):
        arm = arm.but(seeds=options.seed_range())
    return {name: arm}


def _none(*given: Any) -> Any:
    """Return no claims, and no answer: a sweep has its own."""
    return []
