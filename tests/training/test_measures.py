"""Own measures by epoch, of predictions and targets."""

import numpy as np
import pytest
import torch
from conftest import one_line, small_curve

import sgdstudy as ss
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.store import open_store

CURVE = small_curve(noise=0.1)
GIVEN = {"lr": 0.05, "batch_size": 10, "epochs": 4, "seeds": range(3)}


def worst(f, y):
    return (f - y).abs().max()


def share_score(f, y):
    return np.mean(np.sign(f.numpy()) == np.sign(y.numpy()))


MEASURES = {"worst": worst, "sign_score": share_score}


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_a_measure_is_that_of_the_parameters_at_the_end_of_the_epoch(engine):
    problem = CURVE.replace(test=(CURVE.x[:9], CURVE.y[:9]))
    history = ss.train(problem, **GIVEN, measures=MEASURES, engine=engine)
    w = history.epochs[["w0", "w1", "w2"]].to_numpy()
    for prefix, x, y in (("", CURVE.x, CURVE.y), ("test_", CURVE.x[:9], CURVE.y[:9])):
        for name, function in MEASURES.items():
            found = [float(function(problem.model(row, x), y)) for row in torch.tensor(w)]
            assert np.allclose(history.epochs[f"{prefix}{name}"], found, rtol=1e-6)


def test_it_changes_nothing_of_the_run():
    one, other = (ss.train(CURVE, **GIVEN, measures=given) for given in ({}, MEASURES))
    assert np.array_equal(one.w, other.w)
    assert set(other.epochs) - set(one.epochs) == set(MEASURES)


def test_accuracy_of_an_own_loss():
    """Logistic loss of one logit: no cross_entropy, so that no accuracy is there of itself."""

    def logistic(f, y):
        return torch.nn.functional.softplus(-f * (2 * y - 1))

    x = torch.linspace(-1, 1, 40)
    problem = ss.Problem(
        x, (x > 0.1).float(), lambda w, x: w[0] * x + w[1], logistic, w_init=[0.0, 0.0]
    )

    def accuracy(f, y):
        return ((f > 0).float() == y).float().mean()

    history = ss.train(
        problem, lr=5.0, batch_size=10, epochs=60, measures={"my_accuracy": accuracy}
    )
    assert history.at("my_accuracy", 1) < history.at("my_accuracy") == 1.0


def explodes(w, x):
    return w[0] * x


def test_the_store_has_them_and_a_diverged_seed_is_the_worst(store):
    start = {"w_init": lambda generator: [1.0 if generator.initial_seed() else 1e30]}
    problem = ss.Problem(CURVE.x, CURVE.y, explodes, lambda f, y: (f - y) ** 4, **start)
    measures = {"own": lambda f, y: worst(f, y), "sign_score": share_score}
    arm = ss.Arm(
        problem, **(GIVEN | {"lr": 1e-4}), measures=measures, metrics=["loss", "epoch/own"]
    )
    train_arm(Invocation.start(open_store(store), "own"), "arm", arm, False)
    (run,) = ss.load_runs("own", store=store).to_dict("records")
    assert run["measures"] == "own, sign_score"
    assert run["diverged"] == 1
    assert np.isnan(run.get("own_p90", np.nan))  # infinite: left out
    assert np.isfinite(run["own_p10"])
    rows = ss.load_epochs("own", store=store)
    assert {"own", "sign_score"} <= set(rows)


@pytest.mark.parametrize(
    ("measures", "says"),
    [
        (["worst"], "a dict"),
        ({"full_loss": worst}, "rename it"),
        ({"loss": worst}, "rename it"),
        ({"test_a": worst}, "rename it"),
        ({"w0": worst}, "rename it"),
        ({"a": 3}, "a function of predictions"),
        ({"a b": worst}, "a function of predictions"),
        ({"a": lambda f, y: f}, r"the measure 'a' returned shape \(.*\); expected one number"),
        ({"a": lambda f, y: None}, "the measure 'a' returned None; expected one number"),
        ({"a": lambda f: 0.0}, "the measure 'a' failed"),
        ({"a": lambda f, y: "text"}, "the measure 'a' returned 'text'"),
    ],
)
def test_what_is_no_measure_is_one_line(measures, says):
    with pytest.raises(ss.InputError, match=says) as error:
        ss.train(CURVE, **GIVEN, measures=measures)
    assert one_line(error)
