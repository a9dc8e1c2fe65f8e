"""The tracked results as pandas, from whatever store is tracked to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sgdstudy.errors import InputError, unknown
from sgdstudy.history import ordered, select
from sgdstudy.store import Store, local_path, open_store

MAX_BYTES = 1_000_000_000
LABELS = ["study", "arm", "run_id", "invocation"]


def load_runs(
    study: str, *, invocation: str = "latest", store: str | None = None, arms: Any = None
) -> pd.DataFrame:
    """Return one row per run: its params as values, its `result/` metrics, its tags.

    Args:
        study: an experiment's name, as `ex6_shuffle`.
        invocation: `latest`, `all`, or an invocation's id.
        store: see `store.locate`.
        arms: the arms wanted; None for all.

    Raises:
        InputError: a study, or an arm, that is not in the store.
    """
    rows = []
    for run in _runs(open_store(store), study, invocation, arms):
        data, info = run.data, run.info
        result = {k.removeprefix("result/"): v for k, v in data.metrics.items() if "result/" in k}
        tags = {"stop_reason": data.tags.get("stop_reason"), "status": info.status}
        params = {name: _value(text) for name, text in data.params.items()}
        rows.append(_labels(run, study) | params | result | tags)
    return pd.DataFrame(rows)


def load_steps(
    study: str,
    *,
    arms: Any = None,
    seeds: Any = None,
    columns: list[str] | None = None,
    steps: slice | None = None,
    invocation: str = "latest",
    store: str | None = None,
) -> pd.DataFrame:
    """Return one row per step of every seed of every arm, with study, arm, run_id, invocation.

    Args:
        study: an experiment's name, as `ex6_shuffle`.
        arms: the arms wanted; None for all.
        seeds: the seeds wanted; None for all.
        columns: the columns wanted; None for all.
        steps: `slice(first, end)` of the global step.
        invocation: `latest`, `all`, or an invocation's id.
        store: see `store.locate`.

    Raises:
        InputError: an unknown study, arm or column; or over 1 GB of rows without `columns`.
    """
    return _load("steps", study, arms, seeds, columns, steps, invocation, store)


def load_epochs(
    study: str,
    *,
    arms: Any = None,
    seeds: Any = None,
    columns: list[str] | None = None,
    invocation: str = "latest",
    store: str | None = None,
) -> pd.DataFrame:
    """Return one row per epoch of every seed of every arm; arguments as `load_steps`."""
    return _load("epochs", study, arms, seeds, columns, None, invocation, store)


def load_claims(
    study: str, *, invocation: str = "latest", store: str | None = None
) -> pd.DataFrame:
    """Return the claims of a study: name, arm, expected, measured, tolerance, holds, source."""
    opened, parts = open_store(store), []
    for run in _runs(opened, study, invocation, "answer", answers=True):
        path = artifact(opened, run, "claims.json")
        if path is not None:
            claims = pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))
            parts.append(claims.assign(study=study, invocation=_labels(run, study)["invocation"]))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def artifact(store: Store, run: Any, name: str) -> Path | None:
    """Return a local path of a run's artifact, downloaded where it must be; None if not there."""
    folder = local_path(run.info.artifact_uri)
    if folder is not None:
        return folder / name if (folder / name).exists() else None
    if name not in [item.path for item in store.client.list_artifacts(run.info.run_id)]:
        return None
    return Path(store.client.download_artifacts(run.info.run_id, name))


