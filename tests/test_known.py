"""A number of theory, with its tolerance and its source: what a claim takes of it."""

import dataclasses

import numpy as np
import pytest
from conftest import one_line

import sgdstudy as ss


def test_a_claim_takes_tolerance_and_source_and_always_holds_to_it():
    known = ss.Known(0.5, 0.01, "theory: a half")
    near, far = (ss.Claim("half", "arm", measured, known) for measured in (0.509, 0.511))
    for claim in (near, far):
        assert (claim.expected, claim.source, claim.always) == (0.5, "theory: a half", True)
    assert (near.holds, far.holds) == (True, False)


def test_it_is_written_and_counts_as_its_number():
    known = ss.Known(np.float32(0.25), source="theory")
    assert type(float(known)) is float
    assert float(known) == 0.25
    assert f"{known:.1%} of {known}" == "25.0% of 0.25"


def test_it_is_exact_and_unsigned_where_nothing_is_said():
    assert (ss.Known(1.0).within, ss.Known(1.0).source) == (0.0, "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        ss.Known(1.0).value = 2.0


def test_what_is_within_stays_a_distance_whatever_it_is_divided_by():
    assert (ss.Known(1.0, 0.5) / -2) == ss.Known(-0.5, 0.25)


@pytest.mark.parametrize("value", [0.05, 2 / 3, 1e-300, 12345678901234.0, -3.5e-4, 0.0])
def test_rounded_is_the_same_of_values_that_differ_in_their_last_bits(value):
    near = [value * (1 + k * 2**-52) for k in range(-8, 9)]
    assert {ss.rounded(v) for v in near} == {ss.rounded(value)}
    assert ss.rounded(value) == pytest.approx(value, rel=5e-10)
    assert ss.rounded(ss.Known(value), 3) == float(f"{value:.3g}")


@pytest.mark.parametrize(
    "given", [(None,), ("x",), (float("inf"),), (1.0, 0), (1.0, 1.5), (1.0, None)]
)
def test_what_cannot_be_rounded_is_one_line(given):
    with pytest.raises(ss.InputError) as error:
        ss.rounded(*given)
    assert one_line(error)
