"""Reaching a store: past proxies, through TLS, with the driver it needs; or one line in seconds."""

import datetime as dt
import ipaddress
import os
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from conftest import one_line
from misbehaving import Misbehaving

import sgdstudy as ss
from sgdstudy.tracking import server
from sgdstudy.tracking.retry import within
from sgdstudy.tracking.store import open_store

PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
TLS = ("MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE")
SECONDS = 30.0  # a refusal, on a machine that is slow; without a limit of ours it takes minutes


@pytest.fixture(autouse=True)
def clean(no_server, monkeypatch):
    for name in (*PROXIES, *TLS, "no_proxy", "NO_PROXY", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, "")  # so that what is set is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr(server, "_silent", set())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate of 127.0.0.1, and its key, in one file."""
    x509 = pytest.importorskip("cryptography.x509", reason="cryptography makes the certificate")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    place = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([place]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, *plain))
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
    assert len(proxy.seen) == 1


# ---- deadlines -----------------------------------------------------------------------------------


def test_a_call_ends_in_time_whatever_it_waits_for():
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
        within(0.2, lambda: time.sleep(2))
    assert time.monotonic() - began < 1.5
    assert within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 / 0)


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
    client = server.Client(object(), "http://host")
    assert client._transfer("log_artifacts", ("run", str(tmp_path))) == pytest.approx(30)
    assert client._transfer("log_batch", ("run",)) == 0
    client._sizes["run", "steps.parquet"] = 1_000_000
    assert client._transfer("download_artifacts", ("run", "steps.parquet")) == pytest.approx(10)
    assert client._transfer("download_artifacts", ("run", "else")) == pytest.approx(1000)


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
