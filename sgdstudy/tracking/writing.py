"""Who writes to an invocation now: one command at a time, and nobody else drops its runs.

On one machine, or in one local store, a locked file says so; it is free when its process ends,
however it ends. On a server a tag of the experiment does, one a writer, which changes every few
seconds as long as its writer lives: whoever finds one watches whether it changes, so that no clocks
are compared. A writer puts its tag there first and looks for others then, so that of two at least
one sees the other, however slow the server is.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sgdstudy.errors import InputError
from sgdstudy.history.shared import make_folder, share
from sgdstudy.language import say
from sgdstudy.tracking.database import owner
from sgdstudy.tracking.retry import is_away, reason_of
from sgdstudy.tracking.scratch import let_go
from sgdstudy.tracking.store import Store
from sgdstudy.training.interrupts import unforked

TAG = "sgdstudy.writing."  # then a digest of the invocation, and its writer; see `BEAT_SECONDS`
LOOKING = "looks "  # begins the value of one that only looks whether it may write
BEAT_SECONDS, WATCH_SECONDS = 5.0, 20.0
log = logging.getLogger("sgdstudy")


@contextmanager
def writing(store: Store, study: str, name: str, fresh: bool = True) -> Iterator[None]:
    """Be the only one who writes to an invocation, until the block ends.

    Args:
        store: where it is.
        study: the experiment's name, without prefix.
        name: of the invocation, or of what may go on once at a time.
        fresh: nobody can know of it yet.

    Raises:
        InputError: another command writes to it.
    """
    with ExitStack() as stack:
        stack.enter_context(_locked(store, name))
        if store.root is None:
            stack.enter_context(_leased(store, study, name, fresh))
        with unforked():
            yield


def alive(store: Store, names: Iterable[str]) -> set[str]:
    """Return the invocations that a command writes to now."""
    wanted, found = set(names), set[str]()
    for name in wanted:
        if _lock_file(store, name).exists():
            try:
                with _locked(store, name):
                    pass
            except Held:
                found.add(name)
            except InputError as error:
                log.warning("%s", say("{why}; {name} is left alone", why=str(error), name=name))
                found.add(name)
    if store.root is None:
        found |= _beating(store, wanted - found)
    return found


class Held(InputError):
    """Another command writes to an invocation."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"another command writes to {name} now; wait until it ends, or end it, and type this "
            f"again"
        )


# ---- on this machine, or in a local store --------------------------------------------------------


def _lock_file(store: Store, name: str) -> Path:
    """Return the file of an invocation; many servers share the folder of this machine."""
    words = name if store.root is not None else f"{store.shown} {name}"
    digest = hashlib.sha256(words.encode()).hexdigest()[:16]
    return store.streams.with_name("writing") / f"{digest}.lock"


@contextmanager
def _locked(store: Store, name: str) -> Iterator[None]:
    path = _lock_file(store, name)
    make_folder(path.parent)
    lock = FileLock(path, mode=0o666)  # less the umask: others of a shared folder ask for it too
    try:
        lock.acquire(timeout=0)
        if not path.exists():  # its last holder removed it between our opening and locking it
            lock.release()
            lock.acquire(timeout=0)
    except Timeout:
        raise Held(name) from None
    except PermissionError:
        shut = path if os.path.exists(path) else path.parent
        raise InputError(
            f"it cannot be told whether another command writes to {name}: {shut} is "
            f"{owner(shut)}'s and not open to you; where none does, remove it"
        ) from None
    try:
        share(path)
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open
            path.unlink(missing_ok=True)
        let_go(lock)


# ---- on a server -------------------------------------------------------------------------------


@contextmanager
def _leased(store: Store, study: str, name: str, fresh: bool) -> Iterator[None]:
    try:
        experiment = store.experiment(study)
    except Exception as error:
        if not is_away(error):
            raise
        yield  # what is recorded is kept here
        return
    tag = _Tag(store, experiment, name)
    try:
        while not fresh and tag.put(LOOKING) and (others := _others(tag)):
            if any(
                word.startswith(LOOKING) and other < tag.token for other, word in others.items()
            ):
                tag.withdraw()  # two look at once: the one with the larger token gives way
            if not tag.outlasts(others):
                raise Held(name)
        tag.put("")
        yield
    finally:
        tag.withdraw()


