"""Checkpoints of long runs: where a run stands between two chunks, so that another can go on.

A checkpoint is one safetensors file: numbers and a little JSON, nothing in it can run. It holds the
parameters, the optimiser's state, the generators of the order, the points chosen so far, and how
many rows were written by then; the rows themselves lie in the run's `steps` and `epochs`. What is
taken up again ends bit by bit as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sgdstudy.errors import Away, InputError, reason, shortage
from sgdstudy.history.shared import share
from sgdstudy.training.run import Run
from sgdstudy.training.state import load_state_dict, outcome, state_dict

NAME = "checkpoint.safetensors"
VERSION, BEFORE_CHECKSUMS = "2", "1"
PROBE = 16  # samples whose losses tell whether the model is still the same
PARTS = ("run", "at", "sums", "boundary", "rule", "sampler")  # of the trainer's state
# of an identity: what is compared as it is, or may change without changing a number
PLAIN = ("engine", "diagnostics", "diagnostics_every", "record_rows", "metrics")

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
    text = json.dumps(rest)
    metadata = {"sgdstudy.checkpoint": VERSION, "values": text, "crc32": _sum(tensors, text)}
    metadata["values_crc32"] = _sum({}, text)
    try:
        save_file(tensors, draft, metadata)
        with open(draft, "rb+") as file:
            os.fsync(file.fileno())
        share(draft)
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def read(path: Path, tensors: bool = True) -> Values:
    """Return what a file holds, or only what is no tensor of it.

    Raises:
        InputError: no checkpoint, only the beginning of one, one of another version, or one that is
            not what was written.
        Away: there is too little memory, or no handle.
    """
    try:
        open(path, "rb").close()  # safetensors says of any file that it is not there
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys()) if tensors else []
            # copies: the file may be gone soon
            found = {name: file.get_tensor(name).clone() for name in names}
    except (SafetensorError, OSError, MemoryError) as error:
        if short := shortage(error):
            raise Away(f"{path.name} cannot be read ({short})") from error
        raise InputError(
            f"{path.name} is no checkpoint, or only a part of one ({reason(error)})"
        ) from None
    version = metadata.get("sgdstudy.checkpoint")
    if version not in (VERSION, BEFORE_CHECKSUMS):
        raise InputError(
            f"{path.name} is no checkpoint of version {VERSION}, which this sgdstudy reads, but "
            f"{'none of sgdstudy' if version is None else f'of version {version}'}"
        )
    expected = metadata.get("crc32" if tensors else "values_crc32")
    if version == VERSION and expected != _sum(found, metadata.get("values", "")):
        raise InputError(f"{path.name} is no checkpoint any more: it is not what was written")
    return {**found, **json.loads(metadata["values"])}


def _sum(tensors: Mapping[str, torch.Tensor], text: str) -> str:
    """Return the checksum of tensors, with their names, kinds and shapes, and of a text."""
    total = zlib.crc32(text.encode())
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        if tensor.numel():  # of none torch does not know how its bytes lie
            total = zlib.crc32(tensor.contiguous().view(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


def part(values: Values, name: str) -> Values:
    """Return the values of one part, by their keys."""
    found = (key.partition(".") for key in values)
    return {key: values[f"{name}.{key}"] for first, _, key in found if first == name}


def joined(**parts: Mapping[str, Any]) -> Values:
    """Return the values of several parts."""
    return {f"{name}.{key}": v for name, values in parts.items() for key, v in values.items()}


# ---- the trainer's state -----------------------------------------------------------------------


def snapshot(run: Run) -> Values:
    """Return the state of a training run between two chunks; of one that is over, its outcome."""
    return joined(**state_dict(run)) | {"run.probe": _probe(run, torch.as_tensor(run.final_w))}


def restore(run: Run, values: Values) -> None:
    """Bring a new training run to where another one stood.

    Raises:
        InputError: the model is another one, or values are missing; the run is as it was then.
    """
    parts = {name: part(values, name) for name in PARTS}
    try:
        _require_fit(run, parts)
        probe = _probe(run, parts["run"]["final_w"])
        if not np.array_equal(probe, parts["run"]["probe"].numpy(), equal_nan=True):
            raise InputError("the model gives other losses now, or this machine rounds otherwise")
        load_state_dict(run, parts)
    except (KeyError, IndexError, RuntimeError) as error:
        raise InputError(f"its checkpoint is damaged ({reason(error)})") from None


def _require_fit(run: Run, parts: Mapping[str, Values]) -> None:
    """Raise `InputError` where values cannot be those of this run, whatever they are."""
    n, at = len(run.live), parts["at"]
    members = np.asarray(parts["run"]["members"])
    known = 0 <= at["epoch"] <= run.phases.epochs
    if not known or not 0 <= at["batch"] < len(run.phases.at(at["epoch"]).sizes):
        raise InputError(f"its checkpoint is damaged (epoch {at['epoch']}, batch {at['batch']})")
    if (
        members.ndim != 1
        or not np.isin(members, np.arange(n)).all()
        or (np.diff(members) < 1).any()
    ):
        raise InputError("its checkpoint is damaged (members)")
    of = outcome if at["over"] else state_dict
    for name, fresh in of(run).items():
        for key, now in fresh.items():
            if not isinstance(now, (torch.Tensor, np.ndarray)) or key in ("members", "rest"):
                continue
            then, now = torch.as_tensor(parts[name][key]), torch.as_tensor(now)
            sizes = zip(then.shape, now.shape, strict=False)
            fits = all(a == b or (b == n and a == len(members)) for a, b in sizes)
            if then.dtype != now.dtype or then.dim() != now.dim() or not fits:
                raise InputError(f"its checkpoint is damaged ({name}.{key} is of another shape)")


def _probe(run: Run, w: torch.Tensor) -> np.ndarray:
    """Return the losses of a few samples at w, which another model would hardly repeat."""
    problem = run.problem
    x, y = (data[:PROBE].expand(len(w), *data[:PROBE].shape) for data in (problem.x, problem.y))
    with torch.no_grad():
        found: np.ndarray = problem.losses(w.to(x.device), x, y).cpu().numpy()
    return found


def identity(run: Run, config_hash: str, parts: Mapping[str, str]) -> dict[str, Any]:
    """Return what must be the same for a run to be gone on with, beside the version of the code.

    Args:
        run: what is trained.
        config_hash: of its data and params.
        parts: fingerprints of its functions and options, see `recipe.identity`.
    """
    config = run.config
    found: dict[str, Any] = {
        "config": config_hash,
        "engine": run.engine.name,
        "diagnostics": list(run.diagnostics),
        "diagnostics_every": config.diagnostics_every,
        "record_rows": config.record_rows,
        "metrics": list(config.metrics or ()),
        "true parameters": run.problem.w_true is not None,
        "test data": run.problem.test is not None,
    }
    return found | {name: value for name, value in parts.items() if name not in PLAIN}
