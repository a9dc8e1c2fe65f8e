"""Where the program starts: Ctrl-C ends it without a traceback while its imports are under way."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgdstudy.studies.study import Study

INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended


def main() -> None:
    """Entry point of `sgdstudy`."""
    with _importing():
        from sgdstudy.cli.main import main as run
    run()


def script_main(study: Study) -> None:
    """Entry point of a script in `experiments/`."""
    with _importing():
        from sgdstudy.cli.main import script_main as run
    run(study)


@contextmanager
def _importing() -> Iterator[None]:
    """Let Ctrl-C end the process at once: nothing has begun, and no import is left half done."""
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ours = heard and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
