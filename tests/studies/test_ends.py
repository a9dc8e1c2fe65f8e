"""A function of a script that would end the program while an arm is trained is one line."""

import pytest
from conftest import call

import sgdstudy as ss

SCRIPT = '''"""What if a function ends the program?"""

import sys

import torch

import sgdstudy as ss


class Options(ss.Options):
    seeds: int = 2
    where: str = "measure"
    how: str = "code"


def arms(o):
    x, count = torch.linspace(-1, 1, 40), 0

    def ends(where):
        nonlocal count
        count += where == o.where
        if count > {"measure": 150, "model": 30, "diagnostic": 2}[o.where]:
            if o.how == "error":
                return {}["missing"]
            if o.how == "unsaid":
                raise type("Own", (Exception,), {"__str__": lambda self: 1 / 0})
            sys.exit({"code": 0, "none": None, "text": "done"}[o.how])

    def model(w, x):
        ends("model")
        return w[0] * x

    def own(f, y):
        ends("measure")
        return 1.0

    def diagnostic(chunk):
        ends("diagnostic")
        return chunk.loss

    problem = ss.Problem(x, 3 * x, model, w_init=[0.0], exact=False)
    given = {"epochs": 200, "batch_size": 8, "seeds": o.seed_range(), "engine": "eager"}
    given |= {"measures": {"own": own}, "diagnostics": [diagnostic] * (o.where == "diagnostic")}
    yield "own", ss.Arm(problem, lr=0.01, **given)


def claims(o, runs):
    return []


def answer(o, runs, claims):
    return "none"


STUDY = ss.study(__name__)
'''


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "how", "said"),
    [
        ("measure", "code", "SystemExit: 0"),
        ("model", "unsaid", "Own: no message"),
        ("model", "none", "SystemExit: no message"),
        ("model", "error", "KeyError: 'missing'"),
        ("diagnostic", "text", "SystemExit: done"),
    ],
)
def test_it_is_said_and_the_run_has_failed_with_its_rows(store, tmp_path, capsys, where, how, said):
    script = tmp_path / "ends.py"
    script.write_text(SCRIPT)
    given = ("--where", where, "--how", how, "--store", store)
    assert call("run", script, *given) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1
    assert said in lines[0]
    assert "ends.py, line" in lines[0]
    if where == "measure":  # others may fail before anything is trained
        assert list(ss.load_runs("ends", store=store)["status"]) == ["FAILED"]
        assert len(ss.load_epochs("ends", store=store)) >= 100  # of the chunks before
