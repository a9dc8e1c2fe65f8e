"""Peers at logging 12 quantities a step. Each runs in a worker, in a folder of its own.

All return seconds per step, from the first call to the end of the one that closes or finishes.
"""

from __future__ import annotations

import functools
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np

NAMES = (
    *("loss", "grad_norm", "full_loss", "full_grad_norm", "update_norm", "distance"),
    *("distance_start", "grad_cosine", "running_loss", "w0", "w1", "w2"),
)


def values(n_steps: int) -> np.ndarray:
    """Return what is logged, `(n_steps, 12)`."""
    return np.random.default_rng(0).lognormal(size=(n_steps, len(NAMES)))


def rows(n_steps: int) -> list[dict[str, float]]:
    """Return what is logged, a dict a step."""
    return [dict(zip(NAMES, row, strict=True)) for row in values(n_steps).tolist()]


def tensorboard(n_steps: int) -> float:
    """Log by a SummaryWriter, a scalar at a time."""
    from torch.utils.tensorboard import SummaryWriter

    steps = rows(n_steps)
    writer = SummaryWriter(tempfile.mkdtemp(dir="."))
    started = time.perf_counter()
    for step, row in enumerate(steps):
        for name, value in row.items():
            writer.add_scalar(name, value, step)
    writer.close()
    return (time.perf_counter() - started) / n_steps


def wandb(n_steps: int) -> float:
    """Log to W&B, offline."""
    import wandb

    steps = rows(n_steps)
    settings = wandb.Settings(console="off", x_disable_stats=True, silent=True)
    run = wandb.init(project="bench", mode="offline", dir=".", settings=settings)
    started = time.perf_counter()
    for step, row in enumerate(steps):
        run.log(row, step=step)
    run.finish()
    return (time.perf_counter() - started) / n_steps


def trackio(n_steps: int) -> float:
    """Log to Trackio, local, its final upload included."""
    import trackio

    steps = rows(n_steps)
    project = f"bench-{uuid.uuid4().hex[:8]}"
    trackio.init(project=project, embed=False, auto_log_cpu=False, auto_log_gpu=False)
    started = time.perf_counter()
    for step, row in enumerate(steps):
        trackio.log(row, step=step)
    trackio.finish()
    return (time.perf_counter() - started) / n_steps


def mlflow_log_metrics(n_steps: int, uri: str) -> float:
    """Log by `mlflow.log_metrics`, a step at a time."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("log_metrics")
    steps = rows(n_steps)
    with mlflow.start_run():
        started = time.perf_counter()
        for step, row in enumerate(steps):
            mlflow.log_metrics(row, step=step)
        return (time.perf_counter() - started) / n_steps


def mlflow_log_batch(n_steps: int, uri: str) -> float:
    """Log by `MlflowClient.log_batch`, as many points a call as it takes."""
    import mlflow
    from mlflow.entities import Metric

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("log_batch")
    steps, client = rows(n_steps), mlflow.MlflowClient()
    with mlflow.start_run() as run:
        started = time.perf_counter()
        now = int(time.time() * 1000)
        points = [Metric(k, v, now, step) for step, row in enumerate(steps) for k, v in row.items()]
        for first in range(0, len(points), 1000):
            client.log_batch(run.info.run_id, metrics=points[first : first + 1000])
        return (time.perf_counter() - started) / n_steps


def mlflow_parquet(n_steps: int, uri: str, how: str) -> float:
    """Keep the steps in a list; at the end one Parquet file by `how`, and `mlflow.log_artifact`."""
    import mlflow
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("to_parquet")
    steps, path = rows(n_steps), Path(tempfile.mkdtemp(dir=".")) / "steps.parquet"
    with mlflow.start_run():
        started, kept = time.perf_counter(), []
        for step, row in enumerate(steps):
            kept.append({"step": step, **row})
        if how == "pandas":
            pd.DataFrame(kept).to_parquet(path)
        else:
            pq.write_table(pa.Table.from_pylist(kept), path)
        mlflow.log_artifact(str(path))
        return (time.perf_counter() - started) / n_steps


@functools.cache
def _logged(uri: str, n_steps: int, keys: int) -> str:
    """Log a run to be read; return its id."""
    import mlflow
    from mlflow.entities import Metric

    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    run = client.create_run(client.create_experiment("read")).info.run_id
    for name, column in zip(NAMES[:keys], values(n_steps).T, strict=False):
        points = [Metric(name, v, 0, step) for step, v in enumerate(column.tolist())]
        for first in range(0, n_steps, 1000):
            client.log_batch(run, metrics=points[first : first + 1000])
    return run


def metric_history(uri: str, n_steps: int, keys: int) -> float:
    """Read keys by `get_metric_history`; return seconds per value."""
    import mlflow

    run, client = _logged(uri, n_steps, keys), mlflow.MlflowClient(tracking_uri=uri)
    started = time.perf_counter()
    for name in NAMES[:keys]:
        assert len(client.get_metric_history(run, name)) == n_steps
    return (time.perf_counter() - started) / (n_steps * keys)
