"""The tracked results as pandas, from whatever store is tracked to.

Rows, columns and steps are chosen where the files are read: what is not asked for is not read, as
far as the row groups of a Parquet file allow. A file of a remote store is fetched whole.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from sgdstudy import checks
from sgdstudy.checks import SeedsLike
from sgdstudy.errors import InputError
from sgdstudy.history.checksums import Sealed, readable, require_threads
from sgdstudy.history.rows import AXIS
from sgdstudy.history.stream import has_stream, read_stream
from sgdstudy.language import first_of, say, to_say
from sgdstudy.recipe.columns import PREFIX
from sgdstudy.text import counted, number
from sgdstudy.tracking import aside, describe, foreign, shapes
from sgdstudy.tracking.claims import claims_of
from sgdstudy.tracking.entries import A_KEY, KEY
from sgdstudy.tracking.parquet import LABELS, Source, gather
from sgdstudy.tracking.retry import is_away
from sgdstudy.tracking.runs import artifact, lacks_files, named, runs_of
from sgdstudy.tracking.scratch import scratch
from sgdstudy.tracking.store import Store, read_store
from sgdstudy.tracking.tracked_run import TrackedRun

MAX_BYTES = 1_000_000_000
SHARED = {  # options of all scripts: `studies.arm.SHARED`
    *("seeds", "first_seed", "device", "engine", "store", "jobs", "strict", "answer", "predict"),
    *("resume", "checkpoint_seconds", "lang"),
}
LARGEST = float(np.finfo(float).max)  # what MLflow's database keeps of an infinity
log = logging.getLogger("sgdstudy")


def load_runs(
    study: str, *, invocation: str = "latest", store: str | None = None, arms: Any = None
) -> pd.DataFrame:
    """Return one row per run: what was set, what was expected, what came out.

    Args:
        study: an experiment's name, as `ex6_shuffle`.
        invocation: `latest` (yours, where several people share a server), `all`, or an id.
        store: see `store.locate`.
        arms: the arms wanted; None for all.

    Returns:
        The columns `study, arm, run_id, invocation`; params as numbers, truth values or text; the
        script's own options as `option.<name>`, of a combination of a sweep those of its point;
        `result/` metrics by their names, medians over the seeds (of two middle ones the lower) with
        `_p10` and `_p90` beside; predictions as `predicted_<name>`; the claims about the arm as
        `claim_<name>` (measured) and `claim_<name>_holds`; `stop_reason, status`. What another
        program logged under the name of one of these is `param.<name>` or `metric.<name>`: of a
        param and a figure that are called alike, the param is ours where it is a setting.

    Raises:
        InputError: a study, an arm or an invocation that is not in the store.
    """
    opened = read_store(store)
    return runs_table(opened, study, runs_of(opened, study, invocation, arms))


def runs_table(store: Store, study: str, runs: Sequence[TrackedRun]) -> pd.DataFrame:
    """Return runs of a study as `load_runs` does."""
    claims: dict[tuple[str, str], dict[str, Any]] = {}
    for label in {run.invocation for run in runs} - {""}:
        for claim in claims_of(store, study, label):
            found = claims.setdefault((label, claim["arm"]), {})
            found[f"claim_{claim['name']}"] = claim["measured"]
            found[f"claim_{claim['name']}_holds"] = claim.get("holds")
    rows = []
    ours = {*LABELS, "stop_reason", "status"}
    params = {name for run in runs for name in run.params}
    settings = set(filter(describe.is_setting, params))
    figures = {name for run in runs for name in map(_of_figure, run.metrics) if name} - settings
    for run in runs:
        labels = run.labels(study)
        claimed = claims.get((labels["invocation"], labels["arm"]), {})
        options = _own_options(run)
        taken = {*ours, *options, *claimed}
        told = {name: _number_or_text(text) for name, text in run.params.items()}
        rows.append(
            labels
            | _beside(taken | figures, told, "param")
            | options
            | _figures(run.metrics, taken | settings, params)
            | claimed
            | {"stop_reason": run.tags.get("stop_reason"), "status": run.status}
        )
    table = pd.DataFrame(rows, columns=None if rows else LABELS)
    for name in table.select_dtypes(float):
        values = [row.get(name) for row in rows]
        if any(isinstance(value, int) and value != float(value) for value in values):
            known = [np.nan if value is None else value for value in values]
            table[name] = pd.Series(known, dtype=object)
    return table


def load_steps(
    study: str,
    *,
    arms: Any = None,
    seeds: SeedsLike | None = None,
    columns: Sequence[str] | None = None,
    steps: slice | None = None,
    invocation: str = "latest",
    store: str | None = None,
) -> pd.DataFrame:
    """Return one row per step of every seed of every arm, with study, arm, run_id, invocation.

    A column that only some of the arms recorded is NaN in the others. Of a run that is going on,
    or was killed, the rows written so far are returned, where they lie on this machine. Of a run
    that was not tracked by this package and has no `steps.parquet`, its metrics `batch/<name>`
    are returned as columns over `step`; no `seed` is known of those rows.

    Args:
        study: an experiment's name, as `ex6_shuffle`.
        arms: the arms wanted; None for all.
        seeds: the seeds wanted, one or several; None for all.
        columns: the columns wanted; None for all.
        steps: `slice(first, end)` of the global step, from 0.
        invocation: `latest` (yours, where several people share a server), `all`, or an id.
        store: see `store.locate`.

    Raises:
        InputError: an unknown study, arm or column; or over 1 GB of rows where none are chosen.
    """
    return _load("steps", study, arms, seeds, columns, steps, invocation, store)


def load_epochs(
    study: str,
    *,
    arms: Any = None,
    seeds: SeedsLike | None = None,
    columns: Sequence[str] | None = None,
    invocation: str = "latest",
    store: str | None = None,
) -> pd.DataFrame:
    """Return one row per epoch of every seed of every arm; arguments as `load_steps`."""
    return _load("epochs", study, arms, seeds, columns, None, invocation, store)


# ---- rows -----------------------------------------------------------------------------------


def sources(
    kind: str,
    study: str,
    runs: Sequence[TrackedRun],
    store: Store,
    folder: Path,
    columns: Collection[str] | None = None,
) -> list[Source]:
    """Return where the rows of a study's runs lie; remote files are fetched into the folder.

    A run whose files are not open to us, as another user's may be, is named and left out.

    Of those that another program wrote only these columns are looked at; None: all.

    Raises:
        InputError: the store lacks rows that runs had, when they finished.
    """
    found, lost = [], []
    for run in runs:
        try:
            rows = _rows(store, run, kind, folder, columns)
        except PermissionError as error:
            _name_shut(run, kind, error)
            continue
        if rows is not None:
            found.append(Source(run.labels(study), *rows))
        elif had_rows(store, run, kind):
            lost.append(run)
    if lost:
        raise InputError(
            f"the store lacks the {kind} of {counted(len(lost), 'finished run')} of "
            f"{study}: {named(lost)}; put their files back below {store.root or store.shown}, or "
            f"name other arms or another invocation"
        )
    return _alike(found, kind, runs, columns)


def _name_shut(run: TrackedRun, kind: str, error: PermissionError) -> None:
    text = to_say(
        "the {kind} of {run} are left out: {path} is not open to you; whose it is may share it, "
        "chmod -R g+rX {folder}"
    )
    path = Path(error.filename)
    which = {"kind": kind, "run": named([run]), "path": str(path), "folder": str(path.parent)}
    log.warning("%s", say(text, **which))


def had_rows(store: Store, run: TrackedRun, kind: str) -> bool:
    """Whether a run without a file of rows must have had one.

    It knows its checksum; one of an older version has charts of its rows.
    """
    if f"{kind}.parquet" in run.sums and run.status != "RUNNING":
        return True
    if not run.finished or KEY not in run.tags:
        return False
    charted = {key.partition("/")[0] for key in run.metrics} & set(PREFIX.values())
    return PREFIX[kind] in charted or bool(charted and lacks_files(store, run))


def _rows(
    store: Store, run: TrackedRun, kind: str, folder: Path, columns: Collection[str] | None
) -> tuple[ds.Dataset, Sealed | None] | None:
    """Return where the rows of a run lie, and their file's checksums; None: it has none."""
    require_threads()
    try:
        path = artifact(store, run, f"{kind}.parquet", folder)
        if path is not None:
            return _file(run, kind, path, columns)
    except InputError as error:
        if is_away(error) or had_rows(store, run, kind):
            raise
        which = {"kind": kind, "run": named([run]), "why": str(error)}  # another program wrote them
        log.warning("%s", say("the {kind} of {run} are left out: {why}", **which))
        return None
    key = run.tags.get(KEY, "")
    going_on = [store.streams / key] if A_KEY.fullmatch(key) else []  # or it was killed
    for own in [*going_on, *aside.folders_of(store, key)]:
        stream = own / f"{kind}.arrow"
        for link in filter(Path.is_symlink, (stream, own)):
            raise InputError(f"{link} is a symbolic link, which is not followed; remove it")
        if not has_stream(own, kind):
            continue
        if not stream.exists() and not (own / "opening.json").exists():
            continue  # the run ended at this moment
        with readable(stream):
            batches = list(read_stream(stream, key))
        return (ds.dataset(pa.Table.from_batches(batches)), None) if batches else None
    rows = None if run.invocation else _metric_history(store, run, kind)
    return None if rows is None else (rows, None)


