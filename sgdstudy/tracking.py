"""The one place that talks to MLflow while something runs.

A run's rows go to an Arrow stream on disk as they come. Closing the run turns the stream into
Parquet artifacts and logs the few points that charts need, in one go.
"""

from __future__ import annotations

import functools
import getpass
import hashlib
import importlib.metadata
import json
import math
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sgdstudy import losses, orders, rules, views
from sgdstudy.config import METRICS, TrainConfig
from sgdstudy.history import History
from sgdstudy.points import INTERIM_POINTS, Extremes, median_over_live
from sgdstudy.predict import predict
from sgdstudy.problem import Problem
from sgdstudy.quantities import norm
from sgdstudy.record import Files, Rows, Stream
from sgdstudy.store import Store, local_path, remove_folder
from sgdstudy.trainer import train

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Metric

    from sgdstudy.study import Arm

INTERIM_SECONDS = 30.0
EPOCH_METRICS = ("running_loss", "full_loss", "distance")
PREFIX = {"steps": "batch", "epochs": "epoch"}
AXIS = {"steps": "step", "epochs": "epoch"}
PER_CALL = 1000  # MLflow's limit


@dataclass(frozen=True)
class Invocation:
    """One call of a study: what its runs have in common.

    Attributes:
        store: where it is tracked.
        study: the experiment's name, without prefix.
        id: sorts by time.
        command: what was typed.
    """

    store: Store
    study: str
    id: str
    command: str

    @classmethod
    def start(cls, store: Store, study: str) -> Invocation:
        """Begin an invocation now."""
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
        words = [Path(sys.argv[0]).name, *sys.argv[1:]]
        return cls(store, study, f"{stamp}-{uuid.uuid4().hex[:4]}", " ".join(words))

    @functools.cached_property
    def experiment_id(self) -> str:
        """Id of the MLflow experiment."""
        return self.store.experiment(self.study)

    @property
    def experiment(self) -> Experiment:
        """The MLflow experiment, as it is now."""
        return self.store.client.get_experiment(self.experiment_id)

    @contextmanager
    def run(self, name: str, note: str, tags: dict[str, str]) -> Iterator[OpenRun]:
        """Open a run; an exception marks it FAILED, Ctrl-C KILLED."""
        client = self.store.client
        all_tags = {
            "mlflow.user": _user(),
            "mlflow.source.name": Path(sys.argv[0]).name,
            "mlflow.note.content": note,
            "sgdstudy.study": self.study,
            "sgdstudy.invocation": self.id,
            "sgdstudy.command": self.command,
            "sgdstudy.version": importlib.metadata.version("sgdstudy"),
            **git_tags(),
            **tags,
        }
        made = client.create_run(self.experiment_id, run_name=name, tags=all_tags)
        run = OpenRun(made.info.run_id)
        try:
            yield run
        except BaseException as error:
            run.status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            raise
        finally:
            client.set_terminated(run.id, status=run.status)

    def train(self, name: str, arm: Arm, progress: bool | None) -> tuple[str, History]:
        """Predict one arm, then train it, as a tracked run; return the run's id and history."""
        problem, config = arm.problem, arm.config
        params = parameters(problem, config)
        tags = {
            "sgdstudy.config_hash": config_hash(problem, params),
            views.CHARTED: "yes" if arm.charted else "no",
        }
        with self.run(name, arm.about, tags) as run:
            _log_params(self.store, run.id, params)
            _log_data(self.store, run.id, problem)
            predicted = predict(problem, config)
            known = {key: value for key, value in predicted.items() if math.isfinite(value)}
            _log_points(self.store, run.id, [(f"predicted/{k}", 0, v) for k, v in known.items()])
            sink = RunSink(self.store, run.id, config.metrics or ())
            history = train(
                problem,
                config=config,
                progress=progress,
                description=name,
                sink=sink,
                trajectory=arm.trajectory,
            )
            history = replace(history, sink=sink.finish(history), predicted=predicted)
            reason = summary_of_reasons(history)
            self.store.client.set_tag(run.id, "stop_reason", reason)
            engine = ": ".join(filter(None, [history.engine, history.engine_note]))
            self.store.client.set_tag(run.id, "sgdstudy.engine", engine)
            if "interrupted" in reason:
                run.status = "KILLED"
        return run.id, history


@dataclass
class OpenRun:
    """A run that is going on, and the status it will end with."""

    id: str
    status: str = "FINISHED"


