"""Sweeps from Python: what the command does, and arms that the program makes."""

import json
import logging
import re
import runpy
import subprocess
import sys
import threading
import types
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call, one_line
from servers import MlflowServer
from test_sweep import SCRIPT, WORDS, assert_same_content

import sgdstudy as ss
from sgdstudy.sweeps import worker
from sgdstudy.sweeps.own import Own
from sgdstudy.tracking.store import open_store

KERNEL = """
import json, sys
import nbformat
from nbclient import NotebookClient

cells = [nbformat.v4.new_code_cell(source) for source in json.load(sys.stdin)]
done = NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=200).execute()
parts = [part for cell in done.cells for part in cell["outputs"] if part.get("name") == "stdout"]
print("".join(part["text"] for part in parts))
"""
ANEW = ["run_id", "train_seconds", "seconds_per_step"]
GAIN = 1.0


def bowl(scale=1.0):
    """Scale w^2 from w = 1: after K steps of all the data w = (1 - 2 lr scale)^K."""
    x = np.full(4, scale**0.5)
    return ss.Problem(x, 0 * x, lambda w, x: w[0] * x, w_init=[1.0], name="bowl")


def descent(scale=1.0, epochs=3):
    return ss.Arm(bowl(scale), lr=0.1, epochs=epochs, batch_size=None)


def own_rule(lr, rule="SGD"):
    """A step size that only the function sees."""
    made = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam}[rule]
    return ss.Arm(bowl(), optimizer=lambda params: made(params, lr=lr), epochs=2)


def gained():
    return ss.Arm(bowl().replace(model=lambda w, x: GAIN * w[0] * x), lr=0.1, epochs=2)


def undecided(lr):
    """A module that starts wherever torch's generator is."""
    x = np.linspace(-1, 1, 12, dtype="f")[:, None]
    return ss.Arm(ss.Problem(x, x, torch.nn.Linear(1, 1)), lr=lr, batch_size=4, epochs=2)


def ends(lr, scale, epochs):
    return (1 - 2 * lr * scale) ** epochs


# ---- what comes back -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_functions_parameters_and_settings_are_axes(store):
    lrs, scales = np.array([0.05, 0.2]), [0.5, 2]
    table = ss.sweep(descent, {"lr": lrs, "scale": scales}, store=store)
    assert list(table["lr"]) == [0.05, 0.05, 0.2, 0.2]
    assert list(table["scale"]) == [0.5, 2, 0.5, 2]
    w = ends(table["lr"], table["scale"], 3)
    np.testing.assert_allclose(table["full_loss"], table["scale"] * w**2, rtol=1e-12)
    runs = ss.load_runs("descent_sweep", store=store).set_index("run_id").loc[table["run_id"]]
    assert list(runs["option.scale"]) == [0.5, 2, 0.5, 2]
    assert list(runs["option.epochs"]) == [3] * 4
    assert list(runs["lr"]) == list(table["lr"])
    np.testing.assert_allclose(runs["w0"], w, rtol=1e-12)


def test_what_a_function_takes_it_gets_whatever_it_is_called(store):
    """A step size of SGD from 1 on w^2: two steps leave (1 - 2 lr)^2; none is taken for another."""
    table = ss.sweep(own_rule, {"lr": [0.1, 0.3, 0.4]}, store=store)
    np.testing.assert_allclose(table["full_loss"], ends(table["lr"], 1, 2) ** 2, rtol=1e-12)
    assert table["run_id"].nunique() == 3
    runs = ss.load_runs("own_rule_sweep", store=store)
    assert list(runs["option.lr"]) == list(runs["lr"]) == [0.1, 0.3, 0.4]


def test_a_word_stands_for_a_class_and_other_arguments_are_keywords(store):
    """The first step of Adam is lr long, whatever the gradient."""
    table = ss.sweep(own_rule, {"rule": ["SGD", "Adam"]}, lr=0.25, store=store)
    (first,) = ss.sweep(own_rule, {"rule": "Adam", "epochs": 1}, lr=0.25, store=store)["w0"]
    assert table["full_loss"][0] == pytest.approx(ends(0.25, 1, 2) ** 2)
    assert first == pytest.approx(0.75, abs=1e-6)
    assert list(ss.load_runs("own_rule_sweep", store=store)["option.lr"]) == [0.25]


