"""The settings of a run: what they become, what they say of d samples, what fits a problem."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import one_line, small_curve
from hypothesis import given
from hypothesis import strategies as st

import sgdstudy as ss
from sgdstudy.recipe import columns
from sgdstudy.recipe.own_columns import METRICS, MOST_METRICS
from sgdstudy.recipe.stop import STOP_COLUMNS

PROBLEM = small_curve(d=20)  # three parameters


def refused(call, says):
    with pytest.raises(ss.InputError, match=says) as error:
        call()
    assert one_line(error)


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ss.TrainConfig().lr = 1.0


def test_numbers_of_numpy_and_torch_become_pythons():
    config = ss.TrainConfig(
        lr=np.float32(0.5), epochs=torch.tensor(3), batch_size=np.int64(4), seeds=np.arange(2)
    )
    assert (config.lr, config.epochs, config.batch_size) == (0.5, 3, 4)
    assert config.seeds == (0, 1)
    assert [type(v) for v in (config.lr, config.epochs, config.batch_size)] == [float, int, int]


def test_a_setting_that_does_not_exist_is_refused_with_the_nearest():
    refused(lambda: ss.TrainConfig.of(batchsize=3), "unknown setting 'batchsize'.*'batch_size'")


@given(d=st.integers(1, 300), size=st.integers(1, 300), epochs=st.integers(1, 50))
def test_an_epoch_is_every_sample_once_the_last_batch_what_is_left(d, size, epochs):
    config = ss.TrainConfig(batch_size=min(size, d), epochs=epochs)
    sizes = config.batch_sizes(d)
    assert sum(sizes) == d
    assert set(sizes[:-1]) <= {config.batch_size}
    assert 1 <= sizes[-1] <= config.batch_size
    assert config.n_steps(d) == epochs * math.ceil(d / config.batch_size)


def test_without_a_batch_size_a_step_sees_all_the_data():
    assert ss.TrainConfig().batch_sizes(20) == [20]
    assert ss.TrainConfig(epochs=7).n_steps(20) == 7


def test_the_step_sizes_are_those_of_the_schedule():
    constant = ss.TrainConfig(lr=0.25, epochs=3, batch_size=5)
    falling = ss.TrainConfig(
        lr=0.25, schedule="ExponentialLR", schedule_options={"gamma": 0.5}, epochs=4
    )
    assert list(constant.rates(20)(np.arange(12))) == [0.25] * 12
    np.testing.assert_allclose(falling.rates(20)(np.arange(4)), [0.25, 0.125, 0.0625, 0.03125])


def test_what_mlflow_gets_unless_it_is_said():
    assert ss.TrainConfig(diagnostics="off").metrics == METRICS[:4]
    every = ss.TrainConfig(diagnostics="full", schedule="inverse_time").metrics
    assert len(every) == MOST_METRICS < len(METRICS)
    assert [METRICS.index(name) for name in every] == sorted(METRICS.index(n) for n in every)
    assert "lr" not in ss.TrainConfig(diagnostics="full").metrics  # it does not change
    assert ss.TrainConfig(metrics=["w2", "loss"]).metrics == ("w2", "loss")


@pytest.mark.parametrize("rule", STOP_COLUMNS)
def test_a_stop_rule_looks_at_a_column_that_a_run_records(rule):
    config = ss.TrainConfig(lr=0.1, epochs=2, batch_size=5, stop=[rule, 1e-30])
    assert config.stop == (rule, 1e-30)
    assert STOP_COLUMNS[rule] in ss.train(PROBLEM, config=config).epochs


def order(**changes):
    """An order of two epochs of four batches of five samples, changed in one entry."""
    array = torch.arange(20).reshape(1, 4, 5).repeat(2, 1, 1)
    for place, value in changes.get("at", {}).items():
        array[place] = value
    return {"order": array, "batch_size": 5, "epochs": 2} | changes.get("given", {})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"batch_size": 21}, "batch_size 21 is more than the 20 samples"),
        ({"metrics": ["w3"]}, "no parameter w3.* w0 to w2"),
        ({"order": "stream", "batch_size": 5}, "a problem with a stream"),
        (order(at={(1, 3, 4): 20}), "indices go from 0 to 20; expected 0 to 19"),
        (order(at={(0, 0, 0): -1}), "indices go from -1 to 19"),
        (order(given={"epochs": 3}), "holds 2 epochs, fewer than epochs=3"),
        (order(given={"batch_size": 4}), "batch_size is 4, but .* hold 5 samples"),
    ],
)
def test_settings_that_do_not_fit_the_problem_are_refused(settings, says):
    refused(lambda: ss.TrainConfig(**settings).check(PROBLEM), says)


def test_settings_at_their_bounds_fit():
    for settings in ({"batch_size": 20}, {"metrics": ["w0", "w2"]}, order()):
        ss.TrainConfig(**settings).check(PROBLEM)


def named(name):
    def quantity(chunk):
        return chunk.loss

    quantity.__name__ = name
    return quantity


COLUMNS = [*columns.STEPS, *(column.name for column in columns.INDEX), "w0", "w12", "live", "arm"]


@pytest.mark.parametrize("name", COLUMNS)
def test_a_diagnostic_that_is_called_like_a_column_of_ours_is_refused(name):
    with pytest.raises(ss.InputError, match=f"my_{name}") as error:
        ss.TrainConfig(diagnostics=[named(name)])
    assert one_line(error)


def test_two_diagnostics_of_one_name_are_refused():
    for pair in ([named("mine"), named("mine")], ["alpha", named("alpha")]):
        with pytest.raises(ss.InputError, match="as another one is"):
            ss.TrainConfig(diagnostics=pair)
    twice = named("mine")
    alpha = ss.quantities.QUANTITIES["alpha"]
    history = ss.train("legendre", lr=0.1, epochs=1, diagnostics=[twice, twice, "alpha", alpha])
    assert list(history.steps)[-2:] == ["mine", "alpha"]


def test_options_that_the_caller_changes_later_change_no_config():
    options, schedule_options = {"momentum": 0.5}, {"gamma": 0.5}
    given = {"schedule": "ExponentialLR", "schedule_options": schedule_options}
    config = ss.TrainConfig(options=options, **given)
    options["momentum"], schedule_options["gamma"] = 0.9, 0.1
    assert (config.options, config.schedule_options) == ({"momentum": 0.5}, {"gamma": 0.5})
