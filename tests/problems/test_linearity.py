"""Whether a model is linear in its parameters, by its own values: its offset, features, moments."""

import numpy as np
import pytest
import torch

import sgdstudy as ss
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


def linear_near_zero():
    """Models that are linear wherever |w| < 5, and bent beyond."""
    return {
        "clamp": lambda w, x: torch.clamp(w[0], -5, 5) * x + w[1],
        "hardtanh": lambda w, x: torch.nn.functional.hardtanh(w[0], -5, 5) * x + w[1],
        "softshrink": lambda w, x: (w[0] - torch.nn.functional.softshrink(w[0], 5.0)) * x + w[1],
        "where": lambda w, x: torch.where(w[0] > 5, 5 * torch.ones(()), w[0]) * x + w[1],
        "minimum": lambda w, x: torch.minimum(w[0], torch.full((), 5.0)) * x + w[1],
        "branch": lambda w, x: (w[0] if w[0] < 5 else 5 + 0 * w[0]) * x + w[1],
        "relu": lambda w, x: (5 - torch.relu(5 - w[0])) * x + w[1],
        "rounded": lambda w, x: (w[0] + torch.floor(w[0].abs() / 5)) * x + w[1],
        "whole": lambda w, x: (w[0] + (w[0] / 5).long()) * x + w[1],
        "divided": lambda w, x: (w[0] + torch.div(w[0], 5, rounding_mode="trunc")) * x + w[1],
        "item": lambda w, x: (w[0] + (w[0].item() > 5)) * x + w[1],
        "square": lambda w, x: (w[0] + 1e-30 * w[0] ** 2) * x + w[1],
    }


class Clamped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a):
        return a * 1.0

    @staticmethod
    def backward(ctx, g):
        return g.clamp(-50, 50)


def hooked(w, x):
    f = w[0] * x + w[1]
    if f.requires_grad:
        f.register_hook(lambda g: g / 2)
    return f


def in_part_without(w, x):
    with torch.no_grad():
        shift = 2 * w[1]
    return w[0] * x + shift + w[1]


