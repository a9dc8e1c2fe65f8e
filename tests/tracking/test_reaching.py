"""Reaching a store: past proxies, through TLS, with the driver it needs; or one line in seconds."""

import gzip
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import contextmanager, suppress
from types import ModuleType, SimpleNamespace
from typing import Any

import certifi
import pytest
import requests
from conftest import call, one_line
from misbehaving import Misbehaving, _send, bomb, self_signed
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.store.entities import PagedList

import sgdstudy as ss
from sgdstudy.tracking import bounds, runs, server
from sgdstudy.tracking.recovery import recover
from sgdstudy.tracking.retry import within
from sgdstudy.tracking.runs import every_run
from sgdstudy.tracking.store import open_store, read_store

PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
TLS = ("MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE")
SIGNED = "MLFLOW_TRACKING_AWS_SIGV4"
SECONDS = 30.0  # a refusal, on a machine that is slow; without a limit of ours it takes minutes


@pytest.fixture(autouse=True)
def clean(no_server, monkeypatch):
    for name in (
        *PROXIES,
        *TLS,
        SIGNED,
        "MLFLOW_TRACKING_CLIENT_CERT_PATH",
        "no_proxy",
        "NO_PROXY",
        "CURL_CA_BUNDLE",
    ):
        monkeypatch.setenv(name, "")  # so that what is set is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr(server, "_silent", set())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate of 127.0.0.1, and its key, in one file."""
    path = self_signed(tmp_path_factory.mktemp("tls") / "server.pem")
    if path is None:
        pytest.skip("cryptography makes the certificate")
    return path


# ---- TLS and proxies ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", TLS)
def test_each_setting_of_tls_that_mlflow_honours_is_honoured(certificate, monkeypatch, name):
    """As it was seen: a probe by another client refused what MLflow would have taken."""
    monkeypatch.setenv(name, "true" if name.endswith("TLS") else str(certificate))
    with Misbehaving(certificate=certificate) as tls:
        assert open_store(tls.uri).client.search_experiments() == []


def test_a_certificate_that_nobody_vouches_for_is_one_line(certificate):
    says = "MLFLOW_TRACKING_SERVER_CERT_PATH"
    with Misbehaving(certificate=certificate) as tls, pytest.raises(ss.InputError) as error:
        open_store(tls.uri)
    assert says in str(error.value)
    assert one_line(error)


@pytest.mark.parametrize("given", ["", " "])
@pytest.mark.parametrize("name", [*TLS, "MLFLOW_TRACKING_CLIENT_CERT_PATH", SIGNED])
def test_an_empty_setting_counts_as_not_set(certificate, monkeypatch, name, given):
    """As it was seen: with an empty path no certificate was checked."""
    if name == TLS[2] and given:
        pytest.skip("requests looks for a file of that name")
    monkeypatch.setenv(name, given)
    with Misbehaving(certificate=certificate) as tls:
        with pytest.raises(ss.InputError, match="not known here") as error:
            open_store(tls.uri)
        monkeypatch.setenv(TLS[2] if name == TLS[1] else TLS[1], str(certificate))
        monkeypatch.setenv(name, given)
        assert open_store(tls.uri).client.search_experiments() == []
    assert one_line(error)


@pytest.mark.parametrize("given", ["yes", "2", "a\nb"])
@pytest.mark.parametrize("name", [TLS[0], SIGNED])
def test_a_setting_that_is_neither_true_nor_false_is_one_line(monkeypatch, name, given):
    monkeypatch.setenv(name, given)
    with Misbehaving() as plain, pytest.raises(ss.InputError) as error:
        open_store(plain.uri)
    assert str(error.value) == f"{name} is true or false, not {given!r}"
    assert one_line(error)


@pytest.mark.parametrize(
    ("of", "says"),
    [({"days": -1}, "it has expired"), ({"host": "127.0.0.9"}, "is made for another name")],
    ids=["expired", "another's"],
)
def test_what_is_wrong_with_a_certificate_that_is_known_is_said(tmp_path, monkeypatch, of, says):
    """As it was seen: "not known here; set MLFLOW_TRACKING_SERVER_CERT_PATH", which was set."""
    path = self_signed(tmp_path / "server.pem", **of)
    if path is None:
        pytest.skip("cryptography makes the certificate")
    monkeypatch.setenv(TLS[1], str(path))
    with Misbehaving(certificate=path) as tls, pytest.raises(ss.InputError, match=says) as error:
        open_store(tls.uri)
    assert one_line(error)


