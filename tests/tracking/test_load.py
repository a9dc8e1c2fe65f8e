"""Reading back: what is read, from where, of whom; files for others; arms compared."""

import io
import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
from conftest import one_line, small_curve
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, bootstrap

import sgdstudy as ss
from sgdstudy.history.compare import summary
from sgdstudy.history.files import ROW_GROUP, write_parquet
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.theory.medians import bounded_median, median, median_interval
from sgdstudy.tracking import describe
from sgdstudy.tracking.compare import by_seed, compare, time_to_target
from sgdstudy.tracking.export import export
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.parquet import Source, gather
from sgdstudy.tracking.runs import artifact, find_run
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.store import open_store

LABELS = ["study", "arm", "run_id", "invocation"]
SEEDS, STEPS = 16, 2 * ROW_GROUP // 16  # two row groups, seed by seed


def claims(o, runs):
    return [
        ss.Claim("stop_epoch", "steady", runs["steady"].median_stop, 12, 12, "theory"),
        ss.Claim("never", "too far", np.inf, np.inf, 0, "theory"),
        ss.Claim("everywhere", "all", True, True),
    ]


def arms(o):
    same = {"batch_size": 10, "epochs": 30, "seeds": range(6), "optimizer": "notebook"}
    same["stop"] = ("full", 0.05)
    small = small_curve()
    return {
        "steady": ss.Arm(small, lr=0.1, **same),
        "slow": ss.Arm(small, lr=0.02, **same),
        "float64": ss.Arm(small, lr=0.1, dtype="float64", diagnostics="full", **same),
        # beyond the mean-square limit: some orders overflow before these epochs end
        "too far": ss.Arm(ss.problems.curve(), lr=6e-4, **same | {"epochs": 3}),
    }


STUDY = ss.Study("/somewhere/back.py", "What?", ss.Options, arms, claims, lambda o, r, c: "so.")


@pytest.fixture(scope="module")
def made(empty_store, tmp_path_factory):
    """A store with one invocation of the study, and its result."""
    folder = tmp_path_factory.mktemp("made") / "mlruns"
    shutil.copytree(empty_store, folder)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "SGDSTUDY_PREFIX"):
            patch.delenv(name, raising=False)
        return str(folder), STUDY.run(ss.Options(store=str(folder)))


@pytest.fixture
def folder(made, no_server):
    return made[0]


@pytest.fixture
def result(made, no_server):
    return made[1]


def log_rows(store, study, arm, batches, kind="steps"):
    """Track a run that has just these rows."""
    with Invocation.start(open_store(store), study).run(arm, "", {}) as run:
        run.add(f"{kind}.parquet", lambda path: write_parquet(iter(batches), path))
    return run.run_id


# ---- what is read ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(empty_store, tmp_path_factory):
    """A store with a run of half a million rows, and the rows."""
    folder = tmp_path_factory.mktemp("large") / "mlruns"
    shutil.copytree(empty_store, folder)
    generator = np.random.default_rng(0)
    columns = {
        "seed": np.repeat(np.arange(SEEDS), STEPS),
        "step": np.tile(np.arange(STEPS), SEEDS),
        **{name: generator.standard_normal(SEEDS * STEPS) for name in ("loss", "w0", "w1")},
    }
    columns["loss"][[5, 7, STEPS]] = [np.nan, np.inf, -np.inf]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        log_rows(str(folder), "large", "arm", [pa.RecordBatch.from_pydict(columns)])
    return str(folder), pd.DataFrame(columns)


class Counted(io.FileIO):
    """A file that counts the bytes read from it."""

    def __init__(self, path):
        super().__init__(path)
        self.bytes = 0

    def read(self, size=-1):
        found = super().read(size)
        self.bytes += len(found)
        return found


@pytest.fixture
def spy(monkeypatch):
    """Count what is read of Parquet files: a list of open files."""
    files = []

    def counted(path, format):
        files.append(Counted(path))
        fragment = ds.ParquetFileFormat().make_fragment(files[-1])
        return ds.FileSystemDataset([fragment], fragment.physical_schema, fragment.format)

    spied = type("Spied", (), {"dataset": staticmethod(counted)})
    monkeypatch.setattr("sgdstudy.tracking.load.ds", spied)
    yield files
    for file in files:
        file.close()


