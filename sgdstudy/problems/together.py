"""Whether what is computed for replicas together is what each gives alone, its gradient too.

What `torch.vmap` or a broadcast runs without complaint may be another function: a maximum over all
replicas, a hook that is never called, a rule of torch's for a gradient that is wrong. So it is
tried on replicas and samples that differ, against plain autograd of each alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch

from sgdstudy.errors import reason

CLOSE = 1000  # roundings of the largest number
SPREAD = 14  # samples that are tried, and one of each kind:
KINDS = 200  # of whole numbers among the inputs, at most so many samples
SEEN = 100_000  # numbers of inputs, from which these samples are chosen
WHOLE = 1_000_000  # range of whole numbers
SCALES = (1.0, 1e3, 1e-3)  # of what is differentiated: a model may clip its gradient
Function = Callable[..., Any]

_trying: ContextVar[bool] = ContextVar("trying", default=False)


def is_trying() -> bool:
    """Whether a function is being tried: what notes how it is called leaves such calls out."""
    return _trying.get()


@contextmanager
def trying() -> Iterator[None]:
    """Say for a while that functions are tried, gradients on."""
    token = _trying.set(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        _trying.reset(token)


def batches(x: torch.Tensor) -> list[tuple[torch.Tensor, float]]:
    """Return rows `(2, B)` of inputs, for two replicas, and a scale of what is differentiated.

    The samples of the one are smaller than those of the other, or nearer to 0, so that statistics
    of the one are not those of both; in the last batch each has one.
    """
    step = max(1, min(-(-x.numel() // SEEN), len(x) // SPREAD))
    seen = x[::step].detach().reshape(len(x[::step]), -1).cpu().numpy()
    rows = _of_all_kinds(seen)
    largest, farthest = seen[rows].max(1, initial=-np.inf), np.abs(seen[rows]).max(1, initial=0)
    by_value = rows[np.argsort(largest, kind="stable")]
    by_size = rows[np.argsort(farthest, kind="stable")]
    half = max(1, len(rows) // 2)
    pairs = (
        (by_value[:half], by_value[-half:]),
        (by_size[-half:], by_size[:half]),
        (by_value[:1], by_value[-1:]),
    )
    return [
        (torch.as_tensor(step * np.stack(pair), device=x.device), scale)
        for pair, scale in zip(pairs, SCALES, strict=True)
    ]


def _of_all_kinds(seen: np.ndarray) -> np.ndarray:
    """Return rows of inputs `(n, width)`: some, those of the extremes, one of each whole number."""
    n, width = seen.shape
    rows = [np.linspace(0, n - 1, min(n, SPREAD)).astype(int)]
    if width:
        rows.append(np.array([seen.argmin(), seen.argmax()]) // width)
        least, span = seen.min(), float(seen.max()) - float(seen.min())
        if span < WHOLE and (seen == np.rint(seen)).all():
            last = np.full(int(span) + 1, -1)
            last[(seen - least).astype(int)] = np.arange(n)[:, None]
            kinds = last[last >= 0]
            rows.append(kinds[:: -(-len(kinds) // KINDS)])
    return np.unique(np.concatenate(rows))


def differs(
    together: Function,
    alone: Function,
    *given: torch.Tensor,
    scale: float = 1.0,
    equal: bool = False,
) -> str:
    """Say how replicas together differ from each alone, in values or gradients; "": they do not.

    What fails alone differs from nothing: it is said where it is trained.

    Args:
        together: of all that is given `(R, ...)`, a tensor `(R, ...)`.
        alone: the same of one replica.
        given: what is differentiated stands first.
        scale: of what the values are multiplied with to be differentiated.
        equal: whether values are to be the same to the last bit.
    """
    with trying():
        try:
            value, slope = _pulled(one_by_one(alone), given, scale)
        except Exception:
            return ""
        try:
            found, found_slope = _pulled(together, given, scale)
        except Exception as error:
            return reason(error)
    if not (torch.equal(found, value) if equal else near(found, value)):
        return "together they would have other values than alone"
    return "" if near(found_slope, slope) else "together they would have other gradients than alone"


def _pulled(
    function: Function, given: tuple[torch.Tensor, ...], scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the values of a function, and the gradient of their sum with random weights."""
    w = given[0].detach().clone().requires_grad_()
    value = function(w, *given[1:])
    draw = torch.Generator().manual_seed(0)
    weights = scale * torch.randn(value.shape, generator=draw).to(value.device, value.dtype)
    return value.detach(), torch.autograd.grad(value, w, weights)[0]


def near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether numbers `(R, ...)` are those expected, but for roundings of each row's largest."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    ours, theirs = (values.reshape(len(values), -1) for values in (found, expected))
    largest = theirs.abs().nan_to_num(0, 0, 0).max(1, keepdim=True).values
    close = (ours - theirs).abs() <= CLOSE * torch.finfo(theirs.dtype).eps * largest
    return bool((close | (ours == theirs) | (ours.isnan() & theirs.isnan())).all())


def by_rows(function: Function) -> Function:
    """Return a function of one row as one of R: by `torch.vmap`, else one by one, see `differs`."""
    followed: list[bool] = []

    def of_rows(*given: torch.Tensor) -> Any:
        if len(given[0]) > 1:
            if not followed:
                two = (part[:2] for part in given)
                followed.append(not differs(torch.vmap(function), function, *two))
            if followed[0]:
                try:
                    return torch.vmap(function)(*given)
                except Exception:  # of other shapes, or no tensor
                    followed[0] = False
        return one_by_one(function)(*given)

    return of_rows


def one_by_one(function: Function) -> Function:
    """Return a function of one row as one of R, which come one after the other."""

    def of_rows(*given: torch.Tensor) -> Any:
        found = [function(*row) for row in zip(*given, strict=True)]
        return torch.stack(found) if isinstance(found[0], torch.Tensor) else found[0]

    return of_rows
