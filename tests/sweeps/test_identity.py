"""No two settings are taken for one: each of a sweep runs, and is resumed as itself only."""

import pytest
from conftest import call

import sgdstudy as ss
from sgdstudy.studies.scripts import load_study
from sgdstudy.sweeps import grid, sweep

SCRIPT = '''"""Does a sweep see what only functions hold?"""

import threading
from dataclasses import dataclass

import torch

import sgdstudy as ss

GAIN = 1.0


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 3
    scale: float = 1.0
    momentum: float = 0.0
    delta: float = 1.0
    kind: str = "tanh"
    gain: float = 1.0
    test_at: float = 0.0
    locked: bool = False


class Own(torch.optim.SGD):
    """Descent of one's own."""


def gained(w, x):
    return GAIN * w[0] * torch.tanh(w[1] * x)


def arms(o):
    global GAIN
    GAIN = o.gain
    lock = threading.Lock() if o.locked else None
    x = torch.linspace(-1, 1, 40)

    def start(generator):
        return o.scale * torch.randn(2, generator=generator)

    def huber(f, y):
        return torch.nn.functional.huber_loss(f, y, reduction="none", delta=o.delta)

    def bent(w, x):
        assert lock is None or not lock.locked()
        bend = torch.tanh if o.kind == "tanh" else torch.relu
        return w[0] * bend(w[1] * x)

    def own(params):
        return Own(params, lr=0.05, momentum=o.momentum)

    test = (x, x + o.test_at)
    same = {"epochs": 2, "batch_size": 8, "seeds": o.seed_range(), "engine": "eager"}
    problem = ss.Problem(x, 3 * x, bent, huber, w_init=start, test=test)
    return {
        "own": ss.Arm(problem, "all one's own", optimizer=own, **same),
        "gained": ss.Arm(problem.replace(model=gained), "a global", optimizer=own, **same),
    }


def claims(o, runs):
    return []


def answer(o, runs, claims):
    return "none"


STUDY = ss.study(__name__)
'''
NAME = "own_sweep"
GRIDS: dict[str, list] = {
    "scale": [0.01, 1.0, 10.0],
    "momentum": [0.0, 0.5, 0.9],
    "delta": [0.1, 1.0, 3.0],
    "kind": ["tanh", "relu"],
    "gain": [1.0, 2.0, 5.0],
    "test_at": [0.0, 1.0],
}


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("scripts") / "own.py"
    path.write_text(SCRIPT)
    return str(path)


def plan_of(script, store, words, arm="own", **options):
    study = load_study(script)
    return sweep.Plan.of(
        study, study.options(store=store, **options), arm, grid.parse(words), "epochs"
    )


def by_hand(script, arm, **options):
    """The results of a combination, trained as nobody else's."""
    study = load_study(script)
    made = study.arms(study.options(**options))[arm]
    history = ss.train(made.problem, config=made.config)
    return history.at("full_loss"), history.at("test_loss")


@pytest.mark.slow
@pytest.mark.parametrize("option", GRIDS)
def test_every_value_of_an_own_option_has_its_own_result(script, store, option):
    arm = "gained" if option == "gain" else "own"
    values = GRIDS[option]
    swept = sweep.run(plan_of(script, store, [f"{option}={','.join(map(str, values))}"], arm))
    assert swept.table.run_id.nunique() == len(values)
    for value, row in zip(values, swept.table.to_dict("records"), strict=True):
        full, test = by_hand(script, arm, **{option: value})
        assert row["full_loss"] == pytest.approx(full, rel=1e-12)
        assert row["test_loss"] == pytest.approx(test, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["gain=1.0,2.0", "lr=none,0.05"], ["lr=none,0.05", "gain=1.0,2.0"]]
)
def test_a_global_that_building_an_arm_sets_is_that_of_its_combination(script, store, words):
    swept = sweep.run(plan_of(script, store, words, "gained"))
    for row in swept.table.to_dict("records"):
        full, _ = by_hand(script, "gained", gain=row["gain"])
        assert row["full_loss"] == pytest.approx(full, rel=1e-12)


