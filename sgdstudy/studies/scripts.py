"""The scripts of `experiments/`, found and loaded by name or path.

This module stays light to import: a script's `--help` must not wait for torch.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from sgdstudy.errors import InputError, reason, unknown
from sgdstudy.studies.study import Result, Study


def run(name: str, *, progress: bool | None = None, **options: Any) -> Result:
    """Run a study of `experiments/` by name or path, with its options as keywords.

    Raises:
        InputError: an unknown study or option.
    """
    study = load_study(name)
    allowed = [f.name for f in fields(study.options)]
    for option in options:
        if option not in allowed:
            raise unknown(f"option of {study.name}", option, allowed)
    return study.run(study.options(**options), progress=progress)


def find_scripts() -> dict[str, Path]:
    """Return the scripts of the nearest `experiments/`, or of the one beside the package."""
    here = Path.cwd()
    package = Path(__file__).resolve().parents[2]
    for folder in (here, *here.parents, package):
        paths = sorted((folder / "experiments").glob("[!_]*.py"))
        if paths:
            return {path.stem: path for path in paths}
    return {}


def load_study(name: str) -> Study:
    """Return the `STUDY` that a script declares, by name or path.

    Raises:
        InputError: no such script, or one without `STUDY`.
    """
    scripts = find_scripts()
    path = Path(name) if str(name).endswith(".py") else scripts.get(name)
    if path is None:
        raise unknown("study", name, scripts)
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path) if path.is_file() else None
    except (OSError, ValueError):  # a name that no file can have
        spec = None
    if spec is None or spec.loader is None:
        raise InputError(f"there is no script {path}; sgdstudy list shows those there are")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path} cannot be loaded: {reason(error)}") from error
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study):
        raise InputError(f"{path} declares no study; expected STUDY = ss.Study(...)")
    return study
