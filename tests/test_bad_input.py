"""Bad input from Python: one line that says what was given and what is allowed, nothing else.

Rows that are not here stand beside the tests of what they spoil: test_problem, test_train,
test_orders, test_load, test_trajectory, test_check.
"""

import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import small_curve
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import sgdstudy as ss
from sgdstudy import checks
from sgdstudy.theory.checked import checked
from sgdstudy.tracking.store import locate

NAN, INF = float("nan"), float("inf")
X = np.linspace(-1, 1, 20)
VALUES = pd.Series([1.0, 2.0, 3.0])
ROWS = pd.DataFrame({"seed": [0, 0, 1, 1], "epoch": [1, 2, 1, 2], "full_loss": [3, 0.1, 3, 2.0]})
POINTS = torch.tensor(np.stack([X, 2 * X], 1))


def line(w, x):
    return w[0] * x


def problem(**changes):
    return ss.Problem(**({"x": X, "y": 2 * X, "model": line, "w_init": [0.0]} | changes))


def train(**settings):
    given = {"lr": 0.1, "batch_size": 5, "epochs": 2, "progress": False}
    return ss.train(problem(), **(given | settings))


def sgd(**changes):
    given = {"f": line, "w": torch.zeros(1), "t": POINTS, "minibatch": 5, "nepoch": 1}
    return ss.sgd(**(given | changes))


def arrays(**changes):
    known = {"problem": problem(), "w": np.zeros((5, 1)), "lr": 0.1}
    known["indices"] = np.arange(20).reshape(4, 5)
    return ss.History.from_arrays(**(known | changes))


def claim(**changes):
    return ss.Claim(**({"name": "a", "arm": "b", "measured": 1.0} | changes))


def of(function, **fixed):
    """Return the function of the one argument that is bad."""
    return lambda **bad: function(**(fixed | bad))


def fails(*arguments):
    raise KeyError("a line\nand another")


class NoWayBack(torch.autograd.Function):
    @staticmethod
    def forward(context, value):
        return 2 * value

    @staticmethod
    def backward(context, gradient):
        raise ValueError("no way back")


def by_gradient(prediction, y):
    asked = prediction.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(((asked - y) ** 2).sum(), asked)
    return slope * prediction


def draws_more(generator):
    return torch.randn(int(torch.randint(2, 99, (), generator=generator)), generator=generator)


def several(generator):
    return torch.zeros(1) if generator.initial_seed() == 0 else torch.zeros(2)


def draws(n):
    return lambda generator: torch.randn(n, generator=generator)


def picked(logits, y):
    return -logits.log_softmax(1).gather(1, y[:, None]).squeeze(1)


class Lion(torch.optim.SGD):
    def __init__(self, params, lr=0.1, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, lr=lr, weight_decay=weight_decay)


MODULE, WHOLE = torch.nn.Linear(1, 1), np.arange(20) % 3
ONE = torch.nn.Sequential(torch.nn.Unflatten(0, (-1, 1)), MODULE)
OF_MODULE = {"model": torch.nn.Sequential(ONE[0], torch.nn.Linear(1, 3)), "w_init": None}
SGD = torch.optim.SGD(MODULE.parameters(), lr=0.1)

