"""Running a study: in which order, what is said, judged, asked and written down."""

import base64
import dataclasses
import json
import os
import signal
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import one_line, small_curve

import sgdstudy as ss
from sgdstudy.history.identities import Off
from sgdstudy.studies import runner, train_arms, workers
from sgdstudy.studies.outcome import Runs
from sgdstudy.studies.study import HIDDEN
from sgdstudy.tracking.chart_views import ALL, VIEW
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.store import open_store


@dataclasses.dataclass(frozen=True)
class Options(ss.Options):
    lr: float = 0.1
    quick: bool = False


def arms(o):
    same = {"batch_size": 10, "lr": o.lr, "optimizer": "notebook"}
    return {
        "short": ss.Arm(small_curve(), epochs=2, **same),
        "long": ss.Arm(small_curve(), epochs=7, seeds=o.seed_range(), **same),
        "full": ss.Arm(small_curve(), **{**same, "batch_size": None}, epochs=3, stop=("full", 9e9)),
    }


def claims(o, runs):
    yield ss.Claim("steps", "short", runs["short"].n_steps, [12], source="theory")
    yield ss.Claim("always", "long", 7, 7, source="theory", always=True)
    yield ss.Claim("defined", "long", 6, 7, identity=True)
    yield ss.Claim("loss", "short", 0.25)


def answer(o, runs, claims):
    return """
    Of two
    lines.

    And {}.
    """.format(claims["loss"])


STUDY = ss.Study("/somewhere/run_tiny.py", "Is it?", Options, arms, claims, answer)


def run(store, study=STUDY, say=lambda line: None, **given):
    return study.run(Options(store=store, **({"seeds": 2} | given)), progress=False, say=say)


def answer_run(store, result):
    return open_store(store).client.get_run(result.run_ids["answer"])


def description(store):
    opened = open_store(store)
    return opened.client.get_experiment(opened.experiment(STUDY.name)).tags["mlflow.note.content"]


@pytest.mark.slow
def test_results_of_changed_options_do_not_take_the_defaults_place(store):
    told = dataclasses.replace(STUDY, answer=lambda o, runs, claims: f"lr is {o.lr:g}.")
    run(store, told, lr=0.2)
    first = description(store)
    assert "lr is 0.2." in first
    assert "other options than the script's own: seeds = 2, lr = 0.2" in first
    run(store, told, lr=0.05)
    assert "lr is 0.05." in description(store)  # nothing of the defaults to keep
    run(store, told, seeds=16)
    stands = description(store)
    assert "lr is 0.1." in stands
    assert "other options" not in stands
    result = run(store, told, lr=0.2)
    assert description(store) == stands
    assert "lr is 0.2." in answer_run(store, result).data.tags["mlflow.note.content"]
    run(store, told, lr=0.2, answer=False)
    assert "run without --no-answer" in description(store)


@pytest.mark.slow
def test_an_answer_in_short_comes_first_in_the_language_asked_for(store):
    def short(o, runs, claims):
        yield ss.say("holds")
        yield "."

    def full(o, runs, claims):
        yield "One."
        yield None
        yield ss.say("{low} to {high}", low=0.5, high=2)

    study = dataclasses.replace(STUDY, answer=full, short=short)
    result = run(store, study, lang="fr")
    assert result.answer == "tient .\n\nOne.\n\n0,5 à 2"
    (path,) = Path(store).rglob("answer.md")
    text = path.read_text(encoding="utf-8")
    assert "**Prédictions** : connues" in text.replace("\u00a0", " ")
    assert "| affirmation | bras | attendu | mesuré | tolérance | verdict |" in text
    assert run(store, study).answer == "holds .\n\nOne.\n\n0.5 to 2"


# ---- arms --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_stand_in_the_scripts_order_and_each_is_said_as_it_ends(store):
    said = []
    result = run(store, say=said.append)
    assert list(result.runs) == ["short", "long", "full"]
    assert [line.split()[0] for line in said] == ["tracking", "short", "long", "full"]
    by_arm = dict(zip(result.runs, said[1:], strict=True))
    assert "max epochs at epoch 2, 12 steps in" in by_arm["short"]  # 53 samples: 6 batches
    assert "2 seeds, max epochs at epoch 7, 84 steps in" in by_arm["long"]
    assert "converged at epoch 1, 1 steps in" in by_arm["full"]


