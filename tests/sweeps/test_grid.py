"""Grids as people write them, on the command line and in YAML."""

import numpy as np
import pytest
from conftest import one_line
from hypothesis import example, given
from hypothesis import strategies as st

from sgdstudy.errors import InputError
from sgdstudy.sweeps import grid


def test_logspace_has_its_ends_and_one_ratio():
    (values,) = grid.parse(["lr=logspace(1e-5,5e-4,50)"]).values()
    assert (len(values), values[0], values[-1]) == (50, 1e-5, 5e-4)
    ratios = np.divide(values[1:], values[:-1])
    np.testing.assert_allclose(ratios, 50 ** (1 / 49), rtol=1e-13)


def test_linspace_and_range_are_those_of_numpy():
    found = grid.parse(["a=linspace(0,1,5)", "b=range(2,11,3)", "c=range(0,3)", "d=range(3,0,-1)"])
    assert found == {"a": [0, 0.25, 0.5, 0.75, 1], "b": [2, 5, 8], "c": [0, 1, 2], "d": [3, 2, 1]}


def test_a_power_of_ten_is_what_one_would_write():
    assert grid.parse(["lr=logspace(0.001,10,5)"]) == {"lr": [0.001, 0.01, 0.1, 1.0, 10.0]}


def test_values_are_numbers_truth_values_none_or_words():
    found = grid.parse(["a=1, 2.5,1e-4", "b=true,False", "c=none,7", "order=shuffle,sequential"])
    assert found == {
        "a": [1, 2.5, 1e-4],
        "b": [True, False],
        "c": [None, 7],
        "order": ["shuffle", "sequential"],
    }
    assert [type(v) for v in found["a"]] == [int, float, float]


def test_points_are_all_combinations_the_last_axis_fastest():
    axes = {"a": [1, 2], "b": [3, 4, 5]}
    points = list(grid.points(axes))
    assert grid.size(axes) == len(points) == 6
    assert [tuple(p.values()) for p in points] == [(1, 3), (1, 4), (1, 5), (2, 3), (2, 4), (2, 5)]
    assert grid.name_of(points[-1], {}) == "a=2, b=5"


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=30, unique=True))
@example([0.1, 0.1 + 2**-56])
@example([1e-05, 3.1622776601683795e-05, 0.0001])
def test_the_names_of_an_axis_differ_and_have_few_digits(values):
    shown = {"lr": grid.digits(values)}
    names = {grid.name_of({"lr": value}, shown) for value in values}
    assert len(names) == len({*values})  # -0.0 is 0.0
    if len({f"{value:.4g}" for value in values}) == len(values):
        assert shown == {"lr": 4}


@pytest.mark.parametrize(
    "word",
    [
        "lr",
        "=1",
        "lr=",
        "lr=1,,2",
        "lr=1,1",
        "lr=logspace(1,2)",
        "lr=logspace(0,1,5)",
        "lr=logspace(-1,1,5)",
        "lr=logspace(1,2,2.5)",
        "lr=logspace(1,2,0)",
        "lr=logspace(1,2,-3)",
        "lr=linspace(0,1,100001)",
        "lr=linspace(0,inf,3)",
        "lr=linspace(a,b,3)",
        "lr=linspace(1,1,3)",
        "lr=range(1,5,0)",
        "lr=range(5,1)",
        "lr=range(1)",
        "lr=range(0,1e300,1e-300)",
        "lr=geomspace(1,2,3)",
        "lr=logspace()",
    ],
)
def test_a_bad_form_is_one_line_that_names_what_was_given(word):
    with pytest.raises(InputError) as error:
        grid.parse([word])
    assert one_line(error)
    assert "lr" in str(error.value) or "geomspace" in str(error.value) or word in str(error.value)


def test_a_name_given_twice_is_refused():
    with pytest.raises(InputError, match="twice") as error:
        grid.parse(["lr=1", "lr=2"])
    assert one_line(error)


NUMBER = st.one_of(st.integers(-200, 200), st.floats()).map(str)
FORM = st.sampled_from(["logspace", "linspace", "range", "other"])
CALL = st.tuples(FORM, st.lists(NUMBER, max_size=4)).map(lambda c: f"lr={c[0]}({','.join(c[1])})")


@pytest.mark.slow
@given(st.one_of(st.text(max_size=40), st.text(max_size=40).map("lr={}".format), CALL))
@example("lr=range(-0.0,1,1e-310)")
@example("lr=logspace(5e-324,1.7e308,3)")
@example("lr=linspace(-1.7e308,1.7e308,3)")
def test_any_text_is_a_grid_or_one_line(word):
    found = parsed(word)
    if isinstance(found, str):
        assert "\n" not in found
        return
    ((name, values),) = found.items()
    assert name
    assert 1 <= len(values) <= grid.MOST_VALUES
    assert len({repr(v) for v in values}) == len(values)
    assert all(isinstance(v, (int, float, str, bool, type(None))) for v in values)


def parsed(word):
    try:
        return grid.parse([word])
    except InputError as error:
        return str(error)


def written(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_yaml_says_the_same_as_the_command_line(tmp_path):
    path = written(
        tmp_path,
        """
study: ex4_minibatch
arm: descent
seeds: 8
record: steps
grid:
  lr: logspace(1e-5, 5e-4, 5)
  epsilon: [1e-4, 0.1]
  batch_size: [1, 10, none]
  order: shuffle, sequential
  epochs: 7
""",
    )
    words = ["lr=logspace(1e-5,5e-4,5)", "epsilon=1e-4,0.1", "batch_size=1,10,none"]
    words += ["order=shuffle,sequential", "epochs=7"]
    found = grid.read_yaml(path)
    assert found.pop("grid") == grid.parse(words)
    assert found == {"study": "ex4_minibatch", "arm": "descent", "seeds": 8, "record": "steps"}


@pytest.mark.parametrize(
    "text",
    [
        "grid: !!python/object/apply:os.system ['touch {}']",
        "grid: !!python/object:sgdstudy.errors.InputError {{}}",
        "grid: [1, 2]",
        "grid: {{1: [2]}}",
        "grid: {{lr: []}}",
        "grid: {{lr: {{a: 1}}}}",
        "grid: {{lr: [[1, 2]]}}",
        "grid: {{lr: [1, 1]}}",
        "grids: {{lr: [1]}}",
        "seeds: many",
        "study: [a]",
        "lr=1",
        "a: b: c",
        "",
    ],
)
def test_a_bad_file_is_one_line_and_runs_nothing(tmp_path, text):
    sign = tmp_path / "sign"
    with pytest.raises(InputError) as error:
        grid.read_yaml(written(tmp_path, text.format(sign)))
    assert one_line(error)
    assert not sign.exists()


def test_a_file_that_is_not_there_or_no_text_is_one_line(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("none.yaml", "binary"):
        with pytest.raises(InputError, match="cannot be read") as error:
            grid.read_yaml(str(tmp_path / name))
        assert one_line(error)


@pytest.mark.parametrize(
    ("text", "bracket"), [("logspace(1,0", ")"), ("1,2)", "("), ("range(1,5,1", ")")]
)
def test_a_bracket_that_is_missing_is_named(text, bracket):
    with pytest.raises(InputError, match=f"lacks a bracket '\\{bracket}'"):
        grid.parse([f"lr={text}"])
