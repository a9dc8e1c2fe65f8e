"""The table of planted faults fits the code, and a fault that is planted is really there."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks" / "mutants"
sys.path.insert(0, str(FOLDER))

import table  # noqa: E402

FAULTS, GROUPS = [fault for fault, _ in table.faults()], table.groups()
sys.path.remove(str(FOLDER))
AREAS = ("theory", "quantities", "training.run", "history", "recipe.rules", "theory.predictions")


@pytest.mark.parametrize("file", sorted({fault.file for fault in FAULTS}))
def test_every_fault_occurs_once_in_its_file_and_changes_its_meaning(file):
    whole = ast.dump(ast.parse((table.ROOT / table.PACKAGE / file).read_text(encoding="utf-8")))
    for fault in FAULTS:
        if fault.file == file:
            source = fault.source()  # raises where the text is not there once
            assert ast.dump(ast.parse(source)) != whole, fault
            assert fault.means, fault


def test_the_table_is_large_spread_and_without_doubles():
    assert len(FAULTS) >= 170
    assert len({(fault.file, fault.old, fault.new) for fault in FAULTS}) == len(FAULTS)
    for area in AREAS:
        assert any(fault.area.startswith(area) for fault in FAULTS), area


def test_the_tests_of_every_group_are_there():
    for group in GROUPS:
        assert group.tests, group.file
        for name in group.tests.split():
            assert table.test_files(name), name


CHILD = """
import sys
sys.path[:0] = {paths!r}
import plant, table
(fault,) = [f for f, _ in table.faults("medians.py") if f.means == "n for its root"]
if {planted}:
    plant.plant(fault)
import numpy as np
from sgdstudy.theory.medians import standard_error
print(float(standard_error(np.array([1.0, 3.0]))))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("planted", "expected"), [(False, 1.0), (True, 2**0.5 / 2)])
def test_a_fault_that_is_planted_is_there_and_leaves_no_trace(planted, expected):
    """The deviation of 1 and 3 is sqrt(2): over sqrt(2) it is 1, over 2 it is 0.7071."""
    code = CHILD.format(paths=[str(FOLDER), str(table.ROOT)], planted=planted)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(expected, rel=1e-12)
