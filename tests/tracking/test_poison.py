"""Files and tags that are not as we write them: one bad run is set aside, the others go on."""

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from conftest import call, one_line, small_curve
from test_store import tracked

import sgdstudy as ss
from sgdstudy.report.report import write_report
from sgdstudy.studies.rerun import rerun
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking import provenance, shapes
from sgdstudy.tracking.entries import Closing, Opening
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.journal import Journal
from sgdstudy.tracking.pack import pack
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.runs import artifact, find_run
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.store import open_store
from sgdstudy.tracking.tracked_run import TrackedRun

ANYTHING = ["{", "[]", "null", "3", '"a"', "{}", "[" * 100_000, '{"a": ' * 50_000, "\udcff"]
FILES = {
    "sent.json": [
        *ANYTHING,
        '{"run_id": 3, "uri": null, "opened": true}',
        '{"run_id": "a", "uri": [], "opened": true}',
        '{"opened": 1}',
    ],
    "points.json": [
        *(t for t in ANYTHING if t != "[]"),
        "[1]",
        '[["a", 1, 2]]',
        '[["a", 1.5, 1, 1]]',
        '[["a", 1, "b", 1]]',
    ],
    "closing.json": [*ANYTHING, '{"status": "DONE"}', '{"status": "FINISHED", "tags": {"a": 1}}'],
    "opening.json": [
        *ANYTHING,
        '{"store": 1}',
        '{"store": "x", "study": ["a"], "name": "n", "tags": {}}',
        '{"store": "x", "study": "a", "name": "n", "tags": {"sgdstudy.key": 3}}',
    ],
}
PAGE = '''"""Is anything of {name} poisoned?"""
import sgdstudy as ss


def arms(o):
    yield "arm", ss.Arm("curve", lr=1e-4, batch_size=200, epochs=1)


def claims(o, runs):
    yield ss.Claim("fine", "arm", 1, 1, always=True)


def answer(o, runs, claims):
    return "No."


def figures(runs):
    yield "loss.png", ss.figures.loss_by_epoch(runs)


STUDY = ss.study(__name__)
'''


def left(store, name):
    """A run that its process has left."""
    journal = Journal.begin(store, Opening("poisoned", name, {}), {})
    journal.let_go()
    return journal


def status(store, journal):
    return find_run(store, journal.run_id).status


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_of_a_run_keeps_no_other_from_being_finished(store, caplog, file):
    opened = open_store(store)
    for number, text in enumerate(FILES[file]):
        caplog.clear()
        bad, good = left(opened, "bad"), left(opened, f"good {number}")
        (bad.folder / file).write_bytes(text.encode(errors="surrogateescape"))
        found = recover(opened)
        assert status(opened, good) == "KILLED"
        assert f"poisoned: good {number}" in found.closed
        assert f"{bad.folder}" in caplog.text + str(found)
        assert (status(opened, bad) == "RUNNING") is (file == "opening.json")
        assert (bad.folder.exists()) is (file == "opening.json")
        if bad.folder.exists():
            shutil.rmtree(bad.folder)


@pytest.mark.parametrize("file", FILES)
def test_what_is_not_a_file_of_ours_is_not_read(store, file):
    opened = open_store(store)
    for what in ("folder", "large", "fifo", "link"):
        bad, good = left(opened, "bad"), left(opened, "good")
        path = bad.folder / file
        path.unlink(missing_ok=True)
        if what == "folder":
            path.mkdir()
        elif what == "large":
            with open(path, "wb") as large:
                large.truncate(shapes.MOST_BYTES + 1)
        elif what == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
        recover(opened)
        assert status(opened, good) == "KILLED"