@pytest.mark.slow
def test_resume_runs_what_only_a_function_tells_from_the_finished(script, store):
    words = ["momentum=0.0,0.5"]
    sweep.run(plan_of(script, store, words))
    assert sweep.run(plan_of(script, store, words), resume=True).skipped == 2
    assert sweep.run(plan_of(script, store, words, scale=2.0), resume=True).skipped == 0
    assert sweep.run(plan_of(script, store, ["momentum=0.0,0.9"]), resume=True).skipped == 1


@pytest.mark.slow
def test_what_nothing_shows_is_said_and_runs_again(script, store, caplog):
    words = ["momentum=0.0,0.5"]
    first = sweep.run(plan_of(script, store, words, locked=True))
    assert set(first.table.status) == {"FINISHED"}
    again = sweep.run(plan_of(script, store, words, locked=True), resume=True)
    assert again.skipped == 0
    assert again.table.run_id.nunique() == 2
    lines = [line for line in caplog.messages if "lock" in line]
    assert len(lines) == 2
    assert "the model" in lines[0]
    assert "--resume runs them again" in lines[0]


@pytest.mark.slow
def test_a_study_goes_on_only_with_its_own_options(script, store, caplog):
    words = ["run", script, "--store", store, "--checkpoint-seconds", "0"]
    assert call(*words) == 0
    for options, why in (
        ([], ""),
        (["--gain", "20"], "another configuration (model, loss, first parameters, optimizer, opt"),
        (["--scale", "2"], "another configuration (model, loss, first parameters, optimizer, opt"),
    ):
        caplog.clear()
        assert call(*words, "--resume", *options) == 0
        lines = [line for line in caplog.messages if "element-wise" not in line]
        assert len(lines) == 2  # one of each arm
        assert all(("from the beginning" in line) == bool(why) and why in line for line in lines)
    caplog.clear()
    assert call(*words, "--locked", "--resume") == 0
    assert "own starts from the beginning: the model" in caplog.text
    assert "lock" in caplog.text


REMEMBERS = '''"""Does a sweep see what its runs leave behind?"""

import torch

import sgdstudy as ss

LEFT = {"gain": 1.0}


class Options(ss.Options):
    seeds: int = 2


def loss(f, y):
    return LEFT["gain"] * (f - y) ** 2


def cools(f, y):
    LEFT["gain"] *= 0.5
    return 1.0


def arms(o):
    x = torch.linspace(-1, 1, 40)
    problem = ss.Problem(x, 3 * x, lambda w, x: w[0] * x, loss, w_init=[0.0])
    measures = {"own": cools} if COOLS else {}
    given = {"epochs": 2, "batch_size": None, "measures": measures, "seeds": o.seed_range()}
    yield "own", ss.Arm(problem, lr=0.1, **given)


def claims(o, runs):
    return []


def answer(o, runs, claims):
    return "none"


STUDY = ss.study(__name__)
'''


@pytest.mark.slow
@pytest.mark.parametrize("cools", [False, True])
def test_what_another_run_changed_is_said_and_not_finished(tmp_path, store, caplog, cools):
    path = tmp_path / f"left_{cools}.py"
    path.write_text(REMEMBERS.replace("COOLS", str(cools)))
    plan = plan_of(str(path), store, ["lr=0.1,0.2,0.3"])
    swept = sweep.run(plan, progress=False)
    said = [r.message for r in caplog.records if "was changed by another run" in r.message]
    assert len(said) == (2 if cools else 0)
    assert list(swept.table["status"]) == ["FINISHED"] * 3
    again = sweep.run(plan_of(str(path), store, ["lr=0.1,0.2,0.3"]), resume=True, progress=False)
    assert again.skipped == (1 if cools else 3)
