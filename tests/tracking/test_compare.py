"""Two arms compared seed by seed, where the answer is known: a descent with a closed form.

The loss is (w - 1)^2 from w = 3: after k steps 4 q^k, q = (1 - 2 lr)^2. `full_loss` of an epoch
is the one after its step, that of a step the one before it. Of the store see test_load.py too.
"""

import shutil
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from conftest import one_line

import sgdstudy as ss
from sgdstudy.history.rows import Rows
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking.compare import by_seed
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.parquet import LABELS
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.store import open_store

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


# ---- of runs that were cut off ---------------------------------------------------------------

STARTS = {0: 3.0, 1: 1.01, 2: 1e200, 3: 3.0}  # seed 1 stops at once, seed 2 diverges at once


def from_starts(lr):
    """The descent from another start for each seed, and an arm of it."""
    x = torch.ones(8, dtype=torch.float64)
    start = {"w_init": lambda g: torch.tensor([STARTS[g.initial_seed()]], dtype=torch.float64)}
    problem = ss.Problem(x, x, lambda w, x: w[0] * x, **start)
    return ss.Arm(problem, lr=lr, batch_size=8, epochs=60, seeds=range(4), stop=("full", EPSILON))


@pytest.fixture(scope="module")
def cut(empty_store, tmp_path_factory):
    """A store with a run that finished, and with its first rows as runs that did not."""
    folder = tmp_path_factory.mktemp("cut") / "mlruns"
    shutil.copytree(empty_store, folder)
    store = str(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        begun = Invocation.start(open_store(store), "cut")
        train_arm(begun, "whole", from_starts(0.1), False)
        params = ss.load_runs("cut", store=store).iloc[0]
        told = {name: str(params[name]) for name in ("epochs", "stop", "epsilon")}
        steps = ss.load_steps("cut", store=store)
        epochs = ss.load_epochs("cut", store=store)
        first = {"steps": steps[steps.step < 2], "epochs": epochs[epochs.epoch < 3]}
        for name, how in (("killed", KeyboardInterrupt), ("failed", ValueError)):
            with suppress(how), begun.run(name, "", {}, params=told) as journal:
                sink = RunSink(journal)
                for kind, rows in first.items():
                    own = {c: rows[c].to_numpy() for c in rows.columns.difference(LABELS)}
                    batch = pa.RecordBatch.from_pydict(own)
                    sink.write(kind, Rows.of(batch, kind[:-1]))
                sink.stream.drop()
                raise how
    return store


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["killed", "failed"])
def test_a_seed_that_was_cut_off_is_not_one_that_never_gets_there(cut, no_server, arm, caplog):
    """As it was seen: cut off after 2 of 60 epochs, "4 of 4 never". What is known still counts."""
    stored = {"study": "cut", "store": cut}
    whole = ss.time_to_target("whole", 1.0, **stored)
    assert whole.tolist() == [steps_to(1.0, 0.1), 1, np.inf, steps_to(1.0, 0.1)]
    assert not caplog.records
    for over, near in (("epoch", 3.0), ("step", 3.0)):
        found = ss.time_to_target(arm, 1.0, over=over, **stored)
        np.testing.assert_array_equal(found, [np.nan, 1 - (over == "step"), np.inf, np.nan])
        assert "2 seeds are not known to get there or not" in caplog.text
        caplog.clear()
        assert ss.time_to_target(arm, near, over=over, **stored).isna().sum() == 0
        assert not caplog.records
    for metric in ("stop_epoch", "full_loss"):
        with pytest.raises(ss.InputError, match="of 2 of its 4 seeds the metric is not known") as e:
            ss.compare("whole", arm, metric, **stored)
        assert one_line(e)
        assert arm in str(e.value)
        assert {"killed": "KILLED", "failed": "FAILED"}[arm] in str(e.value)


def test_a_history_that_was_interrupted_is_not_known_either():
    """Another form: Ctrl-C in a notebook, of what no store holds."""
    whole = descent(0.1)
    cut = replace(whole, stop_reason=np.array(["converged", "interrupted", "converged"]))
    for metric in ("stop_epoch", "full_loss"):
        assert by_seed(whole, metric).notna().all()
    with pytest.raises(ss.InputError, match="of 1 of its 3 seeds the metric is not known"):
        ss.compare(whole, cut, "full_loss")
    with pytest.raises(ss.InputError, match="of 1 of its 3 seeds the metric is not known"):
        ss.compare(cut, whole)
    np.testing.assert_array_equal(ss.time_to_target(cut, 1e-9), [np.inf, np.nan, np.inf])
    assert ss.time_to_target(cut, 1.0).tolist() == [steps_to(1.0, 0.1)] * 3
