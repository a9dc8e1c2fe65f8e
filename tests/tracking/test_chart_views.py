"""The saved views of an experiment: what they chart, where, under which title."""

import json

from sgdstudy.tracking import chart_views


def state_of(keys, asked):
    return json.loads(json.dumps(chart_views._state("", keys, asked)))


def test_a_views_first_section_is_the_question_with_titles_of_its_own():
    """Of the metrics that were sent; on a log axis, unless what is shown may be negative."""
    asked = {
        "norms": "epoch/mean_grad_norm",
        "high": "epoch/full_loss_p90",
        "signs": "batch/alpha",
        "path": "batch/w0",
        "not sent": "epoch/sum_loss",
    }
    state = state_of({*asked.values()} - {"epoch/sum_loss"}, asked)
    first = state["compareRunSections"][0]
    assert first["name"] == "The question"
    charts = [c for c in state["compareRunCharts"] if c["metricSectionId"] == first["uuid"]]
    assert [(c["displayName"], c["metricKey"], c["scaleType"]) for c in charts] == [
        ("norms", "epoch/mean_grad_norm", "log"),
        ("high", "epoch/full_loss_p90", "log"),
        ("signs", "batch/alpha", "linear"),
        ("path", "batch/w0", "linear"),
    ]


def test_a_chart_has_one_metric_and_no_metric_has_two_charts_of_one_axis():
    """MLflow draws the metrics of a run in one colour; bands and single seeds are metrics, too."""
    keys = {"batch/loss", "batch/loss_p90", "batch/loss_seed3", "epoch/full_loss"}
    keys |= {"epoch/running_loss", chart_views.CLOCK}
    charts = state_of(keys, {"all the data": "epoch/full_loss"})["compareRunCharts"]
    assert all(chart["selectedMetricKeys"] == [chart["metricKey"]] for chart in charts)
    assert not any(chart["displayPoints"] for chart in charts)
    assert len({chart["uuid"] for chart in charts}) == len(charts)
    drawn = [(chart["metricKey"], chart["xAxisKey"]) for chart in charts]
    assert len({*drawn}) == len(drawn)
    assert {key for key, _ in drawn} == keys - {chart_views.CLOCK}
    titles = {chart["metricKey"]: chart["displayName"] for chart in charts}
    assert titles["batch/loss_p90"] == f"{titles['batch/loss']}, p90"
