"""A script's own options are columns of `load_runs`, and any result ranks a sweep."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
from conftest import call, one_line

import sgdstudy as ss
from sgdstudy.studies.arm import SHARED
from sgdstudy.studies.scripts import load_study
from sgdstudy.sweeps import results, sweep
from sgdstudy.sweeps.plan import Plan
from sgdstudy.tracking import describe, load
from sgdstudy.tracking.store import open_store

SCRIPT = '''"""Where does descent on w^2 scale end?"""

import numpy as np
import sgdstudy as ss


class Options(ss.Options):
    lr: float = 0.25
    seed: int = 3
    scale: float = 1.0
    kinds: tuple[str, ...] = ("a", "b")
    name: str | None = None
    careful: bool = False


def far_score(f, y):
    return float(f.abs().max())


def arms(o):
    x = np.full(4, o.scale ** 0.5)
    problem = ss.Problem(x, 0 * x, lambda w, x: w[0] * x, w_init=[1.0], w_true=[0.0])
    yield "arm", ss.Arm(problem, lr=o.lr, epochs=1, measures={"far_score": far_score})


def claims(o, runs):
    yield ss.Claim("w0", "arm", float(runs["arm"].w[0, 0]))


def answer(o, runs, claims):
    yield "It is read off."


STUDY = ss.study(__name__)
'''
OWN = {"lr": 0.25, "seed": 3, "scale": 1.0, "kinds": ("a", "b"), "careful": False}


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "own_columns.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return str(path)


def test_the_options_of_all_scripts_are_written_twice_the_same():
    assert load.SHARED == SHARED


def test_a_study_has_a_column_for_each_of_its_own_options(script, store):
    ss.run(script, store=store, scale=0.5)
    (row,) = ss.load_runs("own_columns", store=store).to_dict("records")
    own = {name: value for name, value in row.items() if name.startswith("option.")}
    assert own == {f"option.{k}": v for k, v in (OWN | {"scale": 0.5}).items()} | {
        "option.name": None
    }
    assert (row["lr"], row["seeds"]) == (0.25, 0)  # of the run, whatever an option is called


def swept(script, store, by=None, **grid):
    study = load_study(script)
    plan = Plan.of(study, study.chosen(store=store, seeds=1), None, grid, "epochs", by)
    return plan, sweep.run(plan, jobs=1, progress=False)


def test_a_sweep_has_the_values_of_its_points_and_ranks_by_any(script, store):
    """One step of lr 0.25 on scale w^2 from 1: w = 1 - scale / 2, the prediction sqrt(scale) w."""
    scales = [3.0, 1.0, 0.25]
    swept(script, store, scale=scales)
    runs = ss.load_runs("own_columns_sweep", store=store)
    assert runs["option.scale"].tolist() == scales
    ends = 1 - np.array(scales) / 2
    assert np.allclose(runs["w0"], ends, rtol=1e-12)
    ranked = runs.sort_values("far_score", ascending=False)["option.scale"].tolist()
    expected = np.sqrt(scales) * np.abs(ends)
    assert ranked == [scales[i] for i in np.argsort(-expected)]


# of w = 1 - scale / 2: scale w^2, and sqrt(scale) |w|, of which more is better
RANKED = {None: "Lowest full_loss", "w0": "Lowest w0", "far_score": "Highest far_score"}
RANKED |= {"distance": "Lowest distance"}


@pytest.mark.parametrize("by", RANKED)
def test_a_sweep_ranks_by_what_is_asked(script, store, by):
    scales = np.array([1.0, 3.5, 0.25])
    w = 1 - scales / 2
    values = {
        None: scales * w**2,
        "w0": w,
        "distance": abs(w),
        "far_score": -np.sqrt(scales) * abs(w),
    }
    expected = scales[np.argsort(values[by], kind="stable")].tolist()
    plan, found = swept(script, store, by, scale=scales.tolist())
    table = results.best(plan, found.table)
    assert table["scale"].tolist() == expected
    assert f"{RANKED[by]}: " in found.answer
    assert f"at scale={expected[0]:g}" in found.answer


def test_what_ranks_are_the_results_that_a_run_has(script):
    problem = ss.problems.curve()
    history = ss.train(problem, lr=1e-4, batch_size=100, epochs=2, average=0.0, stop=("full", 1e9))
    there = set(describe.results(history)) - {"converged"}
    assert set(describe.result_names(problem, history.config)) == there


def test_a_result_that_is_not_there_is_refused(script, store, capsys):
    with pytest.raises(ss.InputError, match="unknown result to rank by 'test_loss'") as error:
        swept(script, store, "test_loss", scale=[1.0])
    assert one_line(error)
    words = ("sweep", script, "--grid", "scale=1,3", "--jobs", "1", "--store", store)
    assert call(*words, "--by", "far_score") == 0
    assert "Highest far_score: " in capsys.readouterr().out


def test_a_damaged_tag_is_done_without(script, store, caplog):
    caplog.set_level(logging.WARNING, "sgdstudy")
    ss.run(script, store=store)
    opened = open_store(store)
    (run_id,) = ss.load_runs("own_columns", store=store)["run_id"]
    opened.client.set_tag(run_id, "sgdstudy.options", json.dumps(["no", "mapping"]))
    runs = ss.load_runs("own_columns", store=store)
    assert not [name for name in runs if name.startswith("option.")]
    assert "it is done without" in caplog.text
    assert isinstance(runs, pd.DataFrame)
