"""Builds the library of a problem's steps, checks it against eager steps, and calls it.

A library is built in a private temporary directory that is gone once it is loaded, and is found
again by its text, in this process only: arms that differ in lr, data or seeds share one. So are the
statements of a problem's step, as long as it consists of the same operations on the same numbers.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Iterable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sgdstudy.errors import Unsupported, reason
from sgdstudy.language import say, to_say
from sgdstudy.problems.evaluation import Evaluated
from sgdstudy.problems.problem import Problem
from sgdstudy.quantities.chunk import FEW as FEW_NUMBERS
from sgdstudy.recipe import rules as eager_rules
from sgdstudy.recipe.clipping import clipped
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.recipe.schedules import Rates
from sgdstudy.training.compiled import program, rules
from sgdstudy.training.recorded import ALL, Recorded, Wanted, norms_of

LANES = 16
FEW_REPLICAS = 8  # below, one replica after the other is faster
LEAST_BLOCK, FEW = 10, 1000  # samples, parameters: with fewer and more, torch evaluates faster
LANES_BYTES = 600_000  # a step's values: what stack and second-level cache hold
MOST_BYTES = 16_000_000  # beyond, eager is as fast
BUILD_SECONDS = 60
CHECKED = 3  # steps: a rule's first ones differ
TOLERANCE = 1e-3  # of the self-check, relative; a mistaken operation is off by more
SLACK = 1e-30  # of the same, where everything is zero
FLAGS = (  # -O3 runs 0 to 30 % faster, but builds in up to twice the time: seldom regained
    "-O2",
    "-ftree-vectorize",
    "-funswitch-loops",
    "-march=native",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",
    "-shared",
    "-fPIC",
)
LEAST = 'extern "C" void run() {}\n'
NO_COMPILER = to_say("no C++ compiler (g++ or clang++) was found")

_loaded: dict[str, Any] = {}
_recorded: MutableMapping[Problem, dict[int, Statements]] = weakref.WeakKeyDictionary()


class Statements(NamedTuple):
    """What a step on so many samples does.

    Attributes:
        text: in C++.
        n_values: how many values they hold.
        notes: the operations that they are written from.
    """

    text: str
    n_values: int
    notes: list[Any]


def compile_steps(problem: Problem, config: TrainConfig) -> CompiledSteps:
    """Return the compiled steps of a problem under a config, checked against eager ones.

    Args:
        problem: in the dtype, and on the device, to train in.
        config: its optimizer, lr, options, batch size and order are used; and how many seeds it
            has, to choose the machine code that suits them.

    Raises:
        Unsupported: saying what cannot be compiled.
    """
    if problem.x.device.type != "cpu":
        text = to_say("the device is {device}, not cpu")
        raise Unsupported(say(text, device=str(problem.x.device)))
    if config.groups:
        raise Unsupported(say("groups of parameters have settings of their own"))
    try:
        return CompiledSteps(problem, config)
    except Unsupported:
        raise
    except Exception as error:  # whatever a model does not stand: eager steps will tell
        raise Unsupported(say("compiling failed: {why}", why=reason(error))) from error


class CompiledSteps:
    """Steps of R replicas of a problem; made by `compile_steps`.

    Attributes:
        source: the C++ text.
    """

    def __init__(self, problem: Problem, config: TrainConfig) -> None:
        self.problem, self.config = problem, config
        self.rates: Rates = lambda steps: np.full(len(steps), config.lr)  # of the check
        self.rule = rules.make(
            config.optimizer,
            config.lr,
            config.options,
            lambda step: self.rates(step.astype(int) - 1),
        )
        self.rule = rules.clipped(self.rule, config.clip_norm, config.clip_value)
        self.sizes = config.phases(problem.d).every_size
        self.data = _values(problem.x, problem.y, problem.dtype)
        widths = (problem.x[0].numel(), problem.y[0].numel())
        recorded = {size: _record(problem, size) for size in self.sizes}
        most = max(step.n_values + size * sum(widths) for size, step in recorded.items())
        bytes_per_lane = most * self.data.element_size()
        if bytes_per_lane > MOST_BYTES:
            text = to_say("one step holds more than {size} MB of values")
            raise Unsupported(say(text, size=MOST_BYTES / 1e6))
        many = len(config.seeds) >= FEW_REPLICAS and bytes_per_lane * LANES <= LANES_BYTES
        lanes = LANES if many else 1
        self.block = _block(problem, self.sizes)
        self.source = program.program(
            steps={size: step.text for size, step in recorded.items()},
            rule=self.rule,
            p=problem.p,
            data=self.data,
            widths=widths,
            lanes=lanes,
            on_stack=bytes_per_lane * lanes <= LANES_BYTES,
            block=self.block,
        )
        self._library = load(self.source)
        self._check(min(len(config.seeds), lanes + 1))
        self.rates = config.rates(problem.d)

    def init(self, w: torch.Tensor) -> torch.Tensor:
        """Return the rule's state `(R, n_state, p)` for parameters `(R, p)`."""
        return w.new_zeros(len(w), self.rule.n_state, self.problem.p)

    def __call__(
        self,
        w: torch.Tensor,
        state: torch.Tensor,
        indices: torch.Tensor | None,
        sizes: np.ndarray,
        first: int,
        data: tuple[torch.Tensor, torch.Tensor] | None = None,
        n_epochs: int = 1,
        wanted: Wanted = ALL,
    ) -> tuple[torch.Tensor, torch.Tensor, Recorded]:
        """Take S steps.

        Args:
            w: `(R, p)`.
            state: `(R, n_state, p)`.
            indices: `(R, sum(sizes))`, every replica's samples in order; None: all the data.
            sizes: `(S,)`, samples of every step.
            first: number of the first step, from 1.
            data: what the indices are rows of, `x (N, ...)` and `y (N, ...)`; None: the problem's.
            n_epochs: how many epochs these steps are.
            wanted: what of them is recorded.

        Returns:
            `w (R, p)`, `state`, and the record of the steps.

        Raises:
            ValueError: arguments of other shapes, another batch size, an index beyond the data.
        """
        (r, p), dtype = w.shape, self.problem.dtype
        sizes = np.ascontiguousarray(sizes, dtype=np.int64)
        s = len(sizes)
        samples = self.data if data is None else _values(*data, self.problem.dtype)
        if p != self.problem.p or state.shape != (r, self.rule.n_state, p):
            raise ValueError(f"w {tuple(w.shape)} or state {tuple(state.shape)} does not fit")
        if indices is None and (sizes != len(samples)).any():
            raise ValueError("indices None is for full batches")
        if indices is not None and indices.shape != (r, int(sizes.sum())):
            raise ValueError(f"indices are {tuple(indices.shape)}, not {(r, int(sizes.sum()))}")
        w, state = (t.detach().to(dtype, copy=True).contiguous() for t in (w, state))
        indices = None if indices is None else indices.to(torch.int64).contiguous()
        scalars = self.rule.table(first, s)
        start = w.clone() if wanted.start is None else wanted.start.to(dtype).contiguous()
        if start.shape != w.shape or s % n_epochs:
            raise ValueError(f"start {tuple(start.shape)} or {n_epochs} epochs does not fit")
        kept = s if wanted.every_step else n_epochs
        ws, gradients = (torch.empty(n, r, p, dtype=dtype) for n in (kept + 1, kept))
        losses, norms = torch.empty(s, r, dtype=dtype), np.empty((3, s, r))
        ws[0], sums = w, np.zeros((n_epochs, r, p))
        sums[0] = 0.0 if wanted.sums is None else wanted.sums
        failed = self._library.run(
            r,
            s,
            s // n_epochs,
            wanted.every_step,
            sizes.ctypes.data,
            None if indices is None else indices.data_ptr(),
            0 if indices is None else indices.shape[1],
            samples.data_ptr(),
            len(samples),
            w.data_ptr(),
            state.data_ptr(),
            start.data_ptr(),
            scalars.ctypes.data,
            ws[1:].data_ptr(),
            losses.data_ptr(),
            gradients.data_ptr(),
            norms.ctypes.data,
            sums.ctypes.data,
        )
        if failed:
            raise ValueError(f"an index beyond the {len(samples)} samples, or another batch size")
        if wanted.every_step and p > FEW_NUMBERS:  # the bits are numpy's, as in eager runs
            norms = norms_of(ws.numpy(), gradients.numpy(), start.numpy())
        return w, state, Recorded(ws, losses, gradients, norms, sums)

    def evaluate(self, w: np.ndarray) -> Evaluated:
        """Return what all the data say at parameters `(N, p)`, as `Problem.evaluate` does."""
        problem, d = self.problem, self.problem.d
        if not self.block:
            return problem.evaluate(w)
        given = torch.tensor(w, dtype=problem.dtype)
        loss, gradient, right = np.empty(len(w)), np.empty(w.shape), np.empty(len(w))
        done = self._library.evaluate(
            len(w),
            self.data.data_ptr(),
            d,
            given.data_ptr(),
            loss.ctypes.data,
            gradient.ctypes.data,
            right.ctypes.data,
        )
        if done < d:
            rest = problem.part(done).evaluate(w)
            loss += (d - done) * rest.loss
            gradient += (d - done) * rest.gradient
            right += 0.0 if rest.accuracy is None else (d - done) * rest.accuracy
        gradient /= d
        return Evaluated(loss / d, gradient, right / d if problem.has_classes else None)

    def _check(self, n: int) -> None:
        """Compare with eager steps, on other data and parameters than were recorded.

        Finds a model that left torch on the way (`x.numpy()`): its values would be frozen.
        """
        problem, draw = self.problem, torch.Generator().manual_seed(1)
        sizes = np.resize(self.sizes, max(CHECKED, len(self.sizes)))
        w = problem.initial(list(range(n)))
        w = w + 0.01 * torch.randn(w.shape, generator=draw, dtype=w.dtype) * (1 + w.abs())
        indices = None
        if self.config.batch_size is not None:
            indices = torch.randint(problem.d, (n, int(sizes.sum())), generator=draw)
        recorded = self(w, self.init(w), indices, sizes, 1)[2]
        if not all(
            _agree(*pair) for pair in _beside_eager(problem, self.config, recorded, indices, sizes)
        ):
            raise Unsupported(say("the compiled step disagrees with the eager one"))


