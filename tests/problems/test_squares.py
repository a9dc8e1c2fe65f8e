"""Half the mean square, multiples and weighted squares are least squares too; nothing else is."""

import numpy as np
import pytest
import torch
from conftest import small_curve
from torch import nn

import sgdstudy as ss
from sgdstudy.problems.linearity import scales
from sgdstudy.theory.predictions import predict


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def half(f, y):
    return 0.5 * (f - y) ** 2


PER_OUTPUT = torch.tensor([0.5, 2.0, 0.0])
ONE = {
    "half": half,
    "half, the other way round": lambda f, y: 0.5 * torch.pow(y - f, 2),
    "seven times": lambda f, y: 7 * (f - y).square(),
    "a tiny share": lambda f, y: 1e-9 * (f - y) ** 2,
    "a product": lambda f, y: (f - y) * (f - y) / 3,
    "MSELoss": nn.MSELoss(reduction="none"),
    "weighted by the target": lambda f, y: (1 + y.abs()) * (f - y) ** 2,
    "relative errors": lambda f, y: ((f - y) / y) ** 2,
    "some samples only": lambda f, y: torch.where(y > 0, (f - y) ** 2, 0 * f),
    "half by hand": lambda f, y: torch.nn.functional.mse_loss(f, y, reduction="none") / 2,
}
SEVERAL = {
    "half the sum": lambda f, y: 0.5 * ((f - y) ** 2).sum(1),
    "the mean": lambda f, y: ((f - y) ** 2).mean(1),
    "weighted by the output": lambda f, y: ((f - y) ** 2 * PER_OUTPUT).sum(1),
}
OTHERS = {
    "Huber": nn.HuberLoss(reduction="none", delta=1e9),
    "fourth power": lambda f, y: (f - y) ** 4,
    "log cosh": lambda f, y: torch.log(torch.cosh(f - y)),
    "absolute": lambda f, y: (f - y).abs(),
    "expectile": lambda f, y: torch.where(f > y, 2.0, 1.0) * (f - y) ** 2,
    "clipped": lambda f, y: ((f - y) ** 2).clamp(max=1e12),
    "another target": lambda f, y: (f - 2 * y) ** 2,
    "a constant beside it": lambda f, y: (f - y) ** 2 + 1,
    "decays with the prediction": lambda f, y: ((f - y) / f) ** 2,
    "negative": lambda f, y: -((f - y) ** 2),
    "by the batch": lambda f, y: (f - y) ** 2 / y.var(),
    "fails in float64": lambda f, y: (f.float() - torch.ones(3)) ** 2,
}


def problem(loss, outputs=None):
    x = random(12, 4)
    y = random(12, seed=1) if outputs is None else random(12, outputs, seed=1)
    count = 4 if outputs is None else 4 * outputs

    def model(w, x):
        return x @ w + 3 if outputs is None else x @ w.reshape(4, outputs) + 3

    return ss.Problem(x, y, model, loss, w_init=torch.zeros(count))


CASES = [(name, loss, None) for name, loss in ONE.items()]
CASES += [(name, loss, 3) for name, loss in SEVERAL.items()]


@pytest.mark.parametrize(("name", "loss", "outputs"), CASES, ids=[name for name, *_ in CASES])
def test_moments_of_squares_are_their_loss_and_gradient(name, loss, outputs):
    given = problem(loss, outputs)
    ls = given.least_squares
    assert ls is not None
    for seed in range(3):
        w = random(given.p, seed=seed).requires_grad_()
        value = loss(given.model(w, given.x), given.y).mean()
        (slope,) = torch.autograd.grad(value, w)
        w = w.detach().numpy()
        assert ls.loss(w) == pytest.approx(value.item(), rel=1e-9)
        assert np.allclose(ls.gradient(w), slope, rtol=1e-9, atol=1e-12)
    assert np.allclose(ls.gradient(ls.w_star), 0, atol=1e-12)


@pytest.mark.parametrize("loss", OTHERS.values(), ids=OTHERS)
def test_what_is_no_square_has_no_moments(loss):
    assert scales(loss, random(12)) is None


def test_outputs_that_are_mixed_have_no_moments():
    mixing = torch.tensor([[2.0, 1.0], [1.0, 2.0]]).double()

    def mixed(f, y):
        return (((f - y) @ mixing) * (f - y)).sum(1)

    assert scales(mixed, random(12, 2)) is None


