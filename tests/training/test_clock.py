"""The time since training began, as a column of steps and epochs and as an axis."""

import time

import numpy as np
import pytest
from conftest import one_line, small_curve

import sgdstudy as ss
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking import chart_views
from sgdstudy.tracking.invocation import Invocation

SETTINGS = {"lr": 0.05, "batch_size": 10, "epochs": 70, "seeds": range(3)}


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_time_goes_on_from_step_to_step_and_ends_with_the_run(engine):
    begun = time.perf_counter()
    history = ss.train(small_curve(), **SETTINGS, clock=True, engine=engine)
    took = time.perf_counter() - begun
    seconds = history.array("steps", "elapsed_seconds")
    assert (seconds[0] > 0).all()
    assert (np.diff(seconds, axis=0) > 0).all()
    assert (seconds == seconds[:, :1]).all()  # the seeds train side by side
    ends = history.array("epochs", "elapsed_seconds")
    assert np.array_equal(ends, seconds[5::6])  # after an epoch's last step
    assert ends[-1, 0] <= history.train_seconds <= took


def test_a_clock_changes_no_other_column():
    with_clock = ss.train(small_curve(), **SETTINGS, clock=True)
    without = ss.train(small_curve(), **SETTINGS)
    for kind in ("steps", "epochs"):
        given = getattr(with_clock, kind).drop(columns="elapsed_seconds")
        assert given.equals(getattr(without, kind))


def test_a_long_epoch_ends_at_its_last_step(monkeypatch):
    monkeypatch.setattr("sgdstudy.training.run.FIRST_STEPS", 4)
    history = ss.train(small_curve(), **SETTINGS | {"epochs": 1}, clock=True)
    seconds = history.array("steps", "elapsed_seconds")[:, 0]
    assert (np.diff(seconds) > 0).all()
    assert history.epochs["elapsed_seconds"].iloc[0] == seconds[-1]


def test_losses_are_drawn_by_the_clock():
    runs = {"a": ss.train(small_curve(), **SETTINGS, clock=True)}
    figure = ss.figures.loss_by_epoch(runs, clock=True)
    assert figure.axes[0].get_xlabel() == "time since training began, in seconds"
    x = figure.axes[0].lines[0].get_xdata()
    assert x[-1] == runs["a"].epochs["elapsed_seconds"].iloc[-1]
    with pytest.raises(ss.InputError, match="elapsed_seconds") as error:
        ss.figures.loss_by_epoch({"a": ss.train(small_curve(), **SETTINGS)}, clock=True)
    assert one_line(error)


def test_a_clock_is_no_name_of_a_diagnostic_and_no_number():
    def elapsed_seconds(chunk):
        return chunk.loss

    with pytest.raises(ss.InputError, match="my_elapsed_seconds"):
        ss.TrainConfig(diagnostics=[elapsed_seconds])
    with pytest.raises(ss.InputError, match="clock is True or False"):
        ss.TrainConfig(clock=1)


def test_mlflow_gets_it_and_the_view_charts_the_losses_by_it(store):
    from sgdstudy.tracking.store import open_store

    opened = open_store(store)
    invocation = Invocation.start(opened, "clock", {})
    arm = ss.Arm(small_curve(), **SETTINGS, clock=True, metrics=["loss", "elapsed_seconds"])
    run_id, history = train_arm(invocation, "an arm", arm)
    sent = opened.client.get_run(run_id).data.metrics
    last = history.epochs["elapsed_seconds"].iloc[-1]
    assert sent["epoch/elapsed_seconds"] == sent["batch/elapsed_seconds"] == last
    charts = chart_views._state("", set(sent), {})["compareRunCharts"]
    by_clock = [chart for chart in charts if chart["xAxisKey"] == "metric"]
    assert [c["metricKey"] for c in by_clock] == ["epoch/running_loss", "epoch/full_loss"]
    assert {c["selectedXAxisMetricKey"] for c in by_clock} == {"epoch/elapsed_seconds"}
    assert len({c["uuid"] for c in charts}) == len(charts)