CHOICES = {
    "all": ({}, lambda rows: rows),
    "a seed": ({"seeds": 3}, lambda rows: rows[rows.seed == 3]),
    "seeds": ({"seeds": [15, 0]}, lambda rows: rows[rows.seed.isin([0, 15])]),
    "columns": ({"columns": ["w1", "loss"]}, lambda rows: rows[["w1", "loss"]]),
    "steps": ({"steps": slice(10, 20)}, lambda rows: rows[rows.step.between(10, 19)]),
    "to the end": ({"steps": slice(STEPS - 3, None)}, lambda rows: rows[rows.step >= STEPS - 3]),
    "together": (
        {"seeds": range(2, 5), "columns": "loss", "steps": slice(0, 100)},
        lambda rows: rows[rows.seed.between(2, 4) & (rows.step < 100)][["loss"]],
    ),
    "none": ({"seeds": [99]}, lambda rows: rows[:0]),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_choosing_gives_what_pandas_would_give_of_the_whole(large, no_server, choice):
    ask, expected = CHOICES[choice]
    rows = ss.load_steps("large", store=large[0], **ask)
    assert list(rows)[-4:] == LABELS
    pd.testing.assert_frame_equal(
        rows.drop(columns=LABELS), expected(large[1]).reset_index(drop=True), check_exact=True
    )


def test_what_is_not_asked_for_is_not_read(large, no_server, spy):
    def read(**ask):
        ss.load_steps("large", store=large[0], **ask)
        return spy[-1].bytes

    everything = read()
    assert everything > 8 * 3 * SEEDS * STEPS * 0.8  # random numbers do not compress
    assert read(seeds=[0]) < 0.6 * everything  # one of the two row groups
    assert read(seeds=[2, 3]) < 0.6 * everything
    assert read(columns=["loss"]) < 0.45 * everything
    assert read(seeds=[15], columns=["loss"]) < 0.25 * everything
    assert read(seeds=[99]) < 0.05 * everything
    assert read(steps=slice(STEPS, None)) < 0.05 * everything


def test_rows_written_in_chunks_come_back_seed_by_seed(store):
    generator = np.random.default_rng(0)
    rows = pd.DataFrame(itertools.product(range(7), range(90)), columns=["seed", "step"])
    rows["loss"] = generator.standard_normal(len(rows))
    parts = [rows[rows.step.between(first, first + 29)] for first in (0, 30, 60)]
    log_rows(
        store, "chunks", "a", [pa.RecordBatch.from_pandas(p, preserve_index=False) for p in parts]
    )
    found = ss.load_steps("chunks", store=store)[list(rows)]
    pd.testing.assert_frame_equal(found, rows, check_exact=True)
    loss = ss.load_steps("chunks", store=store, columns=["loss"], seeds=[6, 1], steps=slice(20, 40))
    chosen = rows[rows.seed.isin([1, 6]) & rows.step.between(20, 39)]
    assert loss.loss.tolist() == chosen.loss.tolist()


@pytest.mark.slow
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), max_size=8), max_size=4),
    st.sampled_from([["seed", "step"], ["step"], ["seed"], []]),
)
def test_rows_in_any_order_are_put_as_a_stable_sort_puts_them(blocks, kept):
    """Blocks of a file in no order at all, ties included, some of them empty."""
    schema = pa.schema([("seed", pa.int64()), ("step", pa.int64()), ("loss", pa.float64())])
    rows = [
        pa.RecordBatch.from_pylist([{"seed": a, "step": b} for a, b in x], schema) for x in blocks
    ]
    table = pa.Table.from_batches(rows, schema)
    table = table.set_column(2, "loss", pa.array(np.arange(len(table)), pa.float64()))
    source = Source(dict.fromkeys(LABELS, "x"), ds.dataset(table.select([*kept, "loss"])))
    found = gather([source], ["loss"], None, None).loss
    keys = [name for name in ("seed", "step") if name in kept]
    expected = table.to_pandas().sort_values(keys, kind="stable") if keys else table.to_pandas()
    assert found.tolist() == expected.loss.tolist()


@pytest.mark.slow
def test_a_column_that_only_some_arms_have_is_nan_in_the_others(folder, result):
    rows = ss.load_steps("back", store=folder, arms=["steady", "float64"])
    full = result.runs["float64"].steps
    extra = set(full) - set(result.runs["steady"].steps)
    assert extra
    for name in extra:
        assert rows[name][rows.arm == "steady"].isna().all()
        own = rows[name][rows.arm == "float64"]
        np.testing.assert_array_equal(own, full[name])
    assert rows.w0.dtype == np.float64
    assert rows.epoch.dtype == full.epoch.dtype
    only = ss.load_steps("back", store=folder, columns=sorted(extra))
    assert list(only) == [*sorted(extra), *LABELS]


