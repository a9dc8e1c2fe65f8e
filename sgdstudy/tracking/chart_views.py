"""Saved views of an experiment's charts in the MLflow UI: our charts, on log axes, all arms shown.

The UI keeps saved views in experiment tags whose format is not documented (seen in MLflow 3.17). A
version that does not know it ignores the tag, and the plain charts are shown; a server gets them
only where `SGDSTUDY_VIEWS=on` asks for them.
"""

from __future__ import annotations

import base64
import json
import os
import time
import zlib
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from sgdstudy.language import say, to_say, translated
from sgdstudy.recipe import columns
from sgdstudy.recipe.columns import PREFIX
from sgdstudy.tracking.runs import search
from sgdstudy.tracking.store import Store
from sgdstudy.tracking.tracked_run import TrackedRun

if TYPE_CHECKING:
    from mlflow.entities import Experiment

VIEW, ALL = "sgdstudy", "sgdstudy_all"  # the latest invocation; all of them
COLOR = "mlflow.runColor"  # tag: of a run, in all charts
CHARTED = "sgdstudy.charted"  # "yes" on the runs that the views show
TAG = f"mlflow.sharedViewState.{VIEW}"
QUESTION = to_say("The question")  # section: the charts that the study declares
# section: its charts, by metric key; only those that a run of the experiment has are shown
SECTIONS = {
    section: {f"{PREFIX[kind]}/{column.name}": column for kind, column in charts}
    for section, charts in columns.sections().items()
}
ONCE = "result/"  # metrics of a run that are one number: a bar for each run
CLOCK = f"{PREFIX['epochs']}/{columns.CLOCK}"  # a run that has it shows its losses by it too
BY_CLOCK = to_say("Losses, by the clock")
PACKED = "deflate;"
MOST_LISTED = 50  # runs of a view that the browser is told of
MOST_LETTERS = 1_000_000  # of a view
COLUMNS = [
    *(f"params.`{name}`" for name in ("lr", "order", "batch_size", "optimizer", "problem")),
    "metrics.`result/stop_epoch`",
    "tags.`stop_reason`",
]


class Chart(NamedTuple):
    """A chart of a view: its title, the metric that it draws, whether its axis is linear.

    One metric: MLflow draws all metrics of a run in the run's colour.
    """

    title: str
    key: str
    linear: bool


def wanted(store: Store) -> bool:
    """Whether views are written: to a local store unless they are turned off."""
    default = "off" if store.root is None else "on"
    return os.environ.get("SGDSTUDY_VIEWS", default).lower() in ("on", "1", "true")


def save(store: Store, experiment_id: str, invocation: str, asked: Mapping[str, str]) -> None:
    """Write two views: an invocation's arms, and those of all invocations.

    Args:
        store: where the experiment is.
        experiment_id: its id there.
        invocation: the latest one.
        asked: the charts of the study's question: title -> metric.
    """
    runs = search(store, [experiment_id], only(invocation))
    charted = [run for run in runs if run.tags.get(CHARTED) == "yes"]
    keys = {key for run in charted for key in run.metrics}
    flat = keys - {key for run in charted for key in run.metrics if not _is_flat(key, run)}
    moves = any(run.params["optimizer"] != "none" for run in charted if "optimizer" in run.params)
    of_browser = _of_browser(runs)
    arms = f"tags.`{CHARTED}` = 'yes'"
    for name, shown in ((VIEW, f"{only(invocation)} AND {arms}"), (ALL, arms)):
        now = int(time.time() * 1000)
        view = {
            "name": name,
            "createdAt": now,
            "updatedAt": now,
            "state": _packed(
                _state(shown, keys, asked, flat, moves) | (of_browser if name == VIEW else {})
            ),
        }
        tag = f"mlflow.sharedViewState.{name}"
        store.client.set_experiment_tag(experiment_id, tag, json.dumps(view))


def _is_flat(key: str, run: TrackedRun) -> bool:
    """Whether a run has the same for every epoch but for rounding: its parameters never move."""
    return run.params.get("optimizer") == "none" and key.startswith(f"{PREFIX['epochs']}/")


def _sections(keys: set[str], asked: Mapping[str, str]) -> dict[str, list[Chart]]:
    """Return the charts of each section that has any: of the metrics that were sent, each once."""
    sections = {QUESTION: [_asked(title, key) for title, key in asked.items()]}
    for section, of_section in SECTIONS.items():
        sections[section] = [
            chart
            for key, column in of_section.items()
            for chart in _of_column(key, column, keys)
            if chart.key not in asked.values()
        ]
    if CLOCK in keys:
        losses = SECTIONS[next(iter(SECTIONS))]
        sections[BY_CLOCK] = [c for key in losses for c in _of_column(key, losses[key], keys)]
    found = {name: [chart for chart in of if chart.key in keys] for name, of in sections.items()}
    return {name: charts for name, charts in found.items() if charts}


def _others(sections: Mapping[str, Sequence[Chart]], keys: set[str]) -> list[str]:
    """Return the sections that MLflow makes of metrics without a chart of ours; they stay shut."""
    drawn = {chart.key for charts in sections.values() for chart in charts}
    return sorted({key.rpartition("/")[0] for key in keys - drawn})


def _asked(title: str, key: str) -> Chart:
    """Return a chart that the study declares."""
    kind, name, _ = columns.line(columns.setting(key))
    column = columns.TABLES[kind].get(name)
    # a parameter w<i>, in no table, may be negative
    return Chart(translated(title), key, column is None or column.linear)


def _of_column(key: str, column: columns.Column, keys: set[str]) -> list[Chart]:
    """Return the chart of a column, and one for each of its bands and single seeds."""
    beside = [other for other in sorted(keys) if _is_beside(other, key)]
    return [
        Chart(column.title + other.removeprefix(key).replace("_", ", "), other, column.linear)
        for other in (key, *beside)
    ]


