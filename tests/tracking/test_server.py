"""A team's server, all of it real: PostgreSQL, MLflow, names and passwords, exact hosts."""

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import psycopg
import pytest
import requests
from conftest import call, one_line
from servers import ADMIN, USERS_INI, MlflowServer, Postgres, postgres_missing

import sgdstudy as ss
from sgdstudy.tracking import provenance
from sgdstudy.tracking.entries import Closing, Opening
from sgdstudy.tracking.journal import Journal
from sgdstudy.tracking.store import Store, open_store
from sgdstudy.tracking.ui import server_command

pytestmark = pytest.mark.server
PAGE = Path(__file__).parents[2] / "docs" / "server.md"
PUBLIC = "mlflow.example.org"
PERSONAL = ("MLFLOW_TRACKING_URI", *ADMIN, "SGDSTUDY_PREFIX")
FIRST = tuple(ADMIN.values())
PASSWORDS = {"ada": "the-secret-of-ada", "ben": "the-secret-of-ben"}
# differ from one run to the next
MADE_ANEW = ["run_id", "invocation", "train_seconds", "seconds_per_step"]
SCRIPT = '''"""Does a study reach the server of the team?"""

import dataclasses
import sgdstudy as ss


@dataclasses.dataclass(frozen=True)
class Options(ss.Options):
    lr: float = 2e-4


def arms(o):
    same = {"optimizer": "notebook", "batch_size": 100, "epochs": 3}
    several = ss.Arm(ss.problems.curve(), lr=o.lr, seeds=range(3), **same)
    return {"several": several, "one": ss.Arm(ss.problems.curve(), lr=1e-4, seeds=[7], **same)}


def claims(o, runs):
    steps = runs["several"].n_steps
    return [ss.Claim("steps", "several", steps, [60] * 3, 0, "20 batches, three times")]


def answer(o, runs, claims):
    return "It does."


figures = {"loss.png": ss.figures.loss_by_epoch}
tables = {"steps.csv": lambda o, runs: runs["one"].steps}
STUDY = ss.Study(__file__, __doc__, Options, arms, claims, answer, figures, tables)
if __name__ == "__main__":
    STUDY.main()
'''


@pytest.fixture(scope="module")
def postgres():
    if reason := postgres_missing():
        # a test that CI leaves out is a test that nobody runs
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    with Postgres() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def team(postgres, tmp_path_factory):
    """The server of docs/server.md, with the users ada and ben."""
    server = MlflowServer(
        tmp_path_factory.mktemp("team"),
        backend=postgres.uri,
        auth=True,
        users=postgres.database("mlflow_users"),
        public=PUBLIC,
    )
    with server:
        for name, password in PASSWORDS.items():
            user = {"username": name, "password": password}
            post(server, "2.0/mlflow/users/create", user).raise_for_status()
        yield server


def post(server, path, body, user=FIRST, **headers):
    """Send a request to MLflow's own interface; header names are written with `_`."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    address = f"{server.uri}/api/{path}"
    return requests.post(address, json=body, auth=user, headers=headers, timeout=20)


def settings(server, user, prefix):
    """What a person sets, see docs/server.md, and their name on their own machine."""
    personal = zip(PERSONAL, (server.uri, user, PASSWORDS[user], prefix), strict=True)
    return dict(personal) | {"LOGNAME": user}


@pytest.fixture(scope="module")
def tracked(team, script, tmp_path_factory):
    """Ada's run of the study: (its result on the server, the folder of the same run's store)."""
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        for name in (*ADMIN, "MLFLOW_TRACKING_URI", "SGDSTUDY_PREFIX"):
            patch.delenv(name, raising=False)
        ss.run(str(script), store=str(folder / "mlruns"))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        for name, value in settings(team, "ada", "ada-").items():
            patch.setenv(name, value)
        result = ss.run(str(script))
        assert list((folder / "state").rglob("streams/*")) == []
    return result, str(folder / "mlruns")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiments") / "team.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


@pytest.fixture
def sit_down(team, monkeypatch, tmp_path):
    """A function: from now on it is this user who works here."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def become(user, prefix=None):
        for name, value in settings(team, user, prefix or f"{user}-").items():
            monkeypatch.setenv(name, value)

    return become


@pytest.fixture
def ada(tracked, sit_down):
    sit_down("ada")


# ---- what lies on the server ----------------------------------------------------------------


