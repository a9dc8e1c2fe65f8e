"""The two engines agree, the choice between them is told, and memory does not grow with steps."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import small_curve
from torch import nn

import sgdstudy as ss
from sgdstudy.training import compiled

# rounding of sums and of exp, relative to a column's largest value
AGREE = 1e-5


def both(problem, **settings):
    """One run by each engine."""
    runs = [ss.train(problem, engine=name, **settings) for name in ("eager", "compiled")]
    assert [run.engine for run in runs] == ["eager", "compiled"]
    return runs


def perceptron():
    torch.manual_seed(0)
    x = torch.randn(50, 2)
    module = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1), nn.Flatten(0))
    return ss.Problem(x, torch.sin(x[:, 0]) * x[:, 1], module, name="perceptron")


def classes():
    torch.manual_seed(0)
    x = torch.randn(40, 3)
    module = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3))
    return ss.Problem(x, x.argmax(1), module, loss="cross_entropy", name="classes")


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3, 5, 7, 10, 17, None])
@pytest.mark.parametrize("optimizer", ["notebook", "SGD"])
def test_on_the_curve_every_recorded_bit_is_the_same(optimizer, batch_size):
    settings = dict(lr=0.05, batch_size=batch_size, epochs=30, seeds=range(3), optimizer=optimizer)
    eager, fast = both(small_curve(noise=0.1), stop=("running", 0.2), **settings)
    assert fast.steps.equals(eager.steps)
    assert fast.epochs.equals(eager.epochs)
    assert np.array_equal(fast.w, eager.w)
    assert np.array_equal(fast.stop_epoch, eager.stop_epoch)


@pytest.mark.slow
@pytest.mark.parametrize("make", [perceptron, classes, small_curve])
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("notebook", {}),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("RMSprop", {}),
        ("Adam", {}),
        ("AdamW", {"weight_decay": 0.1}),
    ],
)
def test_both_agree_for_every_compiled_rule(make, optimizer, options):
    settings = dict(lr=0.01, batch_size=7, epochs=6, seeds=range(2))
    eager, fast = both(make(), optimizer=optimizer, options=options, **settings)
    for column in eager.steps.columns:
        ours, theirs = fast.steps[column].to_numpy(), eager.steps[column].to_numpy()
        scale = np.abs(theirs[np.isfinite(theirs)]).max(initial=1e-30)
        assert np.allclose(ours / scale, theirs / scale, rtol=0, atol=AGREE, equal_nan=True), column


def test_divergence_ends_at_the_same_step():
    eager, fast = both(small_curve(), optimizer="SGD", lr=3.0, batch_size=5, epochs=300)
    assert eager.stop_reason.tolist() == fast.stop_reason.tolist() == ["diverged"]
    assert fast.steps.equals(eager.steps)


def test_replicas_that_end_leave_and_the_others_go_on_alike():
    problem = small_curve(noise=0.3)
    settings = dict(optimizer="RMSprop", lr=0.02, batch_size=5, epochs=200)
    settings |= {"stop": ("last_batch", 0.02), "seeds": range(12)}
    eager, fast = both(problem, **settings)
    assert len(set(eager.stop_epoch)) > 4
    assert np.array_equal(fast.stop_epoch, eager.stop_epoch)
    assert np.allclose(fast.w, eager.w, atol=1e-4)


def test_auto_compiles_what_is_long_enough():
    problem = small_curve()
    assert ss.train(problem, lr=0.1, batch_size=10, epochs=3).engine == "eager"
    long = ss.train(problem, lr=0.1, batch_size=10, epochs=2000)
    assert (long.engine, long.engine_note) == ("compiled", "")


def test_auto_says_why_it_does_not_compile(monkeypatch):
    long = dict(lr=0.1, batch_size=10, epochs=2000, stop=("running", 1e9))
    run = ss.train(small_curve(), optimizer="Adadelta", **long)
    assert run.engine == "eager"
    assert "Adadelta" in run.engine_note
    monkeypatch.setattr(compiled.steps, "_loaded", {})
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    run = ss.train(small_curve(), **long)
    assert run.engine == "eager"
    assert "compiler" in run.engine_note
    with pytest.raises(ss.InputError, match="compiler"):
        ss.train(small_curve(), engine="compiled", lr=0.1)
    with pytest.raises(ss.InputError, match="did you mean 'compiled'"):
        ss.train(small_curve(), engine="compile", lr=0.1)


PEAK = """
import resource, sys
import sgdstudy as ss
from sgdstudy.history.stream import ArrowStream
from pathlib import Path

sink = ArrowStream(Path(sys.argv[1]))
ss.train("curve", lr=1e-5, batch_size=10, epochs=int(sys.argv[2]), sink=sink, progress=False)
sink.close()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="resource is a module of Unix")
def test_memory_does_not_grow_with_the_steps(tmp_path):
    peaks = []
    for epochs in (1500, 6000):  # 300,000 and 1,200,000 steps
        words = [sys.executable, "-c", PEAK, tmp_path / str(epochs), str(epochs)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.1 * peaks[0]
