"""Checkpoints of long runs: where a run stands between two chunks, so that another can go on.

A checkpoint is one safetensors file: numbers and a little JSON, nothing in it can run. It holds the
parameters, the optimiser's state, the generators of the order, the points chosen so far, and how
many rows were written by then; the rows themselves lie in the run's `steps` and `epochs`. What is
taken up again ends bit by bit as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sgdstudy.errors import InputError, reason
from sgdstudy.training.sample_stream import sampler

NAME = "checkpoint.safetensors"
VERSION = "1"
PROBED = 1000  # first steps whose sizes tell the same of the schedule
PROBE = 16  # samples whose losses tell whether the model is still the same
REASONS = ("", "converged", "diverged")
ARRAYS = ("members", "live", "stop_epoch", "n_steps", "final_w")  # of the trainer's state

Values = dict[str, Any]  # by "part.key": a tensor, an array, or what JSON can hold


# ---- the file ----------------------------------------------------------------------------------


def write(path: Path, values: Values) -> None:
    """Write a file that is there whole or not at all, whatever happens to us."""
    tensors, rest = {}, {}
    for name, value in values.items():
        if isinstance(value, (torch.Tensor, np.ndarray)):
            # a copy: the format refuses tensors that share memory
            tensors[name] = torch.as_tensor(value).detach().cpu().contiguous().clone()
        else:
            rest[name] = value
    draft = path.with_suffix(".new")
    metadata = {"sgdstudy.checkpoint": VERSION, "values": json.dumps(rest)}
    try:
        save_file(tensors, draft, metadata)
        with open(draft, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def read(path: Path, tensors: bool = True) -> Values:
    """Return what a file holds, or only what is no tensor of it.

    Raises:
        InputError: no checkpoint, only the beginning of one, or one of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys()) if tensors else []
            # copies: the file may be gone soon
            found = {name: file.get_tensor(name).clone() for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path.name} is no checkpoint, or only a part of one ({reason(error)})"
        ) from None
    version = metadata.get("sgdstudy.checkpoint")
    if version != VERSION:
        raise InputError(
            f"{path.name} is no checkpoint of version {VERSION}, which this sgdstudy reads, but "
            f"{'none of sgdstudy' if version is None else f'of version {version}'}"
        )
    return {**found, **json.loads(metadata["values"])}


def part(values: Values, name: str) -> Values:
    """Return the values of one part, by their keys."""
    found = (key.partition(".") for key in values)
    return {key: values[f"{name}.{key}"] for first, _, key in found if first == name}


def joined(**parts: Mapping[str, Any]) -> Values:
    """Return the values of several parts."""
    return {f"{name}.{key}": v for name, values in parts.items() for key, v in values.items()}


# ---- the trainer's state -----------------------------------------------------------------------


def snapshot(run: Any) -> Values:
    """Return the state of a training run between two chunks; of one that is over, its outcome."""
    arrays = {name: getattr(run, name) for name in ARRAYS}
    arrays["reason"] = np.array([REASONS.index(reason) for reason in run.reason], np.uint8)
    arrays["probe"] = _probe(run, torch.as_tensor(run.final_w))
    at = {"epoch": run.epoch, "batch": run.batch, "over": is_over(run)}
    if at["over"]:
        return joined(run=arrays, at=at)
    arrays |= {"w": run.w, "averaged": run.epochs.averaged}
    boundary = dict(zip(("loss", "gradient"), run.boundary or (), strict=False))
    return joined(
        run=arrays,
        at=at,
        sums=run.epochs.sums,
        boundary=boundary,
        rule=_pack(run.state),
        sampler={} if run.config.batch_size is None else run.sampler.state(),
    )


