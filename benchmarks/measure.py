"""How things are measured: repeats taken in turns, medians, ratios of pairs; and in what shape."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
WORKER_SECONDS = 400.0


@dataclass(frozen=True)
class Options:
    """How much is measured.

    Attributes:
        quick: fewer repeats and shorter runs.
        full: the run of 10 million steps too.
        scratch: an empty folder for what the contestants write.
    """

    quick: bool
    full: bool
    scratch: Path

    @property
    def repeats(self) -> int:
        """How often each contestant runs."""
        return 2 if self.quick else 5

    def folder(self, name: str) -> Path:
        """Return a new empty folder."""
        path = self.scratch / f"{name}-{time.monotonic_ns()}"
        path.mkdir(parents=True)
        return path


@dataclass(frozen=True)
class Ratio:
    """Cost over another's cost: the median of the pairs, the least and the most."""

    middle: float
    least: float
    most: float
    to: str

    @classmethod
    def of(cls, costs: Sequence[float], others: Sequence[float], to: str) -> Ratio:
        """Pair the repeats that ran beside each other."""
        pairs = [a / b for a, b in zip(costs, others, strict=True)]
        return cls(median(pairs), min(pairs), max(pairs), to)


@dataclass(frozen=True)
class Line:
    """One line of a table; cost None: not measured, and the note says why."""

    name: str
    cost: float | None
    ratio: Ratio | None = None
    note: str = ""
    ours: bool = False


@dataclass(frozen=True)
class Goal:
    """A figure that must be reached: `measured` at most `limit`; ratios, or `unit`.

    `measured` None: it could not be measured.
    """

    what: str
    limit: float
    measured: float | None
    least: float | None = None
    most: float | None = None
    unit: str = ""

    @classmethod
    def of(cls, what: str, limit: float, ratio: Ratio | None) -> Goal:
        """Make a goal for a ratio."""
        if ratio is None:
            return cls(what, limit, None)
        return cls(what, limit, ratio.middle, ratio.least, ratio.most)

    @property
    def reached(self) -> bool | None:
        """Whether the median is within the limit."""
        return None if self.measured is None else self.measured <= self.limit


@dataclass(frozen=True)
class Bar:
    """A bar of the picture: microseconds per step."""

    panel: str
    label: str
    cost: float | None
    ours: bool


@dataclass
class Table:
    """What one row of the benchmark found.

    Attributes:
        title: what was measured.
        unit: of the costs.
        text: how it was measured.
        lines: who took how long.
        goals: the figures that had to be reached.
        bars: what of it is drawn.
    """

    title: str
    unit: str
    text: str
    lines: list[Line] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)


class PeerFailed(Exception):
    """A peer that is not installed, or does not run; the message says why."""


class Costs:
    """What `interleave` measured, by contestant."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}
        self.failures: dict[str, str] = {}

    def cost(self, name: str) -> float | None:
        """Return the median cost; None if it did not run."""
        return median(self.values[name]) if name in self.values else None

    def ratio(self, name: str, to: str) -> Ratio | None:
        """Return the cost of `name` over that of `to`."""
        if name not in self.values or to not in self.values:
            return None
        return Ratio.of(self.values[name], self.values[to], to)

    def line(self, name: str, to: str = "", note: str = "", ours: bool = False) -> Line:
        """Return a contestant's line, or one that says why it did not run."""
        if name in self.failures:
            return Line(name, None, note=f"not measured: {self.failures[name]}", ours=ours)
        ratio = self.ratio(name, to) if to else None
        return Line(name, self.cost(name), ratio, note, ours)


def interleave(
    contestants: Mapping[str, Callable[[], float]], repeats: int, warm_up: bool = True
) -> Costs:
    """Run the contestants in turns, A B C A B C ..., so that noise meets all of them.

    Args:
        contestants: each runs once and returns its cost.
        repeats: how often.
        warm_up: run everyone once more before, uncounted.
    """
    found = Costs()
    for turn in range(repeats + warm_up):
        for name, run in contestants.items():
            if name in found.failures:
                continue
            gc.collect()
            try:
                cost = run()
            except Exception as error:
                found.failures[name] = reason(error)
                found.values.pop(name, None)
                continue
            if turn >= warm_up:
                found.values.setdefault(name, []).append(cost)
    return found


def reason(error: Exception) -> str:
    """Say in one line why something did not run."""
    first = (str(error).strip().splitlines() or [""])[0]
    text = first if isinstance(error, PeerFailed) else f"{type(error).__name__}: {first}"
    return text if len(text) < 160 else text[:157] + "..."


class Worker:
    """A process of its own for contestants that would disturb others, or be disturbed.

    Calls go in as lines of JSON, answers come out as lines of JSON; see worker.py.

    Args:
        folder: its working folder; it is told to write nowhere else.
        one_core: let it run on one core only.
        env: further environment variables.
    """

    def __init__(
        self, folder: Path, one_core: bool = False, env: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self.one_core, self.env = folder, one_core, dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._dead = ""

    def call(self, name: str, **arguments: Any) -> Any:
        """Return what the function `module:name` returned there.

        Raises:
            PeerFailed: it raised, died, or took too long.
        """
        if self._dead:
            raise PeerFailed(self._dead)
        if self._process is None:
            self._process = self._start()
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps([name, arguments]).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            self._dead = "its process ended"
            raise PeerFailed(self._dead) from None
        late = threading.Timer(WORKER_SECONDS, self._process.kill)
        late.start()
        answer = stdout.readline()
        late.cancel()
        if not answer:
            self._dead = f"its process ended, or took over {WORKER_SECONDS:.0f} s"
            raise PeerFailed(self._dead)
        kind, value = json.loads(answer)
        if kind == "failed":
            raise PeerFailed(value)
        return value

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, str(HERE / "worker.py")]
        if self.one_core and hasattr(os, "sched_getaffinity"):
            words.append(str(max(os.sched_getaffinity(0))))
        quiet = {name: str(self.folder) for name in ("TRACKIO_DIR", "WANDB_DIR", "HF_HOME")}
        quiet |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HF_HUB_OFFLINE": "1"}
        quiet |= {"MLFLOW_DISABLE_TELEMETRY": "true", "JAX_PLATFORMS": "cpu"}
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env={**os.environ, **quiet, **self.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(self.folder / "worker.log", "wb"),
        )
