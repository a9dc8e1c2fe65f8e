"""The sections of the report: each study's question, answer, claims, figures, arms."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgdstudy.errors import InputError, reason
from sgdstudy.language import everywhere, say, to_say, translated
from sgdstudy.report.arms import Arms, arms_of
from sgdstudy.report.charts import live_or_none
from sgdstudy.report.markup import command, cut, joined, markdown, slug
from sgdstudy.report.pictures import Album, Picture
from sgdstudy.studies.claims import tally, without_tables
from sgdstudy.studies.study import HIDDEN, LAYERED
from sgdstudy.text import printable, written
from sgdstudy.tracking import chart_views, shapes
from sgdstudy.tracking.app import MLFLOW
from sgdstudy.tracking.claims import finite_or_not, kind_of
from sgdstudy.tracking.retry import is_away
from sgdstudy.tracking.runs import (
    artifact,
    every_run,
    experiments,
    lacks_files,
    last_answer,
    named,
    names_of_artifacts,
    search,
)
from sgdstudy.tracking.scratch import scratch
from sgdstudy.tracking.store import Store
from sgdstudy.tracking.tracked_run import TrackedRun

if TYPE_CHECKING:
    from markupsafe import Markup

Claim = dict[str, Any]  # as in claims.json, written as text, with the verdict in a word
log = logging.getLogger("sgdstudy")
MAIN, DATA = f"{to_say('picture')}.png", "picture.json"  # the main figure, and what it draws
ANSWER = "answer.md"
SHORT = 420  # letters of an answer in short, of more than one sentence
MOST_TEXT = 100_000  # characters of an answer
MOST_FILES = 10_000  # of an answer, that are looked through for figures
MOST_CLAIMS = 2_000
MOST_ARMS = 2_000
MOST_NAMED = 5
WORDS = {  # in the order of the report
    False: to_say("FAILS"),
    True: to_say("holds"),
    None: to_say("described"),
}


@dataclass(frozen=True)
class Section:
    """A study in the report.

    Attributes:
        id: anchor in the page.
        name: of the script.
        question: what it asks.
        short: the answer in two or three sentences.
        answer: the rest of it, by paragraphs.
        notes: what is left out, because it is damaged or too large.
        hidden: whether `--no-answer` kept the answer back.
        claims: in the order of the report.
        pictures: the figures, the main one first.
        arms: their table.
        command: runs it again.
        started: when.
        seconds: how long it took.
        code: which code ran.
        charts: address of its charts in MLflow; "" where no server is known.
        run: address of its `answer` run.
    """

    id: str
    name: str
    question: str
    short: Markup
    answer: list[Markup]
    notes: list[str]
    hidden: bool
    claims: list[Claim]
    pictures: list[Picture]
    arms: Arms
    command: str
    started: datetime
    seconds: float
    code: str
    charts: str
    run: str

    def only(self, holds: bool | None, kind: str | None = None) -> list[Claim]:
        """Return the claims with a verdict, of one kind or of all."""
        rows = [row for row in self.claims if row["holds"] is holds]
        return [row for row in rows if kind in (None, row["kind"])]

    @property
    def main(self) -> Picture | None:
        """The main figure; None where there is none."""
        return next((picture for picture in self.pictures[:1] if picture.name == MAIN), None)

    @property
    def further(self) -> list[Picture]:
        """The other figures."""
        return [picture for picture in self.pictures if picture is not self.main]

    @property
    def verdicts(self) -> str:
        """How many claims hold and fail, in words."""
        if self.hidden:
            return say("answer hidden")
        return tallied(self.claims)


def answered(store: Store) -> list[tuple[str, Any, TrackedRun]]:
    """Return the studies that have an answer, in the order of the report.

    Returns:
        Name, MLflow's experiment, and the `answer` run of the latest invocation.
    """
    found = []
    for name, experiment in experiments(store):
        if last := last_answer(store, experiment):
            found.append((name, experiment, last))
    return sorted(found, key=lambda study: _place(study[0]))


def sections_of(store: Store, server: str | None) -> tuple[list[Section], list[str]]:
    """Return the studies that have an answer, in the order of the report, and who is left out."""
    album, found, damaged = Album(), list[Section](), list[str]()
    for name, experiment, last in answered(store):
        try:
            runs = every_run(store, experiment.experiment_id, chart_views.only(last.invocation))
            arms = [run for run in runs if not run.is_answer]
            found.append(_section(store, name, last, arms, album, _links(server, last, experiment)))
        except Exception as error:
            if is_away(error):
                raise
            why = error if isinstance(error, InputError) else reason(error)
            damaged.append(printable(say("{name} is left out: {why}", name=name, why=str(why))))
    return found, damaged


def unanswered(store: Store) -> list[str]:
    """Return the first few experiments that have runs, whoever logged them."""
    having = (
        name for name, one in experiments(store) if search(store, [one.experiment_id], "", most=1)
    )
    found = list(islice(having, MOST_NAMED + 1))
    return [*found[:MOST_NAMED], "..."] if len(found) > MOST_NAMED else found


def _links(server: str | None, run: TrackedRun, experiment: Any) -> dict[str, str]:
    """Return the addresses of a study in MLflow."""
    if server is None:
        return {"charts": "", "run": ""}
    base = server or MLFLOW
    own = chart_views.url_of_file(base, experiment, run, ANSWER)
    return {"charts": chart_views.url(base, experiment), "run": own}


def _place(name: str) -> tuple[bool, bool, list[tuple[int, str]]]:
    """Return a study's place: exercises, then studies, then the rest, numbers as numbers.

    >>> sorted(["mine", "study_noise", "ex10_last", "ex7b_norm", "ex7a_loss"], key=_place)
    ['ex7a_loss', 'ex7b_norm', 'ex10_last', 'study_noise', 'mine']
    """
    parts = [(int(n or 0), text) for n, text in re.findall(r"(\d*)(\D*)", name)]
    return not re.match(r"ex\d", name), not name.startswith("study_"), parts


def _section(
    store: Store,
    name: str,
    run: TrackedRun,
    arms: Sequence[TrackedRun],
    album: Album,
    links: Mapping[str, str],
) -> Section:
    tags, notes = run.tags, list[str]()
    ident = "study-" + slug(name)
    with scratch() as into:  # what a server has is downloaded to it
        question, text = question_and_answer(read_text(store, run, ANSWER, into, notes), name)
        claims = shown_claims(read_text(store, run, "claims.json", into, notes), notes)
        there = _pictures(store, run, into, notes)
        pictures, left_out = album.of_study(there, ident, question)
        if pictures and pictures[0].name == MAIN:
            drawn = live_or_none(read_text(store, run, DATA, into, notes), notes)
            pictures[0] = replace(pictures[0], live=drawn)
    if lacks_files(store, run):
        files = named([run])
        text = say(
            "The files of this answer, and of its figures, are missing: {files}.", files=files
        )
        log.warning("%s: %s", name, text)
    hidden = text in everywhere(HIDDEN)
    short, rest = in_short(text, tags)
    anchors = {picture.name: picture.id for picture in pictures}
    started = min(r.start_ms for r in [run, *arms])
    if len(arms) > MOST_ARMS:
        given = {"n": len(arms), "most": MOST_ARMS}
        notes.append(say("of {n} arms the first {most} are shown", **given))
    return Section(
        id=ident,
        name=printable(name),
        question=question,
        short=joined(markdown(short, anchors)),
        answer=markdown(rest, anchors),
        notes=[*notes, *left_out],
        hidden=hidden,
        claims=[] if hidden else claims,
        pictures=pictures,
        arms=arms_of(arms[:MOST_ARMS], told=not hidden),
        command=command(tags),
        started=datetime.fromtimestamp(started / 1000, UTC),
        seconds=((run.end_ms or started) - started) / 1000,
        code=_code(tags),
        **links,
    )


def read_text(store: Store, run: TrackedRun, name: str, into: Path, notes: list[str]) -> str:
    """Return the text of an artifact; "" where there is none, or it is damaged; both are noted."""
    try:
        path = artifact(store, run, name, into)
        if path is None:
            notes.append(say("{name} is missing", name=name))
            return ""
        return shapes.read_text(path, crc=run.sums.get(name)) or ""
    except (InputError, OSError) as error:
        if is_away(error):
            raise
        notes.append(say("{name} is left out: {why}", name=name, why=str(error)))
        return ""


def question_and_answer(text: str, name: str) -> tuple[str, str]:
    """Return question and answer of an answer.md, without its tables of claims."""
    head, _, rest = text.partition("\n\n")
    question = printable(head.strip().removeprefix("**").removesuffix("**"))
    return cut(question or name, 500), cut(without_tables(rest), MOST_TEXT)


def in_short(text: str, tags: Mapping[str, str]) -> tuple[str, str]:
    """Return an answer in short, and the rest of it.

    Args:
        text: the answer; of a script that gives none in short, its first sentences are.
        tags: of its run.

    >>> in_short("It stops. By epoch 2.5, as i.e. theory says. Then more.\\n\\nAnd more.", {})
    ('It stops. By epoch 2.5, as i.e. theory says. Then more.', 'And more.')
    """
    first, _, rest = text.strip().partition("\n\n")
    if LAYERED in tags:
        return first, rest
    sentences = re.split(r"(?<=[.!?]) +(?=[A-Z*`])", first)
    n = next((n for n in (3, 2) if len(" ".join(sentences[:n])) <= SHORT), 1)
    return " ".join(sentences[:n]), "\n\n".join(filter(None, [" ".join(sentences[n:]), rest]))


def _code(tags: Mapping[str, str]) -> str:
    """Say which code ran."""
    words = []
    if "sgdstudy.version" in tags:
        words.append(f"sgdstudy {tags['sgdstudy.version']}")
    if "mlflow.source.git.commit" in tags:
        commit = tags["mlflow.source.git.commit"][:10]
        texts = {
            "true": to_say("commit {commit}, changed since"),
            "unknown": to_say("commit {commit}, perhaps changed since"),
        }
        changed = texts.get(tags.get("sgdstudy.git_changed", ""), "commit {commit}")
        words.append(say(changed, commit=commit))
    return ", ".join(words)


def shown_claims(listing: str, notes: list[str]) -> list[Claim]:
    """Return the claims of a claims.json as text; what fails first, what only describes last."""
    try:
        listed = shapes.parsed(listing or "[]", shapes.CLAIMS, "claims.json")
    except shapes.Damaged as error:
        notes.append(say("the claims are left out: {why}", why=str(error)))
        return []
    if len(listed) > MOST_CLAIMS:
        given = {"n": len(listed), "most": MOST_CLAIMS}
        notes.append(say("of {n} claims {most} are shown", **given))
    claims = [
        {name: cut(printable(str(claim.get(name) or ""))) for name in ("name", "arm")}
        | {"source": cut(printable(translated(str(claim.get("source") or ""))))}
        | {name: cut(written(finite_or_not(claim[name]))) for name in ("expected", "measured")}
        | {"guess": cut(written(finite_or_not(claim.get("guess"))))}
        | {"tolerance": _tolerance(claim["tolerance"]), "holds": claim.get("holds")}
        | {"kind": kind_of(claim), "verdict": say(WORDS[claim.get("holds")])}
        for claim in listed
    ]
    return sorted(claims, key=lambda claim: list(WORDS).index(claim["holds"]))[:MOST_CLAIMS]


def tallied(claims: Sequence[Claim]) -> str:
    """Say how many claims of each kind hold and fail."""
    return tally((row["kind"], row["holds"]) for row in claims)


def parts_of_tally(claims: Sequence[Claim]) -> list[tuple[str, str]]:
    """Return the parts of `tallied`, each with what it is about: held, failed or none."""
    found = []
    for kind in ("prediction", "identity", "description"):
        verdicts = [row["holds"] for row in claims if row["kind"] == kind]
        if verdicts:
            state = "none" if kind == "description" else "failed" if False in verdicts else "held"
            found.append((state, tally((kind, holds) for holds in verdicts)))
    return found or [("none", tally([]))]


def _tolerance(value: Any) -> str:
    return say("exact") if value == 0 else f"± {written(finite_or_not(value))}"


# ---- figures ---------------------------------------------------------------------------------


def _pictures(store: Store, run: TrackedRun, into: Path, notes: list[str]) -> list[Path]:
    """Return where the figures lie; which of them is no file of the run's is noted."""
    found: list[Path] = []
    for name in _figures(store, run):
        try:
            path = artifact(store, run, name, into)
            if path is None:
                notes.append(say("{name} is missing", name=name))
                continue
            if name in run.sums and run.sums[name] != shapes.sum_of_file(path):
                raise shapes.Damaged(f"{path} is damaged: it is not what was written")
            found.append(path)
        except (InputError, OSError) as error:
            if is_away(error):
                raise
            notes.append(say("{name} is left out: {why}", name=name, why=str(error)))
    return found


def _figures(store: Store, run: TrackedRun) -> list[str]:
    """Return the file names of the figures: first those that the run names, in their order."""
    files = names_of_artifacts(store, run)[:MOST_FILES]
    pictures = sorted(name for name in files if name.endswith(".png"))
    names = dict.fromkeys([*run.figures[:MOST_FILES], *pictures])
    return [name for name in names if Path(name).name == name]
