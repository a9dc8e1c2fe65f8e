"""A real PostgreSQL and a real MLflow server on loopback, to be stopped and started by tests.

The commands are those of docs/server.md; test_server.py compares them with that page.
"""

from __future__ import annotations

import contextlib
import glob
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from sgdstudy.tracking.ui import QUIET

START_SECONDS = 120.0  # seven on an idle machine
STOP_SECONDS = 20.0
ADMIN = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "first-secret-of-admin"}
USERS_INI = """[mlflow]
default_permission = READ
database_uri = {users}
admin_username = admin
auth_cache_ttl_seconds = 60
"""


def free_port() -> int:
    """Return a port below those that the system gives to outgoing connections.

    So that a server that is started again finds its port free.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


@dataclass
class MlflowServer:
    """An MLflow server in a process group of its own; stopped and started, it keeps its address.

    Attributes:
        folder: its artifacts and log, and its database unless `backend` says another.
        backend: URI of the database.
        auth: whether it asks for name and password; `ADMIN` is the first user.
        users: URI of the database of users.
        public: the name that a reverse proxy would serve it under.
        port: on 127.0.0.1.
    """

    folder: Path
    backend: str | None = None
    auth: bool = False
    users: str | None = None
    public: str | None = None
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def command(self) -> list[str]:
        """Return what is typed to start it."""
        hosts = [f"127.0.0.1:{self.port}", f"localhost:{self.port}"]
        words = [
            *("mlflow", "server"),
            *("--artifacts-destination", f"{self.folder}/artifacts"),
            *("--host", "127.0.0.1", "--port", str(self.port)),
        ]
        if self.public:
            words += ["--allowed-hosts", ",".join([self.public, *hosts])]
            words += ["--cors-allowed-origins", f"https://{self.public}"]
        else:
            words += ["--allowed-hosts", ",".join(hosts)]
        words += ["--workers", "1"]
        return [*words, "--app-name", "basic-auth"] if self.auth else words

    def environment(self) -> dict[str, str]:
        """Return the variables it is started with."""
        given = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_TRACKING_")}
        given |= QUIET
        # not a word of the command: whoever is on the machine could read the password there
        given["MLFLOW_BACKEND_STORE_URI"] = self.backend or f"sqlite:///{self.folder}/mlflow.db"
        if self.auth:
            users = self.users or f"sqlite:///{self.folder}/users.db"
            (self.folder / "users.ini").write_text(USERS_INI.format(users=users))
            given |= {
                "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "users.ini"),
                "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN["MLFLOW_TRACKING_PASSWORD"],
                "MLFLOW_FLASK_SERVER_SECRET_KEY": "known to nobody but this test",
            }
        return given

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.command()],
                cwd=self.folder,
                env=self.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait(self.process)
        except RuntimeError as error:
            self.kill()
            raise RuntimeError(f"{error}:\n{self.log.read_text()[-3000:]}") from None

    def stop(self) -> None:
        """End it as an administrator would, with all that it started."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power failure would."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> MlflowServer:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"no MLflow server at {self.uri}")

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, how)
            process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what outlived its parent, or would not end
        process.wait()


def postgres_missing() -> str:
    """Return why no PostgreSQL can be started here; "" if one can."""
    if not glob.glob("/usr/lib/postgresql/*/bin/initdb"):
        return "no PostgreSQL under /usr/lib/postgresql (Debian: apt-get install postgresql)"
    return ""


@dataclass
class Postgres:
    """A PostgreSQL cluster of one's own, with the role and the databases of docs/server.md.

    PostgreSQL refuses to run as root: there it runs as the user that Debian's package makes.
    """

    port: int = field(default_factory=free_port)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="sgdstudy-pg-")))

    MAKE = (
        ("psql", "-c", "CREATE ROLE mlflow LOGIN PASSWORD 'secret'"),
        ("createdb", "--owner", "mlflow", "mlflow"),
        ("createdb", "--owner", "mlflow", "mlflow_users"),
    )
    BACKUP = (
        ("pg_dump", "-Fc", "-f", "{folder}/mlflow.dump", "mlflow"),
        ("pg_dump", "-Fc", "-f", "{folder}/mlflow_users.dump", "mlflow_users"),
    )
    RESTORE = (
        ("pg_restore", "-d", "mlflow", "{folder}/mlflow.dump"),
        ("pg_restore", "-d", "mlflow_users", "{folder}/mlflow_users.dump"),
    )

    @property
    def uri(self) -> str:
        return self.database("mlflow")

    def database(self, name: str) -> str:
        """Return the URI of a database, as MLflow takes it."""
        return f"postgresql+psycopg://mlflow:secret@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Start it; the first time, make cluster, role and databases."""
        made = (self.folder / "data").exists()
        if not made:
            self._make()
        # nothing but loopback and a socket of its own; the disk outlives any test
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-D", self.data, "-l", f"{self.data}.log", "-o", options)
        if not made:
            for words in self.MAKE:
                self.run(*words)

    def stop(self) -> None:
        """End it, whoever is connected; the data stays."""
        self._run("pg_ctl", "stop", "-w", "-D", self.data, "-m", "fast")

    def run(self, program: str, *words: str) -> str:
        """Run one of PostgreSQL's programs as its administrator; return what it printed."""
        return self._run(program, "-h", str(self.folder), "-p", str(self.port), *words)

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def __enter__(self) -> Postgres:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def _make(self) -> None:
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        how = ("-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256")
        self._run("initdb", "-D", self.data, *how, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")

    def _run(self, program: str, *words: str) -> str:
        folder = max(glob.glob("/usr/lib/postgresql/*/bin"), key=_version)
        become = ("runuser", "-u", "postgres", "--") if os.getuid() == 0 else ()
        env = {**os.environ, "PGUSER": "postgres", "LC_ALL": "C.UTF-8"}
        with tempfile.TemporaryFile("w+") as out:  # a pipe would be held open by the server
            done = subprocess.run(
                [*become, f"{folder}/{program}", *words],
                cwd="/",
                env=env,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            out.seek(0)
            text = out.read()
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(words)}:\n{text}")
        return text


def _version(folder: str) -> int:
    return int(Path(folder).parent.name)
