"""Ratios by epoch, and the way made in an epoch."""

import numpy as np
import pytest

import sgdstudy as ss
from sgdstudy.errors import InputError


def trained(**settings):
    given = {"lr": 2e-4, "batch_size": 100, "epochs": 3, "seeds": range(3)} | settings
    return ss.train("curve", **given)


def test_a_ratio_is_the_median_over_the_seeds_epoch_by_epoch():
    run = trained()
    above, below = (run.array("epochs", name) for name in ("running_loss", "full_loss"))
    assert np.array_equal(run.ratio("running_loss", "full_loss"), np.median(above / below, 1))


def test_the_mean_gradient_is_the_way_made_to_rounding():
    assert trained(dtype="float64").way_off() < 1e-13
    assert trained().way_off() < ss.theory.sum_rounding(2000)
    assert trained(lr=1e30).way_off() == 0  # no seed ends the epoch


def test_another_step_size_would_be_seen():
    run = trained(dtype="float64")
    run.config.__dict__["lr"] *= 1.01
    start, norms = np.zeros(3), []
    first = run.epochs.query("epoch == 1")
    for row in first.itertuples():
        way = np.linalg.norm(start - [row.w0, row.w1, row.w2])
        norms.append(way / (2e-4 * 20) * (1 - 1 / 1.01) / row.mean_grad_norm)
    assert run.way_off() == pytest.approx(max(norms), rel=1e-9)


@pytest.mark.parametrize("settings", [{"optimizer": "Adam"}, {"batch_size": 300}])
def test_steps_that_are_not_that_way_are_refused(settings):
    with pytest.raises(InputError, match="plain steps"):
        trained(**settings).way_off()
