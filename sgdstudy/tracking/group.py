"""Runs that are over, brought to the disk and sent a group at a time.

A run's folder may go once everything that the store has of the run is on the disk. A disk writes
the files of many runs side by side in the time that a few take: whoever makes dozens of runs a
second hands them over here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sgdstudy.tracking.durable import sync_all
from sgdstudy.tracking.entries import Closing
from sgdstudy.tracking.journal import Journal
from sgdstudy.tracking.sink import room_on_disk

GROUP_RUNS, GROUP_SECONDS = 32, 1.0


class Group:
    """Runs that are over, brought to the disk and sent together.

    The store hears of none of them before all their files are on the disk; none of their folders
    goes before the store's are.
    """

    def __init__(self) -> None:
        self._held: list[tuple[Journal, Closing]] = []
        self._since = 0.0

    def add(self, journal: Journal, closing: Closing) -> None:
        """Take a run that is over; send all that are held if it is time to."""
        self._since = time.monotonic() if not self._held else self._since
        self._held.append((journal, closing))
        if len(self._held) >= GROUP_RUNS or time.monotonic() > self._since + GROUP_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send all that are held."""
        held, self._held = self._held, []
        if not held:
            return
        first = held[0][0]
        try:
            with room_on_disk(first.opening.name, first.store):
                sent = _sent(held)
        except BaseException:
            for journal, _ in held:
                journal.let_go()
            raise
        for journal in sent:
            journal.remove()


def _sent(held: list[tuple[Journal, Closing]]) -> list[Journal]:
    """Bring runs to the disk and send them; return those that the store has, on the disk."""
    for journal, closing in held:
        journal.draft(closing)
    sync_all(path for journal, _ in held for path in journal.files())
    for journal, _ in held:
        journal.seal()
    sync_all(journal.folder for journal, _ in held)
    sent = [journal for journal, _ in held if journal.deliver()]
    sync_all(path for journal in sent for path in journal.changed)
    return sent


@contextmanager
def grouped() -> Iterator[Group]:
    """Give a group to put runs in; what is in it at the end is sent, whatever ends the block."""
    group = Group()
    try:
        yield group
    finally:
        group.flush()
