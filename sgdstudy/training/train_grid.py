"""The trainer over a grid of step sizes and options: K combinations, side by side."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from typing import Any

from sgdstudy import problems
from sgdstudy.errors import InputError, quoted
from sgdstudy.history.history import History
from sgdstudy.history.rows import Memory
from sgdstudy.problems import bindings
from sgdstudy.problems.data import DTYPES
from sgdstudy.problems.problem import Problem
from sgdstudy.problems.torch_state import own_state
from sgdstudy.recipe import draw_cache
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.training.engines import is_worth_compiling
from sgdstudy.training.interrupts import interrupt_flag
from sgdstudy.training.run import Run
from sgdstudy.training.train import take_chunks

# what differs between combinations, with the defaults of `TrainConfig`
VARIED: dict[str, Any] = {"optimizer": "SGD", "lr": None, "options": {}}
SETTINGS = [setting.name for setting in fields(TrainConfig)]


@own_state()
def train_grid(
    problem: Problem | str,
    grid: Mapping[str, Iterable[Any]],
    *,
    progress: bool | None = None,
    description: str = "",
    **settings: Any,
) -> list[History]:
    """Train every combination of some step sizes and options of the optimiser, side by side.

    Each history is the one that `train` returns for its combination alone: the same seeds with the
    same orders and first parameters, its own rows, stops and `config`. In eager steps the gradients
    of all K combinations times R seeds are evaluated in one batch; products of matrices round by
    how large a batch is, so that numbers agree to rounding, and what hangs on the last bit (an
    unstable run, a stop at the very threshold) may end otherwise. What does not go side by side is
    trained one combination after the other, bit for bit as alone: compiled steps, which take each
    replica alone anyway, optimisers whose `step` takes a closure, and runs that ask functions of
    one's own (stop, order, measures, diagnostics): those may remember what they were asked, and go
    on from there with the next combination, as in a loop.

    Args:
        problem: a `Problem`, or a name of `problems.by_name.PROBLEMS`.
        grid: lists of values by name: `lr`, and options of the optimiser, as
            `{"lr": [0.1, 1.0], "momentum": [0.0, 0.9], "betas": [(0.9, 0.99), (0.9, 0.999)]}`.
        progress: show a bar with the running loss; None: when there is someone to see it.
        description: what the bar calls the runs.
        settings: those of `train` which all of them share; `options` are those not in the grid.

    Returns:
        K histories, in the order of `itertools.product`, the last name fastest; `w` `(R, p)` each.
        `train_seconds` and `seconds_per_step` are of all that is trained side by side.

    Raises:
        InputError: a grid that is empty, names what is not an option, or has a value twice; and
            what `train` refuses.

    Example:
        >>> grid = {"lr": [1e-5, 1e-4], "momentum": [0.0, 0.9]}
        >>> histories = train_grid("curve", grid, batch_size=10, epochs=3, seeds=range(2))
        >>> [(h.config.lr, h.config.options["momentum"]) for h in histories]
        [(1e-05, 0.0), (1e-05, 0.9), (0.0001, 0.0), (0.0001, 0.9)]
        >>> histories[3].w.shape, len(histories[3].epochs)
        ((2, 3), 6)
    """
    problem = problems.get(problem)
    configs = _configs(grid, settings)
    for config in configs:
        config.check(problem)
        bindings.check(config, "these settings")
    problem.check_unchanged()
    try:
        # a Ctrl-C ends all of them: a flag within one that is marked is marked as well
        with _orders_drawn_once(problem, configs[0]), interrupt_flag():
            return _trained(problem, configs, description, progress)
    finally:
        bindings.settle(problem, *configs)


def _orders_drawn_once(problem: Problem, config: TrainConfig) -> AbstractContextManager[None]:
    """Let compiled runs share what they draw, which takes as long as the half of a small one."""
    if not is_worth_compiling(config, config.n_steps(problem.d)):
        return nullcontext()
    return draw_cache.shared(len(config.seeds) * config.n_epochs(problem.d) * problem.d)


def _trained(
    problem: Problem, configs: list[TrainConfig], description: str, progress: bool | None
) -> list[History]:
    """Return the histories of some settings: those that may go side by side, the others alone."""
    dtype = problem.dtype if configs[0].dtype is None else DTYPES[configs[0].dtype]
    placed = problem.to(dtype, configs[0].device)
    found: dict[int, History] = {}
    beside: dict[int, Run] = {}
    setup = 0.0  # seconds

    def finish(runs: Mapping[int, Run], started: float) -> None:
        for run in runs.values():
            run.started = started
        take_chunks(list(runs.values()), description, progress)
        seconds = time.perf_counter() - started
        found.update((k, run.history(problem, seconds)) for k, run in runs.items())

    for k, config in enumerate(configs):
        started = time.perf_counter()
        run = Run(placed, config, Memory(), beside=1 if _asks(config) else len(configs))
        if run.beside == 1:  # at once: of those that wait, each would hold a copy of the data
            finish({k: run}, started)
            continue
        beside[k] = run
        setup += time.perf_counter() - started
    if beside:
        finish(beside, time.perf_counter() - setup)
    return [found[k] for k in range(len(configs))]


def _asks(config: TrainConfig) -> bool:
    """Whether a run asks functions of the user's own on its way."""
    listed = () if isinstance(config.diagnostics, str) else config.diagnostics
    return any(map(callable, (config.stop, config.order, *config.measures.values(), *listed)))


