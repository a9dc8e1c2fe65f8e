"""What several test files share: an empty MLflow store, small problems, the notebook's loop."""

import functools
import gc
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch.utils.data import DataLoader, TensorDataset

import sgdstudy as ss
from sgdstudy.studies.workers import collect_seldom
from sgdstudy.training import engines

os.environ["SGDSTUDY_LANG"] = "en"  # whatever the locale of who runs the tests
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "nice"):  # not on Windows
    os.nice(19)  # as nice as the workers of a study: beside tests that are not, they would starve
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("repeatable")

# `make quick`: cases of a test, but in these files, and tests of a file that have a store
CASES, STORES = 1, 1
ALL_CASES = ("test_docs", "test_house", "test_language", "test_mutants")

gc.disable()  # until all tests are imported: a fifth of the time that takes


def pytest_collection_finish():
    """Garbage is looked for among what tests make, not in torch and MLflow."""
    gc.collect()
    gc.freeze()
    collect_seldom()
    gc.enable()


def pytest_collection_modifyitems(items):
    """Files with slow tests first, so that no process is left alone with a long one at the end.

    Of those without a mark, `make quick` runs the first case of each test, and of each file the
    first test that has a store: the others are marked slow here.
    """
    marks = ("slow", "server", "faults")
    slow = {item.path for item in items if any(map(item.get_closest_marker, marks))}
    items.sort(key=lambda item: item.path not in slow)
    seen = Counter()
    for item in items:
        if not any(map(item.get_closest_marker, marks)):
            kinds = {}
            if item.path.stem not in ALL_CASES:
                kinds[item.nodeid.partition("[")[0]] = CASES
            if "empty_store" in getattr(item, "fixturenames", ()):
                kinds[item.path] = STORES
            seen.update(kinds.keys())
            if any(seen[kind] > most for kind, most in kinds.items()):
                item.add_marker("slow")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """An SQLite store without experiments: making one takes seconds, copying it none."""
    from mlflow.store.db import utils

    from sgdstudy.tracking.store import open_store

    # for every store that MLflow opens it reads its seventy migrations: which is the newest?
    newest = functools.cache(utils._get_latest_schema_revision)
    setattr(utils, newest.__name__, newest)
    folder = tmp_path_factory.mktemp("empty") / "mlruns"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        open_store(str(folder))
    gc.freeze()  # MLflow is imported by now
    return folder


