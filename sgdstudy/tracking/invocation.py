"""One call of a study in MLflow: what its runs have in common, and opening and closing them."""

from __future__ import annotations

import math
import shlex
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sgdstudy.errors import InputError
from sgdstudy.history.history import History
from sgdstudy.language import translated
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.secrecy import of_words
from sgdstudy.tracking import chart_views, describe, provenance
from sgdstudy.tracking import scratch as folders
from sgdstudy.tracking.code import Code
from sgdstudy.tracking.entries import Closing, Opening, now_ms
from sgdstudy.tracking.journal import Journal, Later
from sgdstudy.tracking.resume import SECONDS
from sgdstudy.tracking.retry import is_away
from sgdstudy.tracking.runs import next_number
from sgdstudy.tracking.sink import RunSink, close_interrupted, room_on_disk
from sgdstudy.tracking.store import Store
from sgdstudy.tracking.tracked_run import ARM, CONFIG, INVOCATION, KIND, NUMBER
from sgdstudy.training.interrupts import held, unforked


@dataclass(frozen=True)
class Invocation:
    """One call of a study: what its runs have in common.

    Attributes:
        store: where it is tracked.
        study: the experiment's name, without prefix.
        id: tells when it began, by this machine's clock.
        number: more than that of every earlier one of the study, whatever the clocks say.
        command: what was typed.
        scratch: where a server's runs keep their files for this process to read.
        tags: of every run.
        code: what runs.
        resume: whether arms go on with runs that the store has of them.
        checkpoint_seconds: between two checkpoints of a run; 0: one after every chunk.
        later: sends runs that are over before they are tracked, many at once.
    """

    store: Store
    study: str
    id: str
    command: str
    number: str = ""
    scratch: Path | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    code: Code = field(default_factory=Code.of)
    resume: bool = False
    checkpoint_seconds: float = SECONDS
    later: Later | None = None

    @classmethod
    def start(
        cls,
        store: Store,
        study: str,
        tags: Mapping[str, str] | None = None,
        code: Code | None = None,
    ) -> Invocation:
        """Begin an invocation now; tags are for all of its runs; `code` None: see `Code.of`.

        Raises:
            InputError: the clock is before 1970.
        """
        if now_ms() < 0:  # no store takes a time before
            raise InputError("the clock of this machine is before 1970; set it, and try again")
        now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
        scratch = None
        if store.root is None:
            scratch, lock = folders.make()
            folders.remove_at_exit(scratch, lock)
        label = f"{now}-{uuid.uuid4().hex[:4]}"
        command = shlex.join(of_words(_typed()))
        number = next_number(store, study)
        code = Code.of() if code is None else code
        return cls(store, study, label, command, number, scratch, tags or {}, code)

    def outside(self) -> Invocation:
        """Return the same for runs that belong to no invocation: `latest` stays what it was."""
        return replace(self, id="", number="")

    def url(self) -> str:
        """Return the address of the charts; of the store's UI alone while the store is away."""
        try:
            experiment = self.store.client.get_experiment(self.store.experiment(self.study))
        except Exception as error:
            if not is_away(error):
                raise
            return self.store.server
        return chart_views.url(self.store.server, experiment, self.id)

    @contextmanager
    def run(
        self,
        name: str,
        note: str,
        tags: dict[str, str],
        files: dict[str, Callable[[Path], object]] | None = None,
        *,
        over: bool = False,
        **opening: Any,
    ) -> Iterator[Journal]:
        """Open a run; whatever ends the block, the run is closed with a truthful status.

        Args:
            name: the run's name.
            note: its description.
            tags: further tags; of an answer, its kind.
            files: artifacts of its beginning.
            over: the training is over already: the store hears of it once, when it is closed.
            opening: params, points, data, metrics; see `Opening`.
        """
        all_tags = {
            "mlflow.user": provenance.user(),
            "mlflow.source.name": _typed()[0],
            "mlflow.note.content": note,
            "sgdstudy.study": self.study,
            KIND: ARM,
            INVOCATION: self.id,
            **({NUMBER: self.number} if self.number else {}),
            "sgdstudy.command": self.command,
            **self.code.tags,
            "sgdstudy.hardware": provenance.hardware(),
            **provenance.process_tags(),
            **self.tags,
            **tags,
        }
        with room_on_disk(name, self.store):
            told = Opening(self.study, name, all_tags, **opening)
            kept = self.code.artifacts() | (files or {})
            journal = Journal.begin(self.store, told, kept, not over, self.later if over else None)
            try:
                with unforked():
                    yield journal
                if not journal.closed and journal.sink:
                    journal.sink.end()
                elif not journal.closed:
                    journal.close(Closing("FINISHED"))
            except BaseException as error:
                # what a server takes its time for is left to sgdstudy recover
                with nullcontext() if self.store.root is None else held():
                    _end(journal, error)
                raise

    def track(
        self,
        name: str,
        problem: Problem,
        config: TrainConfig,
        predicted: dict[str, float],
        take: Callable[[RunSink], History],
        *,
        about: str = "",
        charted: bool = True,
        tags: Mapping[str, str] | None = None,
        over: bool = False,
    ) -> tuple[str, History]:
        """Track a run whose history `take` makes, handing its rows to the sink as they come.

        Args:
            name: the run's name.
            problem: what is trained.
            config: how.
            predicted: what theory expects.
            take: returns the history.
            about: what the run is there for.
            charted: whether the prepared view shows it.
            tags: further tags.
            over: the training is over already: the store hears of it in one go.

        Returns:
            The run's id, and the history with its rows where they lie now.

        Raises:
            StoreError: the rows cannot be written; what was recorded is kept.
        """
        params = describe.parameters(problem, config)
        known = [(f"predicted/{k}", 0, v) for k, v in predicted.items() if math.isfinite(v)]
        all_tags = {
            CONFIG: describe.config_hash(problem, params),
            chart_views.CHARTED: "yes" if charted else "no",
            **(tags or {}),
        }
        metrics = config.metrics or ()
        opening: dict[str, Any] = {
            "params": params,
            "points": known,
            "data": describe.data(problem),
            "metrics": metrics,
            "over": over,
        }
        note = f"{translated(about)}\n\n{describe.sentence(params)}"
        with self.run(name, note, all_tags, describe.data_files(problem), **opening) as journal:
            sink = RunSink(journal)
            try:
                history = take(sink)
            except BaseException:
                sink.stream.drop()
                raise
            history = replace(history, sink=sink.finish(history, self.scratch), predicted=predicted)
        return journal.run_id or journal.folder.name, history


def _end(journal: Journal, error: BaseException) -> None:
    """Close a run that an error or a signal ended, or leave it to the next command."""
    try:
        with suppress(Exception):  # no room, no memory
            if not journal.closed:
                if journal.sink:
                    journal.sink.flush()
                killed = isinstance(error, KeyboardInterrupt)
                close_interrupted(journal, "KILLED" if killed else "FAILED", error)
    finally:
        journal.let_go()


def _typed() -> list[str]:
    """Return what was typed, of the program its name; "" where a script has cleared that."""
    program, *words = map(str, getattr(sys, "argv", None) or [""])
    return [Path(program).name, *words]
