"""The one place that talks to MLflow while something runs.

A run's rows go to an Arrow stream in its journal as they come. Closing the run turns the stream
into Parquet artifacts, and sends them with the few points that charts need, in one go.
"""

from __future__ import annotations

import atexit
import errno
import functools
import getpass
import hashlib
import importlib.metadata
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from sgdstudy import losses, orders, processes, rules, views
from sgdstudy.config import TrainConfig
from sgdstudy.errors import StoreError
from sgdstudy.history import History
from sgdstudy.journal import Closing, Journal, Opening, Point, Stamped, stamp
from sgdstudy.points import AXIS, INTERIM_POINTS, Series
from sgdstudy.predict import predict
from sgdstudy.problem import Problem
from sgdstudy.quantities import norm
from sgdstudy.record import Files, Rows, Stream
from sgdstudy.store import Store, is_away, local_path, reason_of, remove_folder
from sgdstudy.trainer import train

if TYPE_CHECKING:
    from sgdstudy.study import Arm

INTERIM_SECONDS = 30.0
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@dataclass(frozen=True)
class Invocation:
    """One call of a study: what its runs have in common.

    Attributes:
        store: where it is tracked.
        study: the experiment's name, without prefix.
        id: sorts by time.
        command: what was typed.
        scratch: where a server's runs keep their files for this process to read.
        tags: of every run.
    """

    store: Store
    study: str
    id: str
    command: str
    scratch: Path | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def start(cls, store: Store, study: str, tags: Mapping[str, str] | None = None) -> Invocation:
        """Begin an invocation now; tags are for all of its runs."""
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
        words = [Path(sys.argv[0]).name, *sys.argv[1:]]
        scratch = None
        if store.root is None:
            scratch = Path(tempfile.mkdtemp(prefix="sgdstudy-"))
            atexit.register(remove_folder, scratch)
        label = f"{stamp}-{uuid.uuid4().hex[:4]}"
        return cls(store, study, label, " ".join(words), scratch, tags or {})

    def outside(self) -> Invocation:
        """Return the same for runs that belong to no invocation: `latest` stays what it was."""
        return replace(self, id="")

    def url(self) -> str:
        """Return the address of the charts; of the store's UI alone while the store is away."""
        try:
            experiment = self.store.client.get_experiment(self.store.experiment(self.study))
        except Exception as error:
            if not is_away(error):
                raise
            return self.store.server
        return views.url(self.store.server, experiment, self.id)

    @contextmanager
    def run(
        self,
        name: str,
        note: str,
        tags: dict[str, str],
        files: dict[str, Callable[[Path], object]] | None = None,
        **opening: Any,
    ) -> Iterator[Journal]:
        """Open a run; whatever ends the block, the run is closed with a truthful status.

        Args:
            name: the run's name.
            note: its description.
            tags: further tags.
            files: artifacts of its beginning.
            opening: params, points, data, metrics; see `Opening`.
        """
        all_tags = {
            "mlflow.user": user(),
            "mlflow.source.name": Path(sys.argv[0]).name,
            "mlflow.note.content": note,
            "sgdstudy.study": self.study,
            "sgdstudy.invocation": self.id,
            "sgdstudy.command": self.command,
            **code_tags(),
            "sgdstudy.hardware": processes.hardware(),
            **process_tags(),
            **self.tags,
            **tags,
        }
        with _room_on_disk(name, self.store):
            journal = Journal.begin(
                self.store, Opening(self.study, name, all_tags, **opening), files or {}
            )
            try:
                yield journal
            except BaseException as error:
                if not journal.closed:
                    killed = isinstance(error, KeyboardInterrupt)
                    try:
                        close_interrupted(journal, "KILLED" if killed else "FAILED", error)
                    except OSError:  # the disk is full: the next command closes it
                        journal.let_go()
                raise
            if not journal.closed:
                journal.close(Closing("FINISHED"))

    def train(
        self, name: str, arm: Arm, progress: bool | None, tags: Mapping[str, str] | None = None
    ) -> tuple[str, History]:
        """Predict one arm, then train it, as a tracked run; return the run's id and history.

        Raises:
            StoreError: the rows cannot be written; what was recorded is kept.
        """

        def take(sink: RunSink) -> History:
            return train(
                arm.problem,
                config=arm.config,
                progress=progress,
                description=name,
                sink=sink,
                trajectory=arm.trajectory,
            )

        return self.track(name, arm, predict(arm.problem, arm.config), take, tags or {})

    def track(
        self,
        name: str,
        arm: Arm,
        predicted: dict[str, float],
        take: Callable[[RunSink], History],
        tags: Mapping[str, str],
    ) -> tuple[str, History]:
        """Track an arm whose history `take` makes, handing its rows to the sink as they come."""
        problem, config = arm.problem, arm.config
        params = parameters(problem, config)
        known = [(f"predicted/{k}", 0, v) for k, v in predicted.items() if math.isfinite(v)]
        all_tags = {
            "sgdstudy.config_hash": config_hash(problem, params),
            views.CHARTED: "yes" if arm.charted else "no",
            **tags,
        }
        metrics = config.metrics or ()
        about = {"params": params, "points": known, "data": data(problem), "metrics": metrics}
        note = f"{arm.about}\n\n{described(params)}"
        with self.run(name, note, all_tags, data_files(problem), **about) as journal:
            sink = RunSink(journal)
            try:
                history = take(sink)
            except BaseException:
                sink.stream.drop()
                raise
            history = replace(history, sink=sink.finish(history, self.scratch), predicted=predicted)
        return journal.run_id or journal.folder.name, history


