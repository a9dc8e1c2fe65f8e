"""Single runs as one file, to be taken to another store: a zip of JSON and of their artifacts.

    <run_id>/run.json              study, name, status, tags, params, points, data set, times
    <run_id>/artifacts/<name>      its files

What is unpacked goes through a journal, as any run does: it is there whole or not at all.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sgdstudy import checks
from sgdstudy.errors import InputError, reason, unwritable
from sgdstudy.history.rows import AXIS
from sgdstudy.language import say, to_say
from sgdstudy.tracking.entries import KEY, ORIGIN, Closing, Opening
from sgdstudy.tracking.journal import Journal
from sgdstudy.tracking.load import had_rows
from sgdstudy.tracking.outputs import replacing, require_free
from sgdstudy.tracking.runs import (
    TrackedRun,
    artifact,
    find_run,
    named,
    names_of_artifacts,
    runs_of,
    search,
)
from sgdstudy.tracking.scratch import scratch
from sgdstudy.tracking.store import Store
from sgdstudy.tracking.writing import writing

FORMAT = 1
OURS = re.compile(rb"PK\x03\x04.{26}[0-9a-f]{32}/run\.json", re.DOTALL)  # how a file begins
PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MOST_JSON = 200_000_000  # bytes of one run.json
ID = re.compile("[0-9a-f]{32}")
NAME = re.compile(r"([0-9a-f]{32})/(run\.json|artifacts/([^/\\\0]+))")
FIELDS = {
    "study": str,
    "name": str,
    "status": str,
    "tags": dict,
    "params": dict,
    "points": list,
    "start_ms": int,
    "end_ms": int,
}


def pack(store: Store, names: Iterable[str], path: Path, invocation: str = "latest") -> list[str]:
    """Write runs to a file; return their ids.

    Args:
        store: where they are.
        names: studies, of which an invocation is taken, and ids of single runs.
        path: the file.
        invocation: `latest`, `all`, or an id.

    Raises:
        InputError: a study or a run that is not there, one that is going on or lacks files, or a
            file that cannot be written.
    """
    require_free(path, "a packed file", lambda first: OURS.match(first) is not None)
    runs: dict[str, tuple[str, TrackedRun]] = {}
    names = list(names)
    for name in names:
        for study, run in _chosen(store, name, invocation):
            runs[run.run_id] = study, run
    if not runs:
        raise InputError(f"there is no run of {', '.join(names)} to pack")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as file:
            for study, run in runs.values():
                _add(file, store, study, run)
    except OSError as error:
        raise unwritable(path, error) from error
    return list(runs)


def _chosen(store: Store, name: str, invocation: str) -> Iterator[tuple[str, TrackedRun]]:
    if not ID.fullmatch(name):
        for answers in (False, True):
            yield from ((name, run) for run in runs_of(store, name, invocation, None, answers))
        return
    run = find_run(store, name)
    if "sgdstudy.study" not in run.tags:
        raise InputError(say("the run {run} is not ours; name its study instead", run=name))
    yield run.tags["sgdstudy.study"], run


def _add(file: zipfile.ZipFile, store: Store, study: str, run: TrackedRun) -> None:
    if run.status == "RUNNING":
        text = to_say("the run {run} is going on; pack it when it is over")
        raise InputError(say(text, run=f"{run.run_id} ({run.name})"))
    names = names_of_artifacts(store, run)
    told = [f"{kind}.parquet" for kind in AXIS if had_rows(store, run, kind)]
    told += [*run.sums, *run.figures] if run.finished else []
    lost = [name for name in dict.fromkeys(told) if name not in names]
    if lost:
        text = to_say("the store lacks the {kinds} of {run}")
        raise InputError(say(text, kinds=", ".join(lost), run=named([run])))
    points = [
        (point.key, point.step, point.value, point.timestamp)
        for key in run.metrics
        for point in store.client.get_metric_history(run.run_id, key)
    ]
    about = {
        **{"format": FORMAT, "study": study, "name": run.name, "status": run.status},
        **{"tags": dict(run.tags), "params": dict(run.params), "points": points},
        **{"data": _data(store, run), "start_ms": run.start_ms, "end_ms": run.end_ms},
    }
    file.writestr(f"{run.run_id}/run.json", json.dumps(about))
    with scratch() as folder:
        for name in names:
            found = artifact(store, run, name, folder)
            if found is None or not found.is_file():
                text = to_say("{name} of the run {run} is not a file; it is not packed")
                raise InputError(say(text, name=name, run=run.run_id))
            file.write(found, f"{run.run_id}/artifacts/{name}")


def _data(store: Store, run: TrackedRun) -> dict[str, Any] | None:
    """Return what `describe.data` said of a run's data set."""
    inputs = store.client.get_run(run.run_id).inputs
    for given in inputs.dataset_inputs if inputs else []:
        data = given.dataset
        return {
            "name": data.name,
            "digest": data.digest,
            "profile": json.loads(data.profile or "null"),
        }
    return None


# ---- the other way -----------------------------------------------------------------------------


