"""What is evaluated at the ends of some epochs only, and what stays."""

from __future__ import annotations

import numpy as np
import pytest

import sgdstudy as ss
from sgdstudy.recipe.identity import Identity

EVALUATED = ["full_loss", "full_grad_norm", "test_loss", "accuracy", "test_accuracy"]
EVALUATED += ["average_loss", "ema_loss", "ema_test_loss", "ema_test_accuracy", "sure", "test_sure"]


def sure(predictions, targets):
    """Return the mean of the largest share that a sample's classes have."""
    return predictions.softmax(-1).max(-1).values.mean()


def trained(**settings):
    some = {"batch_size": 200, "lr": 0.1, "epochs": 10, "seeds": range(3), "average": 0.5}
    some |= {"ema": 0.9, "measures": {"sure": sure}, "diagnostics": "off"}
    return ss.train(ss.problems.digits(hidden=4), **{**some, **settings})


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_what_is_due_has_the_bits_of_a_run_that_evaluates_all(engine):
    every, some = trained(engine=engine), trained(engine=engine, evaluate_every=4)
    due = every.epochs["epoch"].isin([4, 8, 10])
    assert some.epochs[due].equals(every.epochs[due])
    assert some.epochs[~due][EVALUATED].isna().all(axis=None)
    others = every.epochs.columns.difference(EVALUATED)
    assert some.epochs[others].equals(every.epochs[others])
    np.testing.assert_array_equal(some.w, every.w)


def test_the_rows_of_steps_know_the_loss_where_it_was_evaluated():
    rows = trained(evaluate_every=4).steps
    known = rows[rows["full_loss"].notna()]
    assert set(known["epoch"]) == {1, 5, 9}  # the start, and what follows an evaluated end
    assert set(known["batch"]) == {0}


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_the_angle_to_the_whole_gradient_is_known_where_that_is(engine):
    settings = {"engine": engine, "diagnostics": ["grad_cosine"]}
    every, some = trained(**settings).steps, trained(**settings, evaluate_every=4).steps
    known = (some["batch"] == 0) & some["epoch"].isin([1, 5, 9])
    assert some.loc[known, "grad_cosine"].equals(every.loc[known, "grad_cosine"])
    assert some.loc[known, "grad_cosine"].notna().all()
    assert some.loc[~known, "grad_cosine"].isna().all()


@pytest.mark.slow
def test_the_end_of_a_run_that_stops_is_evaluated():
    settings = {"epochs": 60, "stop": ("running", 1.2)}
    every, some = trained(**settings), trained(**settings, evaluate_every=50)
    np.testing.assert_array_equal(some.stop_epoch, every.stop_epoch)
    assert (every.stop_epoch < 50).all()
    ends = some.epochs.groupby("seed").tail(1)
    assert ends.equals(every.epochs.groupby("seed").tail(1))


def test_least_squares_know_their_loss_at_every_end():
    history = ss.train(ss.problems.curve(), batch_size=100, lr=2e-4, epochs=5, evaluate_every=5)
    assert history.epochs["full_loss"].notna().all()


@pytest.mark.parametrize("rule", ["full", "grad_norm", "test_loss", "accuracy", "sure"])
def test_a_stop_rule_needs_its_column_at_every_epoch(rule):
    with pytest.raises(ss.InputError, match=r"beside evaluate_every.*running"):
        trained(evaluate_every=2, stop=(rule, 0.5))


def test_a_run_goes_on_as_it_would_have_without_a_break(tmp_path):
    from sgdstudy.training import run as runs

    whole = trained(evaluate_every=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "CHUNK_VALUES", 1)  # every chunk is one step
        parts = trained(evaluate_every=4)
    assert parts.epochs.equals(whole.epochs)


def test_what_earlier_versions_did_not_know_leaves_their_runs_the_same():
    problem = ss.problems.curve()
    parts = Identity.of(problem, ss.TrainConfig(batch_size=10)).parts
    assert not {"evaluate_every", "batch_schedule"} & set(parts)
    assert "evaluate_every" in Identity.of(problem, ss.TrainConfig(evaluate_every=2)).parts
