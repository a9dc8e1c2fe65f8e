"""What `sgdstudy study | list | run | ui | report | sweep | rerun` do, and all commands."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sgdstudy import checks
from sgdstudy.cli.running import parse_options, processes, run_and_print, run_script
from sgdstudy.cli.teaching import CourseCommand, GradeCommand, GuessesCommand
from sgdstudy.cli.terminal import bold, print_claims, print_rows, say, show
from sgdstudy.cli.upkeep import (
    ExportCommand,
    PackCommand,
    PruneCommand,
    RecoverCommand,
    Store,
    UnpackCommand,
)
from sgdstudy.errors import Away, Ended, InputError, Refused, message, quoted
from sgdstudy.language import say as in_words
from sgdstudy.language import to_say
from sgdstudy.studies.claims import tally
from sgdstudy.studies.scripts import find_scripts, load_studies, load_study
from sgdstudy.studies.study import Study
from sgdstudy.text import written
from sgdstudy.training.interrupts import called


@dataclass(frozen=True)
class StudyCommand:
    """Run every exercise, and every study quick, and list all claims with their verdicts."""

    store: Store = None
    jobs: int = 0
    """processes that train arms side by side; 0: one per core"""
    first_seed: int = 0
    """the first seed of every study"""
    strict: bool = True
    """end with exit code 1 when a claim fails or a figure is missing, and say which"""
    answer: bool = True
    """write answers, claims, predictions and figures; --no-answer keeps them from the class"""
    predict: bool = False
    """ask for your guesses before each study, and show them beside the outcome"""

    def run(self) -> int:
        """Run the command; return the exit code."""
        from sgdstudy.studies import duration
        from sgdstudy.tracking import recovery

        jobs = processes(self.jobs)
        started, results = time.perf_counter(), []
        store = recovery.start(self.store, say)
        before = _stored_bytes(store)
        studies, broken = load_studies(say)
        chosen = functools.partial(self._chosen, jobs)
        if slow := duration.for_want_of_a_compiler(studies.values(), chosen, jobs):
            say(slow)
        for study in studies.values():
            try:
                options = chosen(study)
                results.append(called(functools.partial(run_and_print, study, options)))
            except (Away, Refused):
                raise
            except (InputError, Ended) as error:  # the others go on
                say(in_words("{name} is left out: {why}", name=study.name, why=message(error)))
                broken += 1
        size = _stored_bytes(store) - before
        failed = [(r.study, claim) for r in results for claim in r.failed]
        if any(result.claims for result in results):
            show("\n", bold(in_words("All claims")), "\n")
            print_claims(results)
        verdicts = tally((c.kind, c.holds) for r in results for c in r.claims)
        ran = in_words("{n} study", "{n} studies", n=len(results))
        say("\n" + in_words("{title}: {what}", title=ran, what=verdicts))
        took = {"time": time.perf_counter() - started, "size": size / 1e6}
        say(in_words("{time:.0f} s, {size:.0f} MB", **took))
        show(in_words("Read the report:"), " ", bold(str(_write_report(store, None))))
        show(in_words("Look at the charts:"), " ", bold("sgdstudy ui"), " (make ui)")
        for where, c in failed:
            expected, tolerance, measured = map(written, (c.expected, c.tolerance, c.measured))
            given = {"expected": expected, "tolerance": tolerance, "measured": measured}
            numbers = in_words(
                "expected {expected}, tolerance {tolerance}, measured {measured}", **given
            )
            say(f"{in_words('FAILS')}  {where}: {c.name} ({c.arm}): {numbers}")
        refused = any(result.refused for result in results)
        missing = [name for result in results for name in result.missing]
        return 1 if refused or ((failed or missing or broken) and self.strict) else 0

    def _chosen(self, jobs: int, study: Study) -> Any:
        """Return the options of a study.

        Raises:
            InputError: its script does not take them.
        """
        passed_on = ("store", "first_seed", "answer", "predict")
        given = {name: getattr(self, name) for name in passed_on} | {"jobs": jobs}
        if "quick" in (f.name for f in fields(study.options)):
            given["quick"] = True
        return study.chosen(**given)


@dataclass(frozen=True)
class ListCommand:
    """List the studies and their questions."""

    def run(self) -> int:
        """Run the command; return the exit code."""
        if not find_scripts():
            raise InputError(
                in_words("there is no experiments/ folder here; change to the project's folder")
            )
        studies, _ = load_studies(say)
        for name, study in studies.items():
            say(f"{name:<24} {study.question}")
        return 0


@dataclass(frozen=True)
class RunCommand:
    """Run studies by name or path; their own options follow, as in `run ex6_shuffle --seeds 64`."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional]
    """studies, by name or path"""

    def run(self, rest: list[str]) -> int:
        """Run the command; return the exit code."""
        if not self.names:
            names = ", ".join(find_scripts())
            if not rest:
                raise InputError(in_words("name a study to run: {names}", names=names))
            text = to_say("name a study to run, before {option}: {names}")
            raise InputError(in_words(text, option=quoted(rest[0]), names=names))
        for name in self.names:
            option, sign, value = name.partition("=")
            if sign and option.isidentifier():
                text = to_say("{given} is not a study; did you mean {option}?")
                option = f"--{option.replace('_', '-')} {value}".strip()
                raise InputError(in_words(text, given=quoted(name), option=option))
        studies = [load_study(name) for name in self.names]
        chosen = [parse_options(study, rest) for study in studies]
        codes = [run_script(s, options) for s, options in zip(studies, chosen, strict=True)]
        return max(codes)


