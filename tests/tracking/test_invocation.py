"""Tracked studies: what lies in the store afterwards, and how it is read back."""

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import one_line, small_curve

import sgdstudy as ss
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking import prune, sink
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.store import locate, open_store
from sgdstudy.training.interrupts import STOP_SIGNALS, interrupt_flag

EPOCHS = 2


@dataclasses.dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 3
    lr: float = 2e-4


def arms(o):
    curve = ss.problems.curve()
    same = {"optimizer": "notebook", "batch_size": 10, "epochs": EPOCHS}
    return {
        "several": ss.Arm(curve, "three seeds", lr=o.lr, seeds=o.seed_range(), **same),
        "one": ss.Arm(curve, "one seed", lr=1e-4, seeds=[7], stop=("full", 1e-9), **same),
    }


def claims(o, runs):
    return [
        ss.Claim("steps", "several", runs["several"].n_steps, [400] * 3, 0, "200 batches, twice"),
        ss.Claim("never", "one", runs["one"].median_stop, np.inf, 0, "theory", always=True),
        ss.Claim("loss", "one", float(runs["one"].epochs.full_loss.iloc[-1])),
        ss.Claim("lists", "one", [np.nan, 1.0]),
    ]


def answer(o, runs, claims):
    return """The answer
    spans two lines."""


def table(o, runs):
    return pd.DataFrame({"arm": list(runs)})


def figure(runs):
    return ss.figures.loss_by_epoch(runs)


DOC = """What does a tiny study leave behind?

More text.
"""
TINY = ss.Study(
    "/somewhere/tiny.py", DOC, Options, arms, claims, answer, {"loss.png": figure}, {"t.csv": table}
)


@pytest.fixture(scope="module")
def tracked(empty_store, tmp_path_factory):
    """A store with two invocations of the tiny study: (folder, first, second)."""
    folder = tmp_path_factory.mktemp("tracked") / "mlruns"
    shutil.copytree(empty_store, folder)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "SGDSTUDY_PREFIX"):
            patch.delenv(name, raising=False)
        first = TINY.run(Options(store=str(folder)))
        second = TINY.run(Options(store=str(folder)))
    return str(folder), first, second


@pytest.fixture
def first(tracked, no_server):
    return tracked[1]


@pytest.fixture
def folder(tracked, no_server):
    return tracked[0]


def run_of(folder, result, arm):
    return open_store(folder).client.get_run(result.run_ids[arm])


def artifacts(run):
    return Path(run.info.artifact_uri.removeprefix("file://"))


# ---- what is logged -------------------------------------------------------------------------


@pytest.mark.slow
def test_every_arm_is_a_flat_finished_run_and_one_holds_the_answer(folder, first):
    client = open_store(folder).client
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id])
    names = [run.info.run_name for run in runs]
    assert sorted(names) == sorted(["several", "one", "answer"] * 2)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert not any("mlflow.parentRunId" in run.data.tags for run in runs)
    assert set(first.run_ids) == {"several", "one", "answer"}


def test_params_say_how_an_arm_was_trained(folder, first):
    params = run_of(folder, first, "several").data.params
    expected = {
        "problem": "curve",
        "loss": "mse",
        "d": "2000",
        "batch_size": "10",
        "order": "shuffle",
        "optimizer": "notebook",
        "lr": "0.0002",
        "epochs": "2",
        "stop": "none",
        "epsilon": "None",
        "seeds": "0-2",
        "dtype": "float32",
        "device": "cpu",
    }
    assert params.items() >= expected.items()
    one = run_of(folder, first, "one").data.params
    assert (one["stop"], one["epsilon"], one["seeds"]) == ("full", "1e-09", "7")


def test_tags_say_where_a_run_belongs(folder, tracked, first):
    runs = [run_of(folder, result, "several").data.tags for result in tracked[1:]]
    for tags in runs:
        assert tags["stop_reason"] == "max_epochs"
        assert tags["sgdstudy.study"] == "tiny"
        assert tags["sgdstudy.engine"] == "eager"
        assert tags["sgdstudy.command"]
        assert tags["mlflow.note.content"].startswith("three seeds")
    assert runs[0]["sgdstudy.invocation"] < runs[1]["sgdstudy.invocation"]
    assert runs[0]["sgdstudy.config_hash"] == runs[1]["sgdstudy.config_hash"]
    other = run_of(folder, first, "one").data.tags["sgdstudy.config_hash"]
    assert other != runs[0]["sgdstudy.config_hash"]


