"""The first page of `sgdstudy ui`: every study's question, answer and picture, with ways on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sgdstudy.errors import InputError
from sgdstudy.language import everywhere, say
from sgdstudy.report import report
from sgdstudy.report.markup import command, joined, markdown, rendered
from sgdstudy.report.sections import (
    ANSWER,
    MAIN,
    answered,
    in_short,
    question_and_answer,
    read_text,
    shown_claims,
    tallied,
)
from sgdstudy.studies.study import HIDDEN
from sgdstudy.tracking import chart_views
from sgdstudy.tracking.app import MLFLOW, around_mlflow
from sgdstudy.tracking.scratch import scratch
from sgdstudy.tracking.store import Store
from sgdstudy.tracking.tracked_run import TrackedRun

REPORT = "/report"
_made: dict[tuple[str, ...], str] = {}  # the latest report, by the runs of its answers


@dataclass(frozen=True)
class Card:
    """A study on the page.

    Attributes:
        name: of the script.
        ran: the same with the options that were given.
        question: what it asks.
        answer: its answer in short.
        verdicts: how many claims hold and fail, in words.
        failed: whether one fails.
        swept: whether it is a sweep of one.
        picture: address of its main figure, or of its first one; "" where it has none.
        charts: address of its prepared charts.
        run: address of its answer, in its `answer` run.
        zoom: address of that figure, to zoom where it can be.
        view: those charts as MLflow's page keeps them in a browser; "" where there is none.
        viewed: address of the charts where the browser has the view.
        of: what the view is of: experiment and invocation.
    """

    name: str
    ran: str
    question: str
    answer: Any
    verdicts: str
    failed: bool
    swept: bool
    picture: str
    charts: str
    run: str
    zoom: str
    view: str
    viewed: str
    of: tuple[str, str]


def app() -> Callable[..., Awaitable[None]]:
    """Return the server of `sgdstudy ui`; MLflow calls it, by the entry point `mlflow.app`."""
    return around_mlflow({"/": page, REPORT: _whole})


def page(store: Store, server: str = "") -> str:
    """Return the page as HTML.

    Args:
        store: whose studies.
        server: address of MLflow's server; "" the one that serves the page.
    """
    cards = [_card(store, server, *study) for study in answered(store)]
    sweeps = [card for card in cards if card.swept]
    exercises = [card for card in cards if card.name.startswith("ex") and card not in sweeps]
    others = [card for card in cards if card not in sweeps and card not in exercises]
    groups = {say("Exercises"): exercises, say("Studies"): others, say("Sweeps"): sweeps}
    mlflow = f"{server or MLFLOW}/#/"
    return rendered("landing.html", groups=groups, mlflow=mlflow, report="" if server else REPORT)


def _whole(store: Store) -> str:
    """Return the report, made anew where there is another answer; the first page where none is."""
    key = tuple(run.run_id for _, _, run in answered(store))
    if key not in _made:
        try:
            html = report.page(store, "")
        except InputError:  # nothing to show: the first page says why
            return page(store)
        _made.clear()
        _made[key] = html
    return _made[key]


def _card(store: Store, server: str, name: str, experiment: Any, run: TrackedRun) -> Card:
    with scratch() as folder:  # what a server has is downloaded to it
        files, notes = (ANSWER, "claims.json"), list[str]()
        text, claims = (read_text(store, run, file, folder, notes) for file in files)
    question, answer = question_and_answer(text, name)
    hidden = answer in everywhere(HIDDEN)
    found = [] if hidden else shown_claims(claims, notes)
    short = joined(markdown(in_short(answer, run.tags)[0]))
    base = server or MLFLOW
    names = run.tags.get("sgdstudy.figures", "").split(", ")
    shown = MAIN if MAIN in names else names[0]
    zoomed = "picture.html" if shown == MAIN else shown
    picture = f"{server}/get-artifact?path={shown}&run_uuid={run.run_id}"
    return Card(
        name=name,
        ran=command(run.tags).removeprefix("sgdstudy ").removeprefix("run ") or name,
        question=question,
        answer=short or "; ".join(notes),
        verdicts=say("answer hidden") if hidden else tallied(found),
        failed=any(claim["holds"] is False for claim in found),
        swept="sgdstudy.grid" in run.tags,
        picture=picture if shown else "",
        charts=chart_views.url(base, experiment),
        run="" if hidden else chart_views.url_of_file(base, experiment, run, ANSWER),
        zoom=chart_views.url_of_file(base, experiment, run, zoomed),
        view="" if server else chart_views.of_browser(experiment.tags, run.invocation),
        viewed=chart_views.url_of_browser(base, experiment, run.invocation),
        of=(experiment.experiment_id, run.invocation),
    )
