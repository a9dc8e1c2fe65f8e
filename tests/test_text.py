"""How values are written for people."""

import numpy as np
import pytest
import torch

from sgdstudy.text import as_python, written


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (torch.tensor([0.5, 1.5]), [0.5, 1.5]),
        ((np.float64(1.0), [torch.tensor(2)]), [1.0, [2]]),
        ("text", "text"),
        (None, None),
    ],
)
def test_what_numpy_and_torch_hold_becomes_python(value, expected):
    found = as_python(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),  # four digits that count
        (-1e-12, "-1e-12"),
        (9999.4, "9999"),
        (12345.6, "12346"),  # an epoch or a step, whole
        (1234567.0, "1.235e+06"),
        (float("inf"), "∞"),
        (-np.inf, "-∞"),
        (float("nan"), "undefined"),
        (12345678, "12345678"),  # a count stays whole
        (np.True_, "yes"),
        (False, "no"),
        (None, "–"),
        ([1, None, [True, 0.5]], "1, –, yes, 0.5"),
        (np.array([48, 9340]), "48, 9340"),
        ("never", "never"),
    ],
)
def test_a_value_is_written_for_a_table(value, text):
    assert written(value) == text
