"""What holds by definition: off by rounding only where it does, and by far where it does not."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import one_line, small_curve

import sgdstudy as ss
from sgdstudy.history import identities
from sgdstudy.studies.outcome import Runs

# identity: a loss of which it holds at rest, and the column that is spoilt to break it
AT_REST = {
    "sum": ("rmse", "mean_loss"),
    "mean": ("abs", "running_loss"),
    "weighting": ("mse", "mean_loss"),
    "triangle": ("norm", "sum_loss"),
    "jensen": ("rmse", "running_loss"),
    "full_grad": ("mse", "full_grad_norm"),
    "mean_grad": ("mse", "norm_mean_grad"),
    "grad_triangle": ("mse", "full_grad_norm"),
}


def trained(loss, **settings):
    given = {"optimizer": "none", "epochs": 1, "lr": 0.1, "batch_size": 7, "seeds": range(3)}
    return ss.train(small_curve(loss=loss), **(given | settings))


def spoilt(run, column, by):
    """The run, one of its columns of `epochs` multiplied."""

    def load(kind="steps", **which):
        rows = run.load(kind, **which)
        return rows.assign(**{column: rows[column] * by}) if column in rows else rows

    return SimpleNamespace(problem=run.problem, config=run.config, load=load, gaps=run.gaps)


@pytest.mark.parametrize("identity", AT_REST)
def test_an_identity_holds_within_the_rounding_of_its_sums(identity):
    off = trained(AT_REST[identity][0]).off(identity)
    assert 0 <= off.value <= off.due.within < 1e-4
    assert off.due.value == 0
    assert off.due.source


@pytest.mark.parametrize("identity", AT_REST)
def test_an_identity_that_is_broken_is_off_by_as_much(identity):
    """A column off by a factor of 10 is 9 off of what it should be, at least 0.5 of any bound."""
    loss, column = AT_REST[identity]
    off = identities.off(spoilt(trained(loss), column, 10.0), identity)
    assert off.value > 0.5 > off.due.within


@pytest.mark.parametrize("identity", ["triangle", "jensen"])
def test_what_is_below_its_bounds_is_off_too(identity):
    """At rest a value is at most sqrt(8) times its lower bound, or sqrt(53 / 4) times."""
    loss, column = AT_REST[identity]
    off = identities.off(spoilt(trained(loss), column, 0.01), identity)
    assert off.value > 100 / np.sqrt(53 / 4) - 1 - 1e-3


def test_drift_and_sampling_add_up_while_w_moves_and_the_others_do_not_hold():
    run = trained("mse", optimizer="SGD", epochs=3, dtype="float64", order="sequential")
    assert run.off("split").value <= run.off("split").due.within
    assert run.off("mean").value > 1e-3
    assert identities.off(spoilt(run, "running_loss", 1.01), "split").value > 1e-3


@pytest.mark.parametrize("size", [7, 53])
def test_the_bounds_are_met_where_batches_are_alike_or_one(size):
    """Of one batch both bounds are the norm itself: off by rounding, to either side."""
    run = trained("norm", batch_size=size)
    least = (run.epochs["sum_loss"] / run.epochs["full_loss"]).min()
    assert least > 1 if size == 7 else abs(least - 1) < 1e-6


def test_a_loss_over_the_full_one_is_a_median_by_epoch():
    run = trained("mse", optimizer="SGD", epochs=3)
    rows = run.epochs.assign(ratio=run.epochs["running_loss"] / run.epochs["full_loss"])
    expected = [np.median(rows[rows["epoch"] == epoch]["ratio"]) for epoch in (1, 2, 3)]
    np.testing.assert_allclose(run.over_full("running_loss"), expected, rtol=1e-6)


def test_another_identity_is_refused_in_one_line():
    with pytest.raises(ss.InputError, match="identity") as error:
        trained("mse").off("means")
    assert one_line(error)


def test_the_mean_gradient_of_plain_steps_is_the_way_made():
    run = trained("mse", optimizer="SGD", batch_size=53)
    assert 0 < run.off("way").value <= run.off("way").due.within < 1e-4
    assert identities.off(spoilt(run, "norm_mean_grad", 1.01), "way").value > 1e-3


def test_a_kept_order_ends_where_its_own_map_takes_it():
    problem = ss.problems.legendre("normal", d=12)
    given = {"lr": 0.02, "batch_size": 1, "order": "shuffle_once", "epochs": 20, "seeds": range(9)}
    run = ss.train(problem, **given)
    off = run.off("own_error")
    assert 0 < off.value <= off.due.within < 1e-3
    assert identities.off(spoilt(run, "w0", 1.01), "own_error").value > 1e-3


def test_runs_without_an_epoch_say_nothing_of_an_identity():
    given = {"batch_size": 10, "optimizer": "notebook", "progress": False}
    lost = ss.train("curve", lr=1.0, epochs=2, **given)
    whole = ss.train("curve", lr=1e-5, epochs=1, **given)
    assert lost.epochs.empty
    for identity in ("way", "sum", "grad_triangle", "mean"):
        assert np.isnan(lost.off(identity).value)
    assert np.isnan(Runs(lost=lost).off("way").value)
    assert Runs(lost=lost, whole=whole).off("way") == whole.off("way")
    assert lost.excess_at_end == np.inf