PAGE = '''"""Does it arrive?"""
import sgdstudy as ss


def arms(o):
    yield "arm", ss.Arm("curve", lr=1e-4, batch_size=1000, epochs=1)


def claims(o, runs):
    return []


def answer(o, runs, claims):
    return "It does."


STUDY = ss.study(__name__)
'''


@pytest.fixture(scope="module")
def safe(certificate, tmp_path_factory):
    """An MLflow server behind TLS, with a certificate of its own."""
    with Misbehaving(tmp_path_factory.mktemp("tls-server"), certificate) as tls:
        path = "/api/2.0/mlflow/experiments/search?max_results=1"
        requests.get(f"{tls.uri}{path}", verify=certificate, timeout=60)  # its database is made
        yield tls


@pytest.fixture
def page(tmp_path, monkeypatch, safe):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "tls.py").write_text(PAGE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", safe.uri)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("given", ["nope", "a\nb"])
def test_a_plugin_for_login_that_is_not_there_is_said_once(
    page, certificate, monkeypatch, caplog, recwarn, given
):
    server._say_of_login.cache_clear()
    monkeypatch.setenv(TLS[1], str(certificate))
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", given)
    for _ in range(2):
        assert call("recover") == 0
    said = [line.getMessage() for line in caplog.records if "TRACKING_AUTH" in line.getMessage()]
    assert said == [f"MLFLOW_TRACKING_AUTH names no plugin that is here, {given!r}; it is left out"]
    assert not [each for each in recwarn if "plugin" in str(each.message)]


@pytest.mark.slow
@pytest.mark.parametrize("name", TLS)
def test_every_command_works_with_each_setting_of_tls(page, certificate, monkeypatch, name, capsys):
    monkeypatch.setenv(name, "true" if name.endswith("TLS") else str(certificate))
    assert call("run", "tls") == 0
    said = capsys.readouterr()
    assert "Unverified" not in said.err
    (run,) = ss.load_runs("tls").to_dict("records")
    assert run["status"] == "FINISHED"
    assert len(ss.load_steps("tls")) == len(ss.load_epochs("tls")) * 2 == 2
    assert ss.load_claims("tls").empty
    for words in (
        ["ui"],
        ["export", "tls"],
        ["report", "--out", "report.html"],
        ["rerun", run["run_id"]],
        ["pack", "tls", "runs.zip"],
        ["recover"],
        ["prune", "--keep", "0", "--yes"],
    ):
        assert call(*words) == 0, (words, capsys.readouterr())
    assert list((page / "state" / "sgdstudy" / "streams").glob("*")) == []


@pytest.mark.slow
def test_without_them_every_command_is_one_line_that_names_them(page, capsys):
    for words in (
        ["run", "tls"],
        ["study"],
        ["ui"],
        ["export", "tls"],
        ["report"],
        ["rerun", "0" * 32],
        ["pack", "tls", "runs.zip"],
        ["sweep", "tls", "--grid", "lr=1e-4"],
        ["recover"],
        ["prune", "--keep", "0", "--yes"],
    ):
        assert call(*words) == 2, words
        error = capsys.readouterr().err
        assert error.startswith("error: the tracking server https://127.0.0.1")
        assert error.count("\n") == 1
        assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in error
        assert "REQUESTS_CA_BUNDLE" in error
    for load in (ss.load_runs, ss.load_steps, ss.load_epochs, ss.load_claims):
        with pytest.raises(ss.InputError, match="MLFLOW_TRACKING_SERVER_CERT_PATH") as error:
            load("tls")
        assert one_line(error)


@pytest.mark.parametrize("name", TLS[1:])
@pytest.mark.parametrize("what", ["nothing there", "a folder", "no certificate", "another's"])
def test_a_setting_that_leads_nowhere_is_one_line(page, monkeypatch, name, what):
    path = page / "server.pem"
    if what == "a folder":
        path.mkdir()
    elif what == "no certificate":
        path.write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
    elif what == "another's":
        path.write_text(certifi.contents())
    monkeypatch.setenv(name, str(path))
    with pytest.raises(ss.InputError) as error:
        open_store()
    assert one_line(error)
    assert name in str(error.value) or str(path) in str(error.value)


def test_a_setting_that_contradicts_another_is_one_line(page, certificate, monkeypatch):
    monkeypatch.setenv(TLS[0], "true")
    monkeypatch.setenv(TLS[1], str(certificate))
    with pytest.raises(ss.InputError) as error:
        open_store()
    assert one_line(error)
    assert TLS[0] in str(error.value)


@pytest.fixture
def proxy(monkeypatch):
    """A proxy that answers 502 to all; every variable names it."""
    with Misbehaving() as proxy:
        proxy.kind = "503 html"
        for name in PROXIES:
            monkeypatch.setenv(name, proxy.uri)
        yield proxy


@pytest.mark.parametrize("spared", ["", "example.org", "*"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_never_goes_through_a_proxy(proxy, monkeypatch, host, spared):
    """As it was seen: 60 s, then "did not answer"."""
    if spared:
        monkeypatch.setenv("no_proxy", spared)
    with Misbehaving() as there:
        uri = there.uri.replace("127.0.0.1", host)
        assert open_store(uri).client.search_experiments() == []
        assert len(there.seen) == 2
    assert proxy.seen == []
    assert not spared or os.environ["no_proxy"].startswith(spared)


def test_another_machine_goes_through_the_proxy_and_its_no_is_one_line(proxy):
    with pytest.raises(ss.InputError, match="answers with error 503") as error:
        open_store("http://mlflow.example.org:5000")
    assert one_line(error)
    assert proxy.seen  # more than once: the first answer may be the one that fails
    assert all(path.startswith("http://mlflow.example.org:5000/") for path in proxy.seen)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("http://ada:secret@127.0.0.1:9", "does not let us through; see NO_PROXY"),
        ("127.0.0.1:9", "does not let us through; see NO_PROXY"),
        ("nonsense://x", "HTTP_PROXY or ALL_PROXY"),
        ("http://[::1", "HTTP_PROXY or ALL_PROXY"),
        ("http://127.0.0.1:99999", "HTTP_PROXY or ALL_PROXY"),
    ],
)
def test_a_proxy_that_is_none_is_named_and_no_password_of_it(monkeypatch, given, says):
    for name in PROXIES:
        monkeypatch.setenv(name, given)
    with pytest.raises(ss.InputError) as error:
        open_store("http://mlflow.example.org:5000")
    assert says in str(error.value)
    assert "secret" not in str(error.value)
    assert one_line(error)
    for host in ("127.0.0.2", "127.1", "localhost"):  # never through it: nobody listens there
        with pytest.raises(ss.InputError, match="connection refused"):
            open_store(f"http://{host}:9")


# ---- deadlines -----------------------------------------------------------------------------------


def test_a_call_ends_in_time_whatever_it_waits_for():
    began, over = time.monotonic(), threading.Event()
    with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
        within(0.2, lambda: over.wait(SECONDS))
    assert time.monotonic() - began < SECONDS
    over.set()
    assert within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 / 0)


