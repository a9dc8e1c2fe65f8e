"""Running a tracked run again, and comparing every recorded number, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from sgdstudy.errors import InputError
from sgdstudy.history.checksums import checked, readable
from sgdstudy.history.files import Files
from sgdstudy.history.rows import AXIS
from sgdstudy.language import say as in_words
from sgdstudy.language import to_say
from sgdstudy.studies import helpers
from sgdstudy.studies.rebuild import find_finished, options_of, rebuilt, script_of, then_and_now
from sgdstudy.studies.train_arms import train_arm
from sgdstudy.tracking import provenance, recovery
from sgdstudy.tracking.code import CODE, SAME, Code
from sgdstudy.tracking.foreign import require_numbers
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.load import had_rows
from sgdstudy.tracking.runs import artifact, named
from sgdstudy.tracking.scratch import scratch
from sgdstudy.tracking.store import Store
from sgdstudy.tracking.tracked_run import TrackedRun

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
    run = find_finished(opened, run_id)
    study, arm, tags = rebuilt(run, script_of(run, script, say))
    tags |= {"sgdstudy.rerun_of": run_id}
    code = helpers.code_of(study.file)
    changed = _changed(opened, run, code)
    for line in changed:
        say(in_words("not as it was, {line}", line=line))
    name = run.tags["sgdstudy.study"]
    told = options_of(run, "sgdstudy.options").get("answer") is not False
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
        InputError: it has none, or one is damaged or holds more than numbers.
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
    for kind, path in recorded.items():
        with readable(path):
            checked(path, run.sums.get(path.name))
            require_numbers(path, AXIS[kind])
    return recorded


def _changed(store: Store, run: TrackedRun, code: Code) -> list[str]:
    """Return in lines what is not as it was: texts of the code, versions, hardware."""
    now = {**code.tags, HARDWARE: provenance.hardware()}
    # a run of an older version of ours knows no texts, and its commit is that of the package
    names = [name for name in (*SAME, HARDWARE) if name in run.tags] or [HARDWARE]
    other = [name for name in names if run.tags[name] != now.get(name)]
    lines = [then_and_now(name, run.tags[name], now.get(name)) for name in other]
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
        names_of = ", ".join(others) or in_words("one that is gone, or lies in another folder")
        lines.append(in_words("files: {names}", names=names_of))
    return lines


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
    values: np.ndarray = file.read([name])[name].to_numpy()
    return values if values.dtype != object else values.astype(float)  # truth values, some missing


def _bits(values: np.ndarray) -> np.ndarray:
    """Return what can be compared bit by bit; every NaN is the same, and zeros have a sign."""
    if values.dtype.kind != "f":
        return values
    one_nan = np.where(np.isnan(values), np.nan, values).astype(np.float64)
    return one_nan.view(np.int64)