def test_a_remote_file_is_fetched_read_and_removed(folder, result, monkeypatch, tmp_path):
    monkeypatch.setattr("sgdstudy.tracking.store.local_path", lambda uri: None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = ss.load_epochs("back", store=folder, arms="steady").drop(columns=LABELS)
    pd.testing.assert_frame_equal(rows, result.runs["steady"].epochs, check_exact=True)
    assert len(ss.load_claims("back", store=folder)) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_gives_what_it_had_written(store, result):
    with Invocation.start(open_store(store), "killed").run("arm", "", {}) as run:
        rows = result.runs["steady"].steps
        batch = pa.RecordBatch.from_pandas(rows, preserve_index=False)
        with pa.OSFile(str(run.folder / "steps.arrow"), "wb") as file:
            writer = pa.ipc.new_stream(file, batch.schema)
            writer.write_batch(batch)  # and no end of the stream
        found = ss.load_steps("killed", store=store, seeds=[1, 2])
    chosen = rows[rows.seed.isin([1, 2])].reset_index(drop=True)
    pd.testing.assert_frame_equal(found.drop(columns=LABELS), chosen, check_exact=True)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        ({"columns": ["los"]}, "did you mean 'loss'"),
        ({"seeds": "all"}, "whole numbers"),
        ({"seeds": 0.5}, "whole numbers"),
        ({"seeds": []}, "seeds is empty"),
        ({"steps": slice(0, 10, 2)}, "without a stride"),
        ({"steps": slice(-10, None)}, "count from 0"),
        ({"steps": 10}, "steps is a slice"),
        ({"arms": "amr"}, "did you mean 'arm'"),
        ({"invocation": "yesterday"}, "unknown invocation"),
    ],
)
def test_what_cannot_be_chosen_is_refused_in_one_line(large, no_server, ask, says):
    with pytest.raises(ss.InputError, match=says) as error:
        ss.load_steps("large", store=large[0], **ask)
    assert one_line(error)


# ---- whose and which runs -------------------------------------------------------------------


def rows_of(value):
    return [pa.RecordBatch.from_pydict({"seed": [0], "step": [0], "loss": [float(value)]})]


@pytest.mark.slow
def test_latest_is_the_latest_of_this_user_else_of_anybody(store, monkeypatch):
    users = ["ada", "bob", "ada", "bob"]
    for i, user in enumerate(users):
        monkeypatch.setattr("getpass.getuser", lambda user=user: user)
        log_rows(store, "shared", "arm", rows_of(i))
    for user, latest in {"ada": [2], "bob": [3], "eve": [3], "o'neil": [3]}.items():
        monkeypatch.setattr("getpass.getuser", lambda user=user: user)
        assert ss.load_steps("shared", store=store).loss.tolist() == latest
        assert len(ss.load_runs("shared", store=store)) == 1
        assert ss.load_steps("shared", store=store, invocation="all").loss.tolist() == [0, 1, 2, 3]
    ids = ss.load_runs("shared", store=store, invocation="all").invocation
    assert ss.load_steps("shared", store=store, invocation=ids[1]).loss.tolist() == [1]


@pytest.mark.slow
def test_a_run_from_elsewhere_gives_its_metric_history(store):
    from mlflow.entities import Metric

    client = open_store(store).client
    made = client.create_run(open_store(store).experiment("theirs"), run_name="net").info.run_id
    values = {"batch/loss": [3.0, np.nan, np.inf, -np.inf], "epoch/acc": [0.5], "f1": [0.25]}
    points = [Metric(k, v, 0, i) for k, vs in values.items() for i, v in enumerate(vs)]
    points += [Metric("batch/lr", 0.1, 0, 2), Metric("batch/lr", 0.2, 1, 2)]
    client.log_batch(made, metrics=points)
    client.log_param(made, "layers", "3")
    client.set_terminated(made)
    steps = ss.load_steps("theirs", store=store)
    assert list(steps) == ["step", "loss", "lr", *LABELS]
    np.testing.assert_array_equal(steps.loss, [3.0, np.nan, np.inf, -np.inf])
    np.testing.assert_array_equal(steps.lr, [np.nan, np.nan, 0.2, np.nan])  # the later one counts
    assert ss.load_steps("theirs", store=store, steps=slice(1, 3)).step.tolist() == [1, 2]
    assert ss.load_steps("theirs", store=store, seeds=[0]).empty  # no seed is known
    assert ss.load_epochs("theirs", store=store)[["epoch", "acc"]].values.tolist() == [[0, 0.5]]
    run = ss.load_runs("theirs", store=store).iloc[0]
    assert (run.arm, run.layers, run.f1) == ("net", 3, 0.25)
    assert "loss" not in run
    # beside a run of our own, its rows have no seed
    log_rows(store, "theirs", "ours", rows_of(7))
    both = ss.load_steps("theirs", store=store, invocation="all").set_index("arm")
    assert both.seed.isna().tolist() == [True] * 4 + [False]
    assert ss.load_steps("theirs", store=store).arm.tolist() == ["ours"]