def runs_of(study):
    client = open_store().client
    experiment = client.get_experiment_by_name(study)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_runs_are_on_the_server_with_params_metrics_and_artifacts(tracked, ada, team):
    result, _ = tracked
    runs = runs_of("ada-team")
    assert {name: run.info.run_id for name, run in runs.items()} == result.run_ids
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    params = runs["several"].data.params
    assert params.items() >= {"lr": "0.0002", "seeds": "0-2", "batch_size": "100"}.items()
    loss = result.runs["one"].epochs.full_loss.iloc[-1]
    assert runs["one"].data.metrics["result/full_loss"] == pytest.approx(loss, rel=1e-9)
    files = {
        "several": {"steps.parquet", "epochs.parquet", "data.png"},
        "answer": {"claims.json", "answer.md", "loss.png", "steps.csv"},
    }
    for arm, names in files.items():
        place = runs[arm].info.artifact_uri.removeprefix("mlflow-artifacts:/")
        assert names <= {path.name for path in (team.folder / "artifacts" / place).iterdir()}
    experiment = open_store().client.get_experiment_by_name("ada-team")
    assert "It does." in experiment.tags["mlflow.note.content"]


def test_points_are_in_postgresql_as_in_a_local_store(tracked, ada, postgres, monkeypatch):
    result, folder = tracked
    count = "SELECT count(*) FROM metrics WHERE run_uuid = '{}'"
    for arm, run in runs_of("ada-team").items():
        points = histories(run)
        table = postgres.run("psql", "mlflow", "-At", "-c", count.format(result.run_ids[arm]))
        assert int(table) == sum(map(len, points.values()))
        with monkeypatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
            patch.delenv("SGDSTUDY_PREFIX")
            local = histories(runs_of("team")[arm])
        assert points.keys() == local.keys()
        for name in ("result/train_seconds", "result/seconds_per_step"):
            points.pop(name, None), local.pop(name, None)
        assert points == local


def histories(run):
    """Every metric's points: key -> {step: value}."""
    client = open_store().client
    points = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    return {key: {p.step: p.value for p in part} for key, part in points.items()}


@pytest.mark.parametrize("load", [ss.load_runs, ss.load_steps, ss.load_epochs, ss.load_claims])
def test_what_is_read_back_equals_what_a_local_store_gives(tracked, ada, load, monkeypatch):
    result, folder = tracked
    there = load("team")
    for name in ("MLFLOW_TRACKING_URI", "SGDSTUDY_PREFIX"):
        monkeypatch.delenv(name)
    here = load("team", store=folder)
    if "run_id" in there:
        ids = {arm: result.run_ids[arm] for arm in ("several", "one")}
        assert dict(zip(there.arm, there.run_id, strict=True)) == ids
    both = [frame.drop(columns=MADE_ANEW, errors="ignore") for frame in (there, here)]
    both = [frame.sort_values("arm", kind="stable", ignore_index=True) for frame in both]
    assert len(there) > 0
    pd.testing.assert_frame_equal(*both, check_exact=True, check_like=True)


# ---- several people -------------------------------------------------------------------------


def test_two_processes_track_at_once(team, script, tmp_path):
    own = settings(team, "ada", "both-") | {"XDG_STATE_HOME": str(tmp_path)}
    words = [sys.executable, str(script)]
    start = functools.partial(subprocess.Popen, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    processes = [start(words, env={**os.environ, **own}, text=True) for _ in range(2)]
    shown = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], shown
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        runs = ss.load_runs("team", invocation="all")
        assert runs.groupby("invocation").arm.agg(set).tolist() == [{"several", "one"}] * 2
        assert set(runs.status) == {"FINISHED"}
        assert len(ss.load_steps("team", invocation="all")) == 2 * (3 + 1) * 60
        assert ss.load_claims("team", invocation="all").holds.tolist() == [True, True]
    assert list(tmp_path.rglob("streams/*")) == []


