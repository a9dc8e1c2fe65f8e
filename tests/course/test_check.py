"""The check of a gradient descent written by hand: right ones pass, every fault is named."""

import contextlib
import dataclasses
import random
import re
import sys
import threading
import types

import numpy as np
import pytest
import torch
from conftest import one_line
from torch.utils.data import DataLoader

import sgdstudy as ss
from sgdstudy.course.check import Report, check


@pytest.fixture(autouse=True)
def the_same_draws():
    """Every descent below shuffles with the global generators, which are put back afterwards."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    yield
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])


# ---- one descent with every fault to choose ----------------------------------------------------


def batches_of(t, size, draw):
    """The batches of one epoch, drawn well or badly."""
    order = {
        "loader": lambda: torch.randperm(len(t)),
        "sequential": lambda: torch.arange(len(t)),
        "fixed": lambda: torch.arange(len(t)).flip(0),
        "drop_last": lambda: torch.randperm(len(t)),
        "replacement": lambda: torch.randint(len(t), (len(t),)),
        "half": lambda: torch.randperm(len(t))[: len(t) // 2],
        "one": lambda: torch.randperm(len(t))[:size],
    }[draw]()
    parts = [t[part] for part in order.split(size)]
    return parts[:-1] if draw == "drop_last" else parts


def cost_of(loss, p, y, minibatch, d):
    """The loss of a batch, well or badly."""
    square = (p - y) ** 2
    return {
        "mean": square.mean,
        "sum": square.sum,
        "half": lambda: 0.5 * square.mean(),
        "abs": lambda: (p - y).abs().mean(),
        "minibatch": lambda: square.sum() / minibatch,
        "all": lambda: square.sum() / d,
        "twice": lambda: square.mean() / len(y),
    }[loss]()


def stop_value(stop, losses, sizes, full, before):
    """What is compared with epsilon at the end of an epoch."""
    losses, sizes = np.array(losses), np.array(sizes)
    running = losses @ sizes / sizes.sum()
    return {
        "running": running,
        "unweighted": losses.mean(),
        "last": losses[-1],
        "sum": losses.sum(),
        "total": losses @ sizes,
        "full": full,
        "never": np.inf,
        "kept": before + running,
        "leak": (before + losses @ sizes) / sizes.sum(),
        "late": before,
        "change": abs(before - running),
    }[stop]


def student(
    *,
    zero="step",
    loss="mean",
    factor=1.0,
    own_eta=None,
    move="in place",
    stop="running",
    draw="loader",
    size=None,
    epochs=lambda nepoch: nepoch,
    inside=False,
    column=False,
    full_batch=False,
):
    """A descent with the faults asked for; without any it is right."""

    def sgd(f, w, t, eta=0.0001, epsilon=0.01, nepoch=200, minibatch=10):
        eta = own_eta or eta
        epoch, before = 0, np.inf if stop in ("late", "change") else 0.0
        if move == "elsewhere":
            w = torch.zeros(3, requires_grad=True)
        gradient = torch.zeros(3)
        while epoch < epochs(nepoch):
            losses, sizes = [], []
            if zero == "epoch":
                gradient = torch.zeros(3)
            batches = [t] if full_batch else batches_of(t, size or minibatch, draw)
            for data in batches:
                x, y = data[:, 0], data[:, 1]
                prediction = f(w, x[:, None] if column else x)
                cost = cost_of(loss, prediction, y, minibatch, len(t))
                (g,) = torch.autograd.grad(cost, w)
                gradient = g if zero == "step" else gradient + g
                if move == "rebound":
                    w = (w - factor * eta * gradient).detach().requires_grad_()
                elif move != "never":
                    w.data.sub_(factor * eta * gradient)
                losses.append(cost.item())
                sizes.append(len(data))
                if inside and cost.item() < epsilon:
                    return
            with torch.no_grad():
                full = ((f(w, t[:, 0]) - t[:, 1]) ** 2).mean().item()
            value = stop_value(stop, losses, sizes, full, before)
            reset = stop in ("kept", "leak")
            before = value if reset else np.array(losses) @ sizes / sum(sizes)
            epoch += 1
            if value < epsilon:
                print(f"converged after {epoch} epochs")
                break

    return sgd


# ---- right solutions ---------------------------------------------------------------------------


def with_loader(f, w, t, eta=0.0001, epsilon=0.01, nepoch=200, minibatch=10):
    loader = DataLoader(t, batch_size=minibatch, shuffle=True)
    for _ in range(nepoch):
        total = 0.0
        for data in loader:
            cost = (f(w, data[:, 0]) - data[:, 1]).pow(2).mean()
            cost.backward()
            with torch.no_grad():
                w -= eta * w.grad
            w.grad.zero_()
            total += cost.item() * len(data)
        if total / len(t) < epsilon:
            return w
    return w


def with_numpy(model, parameters, points, step, limit, most, size):
    """Other names, numpy's permutation, torch.autograd.grad."""
    for _ in range(most):
        order, total = np.random.permutation(len(points)), 0.0
        for start in range(0, len(points), size):
            batch = points[order[start : start + size]]
            residual = batch[:, 1] - model(parameters, batch[:, 0])
            cost = residual.square().sum() / len(batch)
            (slope,) = torch.autograd.grad(cost, [parameters])
            parameters.data = parameters.data - step * slope
            total += float(residual.detach().square().sum())
        if total / len(points) <= limit:
            break


