"""The guesses of a class, as `--predict` took them, from what it hands in: stores and files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sgdstudy.errors import InputError, StoreError
from sgdstudy.language import say, to_say
from sgdstudy.tracking import database, read_only
from sgdstudy.tracking.address import DATABASE, databases_in, is_database
from sgdstudy.tracking.claims import claims_of_run, read_claims
from sgdstudy.tracking.places import FOLDERS
from sgdstudy.tracking.retry import is_away
from sgdstudy.tracking.runs import experiments, readable_runs
from sgdstudy.tracking.scratch import scratch
from sgdstudy.tracking.store import Store, read_store

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
        return [str(path) if is_database(path) else path]
    found: list[Path | str | None] = [*_walked(path)]
    if not found:
        text = to_say("{path} holds neither a store ({database}) nor a {claims}")
        raise InputError(say(text, path=path, database=DATABASE, claims=CLAIMS))
    return found


def _walked(path: Path) -> Iterator[Path | str]:
    """Yield the stores below a folder, by database, and the files that lie in none of them."""
    within = set[Path]()  # stores
    for name, below, files in os.walk(path):
        folder = Path(name)
        stores = [str(one) for one in databases_in(folder) if _is_store(one)]
        yield from stores
        if stores:
            within.add(folder)
            below[:] = set(below) - set(FOLDERS)
        elif CLAIMS in files and within.isdisjoint(folder.parents):
            yield folder / CLAIMS
        below.sort()


def _is_store(path: Path) -> bool:
    """Whether a database is MLflow's: other programs keep theirs in the same folders."""
    if path.name == DATABASE:
        return True
    try:
        with database.opened(path, read_only.query(path)) as connection:
            connection.execute("SELECT 1 FROM experiments, alembic_version LIMIT 1")
    except InputError:
        return False
    except (OSError, StoreError):  # it is said once it is read
        pass
    return True


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
                "from": _shown(store),
                "user": run.tags.get("mlflow.user", ""),
                "study": study,
                "invocation": run.invocation,
            }
            with scratch() as folder:
                claims = claims_of_run(store, run, folder)
            for claim in claims:
                yield from _row(claim, labels)


def _shown(store: Store) -> str:
    if store.database is None:
        return store.shown
    named = store.database.name == DATABASE
    return str(store.database.parent if named else store.database)


def _row(claim: Mapping[str, Any], labels: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    if claim["guess"] is not None:
        found = {**labels, **{name: claim[name] for name in VALUES}}
        yield {name: found.get(name, "") for name in COLUMNS}
