"""Losses logged elsewhere: the files that loggers write, to compare with."""

import numpy as np
import pandas as pd
import pytest
from conftest import one_line, small_curve

import sgdstudy as ss

TENSORBOARD = "Wall time,Step,Value\n1700000000.5,0,3.5\n1700000002.5,10,0.25\n1700000001.0,5,1.5\n"
WANDB = (
    '"Step","brave-dog-1 - train/loss","brave-dog-1 - train/loss__MIN",'
    '"brave-dog-1 - train/loss__MAX","calm-cat-2 - train/loss"\n'
    '"0","3.5","3.5","3.5","4"\n"1","0.5","0.5","0.5",""\n"2","0.25","0.25","0.25","Infinity"\n'
)
LIGHTNING = "epoch,step,train_loss,val_loss\n0,49,,0.9\n0,9,2.0,\n0,19,1.0,\n1,99,,0.7\n"
PLAIN = "iteration, loss, lr\n0, 3, 0.1\n1, 2, 0.1\n2, 1e-3, 0.1\n"
SEEDS = "seed,epoch,run,loss\n0,1,a,2\n1,1,a,3\n0,2,a,1\n0,1,b,9\n"


def written(tmp_path, text, name="theirs.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_tensorboards_csv(tmp_path):
    rows = ss.load_losses(written(tmp_path, TENSORBOARD, "run_7.csv"))
    assert list(rows) == ["arm", "seed", "step", "loss", "elapsed_seconds"]
    assert rows["step"].tolist() == [0, 5, 10]
    assert rows["loss"].tolist() == [3.5, 1.5, 0.25]
    assert rows["elapsed_seconds"].tolist() == [0, 0.5, 2]
    assert set(rows["arm"]) == {"run_7"}


def test_wandbs_csv_has_a_line_a_run(tmp_path):
    rows = ss.load_losses(written(tmp_path, WANDB), over="epoch")
    assert list(rows) == ["arm", "seed", "epoch", "train/loss"]
    dog = rows[rows.arm == "brave-dog-1"]
    assert dog["train/loss"].tolist() == [3.5, 0.5, 0.25]
    cat = rows[rows.arm == "calm-cat-2"]
    assert cat[["epoch", "train/loss"]].to_numpy().tolist() == [[0, 4], [2, np.inf]]


def test_lightnings_csv_leaves_out_what_was_not_logged(tmp_path):
    path = written(tmp_path, LIGHTNING)
    assert ss.load_losses(path, "train_loss")["step"].tolist() == [9, 19]
    val = ss.load_losses(path, "val_loss", over="epoch")
    assert val[["epoch", "val_loss"]].to_numpy().tolist() == [[0, 0.9], [1, 0.7]]
    with pytest.raises(ss.InputError, match="train_loss, val_loss") as error:
        ss.load_losses(path)
    assert one_line(error)


def test_any_csv_with_a_count_and_a_loss(tmp_path):
    rows = ss.load_losses(written(tmp_path, PLAIN))
    assert rows[["step", "loss"]].to_numpy().tolist() == [[0, 3], [1, 2], [2, 1e-3]]
    assert ss.load_losses(written(tmp_path, PLAIN), "lr")["lr"].tolist() == [0.1] * 3


def test_runs_and_seeds_of_columns_and_the_time_to_a_target(tmp_path):
    rows = ss.load_losses(written(tmp_path, SEEDS), over="epoch")
    assert rows.to_numpy().tolist() == [
        ["a", 0, 1, 2],
        ["a", 0, 2, 1],
        ["a", 1, 1, 3],
        ["b", 0, 1, 9],
    ]
    only = rows[rows.arm == "a"]
    assert ss.time_to_target(only, 1.5, "loss").to_dict() == {0: 2.0, 1: np.inf}


def test_the_runs_of_a_file_are_not_one(tmp_path):
    """As it was seen: of two runs, the time of the faster one; here beside rows of ours as well."""
    rows = ss.load_losses(written(tmp_path, WANDB), over="epoch")
    told = {"target": 1.0, "column": "train/loss"}
    assert ss.time_to_target(rows, **told).to_dict() == {
        ("brave-dog-1", 0): 1.0,
        ("calm-cat-2", 0): np.inf,
    }
    ours = pd.DataFrame({"seed": [0, 0], "epoch": [1, 7], "train/loss": [5.0, 0.1]})
    for run in (ours.assign(arm="arm", run_id="r"), ours):
        both = ss.time_to_target(pd.concat([run, rows]), **told)
        assert sorted(both) == [1.0, 7.0, np.inf]
    run = ours.assign(arm="arm", run_id="r")
    for several in (pd.concat([run, run.assign(run_id="s")]), ours.assign(run_id=["r", "s"])):
        with pytest.raises(ss.InputError, match="several runs of an arm") as error:
            ss.time_to_target(several, **told)
        assert one_line(error)


def test_columns_without_a_name_that_hold_nothing_or_number_the_lines_are_left_out(tmp_path):
    rows = ss.load_losses(written(tmp_path, ",step,loss,\n0,1,3,\n1,2,0.5,\n"))
    assert rows[["step", "loss"]].to_numpy().tolist() == [[1, 3], [2, 0.5]]


def test_parts_of_epochs_stay_parts(tmp_path):
    text = "epoch,step,loss\n0.16,10,3\n0.32,20,2\n1.6,40,0.5\n"
    rows = ss.load_losses(written(tmp_path, text), over="epoch")
    assert rows["epoch"].tolist() == [0.16, 0.32, 1.6]
    assert ss.time_to_target(rows, 2.5, "loss").to_dict() == {0: 0.32}
    assert ss.load_losses(written(tmp_path, text))["step"].tolist() == [10, 20, 40]


def test_numbers_are_those_of_the_text(tmp_path):
    values = np.random.default_rng(0).uniform(size=500) * 10.0 ** np.arange(-250, 250)
    text = "step,loss\n" + "".join(f"{i},{float(v)!r}\n" for i, v in enumerate(values))
    rows = ss.load_losses(written(tmp_path, "\ufeff" + text))
    assert rows["loss"].tolist() == values.tolist()


def test_runs_without_a_name_and_clocks_of_their_own(tmp_path):
    text = "_timestamp,step,run,loss\n100,1,a,3\n110,2,a,2\n500,1,,3\n505,2,,2\n"
    rows = ss.load_losses(written(tmp_path, text))
    assert rows["arm"].tolist() == ["a", "a", "theirs", "theirs"]
    assert rows["elapsed_seconds"].tolist() == [0, 10, 0, 5]


def test_a_metric_that_is_called_as_the_clock_is_a_metric(tmp_path):
    text = "_timestamp,step,elapsed_seconds\n5,1,3\n6,2,4\n"
    assert ss.load_losses(written(tmp_path, text))["elapsed_seconds"].tolist() == [3, 4]


def test_they_are_drawn_beside_ours(tmp_path):
    theirs = ss.load_losses(written(tmp_path, SEEDS), over="epoch")
    run = ss.train(small_curve(), lr=0.05, batch_size=10, epochs=3, seeds=range(2))
    figure = ss.figures.by_epoch(
        {"ours": run}, "full_loss", beside=theirs.rename(columns={"loss": "full_loss"})
    )
    names = [line.get_label() for line in figure.axes[0].lines]
    assert {"ours", "a", "b"} <= set(names)
    with pytest.raises(ss.InputError, match="beside") as error:
        ss.figures.by_epoch({"ours": run}, "full_loss", beside=theirs)
    assert one_line(error)


@pytest.mark.parametrize(
    ("text", "given", "says"),
    [
        ("a,b\n1,2\n", {}, "no column step"),
        ("epoch,loss\n1,2\n", {}, "over='epoch'"),
        ("step,loss\n", {}, "no lines"),
        ("", {}, "not a CSV"),
        ("step,loss\n1,x\n", {}, "no column holds numbers"),
        ("step,loss\n1,2\n", {"column": "los"}, "no metric 'los'"),
        ("step,loss\n1,2\n", {"over": "time"}, "axis"),
        ("step,loss\n,2\n", {}, "no line"),
        ('step,loss\n1,2\n"3,4\n', {}, "not a CSV"),
        ("step,loss\n1,0,5\n2,0,4\n", {}, "Expected 2 fields in line 2, saw 3"),
        ("step,loss,\n1,0,5\n2,0,4\n", {}, "column 3 of theirs.csv has no name, and holds '5'"),
        ("step,loss,,acc\n1,0,5,1\n", {"column": "loss"}, "column 3 of theirs.csv has no name"),
        ("step,arm,loss\n1,3,4\n", {"column": "arm"}, "'arm' is no metric"),
        ('Step,"a - seed"\n1,3\n', {}, "'seed' is no metric"),
        ("step,loss,lr\n1,2,0.1\n2,0,4,0.1\n", {"column": "loss"}, "line 3, saw 4"),
        ("step,loss\n0.5,3\n1.5,2\n", {}, "step must be a whole number below 2.53, not 0.5"),
        ("step,loss\n1e300,3\n1,2\n", {}, "whole number below 2.53"),
        ("step,loss\n9007199254740993,3\n,2\n", {}, "whole number below 2.53"),
        ("epoch,loss\ninf,3\n1,2\n", {"over": "epoch"}, "epoch must be a number.*not inf"),
        ('step,loss\n"1,000",3\n5,1\n', {}, "step has '1,000', which is not a number"),
        ("step,loss\n1_000,3\n5,1\n", {}, "step has '1_000'"),
        ("seed,step,loss\na,1,3\n", {}, "seed has 'a'"),
        ("seed,step,loss\n,1,3\n0,2,3\n", {}, "a line without a seed"),
        ("seed,step,loss\n0.5,1,3\n0.7,2,3\n", {}, "seed must be a whole number"),
        ("step,loss,acc\n1,3,0.1\n2,tensor(2.),0.3\n", {}, r"loss has 'tensor\(2"),
        ("step,loss,loss\n1,3,4\n", {}, "two columns 'loss'"),
        ("Step,STEP,loss\n1,7,3\n", {}, "two columns 'STEP'"),
        ("step;loss\n1;3\n", {}, "separated by commas"),
        ("step\tloss\n1\t3\n", {}, "separated by commas"),
    ],
)
def test_mistakes_are_one_line(tmp_path, text, given, says):
    with pytest.raises(ss.InputError, match=says) as error:
        ss.load_losses(written(tmp_path, text), **given)
    assert one_line(error)


@pytest.mark.parametrize("path", ["gone.csv", "", 3, "a\0b"])
def test_files_that_are_not_there_are_one_line(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ss.InputError) as error:
        ss.load_losses(path)
    assert one_line(error)


def test_a_file_of_other_bytes_is_one_line(tmp_path):
    path = tmp_path / "events.out.tfevents"
    path.write_bytes(bytes(range(256)) * 10)
    with pytest.raises(ss.InputError, match="not a CSV") as error:
        ss.load_losses(path)
    assert one_line(error)
