"""Penalties on the parameters: part of what is minimised, and of what is recorded."""

import numpy as np
import pytest
import torch
from conftest import literal, one_line, recorded, small_curve

import sgdstudy as ss
from sgdstudy.tracking import describe

CURVE = small_curve(noise=0.1, w_init=[1.0, -0.5, 0.2], test=(torch.ones(3), torch.ones(3)))
FEW = {"lr": 0.05, "batch_size": 10, "epochs": 3}


def cubic(w):
    return 0.1 * (w.abs() ** 3).sum()


PENALTIES = {
    "l2": (("l2", 0.3), lambda w: 0.3 * (w**2).sum()),
    "l1": (("l1", 0.3), lambda w: 0.3 * w.abs().sum()),
    "own": (cubic, cubic),
}


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("seeds", [[3], [3, 4, 5]])
@pytest.mark.parametrize("name", PENALTIES)
def test_training_is_the_loop_with_the_penalty_in_its_loss(name, seeds, engine):
    given, term = PENALTIES[name]
    problem = CURVE.replace(penalty=given)
    history = ss.train(problem, optimizer="SGD", seeds=seeds, engine=engine, **FEW)
    w = problem.initial([3])[0].requires_grad_()
    loop = literal(
        lambda x: problem.model(w, x),
        [w],
        problem.x,
        problem.y,
        seed=3,
        loss=lambda prediction, y: ((prediction - y) ** 2).mean() + term(w),
        **FEW,
    )
    assert np.allclose(recorded(history, 3), loop.ws, rtol=1e-4, atol=1e-5)  # float32, 18 steps
    rows = history.steps[history.steps.seed == 3]
    assert np.allclose(rows["loss"], loop.losses, rtol=1e-4)
    assert np.allclose(rows["grad_norm"], loop.gradients.norm(dim=1), rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        end = loop.w
        plain = ((problem.model(end, problem.x) - problem.y) ** 2).mean()
        ends = history.epochs[history.epochs.seed == 3].iloc[-1]
        assert ends.full_loss == pytest.approx(float(plain + term(end)), rel=1e-4)
        test = ((problem.model(end, torch.ones(3)) - 1) ** 2).mean()
        assert ends.test_loss == pytest.approx(float(test), rel=1e-3)


def test_l2_is_half_the_weight_decay():
    decayed = ss.train(CURVE, optimizer="SGD", options={"weight_decay": 0.6}, **FEW)
    penalised = ss.train(CURVE.replace(penalty=("l2", 0.3)), optimizer="SGD", **FEW)
    assert np.allclose(decayed.w, penalised.w, rtol=1e-5)
    assert penalised.steps["loss"][0] > decayed.steps["loss"][0]


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_the_slope_of_l1_is_nothing_at_zero(engine):
    """As torch takes it: the first gradient is that of the data alone."""
    plain = CURVE.replace(w_init=[0.0, 0.0, 0.0])
    given = {"optimizer": "SGD", "engine": engine, **FEW}
    ours, theirs = (
        ss.train(problem, **given).steps["grad_norm"]
        for problem in (plain.replace(penalty=("l1", 0.3)), plain)
    )
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    assert ours[1] != pytest.approx(theirs[1], rel=1e-3)


def test_curvature_and_noise_are_those_of_the_penalised_loss():
    asked = {"diagnostics": ["hess_trace", "trace_sigma", "full_hess_max_eig"]}
    plain, ours = (
        ss.train(p, optimizer="none", dtype="float64", **asked, **FEW).steps
        for p in (CURVE.replace(penalty=lambda w: 0 * w.sum()), CURVE.replace(penalty=("l2", 0.3)))
    )
    there = ours["hess_trace"].notna()
    assert there.any()
    assert np.allclose((ours - plain)["hess_trace"][there], 2 * 0.3 * 3, rtol=1e-9)
    assert np.allclose(ours["trace_sigma"], plain["trace_sigma"], rtol=1e-9, equal_nan=True)
    there = ours["full_hess_max_eig"].notna()
    assert np.allclose((ours - plain)["full_hess_max_eig"][there], 0.6, rtol=1e-6)


def test_it_is_no_least_squares_and_a_param():
    problem = CURVE.replace(penalty=("l2", 0.3))
    assert problem.least_squares is None
    assert CURVE.least_squares is not None
    assert problem.replace(name="b").penalty == ("l2", 0.3)
    params = describe.parameters(problem, ss.TrainConfig())
    assert params["penalty"] == "l2 0.3"
    assert "penalty" not in describe.parameters(CURVE, ss.TrainConfig())


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (("l3", 1), "l1, l2"),
        (("l2", -1), "at least 0"),
        (0.1, "or a function of w"),
        (lambda w: w, "expected a number"),
        (lambda w: torch.tensor(1.0), "does not depend on w"),
        (lambda w: w[7], "failed: IndexError"),
    ],
)
def test_what_is_refused(bad, says):
    with pytest.raises(ss.InputError, match=says) as error:
        CURVE.replace(penalty=bad)
    assert one_line(error)
