"""Finishing what other processes left behind: runs that were cut off, runs not sent yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sgdstudy.tracking.journal import KEY, PATIENCE_SECONDS, Journal
from sgdstudy.tracking.provenance import Process
from sgdstudy.tracking.retry import is_away
from sgdstudy.tracking.runs import search
from sgdstudy.tracking.sink import close_interrupted, room_on_disk
from sgdstudy.tracking.store import Store, open_store


@dataclass(frozen=True)
class Recovered:
    """What was found: names of runs.

    Attributes:
        closed: cut off, and closed now.
        sent: ended while the store was away, and in the store now.
        waiting: still not in the store.
    """

    closed: list[str]
    sent: list[str]
    waiting: list[str]

    def __str__(self) -> str:
        words = {
            "finished {} that had been cut off": self.closed,
            "sent {} that the store had missed": self.sent,
            "kept {} for sgdstudy recover: the store does not take them now": self.waiting,
        }
        counts = [(text, len(names)) for text, names in words.items() if names]
        return "; ".join(text.format(f"{n} run{'s' * (n > 1)}") for text, n in counts)


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
    found = Recovered([], [], [])
    here = {folder.name for folder in store.streams.glob("*")}
    for name in sorted(here):
        journal = Journal.orphan(store, store.streams / name)
        if journal is None:
            continue
        ended = journal.closed
        patience = 0.0 if found.waiting else PATIENCE_SECONDS
        with room_on_disk(journal.opening.name, store):
            sent = (
                journal.send(patience)
                if ended
                else close_interrupted(journal, "KILLED", None, patience)
            )
        kind = found.waiting if not sent else found.sent if ended else found.closed
        kind.append(f"{journal.opening.study}: {journal.opening.name}")
    if not found.waiting:
        try:
            found.closed.extend(_close_lost(store, here))
        except Exception as error:
            if not is_away(error):  # else the next command looks again
                raise
    return found


def _close_lost(store: Store, here: set[str]) -> list[str]:
    """Close the running runs of this machine that have no folder and no process."""
    from mlflow.exceptions import MlflowException

    client = store.client
    prefix = store.experiment_name("")
    found = client.search_experiments()
    ids = [e.experiment_id for e in found if e.name.startswith(prefix)]
    only = f"attributes.status = 'RUNNING' AND tags.`{KEY}` LIKE '%'"
    closed = []
    for run in search(store, ids, only):
        tags = run.tags
        names = [tags.get(f"sgdstudy.{name}", "") for name in ("host", "boot_id", "pid")]
        if tags[KEY] not in here and Process(*names).is_gone():
            try:
                client.set_tag(run.run_id, "stop_reason", "interrupted")
                client.set_terminated(run.run_id, status="KILLED")
            except MlflowException as error:
                if error.get_http_status_code() != 403:
                    raise
                continue  # another person's, theirs to close
            closed.append(f"{tags['sgdstudy.study']}: {run.name}")
    return closed
