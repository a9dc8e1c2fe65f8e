"""Claims: what holds, and what is written down."""

import json
from math import erfc

import numpy as np
import pytest
import torch
from conftest import one_line
from scipy.stats import t

import sgdstudy as ss
from sgdstudy.studies.claims import claims_markdown, without_tables
from sgdstudy.text import written
from sgdstudy.tracking.claims import CLAIM_FIELDS, kind_of

NAN, INF = float("nan"), float("inf")


def holds(measured, expected, tolerance=0.0):
    return ss.Claim("name", "arm", measured, expected, tolerance).holds


@pytest.mark.parametrize("measured", [None, 1, NAN, [1, 2], True])
def test_nothing_expected_is_only_described(measured):
    assert holds(measured, None) is None


@pytest.mark.parametrize(
    ("measured", "expected", "tolerance"),
    [
        (48, 48, 0),
        (49, 48, 1),
        (47.0, 48, 1),
        (np.float32(1.5), 1.5, 0),
        (np.int64(9340), 9340, 0),
        (torch.tensor(2.0), 2, 0),
        (True, True, 0),
        (np.bool_(True), True, 0),
        ([1.0, 2.0], [1.1, 2.1], 0.11),
        (np.array([1, 2]), [1, 2], 0),
        ((1, 2), [1, 2], 0),
        (INF, INF, 0),
        (-INF, -INF, 0),
        ("converged", "converged", 0),
        (5, 0, INF),
    ],
)
def test_within_the_tolerance_holds(measured, expected, tolerance):
    assert holds(measured, expected, tolerance) is True


@pytest.mark.parametrize(
    ("measured", "expected", "tolerance"),
    [
        (50, 48, 1),
        (NAN, 48, 1),
        (NAN, 48, INF),
        (NAN, NAN, 1),
        (INF, 48, 1),
        (48, INF, 1),
        (-INF, INF, 1),
        (False, True, 1),
        ([1, 2], [1, 3], 0.5),
        ([1, NAN], [1, 2], 9),
        ([1], [1, 2], 9),
        ([], [1], 9),
        (1, [1, 2], 9),
        ([1, 2], 1, 9),
        (None, 1, 9),
        (None, [1, 2], 9),
        ("diverged", "converged", 0),
        ("many", 3, 9),
    ],
)
def test_beyond_the_tolerance_fails(measured, expected, tolerance):
    assert holds(measured, expected, tolerance) is False


def test_described_keeps_all_but_the_expectation():
    claim = ss.Claim("name", "arm", 3, 4, 0.5, "theory").described()
    assert claim == ss.Claim("name", "arm", 3, None, 0.5, "theory")


def test_json_holds_the_contracts_fields():
    written = ss.Claim("stop_epoch", "arm", np.int64(47), 48, 1, "printed").as_json()
    fields = ["name", "arm", "expected", "measured", "tolerance", "holds", "source", "kind"]
    values = ["stop_epoch", "arm", 48, 47, 1, True, "printed", "prediction"]
    assert list(written) == list(CLAIM_FIELDS) == [*fields, "guess"]
    assert list(written.values()) == [*values, None]


def test_a_claim_is_of_one_kind():
    number, identity = ss.Claim("a", "b", 1, 1), ss.Claim("a", "b", 1, 1, identity=True)
    told = ss.Claim("a", "b", 1, identity=True)
    assert [c.kind for c in (number, identity, told)] == ["prediction", "identity", "description"]
    assert identity.described().kind == "description"


@pytest.mark.parametrize("seeds", [8, 16, 64])
def test_an_estimated_tolerance_is_as_rare_as_four_standard_errors(seeds):
    claim = ss.Claim.estimated("a", "b", 1.0, 0.0, 0.5, seeds, "theory")
    assert (claim.kind, claim.always) == ("prediction", True)
    tail = t.sf(claim.tolerance / 0.5, seeds - 1)
    assert tail == pytest.approx(erfc(4 / 2**0.5) / 2, rel=1e-9, abs=0)


@pytest.mark.parametrize(("seeds", "error"), [(1, NAN), (7, 0.5)])
def test_an_error_is_not_estimated_from_a_few_seeds(seeds, error):
    assert ss.Claim.estimated("a", "b", 1.0, 0.0, error, seeds).kind == "description"
    assert ss.Claim.estimated("a", "b", 1.0, 0.0, 0.5, 8).kind == "prediction"


def test_the_kind_of_a_claim_of_an_older_store_is_told_from_its_expectation():
    old = {"name": "a", "arm": "b", "measured": 1}
    assert kind_of(old | {"expected": None}) == "description"
    assert kind_of(old | {"expected": 0}) == "prediction"
    assert kind_of(old | {"expected": 0, "kind": "identity"}) == "identity"


def test_markdown_has_a_table_a_kind_and_is_cut_off_again():
    claims = [
        ss.Claim("stop", "a", 47, 48, 1),
        ss.Claim("loss", "a", 3.0, 2.0),
        ss.Claim("sum", "all arms", 0.0, 0, 1e-9, identity=True),
        ss.Claim("time", "a", 7),
    ]
    text = claims_markdown(claims)
    assert [text.count(f"| {word} |") for word in ("holds", "**FAILS**", "expected")] == [2, 1, 2]
    assert "| time | a | 7 |" in text
    assert (
        text.index("**Predictions**") < text.index("**Identities**") < text.index("**Described**")
    )
    assert "your guess" not in text
    assert without_tables(f"It is.\n\nSo.\n\n{text}") == "It is.\n\nSo."
    assert (
        without_tables("It is.\n\n| claim | arm | expected |\n| --- |") == "It is."
    )  # before kinds


