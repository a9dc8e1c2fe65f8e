"""A study: a question, the arms that differ, the claims, the answer. `experiments/` declares them.

This module stays light to import: a script's `--help` must not wait for torch.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgdstudy import checks
from sgdstudy.errors import InputError, failed, quoted, reason
from sgdstudy.language import prose, to_say, translated
from sgdstudy.recipe import columns
from sgdstudy.secrecy import note_secrets, stripped
from sgdstudy.studies.arm import Arm, Options
from sgdstudy.studies.claims import Claim, Claims
from sgdstudy.studies.declared import (
    check_call,
    check_charts,
    check_claims,
    check_option,
    check_options,
    check_parts,
    docstring,
)
from sgdstudy.studies.outcome import Result, Runs
from sgdstudy.studies.output import called

if TYPE_CHECKING:
    from sgdstudy.figures.chart import Chart

HIDDEN = to_say("The answer is hidden: run without --no-answer to see it.")
LAYERED = "sgdstudy.short"  # tag: the first paragraph of answer.md is the answer in short
PARTS = ("arms", "claims", "answer")  # what a script has to have
FURTHER = ("short", "picture", "figures", "charts", "tables", "show", "ask")  # what it may have
TAKES = {  # what a script's functions are called with
    "arms": ("options",),
    "claims": ("options", "runs"),
    "answer": ("options", "runs", "claims"),
    "short": ("options", "runs", "claims"),
    "picture": ("options", "runs", "claims"),
    "show": ("options", "runs"),
}
MOST_ARMS = 10_000
FORETOLD = ("Hypothesis:", "Theory, before it runs:")  # paragraphs of a docstring
Told = str | Iterable[str | None]  # a text, or its sentences: `language.prose`
_loading: list[bool] = []  # scripts that are being loaded, to be read and not to be run


@dataclass(frozen=True)
class Study:
    """A script's declaration.

    Attributes:
        file: the script's `__file__`; its stem names the experiment.
        doc: the script's docstring; its first line is the question.
        options: the script's options; made a frozen dataclass, if it is none.
        arms: options -> arms, as a dict or one pair of name and arm after the other.
        claims: options, runs -> claims, as a list or one after the other.
        answer: options, runs, claims -> the answer in plain words: a text, or sentences one after
            the other, None between paragraphs.
        short: the same, in three sentences at most, as they stand before the answer.
        figures: runs -> pairs of file name and figure, one after the other; or file name ->
            function of the runs returning a figure.
        tables: name -> function of options and runs returning a DataFrame, or yielding a dict for
            each row; logged as CSV.
        show: options, runs -> text printed before the claims.
        ask: (claim, arm) -> the question that `--predict` asks the reader; or a function of the
            options returning that.
        picture: options, runs, claims -> the chart that answers the question; its title is the
            finding.
        charts: title -> metric of MLflow, as `epoch/full_loss`: the first charts of its prepared
            view, a line for each arm, or a bar of one that is sent once, as `result/steps`. The
            arms in it send what they show.
    """

    file: str
    doc: str
    options: type[Options]
    arms: Callable[[Any], Mapping[str, Arm] | Iterator[tuple[str, Arm]]]
    claims: Callable[[Any, Runs], Iterable[Claim]]
    answer: Callable[[Any, Runs, Claims], Told]
    figures: Mapping[str, Callable[[Runs], Any]] | Callable[[Runs], Iterator[tuple[str, Any]]] = (
        field(default_factory=dict)
    )
    tables: Mapping[str, Callable[[Any, Runs], Any]] = field(default_factory=dict)
    show: Callable[[Any, Runs], str] | None = None
    ask: Mapping[tuple[str, str], str] | Callable[[Any], Mapping[tuple[str, str], str]] = field(
        default_factory=dict
    )
    picture: Callable[[Any, Runs, Claims], Chart] | None = None
    charts: Mapping[str, str] = field(default_factory=dict)
    short: Callable[[Any, Runs, Claims], Told] | None = None

    def __post_init__(self) -> None:
        doc = self.doc or docstring(self.file)  # `python -OO` leaves docstrings out
        if not isinstance(doc, str) or not doc.strip():
            raise InputError(f"{self.file} has no docstring, whose first line is the question")
        object.__setattr__(self, "doc", doc)
        is_class = isinstance(self.options, type)
        if is_class and "__dataclass_fields__" not in vars(self.options):
            dataclass(frozen=True)(self.options)  # a script leaves the decorator out
        check_options(self.name, self.options)
        check_parts(self.name, self.figures, self.tables, self.ask)
        check_charts(self.charts)

    @property
    def name(self) -> str:
        """The experiment's name."""
        return Path(self.file).stem

    @property
    def question(self) -> str:
        """The docstring's first line, in the present language."""
        return translated(self.doc.strip().splitlines()[0])

    def about(self, told: bool) -> str:
        """Return the docstring in the present language.

        Args:
            told: with what it foretells: the paragraphs that begin as `FORETOLD`.
        """
        parts = self.doc.strip().split("\n\n")
        return "\n\n".join(translated(p) for p in parts if told or not p.startswith(FORETOLD))

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
        from sgdstudy.studies.runner import run

        return run(self, options, progress=progress, say=say)

    def tags(self, options: Options) -> dict[str, str]:
        """Return what it takes to run an arm again: `sgdstudy rerun` and the report read it."""
        values = stripped(asdict(options))
        given = {k: v for k, v in values.items() if v != stripped(getattr(self.options, k, v))}
        return {
            "sgdstudy.script": self.file,
            "sgdstudy.options": json.dumps(values),
            "sgdstudy.given": json.dumps(given),
        }

    def placed_arms(self, options: Options) -> dict[str, Arm]:
        """Return the arms, on the device and by the engine that the options name.

        With `--no-answer` without those that give the answer away.

        Raises:
            InputError: a setting that is not allowed, or does not fit its problem.
        """
        from sgdstudy.problems import bindings

        note_secrets(asdict(options))
        checks.folder_name("the study's name", self.name)
        for name, value in asdict(options).items():
            check_option(name, value)
        checks.seeds(options.seed_range())
        checks.count("jobs", options.jobs)
        seconds = options.checkpoint_seconds
        checks.number("checkpoint_seconds", seconds, lambda v: v >= 0, "at least 0 and finite")
        self.check_functions()
        arms = self._called("arms", lambda: _by_name(self.name, self.arms(options)))
        placed, every = {}, self.charts.values()
        asked = [columns.setting(key) for key in every if not key.startswith("result/")]
        for name, arm in arms.items():
            checks.name("an arm's name", name)
            if name == "answer":
                raise InputError("'answer' is the name of the run with the claims; rename the arm")
            if not isinstance(arm, Arm):
                raise InputError(f"the arm {name!r} is a ss.Arm, not {quoted(arm)}")
            for part in (arm.problem, arm.config):
                bindings.check(part, f"the arm {name!r}")
            changes = {
                setting: getattr(options, setting)
                for setting in ("device", "engine")
                if getattr(options, setting) != getattr(Options, setting)
            }
            if arm.reveals and not options.answer:
                continue
            if arm.charted and asked:
                sent = [*(arm.config.metrics or ()), *asked]
                changes["metrics"] = list(dict.fromkeys(sent))
            placed[name] = arm.but(**changes) if changes else arm
        if not placed:
            raise InputError(f"all arms of {self.name} reveal the answer: run without --no-answer")
        return placed

    def check_functions(self) -> None:
        """Refuse, before anything runs, functions that could not be called when it has run.

        Raises:
            InputError: a function takes other arguments, or yields what it has to return.
        """
        parts = {name: (getattr(self, name), takes) for name, takes in TAKES.items()}
        if callable(self.figures):
            parts["figures"] = self.figures, ("runs",)
        else:
            parts |= {name: (draw, ("runs",)) for name, draw in self.figures.items()}
        parts |= {name: (make, TAKES["show"]) for name, make in self.tables.items()}
        for name in [*(() if callable(self.figures) else self.figures), *self.tables]:
            checks.file_name(f"a figure or table of {self.name}", name)
        if callable(self.ask):
            parts["ask"] = self.ask, ("options",)
        for name, (function, takes) in parts.items():
            if function is not None:
                check_call(f"{name} of {self.name}", function, takes)
        if inspect.isgeneratorfunction(self.show):
            raise InputError(f"show of {self.name} returns a text; this one yields")
        check_claims(self.file)

    def questions(self, options: Options, arms: Collection[str]) -> dict[tuple[str, str], str]:
        """Return what `--predict` asks of these arms, in the present language, by claim and arm.

        Raises:
            InputError: the function fails.
        """
        ask = self.ask
        asked = self._called("ask", lambda: dict(ask(options) if callable(ask) else ask))
        gone = {arm for _, arm in asked} - set(arms)
        if gone:  # a name that is no arm by default either stands for several: it stays
            gone &= self.placed_arms(self.chosen()).keys()
        return {key: translated(text) for key, text in asked.items() if key[1] not in gone}

    def claimed(self, options: Options, runs: Runs) -> list[Claim]:
        """Return the script's claims.

        Raises:
            InputError: the function fails, or gives something else.
        """
        found: list[Claim] = self._called(
            "claims", lambda: self._listed(self.claims(options, runs))
        )
        for claim in found:
            if not isinstance(claim, Claim):
                raise InputError(f"the claims of {self.name} are ss.Claim, not {quoted(claim)}")
        return found

    def _listed(self, claims: Any) -> list[Claim]:
        if not isinstance(claims, Iterable):
            raise InputError(
                f"claims of {self.name} yields ss.Claim, or returns a list of them, not "
                f"{quoted(claims)}"
            )
        return list(claims)

    def answered(self, options: Options, runs: Runs, claims: Claims) -> tuple[str, str]:
        """Return the script's answer in short, "" where it gives none, and in full.

        Raises:
            InputError: a function fails, or gives something else.
        """
        full = self._told("answer", self.answer, options, runs, claims)
        if self.short is None:
            return "", full
        return self._told("short", self.short, options, runs, claims).replace("\n\n", " "), full

    def _told(self, name: str, tell: Callable[..., Any], *given: Any) -> str:
        """Return the text that one of the script's functions gives."""

        def text() -> str:
            told = tell(*given)
            if not isinstance(told, str | Iterator):
                raise InputError(f"the {name} of {self.name} is a text, not {quoted(told)}")
            return prose(told)

        found: str = self._called(name, text)
        return found

    def _called(self, what: str, call: Callable[[], Any]) -> Any:
        try:
            return called(call)
        except InputError:
            raise
        except Exception as error:
            raise failed(f"{what} of {self.name}", error, self.file) from error

    def chosen(self, **values: Any) -> Any:
        """Return the script's options with these values.

        Raises:
            InputError: the script does not take them.
        """
        return self._called("the options", lambda: self.options(**values))

    def drawn(self, runs: Runs) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Yield the figures one by one: the file's name, and what draws it."""
        if not callable(self.figures):
            for name, draw in self.figures.items():
                yield name, functools.partial(draw, runs)
            return
        for name, figure in self.figures(runs):
            yield name, functools.partial(_unchanged, figure)

    def main(self) -> None:
        """Run the script from the command line; nothing while the script is only loaded."""
        from sgdstudy.cli.start import script_main

        if not _loading:
            script_main(self)

    def changed(self, options: Options) -> dict[str, Any]:
        """Return the options given that change what is measured, but for `quick`."""
        own = {f.name for f in fields(self.options)} - {f.name for f in fields(Options)} - {"quick"}
        values = {name: getattr(options, name) for name in asdict(options)}
        return {
            name: value
            for name, value in values.items()
            if name in own | {"seeds", "first_seed"} and value != getattr(self.options, name)
        }

    def defaults(self, options: Options) -> Options:
        """Return the options with the script's own ones at their defaults, but for `quick`.

        What `quick` leaves out, a script's claims allow for.
        """
        own = [f.name for f in fields(self.options) if f.name == "quick"]
        shared = {
            name: getattr(options, name) for name in [*(f.name for f in fields(Options)), *own]
        }
        return self.chosen(**shared)  # type: ignore[no-any-return]