def _file(
    run: TrackedRun, kind: str, path: Path, columns: Collection[str] | None
) -> tuple[ds.Dataset, Sealed]:
    """Return the rows of a file, and its checksums; columns that are no numbers are named."""
    mend = "" if KEY in run.tags else foreign.allowed(AXIS[kind])
    with readable(path, mend):
        sealed = Sealed.open(path, run.sums.get(path.name))
        if sealed.sums is not None:
            return ds.dataset(path, format="parquet"), sealed
        rows, left = foreign.adapted(path, AXIS[kind], columns)
    if left:
        _name_columns(run, kind, left)
    return rows, sealed


def _alike(
    found: list[Source], kind: str, runs: Sequence[TrackedRun], columns: Collection[str] | None
) -> list[Source]:
    """Return the sources without texts in a column that holds numbers in another run."""
    numbers = {name for part in found for name in part.names if not part.is_text(name)}
    alike, named_of = [], {run.run_id: run for run in runs}
    for part in found:
        if left := [name for name in part.names if name in numbers and part.is_text(name)]:
            if asked := [f"{n} (string)" for n in left if columns is None or n in columns]:
                _name_columns(named_of[part.labels["run_id"]], kind, asked)
            kept = [field for field in part.rows.schema if field.name not in left]
            part = replace(part, rows=part.rows.replace_schema(pa.schema(kept)))
        alike.append(part)
    return alike