@pytest.mark.parametrize("given", ["abc", "20s", "nan", "inf", "0", "-5", "1.5", "99999999999"])
def test_a_time_for_calls_that_is_none_is_one_line_for_servers_alone(store, monkeypatch, given):
    """As it was seen: a traceback of every command, of those on a local store too."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", given)
    for address in ("http://127.0.0.1:9", "postgresql+psycopg://127.0.0.1:9/a"):
        for opened in (read_store, open_store):
            with pytest.raises(ss.InputError, match="MLFLOW_HTTP_REQUEST_TIMEOUT is") as error:
                opened(address)
            assert one_line(error)
    assert str(recover(open_store(store))) == ""
    with pytest.raises(ss.InputError, match="unknown study"):
        ss.load_runs("none", store=store)


@pytest.mark.parametrize("given", ["", "7"])
def test_an_empty_time_for_calls_is_none(monkeypatch, given):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", given)
    with pytest.raises(ss.InputError, match="does not answer"):
        read_store("http://127.0.0.1:9")
    assert server.seconds() == MLFLOW_HTTP_REQUEST_TIMEOUT.get() == int(given or 20)


@pytest.mark.slow
def test_a_server_that_drips_is_left_after_the_time_for_the_whole(monkeypatch):
    """A time-out of the network's never comes: there is always another byte."""
    monkeypatch.setattr(server, "OPEN_SECONDS", 1.0)
    with Misbehaving() as drips:
        drips.kind = "drip"
        began = time.monotonic()
        with pytest.raises(ss.InputError, match="no whole answer within 1 s") as error:
            open_store(drips.uri)
        assert time.monotonic() - began < SECONDS
    assert one_line(error)


