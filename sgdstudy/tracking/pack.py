"""Single runs as one file, to be taken to another store: a zip of JSON and of their artifacts.

    <run_id>/run.json              study, name, status, tags, params, points, data set, times
    <run_id>/artifacts/<name>      its files

What is unpacked goes through a journal, as any run does: it is there whole or not at all.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sgdstudy import checks
from sgdstudy.errors import InputError, Refused, reason, unwritable
from sgdstudy.history.rows import AXIS
from sgdstudy.language import say, to_say
from sgdstudy.tracking import aside, shapes
from sgdstudy.tracking.entries import KEY, ORIGIN, Closing, Opening, now_ms
from sgdstudy.tracking.journal import Journal
from sgdstudy.tracking.load import had_rows
from sgdstudy.tracking.outputs import replacing, require_free
from sgdstudy.tracking.runs import (
    artifact,
    find_run,
    named,
    names_of_artifacts,
    next_number,
    runs_of,
    search,
)
from sgdstudy.tracking.scratch import scratch
from sgdstudy.tracking.store import Store
from sgdstudy.tracking.tracked_run import INVOCATION, NUMBER, TrackedRun, order_of
from sgdstudy.tracking.writing import writing

log = logging.getLogger("sgdstudy")
FORMAT = 1
OURS = re.compile(rb"PK\x03\x04.{26}[0-9a-f]{32}/run\.json", re.DOTALL)  # how a file begins
LATEST_MS = 10**15  # what comes after takes no more digits: the year is 33658
PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MOST_JSON = 8_000_000  # bytes of one run.json: a journal reads `shapes.MOST_BYTES`
ID = re.compile("[0-9a-f]{32}")
ROWS = [f"{kind}.parquet" for kind in AXIS]
NAME = re.compile(r"([0-9a-f]{32})/(run\.json|artifacts/([^/\\\0]+))")


def _kept(value: Any) -> bool:
    """Whether it is a name that a store keeps: of a run, a tag, a param, a metric."""
    try:
        return bool(value.encode()) and len(value) <= checks.LONGEST_NAME
    except (AttributeError, UnicodeEncodeError):  # not a text, or one that UTF-8 cannot write
        return False


def _time(value: Any) -> bool:
    """Whether it is a time in ms since 1970."""
    return shapes.whole(value) and 0 <= value < LATEST_MS


def _of_another_version(value: Any) -> bool:
    return isinstance(value, dict) and value.get("format", FORMAT) != FORMAT


_named = shapes.by_name(shapes.text, _kept)
RUN = shapes.fields(
    {
        "format": shapes.whole,
        "study": shapes.text,
        "name": _kept,
        "status": shapes.text,
        "tags": _named,
        "params": _named,
        "points": shapes.each(shapes.row(_kept, shapes.whole, shapes.number, _time)),
        "start_ms": _time,
        "end_ms": _time,
        "data": shapes.any_of(
            shapes.nothing,
            shapes.fields(
                {"name": _kept, "digest": _kept, "profile": shapes.by_name(shapes.plain)}
            ),
        ),
    }
)


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
    require_free(path, "a packed file", (".zip",), lambda first: OURS.match(first) is not None)
    runs: dict[str, tuple[str, TrackedRun]] = {}
    names = list(names)
    for name in names:
        for study, run in _chosen(store, name, invocation):
            runs[run.run_id] = study, run
    if not runs:
        raise InputError(f"there is no run of {', '.join(names)} to pack")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        how: dict[str, Any] = {"compression": zipfile.ZIP_DEFLATED, "strict_timestamps": False}
        with replacing(path) as draft, zipfile.ZipFile(draft, "w", **how) as file:
            for study, run in runs.values():
                with _kept_meanwhile(store, run):
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


@contextmanager
def _kept_meanwhile(store: Store, run: TrackedRun) -> Iterator[None]:
    """Say so where somebody drops a run while it is packed."""
    try:
        yield
    except (InputError, OSError):
        try:
            dropped = store.client.get_run(run.run_id).info.lifecycle_stage == "deleted"
        except Refused as error:
            dropped = error.code == "RESOURCE_DOES_NOT_EXIST"
        if not dropped:
            raise
        text = to_say("the run {run} was dropped meanwhile; nothing is packed, try again")
        raise InputError(say(text, run=named([run]))) from None


def _add(file: zipfile.ZipFile, store: Store, study: str, run: TrackedRun) -> None:
    if run.status == "RUNNING":
        text = to_say("the run {run} is going on; pack it when it is over")
        raise InputError(say(text, run=named([run])))
    if aside.folders_of(store, run.tags.get(KEY, "")):
        text = to_say("what the run {run} recorded is set aside: sgdstudy recover says why")
        raise InputError(say(text, run=named([run])))
    there = names_of_artifacts(store, run)
    names = [name for name in there if _is_name(name)]
    told = [f"{kind}.parquet" for kind in AXIS if had_rows(store, run, kind)] + _told(run)
    lost = [name for name in dict.fromkeys(told) if name not in names]
    others = names_of_artifacts(store, run, files=False)
    for name in lost:
        if name in others:
            raise InputError(_no_file(run, name))
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
    description = json.dumps(about)
    if len(description) > MOST_JSON:
        text = to_say("the run {run} has too many points to be packed: {size:.0f} MB of text")
        raise InputError(say(text, run=named([run]), size=len(description) / 1e6))
    dated = zipfile.ZipInfo(f"{run.run_id}/run.json")  # in 1980: a zip holds no year after 2107
    file.writestr(dated, description, zipfile.ZIP_DEFLATED)
    for name in [*others, *sorted({*there} - {*names})]:
        which = {"name": repr(name), "run": named([run])}
        text = to_say("{name} of the run {run} is left out: only files with plain names are packed")
        log.warning("%s", say(text, **which))
    with scratch() as folder:
        for name in names:
            found = artifact(store, run, name, folder)
            if found is None or not found.is_file():
                raise InputError(_no_file(run, name))
            file.write(found, f"{run.run_id}/artifacts/{name}")


def _told(run: TrackedRun) -> list[str]:
    """Return the files that a run has by its tags: of one that was cut off, those of its rows."""
    names = [*run.sums, *run.figures]
    return names if run.finished else [name for name in names if name in ROWS]


def _no_file(run: TrackedRun, name: str) -> str:
    text = to_say("{name} of the run {run} is not a file; it is not packed")
    return say(text, name=name, run=run.run_id)


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


@dataclass(frozen=True)
class Unpacked:
    """What came of the runs of a file, by their ids there.

    Attributes:
        added: the store has them now.
        there: it had them already.
        kept: it does not take them: they wait, or are set aside, and `recover` says why.
    """

    added: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def unpack(store: Store, path: Path) -> Unpacked:
    """Add the runs of a file to a store, under new ids.

    Each keeps its first id as the tag `sgdstudy.unpacked_from`; one that is there already, as
    itself or unpacked, is left out.

    Raises:
        InputError: not a file that `pack` wrote, or one that names other files than a run's own;
            nothing was added then.
    """
    with _opened(path) as file:
        runs = _listed(file, path, store)
        for run_id, names in runs.items():  # all, before any is added; one in memory at a time
            _require_told(_read(file, path, run_id), run_id, names)
        done = Unpacked()
        for run_id, names in runs.items():
            about = _read(file, path, run_id)
            with writing(store, about["study"], f"the run {run_id}", fresh=False):
                if _origin(run_id, about) in aside.origins(store):  # since an earlier try
                    kind = done.kept
                elif _is_there(store, run_id, about):
                    kind = done.there
                else:
                    if _is_there(store, run_id, about, deleted=True):
                        text = to_say(
                            "the run {run} was deleted in MLflow; it is added as a new one"
                        )
                        log.warning("%s", say(text, run=f"{about['name']} ({run_id[:8]})"))
                    taken = _insert(store, file, run_id, about, names)
                    kind = done.added if taken else done.kept
                kind.append(run_id)
    return done


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    damaged = (
        *(zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, zlib.error),
        UnicodeDecodeError,  # a name
    )
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
    _require_whole(path, len(file.infolist()))
    runs: dict[str, list[str]] = {}
    for info in file.infolist():
        found = NAME.fullmatch(info.filename)
        kind = stat.S_IFMT(info.external_attr >> 16)
        plain = info.compress_type in PLAIN and not info.flag_bits & 1  # encrypted
        if not plain or not found or not _is_name(found[3]) or kind not in (0, stat.S_IFREG):
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
    try:
        bad = file.testzip()  # all of it, before any of it is added
    except (OSError, OverflowError, ValueError) as error:  # a place that no file has
        raise zipfile.BadZipFile(str(error)) from None
    if bad is not None:
        raise zipfile.BadZipFile(f"{bad} is not what was packed")
    return runs


def _require_whole(path: Path, found: int) -> None:
    """Refuse a file whose list of entries is not as its end tells.

    `zipfile` does not compare them: where one length in the list is wrong, entries are passed over.
    """
    length = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(length - 98, 0))
        data = file.read()
    if data.startswith(b"PK\x06\x06"):  # one with very much in it has an end of 98 bytes
        end, (told, size, begin) = 98, struct.unpack_from("<3Q", data, 32)
    else:
        end, (told, size, begin) = 22, struct.unpack_from("<H2L", data, len(data) - 12)
    if told != found or begin + size + end != length:
        raise zipfile.BadZipFile(say("its list of files is not whole"))


def _require_told(about: dict[str, Any], run_id: str, names: list[str]) -> None:
    """Refuse a run without a file that its tags name."""
    known = {
        name: about[name] for name in ("name", "status", "tags", "params", "start_ms", "end_ms")
    }
    run = TrackedRun(run_id=run_id, metrics={}, artifact_uri="", **known)
    lost = [name for name in dict.fromkeys(_told(run)) if f"artifacts/{name}" not in names]
    if lost:
        text = to_say("it lacks the {kinds} of {run}")
        raise zipfile.BadZipFile(say(text, kinds=", ".join(lost), run=named([run])))


def _is_name(name: str | None) -> bool:
    """Whether a file can be called so; None: it is the description."""
    if name is None:
        return True
    try:
        name.encode()  # a name that is not UTF-8 is none in a packed file
        checks.file_name("an artifact's name", name)
    except (InputError, UnicodeEncodeError):
        return False
    return True


def _read(file: zipfile.ZipFile, path: Path, run_id: str) -> dict[str, Any]:
    """Return what is known of a run, once all of it is of the right kind."""
    info = file.getinfo(f"{run_id}/run.json")
    too_large = say("{path}: {name} is too large", path=path, name=info.filename)
    if info.file_size > MOST_JSON:
        raise InputError(too_large)
    fits = shapes.any_of(RUN, _of_another_version)
    about: dict[str, Any] = shapes.parsed(file.read(info), fits, f"{path}: {info.filename}")
    if _of_another_version(about):
        text = to_say("{path} was packed by another version; upgrade sgdstudy")
        raise InputError(say(text, path=path))
    if about["status"] not in ("FINISHED", "FAILED", "KILLED"):
        text = to_say("{path}: run {run} has the status {status}")
        raise InputError(say(text, path=path, run=run_id, status=repr(about["status"])))
    checks.folder_name("the study", about["study"])
    if len(json.dumps(about)) > MOST_JSON:  # as the journal writes it
        raise InputError(too_large)
    about["points"] = [tuple(point) for point in about["points"]]
    return about


def _origin(run_id: str, about: dict[str, Any]) -> str:
    """Return the id that a run had in the store where it was trained."""
    said: str = about["tags"].get(ORIGIN, "")
    return said if ID.fullmatch(said) else run_id


def _is_there(store: Store, run_id: str, about: dict[str, Any], deleted: bool = False) -> bool:
    """Whether a store has a run, as itself or unpacked, on whatever way it came here.

    Args:
        store: where to look.
        run_id: its id in the packed file.
        about: what is known of it.
        deleted: whether it has it as one that was deleted in MLflow.
    """
    experiment = [store.experiment(about["study"])]
    for known in {run_id, _origin(run_id, about)}:
        for only in (f"tags.`{ORIGIN}` = '{known}'", f"attributes.run_id = '{known}'"):
            if search(store, experiment, only, most=1, deleted=deleted):
                return True
    return False


def _number(store: Store, about: dict[str, Any]) -> dict[str, str]:
    """Return the tag that orders a run's invocation here: none is later than one that begins."""
    if not about["tags"].get(INVOCATION):
        return {}
    number = order_of(about["tags"], about["start_ms"])
    if number > now_ms():  # another store's, whose clock was wrong
        number = min(number, int(next_number(store, about["study"])))
    return {NUMBER: f"{number:015d}"}


