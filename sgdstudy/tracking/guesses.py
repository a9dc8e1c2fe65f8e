"""The guesses of a class, as `--predict` took them, from what it hands in: stores and files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sgdstudy.errors import InputError
from sgdstudy.language import say, to_say
from sgdstudy.tracking.address import DATABASE
from sgdstudy.tracking.claims import claims_of_run, read_claims
from sgdstudy.tracking.retry import is_away
from sgdstudy.tracking.runs import experiments, readable_runs
from sgdstudy.tracking.scratch import scratch
from sgdstudy.tracking.store import read_store

VALUES = ("name", "arm", "guess", "expected", "measured")  # of a claim
COLUMNS = ("from", "user", "study", "invocation", *VALUES)
CLAIMS = "claims.json"
log = logging.getLogger("sgdstudy")


def guesses(place: str | None) -> Iterator[dict[str, Any]]:
    """Yield the guesses that a place holds, by `COLUMNS`, those of a store oldest first.

    What is damaged is said, and left out.

    Args:
        place: a store, a `claims.json`, or a folder with any number of both; None: see
            `store.locate`.

    Raises:
        InputError: it is none of them.
    """
    for found in _within(place):
        try:
            yield from _of_file(found) if isinstance(found, Path) else _of_store(found)
        except InputError as error:
            if is_away(error):
                raise
            which = {"name": str(found), "why": str(error)}
            log.warning("%s", say("{name} is left out: {why}", **which))


def _within(place: str | None) -> list[Path | str | None]:
    """Return the files and the stores that a place is, or holds."""
    path = Path(place or "").expanduser()
    if place is None or "://" in place or not path.exists():
        read_store(place)  # it says what is wrong
        return [place]
    if path.is_file():
        return [str(path) if path.name == DATABASE else path]
    stores = sorted(found.parent for found in path.rglob(DATABASE))
    files = sorted(
        found for found in path.rglob(CLAIMS) if not any(s in found.parents for s in stores)
    )
    if not stores and not files:
        text = to_say("{path} holds neither a store ({database}) nor a {claims}")
        raise InputError(say(text, path=path, database=DATABASE, claims=CLAIMS))
    return [*map(str, stores), *files]


def _of_file(path: Path) -> Iterator[dict[str, Any]]:
    for claim in read_claims(path):
        yield from _row(claim, {"from": str(path)})


def _of_store(place: str | None) -> Iterator[dict[str, Any]]:
    store = read_store(place)
    for study, experiment in sorted(experiments(store), key=lambda one: one[0]):
        for run in readable_runs(store, experiment):
            if not run.is_answer:
                continue
            labels = {
                "from": store.shown if store.root is None else str(store.root),
                "user": run.tags.get("mlflow.user", ""),
                "study": study,
                "invocation": run.invocation,
            }
            with scratch() as folder:
                claims = claims_of_run(store, run, folder)
            for claim in claims:
                yield from _row(claim, labels)


def _row(claim: Mapping[str, Any], labels: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    if claim["guess"] is not None:
        found = {**labels, **{name: claim[name] for name in VALUES}}
        yield {name: found.get(name, "") for name in COLUMNS}