@pytest.mark.parametrize(
    "claim",
    [
        ss.Claim("a", "b", INF, -INF),
        ss.Claim("a", "b", [1.0, NAN], [INF, 2.0]),
        ss.Claim("a", "b", np.array([np.inf, 1]), None),
        ss.Claim("a", "b", torch.tensor(np.nan), 1),
        ss.Claim("a", "b", 1, 1, INF),
        ss.Claim("a", "b", 1, 1, np.float32(0.5)),
        ss.Claim("a", "b", np.bool_(True), np.bool_(True)),
    ],
)
def test_json_is_strict_with_non_finite_values_as_strings(claim):
    text = json.dumps(claim.as_json(), allow_nan=False)
    assert json.loads(text)["holds"] == claim.holds


def test_non_finite_values_are_named():
    written = ss.Claim("a", "b", [NAN, 1.0], [INF, -INF]).as_json()
    assert written["measured"] == ["nan", 1.0]
    assert written["expected"] == ["inf", "-inf"]


def test_a_table_says_of_each_claim_whether_it_holds():
    claims = [ss.Claim("a", "x", 48, 48), ss.Claim("b", "x", 51, 48, 2), ss.Claim("c", "y", 7)]
    lines = claims_markdown(claims).splitlines()
    head = lines.index("| claim | arm | expected | measured | tolerance | verdict |")
    assert lines[head + 2 : head + 4] == [
        "| a | x | 48 | 48 | 0 | holds |",
        "| b | x | 48 | 51 | 2 | **FAILS** |",
    ]
    assert lines[-3:] == ["| claim | arm | measured |", "| --- | --- | --- |", "| c | y | 7 |"]
    guessed = claims_markdown([ss.Claim("a", "x", 48, 48, guess=50.0), *claims[1:]]).splitlines()
    head = guessed.index("| claim | arm | your guess | expected | measured | tolerance | verdict |")
    assert guessed[head + 2 : head + 4] == [
        "| a | x | 50 | 48 | 48 | 0 | holds |",
        "| b | x | – | 48 | 51 | 2 | **FAILS** |",
    ]
    assert claims_markdown([]) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (307.912, "307.9"),
        (9876.5, "9876"),
        (48204.0, "48204"),
        (2.5e6, "2.5e+06"),
        (-1.23456e-7, "-1.235e-07"),
        (False, "no"),
        (-INF, "-∞"),
        ("converged", "converged"),
    ],
)
def test_a_value_is_shown_with_the_digits_that_count(value, text):
    assert written(value) == text


@pytest.mark.parametrize(
    ("value", "within", "kind"),
    [
        (2.0, 0.9, "prediction"),
        (2.0, 1.0, "description"),
        (-2.0, 3.0, "description"),
        (2.0, np.nan, "description"),
        (0.0, 1.0, "prediction"),  # that nothing is there can turn out to be false
        (np.inf, 0.0, "prediction"),
        (np.nan, 1.0, "description"),
    ],
)
def test_what_is_too_vague_to_fail_only_describes(value, within, kind):
    assert ss.Claim("a", "b", 1.0, ss.Known(value, within)).kind == kind
    if np.isfinite([value, within]).all():
        assert ss.Claim("a", "b", 1.0, ss.Known(value), abs=within).kind == kind
    # one's own expectation is taken as it is
    assert ss.Claim("a", "b", 1.0, 2.0, 3.0).kind == "prediction"


def test_an_identity_of_nothing_only_describes():
    assert ss.Claim.off("a", "b", (float("nan"), ss.Known(0.0))).kind == "description"
    assert ss.Claim.off("a", "b", (0.0, ss.Known(0.0, 1e-9))).kind == "identity"


def test_an_estimated_tolerance_is_never_below_that_of_what_is_expected():
    wide = ss.Claim.estimated("a", "b", 1.0, ss.Known(1.0, 0.25), 0.001, 64)
    narrow = ss.Claim.estimated("a", "b", 1.0, ss.Known(1.0, 0.0), 0.001, 64)
    assert wide.tolerance == 0.25 > 100 * 0.25 * narrow.tolerance > 0


@pytest.mark.parametrize(
    "given",
    [
        {"measured": 10**400, "expected": 2},
        {"measured": 2, "expected": [1, -(10**400)], "tolerance": 0.5},
        {"measured": 2, "expected": 10**400, "rel": 0.1},
        {"measured": 2, "expected": 2, "tolerance": 10**5000},
    ],
)
def test_a_number_that_no_float_has_room_for_is_one_line(given):
    with pytest.raises(ss.InputError, match="float64 has room for") as error:
        ss.Claim("huge", "arm", **given)
    assert one_line(error)


def test_the_largest_whole_numbers_are_judged():
    assert holds(2**1023, 2.0**1023) is True
    assert holds(-(2**1023), 0.5, 1e308) is True
