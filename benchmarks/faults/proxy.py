"""A proxy that loses requests and answers, by a seeded plan."""

from __future__ import annotations

import http.client
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# what befalls a request, and how often; the rest is passed on
PLAN = {"500": 0.05, "drop before": 0.05, "drop after": 0.07, "stall": 0.03}
STALL_SECONDS = 3.0


def run(port: int, target: int, calm: Path, counts: Path, seed: int) -> None:
    """Serve for ever: faults as in `PLAN`, none while the file `calm` exists; count them.

    Health checks always pass: a study is not begun on a server that does not answer.
    """
    rng, lock = random.Random(seed), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with lock:
                fault = _draw(rng)
            if calm.exists() or self.path == "/health":
                fault = ""
            if fault:
                with lock, open(counts, "a") as file:
                    file.write(fault + "\n")
            self._answer(fault, body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any

        def _answer(self, fault: str, body: bytes) -> None:
            self.close_connection = bool(fault)
            if fault == "500":
                self._reply(500, b"a fault of the proxy's own", "text/plain")
            elif fault == "stall":  # longer than the client waits, and never passed on
                time.sleep(STALL_SECONDS)
            elif fault != "drop before":
                status, answer, kind = self._forward(body)
                if fault != "drop after":  # the dangerous one: the server has done it
                    self._reply(status, answer, kind)

        def _forward(self, body: bytes) -> tuple[int, bytes, str]:
            server = http.client.HTTPConnection("127.0.0.1", target, timeout=30)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            server.request(self.command, self.path, body, headers)
            answer = server.getresponse()
            content = answer.read()
            server.close()
            return answer.status, content, answer.getheader("Content-Type", "text/plain")

        def _reply(self, status: int, content: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Say nothing of a client that gave up: its output is looked at for tracebacks."""

    Server(("127.0.0.1", port), Handler).serve_forever()


def _draw(rng: random.Random) -> str:
    drawn = rng.random()
    for fault, share in PLAN.items():
        drawn -= share
        if drawn < 0:
            return fault
    return ""
