"""One HTML file of what is in the store: every study's question, answer, claims, figures, arms."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgdstudy.errors import InputError, reason
from sgdstudy.report.markup import command, cut, markdown, rendered, slug
from sgdstudy.report.pictures import Album, Picture
from sgdstudy.studies.claims import tally, without_tables
from sgdstudy.studies.study import HIDDEN
from sgdstudy.text import printable, written
from sgdstudy.tracking import chart_views, shapes
from sgdstudy.tracking.load import kind_of
from sgdstudy.tracking.places import require_outside
from sgdstudy.tracking.retry import is_away
from sgdstudy.tracking.runs import (
    TrackedRun,
    artifact,
    every_run,
    lacks_files,
    named,
    names_of_artifacts,
)
from sgdstudy.tracking.store import Store

if TYPE_CHECKING:
    from markupsafe import Markup

Claim = dict[str, Any]  # as in claims.json, written as text, with the verdict in a word
log = logging.getLogger("sgdstudy")
ROWS_OPEN = 12  # a longer table starts folded
MOST_TEXT = 100_000  # characters of an answer
MOST_FILES = 10_000  # of an answer, that are looked through for figures
LONGEST_CELL = 300
MOST_CLAIMS = 2_000
MOST_ARMS = 2_000
MOST_COLUMNS = 60
WORDS = {False: "FAILS", True: "holds", None: "described"}  # in the order of the report
RESULTS = {"stop epoch": ("stop_epoch", "never"), "final loss": ("full_loss", "not finite")}


@dataclass(frozen=True)
class Arms:
    """The arms of a study as a table: what differs between them, and what does not."""

    heads: list[str]
    rows: list[list[str]]
    same: dict[str, str]


@dataclass(frozen=True)
class Section:
    """A study in the report; `hidden` where `--no-answer` kept the answer back.

    `notes` say what is left out of it, because it is damaged or too large.
    """

    id: str
    name: str
    question: str
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

    def only(self, holds: bool | None, kind: str | None = None) -> list[Claim]:
        """Return the claims with a verdict, of one kind or of all."""
        rows = [row for row in self.claims if row["holds"] is holds]
        return [row for row in rows if kind in (None, row["kind"])]

    @property
    def verdicts(self) -> str:
        """How many claims hold and fail, in words."""
        if self.hidden:
            return "answer hidden"
        return tallied(self.claims)


def write_report(store: Store, path: Path) -> Path:
    """Write what is in a store as one HTML file that needs no network; return its path.

    It shows the latest invocation of every study that has an answer: exercises first.

    Args:
        store: see `store.open_store`.
        path: the file to write.

    Raises:
        InputError: no study has run yet, or the file cannot be written, or is another one.
    """
    _require_page(store, path)
    sections, damaged = _sections(store)
    for line in damaged:
        log.warning("%s", line)
    if not sections and damaged:
        raise InputError(f"no study of {store.shown} can be shown: {damaged[0]}")
    if not sections:
        raise InputError(f"no study has run in {store.shown} yet: run sgdstudy study, then report")
    page = rendered(
        "report.html",
        sections=sections,
        damaged=damaged,
        tally=tallied([row for section in sections for row in section.claims]),
        failing=[(section, row) for section in sections for row in section.only(False)],
        now=datetime.now(UTC),
        version=version("sgdstudy"),
        rows_open=ROWS_OPEN,
        tallied=tallied,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"the report {path} cannot be written ({why})") from error
    return path


def _require_page(store: Store, path: Path) -> None:
    """Refuse to write over a file that is not a page: the database, or somebody's script."""
    place = path.resolve()
    within = store.root is not None and store.root in place.parents
    named = place.suffix.lower() in (".html", ".htm")
    require_outside(path)
    if within and not named:
        raise InputError(f"{path} lies in the store; give a file that ends in .html")
    try:
        with open(place, "rb") as file:
            start = file.read(500).lstrip().lower()
    except OSError:  # not there, or seen when it is written
        return
    if start and not start.startswith((b"<!doctype html", b"<html")):
        raise InputError(
            f"{path} is there and is not a page; the report does not write over it: give another "
            f"file with --out"
        )


# ---- what the store has ----------------------------------------------------------------------


