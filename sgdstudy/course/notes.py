"""Running a function under check, and noting what it does.

The function gets a model f(w, x) that notes the parameters and the inputs of every call, and
whether a gradient was taken through it. The inputs are all distinct, so the notes tell which
samples made which update, in whatever order they were drawn.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import random
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sgdstudy.errors import InputError
from sgdstudy.language import say
from sgdstudy.problems.ready_made import parabola

D, BATCH, ETA, NEPOCH = 21, 4, 0.0047, 12  # the last batch has one sample; no default is 0.0047
CALLS = 8 * D * NEPOCH  # one call per sample in each epoch is D * NEPOCH; this many is endless
X = np.linspace(-2, 2, D, dtype="f")
Y = parabola((2.0, -1.5, -2.0), X) + np.cos(12 * X).astype("f")
START = np.array([0.5, -0.25, 1.0])
PHI = np.stack([X**2, X, X**0], 1).astype(float)
WHERE = {float(value): i for i, value in enumerate(X)}


class _Endless(BaseException):
    """Ends a function that calls f far too often; no `except Exception` holds it up."""


@dataclass
class _Call:
    w: np.ndarray
    samples: list[int]  # -1: not an input of t
    trained: bool = False  # whether a gradient went through it


class _Model:
    """The f(w, x) that takes notes."""

    def __init__(self, limit: int) -> None:
        self.count, self.limit, self.readable = 0, limit, True
        self.calls: list[_Call] = []

    def __call__(self, w: Any, x: Any) -> Any:
        self.count += 1
        if self.count > self.limit:
            raise _Endless
        prediction = parabola(w, x)
        if getattr(prediction, "requires_grad", False):
            try:
                call = _Call(_numbers(w), [WHERE.get(v, -1) for v in _numbers(x).tolist()])
                prediction.register_hook(lambda _: setattr(call, "trained", True))
                self.calls.append(call)
            except (RuntimeError, TypeError, ValueError):
                self.readable = False
        return prediction


def _numbers(values: Any) -> np.ndarray:
    if isinstance(values, list | tuple):
        values = torch.stack(list(values))
    return torch.as_tensor(values).detach().double().reshape(-1).numpy().copy()


@dataclass
class Run:
    """One call of the function: its n updates, and how it ended."""

    w: np.ndarray  # (n, 3), before each update
    w_next: np.ndarray  # (n, 3), after each; nan where the caller's w does not tell the last
    batches: list[list[int]]
    unchanged: bool  # the caller's w
    calls: int
    readable: bool
    diverged: bool  # the record ends where w is too large to judge
    endless: bool
    error: str  # "" when none was raised

    @property
    def sizes(self) -> np.ndarray:
        """Samples of each update, `(n,)`."""
        return np.array([len(samples) for samples in self.batches], dtype=float)

    def table(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses `(n,)` and the gradients `(n, 3)` of the batches."""
        found = [
            loss_and_gradient(kind, w, samples)
            for w, samples in zip(self.w, self.batches, strict=True)
        ]
        return np.array([value for value, _ in found]), np.array([slope for _, slope in found])


class Runner:
    """Runs a function under check on the small data.

    Raises:
        InputError: the function does not take the exercise's arguments.
    """

    def __init__(self, function: Callable[..., Any], names: tuple[str, ...]) -> None:
        self.function, self.names, self.limit = function, names, CALLS
        try:
            signature = inspect.signature(function)
            self.by_name = set(names) <= set(signature.parameters)
            signature.bind(**dict.fromkeys(names)) if self.by_name else signature.bind(*names)
        except (TypeError, ValueError) as error:
            asked = f"sgd({', '.join(names)})"
            raise InputError(
                say(
                    "the function cannot take the arguments of the exercise ({why}); expected "
                    "{asked}",
                    why=str(error),
                    asked=asked,
                )
            ) from None

    def __call__(self, epsilon: float, eta: float = ETA) -> Run:
        """Run it once, with this epsilon and step size."""
        model = _Model(self.limit)
        w = torch.tensor(START, dtype=torch.float32, requires_grad=True)
        points = torch.tensor(np.stack([X, Y], 1))
        given = dict(zip(self.names, (model, w, points, eta, epsilon, NEPOCH, BATCH), strict=False))
        endless, error = False, ""
        with _silence(), torch.enable_grad():
            try:
                self.function(**given) if self.by_name else self.function(*given.values())
            except _Endless:
                endless = True
            except (Exception, SystemExit) as raised:
                error = self._describe(raised)
        return _run(model, _numbers(w), endless, error)

    def _describe(self, error: BaseException) -> str:
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        place = None
        for frame in traceback.extract_tb(error.__traceback__):
            if code and frame.filename == code.co_filename:
                place = {"line": frame.lineno, "code": frame.line}
        message = (str(error).strip().splitlines() or [say("no message")])[0]
        told = {"kind": type(error).__name__, "message": message}
        if place is None:
            return say("it raises {kind}: {message}", **told)
        return say("it raises {kind} in line {line}, `{code}`: {message}", **told, **place)


def _run(model: _Model, w_after: np.ndarray, endless: bool, error: str) -> Run:
    steps: list[_Call] = []
    diverged = False
    for call in model.calls:
        if not call.trained:
            continue
        if diverged := not np.abs(call.w).max() < 1e6:
            break
        if steps and np.array_equal(steps[-1].w, call.w):  # the same w: the same update
            steps[-1].samples.extend(call.samples)
        else:
            steps.append(_Call(call.w, list(call.samples)))
    # a trainer that runs ahead gives back earlier parameters: what counts ends there
    back = [k for k, step in enumerate(steps) if k and np.array_equal(step.w, w_after)]
    steps = steps[: back[-1]] if back else steps
    batches = [step.samples for step in steps]
    readable = model.readable and all(len(step.w) == len(START) for step in steps)
    readable &= not any(-1 in samples for samples in batches)
    unchanged = np.array_equal(w_after, START)
    w = np.array([step.w for step in steps if readable]).reshape(-1, len(START))
    last = np.full(len(START), np.nan) if unchanged or diverged else w_after
    w_next = np.vstack([w[1:], last])[: len(w)]
    return Run(w, w_next, batches, unchanged, model.count, readable, diverged, endless, error)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Swallow what the function prints, shows in a notebook, and warns of."""
    with contextlib.ExitStack() as stack:
        if "IPython" in sys.modules:  # a bar of tqdm.notebook is displayed, not printed
            capture = importlib.import_module("IPython.utils.capture")
            stack.enter_context(capture.capture_output())
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def kept_randomness() -> Iterator[None]:
    """Put the global generators back where they were (on the CPU)."""
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


def loss_and_gradient(kind: str, w: np.ndarray, samples: list[int]) -> tuple[float, np.ndarray]:
    """Return a batch's loss and its gradient `(3,)`, in float64."""
    phi, y = PHI[samples], Y[samples].astype(float)
    residual = phi @ w - y
    if kind == "abs":
        return float(np.abs(residual).mean()), np.sign(residual) @ phi / len(y)
    if kind == "pairs":  # every prediction with every y: their mean, and the spread of y
        residual = phi @ w - y.mean()
        return float((residual**2).mean() + y.var()), 2 * residual @ phi / len(y)
    return float((residual**2).mean()), 2 * residual @ phi / len(y)
