"""`sgdstudy ui`: its server is its own, ends with it, and is reached past any proxy."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import requests
from servers import free_port

from sgdstudy.tracking.store import open_store

pytestmark = [pytest.mark.server, pytest.mark.slow]
MAIN = [sys.executable, "-c", "from sgdstudy.cli.main import main; main()", "ui"]
NOBODY = "http://127.0.0.1:9"  # a proxy that is not there


class Ui:
    """A running `sgdstudy ui`."""

    def __init__(self, store, port, log, **environment):
        self.log = log
        with open(log, "w") as out:
            self.process = subprocess.Popen(
                [*MAIN, "--store", store, "--port", str(port)],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )

    def wait(self):
        """Wait until it shows its addresses; return its port and the processes of its server."""
        deadline = time.monotonic() + 240
        while "Ctrl-C stops" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)
        family = psutil.Process(self.process.pid).children(recursive=True)
        return int(re.findall(r"http://127\.0\.0\.1:(\d+)", self.log.read_text())[0]), family


def direct():
    session = requests.Session()
    session.trust_env = False
    return session


def studies(port):
    answer = direct().get(
        f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=9"
    )
    return {found["name"] for found in answer.json()["experiments"]}


def test_two_at_once_show_their_own_and_leave_nothing_however_they_end(
    empty_store, tmp_path, no_server
):
    """Both find the port free; one is killed as no program can notice, the other asked to end."""
    port, uis = free_port(), []
    for name in ("one", "two"):
        shutil.copytree(empty_store, tmp_path / name)
        open_store(str(tmp_path / name)).experiment(name)
    proxies = {name: NOBODY for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY")}
    try:
        for name in ("one", "two"):
            uis.append(Ui(str(tmp_path / name), port, tmp_path / f"{name}.txt", **proxies))
        (first, family), (second, other) = (ui.wait() for ui in uis)
        assert {first, second} >= {port}
        assert first != second
        assert "one" in studies(first)
        assert "two" not in studies(first)
        assert "two" in studies(second)
        uis[0].process.kill()
        uis[1].process.send_signal(signal.SIGTERM)
        assert uis[1].process.wait(60) == 0
        assert psutil.wait_procs([*family, *other], 30)[1] == []
        for port in (first, second):
            with pytest.raises(requests.ConnectionError):
                direct().get(f"http://127.0.0.1:{port}/health", timeout=5)
    finally:
        for ui in uis:
            if ui.process.poll() is None:
                ui.process.send_signal(signal.SIGINT)
                ui.process.wait(60)