def histories(folder, result, arm):
    """Every metric's points: key -> {step: value}."""
    client, run = open_store(folder).client, run_of(folder, result, arm)
    points = {k: client.get_metric_history(run.info.run_id, k) for k in run.data.metrics}
    assert all(len({p.step for p in part}) == len(part) for part in points.values())
    return {key: {p.step: p.value for p in part} for key, part in points.items()}


@pytest.mark.parametrize("arm", ["several", "one"])
def test_metrics_are_few_and_short(folder, first, arm):
    points = histories(folder, first, arm)
    charts = [key for key in points if key.startswith(("batch/", "epoch/"))]
    assert 6 <= len(charts) <= 12
    assert all(len(part) <= 320 for part in points.values())
    assert len(points["batch/loss"]) > 100
    assert all(len(points[key]) == 1 for key in points if key not in charts)


@pytest.mark.parametrize("arm", ["several", "one"])
@pytest.mark.parametrize("kind", ["batch", "epoch"])
def test_chart_points_are_medians_over_the_seeds_extremes_included(folder, first, arm, kind):
    axis, rows = ("step", "steps") if kind == "batch" else ("epoch", "epochs")
    medians = getattr(first.runs[arm], rows).groupby(axis).median()
    for key, points in histories(folder, first, arm).items():
        if not key.startswith(f"{kind}/") or key == "batch/live":
            continue
        column = medians[key.removeprefix(f"{kind}/")]
        assert points == pytest.approx(column[list(points)].to_dict(), rel=1e-6)
        assert max(points.values()) == pytest.approx(column.max(), rel=1e-6)
        assert min(points.values()) == pytest.approx(column.min(), rel=1e-6)
        assert {column.index[0], column.index[-1]} <= set(points)


def test_the_number_of_live_seeds_is_logged_where_there_are_several(folder, first):
    assert set(histories(folder, first, "several")["batch/live"].values()) == {3.0}
    assert "batch/live" not in histories(folder, first, "one")


def test_result_metrics_are_quantiles_over_all_seeds(folder, first):
    metrics = run_of(folder, first, "several").data.metrics
    history = first.runs["several"]
    w = np.sort(history.w.astype(float), axis=0)
    losses = np.sort(history.epochs.groupby("seed").full_loss.last())
    for suffix, i in (("_p10", 0), ("", 1), ("_p90", 2)):
        assert metrics[f"result/full_loss{suffix}"] == pytest.approx(losses[i], rel=1e-9)
        assert [metrics[f"result/w{k}{suffix}"] for k in range(3)] == pytest.approx(list(w[i]))
        assert f"result/stop_epoch{suffix}" not in metrics  # none stopped: infinite
    assert metrics["result/distance"] == pytest.approx(np.median(history.distance))
    assert metrics["result/steps"] == 1200
    assert metrics["result/converged"] == 0
    assert "result/full_loss_p10" not in run_of(folder, first, "one").data.metrics


def test_the_data_set_is_logged_with_its_digest(folder, first):
    for arm in ("several", "one"):
        (entry,) = run_of(folder, first, arm).inputs.dataset_inputs
        assert entry.dataset.name == "curve"
        assert entry.dataset.digest == ss.problems.curve().digest
        assert json.loads(entry.dataset.profile)["d"] == 2000


@pytest.mark.parametrize("kind", ["steps", "epochs"])
def test_parquet_holds_every_row_and_its_schema_version(folder, first, kind):
    history = first.runs["several"]
    file = artifacts(run_of(folder, first, "several")) / f"{kind}.parquet"
    assert pq.read_schema(file).metadata[b"schema_version"] == b"1"
    direct = ss.train(ss.problems.curve(), config=history.config)
    columns = list(getattr(direct, kind))
    rows = pd.read_parquet(file)
    assert list(rows) == columns
    order = ["seed", "epoch"] if kind == "epochs" else ["seed", "step"]
    rows = rows.sort_values(order).reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, getattr(direct, kind), check_exact=True)
    pd.testing.assert_frame_equal(getattr(history, kind), rows, check_exact=True)


def test_claims_json_holds_the_contracts_fields(folder, first):
    path = artifacts(run_of(folder, first, "answer")) / "claims.json"

    def refuse(word):
        raise AssertionError(f"{word} is no strict JSON")

    written = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    fields = ["name", "arm", "expected", "measured", "tolerance", "holds", "source", "kind"]
    fields += ["guess"]
    assert [list(claim) for claim in written] == [fields] * 4
    assert [claim["holds"] for claim in written] == [True, True, None, None]
    assert written[1]["expected"] == written[1]["measured"] == "inf"
    assert written[3]["measured"] == ["nan", 1.0]


