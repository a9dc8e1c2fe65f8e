"""What is logged of a run, in words and figures: params, results, the data set."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sgdstudy.errors import reason
from sgdstudy.language import say, to_say
from sgdstudy.problems import losses, penalties
from sgdstudy.problems.problem import Problem
from sgdstudy.quantities import norm
from sgdstudy.recipe import columns, groups, orders, rules, schedules
from sgdstudy.recipe import stop as stops
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.secrecy import recordable

if TYPE_CHECKING:
    from sgdstudy.history.history import History

OPTIONAL = tuple(column.name for column in columns.OF_SOME_EPOCHS if column.name != "distance")
_PICTURES: dict[str, bytes | None] = {}  # None: it cannot be drawn
# params of every version; `steps` is a result, a limit of them is `max_steps`
SETTINGS = {setting.name for setting in fields(TrainConfig)} - {"steps"} | {
    *("problem", "loss", "d", "p", "penalty", "epsilon", "max_steps")
}
log = logging.getLogger("sgdstudy")
ENDS = {
    "converged": to_say("converged"),
    "max_epochs": to_say("max epochs"),
    "max_steps": to_say("max steps"),
    "diverged": to_say("diverged"),
    "interrupted": to_say("interrupted"),
}


def parameters(problem: Problem, config: TrainConfig) -> dict[str, str]:
    """Return a run's params, as they may be kept."""
    rule, epsilon = stops.text(config.stop)
    values = {
        "problem": problem.name,
        "loss": losses.name_of(problem.loss),
        "d": problem.d,
        "p": problem.p,
        "batch_size": config.batch_size or problem.d,
        "order": "full batch" if config.batch_size is None else orders.name_of(config.order),
        "optimizer": rules.name_of(config.optimizer),
        "lr": config.lr,
        "epochs": config.epochs,
        "stop": rule,
        "epsilon": epsilon,
        "seeds": _ranges(config.seeds),
        "dtype": config.dtype or str(problem.dtype).removeprefix("torch."),
        "device": config.device,
        **{f"optimizer.{name}": value for name, value in config.options.items()},
    }
    if config.schedule is not None:
        values["schedule"] = schedules.name_of(config.schedule)
        values |= {f"schedule.{name}": value for name, value in config.schedule_options.items()}
        values |= {"schedule_unit": "epoch"} if config.schedule_unit == "epoch" else {}
    if problem.penalty is not None:
        values["penalty"] = penalties.name_of(problem.penalty)
    if config.groups:
        values["groups"] = groups.text(config.groups)
    for name in ("clip_norm", "clip_value"):
        if getattr(config, name) is not None:
            values[name] = getattr(config, name)
    if config.steps is not None:
        values["max_steps"] = config.steps  # `steps` are those that were taken
    if config.patience != 1:
        values["patience"] = config.patience
    if config.measures:
        values["measures"] = ", ".join(config.measures)
    if config.batch_schedule:
        values["batch_schedule"] = ", ".join(f"{k}: {size}" for k, size in config.batch_schedule)
    if config.drop_last:
        values["drop_last"] = True
    if config.evaluate_every != 1:
        values["evaluate_every"] = config.evaluate_every
    if config.average is not None:
        values["average"] = config.average
    if config.ema is not None:
        values["ema"] = config.ema
    return {name: recordable(str(value)) for name, value in values.items()}


def is_setting(name: str) -> bool:
    """Whether a param is one of `parameters`."""
    return name in SETTINGS or name.startswith(("optimizer.", "schedule."))


