"""Rows are estimated before they are read, and long runs are read and written in parts."""

from types import SimpleNamespace

import pandas as pd
import psutil
import pytest
from conftest import one_line, small_curve

import sgdstudy as ss
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking import export as exporting
from sgdstudy.tracking import parquet
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.store import open_store


@pytest.fixture
def rows(store):
    """A store with two arms, of three seeds and of one."""
    invocation = Invocation.start(open_store(store), "rows")
    for name, seeds in (("three", [0, 1, 2]), ("one", [5])):
        arm = ss.Arm(small_curve(), lr=0.1, batch_size=5, epochs=4, seeds=seeds)
        train_arm(invocation, name, arm)
    return store


@pytest.mark.parametrize(
    "given", [{}, {"columns": ["loss"]}, {"seeds": [1]}, {"steps": slice(0, 30)}], ids=str
)
def test_what_memory_has_no_room_for_is_refused_before_it_is_read(rows, monkeypatch, given):
    free = SimpleNamespace(available=100)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(ss.InputError, match=r"would take .* of memory") as error:
        ss.load_steps("rows", store=rows, **given)
    assert one_line(error)
    free.available = 10**9
    assert len(ss.load_steps("rows", store=rows, **given)) > 0


@pytest.mark.slow
def test_a_long_group_of_rows_is_read_in_parts(rows, monkeypatch):
    asked = [{}, {"columns": ["loss", "w1"]}, {"seeds": [1, 5]}, {"steps": slice(10, 30)}]
    before = [ss.load_steps("rows", store=rows, **given) for given in asked]
    monkeypatch.setattr(parquet, "LONGEST_GROUP", 10)
    monkeypatch.setattr(parquet, "ROW_GROUP", 7)
    for given, expected in zip(asked, before, strict=True):
        pd.testing.assert_frame_equal(ss.load_steps("rows", store=rows, **given), expected)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["csv", "parquet"])
@pytest.mark.parametrize("most", [500, 3_000, 20_000])
def test_an_export_in_parts_is_the_same(rows, tmp_path, monkeypatch, to, most):
    """Windows of steps, of single seeds, and of several."""
    whole = exporting.export("rows", tmp_path / "whole", to, store=rows)
    monkeypatch.setattr(exporting, "_block_bytes", lambda: float(most))
    parts = exporting.export("rows", tmp_path / "parts", to, store=rows)
    read = pd.read_csv if to == "csv" else pd.read_parquet
    for one, other in zip(whole, parts, strict=True):
        pd.testing.assert_frame_equal(read(one), read(other))


@pytest.mark.slow
def test_an_export_goes_into_a_folder_of_any_name(rows, tmp_path):
    import os

    folder = tmp_path / os.fsdecode(b"caf\xe9")
    paths = exporting.export("rows", folder, "csv", store=rows)
    assert all(path.stat().st_size for path in paths)
