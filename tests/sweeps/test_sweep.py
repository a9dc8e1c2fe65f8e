"""Sweeps: what lies in the store afterwards, whoever did the work and however often it was cut."""

import importlib.metadata
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import call, one_line
from mlflow import MlflowClient
from servers import MlflowServer

import sgdstudy as ss
from sgdstudy.errors import InputError
from sgdstudy.language import speaking
from sgdstudy.studies.scripts import load_study
from sgdstudy.sweeps import cluster, grid, results, sweep
from sgdstudy.tracking import chart_views, group
from sgdstudy.tracking import code as code_of_runs
from sgdstudy.tracking import journal as journals
from sgdstudy.tracking.entries import KEY
from sgdstudy.tracking.export import export
from sgdstudy.tracking.journal import Journal
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.store import open_store
from sgdstudy.tracking.writing import writing

SCRIPT = '''"""What does a tiny sweep leave behind?"""

from dataclasses import dataclass
from pathlib import Path

import torch

import sgdstudy as ss


@dataclass(frozen=True)
class Options(ss.Options):
    seeds: int = 3
    scale: float = 1.0
    fails: bool = False


def broken(generator, d):
    try:
        Path(__file__).with_name("broken").write_text("drawn")
    except OSError:
        raise RuntimeError("the order is broken\\nfor good") from None
    return torch.randperm(d, generator=generator)


def arms(o):
    x = torch.linspace(-1, 1, 53)
    y = o.scale * ss.problems.parabola([0.3, -1.7, 2.5], x)
    problem = ss.Problem(x, y, model=ss.problems.parabola, w_true=[0.3, -1.7, 2.5], name="small")
    same = {"lr": 0.1, "epochs": 12, "batch_size": 10, "seeds": o.seed_range()}
    same |= {"order": broken if o.fails else "shuffle", "stop": ("running", 0.02)}
    return {
        "plain": ss.Arm(problem, "the notebook's rule", optimizer="notebook", **same),
        "SGD": ss.Arm(problem, "torch's", optimizer="SGD", **same),
    }


STUDY = ss.Study(__file__, __doc__, Options, arms, lambda o, r: [], lambda o, r, c: "none")
'''
NAME = "tiny_sweep"
WORDS = ["lr=0.05,0.1,0.2", "batch_size=5,10,20,none"]


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("scripts") / "tiny.py"
    path.write_text(SCRIPT)
    return str(path)


def plan_of(script, store, words=WORDS, arm=None, record="epochs"):
    study = load_study(script)
    return sweep.Plan.of(study, study.options(store=store), arm, grid.parse(words), record)


@pytest.fixture(scope="module")
def whole(script, empty_store, tmp_path_factory):
    """An uninterrupted sweep in one process: (store, what came of it)."""
    folder = str(tmp_path_factory.mktemp("whole") / "mlruns")
    shutil.copytree(empty_store, folder)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "SGDSTUDY_PREFIX"):
            patch.delenv(name, raising=False)
        swept = sweep.run(plan_of(script, folder))
    return folder, swept


def content(store, name=NAME):
    """Everything that must not depend on how a sweep was run: runs and rows of all epochs."""
    runs = ss.load_runs(name, store=store, invocation="all")
    anew = ["run_id", "invocation", "train_seconds", "seconds_per_step"]
    runs = runs.drop(columns=anew).sort_values("arm")
    rows = ss.load_epochs(name, store=store, invocation="all")
    rows = rows.drop(columns=["run_id", "invocation"]).astype({"arm": str})
    rows = rows.sort_values(["arm", "seed", "epoch"])
    return runs.reset_index(drop=True), rows.reset_index(drop=True)


def assert_same_content(store, other, name=NAME):
    for ours, theirs in zip(content(store, name), content(other, name), strict=True):
        pd.testing.assert_frame_equal(ours, theirs[ours.columns], check_exact=True)
        assert set(ours) == set(theirs)


def all_runs(store, name=NAME):
    opened = open_store(store)
    found = opened.client.get_experiment_by_name(name)
    return opened.client.search_runs([found.experiment_id], max_results=1000) if found else []


def command(words):
    """Run the command line, in this process unless it says in how many; return its exit code."""
    own = [] if {"--jobs", "--dask"} & {*words} else ["--jobs", "1"]
    return call("sweep", *words, *own)


# ---- what is recorded -----------------------------------------------------------------------


def test_every_combination_is_a_finished_run_of_one_invocation(whole, no_server):
    folder, swept = whole
    runs = ss.load_runs(NAME, store=folder)
    assert len(runs) == 12
    assert set(runs.status) == {"FINISHED"}
    assert runs.invocation.nunique() == 1
    points = sorted((lr, b) for lr in (0.05, 0.1, 0.2) for b in (5, 10, 20, 53))  # none is all 53
    assert sorted(zip(runs.lr, runs.batch_size, strict=True)) == points
    assert len(all_runs(folder)) == 13  # and the answer
    assert swept.skipped == 0
    assert list(swept.table.status) == ["FINISHED"] * 12
    assert set(swept.table.run_id) == set(runs.run_id)


