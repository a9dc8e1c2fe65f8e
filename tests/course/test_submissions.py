"""Every submission of the table gets its verdict: right ones none, wrong ones each cause."""

import linecache

import numpy as np
import pytest
import torch
from submissions import ENDLESS, RIGHT, SUBMISSIONS, WRONG

from sgdstudy.course.check import check
from sgdstudy.language import speaking


def function_of(name, source):
    """The last thing that a source defines, its lines known to a traceback."""
    file = f"<{name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    names = {}
    exec(compile(source, file, "exec"), names)
    return [value for value in names.values() if callable(value)][-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBMISSIONS)
def test_a_submission_gets_its_verdict(name):
    exercise, source, lines = SUBMISSIONS[name]
    states = torch.get_rng_state(), np.random.get_state()
    torch.manual_seed(0)
    np.random.seed(0)
    seconds = 2 if ENDLESS in lines else 30
    report = check(function_of(name, source), exercise, seconds)
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    assert len(report.faults) == len(lines), report
    for fault, line in zip(report.faults, lines, strict=True):
        assert line in fault, report
        assert "\n" not in fault
    assert bool(report) == report.correct == (not lines)
    assert report.as_dict() == {
        "exercise": exercise, "correct": not lines, "faults": list(report.faults)
    }  # fmt: skip


def test_the_table_is_large_and_has_both_kinds():
    assert len(SUBMISSIONS) == len(RIGHT) + len(WRONG) >= 100
    assert {row[0] for row in RIGHT.values()} == {"ex1", "ex2", "ex3", "ex4", "ex5"}


@pytest.mark.parametrize(
    "name", ["w -= in place", "nothing is printed", "f(x, w)", "two arguments"]
)
def test_a_verdict_is_in_the_language_of_who_reads_it(name):
    exercise, source, line = WRONG[name]
    with speaking("fr"):
        report = check(function_of(name, source), exercise)
    assert line not in str(report), report
    assert len(report.faults) == 1