def with_optimizer(f, w, t, eta, epsilon, nepoch, minibatch):
    optimizer = torch.optim.SGD([w], lr=eta)
    criterion = torch.nn.MSELoss()
    loader = DataLoader(t, minibatch, shuffle=True)
    running, epoch = float("inf"), 0
    while epoch < nepoch and running >= epsilon:
        running = 0
        for data in loader:
            optimizer.zero_grad()
            cost = criterion(f(w, data[:, :1]), data[:, 1:])
            cost.backward()
            optimizer.step()
            running += cost.item() * data.shape[0] / len(t)
        epoch += 1


def with_prints(f, w, t, *, minibatch, nepoch, epsilon, eta):
    """Keywords only; f is also called to print, with and without a gradient; it has a warning."""
    indices = list(range(len(t)))
    for epoch in range(nepoch):
        random.shuffle(indices)
        total = 0.0
        for start in range(0, len(t), minibatch):
            data = t[indices[start : start + minibatch]]
            print("before", f(w, t[:, 0]).sum())
            cost = torch.nn.functional.mse_loss(f(w, data[:, 0]), data[:, 1])
            w.grad = None
            cost.backward()
            w.data.add_(w.grad, alpha=-eta)
            total += cost.item() * len(data)
        with torch.no_grad():
            print(epoch, (f(w, t[:, 0]) - t[:, 1]).square().mean())
        torch.nn.functional.mse_loss(torch.zeros(2, 1), torch.zeros(2))  # warns of the shapes
        if total / len(t) < epsilon:
            break


def sample_by_sample(f, w, t, eta, epsilon, nepoch, minibatch):
    """f at one sample at a time, without a dimension, gradients added up by backward()."""
    for _ in range(nepoch):
        total = 0.0
        for part in torch.randperm(len(t)).split(minibatch):
            w.grad = None
            for i in part:
                cost = (f(w, t[i, 0]) - t[i, 1]) ** 2
                (cost / len(part)).backward()
                total += cost.item()
            w.data -= eta * w.grad
        if total / len(t) < epsilon:
            break


class Descent:
    def __call__(self, f, w, t, eta, epsilon, nepoch, minibatch):
        return with_loader(f, w, t, eta, epsilon, nepoch, minibatch)


RIGHT = [with_loader, with_numpy, with_optimizer, with_prints, sample_by_sample, Descent()]


@pytest.mark.slow
@pytest.mark.parametrize("function", [*RIGHT, ss.sgd, student()])
def test_a_right_mini_batch_descent_is_correct_in_every_style(function):
    report = check(function, "ex4")
    assert report.correct, report
    assert repr(report) == str(report) == "correct"


def before_update(f, w, t, eta, epsilon, nepoch):
    """The loss is read, and the loop left, before the update."""
    for _ in range(nepoch):
        cost = (f(w, t[:, 0]) - t[:, 1]).pow(2).mean()
        if cost < epsilon:
            return
        cost.backward()
        w.data.sub_(eta * w.grad)
        w.grad.data.zero_()


def after_update(f, w, t, eta, epsilon, nepoch):
    """The loss is read again, after the update."""
    for _ in range(nepoch):
        torch.mean((f(w, t[:, 0]) - t[:, 1]) ** 2).backward()
        w.data.sub_(eta * w.grad)
        w.grad.data.zero_()
        if torch.mean((f(w, t[:, 0]) - t[:, 1]) ** 2) < epsilon:
            return


def full_sgd(f, w, t, eta, epsilon, nepoch):
    return ss.sgd(f, w, t, eta, epsilon, nepoch, minibatch=None)


