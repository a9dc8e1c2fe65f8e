"""Running a tracked run again, and comparing every recorded number, bit by bit."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted, recordable
from sgdstudy.history.checksums import checked, readable
from sgdstudy.history.rows import AXIS, Files
from sgdstudy.language import parted, to_say
from sgdstudy.language import say as in_words
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.studies import helpers
from sgdstudy.studies.arm import Arm, Options, at_settings, split_point
from sgdstudy.studies.runner import train_arm
from sgdstudy.studies.scripts import find_scripts, load_study
from sgdstudy.studies.study import Study
from sgdstudy.tracking import describe, provenance, recovery, shapes
from sgdstudy.tracking.code import CODE, SAME, Code
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.load import had_rows
from sgdstudy.tracking.runs import TrackedRun, artifact, find_run, named
from sgdstudy.tracking.scratch import scratch
from sgdstudy.tracking.store import Store

ROUNDING = 1e-9  # relative; what theory gives is known to more digits
SWEPT = ("sgdstudy.arm", "sgdstudy.record", "sgdstudy.settings")
NEEDED = ("sgdstudy.study", "sgdstudy.script", "sgdstudy.options", "sgdstudy.config_hash")
RECORDS = ("epochs", "steps")
HARDWARE = "sgdstudy.hardware"


@dataclass(frozen=True)
class Difference:
    """The first number that differs.

    Attributes:
        kind: `steps` or `epochs`.
        column: its name; "" where only the number of rows differs.
        seed: whose.
        at: the step or epoch.
        before: what was recorded.
        after: what came now.
    """

    kind: str
    column: str
    seed: int
    at: int
    before: float
    after: float

    def __str__(self) -> str:
        if not self.column:
            text = to_say("{before} rows of {kind} were recorded, now {after}")
            counts = {"before": int(self.before), "after": int(self.after)}
            return in_words(text, kind=self.kind, **counts)
        text = to_say(
            "first at {axis} {at} of seed {seed}, {column}: {before} was recorded, now {after}, "
            "off by {gap}"
        )
        where = {"axis": AXIS[self.kind], "at": str(self.at), "seed": str(self.seed)}
        gap = f"{self.after - self.before:.3g}"  # numbers as Python reads them
        values = {"before": repr(self.before), "after": repr(self.after), "gap": gap}
        return in_words(text, column=self.column, **where, **values)


@dataclass(frozen=True)
class Rerun:
    """What came of it.

    Attributes:
        run_id: of the new run.
        name: study and arm.
        difference: the first one; None if every number is the same.
        changed: what is not as it was: versions, hardware.
    """

    run_id: str
    name: str
    difference: Difference | None
    changed: list[str]

    def __str__(self) -> str:
        if self.difference is None:
            return in_words("{name}: identical", name=self.name)
        return in_words("{name}: differs, {how}", name=self.name, how=str(self.difference))


def rerun(
    run_id: str,
    *,
    store: str | None = None,
    script: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Rerun:
    """Rebuild a run's configuration from the store, run it again, and compare every row.

    The new run is tracked beside the old one, with the tag `sgdstudy.rerun_of`; it belongs to no
    invocation, so `latest` stays what it was. Anybody may have written into a store: only scripts
    of the present project are run, or one that is named here.

    Args:
        run_id: MLflow's id of an arm's run.
        store: see `store.locate`.
        script: the run's script; None: that of the present `experiments/`.
        say: takes lines of text.

    Raises:
        InputError: no such run, one that is not ours or did not finish, or a script that is gone,
            is of another project, or declares another configuration now.
    """
    opened = recovery.start(store, say, make=False)
    run = _find(opened, run_id)
    study, arm, tags = _rebuilt(run, _script_of(run, script, say))
    tags |= {"sgdstudy.rerun_of": run_id}
    code = helpers.code_of(study.file)
    changed = _changed(opened, run, code)
    for line in changed:
        say(in_words("not as it was, {line}", line=line))
    name = run.tags["sgdstudy.study"]
    told = _told(run, "sgdstudy.options").get("answer") is not False
    with scratch() as folder:
        recorded = _recorded(opened, run, folder)
        invocation = Invocation.start(opened, name, tags, code if told else code.by_hash())
        with helpers.beside(study.file):
            new_id, history = train_arm(invocation.outside(), run.name, arm, foretold=told)
        assert isinstance(history.sink, Files)
        found = [_compare(k, path, history.sink.paths[k]) for k, path in recorded.items()]
        for kind in history.sink.paths.keys() - recorded.keys():
            n = checked(history.sink.paths[kind]).metadata.num_rows
            found.append(Difference(kind, "", 0, 0, 0.0, float(n)))
    difference = next((d for d in found if d is not None), None)
    return Rerun(new_id, f"{name}, {run.name}", difference, changed)


def _recorded(store: Store, run: TrackedRun, folder: Path) -> dict[str, Path]:
    """Return the files of a run's rows, after a look at all of them.

    Raises:
        InputError: it has none, or one is damaged.
    """
    old = {kind: artifact(store, run, f"{kind}.parquet", folder) for kind in AXIS}
    recorded = {kind: path for kind, path in old.items() if path is not None}
    lost = [kind for kind in AXIS if kind not in recorded and had_rows(store, run, kind)]
    if lost:
        text = to_say("the store lacks the {kinds} of {run}")
        raise InputError(in_words(text, kinds=", ".join(lost), run=named([run])))
    if not recorded:
        text = to_say("the run {run} has no rows to compare with")
        raise InputError(in_words(text, run=run.run_id))
    for path in recorded.values():
        with readable(path):
            checked(path, run.sums.get(path.name))
    return recorded


def _find(store: Store, run_id: str) -> TrackedRun:
    run = find_run(store, run_id)
    if "sgdstudy.options" not in run.tags or run.is_answer:
        text = to_say("the run {run} is not an arm that a study of ours tracked")
        raise InputError(in_words(text, run=run_id))
    if not run.finished:
        text = to_say("the run {run} is {status}: only a finished one compares")
        raise InputError(in_words(text, run=run_id, status=run.status))
    for name in NEEDED:
        if name not in run.tags:
            text = to_say("the run {run} has no tag {name}: it cannot be rebuilt")
            raise InputError(in_words(text, run=run_id, name=name))
    return run


def _changed(store: Store, run: TrackedRun, code: Code) -> list[str]:
    """Return in lines what is not as it was: texts of the code, versions, hardware."""
    now = {**code.tags, HARDWARE: provenance.hardware()}
    # a run of an older version of ours knows no texts, and its commit is that of the package
    names = [name for name in (*SAME, HARDWARE) if name in run.tags] or [HARDWARE]
    lines = [_then(n, run.tags[n], now.get(n)) for n in names if run.tags[n] != now.get(n)]
    if CODE in run.tags and run.tags[CODE] != now.get(CODE):
        with scratch() as folder:
            then = {name: artifact(store, run, name, folder) for name in code.copies}
            others = [
                name
                for name, path in then.items()
                if path is None
                or path.stat().st_size != len(code.copies[name])
                or path.read_bytes() != code.copies[name]
            ]
        names_of = ", ".join(others) or in_words("one is gone")
        lines.append(in_words("files: {names}", names=names_of))
    return lines


def _then(name: str, then: str | None, now: str | None) -> str:
    given = {"name": name, "then": str(then), "now": str(now)}
    return in_words("{name}: {then} then, {now} now", **given)


def _script_of(run: TrackedRun, given: str | None, say: Callable[[str], None]) -> Path:
    """Return the script that a run is of: one of the present project, or what the user names.

    Raises:
        InputError: it is gone, or of another project.
    """
    if given is not None:
        return checks.path("--script", given)
    told, scripts = (
        checks.path("the script of the run", run.tags["sgdstudy.script"]),
        find_scripts(),
    )
    place = helpers.resolved(told)
    for path in scripts.values():
        if place is not None and helpers.resolved(path) == place:
            return path
    if told.stem in scripts:
        text = to_say("the run is of {script}; {ours} of this project is run")
        say(in_words(text, script=told, ours=scripts[told.stem]))
        return scripts[told.stem]
    if told.is_file():
        text = to_say(
            "the run is of {script}, which is not in the experiments/ of this project; if you "
            "trust it, give --script {path}"
        )
        raise InputError(in_words(text, script=told, path=shlex.quote(str(told))))
    text = to_say("the script {script} of this run is gone; change to its project's folder")
    raise InputError(in_words(text, script=told))


def _rebuilt(run: TrackedRun, script: Path) -> tuple[Study, Arm, dict[str, str]]:
    """Return the study and the arm that a run was, and the tags that say so.

    Where its script has no such arm any more, another page may have taken it over: an arm of the
    same name is the same one if its data and params are.
    """
    name = run.name
    study, options, arms = _declared(run, script)
    if name in arms:
        return study, _as_recorded(run, study, arms[name]), _tags(run, study, options)
    for other in find_scripts().values():
        if helpers.resolved(other) != helpers.resolved(script) and helpers.declares_study(other):
            with suppress(InputError):  # another arm of that name, or no study at all
                page, given, theirs = _declared(run, other)
                if name in theirs:
                    return page, _as_recorded(run, page, theirs[name]), _tags(run, page, given)
    words = {"study": study.name, "name": repr(name), "names": ", ".join(arms)}
    raise InputError(in_words("{study} has no arm {name} now; it has {names}", **words))


def _declared(run: TrackedRun, script: Path) -> tuple[Study, Options, dict[str, Arm]]:
    """Return a script, its options as the run had them, and its arms; of a sweep the run's own.

    Options that the script does not have (any more) are left out: whether an arm is still the same
    is seen by its params.
    """
    study, tags = load_study(str(script)), run.tags
    values = _told(run, "sgdstudy.options")
    options = _options(
        study, {f.name: values[f.name] for f in fields(study.options) if f.name in values}
    )
    with helpers.beside(script):
        if "sgdstudy.settings" not in tags:
            every = replace(options, answer=True)  # arms: an older version left none out
            arms = study.placed_arms(every)
            return study, options, {recordable(name): arm for name, arm in arms.items()}
        settings, changed = split_point(_told(run, "sgdstudy.settings"))
        record = checks.choice("record", tags.get("sgdstudy.record"), RECORDS)
        base = study.placed_arms(_options(study, {**vars(options), **changed}))
        told = tags.get("sgdstudy.arm", "")
        arm = next((arm for name, arm in base.items() if recordable(name) == told), None)
        return study, options, {} if arm is None else {run.name: at_settings(arm, settings, record)}


def _told(run: TrackedRun, tag: str) -> dict[str, Any]:
    what = f"the tag {tag} of the run {run.run_id}"
    found: dict[str, Any] = shapes.parsed(run.tags[tag], shapes.OPTIONS, what)
    return found


def _options(study: Study, values: Mapping[str, Any]) -> Options:
    """Return a script's options with values that a tag names.

    Raises:
        InputError: a value of another kind than the script's own.
    """
    for name, value in values.items():
        default = getattr(study.options, name, None)
        kinds = {bool: shapes.truth, int: shapes.whole, float: shapes.number, str: shapes.text}
        if not kinds.get(type(default), shapes.plain)(value):
            text = to_say("{name} of the run is not what {study} takes: {given}")
            raise InputError(in_words(text, name=name, study=study.name, given=quoted(value)))
    return study.chosen(**values)  # type: ignore[no-any-return]


def _tags(run: TrackedRun, study: Study, options: Options) -> dict[str, str]:
    """Return what it takes to run the arm again."""
    return {**study.tags(options), **{tag: run.tags[tag] for tag in SWEPT if tag in run.tags}}


def _as_recorded(run: TrackedRun, study: Study, arm: Arm) -> Arm:
    """Return the arm with the numbers of then.

    Raises:
        InputError: its data or params are others.
    """
    arm = arm.but(**_as_it_was(arm.config, run.params))
    params = describe.parameters(arm.problem, arm.config)
    other = [n for n, value in params.items() if run.params.get(n) != value[:6000]]
    if other or describe.config_hash(arm.problem, params) != run.tags["sgdstudy.config_hash"]:
        what = parted([_then(n, run.params.get(n), params[n]) for n in other]) if other else ""
        text = to_say("{study} declares {name} otherwise now: {what}")
        given = {"study": study.name, "name": repr(run.name)}
        raise InputError(in_words(text, what=what or in_words("other data"), **given))
    return arm


def _as_it_was(config: TrainConfig, params: Mapping[str, str]) -> dict[str, Any]:
    """Return the numbers of the settings, as they were then where those of now differ by rounding.

    Scripts derive step sizes from theory, whose last bits depend on threads and processors.
    """

    def then(name: str, now: Any) -> Any:
        if not isinstance(now, float) or name not in params:
            return now
        try:
            recorded = float(params[name])
        except ValueError:
            return now
        return recorded if math.isclose(recorded, now, rel_tol=ROUNDING) else now

    def all_of(prefix: str, options: Mapping[str, Any]) -> dict[str, Any]:
        return {name: then(f"{prefix}.{name}", value) for name, value in options.items()}

    stop = config.stop
    if isinstance(stop, tuple):
        stop = (stop[0], then("epsilon", stop[1]))
    return {
        "lr": then("lr", config.lr),
        "options": all_of("optimizer", config.options),
        "schedule_options": all_of("schedule", config.schedule_options),
        "stop": stop,
    }


def _compare(kind: str, old: Path, new: Path) -> Difference | None:
    """Return the earliest number that differs between two files; column by column in memory.

    Times, in columns called `..._seconds`, are no part of what a run computes.
    """
    files = []
    for path in (old, new):
        with readable(path):
            files.append(checked(path))
    counts = [file.metadata.num_rows for file in files]
    if counts[0] != counts[1]:
        return Difference(kind, "", 0, 0, *map(float, counts))
    axis = AXIS[kind]
    orders = [np.lexsort([_column(file, "seed"), _column(file, axis)]) for file in files]
    names = [name for name in files[0].schema_arrow.names if not name.endswith("_seconds")]
    first: tuple[int, str] | None = None
    for name in names if counts[0] else []:
        columns = [_column(f, name)[o] for f, o in zip(files, orders, strict=True)]
        unlike = np.flatnonzero(_bits(columns[0]) != _bits(columns[1]))
        if unlike.size and (first is None or unlike[0] < first[0]):
            first = (int(unlike[0]), name)
    if first is None:
        return None
    row, name = first
    values = [_column(f, name)[o][row].item() for f, o in zip(files, orders, strict=True)]
    seed, at = (int(_column(files[0], key)[orders[0]][row]) for key in ("seed", axis))
    return Difference(kind, name, seed, at, *values)


def _column(file: pq.ParquetFile, name: str) -> np.ndarray:
    """Return a column; one that the file lacks is empty."""
    if name not in file.schema_arrow.names:
        return np.full(file.metadata.num_rows, np.nan)
    values: np.ndarray = file.read([name]).column(0).to_numpy()
    return values


def _bits(values: np.ndarray) -> np.ndarray:
    """Return what can be compared bit by bit; every NaN is the same, and zeros have a sign."""
    if values.dtype.kind != "f":
        return values
    one_nan = np.where(np.isnan(values), np.nan, values).astype(np.float64)
    return one_nan.view(np.int64)