@contextmanager
def _room_on_disk(name: str, store: Store) -> Iterator[None]:
    """Say in one line that a run was stopped because nothing can be written any more."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise StoreError(
            f"{name} was stopped: {reason_of(error)}. What it had recorded is kept in "
            f"{store.streams}; the next command finishes the run"
        ) from error


class RunSink:
    """Takes a run's rows: all of them to disk, the chosen ones to MLflow."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.stream = Stream(journal.folder)
        self._series = Series(journal.opening.metrics)
        self._next = time.monotonic() + INTERIM_SECONDS
        self._interim = 0

    def write(self, kind: str, rows: Rows) -> None:
        """Take a block of `steps` or of `epochs`.

        Raises:
            StoreError: the disk is full, or cannot be written.
        """
        with _room_on_disk(self.journal.opening.name, self.journal.store):
            self.stream.write(kind, rows)
        self._series.add(kind, rows)
        if time.monotonic() > self._next and self._interim < INTERIM_POINTS:
            self.journal.show(self._series.latest())
            self._interim += 1
            self._next = time.monotonic() + INTERIM_SECONDS * 1.1**self._interim

    def batches(self, kind: str) -> Iterator[pa.RecordBatch]:
        """Give back what was written."""
        return self.stream.batches(kind)

    def finish(self, history: History, scratch: Path | None = None) -> Files:
        """Close the run, and return where its rows lie now.

        Args:
            history: what the training returned.
            scratch: where this process keeps its own files of a run that goes to a server.
        """
        self.stream.close()
        journal = self.journal
        reason = summary_of_reasons(history)
        engine = ": ".join(filter(None, [history.engine, history.engine_note]))
        figures = [(f"result/{name}", 0, value) for name, value in results(history).items()]
        closing = Closing(
            "KILLED" if "interrupted" in reason else "FINISHED",
            {"stop_reason": reason, "sgdstudy.engine": engine},
            points_of(journal, self._series, figures),
        )
        to_parquet(journal)
        folder = journal.folder / "artifacts"
        if scratch is not None:
            scratch = scratch / journal.folder.name
            shutil.copytree(folder, scratch, copy_function=_link)
        sent = journal.close(closing)
        if scratch is not None:
            folder = scratch
        elif sent and journal.run_id:
            run = journal.store.client.get_run(journal.run_id)
            folder = local_path(run.info.artifact_uri) or folder
        paths = {kind: folder / f"{kind}.parquet" for kind in AXIS}
        return Files({kind: path for kind, path in paths.items() if path.exists()})


