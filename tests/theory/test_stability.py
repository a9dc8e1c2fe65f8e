"""Limits of stability: closed forms, companion matrices, runs of a quadratic and of a network."""

import numpy as np
import pytest
import torch
from conftest import small_curve
from torch import nn

import sgdstudy as ss
from sgdstudy import theory


def companion(lr, curvature, momentum, nesterov):
    """Return one step of torch.optim.SGD on curvature w^2 / 2, as a map of (w, buffer)."""
    grown = np.array([curvature, momentum])  # buffer' = momentum buffer + gradient
    used = np.array([curvature, 0]) + momentum * grown if nesterov else grown
    return np.array([[1.0, 0.0] - lr * used, grown])


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.5, 0.9, 0.99])
def test_the_limit_is_where_the_radius_of_a_step_passes_one(momentum, nesterov):
    limit = theory.sharpness_limit(0.1, momentum, nesterov)
    for share, stays in ((0.5, True), (0.999, True), (1.001, False), (2.0, False)):
        roots = np.linalg.eigvals(companion(0.1, share * limit, momentum, nesterov))
        assert (np.abs(roots).max() < 1) == stays


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_growth_is_the_squared_radius_of_a_step(momentum, nesterov):
    for curvature in (3.0, 19.0, 25.0, 41.0):
        radius = np.abs(np.linalg.eigvals(companion(0.1, curvature, momentum, nesterov))).max()
        found = theory.growth_per_step(0.1, curvature, momentum, nesterov)
        assert found == pytest.approx(radius**2, rel=1e-9)


def test_limits_by_hand():
    assert theory.sharpness_limit(0.1) == pytest.approx(20)
    assert theory.sharpness_limit(0.1, 0.9) == pytest.approx(38)
    assert theory.sharpness_limit(0.1, 0.9, nesterov=True) == pytest.approx(38 / 2.8)
    assert theory.sharpness_limit(0.0) == np.inf
    ls = ss.problems.curve().least_squares
    assert theory.sharpness_limit(theory.lr_limit(ls)) == pytest.approx(theory.eigenvalues(ls)[-1])
    with pytest.raises(ss.InputError, match="lr"):
        theory.sharpness_limit(-1.0)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.5}, {"momentum": 0.5, "nesterov": True}])
def test_a_run_converges_below_the_limit_and_not_above(options):
    x = torch.linspace(-1, 1, 20, dtype=torch.float64)
    problem = ss.Problem(x, x, lambda w, x: w[0] * x, w_init=[0.0])
    curvature = theory.eigenvalues(problem.least_squares)[0]
    for share, ends in ((0.97, True), (1.03, False)):
        lr = share * theory.sharpness_limit(1.0, **options) / curvature
        run = ss.train(problem, lr=lr, options=options, epochs=600)
        loss = run.steps["full_loss"].to_numpy()
        assert (loss[-1] < 1e-6 * loss[0]) == ends


def network(outputs=1):
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, outputs)).double()
    p = sum(value.numel() for value in net.parameters())
    w = torch.randn(p, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(w, net.parameters())
        y = net(x)
    return ss.Problem(x, y, net, w_init=w), w.numpy()


@pytest.mark.parametrize("outputs", [1, 3])
def test_where_all_data_are_fitted_the_linearised_hessian_is_the_hessian(outputs):
    problem, w = network(outputs)
    hessian = torch.autograd.functional.hessian(
        lambda v: ((problem.model(v, problem.x) - problem.y) ** 2).mean(), torch.tensor(w)
    )
    expected = np.linalg.eigvalsh(hessian.numpy())[::-1]
    ls = theory.linearised(problem, w)
    found = theory.eigenvalues(ls)[::-1]
    assert np.allclose(found, expected[: len(found)], rtol=1e-9, atol=1e-9 * expected[0])
    assert len(found) <= problem.y.numel()
    assert ls.least_loss == pytest.approx(0, abs=1e-20)


def test_a_linear_model_linearised_anywhere_is_itself():
    problem = ss.problems.curve(noise=0.1)
    ls, same = problem.least_squares, theory.linearised(problem, np.array([1.0, -2.0, 3.0]))
    assert same.least_loss == pytest.approx(ls.least_loss)
    assert np.allclose(theory.eigenvalues(same), theory.eigenvalues(ls))
    limits = [theory.mean_square_lr_limit(each, problem.d, 5, True) for each in (ls, same)]
    assert limits[0] == pytest.approx(limits[1])


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 20])
def test_the_mean_square_limit_is_where_the_radius_is_one(batch_size, replacement):
    features = np.random.default_rng(0).normal(size=(20, 3)) * [1, 3, 0.5]
    problem = ss.Problem(features, features[:, 0], lambda w, x: x @ w, w_init=np.zeros(3))
    ls = problem.least_squares
    lr = theory.mean_square_lr_limit(ls, 20, batch_size, replacement)
    assert theory.mean_square_radius(ls, 20, batch_size, lr, replacement) == pytest.approx(1)
    assert theory.mean_square_radius(ls, 20, batch_size, 1.01 * lr, replacement) > 1
    if batch_size == 20 and not replacement:  # the full batch
        assert lr == pytest.approx(theory.lr_limit(ls))


def test_the_minimiser_of_a_linearised_model_moves_its_predictions_to_the_best_fit():
    problem, w = small_curve(noise=0.3), np.array([1.0, -2.0, 3.0])
    ls, own = theory.linearised(problem, w), problem.least_squares
    at, best = (own.features @ v for v in (w, own.w_star))
    assert np.allclose(at + ls.features @ ls.w_star, best, rtol=1e-9, atol=1e-9)