def _state(
    runs_shown: str,
    keys: set[str],
    asked: Mapping[str, str],
    flat: Set[str] = frozenset(),
    moves: bool = True,
) -> dict[str, Any]:
    """Return the state of a view: its filter, its columns, its charts; none of what is flat.

    Where nothing moves, all steps count alike, and their axis is linear.
    """
    x = "log" if moves else "linear"  # shows the first epoch widest
    sections = _sections(keys - flat, asked)
    return {
        "searchFilter": runs_shown,
        "orderByKey": "attributes.start_time",  # the answer first
        "orderByAsc": False,
        "runsHiddenMode": "SHOW_ALL",
        "selectedColumns": COLUMNS,
        "compareRunSections": [
            {
                "uuid": name,
                "name": say(name),
                "display": True,
                "isReordered": True,
                "columns": min(2, len(charts)),
            }
            for name, charts in sections.items()
        ]
        + [
            {"uuid": f"{VIEW}-{name}", "name": name, "display": False, "isReordered": True}
            for name in _others(sections, keys)
        ],
        "compareRunCharts": [
            _bars(chart, section) if chart.key.startswith(ONCE) else _line(chart, section, x)
            for section, charts in sections.items()
            for chart in charts
        ],
        "isAccordionReordered": True,
        "autoRefreshEnabled": False,
    }


def _of_browser(runs: Sequence[TrackedRun]) -> dict[str, Any]:
    """Return what no shared view has, since it is of one browser: runs pinned, and runs hidden.

    The first page of `sgdstudy ui` gives it to the browser. Of many runs there is none.
    """
    if len(runs) > MOST_LISTED:
        return {}
    drawn = {run.run_id: run.tags.get(CHARTED) == "yes" and not run.is_answer for run in runs}
    return {"runsPinned": [run.run_id for run in runs if run.is_answer], "runsVisibilityMap": drawn}


def _packed(state: dict[str, Any]) -> str:
    return PACKED + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()


def of_browser(tags: Mapping[str, str], invocation: str) -> str:
    """Return the view of an invocation as MLflow's page keeps it in a browser, in JSON.

    All arms are in its list; those that are not in the charts are hidden, as is the answer, which
    leads the list.

    Args:
        tags: of the experiment.
        invocation: its id.

    Returns:
        "" where there is none, or the tag is not as we write it.
    """
    try:
        packed = json.loads(tags[TAG])["state"].removeprefix(PACKED)
        unpacker = zlib.decompressobj()
        state = json.loads(unpacker.decompress(base64.b64decode(packed), MOST_LETTERS))
        own = state | {"searchFilter": only(invocation)}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, zlib.error):
        return ""
    return json.dumps(own) if "runsVisibilityMap" in own else ""


def url(server: str, experiment: Experiment, invocation: str | None = None) -> str:
    """Return the address that opens an experiment's charts: in our view where it has one."""
    plain = _page(server, experiment)
    if TAG in experiment.tags:
        return f"{plain}&viewStateShareKey={VIEW}"
    return plain if invocation is None else url_of_browser(server, experiment, invocation)


def url_of_browser(server: str, experiment: Experiment, invocation: str) -> str:
    """Return the address of the charts of an invocation, in the view that the browser has."""
    return f"{_page(server, experiment)}&searchFilter={quote(only(invocation))}"


def url_of_file(server: str, experiment: Experiment, run: TrackedRun, name: str) -> str:
    """Return the address that opens a file of a run; without a name MLflow opens an empty pane."""
    return f"{server}/#/experiments/{experiment.experiment_id}/runs/{run.run_id}/artifacts/{name}"


def _page(server: str, experiment: Experiment) -> str:
    page = f"{server}/#/experiments/{experiment.experiment_id}/runs"
    return f"{page}?workflowType=machine_learning&compareRunsMode=CHART"


def only(invocation: str) -> str:
    """Return the UI's filter for the runs of an invocation."""
    return f"tags.`sgdstudy.invocation` = '{invocation}'"


def _is_beside(key: str, other: str) -> bool:
    """Whether a key is a band or a single seed of another one."""
    _, between, which = key.removeprefix(other).rpartition("_")
    return key.startswith(f"{other}_") and bool(between and columns.WHICH.fullmatch(which))


def _bars(chart: Chart, section: str) -> dict[str, Any]:
    return {
        "type": "BAR",
        "uuid": f"{VIEW}-{section}-{chart.title}",
        "metricKey": chart.key,
        "metricSectionId": section,
        "displayName": chart.title,
        "runsCountToCompare": MOST_LISTED,
        "deleted": False,
        "isGenerated": False,
    }


def _line(chart: Chart, section: str, x: str) -> dict[str, Any]:
    by_clock = section == BY_CLOCK
    return {
        "type": "LINE",
        "uuid": f"{VIEW}-{section}-{chart.title}",
        "metricKey": chart.key,
        "selectedMetricKeys": [chart.key],
        "metricSectionId": section,
        "displayName": chart.title,
        # 3.17 shows a title of ours on charts of this kind alone; else the metrics' names
        "nodeLevelSystemMetricConfiguration": {"metric": chart.title, "type": "node"},
        "scaleType": "linear" if chart.linear else "log",
        "xAxisKey": "metric" if by_clock else "step",
        "selectedXAxisMetricKey": CLOCK if by_clock else "",
        "xAxisScaleType": "linear" if by_clock else x,
        "useGlobalXaxisKey": False,
        "displayPoints": False,  # else a line of less than 60 points has dots
        "lineSmoothness": 0,
        "useGlobalLineSmoothing": False,
        "deleted": False,
        "isGenerated": False,
    }
