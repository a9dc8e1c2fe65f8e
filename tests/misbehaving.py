"""A tracking server on loopback that misbehaves, from the first request or from a later one.

Until then it is a real MLflow: the requests are handed to MLflow's own Flask application.
"""

from __future__ import annotations

import datetime as dt
import functools
import ipaddress
import os
import socket
import ssl
import threading
import time
import warnings
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HTML = b"<html><body>" + b"<p>It works! A page of something else</p>" * 40 + b"</body></html>"
# status, content type, body
ANSWERS = {
    "500": (500, "application/json", b'{"error_code": "INTERNAL_ERROR", "message": "oh"}'),
    "503 html": (503, "text/html", HTML),
    "429": (429, "text/plain", b"slow down"),
    "404 html": (404, "text/html", HTML),
    "200 html": (200, "text/html", HTML),
    "200 garbage": (200, "application/json", b'{"experiments": [{"experiment_id": '),
    "200 list": (200, "application/json", b"[1, 2, 3]"),
    "200 other": (200, "application/json", b'{"experiments": "all", "run": {"info": 7}}'),
    "200 empty": (200, "text/plain", b""),
}
DENIED = {  # it does not know us any more: a password that was changed, a token that ran out
    "401": (401, "text/html", b"You are not authenticated. Please see the documentation"),
    "401 json": (401, "application/json", b'{"error_code": "UNAUTHENTICATED", "message": "who?"}'),
    "403": (403, "text/html", b"Permission denied"),
    "403 json": (403, "application/json", b'{"error_code": "PERMISSION_DENIED", "message": "no"}'),
}
SILENT = ("hang", "drip", "close")
ENDLESS = ("gzip bomb", "endless body")
KINDS = [*ANSWERS, *SILENT, *ENDLESS]
BOMB = 64_000_000  # bytes, of 64 thousand


class Misbehaving:
    """The server.

    Attributes:
        kind: how it misbehaves; "" as long as it does not.
        after: how many requests it answers well before that.
        seen: the paths it was asked for.
        wrong: whether a path is answered wrongly; None: all are.
    """

    def __init__(self, folder: Path | None = None, certificate: Path | None = None) -> None:
        self.kind, self.after, self.seen, self.stopped = "", 0, [], threading.Event()
        self.wrong: Any = None
        self._before: dict[str, str | None] = {}
        self._client = None if folder is None else self._mlflow(folder)
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET

            def log_message(self, *words: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *about: None  # type: ignore[method-assign]
        self.scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.scheme = "https"

    @property
    def uri(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Misbehaving:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()
        for name, value in self._before.items():  # else stores of later tests lie on this server
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})

    def _mlflow(self, folder: Path) -> Any:
        """Return a client of MLflow's own application, on a store in the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in {
            "FILE_STORE": f"sqlite:///{folder}/mlflow.db",
            "ARTIFACT_ROOT": "mlflow-artifacts:/",
            "SERVE_ARTIFACTS": "true",
            "ARTIFACT_DESTINATION": str(folder / "artifacts"),
        }.items():
            self._before[f"_MLFLOW_SERVER_{name}"] = os.environ.get(f"_MLFLOW_SERVER_{name}")
            os.environ[f"_MLFLOW_SERVER_{name}"] = value
        with warnings.catch_warnings():  # of the web frameworks that MLflow is built on
            warnings.simplefilter("ignore")
            import mlflow.server.auth
            from mlflow.server import app, handlers

        assert mlflow.server.auth  # imported by a request, later, it would warn
        # MLflow keeps one of each a process: those of a server before this one
        handlers._tracking_store = handlers._model_registry_store = handlers._artifact_repo = None
        return app.test_client()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request, well or not."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        with self._lock:
            self.seen.append(handler.path)
            concerned = self.wrong is None or self.wrong(handler.path)
            wrong = self.kind if concerned and len(self.seen) > self.after else ""
        try:
            self._misbehave(handler, wrong) if wrong else self._behave(handler, body)
        except OSError:  # the client has hung up
            handler.close_connection = True

    def _behave(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        if self._client is None:
            status, kind, said = 200, "application/json", b'{"experiments": []}'
        else:
            with self._lock:
                found = self._client.open(
                    handler.path, method=handler.command, data=body, headers=dict(handler.headers)
                )
                status, kind, said = found.status_code, found.content_type, found.data
                found.close()
        _send(handler, status, kind, said)

    def _misbehave(self, handler: BaseHTTPRequestHandler, kind: str) -> None:
        answers = ANSWERS | DENIED
        if kind in answers:
            _send(handler, *answers[kind])
            return
        if kind == "gzip bomb":
            _send(handler, 200, "application/json", bomb(), ("Content-Encoding", "gzip"))
            return
        handler.close_connection = True
        if kind == "endless body":
            handler.send_response(200)
            handler.send_header("Content-Type", "application/json")
            handler.end_headers()
            while not self.stopped.is_set():  # until the client hangs up
                handler.wfile.write(b" " * 65_536)
        elif kind == "drip":
            handler.send_response(200)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", "100000")
            handler.end_headers()
            while not self.stopped.wait(0.05):
                handler.wfile.write(b" ")
                handler.wfile.flush()
        elif kind == "hang":
            self.stopped.wait(600)
        handler.connection.shutdown(socket.SHUT_RDWR)


@functools.cache
def bomb() -> bytes:
    """Return blanks, packed so small that nobody would expect as many."""
    packer = zlib.compressobj(wbits=31)  # with the head of gzip
    return (
        b"".join(packer.compress(b" " * 1_000_000) for _ in range(BOMB // 1_000_000))
        + packer.flush()
    )


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    kind: str | None,
    said: bytes,
    *further: tuple[str, str],
) -> None:
    handler.send_response(status)
    for name, value in (("Content-Type", kind or "text/plain"), *further):
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(said)))
    handler.end_headers()
    handler.wfile.write(said)


@contextmanager
def deadline(seconds: float) -> Any:
    """Fail when the block takes longer."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds, f"{took:.1f} s"


def self_signed(path: Path, host: str = "127.0.0.1", days: int = 1) -> Path | None:
    """Write a self-signed certificate, and its key, into one file; return that.

    None: cryptography, which makes it, is not installed.

    Args:
        path: of the file.
        host: the number of the machine that it is made for.
        days: from now to its end.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        return None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.UTC)
    place = x509.IPAddress(ipaddress.ip_address(host))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=9))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([place]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, *plain))
    return path
