"""The saved views of an experiment: what they chart, where, under which title."""

import base64
import json
import zlib

from sgdstudy.tracking import chart_views


def test_a_views_first_section_is_the_question_with_titles_of_its_own():
    """Of the metrics that were sent; on a log axis, unless what is shown may be negative."""
    asked = {
        "norms": ["epoch/mean_grad_norm", "epoch/full_grad_norm", "epoch/full_loss_p90"],
        "signs": ["batch/loss", "batch/alpha"],
        "path": ["batch/w0"],
        "not sent": ["epoch/sum_loss"],
    }
    keys = {key for metrics in asked.values() for key in metrics} - {"epoch/sum_loss"}
    keys.remove("epoch/full_grad_norm")
    packed = chart_views._state("", keys, asked).partition(";")[2]
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    first = state["compareRunSections"][0]
    assert first["name"] == "The question"
    charts = [c for c in state["compareRunCharts"] if c["metricSectionId"] == first["uuid"]]
    assert [(c["displayName"], c["selectedMetricKeys"], c["scaleType"]) for c in charts] == [
        ("norms", ["epoch/mean_grad_norm", "epoch/full_loss_p90"], "log"),
        ("signs", ["batch/loss", "batch/alpha"], "linear"),
        ("path", ["batch/w0"], "linear"),
    ]
    assert len({c["uuid"] for c in state["compareRunCharts"]}) == len(state["compareRunCharts"])
