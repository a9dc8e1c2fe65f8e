"""A model and its loss are tried on a small batch: a wrong one is found before any training."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from sgdstudy.errors import InputError, failed, quoted
from sgdstudy.problems import together

TRIED = 2  # samples
CLOSE = 1000  # roundings
CALLS = 3  # more calls of a function that seems to draw
AMONG = 200  # samples that are tried together and apart


class Tried(Protocol):
    """What of a problem is tried."""

    p: int
    loss: Any
    model: Callable[..., Any]
    batch_loss: Callable[..., torch.Tensor]

    @property
    def loss_name(self) -> str:
        """Name of the loss."""

    @property
    def names(self) -> list[str]:
        """Names of a module's parameters; of a function, none."""

    def initial(self, seeds: list[int]) -> torch.Tensor:
        """Return the parameters each seed starts from, `(R, p)`."""


def check(problem: Tried, all_x: torch.Tensor, all_y: torch.Tensor, n: int = TRIED) -> None:
    """Try a problem on its first n samples.

    Raises:
        InputError: a model or loss that fails, returns something else than expected, draws, gives
            two results for the same input, or changes its input.
    """
    x, y = all_x[:n], all_y[:n]
    given = f"the model, for w of shape ({problem.p},) and x of shape {tuple(x.shape)},"
    w = problem.initial([0])[0].requires_grad_()
    try:
        prediction = pure("the model", problem.model, w, x)
    except InputError:
        raise
    except Exception as error:
        raise failed(given, error) from error
    if not isinstance(prediction, torch.Tensor) or not prediction.is_floating_point():
        raise InputError(f"{given} returns {quoted(prediction)}; expected a tensor of floats")
    require_gradient(given, problem.model, "w", w, x)
    prediction = prediction.detach()
    _check_shapes(problem, prediction, y, all_y)
    name = f"the loss {problem.loss_name!r}"
    try:
        pure(name, problem.batch_loss, prediction[None], y[None])
        require_gradient(name, problem.batch_loss, "the predictions", prediction[None], y[None])
        if prediction.shape != y.shape and callable(problem.loss):
            _require_apart(problem, prediction, all_y)
    except InputError:
        raise
    except Exception as error:
        shapes = _of_batch(prediction.shape[1:]), _of_batch(y.shape[1:])
        called = "; called with predictions {} and targets {}".format(*shapes)
        raise InputError(f"{failed(name, error)}{called}") from error


def require_gradient(
    what: str, function: Callable[..., torch.Tensor], name: str, *inputs: torch.Tensor
) -> None:
    """Raise `InputError` where what a function gives has no gradient by its first input.

    Args:
        what: the function, in a message.
        function: of the inputs.
        name: of the first input, in a message.
        inputs: what it is given.
    """
    first = inputs[0].detach().clone().requires_grad_()
    with together.trying():
        value = function(first, *inputs[1:])
        if not value.requires_grad:
            raise InputError(f"{what} returns what does not depend on {name}: it has no gradient")
        try:
            torch.autograd.grad(value, first, torch.ones_like(value))
        except Exception as error:
            told = failed(f"the gradient of {what}", error)
            hint = "; leave out sparse=True, the values are the same" * ("sparse" in str(told))
            raise InputError(f"{told}{hint}") from error


