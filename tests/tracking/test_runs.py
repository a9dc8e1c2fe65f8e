"""Which runs a store has of a study, whatever people did to them in MLflow's UI."""

import shutil

import pytest
from conftest import call, one_line, small_curve

import sgdstudy as ss
from sgdstudy.report.sections import answered, sections_of
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.runs import every_run, runs_of
from sgdstudy.tracking.store import open_store, read_store
from sgdstudy.tracking.tracked_run import ANSWER, KIND

LOADS = (ss.load_runs, ss.load_steps, ss.load_epochs, ss.load_claims)
STUDY = "edited"


def arms(o):
    same = {"batch_size": 20, "epochs": 1}
    return {"one": ss.Arm(small_curve(), lr=0.1, **same), "two": ss.Arm(small_curve(), **same)}


def claims(o, runs):
    return [ss.Claim("steps", "one", 3, runs["one"].n_steps, 0, "three batches")]


@pytest.fixture(scope="module")
def tracked(empty_store, tmp_path_factory):
    """A store with a study of two arms, and the ids of its runs."""
    folder = tmp_path_factory.mktemp("edited") / "mlruns"
    shutil.copytree(empty_store, folder)
    study = ss.Study(f"/x/{STUDY}.py", "What?", ss.Options, arms, claims, lambda o, r, c: "So.")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "SGDSTUDY_PREFIX"):
            patch.delenv(name, raising=False)
        return folder, study.run(ss.Options(store=str(folder)), progress=False).run_ids


@pytest.fixture
def edited(tracked, tmp_path, no_server):
    """A copy of that store, and the ids of its runs."""
    folder, ids = tracked
    shutil.copytree(folder, tmp_path / "mlruns")
    return str(tmp_path / "mlruns"), ids


# ---- runs that were renamed ----------------------------------------------------------------------


def of_an_earlier_version(client, run_id, checksums):
    """Take the tags from a run that an earlier version did not write."""
    names = client.get_run(run_id).data.tags
    for name in names:
        if name == KIND or (not checksums and name.startswith("sgdstudy.crc32.")):
            client.delete_tag(run_id, name)


RENAMED = [
    {"answer": "answer v1"},
    {"two": "answer"},
    {"answer": "one", "one": "answer", "two": "answer"},
]


@pytest.mark.parametrize("names", RENAMED)
@pytest.mark.parametrize("old", [False, True])
def test_an_answer_and_an_arm_are_known_by_what_they_are(edited, names, old):
    """As it was seen: claims without a row, an answer among the arms, rows that vanished."""
    store, ids = edited
    client = open_store(store).client
    for run_id in ids.values() if old else ():
        of_an_earlier_version(client, run_id, checksums=True)
    for name, to in names.items():
        client.update_run(ids[name], None, to)
    trained = {ids["one"], ids["two"]}
    for invocation in ("latest", "all"):
        given = {"store": store, "invocation": invocation}
        runs = ss.load_runs(STUDY, **given)
        assert set(runs.run_id) == trained
        assert sorted(runs.arm) == sorted(names.get(name, name) for name in ("one", "two"))
        assert set(ss.load_steps(STUDY, **given).run_id) == trained
        assert ss.load_claims(STUDY, **given).name.tolist() == ["steps"]
    opened = read_store(store)
    assert [run.run_id for _, _, run in answered(opened)] == [ids["answer"]]
    assert [section.name for section in sections_of(opened, None)[0]] == [STUDY]


def test_an_answer_of_a_version_before_the_checksums_is_known_by_its_name(edited):
    store, ids = edited
    client = open_store(store).client
    for run_id in ids.values():
        of_an_earlier_version(client, run_id, checksums=False)
    client.update_run(ids["two"], None, "answer")
    assert set(ss.load_runs(STUDY, store=store).run_id) == {ids["one"], ids["two"]}
    assert len(ss.load_claims(STUDY, store=store)) == 1


def test_what_has_neither_settings_nor_checksums_is_known_by_its_tag(edited):
    """A loop of one's own, and the answer of a sweep."""
    store, _ = edited
    begun, names = Invocation.start(open_store(store), "own"), ["loop", ANSWER]
    for name, tags in zip(names, ({}, {KIND: ANSWER}), strict=True):
        with begun.run(name, "", tags) as journal:
            pass
        begun.store.client.update_run(journal.run_id, None, f"not {name}")
    assert ss.load_runs("own", store=store).arm.tolist() == ["not loop"]
    for name in names:
        (run,) = runs_of(begun.store, "own", "latest", None, answers=name == ANSWER)
        begun.store.client.update_run(run.run_id, None, *{*names} - {name})
    assert ss.load_runs("own", store=store).arm.tolist() == [ANSWER]


