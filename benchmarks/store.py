"""Our store, with a clock on its MLflow client."""

from __future__ import annotations

import time
from typing import Any

import work
from measure import Options

from sgdstudy.tracking.store import Store, open_store

SETTINGS = {"lr": work.LR, "batch_size": work.BATCH, "optimizer": "notebook"}


class Timed:
    """An MLflow client that adds up the seconds of its calls, by method."""

    def __init__(self, client: Any) -> None:
        self._client, self.seconds = client, dict[str, float]()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                took = time.perf_counter() - started
                self.seconds[name] = self.seconds.get(name, 0.0) + took

        return call

    def take(self) -> float:
        """Return the seconds since the last call, without those that copied files."""
        total = sum(s for name, s in self.seconds.items() if name != "log_artifact")
        self.seconds.clear()
        return total


def new_store(o: Options) -> tuple[Store, Timed]:
    """Return a fresh store whose client's calls are timed."""
    store = open_store(str(o.folder("store")))
    client = Timed(store.client)
    store.__dict__["client"] = client  # where the cached property keeps it
    return store, client