def restore(run: Any, values: Values) -> None:
    """Bring a new training run to where another one stood.

    Raises:
        InputError: the model is another one, or values are missing; the run is as it was then.
    """
    arrays, at = part(values, "run"), part(values, "at")
    try:
        fresh: Values = {name: arrays[name].numpy() for name in ARRAYS}
        fresh["reason"] = np.array(REASONS, dtype=run.reason.dtype)[arrays["reason"].numpy()]
        fresh |= {"epoch": at["epoch"], "batch": at["batch"]}
        probe = _probe(run, arrays["final_w"])
        if not np.array_equal(probe, arrays["probe"].numpy(), equal_nan=True):
            raise InputError("the model gives other losses now, or this machine rounds otherwise")
        if not at["over"]:
            fresh |= _moving(run, arrays, values)
    except (KeyError, IndexError, RuntimeError) as error:
        raise InputError(f"its checkpoint is damaged ({reason(error)})") from None
    for name, value in fresh.items():
        setattr(run, name, value)


def _moving(run: Any, arrays: Values, values: Values) -> Values:
    """Return what a run that is not over goes on with."""
    w, at, config = arrays["w"].to(run.w.device), part(values, "at"), run.config
    boundary = part(values, "boundary")
    seeds = [config.seeds[r] for r in arrays["members"]]
    source = sampler(run.problem, config, seeds)
    if config.batch_size is not None:
        taken = at["epoch"] * run.per_epoch + int(run.sizes[: at["batch"]].sum())
        source.restore(taken, part(values, "sampler"))
    return {
        "w": w,
        "epochs": run.epochs.at(
            {name: value.numpy() for name, value in part(values, "sums").items()},
            arrays["averaged"].numpy(),
        ),
        "boundary": (boundary["loss"].numpy(), boundary["gradient"].numpy()) if boundary else None,
        "state": _unpack(run.engine.init(w), part(values, "rule")),
        "sampler": source,
    }


def is_over(run: Any) -> bool:
    """Whether nothing of a run is left to be trained."""
    return not run.live.any() or run.epoch >= run.config.epochs


def _probe(run: Any, w: torch.Tensor) -> np.ndarray:
    """Return the losses of a few samples at w, which another model would hardly repeat."""
    problem = run.problem
    x, y = (data[:PROBE].expand(len(w), *data[:PROBE].shape) for data in (problem.x, problem.y))
    with torch.no_grad():
        found: np.ndarray = problem.losses(w.to(x.device), x, y).cpu().numpy()
    return found


def _pack(state: Any) -> Values:
    """Return a rule's state as values: nothing, a tensor, or what a torch optimiser keeps."""
    if not isinstance(state, torch.optim.Optimizer):
        return {} if state is None else {"tensor": state}
    (parameter,) = state.param_groups[0]["params"]
    group = {key: value for key, value in state.param_groups[0].items() if key != "params"}
    return joined(state=state.state[parameter], group=group)


def _unpack(fresh: Any, packed: Values) -> Any:
    """Return the state that was packed; `fresh` is the rule's state at its beginning."""
    if not isinstance(fresh, torch.optim.Optimizer):
        return None if fresh is None else packed["tensor"].to(fresh.device)
    group = fresh.param_groups[0]
    for key, value in part(packed, "group").items():
        group[key] = tuple(value) if isinstance(group.get(key), tuple) else value
    (parameter,) = group["params"]
    # as torch's own load_state_dict: counters of steps stay with the processor
    on_host = not (group.get("capturable") or group.get("fused"))
    for key, value in part(packed, "state").items():
        moves = isinstance(value, torch.Tensor) and not (key == "step" and on_host)
        fresh.state[parameter][key] = value.to(parameter.device) if moves else value
    return fresh


def identity(run: Any, config_hash: str) -> dict[str, Any]:
    """Return what must be the same for a run to be gone on with, beside the version of the code."""
    config = run.config
    order = config.order if isinstance(config.order, torch.Tensor) else torch.empty(0)
    return {
        "config": config_hash,
        "engine": run.engine.name,
        "diagnostics": list(run.diagnostics),
        "diagnostics_every": config.diagnostics_every,
        "record_rows": config.record_rows,
        "metrics": list(config.metrics or ()),
        "true parameters": run.problem.w_true is not None,
        "test data": run.problem.test is not None,
        "first parameters": _digest(run.w_start),
        "order": _digest(order.numpy()),
        "step sizes": _digest(run.rates(np.arange(min(PROBED, config.n_steps(run.problem.d))))),
    }


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
