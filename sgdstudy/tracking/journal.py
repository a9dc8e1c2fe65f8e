"""A run's own folder: what is known of it is on this disk before the store hears of it.

    opening.json    what the run is: name, tags, params, predictions, data set
    sent.json       the run's id, once the store has one for it
    steps.arrow     its rows as they come; epochs.arrow too
    points.json     points sent while it was going on
    tries.json      how many commands could not send it to a store that answered
    checkpoint.safetensors  where a long run stood
    artifacts/      files on their way to the store; a local one gets them by a rename
    rows.count      how many rows they have, at least
    closing.json    how it ended: status, tags, points; written when all the rest is on the disk
    lock            held by the process that the run lives in, as long as that lives

Sending may be repeated at will, after an outage or a crash: a run is found again by its key, and
a point with the same key, step, time and value is the same point to MLflow. The folder goes when
all that the store got is on the disk.

The checksum of every file but opening.json goes on over the run's key: another run's file, put or
restored into the folder, is none of it.
"""

from __future__ import annotations

import errno
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from sgdstudy import checks
from sgdstudy.errors import InputError, shortage, shortened
from sgdstudy.history.shared import make_folder, make_within, share
from sgdstudy.language import say, to_say
from sgdstudy.tracking import aside, shapes
from sgdstudy.tracking.durable import sync, sync_all, write_json
from sgdstudy.tracking.entries import (
    A_KEY,
    KEY,
    Closing,
    Opening,
    Point,
    Stamped,
    as_recordable,
    stamp,
)
from sgdstudy.tracking.places import odd_in, remove_folder
from sgdstudy.tracking.provenance import note_start
from sgdstudy.tracking.retry import is_away, patiently, reason_of
from sgdstudy.tracking.runs import every_experiment, search
from sgdstudy.tracking.scratch import let_go
from sgdstudy.tracking.sending import Sending
from sgdstudy.tracking.store import Store

BEGIN_SECONDS = 60.0  # a folder without opening.json may be one that is being begun
BEGUN = {"lock", "opening.json", "opening.new"}  # what it holds then
PATIENCE_SECONDS = 10.0

log = logging.getLogger("sgdstudy")


class LeftAlone(InputError):
    """A folder that a process left behind, and only a person can put right."""


class HeldRows(Protocol):
    """What takes a run's rows, and may hold some."""

    def flush(self) -> None:
        """Write what is held."""

    def end(self) -> Any:
        """Close the run."""


class Later(Protocol):
    """What takes runs that are over, and sends many of them at once."""

    def add(self, journal: Journal, closing: Closing) -> None:
        """Take a run that is over."""


