"""Whether a model is linear in its parameters, by its own values: its offset, features, moments."""

import numpy as np
import pytest
import torch

from sgdstudy.problems.linearity import LARGEST, TRIED, is_tried, moments

X = torch.linspace(-1, 1, 7, dtype=torch.float64)
Y = X**3 + 0.5


def quadratic(w, x):
    return 1.0 + w[:, :1] * x + w[:, 1:2] * x**2  # an offset that is not learnt


def test_the_moments_are_those_of_the_features_with_the_offset_on_the_other_side():
    found = moments(quadratic, X, Y, 2)
    phi, target = np.stack([X, X**2], 1), (Y - 1).numpy()
    w_star = np.linalg.solve(phi.T @ phi, phi.T @ target)
    np.testing.assert_allclose(found.features, phi, rtol=0, atol=1e-15)
    np.testing.assert_allclose(found.w_star, w_star, rtol=1e-12)
    np.testing.assert_allclose(found.hessian, 2 / 7 * phi.T @ phi, rtol=1e-12, atol=1e-15)
    assert found.least_loss == pytest.approx(np.mean((phi @ w_star - target) ** 2), rel=1e-12)


def test_outputs_side_by_side_count_as_rows_of_their_own():
    """Two outputs, w x and -2 w x, aimed at 3 x and -6 x: w* = 3, and H = 2 mean(x^2, 4 x^2)."""

    def both(w, x):
        return torch.stack([w[:, :1] * x, -2 * w[:, :1] * x], -1)

    found = moments(both, X, torch.stack([3 * X, -6 * X], -1), 1)
    assert (found.outputs, found.features.shape) == (2, (14, 1))
    assert found.w_star == pytest.approx([3.0], rel=1e-12)
    assert found.hessian[0, 0] == pytest.approx(2 * 2.5 * float((X**2).mean()), rel=1e-12)


@pytest.mark.parametrize(
    "model",
    [
        lambda w, x: (w[:, :1] ** 2) * x + w[:, 1:],
        lambda w, x: torch.relu(w[:, :1]) * x + w[:, 1:],
        lambda w, x: w[:, :1] * w[:, 1:] * x,
        lambda w, x: w[:, :1] * x / 0.0,  # no number
        lambda w, x: 0 * w[:, :1] * x,  # nothing to learn from
        lambda w, x: 2 * LARGEST * w[:, :1] * x,
        lambda w, x: 0.5 / LARGEST * w[:, :1] * x,
    ],
    ids=["square", "relu", "product", "nan", "zero", "too large", "too small"],
)
def test_what_is_not_linear_or_has_no_squares_has_no_moments(model):
    assert moments(model, X, Y, 2) is None


def test_a_model_that_does_not_run_in_float64_has_no_moments():
    layer = torch.ones(1, 1)  # float32

    def model(w, x):
        return (x[..., None] @ layer)[..., 0] * w[:, :1]

    assert moments(model, X, Y, 1) is None


@pytest.mark.parametrize("place", [0, 1, 2, 2 * TRIED - 1])
def test_one_sample_that_is_not_linear_is_enough_wherever_it_lies(place):
    """The trial sees every second sample of 2 TRIED; the others are seen after it."""
    x = torch.linspace(1, 2, 2 * TRIED, dtype=torch.float64)

    def model(w, at):
        bent = torch.where(at == x[place], w[:, :1] ** 2, w[:, :1])
        return bent * at

    assert moments(model, x, x, 1) is None
    assert moments(lambda w, at: w[:, :1] * at, x, x, 1).w_star == pytest.approx([1.0], rel=1e-12)


@pytest.mark.parametrize(
    ("outputs", "p", "expected"),
    [(1, 256, True), (1, 257, False), (781_250, 256, True), (781_251, 256, False)],
)
def test_features_are_tried_where_they_fit_into_memory(outputs, p, expected):
    """At most 256 parameters and 2e8 numbers: 781,250 rows of 256."""
    assert is_tried(outputs, p) is expected
