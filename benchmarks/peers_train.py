"""Peers at training, on the notebook's curve: JAX, Lightning, Cockpit. Each runs in a worker.

All return seconds per step (JAX: per replica and step).
"""

from __future__ import annotations

import functools
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np

LR, BATCH = 2e-4, 10


def _points() -> tuple[np.ndarray, np.ndarray]:
    x = np.arange(-10, 10, 0.01, dtype="f")
    return x, (0.3 * x * x - 1.7 * x + 2.5).astype("f")


JAX_FORMS = (
    "replicas first, gathered in the scan",  # `vmap` of one replica's loss, as it is written first
    "parameters first, gathered in the scan",
    "parameters first, gathered before the scan",
)


@functools.cache
def _jax_run(path: str, form: str) -> Any:
    """Return the compiled scan, its start and its samples; gathering is inside the `jit`."""
    import jax
    import jax.numpy as jnp

    x, y = map(jnp.asarray, _points())
    indices = np.load(path)
    indices = indices.reshape(len(indices), -1, BATCH).astype(np.int32)  # (R, S, B)

    def loss(w: Any, bx: Any, by: Any) -> Any:
        return jnp.mean((w[0] * bx * bx + w[1] * bx + w[2] - by) ** 2, 0)

    def summed(w: Any, bx: Any, by: Any) -> Any:
        each = loss(w, bx, by)
        return each.sum(), each

    def parameters_first(w: Any, batch: Any) -> Any:  # w (3, R), batch (B, R)
        (_, value), slope = jax.value_and_grad(summed, has_aux=True)(w, *batch)
        return w - LR * slope, (w, value, slope)

    def replicas_first(w: Any, rows: Any) -> Any:  # w (R, 3), rows (R, B)
        value, slope = jax.vmap(jax.value_and_grad(loss))(w, x[rows], y[rows])
        return w - LR * slope, (w, value, slope)

    def gathered_inside(w: Any, rows: Any) -> Any:
        return parameters_first(w, (x[rows], y[rows]))

    shape, axes = (3, len(indices)), (1, 2, 0)
    if form == JAX_FORMS[0]:
        shape, axes = (len(indices), 3), (1, 0, 2)
        run = jax.jit(lambda w, rows: jax.lax.scan(replicas_first, w, rows))
    elif form == JAX_FORMS[1]:
        run = jax.jit(lambda w, rows: jax.lax.scan(gathered_inside, w, rows))
    else:
        run = jax.jit(lambda w, rows: jax.lax.scan(parameters_first, w, (x[rows], y[rows])))
    samples = jnp.asarray(np.ascontiguousarray(indices.transpose(axes)))
    return jax, run, jnp.zeros(shape, jnp.float32), samples


def jax_steps(path: str, form: str) -> float:
    """Scan over all steps, recording w, loss and gradient."""
    jax, run, start, samples = _jax_run(path, form)
    jax.block_until_ready(run(start, samples))  # compiles, the first time
    started = time.perf_counter()
    jax.block_until_ready(run(start, samples))
    return (time.perf_counter() - started) / (samples.size // BATCH)


def lightning(n_epochs: int, n_steps: int = 200, uri: str | None = None) -> float:
    """Fit by a Lightning Trainer; with a URI, its MLFlowLogger takes 5 keys every step.

    An epoch is cut after n_steps.
    """
    import lightning as pl
    import torch
    from lightning.pytorch.loggers import MLFlowLogger

    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    x, y = map(torch.from_numpy, _points())
    data = torch.utils.data.TensorDataset(x, y)

    class Curve(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(3))
            self.times: list[float] = []

        def training_step(self, batch: Any, _: int) -> Any:
            bx, by = batch
            w = self.w
            loss = torch.nn.functional.mse_loss(w[0] * bx * bx + w[1] * bx + w[2], by)
            if uri is not None:
                values = {f"w{i}": w[i].detach() for i in range(3)}
                self.log_dict({"loss": loss.detach(), "norm": w.detach().norm(), **values})
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=LR)

        def on_train_start(self) -> None:
            self.times.append(time.perf_counter())

        def on_train_end(self) -> None:
            self.times.append(time.perf_counter())

    model = Curve()
    trainer = pl.Trainer(
        max_epochs=n_epochs,
        limit_train_batches=n_steps,
        accelerator="cpu",
        logger=MLFlowLogger("lightning", tracking_uri=uri) if uri else False,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True)
    trainer.fit(model, loader)
    return (model.times[1] - model.times[0]) / (n_epochs * n_steps)


def cockpit(preset: str, n_steps: int, hidden: int = 0) -> float:
    """Train under Cockpit, the curve as a linear layer on (x^2, x); preset `bare`: no quantities.

    With `hidden` tanh units, a network on x / 10 in its place.

    Cockpit keeps what it computes in memory; writing it is not counted.
    """
    import torch
    from backpack import extend
    from cockpit import Cockpit
    from cockpit.utils.configuration import configuration

    torch.set_num_threads(1)
    x, y = map(torch.from_numpy, _points())
    data = torch.utils.data.TensorDataset(torch.stack([x * x, x], 1), y[:, None])
    layers: list[Any] = [torch.nn.Linear(2, 1)]
    if hidden:
        data = torch.utils.data.TensorDataset(x[:, None] / 10, y[:, None])
        layers = [torch.nn.Linear(1, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 1)]
    model = extend(torch.nn.Sequential(*layers))
    criterion = extend(torch.nn.MSELoss())
    each = torch.nn.MSELoss(reduction="none")
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    quantities = [] if preset == "bare" else configuration(preset)
    instruments = Cockpit(model.parameters(), quantities=quantities)
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True)
    started, step = time.perf_counter(), 0
    while step < n_steps:
        for bx, by in loader:
            optimizer.zero_grad()
            out = model(bx)
            loss = criterion(out, by)
            info = {
                "batch_size": len(bx),
                "individual_losses": each(out, by).mean(1),
                "loss": loss,
                "optimizer": optimizer,
            }
            with instruments(step, info=info):
                loss.backward(create_graph=instruments.create_graph(step))
            optimizer.step()
            step += 1
            if step == n_steps:
                break
    return (time.perf_counter() - started) / n_steps


def notebook_mlflow(n_steps: int, uri: str) -> float:
    """Run the notebook's loop with `mlflow.log_metrics` of 5 keys in every step."""
    import mlflow
    import torch
    import work

    torch.set_num_threads(1)
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("notebook")

    def each_step(step: int, loss: float, w: torch.Tensor) -> None:
        values = {f"w{i}": w[i].item() for i in range(3)}
        norm = w.grad.norm().item() if w.grad is not None else 0.0
        mlflow.log_metrics({"loss": loss, "grad_norm": norm, **values}, step=step)

    with mlflow.start_run():
        return work.notebook(1, each_step, n_points=n_steps * BATCH)


def prepare_store(folder: str) -> str:
    """Make a store as ours is made; return its URI."""
    from sgdstudy.tracking.store import open_store

    return open_store(str(Path(folder) / "store")).uri