@pytest.mark.slow
def test_side_by_side_the_longest_begins_first(monkeypatch, store):
    begun = []

    def in_turn(function, arguments, jobs):
        assert jobs == 2
        for given in arguments:
            begun.append(given[2])
            yield function(*given)

    script = Path(store).parent / "run_side.py"
    script.write_text(SIDE)
    monkeypatch.setattr(workers, "spread", in_turn)
    result = ss.run(str(script), store=store, jobs=2)
    assert begun == ["long", "middle", "short"]  # 10, 7 and 4 steps
    assert list(result.runs) == ["short", "long", "middle"]
    assert [history.n_steps.tolist() for history in result.runs.values()] == [[4], [10], [7]]


def test_a_worker_tells_equal_options_of_two_invocations_apart(tmp_path):
    """It keeps the arms of an invocation, which may be those of 1, and then those of True."""
    script = tmp_path / "run_kinds.py"
    option = "from dataclasses import dataclass\n\n@dataclass(frozen=True)\n"
    option += "class Options(ss.Options):\n    k: int = 1\n"
    head, _, tail = SIDE.partition("def arms(o):")
    tail = tail.replace("torch.ones(4)", "torch.ones(4) + (o.k is True)")
    script.write_text(f"{head}{option}\n\ndef arms(o):{tail}")
    both = [train_arms._arms(str(script), (("k", k),), str(k))[2] for k in (1, True)]
    assert [arms["short"].problem.x[0].item() for arms in both] == [1, 2]


SIDE = '''"""Which arm begins first?"""

import torch

import sgdstudy as ss


def arms(o):
    x = torch.ones(4)
    problem = ss.Problem(x, x, lambda w, at: w[0] * at, w_init=[0.0])
    for name, epochs in (("short", 4), ("long", 10), ("middle", 7)):
        yield name, ss.Arm(problem, lr=0.1, epochs=epochs)


def claims(o, runs):
    return []


def answer(o, runs, claims):
    return "The longest."


STUDY = ss.study(__name__)
'''


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "reason"), [(3, "max_epochs"), (20_000, "interrupted")])
def test_ctrl_c_ends_the_arm_it_meets_and_starts_no_other(store, epochs, reason):
    """In the middle of an arm, and in its last chunk, when there is nothing left to end."""

    def interrupt(chunk):
        os.kill(os.getpid(), signal.SIGINT)

    def interrupted(o):
        plain = ss.Arm(small_curve(), lr=0.1, epochs=3)
        meets = plain.but(epochs=epochs, engine="eager", diagnostics=[interrupt])
        return {"before": plain, "meets": meets, "after": plain}

    study = dataclasses.replace(STUDY, arms=interrupted)
    with pytest.raises(ss.Interrupted, match="run_tiny was stopped; what ran is saved"):
        run(store, study)
    found = ss.load_runs("run_tiny", store=store).set_index("arm")
    assert found.stop_reason.to_dict() == {"before": "max_epochs", "meets": reason}


def test_an_arm_is_predicted_before_it_runs(store):
    arm = ss.Arm(small_curve(), lr=0.1, epochs=300, stop=("full", 0.1))
    run_id, history = train_arms.train_arm(Invocation.start(open_store(store), "one"), "arm", arm)
    logged = open_store(store).client.get_run(run_id).data.metrics["predicted/stop_epoch"]
    assert logged == history.predicted["stop_epoch"] == history.stop_epoch[0]


# ---- claims and answer -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "kinds"),
    [
        ({}, ["prediction", "prediction", "identity", "description"]),
        ({"seeds": 5, "first_seed": 3}, ["prediction", "prediction", "identity", "description"]),
        ({"quick": True}, ["prediction", "prediction", "identity", "description"]),
        ({"lr": 0.2}, ["description", "prediction", "identity", "description"]),
    ],
)
def test_options_of_the_scripts_own_make_expectations_void_unless_they_always_hold(
    store, given, kinds
):
    assert [claim.kind for claim in run(store, **given).claims] == kinds


