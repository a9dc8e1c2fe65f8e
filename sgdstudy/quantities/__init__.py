"""What is computed from the recorded steps, a chunk at a time, after the fact.

A quantity is a pure function of a `Chunk` returning `(S, R)`: one value per step and replica, NaN
where it is not defined. It sees copies only, so it cannot change a trajectory, and draws from no
generator but its own. `docs/diagnostics.md` lists them.

Promises: the same steps give the same values, however they are cut into chunks.
May import: `problems`, `checks` and below.
Start reading: `chunk.py` (what a quantity sees), then `formulas.py` (the quantities).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from sgdstudy import checks
from sgdstudy.errors import InputError, failed, quoted
from sgdstudy.quantities import formulas
from sgdstudy.quantities.chunk import Chunk, norm
from sgdstudy.quantities.statistics import Statistics

__all__ = ["PRESETS", "QUANTITIES", "Chunk", "compute", "norm", "resolve"]

QUANTITIES: dict[str, Callable[[Chunk], np.ndarray | None]] = {
    quantity.__name__: quantity
    for quantity in (
        formulas.distance,
        formulas.distance_start,
        formulas.grad_cosine,
        formulas.trace_sigma,
        formulas.noise_scale,
        formulas.noise_scale_two_batch,
        formulas.norm_test,
        formulas.inner_test,
        formulas.ortho_test,
        formulas.gsnr,
        formulas.early_stopping,
        formulas.cabs,
        formulas.alpha,
        formulas.tic,
        formulas.hess_max_eig,
        formulas.hess_trace,
        formulas.lr_sharpness,
        formulas.full_trace_sigma,
        formulas.full_noise_scale,
        formulas.full_hess_max_eig,
        formulas.full_hess_trace,
        formulas.grad_histogram,
    )
}
# what can do with the gradients at which the full one is known, and the distance to the start
SPARING = (formulas.distance_start, formulas.grad_cosine)
PRESETS: dict[str, tuple[str, ...]] = {
    "off": (),
    "light": ("distance", "distance_start", "grad_cosine"),
    "full": tuple(name for name in QUANTITIES if name != "grad_histogram"),
}


def resolve(diagnostics: Any) -> dict[str, Callable[[Chunk], np.ndarray | None]]:
    """Return the quantities for a preset's name, or a list of names and callables.

    A callable's column is called by its `__name__`; where it returns `(S, R, k)`, its k columns
    are called `<name>_0` and so on; None is no column. What a preset asks of all the data is
    left out where it would have to go through them (other problems than least squares).

    Raises:
        InputError: an unknown name, or a callable named like a quantity of ours or another one.
    """
    preset = isinstance(diagnostics, str)
    if preset:
        diagnostics = PRESETS[checks.choice("diagnostics preset", diagnostics, PRESETS)]
    if not isinstance(diagnostics, (list, tuple)):
        raise InputError(
            f"diagnostics is a preset ({', '.join(PRESETS)}) or a list of names and callables, "
            f"not {quoted(diagnostics)}"
        )
    chosen: dict[str, Callable[[Chunk], np.ndarray | None]] = {}
    for item in diagnostics:
        if callable(item):
            name = getattr(item, "__name__", type(item).__name__)
            other = chosen.get(name) or QUANTITIES.get(name)
            if other not in (None, item):
                raise InputError(
                    f"a diagnostic is called {quoted(name)}, as another one is; rename the "
                    f"function, for instance my_{name.strip('<>')}"
                )
            chosen[name] = item
        else:
            checks.choice("quantity", item, QUANTITIES)
            cheap = preset and item.startswith("full_")
            chosen[item] = _where_exact(QUANTITIES[item]) if cheap else QUANTITIES[item]
    return chosen


def are_sparing(
    chosen: Mapping[str, Callable[[Chunk], np.ndarray | None]], no_w_true: bool
) -> bool:
    """Whether none of the chosen quantities needs parameters or gradients of every step."""
    rest = set(chosen.values()) - {*SPARING, *([formulas.distance] if no_w_true else [])}
    return not rest


def compute(
    chosen: dict[str, Callable[[Chunk], np.ndarray | None]], chunk: Chunk
) -> dict[str, np.ndarray]:
    """Return the values `(S, R)` of every chosen quantity."""
    values: dict[str, np.ndarray] = {}
    shared = Statistics(chunk)
    for quantity in chosen.values():
        shared.want(getattr(quantity, "needs", ()))
    chunk = replace(chunk, statistics=shared)
    with np.errstate(all="ignore"):
        for name, quantity in chosen.items():
            try:
                found = quantity(chunk if name in QUANTITIES else _copied(chunk))
                if found is None:
                    continue
                value = np.asarray(found, dtype=float)
            except Exception as error:
                if name in QUANTITIES:
                    raise
                raise failed(f"the quantity {name!r}", error) from error
            if value.ndim == 3 and value.shape[:2] == chunk.loss.shape:
                values |= {f"{name}_{k}": value[..., k] for k in range(value.shape[2])}
            elif value.shape == chunk.loss.shape:
                values[name] = value
            else:
                raise InputError(
                    f"the quantity {name!r} returned shape {value.shape}; "
                    f"expected (steps, replicas) = {chunk.loss.shape}"
                )
    return values


def _copied(chunk: Chunk) -> Chunk:
    """Return a chunk of arrays that only a user's function reads, whatever it writes there."""
    held = {f.name: getattr(chunk, f.name) for f in fields(chunk)}
    arrays: dict[str, Any] = {
        name: value.copy() for name, value in held.items() if isinstance(value, np.ndarray)
    }
    arrays["full"] = replace(chunk.full, vectors=chunk.full.vectors.copy())
    if isinstance(chunk.indices, torch.Tensor):
        arrays["indices"] = chunk.indices.clone()
    return replace(chunk, **arrays)


def _where_exact(
    quantity: Callable[[Chunk], np.ndarray | None],
) -> Callable[[Chunk], np.ndarray | None]:
    """Return the quantity for least squares only."""

    def exact(chunk: Chunk) -> np.ndarray | None:
        known = chunk.problem is not None and chunk.problem.least_squares is not None
        return quantity(chunk) if known else None

    exact.needs = getattr(quantity, "needs", ())  # type: ignore[attr-defined]
    return exact