def test_a_combination_is_the_same_as_training_it_by_hand(whole, script, no_server):
    folder, swept = whole
    base = load_study(script).arms(load_study(script).options())["plain"]
    rows = ss.load_epochs(NAME, store=folder)
    for _, point in swept.table.iterrows():
        history = ss.train(
            base.problem,
            optimizer="notebook",
            lr=point.lr,
            batch_size=point.batch_size,
            epochs=12,
            stop=("running", 0.02),
            seeds=range(3),
        )
        ours = rows[rows.run_id == point.run_id]
        last = ours.sort_values(["seed", "epoch"]).groupby("seed").tail(1)
        assert np.array_equal(last[["w0", "w1", "w2"]].to_numpy(np.float32), history.w)
        assert list(last.epoch) == list(history.stop_epoch)
        middle = np.quantile(history.converged_epoch, 0.5, method="inverted_cdf")
        assert point.stop_epoch == middle or (np.isnan(point.stop_epoch) and np.isinf(middle))


def test_the_answer_has_table_summary_and_picture(whole, no_server):
    folder, swept = whole
    (answer,) = [r for r in all_runs(folder) if r.info.run_name == "answer"]
    assert answer.data.tags["sgdstudy.kind"] == "answer"
    files = Path(answer.info.artifact_uri.removeprefix("file://"))
    table = pd.read_csv(files / "sweep.csv")
    assert list(table.run_id) == list(swept.table.run_id)
    assert (files / "heat_map.png").read_bytes().startswith(b"\x89PNG")
    assert swept.answer in (files / "answer.md").read_text()
    best = swept.table.stop_epoch.min()
    assert f"Lowest stop_epoch: {best:g}" in swept.answer


def test_the_summary_speaks_french(whole, script, no_server):
    plan, table = plan_of(script, None, ["lr=0.05,0.1,0.2"]), whole[1].table
    with speaking("fr"):
        said = results.summary(plan, table)
    assert "12 combinaisons de plain" in said
    assert not re.search(r"\b(Lowest|each|seeds?|at|of|them)\b", said)


def charted(store):
    """The combinations of the prepared charts: run -> its colour."""
    found = [r for r in all_runs(store) if r.data.tags[chart_views.CHARTED] == "yes"]
    return {
        r.info.run_id: r.data.tags[chart_views.COLOR] for r in found if r.info.run_name != "answer"
    }


def first(table, n):
    known = table.dropna(subset="stop_epoch").sort_values("stop_epoch", kind="stable")
    return {*known.run_id[:n]}


def test_the_best_combinations_are_the_lines_of_the_prepared_charts(whole, no_server):
    folder, swept = whole
    shown = charted(folder)
    assert {*shown} == first(swept.table, 6)
    assert len({*shown.values()}) == 6
    experiment = open_store(folder).client.get_experiment_by_name(NAME)
    assert json.loads(experiment.tags[chart_views.TAG])["name"] == chart_views.VIEW


