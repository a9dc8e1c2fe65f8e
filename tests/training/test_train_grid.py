"""The trainer over a grid: each history is that of `ss.train` for its combination alone."""

import itertools
import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import one_line, small_curve
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import sgdstudy as ss
from sgdstudy.recipe import draw_cache
from sgdstudy.training import beside, engines, run

CURVE = small_curve(noise=0.1)
# Float64: a gradient of up to 500 products and sums is off by 500 roundings of 1.1e-16 at the most,
# 40 steps add up 40 of these, and steps below 2 / L do not amplify them: 2.2e-12, times 500 in hand
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
# ratios of differences of such numbers, which are a thousandth of them or more
CLOSE_RATIOS = {"rtol": 1e-6, "atol": 1e-6}


def classes(**changes):
    """Points in three classes, and a small network."""
    draw = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = draw.normal(size=(60, 5)) + np.eye(5)[y]
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    test = (x[:9] + 0.1, y[:9])
    given = {"loss": "cross_entropy", "init": "default", "test": test, "name": "classes"}
    return ss.Problem(x, y, net, **(given | changes))


def linear():
    """Least squares: a module without a nonlinearity."""
    draw = np.random.default_rng(1)
    x = draw.normal(size=(40, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.1 * draw.normal(size=40)
    return ss.Problem(x, y[:, None], nn.Linear(3, 1).double(), init="default", name="linear")


def points(grid):
    """The combinations of a grid."""
    return [dict(zip(grid, p, strict=True)) for p in itertools.product(*grid.values())]


def alone(problem, grid, **given):
    """What `ss.train` gives for each combination."""
    found = []
    for point in points(grid):
        own = {name: point[name] for name in ("lr",) if name in point}
        options = given.get("options", {}) | {k: v for k, v in point.items() if k != "lr"}
        found.append(ss.train(problem, **(given | own | {"options": options})))
    return found


def agree(one, other, **close):
    """Whether two histories are one: to the last bit, or but for rounding where that is given."""
    tolerance = close or {"check_exact": True}
    for kind in ("steps", "epochs"):
        pd.testing.assert_frame_equal(one.load(kind), other.load(kind), **tolerance)
    assert np.allclose(one.w, other.w, equal_nan=True, **(close or {"rtol": 0, "atol": 0}))
    for name in ("stop_epoch", "stop_reason", "n_steps"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()
    for name in ("lr", "seeds", "optimizer"):
        assert getattr(one.config, name) == getattr(other.config, name)
    assert one.config.options == other.config.options
    for name in ("engine", "engine_note", "problem"):
        assert getattr(one, name) == getattr(other, name)


def compared(problem, grid, close=CLOSE, **given):
    """The histories of a grid, each compared with its own alone."""
    found = ss.train_grid(problem, grid, **given)
    for one, other in zip(found, alone(problem, grid, **given), strict=True):
        agree(one, other, **close)
    return found


# ---- equal to each alone --------------------------------------------------------------------

RULES = [
    ("SGD", {"lr": [0.01, 0.1, 0.5], "momentum": [0.0, 0.9]}, {}),
    ("SGD", {"nesterov": [False, True], "weight_decay": [0.0, 0.01]}, {"momentum": 0.5}),
    ("SGD", {"lr": [0.1], "dampening": [0.0, 0.5], "momentum": [0.5, 0.9]}, {}),
    ("SGD", {"momentum": (0.5, 0.6)}, {}),
    ("Adam", {"lr": [0.01, 0.05], "betas": [(0.5, 0.9), (0.9, 0.999)]}, {"eps": 1e-3}),
    ("Adam", {"amsgrad": [False, True], "lr": [0.01]}, {}),
    ("RMSprop", {"alpha": [0.9, 0.99], "centered": [False, True]}, {"eps": 1e-2}),
    ("Rprop", {"etas": [(0.5, 1.2), (0.3, 1.5)]}, {}),
    ("notebook", {"lr": [0.01, 0.02, 0.04, 0.08]}, {}),
    ("polyak", {"c": [1.0, 2.0], "lr": [0.1, 0.2]}, {}),
    ("none", {"lr": [0.1, 0.2]}, {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "grid", "options"), RULES)
def test_each_is_as_alone_in_eager_steps_but_for_rounding(optimizer, grid, options):
    given = {"optimizer": optimizer, "options": options, "engine": "eager", "seeds": [3, 0]}
    compared(classes(), grid, batch_size=16, epochs=5, **given)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "grid", "options"), RULES)
def test_each_is_as_alone_bit_for_bit_on_the_curve(optimizer, grid, options):
    """Where every operation is on numbers, as on the curve, nothing rounds by the batch's size."""
    given = {"optimizer": optimizer, "options": options, "engine": "eager", "seeds": [3, 0]}
    compared(CURVE, grid, close={}, batch_size=10, epochs=5, **given)


COMPILED = [case for case in RULES if case[0] not in ("Rprop", "Adam")] + [RULES[4]]


@pytest.mark.slow
@pytest.mark.parametrize("problem", [CURVE, classes(), linear()])
@pytest.mark.parametrize(("optimizer", "grid", "options"), COMPILED)
def test_each_is_as_alone_bit_for_bit_where_steps_are_compiled(problem, optimizer, grid, options):
    given = {"optimizer": optimizer, "options": options, "engine": "compiled", "seeds": [3, 0]}
    found = compared(problem, grid, close={}, batch_size=16, epochs=5, **given)
    assert {history.engine for history in found} == {"compiled"}


class Own(torch.optim.SGD):
    """An optimiser of one's own."""


def flat(row):
    return row["epoch"] > 1 and row["running_loss"] < 0.95


def flipped(generator, d):
    return torch.randperm(d, generator=generator).flip(0)


def stream(generator):
    while True:
        x = torch.randn(7, 5, generator=generator, dtype=torch.float64)
        yield x, (x[:, 0] > 0).long()


SETTINGS = [
    {"schedule": "CosineAnnealingLR"},
    {"schedule": "StepLR", "schedule_options": {"step_size": 2}, "schedule_unit": "epoch"},
    {"stop": ("running", 1.0), "epochs": 12},
    {"stop": ("test_accuracy", 0.5), "patience": 2, "epochs": 8},
    {"stop": ("test_loss", None), "patience": 3, "epochs": 12},
    {"stop": flat, "epochs": 12},
    {"steps": 13},
    {"record_rows": 7},
    {"record_rows": 0},
    {"clip_norm": 0.3, "clip_value": 0.1},
    {"ema": 0.9, "average": 0.5},
    {"evaluate_every": 3},
    {"batch_size": None},
    {"batch_schedule": {2: 7}},
    {"drop_last": True},
    {"order": "with_replacement"},
    {"order": "grab"},
    {"order": flipped},
    {"order": np.arange(2 * 5 * 4 * 15).reshape(2, 5, 4, 15) % 60, "batch_size": 15},
    {"groups": {"0.*": {"lr": 0.01}, "2.bias": {"weight_decay": 0.1}}},
    {"optimizer": Own},
    {"dtype": "float64", "measures": {"mean": lambda f, y: f.mean()}},
    {"diagnostics": "off", "diagnostics_every": 2},
]


@pytest.mark.slow
@pytest.mark.parametrize("changes", SETTINGS, ids=lambda changes: "-".join(changes))
def test_all_else_is_as_alone(changes):
    given = {"batch_size": 16, "epochs": 5, "seeds": [3, 0], "engine": "eager"} | changes
    found = compared(classes(), {"lr": [0.02, 0.1, 0.5], "momentum": [0.0, 0.5]}, **given)
    if "stop" in changes:  # else it says nothing of replicas that end apart
        assert len({epoch for history in found for epoch in history.stop_epoch}) > 1


@pytest.mark.slow
def test_diagnostics_are_as_alone():
    names = ["alpha", "trace_sigma", "noise_scale", "gsnr", "hess_max_eig", "full_trace_sigma"]
    given = {
        "diagnostics": names,
        "batch_size": 16,
        "epochs": 3,
        "seeds": range(2),
        "engine": "eager",
    }
    compared(classes(), {"lr": [0.02, 0.1]}, close=CLOSE_RATIOS, **given)


@pytest.mark.slow
def test_least_squares_are_as_alone_and_what_diverges_harms_no_other():
    """lr 30 is beyond 2 / L of every batch: its replicas end, the others go on."""
    given = {"batch_size": 8, "epochs": 60, "seeds": range(3), "engine": "eager"}
    found = compared(linear(), {"lr": [0.01, 30.0, 0.1]}, **given)
    reasons = [set(history.stop_reason) for history in found]
    assert reasons == [{"max_epochs"}, {"diverged"}, {"max_epochs"}]
    assert (found[1].n_steps < found[0].n_steps).all()


@pytest.mark.slow
def test_vectors_that_are_not_kept_and_epochs_that_are_cut_are_as_alone(monkeypatch):
    """Of many parameters in float32 those at the ends of epochs are kept; rounding as of float32.

    A product of 5 to 2000 numbers is off by 2000 roundings of 6e-8 at the most, mostly by their
    square root; 12 steps below 2 / L: 12 * 45 * 6e-8 = 3e-5 of a gradient, times lr 0.1 and 3 in
    hand, of parameters of size 0.1 and more.
    """
    problem = classes()
    draw = np.random.default_rng(2)
    x, y = draw.normal(size=(60, 5)).astype("f"), problem.y.numpy()
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(5, 2000), nn.Tanh(), nn.Linear(2000, 3))
    monkeypatch.setattr(run, "CHUNK_VALUES", 150_000)  # of an epoch's four steps, two at a time
    close = {"rtol": 1e-4, "atol": 1e-5}
    given = {
        "batch_size": 15,
        "epochs": 3,
        "seeds": range(2),
        "engine": "eager",
        "diagnostics": "off",
    }
    wide = ss.Problem(x, y, net, loss="cross_entropy")
    assert wide.p > engines.Eager.spares
    compared(wide, {"lr": [0.01, 0.1]}, close=close, **given)


@pytest.mark.slow
def test_a_stream_is_as_alone():
    problem = classes(stream=stream)
    given = {"order": "stream", "batch_size": 16, "epochs": 3, "seeds": range(2), "engine": "eager"}
    compared(problem, {"lr": [0.02, 0.1]}, **given)


class Asking(torch.optim.SGD):
    """An optimiser that evaluates the loss again."""

    def step(self, closure):
        loss = closure()
        super().step()
        return loss


@pytest.mark.slow
def test_what_asks_for_a_closure_is_trained_one_after_the_other():
    given = {"optimizer": Asking, "batch_size": 16, "epochs": 2, "engine": "eager"}
    compared(classes(), {"lr": [0.02, 0.1]}, close={}, **given)


def test_one_combination_is_the_run():
    given = {"batch_size": 16, "epochs": 2, "engine": "eager"}
    compared(classes(), {"lr": [0.02]}, close={}, **given)


@pytest.mark.slow
def test_each_has_the_engine_that_it_has_alone():
    """AMSGrad is not compiled; the histories stay in the order of the grid."""
    grid = {"amsgrad": [True, False, True], "lr": [0.01]}
    with pytest.raises(ss.InputError):
        ss.train_grid(CURVE, grid)  # a value twice
    grid = {"amsgrad": [True, False], "lr": [0.01, 0.02]}
    given = {"optimizer": "Adam", "batch_size": 10, "epochs": 400, "record_rows": 100}
    found = compared(CURVE, grid, close={}, **given)
    assert [history.engine for history in found] == ["eager", "eager", "compiled", "compiled"]
    assert found[0].engine_note


@given(
    lrs=st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=3, unique=True),
    momenta=st.lists(st.floats(0.0, 0.95), min_size=1, max_size=3, unique=True),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
    batch_size=st.sampled_from([1, 7, 53, None]),
    stop=st.sampled_from([None, ("running", 0.3), ("full", 0.2)]),
)
@settings(max_examples=25, deadline=None)
@pytest.mark.slow
def test_any_small_grid_is_as_alone(lrs, momenta, seeds, batch_size, stop):
    given = {"batch_size": batch_size, "seeds": seeds, "stop": stop, "engine": "eager"}
    compared(CURVE, {"momentum": momenta, "lr": lrs}, close={}, epochs=3, **given)