def _insert(
    store: Store, file: zipfile.ZipFile, run_id: str, about: dict[str, Any], names: list[str]
) -> bool:
    """Make a run of what was packed, and of its artifacts; whether the store has it now."""
    tags = {name: text for name, text in about["tags"].items() if name not in (KEY, NUMBER)}

    def copy(name: str, target: Path) -> None:
        with file.open(f"{run_id}/{name}") as source, open(target, "wb") as to:
            shutil.copyfileobj(source, to)

    files: dict[str, Callable[[Path], object]] = {
        Path(name).name: functools.partial(copy, name) for name in names if name != "run.json"
    }
    opening = Opening(
        about["study"],
        about["name"],
        tags | _number(store, about) | {ORIGIN: _origin(run_id, about)},
        about["params"],
        data=about["data"],
        start_ms=about["start_ms"],
    )
    journal = Journal.begin(store, opening, files, send=False)
    try:
        closing = Closing(about["status"], points=about["points"], end_ms=about["end_ms"])
        taken = journal.close(closing)
    except BaseException:
        if not journal.closed:  # nothing is lost: the packed file still has the run
            journal.remove()
        raise
    if journal.refusal is not None and journal.run_id is not None:
        with suppress(InputError):  # it is of no process of this machine: nobody would close it
            store.client.set_terminated(journal.run_id, status="FAILED")
    return taken