def answered(store: Store) -> list[tuple[str, Any, TrackedRun]]:
    """Return the studies that have an answer, in the order of the report.

    Returns:
        Name, MLflow's experiment, and the `answer` run of the latest invocation.
    """
    prefix, found = store.experiment_name(""), []
    for experiment in store.client.search_experiments():
        name = experiment.name.removeprefix(prefix)
        if not experiment.name.startswith(prefix):
            continue
        every = every_run(store, experiment.experiment_id, "attributes.run_name = 'answer'")
        answers = [run for run in every if run.finished and run.invocation]
        if answers:
            found.append((name, experiment, max(answers, key=lambda run: run.order)))
    return sorted(found, key=lambda study: _place(study[0]))


def _sections(store: Store) -> tuple[list[Section], list[str]]:
    """Return the studies that have an answer, in the order of the report, and who is left out."""
    album, found, damaged = Album(), list[Section](), list[str]()
    for name, experiment, last in answered(store):
        try:
            runs = every_run(store, experiment.experiment_id, chart_views.only(last.invocation))
            arms = [run for run in runs if not run.is_answer]
            found.append(_section(store, name, last, arms, album))
        except Exception as error:
            if is_away(error):
                raise
            why = error if isinstance(error, InputError) else reason(error)
            damaged.append(printable(f"{name} is left out: {why}"))
    return found, damaged


def _place(name: str) -> tuple[bool, bool, list[tuple[int, str]]]:
    """Return a study's place: exercises, then studies, then the rest, numbers as numbers.

    >>> sorted(["mine", "study_noise", "ex10_last", "ex7b_norm", "ex7a_loss"], key=_place)
    ['ex7a_loss', 'ex7b_norm', 'ex10_last', 'study_noise', 'mine']
    """
    parts = [(int(n or 0), text) for n, text in re.findall(r"(\d*)(\D*)", name)]
    return not re.match(r"ex\d", name), not name.startswith("study_"), parts


def _section(
    store: Store, name: str, run: TrackedRun, arms: Sequence[TrackedRun], album: Album
) -> Section:
    tags, notes = run.tags, list[str]()
    ident = "study-" + slug(name)
    with tempfile.TemporaryDirectory() as folder:  # what a server has is downloaded to it
        into = Path(folder)
        question, text = question_and_answer(read_text(store, run, "answer.md", into, notes), name)
        claims = claims_of(read_text(store, run, "claims.json", into, notes), notes)
        there = _pictures(store, run, into, notes)
        pictures, left_out = album.of_study(there, ident, question)
    if lacks_files(store, run):
        text = f"The files of this answer, and of its figures, are missing: {named([run])}."
        log.warning("%s: %s", name, text)
    hidden = text == HIDDEN
    started = min(r.start_ms for r in [run, *arms])
    if len(arms) > MOST_ARMS:
        notes.append(f"of {len(arms):,} arms the first {MOST_ARMS:,} are shown")
    return Section(
        id=ident,
        name=printable(name),
        question=question,
        answer=markdown(text, {picture.name: picture.id for picture in pictures}),
        notes=[*notes, *left_out],
        hidden=hidden,
        claims=[] if hidden else claims,
        pictures=pictures,
        arms=_arms(arms[:MOST_ARMS]),
        command=command(tags),
        started=datetime.fromtimestamp(started / 1000, UTC),
        seconds=((run.end_ms or started) - started) / 1000,
        code=_code(tags),
    )


def read_text(store: Store, run: TrackedRun, name: str, into: Path, notes: list[str]) -> str:
    """Return the text of an artifact; "" where there is none, or it is damaged; both are noted."""
    try:
        path = artifact(store, run, name, into)
        if path is None:
            notes.append(f"{name} is missing")
            return ""
        return shapes.read_text(path, crc=run.tags.get(shapes.SUM_OF + name)) or ""
    except (InputError, OSError) as error:
        if is_away(error):
            raise
        notes.append(f"{name} is left out: {error}")
        return ""


def question_and_answer(text: str, name: str) -> tuple[str, str]:
    """Return question and answer of an answer.md, without its tables of claims."""
    head, _, rest = text.partition("\n\n")
    question = printable(head.strip().removeprefix("**").removesuffix("**"))
    return cut(question or name, 500), cut(without_tables(rest), MOST_TEXT)


def _code(tags: Mapping[str, str]) -> str:
    """Say which code ran."""
    words = []
    if "sgdstudy.version" in tags:
        words.append(f"sgdstudy {tags['sgdstudy.version']}")
    if "mlflow.source.git.commit" in tags:
        changed = ", changed since" if tags.get("sgdstudy.git_changed") == "true" else ""
        words.append(f"commit {tags['mlflow.source.git.commit'][:10]}{changed}")
    return ", ".join(words)


