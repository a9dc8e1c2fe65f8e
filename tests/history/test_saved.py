"""Histories in a file of their own, and pickled; modules with what a seed ended at."""

import contextlib
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from conftest import flat, literal, one_line, small_curve
from torch import nn

import sgdstudy as ss

CURVE = small_curve(noise=0.1)
X, Y = CURVE.x[:, None], CURVE.y[:, None]
FEW = {"lr": 0.05, "batch_size": 10, "epochs": 3}


def net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1))


class Own(torch.optim.SGD):
    pass


def own_order(generator, d):
    return torch.randperm(d, generator=generator).flip(0)


def own(chunk):
    return chunk.loss * 2


def enough(row):
    return row["epoch"] == 2


def squares(f, y):
    return (f - y) ** 2


RUNS = {
    "a curve": ("curve", {"lr": 1e-4, "batch_size": 10, "epochs": 2, "diagnostics": "full"}),
    "stops": (CURVE, {**FEW, "epochs": 50, "stop": ("running", 0.02), "seeds": range(4)}),
    "diverges": (CURVE, {**FEW, "lr": 1e6, "epochs": 30}),
    "schedule": (CURVE, {**FEW, "schedule": "ExponentialLR", "schedule_options": {"gamma": 0.9}}),
    "functions": (CURVE, {**FEW, "lr": None, "optimizer": Own, "order": own_order}),
    "a diagnostic": (CURVE, {**FEW, "diagnostics": ["alpha", own], "metrics": ["loss", "own"]}),
    "an array": (CURVE, {**FEW, "epochs": 2, "order": np.arange(40).reshape(2, 2, 10)}),
    "arrays": (
        CURVE,
        {**FEW, "epochs": 2, "seeds": range(2), "order": np.arange(80).reshape(2, 2, 2, 10) % 53},
    ),
    "steps": (CURVE, {**FEW, "steps": 8}),
    "stops as it says": (CURVE, {**FEW, "stop": enough}),
    "seeded": (CURVE, {**FEW, "order": ss.orders.seeded("shuffle", 3), "seeds": range(2)}),
    "no rows": (CURVE, {**FEW, "record_rows": 0}),
    "float64": ("diabetes", {"lr": 0.01, "batch_size": 50, "epochs": 2, "dtype": "float64"}),
    "digits": (
        "digits",
        {"lr": 0.1, "batch_size": 100, "epochs": 2, "seeds": range(2), "ema": 0.9},
    ),
    "own loss": (CURVE.replace(loss=squares), FEW),
    "a module": (ss.Problem(X, Y, net(), test=(X[:9], Y[:9])), {**FEW, "seeds": [5, 2]}),
}
FUNCTIONS = {
    "functions": {"optimizer": Own, "order": own_order},
    "stops as it says": {"stop": enough},
}


def same(history, other):
    for kind in ("steps", "epochs"):
        a, b = history.load(kind), other.load(kind)
        assert list(a) == list(b)
        assert list(a.dtypes) == list(b.dtypes)
        assert np.array_equal(a.to_numpy(float), b.to_numpy(float), equal_nan=True)
    for name in ("w", "stop_epoch", "stop_reason", "n_steps"):
        one, two = getattr(history, name), getattr(other, name)
        assert one.dtype == two.dtype
        assert np.array_equal(one, two, equal_nan=name == "w")
    for name in ("engine", "train_seconds", "seconds_per_step", "predicted"):
        assert getattr(history, name) == getattr(other, name)


@pytest.mark.parametrize("name", RUNS)
def test_a_history_comes_back_from_its_file(name, tmp_path):
    problem, settings = RUNS[name]
    history = ss.train(problem, **settings)
    path = history.save(tmp_path / "run.sgdstudy")
    again = ss.load_history(path, problem, **FUNCTIONS.get(name, {}))
    same(history, again)
    if name != "a diagnostic":  # it need not be given again
        assert again.config.diagnostics == history.config.diagnostics
        trained = [ss.train(problem, config=run.config).w for run in (again, history)]
        assert np.array_equal(*trained, equal_nan=True)
    for setting in ("lr", "batch_size", "epochs", "stop", "seeds", "schedule", "options"):
        assert getattr(again.config, setting) == getattr(history.config, setting)
    assert not any(b"pickle" in name.encode() for name in zipfile.ZipFile(path).namelist())
    assert [path.name for path in tmp_path.iterdir()] == ["run.sgdstudy"]


@pytest.mark.parametrize("name", [name for name in RUNS if name != "own loss"])
def test_a_history_is_pickled_where_its_functions_are(name):
    problem, settings = RUNS[name]
    history = ss.train(problem, **settings)
    again = pickle.loads(pickle.dumps(history))
    same(history, again)
    w = history.w.astype(float)
    if np.isfinite(w).all():
        assert np.array_equal(again.problem.full(w)[0], history.problem.full(w)[0])


