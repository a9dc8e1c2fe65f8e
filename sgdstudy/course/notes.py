"""Running a function under check, and noting what it does.

The function gets a model f(w, x) that notes the parameters and the inputs of every call, and
whether a gradient was taken through it. The inputs are all distinct, so the notes tell which
samples made which update, in whatever order they were drawn.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import io
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sgdstudy.course.limits import TooLong, time_limit
from sgdstudy.course.mends import OF_NO_GRADIENT, describe, mend_of, place
from sgdstudy.language import say
from sgdstudy.problems import together
from sgdstudy.problems.ready_made import parabola

D, BATCH, ETA, NEPOCH = 21, 4, 0.0047, 12  # the last batch has one sample; no default is 0.0047
CALLS = 8 * D * NEPOCH  # one call per sample in each epoch is D * NEPOCH; this many is endless
X = np.linspace(-2, 2, D, dtype="f")
Y = parabola((2.0, -1.5, -2.0), X) + np.cos(12 * X).astype("f")
START = np.array([0.5, -0.25, 1.0])
PHI = np.stack([X**2, X, X**0], 1).astype(float)
WHERE = {float(value): i for i, value in enumerate(X)}
TARGETS = {float(value) for value in Y}
LEAST_SECONDS = 0.1  # of a run, when the time of the check is nearly over


class _Endless(BaseException):
    """Ends a function that calls f far too often; no `except Exception` holds it up."""


class _Misused(BaseException):
    """Ends a function that gives f something else than w and x."""


@dataclass
class _Call:
    w: np.ndarray
    parts: list[list[int]]  # the samples of each call at this w; -1: not an input of t
    trained: list[int] = field(default_factory=list)  # calls of f before each backward()

    @property
    def samples(self) -> list[int]:
        return [i for part in self.parts for i in part]


class _Model:
    """The f(w, x) that takes notes."""

    def __init__(self, limit: int) -> None:
        self.count, self.limit, self.readable = 0, limit, True
        self.calls: list[_Call] = []

    def __call__(self, w: Any, x: Any) -> Any:
        if together.is_trying():
            return parabola(w, x)
        self.count += 1
        if self.count > self.limit:
            raise _Endless
        call = self._note(w, x)
        prediction = parabola(w, x)
        if getattr(prediction, "requires_grad", False):
            if call:
                prediction.register_hook(lambda _: call.trained.append(self.count))
            else:
                self.readable = False
        return prediction

    def _note(self, w: Any, x: Any) -> _Call | None:
        try:
            first, second = _numbers(w), _numbers(x).tolist()
        except (RuntimeError, TypeError, ValueError):
            return None
        followed = getattr(x, "requires_grad", False) or second == START.tolist()
        if len(second) == len(START) and followed and set(first.tolist()) <= set(WHERE):
            raise _Misused("swapped")
        samples = [WHERE.get(value, -1) for value in second]
        if set(second) <= TARGETS and -1 in samples:
            raise _Misused("targets")
        self.calls.append(_Call(first, [samples]))
        return self.calls[-1]


def _numbers(values: Any) -> np.ndarray:
    if isinstance(values, list | tuple):
        values = torch.stack(list(values))
    return torch.as_tensor(values).detach().double().reshape(-1).numpy().copy()


@dataclass
class Run:
    """One call of the function: its n updates, and how it ended."""

    w: np.ndarray  # (n, 3), before each update
    w_next: np.ndarray  # (n, 3), after each; nan where the caller's w does not tell the last
    parts: list[list[list[int]]]  # of each update, the samples of each call of f
    backwards: list[int]  # of each update, how often backward() was called
    by_hand: bool  # no gradient was taken by torch
    unchanged: bool  # the caller's w
    calls: int
    readable: bool
    diverged: bool  # the record ends where w is too large to judge
    endless: bool
    misuse: str  # what f was given instead of w and x: "swapped", "targets", or ""
    error: str  # "" when none was raised
    rebinds: bool  # the error is that of a w which was rebound

    @functools.cached_property
    def batches(self) -> list[list[int]]:
        """The samples of each update."""
        return [[i for part in parts for i in part] for parts in self.parts]

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """Samples of each update, `(n,)`."""
        return np.array([len(samples) for samples in self.batches], dtype=float)

    def table(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses `(n,)` and the gradients `(n, 3)` of the batches."""
        found = [_of_parts(kind, w, parts) for w, parts in zip(self.w, self.parts, strict=True)]
        return np.array([value for value, _ in found]), np.array([slope for _, slope in found])


def misfit(function: Callable[..., Any], name: str, arguments: tuple[str, ...]) -> str:
    """Say that a function does not take the exercise's arguments, by name or in order; or ""."""
    given = "..."
    try:
        signature = inspect.signature(function)
        given = ", ".join(signature.parameters)
        by_name = set(arguments) <= set(signature.parameters)
        signature.bind(**dict.fromkeys(arguments)) if by_name else signature.bind(*arguments)
    except (TypeError, ValueError):
        return say(
            "the function takes ({given}); expected {asked}",
            given=given,
            asked=f"{name}({', '.join(arguments)})",
        )
    return ""


