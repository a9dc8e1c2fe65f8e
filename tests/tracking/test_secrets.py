"""A password in an address is in nothing that a run leaves, and in no line."""

import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import programs

from sgdstudy.errors import InputError, StoreError, recordable, without_secrets
from sgdstudy.studies.scripts import load_study
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.retry import reason_of
from sgdstudy.tracking.store import locate, open_store

SECRET = "s3cr3t-w0rd"
SCRIPT = '''"""Is a password kept?"""
import sgdstudy as ss


def arms(o):
    settings = {"lr": 1e-4, "batch_size": 1000, "epochs": 1, "seeds": [0]}
    return {"arm": ss.Arm(ss.problems.curve(), f"from {o.store}", **settings)}


def answer(o, runs, claims):
    return f"of {o.store}"


STUDY = ss.Study(__file__, __doc__, ss.Options, arms, lambda o, r: [], answer)
'''
ADDRESSES = [
    "https://ada:%s@host",
    "https://ada:%s@host:5000/path",
    "http://:%s@host",
    "https://%s@host",
    "https://ada:a@%s@host",
    "https://ada:x/%s@host",
    "https://ada:x y'%s@host",
    "postgresql+psycopg://ada:%s@host/db",
    "postgresql://ada:x/%s@host/db",
    "postgresql://ada:x?%s@host/db",
    "mysql://ada:%s@host/db",
    "postgresql://host/db?user=ada&password=%s",
    "postgresql://host/db?sslpassword=%s",
    "https://host/?access_token=%s",
    "ssh://git:%s@github.com/ada/x.git",
    "mssql+pyodbc:///?odbc_connect=SERVER%%3Dhost%%3BUID%%3Dada%%3BPWD%%3D%s%%3BEncrypt%%3Dno",
]
NO_ADDRESSES = ["ada:%s@host", "//ada:%s@host/x", "http:/ada:%s@host", "https:ada:%s@host:5000/x"]


@pytest.mark.parametrize("form", ADDRESSES)
def test_no_address_shows_its_password(form, no_server):
    address = form % SECRET
    assert SECRET not in without_secrets(address, whole=True)
    assert "host" in without_secrets(address, whole=True) or "github" in address
    assert SECRET not in without_secrets(f"--store={address}", whole=True)
    if " " not in form:
        for text in (f"no answer of {address} at all", f'{{"store": "{address}"}}', f"'{address}'"):
            assert SECRET not in recordable(text)
            assert SECRET not in str(InputError(text))
            assert SECRET not in reason_of(StoreError(text))
    shown = ""
    try:
        shown = locate(address).shown
    except InputError as error:
        shown = str(error)
    assert SECRET not in shown


@pytest.mark.parametrize("form", NO_ADDRESSES)
def test_what_is_nearly_an_address_is_no_folder_and_shows_nothing(form):
    with pytest.raises(InputError, match="neither an address nor a path") as error:
        locate(form % SECRET)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost:5000/#/experiments/3",
        "https://host/path/@user",
        "http://host:5000/a@b",
        "sqlite:////home/ada@work/mlflow.db",
        "file:///home/a@b",
        "mail ada@example.org",
        "a ratio 1:2 @ 3",
        "postgresql://host:5432/db?sslmode=require",
    ],
)
def test_what_is_not_a_secret_stays(text):
    assert without_secrets(text) == text


def everything(folder):
    """All bytes below a folder: databases, artifacts, journals, names of files."""
    return b"".join(
        path.name.encode() + (path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    )


@pytest.mark.slow
def test_a_study_leaves_no_password_anywhere(store, tmp_path, monkeypatch):
    """As it was seen: in the tags of options and of the command; here in whatever is recorded.

    The command line and the option name a server with a password; what is written is a local store.
    """
    address = f"https://ada:{SECRET}@host"
    (tmp_path / "kept.py").write_text(SCRIPT)
    monkeypatch.setattr(sys, "argv", ["sgdstudy", "run", "kept", "--store", address])
    real = locate
    monkeypatch.setattr(
        "sgdstudy.tracking.store.locate", lambda given=None: real(store if given else given)
    )
    study = load_study(str(tmp_path / "kept.py"))
    said = []
    result = study.run(study.options(store=address), say=said.append)
    from mlflow import MlflowClient

    tags = MlflowClient(f"sqlite:///{store}/mlflow.db").get_run(result.run_ids["arm"]).data.tags
    assert json.loads(tags["sgdstudy.options"])["store"] == "https://host"
    assert tags["sgdstudy.command"] == "sgdstudy run kept --store https://host"
    assert SECRET not in "\n".join(said)
    assert SECRET.encode() not in everything(tmp_path / "mlruns")


def test_whatever_tag_note_param_or_error_holds_an_address_loses_its_password(store):
    """Another form: a remote of git, an environment, a driver's text, at the one place of all."""
    address = f"https://ada:{SECRET}@host/x.git"
    opened = open_store(store)
    begun = Invocation.start(opened, "study", {"git.remote": address})
    given = {"params": {"from": address}}
    with (
        suppress(ValueError),
        begun.run("arm", f"at {address}", {"env": address}, **given) as journal,
    ):
        assert SECRET.encode() not in everything(journal.folder)
        raise ValueError(f"no answer of {address}")
    run = opened.client.get_run(journal.run_id)
    assert run.data.tags["git.remote"] == "https://host/x.git"
    assert run.data.params["from"] == "https://host/x.git"
    assert SECRET.encode() not in everything(Path(store))


def test_words_that_are_not_utf_8_are_recorded_as_they_can_be(store, monkeypatch):
    """As it was seen: kept for ever, as if the store had been away."""
    monkeypatch.setattr(sys, "argv", ["caf\udce9", "--name", "\udcff"])
    opened = open_store(store)
    with Invocation.start(opened, "study").run("arm", "n\udcff", {"a": "\udcff"}) as journal:
        pass
    run = opened.client.get_run(journal.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["sgdstudy.command"] == "'caf\\udce9' --name '\\udcff'"
    assert list(opened.streams.glob("*")) == []


@pytest.mark.slow
def test_no_line_of_a_command_shows_it(tmp_path):
    """Nobody listens there; the driver's or the server's error may quote the address."""
    kinds = ("http", "postgresql+psycopg")
    each = (["report"], ["prune", "--keep", "1"], ["recover"])
    places = [f"{kind}://ada:{SECRET}@127.0.0.1:9/x" for kind in kinds]
    commands = [[*words, "--store", place] for place in places for words in each]
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    for code, out, error in programs(*commands, cwd=tmp_path, env=environment):
        assert code == 2
        assert SECRET not in out + error
        assert error.count("\n") == 1, error
    shutil.rmtree(tmp_path / "sgdstudy", ignore_errors=True)