@pytest.mark.parametrize("exercise", ["ex1", "ex2"])
@pytest.mark.parametrize(
    "function", [before_update, after_update, full_sgd, student(full_batch=True)]
)
def test_a_right_full_batch_descent_is_correct(function, exercise):
    assert check(function, exercise).faults == ()


# ---- every fault alone -------------------------------------------------------------------------

ALONE = {
    "never zeroed": (
        {"zero": "never"},
        "the gradient is not zeroed: each update uses the sum of all",
    ),
    "zeroed per epoch": ({"zero": "epoch"}, "uses the sum of the epoch's gradients so far"),
    "sum": ({"loss": "sum"}, "the sum over the batch, not the mean: 4 times too large"),
    "by minibatch": ({"loss": "minibatch"}, "the sum over the last batch, of 1, is divided by 4"),
    "by all": ({"loss": "all"}, "is divided by all 21 samples"),
    "mean twice": ({"loss": "twice"}, "the mean is divided by the batch size again"),
    "half": ({"loss": "half"}, "the step is 2 times too small: .* 1/2 in the loss"),
    "absolute": ({"loss": "abs"}, r"the mean of \|y - f\(w, x\)\|: square"),
    "pairs": ({"column": True}, "f\\(w, x\\) and y differ in shape"),
    "too large": ({"factor": 10}, "the step is 10 times too large"),
    "too small": ({"factor": 0.1}, "the step is 10 times too small"),
    "uphill": ({"factor": -1}, "goes uphill"),
    "own eta": ({"own_eta": 0.0001}, "eta is ignored: the step is 0.0001 whatever eta is"),
    "rebound": ({"move": "rebound"}, "w is rebound, not updated"),
    "elsewhere": ({"move": "elsewhere"}, "does not start at the w it is given"),
    "still": ({"move": "never"}, "w never moves"),
    "unweighted": ({"stop": "unweighted"}, "the plain mean of the batch losses"),
    "last batch": ({"stop": "last"}, "the last batch's loss alone"),
    "sum of batches": ({"stop": "sum"}, "the sum of the batch losses"),
    "sum of samples": ({"stop": "total"}, "the sum over the samples"),
    "full loss": ({"stop": "full"}, "the loss of all samples after the epoch"),
    "never stops": ({"stop": "never"}, "epsilon is never looked at"),
    "kept": ({"stop": "kept"}, "the running loss goes on from epoch to epoch"),
    "leak": ({"stop": "leak"}, "the running loss goes on from epoch to epoch"),
    "late": ({"stop": "late"}, "the stop comes one epoch late"),
    "other stop": ({"stop": "change"}, "does not follow the epoch's running loss"),
    "inside": ({"inside": True}, "it stops inside an epoch, .* after . batch(es)?:"),
    "one too many": ({"epochs": lambda n: n + 1}, "it runs 13 epochs where nepoch = 12"),
    "one too few": ({"epochs": lambda n: n - 1}, "it runs 11 epochs where nepoch = 12"),
    "own nepoch": ({"epochs": lambda n: 50}, "it runs 50 epochs where nepoch = 12"),
    "endless": ({"epochs": lambda n: float("inf")}, "it does not end at nepoch = 12"),
    "sequential": ({"draw": "sequential"}, "the order is the same in every epoch"),
    "fixed order": ({"draw": "fixed"}, "the order is the same in every epoch"),
    "drop_last": ({"draw": "drop_last"}, r"20 of the 21 samples: .* \(drop_last\)"),
    "replacement": ({"draw": "replacement"}, "an epoch uses samples twice"),
    "half of them": ({"draw": "half"}, "an epoch uses 10 of the 21 samples: each is due once"),
    "one batch": ({"draw": "one"}, "an epoch uses 4 of the 21 samples: each is due once"),
    "own size": ({"size": 10}, "the batches have 10 samples where minibatch = 4 is asked"),
    "full batch": ({"full_batch": True}, "the batches have 21 samples where minibatch = 4"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ALONE)
def test_a_fault_alone_is_named_alone(fault):
    options, line = ALONE[fault]
    report = check(student(**options), "ex4")
    assert not report.correct
    assert len(report.faults) == 1, report
    assert re.search(line, report.faults[0]), report
    assert "\n" not in report.faults[0]


FULL_BATCH = ["never zeroed", "half", "uphill", "rebound", "never stops", "kept", "late", "endless"]


@pytest.mark.parametrize("fault", FULL_BATCH)
def test_a_fault_of_a_full_batch_descent_is_named_alone(fault):
    options, line = ALONE[fault]
    report = check(student(full_batch=True, **options), "ex2")
    assert len(report.faults) == 1, report
    assert re.search(line, report.faults[0]), report


def test_a_full_batch_sum_is_told_from_a_wrong_eta():
    (line,) = check(student(full_batch=True, loss="sum"), "ex1").faults
    assert "the sum over the batch, not the mean: 21 times too large" in line
    (line,) = check(student(full_batch=True, factor=20), "ex1").faults
    assert "the step is 20 times too large" in line


def test_mini_batches_in_exercise_1_are_named():
    faults = check(ss.sgd, "ex1").faults
    assert faults == ("the batches have 10 samples where all 21 samples at once are asked",)


# ---- two faults at once ------------------------------------------------------------------------

TOGETHER = [
    ("never zeroed", "rebound"),
    ("zeroed per epoch", "unweighted"),
    ("never zeroed", "drop_last"),
    ("zeroed per epoch", "sum"),
    ("sum", "last batch"),
    ("pairs", "last batch"),
    ("too large", "unweighted"),
    ("own eta", "rebound"),
    ("uphill", "sum"),
    ("rebound", "full loss"),
    ("elsewhere", "unweighted"),
    ("unweighted", "sequential"),
    ("last batch", "own size"),
    ("endless", "never stops"),
    ("one too many", "sequential"),
    ("drop_last", "own size"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), TOGETHER)
def test_two_faults_at_once_are_both_named(one, other):
    options = ALONE[one][0] | ALONE[other][0]
    faults = check(student(**options), "ex4").faults
    assert len(faults) == 2, faults
    for _, line in (ALONE[one], ALONE[other]):
        assert any(re.search(line, fault) for fault in faults), faults


# ---- functions that fail -----------------------------------------------------------------------


def loss_of(f, w, t):
    return ((f(w, t[:, 0]) - t[:, 1]) ** 2).mean()


def rebinds(f, w, t, eta, epsilon, nepoch):
    for _ in range(nepoch):
        loss_of(f, w, t).backward()
        w = w - eta * w.grad


def changes_a_leaf(f, w, t, eta, epsilon, nepoch):
    loss_of(f, w, t).backward()
    w -= eta * w.grad


def fails_once_it_stops(f, w, t, eta, epsilon, nepoch):
    for _ in range(nepoch):
        cost = loss_of(f, w, t)
        (g,) = torch.autograd.grad(cost, w)
        w.data -= eta * g
        if cost < epsilon:
            raise SystemExit("converged")


def holds_on(f, w, t, eta, epsilon, nepoch):
    while True:
        with contextlib.suppress(Exception):
            w.grad = None
            cost = loss_of(f, w, t)
            if cost < epsilon:
                return
            cost.backward()
            w.data -= eta * w.grad


def zeroes_too_early(f, w, t, eta, epsilon, nepoch):
    optimizer = torch.optim.SGD([w], lr=eta)
    for _ in range(nepoch):
        loss_of(f, w, t).backward()
        optimizer.zero_grad()
        optimizer.step()


def does_nothing(f, w, t, eta, epsilon, nepoch):
    pass


def takes_no_gradient(f, w, t, eta, epsilon, nepoch):
    for _ in range(nepoch):
        w.data -= eta * loss_of(f, w, t).item()


def mixes_up_x_and_y(f, w, t, eta, epsilon, nepoch):
    rebinds(f, w, t.flip(1), eta, epsilon, nepoch)


def uses_adam(f, w, t, eta, epsilon, nepoch):
    optimizer = torch.optim.Adam([w], lr=eta)
    for _ in range(nepoch):
        optimizer.zero_grad()
        cost = loss_of(f, w, t)
        cost.backward()
        optimizer.step()
        if cost < epsilon:
            break


def takes_a_root(f, w, t, eta, epsilon, nepoch):
    for _ in range(nepoch):
        cost = loss_of(f, w, t)
        (g,) = torch.autograd.grad(cost, w)
        w.data -= eta * g.sign() * g.abs().sqrt()
        if cost < epsilon:
            break


def stops_above(f, w, t, eta, epsilon, nepoch):
    for _ in range(nepoch):
        cost = loss_of(f, w, t)
        (g,) = torch.autograd.grad(cost, w)
        w.data -= eta * g
        if cost > epsilon:
            break


def cannot_say_what_is_wrong(f, w, t, eta, epsilon, nepoch):
    raise type("Own", (Exception,), {"__str__": lambda self: 7})


FAILING = {
    cannot_say_what_is_wrong: ["line .*: it raises Own: no message"],
    rebinds: ["w is rebound"],
    changes_a_leaf: ["line .*, `w -= eta .*`: torch follows w"],
    fails_once_it_stops: ["line .*: it raises SystemExit: converged"],
    holds_on: ["does not end at nepoch"],
    zeroes_too_early: ["w never moves"],
    does_nothing: ["f is never called"],
    takes_no_gradient: ["no gradient is taken through f"],
    mixes_up_x_and_y: ["x and y are swapped"],
    uses_adam: ["the steps are those of Adam"],
    takes_a_root: [r"update 1 moves w by \(.*\), where \(.*\) is right"],
    stops_above: ["it ends after epoch 1, though nepoch = 12"],
}


@pytest.mark.parametrize("function", FAILING)
def test_a_function_that_fails_gets_its_lines(function):
    faults = check(function, "ex1").faults
    assert len(faults) == len(FAILING[function]), faults
    for fault, line in zip(faults, FAILING[function], strict=True):
        assert re.search(line, fault), faults
        assert "\n" not in fault


@pytest.mark.parametrize(
    ("function", "exercise", "said"),
    [
        (with_loader, "ex6", "Valid: ex1, ex2, ex3, ex4, ex5"),
        (with_loader, ["ex4"], "Valid: ex1, ex2, ex3, ex4, ex5"),
        ("ex4", "ex4", "not 'ex4'"),
        (None, "ex4", "not None"),  # check(sgd(...), "ex4")
    ],
)
def test_what_cannot_be_checked_is_refused_in_one_line(function, exercise, said):
    with pytest.raises(ss.InputError) as error:
        check(function, exercise)
    assert one_line(error)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("function", "exercise", "said"),
    [
        (with_loader, "ex3", "minibatch); expected enumerate_batches(trainloader)"),
        (before_update, "ex4", "expected sgd(f, w, t, eta, epsilon, nepoch, minibatch)"),
        (lambda f, w: None, "ex1", "takes (f, w); expected sgd(f, w, t, eta, epsilon, nepoch)"),
        (max, "ex1", "takes (...); expected sgd(f, w, t, eta, epsilon, nepoch)"),
    ],
)
def test_other_arguments_are_a_fault(function, exercise, said):
    report = check(function, exercise)
    assert not report
    (fault,) = report.faults
    assert said in fault