@dataclass(frozen=True)
class UiCommand:
    """Serve the store: a first page with every question and answer, and MLflow behind it."""

    store: Store = None
    port: int = 5000
    """first port to try"""
    open: bool = False
    """open the first page in a browser"""

    def run(self) -> int:
        """Run the command; return the exit code."""
        from sgdstudy.tracking.ui import serve

        return serve(self.store, self.port, say, self.open)


@dataclass(frozen=True)
class ReportCommand:
    """Write one HTML file of what is in the store: questions, answers, claims, figures."""

    store: Store = None
    out: str | None = None
    """the file; default: report.html beside the database, or here for a server"""

    def run(self) -> int:
        """Run the command; return the exit code."""
        from sgdstudy.tracking.store import read_store

        path = _write_report(read_store(self.store), self.out)
        say(in_words("wrote {path}", path=path))
        return 0


@dataclass(frozen=True)
class SweepCommand:
    """Train one arm of a study over a grid of settings: every combination is a run."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """the study, by name or path"""
    grid: tuple[str, ...] = ()
    """name=values; values are a,b,c or logspace(first,last,n), linspace(...), range(first,end)"""
    config: str | None = None
    """YAML file with study, arm, grid, seeds, record, by; what is given here wins"""
    arm: str | None = None
    """the arm whose settings change; default: the study's first"""
    seeds: int | None = None
    """number of seeds of every combination; default: 16"""
    record: Literal["epochs", "steps"] | None = None
    """what goes to Parquet; default: epochs"""
    by: str | None = None
    """the result that ranks the combinations, as full_loss or test_accuracy"""
    jobs: int = 0
    """processes side by side; 0: one per core"""
    dask: str | None = None
    """address or scheduler file of a Dask cluster, instead of local processes"""
    resume: bool = False
    """skip what is finished, with the same settings and version of the code"""
    dry_run: bool = False
    """list what would run, and about how long it takes"""
    yes: bool = False
    """run more than a million combinations"""
    store: Store = None

    def run(self) -> int:
        """Run the command; return the exit code."""
        from sgdstudy.sweeps import results as sweep_results
        from sgdstudy.sweeps import sweep
        from sgdstudy.sweeps.estimate import estimate

        plan = self._plan()
        jobs = processes(self.jobs)
        if self.dry_run:
            todo = sweep.waiting(plan, self.resume)
            for combination in todo:
                say(combination.name)
            say(estimate(todo, jobs))
            return 0
        found = sweep.run(plan, jobs=jobs, dask=self.dask, resume=self.resume, say=say)
        say(f"\n{found.answer}\n")
        print_rows(sweep_results.best(plan, found.table))
        rows = f"ss.load_runs({found.name!r}), ss.load_epochs({found.name!r})"
        say(in_words("rows: {calls}", calls=rows))
        return 1 if (found.table.status != "FINISHED").any() else 0

    def _plan(self) -> Any:
        from sgdstudy.sweeps import grid, sweep
        from sgdstudy.sweeps.plan import Plan

        given = grid.read_yaml(self.config) if self.config else {}
        name = self.name or given.get("study")
        # the study's name may stand behind the values of --grid
        named = [] if name else [word for word in self.grid if "=" not in word][:1]
        name = name or "".join(named)
        if not name:
            names = ", ".join(find_scripts())
            raise InputError(in_words("name a study to sweep: {names}", names=names))
        study = load_study(name)
        axes = given.get("grid", {}) | grid.parse([word for word in self.grid if word not in named])
        if (n := grid.size(axes)) > sweep.MOST_POINTS and not self.yes:
            raise InputError(in_words("the grid has {n} points; add --yes to run them all", n=n))
        seeds = self.seeds if self.seeds is not None else given.get("seeds", 16)
        options = study.chosen(seeds=seeds, store=self.store)
        arm, record = self.arm or given.get("arm"), self.record or given.get("record", "epochs")
        return Plan.of(study, options, arm, axes, record, self.by or given.get("by"))


@dataclass(frozen=True)
class RerunCommand:
    """Run tracked runs again and compare every recorded number, bit by bit."""

    run_ids: Annotated[tuple[str, ...], tyro.conf.Positional]
    """ids of runs; ss.load_runs(study).run_id lists them"""
    store: Store = None
    script: str | None = None
    """the runs' script, where it is not in this project's experiments/"""

    def run(self) -> int:
        """Run the command; return the exit code: 1 where a number differs."""
        from sgdstudy.studies.rerun import rerun

        if not self.run_ids:
            text = to_say("name a run; ss.load_runs(study).run_id lists them")
            raise InputError(in_words(text))
        found = []
        for run_id in self.run_ids:
            found.append(rerun(run_id, store=self.store, script=self.script, say=say))
            say(str(found[-1]))
        return 1 if any(one.difference for one in found) else 0


COMMANDS: dict[str, Any] = {
    "study": StudyCommand,
    "list": ListCommand,
    "run": RunCommand,
    "ui": UiCommand,
    "report": ReportCommand,
    "export": ExportCommand,
    "sweep": SweepCommand,
    "rerun": RerunCommand,
    "prune": PruneCommand,
    "pack": PackCommand,
    "unpack": UnpackCommand,
    "recover": RecoverCommand,
    "course": CourseCommand,
    "grade": GradeCommand,
    "guesses": GuessesCommand,
}
OLD_WORDS = {"reap": "recover", "sync": "recover"}  # they stay, and are not listed


def _write_report(store: Any, out: str | None) -> Path:
    from sgdstudy.report.report import write_report

    beside = (store.root or Path()) / "report.html"
    return write_report(store, beside if out is None else checks.path("--out", out))


def _stored_bytes(store: Any) -> int:
    if store.root is None:
        return 0
    return sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())