def test_files_get_time_for_their_size(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(3_000_000))
    given, client = [], server.Client(Anything(), "http://host")
    sent = bounds.MOST_ANSWER
    said = lambda uri, call, limit, most=sent: given.append((limit, most))  # noqa: E731
    monkeypatch.setattr(server, "ask", said)
    client._sizes["run", "steps.parquet"] = 1_000_000
    client._sizes["run", "empty"] = 0
    client._sizes["run", "a film"] = 2_000_000_000
    for name, words in (
        ("log_artifacts", ("run", str(tmp_path))),
        ("log_batch", ("run",)),
        ("download_artifacts", ("run", "steps.parquet", str(tmp_path))),
        ("download_artifacts", ("run", "empty", str(tmp_path))),
        ("download_artifacts", ("run", "of unknown size", str(tmp_path))),
        ("download_artifacts", ("run", "a film", str(tmp_path))),
    ):
        getattr(client, name)(*words)
    most = bounds.MOST_ANSWER
    assert given == [
        (20 + 30, most),
        (20, most),
        (20 + 10, most + 1_000_000),
        (20, most),
        (20 + 1000, most + 100_000_000),
        (20 + 3600, most + 2_000_000_000),
    ]
    client._sizes["run", "no disk has"] = 10**18
    with pytest.raises(ss.InputError, match="there is no room for that") as error:
        client.download_artifacts("run", "no disk has", str(tmp_path))
    assert one_line(error)


class Anything:
    """A client with every method."""

    def __getattr__(self, name):
        return lambda *given: None


# ---- how much is read --------------------------------------------------------------------------


@contextmanager
def says(head, piece, most=2000):
    """A server that answers every request with a head, then a piece again and again."""
    sent = []

    def answer(connection):
        with connection, suppress(OSError):
            connection.recv(65_536)
            connection.sendall(head)
            for _ in range(most):
                connection.sendall(piece)
                sent.append(len(piece))

    def take():
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", sent


def head(status, *lines):
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


JSON, GZIP = "Content-Type: application/json", "Content-Encoding: gzip"
PIECES = "Transfer-Encoding: chunked"
BLANKS = b" " * 1_000_000  # 2 GB in all, if nobody hangs up
TWICE = gzip.compress(bomb())
LONG = {
    "endless": (head("200 OK", JSON), BLANKS, "more than 5 MB"),
    "endless, of no kind": (head("200 OK"), BLANKS, "more than 5 MB"),
    "endless pieces": (head("200 OK", JSON, PIECES), b"ffff\r\n" + b" " * 65_535 + b"\r\n", "5 MB"),
    "endless line before a piece": (head("200 OK", JSON, PIECES), b"0" * 1_000_000, "not answer"),
    "endless lines after the last": (
        head("200 OK", JSON, PIECES) + b"0\r\n",
        b"x: " + b"y" * 60_000 + b"\r\n",
        "5 MB",
    ),
    "endless 404": (head("404 Not Found", JSON), BLANKS, "more than 5 MB"),
    "endless 500": (head("500 Internal Server Error", JSON), BLANKS, "error 500"),
    "endless 429": (head("429 Too Many Requests", "Retry-After: 1"), BLANKS, "error 429"),
    "endless redirect": (head("302 Found", "Location: /"), BLANKS, "more than 5 MB"),
    "endless head": (head("200 OK")[:-2], b"X: " + b"y" * 60_000 + b"\r\n", "does not answer"),
    "bomb": (head("200 OK", JSON, GZIP), bomb(), "more than 5 MB"),
    "bomb in a bomb": (head("200 OK", JSON, f"{GZIP}, gzip"), TWICE, "more than 5 MB"),
    "bomb, 404": (head("404 Not Found", JSON, GZIP), bomb(), "more than 5 MB"),
    "bomb, redirect": (head("302 Found", "Location: /", GZIP), bomb(), "more than 5 MB"),
}


@pytest.mark.parametrize("kind", LONG)
def test_of_an_answer_without_end_as_much_is_read_as_one_may_have(kind, monkeypatch):
    """As it was seen: a gigabyte of gzip took 21 s and 2.8 GB."""
    monkeypatch.setattr(bounds, "MOST_ANSWER", 5_000_000)
    first, piece, expected = LONG[kind]
    began = time.monotonic()
    with says(first, piece) as (uri, sent):
        tracemalloc.start()
        with pytest.raises(ss.InputError) as error:
            open_store(uri)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert time.monotonic() - began < SECONDS
    assert expected in str(error.value)
    assert one_line(error)
    assert peak < 60_000_000  # what was read, as bytes and as text, a few times over
    assert sum(sent) < 60_000_000  # and what waits in the sockets