def test_what_others_logged_under_a_name_of_ours_replaces_nothing(store):
    """As it was seen: `log_param("lr")` and `log_metric("lr")`; here in a run of ours as well."""
    opened = open_store(store)
    client = opened.client
    theirs = client.create_run(opened.experiment("torchrun"), run_name="net").info.run_id
    later = client.create_run(opened.experiment("torchrun"), run_name="later").info.run_id
    client.log_param(theirs, "lr", "0.1")
    for run in (theirs, later):
        for key in ("lr", "status", "result/run_id", "metric.lr", "result/acc", "acc"):
            client.log_metric(run, key, len(key))
        for key in ("step", "seed", "arm", "loss"):
            client.log_metric(run, f"batch/{key}", len(key), step=3)
            client.log_metric(run, f"epoch/{key}", len(key), step=3)
        client.set_terminated(run)
    runs = ss.load_runs("torchrun", store=store).set_index("run_id")
    assert runs.lr[theirs] == 0.1
    assert np.isnan(runs.lr[later])
    assert set(runs.status) == {"FINISHED"}
    for run in (theirs, later):
        found = runs.loc[run, ["metric.lr", "metric.metric.lr", "acc", "metric.acc"]]
        assert sorted(found) == [2, 3, 9, 10]
        assert runs.loc[run, ["metric.status", "metric.run_id"]].tolist() == [6, 13]
    for load, axis in ((ss.load_steps, "step"), (ss.load_epochs, "epoch")):
        rows = load("torchrun", arms=["net"], store=store)
        assert rows[[axis, "arm", "loss", "metric.arm"]].values.tolist() == [[3, "net", 4, 3]]
    with Invocation.start(opened, "ours").run("arm", "", {"lr": "1"}) as journal:
        pass
    for key in ("arm", "run_id", "param.arm", "stop_reason", "option.x"):
        client.log_param(journal.run_id, key, "other")
    client.set_tag(journal.run_id, "sgdstudy.options", '{"x": 3}')
    run = ss.load_runs("ours", store=store).iloc[0]
    assert (run.arm, run.run_id, run.stop_reason) == ("arm", journal.run_id, None)
    assert (run["option.x"], run["param.option.x"], run["param.arm"]) == (3, "other", "other")
    assert run["param.param.arm"] == run["param.run_id"] == "other"


def test_a_param_of_others_takes_no_figure_of_ours(store):
    """As it was seen: one plain run of MLflow with a param `full_loss`; here on ours as well."""
    opened = open_store(store)
    client = opened.client
    figures = {"result/full_loss": 0.25, "predicted/lr_limit": 3.0, "result/steps": 8.0}
    runs = []
    for arm in ("a", "b"):
        with Invocation.start(opened, "ours").run(arm, "", {"lr": "1"}) as journal:
            runs.append(journal.run_id)
        for key, value in figures.items():
            client.log_metric(journal.run_id, key, value)
    plain = client.create_run(opened.experiment("ours"), run_name="plain").info.run_id
    for run in (plain, runs[1]):
        for name in ("full_loss", "predicted_lr_limit", "steps"):
            client.log_param(run, name, "theirs")
    client.log_param(plain, "schedule.gamma", "0.5")
    client.log_metric(runs[0], "result/schedule.gamma", 9)
    client.set_terminated(plain)
    found = ss.load_runs("ours", store=store, invocation="all").set_index("run_id")
    for name, value in {"full_loss": 0.25, "predicted_lr_limit": 3, "steps": 8}.items():
        assert found.loc[runs, name].tolist() == [value] * 2
        assert np.isnan(found.loc[plain, name])
        assert found.loc[[plain, runs[1]], f"param.{name}"].eq("theirs").all()
    assert found.loc[plain, "schedule.gamma"] == 0.5
    assert found.loc[runs[0], "metric.schedule.gamma"] == 9


def test_every_setting_that_is_recorded_is_known_as_one():
    schedule = {"schedule": "ExponentialLR", "schedule_options": {"gamma": 0.9}}
    more = {"schedule_unit": "epoch", "steps": 3, "patience": 2, "stop": ("running", 0.1)}
    config = TrainConfig.of(
        lr=0.1, batch_size=10, optimizer="Adam", options={"eps": 1e-8}, ema=0.9,
        clip_norm=1, evaluate_every=2, batch_schedule={2: 20}, **schedule, **more,
    )  # fmt: skip
    problem = ss.problems.curve()
    params = describe.parameters(problem, config)
    assert len(params) > 20
    assert all(map(describe.is_setting, params))
    assert not any(map(describe.is_setting, describe.result_names(problem, config)))


def test_load_runs_has_predictions_and_claims_as_columns(folder, result):
    runs = ss.load_runs("back", store=folder).set_index("arm")
    assert list(runs)[:3] == ["study", "run_id", "invocation"]
    steady = runs.loc["steady"]
    assert steady.predicted_stop_epoch == result.runs["steady"].predicted["stop_epoch"]
    assert steady.claim_stop_epoch == result.runs["steady"].median_stop
    assert steady.claim_stop_epoch_holds is True
    assert runs.loc["too far"].claim_never == np.inf
    assert pd.isna(runs.loc["slow"].claim_stop_epoch)
    assert not [name for name in runs if "everywhere" in name or "/" in name]
    claimed = ss.load_claims("back", store=folder)
    assert claimed.measured.tolist() == [steady.claim_stop_epoch, np.inf, True]


