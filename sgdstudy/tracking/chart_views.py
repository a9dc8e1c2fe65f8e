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
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from sgdstudy.recipe import columns
from sgdstudy.recipe.columns import PREFIX
from sgdstudy.tracking.runs import search
from sgdstudy.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Experiment

VIEW, ALL = "sgdstudy", "sgdstudy_all"  # the latest invocation; all of them
MOST_SHOWN = 6  # arms: lines of a chart. A view cannot hide runs that its filter lets through
COLOR = "mlflow.runColor"  # tag: of a run, in all charts
CHARTED = "sgdstudy.charted"  # "yes" on the runs that the views show
TAG = f"mlflow.sharedViewState.{VIEW}"
QUESTION = "The question"  # section: the charts that the study declares
# section: its charts, by metric key; only those that a run of the experiment has are shown
SECTIONS = {
    section: {f"{PREFIX[kind]}/{column.name}": column for kind, column in charts}
    for section, charts in columns.sections().items()
}
CLOCK = f"{PREFIX['epochs']}/{columns.CLOCK}"  # a run that has it shows its losses by it too
BY_CLOCK = "Losses, by the clock"
COLUMNS = [
    *(f"params.`{name}`" for name in ("lr", "order", "batch_size", "optimizer", "problem")),
    "metrics.`result/stop_epoch`",
    "tags.`stop_reason`",
]


class Chart(NamedTuple):
    """A chart of a view: its title, the metrics that it draws, whether its axis is linear."""

    title: str
    keys: list[str]
    linear: bool


def wanted(store: Store) -> bool:
    """Whether views are written: to a local store unless they are turned off."""
    default = "off" if store.root is None else "on"
    return os.environ.get("SGDSTUDY_VIEWS", default).lower() in ("on", "1", "true")


def save(
    store: Store, experiment_id: str, invocation: str, asked: Mapping[str, Sequence[str]]
) -> None:
    """Write two views: an invocation's arms, and those of all invocations.

    Args:
        store: where the experiment is.
        experiment_id: its id there.
        invocation: the latest one.
        asked: the charts of the study's question: title -> metrics.
    """
    runs = search(store, [experiment_id], only(invocation))
    keys = {key for run in runs for key in run.metrics}
    arms = f"tags.`{CHARTED}` = 'yes'"
    for name, shown in ((VIEW, f"{only(invocation)} AND {arms}"), (ALL, arms)):
        now = int(time.time() * 1000)
        view = {
            "name": name,
            "createdAt": now,
            "updatedAt": now,
            "state": _state(shown, keys, asked),
        }
        tag = f"mlflow.sharedViewState.{name}"
        store.client.set_experiment_tag(experiment_id, tag, json.dumps(view))


def _sections(keys: set[str], asked: Mapping[str, Sequence[str]]) -> dict[str, list[Chart]]:
    """Return the charts of each section that has any: of the metrics that were sent."""
    sections = {QUESTION: [_asked(title, wanted, keys) for title, wanted in asked.items()]}
    for section, charts in SECTIONS.items():
        sections[section] = [
            Chart(
                column.title, [key, *sorted(k for k in keys if _is_beside(k, key))], column.linear
            )
            for key, column in charts.items()
            if key in keys
        ]
    if CLOCK in keys:
        sections[BY_CLOCK] = sections[next(iter(SECTIONS))]
    found = {name: [chart for chart in charts if chart.keys] for name, charts in sections.items()}
    return {name: charts for name, charts in found.items() if charts}


def _asked(title: str, wanted: Sequence[str], keys: set[str]) -> Chart:
    """Return a chart that the study declares."""
    lines = [columns.line(columns.setting(key)) for key in wanted]
    found = [columns.TABLES[kind].get(name) for kind, name, _ in lines]
    linear = any(column is None or column.linear for column in found)  # a parameter has a sign
    return Chart(title, [key for key in wanted if key in keys], linear)


def _state(runs_shown: str, keys: set[str], asked: Mapping[str, Sequence[str]]) -> str:
    """Return the packed state of a view: its filter, its columns, its charts."""
    sections = _sections(keys, asked)
    state = {
        "searchFilter": runs_shown,
        "orderByKey": "attributes.start_time",  # the answer first
        "orderByAsc": False,
        "runsHiddenMode": "SHOW_ALL",
        "selectedColumns": COLUMNS,
        "compareRunSections": [
            {
                "uuid": name,
                "name": name,
                "display": True,
                "isReordered": True,
                "columns": min(2, len(charts)),
            }
            for name, charts in sections.items()
        ],
        "compareRunCharts": [
            _line(chart, section) for section, charts in sections.items() for chart in charts
        ],
        "isAccordionReordered": True,
        "autoRefreshEnabled": False,
    }
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()


def url(server: str, experiment: Experiment, invocation: str | None = None) -> str:
    """Return the address that opens an experiment's charts: in our view where it has one."""
    page = f"{server}/#/experiments/{experiment.experiment_id}/runs"
    plain = f"{page}?workflowType=machine_learning&compareRunsMode=CHART"
    if TAG in experiment.tags:
        return f"{plain}&viewStateShareKey={VIEW}"
    return plain if invocation is None else f"{plain}&searchFilter={quote(only(invocation))}"


def only(invocation: str) -> str:
    """Return the UI's filter for the runs of an invocation."""
    return f"tags.`sgdstudy.invocation` = '{invocation}'"


def _is_beside(key: str, other: str) -> bool:
    """Whether a key is a band or a single seed of another one."""
    _, between, which = key.removeprefix(other).rpartition("_")
    return key.startswith(f"{other}_") and bool(between and columns.WHICH.fullmatch(which))


def _line(chart: Chart, section: str) -> dict[str, Any]:
    by_clock = section == BY_CLOCK
    return {
        "type": "LINE",
        "uuid": f"{VIEW}-{section}-{chart.title}",
        "metricKey": chart.keys[0],
        "selectedMetricKeys": chart.keys,
        "metricSectionId": section,
        "displayName": chart.title,
        # 3.17 shows a title of ours on charts of this kind alone; else the metrics' names
        "nodeLevelSystemMetricConfiguration": {"metric": chart.title, "type": "node"},
        "scaleType": "linear" if chart.linear else "log",
        "xAxisKey": "metric" if by_clock else "step",
        "selectedXAxisMetricKey": CLOCK if by_clock else "",
        "xAxisScaleType": "linear",
        "useGlobalXaxisKey": False,
        "lineSmoothness": 0,
        "useGlobalLineSmoothing": False,
        "deleted": False,
        "isGenerated": False,
    }