def test_a_function_that_draws_draws_the_same_for_every_combination(store, caplog):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    table = ss.sweep(undecided, {"lr": [0.1, 0.2]}, store=store)
    assert torch.equal(torch.get_rng_state(), before)
    assert caplog.messages == []
    for row in table.to_dict("records"):
        torch.manual_seed(5)
        arm = undecided(row["lr"])
        assert row["full_loss"] == ss.train(arm.problem, config=arm.config).at("full_loss")
    torch.manual_seed(5)
    again = ss.sweep(undecided, {"lr": [0.1, 0.2]}, store=store, resume=True)
    assert list(again["run_id"]) == list(table["run_id"])
    torch.manual_seed(6)
    other = ss.sweep(undecided, {"lr": [0.1, 0.2]}, store=store, resume=True)
    assert not set(other["run_id"]) & set(table["run_id"])


def test_an_arm_is_swept_over_its_settings_with_its_own_seeds(store):
    arm = ss.Arm(ss.problems.curve(noise=0.1), lr=1e-4, batch_size=10, epochs=3, seeds=[4, 7])
    grid = {"lr": "logspace(1e-5, 1e-4, 2)", "batch_size": (5, None)}
    table = ss.sweep(arm, grid, name="mine", store=store)
    assert list(table["batch_size"]) == [5, None, 5, None]
    for row in table.to_dict("records"):
        given = {"lr": row["lr"], "batch_size": row["batch_size"], "epochs": 3, "seeds": [4, 7]}
        history = ss.train(arm.problem, **given)
        middle = np.quantile(history.epochs.groupby("seed")["full_loss"].last(), 0.5,
                             method="inverted_cdf")  # fmt: skip
        assert row["full_loss"] == middle
    assert set(ss.load_runs("mine_sweep", store=store)["seeds"]) == {"4,7"}
    more = ss.sweep(arm, {"lr": 1e-4}, name="mine", seeds=3, store=store)
    assert set(ss.load_epochs("mine_sweep", store=store)["seed"]) == {0, 1, 2}
    assert list(more["status"]) == ["FINISHED"]


def test_a_script_is_swept_as_by_the_command(tmp_path, store):
    path, other = tmp_path / "tiny.py", str(tmp_path / "other")
    path.write_text(SCRIPT)
    words = ["--grid", *WORDS[:1], "scale=1.0,2.0", "--seeds", "2", "--jobs", "1"]
    assert call("sweep", path, *words, "--store", other) == 0
    lrs = [float(word) for word in WORDS[0].removeprefix("lr=").split(",")]
    grid = {"lr": lrs, "scale": [1.0, 2.0]}
    table = ss.sweep(str(path), grid, seeds=2, store=store)
    assert list(table["scale"]) == [1, 2] * 3
    assert_same_content(store, other)
    sgd = ss.sweep(str(path), {"lr": 0.1}, arm="SGD", seeds=2, store=store, first_seed=3)
    assert ss.load_runs("tiny_sweep", store=store)["optimizer"].tolist() == ["SGD"]
    assert set(ss.load_epochs("tiny_sweep", store=store)["seed"]) == {3, 4}
    assert sgd["full_loss"].notna().all()


def test_the_best_come_first_where_a_rank_is_asked_for(store):
    """Least and most |w|."""

    def arm(scale):
        measures = {"far_score": lambda f, y: float(f.abs().max())}
        return ss.Arm(bowl(scale), lr=0.25, epochs=1, measures=measures)

    scales = [1.0, 3.5, 0.25]
    far = {s: s**0.5 * abs(ends(0.25, s, 1)) for s in scales}
    table = ss.sweep(arm, {"scale": scales}, by="far_score", store=store)
    assert list(table["scale"]) == sorted(scales, key=lambda s: -far[s])
    np.testing.assert_allclose(table["far_score"], sorted(far.values())[::-1], rtol=1e-12)
    table = ss.sweep(arm, {"scale": scales}, by="full_loss", store=store)
    assert list(table["scale"]) == sorted(scales, key=far.get)
    assert list(table.index) == [0, 1, 2]
    assert list(ss.sweep(arm, {"scale": scales}, store=store)["scale"]) == scales