def test_whoever_wants_no_moments_gets_none():
    given = small_curve(exact=False)
    assert given.least_squares is None
    assert given.replace(name="other").least_squares is None
    assert given.replace(exact=True).least_squares is not None
    with pytest.raises(ss.InputError, match="exact is True or False"):
        small_curve(exact="no")


# ---- half the mean square with twice the step is the mean square -------------------------------

SETTINGS = {"batch_size": 10, "epochs": 6, "seeds": range(4), "order": "with_replacement"}
CURVE = small_curve(noise=0.3)
HALF = CURVE.replace(loss=half)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", ["notebook", "SGD"])
@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_half_the_loss_with_twice_the_step_is_the_same_run(engine, optimizer, dtype):
    same = {**SETTINGS, "optimizer": optimizer, "engine": engine, "diagnostics": "full"}
    one = ss.train(CURVE, lr=0.125, dtype=dtype, **same)
    two = ss.train(HALF, lr=0.25, dtype=dtype, **same)
    assert np.array_equal(one.w, two.w)  # powers of two round nothing
    assert np.array_equal(one.steps[["w0", "w1", "w2"]], two.steps[["w0", "w1", "w2"]])
    share = dict.fromkeys(("loss", "grad_norm", "full_loss", "full_grad_norm"), 0.5)
    share |= dict.fromkeys(("hess_max_eig", "hess_trace"), 0.5)
    share |= dict.fromkeys(("full_hess_max_eig", "full_hess_trace"), 0.5)
    share |= dict.fromkeys(("trace_sigma", "full_trace_sigma"), 0.25)
    share |= dict.fromkeys(("noise_scale", "lr_sharpness", "alpha", "norm_test", "gsnr"), 1.0)
    for name, factor in share.items():
        near = np.allclose(two.steps[name], factor * one.steps[name], rtol=1e-9, equal_nan=True)
        assert near, name
    assert np.allclose(two.epochs.full_loss, one.epochs.full_loss / 2, rtol=1e-12)


def test_theory_of_half_the_loss_is_that_of_twice_the_step():
    ls, halved = CURVE.least_squares, HALF.least_squares
    assert np.allclose(halved.w_star, ls.w_star, rtol=1e-12)
    assert halved.least_loss == pytest.approx(ls.least_loss / 2, rel=1e-12)
    theory, d, w0 = ss.theory, CURVE.d, np.zeros(3)
    assert theory.lr_limit(halved) == pytest.approx(2 * theory.lr_limit(ls), rel=1e-12)
    for function, factor in ((theory.noise_scale, 1), (theory.trace_sigma, 0.25)):
        found, expected = function(halved, w0, d), function(ls, w0, d)
        assert found == pytest.approx(factor * expected, rel=1e-9)
    excess = theory.stationary_excess(halved, d, 10, 0.02)
    assert excess == pytest.approx(theory.stationary_excess(ls, d, 10, 0.01) / 2, rel=1e-9)


@pytest.mark.parametrize("batch_size", [None, 10])
def test_predictions_of_half_the_loss_are_those_of_twice_the_step(batch_size):
    def predicted(given, lr, epsilon):
        settings = {"lr": lr, "batch_size": batch_size, "epochs": 200, "stop": ("full", epsilon)}
        return predict(given, ss.TrainConfig(**settings, seeds=range(4)))

    least = CURVE.least_squares.least_loss
    one, two = predicted(CURVE, 0.1, 2 * least), predicted(HALF, 0.2, least)
    assert one
    assert set(one) == set(two)
    for name, value in one.items():
        factors = [f * float(two[name]) for f in (1, 2, 0.5, 4)]
        assert any(f == pytest.approx(float(value), rel=1e-6) for f in factors), name


def test_a_linearised_model_takes_half_the_loss_too():
    given = ss.Problem(random(9), random(9, seed=1), lambda w, x: torch.exp(w[0] * x), w_init=[0.5])
    w = np.array([0.3])
    one = ss.theory.linearised(given, w)
    two = ss.theory.linearised(given.replace(loss=half), w)
    assert np.allclose(two.hessian, one.hessian / 2, rtol=1e-12)
    with pytest.raises(ss.InputError, match="sum of squares"):
        ss.theory.linearised(given.replace(loss="abs"), w)
