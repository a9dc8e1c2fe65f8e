"""The saved views of an experiment: what they chart, where, under which title."""

import json

import pytest

from sgdstudy.tracking import chart_views
from sgdstudy.tracking.store import open_store
from sgdstudy.tracking.tracked_run import TrackedRun


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


def test_a_metric_that_is_sent_once_has_a_bar_for_each_run():
    state = state_of({"result/steps", "epoch/full_loss"}, {"steps": "result/steps"})
    bars, lines = state["compareRunCharts"]
    assert (bars["type"], bars["metricKey"], lines["type"]) == ("BAR", "result/steps", "LINE")
    assert bars["metricSectionId"] == state["compareRunSections"][0]["uuid"]


def test_what_mlflow_charts_by_itself_is_in_sections_that_are_shut():
    keys = {"epoch/full_loss", "epoch/distance", "result/steps", "predicted/rho", "batch/lr"}
    sections = {s["name"]: s["display"] for s in state_of(keys, {})["compareRunSections"]}
    shut = dict.fromkeys(("batch", "epoch", "predicted", "result"), False)
    assert sections == {"Losses, by epoch": True} | shut


def run(name, charted="yes", optimizer="SGD"):
    """An arm, or the answer, as `save` sees it."""
    tags = {chart_views.CHARTED: charted}
    metrics = {"batch/loss": 1.0, "epoch/running_loss": 1.0}
    params = {"optimizer": optimizer}
    return TrackedRun(f"id of {name}", name, "FINISHED", tags, params, metrics, "", 0, 0)


@pytest.mark.parametrize(
    ("optimizers", "drawn"), [(["none", "none"], False), (["none", "SGD"], True), (["SGD"], True)]
)
def test_where_nothing_moves_there_is_no_chart_by_epoch(store, monkeypatch, optimizers, drawn):
    """As it was seen in Exercise 3: a running loss from 333.134094 to 333.134104 is rounding."""
    opened, states = open_store(store), []
    found = [run(f"arm {i}", optimizer=name) for i, name in enumerate(optimizers)]
    monkeypatch.setattr(chart_views, "search", lambda *words: found)
    monkeypatch.setattr(chart_views, "_packed", lambda state: states.append(state) or "")
    chart_views.save(opened, opened.experiment("still"), "i", {})
    for state in states:
        keys = {chart["metricKey"] for chart in state["compareRunCharts"]}
        assert keys == {"batch/loss"} | ({"epoch/running_loss"} if drawn else set())
        axes = {chart["xAxisScaleType"] for chart in state["compareRunCharts"]}
        assert axes == {"log" if drawn else "linear"}
        shut = {s["name"] for s in state["compareRunSections"] if not s["display"]}
        assert ("epoch" in shut) is not drawn


def tags_of(state):
    return {chart_views.TAG: json.dumps({"state": chart_views._packed(state)})}


def test_the_browser_hides_the_answer_and_the_arms_that_are_not_charted_and_pins_the_answer():
    own = chart_views._of_browser([run("answer"), run("a"), run("b", "no")])
    assert own["runsPinned"] == ["id of answer"]
    seen = {"id of answer": False, "id of a": True, "id of b": False}
    assert own["runsVisibilityMap"] == seen
    found = json.loads(chart_views.of_browser(tags_of(own | {"searchFilter": "x"}), "20261126"))
    assert found == own | {"searchFilter": "tags.`sgdstudy.invocation` = '20261126'"}


def test_a_view_of_many_runs_and_one_that_is_not_ours_are_given_to_no_browser():
    many = [run(f"{i}") for i in range(chart_views.MOST_LISTED + 1)]
    assert chart_views._of_browser(many) == {}
    bomb = {"runsVisibilityMap": {}, "x": "a" * 2 * chart_views.MOST_LETTERS}
    states = ["deflate;!", "deflate;AAAA", "", "[]", 3, None, {"a": 1}]
    tags = [{chart_views.TAG: json.dumps({"state": state})} for state in states]
    tags += [{}, {chart_views.TAG: "{"}, {chart_views.TAG: "[]"}, tags_of({}), tags_of(bomb)]
    tags += [tags_of([1]), tags_of("runsVisibilityMap"), tags_of(None)]
    for given in tags:
        assert chart_views.of_browser(given, "20261126") == "", given