READY = ["curve", "legendre", "ill_conditioned", "diabetes", "digits", "staircase", "chebyshev"]


@pytest.mark.parametrize("name", READY)
def test_what_stands_ready_is_pickled(name):
    problem = getattr(ss.problems, name)()
    again = pickle.loads(pickle.dumps(problem))
    assert again.digest == problem.digest
    assert torch.equal(again.initial([3]), problem.initial([3]))


def test_a_stream_is_pickled():
    problem = ss.problems.drifting_parabola([1e-3, 0, 0])
    given = {"lr": 0.1, "batch_size": 1, "epochs": 1, "order": "stream"}
    found = [ss.train(p, **given) for p in (problem, pickle.loads(pickle.dumps(problem)))]
    assert np.array_equal(found[0].w, found[1].w)


def history_at(path):
    history = ss.train(CURVE, **FEW, optimizer=Own)
    history.save(path)
    return history


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (lambda path: ss.load_history(path, CURVE), "optimizer was a function"),
        (lambda path: ss.load_history(path, "curve", optimizer=Own), "other data"),
        (lambda path: ss.load_history(path.with_name("none"), CURVE), "no history"),
        (lambda path: ss.load_history(path.parent, CURVE), "no history"),
        (lambda path: ss.load_history(path, CURVE, optimiser=Own), "optimizer was a function"),
        (lambda path: ss.load_history(path, CURVE, optimizer=Own, lr=None, speed=1), "speed"),
    ],
)
def test_what_does_not_fit_is_one_line(read, says, tmp_path):
    history_at(tmp_path / "run.sgdstudy")
    with pytest.raises(ss.InputError, match=says) as error:
        read(tmp_path / "run.sgdstudy")
    assert one_line(error)