class RunSink:
    """Takes a run's rows: all of them to disk, the chosen ones to MLflow."""

    def __init__(self, store: Store, run_id: str, metrics: Sequence[str] = METRICS) -> None:
        self.store, self.run_id = store, run_id
        self.metrics = {"steps": tuple(metrics), "epochs": EPOCH_METRICS}
        self.stream = Stream(store.streams / run_id)
        self._series: dict[str, Extremes] = {}
        self._sent: dict[str, set[int]] = {}
        self._next = time.monotonic() + INTERIM_SECONDS
        self._interim = 0

    def write(self, kind: str, rows: Rows) -> None:
        """Take a block of `steps` or of `epochs`."""
        self.stream.write(kind, rows)
        keep = rows.keep
        axis = np.broadcast_to(rows.columns[AXIS[kind]], keep.shape)[:, 0]
        present = keep.any(1)
        for name in self.metrics[kind]:
            if name in rows.columns:
                median = median_over_live(rows.columns[name], keep)
                self._add(f"{PREFIX[kind]}/{name}", axis[present], median[present])
        if kind == "steps" and keep.shape[1] > 1:
            self._add("batch/live", axis[present], keep.sum(1)[present].astype(float))
        if time.monotonic() > self._next and self._interim < INTERIM_POINTS:
            self._send_latest()

    def batches(self, kind: str) -> Iterator[pa.RecordBatch]:
        """Give back what was written."""
        return self.stream.batches(kind)

    def finish(self, history: History) -> Files:
        """Log everything, remove the stream, and return where the rows lie now."""
        self.stream.close()
        client = self.store.client
        paths: dict[str, Path] = {}
        for kind in ("steps", "epochs"):
            path = self.stream.folder / f"{kind}.parquet"
            self.stream.to_parquet(kind, path)
            if path.exists():
                client.log_artifact(self.run_id, str(path))
                paths[kind] = path
        metrics = results(history)
        points = [(f"result/{name}", 0, value) for name, value in metrics.items()]
        for key, series in self._series.items():
            sent = self._sent.get(key, set())
            points += [(key, step, v) for step, v in series.points() if step not in sent]
        _log_points(self.store, self.run_id, points)
        uri = client.get_run(self.run_id).info.artifact_uri
        folder = local_path(uri)
        if folder is None:  # a server: keep our own files for this process to read
            return Files(paths)
        remove_folder(self.stream.folder)
        return Files({kind: folder / path.name for kind, path in paths.items()})

    def _add(self, key: str, steps: np.ndarray, values: np.ndarray) -> None:
        self._series.setdefault(key, Extremes()).add(steps, values)

    def _send_latest(self) -> None:
        """Show on a long run where it stands: the latest point of every key."""
        points = []
        for key, series in self._series.items():
            for step, value in series.points()[-1:]:
                points.append((key, step, value))
                self._sent.setdefault(key, set()).add(step)
        _log_points(self.store, self.run_id, points)
        self._interim += 1
        self._next = time.monotonic() + INTERIM_SECONDS * 1.1**self._interim


# ---- what is logged ------------------------------------------------------------------------


def parameters(problem: Problem, config: TrainConfig) -> dict[str, str]:
    """Return a run's params, as text."""
    rule, epsilon = config.stop or ("none", None)
    values = {
        "problem": problem.name,
        "loss": losses.name_of(problem.loss),
        "d": problem.d,
        "p": problem.p,
        "batch_size": config.batch_size or problem.d,
        "order": "full batch" if config.batch_size is None else orders.name_of(config.order),
        "optimizer": rules.name_of(config.optimizer),
        "lr": config.lr,
        "epochs": config.epochs,
        "stop": rule,
        "epsilon": epsilon,
        "seeds": _ranges(config.seeds),
        "dtype": config.dtype or str(problem.dtype).removeprefix("torch."),
        "device": config.device,
        **{f"optimizer.{name}": value for name, value in config.options.items()},
    }
    return {name: str(value) for name, value in values.items()}


