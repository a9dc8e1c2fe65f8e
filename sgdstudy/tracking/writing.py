"""Who writes to an invocation now: one command at a time, and nobody else drops its runs.

On one machine, or in one local store, a locked file says so; it is free when its process ends,
however it ends. On a server a tag of the experiment does, which changes every few seconds as long
as its writer lives: whoever finds one watches whether it changes, so that no clocks are compared.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sgdstudy.errors import InputError
from sgdstudy.tracking.retry import is_away, reason_of
from sgdstudy.tracking.store import Store

TAG = "sgdstudy.writing."  # and the invocation: a word that changes
BEAT_SECONDS, WATCH_SECONDS, SETTLE_SECONDS = 5.0, 20.0, 0.5
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
        yield


def alive(store: Store, names: Iterable[str]) -> set[str]:
    """Return the invocations that a command writes to now."""
    wanted, found = set(names), set[str]()
    for name in wanted:
        if _lock_file(store, name).exists():
            try:
                with _locked(store, name):
                    pass
            except InputError:
                found.add(name)
    if store.root is None:
        found |= _beating(store, wanted - found)
    return found


def _refused(name: str) -> InputError:
    return InputError(
        f"another command writes to {name} now; wait until it ends, or end it, and type this again"
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
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, mode=0o666)  # less the umask: others of a shared folder ask for it too
    try:
        lock.acquire(timeout=0)
        if not path.exists():  # its last holder removed it between our opening and locking it
            lock.release()
            lock.acquire(timeout=0)
    except (Timeout, PermissionError):
        raise _refused(name) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open
            path.unlink(missing_ok=True)
        lock.release()


# ---- on a server -------------------------------------------------------------------------------


@contextmanager
def _leased(store: Store, study: str, name: str, fresh: bool) -> Iterator[None]:
    token = uuid.uuid4().hex[:8]
    try:
        experiment = store.experiment(study)
        elsewhere = not fresh and bool(_beating(store, {name}))
    except Exception as error:
        if not is_away(error):
            raise
        yield  # what is recorded is kept here
        return
    if elsewhere:
        raise _refused(name)
    done = threading.Event()

    def beat(count: int) -> bool:
        try:
            store.client.set_experiment_tag(experiment, TAG + name, f"{token} {count}")
        except Exception as error:  # not ours to change, or away: the work goes on
            log.debug("the tag of %s is not written: %s", name, reason_of(error))
            return False
        return True

    def go_on() -> None:
        count = 1
        while not done.wait(BEAT_SECONDS):
            beat(count)
            count += 1

    if beat(0) and not fresh:
        time.sleep(SETTLE_SECONDS)  # of two that begin at once, the later word stays
        if not _tags(store, experiment).get(TAG + name, token).startswith(token):
            raise _refused(name)
    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(BEAT_SECONDS)
        with suppress(Exception):
            store.client.delete_experiment_tag(experiment, TAG + name)


def _tags(store: Store, experiment: str) -> dict[str, str]:
    return dict(store.client.get_experiment(experiment).tags)


def _beating(store: Store, names: set[str]) -> set[str]:
    """Return those of the invocations whose tag changes while we look."""

    def look() -> dict[str, str]:
        return {
            key.removeprefix(TAG): value
            for experiment in store.client.search_experiments()
            for key, value in experiment.tags.items()
            if key.startswith(TAG) and key.removeprefix(TAG) in names
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
        found |= {name for name, value in before.items() if now.get(name, value) != value}
        before = {name: value for name, value in before.items() if name in now}
    return found