class Flipped(nn.Module):
    """As many parameters as the linear model, over the inputs in the other order."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x):
        return self.linear(x.flip(1))


def means(f, y):
    return ((f - y) ** 2).flatten(1).mean(1)


def seeded(made):
    torch.manual_seed(3)
    return made()


XS = np.column_stack([CURVE.x, CURVE.x**2])
LINEAR = ss.Problem(XS, Y, seeded(lambda: nn.Linear(2, 1)))
OTHERS = {
    "model": (lambda: ss.Problem(XS, Y, seeded(Flipped)), "another model, loss or penalty: seed 0"),
    "the same loss": (lambda: LINEAR.replace(loss=means), None),
    "loss": (lambda: LINEAR.replace(loss="abs"), "another model, loss or penalty"),
    "penalty": (lambda: LINEAR.replace(penalty=("l2", 0.1)), "another model, loss or penalty"),
    "start": (lambda: LINEAR.replace(w_init=np.zeros(3)), "other first parameters"),
    "module": (lambda: ss.Problem(XS, Y, nn.Linear(2, 1)), None),
    "seeds": (lambda: ss.Problem(XS, Y, nn.Linear(2, 1), init="default"), "other first parameters"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "run.sgdstudy"
    return ss.train(LINEAR, **FEW, seeds=range(6)).save(path)


@pytest.mark.parametrize("name", OTHERS)
def test_another_problem_of_the_same_data_is_refused(name, saved):
    """As it was seen: another model of as many parameters, whose module gave another loss."""
    other, says = OTHERS[name]
    if says is None:  # it is the same, in other words, or with layers drawn anew
        found = ss.load_history(saved, other())
        assert torch.equal(found.problem.initial([0]), LINEAR.initial([0]))
        assert np.isfinite(found.w).all()
        return
    with pytest.raises(ss.InputError, match=says) as error:
        ss.load_history(saved, other())
    assert one_line(error)


def test_a_file_of_an_earlier_version_tells_no_more_than_the_data(saved, tmp_path):
    path = tmp_path / "earlier.sgdstudy"
    with zipfile.ZipFile(saved) as file, zipfile.ZipFile(path, "w") as earlier:
        told = json.loads(file.read("history.json"))
        del told["problem"]["ends"]
        told["files"].remove("start.npy")
        for name in told["files"]:
            earlier.writestr(name, file.read(name))
        earlier.writestr("history.json", json.dumps(told))
    same(ss.load_history(saved, LINEAR), ss.load_history(path, OTHERS["model"][0]()))


def test_a_damaged_file_is_never_read_as_numbers(tmp_path):
    path = tmp_path / "run.sgdstudy"
    history = history_at(path)
    data = path.read_bytes()
    for at in range(0, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        with contextlib.suppress(ss.InputError):  # else it is a byte that nothing reads
            same(history, ss.load_history(path, CURVE, optimizer=Own))
        path.write_bytes(data[:at])
        with pytest.raises(ss.InputError):
            ss.load_history(path, CURVE, optimizer=Own)


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    history = ss.train(CURVE, **FEW)
    with pytest.raises(ss.InputError, match="cannot be written") as error:
        history.save(tmp_path / "none" / "run.sgdstudy")
    assert one_line(error)


# ---- modules -------------------------------------------------------------------------------------


def test_a_module_comes_back_with_what_its_seed_ended_at():
    module = net()
    before = flat(module.parameters())
    history = ss.train(ss.Problem(X, Y, module), **FEW, seeds=[5, 2])
    assert torch.equal(flat(module.parameters()), before)
    for seed in (5, 2):
        found = history.module(seed)
        w = history.w[list(history.config.seeds).index(seed)]
        assert torch.equal(flat(found.parameters()), torch.from_numpy(w))
        assert set(found.state_dict()) == set(module.state_dict())
        loop = net()
        literal(loop, list(loop.parameters()), X, Y, **FEW, seed=seed)
        with torch.no_grad():
            assert torch.allclose(found(X), loop(X), atol=1e-5)


def test_frozen_parameters_buffers_and_dtype_come_along():
    module = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).eval()
    module[0].requires_grad_(False)
    module[1].running_mean += 0.5
    history = ss.train(ss.Problem(X, Y, module), **FEW, dtype="float64")
    found = history.module(0)
    assert found[0].weight.dtype == torch.float64
    assert torch.equal(found[0].weight.float(), module[0].weight)
    assert torch.equal(found[1].running_mean.float(), module[1].running_mean)
    assert not found[0].weight.requires_grad
    assert not found.training
    with torch.no_grad():
        loss = float(((found(X.double()) - Y.double()) ** 2).mean())
    assert loss == pytest.approx(history.at("full_loss"), rel=1e-9)


def test_what_has_no_module_or_seed_is_one_line():
    for history, seed, says in (
        (ss.train("curve", lr=1e-4, epochs=1), 0, "function of w"),
        (ss.train(ss.Problem(X, Y, net()), **FEW), 3, "no seed 3"),
    ):
        with pytest.raises(ss.InputError, match=says) as error:
            history.module(seed)
        assert one_line(error)


MODULES = {
    "layers": lambda: nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 1)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 1)), nn.Conv1d(1, 3, 1), nn.PReLU(), nn.Flatten(), nn.Linear(3, 1)
    ),
    "nested": lambda: nn.Sequential(
        nn.Sequential(nn.Linear(1, 2)), nn.Linear(2, 2), nn.Linear(2, 1)
    ),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_default_initial_values_are_those_of_the_seed(name, dtype):
    """As where `torch.manual_seed(seed)` comes before the module is made."""
    problem = ss.Problem(X, Y, MODULES[name](), init="default")
    if dtype == "float64":
        problem = problem.replace(x=X.double(), y=Y.double())
    before = torch.get_rng_state()
    found = problem.initial([0, 7, 2**40])
    assert torch.equal(torch.get_rng_state(), before)
    for row, seed in zip(found, (0, 7, 2**40), strict=True):
        torch.manual_seed(seed)
        assert torch.equal(row.float(), flat(MODULES[name]().parameters()))
    history = ss.train(problem, **FEW, seeds=[7, 0])
    first = history.steps[history.steps.step == 0].set_index("seed").loss
    assert first[7] != first[0]
    assert pickle.loads(pickle.dumps(problem)).init == "default"


class Loose(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(1, 1), nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.scale * self.layer(x)


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ParameterList([nn.Parameter(torch.ones(1))])

    def forward(self, x):
        return self.parts[0] * x


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"model": Loose(), "init": "default"}, "'scale' belongs to no layer"),
        (
            {"model": nn.Sequential(nn.Linear(1, 1), Loose()), "init": "default"},
            "'1.scale' .*, or give Loose a method reset_parameters",
        ),
        (
            {"model": Listed(), "init": "default"},
            r"'parts.0' belongs to no layer with reset_parameters; .*as w_init=callable\(gen.*\)$",
        ),
        (
            {"model": nn.utils.parametrizations.weight_norm(nn.Linear(1, 1)), "init": "default"},
            "param",
        ),
        ({"model": net(), "init": "xavier"}, "unknown init"),
        ({"model": net(), "init": "default", "w_init": np.zeros(16)}, "not both"),
        ({"model": lambda w, x: w[0] * x, "init": "default"}, "w_init=callable"),
    ],
)
def test_what_cannot_be_drawn_by_default_is_one_line(given, says):
    with pytest.raises(ss.InputError, match=says) as error:
        ss.Problem(X, Y, **given)
    assert one_line(error)
