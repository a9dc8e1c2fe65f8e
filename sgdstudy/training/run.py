"""Where a training run stands, and its next chunk of steps.

Steps run without looking at their results; what they recorded is read once per chunk. Stops and
divergence are found there, and what ran beyond them is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch

from sgdstudy import quantities
from sgdstudy.history.history import History
from sgdstudy.history.rows import Rows, Sink
from sgdstudy.problems.problem import Problem
from sgdstudy.quantities.chunk import Known
from sgdstudy.recipe import columns
from sgdstudy.recipe import stop as stops
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.recipe.orders import Sampler
from sgdstudy.training import engines
from sgdstudy.training.chunk import REASONS, Ends, Span, Trace, Verdict, Whole, verdict
from sgdstudy.training.engines import Samples
from sgdstudy.training.epochs import Epochs
from sgdstudy.training.recorded import Wanted
from sgdstudy.training.repeats import Repeats
from sgdstudy.training.sample_stream import SampleStreams, sampler
from sgdstudy.training.trajectory import Trajectory

FIRST_STEPS = 4096  # of the first chunk, at most
LEAST_STEPS = 256  # of it, where there is room for them
FIRST_VALUES = 120_000  # samples times parameters: a compiled step on so many costs a chunk's
GROWTH = 3  # times what came before, where only divergence ends a run
CHUNK_VALUES = 8_000_000  # values kept in one chunk
ROW_VALUES = 20  # columns of a step's row
VALUES_PER_END = 6  # vectors of an epoch, where there are none of its steps, in float32
MAX_W_COLUMNS = 16
# loss (R,) and gradient (R, p) of all the data where a chunk begins; None: it is not evaluated
Boundary = tuple[np.ndarray, np.ndarray | None]


class Run:
    """A training run, which stands between two chunks.

    Args:
        problem: in the run's dtype, on its device.
        config: its settings.
        sink: where its rows go.
        trajectory: steps taken elsewhere; None: it takes its own.
        beside: how many runs there are, itself included, that may go on side by side.

    Attributes:
        beside: how many do, where its engine lets it; else 1: it goes on alone.
        w: parameters of the replicas still in the batch, `(len(members), p)`.
        state: of the rule, theirs too.
        sampler: says which samples they take.
        members: which replicas they are.
        epoch: number of done epochs.
        batch: number of done batches of the present one.
        live: which of all R replicas go on; `stop_epoch`, `n_steps`, `reason`, `final_w` as well
            are of all.
    """

    def __init__(
        self,
        problem: Problem,
        config: TrainConfig,
        sink: Sink,
        trajectory: Trajectory | None = None,
        beside: int = 1,
    ) -> None:
        seeds, n = list(config.seeds), len(config.seeds)
        self.epoch, self.batch = 0, 0  # done epochs; done batches of the present one
        self.problem, self.config, self.sink = problem, config, sink
        self.phases = config.phases(problem.d)
        self.per_epoch = int(self.sizes.sum())  # samples
        self.diagnostics = quantities.resolve(config.diagnostics)
        self.engine: engines.Engine
        self.sampler: Sampler | SampleStreams | Trajectory
        self.repeats: Repeats | None
        self.beside = 1
        if trajectory is not None:
            self.engine, self.engine_note, self.sampler = trajectory, "", trajectory
            self.repeats = None
            self.w = trajectory.w[0]
        else:
            self.engine, self.engine_note = engines.choose(problem, config)
            if isinstance(self.engine, engines.Eager) and not self.engine.asks:
                self.beside = beside
            compiled = self.engine.name == "compiled"
            self.repeats = Repeats(problem, compiled, self.phases.n_steps)
            self.sampler = sampler(problem, config, seeds)
            self.w = problem.initial(seeds)
        # an adaptive order knows an epoch only once it has the gradients of the one before
        adaptive = isinstance(self.sampler, Sampler) and self.sampler.adaptive
        self.adaptive = adaptive and config.batch_size is not None
        self.state = self.engine.init(self.w)
        self.rates = config.rates(problem.d)
        if isinstance(self.sampler, SampleStreams):  # all the data: there is no such thing
            known = self.diagnostics.items()
            self.diagnostics = {k: v for k, v in known if not k.startswith("full_")}
        # 0: no rows of steps
        most_rows = n * self.phases.n_steps
        self.row_stride = config.record_rows and -(-most_rows // config.record_rows)
        self.every_step = self._looks_at_every_step()
        self.start = self.w.clone()  # of all R seeds
        self.started = time.perf_counter()
        self.times: np.ndarray = np.empty(0)  # after each step of the chunk, seconds since then
        # over all R seeds
        self.w_start = self.w.cpu().double().numpy()
        self.final_w = self.w.cpu().numpy().copy()
        self.live = np.ones(n, bool)
        self.reason = np.full(n, "", dtype="U11")
        self.stop_epoch = np.zeros(n, int)
        self.n_steps = np.zeros(n, int)
        # over the replicas still in the batch
        self.members = np.arange(n)
        self.epochs = Epochs(problem, config, self.phases)
        self.watch = stops.Watch.of(n)
        self.boundary: Boundary | None = None
        self.samples = Samples(None, problem.x, problem.y)  # of the chunk's steps
        self.shown_loss = np.nan
        self.seconds_per_step = np.inf
        # an empty block first: the columns are there even if no epoch is ever completed
        none = {name: np.empty((0, n)) for name in self.epochs.columns} | self._clock(slice(0))
        self._write_epochs(none, self.final_w[None][:0], np.zeros(n, int))

    @property
    def sizes(self) -> np.ndarray:
        """Those of the present epoch's batches, `(m,)`."""
        return self.phases.at(self.epoch).sizes

    @property
    def over(self) -> bool:
        """Whether nothing is left to be trained."""
        return not self.live.any() or self.epoch >= self.phases.epochs

    def history(self, problem: Problem, seconds: float) -> History:
        """Return what was recorded, of the problem as it was given, in so many seconds."""
        most = "max_epochs" if self.config.steps is None else "max_steps"
        self.reason[self.reason == ""] = most
        return History(
            problem=problem,
            config=self.config,
            sink=self.sink,
            w=self.final_w,
            stop_epoch=self.stop_epoch,
            stop_reason=self.reason,
            n_steps=self.n_steps,
            train_seconds=seconds,
            seconds_per_step=self.seconds_per_step,
            engine=self.engine.name,
            engine_note=self.engine_note,
        )

    # ---- one chunk -------------------------------------------------------------------------

    def span(self, most: int, ends: int) -> Span:
        """Return the next chunk: whole epochs, or a part of one when an epoch is long.

        Args:
            most: the most steps it may have.
            ends: the most epochs that may end in it.
        """
        m = len(self.sizes)
        if m <= most and not self.batch:
            ahead = 1 if self.adaptive else self.phases.until(self.epoch)
            return Span(self.sizes, min(most // m, ahead, ends), 0, True)
        last = min(m, self.batch + most)
        return Span(self.sizes[self.batch : last], 1, self.batch, last == m)

    def ahead(self, span: Span) -> engines.Ahead:
        """Return the steps of a chunk, as an engine takes them."""
        if self.config.batch_size is not None:
            indices = self.sampler.take(span.n_epochs * int(span.sizes.sum()))
            held = self.sampler if isinstance(self.sampler, SampleStreams) else self.problem
            self.samples = Samples(indices, held.x, held.y)
        if self.repeats:
            self.repeats.begin()
        before = int(self.phases.steps_before(self.epoch)) + span.first
        start = self.start if len(self.members) == len(self.start) else self.start[self.members]
        wanted = Wanted(self.every_step, start, self.epochs.gradients)
        return engines.Ahead(
            self.w, self.state, self.samples, span.sizes, span.n_epochs, before + 1, wanted
        )

    def arrive(self, span: Span, taken: engines.Taken, started: float, seconds: float) -> None:
        """Stand where the steps of a chunk led; they began then, and each took so long."""
        self.w, self.state, recorded = taken
        if self.repeats:
            self.repeats.end(self.samples, np.tile(span.sizes, span.n_epochs), recorded)
        self.times = started - self.started + seconds * np.arange(1, len(recorded.loss) + 1)
        self.seconds_per_step = min(self.seconds_per_step, seconds)
        if self.adaptive and isinstance(self.sampler, Sampler):
            self.sampler.learn(recorded.gradient)

    def _looks_at_every_step(self) -> bool:
        """Whether anything is computed of parameters or gradients of every step.

        If not they are kept once an epoch, which is less to write and to read again.
        """
        config, problem = self.config, self.problem
        return (
            problem.p <= max(MAX_W_COLUMNS, self.engine.spares)
            or problem.dtype != torch.float32  # there a norm may be infinite though nothing else is
            or problem.least_squares is not None
            or config.batch_size is None
            or self.adaptive
            or config.average is not None
            or config.ema is not None
            or not quantities.are_sparing(self.diagnostics, problem.true_at(np.zeros(1)) is None)
        )

    def most_steps(self) -> int:
        """Return how many steps the next chunk may have: what runs beyond an end is lost."""
        done = int(self.phases.steps_before(self.epoch)) + self.batch
        values = len(self.members) * int(self.sizes[0]) * self.problem.p
        first = min(FIRST_STEPS, max(LEAST_STEPS, FIRST_VALUES // values))
        later = done if self.config.stop is not None else GROWTH * done
        room = max(1, CHUNK_VALUES // (self.beside * self._values_per_step()))
        return min(max(first, later), room, self.engine.chunk_steps)

    def _values_per_step(self) -> int:
        """Return how many values a step keeps in memory until its chunk is written."""
        batch, p = 0, self.problem.p if self.every_step else 0
        if self.engine.gathers and self.config.batch_size is not None:
            batch = int(self.sizes[0]) * (self.problem.x[0].numel() + self.problem.y[0].numel())
        return len(self.members) * max(p, batch, ROW_VALUES)

    def most_ends(self) -> int:
        """Return how many epochs may end in a chunk, where their vectors are what it keeps."""
        if self.every_step:
            return self.phases.epochs
        values = len(self.members) * VALUES_PER_END * self.problem.p
        return max(1, CHUNK_VALUES // (self.beside * values))

    # ---- what the chunk says ---------------------------------------------------------------

    def settle(self, span: Span, trace: Trace) -> None:
        """Read the chunk: who diverged, who stopped, which rows exist; hand the rows over."""
        m = span.m
        self.epochs.add(span, trace)
        epochs = self.epochs.of_batches(self.epoch) if span.complete else {}
        stopped = self._stopped(span, trace, epochs)
        due = self._due(span, stopped)
        whole = self._full(span, trace, due)
        if span.complete:
            epochs = self.epochs.close(self.epoch, epochs, whole.ends, due)
            epochs |= self._clock(slice(m - 1, None, m))
        if stopped is None:
            stopped = self._stopped(span, trace, epochs)
        assert stopped is not None
        found = verdict(span, trace, stopped)
        if self.row_stride:
            self._write_steps(span, trace, whole, found)
        if span.complete:
            self._write_epochs(epochs, trace.ends(span), found.done)
        self._finish(trace, found)
        self.epoch += span.n_epochs if span.complete else 0
        self.batch = 0 if span.complete else span.first + m
        self._compact()

    def _due(self, span: Span, stopped: np.ndarray | None) -> np.ndarray:
        """Return which epochs of the chunk are evaluated, `(E,)`: those that end a replica too."""
        epoch = self.epoch + 1 + np.arange(span.n_epochs)
        due = (epoch % self.config.evaluate_every == 0) | (epoch == self.phases.epochs)
        if stopped is not None:
            due[stopped[stopped < span.n_epochs]] = True
        return due

    def _full(self, span: Span, trace: Trace, due: np.ndarray) -> Whole:
        """Return the whole loss and gradient before every step, and at the end of every epoch.

        Exact at every step for least squares, where steps are recorded; else known at the
        boundaries of epochs only, of those that are due.
        """
        problem, m = self.problem, span.m
        if problem.least_squares is not None and self.row_stride:
            values, slopes = problem.full(trace.w.astype(float))
            ends = Ends(values[m::m], Known.at_all(slopes[m::m]))
            return Whole(values[:-1], Known.at_all(slopes[:-1]), ends)
        if problem.least_squares is not None:
            values, slopes = problem.full(trace.ends(span).astype(float))
            return Whole(values, Known.at_all(slopes), Ends(values, Known.at_all(slopes)))
        if self.config.batch_size is None:
            values, slopes = trace.loss.astype(float), trace.gradient.astype(float)
            value, slope, _ = self.engine.evaluate(trace.w[-1].astype(float))
            after = np.vstack([slopes[1:], slope[None]])
            ends = Ends(np.vstack([values[1:], value[None]]), Known.at_all(after))
            return Whole(values, Known.at_all(slopes), ends)
        if self.boundary is None:
            self.boundary = self._at_start(trace.w[0].astype(float))
        loss, gradient = self.boundary
        ends = self._at_ends(span, trace, due)
        values = np.full(trace.loss.shape, np.nan)
        values[m::m] = ends.loss[:-1]
        at = m * (1 + ends.gradient.steps)
        slopes = ends.gradient.vectors[at < len(values)]
        at = at[at < len(values)]
        if not span.first:  # where it begins
            values[0] = loss
            if gradient is not None:
                at, first = np.insert(at, 0, 0), gradient[None]
                slopes = np.concatenate([first, slopes]) if len(slopes) else first
        return Whole(values, Known(at, slopes, len(values)), ends)

    def _at_start(self, w: np.ndarray) -> Boundary:
        """Return loss and gradient of all the data where the run starts, for its first row."""
        if not self.row_stride:
            return np.full(len(w), np.nan), None
        if (w == w[:1]).all():  # one start for all
            loss, gradient, _ = self.engine.evaluate(w[:1])
            return np.repeat(loss, len(w)), np.repeat(gradient, len(w), axis=0)
        return self.engine.evaluate(w)[:2]

    def _at_ends(self, span: Span, trace: Trace, due: np.ndarray) -> Ends:
        """Return what all the data say at the ends of the epochs that are due."""
        end_w = trace.ends(span)[due] if span.complete else trace.w[:0]
        loss = np.full((span.n_epochs if span.complete else 0, trace.w.shape[1]), np.nan)
        slopes, right = np.empty(end_w.shape), None
        if len(end_w):
            found = self.engine.evaluate(end_w.reshape(-1, end_w.shape[-1]).astype(float))
            loss[due] = found.loss.reshape(end_w.shape[:-1])
            slopes = found.gradient.reshape(end_w.shape)
            if found.accuracy is not None:
                right = np.full(loss.shape, np.nan)
                right[due] = found.accuracy.reshape(end_w.shape[:-1])
        if span.complete:
            self.boundary = loss[-1], slopes[-1] if due[-1] else None
        at = np.flatnonzero(due) if span.complete else np.empty(0, int)
        return Ends(loss, Known(at, slopes, len(loss)), right)

    def _stopped(
        self, span: Span, trace: Trace, epochs: Mapping[str, np.ndarray]
    ) -> np.ndarray | None:
        """Return, per replica, the first epoch of the chunk that the stop rule ends, else E.

        None: what it looks at is not known yet.
        """
        if self.config.stop is None or not span.complete:
            return np.full(len(self.members), span.n_epochs)
        stop, patience = self.config.stop, self.config.patience
        if callable(stop):
            if self.config.evaluate_every == 1 and "full_loss" not in epochs:
                return None
            there = np.where(self.live[self.members], trace.diverged // span.m, 0)
            known = {k: v for k, v in epochs.items() if k != columns.CLOCK}
            rows = self._rows(known, trace.ends(span))
            first, self.watch = stops.ask(stop, rows, there, patience, self.watch)
            return first
        column = stops.column_of(stop[0])
        if column not in epochs:
            return None
        first, self.watch = stops.look(epochs[column].astype(float), stop, patience, self.watch)
        return first

    # ---- rows ------------------------------------------------------------------------------

    def _write_steps(self, span: Span, trace: Trace, whole: Whole, found: Verdict) -> None:
        position = np.arange(len(trace.loss))
        keep = (position[:, None] < found.rows) & self.live[self.members]
        step = self.phases.steps_before(self.epoch) + span.first + position
        if self.row_stride > 1:  # the last row of a replica that ends here is always kept
            over = span.complete and self.epoch + span.n_epochs == self.phases.epochs
            ended = ((found.outcome > 0) | over) & self.live[self.members]
            ends = (position[:, None] == found.rows - 1) & ended
            keep &= (step % self.row_stride == 0)[:, None] | ends
        rates = self.rates(step)
        true_w = self.problem.true_at(step)
        chunk = quantities.Chunk(
            path=trace.w,
            slopes=trace.gradient,
            loss=trace.loss,
            size=np.tile(span.sizes, span.n_epochs),
            full=whole.gradient,
            from_start=trace.distance_start,
            w_start=self.w_start[self.members],
            w_true=None if true_w is None else true_w[:, None],
            lr=rates[:, None],
            problem=self.problem.on(self.samples.x, self.samples.y),
            indices=self.samples.indices,
            step=step,
            every=self.config.diagnostics_every,
            kept=keep.any(1),
        )
        columns = {
            "seed": self._seeds(),
            "epoch": (self.epoch + 1 + position // span.m).astype(np.int32)[:, None],
            "batch": (span.first + position % span.m).astype(np.int32)[:, None],
            "step": step[:, None],
            "size": chunk.size.astype(np.int32)[:, None],
            "loss": trace.loss,
            "grad_norm": trace.grad_norm,
            "full_loss": whole.loss,
            "full_grad_norm": chunk.full_grad_norm,
            "update_norm": trace.update_norm,
            **({} if self.config.schedule is None else {"lr": rates[:, None]}),
            **self._clock(slice(None)),
            **_parameters(trace.w[:-1]),
            **quantities.compute(self.diagnostics, chunk),
        }
        self.sink.write("steps", Rows(columns, keep))

    def _write_epochs(
        self, epochs: dict[str, np.ndarray], end_w: np.ndarray, done: np.ndarray
    ) -> None:
        keep = (np.arange(len(end_w))[:, None] < done) & self.live[self.members]
        if keep.any():
            self.shown_loss = float(np.median(epochs["running_loss"][keep.any(1)][-1]))
        self.sink.write("epochs", Rows(self._rows(epochs, end_w), keep))

    def _rows(self, epochs: Mapping[str, np.ndarray], end_w: np.ndarray) -> dict[str, np.ndarray]:
        """Return the columns of the epochs that end at some parameters `(E, R, p)`."""
        number = (self.epoch + 1 + np.arange(len(end_w))).astype(np.int32)[:, None]
        return {"seed": self._seeds(), "epoch": number, **epochs, **_parameters(end_w)}

    def _clock(self, steps: slice) -> dict[str, np.ndarray]:
        """Return the time after some steps of the chunk, `(s, 1)`, where it is wanted."""
        return {columns.CLOCK: self.times[steps, None]} if self.config.clock else {}

    def _seeds(self) -> np.ndarray:
        return np.array(self.config.seeds, dtype=np.int64)[self.members][None, :]

    # ---- who goes on -----------------------------------------------------------------------

    def _finish(self, trace: Trace, found: Verdict) -> None:
        """Note, for every live replica, where it stands."""
        there = np.flatnonzero(self.live[self.members])
        r, (rows, done, outcome) = self.members[there], (part[there] for part in found)
        failed = outcome == 2
        # a diverged seed keeps the parameters of the step where it diverged
        self.final_w[r] = trace.at(rows - failed, there)
        self.n_steps[r] += rows
        self.stop_epoch[r] = self.epoch + done + failed
        self.live[r] = outcome == 0
        self.reason[r] = np.array(REASONS)[outcome]

    def _compact(self) -> None:
        """Drop the replicas that ended, once half of the batch has: shapes seldom change."""
        keep = np.flatnonzero(self.live[self.members])
        if len(keep) == 0 or len(keep) > len(self.members) // 2:
            return
        live = torch.as_tensor(keep, device=self.w.device)
        self.w = self.w[live]
        self.state = self.engine.select(self.w, self.state, live)
        self.sampler.retain(keep.tolist())
        self.members = self.members[keep]
        self.epochs.retain(keep)
        self.watch = self.watch.retain(keep)
        if self.boundary is not None:
            loss, gradient = self.boundary
            kept = None if gradient is None else gradient[keep]
            self.boundary = loss[keep], kept


def _parameters(w: np.ndarray) -> dict[str, np.ndarray]:
    p = w.shape[-1]
    return {f"w{i}": w[..., i] for i in range(p)} if p <= MAX_W_COLUMNS else {}
