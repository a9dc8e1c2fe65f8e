"""A run as its store knows it: its tags, params and files' checksums, and what sorts it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sgdstudy.tracking.shapes import SUM_OF

if TYPE_CHECKING:
    from mlflow.entities import Run

INVOCATION = "sgdstudy.invocation"
KIND = "sgdstudy.kind"  # of a run: the name can be edited in MLflow's UI
ARM, ANSWER = "arm", "answer"  # the kinds
NUMBER = "sgdstudy.number"  # orders invocations, also where a clock was wrong
CONFIG = "sgdstudy.config_hash"  # the same data and params have the same one
FINGERPRINT = "sgdstudy.fingerprint"  # of all that the trainer sees
FIGURES = "sgdstudy.figures"  # of an answer: their names; their checksums are one tag too
OF_FIGURES = "figures"
SWEPT = "sgdstudy.settings"  # of a sweep: the point of the grid
CHANGED = "sgdstudy.changed"  # of a sweep: another run had changed what it reads
AN_ID = re.compile(r"[\w.+-]{1,64}", re.ASCII)  # of an invocation: it stands in filters and pages
A_NUMBER = re.compile("[0-9]{15}", re.ASCII)
CENTURY_MS = 100 * 365 * 86_400_000  # no clock is as far ahead


@dataclass(frozen=True)
class TrackedRun:
    """A run as its store knows it; MLflow's own is read here, and nowhere else.

    Attributes:
        run_id: MLflow's id.
        name: of the arm, or `answer`; people rename runs in MLflow's UI.
        status: `RUNNING`, `FINISHED`, `KILLED` or `FAILED`.
        tags: all of them, MLflow's too.
        params: its settings, as text.
        metrics: the last value of each key.
        artifact_uri: where its files are.
        start_ms: when it began, in ms since 1970.
        end_ms: when it ended; None: it goes on.
    """

    run_id: str
    name: str
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    artifact_uri: str
    start_ms: int
    end_ms: int | None

    @classmethod
    def of(cls, run: Run) -> TrackedRun:
        """Return what MLflow tells of a run; a database may hold anything in its columns."""
        about, data = run.info, run.data
        end = about.end_time
        return cls(
            about.run_id,
            about.run_name if isinstance(about.run_name, str) else "",
            about.status,
            _only(str, data.tags),
            _only(str, data.params),
            _only((int, float), data.metrics),
            about.artifact_uri if isinstance(about.artifact_uri, str) else "",
            about.start_time if isinstance(about.start_time, int) else 0,
            end if isinstance(end, int) else None,
        )

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return self.status == "FINISHED"

    @property
    def is_answer(self) -> bool:
        """Whether it holds a study's answer, and trained nothing."""
        told = self.tags.get(KIND)
        if told in (ARM, ANSWER):
            return told == ANSWER
        if CONFIG in self.tags:  # an earlier version's, which had no tag of the kind
            return False
        return f"{SUM_OF}claims.json" in self.tags or self.name == ANSWER

    @property
    def sums(self) -> dict[str, str]:
        """The checksums of its files that its tags tell, by name; older runs know fewer."""
        own = {n.removeprefix(SUM_OF): s for n, s in self.tags.items() if n.startswith(SUM_OF)}
        of_figures = own.pop(OF_FIGURES, None)
        if of_figures:
            own |= zip(self.figures, of_figures.split(", "), strict=False)
        return own

    @property
    def figures(self) -> list[str]:
        """The names of its figures, as its script gave them; [] where the tag does not tell."""
        names, sums = self.tags.get(FIGURES, ""), self.tags.get(SUM_OF + OF_FIGURES)
        commas = sums is not None and sums.count(", ") != names.count(", ")  # within a name
        return names.split(", ") if names and not commas else []

    @property
    def invocation(self) -> str:
        """The id of its invocation; "" of a rerun, of what others track, of what is no id."""
        given = self.tags.get(INVOCATION, "")
        return given if AN_ID.fullmatch(given) else ""

    @property
    def order(self) -> tuple[int, str]:
        """What sorts invocations: their number; of older stores, the time that their id tells."""
        return order_of(self.tags, self.start_ms), self.invocation

    def labels(self, study: str) -> dict[str, str]:
        """Return what tells its rows from those of other runs."""
        own = {"arm": self.name, "run_id": self.run_id, "invocation": self.invocation}
        return {"study": study, **own}


def _only(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values that are of a kind."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, kind) and isinstance(name, str)
    }


def order_of(tags: Mapping[str, str], start_ms: int) -> int:
    """Return what sorts a run's invocation, in ms since 1970; anybody may have written it.

    A time that no clock tells is none: every later invocation would stand before it.
    """
    told = (number_of(tags), moment_of(tags.get(INVOCATION, "")), _believed(start_ms))
    return next((ms for ms in told if ms is not None), 0)  # the last: it belongs to no invocation


def number_of(tags: Mapping[str, str]) -> int | None:
    """Return the number of a run's invocation; None where it has none of ours."""
    number = tags.get(NUMBER, "")
    return _believed(int(number)) if A_NUMBER.fullmatch(number) else None


def moment_of(invocation: str) -> int | None:
    """Return the time that the id of an invocation tells."""
    try:
        began = datetime.strptime(invocation[:22], "%Y%m%d-%H%M%S-%f")
        return _believed(int(began.replace(tzinfo=UTC).timestamp() * 1000))
    except ValueError:
        return None


def _believed(ms: int) -> int | None:
    now = max(time.time_ns(), 0) // 1_000_000
    return ms if 0 <= ms <= now + CENTURY_MS else None