def study(module: str) -> Study:
    """Return the study that a module declares by its functions; called at the end of a script.

    Args:
        module: `__name__`. It has a docstring, `arms`, `claims` and `answer`, and may have
            `Options`, `picture`, `figures`, `charts`, `tables`, `show` and `ask`: see `Study`.

    Raises:
        InputError: one of the first is missing.
    """
    there = vars(sys.modules[module])
    missing = [name for name in PARTS if name not in there]
    if missing:
        what = ", ".join(missing)
        raise InputError(f"a study has {', '.join(PARTS)}; {there['__file__']} has no {what}")
    further = {name: there[name] for name in FURTHER if name in there}
    parts = {name: there[name] for name in PARTS}
    options = there.get("Options", Options)
    return Study(there["__file__"], there["__doc__"], options, **parts, **further)


def _unchanged(value: Any) -> Any:
    return value


@contextmanager
def declared_only() -> Iterator[None]:
    """Load a script without running it, also where it calls `STUDY.main()` unasked."""
    _loading.append(True)
    try:
        yield
    finally:
        _loading.pop()


def _by_name(study: str, arms: Any) -> Mapping[str, Any]:
    """Return a script's arms by name, however it gives them.

    Raises:
        InputError: neither a dict nor pairs; no arm; two of one name.
    """
    if isinstance(arms, Iterator):
        pairs = list(itertools.islice(arms, MOST_ARMS + 1))
        try:
            names = [name for name, _ in pairs]
            arms = dict(pairs)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the arms of {study} are pairs of a name and a ss.Arm ({reason(error)})"
            ) from None
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise InputError(f"{study} has two arms called {twice[0]!r}; rename one")
    if isinstance(arms, dict) and len(arms) > MOST_ARMS:
        raise InputError(f"{study} has more than {MOST_ARMS:,} arms; give it fewer")
    if not isinstance(arms, dict) or not arms:
        raise InputError(f"the arms of {study} are a dict of ss.Arm, not {quoted(arms)}")
    return arms
