"""The process a training run lives in: its terminal, its signals."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_open: list[list[int]] = []  # the main thread's flags, the outermost first


def visible() -> bool:
    """Whether there is someone to look at a progress bar: a terminal or a notebook."""
    return "ipykernel" in sys.modules or bool(sys.stderr and sys.stderr.isatty())


@contextmanager
def interrupt_flag() -> Iterator[list[int]]:
    """Turn the first Ctrl-C or SIGTERM into a mark that is read between chunks.

    A second one is immediate. Flags within each other are all marked: the study hears of a Ctrl-C
    that met the last chunk of an arm.
    """
    marks: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield marks
        return

    def handle(number: int, frame: Any) -> None:
        if marks:
            raise KeyboardInterrupt
        for flag in _open:
            flag.append(number)

    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    _open.append(marks)
    try:
        yield marks
    finally:
        _open.pop()
        for number, handler in before.items():
            signal.signal(number, handler)