@pytest.mark.slow
@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("file", ["sent.json", "points.json", "opening.json", "closing.json"])
def test_a_digit_that_changed_in_a_file_of_a_run_is_no_number_of_it(store, caplog, file, place):
    opened = open_store(store)
    about = Opening("poisoned", "bad", {}, {"lr": "0.001"}, [("predicted/x", 0, 1.25)])
    journal = Journal.begin(opened, about, {})
    journal.show([("batch/loss", 3, 0.125), ("batch/loss", 4, 2.5)])
    journal.draft(Closing("FINISHED", points=[*journal.interim, ("result/steps", 0, 10.0, 17)]))
    if file == "closing.json":
        journal.seal()
    journal.let_go()
    path = journal.folder / file
    data = path.read_bytes().partition(b"\n")
    digits = [i for i, char in enumerate(data[0]) if chr(char) in "123456789"]
    at = digits[int(place * len(digits))]
    path.write_bytes(
        data[0][:at] + b"%d" % (9 - data[0][at] % 8) + data[0][at + 1 :] + b"\n" + data[2]
    )
    left_alone = recover(opened).left
    if file == "opening.json":
        assert f"{journal.folder} is left alone: its opening.json is damaged" in left_alone[0]
    else:
        assert f"{path} is damaged" in caplog.text
    (run,) = ss.load_runs("poisoned", store=store, invocation="all").to_dict("records")
    assert (run["lr"], run["predicted_x"]) == (0.001, 1.25)
    assert run.get("steps", 0.0) == 0.0  # closed as one that was cut off, if at all
    history = opened.client.get_metric_history(journal.run_id, "batch/loss")
    assert {(p.step, p.value) for p in history} == {(3, 0.125), (4, 2.5)}


@pytest.mark.parametrize("file", ["closing.json", "points.json", "sent.json", "tries.json"])
@pytest.mark.parametrize("how", [shutil.copyfile, os.link])
def test_a_file_of_another_run_is_none_of_this_one(store, caplog, file, how):
    """As it was seen: with another's closing.json a killed run was FINISHED, its rows were gone."""
    opened = open_store(store)
    ended, killed = left(opened, "ended"), left(opened, "killed")
    ended.show([("batch/loss", 3, 0.125)])
    ended.draft(Closing("FINISHED", points=[("result/steps", 0, 10.0, 17)]))
    ended.seal()
    ended._tell("tries.json", 1)
    sink = RunSink(killed)
    sink.log({"loss": 2.0})
    sink.flush()
    sink.stream.close()
    (killed.folder / file).unlink(missing_ok=True)
    how(ended.folder / file, killed.folder / file)
    recover(opened)
    assert f"{killed.folder / file} is damaged" in caplog.text
    assert [status(opened, one) for one in (ended, killed)] == ["FINISHED", "KILLED"]
    assert find_run(opened, killed.run_id).metrics == {}
    assert ss.load_steps("poisoned", store=store, arms="killed").loss.tolist() == [2.0]


@pytest.mark.parametrize("signed", [True, False])
def test_a_closing_of_an_earlier_version_knows_no_run(store, signed):
    opened = open_store(store)
    journal = left(opened, "ended")
    told = {"status": "FINISHED", "end_ms": 17}
    text = shapes.signed(told) if signed else json.dumps(told)
    (journal.folder / "closing.json").write_text(text)
    recover(opened)
    assert status(opened, journal) == "FINISHED"


TAGS = [
    ("sgdstudy.pid", value)
    for value in ("abc", "", "@", "99999999999999999999@x", "-1@x", "²@x", "1e3@x", "0@x", "\0")
] + [
    ("sgdstudy.key", value)
    for value in ("../../..", "/etc", "", "a\0b", "x" * 5000, "none", "'; --")
]


@pytest.mark.slow
def test_a_hostile_tag_of_a_running_run_ends_no_command(store):
    """The process of a running run is known by tags alone once its folder is gone."""
    opened = open_store(store)
    for tag, value in TAGS:
        spoil(opened, tag, value)
    assert len(ss.load_runs("poisoned", store=store)) == 2 * len(TAGS)
    assert ss.load_steps("poisoned", store=store).empty


def spoil(opened, tag, value):
    bad, good = left(opened, "bad"), left(opened, "good")
    here = provenance.here()
    tags = {"sgdstudy.host": here.host, "sgdstudy.boot_id": here.boot_id, "sgdstudy.pid": here.pid}
    space = here.pid.partition("@")[2]
    for name, text in (tags | {tag: value.replace("@x", f"@{space}")}).items():
        opened.client.set_tag(bad.run_id, name, text)
    bad.remove()
    recover(opened)
    assert status(opened, good) == "KILLED"
    assert status(opened, bad) == "RUNNING"  # nobody knows that it is gone