def test_the_latest_that_has_an_answer_is_found_behind_many_that_have_none(edited, monkeypatch):
    store, ids = edited
    monkeypatch.setattr("sgdstudy.tracking.runs.FEW", 2)
    monkeypatch.setattr("sgdstudy.tracking.runs.MOST", 3)
    later = Invocation.start(open_store(store), STUDY)
    for i in range(7):
        with later.run(f"arm {i}", "", {}):
            pass
    assert set(ss.load_runs(STUDY, store=store).invocation) == {later.id}
    assert len(ss.load_claims(STUDY, store=store)) == 1
    assert [run.run_id for _, _, run in answered(read_store(store))] == [ids["answer"]]


# ---- a study that was deleted --------------------------------------------------------------------


@pytest.fixture
def deleted(edited):
    """The store with its study deleted, as MLflow's UI does it; and MLflow's id of that."""
    store, _ = edited
    client = open_store(store).client
    experiment = client.get_experiment_by_name(STUDY).experiment_id
    client.delete_experiment(experiment)
    return store, experiment


@pytest.mark.parametrize("load", LOADS)
def test_a_study_that_was_deleted_is_not_read_as_one_without_runs(deleted, load):
    store, experiment = deleted
    with pytest.raises(ss.InputError, match=f"{STUDY} was deleted in MLflow") as error:
        load(STUDY, store=store)
    assert one_line(error)
    assert f"mlflow experiments restore -x {experiment}" in str(error.value)


def test_nothing_is_written_of_a_study_that_was_deleted(deleted, tmp_path, capsys):
    store, _ = deleted
    for words in (
        ("export", STUDY, "--folder", tmp_path / "to"),
        ("pack", STUDY, tmp_path / "file.zip"),
        ("report", "--out", tmp_path / "report.html"),
    ):
        assert call(*words, "--store", store) == 2
        assert f"{STUDY} was deleted" in capsys.readouterr().err
        assert not words[-1].exists()


def test_what_restores_a_study_says_so(deleted, caplog):
    store, experiment = deleted
    opened = open_store(store)
    train_arm(Invocation.start(opened, STUDY), "three", arms(None)["one"], False)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"{STUDY} was deleted in MLflow; it is restored, with the runs it had"
    assert len(every_run(opened, experiment)) == 4


# ---- a run that was deleted ----------------------------------------------------------------------


@pytest.mark.parametrize("study_too", [False, True], ids=["a run", "its study"])
@pytest.mark.parametrize("command", ["rerun", "pack"])
def test_a_run_that_was_deleted_is_refused_until_it_is_restored(
    edited, tmp_path, capsys, command, study_too
):
    """As it was seen: it was run again, and packed, without a word."""
    store, ids = edited
    client = open_store(store).client
    run = client.get_run(ids["one"])
    if study_too:
        client.delete_experiment(run.info.experiment_id)
    else:
        client.delete_run(ids["one"])
    words = (
        ("rerun", ids["one"]) if command == "rerun" else ("pack", ids["one"], tmp_path / "a.zip")
    )
    assert call(*words, "--store", store) == 2
    (line,) = capsys.readouterr().err.splitlines()
    restore = f"runs restore --run-id {ids['one']}"
    if study_too:
        restore = f"experiments restore -x {run.info.experiment_id}"
    assert "was deleted in MLflow; restore it: MLFLOW_TRACKING_URI=sqlite:///" in line
    assert line.endswith(f"mlflow {restore}")
    assert not (tmp_path / "a.zip").exists()


def test_a_study_whose_runs_were_all_deleted_is_not_exported_as_an_empty_one(
    edited, tmp_path, capsys
):
    store, _ = edited
    opened = open_store(store)
    every = every_run(opened, opened.experiment(STUDY))
    for run in every:
        opened.client.delete_run(run.run_id)
    assert call("export", STUDY, "--folder", tmp_path / "to", "--store", store) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"the last run of {STUDY} was deleted in MLflow; restore it: " in line
    assert line.endswith(every[-1].run_id)
    assert not (tmp_path / "to").exists()
