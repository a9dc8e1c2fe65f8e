"""Finishing what other processes left behind: runs that were cut off, runs not sent yet."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from sgdstudy.errors import Refused, StoreError, shortened
from sgdstudy.language import parted, to_say
from sgdstudy.language import say as in_words
from sgdstudy.tracking import strays
from sgdstudy.tracking.aside import place_of
from sgdstudy.tracking.entries import KEY, ORIGIN
from sgdstudy.tracking.journal import Journal, LeftAlone
from sgdstudy.tracking.provenance import Process, starts_in
from sgdstudy.tracking.retry import is_away, reason_of
from sgdstudy.tracking.runs import experiments, search
from sgdstudy.tracking.scratch import PREFIX, remove_left
from sgdstudy.tracking.sink import close_interrupted, restore_rows, room_on_disk
from sgdstudy.tracking.store import Store, open_store
from sgdstudy.tracking.tracked_run import TrackedRun

log = logging.getLogger("sgdstudy")
MOST_TRIES = 3  # to send a run to a server that answers, and fails at this one


@dataclass(frozen=True)
class Recovered:
    """What was found: names of runs.

    Attributes:
        closed: cut off, and closed now.
        sent: ended while the store was away, and in the store now.
        waiting: still not in the store.
        refused: the store does not take them; set aside.
        damaged: closed with less rows than were written: the names, and what is missing.
        left: not finished now, and why: too little memory, for instance, or a folder's damage.
    """

    closed: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        words = {
            to_say("finished {runs} that had been cut off"): self.closed,
            to_say("sent {runs} that the store had missed"): self.sent,
            to_say("kept {runs} for sgdstudy recover: the store does not take them now"):
                self.waiting,
            to_say("set aside {runs} that the store refuses, sgdstudy recover says why"):
                self.refused,
        }  # fmt: skip
        counts = [(text, len(names)) for text, names in words.items() if names]
        parts = [in_words(t, runs=in_words("{n} run", "{n} runs", n=n)) for t, n in counts]
        return parted(all_of) if (all_of := [*parts, *self.damaged, *self.left]) else ""


def start(given: str | None, say: Callable[[str], None], make: bool = True) -> Store:
    """Open the store and finish what was left behind, as every command does that writes.

    Args:
        given: see `store.locate`.
        say: takes lines of text.
        make: whether a store that does not exist is made.

    Raises:
        InputError: see `store.open_store`.
        StoreError: the disk is full.
    """
    store = open_store(given, make)
    text = str(recover(store))
    if text:
        say(text)
    return store


def recover(store: Store) -> Recovered:
    """Close the runs whose process is gone, and send what was not sent; living ones are left.

    A run that lives is known by the lock it holds on its folder. One without a folder is judged by
    its tags, and only if it was started on this machine.

    Raises:
        StoreError: the disk is full.
    """
    found, away = Recovered(), False
    for place in (store.streams.parent, store.streams, place_of(store)):
        remove_left(place)
    found.left.extend(strays.put_right(store))
    for name in sorted(_folders(store)):
        try:
            journal = Journal.orphan(store, store.streams / name)
        except LeftAlone as error:
            found.left.append(str(error))
            continue
        if journal is None:
            continue
        name = shortened(f"{journal.opening.study}: {journal.opening.name}")
        try:
            kind = _finish(journal, found, away)
        except StoreError:
            raise
        except Exception as error:  # this one is not as we write them; the others are finished
            if why := error if is_away(error) else _set_aside(journal, name, error):
                journal.let_go()
                text = to_say("{name} is left to sgdstudy recover: {why}")
                found.left.append(in_words(text, name=name, why=reason_of(why)))
                continue
            kind = found.refused
        if journal.stays:
            found.left.append(journal.stays)
            continue
        kind.append(name)
        if journal.lost:
            text = to_say("{name}: {lost}; the stream is kept as *.arrow.damaged")
            found.damaged.append(in_words(text, name=name, lost=journal.lost))
        if kind is found.waiting and not away:
            away = store.root is not None or not _answers(store)
    if not away:
        try:
            found.closed.extend(_close_lost(store))
        except Exception as error:
            if not is_away(error):  # else the next command looks again
                raise
    return found


def _finish(journal: Journal, found: Recovered, away: bool) -> list[str]:
    """Close or send a run that was left behind; return the list that it belongs to.

    One at which a store fails that answers everything else is refused after a few commands, and is
    not waited for meanwhile.
    """
    if away:  # the store is not asked again for each of them
        journal.let_go()
        return found.waiting
    ended, patience = journal.closed, 0.0 if journal.tries else None
    # if it were closed now, it would look as if it had been unpacked whole
    if not ended and ORIGIN in journal.opening.tags:
        what = shortened(f"{journal.opening.study}: {journal.opening.name}")
        text = to_say("{run} was being unpacked and is not whole; unpack its file again")
        log.warning("%s", in_words(text, run=what))
        journal.remove()
        return []
    with room_on_disk(journal.opening.name, journal.store):
        if ended:
            restore_rows(journal)
        sent = (
            journal.send(patience)
            if ended
            else close_interrupted(journal, "KILLED", None, patience)
        )
        if sent:
            return found.sent if ended else found.closed
        if journal.refusal is None and journal.store.root is None and _answers(journal.store):
            journal.note_try(MOST_TRIES)
    return found.waiting if journal.refusal is None else found.refused


def _set_aside(journal: Journal, name: str, error: Exception) -> OSError | None:
    """Set a run aside that cannot be finished; return why it cannot, as in another's folder."""
    why = in_words("it cannot be finished ({why})", why=reason_of(error))
    try:
        with room_on_disk(name, journal.store):
            journal.set_aside(why)
    except OSError as refused:
        return refused
    return None


