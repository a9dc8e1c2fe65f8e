"""A page of ours before MLflow's own, in one server: an app that MLflow runs by its name.

MLflow starts any ASGI app of the entry point group `mlflow.app` (`mlflow server --app-name NAME`).
This one answers `/` and what else is ours, gives MLflow's page at `/mlflow/`, and hands on the
rest. Addresses of MLflow's page keep their form `/#/experiments/...`: what follows `#` is known to
the browser alone, so our page sends it on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote

from sgdstudy.tracking.store import Store, read_store

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Page = Callable[[Store], str]
MLFLOW = "/mlflow"  # where MLflow's own page is
SERVED = "SGDSTUDY_SERVED"  # the store, as `sgdstudy ui` knows it; MLflow may be told otherwise


def around_mlflow(pages: Mapping[str, Page]) -> Callable[..., Awaitable[None]]:
    """Return an ASGI app: MLflow's, with pages of our own.

    Args:
        pages: path -> the page's HTML, of the store that the server serves; made for every visit.
    """
    from mlflow.server.constants import BACKEND_STORE_URI_ENV_VAR
    from mlflow.server.fastapi_app import app as mlflow_app

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path in pages and scope["method"] in ("GET", "HEAD"):
            served = os.environ.get(SERVED) or os.environ[BACKEND_STORE_URI_ENV_VAR]
            html = await asyncio.to_thread(lambda: pages[path](read_store(served)))
            await _answer(html.encode(), send)
            return
        if path.startswith(f"{MLFLOW}/"):
            inner = path.removeprefix(MLFLOW)
            scope = {**scope, "path": inner, "raw_path": quote(inner).encode()}
        await mlflow_app(scope, receive, send)

    return app


async def _answer(body: bytes, send: Send) -> None:
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