def claims_of(listing: str, notes: list[str]) -> list[Claim]:
    """Return the claims of a claims.json as text; what fails first, what only describes last."""
    try:
        listed = shapes.parsed(listing or "[]", shapes.CLAIMS, "claims.json")
    except shapes.Damaged as error:
        notes.append(f"the claims are left out: {error}")
        return []
    if len(listed) > MOST_CLAIMS:
        notes.append(f"of {len(listed):,} claims {MOST_CLAIMS:,} are shown")
    claims = [
        {name: cut(printable(str(claim.get(name) or ""))) for name in ("name", "arm", "source")}
        | {name: cut(written(_number(claim[name]))) for name in ("expected", "measured")}
        | {"tolerance": _tolerance(claim["tolerance"]), "holds": claim.get("holds")}
        | {"kind": kind_of(claim), "verdict": WORDS[claim.get("holds")]}
        for claim in listed
    ]
    return sorted(claims, key=lambda claim: list(WORDS).index(claim["holds"]))[:MOST_CLAIMS]


def tallied(claims: Sequence[Claim]) -> str:
    """Say how many claims of each kind hold and fail."""
    return tally((row["kind"], row["holds"]) for row in claims)


def _tolerance(value: Any) -> str:
    return "exact" if value == 0 else f"± {written(_number(value))}"


def _number(value: Any) -> Any:
    """Undo the spelling of what is not finite in claims.json."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    return float(value) if value in ("inf", "-inf", "nan") else value


def _arms(runs: Sequence[TrackedRun]) -> Arms:
    """Return the table of arms: a setting is a column where it differs."""
    params = [dict(run.params) for run in runs]
    for run, values in zip(runs, params, strict=True):
        values["engine"] = run.tags.get("sgdstudy.engine", "")
    names = list(dict.fromkeys(name for values in params for name in values))
    table = {name: [_setting(values.get(name)) for values in params] for name in names}
    differs = [name for name in names if len(set(table[name])) > 1][:MOST_COLUMNS]
    rows = [
        [
            run.name,
            run.tags.get("mlflow.note.content", ""),
            run.tags.get("stop_reason", run.status.lower()).replace("_", " "),
            *(_result(run, *which) for which in RESULTS.values()),
            *(table[name][i] for name in differs),
        ]
        for i, run in enumerate(runs)
    ]
    heads = ["arm", "what it is there for", "ended as", *RESULTS, *differs]
    alike = [name for name in names if len(set(table[name])) == 1 and table[name][0] != "–"]
    same = {name: table[name][0] for name in alike[:MOST_COLUMNS]}
    cells = [[cut(printable(cell), LONGEST_CELL) for cell in row] for row in rows]
    return Arms(heads, cells, same)


def _setting(text: str | None) -> str:
    """Write a param for a table.

    >>> [_setting(t) for t in ("0.00022501299999", "20000", "shuffle", "None")]
    ['0.000225', '20000', 'shuffle', '–']
    """
    for kind in (int, float):
        try:
            return written(kind(text or ""))
        except ValueError:
            continue
    return cut(printable(text)) if text not in (None, "", "None") else "–"


def _result(run: TrackedRun, name: str, missing: str) -> str:
    """Write a result's median, and the range from p10 to p90 where the seeds differ."""
    metrics = run.metrics
    if name == "stop_epoch" and run.params.get("stop") == "none":
        return "–"
    middle, low, high = (
        written(metrics[f"result/{name}{suffix}"])
        if f"result/{name}{suffix}" in metrics
        else missing
        for suffix in ("", "_p10", "_p90")
    )
    several = f"result/{name}_p10" in metrics and low != high
    return f"{middle} ({low} to {high})" if several else middle


# ---- figures ---------------------------------------------------------------------------------


def _pictures(store: Store, run: TrackedRun, into: Path, notes: list[str]) -> list[Path]:
    """Return where the figures lie; which of them is no file of the run's is noted."""
    found: list[Path | None] = []
    for name in _figures(store, run):
        try:
            found.append(artifact(store, run, name, into))
        except InputError as error:
            if is_away(error):
                raise
            notes.append(f"{name} is left out: {error}")
    return [path for path in found if path is not None]


def _figures(store: Store, run: TrackedRun) -> list[str]:
    """Return the file names of the figures, in the order of the script where the run says it."""
    files = names_of_artifacts(store, run)[:MOST_FILES]
    order = run.tags.get("sgdstudy.figures", "").split(", ")
    pictures = sorted(name for name in files if name.endswith(".png") and Path(name).name == name)
    return sorted(pictures, key=lambda name: order.index(name) if name in order else len(order))