# linear by their operations forward
OTHERWISE = {
    "by the largest": lambda w, x: w[0] * x / x.abs().max() + w[1],
    "centred": lambda w, x: w[0] * (x - x.mean()) + w[1],
    "any": lambda w, x: w[0] * x + w[1] * (x > 0.9).any(),
    "by place": lambda w, x: w[0] * x + w[1] * torch.arange(len(x)),
    "stopped": lambda w, x: w[0] * x + 2 * w[1].detach() + w[1],
    "no_grad": in_part_without,
    "clamped": lambda w, x: Clamped.apply(w[0] * x + w[1]),
    "hooked": hooked,
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_sees_the_batch_or_has_a_gradient_of_its_own_is_not_linear(name):
    x = torch.linspace(-1, 1, 40)
    problem = ss.Problem(x, 8 * x + 0.5, OTHERWISE[name], w_init=[0.5, -0.3])
    assert problem.least_squares is None
    whole = ss.train(problem, batch_size=None, epochs=1, dtype="float64").steps.iloc[0]
    assert whole.full_grad_norm == pytest.approx(whole.grad_norm, rel=1e-12)
    if name in ("by the largest", "centred", "any", "by place"):  # no sample has its own gradient
        parts = ss.train(problem, batch_size=8, epochs=1, diagnostics=["trace_sigma"]).steps
        assert parts["trace_sigma"].isna().all()


@pytest.mark.parametrize("name", linear_near_zero())
def test_what_is_linear_near_the_start_only_is_not_linear(name):
    model = linear_near_zero()[name]
    x = torch.linspace(-1, 1, 40)
    problem = ss.Problem(x, 8 * x + 0.5, model, w_init=[8.0, 0.0])
    assert problem.least_squares is None
    if name in ("branch", "item"):
        return  # what reads a value cannot be evaluated at many parameters at once
    given = {"batch_size": 40, "epochs": 2, "diagnostics": "off"}
    rows = ss.train(problem, optimizer="SGD", lr=0.1, **given).steps
    with torch.no_grad():
        for _, row in rows.iterrows():
            w = torch.tensor([row.w0, row.w1])
            true = float(((model(w, x) - problem.y) ** 2).mean())
            assert row.full_loss == pytest.approx(true, rel=1e-5)


def powers(x, n):
    return torch.stack([x**k for k in range(n)], -1)


LINEAR = {
    "sum of terms": lambda w, x: w[0] * x * x + w[1] * x + w[2],
    "matrix": lambda w, x: powers(x, 3) @ w,
    "einsum": lambda w, x: torch.einsum("p,bp->b", w, powers(x, 3)),
    "product and sum": lambda w, x: (w * powers(x, 3)).sum(-1),
    "samples": lambda w, x: torch.stack([torch.dot(w, row) for row in powers(x, 3)]),
    "pieces": lambda w, x: torch.where(x > 0, w[0] * x, w[1] * x) + w[2],
    "in place": lambda w, x: torch.zeros_like(x).add_(w[0] * x).mul_(2).sub_(w[1]) + w[2] / 3,
    "written": lambda w, x: torch.cat([w[:1], -w[1:]]).flip(0).cumsum(0)[(20 * x).long() % 3],
    "gathered": lambda w, x: w.gather(0, (20 * x).long() % 3) * x + 1,
    "vmap": lambda w, x: torch.vmap(lambda a: w[0] + w[1] * a + w[2] * a.exp())(x),
    "offset": lambda w, x: torch.lerp(x, x + 1, 0.5) + w[0] - w[1] * x.sin() + w[2] * x.cos(),
}


@pytest.mark.parametrize("name", LINEAR)
def test_what_is_linear_by_its_operations_is_known_to_be(name):
    x = torch.linspace(-1, 1, 40, dtype=torch.float64)
    problem = ss.Problem(x, x.exp(), LINEAR[name], w_init=[0.0] * 3)
    found, w = problem.least_squares, torch.tensor([9e3, -4e2, 8e5], dtype=torch.float64)
    true = float(((problem.model(w, x) - problem.y) ** 2).mean())
    assert found.loss(w.numpy()[None])[0] == pytest.approx(true, rel=1e-10)


@pytest.mark.parametrize(
    ("module", "linear"),
    [
        (torch.nn.Linear(4, 2), True),
        (torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)), False),
        (torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Hardtanh(-1e3, 1e3)), False),
        (torch.nn.Bilinear, True),
        (torch.nn.Sequential(torch.nn.Unflatten(1, (1, 4)), torch.nn.Conv1d(1, 2, 4)), True),
    ],
)
def test_modules(module, linear):
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    if module is torch.nn.Bilinear:

        class Form(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.form = torch.nn.Bilinear(4, 4, 2)

            def forward(self, x):
                return self.form(x, x)

        module = Form()
    with torch.no_grad():
        y = module(x)
    problem = ss.Problem(x, y, module)
    assert (problem.least_squares is not None) == linear


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


@pytest.mark.parametrize("share", [1.0, 1e-4, 1e-7])
def test_what_is_done_outside_of_torch_is_seen_by_its_values(share):
    """No operation on w is anything but linear: numpy is out of sight."""
    x = torch.linspace(1, 2, 5, dtype=torch.float64)[:, None]

    def predict(w, at):
        bend = torch.from_numpy(np.sin(w.numpy()))[:, :1]
        return w[:, :1] * at[..., 0] + share * bend

    assert moments(predict, x, x, 1) is None


class Hidden(torch.autograd.Function):
    """min(w, bound) x, computed by numpy."""

    @staticmethod
    def forward(ctx, w, x, bound):
        ctx.save_for_backward(w, x)
        ctx.bound = bound
        return torch.from_numpy(np.minimum(w.numpy(), bound) * x.numpy())

    @staticmethod
    def backward(ctx, gradient):
        w, x = ctx.saved_tensors
        return ((gradient * x).sum() * (w < ctx.bound)).reshape(w.shape), None, None


@pytest.mark.parametrize("bound", [5.0, 1e4, 1e9])
def test_what_comes_from_outside_of_torch_is_not_linear(bound):
    x = torch.linspace(1, 2, 5, dtype=torch.float64)

    def model(w, x):
        return Hidden.apply(w, x, bound)

    problem = ss.Problem(x, x, model, w_init=[8.0])
    assert problem.least_squares is None
    assert problem.full(np.array([[8.0]]))[0] == pytest.approx(
        float(((min(8.0, bound) - 1) ** 2 * x * x).mean()), rel=1e-12
    )


@pytest.mark.parametrize("bound", [5.0, 30.0, 1e3])
def test_a_part_from_outside_of_torch_is_seen_wherever_it_bends(bound):
    x = torch.linspace(1, 2, 5, dtype=torch.float64)[:, None]

    def predict(w, at):
        part = torch.from_numpy(np.minimum(w.numpy(), bound))[:, :1]
        return w[:, :1] * at[..., 0] + part

    assert moments(predict, x, x, 1) is None