# ---- one batch ------------------------------------------------------------------------------


def test_all_replicas_are_evaluated_in_one_batch(monkeypatch):
    sizes, evaluated = [], engines.Eager.evaluated
    monkeypatch.setattr(
        engines.Eager,
        "evaluated",
        lambda self, w, batch: (sizes.append(len(w)), evaluated(self, w, batch))[1],
    )
    given = {"batch_size": 15, "epochs": 3, "seeds": range(2), "engine": "eager"}
    ss.train_grid(classes(), {"lr": [0.1, 0.2, 0.3], "momentum": [0.0, 0.5]}, **given)
    assert sizes == [3 * 2 * 2] * 12


@pytest.mark.slow
def test_orders_of_compiled_runs_are_drawn_once(monkeypatch):
    draws, drawn = [], torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda *a, **k: (draws.append(1), drawn(*a, **k))[1])
    seeds = [123_457, 123_458]  # whose draws no other test has kept
    given = {"batch_size": 10, "epochs": 3, "seeds": seeds, "engine": "compiled"}
    ss.train_grid(CURVE, {"lr": [0.1, 0.2, 0.3]}, **given)
    assert len(draws) == 2 * 3


@pytest.mark.slow
def test_orders_that_are_too_long_to_be_kept_are_not(monkeypatch):
    """As of one seed's three epochs of 53 samples, each 8 bytes."""
    kept = type(draw_cache._kept)()
    monkeypatch.setattr(draw_cache, "_kept", kept)
    for most, n in ((3 * 53 * 8 - 1, 0), (3 * 53 * 8, 1)):
        monkeypatch.setattr(draw_cache, "MOST_BYTES", most)
        given = {"batch_size": 10, "epochs": 3, "engine": "compiled"}
        compared(CURVE, {"lr": [0.1, 0.2]}, close={}, **given)
        assert len(kept) == n