def test_verdicts_are_counted_by_kind(store):
    data = answer_run(store, run(store)).data
    expected = {
        "claims_hold": 2,
        "claims_fail": 1,
        "predictions_hold": 2,
        "identities_hold": 0,
        "descriptions": 1,
    }
    assert data.metrics == {f"result/{name}": value for name, value in expected.items()}
    assert data.tags["sgdstudy.claims_failed"] == "1"


def test_the_answer_is_in_paragraphs_without_the_lines_of_the_source(store):
    result = run(store)
    assert result.answer == "Of two lines.\n\nAnd 0.25."
    (path,) = Path(store).rglob("answer.md")
    assert path.read_text(encoding="utf-8").startswith("**Is it?**\n\nOf two lines.\n\nAnd 0.25.")


def test_a_hidden_answer_is_nowhere(store):
    result = run(store, answer=False)
    assert (result.answer, list(result.claims)) == (HIDDEN, [])
    logged = answer_run(store, result)
    assert logged.data.metrics == {}
    (path,) = Path(store).rglob("claims.json")
    assert json.loads(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(("lines", "whole"), [(10, True), (2000, False)])
def test_what_mlflow_would_cut_off_ends_with_where_the_rest_is(store, lines, whole):
    study = dataclasses.replace(STUDY, answer=lambda o, r, c: "word " * lines)
    note = answer_run(store, run(store, study)).data.tags["mlflow.note.content"]
    assert len(note) <= runner.NOTE_LENGTH
    assert note.endswith("…see answer.md") is not whole


@pytest.mark.slow
def test_figures_and_tables_are_artifacts_and_the_first_figure_is_named(store):
    def figures(runs):
        for name in ("one.png", "two.png"):
            yield name, ss.figures.loss_by_epoch(runs)

    def rows(o, runs):
        for arm, run in runs.items():
            yield {"arm": arm, "seeds": len(run.w)}

    tables = {"steps.csv": lambda o, runs: runs["short"].steps[["step", "loss"]], "arms.csv": rows}
    study = dataclasses.replace(STUDY, figures=figures, tables=tables)
    result = run(store, study)
    tags = answer_run(store, result).data.tags
    assert tags["sgdstudy.figures"] == "one.png, two.png"
    assert "Look first at **one.png**" in tags["mlflow.note.content"]
    (path,) = Path(store).rglob("steps.csv")
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    np.testing.assert_array_equal(table[:, 0], range(12))
    loss = result.runs["short"].steps.loss.to_numpy()
    np.testing.assert_array_equal(table[:, 1].astype(loss.dtype), loss)
    assert len(list(Path(store).rglob("one.png"))) == 1
    (path,) = Path(store).rglob("arms.csv")
    assert path.read_text(encoding="utf-8") == "arm,seeds\nshort,1\nlong,2\nfull,1\n"


# ---- figures and tables that fail ----------------------------------------------------------------


def broken(runs):
    raise ZeroDivisionError("no picture")


def one_then_broken(runs):
    yield "one.png", ss.figures.loss_by_epoch(runs)
    raise ZeroDivisionError("no picture")


def one_then_outside(runs):
    yield "../two.png", ss.figures.loss_by_epoch(runs)
    yield "one.png", ss.figures.loss_by_epoch(runs)
    yield "three.png", "no figure"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("figures", "missing"),
    [
        ({"two.png": broken, "one.png": ss.figures.loss_by_epoch}, ["two.png"]),
        (one_then_broken, ["a figure after one.png"]),
        (one_then_outside, ["'../two.png'", "three.png"]),
        (lambda runs: [("one.png", ss.figures.loss_by_epoch(runs)), 3], ["a figure after one.png"]),
    ],
)
def test_a_figure_that_fails_is_named_and_the_run_goes_on(store, figures, missing):
    said = []
    tables = {"bad.csv": lambda o, runs: 1 / 0, "none.csv": lambda o, runs: None}
    study = dataclasses.replace(STUDY, figures=figures, tables=tables, show=lambda o, r: 1 / 0)
    result = run(store, study, said.append)
    every = ["what show() returns", *missing, "bad.csv", "none.csv"]
    assert list(result.missing) == every
    lines = [line for line in said if "is left out: " in line]
    assert [line.partition(" is left out")[0] for line in lines] == [
        f"run_tiny: {name}" for name in every
    ]
    logged = answer_run(store, result)
    assert logged.info.status == "FINISHED"
    assert logged.data.tags["sgdstudy.figures"] == "one.png"
    assert [p.name for p in Path(store).parent.rglob("*.png") if p.name != "data.png"] == [
        "one.png"
    ]


