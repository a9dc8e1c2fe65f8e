"""The process a training run lives in: its terminal, its signals."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sgdstudy.errors import Ended, Interrupted, reason
from sgdstudy.language import say

T = TypeVar("T")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_heard = [*STOP_SIGNALS]
_open: list[list[int]] = []  # the main thread's flags, the outermost first
_early: list[int] = []  # of a worker: what came while none was open


def visible() -> bool:
    """Whether there is someone to look at a progress bar: a terminal or a notebook."""
    asked = getattr(sys.stderr, "isatty", None)  # a stream of somebody's own may have none
    return "ipykernel" in sys.modules or bool(asked and asked())


@contextmanager
def interrupt_flag() -> Iterator[list[int]]:
    """Turn the first Ctrl-C or SIGTERM into a mark that is read between chunks.

    A second one is immediate. Flags within each other are all marked: the study hears of a Ctrl-C
    that met the last chunk of an arm, and an arm of one that came while it was prepared.
    """
    marks = [*(_open[-1] if _open else _early)]
    if threading.current_thread() is not threading.main_thread():
        yield marks
        return

    def handle(number: int, frame: Any) -> None:
        if marks and signal.SIGINT in _heard:  # a worker ends with its parent
            raise KeyboardInterrupt
        for flag in _open:
            flag.append(number)

    before = {number: signal.signal(number, handle) for number in _heard}
    _open.append(marks)
    try:
        yield marks
    finally:
        _open.pop()
        for number, handler in before.items():
            signal.signal(number, handler)


def stopping() -> bool:
    """Whether the outermost flag of the main thread is marked."""
    return any(_open[:1])


def heed_parent() -> None:
    """Make this process a worker: a SIGTERM of its parent marks it, also between two tasks.

    Ctrl-C is the parent's to hear: a terminal sends it to workers too.
    """
    _heard[:] = [signal.SIGTERM]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: _early.append(number))


def called(function: Callable[[], T]) -> T:
    """Return what a function of the user's returns.

    Some errors are no `Exception`, and would end us with it: `sys.exit()` in a script, or a
    `KeyboardInterrupt` that it raises. A Ctrl-C of the user's does.

    Raises:
        Ended: it raised one of those.
    """
    with _pressed() as pressed:
        try:
            with unforked():
                return function()
        except (Exception, Interrupted):
            raise
        except BaseException as error:
            if pressed:
                raise
            raise Ended(error) from error


@contextmanager
def unforked() -> Iterator[None]:
    """End a process that a function of the user's forks in the block, where it comes out of it.

    It has a copy of all that its parent has open, and would write and close the parent's runs.
    """
    process = os.getpid()
    try:
        yield
    except BaseException as error:
        end_fork(process, error)
        raise
    end_fork(process)


def end_fork(process: int, error: BaseException | None = None) -> None:
    """End this process, unless it is the one of that number: at once, and nothing is closed.

    Args:
        process: the one that was not forked.
        error: what was raised; of `sys.exit` its code is that of the process.
    """
    if os.getpid() == process:
        return
    code = error.code if isinstance(error, SystemExit) else ""
    if not isinstance(code, (int, type(None))):
        why = say("its function returned") if error is None else reason(error)
        line = say("a process that was forked by a function of yours ends here: {why}", why=why)
        os.write(2, f"{line}\n".encode(errors="backslashreplace"))
        code = 1
    os._exit((code or 0) & 0xFF)


@contextmanager
def held() -> Iterator[None]:
    """Let a signal to stop wait for the end of the block, which takes no time to speak of."""
    numbers: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda number, frame: numbers.append(number))
        for number in STOP_SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if numbers:
            signal.raise_signal(numbers[0])


@contextmanager
def _pressed() -> Iterator[list[int]]:
    """Note the signals to stop that come, and hand them on."""
    numbers: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield numbers
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    handlers = {int(number): handler for number, handler in before.items() if callable(handler)}

    def handle(number: int, frame: Any) -> None:
        numbers.append(number)
        handlers[number](number, frame)

    for number in handlers:
        signal.signal(number, handle)
    try:
        yield numbers
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is handle:  # else it is the function's own, to stay
                signal.signal(number, handler)
