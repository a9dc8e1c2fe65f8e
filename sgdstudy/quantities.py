"""What is computed from the recorded steps, a chunk at a time, after the fact.

A quantity is a pure function of a `Chunk` returning `(S, R)`: one value per step and replica, NaN
where it is not defined. It sees copies only, so it cannot change a trajectory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgdstudy.errors import InputError, unknown


@dataclass(frozen=True)
class Chunk:
    """S consecutive steps of R replicas, in float64.

    Attributes:
        w: parameters before each update, `(S, R, p)`.
        w_next: parameters after it, `(S, R, p)`.
        gradient: gradient of the batch loss at w, `(S, R, p)`.
        loss: batch loss at w, `(S, R)`.
        size: samples in the batch, `(S,)`.
        full_gradient: gradient of the whole loss at w, `(S, R, p)`; NaN where it is not known.
        w_start: parameters each replica started from, `(R, p)`.
        w_true: parameters that made the data, `(p,)`, or None.
        lr: step size.
    """

    w: np.ndarray
    w_next: np.ndarray
    gradient: np.ndarray
    loss: np.ndarray
    size: np.ndarray
    full_gradient: np.ndarray
    w_start: np.ndarray
    w_true: np.ndarray | None
    lr: float


def norm(vectors: np.ndarray) -> np.ndarray:
    """Euclidean norm over the last axis, without overflow for float32 values."""
    return np.sqrt(np.einsum("...p,...p->...", vectors, vectors))


def distance(chunk: Chunk) -> np.ndarray:
    """Distance to the true parameters, |w - w_true|; NaN where they are not known."""
    if chunk.w_true is None:
        return np.full(chunk.loss.shape, np.nan)
    return norm(chunk.w - chunk.w_true)


def distance_start(chunk: Chunk) -> np.ndarray:
    """Distance to the parameters the run started from, |w - w_start|."""
    return norm(chunk.w - chunk.w_start)


def grad_cosine(chunk: Chunk) -> np.ndarray:
    """Cosine of the angle between batch and full gradient; NaN where either is zero."""
    product = np.einsum("...p,...p->...", chunk.gradient, chunk.full_gradient)
    return product / (norm(chunk.gradient) * norm(chunk.full_gradient))


QUANTITIES: dict[str, Callable[[Chunk], np.ndarray]] = {
    "distance": distance,
    "distance_start": distance_start,
    "grad_cosine": grad_cosine,
}
PRESETS: dict[str, tuple[str, ...]] = {
    "off": (),
    "light": ("distance", "distance_start", "grad_cosine"),
    "full": tuple(QUANTITIES),
}


def resolve(diagnostics: Any) -> dict[str, Callable[[Chunk], np.ndarray]]:
    """Return the quantities for a preset's name, or a list of names and callables.

    A callable's column is called by its `__name__`.
    """
    if isinstance(diagnostics, str):
        if diagnostics not in PRESETS:
            raise unknown("diagnostics preset", diagnostics, PRESETS)
        diagnostics = PRESETS[diagnostics]
    if not isinstance(diagnostics, (list, tuple)):
        raise InputError(
            f"diagnostics is a preset ({', '.join(PRESETS)}) or a list of names and callables, "
            f"not {diagnostics!r}"
        )
    chosen: dict[str, Callable[[Chunk], np.ndarray]] = {}
    for item in diagnostics:
        if callable(item):
            chosen[getattr(item, "__name__", type(item).__name__)] = item
        elif item in QUANTITIES:
            chosen[item] = QUANTITIES[item]
        else:
            raise unknown("quantity", item, QUANTITIES)
    return chosen


def compute(
    chosen: dict[str, Callable[[Chunk], np.ndarray]], chunk: Chunk
) -> dict[str, np.ndarray]:
    """Return the values `(S, R)` of every chosen quantity."""
    values = {}
    with np.errstate(all="ignore"):
        for name, quantity in chosen.items():
            value = np.asarray(quantity(chunk), dtype=float)
            if value.shape != chunk.loss.shape:
                raise InputError(
                    f"the quantity {name!r} returned shape {value.shape}; "
                    f"expected (steps, replicas) = {chunk.loss.shape}"
                )
            values[name] = value
    return values
