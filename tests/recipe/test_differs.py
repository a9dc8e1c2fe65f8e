"""Two runs that differ in anything that the trainer sees have different fingerprints."""

import inspect
import itertools
from dataclasses import fields

import numpy as np
import pytest
import torch

import sgdstudy as ss
from sgdstudy.recipe.identity import Identity

X = np.linspace(-1, 1, 20).astype("f")
BASE = {"lr": 0.05, "batch_size": 5, "schedule": "StepLR", "schedule_options": {"step_size": 3}}
BASE |= {"stop": ("running", 0.1), "average": 0.0}


def line(w, x):
    return w[0] * x + w[1]


def bent(w, x):
    return w[0] * torch.tanh(x) + w[1]


def huber(delta):
    return lambda f, y: torch.nn.functional.huber_loss(f, y, reduction="none", delta=delta)


def draws(scale):
    return lambda generator: scale * torch.randn(2, generator=generator)


def by(momentum):
    return lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=momentum)


def rolled(n):
    return lambda generator, d: torch.arange(d).roll(n)


def largest(power):
    return lambda f, y: float(((f - y).abs() ** power).max())


def below(epsilon):
    return lambda row: row["running_loss"] < epsilon


BY_SEED = np.arange(20).reshape(1, 1, 4, 5).repeat(4, 1)

# other values of every setting, none of which is another spelling of the same run
SETTINGS = {
    "optimizer": ["Adam", torch.optim.Adamax, by(0.0), by(0.5)],
    "lr": [0.1, 0.1 + 2**-50],
    "options": [{"momentum": 0.5}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}],
    "groups": [{"*": {"lr": 0.2}}, {"*": {"momentum": 0.5}}, {"a": {"lr": 0.2}}],
    "clip_norm": [1.0, 2.0],
    "clip_value": [1.0, 2.0],
    "schedule": ["ExponentialLR"],
    "schedule_options": [{"step_size": 4}, {"step_size": 3, "gamma": 0.5}],
    "schedule_unit": ["epoch"],
    "average": [0.5, None],
    "ema": [0.9, 0.99],
    "batch_size": [6, None],
    "drop_last": [True],
    "batch_schedule": [{2: 10}, {1: 10}, {2: 20}, {1: 10, 2: 20}],
    "order": [
        "sequential",
        rolled(1),
        rolled(2),
        np.arange(20).reshape(1, 4, 5).repeat(4, 0),
        BY_SEED,
    ],
    "epochs": [3],
    "steps": [3, 15],
    "stop": [("running", 0.2), ("full", 0.1), ("running", None), None, below(0.1), below(0.2)],
    "patience": [2],
    "seeds": [(1,), (0, 1)],
    "dtype": ["float64"],
    "device": ["cpu:0"],
    "engine": ["eager"],
    "measures": [{"far": largest(1)}, {"far": largest(2)}, {"off": largest(1)}],
    "diagnostics": ["off"],
    "diagnostics_every": [2],
    "evaluate_every": [2, 3],
    "metrics": [["loss"]],
    "clock": [True],
    "record_rows": [7],
}
PROBLEM = {
    "x": [X + 1],
    "y": [X + 1],
    "model": [bent, torch.nn.Linear(1, 1)],
    "loss": ["abs", huber(0.5), huber(1.0)],
    "w_init": [[0.0, 1.0], draws(1.0), draws(10.0)],
    "w_true": [[1.0, 0.5]],
    "test": [(X, X), (X, X + 1)],
    "stream": [lambda generator: iter([(X, X)])],
    "name": ["another"],
    "penalty": [("l2", 0.1), ("l2", 0.2), ("l1", 0.1)],
    "exact": [False],
    "init": [None],
}


def config(**changes):
    given = BASE | changes
    if changes.get("schedule"):
        given["schedule_options"] = {"gamma": 0.9}
    if "stop" in changes and changes["stop"] is None:
        given["patience"] = 1
    return ss.TrainConfig(**({"epochs": 4} | given))


def problem(**changes):
    given = {"x": X, "y": X, "model": line, "w_init": [0.0, 0.0]} | changes
    if isinstance(given["model"], torch.nn.Module):
        given |= {"x": X[:, None], "y": X[:, None], "w_init": None}
    return ss.Problem(**given)


def every_run():
    """Yield a name and what it is, for one change at a time, of settings and of the problem."""
    yield "as it is", problem(), config(), {}
    for name, values in SETTINGS.items():
        for value in values:
            yield f"{name}={value}", problem(), config(**{name: value}), {}
    for name, values in PROBLEM.items():
        if name != "init":  # of modules, below
            for value in values:
                yield f"{name}={value}", problem(**{name: value}), config(), {}
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = torch.nn.Linear(1, 1)
        yield f"start {seed}", problem(model=net), config(), {}
    yield "default", problem(model=torch.nn.Linear(1, 1), init="default"), config(), {}
    for own in ({"gain": 1.0}, {"gain": 2.0}, {"gaim": 1.0}):
        yield f"options {own}", problem(), config(), own


def test_every_setting_and_every_part_of_a_problem_is_tried():
    assert set(SETTINGS) == {setting.name for setting in fields(ss.TrainConfig)}
    assert set(PROBLEM) == set(inspect.signature(ss.Problem.__init__).parameters) - {"self"}


@pytest.mark.slow
def test_what_differs_in_one_thing_is_another_run():
    hashes = {name: Identity.of(*what).hash for name, *what in every_run()}
    assert all(hashes.values())
    for (one, a), (two, b) in itertools.combinations(hashes.items(), 2):
        assert a != b, (one, two)


PAIRS = list(
    itertools.combinations(["lr", "clip_norm", "ema", "epochs", "seeds", "record_rows"], 2)
)


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_what_differs_in_two_things_is_another_again(a, b):
    changes = [{}, {a: SETTINGS[a][0]}, {b: SETTINGS[b][0]}, {n: SETTINGS[n][0] for n in (a, b)}]
    found = {Identity.of(problem(), config(**change)).hash for change in changes}
    assert len(found) == 4


@pytest.mark.slow
def test_the_same_made_again_is_the_same():
    again = {name: Identity.of(*what).hash for name, *what in every_run() if "0x" not in name}
    assert again == {n: Identity.of(*w).hash for n, *w in every_run() if "0x" not in n}


def another(step):
    return lambda self, closure=None: step(self, closure)


@pytest.mark.parametrize(
    ("kind", "name", "settings"),
    [
        (torch.optim.SGD, "step", {"optimizer": "SGD"}),
        (torch.optim.SGD, "step", {"optimizer": torch.optim.SGD}),
        (torch.optim.AdamW, "step", {"optimizer": "AdamW"}),
        (torch.optim.lr_scheduler.ExponentialLR, "get_lr", {"schedule": "ExponentialLR"}),
    ],
)
def test_what_somebody_puts_into_a_class_of_torch_that_is_named_counts(
    monkeypatch, kind, name, settings
):
    settings = config(**settings)
    before = Identity.of(problem(), settings).hash
    monkeypatch.setattr(kind, name, another(getattr(kind, name)))
    assert Identity.of(problem(), settings).hash != before
    monkeypatch.undo()
    assert Identity.of(problem(), settings).hash == before


def test_defaults_of_a_class_of_torch_that_is_named_count(monkeypatch):
    before = Identity.of(problem(), config(optimizer="SGD")).hash
    first, _, *others = torch.optim.SGD.__init__.__defaults__
    monkeypatch.setattr(torch.optim.SGD.__init__, "__defaults__", (first, 0.9, *others))
    assert Identity.of(problem(), config(optimizer="SGD")).hash != before
