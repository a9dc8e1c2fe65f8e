"""What a training run recorded, as pandas.

What can be measured of it are functions of a run, in the files of this folder named by what they
look at; `History` has them as methods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sgdstudy import checks, problems
from sgdstudy.checks import SeedsLike
from sgdstudy.errors import InputError, quoted
from sgdstudy.history import (
    arrays,
    batches,
    drift,
    growth,
    identities,
    losses,
    moments,
    saved,
    stopping,
)
from sgdstudy.history import edge as edges
from sgdstudy.history.checksums import require_threads
from sgdstudy.history.rows import Sink
from sgdstudy.language import say
from sgdstudy.problems.problem import Problem
from sgdstudy.quantities import norm
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.text import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

MAX_ROWS = 1_000_000


@dataclass(frozen=True, eq=False)
class History:
    """Everything a training run recorded.

    Attributes:
        problem: what was trained.
        config: how.
        sink: where the rows are.
        w: final parameters `(R, p)`; of a diverged seed, those of the step where it diverged.
        stop_epoch: `(R,)`, from 1: the epoch at which the seed ended.
        stop_reason: `(R,)`: converged | max_epochs | max_steps | diverged | interrupted.
        n_steps: `(R,)`, steps taken.
        train_seconds: wall time of the training.
        seconds_per_step: wall time of a step of all replicas, samples gathered, in the quickest
            chunk of steps: without drawing orders, looking at all the data, or recording.
        engine: what took the steps: eager | compiled | elsewhere.
        engine_note: why they were not compiled, where that would have paid; else "".
        predicted: what theory expected, by name, computed before the run (of a study's arm).
        color: its colour in all charts, of a study's arm: `#rrggbb`.
    """

    problem: Problem
    config: TrainConfig
    sink: Sink
    w: np.ndarray
    stop_epoch: np.ndarray
    stop_reason: np.ndarray
    n_steps: np.ndarray
    train_seconds: float
    seconds_per_step: float = np.inf
    engine: str = "eager"
    engine_note: str = ""
    predicted: Mapping[str, float] = field(default_factory=dict)
    color: str | None = None

    @classmethod
    def from_arrays(
        cls,
        problem: Problem,
        w: Any,
        indices: Any = None,
        *,
        lr: float,
        losses: Any = None,
        gradients: Any = None,
        steps_per_epoch: int | None = None,
        sink: Sink | None = None,
        **settings: Any,
    ) -> History:
        """Record a trajectory that was computed elsewhere, with the same columns as our own.

        Args:
            problem: what was trained.
            w: parameters before each step and after the last, `(S+1, p)`, or `(S+1, R, p)`.
            indices: the samples of each step, `(S, B)`, or `(S, R, B)`; None: all the data.
            lr: the step size it had.
            losses: batch losses before the steps, `(S, R)`; None: computed from the problem.
            gradients: their gradients, `(S, R, p)`; None: computed from the problem.
            steps_per_epoch: None: one pass over the data.
            sink: where the rows go, memory by default.
            settings: further ones of `train`, as `optimizer="Adam"` or `diagnostics="full"`.

        Raises:
            InputError: arrays that do not fit each other, or the problem.

        Example:
            >>> import numpy as np, sgdstudy as ss
            >>> ws, indices = np.zeros((201, 3)), np.arange(2000).reshape(200, 10)
            >>> history = ss.History.from_arrays(ss.problems.curve(), ws, indices, lr=1e-4)
            >>> history
            History('curve', 1 seed: max_epochs; 200 steps)
        """
        from sgdstudy.training.train import train
        from sgdstudy.training.trajectory import Trajectory

        known = Trajectory(problem, w, indices, losses, gradients)
        config = known.config(lr, steps_per_epoch, **settings)
        return train(problem, config=config, sink=sink, trajectory=known, progress=False)

    @property
    def outcome(self) -> dict[str, Any]:
        """What makes it again beside problem, config and rows, by name."""
        kept = [f.name for f in fields(self) if f.name not in ("problem", "config", "sink")]
        return {name: getattr(self, name) for name in kept}

    def __repr__(self) -> str:
        reasons, n = Counter(self.stop_reason.tolist()), len(self.stop_reason)
        ends = [f"{count} {reason}" for reason, count in reasons.most_common()]
        why = ", ".join(ends if len(ends) > 1 else reasons)
        seeds = f"{counted(n, 'seed')}: {why}"
        return (
            f"History({self.problem.name!r}, {seeds}; {counted(int(self.n_steps.sum()), 'step')})"
        )

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row per seed and step; over a million rows, ask `load` for what you need."""
        return self._whole("steps")

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """One row per seed and epoch."""
        return self._whole("epochs")

    @property
    def converged_epoch(self) -> np.ndarray:
        """Stop epochs `(R,)` as floats; a seed that never stopped is censored: infinite."""
        return np.where(self.stop_reason == "converged", self.stop_epoch, np.inf)

    @property
    def median_stop(self) -> float:
        """Median of `converged_epoch`: infinite where most seeds never stopped."""
        return float(np.quantile(self.converged_epoch, 0.5, method="inverted_cdf"))

    def when(self, epoch: float | None = None) -> str:
        """Say when the median seed stopped: by some epoch, or in none of those that it had.

        Args:
            epoch: another stop to say in the same words, infinite: never; None: the run's own.
        """
        epoch = self.median_stop if epoch is None else epoch
        if np.isfinite(epoch):
            return say("by epoch {epoch:.0f}", epoch=epoch)
        return say(
            "not in {n} epoch", "in none of {n} epochs", n=self.config.n_epochs(self.problem.d)
        )

    @property
    def distance(self) -> np.ndarray:
        """Distance `(R,)` of the final parameters to the true ones of then; NaN: not known."""
        true = self.problem.true_at(self.n_steps)
        if true is None:
            return np.full(len(self.w), np.nan)
        return norm(self.w.astype(float) - true)

    def load(
        self,
        kind: str = "steps",
        *,
        columns: str | list[str] | None = None,
        seeds: SeedsLike | None = None,
        steps: slice | None = None,
        epochs: slice | None = None,
    ) -> pd.DataFrame:
        """Return chosen rows and columns.

        Args:
            kind: `steps` or `epochs`.
            columns: the columns wanted; None for all.
            seeds: the seeds wanted; None for all.
            steps: `slice(first, end)` of the global step, from 0.
            epochs: `slice(first, end)` of the epoch, from 1.

        Raises:
            InputError: a column, or a kind, that does not exist; seeds that are no whole numbers;
                slices with a stride, or that count from the end.
        """
        checks.choice("kind of rows", kind, ("steps", "epochs"))
        require_threads()
        parts = []
        for batch in self.sink.batches(kind):
            rows = select(pa.Table.from_batches([batch]), seeds, steps, epochs)
            parts.append(rows.select(checks.columns(columns, rows.schema.names)))
        if not parts:
            names = [columns] if isinstance(columns, str) else columns
            return pd.DataFrame(columns=names, dtype=float)
        return ordered(pa.concat_tables(parts).to_pandas())

    def at(self, column: str, epoch: int | None = None) -> float:
        """Return the median over the seeds of a column of `epochs`, at an epoch.

        Args:
            column: its name.
            epoch: from 1; None: each seed's last.

        Raises:
            InputError: a column that is not there.

        Example:
            >>> import sgdstudy as ss
            >>> ss.train("curve", lr=1e-5, batch_size=10, epochs=3).at("full_loss", 7)
            nan
        """
        which = None if epoch is None else slice(epoch, epoch + 1)
        rows = self.load("epochs", columns=["seed", "epoch", column], epochs=which)
        last = rows.drop_duplicates("seed", keep="last")[column].to_numpy(dtype=float)
        return float(np.median(last)) if len(last) else float("nan")

    def differing(self, other: History, *columns: str) -> int:
        """Return how many numbers of the steps differ from another run's, in any bit.

        All of them where the runs have not as many steps.

        Args:
            other: the other run.
            columns: the columns that are looked at.

        Raises:
            InputError: a column that is not there.
        """
        one, two = (run.load(columns=list(columns)).to_numpy() for run in (self, other))
        if one.shape != two.shape:
            return max(one.size, two.size)
        return int(np.sum((one != two) & ~(np.isnan(one) & np.isnan(two))))

    # ---- what can be measured of it ----------------------------------------------------------

    array = arrays.array
    parameters = arrays.parameters

    ratio = losses.ratio
    over_full = losses.over_full
    gaps = losses.gaps
    peak = losses.peak
    off = identities.off

    growth_per_epoch = growth.growth_per_epoch
    lr_limit = growth.lr_limit
    contraction = growth.contraction
    contraction_along = growth.contraction_along
    error_growth = growth.error_growth
    last_error = property(growth.last_error)

    batches_off = batches.batches_off
    mean_square_batch_norm = batches.mean_square_batch_norm
    way_off = batches.way_off

    stops = stopping.stops_by_rule
    lucky_stops = stopping.lucky_stops
    edge = edges.edge
    lr_over_mean_square_limit = edges.lr_over_mean_square_limit
    behind = drift.behind

    # of least squares
    excess = moments.excess
    excess_at_end = property(moments.excess_at_end)
    late_excess = property(moments.late_excess)
    steps_to_excess = moments.steps_to_excess
    first_step_below = moments.first_step_below
    over_expected = moments.over_expected
    late_ratios = moments.late_ratios
    decay_power = moments.decay_power
    share_along_steepest = moments.share_along_steepest
    gradient_over_bound = moments.gradient_over_bound
    from_minimiser = moments.from_minimiser
    mode_variance = moments.mode_variance
    log_rate = moments.log_rate
    noise_scale = moments.noise_scale

    # ---- what was trained --------------------------------------------------------------------

    def module(self, seed: int) -> nn.Module:
        """Return a copy of the problem's module with the final parameters of a seed.

        Raises:
            InputError: the model is a function; a seed that the run does not have.
        """
        seeds = list(self.config.seeds)
        if checks.seed(seed) not in seeds:
            raise InputError(f"the run has no seed {seed}; it has {quoted(seeds)}")
        return self.problem.module(self.w[seeds.index(seed)])

    save = saved.save

    # ---- pictures ----------------------------------------------------------------------------

    def plot(self) -> Figure:
        """Draw running and full loss by epoch: median over the seeds, and the 10-90 % band."""
        from sgdstudy import figures

        return figures.loss_by_epoch({self.problem.name: self})

    def cockpit(self) -> Figure:
        """Draw the diagnostics of the first seed, by step, on one page."""
        from sgdstudy import figures

        return figures.cockpit(self)

    def _whole(self, kind: str) -> pd.DataFrame:
        rows = sum(batch.num_rows for batch in self.sink.batches(kind))
        if rows > MAX_ROWS:
            raise InputError(
                f"{rows:,} rows of {kind} are a lot at once; ask for what you need, "
                f"as history.load({kind!r}, columns=['seed', 'epoch', ...], seeds=[0])"
            )
        return self.load(kind)


def load_history(path: str | Path, problem: Problem | str, **functions: Any) -> History:
    """Read what `history.save` wrote.

    Args:
        path: of the file.
        problem: what was trained: the same data, model, loss, penalty and first parameters.
        functions: settings that were functions, as `optimizer=Mine`: a file does not hold them.
            Own diagnostics need not be given: their columns are there.

    Raises:
        InputError: no such file, another problem, a function that is missing, a damaged file.

    Example:
        >>> import sgdstudy as ss, tempfile
        >>> history = ss.train("curve", lr=1e-4, batch_size=10, epochs=2)
        >>> path = history.save(tempfile.mkdtemp() + "/run.sgdstudy")
        >>> again = ss.load_history(path, "curve")
        >>> again, again.differing(history, "loss", "w0")
        (History('curve', 1 seed: max_epochs; 400 steps), 0)
    """
    return History(**saved.read(path, problems.get(problem), functions))


def select(
    table: pa.Table,
    seeds: SeedsLike | None = None,
    steps: slice | None = None,
    epochs: slice | None = None,
) -> pa.Table:
    """Return the rows of the given seeds, global steps and epochs."""
    if seeds is not None:
        table = table.filter(pc.field("seed").isin(checks.wanted_seeds(seeds)))
    for name, part in (("step", steps), ("epoch", epochs)):
        if part is not None:
            first, end = checks.stretch(f"{name}s", part)
            field = pc.field(name).cast(pa.int64())
            table = table.filter((field >= first) & (field < end))
    return table


def ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by seed, then by step or epoch, as far as these columns are there."""
    keys = [key for key in ("seed", "epoch", "step") if key in rows.columns]
    if keys:
        rows = rows.sort_values(keys, kind="stable")
    return rows.reset_index(drop=True)