def test_requests_of_others_are_not_bounded(monkeypatch):
    """MLflow's client in the same program, used by whoever calls us."""
    from mlflow import MlflowClient

    monkeypatch.setattr(bounds, "MOST_ANSWER", 10_000)
    with Misbehaving() as there:
        opened = open_store(there.uri)
        there._behave = lambda handler, body: _send(
            handler, 200, "application/json", b'{"experiments": []}' + BLANKS
        )
        assert MlflowClient(there.uri).search_experiments() == []
        with pytest.raises(bounds.TooLong, match="answers with more than"):
            opened.client.search_experiments()


class Pages:
    """A store whose runs come in pages; answers of more than so many runs are too long."""

    shown = "http://host"

    def __init__(self, n, most=1000, tokens=None):
        self.client, self.n, self.most, self.tokens = self, n, most, tokens
        self.asked = []

    def search_runs(self, ids, only, max_results, page_token, order_by):
        self.asked.append(max_results)
        if max_results > self.most:
            raise bounds.TooLong("it answers with more than 1 MB")
        first = int(page_token or 0)
        end = min(first + max_results, self.n)
        token = self.tokens(end) if self.tokens else (str(end) if end < self.n else None)
        return PagedList([a_run(i) for i in range(first, end)], token)


def a_run(number):
    info = SimpleNamespace(
        run_id=f"{number:032x}",
        run_name="arm",
        status="FINISHED",
        artifact_uri="",
        start_time=number,
        end_time=number,
    )
    return SimpleNamespace(info=info, data=SimpleNamespace(tags={}, params={}, metrics={}))


def test_pages_that_are_too_long_are_asked_for_in_smaller_ones():
    pages = Pages(2050, most=150)
    assert [run.start_ms for run in every_run(pages, "0")] == list(range(2050))
    assert pages.asked == [1000, 100] * 21
    with pytest.raises(bounds.TooLong):
        every_run(Pages(3, most=0), "0")


@pytest.mark.parametrize(
    ("n", "tokens"),
    [(10**9, None), (5, lambda end: "0"), (5, lambda end: str(end)), (0, lambda end: "0")],
)
def test_pages_without_an_end_are_one_line(monkeypatch, n, tokens):
    monkeypatch.setattr(runs, "MOST_PAGES", 7)
    with pytest.raises(ss.InputError, match="one page of runs after another") as error:
        every_run(Pages(n, tokens=tokens), "0")
    assert one_line(error)


@pytest.mark.parametrize(
    "place",
    [
        *(
            "/etc",
            "file:///etc",
            "file:///home/ada/.ssh/{id}",
            "{root}",
            "{root}/{other}/artifacts",
        ),
        *("{root}/{id}/../{id}/artifacts", "../{id}", "~/artifacts", "C:\\{id}\\artifacts", "{id}"),
    ],
)
def test_a_server_sends_no_call_to_a_folder_of_this_machine_but_a_runs_own(tmp_path, place):
    """Where server and client share a disk a run's folder is one, and ends as all of them do."""
    run_id, other = "a" * 32, "b" * 32
    own = tmp_path / run_id / "artifacts"
    own.mkdir(parents=True)
    (own / "answer.md").write_text("yes")
    uri = place.format(id=run_id, other=other, root=tmp_path)
    info = SimpleNamespace(run_id=run_id, artifact_uri=uri)
    fake = SimpleNamespace(
        get_run=lambda run_id: SimpleNamespace(info=info),
        list_artifacts=None,
        log_artifacts=None,
        download_artifacts=None,
    )
    client = server.Client(fake, "http://host")
    for ask in (
        lambda: client.list_artifacts(run_id),
        lambda: client.log_artifacts(run_id, str(tmp_path)),
        lambda: client.download_artifacts(run_id, "passwd", str(tmp_path)),
    ):
        with pytest.raises(ss.InputError, match=r"is not its own|does not answer") as error:
            ask()
        assert one_line(error)
    info.artifact_uri = own.as_uri()
    shared = server.Client(fake, "http://host")
    assert [item.path for item in shared.list_artifacts(run_id)] == ["answer.md"]


