"""Bands over the seeds and single seeds, as metrics of MLflow."""

import numpy as np
import pytest
from conftest import one_line, small_curve

import sgdstudy as ss
from sgdstudy.history.rows import Rows
from sgdstudy.recipe.columns import line
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking import chart_views
from sgdstudy.tracking.chart_points import Series
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.store import open_store

METRICS = ["loss", "loss_p10", "loss_p90", "loss_seed5", "w0_seed2", "epoch/full_loss_p90"]
METRICS += ["epoch/running_loss_seed5", "epoch/last_loss"]


def test_names_say_what_they_show():
    assert line("mean_loss") == ("steps", "mean_loss", "")
    assert line("loss_p50") == ("steps", "loss_p50", "")
    assert line("epoch/w0_seed12") == ("epochs", "w0", "seed12")


def test_points_are_those_of_the_rows(store):
    opened, seeds = open_store(store), [2, 5, 7, 11, 13]
    arm = ss.Arm(small_curve(noise=0.5), lr=0.05, batch_size=10, epochs=4, seeds=seeds)
    arm = arm.but(metrics=METRICS)
    run_id, history = train_arm(Invocation.start(opened, "bands", {}), "an arm", arm)

    def sent(key):
        return [m.value for m in opened.client.get_metric_history(run_id, key)]

    loss = history.array("steps", "loss")
    for share, key in ((0.1, "p10"), (0.9, "p90")):
        law = np.quantile(loss, share, axis=1, method="inverted_cdf")
        assert sent(f"batch/loss_{key}") == law.tolist()
    assert sent("batch/loss") == np.median(loss, axis=1).tolist()
    assert sent("batch/loss_seed5") == loss[:, 1].tolist()
    assert sent("batch/w0_seed2") == history.array("steps", "w0")[:, 0].tolist()
    full = history.array("epochs", "full_loss")
    assert (
        sent("epoch/full_loss_p90")
        == np.quantile(full, 0.9, axis=1, method="inverted_cdf").tolist()
    )
    assert (
        sent("epoch/running_loss_seed5") == history.array("epochs", "running_loss")[:, 1].tolist()
    )
    assert len(sent("epoch/last_loss")) == len(sent("epoch/full_loss")) == 4


def test_a_seed_that_has_ended_has_no_points_and_is_in_no_band():
    keep = np.array([[True, True, True], [True, False, True], [False, False, True]])
    values = np.arange(9.0).reshape(3, 3)
    rows = Rows(
        {"seed": np.array([[4, 6, 8]]), "step": np.arange(3)[:, None], "loss": values}, keep
    )
    series = Series(["loss_p10", "loss_p90", "loss_seed4", "loss_seed6", "loss_seed9"])
    series.add("steps", rows)
    found = {}
    for key, step, value in series.points():
        found.setdefault(key, []).append((step, value))
    assert found["batch/loss_p10"] == [(0, 0), (1, 3), (2, 8)]
    assert found["batch/loss_p90"] == [(0, 2), (1, 5), (2, 8)]
    assert found["batch/loss_seed4"] == [(0, 0), (1, 3)]
    assert found["batch/loss_seed6"] == [(0, 1)]
    assert "batch/loss_seed9" not in found


def test_each_has_a_chart_after_that_of_its_column():
    keys = {"epoch/full_loss", "epoch/full_loss_p90", "epoch/full_loss_seed3", "epoch/full_loss_x"}
    charts = chart_views._sections(keys | {"epoch/last_loss_p10"}, {})["Losses, by epoch"]
    expected = ["epoch/full_loss", "epoch/full_loss_p90", "epoch/full_loss_seed3"]
    assert [chart.key for chart in charts] == expected


@pytest.mark.parametrize(
    "metrics", [["los_p10"], ["loss_seed4"], ["epoch/los"], [3], ["epoch/w_p10"], ["w9_p10"]]
)
def test_mistakes_are_one_line(metrics):
    with pytest.raises(ss.InputError) as error:
        ss.train(small_curve(), lr=0.1, epochs=1, seeds=[0, 1], metrics=metrics)
    assert one_line(error)