def test_what_fails_is_said_and_comes_last(store, caplog):
    def broken(generator, d):
        raise RuntimeError("no order\nat all")

    def arm(breaks, scale):
        order = broken if breaks else "sequential"
        return ss.Arm(bowl(scale), lr=0.1, epochs=2, batch_size=2, order=order)

    grid = {"breaks": [True, False], "scale": [2.0, 1.0]}
    table = ss.sweep(arm, grid, by="full_loss", store=store)
    assert list(table["status"]) == ["FINISHED"] * 2 + ["FAILED"] * 2
    w = ends(0.1, np.array([2.0, 1.0]), 4)
    np.testing.assert_allclose(table["full_loss"][:2], [2, 1] * w**2, rtol=1e-12)
    assert list(table["scale"][:2]) == [2, 1]  # 0.034 and 0.17
    assert "2 of 4 combinations failed; their runs say why" in caplog.messages
    assert list(ss.sweep(arm, grid, store=store)["status"]) == ["FAILED"] * 2 + ["FINISHED"] * 2


def test_steps_are_recorded_where_asked_for(store):
    ss.sweep(descent, {"lr": [0.1, 0.2]}, record="steps", store=store)
    steps = ss.load_steps("descent_sweep", store=store, columns=["step", "loss"])
    first = steps[steps["step"] == 1]["loss"]
    np.testing.assert_allclose(first, [ends(lr, 1, 1) ** 2 for lr in (0.1, 0.2)], rtol=1e-12)


def kind_of(k):
    """An arm that tells apart what is equal."""
    places = {"True": 1, "1": 2, "1.0": 3, "False": 4, "0": 5, "0.0": 6, "-0.0": 7}
    return ss.Arm(bowl(places[repr(k)]), lr=0.01, epochs=1)


def test_equal_values_of_other_types_are_others(store):
    """As it was seen: True got the number of 1, and 0.0 that of 0."""
    values = [1, True, 1.0, 0, False, 0.0, -0.0]
    direct = [ss.train(kind_of(k).problem, lr=0.01, epochs=1).epochs["full_loss"] for k in values]
    for _ in range(2):  # the second time they are found
        table = ss.sweep(kind_of, {"k": values}, store=store, resume=True)
        assert table["run_id"].nunique() == len(values)
        np.testing.assert_allclose(table["full_loss"], np.concatenate(direct), rtol=1e-12)


def test_a_worker_tells_equal_options_apart():
    """Its plan is kept from task to task."""
    own = Own.of(kind_of, None, {"lr": [0.1]}, {"k": 1}, False)
    plans = []
    for k in (1, True, 1.0):
        options = {**asdict(own.options()), "k": k}
        task = worker.Task("", options, "kind_of", "", {}, "epochs", {}, None, own)
        plans.append(worker._plan(task).combination({}).arm.problem.parts["data"])
    assert len(set(plans)) == 3


# ---- resume --------------------------------------------------------------------------------------


def test_resume_runs_what_is_new_and_what_is_another(store):
    def made(gain):
        def arm(scale=1.0):
            problem = bowl(scale).replace(loss=lambda f, y: gain * (f - y) ** 2)
            return ss.Arm(problem, lr=0.1, epochs=2)

        return arm

    first = ss.sweep(made(1.0), {"scale": [1.0, 2.0]}, store=store)
    wide = ss.sweep(made(1.0), {"scale": [1.0, 2.0, 3.0]}, store=store, resume=True)
    assert list(wide["run_id"][:2]) == list(first["run_id"])
    assert len(ss.load_runs("arm_sweep", store=store)) == 3  # one invocation
    other = ss.sweep(made(2.0), {"scale": [1.0]}, store=store, resume=True)
    assert not set(other["run_id"]) & set(wide["run_id"])
    np.testing.assert_allclose(other["full_loss"], 2 * ends(0.1, 2, 2) ** 2, rtol=1e-12)
    anew = ss.sweep(made(1.0), {"scale": [1.0]}, store=store)
    assert not set(anew["run_id"]) & set(wide["run_id"])