def test_values_may_be_arrays_and_settings_may_be_read_once():
    grid = {"lr": np.array([0.1, 0.2]), "momentum": torch.tensor([0.0, 0.5], dtype=torch.float64)}
    given = {"batch_size": 10, "epochs": 1, "engine": "eager"}
    found = ss.train_grid(CURVE, grid, seeds=iter([1, 2]), **given)
    assert [h.config.lr for h in found] == [0.1, 0.1, 0.2, 0.2]
    assert [h.config.options for h in found] == 2 * [{"momentum": 0.0}, {"momentum": 0.5}]
    assert {h.config.seeds for h in found} == {(1, 2)}


def test_a_class_keeps_its_own_step_size():
    """RMSprop's is 0.01, where a name has 0.001."""
    grid, given = {"alpha": [0.9, 0.99]}, {"optimizer": torch.optim.RMSprop, "epochs": 1}
    assert {h.config.lr for h in ss.train_grid(CURVE, grid, **given)} == {0.01}


@pytest.mark.slow
def test_an_interrupted_grid_keeps_what_it_has(monkeypatch):
    chunks = []

    def interrupted(*given):
        chunks.append(given)
        if len(chunks) == 2:  # once: the second one is immediate
            os.kill(os.getpid(), signal.SIGINT)
        return engines.steps_beside(*given)

    monkeypatch.setattr(beside, "steps_beside", interrupted)
    before = signal.getsignal(signal.SIGINT)
    given = {"batch_size": 10, "epochs": 4000, "engine": "eager"}
    found = ss.train_grid(CURVE, {"lr": [0.01, 0.02]}, **given)
    assert signal.getsignal(signal.SIGINT) is before
    assert [h.stop_reason.tolist() for h in found] == [["interrupted"]] * 2
    assert all(0 < h.n_steps[0] == len(h.steps) for h in found)