# ---- what is left as it was --------------------------------------------------------------------


def test_the_callers_randomness_is_untouched():
    def drawn():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()

    def draws(*arguments):
        drawn()
        with_prints(*arguments[:3], minibatch=4, nepoch=2, epsilon=0, eta=0.1)

    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    expected = drawn()
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    assert not check(draws, "ex4").correct
    assert drawn() == expected


def test_a_descent_that_seeds_itself_in_every_epoch_does_not_shuffle():
    def seeds(f, w, t, eta, epsilon, nepoch, minibatch):
        for _ in range(nepoch):
            torch.manual_seed(0)
            with_loader(f, w, t, eta, epsilon, 1, minibatch)

    faults = check(seeds, "ex4").faults
    assert faults[0].startswith("the order is the same in every epoch"), faults


def test_nothing_is_printed_or_warned_of(capsys):
    check(with_prints, "ex4")
    assert capsys.readouterr() == ("", "")


def test_a_notebooks_widgets_are_captured(monkeypatch):
    entered = []

    @contextlib.contextmanager
    def capture_output():
        entered.append(True)
        yield

    fake = types.ModuleType("IPython.utils.capture")
    vars(fake)["capture_output"] = capture_output
    for name in ("IPython", "IPython.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    assert check(before_update, "ex1").correct
    assert entered


def test_it_works_without_gradients_and_in_float64_around_it():
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            assert check(with_loader, "ex4").correct
            assert not torch.is_grad_enabled()
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_report_prints_its_lines():
    report = Report(("one fault", "another"))
    assert repr(report) == str(report) == "one fault\nanother"
    assert not report.correct
    assert Report().correct
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.faults = ()


@pytest.mark.slow
def test_outside_the_main_thread_an_endless_loop_ends_too():
    def hangs(f, w, t, eta, epsilon, nepoch):
        while True:
            pass

    found = []
    thread = threading.Thread(target=lambda: found.append(check(hangs, "ex1", seconds=0.5)))
    thread.start()
    thread.join(30)
    assert "stopped after 0.5 seconds" in str(found[0])


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "10"])
def test_seconds_that_are_none_are_refused(seconds):
    with pytest.raises(ss.InputError, match="seconds"):
        check(before_update, "ex1", seconds)
