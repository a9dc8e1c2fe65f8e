"""Two arms compared seed by seed, where the answer is known: a descent with a closed form.

The loss is (w - 1)^2 from w = 3: after k steps 4 q^k, q = (1 - 2 lr)^2. `full_loss` of an epoch
is the one after its step, that of a step the one before it. Of the store see test_load.py too.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import one_line

import sgdstudy as ss
from sgdstudy.tracking.compare import by_seed

EPSILON = 1e-3


def line():
    ones = torch.ones(8, dtype=torch.float64)
    return ss.Problem(ones, ones, lambda w, x: w[0] * x, w_init=[3.0])


def descent(lr, epochs=60, seeds=(0, 1, 2), stop=("full", EPSILON)):
    return ss.train(line(), lr=lr, epochs=epochs, seeds=seeds, stop=stop)


def steps_to(target, lr):
    """The fewest steps after which 4 q^k is below the target."""
    return int(np.floor(np.log(target / 4) / np.log((1 - 2 * lr) ** 2))) + 1


def test_the_difference_and_the_ratio_of_two_descents_are_those_of_their_closed_forms():
    slow, fast = steps_to(EPSILON, 0.1), steps_to(EPSILON, 0.3)
    found = ss.compare(descent(0.1), descent(0.3))
    assert (found.median_a, found.median_b) == (slow, fast) == (19, 5)
    assert (found.difference, found.difference_interval) == (slow - fast, (slow - fast,) * 2)
    assert found.ratio == pytest.approx(slow / fast, rel=1e-15)
    assert (found.pairs, found.share_below, found.censored_a) == (3, 0.0, 0)


def test_a_column_is_compared_at_the_end_of_the_last_epoch():
    a, b = (descent(lr, epochs=4, stop=None) for lr in (0.1, 0.2))
    found = ss.compare(a, b, "full_loss")
    assert found.median_a == pytest.approx(4 * 0.64**4, rel=1e-12)
    assert found.ratio == pytest.approx((0.64 / 0.36) ** 4, rel=1e-12)


@pytest.mark.parametrize("target", [3.0, 0.5, 1e-2])
def test_a_target_takes_as_many_epochs_as_steps(target):
    history = descent(0.1, stop=None)
    expected = [float(steps_to(target, 0.1))] * 3
    for over in ("epoch", "step"):
        assert ss.time_to_target(history, target, over=over).tolist() == expected


def test_a_target_that_the_start_is_below_takes_an_epoch_or_no_step():
    history = descent(0.1, epochs=3)
    assert ss.time_to_target(history, 5.0, over="step").tolist() == [0.0] * 3
    assert ss.time_to_target(history, 5.0, over="epoch").tolist() == [1.0] * 3


def test_a_seed_that_never_stopped_is_infinite():
    assert by_seed(descent(0.1, epochs=18), "stop_epoch").tolist() == [np.inf] * 3
    assert by_seed(descent(0.1, epochs=19), "stop_epoch").tolist() == [19.0] * 3


def test_a_series_is_taken_by_its_seeds():
    times = ss.time_to_target(descent(0.1, seeds=(7, 3)), 1e-2)
    other = pd.Series([20.0, 10.0, 99.0], [3, 7, 8])
    found = ss.compare(times, other)
    assert found.pairs == 2
    assert found.values["b"].to_dict() == {7: 10.0, 3: 20.0}


@pytest.mark.parametrize("metric", [None, 3, "seed", "epoch", ["loss"]])
def test_what_is_not_a_metric_is_refused(metric):
    with pytest.raises(ss.InputError, match="stop_epoch or a column of epochs") as error:
        by_seed(descent(0.1, epochs=2), metric)
    assert one_line(error)