def _answers(store: Store) -> bool:
    """Whether the store, which failed at a run, answers what has nothing to do with that."""
    try:
        return store.client.search_experiments(max_results=1) is not None
    except Exception:
        return False


def _folders(store: Store) -> set[str]:
    names = {folder.name for folder in store.streams.glob("*")}
    return {name for name in names if not name.startswith(PREFIX)}  # else one is being moved there


def _has_folder(store: Store, key: str) -> bool:
    return key in _folders(store) or key in (of for _, of in strays.misnamed(store))


def _close_lost(store: Store) -> list[str]:
    """Close the running runs of this machine that have no folder and no process.

    A folder that has another name than its run's is one all the same: a person may put it right.

    Of a server's runs another machine may have the name of this one; a living run of a local store
    has its folder there.

    A run may end, and its process with it, while we look: it is asked for its status again once
    its process is known to be gone, when nobody but us changes it any more.
    """
    client = store.client
    ids = [experiment.experiment_id for _, experiment in experiments(store)]
    starts = None if store.root is not None else starts_in(store.streams.parent)
    closed = []
    for run in _running(store, ids):
        tags = run.tags
        names = [tags.get(f"sgdstudy.{name}", "") for name in ("host", "boot_id", "pid")]
        if Process(*names).is_gone(starts) and not _has_folder(store, tags[KEY]):
            if client.get_run(run.run_id).info.status != "RUNNING":
                continue
            try:
                client.set_tag(run.run_id, "stop_reason", "interrupted")
                client.set_terminated(run.run_id, status="KILLED")
            except Refused as error:
                if error.status != 403:
                    raise
                continue  # another person's, theirs to close
            closed.append(f"{tags.get('sgdstudy.study', 'unknown')}: {run.name}")
    return closed


def _running(store: Store, ids: list[str]) -> list[TrackedRun]:
    """Return the runs of ours that are RUNNING; those of experiments that can be read."""
    only = f"attributes.status = 'RUNNING' AND tags.`{KEY}` LIKE '%'"
    try:
        return search(store, ids, only)
    except Refused as error:
        if len(ids) > 1:
            return [run for one in ids for run in _running(store, [one])]
        which = {"name": ids[0] if ids else "", "why": str(error)}
        log.warning("%s", in_words("experiment {name} is left out: {why}", **which))
        return []