PROGRAM = """
import sgdstudy as ss

def arm(scale=1.0):
    problem = ss.Problem([1.0, 1.0], [0.0, 0.0], lambda w, x: GAIN * w[0] * x * scale, w_init=[1.0])
    return ss.Arm(problem, lr=0.1, epochs=2)

GAIN = 1.0
table = ss.sweep(arm, {"scale": SCALES}, resume=True, store=STORE)
"""


def test_a_program_goes_on_with_another_grid_and_not_with_another_model(
    tmp_path, store, monkeypatch
):
    path = tmp_path / "program.py"
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(path), raising=False)

    def ran(scales, gain):
        text = PROGRAM.replace("STORE", repr(store)).replace("SCALES", repr(scales))
        path.write_text(text.replace("GAIN = 1.0", f"GAIN = {gain}"))
        return list(runpy.run_path(str(path))["table"]["run_id"])

    first = ran([1.0, 2.0], 1.0)
    wide = ran([2.0, 1.0, 3.0], 1.0)
    assert wide[:2] == first[::-1]
    tags = [open_store(store).client.get_run(run_id).data.tags for run_id in wide]
    assert tags[0]["sgdstudy.code"] != tags[2]["sgdstudy.code"]
    assert not set(ran([1.0, 2.0], 1.5)) & set(wide)


def test_what_nothing_shows_is_said(store, caplog):
    lock = threading.Lock()

    def arm(scale=1.0):
        def model(w, x):
            assert not lock.locked()
            return w[0] * x

        return ss.Arm(bowl(scale).replace(model=model), lr=0.1, epochs=1)

    first = ss.sweep(arm, {"scale": [1.0, 2.0]}, store=store)
    again = ss.sweep(arm, {"scale": [1.0, 2.0]}, store=store, resume=True)
    assert not set(first["run_id"]) & set(again["run_id"])
    assert sum("no combination is taken for another" in line for line in caplog.messages) == 2
    with pytest.raises(ss.InputError, match=r"arm cannot be handed to other .*jobs=1") as error:
        ss.sweep(arm, {"scale": [1.0, 2.0]}, store=store, jobs=2)
    assert one_line(error)
    assert len(ss.load_runs("arm_sweep", store=store, invocation="all")) == 4


# ---- several processes ---------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_leave_the_same_as_one(store, tmp_path, monkeypatch):
    other = str(tmp_path / "other")
    grid = {"scale": [0.5, 1.0], "lr": [0.1, 0.2]}
    two = ss.sweep(descent, grid, store=store, jobs=2)
    one = ss.sweep(descent, grid, store=other)
    pd.testing.assert_frame_equal(two.drop(columns=ANEW), one.drop(columns=ANEW))
    assert_same_content(store, other, "descent_sweep")
    torch.manual_seed(5)
    two = ss.sweep(undecided, {"lr": [0.1, 0.2]}, store=store, jobs=2)
    one = ss.sweep(undecided, {"lr": [0.1, 0.2]}, store=other)
    pd.testing.assert_frame_equal(two.drop(columns=ANEW), one.drop(columns=ANEW))
    # a module that the other process reads anew has another variable there
    monkeypatch.setattr(sys.modules[__name__], "GAIN", 2.0)
    with pytest.raises(ss.InputError, match=r"another one in another process.*jobs=1") as error:
        ss.sweep(gained, {"lr": [0.1, 0.2]}, store=store, jobs=2)
    assert one_line(error)
    table = ss.sweep(gained, {"lr": [0.1, 0.2]}, store=store)  # GAIN^2 w^2
    np.testing.assert_allclose(table["full_loss"], 4 * ends(table["lr"], 4, 2) ** 2, rtol=1e-12)


@pytest.mark.slow
def test_a_module_that_another_process_does_not_find_is_one_line(store, monkeypatch):
    gone = types.ModuleType("gone_elsewhere")
    arm = types.FunctionType(descent.__code__, descent.__globals__, "arm", (1.0, 3))
    arm.__module__, arm.__qualname__ = gone.__name__, "arm"
    vars(gone)["arm"] = arm
    monkeypatch.setitem(sys.modules, gone.__name__, gone)
    with pytest.raises(ss.InputError, match=r"cannot read what it is given.*jobs=1") as error:
        ss.sweep(arm, {"lr": [0.1, 0.2]}, store=store, jobs=2)
    assert one_line(error)
    assert len(ss.sweep(arm, {"lr": [0.1, 0.2]}, store=store)) == 2


