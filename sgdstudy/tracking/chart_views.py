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
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sgdstudy.recipe import columns
from sgdstudy.recipe.columns import PREFIX, Column
from sgdstudy.tracking.runs import search
from sgdstudy.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Experiment

VIEW, ALL = "sgdstudy", "sgdstudy_all"  # the latest invocation; all of them
MOST_SHOWN = 6  # arms: lines of a chart. A view cannot hide runs that its filter lets through
COLOR = "mlflow.runColor"  # tag: of a run, in all charts
CHARTED = "sgdstudy.charted"  # "yes" on the runs that the views show
TAG = f"mlflow.sharedViewState.{VIEW}"
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


def wanted(store: Store) -> bool:
    """Whether views are written: to a local store unless they are turned off."""
    default = "off" if store.root is None else "on"
    return os.environ.get("SGDSTUDY_VIEWS", default).lower() in ("on", "1", "true")


def save(store: Store, experiment_id: str, invocation: str) -> None:
    """Write two views: an invocation's arms, and those of all invocations."""
    runs = search(store, [experiment_id], only(invocation))
    keys = {key for run in runs for key in run.metrics}
    arms = f"tags.`{CHARTED}` = 'yes'"
    for name, shown in ((VIEW, f"{only(invocation)} AND {arms}"), (ALL, arms)):
        now = int(time.time() * 1000)
        view = {"name": name, "createdAt": now, "updatedAt": now, "state": _state(shown, keys)}
        tag = f"mlflow.sharedViewState.{name}"
        store.client.set_experiment_tag(experiment_id, tag, json.dumps(view))


def _state(runs_shown: str, keys: set[str]) -> str:
    """Return the packed state of a view: its filter, its columns, its charts."""
    sections = {
        section: {key: column for key, column in charts.items() if key in keys}
        for section, charts in SECTIONS.items()
    }
    if CLOCK in keys:
        sections[BY_CLOCK] = next(iter(sections.values()))
    sections = {section: charts for section, charts in sections.items() if charts}
    state = {
        "searchFilter": runs_shown,
        "orderByKey": "attributes.start_time",  # the answer first
        "orderByAsc": False,
        "runsHiddenMode": "SHOW_ALL",
        "selectedColumns": COLUMNS,
        "compareRunSections": [
            {"uuid": name, "name": name, "display": True, "isReordered": True, "columns": 2}
            for name in sections
        ],
        "compareRunCharts": [
            _line(key, section, column, keys)
            for section, charts in sections.items()
            for key, column in charts.items()
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


def _line(key: str, section: str, column: Column, keys: set[str]) -> dict[str, Any]:
    by_clock = section == BY_CLOCK
    return {
        "type": "LINE",
        "uuid": f"{VIEW}-{key}{'-clock' * by_clock}",
        "metricKey": key,
        "selectedMetricKeys": [key, *sorted(k for k in keys if _is_beside(k, key))],
        "metricSectionId": section,
        "displayName": column.title,
        "scaleType": "linear" if column.linear else "log",
        "xAxisKey": "metric" if by_clock else "step",
        "selectedXAxisMetricKey": CLOCK if by_clock else "",
        "xAxisScaleType": "linear",
        "useGlobalXaxisKey": False,
        "lineSmoothness": 0,
        "useGlobalLineSmoothing": False,
        "deleted": False,
        "isGenerated": False,
    }
