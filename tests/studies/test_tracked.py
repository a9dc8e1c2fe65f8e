"""Histories of a plain training, tracked afterwards."""

import numpy as np
import pytest
from conftest import one_line, small_curve

import sgdstudy as ss

GIVEN = {"lr": 0.1, "batch_size": 10, "epochs": 5, "seeds": range(3), "diagnostics": "full"}


@pytest.mark.slow
def test_what_is_loaded_is_what_was_recorded(store):
    problem = small_curve(noise=0.1)
    runs = {lr: ss.train(problem, **(GIVEN | {"lr": lr})) for lr in (0.05, 0.1)}
    found = ss.track({f"lr {lr}": run for lr, run in runs.items()}, "plain", store=store)
    assert list(found) == ["lr 0.05", "lr 0.1"]
    table = ss.load_runs("plain", store=store).set_index("arm")
    assert table.invocation.nunique() == 1
    assert dict(table.run_id) == found
    for lr, run in runs.items():
        for kind, load in (("steps", ss.load_steps), ("epochs", ss.load_epochs)):
            rows = load("plain", store=store)
            rows = rows[rows.arm == f"lr {lr}"]
            for column in run.load(kind):
                assert np.array_equal(rows[column], run.load(kind)[column], equal_nan=True), column
        assert table.full_loss[f"lr {lr}"] == pytest.approx(
            np.quantile(problem.full(run.w.astype(float))[0], 0.5, method="inverted_cdf")
        )


def test_one_history_and_its_arm(store):
    run = ss.train("curve", lr=1e-4, batch_size=10, epochs=2)
    (number,) = ss.track(run, study="plain", arm="one", about="a try", store=store).values()
    assert ss.load_runs("plain", store=store).run_id.tolist() == [number]


@pytest.mark.parametrize(
    "given",
    [
        {"history": 3, "study": "a", "arm": "b"},
        {"history": {"a": 3}, "study": "a"},
        {"history": {}, "study": "a", "arm": "b"},
        {"history": {"": None}, "study": "a"},
    ],
)
def test_what_is_no_history_is_one_line(given, store):
    with pytest.raises(ss.InputError) as error:
        ss.track(**given, store=store)
    assert one_line(error)