class Journal(Sending):
    """The folder of one run: what is written there, and when it is sent.

    Attributes:
        interim: the points sent while it went on.
        closed: whether it is written down how the run ended.
        failure: why the last attempt to send it came to nothing.
        refusal: why the run is set aside; None: it is not.
        stays: why it cannot be, in a line; "": it can.
        sink: takes its rows; None: it has none.
        later: sends it with others once it is over, and brings its files to the disk; None: it is
            sent at once, and every file is on the disk when the next thing happens.
        lost: what could not be read back of its rows, in words.
    """

    def __init__(self, store: Store, folder: Path, opening: Opening) -> None:
        super().__init__(store, folder, opening)
        self.interim: list[Stamped] = self._told("points.json", shapes.POINTS, [])
        self.closed = self.closing is not None
        self.failure = ""
        self.refusal: str | None = None
        self.stays = ""
        self.sink: HeldRows | None = None
        self.later: Later | None = None
        self.lost = ""
        self._lock = FileLock(folder / "lock")

    @classmethod
    def begin(
        cls,
        store: Store,
        opening: Opening,
        files: dict[str, Callable[[Path], object]],
        send: bool = True,
        later: Later | None = None,
    ) -> Journal:
        """Write down what a run is, with files that belong to its beginning; send it.

        Args:
            store: where it is sent.
            opening: what it is.
            files: writes an artifact to the path it is given, by name.
            send: False: a run that is over already is sent in one go, when it is closed.
            later: sends runs that are over already, many at once.

        Raises:
            InputError: the store refuses the run.
            OSError: the store is not there any more; nothing is made where it was.
        """
        if not store.is_there():
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(store.streams))
        opening = as_recordable(opening)
        key = f"{opening.start_ms:013d}-{uuid.uuid4().hex[:12]}"
        opening.tags[KEY] = key
        folder = store.streams / key
        new = make_folder(store.streams)
        if store.root is None:
            note_start(store.streams.parent)
        make_within(folder)
        journal = cls(store, folder, opening)
        journal._tried, journal.later = False, later
        journal._lock.acquire()
        share(folder / "lock")
        about = {"store": store.shown, **vars(opening)}
        write_json(folder / "opening.json", about, synced=later is None)
        if later is None:
            sync_all([store.streams, *new])
        try:
            for name, write in files.items():
                journal.add(name, write)
            try:
                if send:
                    journal._deliver()
            except Exception as error:
                if not is_away(error):
                    raise
                _note_away(store, error)
        except Exception as error:
            journal._give_up(reason_of(error))
            raise
        return journal

    def _give_up(self, reason: str) -> None:
        """Leave nothing behind of a run that is refused at its beginning: neither here, nor open.

        Where the store made it, and takes no word of it any more, it is set aside.
        """
        try:
            if self.run_id is not None:
                self.store.client.set_terminated(self.run_id, status="FAILED")
        except Exception:
            self.set_aside(reason)
        else:
            self.remove()

    @classmethod
    def orphan(cls, store: Store, folder: Path) -> Journal | None:
        """Return what a process left behind; None if it lives, or the run is not this store's.

        Raises:
            LeftAlone: it is damaged, or cannot be looked at.
            OSError: there is no handle to look with.
        """
        for odd, what in odd_in(folder):
            text = to_say("{folder} is left alone: {link} is {what}; remove it by hand")
            raise LeftAlone(say(text, folder=folder, link=str(odd), what=what))
        lock = FileLock(folder / "lock")
        try:
            age = time.time() - folder.stat().st_mtime
            if age <= BEGIN_SECONDS and not (folder / "opening.json").exists():
                return None  # being begun, or being removed: its owner is at it
            lock.acquire(timeout=0)
        except (Timeout, FileNotFoundError):  # it lives, or has ended at this moment
            return None
        except OSError as error:
            if shortage(error):
                raise
            text = to_say("{folder} is left alone: {why}")
            raise LeftAlone(say(text, folder=folder, why=reason_of(error))) from error
        try:
            opening = shapes.read_json(folder / "opening.json", shapes.OPENING)
            if opening is None and _holds_a_run(store, folder):
                raise shapes.Damaged("it is gone, or empty")
            if opening is not None:
                store_of, found = opening.pop("store"), Opening(**opening)
        except (OSError, ValueError, TypeError) as error:
            lock.release()
            if shortage(error):
                raise
            text = to_say(
                "{folder} is left alone: its opening.json is damaged; put it back, or remove the "
                "folder with all that the run recorded"
            )
            raise LeftAlone(say(text, folder=folder)) from error
        if opening is None or not store.owns(store_of, found.tags.get(KEY, "")):
            lock.release()
            if opening is None and age > BEGIN_SECONDS:  # nothing is lost
                remove_folder(folder)
            return None
        # see `strays`: holding its lock says nothing about the run
        if found.tags.get(KEY) != folder.name:
            lock.release()
            return None
        journal = cls(store, folder, found)
        journal._lock = lock
        return journal

    def add(self, name: str, write: Callable[[Path], object]) -> None:
        """Add an artifact: the function writes it to the path it is given.

        Raises:
            InputError: a name that is no plain file name.
        """
        checks.file_name("an artifact's name", name)
        draft = self.folder / "draft" / name  # moved when whole: half of it would be sent
        for folder in (draft.parent, self.folder / "artifacts"):
            make_within(folder)
        write(draft)
        share(draft)
        os.replace(draft, self.folder / "artifacts" / name)

    def adopt(self, path: Path) -> None:
        """Make a whole file of the folder an artifact, by its own name."""
        make_within(self.folder / "artifacts")
        os.replace(path, self.folder / "artifacts" / path.name)

    def find(self, name: str) -> Path | None:
        """Return where an artifact lies now: in its place, or on its way; None: on neither."""
        folders = [self.place, self.folder / "artifacts"]
        paths = [folder / name for folder in folders if folder is not None]
        return next((path for path in paths if path.exists()), None)

    def show(self, points: Iterable[Point]) -> bool:
        """Send points while the run goes on; whether the store took them."""
        shown = {point[:2] for point in self.interim}  # again, they would have another time
        stamped = stamp(point for point in points if point[:2] not in shown)
        self.interim += stamped
        self._tell("points.json", self.interim)
        try:
            self._deliver()
            self._log(stamped, {}, {})
        except Exception as error:  # the points are on the disk, and sent again when the run ends
            log.debug("points not sent: %s", reason_of(error))
            return False
        return True

    def close(self, closing: Closing, patience: float | None = None) -> bool:
        """Write down how the run ended and send it; whether the store has all of it now."""
        closing = as_recordable(closing)
        if self.later is not None:
            self.closed = True
            self.later.add(self, closing)
            return True
        self.write_down(closing)
        return self.send(patience)

    def write_down(self, closing: Closing) -> None:
        """Bring to the disk how the run ended, after all the rest."""
        self.draft(closing)
        sync_all(self.files())
        self.seal()
        sync(self.folder)
        self.closed = True

    def draft(self, closing: Closing) -> None:
        """Write down how the run ended, under a name that nobody looks for yet."""
        told = shapes.signed(vars(closing), self.key)
        draft = self.folder / "closing.new"
        draft.write_text(told, encoding="utf-8")
        share(draft)

    def files(self) -> list[Path]:
        """Return what has to be on the disk before it is known how the run ended."""
        found = [self.folder / "closing.new", *self.folder.glob("artifacts"), *self.artifacts()]
        # a journal that sends alone has synced these already
        opened = [self.folder / "opening.json", self.folder.parent]
        return found if self.later is None else [*found, *opened]

    def seal(self) -> None:
        """Let it be known how the run ended."""
        os.replace(self.folder / "closing.new", self.folder / "closing.json")

    def send(self, patience: float | None = None) -> bool:
        """Send what the store has not got; whether it has all of it now.

        What it refuses is set aside: it would refuse it the next time.
        """
        if not self.deliver(patience):
            return False
        sync_all(self.changed)
        self.remove()
        return True

    def deliver(self, patience: float | None = None) -> bool:
        """Send what the store has not got, and leave the folder; whether it has all of it now."""
        patience = PATIENCE_SECONDS if patience is None else patience
        try:
            patiently(self._deliver, 0.0 if self.store.uri in _AWAY else patience)
        except Exception as error:
            self.failure = reason_of(error)
            if is_away(error) or isinstance(error, OSError):  # a full disk passes too
                _note_away(self.store, error)
                self.let_go()
            else:
                self.set_aside(self.failure)
            return False
        _AWAY.discard(self.store.uri)
        return True

    def set_aside(self, reason: str) -> None:
        """Keep the run where no command sends it any more, but the one that is asked to."""
        self.let_go()
        name = shortened(f"{self.opening.study}: {self.opening.name}")
        try:
            self.folder = aside.put(self.store, self.folder, reason)
        except PermissionError as error:
            which = {"name": name, "why": reason, "folder": aside.place_of(self.store)}
            text = to_say(
                "{name} cannot be sent: {why}; nor set aside: {folder} is another user's "
                "({error}), who lets its group write it: chmod g+ws {folder}; then sgdstudy recover"
            )
            self.stays = say(text, **which, error=error.strerror)
            log.warning("%s", self.stays)
            return
        self.refusal = reason
        text = to_say(
            "{name} cannot be sent: {why}; what it recorded is set aside, see sgdstudy recover"
        )
        log.warning("%s", say(text, name=name, why=reason))

    @property
    def tries(self) -> int:
        """How many commands could not send it to a store that answered."""
        found: int = self._told("tries.json", shapes.whole, 0)
        return found

    def note_try(self, most: int) -> None:
        """Note one more of them; after the last the run is set aside."""
        self._tell("tries.json", self.tries + 1)
        if self.tries >= most:
            text = to_say("{why}, {most} times, and takes others")
            self.set_aside(say(text, why=str(self.failure), most=most))

    def let_go(self) -> None:
        """Leave the run to the next command."""
        let_go(self._lock)

    def remove(self) -> None:
        """Remove the folder: the store has the run, on the disk."""
        (self.folder / "opening.json").unlink(missing_ok=True)  # from here on nobody sends it
        let_go(self._lock)
        remove_folder(self.folder)


def _holds_a_run(store: Store, folder: Path) -> bool:
    """Whether a folder without an opening may hold what the store has not got.

    It is either being begun, and as good as empty; or being removed, and the store has the run as
    it ended; or someone, or a disk, has lost it.
    """
    if {path.name for path in folder.iterdir()} <= BEGUN:
        return False
    if not A_KEY.fullmatch(folder.name):
        return True
    ids = [experiment.experiment_id for experiment in every_experiment(store)]
    try:
        found = search(store, ids, f"tags.`{KEY}` = '{folder.name}'", most=1)
    except Exception as error:
        log.debug("%s: %s", folder, reason_of(error))
        return True
    return not found or found[0].status == "RUNNING"


_AWAY: set[str] = set()  # stores that did not answer last time: they are not waited for again


def _note_away(store: Store, error: BaseException) -> None:
    """Say once that a store is away; the training goes on."""
    if store.uri not in _AWAY:
        text = to_say("{why}: what runs record is kept here and sent later")
        log.warning("%s", say(text, why=reason_of(error)))
    _AWAY.add(store.uri)