@pytest.fixture
def no_server(monkeypatch):
    """No environment variable says where to track."""
    for name in ("MLFLOW_TRACKING_URI", "SGDSTUDY_PREFIX"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store(empty_store, tmp_path, no_server):
    """The folder of a store of one's own."""
    folder = tmp_path / "mlruns"
    shutil.copytree(empty_store, folder)
    return str(folder)


@pytest.fixture(autouse=True)
def nothing_told():
    """What is told once in a process, each test is told."""
    engines.tell.cache_clear()


def call(*words):
    """The exit code of a command, 0 where it just returns; what else it raises fails the test."""
    from sgdstudy.cli.main import main

    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return end.code or 0
    return 0


EACH = """
import io, runpy, sys
sys.path[0] = {folder!r}
for n, encoding in enumerate({encodings!r}):
    for number, name in ((1, "stdout"), (2, "stderr")) if n else ():
        errors = "strict" if number == 1 else "backslashreplace"
        stream = io.TextIOWrapper(open(number, "wb", closefd=False), encoding, errors)
        setattr(sys, name, stream), setattr(sys, f"__{{name}}__", stream)
    for words in {commands}:
        sys.argv, code = [{program!r}, *words], 0
        try:
            runpy.{how}({program!r}, run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        for stream in (sys.stdout, sys.stderr):
            print("\\f", code, file=stream, flush=True)
"""


def programs(*commands, script=None, python=(), encodings=("utf-8",), coded=None, **given):
    """Exit code, output and errors of `python -m sgdstudy`, for each of its words, in one process.

    To start one takes seconds.

    Args:
        script: the file of a page, which is run instead.
        encodings: of the output, in each of which all are run; None: that of the environment.
        coded: that one.
    """
    program, how = (str(script), "run_path") if script else ("sgdstudy", "run_module")
    about = {"program": program, "how": how, "folder": os.path.dirname(script or "")}
    code = EACH.format(commands=commands, encodings=encodings, **about)
    given["env"] = {**os.environ, **given.get("env", {})}
    given["env"] |= {"PYTHONIOENCODING": encodings[0]} if encodings[0] else {}
    line = [sys.executable, *python, "-c", code]
    made = subprocess.run(line, capture_output=True, timeout=300, check=True, **given)
    out, errors = (re.split(rb"\f (\d+)\r?\n", text) for text in (made.stdout, made.stderr))
    each = [encoding or coded for encoding in encodings for _ in commands]
    assert len(out) == len(errors) == 2 * len(each) + 1
    parts = zip(each, out[::2], errors[::2], strict=False)
    read = [(one.decode(encoding), other.decode(encoding)) for encoding, one, other in parts]
    return [(int(code), *texts) for code, texts in zip(out[1::2], read, strict=True)]


def small_curve(d=53, noise=0.0, **changes):
    """A parabola on d points of [-1, 1], float32: every step size up to 0.5 is stable on it."""
    generator = torch.Generator().manual_seed(7)
    x = torch.linspace(-1, 1, d)
    y = ss.problems.parabola([0.3, -1.7, 2.5], x) + noise * torch.randn(d, generator=generator)
    given = {"model": ss.problems.parabola, "w_true": [0.3, -1.7, 2.5], "name": "small"}
    return ss.Problem(x, y, **(given | changes))


def literal(f, params, x, y, *, lr, batch_size, epochs, seed=0, shuffle=True, rule=None, loss=None):
    """The notebook's loop, written out: DataLoader, autograd, `w -= lr * w.grad`.

    Args:
        f: x -> prediction, over the leaf tensors `params`, which it changes.
        rule: params -> torch.optim optimiser, instead of the notebook's rule.
        loss: (prediction, y) -> scalar; default MSELoss.

    Returns:
        w `(p,)` at the end, ws `(S, p)` before each step, losses `(S,)`, gradients `(S, p)`.
    """
    criterion = torch.nn.MSELoss() if loss is None else loss
    optimizer = None if rule is None else rule(params)
    generator = torch.Generator().manual_seed(seed)
    data = TensorDataset(x, y)
    loader = DataLoader(data, batch_size or len(x), shuffle=shuffle, generator=generator)
    ws, losses, gradients = [], [], []
    for _ in range(epochs):
        for bx, by in [(x, y)] if batch_size is None else loader:
            value = criterion(f(bx), by)
            value.backward()
            ws.append(flat(params))
            losses.append(value.detach())
            gradients.append(flat([p.grad for p in params]))
            if optimizer is None:
                for p in params:
                    p.data.sub_(lr * p.grad)
            else:
                optimizer.step()
            for p in params:
                p.grad.zero_()
    ws, losses, gradients = (torch.stack(part) for part in (ws, losses, gradients))
    return SimpleNamespace(w=flat(params), ws=ws, losses=losses, gradients=gradients)


def literal_curve(problem, *, seed=0, dtype=torch.float32, **settings):
    """`literal` for a problem whose model is f(w, x)."""
    w = problem.initial([seed])[0].to(dtype).requires_grad_()
    x, y = problem.x.to(dtype), problem.y.to(dtype)
    return literal(lambda bx: problem.model(w, bx), [w], x, y, seed=seed, **settings)


def flat(tensors):
    return torch.cat([t.detach().flatten().clone() for t in tensors])


def recorded(history, seed=0):
    """The parameters `(S, p)` that a history recorded for a seed."""
    rows = history.steps[history.steps.seed == seed]
    return rows[[f"w{i}" for i in range(history.w.shape[1])]].to_numpy()


def one_line(error):
    """Whether an error's message is one line that says something."""
    text = str(error.value)
    return len(text) > 10 and "\n" not in text and np.all([c.isprintable() for c in text])