@pytest.mark.slow
def test_an_option_that_names_the_arm_is_one_line(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(SCRIPT.replace('"plain": ', 'f"plain {o.scale:g}": '))
    with pytest.raises(InputError, match="scale=2 cannot be run: unknown arm 'plain 1'"):
        _ = plan_of(str(path), None, ["scale=2.0"]).combinations


def test_grids_over_an_optimisers_option_and_over_the_scripts_own(script, store):
    words = ["optimizer.momentum=0,0.9", "scale=1.0,2.0"]
    swept = sweep.run(plan_of(script, store, words, arm="SGD"))
    runs = ss.load_runs(NAME, store=store).set_index("run_id").loc[swept.table.run_id]
    assert list(runs["optimizer.momentum"]) == [0, 0, 0.9, 0.9]
    scaled = {s: load_study(script).options(**{"scale": s}) for s in (1.0, 2.0)}
    arms = {s: load_study(script).arms(options) for s, options in scaled.items()}
    rows = ss.load_epochs(NAME, store=store)
    for _, point in swept.table.iterrows():
        arm = arms[point.scale]["SGD"]
        history = ss.train(
            arm.problem,
            optimizer="SGD",
            options={"momentum": point["optimizer.momentum"]},
            lr=0.1,
            batch_size=10,
            epochs=12,
            stop=("running", 0.02),
            seeds=range(3),
        )
        last = rows[rows.run_id == point.run_id].sort_values(["seed", "epoch"])
        last = last.groupby("seed").tail(1)
        assert np.array_equal(last[["w0", "w1", "w2"]].to_numpy(np.float32), history.w)


def test_steps_are_recorded_where_asked_for(script, store, whole):
    swept = sweep.run(plan_of(script, store, ["lr=0.1,0.2"], record="steps"))
    steps = ss.load_steps(NAME, store=store)
    for _, point in swept.table.iterrows():
        ours = steps[steps.run_id == point.run_id]
        assert len(ours) == point.steps
        assert set(ours.seed) == {0, 1, 2}
    files = {path.name for path in Path(whole[0]).glob("artifacts/*/*/artifacts/*.parquet")}
    assert files == {"epochs.parquet"}  # where not asked for


@pytest.mark.slow
def test_combinations_that_mean_the_same_run_once(script, store):
    """A full batch has no order."""
    words = ["batch_size=none,10", "order=shuffle,sequential"]
    swept = sweep.run(plan_of(script, store, words))
    assert len(ss.load_runs(NAME, store=store)) == 3
    assert swept.table.run_id[0] == swept.table.run_id[1]
    assert swept.table.run_id.nunique() == 3


# ---- who does the work ----------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_leave_the_same_as_one(whole, script, store):
    sweep.run(plan_of(script, store), jobs=2)
    assert_same_content(store, whole[0])


@pytest.mark.slow
def test_a_run_is_sent_in_few_calls(script, store, monkeypatch):
    """What one process writes is what many workers wait for."""
    calls = []
    for name in ("create_run", "log_batch", "log_inputs", "set_tag", "log_artifacts", "get_run"):
        method = getattr(MlflowClient, name)

        def counted(self, *args, name=name, method=method, **kwargs):
            calls.append(name)
            return method(self, *args, **kwargs)

        monkeypatch.setattr(MlflowClient, name, counted)
    sweep.run(plan_of(script, store, ["lr=0.1,0.2,0.3"]))
    one = ["create_run", "log_batch", "log_inputs"]
    assert calls[:9] == one * 3  # the rest is the answer
    assert calls.count("create_run") == 4


@pytest.mark.server
def test_with_a_server_the_workers_log_themselves(whole, script, tmp_path, monkeypatch):
    with MlflowServer(tmp_path / "server") as server:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        sweep.run(plan_of(script, None), jobs=2)
        runs = all_runs(None)
        theirs = content(None)
        pids = {run.info.run_name: run.data.tags["sgdstudy.pid"] for run in runs}
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
    me = pids.pop("answer")
    assert me.startswith(f"{os.getpid()}@")
    assert me not in pids.values()
    for ours, other in zip(content(whole[0]), theirs, strict=True):
        pd.testing.assert_frame_equal(ours, other[ours.columns], check_exact=True)


@pytest.fixture(scope="module")
def dask_cluster(tmp_path_factory):
    """A real scheduler and two real workers on loopback; yields the scheduler file."""
    pytest.importorskip("distributed", reason="pip install distributed to test Dask clusters")
    folder = tmp_path_factory.mktemp("dask")
    with DaskProcesses(folder, workers=2) as file:
        yield file


class DaskProcesses:
    """`dask scheduler` and `dask worker`, as docs/sweeps.md starts them."""

    def __init__(self, folder, workers):
        self.folder, self.workers = folder, workers
        self.file = folder / "scheduler.json"
        self.processes = []

    def __enter__(self):
        from distributed import Client

        self.start("scheduler", "--host", "127.0.0.1", "--port", "0")
        wait_for(self.file.exists)
        for _ in range(self.workers):
            self.start("worker", "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
        with Client(scheduler_file=str(self.file), set_as_default=False) as client:
            wait_for(lambda: len(client.nthreads()) == self.workers)
        return str(self.file)

    def start(self, *words):
        common = ["--scheduler-file", str(self.file), "--no-dashboard"]
        log = open(self.folder / f"{len(self.processes)}.log", "w")  # noqa: SIM115
        with log:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dask", *words, *common],
                    cwd=self.folder,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def __exit__(self, *error):
        for process in reversed(self.processes):
            process.terminate()
            process.wait(30)


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_dask_cluster_leaves_the_same_as_one_process(whole, script, store, dask_cluster):
    sweep.run(plan_of(script, store), dask=dask_cluster)
    assert_same_content(store, whole[0])


@pytest.mark.slow
@pytest.mark.parametrize("comes_back", [False, True])
def test_a_cluster_whose_workers_are_all_dead_is_said_and_waited_for_a_while(
    tmp_path, monkeypatch, caplog, comes_back
):
    """As it was seen: the workers killed in the middle of a sweep, then silence for ever."""
    distributed = pytest.importorskip("distributed", reason="pip install distributed")
    monkeypatch.setattr(cluster, "ASK_SECONDS", 0.2)
    monkeypatch.setattr(cluster, "WORKERS_SECONDS", 60.0 if comes_back else 2.0)
    processes = DaskProcesses(tmp_path, workers=1)
    words = ("--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")

    def tasks():
        """Two are handed out, then the worker dies."""
        yield (1.0,)
        yield (1.0,)
        processes.processes[1].kill()
        yield from ((0.0,) for _ in range(comes_back))

    with processes as file, distributed.Client(scheduler_file=file, set_as_default=False) as client:
        outcomes = cluster.spread(client, time.sleep, tasks())
        assert next(outcomes) is None
        if comes_back:
            waiter = threading.Thread(
                target=lambda: (
                    wait_for(lambda: "no Dask worker is left" in caplog.text),
                    processes.start("worker", *words),
                )
            )
            waiter.start()
            assert list(outcomes) == [None, None]
            waiter.join()
        else:
            with pytest.raises(ss.StoreError, match="no worker for 2 s") as error:
                list(outcomes)
            assert one_line(error)
    assert sum("no Dask worker is left" in message for message in caplog.messages) == 1


STOPPED = {"a worker": [1], "all workers": [1, 2], "the scheduler": [0]}


@pytest.mark.slow
@pytest.mark.parametrize("whose", STOPPED)
def test_a_process_of_the_cluster_that_is_stopped_is_named_and_waited_for_a_while(
    tmp_path, monkeypatch, caplog, whose
):
    """As it was seen: SIGSTOP, or a machine that sleeps, then silence for minutes or for ever."""
    distributed = pytest.importorskip("distributed", reason="pip install distributed")
    monkeypatch.setattr(cluster, "ASK_SECONDS", 0.5)
    monkeypatch.setattr(cluster, "SILENT_SECONDS", 3.0)
    monkeypatch.setattr(cluster, "WORKERS_SECONDS", 6.0)
    processes, goes_on = DaskProcesses(tmp_path, workers=2), whose == "a worker"

    def send(number):
        for place in STOPPED[whose]:
            processes.processes[place].send_signal(number)

    def tasks():
        """Four are handed out, then some sleep."""
        yield from [(0.5,)] * 4
        send(signal.SIGSTOP)
        yield (0.5,)

    def wake():
        wait_for(lambda: "no sign of" in caplog.text)
        send(signal.SIGCONT)

    with processes as file, distributed.Client(scheduler_file=file, set_as_default=False) as client:
        try:
            outcomes = cluster.spread(client, time.sleep, tasks())
            if goes_on:
                waker = threading.Thread(target=wake)
                waker.start()
                assert list(outcomes) == [None] * 5
                waker.join()
            else:
                with pytest.raises(ss.StoreError, match=r"no sign of tcp://.* --resume") as error:
                    list(outcomes)
                assert one_line(error)
        finally:
            send(signal.SIGCONT)
    said = [line for line in caplog.messages if "no sign of" in line]
    named = re.findall(r"tcp://[\d.:]+\d", " ".join(said))  # two may fall silent one look apart
    assert len(named) == len(set(named)) == len(STOPPED[whose])
    for line in said:
        assert re.search(r"since \d\d:\d\d:\d\d: .*Ctrl-C twice ends the sweep", line)


@pytest.mark.slow
def test_a_cluster_with_a_worker_that_is_stopped_is_refused_before_anything_is_written(
    script, tmp_path, capsys, no_server, monkeypatch
):
    pytest.importorskip("distributed", reason="pip install distributed to test Dask clusters")
    monkeypatch.setattr(cluster, "WORKERS_SECONDS", 3.0)
    with (processes := DaskProcesses(tmp_path, workers=1)) as file:
        processes.processes[1].send_signal(signal.SIGSTOP)
        try:
            line = refused(script, tmp_path, file, capsys)
        finally:
            processes.processes[1].send_signal(signal.SIGCONT)
    assert "has not answered for 3 s" in line


@pytest.mark.slow
def test_a_scheduler_that_is_killed_is_said_in_one_line(tmp_path, no_server):
    """As it was seen: a long traceback of Dask's before it."""
    pytest.importorskip("distributed", reason="pip install distributed to test Dask clusters")
    code = """
import sys, time
from sgdstudy.sweeps import cluster
with cluster.connect(sys.argv[1]) as client:
    outcomes = cluster.spread(client, time.sleep, ((0.5,) for _ in range(1000)))
    next(outcomes)
    print("begun", flush=True)
    try:
        list(outcomes)
    except cluster.StoreError as error:
        print(error)
"""
    with (processes := DaskProcesses(tmp_path, workers=1)) as file:
        words = [sys.executable, "-c", code, file]
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout.readline() == "begun\n"
        processes.processes[0].kill()
        said = process.communicate(timeout=120)[0]
    assert "the Dask cluster lost our work" in said
    assert said.count("\n") == 1


def refused(script, tmp_path, dask, capsys):
    """Return the one line that a sweep on a cluster ends with; the store was not touched."""
    folder = tmp_path / "untouched"
    assert command([script, "--grid", *WORDS, "--store", str(folder), "--dask", dask]) == 2
    assert not folder.exists()
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_an_unreachable_scheduler_is_one_line(script, tmp_path, capsys, no_server):
    pytest.importorskip("distributed", reason="pip install distributed to test Dask clusters")
    assert "no Dask scheduler answers" in refused(script, tmp_path, "tcp://127.0.0.1:9", capsys)


@pytest.mark.parametrize("given", ["tcp://", "http://127.0.0.1:80", "tcp://127.0.0.1:x", "nothing"])
def test_no_address_and_no_file_is_one_line(script, tmp_path, capsys, no_server, given):
    pytest.importorskip("distributed", reason="pip install distributed to test Dask clusters")
    assert "tcp://127.0.0.1:8786" in refused(script, tmp_path, given, capsys)


def test_another_machine_without_tls_is_refused_unasked(script, tmp_path, capsys, no_server):
    pytest.importorskip("distributed", reason="pip install distributed to test Dask clusters")
    asked = time.monotonic()
    assert "without TLS" in refused(script, tmp_path, "tcp://192.0.2.1:8786", capsys)
    assert time.monotonic() - asked < cluster.CONNECT_SECONDS  # an answer was not waited for
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": "tcp://192.0.2.1:8786"}))
    assert "without TLS" in refused(script, tmp_path, str(file), capsys)


def test_tls_without_certificates_is_one_line_at_once(script, tmp_path, capsys, no_server):
    pytest.importorskip("distributed", reason="pip install distributed to test Dask clusters")
    asked = time.monotonic()
    assert "CA_FILE" in refused(script, tmp_path, "tls://127.0.0.1:8786", capsys)
    dask = pytest.importorskip("dask")
    tls, none = "distributed.comm.tls", str(tmp_path / "none.pem")
    given = {f"{tls}.{name}": none for name in ("ca-file", "client.cert", "client.key")}
    with dask.config.set(given):
        said = refused(script, tmp_path, "tls://127.0.0.1:8786", capsys)
    assert "cannot be read" in said
    assert time.monotonic() - asked < cluster.CONNECT_SECONDS


@pytest.mark.slow
def test_a_scheduler_without_workers_is_one_line(script, tmp_path, capsys, no_server):
    pytest.importorskip("distributed", reason="pip install distributed to test Dask clusters")
    with DaskProcesses(tmp_path, workers=0) as file:
        assert "no workers" in refused(script, tmp_path, file, capsys)


@pytest.mark.slow
def test_workers_of_other_versions_are_one_line(
    script, tmp_path, capsys, no_server, dask_cluster, monkeypatch
):
    real = importlib.metadata.version
    other = {"torch": "0.1"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: other.get(name) or real(name))
    line = refused(script, tmp_path, dask_cluster, capsys)
    assert f"torch {real('torch')}, this machine 0.1" in line


def test_without_distributed_the_extra_is_named(script, tmp_path, capsys, no_server, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "sgdstudy[cluster]" in refused(script, tmp_path, "tcp://127.0.0.1:8786", capsys)


# ---- what goes wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["batch_size=5,54"], "batch_size=54"),
        (["order=shuffle,shufle"], "shufle"),
        (["lr=0.1,-1"], "lr=-1"),
        (["dtype=float32,float16"], "float16"),
        (["optimizer.momentum=0.9"], "momentum"),
        (["seed=1,2"], "seed"),
        (["seeds=1,2"], "seeds"),
        ([], "empty"),
        (["lr=0.1", "--arm", "none"], "none"),
        (["lr=0.1", "--jobs", "-1"], "jobs"),
        (["lr=0.1", "--seeds", "0"], "seeds"),
        (
            ["lr=linspace(0.1,1,2000)", "epsilon=linspace(0.1,1,1000)"],
            "2,000,000 points; add --yes",
        ),
    ],
)
def test_what_cannot_run_is_one_line_and_nothing_is_written(
    script, tmp_path, capsys, no_server, words, said
):
    folder = tmp_path / "untouched"
    grid_words = ["--grid", *words] if words else []
    assert command([script, *grid_words, "--store", str(folder)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not folder.exists()


@pytest.mark.slow
def test_a_combination_that_fails_is_recorded_and_the_others_go_on(script, store, capsys):
    sign = Path(script).with_name("broken")
    words = [script, "--grid", "fails=false,true", "lr=0.1,0.2", "--store", store, "--seeds", "3"]
    sign.mkdir()  # what the order writes cannot be written
    try:
        assert command([*words, "--jobs", "2"]) == 1
    finally:
        sign.rmdir()
    assert "2 failed" in capsys.readouterr().out
    runs = {run.info.run_name: run for run in all_runs(store)}
    assert len(runs) == 5
    for name, run in runs.items():
        failed = "fails=True" in name
        assert run.info.status == ("FAILED" if failed else "FINISHED")
        said = run.data.tags.get("sgdstudy.error", "")
        assert said.endswith("RuntimeError: the order is broken") == failed  # its first line
    # mended: the failed ones come anew, in the same invocation; the others are not touched
    assert command([*words, "--jobs", "1", "--resume"]) == 0
    assert "2 of 4 are finished already" in capsys.readouterr().out
    again = all_runs(store)
    assert len(again) == 5
    assert {run.info.status for run in again} == {"FINISHED"}
    assert len({run.data.tags["sgdstudy.invocation"] for run in again}) == 1
    for name in ("fails=False, lr=0.1", "fails=False, lr=0.2"):
        assert runs[name].info.run_id in [run.info.run_id for run in again]


# ---- resume ---------------------------------------------------------------------------------


def test_resume_of_a_finished_sweep_does_nothing(whole, script, tmp_path, no_server):
    folder = tmp_path / "mlruns"
    shutil.copytree(whole[0], folder)  # its artifacts stay where they are
    before = {run.info.run_id for run in all_runs(str(folder))}
    swept = sweep.run(plan_of(script, str(folder)), resume=True)
    assert swept.skipped == 12
    assert {run.info.run_id for run in all_runs(str(folder))} == before
    pd.testing.assert_frame_equal(swept.table, whole[1].table)


@pytest.mark.slow
def test_an_extended_grid_runs_only_what_is_new(script, store):
    before = sweep.run(plan_of(script, store, ["lr=0.1,0.2"]))
    second = sweep.run(plan_of(script, store, ["lr=0.05,0.1,0.2,0.3"]), resume=True)
    assert second.skipped == 2
    assert list(second.table.run_id[1:3]) == list(before.table.run_id)
    assert list(ss.load_runs(NAME, store=store).lr) == [0.1, 0.2, 0.05, 0.3]  # one invocation
    assert sum(run.info.run_name == "answer" for run in all_runs(store)) == 1
    assert {*charted(store)} == first(second.table, 6)
    lrs = ",".join(f"{lr:g}" for lr in (0.05, 0.1, 0.2, 0.3, 0.12, 0.14, 0.16, 0.18, 0.22))
    third = sweep.run(plan_of(script, store, [f"lr={lrs}"]), resume=True)
    assert {*charted(store)} == first(third.table, 6)  # who is not among them any more is not shown


READERS = {
    "a resume": lambda script, store: sweep.run(
        plan_of(script, store, ["lr=0.1,0.2"]), resume=True
    ),
    "runs": lambda script, store: ss.load_runs(NAME, store=store),
    "epochs": lambda script, store: ss.load_epochs(NAME, store=store),
    "export": lambda script, store: export(NAME, folder=f"{store}_export", store=store, force=True),
}


@pytest.mark.slow
def test_a_combination_that_is_there_twice_is_named_and_its_later_run_counts(script, store, caplog):
    """As it was seen: deleted in MLflow, trained again, and restored, without a word."""
    first = sweep.run(plan_of(script, store, ["lr=0.1,0.2"])).table.run_id[0]
    client = open_store(store).client
    client.delete_run(first)
    second = sweep.run(plan_of(script, store, ["lr=0.1,0.2"]), resume=True)
    assert second.skipped == 1
    assert caplog.messages == []
    client.restore_run(first)
    for read in READERS.values():
        caplog.clear()
        read(script, store)
        (said,) = caplog.messages
        assert f"where the later run counts: lr=0.1 ({first[:8]}); delete" in said
    again = READERS["a resume"](script, store)
    assert list(again.table.run_id) == list(second.table.run_id)
    assert first in set(ss.load_runs(NAME, store=store).run_id)  # nothing is lost
    client.delete_run(first)
    caplog.clear()
    for read in READERS.values():
        read(script, store)
    assert caplog.messages == []


def test_without_resume_everything_runs_anew(script, store):
    for _ in range(2):
        assert sweep.run(plan_of(script, store, ["lr=0.1,0.2"])).skipped == 0
    assert len(ss.load_runs(NAME, store=store)) == 2
    assert len(ss.load_runs(NAME, store=store, invocation="all")) == 4


@pytest.mark.parametrize("what", ["invocation", "resume"])
def test_two_resumes_at_once_on_one_invocation_the_second_says_so(script, store, capsys, what):
    """Another command holds the invocation, or is about to look for one."""
    assert command([script, "--grid", "lr=0.1", "--seeds", "3", "--store", store]) == 0
    (run,) = ss.load_runs(NAME, store=store).to_dict("records")
    before = {run.info.run_id for run in all_runs(store)}
    held = {"invocation": run["invocation"], "resume": f"{NAME}, plain, epochs"}[what]
    words = [script, "--grid", "lr=0.1,0.2", "--seeds", "3", "--store", store, "--resume"]
    with writing(open_store(store), NAME, held):
        assert command(words) == 2
        told = capsys.readouterr()
        assert "another command writes to" in told.err
        assert len(told.err.strip().splitlines()) == 1
        assert {run.info.run_id for run in all_runs(store)} == before
    assert command(words) == 0
    assert sorted(ss.load_runs(NAME, store=store).lr) == [0.1, 0.2]


def test_an_answer_that_missed_runs_is_given_anew_when_they_are_there(script, store, monkeypatch):
    real = Journal.deliver

    def lost(journal, patience=0.0):
        if "lr=0.2" in journal.opening.name:
            journal.let_go()
            return False
        return real(journal, patience)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "deliver", lost)
        early = sweep.run(plan_of(script, store, ["lr=0.1,0.2"]))
    assert "1 are not in the store" in early.answer
    assert "failed" not in early.answer
    assert sweep.run(plan_of(script, store, ["lr=0.1,0.2"]), resume=True).answer != early.answer
    late = sweep.run(plan_of(script, store, ["lr=0.1,0.2"]), resume=True)
    assert "not in the store" not in late.answer
    answers = [run for run in all_runs(store) if run.info.run_name == "answer"]
    assert [run.data.tags["mlflow.note.content"].partition("\n\n")[2] for run in answers] == [
        late.answer
    ]
    assert late.skipped == 2


@pytest.mark.parametrize("change", ["record", "seeds", "code"])
def test_what_was_recorded_otherwise_is_not_finished(script, store, monkeypatch, change):
    sweep.run(plan_of(script, store, ["lr=0.1"]))
    plan = plan_of(script, store, ["lr=0.1"], record="steps" if change == "record" else "epochs")
    if change == "seeds":
        study = load_study(script)
        options = study.options(store=store, seeds=4)
        plan = sweep.Plan.of(study, options, None, plan.grid, "epochs")
    if change == "code":
        monkeypatch.setattr(code_of_runs, "package_tags", lambda: {"sgdstudy.version": "next"})
    assert sweep.run(plan, resume=True).skipped == 0
    assert len(ss.load_runs(NAME, store=store, invocation="all")) == 2


@pytest.mark.slow
def test_dry_run_lists_and_writes_nothing(script, tmp_path, capsys, no_server):
    folder = tmp_path / "untouched"
    words = [script, "--grid", *WORDS, "--store", str(folder), "--dry-run"]
    assert command(words) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:12] == [
        f"lr={lr}, batch_size={b}" for lr in (0.05, 0.1, 0.2) for b in (5, 10, 20, None)
    ]
    assert out[12].startswith("12 combinations, at most ")
    assert len(out) == 13
    assert not folder.exists()
    assert command([*words, "--resume"]) == 0
    assert not folder.exists()


def test_dry_run_of_a_resume_lists_what_is_missing(whole, script, capsys, no_server):
    words = ["--grid", "lr=0.05,0.4", "--store", whole[0], "--dry-run", "--resume", "--seeds", "3"]
    before = {run.info.run_id for run in all_runs(whole[0])}
    assert command([script, *words]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "lr=0.4"  # 0.05 with batches of 10 is there
    assert {run.info.run_id for run in all_runs(whole[0])} == before


def test_a_file_says_the_same_and_the_command_line_wins(script, tmp_path, store, capsys):
    path = tmp_path / "sweep.yaml"
    path.write_text(f"study: {script}\narm: SGD\nseeds: 2\ngrid:\n  lr: [0.1, 0.2]\n  scale: 2.0\n")
    words = ["--config", str(path), "--store", store, "--jobs", "1"]
    assert command([*words, "--grid", "lr=0.3"]) == 0
    (run,) = ss.load_runs(NAME, store=store).to_dict("records")
    assert (run["lr"], run["seeds"], run["optimizer"]) == (0.3, "0-1", "SGD")
    assert run["arm"] == "lr=0.3, scale=2"


def started(script, store, jobs, *words):
    code = "from sgdstudy.cli.main import main; main()"
    given = [script, "--grid", *WORDS, "--store", store, "--seeds", "3", "--jobs", str(jobs)]
    return subprocess.Popen(
        [sys.executable, "-c", code, "sweep", *given, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that the signal meets its workers too
    )


def runs_begun(store):
    """How many runs are in the store or in a folder of their own, waiting for their group."""
    waiting = {path.parent.name for path in Path(store).glob("streams/*/opening.json")}
    with sqlite3.connect(f"file:{store}/mlflow.db?mode=ro", uri=True, timeout=10) as database:
        keys = database.execute("SELECT value FROM tags WHERE key = ?", [KEY]).fetchall()
    database.close()
    return len(waiting | {key for (key,) in keys})


def wait_for_runs(store, count, process):
    wait_for(lambda: runs_begun(store) >= count or process.poll() is not None)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_and_resumed_every_combination_is_there_once(whole, script, store, seed):
    chance = random.Random(seed)
    for more in chance.sample([1, 2, 3], k=1 + seed % 2):
        begun = runs_begun(store)
        process = started(script, store, 1 + seed % 2, "--resume")
        wait_for_runs(store, begun + more, process)
        time.sleep(chance.uniform(0, 0.03))  # a run takes about so long
        assert process.poll() is None, process.stderr.read()
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert 0 < runs_begun(store) < 13
    sweep.run(plan_of(script, store), resume=True)
    assert_same_content(store, whole[0])
    runs = all_runs(store)
    assert len(runs) == 13
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len({run.data.tags["sgdstudy.invocation"] for run in runs}) == 1
    # a kill while a folder is being removed may leave its rest, which goes a minute later
    assert not list((Path(store) / "streams").glob("*/opening.json"))


@pytest.mark.faults
@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_is_one_line_and_resume_goes_on(whole, script, store, jobs):
    process = started(script, store, jobs)
    wait_for_runs(store, 2, process)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 130
    assert said.strip().splitlines() == [
        f"interrupted: {NAME} was stopped; what ran is saved, --resume goes on"
    ]
    assert {run.info.status for run in all_runs(store)} == {"FINISHED"}
    assert 1 < len(all_runs(store)) < 13
    sweep.run(plan_of(script, store), resume=True)
    assert_same_content(store, whole[0])


def moved(store, empty):
    store.rename(store.with_name("moved"))


def deleted(store, empty):
    shutil.rmtree(store)


def replaced(store, empty):
    moved(store, empty)
    shutil.copytree(empty, store)


def its_database_replaced(store, empty):
    (store / "mlflow.db").rename(store / "mlflow.old")
    shutil.copy(empty / "mlflow.db", store)


@pytest.mark.parametrize("held", [True, False], ids=["some waiting", "all sent"])
@pytest.mark.parametrize("act", [moved, deleted, replaced, its_database_replaced])
def test_a_sweep_whose_store_is_gone_stops_and_makes_nothing_where_it_was(
    script, store, empty_store, monkeypatch, capsys, act, held
):
    """As it was seen: it made folders there, without a database, or in another store."""
    store, begun, real = Path(store), [], sweep._track
    monkeypatch.setattr(journals, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(group, "GROUP_SECONDS", 1000.0 if held else -1.0)

    def track(*given):
        if len(begun) == 2:
            act(store, empty_store)
        begun.append(given)
        real(*given)

    monkeypatch.setattr(sweep, "_track", track)
    assert command([script, "--grid", *WORDS, "--seeds", "3", "--store", str(store)]) == 1
    *_, said = capsys.readouterr().err.strip().splitlines()
    assert f"{store} was moved, deleted or replaced" in said
    assert len(begun) == 3
    if act in (moved, deleted):
        assert not store.exists()
    elif act is replaced:
        assert not list(store.glob("streams/*"))
    if act in (moved, replaced):
        recover(open_store(str(store.with_name("moved"))))
        runs = ss.load_runs(NAME, store=str(store.with_name("moved")))
        assert list(runs["status"]) == ["KILLED" if held else "FINISHED"] * 2
        assert len(ss.load_epochs(NAME, store=str(store.with_name("moved")))) > 0


# ---- the picture ----------------------------------------------------------------------------


def test_the_map_has_a_cell_per_combination(whole, script):
    plan, table = plan_of(script, whole[0]), whole[1].table
    figure = results.draw(plan, table, "stop_epoch")
    panel = figure.axes[0]
    cells = panel.images[0].get_array()
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("lr", "batch_size")
    expected = table.stop_epoch.to_numpy().reshape(3, 4).T  # lr lies across
    np.testing.assert_array_equal(np.ma.filled(cells.astype(float), np.nan), expected)
    assert [t.get_text() for t in panel.get_yticklabels()] == ["5", "10", "20", "none"]


def test_one_axis_is_a_line_with_the_spread_of_the_seeds(script):
    plan = plan_of(script, None, ["lr=0.2,0.05,0.1"])
    columns = ["lr", "stop_epoch", "stop_epoch_p10", "stop_epoch_p90", "diverged"]
    rows = [(0.2, 3, 2, 4, 0), (0.05, np.nan, 9, np.nan, 0), (0.1, 7, 6, 8, 0)]
    panel = results.draw(plan, pd.DataFrame(rows, columns=columns), "stop_epoch").axes[0]
    line = panel.lines[0].get_xydata()
    np.testing.assert_array_equal(line, [(0.05, np.nan), (0.1, 7), (0.2, 3)])
    labels = panel.get_legend_handles_labels()[1]
    assert labels[:3] == ["10 to 90 % of the seeds", "median", "most do not stop"]
    assert results.draw(plan_of(script, None, ["lr=0.1"]), pd.DataFrame(), "stop_epoch") is None


def test_the_limit_drawn_is_that_of_theory(script):
    """Full batch: 2 over the largest eigenvalue of (2/d) X'X, X the rows (x^2, x, 1)."""
    plan = plan_of(script, None, ["lr=0.1,0.2", "batch_size=10,none"])
    x = np.linspace(-1, 1, 53)
    features = np.stack([x**2, x, np.ones_like(x)], axis=1)
    largest = np.linalg.eigvalsh(2 / 53 * features.T @ features)[-1]
    limit = results.lr_limit(plan, {"lr": 0.1, "batch_size": None})
    assert limit == pytest.approx(2 / largest, rel=1e-5)
    adam = {"lr": 0.1, "batch_size": None, "optimizer": "Adam"}
    assert np.isnan(results.lr_limit(plan, adam))


def test_errors_are_one_line(script):
    with pytest.raises(InputError) as error:
        plan_of(script, None, ["lr=0.1,0.2", "batch_size=54"]).combinations  # noqa: B018
    assert one_line(error)
    assert "lr=0.1, batch_size=54 cannot be run" in str(error.value)