def adds_up(problem: Tried, x: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether the loss of samples is the mean of those of its parts, as far as a trial can tell.

    It is not where the model or the loss sees a sample beside others, or asks how many they are:
    centred activations, contrastive losses, 1 - R^2. Where it fails at a size, nobody knows.
    """
    rows = torch.linspace(0, len(x) - 1, min(len(x), AMONG), device=x.device).long()
    cut = max(1, len(rows) // 3)
    # by their size, since parts that are alike may hide what is done among them
    rows = rows[x[rows].reshape(len(rows), -1).abs().amax(1).argsort(stable=True)]
    for w in points(problem):
        try:
            with torch.no_grad():
                together, first, rest = (
                    problem.batch_loss(problem.model(w, x[part])[None], y[part][None])[0]
                    for part in (rows, rows[:cut], rows[cut:])
                )
        except Exception:  # of the user's functions: the trial of the problem says it
            return False
        parts = torch.stack([cut * first, (len(rows) - cut) * rest]) / len(rows)
        off, size = (together - parts.sum()).abs(), parts.abs().sum()
        if not bool(off <= CLOSE * torch.finfo(w.dtype).eps * size):
            return False
    return True


def points(problem: Tried) -> torch.Tensor:
    """Return the parameters of two replicas `(2, p)`: where seed 0 starts, and somewhere near."""
    draw, start = torch.Generator().manual_seed(0), problem.initial([0])[0]
    noise = torch.randn(len(start), generator=draw).to(start.device, start.dtype)
    return torch.stack([start, start + 0.1 * noise * (1 + start.abs())])


def _check_shapes(
    problem: Tried, prediction: torch.Tensor, y: torch.Tensor, all_y: torch.Tensor
) -> None:
    shape, n = tuple(prediction.shape), len(y)
    classes = problem.loss == "cross_entropy"
    if callable(problem.loss):
        fits, needs = shape[:1] == (n,), "(B, ...)"
    elif classes:
        fits, needs = len(shape) == 2 and shape[0] == n, "(B, classes)"
    else:
        fits, needs = shape == tuple(y.shape), "equal shapes"
        if (shape, tuple(y.shape)) == ((n, 1), (n,)):
            needs += ": give y[:, None], or put nn.Flatten(0) behind the model"
        elif (shape, tuple(y.shape)) == ((n,), (n, 1)):
            needs += ": give y[:, 0]"
    if not fits:
        raise InputError(
            f"the model returns shape {shape} for {n} samples whose targets have shape "
            f"{tuple(y.shape)}; the loss {problem.loss_name!r} needs {needs}"
        )
    if classes and int(all_y.max()) >= shape[1]:
        raise InputError(
            f"there is a class {int(all_y.max())}, but the model returns {shape[1]} logits, "
            f"for classes 0 to {shape[1] - 1}"
        )


def _require_apart(problem: Tried, prediction: torch.Tensor, all_y: torch.Tensor) -> None:
    """Refuse a loss that compares each sample with all targets: (B, 1) and (B,) broadcast.

    Samples with other targets have the mean of what each has alone, where predictions are as many
    numbers as targets. They can be taken to one shape; then a loss may see what it likes.
    """
    other = int((all_y != all_y[0]).reshape(len(all_y), -1).any(1).int().argmax())
    y, shape = all_y[[0, other, other, 0]], prediction.shape[1:]  # two may fit two outputs
    # the lowest and the highest class: the model may have too few outputs for them
    if not all_y.is_floating_point():
        ends = [int(all_y.argmin()), int(all_y.argmax())]
        extreme = all_y[[place // all_y[0].numel() for place in ends]]
        problem.batch_loss(prediction[None, :1].expand(1, 2, *shape), extreme[None])
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(4, *shape, generator=draw).to(prediction.device, prediction.dtype)
    for f in (prediction[:1] + noise, prediction[:1].expand(4, *shape)):
        together = problem.batch_loss(f[None], y[None])
        if f.numel() != y.numel():
            continue
        rows = zip(f.split(1), y.split(1), strict=True)
        alone = torch.stack([problem.batch_loss(a[None], b[None]) for a, b in rows])
        off, size = (together - alone.mean(0)).abs(), alone.abs().mean(0)
        if bool((off > CLOSE * torch.finfo(f.dtype).eps * size).any()):
            raise InputError(
                f"the loss {problem.loss_name!r} of samples is not the mean of what each has "
                f"alone: predictions {_of_batch(shape)} and targets {_of_batch(y.shape[1:])} "
                f"broadcast, perhaps; take them to one shape, as prediction.squeeze(1)"
            )


def _of_batch(shape: torch.Size) -> str:
    return f"(B, {', '.join(map(str, shape))})" if shape else "(B,)"


def pure(what: str, function: Callable[..., Any], *inputs: torch.Tensor) -> Any:
    """Return what a function gives for inputs, where that is all it does, and always the same."""
    found = []
    for call in range(2):
        own = [value.detach().clone().requires_grad_(value.requires_grad) for value in inputs]
        called = partial(function, *own)
        found.append(called() if call else undrawn(what, called))
        if not all(torch.equal(_bits(a), _bits(b)) for a, b in zip(own, inputs, strict=True)):
            raise InputError(
                f"{what} changes its input; let it make new values, as x = x - 1 instead of x -= 1"
            )
    _require_ungraded(what, called)
    if isinstance(found[0], torch.Tensor) and not torch.equal(*map(_bits, found)):
        raise InputError(
            f"{what} gives two results for the same input: it draws, counts or remembers; a run "
            f"could not be repeated"
        )
    return found[0]


def _require_ungraded(what: str, function: Callable[[], Any]) -> None:
    """Refuse a function that fails where no gradient is wanted, as where it is evaluated."""
    with torch.no_grad():  # torch may round another way there
        try:
            function()
        except InputError:
            raise
        except Exception as error:
            told = failed(f"under torch.no_grad(), as it is evaluated, {what}", error)
            raise InputError(
                f"{told}; put `with torch.enable_grad():` around what takes a gradient in it"
            ) from error


def _bits(values: torch.Tensor) -> torch.Tensor:
    """Return values that compare, NaN as well."""
    return torch.nan_to_num(values.detach(), nan=1.25)


def undrawn(what: str, function: Callable[[], Any]) -> Any:
    """Return what a function gives; global generators are as they were.

    Raises:
        InputError: it draws from one, every time: else it was another thread that did.
    """
    before = start = generators()
    for _ in range(CALLS):
        found = function()
        if not (drew := moved(start)):
            return found
        start = generators()
    put_back(before)
    raise InputError(
        f"{what} draws from {drew}'s global generator (dropout, noise?), so that no run could "
        f"be repeated: leave it out, call module.eval(), or draw from the generator given"
    )


def generators() -> dict[str, Any]:
    """Return where the global generators are."""
    return {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "python": random.getstate(),
    }


def moved(before: dict[str, Any]) -> str:
    """Return whose global generator is elsewhere than before; "" where none is."""
    now = generators()
    return next((name for name, state in now.items() if not _same_state(state, before[name])), "")


def put_back(before: Mapping[str, Any]) -> None:
    """Let the global generators be where they were."""
    torch.set_rng_state(before["torch"])
    np.random.set_state(before["numpy"])
    random.setstate(before["python"])


def _same_state(state: Any, other: Any) -> bool:
    """Whether two states of a generator are one, of torch, numpy or Python."""
    if isinstance(state, torch.Tensor):
        return torch.equal(state, other)
    if isinstance(state[1], np.ndarray):  # numpy's: a name, 624 words, the place among them, ...
        return bool(state[2:] == other[2:] and np.array_equal(state[1], other[1]))
    return bool(state == other)
