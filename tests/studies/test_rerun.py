"""`sgdstudy rerun`: the same configuration again, and every recorded number compared."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import call, one_line

import sgdstudy as ss
from sgdstudy.errors import InputError
from sgdstudy.history.checksums import Sealed
from sgdstudy.history.files import write_parquet
from sgdstudy.studies.rerun import rerun
from sgdstudy.studies.scripts import load_study
from sgdstudy.sweeps import grid, sweep
from sgdstudy.tracking.code import CODE
from sgdstudy.tracking.runs import artifact, find_run
from sgdstudy.tracking.shapes import SUM_OF
from sgdstudy.tracking.store import open_store

SCRIPT = '''
"""Is it the same again?"""

from dataclasses import dataclass

import sgdstudy as ss


@dataclass(frozen=True)
class Options(ss.Options):
    lr: float = 2e-4


def arms(o):
    curve = ss.problems.curve(noise=0.1)
    many = {"batch_size": 10, "lr": o.lr, "epochs": 12, "seeds": o.seed_range()}
    return {
        "compiled": ss.Arm(curve, "", **many),
        "eager": ss.Arm(curve, "", engine="eager", **{**many, "epochs": 2}),
        "diverges": ss.Arm(curve, "", **{**many, "lr": 0.2}),
        "Adam": ss.Arm(curve, "", optimizer="Adam", clock=True, **{**many, "lr": 0.1}),
    }


STUDY = ss.Study(__file__, __doc__, Options, arms, lambda o, runs: [], lambda o, runs, c: "yes")
'''


@pytest.fixture
def script(tmp_path, monkeypatch):
    path = tmp_path / "experiments" / "again.py"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def tracked(script, store):
    study = load_study(str(script))
    return study.run(study.options(store=store, seeds=2))


@pytest.mark.slow
def test_every_arm_is_identical_and_latest_stays_what_it_was(tracked, store, capsys):
    ids = [run_id for arm, run_id in tracked.run_ids.items() if arm != "answer"]
    assert call("rerun", *ids, "--store", store) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"again, {arm}: identical" for arm in tracked.runs]
    assert ss.load_runs("again", store=store).run_id.tolist() == ids
    every = ss.load_runs("again", store=store, invocation="all")
    client = open_store(store).client
    new = [run for run in every.run_id if run not in ids]
    assert [client.get_run(run).data.tags["sgdstudy.rerun_of"] for run in new] == ids


def recorded_as(opened, run_id, path, table):
    """Let a run have recorded other rows."""
    write_parquet(iter(table.to_batches()), path)
    opened.client.set_tag(run_id, SUM_OF + path.name, Sealed.open(path).crc)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "row", "column", "off"),
    [("steps", 2400 + 7, "loss", 1e-6), ("steps", 3, "w1", 1.0), ("epochs", 0, "distance", 1e-9)],
)
def test_a_number_that_differs_is_found(tracked, store, capsys, kind, row, column, off):
    opened = open_store(store)
    path = artifact(opened, find_run(opened, tracked.run_ids["compiled"]), f"{kind}.parquet")
    table = pq.read_table(path)
    values = table[column].to_numpy().copy()
    values[row] += np.asarray(off, values.dtype)
    values[row + 1] = np.nan  # a later one
    place = table.schema.get_field_index(column)
    changed = table.set_column(place, column, pa.array(values))
    recorded_as(opened, tracked.run_ids["compiled"], path, changed)
    found = rerun(tracked.run_ids["compiled"], store=store)
    seed, axis = (
        table[name][row].as_py() for name in ("seed", {"steps": "step"}.get(kind, "epoch"))
    )
    assert (found.difference.kind, found.difference.column) == (kind, column)
    assert (found.difference.seed, found.difference.at) == (seed, axis)
    assert found.difference.before == values[row]
    assert call("rerun", tracked.run_ids["compiled"], "--store", store) == 1
    assert f"{column}: " in capsys.readouterr().out


@pytest.mark.slow
def test_a_step_size_that_theory_rounds_otherwise_now_is_that_of_then(tracked, script, store):
    script.write_text(SCRIPT.replace('"lr": o.lr,', '"lr": o.lr * (1 + 5e-16),'))
    assert (o_lr := 2e-4) != o_lr * (1 + 5e-16)
    found = rerun(tracked.run_ids["compiled"], store=store)
    assert found.difference is None
    script.write_text(SCRIPT.replace('"lr": o.lr,', '"lr": o.lr * (1 + 1e-6),'))
    with pytest.raises(InputError, match="otherwise now: lr"):
        rerun(tracked.run_ids["compiled"], store=store)


def test_rows_that_are_missing_are_found(tracked, store):
    opened = open_store(store)
    path = artifact(opened, find_run(opened, tracked.run_ids["eager"]), "steps.parquet")
    recorded_as(opened, tracked.run_ids["eager"], path, pq.read_table(path).slice(0, 100))
    found = rerun(tracked.run_ids["eager"], store=store)
    assert "100 rows of steps were recorded, now 800" in str(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["steps", "epochs"])
def test_a_damaged_record_is_never_identical(tracked, store, kind):
    """It is refused before anything is trained, and so is one of another run, or none."""
    opened = open_store(store)
    run, other = (find_run(opened, tracked.run_ids[name]) for name in ("eager", "compiled"))
    path = artifact(opened, run, f"{kind}.parquet")
    raw = bytearray(path.read_bytes())
    raw[200] ^= 4
    path.write_bytes(raw)
    before = len(ss.load_runs("again", store=store, invocation="all"))
    with pytest.raises(InputError, match=f"{kind}.parquet is damaged") as error:
        rerun(run.run_id, store=store)
    assert one_line(error)
    others = artifact(opened, other, path.name)
    path.write_bytes(others.read_bytes())
    with pytest.raises(InputError, match="is the file of another run"):
        rerun(run.run_id, store=store)
    path.unlink()
    with pytest.raises(InputError, match=f"lacks the {kind} of eager") as error:
        rerun(run.run_id, store=store)
    assert one_line(error)
    opened.client.delete_tag(run.run_id, SUM_OF + path.name)  # an earlier version had none
    with pytest.raises(InputError, match=f"lacks the {kind} of eager"):
        rerun(run.run_id, store=store)
    assert len(ss.load_runs("again", store=store, invocation="all")) == before


@pytest.mark.slow
def test_rows_of_another_program_are_not_compared_with(tracked, store):
    """As those of a run of an earlier version, which knows no checksum of its file."""
    opened, run_id = open_store(store), tracked.run_ids["eager"]
    path = artifact(opened, find_run(opened, run_id), "steps.parquet")
    whole = pq.read_table(path).replace_schema_metadata()
    opened.client.delete_tag(run_id, SUM_OF + path.name)
    texts = pa.array(["a"] * len(whole))
    for table in (
        whole.append_column("x", texts),
        whole.append_column("x", texts.dictionary_encode()),
        whole.append_column("x", pa.array([[1.0]] * len(whole))),
        whole.drop_columns("seed"),
        whole.set_column(whole.schema.get_field_index("step"), "step", texts),
    ):
        pq.write_table(table, path)
        with pytest.raises(InputError, match=r"steps\.parquet is damaged") as error:
            rerun(run_id, store=store)
        assert one_line(error)
    pq.write_table(whole, path)
    assert rerun(run_id, store=store).difference is None


@pytest.mark.slow
def test_a_combination_of_a_sweep_is_identical(script, store):
    study = load_study(str(script))
    options = study.options(store=store, seeds=2)
    axes = grid.parse(["lr=1e-4,2e-4", "optimizer.momentum=0.5"])
    swept = sweep.run(sweep.Plan.of(study, options, "compiled", axes, "epochs"))
    assert rerun(swept.table.run_id[1], store=store).difference is None


@pytest.mark.slow
def test_a_copy_of_the_script_that_is_far_too_long_is_not_read(tracked, store, monkeypatch):
    opened = open_store(store)
    run = find_run(opened, tracked.run_ids["eager"])
    os.truncate(artifact(opened, run, "again.py"), 300_000_000)
    opened.client.set_tag(run.run_id, CODE, "other")
    read, read_bytes = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or read_bytes(path))
    said = []
    rerun(run.run_id, store=store, say=said.append)
    assert any(line.endswith("files: again.py") for line in said)
    assert max(path.stat().st_size for path in read if path.exists()) < 1_000_000


@pytest.mark.slow
def test_other_versions_are_named(tracked, store):
    client = open_store(store).client
    client.set_tag(tracked.run_ids["eager"], "sgdstudy.torch", "1.0")
    said = []
    found = rerun(tracked.run_ids["eager"], store=store, say=said.append)
    assert found.changed
    assert any("sgdstudy.torch: 1.0 then" in line for line in said)


@pytest.mark.slow
def test_what_cannot_be_run_again_is_said_in_one_line(tracked, store, script):
    with pytest.raises(ss.InputError, match="no run 'nothing'") as error:
        rerun("nothing", store=store)
    assert one_line(error)
    with pytest.raises(ss.InputError, match="not an arm") as error:
        rerun(tracked.run_ids["answer"], store=store)
    assert one_line(error)
    script.write_text(SCRIPT.replace('"epochs": 12', '"epochs": 13'))
    with pytest.raises(ss.InputError, match="epochs: 12 then, 13 now") as error:
        rerun(tracked.run_ids["compiled"], store=store)
    assert one_line(error)
    script.write_text(SCRIPT.replace('"eager": ', '"slow": '))
    with pytest.raises(ss.InputError, match="no arm 'eager' now") as error:
        rerun(tracked.run_ids["eager"], store=store)
    assert one_line(error)
    script.unlink()
    with pytest.raises(ss.InputError, match="is gone") as error:
        rerun(tracked.run_ids["eager"], store=store)
    assert one_line(error)
    assert len(ss.load_runs("again", store=store, invocation="all")) == len(tracked.runs)


@pytest.mark.slow
def test_an_arm_that_moved_to_another_page_runs_again(store, tmp_path, monkeypatch):
    """The page of then lost an option and an arm; another page has both."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    page = '''"""What is it?"""
from dataclasses import dataclass

import sgdstudy as ss


@dataclass(frozen=True)
class Options(ss.Options):
    {option}: int = 3


def arms(o):
    sgd = ss.Arm("curve", lr=1e-5, batch_size=100, epochs=2)
    {arms}


def claims(o, runs):
    return []


def answer(o, runs, claims):
    return "it is"


STUDY = ss.study(__name__)
'''
    both = 'yield "stays", sgd\n    yield "moves", sgd.but(epochs=o.passes)'
    first, other = folder / "first.py", folder / "other.py"
    first.write_text(page.format(option="passes", arms=both))
    monkeypatch.chdir(tmp_path)
    run_ids = ss.run("first", store=store, passes=4).run_ids
    first.write_text(page.format(option="epochs", arms='yield "stays", sgd'))
    other.write_text(page.format(option="passes", arms='yield "moves", sgd.but(epochs=o.passes)'))
    for arm in ("stays", "moves"):
        assert str(rerun(run_ids[arm], store=store)) == f"first, {arm}: identical"
    other.write_text(page.format(option="passes", arms='yield "moves", sgd.but(epochs=5)'))
    with pytest.raises(InputError, match="first has no arm 'moves' now; it has stays"):
        rerun(run_ids["moves"], store=store)


# ---- whose scripts are run -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_script_of_another_project_is_named_and_not_run(script, store, tmp_path, monkeypatch):
    """The store is somebody's: it may name any file."""
    study = load_study(str(script))
    run_id = study.run(study.options(store=store, seeds=2)).run_ids["eager"]
    evil, marker = tmp_path / "evil.py", tmp_path / "executed"
    evil.write_text(f"open({str(marker)!r}, 'w')\n{SCRIPT}")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "experiments").mkdir(parents=True)
    (elsewhere / "experiments" / "other.py").write_text("STUDY = None")
    client = open_store(store).client
    for told in (script, evil, script.parent / ".." / "evil.py", elsewhere / "experiments" / ".."):
        client.set_tag(run_id, "sgdstudy.script", str(told))
        monkeypatch.chdir(elsewhere if told is script else tmp_path)
        with pytest.raises(InputError, match=r"give --script|is gone") as error:
            rerun(run_id, store=store)
        assert one_line(error)
        assert not marker.exists()
    monkeypatch.chdir(elsewhere)
    assert rerun(run_id, store=store, script=str(script)).difference is None
    client.set_tag(run_id, "sgdstudy.script", "/gone/again.py")
    monkeypatch.chdir(tmp_path)
    said = []
    assert rerun(run_id, store=store, say=said.append).difference is None
    assert said[0].startswith("the run is of /gone/again.py; ")


@pytest.mark.slow
def test_a_link_that_leads_to_itself_is_no_script(tracked, store, script):
    """As it was seen: a traceback of any in experiments/, and of one that a tag names."""
    for link, to in (("loop", "loop"), ("one", "two"), ("two", "one")):
        (script.parent / f"{link}.py").symlink_to(script.parent / f"{to}.py")
    run_id = tracked.run_ids["eager"]
    assert rerun(run_id, store=store).difference is None
    away = script.rename(script.with_name("moved.py"))  # the arm is looked for in every script
    script.write_text(SCRIPT.replace('"eager": ', '"slow": '))
    assert rerun(run_id, store=store).difference is None
    away.unlink()
    (script.parents[1] / "gone.py").symlink_to("gone.py")
    opened = open_store(store)
    opened.client.set_tag(run_id, "sgdstudy.script", str(script.parents[1] / "gone.py"))
    with pytest.raises(InputError, match="is gone") as error:
        rerun(run_id, store=store)
    assert one_line(error)
    opened.client.set_tag(run_id, "sgdstudy.script", str(script.parent / "one.py"))
    with pytest.raises(InputError, match="there is no script") as error:
        rerun(run_id, store=store)
    assert one_line(error)