def config_hash(problem: Problem, params: dict[str, str]) -> str:
    """Return a fingerprint of data and params: the same experiment has the same one."""
    text = json.dumps({"data": problem.digest, **params}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def results(history: History) -> dict[str, float]:
    """Return the `result/` figures: medians over all seeds, with `_p10` and `_p90`.

    Quantiles are values of a seed (inverse of the empirical law; of two middle ones the lower), so
    that a seed that never stopped counts as later than any that did, and one that diverged as worse
    than any (`columns.worst`); a figure that is not finite is left out.
    """
    ended = history.stop_reason != "diverged"
    full_loss, gradient = history.problem.full(history.w.astype(float))
    values: dict[str, np.ndarray] = {
        "stop_epoch": history.converged_epoch,
        "full_loss": np.where(ended, full_loss, np.inf),
        "full_grad_norm": np.where(ended, norm(gradient), np.inf),
    }
    if history.problem.w_true is not None:
        values["distance"] = np.where(ended, history.distance, np.inf)
    for name, last in _last(history).items():
        values[name] = np.where(ended, last, columns.worst(name))
    if history.problem.p <= 16:
        values |= {f"w{i}": history.w[:, i].astype(float) for i in range(history.problem.p)}
    figures = {
        "steps": float(history.n_steps.sum()),
        "train_seconds": history.train_seconds,
        "seconds_per_step": history.seconds_per_step,
        "converged": float((history.stop_reason == "converged").sum()),
        "diverged": float((history.stop_reason == "diverged").sum()),
    }
    quantiles = {"": 0.5, "_p10": 0.1, "_p90": 0.9} if len(history.w) > 1 else {"": 0.5}
    for name, value in values.items():
        for suffix, q in quantiles.items():
            figures[name + suffix] = float(np.quantile(value, q, method="inverted_cdf"))
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def result_names(problem: Problem, config: TrainConfig) -> list[str]:
    """Return what `results` has of a run that did not diverge, but quantiles, by which runs rank.

    Not how many seeds converged, which grows the less is asked.
    """
    there = config.epoch_columns(problem)
    names = ["stop_epoch", "full_loss", "full_grad_norm"]
    names += [name for name in ("distance", *OPTIONAL, *config.measure_columns) if name in there]
    names += [f"w{i}" for i in range(problem.p)] if problem.p <= 16 else []
    return [*names, "steps", "train_seconds", "seconds_per_step", "diverged"]


def _last(history: History) -> dict[str, np.ndarray]:
    """Return what only some runs have, at the end of each seed's last epoch, `(R,)`."""
    there: list[str] = next((b.schema.names for b in history.sink.batches("epochs")), [])
    known = [*OPTIONAL, *history.config.measure_columns]
    names = [name for name in known if name in there]
    if not names:
        return {}
    rows = history.load("epochs", columns=["seed", "epoch", *names])
    last = rows.drop_duplicates("seed", keep="last").set_index("seed")[names]
    last = last.reindex(list(history.config.seeds))  # NaN: no epoch was completed
    return {name: last[name].to_numpy(dtype=float) for name in names}


def summary_of_reasons(history: History) -> str:
    """Return the stop reason, with counts where the seeds ended differently."""
    reasons, counts = np.unique(history.stop_reason, return_counts=True)
    if len(reasons) == 1:
        return str(reasons[0])
    return ", ".join(f"{n} {reason}" for reason, n in zip(reasons, counts, strict=True))


def sentence(params: Mapping[str, str]) -> str:
    """Say in one sentence how an arm is trained."""
    given = {name: str(value) for name, value in params.items() if name.isidentifier()}
    if given["order"] == "full batch":
        batches = say("all {d} samples at every step", **given)
    elif "batch_schedule" in given:
        pairs = [pair.split(": ") for pair in given["batch_schedule"].split(", ")]
        later = [say("{size} after epoch {epoch}", size=size, epoch=epoch) for epoch, size in pairs]
        text = to_say("batches of {batch_size} of {d} samples, {later}, order {order}")
        batches = say(text, **given, later=later)
    else:
        batches = say("batches of {batch_size} of {d} samples, order {order}", **given)
    n = int(given.get("max_steps", given["epochs"]))
    if "max_steps" in given:
        length = say("at most {n} step", "at most {n} steps", n=n)
    else:
        length = say("at most {n} epoch", "at most {n} epochs", n=n)
    if given["stop"] != "none":
        until = stops.in_words(given["stop"], given["epsilon"], given.get("patience", 1))
        length = f"{length}, {until}"
    text = to_say(
        "{problem}, loss {loss}: {optimizer}, lr {lr}, {batches}; {length}; seeds {seeds}, {dtype}."
    )
    return say(text, **given, batches=batches, length=length)


def ended(reason: str) -> str:
    """Say how a run ended; of seeds that ended in several ways, as `3 converged, 1 diverged`."""
    parts = []
    for part in reason.split(", "):
        n, _, one = part.rpartition(" ")
        ending = say(ENDS[one]) if one in ENDS else one.replace("_", " ")
        parts.append(say("{n} {ending}", n=n, ending=ending) if n else ending)
    return ", ".join(parts)


def data(problem: Problem) -> dict[str, Any]:
    """Return what is logged of the data set."""
    profile = {"d": problem.d, "p": problem.p, "x": list(problem.x.shape)}
    return {"name": problem.name, "digest": problem.digest, "profile": profile}


def data_files(problem: Problem) -> dict[str, Callable[[Path], object]]:
    """Return the artifact that shows the data, where it can be drawn."""
    picture = data_picture(problem)
    return {} if picture is None else {"data.png": lambda path: path.write_bytes(picture)}


def data_picture(problem: Problem) -> bytes | None:
    """Return the plot of one-dimensional data as PNG, drawn once per data set."""
    from sgdstudy import figures

    if problem.x.dim() != 1 or problem.y.dim() != 1:
        return None
    if problem.digest not in _PICTURES:
        try:
            _PICTURES[problem.digest] = figures.png(figures.data(problem))
        except Exception as error:
            why = {"name": "data.png", "why": reason(error)}
            log.warning("%s", say("{name} is left out: {why}", **why))
            _PICTURES[problem.digest] = None
    return _PICTURES[problem.digest]


def _ranges(seeds: tuple[int, ...]) -> str:
    """Write whole numbers briefly.

    >>> _ranges((0, 1, 2, 3, 7))
    '0-3,7'
    """
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and seed == parts[-1][-1] + 1:
            parts[-1][1:] = [seed]
        else:
            parts.append([seed])
    return ",".join("-".join(map(str, part)) for part in parts)
