"""A history as one file, without pickle: rows as Parquet, arrays, settings as JSON, in a zip."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from sgdstudy.errors import InputError, quoted, reason, unwritable
from sgdstudy.history.checksums import checked
from sgdstudy.history.files import write_parquet
from sgdstudy.history.rows import AXIS, Memory
from sgdstudy.problems.problem import Problem
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.recipe.replay import Seeded

VERSION = 1
ARRAYS = ("w", "stop_epoch", "n_steps")
NUMBERS = ("train_seconds", "seconds_per_step", "engine", "engine_note")
FEW = 4  # seeds whose start and loss tell one problem from another
ALIKE = 1e-4  # of losses, also by other versions and on other machines
PLAIN = (type(None), bool, int, float, str)


def save(run: Any, path: str | Path) -> Path:
    """Write the run into one file, which `ss.load_history` reads; return its path.

    The problem and what is a function of the settings are not in it: they are given again. What
    the first seeds start from and the loss that they end with are, to tell another problem by.

    Args:
        run: a history.
        path: of the file, as `run.sgdstudy`; what is there is replaced.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path).expanduser()
    settings, order, functions = _settings(run.config)
    told: dict[str, Any] = {
        "version": VERSION,
        "problem": {"name": run.problem.name, "digest": run.problem.digest},
        "settings": settings,
        "functions": functions,
        "stop_reason": run.stop_reason.tolist(),
        "predicted": dict(run.predicted),
        **{name: getattr(run, name) for name in NUMBERS},
    }
    told["problem"]["ends"] = _losses(run.problem, run.w)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
            draft = Path(folder) / "draft"
            with zipfile.ZipFile(draft, "w") as file:
                for name in ARRAYS:
                    file.writestr(f"{name}.npy", _npy(getattr(run, name)))
                file.writestr("start.npy", _npy(_start(run.problem, run.config)))
                if order is not None:
                    file.writestr("order.npy", _npy(order))
                for kind in AXIS:
                    rows = Path(folder) / f"{kind}.parquet"
                    if write_parquet(run.sink.batches(kind), rows) or rows.exists():
                        file.write(rows, rows.name)
                told["files"] = file.namelist()
                file.writestr("history.json", json.dumps(told, indent=1))
            os.replace(draft, path)
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def read(path: str | Path, problem: Problem, functions: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a history is made of, from the file that `save` wrote; see `load_history`."""
    path = Path(path).expanduser()
    try:
        with zipfile.ZipFile(path) as file, tempfile.TemporaryDirectory() as folder:
            told = json.loads(file.read("history.json"))
            _require_same(told, problem, path)
            if [*told["files"], "history.json"] != file.namelist():
                raise InputError(f"{path} is damaged: a part of it is missing")
            sink = Memory()
            for kind in AXIS:
                if f"{kind}.parquet" in file.namelist():
                    table = checked(file.extract(f"{kind}.parquet", folder)).read()
                    table = table.replace_schema_metadata()
                    none = pa.RecordBatch.from_pylist([], schema=table.schema)  # but its columns
                    for batch in table.to_batches() or [none]:
                        sink.append(kind, batch)
            names = [
                name for name in (*ARRAYS, "start", "order") if f"{name}.npy" in file.namelist()
            ]
            arrays = {name: _array(file.read(f"{name}.npy")) for name in names}
            settings = told["settings"]
            if "order" in arrays:
                settings["order"] = arrays.pop("order")
            config = _config(settings, told["functions"], functions)
            reasons = np.array(told["stop_reason"], dtype="U11")
            numbers = {name: told[name] for name in NUMBERS}
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path} is no history that was saved, or damaged ({reason(error)})"
        ) from error
    if arrays["w"].shape != (len(config.seeds), problem.p):
        raise InputError(
            f"{path} is of {arrays['w'].shape[1]} parameters, the problem has {problem.p}"
        )
    start = arrays.pop("start", None)
    if start is not None:  # an earlier version did not write it
        if problem.starts_as_given:  # by layers that may have been drawn anew since
            problem = problem.replace(w_init=start[0])
        _require_same_run(told["problem"]["ends"], start, arrays["w"], problem, config, path)
    given = {"stop_reason": reasons, "predicted": told["predicted"], **numbers}
    return {"problem": problem, "config": config, "sink": sink, **arrays, **given}


def _require_same(told: Mapping[str, Any], problem: Problem, path: Path) -> None:
    if told["version"] != VERSION:
        raise InputError(f"{path} is of version {told['version']}; this sgdstudy reads {VERSION}")
    if told["problem"]["digest"] != problem.digest:
        name = quoted(told["problem"]["name"])
        raise InputError(f"{path} is of {name} with other data than those of {problem.name!r}")


def _start(problem: Problem, config: TrainConfig) -> np.ndarray:
    """Return what the first seeds start from, `(FEW, p)`."""
    start: np.ndarray = problem.initial(list(config.seeds[:FEW])).numpy(force=True)
    return start


def _losses(problem: Problem, w: np.ndarray) -> list[float]:
    """Return the loss of all data at the parameters of the first seeds; see `describe.results`."""
    found: list[float] = problem.full(w[:FEW].astype(float))[0].tolist()
    return found


def _require_same_run(
    ends: list[float],
    start: np.ndarray,
    w: np.ndarray,
    problem: Problem,
    config: TrainConfig,
    path: Path,
) -> None:
    """Refuse a problem that has another loss at the parameters of the file, or starts elsewhere."""
    now, theirs = _losses(problem, w), np.array(ends)
    scale = np.abs(_losses(problem, start)).max()  # a loss near 0 is nothing but rounding
    same = np.isclose(now, theirs, rtol=ALIKE, atol=ALIKE * scale, equal_nan=True)
    if not same.all():
        i = int(np.argmin(same))
        raise InputError(
            f"{path} is of another model, loss or penalty: seed {config.seeds[i]} ended with a "
            f"loss of {theirs[i]:.6g}, which is {now[i]:.6g} by those of {problem.name!r}"
        )
    if not np.allclose(_start(problem, config), start, rtol=1e-6, atol=0, equal_nan=True):
        raise InputError(
            f"{path} is of runs with other first parameters than those of {problem.name!r}; give "
            f"w_init, or seed torch before the module is made, as then"
        )


def _config(
    settings: dict[str, Any], missing: list[str], functions: Mapping[str, Any]
) -> TrainConfig:
    for name in missing:
        if name not in functions:
            raise InputError(
                f"{name} was a function, which a file does not hold; give it again, as "
                f"ss.load_history(path, problem, {name}=...)"
            )
    if isinstance(settings["order"], dict):
        settings["order"] = Seeded(**settings["order"])
    return TrainConfig.of(**{**settings, **functions})


def _settings(config: TrainConfig) -> tuple[dict[str, Any], Any, list[str]]:
    """Return what JSON holds of the settings, an order that is an array, names of functions."""
    found: dict[str, Any] = {}
    order, functions = None, []
    for name in (setting.name for setting in fields(config)):
        value = getattr(config, name)
        if name == "diagnostics" and not isinstance(value, str):
            found[name] = [one for one in value if isinstance(one, str)]
        elif isinstance(value, torch.Tensor):
            order = value.numpy()
        elif isinstance(value, Seeded):
            found[name] = {"order": value.order, "seed": value.seed}
        elif _is_plain(value):
            found[name] = value
        else:
            functions.append(name)
    if not _is_plain(config.diagnostics):  # they may name the columns of functions
        found["metrics"] = None
    return {"order": None, **found}, order, functions


def _is_plain(value: Any) -> bool:
    """Whether JSON gives a value back, a tuple as a list."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(map(_is_plain, [*value.keys(), *value.values()]))
    return type(value) in PLAIN


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _array(data: bytes) -> np.ndarray:
    found: np.ndarray = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return found