def test_the_answer_is_logged_and_describes_the_experiment(folder, first):
    run = run_of(folder, first, "answer")
    experiment = open_store(folder).client.get_experiment_by_name("tiny")
    note = experiment.tags["mlflow.note.content"]
    for text in (note, (artifacts(run) / "answer.md").read_text(encoding="utf-8")):
        assert "What does a tiny study leave behind?" in text
        assert "The answer spans two lines." in text
    assert run.data.metrics["result/claims_hold"] == 2
    assert run.data.metrics["result/claims_fail"] == 0
    assert run.data.metrics["result/predictions_hold"] == 2
    assert run.data.metrics["result/identities_hold"] == 0
    assert run.data.metrics["result/descriptions"] == 2
    assert first.answer == "The answer spans two lines."


def test_figures_and_tables_are_logged(folder, first):
    path = artifacts(run_of(folder, first, "answer"))
    assert (path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert pd.read_csv(path / "t.csv").arm.tolist() == ["several", "one"]


def test_no_stream_is_left(folder, first):
    assert list(Path(folder).glob("streams/*")) == []


def test_a_result_shows_its_claims(first):
    assert first.claims_table.name.tolist() == ["steps", "never", "loss", "lists"]
    assert first.failed == []
    assert list(first.runs) == ["several", "one"]
    assert "#/experiments/" in first.url


# ---- reading back ---------------------------------------------------------------------------

LABELS = ["study", "arm", "run_id", "invocation"]


def test_load_runs_gives_a_row_per_arm_with_values(folder, tracked):
    runs = ss.load_runs("tiny", store=folder).set_index("arm")
    assert sorted(runs.index) == ["one", "several"]
    assert runs.loc["several", "run_id"] == tracked[2].run_ids["several"]
    assert runs.loc["several", "lr"] == 2e-4
    assert runs.loc["several", "batch_size"] == 10
    assert runs.loc["several", "stop_reason"] == "max_epochs"
    assert set(runs.status) == {"FINISHED"}
    assert runs.loc["one", "full_loss"] == pytest.approx(
        tracked[2].runs["one"].epochs.full_loss.iloc[-1]
    )
    assert len(ss.load_runs("tiny", store=folder, arms=["one"])) == 1


@pytest.mark.parametrize("kind", ["steps", "epochs"])
def test_load_gives_every_row_of_the_latest_invocation(folder, tracked, kind):
    load = {"steps": ss.load_steps, "epochs": ss.load_epochs}[kind]
    rows = load("tiny", store=folder)
    assert list(rows)[-4:] == LABELS
    assert set(rows.study) == {"tiny"}
    assert set(rows.run_id) == {tracked[2].run_ids[arm] for arm in ("several", "one")}
    for arm, history in tracked[2].runs.items():
        part = rows[rows.arm == arm].drop(columns=LABELS).reset_index(drop=True)
        pd.testing.assert_frame_equal(part, getattr(history, kind), check_exact=True)


def test_load_chooses_arms_seeds_columns_and_steps(folder):
    choice = {"arms": "several", "seeds": [0, 2], "columns": ["seed", "loss"]}
    rows = ss.load_steps("tiny", store=folder, steps=slice(10, 15), **choice)
    assert list(rows) == ["seed", "loss", *LABELS]
    assert rows.seed.tolist() == [0] * 5 + [2] * 5
    assert set(rows.arm) == {"several"}
    full = ss.load_steps("tiny", store=folder, arms=["several"])
    expected = full[full.seed.isin([0, 2]) & full.step.between(10, 14)].loss
    assert rows.loss.tolist() == expected.tolist()
    assert ss.load_steps("tiny", store=folder, columns=["loss"], seeds=7).arm.unique() == ["one"]
    assert ss.load_epochs("tiny", store=folder, seeds=[1], columns=["epoch"]).epoch.tolist() == [
        1,
        2,
    ]


def test_load_reads_an_invocation_or_all(folder, tracked):
    every = ss.load_runs("tiny", store=folder, invocation="all")
    assert len(every) == 4
    ids = every.invocation.unique().tolist()
    assert len(ids) == 2
    older = ss.load_runs("tiny", store=folder, invocation=min(ids))
    assert set(older.run_id) == {tracked[1].run_ids[arm] for arm in ("several", "one")}
    assert len(ss.load_epochs("tiny", store=folder, invocation="all")) == 2 * 4 * EPOCHS
    assert len(ss.load_claims("tiny", store=folder, invocation="all")) == 8


def test_load_claims_gives_what_was_claimed(folder):
    written = ss.load_claims("tiny", store=folder)
    assert written.name.tolist() == ["steps", "never", "loss", "lists"]
    assert written.holds.tolist() == [True, True, None, None]
    assert set(written.study) == {"tiny"}
    assert "invocation" in written


@pytest.mark.parametrize(
    ("load", "study", "ask", "says"),
    [
        (ss.load_runs, "tinny", {}, "did you mean 'tiny'"),
        (ss.load_steps, "tinny", {}, "did you mean 'tiny'"),
        (ss.load_claims, "tinny", {}, "did you mean 'tiny'"),
        (ss.load_runs, "tiny", {"arms": "severl"}, "did you mean 'several'"),
        (ss.load_steps, "tiny", {"arms": ["one", "two"]}, "unknown arm 'two'"),
        (ss.load_steps, "tiny", {"columns": ["los"]}, "did you mean 'loss'"),
        (ss.load_epochs, "tiny", {"columns": ["batch"]}, "unknown column"),
        (ss.load_steps, "tiny", {"invocation": "yesterday"}, "unknown invocation"),
    ],
)
def test_load_refuses_what_is_not_there(folder, load, study, ask, says):
    with pytest.raises(ss.InputError, match=says) as error:
        load(study, store=folder, **ask)
    assert one_line(error)


def test_load_asks_for_columns_before_it_fills_the_memory(folder, monkeypatch):
    monkeypatch.setattr("sgdstudy.tracking.load.MAX_BYTES", 1000)
    with pytest.raises(ss.InputError, match="columns=") as error:
        ss.load_steps("tiny", store=folder)
    assert one_line(error)
    assert len(ss.load_steps("tiny", store=folder, columns=["loss"])) == 4 * 400


def test_a_store_without_runs_says_so(store):
    with pytest.raises(ss.InputError, match="none has run yet"):
        ss.load_runs("tiny", store=store)


# ---- options, failures ----------------------------------------------------------------------


@pytest.mark.slow
def test_a_changed_option_leaves_only_what_always_holds_to_be_checked(store):
    result = TINY.run(Options(store=store, lr=1e-4))
    assert [claim.expected for claim in result.claims] == [None, np.inf, None, None]
    assert [claim.holds for claim in result.claims] == [None, True, None, None]


@pytest.mark.slow
def test_the_first_seed_shifts_all_and_claims_stay(store):
    result = TINY.run(Options(store=store, first_seed=5))
    assert list(result.runs["several"].config.seeds) == [5, 6, 7]
    assert [claim.kind for claim in result.claims][:2] == ["prediction"] * 2
    with pytest.raises(ss.InputError, match="first_seed must be at least 0"):
        Options(first_seed=-1).seed_range()


def small_arms(o):
    return {"arm": ss.Arm(small_curve(), "", lr=0.1, batch_size=10, epochs=2)}


def test_a_failing_claim_is_shown_as_failed(store):
    def wrong(o, runs):
        return [ss.Claim("two", "arm", 2, 3, 0.5, "theory")]

    study = dataclasses.replace(TINY, arms=small_arms, claims=wrong, figures={}, tables={})
    result = study.run(Options(store=store))
    run = run_of(store, result, "answer")
    assert [claim.name for claim in result.failed] == ["two"]
    assert run.info.status == "FINISHED"
    assert run.data.tags["sgdstudy.claims_failed"] == "1"
    assert run.data.metrics["result/claims_fail"] == 1
    assert "FAILS" in run.data.tags["mlflow.note.content"]
    assert ss.load_claims("tiny", store=store).holds.tolist() == [False]


def test_an_exception_in_an_arm_ends_its_run_as_failed(store):
    def broken(chunk):
        raise RuntimeError("a mistake of the user's own")

    def broken_arms(o):
        return small_arms(o) | {"bad": ss.Arm(small_curve(), "", lr=0.1, diagnostics=[broken])}

    study = dataclasses.replace(TINY, arms=broken_arms)
    with pytest.raises(ss.InputError, match="a mistake of the user's own"):
        study.run(Options(store=store))
    runs = ss.load_runs("tiny", store=store).set_index("arm")
    assert runs.status.to_dict() == {"arm": "FINISHED", "bad": "FAILED"}


@pytest.mark.parametrize("argv", [[], None])
def test_a_script_may_clear_what_was_typed(store, monkeypatch, argv):
    monkeypatch.setattr(sys, "argv", argv)
    TINY.run(Options(store=store))
    found = open_store(store)
    run = found.client.get_run(ss.load_runs("tiny", store=store).run_id[0])
    assert (run.data.tags["sgdstudy.command"], run.info.status) == ("''", "FINISHED")


def test_a_secret_that_follows_its_option_is_not_recorded(store, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x.py", "--password", "p w", "--api-key=q=r", "--lr", "1"])
    began = Invocation.start(open_store(store), "tiny")
    assert began.command == "x.py --password ... --api-key=... --lr 1"


def test_a_wrong_arm_leaves_the_store_untouched(store):
    def wrong_arms(o):
        return small_arms(o) | {"bad": ss.Arm(small_curve(), "", lr=-1)}

    with pytest.raises(ss.InputError, match="lr"):
        dataclasses.replace(TINY, arms=wrong_arms).run(Options(store=store))
    assert open_store(store).client.get_experiment_by_name("tiny") is None


@pytest.mark.parametrize("option", [{"seeds": 0}, {"jobs": 0}])
def test_a_wrong_option_leaves_the_store_untouched(store, option):
    with pytest.raises(ss.InputError):
        TINY.run(Options(store=store, **option))
    assert open_store(store).client.get_experiment_by_name("tiny") is None


@pytest.mark.slow
def test_an_arm_that_diverges_at_once_is_read_back_like_any_other(store):
    def far_arms(o):
        settings = {"optimizer": "notebook", "batch_size": 1, "epochs": 2, "seeds": range(2)}
        return {
            "diverges": ss.Arm(ss.problems.curve(), "", lr=0.2, **settings),
            "lives": ss.Arm(small_curve(), "", lr=0.1, **settings),
        }

    study = dataclasses.replace(TINY, arms=far_arms, claims=lambda o, runs: [], tables={})
    result = study.run(Options(store=store))
    history = result.runs["diverges"]
    assert run_of(store, result, "diverges").data.tags["stop_reason"] == "diverged"
    steps = ss.load_steps("tiny", store=store, arms="diverges")
    assert len(steps) == history.n_steps.sum()
    epochs = ss.load_epochs("tiny", store=store, columns=["running_loss"])
    assert set(epochs.arm) == {"lives"}
    assert "running_loss" in ss.load_epochs("tiny", store=store, arms="diverges")
    assert history.load("epochs", columns=["full_loss"]).empty


# ---- invocations ----------------------------------------------------------------------------


def test_invocations_sort_by_time(store):
    opened = open_store(store)
    ids = [Invocation.start(opened, "tiny").id for _ in range(20)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 20


@pytest.mark.slow
def test_prune_keeps_the_latest_and_removes_the_files_of_the_others(store):
    study = dataclasses.replace(
        TINY, arms=small_arms, claims=lambda o, runs: [], figures={}, tables={}
    )
    results = []
    for _ in range(3):
        results.append(study.run(Options(store=store)))
    opened = open_store(store)
    folders = [artifacts(run_of(store, result, "arm")) for result in results]
    assert all(path.exists() for path in folders)
    assert prune.plan(opened, 3) == {}
    ((named, _), doomed), *others = prune.plan(opened, 1).items()
    assert (named, others) == ("tiny", [])
    expected = {run for result in results[:2] for run in result.run_ids.values()}
    assert {run.run_id for run in doomed} == expected
    assert prune.remove(opened, doomed)[1] > 0
    assert [path.exists() for path in folders] == [False, False, True]
    left = ss.load_runs("tiny", store=store, invocation="all")
    assert left.run_id.tolist() == [results[2].run_ids["arm"]]
    assert [len(runs) for runs in prune.plan(opened, 0).values()] == [2]
    with pytest.raises(ss.InputError, match="keep"):
        prune.plan(opened, -1)


def test_a_prefix_sets_experiments_apart_on_a_shared_server(store, monkeypatch):
    monkeypatch.setenv("SGDSTUDY_PREFIX", "ada-")
    study = dataclasses.replace(
        TINY, arms=small_arms, claims=lambda o, runs: [], figures={}, tables={}
    )
    study.run(Options(store=store))
    client = open_store(store).client
    assert client.get_experiment_by_name("ada-tiny") is not None
    assert client.get_experiment_by_name("tiny") is None
    assert ss.load_runs("tiny", store=store).study.tolist() == ["tiny"]


# ---- where the store is ---------------------------------------------------------------------


def test_the_store_is_the_nearest_mlruns(tmp_path, no_server, monkeypatch):
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert locate().root == tmp_path / "mlruns"
    (tmp_path / "a" / "mlruns").mkdir()
    assert locate().root == tmp_path / "a" / "mlruns"
    assert locate(str(tmp_path / "other")).root == tmp_path / "other"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/env/mlflow.db")
    assert locate().root == tmp_path / "env"
    assert locate(str(tmp_path / "other")).root == tmp_path / "other"


def test_an_unreachable_server_is_refused_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(ss.InputError, match=r"127\.0\.0\.1:9") as error:
        TINY.run(Options())
    assert one_line(error)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_store_is_refused_and_left_alone(tmp_path, no_server):
    path = tmp_path / "mlruns"
    path.write_text("something else")
    with pytest.raises(ss.InputError, match="mlruns") as error:
        TINY.run(Options(store=str(path)))
    assert one_line(error)
    assert path.read_text() == "something else"
    assert [p.name for p in tmp_path.iterdir()] == ["mlruns"]


def test_a_database_that_is_none_is_refused_and_left_alone(tmp_path, no_server):
    (tmp_path / "mlflow.db").write_text("something else, and long enough " * 100)
    with pytest.raises(ss.InputError, match=r"mlflow\.db") as error:
        TINY.run(Options(store=str(tmp_path)))
    assert one_line(error)
    assert (tmp_path / "mlflow.db").read_text().startswith("something else")


def test_a_kind_of_uri_that_cannot_be_used_is_refused(tmp_path, no_server, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ss.InputError) as error:
        TINY.run(Options(store="nonsense://somewhere"))
    assert one_line(error)


def test_which_columns_mlflow_gets_is_a_setting(store):
    arm = ss.Arm(small_curve(), lr=0.1, batch_size=10, epochs=2, metrics=["update_norm", "w1"])
    invocation = Invocation.start(open_store(store), "chosen")
    run_id, _ = train_arm(invocation, "arm", arm, False)
    keys = set(open_store(store).client.get_run(run_id).data.metrics)
    chosen = {key for key in keys if key.startswith("batch/")}
    assert chosen == {"batch/update_norm", "batch/w1"}
    with pytest.raises(ss.InputError, match="did you mean 'full_loss'"):
        ss.TrainConfig(metrics=["full_los"])
    with pytest.raises(ss.InputError, match="a list of columns"):
        ss.TrainConfig(metrics="loss")


def test_a_folder_that_its_owner_begins_or_removes_is_not_touched(store):
    from sgdstudy.tracking.journal import Journal

    opened = open_store(store)
    folder = opened.streams / "0000000000000-abc"
    folder.mkdir(parents=True)
    assert Journal.orphan(opened, folder) is None
    assert list(folder.iterdir()) == []  # a lock in it would keep its owner from removing it


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_second_signal_does_not_keep_a_run_from_being_closed(store, monkeypatch, number):
    """As it was seen: SIGTERM thrice, and the run was RUNNING."""

    def hasty(journal):
        os.kill(os.getpid(), number)
        return adopt(journal)

    adopt = sink.adopt
    monkeypatch.setattr(sink, "adopt", hasty)
    opened = open_store(store)
    began = Invocation.start(opened, "mine")

    def run():
        with began.run("one", "", {}) as journal:
            ids.append(journal.run_id)
            rows = RunSink(journal)
            rows.log({"loss": 1.0})
            rows.stream.drop()
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)

    ids = []
    with interrupt_flag(), pytest.raises(KeyboardInterrupt):
        run()
    assert opened.client.get_run(ids[0]).info.status == "KILLED"
    assert len(ss.load_steps("mine", store=store)) == 1
    assert list(opened.streams.glob("*")) == []


def test_a_run_whose_sending_was_interrupted_is_sent_by_the_same_process(store, monkeypatch):
    opened = open_store(store)

    def interrupted(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with Invocation.start(opened, "mine").run("one", "", {}) as journal:
            patch.setattr(type(journal), "deliver", interrupted)
    assert recover(opened).sent == ["mine: one"]
    assert opened.client.get_run(journal.run_id).info.status == "FINISHED"