@pytest.mark.slow
def test_an_arm_is_chosen_by_its_whole_name(store):
    batch = pa.RecordBatch.from_pydict({"seed": [0, 0], "step": [0, 1], "loss": [2.0, 1.0]})
    started = Invocation.start(open_store(store), "commas")
    names = ["A", "A, B", "B"]
    for name in names:
        with started.run(name, "", {}) as run:
            run.add("steps.parquet", lambda path: write_parquet(iter([batch]), path))
    given = {"store": store}
    for wanted in (["A"], ["A, B"], ["B"], ["A", "B"], names):
        assert ss.load_runs("commas", arms=wanted, **given)["arm"].tolist() == wanted
        assert ss.load_steps("commas", arms=wanted, **given)["arm"].unique().tolist() == wanted
    assert ss.load_runs("commas", arms="A, B", **given)["arm"].tolist() == ["A, B"]


def test_a_study_without_rows_or_claims_gives_empty_frames(store):
    open_store(store).experiment("empty")
    assert list(ss.load_runs("empty", store=store)) == LABELS
    assert list(ss.load_steps("empty", store=store, columns=["loss"])) == ["loss", *LABELS]
    assert "holds" in ss.load_claims("empty", store=store)


# ---- export ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("to", ["csv", "parquet"])
def test_exported_files_hold_what_is_loaded(folder, tmp_path, to):
    paths = export("back", tmp_path / "out", to, store=folder)
    assert [p.name for p in paths] == [f"{n}.{to}" for n in ("runs", "claims", "epochs", "steps")]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in paths)
    read = {"csv": pyarrow.csv.read_csv, "parquet": pq.read_table}[to]
    files = {path.stem: read(path).to_pandas() for path in paths}
    for name, load in {"steps": ss.load_steps, "epochs": ss.load_epochs}.items():
        expected = load("back", store=folder)
        assert list(files[name]) == list(expected)
        # in CSV a float32 has the fewest digits that tell it from its neighbours
        assert (files[name][LABELS].astype(str) == expected[LABELS].astype(str)).all(axis=None)
        for column in expected.columns.drop(LABELS):
            np.testing.assert_array_equal(
                files[name][column].astype(expected[column].dtype), expected[column]
            )
    runs, expected = files["runs"], ss.load_runs("back", store=folder)
    assert list(runs) == list(expected)
    assert runs.lr.tolist() == expected.lr.tolist()
    assert runs.seeds.tolist() == ["0-5"] * 4
    assert files["claims"].measured.tolist()[1:] == ["inf", "True"]


def test_an_export_overwrites_only_when_told_to(folder, tmp_path):
    first = export("back", tmp_path, store=folder, arms=["steady"])
    before = first[3].read_bytes()
    with pytest.raises(ss.InputError, match=r"steps\.csv already.*force") as error:
        export("back", tmp_path, store=folder)
    assert one_line(error)
    assert first[3].read_bytes() == before
    export("back", tmp_path, store=folder, force=True)
    assert set(pd.read_csv(first[3]).arm) == {"steady", "slow", "float64", "too far"}


def test_an_export_holds_one_run_at_a_time(folder, tmp_path, monkeypatch):
    from sgdstudy.tracking import export as exporting

    sizes, gather = [], exporting.gather

    def watched(found, *rest):
        sizes.append(len(found))
        return gather(found, *rest)

    monkeypatch.setattr(exporting, "gather", watched)
    export("back", tmp_path, "parquet", store=folder)
    assert sizes == [1] * 8
    assert pq.read_metadata(tmp_path / "steps.parquet").num_row_groups >= 4


@pytest.mark.parametrize(
    ("study", "to", "says"),
    [("back", "excel", "Valid: csv, parquet"), ("bck", "csv", "did you mean 'back'")],
)
def test_an_export_refuses_in_one_line_and_leaves_nothing(folder, tmp_path, study, to, says):
    with pytest.raises(ss.InputError, match=says) as error:
        export(study, tmp_path / "out", to, store=folder)
    assert one_line(error)
    (tmp_path / "file").write_text("")
    with pytest.raises(ss.InputError, match="cannot be written") as error:
        export("back", tmp_path / "file", store=folder)
    assert one_line(error)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# ---- medians and their intervals ------------------------------------------------------------

times = st.lists(st.sampled_from([1.0, 2.0, 3.0, 5.0, 8.0, np.inf]), min_size=2, max_size=5)


