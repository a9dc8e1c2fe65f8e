"""What a run's journal is told: how the run opens, its points, how it closes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sgdstudy.secrecy import recordable

KEY = "sgdstudy.key"  # tag: the name of the run's folder
ORIGIN = "sgdstudy.unpacked_from"  # tag: the run's id in the store that it was packed from
A_KEY = re.compile("[0-9]{13,15}-[0-9a-f]{12}", re.ASCII)  # from 2287 on more than 13
Point = tuple[str, int, float]  # key, step, value
Stamped = tuple[str, int, float, int]  # and the time in ms


@dataclass(frozen=True)
class Opening:
    """What a run is, before it begins.

    Attributes:
        study: the experiment's name, without prefix.
        name: the run's name.
        tags: its tags.
        params: its params.
        points: what is logged once, at the start: `predicted/...`.
        data: name, digest, profile of the data set; None without one.
        metrics: columns of `steps` that MLflow gets.
        start_ms: when it began, in ms since 1970.
    """

    study: str
    name: str
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    data: dict[str, Any] | None = None
    metrics: tuple[str, ...] = ()
    start_ms: int = field(default_factory=lambda: now_ms())


@dataclass(frozen=True)
class Closing:
    """How a run ended."""

    status: str
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Stamped] = field(default_factory=list)
    end_ms: int = field(default_factory=lambda: now_ms())
    note: str | None = None  # the experiment's description
    stands: bool = True  # whether the note takes the place of one that is there
    views: str | None = None  # the invocation whose views are to be written
    charts: Mapping[str, str] = field(default_factory=dict)  # theirs: title -> metric

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> Closing:
        """Return what was written down; an earlier version drew several metrics in one chart."""
        charts: dict[str, str] = {}
        for title, metrics in written.get("charts", {}).items():
            named = {title: metrics} if isinstance(metrics, str) else {}
            charts |= named or {f"{title}: {metric}": metric for metric in metrics}
        return cls(**{**written, "charts": charts})


Told = TypeVar("Told", Opening, Closing)


def as_recordable(told: Told) -> Told:
    """Return what is told of a run as it may be kept, whatever texts it is made of."""
    tags = {name: recordable(value) for name, value in told.tags.items()}
    if isinstance(told, Closing):
        note = None if told.note is None else recordable(told.note)
        return replace(told, tags=tags, note=note)
    params = {name: recordable(value) for name, value in told.params.items()}
    data = told.data and told.data | {"name": recordable(told.data["name"])}
    return replace(told, name=recordable(told.name), tags=tags, params=params, data=data)


def stamp(points: Iterable[Point]) -> list[Stamped]:
    """Return the points with the present time."""
    now = now_ms()
    return [(key, step, value, now) for key, step, value in points]


def now_ms() -> int:
    """Return the time in ms since 1970, as MLflow counts it."""
    return int(time.time() * 1000)