@pytest.mark.server
def test_with_a_server_the_workers_log_what_they_were_given(store, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    grid = {"scale": [0.5, 1.0], "lr": [0.1, 0.2]}
    ss.sweep(descent, grid, store=store)
    with MlflowServer(tmp_path / "server") as server:
        table = ss.sweep(descent, grid, store=server.uri, jobs=2)
        assert_same_content(store, server.uri, "descent_sweep")
        again = ss.sweep(descent, grid, store=server.uri, jobs=2, resume=True)
        assert list(again["run_id"]) == list(table["run_id"])


IN_CELLS = """
import numpy as np, torch
from torch import nn
import sgdstudy as ss
from helper import halved

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner, self.out = nn.Linear(1, width), nn.Linear(width, 1)

    def forward(self, x):
        return self.out(torch.tanh(self.inner(x)))

class Own(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad

x = torch.linspace(-1, 1, 20)[:, None]

def huber(f, y):
    return nn.functional.huber_loss(f, y, reduction="none", delta=DELTA).sum(-1)

DELTA = 0.5

def net(width=2, rate=0.1):
    torch.manual_seed(width)
    problem = ss.Problem(x, halved(x), Net(width), loss=huber, init="default")
    return ss.Arm(problem, optimizer=Own, lr=rate, batch_size=5, epochs=2, seeds=range(2),
                  measures={"worst": lambda f, y: (f - y).abs().max()})
"""


@pytest.mark.slow
def test_two_processes_from_a_notebook(tmp_path):
    """Functions and classes of cells, a helper beside them, and a script: as in one process."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    (tmp_path / "helper.py").write_text("def halved(x):\n    return x / 2\n")
    (tmp_path / "tiny.py").write_text(SCRIPT)
    grid = '{"width": [2, 3], "rate": [0.1, 0.3]}'
    cells = [
        IN_CELLS,
        "def ran(jobs): return ss.run('tiny.py', seeds=2, jobs=jobs, store=f'run{jobs}').runs",
        "one, two = ran(1), ran(2)",
        "print(all(np.array_equal(one[arm].w, two[arm].w) for arm in one))",
        f"def swept(jobs): return ss.sweep(net, {grid}, jobs=jobs, store=f'own{{jobs}}')",
        "found = {1: swept(1), 2: swept(2)}",
        f"print(found[1].drop(columns={ANEW}).equals(found[2].drop(columns={ANEW})))",
        "print(found[2].status.tolist(), found[2].full_loss.nunique())",
        "DELTA = 0.25",
        f"again = ss.sweep(net, {grid}, jobs=2, store='own2', resume=True)",
        "print(set(again.run_id) & set(found[2].run_id), again.full_loss.nunique())",
        "same = ss.sweep(net, {'width': [2, 3, 4]}, rate=0.1, jobs=2, store='own2', resume=True)",
        "print(len(set(same.run_id) & set(again.run_id)))",
    ]  # fmt: skip
    made = subprocess.run(
        [sys.executable, "-c", KERNEL],
        input=json.dumps(cells),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    lines = made.stdout.strip().splitlines()
    assert lines == ["True", "True", f"{['FINISHED'] * 4} 4", "set() 4", "2"], made.stdout


# ---- what cannot be swept ------------------------------------------------------------------------


def needs(width):
    return descent()


def seeded(seeds):
    return descent()


def counted(steps=1):
    return descent(epochs=steps)


@pytest.mark.parametrize(
    ("what", "grid", "given", "match"),
    [
        (descent, {}, {}, "grid is empty"),
        (descent, [("lr", 1)], {}, "a grid is a dict"),
        (descent, {1: [2]}, {}, "names of a grid are words"),
        (descent, {"lr": []}, {}, "empty value"),
        (descent, {"lr": [0.1, 0.1]}, {}, "a value twice"),
        (descent, {"lr": [0.1, -1]}, {}, "lr=-1 cannot be run"),
        (descent, {"lrr": [0.1]}, {}, "unknown setting of a grid 'lrr'; did you mean 'lr'"),
        (descent, {"seeds": [1]}, {}, "unknown setting of a grid 'seeds'"),
        (descent, {"optimizer": [torch.optim.SGD]}, {}, "let a word stand for anything else"),
        (descent, {"lr": 0.1}, {"scal": 2}, "unknown parameter of descent 'scal'"),
        (descent, {"lr": [np.ones(3)]}, {}, "let a word stand"),
        (descent, {"lr": 0.1}, {"scale": np.ones(3)}, "scale of descent is a number, a text"),
        (descent, {"lr": 0.1}, {"scale": -1.0}, "x of the data is a tensor of torch.complex"),
        (descent, {"scale": [1.0, -1.0]}, {}, "scale=-1 cannot be run"),
        (descent, {"lr": 0.1}, {"arm": "other"}, "unknown arm 'other'"),
        (descent, {"lr": 0.1}, {"by": "accuracy"}, "unknown result to rank by 'accuracy'"),
        (descent, {"lr": 0.1}, {"record": "all"}, "unknown record 'all'"),
        (descent, {"lr": 0.1}, {"jobs": 0}, "jobs must be at least 1"),
        (descent, {"lr": 0.1}, {"seeds": range(3)}, "seeds must be a whole number"),
        (descent, {"lr": 0.1}, {"name": "a/b"}, "names a folder"),
        (descent, {"lr": range(2000), "epochs": range(1000)}, {}, "2,000,000 points"),
        (needs, {"lr": 0.1}, {}, "needs needs 'width': name it in the grid"),
        (seeded, {"lr": 0.1}, {}, "seeded needs 'seeds'"),
        (counted, {"steps": [1, 2]}, {}, "the grid's 'steps' is also a column of results"),
        (lambda: descent(), {"lr": 0.1}, {}, "has no name: give one"),
        (bowl, {"lr": 0.1}, {}, "is a ss.Arm, not Problem"),
        (lambda: 1 / 0, {"lr": 0.1}, {"name": "own"}, "ZeroDivisionError"),
        (bowl(), {"lr": 0.1}, {}, r"of a problem, ss\.Arm\(problem, lr="),
        (descent(), {"scale": [1]}, {}, "unknown setting of a grid 'scale'"),
        (descent(), {"lr": 0.1}, {"scale": 1}, "unknown parameter of bowl 'scale'"),
        (3, {"lr": 0.1}, {}, "not of 3"),
        ("no_such_study", {"lr": 0.1}, {}, "unknown study 'no_such_study'"),
        ("ex4_minibatch", {"lr": 1e-4}, {"name": "mine"}, "leave it out of ex4_minibatch"),
        ("ex4_minibatch", {"lr": 1e-4}, {"sede": 1}, "unknown option of ex4_minibatch 'sede'"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_is_one_line_and_nothing_is_written(
    what, grid, given, match, tmp_path, no_server
):
    folder = tmp_path / "untouched"
    with pytest.raises(ss.InputError, match=match) as error:
        ss.sweep(what, grid, store=str(folder), **given)
    assert one_line(error)
    assert not folder.exists()


def test_what_no_script_declares_is_shown_and_not_run_again(store, capsys):
    table = ss.sweep(descent, {"lr": [0.1, 0.2]}, store=store, progress=False)
    assert call("rerun", table["run_id"][0], "--store", store) == 2
    said = capsys.readouterr().err
    assert "sgdstudy.script" in said
    assert len(said.splitlines()) == 1
    page = store + "/page.html"
    assert call("report", "--store", store, "--out", page) == 0
    text = re.sub(r"<[^>]+>", "", Path(page).read_text(encoding="utf-8"))
    assert "How does descent depend on lr?" in text
    assert "2 combinations of descent" in text


def test_the_call_says_nothing_and_warns_of_nothing(store, capsys, caplog):
    caplog.set_level(logging.WARNING)
    ss.sweep(descent, {"lr": 0.1}, store=store, progress=False)
    assert capsys.readouterr() == ("", "")
    assert caplog.messages == []
