"""The shared trainer: R replicas of a problem, a chunk of steps at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from tqdm.auto import tqdm

from sgdstudy import problems
from sgdstudy.errors import InputError, quoted
from sgdstudy.history.history import History
from sgdstudy.history.rows import Memory, Sink
from sgdstudy.problems import bindings
from sgdstudy.problems.data import DTYPES
from sgdstudy.problems.problem import Problem
from sgdstudy.problems.torch_state import own_state
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.training.beside import advance
from sgdstudy.training.interrupts import interrupt_flag, visible
from sgdstudy.training.run import Run
from sgdstudy.training.trajectory import Trajectory


class Keeper(Protocol):
    """Keeps a training run between its chunks, and lets it begin where another one stood."""

    def begin(self, run: Run) -> float:
        """Bring a new run to where another stood; return the seconds that one had taken."""

    def between(self, run: Run) -> None:
        """Keep the run if it is time to."""

    def save(self, run: Run) -> None:
        """Keep the run now."""


@own_state()
def train(
    problem: Problem | str,
    *,
    config: TrainConfig | None = None,
    progress: bool | None = None,
    description: str = "",
    sink: Sink | None = None,
    trajectory: Trajectory | None = None,
    keeper: Keeper | None = None,
    **settings: Any,
) -> History:
    """Train R seeds of a problem side by side and return everything that was recorded.

    What the caller has set in torch (default dtype, `no_grad`, autocast, threads, ...) is set aside
    meanwhile: the numbers depend on problem and settings alone.

    Args:
        problem: a `Problem`, or a name of `problems.by_name.PROBLEMS`.
        config: ready settings; or give them by keyword, see `TrainConfig`.
        progress: show a bar with the running loss; None: when there is someone to see it.
        description: what the bar calls the run.
        sink: where the rows go, memory by default.
        trajectory: steps taken elsewhere, to be recorded; see `History.from_arrays`.
        keeper: writes checkpoints of a tracked run, and brings it to where another one stood.
        settings: `optimizer, lr, options, batch_size, order, epochs, stop, seeds, dtype, device,
            engine, diagnostics, record_rows`. `seeds=4` is the one seed 4, `range(4)` are four.

    Returns:
        The history: `steps`, `epochs`, `w` `(R, p)`, `stop_epoch` `(R,)`, `stop_reason` `(R,)`.

    Raises:
        InputError: a setting that is not allowed, or does not fit the problem; data that changed
            since the problem was made.

    Example:
        >>> history = train("curve", optimizer="notebook", lr=2e-4, batch_size=10, epochs=50,
        ...                 stop=("running", 0.1), seeds=range(2))
        >>> history.stop_reason.tolist()
        ['converged', 'converged']
    """
    problem = problems.get(problem)
    config = _config(problem, config, settings)
    problem.check_unchanged()
    bindings.check(config, "these settings")
    for name, value, kind in (("sink", sink, Sink), ("trajectory", trajectory, Trajectory)):
        if value is not None and not isinstance(value, kind):
            raise InputError(f"{name} is a {kind.__name__}, not {quoted(value)}")
    dtype = problem.dtype if config.dtype is None else DTYPES[config.dtype]
    started = time.perf_counter()
    sink = Memory() if sink is None else sink
    run = Run(problem.to(dtype, config.device), config, sink, trajectory)
    if keeper:
        started -= keeper.begin(run)
    run.started = started
    try:
        take_chunks([run], description, progress, keeper)
    finally:
        bindings.settle(problem, config)
    return run.history(problem, time.perf_counter() - started)


def _config(problem: Problem, config: TrainConfig | None, settings: dict[str, Any]) -> TrainConfig:
    """Return the settings, checked against the problem."""
    if config is None:
        config = TrainConfig.of(**settings)
    elif not isinstance(config, TrainConfig):
        raise InputError(f"config is a TrainConfig, not {quoted(config)}")
    elif settings:
        raise InputError(f"give config or {next(iter(settings))}, not both")
    config.check(problem)
    return config


def take_chunks(
    runs: Sequence[Run], description: str, progress: bool | None, keeper: Keeper | None = None
) -> None:
    """Train until the runs are over, side by side where there are several, or Ctrl-C is pressed."""
    bar = tqdm(
        total=runs[0].phases.epochs,
        desc=description,
        unit="epoch",
        delay=1,
        leave=False,
        disable=not (visible() if progress is None else progress),
    )
    with bar, interrupt_flag() as interrupted:
        while going := [run for run in runs if not run.over]:
            if interrupted:
                for run in going:
                    if keeper:
                        keeper.save(run)
                    run.reason[run.live] = "interrupted"
                return
            with np.errstate(all="ignore"):  # replicas that diverge overflow, and are found out
                advance(going)
            if keeper:
                for run in going:
                    keeper.between(run)
            bar.update(going[0].epoch - bar.n)
            loss = np.median([run.shown_loss for run in going])
            n_live = sum(run.live.sum() for run in going)
            bar.set_postfix_str(f"loss {loss:.4g}, {n_live} live", refresh=False)