def close_interrupted(
    journal: Journal, status: str, error: BaseException | None = None, patience: float = 0.0
) -> bool:
    """Close a run that was cut off, with the rows its stream held; whether the store has it."""
    tags = {"stop_reason": "interrupted"}
    if error is not None and str(error):
        tags["sgdstudy.error"] = f"{type(error).__name__}: {reason_of(error)}"
    series, n_rows, last = Series(journal.opening.metrics), 0, None
    for kind, axis in AXIS.items():
        for batch in Stream(journal.folder).batches(kind):
            if batch.num_rows:
                series.add(kind, Rows.of(batch, axis))
            if kind == "steps" and batch.num_rows:
                n_rows += batch.num_rows
                last = max(last or 0, pc.max(batch["step"]).as_py())
    if last is not None:
        tags["sgdstudy.last_step"] = str(last)
    to_parquet(journal)
    steps = [("result/steps", 0, float(n_rows))] if journal.opening.params else []
    closing = Closing(status, tags, points_of(journal, series, steps))
    return journal.close(closing, patience)


def points_of(journal: Journal, series: Series, figures: list[Point]) -> list[Stamped]:
    """Return all points of a run; those sent while it went on keep their time, so none doubles."""
    sent = {(key, step) for key, step, _, _ in journal.interim}
    rest = [point for point in series.points() if point[:2] not in sent]
    return [*journal.interim, *stamp([*figures, *rest])]


def to_parquet(journal: Journal) -> None:
    """Turn a run's streams into Parquet files among its artifacts."""
    stream = Stream(journal.folder)
    for kind in AXIS:
        if next(stream.batches(kind), None) is not None:
            path = functools.partial(stream.to_parquet, kind)
            journal.add(f"{kind}.parquet", path)


def _link(source: str, target: str) -> None:
    """Give a file a second name; a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


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
def code_tags() -> dict[str, str]:
    """Return the version of the code that runs, its commit, and whether it was changed since."""

    release = {
        "sgdstudy.version": importlib.metadata.version("sgdstudy"),
        "sgdstudy.torch": torch.__version__,
    }

    def git(*words: str) -> str:
        here = Path(__file__).parent
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return release
    changes = {"sgdstudy.git_changed": str(bool(changed)).lower()}
    return {**release, "mlflow.source.git.commit": commit, **changes}


def described(params: Mapping[str, str]) -> str:
    """Say in one sentence how an arm is trained."""
    p = params
    batches = f"batches of {p['batch_size']} of {p['d']} samples, order {p['order']}"
    if p["order"] == "full batch":
        batches = f"all {p['d']} samples at every step"
    until = "" if p["stop"] == "none" else f", until {p['stop']} < {p['epsilon']}"
    return (
        f"{p['problem']}, loss {p['loss']}: {p['optimizer']}, lr {p['lr']}, {batches}; "
        f"at most {p['epochs']} epochs{until}; seeds {p['seeds']}, {p['dtype']}."
    )


def data(problem: Problem) -> dict[str, Any]:
    """Return what is logged of the data set."""
    profile = {"d": problem.d, "p": problem.p, "x": list(problem.x.shape)}
    return {"name": problem.name, "digest": problem.digest, "profile": profile}


def data_files(problem: Problem) -> dict[str, Callable[[Path], object]]:
    """Return the artifact that shows the data, where it can be drawn."""
    picture = data_picture(problem)
    return {} if picture is None else {"data.png": lambda path: path.write_bytes(picture)}


_PICTURES: dict[str, bytes] = {}


def data_picture(problem: Problem) -> bytes | None:
    """Return the plot of one-dimensional data as PNG, drawn once per data set."""
    from sgdstudy import figures

    if problem.x.dim() != 1 or problem.y.dim() != 1:
        return None
    if problem.digest not in _PICTURES:
        _PICTURES[problem.digest] = figures.png(figures.data(problem))
    return _PICTURES[problem.digest]


def process_tags() -> dict[str, str]:
    """Return where a run lives, so that it can be told when its process is gone."""
    if os.environ.get("SGDSTUDY_HOST_TAGS", "on").lower() in ("off", "0", "false"):
        return {}
    return {f"sgdstudy.{name}": value for name, value in asdict(processes.here()).items()}


def user() -> str:
    """Return who runs this."""
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