class Runner:
    """Runs a function under check on the small data, for so many seconds in all.

    Attributes:
        misplaced: whether arguments of these names stand in another order.
    """

    def __init__(
        self, function: Callable[..., Any], names: tuple[str, ...], seconds: float
    ) -> None:
        self.function, self.names, self.limit = function, names, CALLS
        self.seconds, self.left = seconds, seconds
        given = list(inspect.signature(function).parameters)
        self.by_name = set(names) <= set(given)
        moved = {name for name, place in zip(names, given, strict=False) if name != place}
        self.misplaced = not self.by_name and bool(moved & set(given))

    def __call__(self, epsilon: float, eta: float = ETA) -> Run:
        """Run it once, with this epsilon and step size."""
        model = _Model(self.limit)
        w = torch.tensor(START, dtype=torch.float32, requires_grad=True)
        points = torch.tensor(np.stack([X, Y], 1))
        given = dict(zip(self.names, (model, w, points, eta, epsilon, NEPOCH, BATCH), strict=False))
        endless, misuse, (error, mend) = False, "", ("", "")
        began = time.perf_counter()
        with silence(), torch.enable_grad():
            try:
                with time_limit(max(self.left, LEAST_SECONDS)):
                    self.function(**given) if self.by_name else self.function(*given.values())
            except _Endless:
                endless = True
            except _Misused as wrong:
                misuse = str(wrong)
            except TooLong as over:
                error = too_long(place(self.function, over), self.seconds)
            except (Exception, SystemExit) as raised:
                error, mend = describe(self.function, raised), mend_of(raised)
        self.left -= time.perf_counter() - began
        return _run(model, _numbers(w), endless, misuse, error, mend in OF_NO_GRADIENT)


def too_long(where: str, seconds: float) -> str:
    """Return in words that a function was ended after some seconds, and in which line."""
    text = say(
        "it does not end: it was stopped after {n} second; does the loop change what its condition "
        "looks at?",
        "it does not end: it was stopped after {n} seconds; does the loop change what its "
        "condition looks at?",
        n=seconds,
    )
    return f"{text} ({where})" if where else text


def _run(
    model: _Model, w_after: np.ndarray, endless: bool, misuse: str, error: str, rebinds: bool
) -> Run:
    steps: list[_Call] = []
    diverged = False
    by_hand = not any(call.trained for call in model.calls)
    for call in model.calls[: CALLS // 4 if endless else None]:
        if by_hand and (-1 in call.samples or len(call.w) != len(START)):
            continue  # drawn, or tried out
        if not (call.trained or by_hand):
            continue
        if diverged := not np.abs(call.w).max() < 1e6:
            break
        same = steps and np.array_equal(steps[-1].w, call.w)  # the same w: the same update
        if not (same and _join(steps[-1], call, by_hand)):
            steps.append(_Call(call.w, list(call.parts), list(call.trained)))
    # a trainer that runs ahead gives back earlier parameters: what counts ends there
    back = [k for k, step in enumerate(steps) if k and np.array_equal(step.w, w_after)]
    steps = steps[: back[-1]] if back else steps
    readable = model.readable and all(len(step.w) == len(START) for step in steps)
    readable &= not any(-1 in step.samples for step in steps)
    unchanged = np.array_equal(w_after, START)
    w = np.array([step.w for step in steps if readable]).reshape(-1, len(START))
    last = np.full(len(START), np.nan) if unchanged or diverged or endless else w_after
    return Run(
        w=w,
        w_next=np.vstack([w[1:], last])[: len(w)],
        parts=[step.parts for step in steps],
        backwards=[len(set(step.trained)) for step in steps],
        by_hand=by_hand,
        unchanged=unchanged,
        calls=model.count,
        readable=readable,
        diverged=diverged,
        endless=endless,
        misuse=misuse,
        error=error,
        rebinds=rebinds,
    )


def _join(step: _Call, call: _Call, by_hand: bool) -> bool:
    """Add a call of f at the same w to an update; False if it is an update of its own.

    By torch each call counts that a gradient went through: of the same samples again, once w
    hardly moves. By hand it is not known which do: the smallest batch, not the loss of all
    samples that is looked at before or after.
    """
    samples, there = set(call.samples), set(step.samples)
    if not samples & there:
        step.parts += call.parts
        step.trained += call.trained
    elif not by_hand:
        return False
    elif samples < there:
        step.parts = list(call.parts)
    return True


@contextlib.contextmanager
def silence(into: io.StringIO | None = None) -> Iterator[None]:
    """Swallow what the function shows in a notebook and warns of, and what it prints: or keep it.

    Args:
        into: takes what is printed.
    """
    with contextlib.ExitStack() as stack:
        if "IPython" in sys.modules:  # a bar of tqdm.notebook is displayed, not printed
            capture = importlib.import_module("IPython.utils.capture")
            stack.enter_context(capture.capture_output())
        stack.enter_context(contextlib.redirect_stdout(io.StringIO() if into is None else into))
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


def _of_parts(kind: str, w: np.ndarray, parts: list[list[int]]) -> tuple[float, np.ndarray]:
    """Return an update's loss and gradient: of its samples at once, or call by call of f."""
    if kind not in ("parts", "last part"):
        return loss_and_gradient(kind, w, [i for part in parts for i in part])
    found = [loss_and_gradient("mse", w, part) for part in parts]
    chosen = found if kind == "parts" else found[-1:]
    return sum(value for value, _ in chosen), np.sum([slope for _, slope in chosen], axis=0)


def loss_and_gradient(kind: str, w: np.ndarray, samples: list[int]) -> tuple[float, np.ndarray]:
    """Return a batch's loss and its gradient `(3,)`, in float64."""
    phi, y = PHI[samples], Y[samples].astype(float)
    residual = phi @ w - y
    if kind == "abs":
        return float(np.abs(residual).mean()), np.sign(residual) @ phi / len(y)
    if kind in ("norm", "rmse"):
        size = float(np.linalg.norm(residual))
        scale = 1.0 if kind == "norm" else len(y) ** -0.5
        return scale * size, scale * (residual @ phi) / (size or 1.0)
    if kind == "pairs":  # every prediction with every y: their mean, and the spread of y
        residual = phi @ w - y.mean()
        return float((residual**2).mean() + y.var()), 2 * residual @ phi / len(y)
    return float((residual**2).mean()), 2 * residual @ phi / len(y)