def _beside_eager(
    problem: Problem,
    config: TrainConfig,
    ours: Recorded,
    indices: torch.Tensor | None,
    sizes: np.ndarray,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
    """Yield losses, gradients and moves of compiled steps, those of eager ones, and their slack.

    Every eager step is taken from where the compiled one was, with its gradient: an optimiser that
    divides by it makes much of a rounding, where it is nearly zero.
    """
    rule = eager_rules.make(config.optimizer, config.lr, config.options)
    state, start = rule.init(ours.w[0]), 0
    rows = torch.arange(problem.d).expand(len(ours.w[0]), -1)
    for s, size in enumerate(sizes.tolist()):
        if indices is not None:
            rows = indices[:, start : start + size]
        w, loss, gradient = ours.w[s], ours.loss[s], ours.gradient[s]
        eager_loss, eager_gradient = problem.losses_and_gradients(
            w, problem.x[rows], problem.y[rows]
        )
        yield loss, eager_loss, SLACK
        yield gradient, eager_gradient, SLACK
        moved = clipped(gradient.clone(), config.clip_norm, config.clip_value)
        eager_w, state = rule.update(w, state, eager_rules.Step(moved, loss))
        yield ours.w[s + 1] - w, eager_w - w, 8 * torch.finfo(w.dtype).eps * _largest(w)
        start += size


def _largest(values: torch.Tensor) -> float:
    return float(values.abs().nan_to_num(0, 0, 0).max())


def _agree(ours: torch.Tensor, theirs: torch.Tensor, slack: float) -> bool:
    return torch.allclose(ours, theirs, 0, TOLERANCE * _largest(theirs) + slack, equal_nan=True)


def _record(problem: Problem, size: int) -> Statements:
    """Return the statements of a step on so many samples."""
    try:
        from sgdstudy.training.compiled.recorder import Reads, Recorder, Trace
    except (ImportError, AttributeError) as error:
        text = to_say("this version of torch cannot be recorded: {why}")
        raise Unsupported(say(text, why=str(error))) from error
    rows = torch.arange(size) % problem.d
    x, y = problem.x[rows][None], problem.y[rows][None]
    w, known = problem.initial([0]), _recorded.setdefault(problem, {})
    if size not in known:
        problem.losses_and_gradients(w, x, y)  # what the problem finds out once is not recorded
    with Trace([w, x, y]) as trace:
        found = problem.differentiated(w, x, y)
    trace.notes.append(trace.told(found))
    if size in known and known[size].notes == trace.notes:
        return known[size]
    recorder = Recorder({"w": w, "x": x, "y": y})
    with Reads(recorder.writer.varies), recorder:
        loss, gradient, prediction = problem.differentiated(w, x, y)
    if problem.has_classes:
        recorder.writer.write_right(prediction, y)
    text, n_values = recorder.writer.finish({"loss": loss[0], "g": gradient[0]})
    known[size] = Statements(text, n_values, trace.notes)
    return known[size]


def _block(problem: Problem, sizes: Iterable[int]) -> int:
    """Return how many samples are evaluated at once, one of the sizes; 0: torch evaluates."""
    size = max(
        (n for n in sizes if n == problem.d or (problem.adds_up and n < problem.d)), default=0
    )
    worth = size >= LEAST_BLOCK or problem.p <= FEW
    return size if worth and problem.least_squares is None else 0


def _values(x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the samples as numbers, `(d, F + M)`: where data is far, one look finds x and y."""
    parts = []
    for part in (x, y):
        if not part.is_floating_point() and int(part.abs().max()) >= 2**24:
            raise Unsupported(say("the data holds integers of 2**24 and more"))
        parts.append(part.to(dtype).reshape(len(part), -1))
    return torch.cat(parts, 1)


def load(source: str) -> Any:
    """Return the library of a C++ text, built once per process."""
    if source not in _loaded:
        library = _built(source)
        number, pointer = ctypes.c_longlong, ctypes.c_void_p
        library.run.argtypes = [*[number] * 4, pointer, pointer, number, pointer, number]
        library.run.argtypes += [pointer] * 9
        if "Int evaluate(" in source:
            library.evaluate.argtypes = [number, pointer, number, *[pointer] * 4]
            library.evaluate.restype = number
        _loaded[source] = library
    return _loaded[source]


def compiler_fault() -> str:
    """Return why no step can be compiled on this machine; "" where one can."""
    try:
        _built(LEAST)
    except Unsupported as why:
        return str(why)
    return ""


def _built(source: str) -> Any:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            return ctypes.CDLL(str(build(source, Path(folder))))
        except OSError as error:
            text = to_say("the compiled step cannot be loaded: {why}")
            raise Unsupported(say(text, why=str(error))) from error


def build(source: str, folder: Path) -> Path:
    """Compile a C++ text into a library in the folder."""
    text, library = folder / "steps.cpp", folder / "steps.so"
    text.write_text(source, encoding="utf-8")
    command = [*_compiler(), *FLAGS, str(text), "-o", str(library), "-lm"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        late = to_say("{program} took more than {time} s")
        raise Unsupported(say(late, program=command[0], time=BUILD_SECONDS)) from None
    if done.returncode:
        lines = done.stderr.splitlines()
        first = next((line for line in lines if "error" in line), "".join(lines[:1]))
        raise Unsupported(say("{program} failed: {why}", program=command[0], why=first))
    return library


def _compiler() -> list[str]:
    for command in (shlex.split(os.environ.get("CXX", "")), ["g++"], ["clang++"]):
        if command and shutil.which(command[0]):
            return command
    raise Unsupported(NO_COMPILER)
