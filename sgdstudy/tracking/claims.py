"""The claims that a store has, as pandas; those of any version of ours."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sgdstudy.errors import InputError
from sgdstudy.language import say
from sgdstudy.tracking import shapes
from sgdstudy.tracking.retry import is_away
from sgdstudy.tracking.runs import artifact, lacks_files, named, runs_of
from sgdstudy.tracking.scratch import scratch
from sgdstudy.tracking.store import Store, read_store
from sgdstudy.tracking.tracked_run import TrackedRun

CLAIM_FIELDS = (
    *("name", "arm", "expected", "measured", "tolerance", "holds", "source", "kind", "guess"),
)
NOT_FINITE = {"inf": np.inf, "-inf": -np.inf, "nan": np.nan}
log = logging.getLogger("sgdstudy")


def load_claims(
    study: str, *, invocation: str = "latest", store: str | None = None
) -> pd.DataFrame:
    """Return the claims of a study: `CLAIM_FIELDS`, and the columns study and invocation.

    `kind` is prediction, identity or description; `guess` is what `--predict` was told, inf for
    never, NaN where nothing was.

    Args:
        study: an experiment's name, as `ex6_shuffle`.
        invocation: `latest` (yours, where several people share a server), `all`, or an id.
        store: see `store.locate`.

    Raises:
        InputError: a study or an invocation that is not in the store.
    """
    return claims_table(claims_of(read_store(store), study, invocation))


def claims_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return claims as a table, which has its columns without any too."""
    table = pd.DataFrame(rows, columns=None if rows else [*CLAIM_FIELDS, "study", "invocation"])
    return table.astype({"guess": float})


def claims_of(
    store: Store, study: str, invocation: str, whole: bool = False
) -> list[dict[str, Any]]:
    """Return the claims of a study; a damaged file is done without and said, or refused.

    Args:
        store: where they are.
        study: an experiment's name.
        invocation: `latest`, `all`, or an id.
        whole: refuse what is damaged.

    Raises:
        InputError: a study or an invocation that is not in the store; a damaged file, where whole.
    """
    found = []
    with scratch() as folder:
        for run in runs_of(store, study, invocation, None, answers=True):
            labels = {name: run.labels(study)[name] for name in ("study", "invocation")}
            found += [claim | labels for claim in claims_of_run(store, run, folder, whole)]
    return found


def claims_of_run(
    store: Store, run: TrackedRun, folder: Path, whole: bool = False
) -> list[dict[str, Any]]:
    """Return the claims of an `answer` run; a remote file is fetched into the folder."""
    try:
        path = artifact(store, run, "claims.json", folder)
        if path is not None:
            return read_claims(path, run.sums.get(path.name))
        if run.finished and ("claims.json" in run.sums or lacks_files(store, run)):
            raise InputError(say("the store lacks the claims of {run}", run=named([run])))
        return []
    except InputError as error:
        if whole or is_away(error):
            raise
        log.warning("%s", say("{why}; it is done without", why=str(error)))
        return []


def read_claims(path: Path, crc: str | None = None) -> list[dict[str, Any]]:
    """Return the claims of a `claims.json`, by any version of ours.

    Args:
        path: where it is.
        crc: its checksum, as it was written; None: nobody knows it.

    Raises:
        Damaged: it is not what we write there.
    """
    claims = shapes.parsed(shapes.read_text(path, crc=crc) or "", shapes.CLAIMS, str(path))
    return [
        {name: finite_or_not(value) for name, value in claim.items()}
        | {"kind": kind_of(claim), "guess": finite_or_not(claim.get("guess"))}
        for claim in claims
    ]


def kind_of(claim: Mapping[str, Any]) -> str:
    """Return the kind of a claim of a `claims.json`; those of older stores do not name it."""
    named: str | None = claim.get("kind")
    return named or ("description" if claim["expected"] is None else "prediction")


def finite_or_not(value: Any) -> Any:
    """Undo what JSON needs: non-finite values are strings there."""
    if isinstance(value, list):
        return [finite_or_not(item) for item in value]
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value