def _name_columns(run: TrackedRun, kind: str, left: list[str]) -> None:
    text = to_say("columns of the {kind} of {run} are left out: {columns}")
    log.warning("%s", say(text, kind=kind, run=named([run]), columns=first_of(left)))


def _metric_history(store: Store, run: TrackedRun, kind: str) -> ds.Dataset | None:
    """Return the metrics of a run as columns over its steps or epochs."""
    series = {}
    for key in run.metrics:
        if key.startswith(f"{PREFIX[kind]}/"):
            points = store.client.get_metric_history(run.run_id, key)
            points = sorted(points, key=lambda point: point.timestamp)  # the later one counts
            values = pd.Series({p.step: p.value for p in points}, dtype=float)
            series[key.removeprefix(f"{PREFIX[kind]}/")] = pd.Series(
                _infinite(values), values.index
            )
    if not series:
        return None
    series = _beside({*LABELS, "seed", *AXIS.values()}, series, "metric")
    frame = pd.DataFrame(series).sort_index().rename_axis(AXIS[kind]).reset_index()
    return ds.dataset(pa.Table.from_pandas(frame, preserve_index=False))


def _load(
    kind: str,
    study: str,
    arms: Any,
    seeds: SeedsLike | None,
    columns: Sequence[str] | None,
    steps: slice | None,
    invocation: str,
    given: str | None,
) -> pd.DataFrame:
    with scratch() as folder:
        opened = read_store(given)
        runs = runs_of(opened, study, invocation, arms)
        columns = None if columns is None else checks.listed(columns)
        found = sources(kind, study, runs, opened, folder, columns)
        names = _checked(columns, list(dict.fromkeys(n for part in found for n in part.names)))
        if columns is None and seeds is None and steps is None:
            _check_size(found, study, kind)
        return gather(found, names, seeds, steps)


