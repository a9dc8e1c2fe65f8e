"""Building the arm that a tracked run was again, from its tags and its script."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path, PureWindowsPath
from typing import Any

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted
from sgdstudy.language import parted, to_say
from sgdstudy.language import say as in_words
from sgdstudy.recipe.config import TrainConfig
from sgdstudy.secrecy import recordable
from sgdstudy.studies import helpers
from sgdstudy.studies.arm import Arm, Options, at_settings, split_point
from sgdstudy.studies.scripts import find_scripts, load_study
from sgdstudy.studies.study import Study
from sgdstudy.tracking import describe, shapes
from sgdstudy.tracking.runs import find_run
from sgdstudy.tracking.store import Store
from sgdstudy.tracking.tracked_run import TrackedRun

ROUNDING = 1e-9  # relative; what theory gives is known to more digits
SWEPT = ("sgdstudy.arm", "sgdstudy.record", "sgdstudy.settings")
NEEDED = ("sgdstudy.study", "sgdstudy.script", "sgdstudy.options", "sgdstudy.config_hash")
RECORDS = ("epochs", "steps")


def find_finished(store: Store, run_id: str) -> TrackedRun:
    """Return a run that can be built again and compared with.

    Raises:
        InputError: there is none of this id, it is not an arm of a study, or did not finish.
    """
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


def script_of(run: TrackedRun, given: str | None, say: Callable[[str], None]) -> Path:
    """Return the script that a run is of: one of the present project, or what the user names.

    Raises:
        InputError: it is gone, or of another project.
    """
    if given is not None:
        return checks.path("--script", given)
    tag, scripts = run.tags["sgdstudy.script"], find_scripts()
    tag = PureWindowsPath(tag).name if "\\" in tag else tag  # of another machine: its name tells
    told = checks.path("the script of the run", tag)
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


def rebuilt(run: TrackedRun, script: Path) -> tuple[Study, Arm, dict[str, str]]:
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
    values = options_of(run, "sgdstudy.options")
    options = _options(
        study, {f.name: values[f.name] for f in fields(study.options) if f.name in values}
    )
    with helpers.beside(script):
        if "sgdstudy.settings" not in tags:
            every = replace(options, answer=True)  # arms: an older version left none out
            arms = study.placed_arms(every)
            return study, options, {recordable(name): arm for name, arm in arms.items()}
        settings, changed = split_point(options_of(run, "sgdstudy.settings"))
        record = checks.choice("record", tags.get("sgdstudy.record"), RECORDS)
        base = study.placed_arms(_options(study, {**vars(options), **changed}))
        told = tags.get("sgdstudy.arm", "")
        arm = next((arm for name, arm in base.items() if recordable(name) == told), None)
        return study, options, {} if arm is None else {run.name: at_settings(arm, settings, record)}


def options_of(run: TrackedRun, tag: str) -> dict[str, Any]:
    """Return the options that a tag of a run tells."""
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
        unlike = [then_and_now(n, run.params.get(n), params[n]) for n in other]
        what = parted(unlike) if other else ""
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


def then_and_now(name: str, then: str | None, now: str | None) -> str:
    """Say what is not as it was."""
    given = {"name": name, "then": str(then), "now": str(now)}
    return in_words("{name}: {then} then, {now} now", **given)