@pytest.fixture(scope="module")
def two_studies(empty_store, tmp_path_factory):
    """A project with two studies that ran."""
    folder = tmp_path_factory.mktemp("poisoned")
    shutil.copytree(empty_store, folder / "mlruns")
    (folder / "experiments").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        for name in ("ex1_good", "study_bad"):
            (folder / "experiments" / f"{name}.py").write_text(PAGE.format(name=name))
            ss.run(name)
        yield folder


@pytest.fixture
def poisoned(two_studies, tmp_path, monkeypatch):
    """A copy of them that may be spoilt."""
    monkeypatch.chdir(shutil.copytree(two_studies, tmp_path / "project"))
    opened = open_store()
    (experiment,) = [e for e in opened.client.search_experiments() if e.name == "study_bad"]
    found = opened.client.search_runs([experiment.experiment_id])
    runs = {run.info.run_name: run for run in found}
    return opened, runs["arm"].info.run_id, runs["answer"]


def page_of(opened, tmp_path):
    return write_report(opened, tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["study", "script", "options", "config_hash", "invocation"])
def test_a_missing_tag_is_named(poisoned, tmp_path, name):
    opened, run_id, _ = poisoned
    opened.client.delete_tag(run_id, f"sgdstudy.{name}")
    if name != "invocation":
        with pytest.raises(ss.InputError, match=f"no tag sgdstudy.{name}|not an arm") as error:
            rerun(run_id)
        assert one_line(error)
    assert "study_bad" in page_of(opened, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content"),
    [(f, c.encode()) for f in ("claims.json", "answer.md") for c in ("", "[", "[1]", "[" * 50_000)]
    + [("claims.json", b'[{"name": "a"}]'), ("claims.json", b"[]"), ("answer.md", b"Yes."),
       ("claims.json", b'{"name": 3}'), ("answer.md", b"\xff")]
    + [("claims.json", json.dumps([{"name": "fine", "arm": "arm", "expected": 2, "measured": 2,
        "tolerance": 0}]).encode())]
    + [("claims.json", json.dumps([{"name": "a", "arm": "b", "expected": {}, "measured": 1,
        "tolerance": 0}]).encode())]
    + [("loss.png", c) for c in (b"", b"GIF89a", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")],
)  # fmt: skip
def test_a_damaged_artifact_takes_neither_its_study_nor_the_others_away(
    poisoned, tmp_path, file, content
):
    opened, _, answer = poisoned
    path = artifact(opened, TrackedRun.of(answer), file)
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        text = page_of(opened, tmp_path)
        runs = ss.load_runs("study_bad")
        claims = ss.load_claims("study_bad", invocation="all")
    finally:
        path.write_bytes(before)
    assert 'id="study-ex1_good"' in text
    assert 'id="study-study_bad"' in text
    assert "left out" in text
    assert len(runs) == 1
    assert len(claims) == (0 if file == "claims.json" else 1)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["claims.json", "answer.md", "loss.png"])
def test_a_file_of_an_answer_that_is_missing_is_named(poisoned, tmp_path, file, caplog):
    """As it was seen: no claims, an empty claims.csv, a packed answer without them, and exit 0."""
    opened, _, answer = poisoned
    artifact(opened, TrackedRun.of(answer), file).unlink()
    assert f"{file} is missing" in page_of(opened, tmp_path)
    with pytest.raises(ss.InputError, match=f"lacks the {file} of answer") as error:
        pack(opened, ["study_bad"], tmp_path / "a.zip")
    assert one_line(error)
    assert not (tmp_path / "a.zip").exists()
    caplog.clear()
    claims, runs = ss.load_claims("study_bad"), ss.load_runs("study_bad")
    if file == "claims.json":
        assert len(claims) == 0
        assert [m.startswith("the store lacks the claims of answer") for m in caplog.messages] == [
            True
        ] * 2
        with pytest.raises(ss.InputError, match="lacks the claims of answer"):
            ss.export("study_bad", tmp_path / "out")
        assert not list((tmp_path / "out").glob("*"))
    else:
        assert len(claims) == 1
        assert runs["claim_fine"].tolist() == [1]
        assert caplog.messages == []


@pytest.mark.slow
@pytest.mark.parametrize("by", ["tag", "older"])
def test_another_picture_is_not_shown_as_an_answers_figure(poisoned, tmp_path, by):
    opened, run_id, answer = poisoned
    other = artifact(opened, find_run(opened, run_id), "data.png")
    figure = artifact(opened, TrackedRun.of(answer), "loss.png")
    assert other is not None
    assert figure is not None
    shutil.copyfile(other, figure)
    if by == "older":
        opened.client.delete_tag(answer.info.run_id, "sgdstudy.crc32.figures")
    text = page_of(opened, tmp_path)
    assert ("loss.png is left out: " in text) is (by == "tag")


@pytest.mark.slow
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd")])
@pytest.mark.parametrize("file", ["claims.json", "answer.md", "loss.png"])
def test_what_is_no_file_takes_no_study_out_of_the_report(poisoned, tmp_path, file, make):
    opened, _, answer = poisoned
    path = artifact(opened, TrackedRun.of(answer), file)
    os.rename(path, tmp_path / "kept")
    make(path)
    try:
        text = page_of(opened, tmp_path)
        runs = ss.load_runs("study_bad")
    finally:
        path.rmdir() if path.is_dir() else path.unlink()
        os.rename(tmp_path / "kept", path)
    assert f"{file} is left out: " in text
    assert 'id="study-study_bad"' in text
    assert len(runs) == 1


@pytest.mark.slow
def test_a_run_of_nobodys_is_listed_like_the_others(store):
    """Made by another program: no tags, no name, no rows."""
    opened = open_store(store)
    train_arm(Invocation.start(opened, "mixed"), "ours", ss.Arm(small_curve(), lr=0.1, epochs=1))
    opened.client.create_run(opened.experiment("mixed"), run_name="")
    assert recover(opened).closed == []
    assert ss.load_runs("mixed", store=store, invocation="all").arm.tolist().count("ours") == 1
    assert len(ss.load_steps("mixed", store=store, invocation="all")) == 1


def without_a_byte(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + content[len(content) // 2 + 1 :])


def with_a_damaged_name(path):
    content = path.read_bytes()
    at = content.index(b"CREATE TABLE ")
    path.write_bytes(content[:at] + b"\xff\xa1" * 20 + content[at + 40 :])


def with_a_page_of_zeros(path):
    """The first of a table that MLflow reads when it opens the database."""
    with closing(sqlite3.connect(path)) as connection:
        text = "SELECT rootpage FROM sqlite_master WHERE name = 'experiment_tags'"
        (page,) = connection.execute(text).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    content = path.read_bytes()
    path.write_bytes(content[: (page - 1) * size] + bytes(size) + content[page * size :])


@pytest.mark.parametrize("damage", [without_a_byte, with_a_damaged_name, with_a_page_of_zeros])
def test_a_damaged_database_is_said_in_one_line(store, damage, capsys):
    """As it was seen: tracebacks, one of Python's that cannot decode SQLite's words."""
    tracked(store, "kept", ["one"])
    place = Path(store).parent / "copy" / "mlflow.db"
    place.parent.mkdir()
    with closing(sqlite3.connect(Path(store) / "mlflow.db")) as connection:
        connection.execute("VACUUM INTO ?", (str(place),))
    damage(place)
    capsys.readouterr()
    for words in (["report"], ["recover"], ["prune", "--keep", "1", "--yes"]):
        assert call(*words, "--store", place.parent) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {place} is damaged (")
        assert error.count("\n") == 1
    with pytest.raises(ss.InputError, match="is damaged") as found:
        ss.load_runs("kept", store=str(place.parent))
    assert one_line(found)