def _load(
    kind: str,
    study: str,
    arms: Any,
    seeds: Any,
    columns: list[str] | None,
    steps: slice | None,
    invocation: str,
    given: str | None,
) -> pd.DataFrame:
    store = open_store(given)
    found = [
        (run, artifact(store, run, f"{kind}.parquet"))
        for run in _runs(store, study, invocation, arms)
    ]
    files = [(run, pq.ParquetFile(path)) for run, path in found if path is not None]
    if columns is None and seeds is None and steps is None:
        _check_size([file for _, file in files], study, kind)
    parts = []
    for run, file in files:
        names = _checked(columns, file.schema_arrow.names)
        needed = [name for name in ("seed", "step") if name in file.schema_arrow.names]
        table = file.read(list(dict.fromkeys([*names, *needed])))
        part = ordered(select(table, seeds, steps).to_pandas())[names]
        labels = _labels(run, study)
        for name in LABELS:
            part[name] = pd.Categorical.from_codes([0] * len(part), [labels[name]])
        parts.append(part)
    if not parts:
        return pd.DataFrame(columns=[*(columns or []), *LABELS])
    for name in LABELS:  # the same categories everywhere, so that concat keeps them
        union = pd.api.types.union_categoricals([part[name] for part in parts]).categories
        for part in parts:
            part[name] = part[name].cat.set_categories(union)
    return pd.concat(parts, ignore_index=True)


def _checked(columns: list[str] | None, present: list[str]) -> list[str]:
    for name in columns or ():
        if name not in present and name not in LABELS:
            raise unknown("column", name, present)
    return [name for name in columns if name in present] if columns else present


def _check_size(files: Iterable[pq.ParquetFile], study: str, kind: str) -> None:
    size = 0
    for file in files:
        widths = [_width(field.type) for field in file.schema_arrow]
        size += file.metadata.num_rows * (sum(widths) + len(LABELS))
    if size > MAX_BYTES:
        raise InputError(
            f"all {kind} of {study} would take {size / 1e9:.1f} GB of memory; "
            f"give columns=[...], or seeds= or steps=slice(...)"
        )


def _width(kind: pa.DataType) -> int:
    return kind.bit_width // 8 if pa.types.is_primitive(kind) else 8


def _runs(store: Store, study: str, invocation: str, arms: Any, answers: bool = False) -> list[Any]:
    """Return the runs of a study, oldest first."""
    client = store.client
    experiment = client.get_experiment_by_name(store.experiment_name(study))
    if experiment is None:
        names = [e.name for e in client.search_experiments() if e.name != "Default"]
        raise unknown("study", study, names or ["none has run yet: sgdstudy study"])
    runs = every_run(store, experiment.experiment_id)
    runs = [r for r in runs if answers == (r.info.run_name == "answer")]
    if invocation != "all":
        ids = sorted({run.data.tags.get("sgdstudy.invocation", "") for run in runs})
        if invocation != "latest" and invocation not in ids:
            raise unknown("invocation", invocation, ids)
        wanted = invocation if invocation != "latest" else (ids or [""])[-1]
        runs = [r for r in runs if r.data.tags.get("sgdstudy.invocation", "") == wanted]
    if arms is not None:
        chosen = [arms] if isinstance(arms, str) else list(arms)
        names = [run.info.run_name for run in runs]
        for arm in chosen:
            if arm not in names and not answers:
                raise unknown("arm", arm, names)
        runs = [run for run in runs if run.info.run_name in chosen]
    return runs


def every_run(store: Store, experiment_id: str) -> list[Any]:
    """Return all runs of an experiment, oldest first."""
    runs: list[Any] = []
    token = None
    while True:
        page = store.client.search_runs(
            [experiment_id], max_results=1000, page_token=token, order_by=["start_time"]
        )
        runs += page
        token = page.token
        if not token:
            return runs


def _labels(run: Any, study: str) -> dict[str, str]:
    invocation = run.data.tags.get("sgdstudy.invocation", "")
    return {
        "study": study,
        "arm": run.info.run_name,
        "run_id": run.info.run_id,
        "invocation": invocation,
    }


def _value(text: str) -> Any:
    """Turn a param's text into what it was.

    >>> [_value(t) for t in ("10", "2e-4", "True", "None", "shuffle")]
    [10, 0.0002, True, None, 'shuffle']
    """
    words = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
