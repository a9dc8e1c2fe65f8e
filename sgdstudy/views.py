"""A saved view of an experiment's charts in the MLflow UI: our charts, on log axes, all arms shown.

The UI keeps saved views in experiment tags whose format is not documented (seen in MLflow 3.17). A
version that does not know it ignores the tag, and the plain charts are shown; so it is written to
local stores only.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sgdstudy.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Experiment

VIEW = "sgdstudy"
TAG = f"mlflow.sharedViewState.{VIEW}"
# section: its charts, metric key and title
SECTIONS = {
    "Losses, by epoch": {
        "epoch/running_loss": "running loss of the epoch",
        "epoch/full_loss": "loss of all the data, at the end of the epoch",
    },
    "Batches, by step": {
        "batch/loss": "loss of the batch",
        "batch/grad_norm": "gradient norm of the batch",
        "batch/full_loss": "loss of all the data",
        "batch/distance": "distance to the true parameters",
    },
}
COLUMNS = ["lr", "order", "batch_size", "optimizer", "problem"]


def save(store: Store, experiment_id: str, invocation: str) -> None:
    """Write the view of an invocation's arms, in the order they were declared."""
    state = {
        "searchFilter": f"{only(invocation)} AND attributes.run_name != 'answer'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "runsHiddenMode": "SHOW_ALL",
        "selectedColumns": [f"params.`{name}`" for name in COLUMNS],
        "compareRunSections": [
            {"uuid": name, "name": name, "display": True, "isReordered": True, "columns": 2}
            for name in SECTIONS
        ],
        "compareRunCharts": [
            _line(key, section, title)
            for section, charts in SECTIONS.items()
            for key, title in charts.items()
        ],
        "isAccordionReordered": True,
        "autoRefreshEnabled": False,
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    now = int(time.time() * 1000)
    view = {"name": VIEW, "createdAt": now, "updatedAt": now, "state": f"deflate;{packed}"}
    store.client.set_experiment_tag(experiment_id, TAG, json.dumps(view))


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


def _line(key: str, section: str, title: str) -> dict[str, Any]:
    return {
        "type": "LINE",
        "uuid": f"{VIEW}-{key}",
        "metricKey": key,
        "selectedMetricKeys": [key],
        "metricSectionId": section,
        "displayName": title,
        "scaleType": "log",
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "useGlobalXaxisKey": False,
        "lineSmoothness": 0,
        "useGlobalLineSmoothing": False,
        "deleted": False,
        "isGenerated": False,
    }
