"""What a run is, for telling it from others: all that the trainer sees, part by part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

from sgdstudy.problems.fingerprint import Unseen, fingerprint, fingerprints
from sgdstudy.problems.installed import put_in, spaces
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe.config import TrainConfig

# setting -> the setting whose part of the identity holds it
TOGETHER = {
    "lr": "optimizer",
    "options": "optimizer",
    "patience": "stop",
    "schedule": "step sizes",
    "schedule_options": "step sizes",
    "schedule_unit": "step sizes",
}
# settings that earlier versions did not have: a part only where they are set
LATER = {"batch_schedule": (), "evaluate_every": 1, "groups": {}, "steps": None}


@dataclass(frozen=True)
class Identity:
    """What a run is.

    Attributes:
        parts: fingerprints of the model, the loss, the order, ..., by name.
        unseen: why the run cannot be told from others; "" where it can.
    """

    parts: Mapping[str, str]
    unseen: str = ""

    @classmethod
    def of(
        cls, problem: Problem, config: TrainConfig, own: Mapping[str, Any] | None = None
    ) -> Identity:
        """Return what a run of a problem under a config is, now: functions may change later.

        Args:
            problem: what is trained.
            config: how.
            own: the script's own options.
        """
        try:
            found = fingerprints(_parts(problem, config))
        except Unseen as error:
            return cls({}, str(error))
        return cls({**found, "options": fingerprint(dict(own or {}))})

    @property
    def hash(self) -> str:
        """Fingerprint of all parts; "" where the run cannot be told from others."""
        text = json.dumps(self.parts, sort_keys=True)
        return "" if self.unseen else hashlib.sha256(text.encode()).hexdigest()[:16]


def _parts(problem: Problem, config: TrainConfig) -> dict[str, Any]:
    """Return what a run is made of, by what it is called.

    Of what is named, a class of torch, what somebody has put into it counts too.
    """
    found: dict[str, Any] = dict(problem.parts)
    for setting in fields(config):
        if setting.name in LATER and getattr(config, setting.name) == LATER[setting.name]:
            continue
        name = TOGETHER.get(setting.name, setting.name)
        found.setdefault(name, []).append(getattr(config, setting.name))
    found["dtype"] = config.dtype or str(problem.dtype).removeprefix("torch.")
    if config.batch_size in (None, problem.d):
        found["batch_size"] = problem.d
    if config.batch_size is None:
        found["order"] = "full batch"
    for part, home, name in (
        ("optimizer", torch.optim, config.optimizer),
        ("step sizes", torch.optim.lr_scheduler, config.schedule),
    ):
        known = getattr(home, name, None) if isinstance(name, str) else None
        found[part] += [
            (space.name, *put) for space in spaces(known) for put in put_in(space, set())
        ]
    return found
