"""One HTML file of what is in the store: every study's question, answer, claims, figures, arms."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgdstudy.errors import InputError
from sgdstudy.report.markup import breakable, command, markdown, slug
from sgdstudy.studies.claims import tally, without_tables
from sgdstudy.studies.study import HIDDEN
from sgdstudy.text import written
from sgdstudy.tracking import chart_views
from sgdstudy.tracking.load import kind_of
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

log = logging.getLogger("sgdstudy")
Claim = dict[str, Any]  # as in claims.json, written as text, with the verdict in a word
ROWS_OPEN = 12  # a longer table starts folded
MAX_WIDTH = 1600  # pixels of a figure
MAX_BYTES = 150_000  # of a figure: thirty of them stay under 6 MB
WORDS = {False: "FAILS", True: "holds", None: "described"}  # in the order of the report
RESULTS = {"stop epoch": ("stop_epoch", "never"), "final loss": ("full_loss", "not finite")}


@dataclass(frozen=True)
class Picture:
    """A figure, inline.

    Attributes:
        id: anchor in the page.
        name: file name.
        caption: the name in words.
        alt: what it shows, for those who do not see it.
        description: the axes, where the file says them.
        data: base64 of the PNG.
        size: width and height in pixels.
    """

    id: str
    name: str
    caption: str
    alt: str
    description: str
    data: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Arms:
    """The arms of a study as a table: what differs between them, and what does not."""

    heads: list[str]
    rows: list[list[str]]
    same: dict[str, str]


@dataclass(frozen=True)
class Section:
    """A study in the report; `hidden` where `--no-answer` kept the answer back."""

    id: str
    name: str
    question: str
    answer: list[Markup]
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
        return _tally(self.claims)


def write_report(store: Store, path: Path) -> Path:
    """Write what is in a store as one HTML file that needs no network; return its path.

    It shows the latest invocation of every study that has an answer: exercises first.

    Args:
        store: see `store.open_store`.
        path: the file to write.

    Raises:
        InputError: no study has run yet, or the file cannot be written, or is another one.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    _require_page(store, path)
    sections = _sections(store)
    if not sections:
        raise InputError(f"no study has run in {store.shown} yet: run sgdstudy study, then report")
    environment = Environment(
        loader=PackageLoader("sgdstudy.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    page = environment.get_template("report.html").render(
        sections=sections,
        tally=_tally([row for section in sections for row in section.claims]),
        failing=[(section, row) for section in sections for row in section.only(False)],
        now=datetime.now(UTC),
        version=version("sgdstudy"),
        rows_open=ROWS_OPEN,
        tallied=_tally,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"the report {path} cannot be written ({reason})") from error
    return path


def _require_page(store: Store, path: Path) -> None:
    """Refuse to write over a file that is not a page: the database, or somebody's script."""
    place = path.resolve()
    within = store.root is not None and store.root in place.parents
    named = place.suffix.lower() in (".html", ".htm")
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


def _sections(store: Store) -> list[Section]:
    """Return the studies that have an answer, in the order of the report."""
    prefix, found = store.experiment_name(""), []
    for experiment in store.client.search_experiments():
        if not experiment.name.startswith(prefix):
            continue
        answers = [
            run
            for run in every_run(store, experiment.experiment_id, "attributes.run_name = 'answer'")
            if run.finished and run.invocation
        ]
        if answers:
            last = max(answers, key=lambda run: run.order)
            same = chart_views.only(last.invocation)
            runs = every_run(store, experiment.experiment_id, same)
            arms = [run for run in runs if not run.is_answer]
            found.append(_section(store, experiment.name.removeprefix(prefix), last, arms))
    return sorted(found, key=lambda section: _place(section.name))


def _place(name: str) -> tuple[bool, bool, list[tuple[int, str]]]:
    """Return a study's place: exercises, then studies, then the rest, numbers as numbers.

    >>> sorted(["mine", "study_noise", "ex10_last", "ex7b_norm", "ex7a_loss"], key=_place)
    ['ex7a_loss', 'ex7b_norm', 'ex10_last', 'study_noise', 'mine']
    """
    parts = [(int(n or 0), text) for n, text in re.findall(r"(\d*)(\D*)", name)]
    return not re.match(r"ex\d", name), not name.startswith("study_"), parts


def _section(store: Store, name: str, run: TrackedRun, arms: Sequence[TrackedRun]) -> Section:
    tags = run.tags
    ident = "study-" + slug(name)
    with tempfile.TemporaryDirectory() as folder:  # what a server has is downloaded to it
        into = Path(folder)
        question, text = _answer(_read(store, run, "answer.md", into), name)
        listing = _read(store, run, "claims.json", into)
        paths = [artifact(store, run, file, into) for file in _figures(store, run)]
        pictures = [_picture(path, ident, question) for path in paths if path is not None]
    if lacks_files(store, run):
        text = f"The files of this answer, and of its figures, are missing: {named([run])}."
        log.warning("%s: %s", name, text)
    hidden = text == HIDDEN
    started = min(r.start_ms for r in [run, *arms])
    return Section(
        id=ident,
        name=name,
        question=question,
        answer=markdown(text, {picture.name: picture.id for picture in pictures}),
        hidden=hidden,
        claims=[] if hidden else _claims(listing),
        pictures=pictures,
        arms=_arms(arms),
        command=command(tags),
        started=datetime.fromtimestamp(started / 1000, UTC),
        seconds=((run.end_ms or started) - started) / 1000,
        code=_code(tags),
    )


def _read(store: Store, run: TrackedRun, name: str, into: Path) -> str:
    path = artifact(store, run, name, into)
    return "" if path is None else path.read_text(encoding="utf-8")


def _answer(text: str, name: str) -> tuple[str, str]:
    """Return question and answer of an answer.md, without its tables of claims."""
    head, _, rest = text.partition("\n\n")
    question = head.strip().removeprefix("**").removesuffix("**")
    return question or name, without_tables(rest)


def _code(tags: Mapping[str, str]) -> str:
    """Say which code ran."""
    words = []
    if "sgdstudy.version" in tags:
        words.append(f"sgdstudy {tags['sgdstudy.version']}")
    if "mlflow.source.git.commit" in tags:
        changed = ", changed since" if tags.get("sgdstudy.git_changed") == "true" else ""
        words.append(f"commit {tags['mlflow.source.git.commit'][:10]}{changed}")
    return ", ".join(words)


def _claims(listing: str) -> list[Claim]:
    """Return the claims of a claims.json as text; what fails first, what only describes last."""
    claims = [
        claim
        | {name: written(_number(claim[name])) for name in ("expected", "measured")}
        | {"tolerance": _tolerance(claim["tolerance"]), "verdict": WORDS[claim["holds"]]}
        | {"kind": kind_of(claim)}
        for claim in json.loads(listing or "[]")
    ]
    return sorted(claims, key=lambda claim: list(WORDS).index(claim["holds"]))


def _tally(claims: Sequence[Claim]) -> str:
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
    differs = [name for name in names if len(set(table[name])) > 1]
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
    same = {name: table[name][0] for name in names if name not in differs and table[name][0] != "–"}
    return Arms(heads, rows, same)


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
    return text if text not in (None, "", "None") else "–"


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


def _figures(store: Store, run: TrackedRun) -> list[str]:
    """Return the file names of the figures, in the order of the script where the run says it."""
    files = names_of_artifacts(store, run)
    order = run.tags.get("sgdstudy.figures", "").split(", ")
    pictures = sorted(name for name in files if name.endswith(".png"))
    return sorted(pictures, key=lambda name: order.index(name) if name in order else len(order))


def _picture(path: Path, section: str, question: str) -> Picture:
    data, size, description = small_png(path)
    words = path.stem.replace("_", " ").strip()
    about = f"{words[:1].upper()}{words[1:]}"
    shown = f": {description}" if description else ""
    return Picture(
        id=f"{section}-figure-{slug(path.stem)}",
        name=path.name,
        caption=about,
        alt=f"Figure “{words}” of “{question}”{shown}",
        description=description.partition(" Lines:")[0].rstrip("."),
        data=base64.b64encode(data).decode(),
        size=size,
    )


def small_png(path: Path) -> tuple[bytes, tuple[int, int], str]:
    """Return a figure as a small PNG of 256 colours, its size, and the description it carries.

    Raises:
        InputError: the file is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            description = str(opened.info.get("Description", ""))
            image = Image.new("RGB", opened.size, "white")
            image.paste(opened, mask=opened.getchannel("A") if opened.mode == "RGBA" else None)
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"the figure {path.name} in the store is no picture: {error}") from error
    width = min(image.width, MAX_WIDTH)
    while True:
        height = max(round(image.height * width / image.width), 1)
        part = (
            image
            if width == image.width
            else image.resize((width, height), Image.Resampling.LANCZOS)
        )
        buffer = io.BytesIO()
        part.quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
        if len(buffer.getvalue()) <= MAX_BYTES or width < 400:
            return buffer.getvalue(), part.size, description
        width = int(width * 0.8)
