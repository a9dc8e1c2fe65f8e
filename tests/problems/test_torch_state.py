"""What a caller has set in torch and numpy changes no number, and is as it was afterwards."""

import contextlib
import random

import numpy as np
import pytest
import torch
from conftest import one_line, small_curve

import sgdstudy as ss
from sgdstudy.problems.torch_state import own_state


@contextlib.contextmanager
def during(begin, end):
    begin()
    try:
        yield
    finally:
        end()


def setting(set_, value, back):
    return lambda: during(lambda: set_(value), lambda: set_(back))


def precision(value):
    def set_(given):
        torch.set_float32_matmul_precision(given)

    return setting(set_, value, "highest")


STATES = {
    "default dtype": setting(torch.set_default_dtype, torch.float64, torch.float32),
    "half default dtype": setting(torch.set_default_dtype, torch.float16, torch.float32),
    "default device": setting(torch.set_default_device, "meta", None),
    "a device's context": lambda: torch.device("meta"),
    "no_grad": torch.no_grad,
    "grad disabled": setting(torch.set_grad_enabled, False, True),
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu"),
    "autocast to half": lambda: torch.autocast("cpu", torch.float16),
    "anomaly mode": setting(torch.set_anomaly_enabled, True, False),
    "deterministic": setting(torch.use_deterministic_algorithms, True, False),
    "threads": setting(torch.set_num_threads, 2, 1),
    "medium products": precision("medium"),
    "high products": precision("high"),
    "flushed denormals": setting(torch.set_flush_denormal, True, False),
    "numpy raises": lambda: np.errstate(all="raise"),
    "numpy is silent": lambda: np.errstate(all="ignore"),
}


def state():
    """All that a caller can see of it."""
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.is_anomaly_enabled(),
        torch.is_anomaly_check_nan_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        5e-324 * float("1") == 0,
        *np.geterr().values(),
        torch.get_rng_state().numpy().tobytes(),
        np.random.get_state()[1].tobytes(),
        random.getstate(),
    )


def network():
    """Digits, made and trained within the caller's state: products of matrices, drawn weights."""
    return ss.train("digits", lr=0.1, batch_size=100, epochs=2, seeds=range(2), diagnostics="full")


def parabola():
    given = {"lr": 0.1, "batch_size": 10, "epochs": 3, "seeds": range(3), "diagnostics": "full"}
    return ss.train(PARABOLA, **given, schedule="CosineAnnealingLR")


def diverging():
    return ss.train("curve", lr=1.0, batch_size=10, epochs=3, optimizer="Adam", dtype="float64")


def adaptive():
    return ss.train("diabetes", lr=0.01, batch_size=50, order="grab", optimizer="Adam", epochs=3)


PARABOLA = small_curve(noise=0.1)  # of tensors that the caller has made
RUNS = [network, parabola, diverging, adaptive]
EXPECTED = {}


def same(history, other):
    assert np.array_equal(history.w, other.w, equal_nan=True)
    for table in ("steps", "epochs"):
        a, b = history.load(table), other.load(table)
        assert list(a) == list(b)
        assert np.array_equal(a.to_numpy(float), b.to_numpy(float), equal_nan=True)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", STATES)
def test_no_state_of_the_caller_changes_a_number_or_is_changed(name, run):
    torch.set_num_threads(1)
    if run not in EXPECTED:
        EXPECTED[run] = run()
    with STATES[name]():
        before = state()
        history = run()
        assert state() == before
    same(history, EXPECTED[run])


@pytest.mark.parametrize("name", STATES)
def test_theory_and_evaluation_are_the_same_in_every_state(name):
    def found():
        problem = ss.problems.chebyshev(width=4)
        w = problem.initial([0]).double().numpy()
        hessian = ss.theory.linearised(problem, w[0]).hessian
        return [*problem.full(w), hessian, ss.problems.curve(0.1).least_squares.w_star]

    expected = found()
    with STATES[name]():
        before = state()
        given = found()
        assert state() == before
    assert all(np.array_equal(a, b) for a, b in zip(given, expected, strict=True))


@pytest.mark.parametrize("name", STATES)
def test_the_state_comes_back_after_an_error(name):
    def fails(chunk):
        raise ValueError("on purpose")

    with STATES[name]():
        before = state()
        with pytest.raises(ss.InputError):
            ss.train("curve", lr=0.1, epochs=1, diagnostics=[fails])
        assert state() == before


def test_data_made_in_inference_mode_are_trained_on():
    with torch.inference_mode():
        x = torch.linspace(-1, 1, 20)
        problem = ss.Problem(x, 2 * x, lambda w, x: torch.exp(w[0] * x), w_init=torch.zeros(1))
    assert not problem.x.is_inference()
    assert ss.train(problem, lr=0.1, batch_size=5, epochs=2).n_steps[0] == 8


@own_state()
def seen():
    return torch.get_default_dtype(), torch.is_grad_enabled()


def test_it_is_a_decorator_too():
    with STATES["default dtype"](), torch.no_grad():
        assert seen() == (torch.float32, True)
        assert torch.get_default_dtype() == torch.float64


# ---- a model that draws, or changes what it is given --------------------------------------------

X = np.linspace(-1, 1, 12)


def drops(w, x):
    return w[0] * torch.nn.functional.dropout(x, 0.5)


def adds_numpy_noise(w, x):
    return w[0] * x + float(np.random.normal())


def adds_python_noise(w, x):
    return w[0] * x + random.random()


def counts(w, x, calls=[]):  # noqa: B006
    calls.append(0)
    return w[0] * x + len(calls)


def own_generator(w, x, generator=torch.Generator().manual_seed(0)):  # noqa: B008
    return w[0] * x + torch.randn(len(x), generator=generator)


def changes_x(w, x):
    x -= 0.5
    return w[0] * x


def changes_x_by_numpy(w, x):
    x.numpy()[:] = 1
    return w[0] * x


class Drops(torch.nn.Linear):
    def forward(self, x):
        return torch.nn.functional.dropout(super().forward(x), 0.5, self.training)


@pytest.mark.parametrize(
    "model",
    [
        drops,
        adds_numpy_noise,
        adds_python_noise,
        counts,
        own_generator,
        changes_x,
        changes_x_by_numpy,
        Drops(1, 1),
    ],
)
def test_a_model_that_is_no_function_of_w_and_x_is_refused(model):
    before = state()
    x = X[:, None] if isinstance(model, torch.nn.Module) else X
    with pytest.raises(ss.InputError, match=r"draws|two results|changes its input") as error:
        ss.Problem(x, x, model, w_init=None if isinstance(model, torch.nn.Module) else [0.0])
    assert one_line(error)
    assert state() == before


def test_dropout_in_a_forward_pass_is_fine_in_evaluation():
    assert ss.Problem(X[:, None], X[:, None], Drops(1, 1).eval()).p == 2


def test_a_loss_that_changes_the_targets_is_refused():
    def loss(prediction, y):
        y += 1
        return (prediction - y) ** 2

    with pytest.raises(ss.InputError, match="changes its input"):
        ss.Problem(X, X, lambda w, x: w[0] * x, loss, w_init=[0.0])


def test_a_start_drawn_from_the_global_generator_is_refused():
    before = state()
    with pytest.raises(ss.InputError, match="w_init draws from torch"):
        ss.Problem(X, X, lambda w, x: w[0] * x, w_init=lambda generator: torch.randn(1))
    assert state() == before
