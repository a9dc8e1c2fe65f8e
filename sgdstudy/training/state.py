"""Where a training run stands between two chunks, so that another one can go on from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sgdstudy.recipe import rules
from sgdstudy.recipe import stop as stops
from sgdstudy.training.chunk import REASONS
from sgdstudy.training.epochs import Epochs
from sgdstudy.training.run import Run
from sgdstudy.training.sample_stream import sampler

OF_ALL = ("members", "live", "stop_epoch", "n_steps", "final_w")  # arrays of any state


def state_dict(run: Run) -> dict[str, dict[str, Any]]:
    """Return where a run stands, in parts; of one that is over, its outcome only.

    Raises:
        TypeError: its optimiser remembers what no value holds.
    """
    parts = outcome(run)
    if run.over:
        return parts
    epochs = run.epochs.state_dict()
    return {
        "run": {
            **parts["run"],
            "w": run.w,
            **{k: v for k, v in epochs.items() if k != "sums"},
            **{f"stop_{name}": value for name, value in run.watch._asdict().items()},
        },
        "at": parts["at"],
        "sums": epochs["sums"],
        "boundary": _boundary(run),
        "rule": rules.state_dict(run.state),
        "sampler": {} if run.config.batch_size is None else run.sampler.state_dict(),
    }


def outcome(run: Run) -> dict[str, dict[str, Any]]:
    """Return what stays of a run that is over, in parts; of another one as it is now."""
    arrays = {name: getattr(run, name) for name in OF_ALL}
    arrays["reason"] = np.array([REASONS.index(reason) for reason in run.reason], np.uint8)
    return {"run": arrays, "at": {"epoch": run.epoch, "batch": run.batch, "over": run.over}}


def _boundary(run: Run) -> dict[str, np.ndarray]:
    """Return what all the data say where it stands; a gradient that is not known is NaN."""
    if run.boundary is None:
        return {}
    loss, gradient = run.boundary
    if gradient is None:
        gradient = np.full((len(loss), run.problem.p), np.nan)
    return {"loss": loss, "gradient": gradient}


def load_state_dict(run: Run, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Let a run go on where another one of the same recipe stood.

    Args:
        run: a new one.
        parts: of the other's `state_dict`; an empty part may be missing.

    Raises:
        KeyError, IndexError, RuntimeError: values are missing; the run is as it was then.
    """
    arrays, at = parts["run"], parts["at"]
    found = {name: np.asarray(arrays[name]) for name in OF_ALL}
    reason = np.array(REASONS, dtype=run.reason.dtype)[np.asarray(arrays["reason"])]
    epoch, batch = at["epoch"], at["batch"]
    if not at["over"]:
        _go_on(run, parts)
    for name, value in found.items():
        setattr(run, name, value)
    run.reason, run.epoch, run.batch = reason, epoch, batch


def _go_on(run: Run, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Take over what a run that is not over goes on with: all of it, or nothing."""
    arrays, at, config = parts["run"], parts["at"], run.config
    w = torch.as_tensor(arrays["w"]).to(run.w.device)
    source = sampler(run.problem, config, [config.seeds[r] for r in arrays["members"]])
    if config.batch_size is not None:
        begun = run.phases.at(at["epoch"]).sizes[: at["batch"]]
        taken = at["epoch"] * run.per_epoch + int(begun.sum())
        source.load_state_dict(parts.get("sampler", {}), taken)
    epochs = Epochs(run.problem, config, run.phases)
    kept = {name: arrays[name] for name in ("averaged", "ema") if name in arrays}
    epochs.load_state_dict({"sums": parts.get("sums", {}), **kept})
    watch = stops.Watch(*(np.asarray(arrays[f"stop_{k}"]) for k in stops.Watch._fields))
    ends = parts.get("boundary", {})
    boundary = (np.asarray(ends["loss"]), np.asarray(ends["gradient"])) if ends else None
    state = rules.load_state_dict(run.engine.init(w), parts.get("rule", {}))
    run.w, run.state, run.sampler = w, state, source
    run.epochs, run.watch, run.boundary = epochs, watch, boundary
