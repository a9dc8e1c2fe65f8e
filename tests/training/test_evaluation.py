"""All the data evaluated: by the compiled step, block by block, and by torch, from one pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import sgdstudy as ss
from sgdstudy.problems.evaluation import Evaluation
from sgdstudy.training.compiled import compile_steps, steps

needs_compiler = pytest.mark.skipif(bool(steps.compiler_fault()), reason="no C++ compiler")
D, INPUTS, CLASSES = 53, 5, 3


def network(outputs):
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(INPUTS, 7), nn.Tanh(), nn.Linear(7, outputs))


def classes(**given):
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(D, INPUTS, generator=draw)
    y = torch.randint(CLASSES, (D,), generator=draw)
    return ss.Problem(x, y, network(CLASSES), "cross_entropy", **given)


def regression(loss, **given):
    draw = torch.Generator().manual_seed(3)
    x, y = torch.randn(D, INPUTS, generator=draw), torch.randn(D, 2, generator=draw)
    return ss.Problem(x, y, network(2), loss, **given)


def huber(prediction, y):
    return nn.functional.huber_loss(prediction, y, reduction="none").mean(1)


def by_hand(loss, extra=lambda w: 0.0):
    """Return what computes a loss of all the data in float64, as one expression of w `(p,)`."""

    def of(problem, w):
        w = torch.tensor(w, dtype=torch.float64, requires_grad=True)
        x, y = problem.x.double(), problem.y
        outputs = (w.numel() - 7 * INPUTS - 7) // 8  # 7 weights and an offset each
        a, b, c, e = w.split([7 * INPUTS, 7, 7 * outputs, outputs])
        f = torch.tanh(x @ a.reshape(7, INPUTS).T + b) @ c.reshape(-1, 7).T + e
        value = loss(f, y if not y.is_floating_point() else y.double()) + extra(w)
        (slope,) = torch.autograd.grad(value, w)
        return value.item(), slope.numpy(), f.detach()

    return of


PROBLEMS = {
    "cross entropy": (classes, by_hand(nn.functional.cross_entropy)),
    "mse": (lambda: regression("mse"), by_hand(lambda f, y: ((f - y) ** 2).mean())),
    "abs": (lambda: regression("abs"), by_hand(lambda f, y: ((f - y) ** 2).sum(1).sqrt().mean())),
    "rmse": (lambda: regression("rmse"), by_hand(lambda f, y: ((f - y) ** 2).mean().sqrt())),
    "own": (lambda: regression(huber), by_hand(lambda f, y: huber(f, y).mean())),
    "penalty": (
        lambda: classes(penalty=("l2", 0.1)),
        by_hand(nn.functional.cross_entropy, lambda w: 0.1 * (w * w).sum()),
    ),
}
# batches of 10 leave 3, which a step takes, or none does; all at once; one by one
HOW = [
    {"batch_size": 10},
    {"batch_size": 10, "drop_last": True},
    {"batch_size": None},
    {"batch_size": 1},
]


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 3, 17])
@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_compiled_step_evaluates_as_one_expression_does(name, how, n):
    make, expected = PROBLEMS[name]
    problem = make()
    made = compile_steps(problem, ss.TrainConfig(lr=0.1, seeds=range(n), **how))
    assert (made.block == 0) == (name == "rmse" and how["batch_size"] is not None)
    w = parameters(problem, n)
    evaluated_as(made.evaluate(w), problem, w, expected)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("at_once", [5 * INPUTS, 100_000])
@pytest.mark.parametrize("name", PROBLEMS)
def test_torch_evaluates_as_one_expression_does(name, at_once, n, monkeypatch):
    monkeypatch.setattr("sgdstudy.problems.evaluation.EVALUATE_AT_ONCE", at_once)
    make, expected = PROBLEMS[name]
    problem = make()
    w = parameters(problem, n)
    evaluated_as(problem.evaluate(w), problem, w, expected)
    assert np.allclose(problem.full_loss(w), [expected(problem, row)[0] for row in w], rtol=1e-5)


def parameters(problem, n):
    draw = np.random.default_rng(4)
    return draw.standard_normal((n, problem.p)).astype("f").astype(float)


def evaluated_as(found, problem, w, expected):
    for r, row in enumerate(w):
        value, slope, f = expected(problem, row)
        assert found.loss[r] == pytest.approx(value, rel=1e-5)
        assert np.allclose(found.gradient[r], slope, rtol=0, atol=1e-5 * np.abs(slope).max())
        if problem.loss == "cross_entropy":
            right = (f.argmax(1) == problem.y).double().mean().item()
            assert found.accuracy[r] == pytest.approx(right, rel=1e-12)
        else:
            assert found.accuracy is None


@needs_compiler
@pytest.mark.parametrize("n", [1, 17])
def test_in_float64_to_the_last_digits(n):
    problem = classes().to(torch.float64, "cpu")
    made = compile_steps(problem, ss.TrainConfig(lr=0.1, batch_size=10, seeds=range(n)))
    w = parameters(problem, n)
    found = made.evaluate(w)
    for r, row in enumerate(w):
        value, slope, _ = PROBLEMS["cross entropy"][1](problem, row)
        assert found.loss[r] == pytest.approx(value, rel=1e-13)
        assert np.allclose(found.gradient[r], slope, rtol=0, atol=1e-13 * np.abs(slope).max())


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("n", [1, 17])
def test_equal_logits_and_parameters_that_are_no_numbers_count_as_torch_counts_them(n):
    problem = classes()
    made = compile_steps(problem, ss.TrainConfig(lr=0.1, batch_size=10, seeds=range(n)))
    w = parameters(problem, n)
    w[0] = 0.0  # all logits are equal: the first class
    found = made.evaluate(w)
    assert found.accuracy[0] == pytest.approx((problem.y == 0).double().mean().item(), rel=1e-12)
    assert found.loss[0] == pytest.approx(np.log(CLASSES), rel=1e-6)
    for value in (np.nan, np.inf):
        w[0] = value  # of NaN, too, the first is the largest
        found = made.evaluate(w)
        assert np.isnan(found.loss[0])
        assert found.accuracy[0] == pytest.approx((problem.y == 0).double().mean().item())
        assert np.isfinite(found.loss[1:]).all()


@needs_compiler
def test_one_logit_that_is_no_number_is_the_largest():
    problem = ss.Problem(
        np.ones((20, 3), "f"),
        np.arange(20) % 3,
        nn.Sequential(nn.Linear(3, 3, bias=False), nn.Softplus(), nn.Linear(3, 3)),
        "cross_entropy",
    )
    made = compile_steps(problem, ss.TrainConfig(lr=0.1, batch_size=10))
    w = problem.initial([0]).double().numpy()
    w[0, -2] = np.nan  # the offset of class 1
    assert made.evaluate(w).accuracy[0] == pytest.approx(7 / 20)  # seven of twenty are of class 1
    assert problem.evaluate(w).accuracy[0] == pytest.approx(7 / 20)


# ---- whole runs --------------------------------------------------------------------------------

ENGINES = ["eager", pytest.param("compiled", marks=needs_compiler)]


def trained(problem, engine, **settings):
    given = {"lr": 0.1, "batch_size": 10, "epochs": 4, "seeds": range(3), "engine": engine}
    return ss.train(problem, **(given | settings))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("how", [{}, {"batch_size": None}])
def test_the_rows_of_a_run_are_what_its_last_parameters_say(engine, how):
    held_out = classes().replace(test=(classes().x[:20] + 0.5, classes().y[:20]))
    history = trained(held_out, engine, **how)
    last = history.epochs[history.epochs.epoch == 4].set_index("seed")
    for r, row in enumerate(history.w.astype(float)):
        value, slope, f = PROBLEMS["cross entropy"][1](held_out, row)
        assert last.full_loss[r] == pytest.approx(value, rel=1e-5)
        assert last.full_grad_norm[r] == pytest.approx(np.linalg.norm(slope), rel=1e-4)
        assert last.accuracy[r] == pytest.approx((f.argmax(1) == held_out.y).double().mean().item())
        f = history.module(r)(held_out.test[0]).detach()
        right = (f.argmax(1) == held_out.test[1]).double().mean().item()
        assert last.test_accuracy[r] == pytest.approx(right)
        expected = nn.functional.cross_entropy(f, held_out.test[1]).item()
        assert last.test_loss[r] == pytest.approx(expected, rel=1e-5)


@pytest.fixture
def looks(monkeypatch):
    """Return how many parameter vectors each look at all the data had, and the passes over some."""
    seen = {"evaluate": [], "scores": []}
    for name, numbers in seen.items():
        whole = getattr(Evaluation, name)

        def counted(self, w, *more, _whole=whole, _numbers=numbers, **settings):
            _numbers.append(len(w))
            return _whole(self, w, *more, **settings)

        monkeypatch.setattr(Evaluation, name, counted)
    return seen


def test_a_start_that_all_seeds_share_is_evaluated_once(looks):
    history = trained(classes(), "eager", evaluate_every=4)
    assert looks == {"evaluate": [1, 3], "scores": []}
    first = history.steps[history.steps.step == 0]
    value, slope, _ = PROBLEMS["cross entropy"][1](
        classes(), classes().initial([0])[0].double().numpy()
    )
    assert first.full_loss.to_numpy() == pytest.approx([value] * 3, rel=1e-5)
    assert first.full_grad_norm.to_numpy() == pytest.approx([np.linalg.norm(slope)] * 3, rel=1e-4)


def test_starts_that_differ_are_each_evaluated(looks):
    trained(classes(init="default"), "eager", evaluate_every=4)
    assert looks["evaluate"] == [3, 3]


def test_without_rows_of_steps_the_start_is_not_evaluated(looks):
    trained(classes(), "eager", evaluate_every=4, record_rows=0)
    assert looks["evaluate"] == [3]


def test_the_test_data_is_passed_once_for_loss_and_accuracy(looks):
    problem = classes()
    trained(problem.replace(test=(problem.x, problem.y)), "eager", evaluate_every=2, ema=0.9)
    assert looks["scores"] == [6, 6]  # at two ends: of the parameters, of their moving average