@given(times, st.sampled_from([0.5, 0.9, 0.95]))
def test_the_interval_is_that_of_all_resamples(values, confidence):
    n, tail = len(values), (1 - confidence) / 2
    resamples = np.sort(list(itertools.product(values, repeat=n)), axis=1)
    lower, upper = np.sort(resamples[:, (n - 1) // 2]), np.sort(resamples[:, n // 2])
    rank = int(np.ceil(tail * n**n - 1e-6)) - 1
    expected = lower[rank], upper[n**n - 1 - rank]
    assert median_interval(np.array(values), confidence) == expected


@given(times)
def test_median_and_interval_turn_with_their_sample(values):
    x = np.array(values)
    low, high = median_interval(x)
    assert median_interval(-x) == (-high, -low)
    assert low <= median(x) <= high
    assert median(x) == np.sort(x)[(len(x) - 1) // 2]


def test_ten_thousand_resamples_give_nearly_this_interval():
    x = np.random.default_rng(0).standard_normal(51)
    drawn = bootstrap(
        (x,), np.median, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    ranks = np.searchsorted(np.sort(x), [median_interval(x), drawn])
    assert np.abs(np.diff(ranks, axis=0)).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("n", [16, 25, 64])
def test_the_interval_covers_the_median_as_often_as_it_should(n):
    """Order statistics r and s hold the median with probability P(r <= Bin(n, 1/2) < s)."""
    r, s = median_interval(np.arange(1, n + 1))
    exact = binom.cdf(s - 1, n, 0.5) - binom.cdf(r - 1, n, 0.5)
    assert 0.92 < exact < 0.985
    trials = 4000
    samples = np.random.default_rng(n).exponential(size=(trials, n))
    ends = np.array([median_interval(sample) for sample in samples])
    covered = np.mean((ends[:, 0] <= np.log(2)) & (np.log(2) <= ends[:, 1]))
    assert abs(covered - exact) < 4 * np.sqrt(exact * (1 - exact) / trials)


def test_values_only_known_between_ends_widen_the_interval():
    x, unsure = np.arange(1.0, 12), np.arange(11) < 2
    middle, (low, high) = bounded_median(x, unsure, (-np.inf, np.inf))
    assert np.isnan(middle)
    assert low <= median_interval(x)[0]
    assert high >= median_interval(x)[1]
    known = bounded_median(x, np.zeros(11, bool), (-np.inf, np.inf))
    assert known == (6.0, median_interval(x))


# ---- arms compared --------------------------------------------------------------------------


def series(values):
    return pd.Series(values, range(len(values)), dtype=float)


@given(st.lists(st.tuples(*[st.sampled_from([0.5, 1.0, 4.0, 7.0, np.inf])] * 2), min_size=2))
def test_compare_agrees_with_counting(pairs):
    a, b = np.array(pairs).T
    found = compare(series(a), series(b))
    n, both = len(a), sum(x == y == np.inf for x, y in pairs)
    assert found.pairs == n
    assert found.censored_a == sum(x == np.inf for x in a)
    assert found.share_below == sum(x < y for x, y in pairs) / n
    assert found.median_a == sorted(a)[(n - 1) // 2]
    known = [x - y for x, y in pairs if not x == y == np.inf]
    low, high = (sorted(known + [end] * both)[(n - 1) // 2] for end in (-np.inf, np.inf))
    np.testing.assert_equal(found.difference, low if low == high else np.nan)
    assert found.difference_interval[0] <= low
    assert found.difference_interval[1] >= high
    back = compare(series(b), series(a))
    turned = tuple(-end for end in reversed(back.difference_interval))
    assert found.difference_interval == turned
    assert "pairs of seeds" in str(found)


def test_pairs_are_made_by_seed():
    a = pd.Series([10.0, 20, 30], [1, 2, 3])
    b = pd.Series([33.0, 1, 11, 22], [3, 9, 1, 2])
    found = compare(a, b)
    assert found.values.to_dict() == {"a": {1: 10, 2: 20, 3: 30}, "b": {1: 11, 2: 22, 3: 33}}
    assert found.ratio == pytest.approx(10 / 11)
    assert found.share_below == 1
    assert np.isnan(compare(a - 20, b).ratio)  # of what is not positive there is none


@pytest.mark.slow
def test_stop_epochs_from_the_store_are_those_of_the_histories(folder, result):
    for arm, history in result.runs.items():
        stored = by_seed(arm, "stop_epoch", study="back", store=folder)
        pd.testing.assert_series_equal(stored, by_seed(history, "stop_epoch"), check_names=False)
        np.testing.assert_array_equal(stored, history.converged_epoch)
    assert np.isfinite(result.runs["steady"].converged_epoch).all()
    slow = compare("slow", "steady", study="back", store=folder)
    direct = compare(result.runs["slow"], result.runs["steady"])
    assert slow.difference == direct.difference > 0
    assert slow.difference_interval == direct.difference_interval
    assert str(slow).startswith("stop_epoch, 6 pairs of seeds\n  slow: median")


@pytest.mark.slow
def test_a_final_loss_is_infinite_where_the_seed_diverged(folder, result):
    history = result.runs["too far"]
    diverged = history.stop_reason == "diverged"
    assert 0 < diverged.sum() < len(diverged)
    assert set(history.epochs.seed) & set(np.flatnonzero(diverged))  # after a finite epoch
    stored = by_seed("too far", "full_loss", study="back", store=folder)
    np.testing.assert_array_equal(np.isinf(stored), diverged)
    for arm, run in result.runs.items():
        stored = by_seed(arm, "full_loss", study="back", store=folder)
        np.testing.assert_array_equal(stored, by_seed(run, "full_loss"))
    last = result.runs["steady"].epochs.groupby("seed").full_loss.last()
    np.testing.assert_array_equal(by_seed(result.runs["steady"], "full_loss"), last)


@pytest.mark.slow
@pytest.mark.parametrize(("over", "kind"), [("epoch", "epochs"), ("step", "steps")])
def test_time_to_target_is_the_first_row_below(folder, result, over, kind):
    for arm, history in result.runs.items():
        rows = getattr(history, kind)
        for target in (1e-9, 0.1, 2.0, 1e9):
            expected = [
                min(rows[over][(rows.seed == seed) & (rows.full_loss < target)], default=np.inf)
                for seed in history.config.seeds
            ]
            found = time_to_target(history, target, over=over)
            assert found.tolist() == expected
            if target == 0.1:
                stored = time_to_target(arm, target, over=over, study="back", store=folder)
                assert stored.tolist() == expected


def test_time_to_target_of_rows_of_several_arms(folder, result):
    rows = ss.load_epochs("back", store=folder, arms=["steady", "slow"])
    found = time_to_target(rows.sample(frac=1, random_state=0), 0.1)
    for arm in ("steady", "slow"):
        expected = time_to_target(result.runs[arm], 0.1)
        assert found[arm].tolist() == expected.tolist()
    one = time_to_target(rows[rows.arm == "slow"], 0.1)
    assert one.tolist() == found["slow"].tolist()


@pytest.mark.parametrize(("over", "first"), [("epoch", 1), ("step", 0)])
def test_a_target_is_met_below_it_not_at_it(over, first):
    rows = pd.DataFrame({"seed": 0, over: range(first, first + 4), "full_loss": [3, 1.0, 0.5, 0.1]})
    assert time_to_target(rows, 1.0, over=over).tolist() == [first + 2]
    assert time_to_target(rows, 0.1, over=over).tolist() == [np.inf]


def test_a_seed_that_never_ended_an_epoch_never_met_its_target():
    start = {0: 1e30, 1: 0.0, 2: 1e30}
    problem = small_curve(w_init=lambda g: torch.full((3,), start[g.initial_seed()]))
    history = ss.train(
        problem, optimizer="notebook", lr=0.1, batch_size=10, epochs=40, seeds=range(3)
    )
    assert set(history.epochs.seed) == {1}
    found = time_to_target(history, 0.1)
    assert found[[0, 2]].tolist() == [np.inf, np.inf]
    assert np.isfinite(found[1])


def test_pairs_in_which_neither_got_there_may_have_any_ratio():
    never = pd.Series([np.inf, np.inf, 2.0, 4.0, np.inf])
    found = compare(never, pd.Series([np.inf, np.inf, 1.0, 2.0, np.inf]))
    assert np.isnan(found.ratio)
    assert found.ratio_interval == (0, np.inf)
    assert found.difference_interval == (-np.inf, np.inf)


def test_a_summary_counts_the_censored():
    found = summary(series([3, np.inf, 5, np.inf, np.inf]))
    assert (found.seeds, found.reached, found.share) == (5, 2, 0.4)
    assert found.median == np.inf
    assert str(found) == "median ∞ [3, ∞]; 2 of 5 seeds got there"


def test_what_cannot_be_compared_is_refused_in_one_line(folder, result):
    steady, rows = result.runs["steady"], ss.load_epochs("back", store=folder)
    twice = pd.concat([rows, rows.assign(run_id="other")])
    unstopped = ss.train(small_curve(), lr=0.1, epochs=1, seeds=range(2))
    stored = {"study": "back", "store": folder}
    refused = {
        "study=": lambda: compare("steady", steady),
        "did you mean 'slow'": lambda: compare("slw", steady, **stored),
        "seeds in common": lambda: compare(steady, pd.Series([1.0], [77])),
        "did you mean 'full_loss'": lambda: compare(steady, steady, "ful_loss"),
        "unknown column 'lss'": lambda: compare("slow", "steady", "lss", **stored),
        "stop rule": lambda: compare(unstopped, steady),
        "not a number": lambda: compare(steady, pd.Series([np.nan, 1.0])),
        "one arm of one run": lambda: compare(steady, pd.Series([1.0, 1.0], [0, 0])),
        "confidence": lambda: compare(steady, steady, confidence=95),
        "unknown axis": lambda: time_to_target(steady, 1, over="batch"),
        "unknown column 'acc'": lambda: time_to_target(rows, 1, "acc"),
        "several runs": lambda: time_to_target(twice, 1),
        "no times": lambda: summary(series([])),
    }
    for says, call in refused.items():
        with pytest.raises(ss.InputError, match=says) as error:
            call()
        assert one_line(error)


def test_claims_json_stays_as_it_was_written(folder, result):
    opened = open_store(folder)
    path = artifact(opened, find_run(opened, result.run_ids["answer"]), "claims.json")
    assert json.loads(path.read_text(encoding="utf-8"))[1]["measured"] == "inf"


# ---- whose files they are ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_arms(empty_store, tmp_path_factory):
    """A store with a study of two arms, and the folders of their files."""
    store = tmp_path_factory.mktemp("whose") / "mlruns"
    shutil.copytree(empty_store, store)
    invocation, folders = Invocation.start(open_store(str(store)), "whose"), {}
    for name, lr in (("one", 0.1), ("two", 0.2)):
        arm = ss.Arm(small_curve(), lr=lr, batch_size=10, epochs=2)
        run_id, _ = train_arm(invocation, name, arm, False)
        folders[name] = store / "artifacts" / "whose" / run_id / "artifacts"
    return str(store), folders


@pytest.mark.parametrize(
    ("kind", "source", "target"),
    [
        ("steps", "two/steps", "one/steps"),
        ("epochs", "two/epochs", "one/epochs"),
        ("steps", "one/epochs", "one/steps"),
        ("epochs", "one/steps", "one/epochs"),
    ],
)
@pytest.mark.parametrize("how", [shutil.copyfile, os.link])
def test_a_file_in_anothers_place_is_not_read_as_its_numbers(two_arms, kind, source, target, how):
    """As it was seen: rows of two arms swapped, or one kind for the other, were loaded."""
    store, folders = two_arms
    load = {"steps": ss.load_steps, "epochs": ss.load_epochs}[kind]
    paths = []
    for place in (source, target):
        arm, _, name = place.partition("/")
        paths.append(folders[arm] / f"{name}.parquet")
    own = paths[1].rename(paths[1].with_name("own"))
    try:
        how(*paths)
        with pytest.raises(ss.InputError, match="is the file of another run") as error:
            load("whose", store=store)
        assert one_line(error)
        assert str(paths[1]) in str(error.value)
        assert len(load("whose", arms="two", store=store))
    finally:
        own.replace(paths[1])
    assert len(load("whose", store=store))


def test_a_run_of_an_earlier_version_knows_no_checksums_of_its_files(two_arms, tmp_path):
    store = str(shutil.copytree(two_arms[0], tmp_path / "mlruns"))
    client = open_store(store).client
    one, two = ss.load_runs("whose", store=store).run_id
    for kind in ("steps", "epochs"):
        tag = f"sgdstudy.crc32.{kind}.parquet"
        assert client.get_run(one).data.tags[tag] != client.get_run(two).data.tags[tag]
        client.delete_tag(one, tag)
    artifacts = Path(store) / "artifacts" / "whose"
    shutil.copyfile(*(artifacts / run / "artifacts" / "steps.parquet" for run in (two, one)))
    assert len(ss.load_steps("whose", store=store)) == 2 * 2 * 6


def test_a_run_that_lacks_a_file_it_knows_the_checksum_of_is_named(two_arms, tmp_path):
    """A loop of one's own has no charts that would tell it."""
    store = str(shutil.copytree(two_arms[0], tmp_path / "mlruns"))
    with Invocation.start(open_store(store), "loop").run("run", "", {}) as journal:
        RunSink(journal).log({"loss": 1.0})
    assert len(ss.load_steps("loop", store=store)) == 1
    next(Path(store).glob("artifacts/loop/*/artifacts/steps.parquet")).unlink()
    with pytest.raises(ss.InputError, match="lacks the steps"):
        ss.load_steps("loop", store=store)


def test_whole_numbers_of_runs_that_no_float_holds_are_not_rounded(store, tmp_path):
    """A param that another run lacks, or that is half a number there, made floats of all."""
    opened = open_store(store)
    for params in ({"n": 2**60 + 1, "m": 10**30, "k": 1}, {}, {"n": 1.5, "m": 1, "k": 2}):
        run = opened.client.create_run(opened.experiment("odd"), run_name="one").info.run_id
        for name, value in params.items():
            opened.client.log_param(run, name, value)
        opened.client.set_terminated(run)
    runs = ss.load_runs("odd", store=store, invocation="all")
    assert runs.n.dropna().tolist() == [2**60 + 1, 1.5]
    assert runs.m.dropna().tolist() == [10**30, 1]
    assert runs.k.dtype == float  # what floats hold they hold still
    export("odd", tmp_path, "csv", store=store, invocation="all")
    assert f"{2**60 + 1}" in (tmp_path / "runs.csv").read_text()
    assert f"{10**30}" in (tmp_path / "runs.csv").read_text()