def unpack(store: Store, path: Path) -> tuple[list[str], list[str]]:
    """Add the runs of a file to a store, under new ids; return those added, and those left out.

    Each keeps its first id as the tag `sgdstudy.unpacked_from`; one that is there already, as
    itself or unpacked, is left out.

    Raises:
        InputError: not a file that `pack` wrote, or one that names other files than a run's own;
            nothing was added then.
    """
    with _opened(path) as file:
        runs = _listed(file, path, store)
        read = {run_id: _read(file, path, run_id) for run_id in runs}
        added, there = list[str](), list[str]()
        for run_id, about in read.items():
            with writing(store, about["study"], f"the run {run_id}", fresh=False):
                found = _is_there(store, run_id, about)
                (there if found else added).append(run_id)
                if not found:
                    _insert(store, file, run_id, about, runs[run_id])
    return added, there


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    damaged = (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, zlib.error)
    try:
        file = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise InputError(say("there is no file {path}", path=path)) from None
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(say("{path} cannot be read: {why}", path=path, why=why)) from None
    except damaged as error:
        text = to_say("{path} is damaged, or not packed by sgdstudy: {why}")
        raise InputError(say(text, path=path, why=reason(error))) from None
    with file:
        try:
            yield file
        except damaged as error:
            text = say("{path} is damaged: {why}", path=path, why=reason(error))
            raise InputError(text) from None


def _listed(file: zipfile.ZipFile, path: Path, store: Store) -> dict[str, list[str]]:
    """Return the names of the artifacts of each run, once every name is one that may be written."""
    runs: dict[str, list[str]] = {}
    for info in file.infolist():
        found = NAME.fullmatch(info.filename)
        kind = stat.S_IFMT(info.external_attr >> 16)
        plain = info.compress_type in PLAIN and not info.flag_bits & 1  # encrypted
        if not plain or not found or found[3] in (".", "..") or kind not in (0, stat.S_IFREG):
            text = to_say("{path} holds {name}, which is not a file of a run's")
            raise InputError(say(text, path=path, name=repr(info.filename)))
        names = runs.setdefault(found[1], [])
        if found[2] in names:
            name = repr(info.filename)
            raise InputError(say("{path} holds {name} twice", path=path, name=name))
        names.append(found[2])
    size = sum(info.file_size for info in file.infolist())
    folder = next(p for p in (store.streams, *store.streams.parents) if p.is_dir())
    if size > shutil.disk_usage(folder).free:
        text = to_say("{path} unpacks to {size:.0f} MB; there is no room for that")
        raise InputError(say(text, path=path, size=size / 1e6))
    if not runs or any("run.json" not in names for names in runs.values()):
        text = to_say("{path} is not packed by sgdstudy: it lacks a run.json")
        raise InputError(say(text, path=path))
    bad = file.testzip()  # all of it, before any of it is added
    if bad is not None:
        raise zipfile.BadZipFile(f"{bad} is not what was packed")
    return runs


def _read(file: zipfile.ZipFile, path: Path, run_id: str) -> dict[str, Any]:
    """Return what is known of a run, once all of it is of the right kind."""
    info = file.getinfo(f"{run_id}/run.json")
    if info.file_size > MOST_JSON:
        raise InputError(say("{path}: {name} is too large", path=path, name=info.filename))
    try:
        about: dict[str, Any] = json.loads(file.read(info))
        if about["format"] != FORMAT:
            text = to_say("{path} was packed by another version; upgrade sgdstudy")
            raise InputError(say(text, path=path))
        wrong = [name for name, kind in FIELDS.items() if type(about[name]) is not kind]
        texts = {**about["tags"], **about["params"]}.values()
        if wrong or not all(isinstance(text, str) for text in texts):
            raise ValueError(", ".join(wrong) or "tags")
        if about["data"] is not None:
            data, profile = about["data"], dict(about["data"]["profile"])
            about["data"] = {"name": str(data["name"]), "digest": str(data["digest"])}
            about["data"]["profile"] = profile
        about["points"] = [
            (str(key), int(step), float(value), int(time_ms))
            for key, step, value, time_ms in about["points"]
        ]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        text = to_say("{path}: {name} is damaged: {why}")
        text = say(text, path=path, name=info.filename, why=reason(error))
        raise InputError(text) from None
    if about["status"] not in ("FINISHED", "FAILED", "KILLED"):
        text = to_say("{path}: run {run} has the status {status}")
        raise InputError(say(text, path=path, run=run_id, status=repr(about["status"])))
    checks.folder_name("the study", about["study"])
    return about


def _origin(run_id: str, about: dict[str, Any]) -> str:
    """Return the id that a run had in the store where it was trained."""
    said: str = about["tags"].get(ORIGIN, "")
    return said if ID.fullmatch(said) else run_id


def _is_there(store: Store, run_id: str, about: dict[str, Any]) -> bool:
    """Whether a store has a run, as itself or unpacked, on whatever way it came here."""
    experiment = [store.experiment(about["study"])]
    for known in {run_id, _origin(run_id, about)}:
        for only in (f"tags.`{ORIGIN}` = '{known}'", f"attributes.run_id = '{known}'"):
            if search(store, experiment, only, most=1):
                return True
    return False


def _insert(
    store: Store, file: zipfile.ZipFile, run_id: str, about: dict[str, Any], names: list[str]
) -> None:
    """Make a run of what was packed, and of its artifacts."""
    tags = {name: text for name, text in about["tags"].items() if name != KEY}

    def copy(name: str, target: Path) -> None:
        with file.open(f"{run_id}/{name}") as source, open(target, "wb") as to:
            shutil.copyfileobj(source, to)

    files: dict[str, Callable[[Path], object]] = {
        Path(name).name: functools.partial(copy, name) for name in names if name != "run.json"
    }
    opening = Opening(
        about["study"],
        about["name"],
        tags | {ORIGIN: _origin(run_id, about)},
        about["params"],
        data=about["data"],
        start_ms=about["start_ms"],
    )
    journal = Journal.begin(store, opening, files, send=False)
    try:
        journal.close(Closing(about["status"], points=about["points"], end_ms=about["end_ms"]))
    except BaseException:
        if not journal.closed:  # the file has it still
            journal.remove()
        raise
