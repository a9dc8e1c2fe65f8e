"""Numbers in which two runs differ, counted against tables changed by hand."""

import numpy as np
import pytest

import sgdstudy as ss
from sgdstudy.errors import InputError


def run(lr=1e-4, epochs=3, **settings):
    return ss.train("curve", lr=lr, batch_size=500, epochs=epochs, **settings)


def test_runs_of_one_configuration_differ_in_no_number():
    assert run().differing(run(), "loss", "w0") == 0


def test_every_number_that_differs_is_counted_once():
    one, other = run(), run()
    rows = other.steps.copy()
    rows.loc[2, "loss"] = np.nextafter(rows.loc[2, "loss"], np.inf)  # the last bit
    rows.loc[[3, 5], "w0"] = np.nan
    other.__dict__["load"] = lambda columns: rows[columns]
    assert one.differing(other, "loss") == 1
    assert one.differing(other, "loss", "w0") == other.differing(one, "loss", "w0") == 3
    assert other.differing(other, "w0") == 0  # no number on both sides is the same


def test_runs_of_another_length_differ_throughout():
    assert run().differing(run(epochs=2), "loss", "w0") == 2 * 12


def test_a_column_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="los"):
        run().differing(run(), "los")