def _others(tag: _Tag) -> dict[str, str]:
    """Return the others of a tag; none while the server is away: what is recorded is kept here."""
    try:
        return tag.others()
    except Exception as error:
        if not is_away(error):
            raise
        return {}


class _Tag:
    """The tag of one writer, which changes as long as it is there."""

    def __init__(self, store: Store, experiment: str, name: str) -> None:
        self.token, self._key, self._name = uuid.uuid4().hex[:8], _key(name), name
        self._store, self._experiment, self._count = store, experiment, 0
        self._thread: threading.Thread | None = None
        self._done = threading.Event()

    def put(self, state: str) -> bool:
        """Put the tag there, in a state, and let it change; whether the server took it."""
        self._stop()
        taken = self._beat(state)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._go_on, args=(state, self._done), daemon=True)
        self._thread.start()
        return taken

    def _go_on(self, state: str, done: threading.Event) -> None:
        while not done.wait(BEAT_SECONDS):
            self._beat(state)

    def _beat(self, state: str) -> bool:
        self._count += 1
        key, word = self._key + self.token, f"{state}{self._count}"
        try:
            self._store.client.set_experiment_tag(self._experiment, key, word)
        except Exception as error:  # not ours to change, or away: the work goes on
            log.debug("the tag of %s is not written: %s", self._name, reason_of(error))
            return False
        return True

    def _stop(self) -> None:
        if self._thread is not None:
            self._done.set()
            self._thread.join(BEAT_SECONDS)
            self._thread = None

    def withdraw(self) -> None:
        """Take the tag away."""
        self._stop()
        self._remove(self.token)

    def _remove(self, token: str) -> None:
        with suppress(Exception):
            self._store.client.delete_experiment_tag(self._experiment, self._key + token)

    def others(self) -> dict[str, str]:
        """Return the words of the other writers, by their tokens.

        Raises:
            Away: the server does not answer.
        """
        tags = self._store.client.get_experiment(self._experiment).tags
        found = {
            key.removeprefix(self._key): tags[key] for key in tags if key.startswith(self._key)
        }
        return {token: word for token, word in found.items() if token != self.token}

    def outlasts(self, others: dict[str, str]) -> bool:
        """Whether all others go away, or are found dead; False: one writes, or will."""
        last = {token: (word, time.monotonic()) for token, word in others.items()}
        while last:
            time.sleep(BEAT_SECONDS / 5)
            try:
                now = self.others()
            except Exception as error:
                if not is_away(error):
                    raise
                continue
            for token, (before, since) in list(last.items()):
                word = now.get(token)
                if word is None:
                    del last[token]
                elif word != before and (not word.startswith(LOOKING) or token < self.token):
                    return False
                elif word != before:
                    last[token] = word, time.monotonic()
                elif time.monotonic() > since + WATCH_SECONDS:
                    self._remove(token)
                    del last[token]
        return True


def _key(name: str) -> str:
    """Return how the tags of an invocation begin; MLflow takes no comma there, or brackets."""
    return f"{TAG}{hashlib.sha256(name.encode()).hexdigest()[:16]}."


def _beating(store: Store, names: set[str]) -> set[str]:
    """Return those of the invocations whose tag changes while we look."""
    keys = {_key(name): name for name in names}

    def look() -> dict[str, str]:
        return {
            key: value
            for experiment in store.client.search_experiments()
            for key, value in experiment.tags.items()
            if f"{key.rpartition('.')[0]}." in keys
        }

    before, found = look(), set[str]()
    deadline = time.monotonic() + WATCH_SECONDS
    while before.keys() - found and time.monotonic() < deadline:
        time.sleep(BEAT_SECONDS / 5)
        try:
            now = look()
        except Exception as error:
            if not is_away(error):
                raise
            continue
        found |= {key for key, value in before.items() if now.get(key, value) != value}
        before = {key: value for key, value in before.items() if key in now}
    return {keys[f"{key.rpartition('.')[0]}."] for key in found}