def test_a_data_set_that_another_process_logs_at_the_same_time(team, postgres, sit_down):
    sit_down("ada", "data-")
    store = open_store()
    experiment = store.experiment("team")
    data = {"name": "new", "digest": "0a1b", "profile": {"d": 1}}
    insert = """INSERT INTO datasets (experiment_id, name, digest, dataset_uuid,
        dataset_source_type, dataset_source) VALUES (%s, 'new', '0a1b', 'other', 'code', '{}')"""
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with (
        ThreadPoolExecutor() as pool,
        psycopg.connect(postgres.uri.replace("+psycopg", "")) as other,
    ):
        other.execute(insert, [int(experiment)])
        begun = pool.submit(Journal.begin, store, Opening("team", "arm", {}, data=data), {})
        while not begun.done() and postgres.run("psql", "-At", "-c", waits).strip() == "0":
            time.sleep(0.05)
        other.commit()
        journal = begun.result(timeout=30)
    (found,) = store.client.get_run(journal.run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("new", "0a1b")
    assert journal.close(Closing("FINISHED"))


def test_a_prefix_keeps_two_peoples_experiments_apart(tracked, sit_down, script):
    sit_down("ben")
    with pytest.raises(ss.InputError, match="none has run yet"):
        ss.load_runs("team")
    result = ss.run(str(script), lr=1e-4)
    assert set(ss.load_runs("team").run_id) < set(result.run_ids.values())
    sit_down("ada")
    assert set(ss.load_runs("team").run_id) < set(tracked[0].run_ids.values())
    sit_down("ben", "ada-")  # everybody may read
    assert set(ss.load_runs("team").run_id) < set(tracked[0].run_ids.values())


def test_latest_is_the_latest_of_this_user(team, sit_down, script):
    sit_down("ada", "shared-")
    first = ss.run(str(script))
    experiment = open_store().client.get_experiment_by_name("shared-team").experiment_id
    what = {"resource_type": "experiment", "resource_id": experiment, "permission": "EDIT"}
    allow = functools.partial(post, team, "3.0/mlflow/users/permissions/grant")
    allow({"username": "ben", **what}).raise_for_status()
    sit_down("ben", "shared-")
    second = ss.run(str(script))
    for user, result in (("ada", first), ("ben", second)):
        sit_down(user, "shared-")
        assert set(ss.load_runs("team").run_id) < set(result.run_ids.values())
        assert len(ss.load_runs("team", invocation="all")) == 4


def test_anothers_experiment_takes_no_runs(tracked, sit_down, script, capsys):
    sit_down("ben", "ada-")
    assert call("run", script) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert len(ss.load_runs("team", invocation="all")) == 2


def test_anothers_lost_run_does_not_stop_a_command(sit_down, tmp_path):
    sit_down("ada", "lost-")
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    there = provenance.here()
    where = {"host": there.host, "boot_id": there.boot_id}
    where["pid"] = f"{gone.pid}@{there.pid.partition('@')[2]}"
    tags = {f"sgdstudy.{name}": value for name, value in where.items()}
    store = open_store()
    tags |= {"sgdstudy.key": "of another folder", "sgdstudy.study": "team", "mlflow.user": "ada"}
    run = store.client.create_run(store.experiment("team"), tags=tags, run_name="lost")
    sit_down("ben", "lost-")  # on the same machine
    assert call("sync") == 0
    assert store.client.get_run(run.info.run_id).info.status == "RUNNING"
    sit_down("ada", "lost-")
    assert call("sync") == 0
    assert store.client.get_run(run.info.run_id).info.status == "KILLED"


# ---- who may come in ------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["run", "ui", "report", "sync"])
@pytest.mark.parametrize("password", [None, "wrong-and-long-enough"], ids=["none", "wrong"])
def test_without_credentials_a_command_says_so_in_one_line(
    ada, script, capsys, monkeypatch, tmp_path, word, password
):
    monkeypatch.chdir(tmp_path)
    if password is None:
        for name in ADMIN:
            monkeypatch.delenv(name)
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    assert call(word, *[script] * (word == "run")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "MLFLOW_TRACKING_USERNAME" in error
    assert list(tmp_path.iterdir()) == []


def test_without_credentials_reading_says_so_in_one_line(ada, monkeypatch):
    for name in ADMIN:
        monkeypatch.delenv(name)
    with pytest.raises(ss.InputError, match="MLFLOW_TRACKING_USERNAME") as error:
        ss.load_runs("team")
    assert one_line(error)


def test_credentials_may_lie_in_mlflows_file(ada, tracked, monkeypatch, tmp_path):
    for name in ADMIN:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / ".mlflow" / "credentials"
    file.parent.mkdir()
    words = {"mlflow_tracking_username": "ada", "mlflow_tracking_password": PASSWORDS["ada"]}
    file.write_text("[mlflow]\n" + "".join(f"{k} = {v}\n" for k, v in words.items()))
    assert set(ss.load_runs("team").run_id) < set(tracked[0].run_ids.values())


def test_ui_prints_the_addresses_on_the_server(ada, team, capsys):
    assert call("ui") == 0
    found = dict(re.findall(r"^\s*(\S+)\s+(http\S+)$", capsys.readouterr().out, re.M))
    experiment = open_store().client.get_experiment_by_name("ada-team").experiment_id
    assert found["ada-team"].startswith(f"{team.uri}/#/experiments/{experiment}/runs?")


class Ui(MlflowServer):
    """The server that `sgdstudy ui` starts on a local store."""

    def command(self):
        store = Store(f"sqlite:///{self.folder}/mlflow.db", self.folder)
        return server_command(store, self.port)[2:]  # from `mlflow` on


@pytest.fixture(scope="module")
def own_ui(empty_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ui")
    shutil.copy(empty_store / "mlflow.db", folder)
    with Ui(folder) as server:
        yield server


@pytest.mark.parametrize("which", ["team", "own_ui"])
def test_foreign_hosts_and_origins_are_refused(which, request):
    server = request.getfixturevalue(which)
    search = functools.partial(post, server, "2.0/mlflow/experiments/search", {"max_results": 100})
    assert search().status_code == 200
    for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1:80"):
        assert search(Host=host).status_code == 403
    made = post(
        server, "2.0/mlflow/experiments/create", {"name": "forged"}, Origin="https://evil.example"
    )
    assert made.status_code == 403
    assert "forged" not in search().text


def test_requests_that_come_through_the_proxy_are_taken(team):
    search = functools.partial(post, team, "2.0/mlflow/experiments/search", {"max_results": 100})
    assert search(Host=PUBLIC, Origin=f"https://{PUBLIC}").status_code == 200
    assert search(Host=PUBLIC, Origin=f"http://{PUBLIC}").status_code == 403
    assert search(Host=PUBLIC, user=None).status_code == 401


# ---- the page -------------------------------------------------------------------------------


def test_the_page_gives_the_commands_that_are_tested(team):
    page = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = page.splitlines()
    typed = [shlex.split(line) for line in lines if line.startswith(("sudo -u", "mlflow server"))]
    for words in (*Postgres.MAKE, *Postgres.BACKUP, *Postgres.RESTORE):
        there = [word.replace("{folder}", "/var/backups/mlflow") for word in words]
        assert ["sudo", "-u", "postgres", *there] in typed
    places = {str(team.folder): "/srv/mlflow", str(team.port): "5000"}
    tested = "\n".join(team.command())
    for ours, theirs in places.items():
        tested = tested.replace(ours, theirs)
    assert tested.split("\n") in typed
    address = "postgresql+psycopg://mlflow:secret@127.0.0.1:5432"
    assert USERS_INI.format(users=f"{address}/mlflow_users") in page
    assert f"MLFLOW_BACKEND_STORE_URI={address}/mlflow" in lines
    file, people = (
        set(re.findall(rf"^{start}(MLFLOW_\w+|SGDSTUDY_\w+)=", page, re.M))
        for start in ("", "export ")
    )
    ours = ("MLFLOW_BACKEND", "MLFLOW_AUTH", "MLFLOW_FLASK", "MLFLOW_SERVER", "MLFLOW_DISABLE")
    assert file == {name for name in team.environment() if name.startswith(ours)}
    assert people == set(PERSONAL)


def test_the_pages_requests_are_understood(tracked, team):
    page = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    request = rf"curl --user (\w+) https://{PUBLIC}/api/(\S+) +--json '(.*)'"
    create, grant = re.findall(request, page)
    assert (create[0], grant[0]) == ("admin", "ada")
    eve = json.loads(create[2].replace("ada", "eve"))
    post(team, create[1], eve).raise_for_status()
    allow = json.loads(grant[2]) | {"username": "eve"}  # experiment 1 is ada's
    own = ("ada", PASSWORDS["ada"])
    post(team, grant[1], allow, user=own).raise_for_status()
    assert post(team, grant[1], allow, user=(eve["username"], eve["password"])).status_code == 403


def test_a_backup_brings_the_server_back_elsewhere(tracked, ada, team, postgres, tmp_path):
    steps = ss.load_steps("team")
    for words in postgres.BACKUP:
        postgres.run(*(word.format(folder=postgres.folder) for word in words))
    shutil.copytree(team.folder / "artifacts", tmp_path / "artifacts")
    with Postgres() as other, pytest.MonkeyPatch.context() as patch:
        for words in other.RESTORE:
            other.run(*(word.format(folder=postgres.folder) for word in words))
        users = other.database("mlflow_users")
        with MlflowServer(tmp_path, backend=other.uri, auth=True, users=users) as server:
            patch.setenv("MLFLOW_TRACKING_URI", server.uri)
            pd.testing.assert_frame_equal(ss.load_steps("team"), steps, check_exact=True)
            look = functools.partial(post, server, "2.0/mlflow/experiments/get-by-name", {})
            assert look(user=("ada", "wrong-and-long-enough")).status_code == 401
