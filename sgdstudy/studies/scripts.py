"""The scripts of `experiments/`, found and loaded by name or path.

This module stays light to import: a script's `--help` must not wait for torch.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

from sgdstudy.errors import InputError, message, place, reason
from sgdstudy.language import say as in_words
from sgdstudy.language import to_say, unknown
from sgdstudy.studies import helpers
from sgdstudy.studies.helpers import declares_study
from sgdstudy.studies.outcome import Result
from sgdstudy.studies.output import called
from sgdstudy.studies.study import Study, declared_only


def run(name: str, *, progress: bool | None = None, **options: Any) -> Result:
    """Run a study of `experiments/` by name or path, with its options as keywords.

    Raises:
        InputError: an unknown study or option.
    """
    study = load_study(name)
    return study.run(chosen(study, options), progress=progress)


def chosen(study: Study, options: Mapping[str, Any]) -> Any:
    """Return a study's options, of keywords.

    Raises:
        InputError: an unknown one.
    """
    allowed = [f.name for f in fields(study.options)]
    for option in options:
        if option not in allowed:
            raise unknown(in_words("option of {study}", study=study.name), option, allowed)
    return study.chosen(**options)


def find_scripts() -> dict[str, Path]:
    """Return the scripts of the nearest `experiments/`, or of the one beside the package.

    Raises:
        InputError: the current folder is gone.
    """
    try:
        here = Path.cwd()
    except OSError:
        raise InputError("the current folder is gone; change to one that is there") from None
    package = Path(__file__).resolve().parents[2]
    for folder in (here, *here.parents, package):
        paths = sorted((folder / "experiments").glob("[!_]*.py"))
        if paths:
            return {path.stem: path for path in paths}
    return {}


def load_studies(say: Callable[[str], None]) -> tuple[dict[str, Study], int]:
    """Return the studies of all scripts, and how many scripts cannot be loaded, each said.

    A file that declares no study is said too; it is no fault: a helper may lie there.
    """
    found, broken = {}, 0
    for name, path in find_scripts().items():
        if not declares_study(path):
            say(in_words("{name} is left out: it declares no study", name=path.name))
            continue
        try:
            found[name] = load_study(str(path))
        except InputError as error:
            say(in_words("{name} is left out: {why}", name=path.name, why=message(error)))
            broken += 1
    return found, broken


def load_study(name: str) -> Study:
    """Return the `STUDY` that a script declares, by name or path.

    Raises:
        InputError: no such script, or one without `STUDY`.
    """
    scripts = find_scripts()
    path = Path(name) if str(name).endswith(".py") else scripts.get(name)
    if path is None:
        raise unknown(to_say("study"), name, scripts)
    try:
        found = path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        found = False
    if not found and path.stem in scripts:
        text = to_say("there is no script {path}; did you mean {name}?")
        raise InputError(in_words(text, path=str(path), name=path.stem))
    if not found:
        text = to_say("there is no script {path}; sgdstudy list shows those there are")
        raise InputError(in_words(text, path=str(path)))
    study = vars(_executed(path)).get("STUDY")
    if not isinstance(study, Study):
        raise InputError(f"{path} declares no study; expected STUDY = ss.Study(...)")
    return study


def _executed(path: Path) -> ModuleType:
    """Execute a script as a module of a name that nothing else has.

    Raises:
        InputError: it cannot be executed.
    """
    path = path.absolute()
    name = f"{path.stem}@{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        with helpers.loading(path), declared_only(), _warnings_as_before():
            called(functools.partial(spec.loader.exec_module, module))
    except Exception as error:
        raise InputError(f"{path} cannot be loaded: {reason(error)}{place(error, path)}") from error
    return module


@contextmanager
def _warnings_as_before() -> Iterator[None]:
    """Let no warning be an error for what is ours, or another script's, because one script says so.

    Other filters stay: those that packages set when a script is the first to import them.
    """
    before = warnings.filters
    with warnings.catch_warnings():
        yield
        new = [each for each in warnings.filters if each not in before and each[0] != "error"]
        before[:0] = new  # type: ignore[index]  # a list, which this context puts back