def test_a_data_set_that_cannot_be_drawn_is_trained_on(store, monkeypatch, caplog):
    from sgdstudy import figures
    from sgdstudy.tracking import describe

    monkeypatch.setattr(describe, "_PICTURES", {})
    monkeypatch.setattr(figures, "data", broken)
    result = run(store)
    assert list(result.runs) == ["short", "long", "full"]
    assert "data.png is left out: ZeroDivisionError: no picture" in caplog.text
    assert not list(Path(store).rglob("data.png"))


# ---- what a script may leave out, and what it asks of its runs ---------------------------------


def test_options_without_a_decorator_are_frozen_fields_like_others():
    class Bare(ss.Options):
        seeds: int = 3
        lr: float = 0.5

    study = dataclasses.replace(STUDY, options=Bare)
    kind: Any = study.options
    options = kind(lr=0.25)
    assert (options.seeds, options.lr, kind().lr, options.jobs) == (3, 0.25, 0.5, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.lr = 1.0
    assert dataclasses.replace(study).options is Bare  # and once is enough


def test_runs_have_the_names_of_a_picture_in_its_order():
    runs = Runs({"SGD shuffle": 1, "Adam": 2})
    assert list(runs.named({"second": "Adam", "first": "SGD shuffle"}).items()) == [
        ("second", 2),
        ("first", 1),
    ]
    with pytest.raises(ss.InputError, match="Adam") as error:
        runs.named({"third": "Adagrad"})
    assert one_line(error)


def test_the_run_furthest_off_is_so_beside_what_rounding_may_make():
    """A run that is off by less, but by more than it may be, is the one to be seen."""

    def run(value, within):
        known = ss.Known(0.0, within, "definition")
        return SimpleNamespace(off=lambda identity: (Off(value, known), identity)[0])

    runs = Runs({"a": run(1e-6, 1e-5), "b": run(1e-9, 1e-10), "c": run(1e-7, 1e-5)})
    assert runs.off("sum").value == 1e-9
    assert runs.off("sum", "a", "c").value == 1e-6
    assert ss.Claim.off("sum", "all", runs.off("sum")).holds is False
    assert ss.Claim.off("sum", "a", runs.off("sum", "a")).holds is True


def test_arms_in_the_view_send_what_the_charts_of_the_question_show(store):
    """And what they would send without; an arm that is not shown sends only this."""

    def declared(o):
        arm = ss.Arm(small_curve(), lr=0.1, batch_size=10, epochs=2)
        return {"shown": arm, "hidden": arm.but(charted=False)}

    charts = {"sums": "epoch/sum_loss", "all": "epoch/full_loss", "high": "batch/loss_p90"}
    script = ("/somewhere/run_asked.py", "Is it?", Options, declared)
    study = ss.Study(*script, lambda o, runs: [], lambda *given: "Yes.", charts=charts)
    result = run(store, study)
    client = open_store(store).client
    sent = {arm: {*client.get_run(result.run_ids[arm]).data.metrics} for arm in result.runs}
    assert sent["shown"] - sent["hidden"] == {"epoch/sum_loss", "batch/loss_p90"}
    assert "batch/grad_norm" in sent["hidden"]
    assert not sent["hidden"] - sent["shown"]
    experiment = client.get_experiment_by_name("run_asked")
    views = [experiment.tags[f"mlflow.sharedViewState.{view}"] for view in (VIEW, ALL)]
    for packed in (json.loads(view)["state"].partition(";")[2] for view in views):
        state = json.loads(zlib.decompress(base64.b64decode(packed)))
        drawn = state["compareRunCharts"]
        assert {c["displayName"]: c["metricKey"] for c in drawn[:3]} == charts
        assert all(c["selectedMetricKeys"] == [c["metricKey"]] for c in drawn)
        assert len({c["metricKey"] for c in drawn}) == len(drawn)  # none twice
