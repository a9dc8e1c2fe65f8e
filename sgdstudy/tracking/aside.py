"""Runs that cannot be sent: kept beside the others with the reason, until a person decides.

    streams/KEY     a run that goes on, or waits for its store
    aside/KEY       one that the store refuses; reason.txt says why

No other command looks at them: `sgdstudy recover` tries again, `recover --discard KEY` drops them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgdstudy.errors import InputError, one_line, shortened
from sgdstudy.history.shared import make_folder, share
from sgdstudy.language import say, to_say, unknown
from sgdstudy.tracking import shapes
from sgdstudy.tracking.durable import move_folder
from sgdstudy.tracking.entries import A_KEY, KEY, ORIGIN
from sgdstudy.tracking.places import links_in, remove_folder
from sgdstudy.tracking.retry import reason_of
from sgdstudy.tracking.store import Store

log = logging.getLogger("sgdstudy")
REASON = "reason.txt"
AGAIN = "-again"  # is added to a folder's name where that name is taken there


@dataclass(frozen=True)
class Aside:
    """A run that is set aside.

    Attributes:
        folder: what it recorded; its name is the run's key.
        name: its study and its name.
        invocation: what it belongs to.
        reason: in one line.
    """

    folder: Path
    name: str
    invocation: str
    reason: str

    def __str__(self) -> str:
        return f"{self.folder.name}  {self.name}: {self.reason}"


def put(store: Store, folder: Path, reason: str) -> Path:
    """Set a run's folder aside; return where it lies now."""
    place = place_of(store) / folder.name
    while place.exists():  # taken, for instance by a copy of it
        place = place.with_name(place.name + AGAIN)
    make_folder(place.parent)
    (folder / REASON).write_text(one_line(reason) + "\n", encoding="utf-8")
    share(folder / REASON)
    move_folder(folder, place)
    return place


def folders_of(store: Store, key: str) -> list[Path]:
    """Return what a run recorded that is set aside, by its key, which anybody may have written."""
    return sorted(place_of(store).glob(f"{key}*")) if A_KEY.fullmatch(key) else []


def listed(store: Store) -> list[Aside]:
    """Return the runs of a store that are set aside, oldest first."""
    found = []
    for folder, told in told_in(place_of(store)):
        if is_of(store, told):
            name = shortened(one_line(f"{told['study']}: {told['name']}"))
            reason = say("nobody wrote down why")
            with suppress(OSError, ValueError):
                reason = shapes.read_text(folder / REASON) or reason
            invocation = told["tags"].get("sgdstudy.invocation", "")
            found.append(Aside(folder, name, invocation, one_line(reason)))
    return found


def origins(store: Store) -> set[str]:
    """Return the first ids of runs that were unpacked, and wait or are set aside."""
    told = [told for place in (store.streams, place_of(store)) for _, told in told_in(place)]
    return {one["tags"].get(ORIGIN, "") for one in told if is_of(store, one)}


def put_back(store: Store) -> None:
    """Let the runs that are set aside be tried again, each by its own name."""
    for one in listed(store):
        make_folder(store.streams)
        place = store.streams / one.folder.name.partition(AGAIN)[0]
        try:
            move_folder(one.folder, place)
            (place / REASON).unlink(missing_ok=True)
        except OSError as error:
            if not place.exists():  # else one of this name is there: whoever looks at both sees it
                text = to_say("{folder} is left alone: {why}")
                log.warning("%s", say(text, folder=str(one.folder), why=reason_of(error)))


def discard(store: Store, key: str) -> Aside:
    """Remove a run that is set aside, with all it recorded.

    Raises:
        InputError: there is none of that key, or it cannot be deleted.
    """
    found = {one.folder.name: one for one in listed(store)}
    if key not in found:
        raise unknown(to_say("run set aside"), key, found or [say("none is")])
    if why := remove_folder(found[key].folder):
        text = to_say("{folder} cannot be deleted ({why}); the run is kept")
        raise InputError(say(text, folder=str(found[key].folder), why=why))
    return found[key]


def elsewhere(store: Store) -> dict[str, int]:
    """Return how many runs wait on this machine for other stores, by their addresses."""
    counts: dict[str, int] = {}
    for _, told in told_in(store.streams):
        if not is_of(store, told):
            counts[told["store"]] = counts.get(told["store"], 0) + 1
    return counts


def told_in(place: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the folders of runs, and what each was told at its beginning; damaged ones are none."""
    for folder in sorted(place.glob("*")):
        with suppress(OSError, ValueError):
            if next(links_in(folder), None) is not None:  # to someone else's files
                continue
            told = shapes.read_json(folder / "opening.json", shapes.OPENING)
            if told:
                yield folder, told


def is_of(store: Store, told: dict[str, Any]) -> bool:
    """Whether a folder is of a run of this store, by what it was told at its beginning."""
    return store.owns(told["store"], told["tags"].get(KEY, ""))


def place_of(store: Store) -> Path:
    """Return the folder of the runs that are set aside."""
    return store.streams.with_name("aside")
