"""What a training run recorded, as pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sgdstudy import checks, theory
from sgdstudy.checks import SeedsLike
from sgdstudy.errors import InputError
from sgdstudy.history import batches as of_batches
from sgdstudy.history import identities, moments
from sgdstudy.history.drift import Behind, excess_behind
from sgdstudy.history.edge import Edge, around_edge
from sgdstudy.history.rows import Sink
from sgdstudy.history.stopping import Stops, stops, stops_by_chance
from sgdstudy.problems.problem import Problem
from sgdstudy.quantities import norm
from sgdstudy.recipe.config import STOP_COLUMNS, TrainConfig
from sgdstudy.theory import medians, reshuffling
from sgdstudy.theory.expect import expect
from sgdstudy.theory.medians import standard_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
        stop_reason: `(R,)`: converged | max_epochs | diverged | interrupted.
        n_steps: `(R,)`, steps taken.
        train_seconds: wall time of the training.
        seconds_per_step: wall time of a step of all replicas, samples gathered, in the quickest
            chunk of steps: without drawing orders, looking at all the data, or recording.
        engine: what took the steps: eager | compiled | elsewhere.
        engine_note: why they were not compiled, where that would have paid; else "".
        predicted: what theory expected, by name, computed before the run (of a study's arm).
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
            History('curve', 1 max_epochs, 200 steps)
        """
        from sgdstudy.training.train import train
        from sgdstudy.training.trajectory import Trajectory

        known = Trajectory(problem, w, indices, losses, gradients)
        config = known.config(lr, steps_per_epoch, **settings)
        return train(problem, config=config, sink=sink, trajectory=known, progress=False)

    def __repr__(self) -> str:
        reasons = pd.Series(self.stop_reason).value_counts().to_dict()
        ends = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        return f"History({self.problem.name!r}, {ends}, {int(self.n_steps.sum())} steps)"

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
        never = f"in none of {self.config.epochs} epochs"
        return f"by epoch {epoch:.0f}" if np.isfinite(epoch) else never

    @property
    def excess_at_end(self) -> float:
        """Median of how far the last loss of all the data is above the least (least squares)."""
        last = self.load("epochs", columns=["seed", "full_loss"]).groupby("seed").last()
        return medians.median(last["full_loss"].to_numpy(float)) - self._least_loss

    @property
    def late_excess(self) -> np.ndarray:
        """By seed `(R,)`: see `theory.reshuffling.late_excess` (least squares)."""
        return reshuffling.late_excess(self.array("epochs", "full_loss"), self._least_loss)

    @property
    def _least_loss(self) -> float:
        return theory.moments(self.problem).least_loss

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
        parts = []
        for batch in self.sink.batches(kind):
            rows = select(pa.Table.from_batches([batch]), seeds, steps, epochs)
            parts.append(rows.select(checks.columns(columns, rows.schema.names)))
        if not parts:
            names = [columns] if isinstance(columns, str) else columns
            return pd.DataFrame(columns=names, dtype=float)
        return ordered(pa.concat_tables(parts).to_pandas())

    def array(self, kind: str, column: str, **which: Any) -> np.ndarray:
        """Return a column by step or epoch and seed, `(S, R)` or `(E, R)`; NaN beyond a seed's end.

        Args:
            kind: `steps` or `epochs`.
            column: its name.
            which: `seeds`, `steps`, `epochs`, as for `load`.

        Example:
            >>> import sgdstudy as ss
            >>> history = ss.train("curve", batch_size=10, lr=1e-5, epochs=3, seeds=range(2))
            >>> history.array("epochs", "full_loss").shape
            (3, 2)
        """
        at = {"steps": "step", "epochs": "epoch"}[checks.choice("rows", kind, ("steps", "epochs"))]
        rows = self.load(kind, columns=["seed", at, column], **which)
        wide = rows.pivot(index=at, columns="seed", values=column)
        seeds = self.config.seeds  # one that ended before its first row has none
        if "seeds" in which:
            seeds = tuple(seed for seed in seeds if seed in wide)
        return wide.reindex(columns=list(seeds)).to_numpy(float)

    def parameters(self, kind: str = "steps", **which: Any) -> np.ndarray:
        """Return the parameters by step or epoch and seed, `(S, R, p)` or `(E, R, p)`.

        Before each step, at the end of each epoch; arguments as of `array`.
        """
        return moments.parameters(self, kind, **which)

    def stops(self, rule: str, epsilon: float) -> Stops:
        """Return where a stopping rule would have ended the seeds, and whether it should have.

        Losses stop below epsilon, the gradient norm below what it has to be at that loss
        (`theory.gradient_bound`).

        Args:
            rule: as of `TrainConfig.stop`.
            epsilon: the loss of all the data that counts as done.

        Raises:
            InputError: a rule that does not exist; the gradient norm of what is not least squares.
        """
        column, threshold = STOP_COLUMNS[checks.choice("stop rule", rule, STOP_COLUMNS)], epsilon
        if rule == "grad_norm":
            ls = theory.moments(self.problem)
            threshold = float(theory.gradient_bound(ls, epsilon - ls.least_loss))
        quantity, loss = (self.array("epochs", name) for name in (column, "full_loss"))
        return stops(quantity, threshold, loss, epsilon)

    def lucky_stops(self, epsilon: float, draws: int = 200) -> np.ndarray:
        """Return with which probability a random last batch had stopped a seed falsely, `(R,)`.

        At the parameters before every epoch's last step, random batches in the last one's place:
        how many of them have a loss below epsilon, while that of all the data is not.

        Args:
            epsilon: the loss that counts as done.
            draws: random batches an epoch and seed.
        """
        c, d = self.config, self.problem.d
        sizes = c.batch_sizes(d)
        ws, ls = self.parameters()[len(sizes) - 1 :: len(sizes)], theory.moments(self.problem)
        chance = theory.lucky_share(ls, ws, d, sizes[-1], epsilon, draws)
        return stops_by_chance(chance, self.array("epochs", "full_loss") < epsilon)

    def gradient_over_bound(self) -> np.ndarray:
        """Return |g| of all the data over the least it may be there, by epoch and seed, `(E, R)`.

        See `theory.gradient_bound`; the excess loss is that of the parameters, as a difference of
        losses is rounding where it is small.
        """
        ls = theory.moments(self.problem)
        bound = theory.gradient_bound(ls, ls.excess(self.parameters("epochs")))
        return self.array("epochs", "full_grad_norm") / bound

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

    def batches_off(self, batches: Sequence[np.ndarray]) -> float:
        """Return how far the first seed's steps are from those on these; see `batches.py`."""
        return of_batches.batches_off(self, batches)

    def mean_square_batch_norm(self) -> float:
        """Return the mean of the squared norms of the batch gradients, all seeds and steps."""
        return of_batches.mean_square_batch_norm(self)

    def way_off(self) -> float:
        """Return how far the first epoch's mean gradient is from the way made, relative."""
        return of_batches.way_off(self)

    def ratio(self, column: str, other: str) -> np.ndarray:
        """Return a column of `epochs` over another, the median over the seeds by epoch, `(E,)`."""
        rows = self.load("epochs", columns=["seed", "epoch", column, other])
        by_epoch = (rows[column] / rows[other]).groupby(rows["epoch"]).median()
        found: np.ndarray = by_epoch.to_numpy(dtype=float)
        return found

    def excess(self, kind: str = "epochs", **which: Any) -> np.ndarray:
        """Return the excess loss by epoch or step, and seed; see `moments.excess`."""
        return moments.excess(self, kind, **which)

    def from_minimiser(self, kind: str = "epochs", **which: Any) -> np.ndarray:
        """Return w - w* by epoch or step, seed, parameter; see `moments.from_minimiser`."""
        return moments.from_minimiser(self, kind, **which)

    def mode_variance(self, epochs: slice | None = None) -> np.ndarray:
        """Return the variance of w in each mode of the Hessian; see `moments.mode_variance`."""
        return moments.mode_variance(self, epochs)

    def log_rate(self, first: int, last: int | None = None) -> theory.Estimate:
        """Return how log|w - w*| changes per step between two epochs; see `moments.log_rate`."""
        return moments.log_rate(self, first, last)

    def noise_scale(self, part: slice, weights: np.ndarray | None = None) -> theory.Estimate:
        """Return the gradient noise scale of a stretch of steps; see `moments.noise_scale`."""
        return moments.noise_scale(self, part, weights)

    def growth_per_epoch(self) -> float:
        """Return the last finite ratio of successive running losses of the first seed, or NaN."""
        loss = self._of_first_seed("running_loss")
        loss = loss[np.isfinite(loss)]
        return float(loss[-1] / loss[-2]) if len(loss) > 1 else float("nan")

    def lr_limit(self) -> float:
        """Return the step size limit that the first seed's growth shows; NaN where it is falling.

        2 lr / (1 + sqrt(growth)), as beyond the limit the loss grows by (1 - lr lambda_max)^2.
        """
        growth = self.growth_per_epoch()
        return float(2 * self.config.lr / (1 + np.sqrt(growth))) if growth > 1 else float("nan")

    def contraction(self, epochs: int = 10) -> float:
        """Return the first seed's factor of the error per epoch, from the last epochs' full loss.

        It is the square root of that of the loss; NaN of a run of one epoch.
        """
        loss = self._of_first_seed("full_loss")
        epochs = min(epochs, len(loss) - 1)
        if epochs < 1:
            return float("nan")
        return float((loss[-1] / loss[-1 - epochs]) ** (1 / (2 * epochs)))

    def steps_to_excess(self, target: float) -> tuple[float, float]:
        """Return for how many steps the seeds' mean excess loss is above a target; standard error.

        The error is that of the mean's logarithm where theory has it at the target, over the rate
        at which it falls there. Infinite where three times the steps that theory expects are not
        enough.
        """
        path = expect(self).path(target).excess
        loss = self.array("steps", "full_loss", steps=slice(0, 3 * len(path)))
        loss = loss - theory.moments(self.problem).least_loss
        there = loss[min(len(path), len(loss)) - 1]
        error = standard_error(there) / there.mean() / np.log(path[-2] / path[-1])
        return theory.time_above(loss.mean(1), target), float(error)

    def edge(self) -> Edge:
        """Return what the seeds do around the edge of their rule, `theory.sharpness_limit`.

        Raises:
            InputError: the run has no column `full_hess_max_eig`.
        """
        sharpness, loss = (self.array("steps", name) for name in ("full_hess_max_eig", "full_loss"))
        return around_edge(
            sharpness, loss, theory.sharpness_limit(self.config.lr, **self.config.options)
        )

    def behind(self, law: theory.SampleLaw, first: int = 0) -> Behind:
        """Return how far the seeds are behind the true parameters, which may move.

        Args:
            law: that the samples are drawn from.
            first: the step looked at first.

        Raises:
            InputError: the true parameters are not known.
        """
        total, seed = self.config.n_steps(self.problem.d), self.config.seeds[0]
        which = slice(first, total)
        step = self.load(columns=["step"], seeds=seed, steps=which)["step"].to_numpy()
        expected = expect(self).tracking_path(law)[1][step]
        true = self.problem.true_at(step)
        assert true is not None
        excess = excess_behind(self.parameters(steps=which), true, law.hessian)
        return Behind(step, excess, self.array("steps", "loss", steps=which), expected)

    def error_growth(self, epochs: int) -> np.ndarray:
        """Return by seed `(R,)` the growth of log |error| per epoch, over the first epochs.

        Half that of the log of the full loss, from the end of the first to that of the last; NaN
        of a single epoch.
        """
        loss = self.array("epochs", "full_loss", epochs=slice(1, epochs + 1))
        if len(loss) < 2:
            return np.full(len(self.w), np.nan)
        return np.asarray(np.log(loss[-1] / loss[0]) / (2 * (len(loss) - 1)))

    def peak(self, epoch: int = 1) -> tuple[float, int]:
        """Return the largest loss of a batch of the first seed in an epoch, and which, from 1."""
        which = {"seeds": self.config.seeds[0], "epochs": slice(epoch, epoch + 1)}
        rows = self.load(columns=["loss", "batch"], **which)
        at = rows["loss"].idxmax()
        return float(rows["loss"][at]), int(rows["batch"][at]) + 1

    def contraction_along(self, direction: np.ndarray) -> float:
        """Return the first seed's factor of the error per epoch along a direction `(p,)`.

        Differences of w between successive epochs' starts, the last over the first: what every
        epoch adds alike drops out. NaN of fewer than three epochs.
        """
        names = [f"w{i}" for i in range(self.problem.p)]
        rows = self.load(columns=["epoch", "batch", *names], seeds=self.config.seeds[0])
        starts = rows[rows["batch"] == 0][names].to_numpy(dtype=float)
        moved = np.abs(np.diff(starts @ direction))
        if len(moved) < 2:
            return float("nan")
        return float((moved[-1] / moved[0]) ** (1 / (len(moved) - 1)))

    def gaps(self) -> list[theory.Gap]:
        """Return what separates running and full loss, epoch by epoch, of the first seed."""
        seed = self.config.seeds[0]
        steps = self.load(columns=["seed", "epoch", "size", "loss", "full_loss"], seeds=seed)
        ends = self.load("epochs", columns=["seed", "epoch", "full_loss"], seeds=seed)
        by_epoch = dict(iter(steps.groupby("epoch")))
        found = []
        for epoch, end in zip(ends["epoch"], ends["full_loss"], strict=True):
            rows = by_epoch[epoch]
            loss, full, size = (
                rows[k].to_numpy(dtype=float) for k in ("loss", "full_loss", "size")
            )
            found.append(theory.gap(loss, full, size, end))
        return found

    def over_full(self, column: str) -> np.ndarray:
        """Return a loss of `epochs` over the full loss, by epoch `(E,)`, median over the seeds."""
        rows = self.load("epochs", columns=["seed", "epoch", column, "full_loss"])
        ratio = rows[column] / rows["full_loss"]
        return ratio.groupby(rows["epoch"]).median().to_numpy(dtype=float)

    def off(self, identity: str) -> identities.Off:
        """Return how far the records are off an identity, relative; see `history.identities`."""
        return identities.off(self, identity)

    def _of_first_seed(self, column: str) -> np.ndarray:
        """Return a column of `epochs`, of the first seed."""
        columns = ["seed", "epoch", column]
        rows = self.load("epochs", columns=columns, seeds=self.config.seeds[0])
        return rows[column].to_numpy(dtype=float)

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