# ---- databases -----------------------------------------------------------------------------------


@pytest.fixture
def silent():
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = []

        def take():
            try:
                while True:
                    taken.append(listener.accept()[0])
            except OSError:
                return

        threading.Thread(target=take, daemon=True).start()
        yield listener.getsockname()[1]
        for connection in taken:
            connection.close()


DEAD = [
    ("postgresql+psycopg://ada:secret@127.0.0.1:9/db", "does not answer", "psycopg"),
    ("postgresql+psycopg://ada:secret@127.0.0.1:{silent}/db", "no whole answer", "psycopg"),
    ("postgresql+nothing://ada:secret@127.0.0.1:9/db", "not installed here", None),
    ("postgresql+pg8000://ada:secret@127.0.0.1:9/db", "not installed here (pg8000)", None),
    ("mysql://ada:secret@127.0.0.1:9/db", "not installed here (MySQLdb)", None),
    ("mysql+pymysql://ada:secret@127.0.0.1:9/db", "not installed here (pymysql)", None),
    ("mssql+pyodbc://ada:secret@127.0.0.1:9/db", "not installed here (pyodbc)", None),
    ("postgresql+psycopg://ada:secret@127.0.0.1:port/db", "not an address", None),
    ("databricks", "databricks", None),
    ("databricks://nobody", "databricks", None),
]


@pytest.mark.parametrize(("form", "says", "driver"), DEAD, ids=[form for form, _, _ in DEAD])
def test_a_database_without_driver_or_dead_is_one_line_in_seconds(
    silent, monkeypatch, form, says, driver
):
    """As it was seen: two minutes of retries and a traceback."""
    if driver:
        pytest.importorskip(driver)
    if "not installed" in says and "(" in says:
        name = says.partition("(")[2].rstrip(")")
        monkeypatch.setitem(sys.modules, name, None)  # whether it is or not
    monkeypatch.setattr(server, "OPEN_SECONDS", 3.0)
    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", "/nowhere")
    began = time.monotonic()
    with pytest.raises(ss.InputError) as error:
        open_store(form.format(silent=silent))
    assert time.monotonic() - began < SECONDS
    assert one_line(error)
    assert says in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.slow
def test_the_whole_command_is_one_line_too(tmp_path):
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "sgdstudy", "report", "--store", "mysql+pymysql://127.0.0.1:9/db"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert time.monotonic() - began < 2 * SECONDS
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_artifacts_that_need_a_package_are_one_line(monkeypatch):
    """As `s3://` without boto3."""

    class Client:
        def get_run(self, run_id):
            return SimpleNamespace(
                info=SimpleNamespace(run_id=run_id, artifact_uri="s3://bucket/1/run/artifacts")
            )

        list_artifacts = None  # a run's own place is asked

    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ss.InputError, match="pip install boto3") as error:
        server.Client(Client(), "https://host").list_artifacts("run")
    assert one_line(error)


@pytest.mark.parametrize("own", [False, True])
def test_boto3_gives_up_when_we_do(monkeypatch, own):
    """Its threads kept a program from ending for three minutes, where S3 said nothing."""
    told = []
    session = SimpleNamespace(set_default_client_config=told.append)
    boto3: Any = ModuleType("boto3")
    boto3.DEFAULT_SESSION = object() if own else None
    boto3.setup_default_session = lambda botocore_session: told.append(botocore_session)
    sessions: Any = ModuleType("botocore.session")
    config: Any = ModuleType("botocore.config")
    package: Any = ModuleType("botocore")
    package.session = sessions
    sessions.get_session, config.Config = lambda: session, dict
    for module in (boto3, package, sessions, config):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    server._spare_waits()
    limits = {"connect_timeout": 7.0, "read_timeout": 7.0, "retries": {"total_max_attempts": 1}}
    assert told == ([] if own else [limits, session])


def test_what_mlflow_logs_of_an_answer_acts_on_no_terminal_and_adds_no_line(capsys):
    for _ in range(2):
        server.first("http://127.0.0.1:9", lambda: None)
    logging.getLogger("mlflow.exceptions").warning("error code not recognized: %s", "A\x1b[2J")
    assert capsys.readouterr().err == ""
    logging.getLogger("mlflow.utils.rest_utils").warning("no JSON: %s", "\x1b[2J\nsecond\u202e")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.endswith("no JSON: \\x1b[2J second\\u202e\n")