def _checked(columns: Sequence[str] | None, present: list[str]) -> list[str]:
    if columns is None or not present:  # no rows at all: any column is as good
        return list(present if columns is None else columns)
    wanted = dict.fromkeys(checks.columns(columns, [*present, *LABELS]))
    return [name for name in wanted if name in present]


def _check_size(found: list[Source], study: str, kind: str) -> None:
    size = sum(part.bytes for part in found)
    if size > MAX_BYTES:
        raise InputError(
            f"all {kind} of {study} would take {size / 1e9:.1f} GB of memory; "
            f"give columns=[...], or seeds= or steps=slice(...)"
        )


# ---- values ------------------------------------------------------------------------------------


def _of_figure(key: str) -> str:
    """Return the column of a metric that is a result or a prediction, "" of another metric.

    >>> [_of_figure(key) for key in ("result/full_loss", "predicted/lr_limit", "full_loss")]
    ['full_loss', 'predicted_lr_limit', '']
    """
    group, _, name = key.rpartition("/")
    return {"result": name, "predicted": f"predicted_{name}"}.get(group, "")


def _figures(
    metrics: Mapping[str, float], taken: Collection[str], params: Collection[str]
) -> dict[str, float]:
    """Return the metrics that are logged once, by the names of their columns.

    Args:
        metrics: of a run.
        taken: columns that no figure replaces.
        params: of all runs: columns that a metric of another program does not replace.
    """
    ours, others = dict[str, float](), dict[str, float]()
    for key, value in metrics.items():
        if name := _of_figure(key):
            ours[name] = float(_infinite(value))
        elif key.rpartition("/")[0] not in PREFIX.values():
            others[key] = float(_infinite(value))
    found = _beside(taken, ours, "metric")
    return found | _beside({*taken, *params, *found}, others, "metric")


def _beside(taken: Collection[str], given: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return what others may have logged under the names of other columns under free names.

    >>> _beside({"arm"}, {"arm": 1, "lr": 2}, "metric")
    {'lr': 2, 'metric.arm': 1}
    """
    found = {name: value for name, value in given.items() if name not in taken}
    for name, value in given.items():
        column = name
        while column in taken or (column in found and column != name):
            column = f"{kind}.{column}"
        found[column] = value
    return found


def _own_options(run: TrackedRun) -> dict[str, Any]:
    """Return the options that only the run's script has, as `option.<name>`; a list as a tuple."""
    told = []
    for tag in ("sgdstudy.options", "sgdstudy.settings"):  # a sweep's settings are the last word
        try:
            told.append(shapes.parsed(run.tags.get(tag, "{}"), shapes.OPTIONS, f"the tag {tag}"))
        except InputError as error:
            which = {"why": str(error), "run": named([run])}
            log.warning("%s", say("{why}, of {run}; it is done without", **which))
            return {}
    options, settings = told
    own = {name: settings.get(name, v) for name, v in options.items() if name not in SHARED}
    return {f"option.{name}": tuple(v) if isinstance(v, list) else v for name, v in own.items()}


def _infinite(values: Any) -> Any:
    """Return values with the infinities that MLflow's database cannot hold."""
    return np.where(np.abs(values) >= LARGEST, np.copysign(np.inf, values), values)


def _number_or_text(text: str) -> Any:
    """Turn a param's text into what it was.

    >>> [_number_or_text(t) for t in ("10", "2e-4", "True", "None", "shuffle", "1_0")]
    [10, 0.0002, True, None, 'shuffle', '1_0']
    """
    words = {"True": True, "False": False, "None": None}
    if text in words or "_" in text:
        return words.get(text, text)
    return number(text)