def test_an_interrupt_ends_those_that_have_yet_to_begin():
    sent = []

    def interrupt(row):
        if not sent:
            sent.append(os.kill(os.getpid(), signal.SIGINT))
        return False

    given = {"batch_size": 10, "epochs": 4000, "engine": "compiled", "stop": interrupt}
    found = ss.train_grid(CURVE, {"lr": [0.01, 0.02]}, **given)
    assert [h.stop_reason.tolist() for h in found] == [["interrupted"]] * 2
    assert found[0].n_steps[0] > 0
    assert found[1].n_steps[0] == 0
    assert len(found[1].steps) == 0


# ---- refused --------------------------------------------------------------------------------

WRONG = [
    ({}, {}, "a grid is a dict"),
    ([0.1], {}, "a grid is a dict"),
    ({"lr": []}, {}, "has no value"),
    ({"lr": 0.1}, {}, "is a list of values"),
    ({"lr": np.array(0.1)}, {}, "is a list of values"),
    ({"lr": "0.1,0.2"}, {}, "is a list of values"),
    ({"lr": {0.1: 1}}, {}, "is a list of values"),
    ({"lr": [0.1, 0.2, 0.1]}, {}, "has 0.1 twice"),
    ({"betas": [(0.5, 0.9), (0.5, 0.9)]}, {"optimizer": "Adam"}, "twice"),
    ({"batch_size": [1, 2]}, {}, "batch_size is a setting that its runs share; ss.sweep"),
    ({"optimizer": ["SGD", "Adam"]}, {}, "optimizer is a setting"),
    ({"problem": ["curve"]}, {}, "problem is a setting"),
    ({"lr": [0.1, 0.2]}, {"lr": 0.3}, "lr is in the grid, and given beside it"),
    ({"momentum": [0.1]}, {"options": {"momentum": 0.2}}, "momentum is in the grid, and given"),
    ({"momentum": [0.1]}, {"options": 3}, "options is a dict"),
    ({"momentun": [0.1, 0.2]}, {}, "momentum"),
    ({1: [0.1, 0.2]}, {}, "option of SGD"),
    ({"lr": [0.1, -0.2]}, {}, "lr must be positive"),
    ({"momentum": [0.0, 0.9], "nesterov": [False, True]}, {}, "SGD refuses these options"),
    ({"lr": [0.1, 0.2]}, {"optimizer": lambda w: torch.optim.SGD(w, lr=1.0)}, "sets its own lr"),
    ({"nu": [0.1, 0.2]}, {"optimizer": Own}, "unknown option of Own 'nu'"),
    ({"lr": [0.1, 0.2]}, {"color": "red"}, "color"),
    ({"lr": [0.1, 0.2]}, {"engine": "compiled", "groups": {"0.*": {"lr": 1}}}, "groups"),
]


@pytest.mark.parametrize(("grid", "given", "words"), WRONG)
def test_a_grid_that_cannot_be_trained_is_refused_in_one_line(grid, given, words):
    with pytest.raises(ss.InputError) as error:
        ss.train_grid(CURVE, grid, **given)
    assert one_line(error)
    assert words in str(error.value)


class Patient:
    """Stops a seed after 20 epochs without a better loss; it begins anew with every run."""

    def __init__(self):
        self.best = {}

    def __call__(self, row):
        best, since = (np.inf, 0) if row["epoch"] == 1 else self.best[row["seed"]]
        better = row["test_loss"] < best
        self.best[row["seed"]] = (row["test_loss"], 0) if better else (best, since + 1)
        return self.best[row["seed"]][1] >= 20


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_a_stop_that_remembers_sees_one_run_after_the_other(engine):
    given = {"batch_size": 16, "epochs": 400, "seeds": [0, 1], "engine": engine}
    given |= {"diagnostics": "off", "stop": Patient()}
    problem, grid = classes(), {"lr": [0.3, 2.0]}
    for one, other in zip(
        ss.train_grid(problem, grid, **given), alone(problem, grid, **given), strict=True
    ):
        agree(one, other)