def config_hash(problem: Problem, params: dict[str, str]) -> str:
    """Return a fingerprint of data and params: the same experiment has the same one."""
    text = json.dumps({"data": problem.digest, **params}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def results(history: History) -> dict[str, float]:
    """Return the `result/` figures: medians over all seeds, with `_p10` and `_p90`.

    Quantiles are values of a seed (inverse of the empirical law), so that a seed that never
    stopped counts as later than any that did; a figure that is not finite is left out.
    """
    ended = history.stop_reason != "diverged"
    full_loss, gradient = history.problem.full(history.w.astype(float))
    values: dict[str, np.ndarray] = {
        "stop_epoch": history.converged_epoch,
        "full_loss": np.where(ended, full_loss, np.inf),
        "full_grad_norm": np.where(ended, norm(gradient), np.inf),
    }
    if history.problem.w_true is not None:
        values["distance"] = history.distance
    if history.problem.p <= 16:
        values |= {f"w{i}": history.w[:, i].astype(float) for i in range(history.problem.p)}
    figures = {
        "steps": float(history.n_steps.sum()),
        "train_seconds": history.train_seconds,
        "converged": float((history.stop_reason == "converged").sum()),
        "diverged": float((history.stop_reason == "diverged").sum()),
    }
    quantiles = {"": 0.5, "_p10": 0.1, "_p90": 0.9} if len(history.w) > 1 else {"": 0.5}
    for name, value in values.items():
        for suffix, q in quantiles.items():
            figures[name + suffix] = float(np.quantile(value, q, method="inverted_cdf"))
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def summary_of_reasons(history: History) -> str:
    """Return the stop reason, with counts where the seeds ended differently."""
    reasons, counts = np.unique(history.stop_reason, return_counts=True)
    if len(reasons) == 1:
        return str(reasons[0])
    return ", ".join(f"{n} {reason}" for reason, n in zip(reasons, counts, strict=True))


@functools.cache
def git_tags() -> dict[str, str]:
    """Return the commit of the code that runs, and whether it was changed since."""

    def git(*words: str) -> str:
        here = Path(__file__).parent
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"mlflow.source.git.commit": commit, "sgdstudy.git_changed": str(bool(changed)).lower()}


def log_files(store: Store, run_id: str, files: dict[str, Callable[[Path], object]]) -> None:
    """Log artifacts: each is written by its function to the path it is given."""
    with tempfile.TemporaryDirectory() as folder:
        for name, write in files.items():
            path = Path(folder) / name
            write(path)
            store.client.log_artifact(run_id, str(path))


def _log_params(store: Store, run_id: str, params: dict[str, str]) -> None:
    from mlflow.entities import Param

    store.client.log_batch(run_id, params=[Param(k, v[:6000]) for k, v in params.items()])


def _log_points(store: Store, run_id: str, points: list[tuple[str, int, float]]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics: list[Metric] = [Metric(key, value, now, step) for key, step, value in points]
    for start in range(0, len(metrics), PER_CALL):
        store.client.log_batch(run_id, metrics=metrics[start : start + PER_CALL])


def _log_data(store: Store, run_id: str, problem: Problem) -> None:
    """Log the data set with its digest, and its picture."""
    from mlflow.entities import Dataset as DatasetEntity
    from mlflow.entities import DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    profile = {"d": problem.d, "p": problem.p, "x": list(problem.x.shape)}
    data = DatasetEntity(
        name=problem.name,
        digest=problem.digest,
        source_type="code",
        source=json.dumps({"tags": {"package": "sgdstudy"}}),
        profile=json.dumps(profile),
    )
    tag = InputTag("mlflow.data.context", "training")
    for attempts_left in (2, 1, 0):
        try:
            store.client.log_inputs(run_id, [DatasetInput(data, [tag])])
            break
        except MlflowException as error:
            # two processes may log the same new data set at once; the second try finds it there
            if "IntegrityError" not in str(error) or not attempts_left:
                raise
    picture = data_picture(problem)
    if picture is not None:
        log_files(store, run_id, {"data.png": lambda path: path.write_bytes(picture)})


_PICTURES: dict[str, bytes] = {}


def data_picture(problem: Problem) -> bytes | None:
    """Return the plot of one-dimensional data as PNG, drawn once per data set."""
    from sgdstudy import figures

    if problem.x.dim() != 1 or problem.y.dim() != 1:
        return None
    if problem.digest not in _PICTURES:
        _PICTURES[problem.digest] = figures.png(figures.data(problem))
    return _PICTURES[problem.digest]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user entry
        return "unknown"


def _ranges(seeds: tuple[int, ...]) -> str:
    """Write whole numbers briefly.

    >>> _ranges((0, 1, 2, 3, 7))
    '0-3,7'
    """
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and seed == parts[-1][-1] + 1:
            parts[-1][1:] = [seed]
        else:
            parts.append([seed])
    return ",".join("-".join(map(str, part)) for part in parts)
