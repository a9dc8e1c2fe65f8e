"""A study: a question, the arms that differ, the claims, the answer. `experiments/` declares them.

This module stays light to import: a script's `--help` must not wait for torch.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgdstudy import checks
from sgdstudy.claims import PLURAL, Claim, claims_markdown
from sgdstudy.errors import InputError, shown

if TYPE_CHECKING:
    import pandas as pd

    from sgdstudy.config import TrainConfig
    from sgdstudy.history import History
    from sgdstudy.problem import Problem
    from sgdstudy.tracking import Invocation
    from sgdstudy.trajectory import Trajectory

__all__ = ["Arm", "Claim", "Options", "Result", "Study"]
HIDDEN = "The answer is hidden: run without --no-answer to see it."
NOTE_LENGTH = 5000  # what MLflow keeps of an experiment's description
Runs = Mapping[str, "History"]


@dataclass(frozen=True)
class Options:
    """What every script takes."""

    seeds: int = 16
    """number of seeds, where an arm is random"""
    first_seed: int = 0
    """the first seed; the others follow it"""
    device: str = "cpu"
    """where to train, as cpu or cuda"""
    engine: str = "auto"
    """what takes the steps: eager, compiled, or auto: compiled where it pays"""
    store: str | None = None
    """folder of the store, or tracking URI; default: the nearest mlruns/"""
    jobs: int = 1
    """processes that train arms side by side"""
    strict: bool = False
    """end with exit code 1 when a claim fails"""
    answer: bool = True
    """write the answer and the claims; --no-answer keeps them from the class"""
    predict: bool = False
    """ask for your guesses before the run, and show them beside the outcome"""
    resume: bool = False
    """go on where interrupted runs of the same configuration stopped"""
    checkpoint_seconds: float = 60.0
    """seconds between two checkpoints of a long run"""

    def seed_range(self) -> range:
        """Return the seeds of a random arm.

        Raises:
            InputError: fewer than one, or a first one below 0.
        """
        if self.seeds < 1:
            raise InputError(f"seeds must be at least 1, got {self.seeds}")
        if self.first_seed < 0:
            raise InputError(f"first_seed must be at least 0, got {self.first_seed}")
        return range(self.first_seed, self.first_seed + self.seeds)


class Arm:
    """One line of a comparison: a problem, how it is trained, and what it is there for.

    Args:
        problem: what is trained.
        about: what the arm is there for, in a few words.
        charted: whether the prepared view of the MLflow UI shows it; not where it would dwarf the
            others.
        trajectory: steps taken elsewhere, as `ss.Trajectory(problem, w, indices)`, to be recorded
            and tracked like our own.
        settings: see `TrainConfig`; with a trajectory, see `Trajectory.config`.
    """

    def __init__(
        self,
        problem: Problem,
        about: str = "",
        *,
        charted: bool = True,
        trajectory: Trajectory | None = None,
        **settings: Any,
    ) -> None:
        from sgdstudy import problems
        from sgdstudy.config import TrainConfig
        from sgdstudy.trajectory import Trajectory

        problem = problems.get(problem)
        if not (trajectory is None or isinstance(trajectory, Trajectory)):
            raise InputError(f"trajectory is a ss.Trajectory, not {shown(trajectory)}")
        if trajectory is not None and "lr" not in settings:
            raise InputError("an arm with a trajectory needs lr=, the step size that it had")
        self.problem, self.about, self.charted = problem, about, charted
        self.trajectory = trajectory
        self.config: TrainConfig = (
            TrainConfig.of(**settings) if trajectory is None else trajectory.config(**settings)
        )
        self.config.check(problem)

    @property
    def n_steps(self) -> int:
        """The most steps it can take."""
        return self.config.epochs * len(self.config.batch_sizes(self.problem.d))


@dataclass(frozen=True)
class Result:
    """What a study found.

    Attributes:
        study: its name.
        runs: arm -> history.
        run_ids: arm -> MLflow run id, `answer` included.
        claims: all claims.
        answer: the written answer.
        url: address of the charts in the MLflow UI.
        seconds: wall time.
    """

    study: str
    runs: dict[str, History]
    run_ids: dict[str, str]
    claims: list[Claim]
    answer: str
    url: str
    seconds: float
    shown: str = field(default="", repr=False)

    @property
    def failed(self) -> list[Claim]:
        """The claims that do not hold."""
        return [claim for claim in self.claims if claim.holds is False]

    @property
    def claims_table(self) -> pd.DataFrame:
        """The claims as pandas."""
        import pandas as pd

        return pd.DataFrame([claim.as_json() for claim in self.claims])

    def _repr_markdown_(self) -> str:
        return f"## {self.study}\n\n{self.answer}\n\n{claims_markdown(self.claims)}"


@dataclass(frozen=True)
class Study:
    """A script's declaration.

    Attributes:
        file: the script's `__file__`; its stem names the experiment.
        doc: the script's docstring; its first line is the question.
        options: the script's options.
        arms: options -> arm by name.
        claims: options, runs -> claims.
        answer: options, runs, claims -> the answer in plain words.
        figures: file name -> function of the runs returning a figure.
        tables: name -> function of options and runs returning a DataFrame, logged as CSV.
        show: options, runs -> text printed before the claims.
        ask: (claim, arm) -> the question that `--predict` asks the reader.
    """

    file: str
    doc: str
    options: type[Options]
    arms: Callable[[Any], dict[str, Arm]]
    claims: Callable[[Any, Runs], list[Claim]]
    answer: Callable[[Any, Runs, list[Claim]], str]
    figures: Mapping[str, Callable[[Runs], Any]] = field(default_factory=dict)
    tables: Mapping[str, Callable[[Any, Runs], Any]] = field(default_factory=dict)
    show: Callable[[Any, Runs], str] | None = None
    ask: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The experiment's name."""
        return Path(self.file).stem

    @property
    def question(self) -> str:
        """The docstring's first line."""
        return self.doc.strip().splitlines()[0]

    def run(
        self,
        options: Options | None = None,
        *,
        progress: bool | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> Result:
        """Run all arms, check the claims, and log everything.

        Raises:
            InputError: an option that is not allowed; nothing has been written then.
            Interrupted: Ctrl-C; what was recorded is saved.
        """
        started = time.perf_counter()
        options = self.options() if options is None else options
        if not options.checkpoint_seconds >= 0:
            raise InputError(f"checkpoint_seconds is at least 0, got {options.checkpoint_seconds}")
        arms = self.placed_arms(options)
        guesses = self._guesses(options)
        from sgdstudy import recovery
        from sgdstudy.parallel import train_arms
        from sgdstudy.tracking import Invocation

        store = recovery.start(options.store, say)
        say(f"tracking to {store.shown}")
        invocation = replace(
            Invocation.start(store, self.name, self.tags(options)),
            resume=options.resume,
            checkpoint_seconds=options.checkpoint_seconds,
        )
        runs: dict[str, History] = {}
        run_ids: dict[str, str] = {}
        for name, run_id, history in train_arms(self, options, arms, invocation, progress):
            run_ids[name], runs[name] = run_id, history
            say(f"  {name:<28} {_outcome(history)}")
        runs = {name: runs[name] for name in arms}  # in the order of the script
        claims = self.claims(options, runs)
        if options != self._defaults(options):
            claims = [c if c.always or c.identity else c.described() for c in claims]
        claims = [replace(claim, guess=guesses.get((claim.name, claim.arm))) for claim in claims]
        answer = _reflow(self.answer(options, runs, claims)) if options.answer else HIDDEN
        claims = claims if options.answer else []
        run_ids["answer"] = self._log_answer(invocation, options, runs, claims, answer)
        if any((store.streams / run_id).exists() for run_id in run_ids.values()):
            say(str(recovery.recover(store)))
        return Result(
            study=self.name,
            runs=runs,
            run_ids=run_ids,
            claims=claims,
            answer=answer,
            url=invocation.url(),
            seconds=time.perf_counter() - started,
            shown=self.show(options, runs) if self.show else "",
        )

    def tags(self, options: Options) -> dict[str, str]:
        """Return what it takes to run an arm again: `sgdstudy rerun` reads it."""
        return {"sgdstudy.script": self.file, "sgdstudy.options": json.dumps(asdict(options))}

    def placed_arms(self, options: Options) -> dict[str, Arm]:
        """Return the arms, on the device and by the engine that the options name.

        Raises:
            InputError: a setting that is not allowed, or does not fit its problem.
        """
        checks.folder_name("the study's name", self.name)
        checks.seeds(options.seed_range())
        checks.count("jobs", options.jobs)
        seconds = options.checkpoint_seconds
        checks.number("checkpoint_seconds", seconds, lambda v: v >= 0, "at least 0 and finite")
        arms = self.arms(options)
        if not isinstance(arms, dict) or not arms:
            raise InputError(f"the arms of {self.name} are a dict of ss.Arm, not {shown(arms)}")
        for name, arm in arms.items():
            checks.name("an arm's name", name)
            if name == "answer":
                raise InputError("'answer' is the name of the run with the claims; rename the arm")
            if not isinstance(arm, Arm):
                raise InputError(f"the arm {name!r} is a ss.Arm, not {shown(arm)}")
            if options.device != Options.device:
                arm.config = replace(arm.config, device=options.device)
            if options.engine != Options.engine:
                arm.config = replace(arm.config, engine=options.engine)
        return arms

    def main(self) -> None:
        """Run the script from the command line."""
        from sgdstudy.cli import script_main

        script_main(self)

    def _guesses(self, options: Options) -> dict[tuple[str, str], float]:
        """Ask the reader what they expect, before anything runs.

        Raises:
            InputError: the answer is to be hidden, or there is nobody to ask.
        """
        if not options.predict:
            return {}
        if not options.answer:
            raise InputError("--predict compares with the claims that --no-answer hides: drop one")
        found = {}
        for key, question in self.ask.items():
            guess = _ask(question)
            if guess is not None:
                found[key] = guess
        return found

    def _defaults(self, options: Options) -> Options:
        """Return the options with the script's own ones at their defaults, but for `quick`.

        What `quick` leaves out, a script's claims allow for.
        """
        own = [f.name for f in fields(self.options) if f.name == "quick"]
        shared = {
            name: getattr(options, name) for name in [*(f.name for f in fields(Options)), *own]
        }
        return self.options(**shared)

    def _log_answer(
        self, invocation: Invocation, options: Options, runs: Runs, claims: list[Claim], answer: str
    ) -> str:
        """Log the `answer` run and the experiment's description; return the run's id."""
        from sgdstudy import views
        from sgdstudy.journal import Closing

        verdicts = [claim.holds for claim in claims]
        head, table = f"**{self.question}**\n\n{answer}", claims_markdown(claims)
        text = f"{head}\n\n{table}"
        look = [f"Look first at **{name}**, of the run `answer`." for name in self.figures][:1]
        note = "\n\n".join([head, *look, table])
        if len(note) > NOTE_LENGTH:
            note = note[: NOTE_LENGTH - 40] + "\n\n…see answer.md"
        listing = json.dumps([claim.as_json() for claim in claims], indent=1)
        files: dict[str, Callable[[Path], object]] = {
            "claims.json": lambda path: path.write_text(listing, encoding="utf-8"),
            "answer.md": lambda path: path.write_text(text, encoding="utf-8"),
        }
        for name, draw in self.figures.items():
            files[name] = functools.partial(_write_figure, draw, runs)
        for name, make in self.tables.items():
            files[name] = functools.partial(_write_table, make, options, runs)
        tags = {"sgdstudy.figures": ", ".join(self.figures)}
        counts: list[tuple[str, int, float]] = []
        if claims:
            tags["sgdstudy.claims_failed"] = str(verdicts.count(False))
            counts = [("result/claims_hold", 0, float(verdicts.count(True)))]
            counts.append(("result/claims_fail", 0, float(verdicts.count(False))))
            for kind, plural in PLURAL.items():
                of_kind = [c.holds for c in claims if c.kind == kind]
                name = plural if kind == "description" else f"{plural}_hold"
                counts.append((f"result/{name}", 0, float(len(of_kind) - of_kind.count(False))))
        with invocation.run("answer", note, tags, points=counts) as journal:
            for name, write in files.items():
                journal.add(name, write)
            shown = invocation.id if views.wanted(invocation.store) else None
            journal.close(Closing("FINISHED", note=note, views=shown))
        return journal.run_id or journal.folder.name


def _ask(question: str) -> float | None:
    """Return the reader's guess; None when they pass."""
    while True:
        try:
            text = input(f"{question} (a number, never, or Enter to pass): ").strip().lower()
        except EOFError as error:
            print()
            raise InputError("--predict asks questions: run it in a terminal") from error
        try:
            guess = math.inf if text == "never" else float(text or "nan")
        except ValueError:
            print(f"{text!r} is not a number")
            continue
        return None if math.isnan(guess) else guess


def _reflow(text: str) -> str:
    """Undo the line breaks of the source; an empty line starts a paragraph."""
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


def _write_figure(draw: Callable[[Runs], Any], runs: Runs, path: Path) -> None:
    from sgdstudy.figures import png

    path.write_bytes(png(draw(runs)))


def _write_table(make: Callable[[Any, Runs], Any], options: Any, runs: Runs, path: Path) -> None:
    make(options, runs).to_csv(path, index=False)


def _outcome(history: History) -> str:
    """Say in one line how an arm ended."""
    import numpy as np

    from sgdstudy.described import summary_of_reasons

    epochs = history.stop_epoch
    span = f"{epochs.min()}" if epochs.min() == epochs.max() else f"{epochs.min()}-{epochs.max()}"
    seeds = f"{len(epochs)} seeds, " if len(epochs) > 1 else ""
    total = int(np.sum(history.n_steps))
    reason = summary_of_reasons(history)
    note = f" (not compiled: {history.engine_note})" if history.engine_note else ""
    time = f"{total:,} steps in {history.train_seconds:.1f} s"
    return f"{seeds}{reason} at epoch {span}, {time}{note}"