# what is called -> (the bad argument, words that the message has)
NAMES = [
    (None, "not None"),
    ("", "not ''"),
    (" ", "not empty"),
    (3, "not 3"),
    ("a\nb", r"'a\nb' holds '\n'"),
    ("a\0b", "cannot be printed"),
    ("\x1b[31m", "cannot be printed"),
    ("right\u202eleft", "cannot be printed"),
    ("\ud800", "cannot be printed"),
    ("a" * 251, "251 characters, more than 250"),
]
CALLS = {
    "Problem": (
        problem,
        [
            ({"x": None}, "x of the data"),
            ({"x": "abc"}, "not an array of numbers"),
            ({"x": [[1, 2], [3]]}, "not an array of numbers"),
            ({"x": X + 1j}, "complex128"),
            ({"x": X.astype("f2")}, "float16"),
            ({"x": torch.eye(20).to_sparse()}, "sparse"),
            ({"x": torch.zeros(20, device="meta")}, "no data"),
            ({"x": torch.zeros(20).to(torch.float8_e4m3fn)}, "float8"),
            ({"x": np.array([None] * 20)}, "not an array of numbers"),
            ({"x": [10**30] * 20}, "float64 does not hold exactly"),
            ({"x": pd.date_range("2020", periods=20)}, "not an array of numbers"),
            ({"x": np.ma.array(X, mask=X > 0)}, "masked"),
            ({"x": np.zeros((20, 0))}, "(20, 0)"),
            ({"x": 3.0}, "shape ()"),
            ({"y": X[:5]}, "(5,)"),
            ({"y": X * NAN}, "20 values that are not finite"),
            ({"model": None}, "not None"),
            ({"model": fails}, "KeyError: 'a line"),
            ({"model": lambda w: w}, "TypeError"),
            ({"model": lambda w, x: None}, "returns None"),
            ({"model": lambda w, x: x.int()}, "expected a tensor of floats"),
            ({"model": lambda w, x: (w[0] * x).detach().numpy()}, "expected a tensor of floats"),
            ({"model": lambda w, x: x}, "does not depend on w"),
            ({"model": lambda w, x: (w[0] * x).detach()}, "does not depend on w"),
            ({"model": lambda w, x: (w[0] // 1) * x}, "the gradient of the model, for w"),
            ({"model": lambda w, x: NoWayBack.apply(w[0]) * x}, "ValueError: no way back"),
            ({"model": lambda w, x: w[0] * x[:1]}, "shape (1,)"),
            ({"loss": None}, "not None"),
            ({"loss": ["mse"]}, "not ['mse']"),
            ({"loss": fails}, "the loss 'fails' failed: KeyError"),
            ({"loss": lambda p, y: None}, "returned None"),
            ({"loss": torch.nn.MSELoss()}, "reduction='none'"),
            ({"loss": lambda p, y: y**2}, "does not depend on the predictions: it has no"),
            ({"loss": lambda p, y: (p > y).double()}, "does not depend on the predictions"),
            ({"loss": lambda p, y: (p // 1 - y) ** 2}, "gradient of the loss '<lambda>' failed"),
            ({"loss": by_gradient}, "with torch.enable_grad():"),
            ({"loss": lambda p, y: NoWayBack.apply(p - y) ** 2}, "ValueError: no way back"),
            ({"w_init": object()}, "w_init is not an array"),
            ({"w_init": [NAN]}, "not finite"),
            ({"x": X.astype("f"), "y": X.astype("f"), "w_init": [1e300]}, "scale it down"),
            ({"w_init": fails}, "w_init failed: KeyError"),
            ({"w_init": lambda generator: None}, "w_init is not an array"),
            ({"w_true": [NAN]}, "w_true holds 1 values"),
            ({"test": 3}, "test is a pair"),
            ({"test": (X,)}, "test is a pair"),
            ({"test": {"x": X, "y": X}}, "test is a pair"),
            ({"penalty": "l2"}, "penalty is as ('l2', 0.01), or a function of w, not 'l2'"),
            ({"penalty": ("l3", 0.1)}, "unknown penalty 'l3'"),
            ({"penalty": (["l2"], 0.1)}, "unknown penalty ['l2']"),
            ({"penalty": ("l2", None)}, "the penalty is a number, not None"),
            ({"penalty": ("l1", NAN)}, "at least 0 and finite, got nan"),
            ({"penalty": fails}, "the penalty 'fails' failed: KeyError"),
            ({"penalty": lambda w: 1.0}, "returns 1.0; expected a number, a tensor of shape ()"),
            ({"penalty": lambda w: w}, "returns shape (1,); expected a number"),
            ({"penalty": lambda w: w.sum() * torch.rand(())}, "draws from torch's global"),
            ({"penalty": lambda w, n=[]: n.append(0) or (w + len(n)).sum()}, "two results"),
            ({"penalty": lambda w: (w // 1).sum()}, "the gradient of the penalty failed"),
            ({"penalty": lambda w: NoWayBack.apply(w).sum()}, "ValueError: no way back"),
            ({"x": MODULE, "y": X, "model": X}, "x of the data is a module: the order is Problem("),
            ({"y": MODULE, "model": X}, "y of the data is a module: the order is Problem("),
            ({"test": (X, MODULE)}, "y of the test data is a module"),
            ({"model": torch.nn.Linear}, "model is the class Linear: give what is made of it, as"),
            ({"loss": torch.nn.MSELoss}, "loss is the class MSELoss: give what is made of it, as"),
            ({"penalty": torch.nn.L1Loss}, "penalty is the class L1Loss: give what is made"),
            ({"loss": fails}, "'; called with predictions (B,) and targets (B,)"),
            (
                OF_MODULE | {"loss": picked, "y": WHOLE + 1},
                "with predictions (B, 3) and targets (B,)",
            ),
            (OF_MODULE | {"w_init": draws(10)}, "w_init has 10 numbers, the module has 6 to train"),
            (OF_MODULE | {"w_init": np.zeros(7)}, "has 7 numbers, the module has 6 to train"),
            (OF_MODULE | {"model": ONE}, "give y[:, None], or put nn.Flatten(0) behind the model"),
            ({"y": X[:, None]}, "needs equal shapes: give y[:, 0]"),
            ({"exact": "no"}, "exact is True or False, not 'no'"),
            ({"exact": None}, "exact is True or False, not None"),
            ({"exact": 1}, "exact is True or False, not 1"),
            *(({"name": bad}, says) for bad, says in NAMES),
        ],
    ),
    "problems.curve": (
        ss.problems.curve,
        [
            ({"noise": "a"}, "not 'a'"),
            ({"noise": None}, "not None"),
            ({"noise": [1.0]}, "not [1.0]"),
            ({"noise": True}, "not True"),
            ({"noise": 1e300}, "not finite"),
            ({"noise": 1.0, "seed": -1}, "got -1"),
            ({"noise": 1.0, "seed": 2**63}, "2**63 - 1"),
            ({"noise": 1.0, "seed": "a"}, "got 'a'"),
            ({"noise": 1.0, "seed": 1.5}, "got 1.5"),
        ],
    ),
    "problems.legendre": (
        ss.problems.legendre,
        [
            ({"d": "a"}, "whole number, got 'a'"),
            ({"d": 4.5}, "whole number, got 4.5"),
            ({"d": NAN}, "whole number, got nan"),
            ({"d": -1}, "at least 4, got -1"),
            ({"target": ["normal"]}, "['normal']"),
            ({"seed": None}, "got None"),
        ],
    ),
    "problems.get": (of(ss.problems.get), [({"problem": ["curve"]}, "unknown problem ['curve']")]),
    "TrainConfig": (
        ss.TrainConfig,
        [
            ({"lr": 10**400}, "positive and finite, got 1000"),
            ({"lr": b"1"}, "a number, not b'1'"),
            ({"lr": np.array([0.1])}, "a number, not array"),
            ({"lr": 1j}, "a number, not 1j"),
            ({"options": None}, "options is a dict"),
            ({"options": [("momentum", 0.9)]}, "options is a dict"),
            ({"options": {1: 2}}, "unknown option of SGD 1"),
            ({"options": {"momentum": NAN}}, "momentum of SGD must be finite"),
            ({"options": {"differentiable": True}}, "unknown option"),
            ({"epochs": 10**13}, "at most 1e+12"),
            ({"epochs": pd.Series([1, 2])}, "whole number"),
            ({"epochs": np.True_}, "whole number, got"),
            ({"batch_size": 10**400}, "at most 1e+12"),
            ({"record_rows": -1}, "at least 0, got -1"),
            ({"diagnostics_every": -1}, "at least 1, got -1"),
            ({"evaluate_every": 0}, "at least 1, got 0"),
            ({"evaluate_every": 2, "stop": ("full", 0.1)}, "Valid: running, last_batch"),
            ({"stop": torch.tensor(1.0)}, "a pair (rule, epsilon)"),
            ({"stop": (["running"], 0.1)}, "unknown stop rule ['running']"),
            ({"stop": ("loss", 0.1)}, "unknown stop rule 'loss'"),
            ({"stop": ("w0", 0.1)}, "unknown stop rule 'w0'"),
            ({"stop": ("elapsed_seconds", 9), "clock": True}, "unknown stop rule 'elapsed_"),
            ({"stop": ("mine", 0.1)}, "unknown stop rule 'mine'"),
            ({"stop": ("full", 0)}, "epsilon must be positive and finite, got 0"),
            ({"stop": ("test_loss", NAN)}, "epsilon must be finite, got nan"),
            ({"stop": ("full", 0.1), "patience": 0}, "patience must be at least 1, got 0"),
            ({"patience": 3}, "patience goes with a stop rule"),
            ({"seeds": range(10**9)}, "1,000,000 at the most"),
            ({"seeds": range(2**64)}, "1,000,000 at the most"),
            ({"seeds": torch.tensor([1.0])}, "got tensor(1.)"),
            ({"seeds": int}, "got <class 'int'>"),
            ({"clip_norm": 0}, "clip_norm must be positive and finite, got 0"),
            ({"clip_norm": True}, "clip_norm is a number, not True"),
            ({"clip_value": NAN}, "clip_value must be positive and finite, got nan"),
            ({"clip_value": [1.0]}, "clip_value is a number, not [1.0]"),
            ({"schedule_unit": ["step"]}, "unknown schedule unit ['step']"),
            (
                {"schedule_unit": "epochs", "schedule": "inverse_time"},
                "unknown schedule unit 'epochs'",
            ),
            ({"schedule_unit": "epoch"}, "goes with a schedule"),
            ({"average": 1}, "from 0 to below 1, got 1"),
            ({"ema": 0}, "between 0 and 1, got 0"),
            ({"ema": 1}, "between 0 and 1, got 1"),
            ({"ema": "a"}, "ema is a number, not 'a'"),
            (
                {"batch_schedule": 40},
                "by the number of epochs done before, as {10: 40, 20: 160}, not 40",
            ),
            ({"batch_schedule": {0: 40}}, "an epoch of batch_schedule must be at least 1, got 0"),
            (
                {"batch_schedule": {2: 0}},
                "a batch size of batch_schedule must be at least 1, got 0",
            ),
            (
                {"batch_schedule": {2: None}},
                "a batch size of batch_schedule must be a whole number",
            ),
            ({"batch_schedule": {9: 40}, "epochs": 9}, "after epoch 9, and the run has epochs=9"),
            ({"batch_schedule": [(2, 7), (2, 9)]}, "names epoch 2 twice"),
            ({"batch_schedule": {2: 40}}, "give the first, as batch_size=8"),
            (
                {"batch_schedule": {2: 40}, "batch_size": 5, "drop_last": True},
                "leave drop_last out",
            ),
            (
                {"batch_schedule": {2: 40}, "batch_size": 5, "order": "strided"},
                "the order 'strided' is made for one batch size",
            ),
            (
                {"batch_schedule": {1: 2}, "batch_size": 2, "order": [[[0, 1]]] * 2},
                "the order 'array' is made for one batch size",
            ),
            ({"drop_last": None}, "drop_last is True or False, not None"),
            ({"drop_last": 1}, "drop_last is True or False, not 1"),
            ({"clock": "yes"}, "clock is True or False, not 'yes'"),
            ({"clock": np.array([True, False])}, "clock is True or False, not array"),
            ({"dtype": ["float32"]}, "unknown dtype ['float32']"),
            ({"device": None}, "give cpu"),
            ({"device": 10**30}, "give cpu"),
            ({"device": "meta"}, "give cpu"),
            ({"device": "a\nb"}, r"'a\nb' cannot be used"),
            ({"engine": np.arange(3)}, "unknown engine array"),
            ({"diagnostics": ["distance", ["a"]]}, "unknown quantity ['a']"),
            ({"diagnostics": pd.Series([1, 2])}, "or a list of names"),
            ({"metrics": "loss"}, "not 'loss'"),
            ({"metrics": torch.tensor(1)}, "a list of columns"),
            ({"metrics": {"top2": len}}, "functions of one's own are measures"),
            ({"metrics": ["w٣"]}, "unknown column of steps for MLflow 'w٣'"),
            ({"metrics": [None]}, "a column for MLflow is a name, as 'loss', not None"),
            ({"optimizer": pd.Series([1, 2])}, "a name or a factory"),
        ],
    ),
    "TrainConfig.of": (
        ss.TrainConfig.of,
        [
            ({"lrr": 1}, "did you mean 'lr'?"),
            ({"learning_rate": 0.1}, "did you mean 'lr'?"),
            ({"momentum": 0.9}, "an option of the optimizer: give options={'momentum': 0.9}"),
            ({"betas": (0, 0), "optimizer": "AdamW"}, "give options={'betas': (0, 0)}"),
            ({"betas": (0, 0), "optimizer": Lion}, "give options={'betas': (0, 0)}"),
            ({"c": 2, "optimizer": "polyak"}, "give options={'c': 2}"),
            ({"momentum": 0.9, "optimizer": Lion}, "unknown setting 'momentum'"),
            ({"momentum": 0.9, "optimizer": 3}, "unknown setting 'momentum'"),
            ({"options": {"lr": 0.2}}, "lr is given as lr=0.2, not in options"),
            ({"options": {"lr": 0.2}, "lr": 0.1, "optimizer": Lion}, "lr is given as lr=0.2"),
            ({"options": {"lr": 0.2}, "optimizer": "polyak"}, "lr is given as lr=0.2"),
            ({"options": {"beta": 0.9}, "optimizer": Lion}, "'betas'? Valid: betas, weight_decay"),
            ({"options": {"params": 1}, "optimizer": Lion}, "unknown option of Lion 'params'"),
            ({"optimizer": "Lion"}, "a class of your own is given itself, not its name"),
            ({"optimizer": SGD}, "give optimizer=torch.optim.SGD and lr=0.1"),
            ({"optimizer": torch.optim.LBFGS(MODULE.parameters())}, "=torch.optim.LBFGS and lr=1"),
            ({"optimizer": Lion(MODULE.parameters())}, "give optimizer=Lion and lr=0.1"),
            (
                {"schedule": "StepLR"},
                "StepLR needs step_size: give schedule_options={'step_size': ",
            ),
            (
                {"schedule": "OneCycleLR"},
                "OneCycleLR needs max_lr: give schedule_options={'max_lr'",
            ),
            ({"schedule": "CyclicLR"}, "schedule_options={'base_lr': ..., 'max_lr': ...}"),
            ({"measures": {"a": torch.nn.L1Loss}}, "the measure 'a' is the class L1Loss: give"),
        ],
    ),
    "train": (
        train,
        [
            ({"optimizer": int}, "the optimizer 'int' failed: TypeError"),
            ({"optimizer": fails}, "the optimizer 'fails' failed: KeyError"),
            (
                {"optimizer": lambda p: torch.optim.SGD([torch.zeros(1)], lr=0.1)},
                "of other parameters",
            ),
            ({"diagnostics": [fails]}, "the quantity 'fails' failed: KeyError"),
            ({"diagnostics": [lambda chunk: "a"]}, "failed: ValueError"),
            ({"metrics": ["w7"]}, "no parameter w7; custom has w0 to w0"),
        ],
    ),
    "sgd": (
        sgd,
        [
            ({"t": "abc"}, "t is not an array"),
            ({"t": None}, "t is not an array"),
            ({"t": [[1, 2], [3]]}, "t is not an array"),
            ({"t": POINTS * NAN}, "t holds 40 values"),
            ({"t": POINTS.half()}, "float16"),
            ({"t": POINTS[:, :1]}, "(20, 1)"),
            ({"w": torch.zeros(1, 1)}, "(1, 1)"),
            ({"w": np.zeros(1)}, "w must be a tensor"),
            ({"f": "line"}, "'line'"),
            ({"eta": "a"}, "lr is a number, not 'a'"),
            ({"epsilon": NAN}, "epsilon must be positive and finite, got nan"),
            ({"nepoch": 0}, "at least 1, got 0"),
            ({"minibatch": 21}, "give 1 to 20"),
            ({"seed": -1}, "got -1"),
        ],
    ),
    "History.from_arrays": (
        arrays,
        [
            ({"problem": None}, "unknown problem None"),
            ({"w": np.zeros((5, 0, 1))}, "(5, 0, 1)"),
            ({"w": np.zeros((5, 1)) + 1j}, "complex128"),
            ({"w": [[None]] * 5}, "w is not an array"),
            ({"indices": [[1], [2, 3]]}, "indices is not an array"),
            ({"indices": torch.zeros(4, 5, requires_grad=True)}, "float32"),
            ({"indices": np.full((4, 5), 2**63, np.uint64)}, "samples 0 to 19"),
            ({"losses": "a"}, "losses is not an array"),
            ({"gradients": np.zeros((4, 1, 2))}, "expected (4, 1, 1)"),
            ({"lr": None}, "lr is a number, not None"),
            ({"steps_per_epoch": 0}, "at least 1, got 0"),
            ({"steps_per_epoch": "a"}, "whole number, got 'a'"),
            ({"seeds": [1, 2]}, "2 values, the trajectory 1 replicas"),
            ({"order": "shuffle"}, "leave it out"),
            ({"epochs": 3}, "leave it out"),
            ({"lrr": 3}, "did you mean 'lr'?"),
        ],
    ),
    "compare": (
        of(ss.compare, a=VALUES, b=VALUES),
        [
            ({"confidence": "a"}, "confidence is a number, not 'a'"),
            ({"confidence": NAN}, "between 0 and 1, as 0.95, got nan"),
            ({"confidence": 1}, "between 0 and 1, as 0.95, got 1"),
            ({"b": VALUES.to_frame()}, "expected a History"),
            ({"b": np.arange(3)}, "expected a History"),
            ({"b": pd.Series(["a", "b", "c"])}, "no number"),
            ({"b": VALUES + 1j}, "complex"),
            ({"metric": None}, "not None"),
            ({"metric": "seed"}, "not 'seed'"),
        ],
    ),
    "time_to_target": (
        of(ss.time_to_target, source=ROWS, target=1.0),
        [
            ({"target": "a"}, "target is a number, not 'a'"),
            ({"target": None}, "target is a number, not None"),
            ({"target": NAN}, "target must be finite, got nan"),
            ({"target": [1]}, "target is a number, not [1]"),
            ({"over": ["epoch"]}, "unknown axis ['epoch']"),
            ({"column": 3}, "unknown column 3"),
            ({"source": 3}, "expected a History"),
            ({"source": ROWS.assign(full_loss="a")}, "full_loss holds what is no number"),
            ({"source": ROWS.drop(columns="seed")}, "unknown column 'seed'"),
        ],
    ),
    "summary": (
        of(ss.summary, times=VALUES),
        [
            ({"times": "a"}, "no number"),
            ({"times": None}, "no times"),
            ({"times": [NAN]}, "not a number for seed 0"),
            ({"times": object()}, "no number"),
            ({"confidence": 0}, "got 0"),
        ],
    ),
    "Claim": (
        claim,
        [
            ({"tolerance": "a"}, "not 'a'"),
            ({"tolerance": -1}, "not -1"),
            ({"tolerance": None}, "not None"),
            ({"tolerance": True}, "not True"),
            ({"measured": object()}, "not <object"),
            ({"measured": 1j}, "not 1j"),
            ({"measured": {"a": 1}}, "not {'a': 1}"),
            ({"measured": [1, [b"a"]]}, "not b'a'"),
            ({"expected": {"a"}}, "not {'a'}"),
            *(({"name": bad}, says) for bad, says in NAMES),
            ({"arm": None}, "not None"),
        ],
    ),
    "checks.folder_name": (
        of(checks.folder_name, kind="the study's name"),
        [
            ({"value": ".."}, "'..' names a folder"),
            ({"value": "."}, "'.' names a folder"),
            ({"value": "../x"}, "it has no /"),
            ({"value": "a\\b"}, "it has no /"),
            ({"value": "🙂" * 64}, "255 bytes"),
            *(({"value": bad}, says) for bad, says in NAMES),
        ],
    ),
}


def rows(calls):
    return [
        pytest.param(call, bad, says, id=f"{name}-{i}")
        for name, (call, cases) in calls.items()
        for i, (bad, says) in enumerate(cases)
    ]


def refused(call, *args, **named):
    """Return the message of the one line that a call ends with."""
    with pytest.raises(ss.InputError) as error:
        call(*args, **named)
    text = str(error.value)
    assert "\n" not in text
    assert text.isprintable()
    assert len(text) < 500
    return text


@pytest.mark.parametrize(("call", "bad", "says"), rows(CALLS))
def test_bad_input_is_refused_in_one_line(call, bad, says):
    assert says in refused(call, **bad)


def test_seeds_that_draw_different_numbers_of_parameters_are_refused():
    assert "the same for every seed" in refused(problem(w_init=several).initial, [0, 1])


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        ({"kind": ["steps"]}, "unknown kind of rows ['steps']"),
        ({"columns": 3}, "unknown column 3"),
        ({"columns": [["loss"]]}, "unknown column ['loss']"),
        ({"seeds": "1"}, "whole numbers, one or several, not '1'"),
        ({"seeds": 1.5}, "not 1.5"),
        ({"seeds": [None]}, "not [None]"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": 10**30}, "whole numbers"),
        ({"seeds": range(2**64)}, "whole numbers"),
        ({"columns": range(2**64)}, "too many"),
        ({"steps": 3}, "steps is a slice"),
        ({"steps": slice("a")}, "steps count from 0"),
        ({"steps": slice(-3, None)}, "steps count from 0"),
        ({"steps": slice(NAN, 3)}, "steps count from 0"),
        ({"epochs": slice(1.5, None)}, "epochs count from 0"),
        ({"epochs": [1, 2]}, "epochs is a slice"),
    ],
)
def test_rows_that_cannot_be_chosen_are_refused(trained, ask, says):
    assert says in refused(trained.load, **ask)


@pytest.fixture(scope="module")
def trained():
    return train(seeds=range(2))


def test_what_may_be_chosen_is_found(trained):
    assert list(trained.load(columns="loss")) == ["loss"]
    assert trained.load(steps=slice(2, 10**30)).step.min() == 2
    assert set(trained.load(seeds=np.int64(1)).seed) == {1}


LEGENDRE = ss.problems.legendre()
LS, CONFIG = LEGENDRE.least_squares, ss.TrainConfig(batch_size=10, lr=0.1)
BATCHES, W0 = ss.theory.batches(LEGENDRE, CONFIG), np.zeros(3)
GOOD = {
    "ls": LS,
    "problem": LEGENDRE,
    "config": CONFIG,
    "b": BATCHES,
    "w0": W0,
    "w": W0,
    "lr": 0.1,
    "d": 100,
    "batch_size": 10,
    "epochs": 3,
    "epoch": 1,
    "epsilon": 0.5,
    "low": 1e-3,
    "high": 1.0,
    "time": 6.0,
    "k": 3,
    "x": np.array([1.0, 2.0]),
    "samples": np.ones((2, 5)),
    "y": np.ones(2),
    "order": np.arange(100),
}
T = ss.theory
THEORY = [
    (T.moments, {"problem": "curve"}, "a Problem, not 'curve'"),
    (T.lr_limit, {"ls": "a"}, "as problem.least_squares, not 'a'"),
    (T.batches, {"epoch": 0}, "epoch must be at least 1, got 0"),
    (T.batches, {"config": None}, "a TrainConfig, not None"),
    (T.descent_loss, {"lr": "a"}, "lr is a number, not 'a'"),
    (T.descent_w, {"w0": np.zeros(2)}, "3 numbers"),
    (T.descent_stop, {"epsilon": NAN}, "epsilon must be finite"),
    (T.lr_best_for_epsilon, {"w0": "abc"}, "3 numbers"),
    (T.growth_per_epoch, {"lr": NAN}, "lr must be at least 0 and finite, got nan"),
    (T.float32_floor, {"lr": -1}, "lr must be at least 0 and finite, got -1"),
    (T.epoch_map, {"b": None}, "batches, as theory.batches"),
    (T.spectral_radius, {"lr": INF}, "got inf"),
    (T.exact_radius, {"lr": -1}, "got -1"),
    (T.growth, {"lr": None}, "not None"),
    (T.fixed_point_loss, {"lr": NAN}, "got nan"),
    (T.fixed_order_losses, {"epochs": -1}, "at least 1, got -1"),
    (T.expected_losses, {"w0": [W0, W0]}, "3 numbers"),
    (T.step_moments, {"batch_size": 0}, "at least 1, got 0"),
    (T.step_moments, {"batch_size": 101}, "101 is more than the 100 samples"),
    (T.stationary_excess, {"d": 7}, "not 7: there are 100 rows"),
    (T.mean_square_lr_limit, {"batch_size": 1.5}, "whole number, got 1.5"),
    (T.noise_scale, {"d": "a"}, "whole number, got 'a'"),
    (T.gradients, {"w": 3.0}, "3 numbers"),
    (T.lyapunov, {"batch_size": 101}, "101 is more"),
    (T.lyapunov, {"replicas": 0}, "at least 1, got 0"),
    (T.lyapunov_zero_lr, {"low": 0}, "low must be positive"),
    (T.critical_lr, {"low": 2.0}, "low must be below high, got 2 and 1"),
    (T.usable_lr, {"high": 2e-3, "epsilon": 50.0}, "does not cross 50"),
    (T.rate_laws, {"time": -1}, "time must be positive"),
    (T.fixed_order_law, {"order": np.arange(100) + 1}, "each of the 100 samples once"),
    (T.slope_interval, {"confidence": 2}, "between 0 and 1"),
    (T.slope_interval, {"samples": np.ones((3, 5))}, "cannot use these arguments together"),
    (T.log_slope, {"x": [-1, 1]}, "positive x; got [-1, 1]"),
    (T.log_slope, {"y": [0, 1]}, "positive y; got [0, 1]"),
]


@pytest.mark.parametrize(("function", "bad", "says"), THEORY)
def test_theory_refuses_what_it_cannot_use(function, bad, says):
    names = [n for n in function.__wrapped__.__annotations__ if n in GOOD]
    assert says in refused(function, **({n: GOOD[n] for n in names} | bad))


OF_KIND = {
    "int": 1,
    "float": 1.0,
    "np.ndarray": np.ones(3),
    "Law": {1: 1.0},
    "SampleLaw": T.sample_law(np.eye(3), np.ones(3) / 3, 0.1),
    "Iterable[Batches]": [BATCHES],
    "Callable[..., Any]": ss.problems.parabola,
}


def checked_functions():
    every = (getattr(T, name) for name in T.__all__)
    return [f for f in every if inspect.isfunction(f) and hasattr(f, "__wrapped__")]


@pytest.mark.parametrize("function", checked_functions(), ids=lambda f: f.__name__)
def test_theory_names_an_argument_of_a_wrong_kind(function):
    """A TypeError from inside would be a mistake of ours: every argument is looked at before."""
    parameters = inspect.signature(function).parameters
    needed = {n: p.annotation for n, p in parameters.items() if p.default is p.empty}
    good = {name: GOOD.get(name, OF_KIND.get(kind)) for name, kind in needed.items()}
    for name, parameter in parameters.items():
        if parameter.annotation != "bool":
            assert name in refused(lambda bad=name: function(**(good | {bad: object()})))


def test_theory_says_which_argument_is_missing_or_unknown():
    assert "missing a required argument: 'lr'" in refused(T.spectral_radius, b=GOOD["b"])
    assert "unexpected keyword argument 'rate'" in refused(
        T.spectral_radius, GOOD["b"], 0.1, rate=1
    )


def test_a_type_error_of_ours_stays_one():
    def ours(lr: "float") -> float:
        return lr + "1"

    with pytest.raises(TypeError, match="unsupported operand"):
        checked(ours)(0.1)


def test_an_error_survives_the_way_from_another_process():
    error = pickle.loads(pickle.dumps(ss.InputError("a\nb")))
    assert str(error) == "a b"


# ---- not mended yet: each row goes up into its table with the mend ---------------------------


def study(name="arm", options=None, file="mine.py", **settings):
    """Declare a study with one arm, and make it; nothing runs."""
    settings = {"lr": 0.1} | settings

    def arms(o):
        return {name: ss.Arm(problem(), **settings)}

    made = ss.Study(file, "Is it?", ss.Options, arms, lambda o, r: [], lambda o, r, c: "yes")
    return made.placed_arms(options or ss.Options())


STUDIES = {
    "train": (
        train,
        [
            ({"lrr": 1}, "did you mean 'lr'?"),
            ({"config": "a"}, "not 'a'"),
            ({"config": ss.TrainConfig()}, "not both"),
            ({"sink": 3}, "not 3"),
            ({"trajectory": 3}, "not 3"),
            ({"order": fails}, "the order 'fails' failed: KeyError"),
            ({"order": lambda generator: [0]}, "failed: TypeError"),
        ],
    ),
    "Arm": (
        of(ss.Arm, problem=problem()),
        [
            ({"lrr": 1}, "did you mean 'lr'?"),
            ({"problem": "curv"}, "did you mean 'curve'?"),
            ({"problem": None}, "unknown problem None"),
            ({"trajectory": 3}, "not 3"),
        ],
    ),
    "Study": (
        study,
        [
            *(({"name": bad}, says) for bad, says in NAMES),
            ({"name": "answer"}, "'answer'"),
            ({"file": "a\nb.py"}, "cannot be printed"),
            ({"file": "x" * 251 + ".py"}, "251 characters"),
            ({"options": ss.Options(seeds=0)}, "seeds must be at least 1, got 0"),
            ({"options": ss.Options(seeds=10**13)}, "1,000,000"),
            ({"options": ss.Options(seeds=2**63)}, "1,000,000"),
            ({"options": ss.Options(jobs=0)}, "got 0"),
            ({"options": ss.Options(checkpoint_seconds=NAN)}, "got nan"),
        ],
    ),
    "run": (of(ss.run), [({"name": None}, "None"), ({"name": "x" * 300 + ".py"}, "no script")]),
    "load_steps": (of(ss.load_steps, study="cli_bad"), [({"study": 3}, "not 3")]),
    "locate": (
        of(locate),
        [
            ({"given": 3}, "not 3"),
            ({"given": "a\0b"}, "is no path"),
            ({"given": "sqlite://"}, "sqlite:///"),
        ],
    ),
}


@pytest.mark.parametrize(("call", "bad", "says"), rows(STUDIES))
def test_bad_input_around_studies_and_stores(store, monkeypatch, call, bad, says):
    monkeypatch.chdir(Path(store).parent)
    assert says in refused(call, **bad)


# ---- properties ------------------------------------------------------------------------------

KINDS = st.sampled_from(["f2", "f4", "f8", "i1", "u1", "i4", "i8", "u8", "c8", "?", "U2", "M8[s]"])
ARRAYS = KINDS.flatmap(lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=3)))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.complex_numbers(),
    st.sampled_from([10**400, object(), int, np.float64(NAN), torch.tensor([1.0, 2.0])]),
)
ANYTHING = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.text(max_size=3), SCALARS), ARRAYS
)


def works_or_is_refused(call, *args, **named):
    """Call; return the outcome, or None after one clear line. Warnings are errors here."""
    try:
        return call(*args, **named)
    except ss.InputError as error:
        message = str(error)
    assert message.isprintable()
    return None


def affine(w, x):
    return w[0] * x + w[1]


@given(x=ARRAYS, y=ARRAYS)
def test_any_data_make_a_problem_or_are_refused(x, y):
    made = works_or_is_refused(ss.Problem, x, y, affine, w_init=[0.0, 0.0])
    if made is not None:
        assert made.x.shape[0] == made.y.shape[0] == made.d >= 1
        assert bool(torch.isfinite(made.x).all() and torch.isfinite(made.y).all())


@given(
    x=hnp.arrays("f8", st.integers(1, 9), elements=st.floats(-1e300, 1e300)),
    slope=st.floats(-1e300, 1e300),
)
def test_huge_data_train_or_diverge(x, slope):
    with np.errstate(over="ignore"):
        y = slope * x
    made = works_or_is_refused(ss.Problem, x, y, affine, w_init=[0.0, 0.0])
    if made is not None:
        run = ss.train(made, lr=0.1, epochs=2, batch_size=1)
        assert run.stop_reason[0] in ("max_epochs", "diverged")


SETTINGS = vars(ss.TrainConfig())
TAKEN: dict[str, list[Any]] = {  # of each setting, some that are: of ANYTHING hardly one is
    "optimizer": ["Adam", "notebook"],
    "lr": [0.5, np.float32(0.25), torch.tensor(0.125)],
    "options": [{"momentum": 0.5}],
    "groups": [{}, {"*": {"lr": 0.5}}, {"0.*": {"momentum": 0.5}, "*.bias": {}}],
    "clip_norm": [1.5, np.float32(0.25)],
    "clip_value": [2, torch.tensor(0.5)],
    "schedule": ["inverse_time"],
    "schedule_options": [{}],
    "schedule_unit": ["step", "epoch"],
    "average": [0, 0.5],
    "ema": [0.5, np.float32(0.25)],
    "batch_size": [1, 54, np.int64(7)],
    "batch_schedule": [((2, 7),), np.array([[1, 7], [9, 53]])],
    "drop_last": [True, np.True_],
    "order": ["strided", [[[0, 1], [2, 3]]], [[[[0, 1]]], [[[2, 3]]]]],
    "epochs": [1, np.int64(3)],
    "steps": [1, np.int64(3)],
    "stop": [("running", 0.1), ["full", 1e-9], ("test_loss", None), ("accuracy", -1), len],
    "patience": [1, np.int64(3)],
    "seeds": [3, [3, 1], range(4), np.arange(3)],
    "dtype": ["float32", "float64"],
    "device": ["cpu"],
    "engine": ["eager", "compiled"],
    "diagnostics": ["off", ["alpha"]],
    "diagnostics_every": [10],
    "evaluate_every": [10, np.int64(3)],
    "metrics": [["loss"], ("w0", "w3")],
    "clock": [True, np.True_],
    "record_rows": [0, 100],
    "measures": [{}, {"error": len}],
}
BESIDE = {  # what a setting goes with
    "batch_schedule": {"batch_size": 5},
    "schedule_unit": {"schedule": "inverse_time"},
    "patience": {"stop": ("full", 0.1)},
}


def listed(value):
    """Arrays, tensors, ranges, tuples as lists; numpy's and torch's numbers as Python's."""
    value = value.tolist() if hasattr(value, "tolist") else value
    several = isinstance(value, list | tuple | range)
    return [listed(item) for item in value] if several else value


def assert_taken(made, name, value, beside=()):
    """The config has the value, and every setting not given stands as it does unasked."""
    expected = SETTINGS[name] if value is None else listed(value)
    if name == "seeds" and not isinstance(expected, list):
        expected = [expected]
    assert listed(getattr(made, name)) == listed(expected)
    given = {name, *beside}
    follows = {"metrics"} if given & {"diagnostics", "schedule", "clock"} else set()
    for other in set(SETTINGS) - given - follows:
        assert getattr(made, other) == SETTINGS[other]


@pytest.mark.parametrize(("name", "value"), [(n, v) for n in SETTINGS for v in TAKEN[n]])
def test_a_setting_is_taken_as_it_was_given(name, value):
    beside = BESIDE.get(name, {})
    assert_taken(ss.TrainConfig.of(**{name: value}, **beside), name, value, beside)


@pytest.mark.slow
@given(name=st.sampled_from([*sorted(SETTINGS), "unknown"]), value=ANYTHING)
def test_any_setting_is_taken_or_refused(name, value):
    made = works_or_is_refused(ss.TrainConfig.of, **{name: value})
    if made is not None:
        assert_taken(made, name, value)
        works_or_is_refused(made.check, small_curve())


@given(name=st.text())
def test_any_text_is_a_name_in_one_line_or_refused(name):
    found = works_or_is_refused(checks.name, "a name", name)
    assert found in (name, None)
    assert found is None or len(found.splitlines()) == 1
    folder = works_or_is_refused(checks.folder_name, "a name", name)
    assert folder in (name, None)
    assert folder is None or (Path("artifacts") / folder).parts == ("artifacts", name)


@pytest.mark.parametrize("name", ["Größe", "学习率=1e-4", "ok 🙂", "family 👩‍👩‍👧", "a.b-c, d=1"])
def test_names_of_any_script_are_fine(name):
    assert checks.folder_name("a name", name) == name
    assert problem(name=name).name == name


@given(confidence=ANYTHING, target=ANYTHING)
def test_any_target_and_confidence_are_taken_or_refused(confidence, target):
    works_or_is_refused(ss.summary, VALUES, confidence)
    works_or_is_refused(ss.time_to_target, ROWS, target)