def _configs(grid: Any, settings: Mapping[str, Any]) -> list[TrainConfig]:
    """Return the settings of every combination, checked."""
    if not isinstance(grid, Mapping) or not grid:
        raise InputError(
            f"a grid is a dict of lists of values, as {{'lr': [0.01, 0.1]}}, not {quoted(grid)}"
        )
    optimizer, lr, options = (settings.get(name, VARIED[name]) for name in VARIED)
    if not isinstance(options, Mapping):
        raise InputError(f"options is a dict, as {{'momentum': 0.9}}, not {quoted(options)}")
    values = [_values(name, grid[name]) for name in _names(grid, lr, options)]
    found: list[TrainConfig] = []
    for point in itertools.product(*values):
        own = dict(zip(grid, point, strict=True))
        changes = {"optimizer": optimizer, "lr": own.pop("lr", lr), "options": {**options, **own}}
        if found:  # what can be read once only is settled by now
            found.append(replace(found[0], **changes))
        else:
            found.append(TrainConfig.of(**{**settings, **changes}))
    return found


def _names(grid: Mapping[Any, Any], lr: Any, options: Mapping[str, Any]) -> list[Any]:
    """Return the names of a grid, which may stand in it beside what is given."""
    for name in grid:
        if name != "lr" and name in (*SETTINGS, "problem"):
            raise InputError(
                f"train_grid goes over lr and options of the optimizer, and {name} is a setting "
                f"that its runs share; ss.sweep goes over any"
            )
        if name in options or (name == "lr" and lr is not None):
            raise InputError(f"{name} is in the grid, and given beside it; give it once")
    return list(grid)


def _values(name: Any, given: Any) -> list[Any]:
    """Return the values of a name of the grid, as Python's own."""
    values = _plain(given)
    if isinstance(values, (str, Mapping)) or not isinstance(values, Iterable):
        raise InputError(
            f"the grid's {name} is a list of values, as [0.01, 0.1], not {quoted(given)}"
        )
    found = [_plain(value) for value in values]
    if not found:
        raise InputError(f"the grid's {name} has no value; give one or more, as [0.01, 0.1]")
    for i, value in enumerate(found):
        if value in found[:i]:
            raise InputError(f"the grid's {name} has {quoted(value)} twice; give each value once")
    return found


def _plain(value: Any) -> Any:
    """Return an array, a tensor, or a number of theirs, as Python's own."""
    return value.tolist() if hasattr(value, "tolist") else value
