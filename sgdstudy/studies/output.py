"""Standard output and error that never end a study: any text, a full disk, nobody who reads.

What cannot be written is lost, and noted; a character that the terminal's encoding lacks is
written in those it has. Streams that were closed before we began lead nowhere: a database opened
later would otherwise get their number, and our lines with it.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from sgdstudy.text import plainly
from sgdstudy.training import interrupts

NAMES = ("stdin", "stdout", "stderr")  # by number
ERRORS = "sgdstudy.plain"  # our way with characters that an encoding lacks
T = TypeVar("T")
_lost: list[OSError] = []
_ours: list[str] = []  # names of the streams that were made ones that never fail


class _Unfailing(io.RawIOBase):
    """Hands on what it is given; from the first failure on it takes everything, and drops it."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream  # it would close the file when nobody has it any more
        self._raw: Any = getattr(stream.buffer, "raw", stream.buffer)
        self._broken = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        return bool(self._raw.isatty())

    def write(self, data: Any) -> int:
        if not self._broken:
            try:
                written = self._raw.write(data)
                if written is not None:
                    return int(written)
                select.select([], [self.fileno()], [], 1.0)  # a pipe that is full just now
                return 0
            except OSError as error:
                self._broken = True
                _lost.append(error)
                _lead_nowhere(self.fileno())  # libraries and workers write to the number itself
        return len(data)


class _Legible(io.TextIOWrapper):
    """Text, in the characters that its encoding has; a script that closes it does not."""

    def close(self) -> None:
        if not _is_gone(self):
            self.flush()

    def write(self, text: str, /) -> int:
        super().write(plainly(text, self.encoding))
        return len(text)


def harden() -> None:
    """Make the output of this process one that never fails; once, and only a program's own."""
    _open_closed()
    codecs.register_error(ERRORS, _spelled_out)
    for name in NAMES[1:]:
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _hardened(stream))
            _ours.append(name)


def reopen() -> None:
    """Put the streams back that a script took away: set to None, closed or detached."""
    for name in _ours:
        if _is_gone(getattr(sys, name)):
            former = getattr(sys, f"__{name}__")
            if _is_gone(former):
                setattr(sys, name, None)
                _open_closed()
            else:
                setattr(sys, name, _hardened(former))


def called(function: Callable[[], T]) -> T:
    """Return what a function of a script returns; see `interrupts.called` and `reopen`."""
    try:
        return interrupts.called(function)
    finally:
        reopen()


def _is_gone(stream: Any) -> bool:
    try:
        return stream is None or bool(getattr(stream, "closed", False))
    except ValueError:  # it was detached
        return True


def lost() -> str:
    """Return why standard output or error could not be written; "" where all was, or nobody reads.

    Nobody reads any more: as of `sgdstudy list | head -1`, see `is_cut`.
    """
    for stream in (sys.stdout, sys.stderr):
        if not _is_gone(stream):
            stream.flush()
    kinds = [error for error in _lost if error.errno != errno.EPIPE]
    return str(kinds[0].strerror or kinds[0]) if kinds else ""


def is_cut() -> bool:
    """Whether whoever read our lines has seen enough."""
    return any(error.errno == errno.EPIPE for error in _lost)


def keep_warnings_ours() -> None:
    """Let `-W error` make errors of our warnings, and not of those of the packages we build on."""
    if not any(option.split(":")[0] == "error" for option in sys.warnoptions):
        return
    warnings.resetwarnings()
    for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", kind)
    warnings.filterwarnings("error", module=r"sgdstudy(\.|$)")


def _hardened(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """Return the same stream, over what never fails."""
    raw = _Unfailing(stream)
    try:
        stream.flush()  # what was printed before
    except OSError as error:
        _lost.append(error)
        _lead_nowhere(stream.fileno())
    return _Legible(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=ERRORS,
        line_buffering=stream.line_buffering or stream is sys.__stderr__,
    )


def _open_closed() -> None:
    """Open the standard streams that are closed, to read and write nothing."""
    for number, name in enumerate(NAMES):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number: mostly its own
            mode = "r" if number == 0 else "w"
            stream = open(opened, mode, encoding="utf-8", errors="replace")  # noqa: SIM115
            setattr(sys, name, stream)


def _lead_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def _spelled_out(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for the characters that an encoding lacks, and where to go on.

    For what is not written by `_Legible`: the question of `input`.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plainly(error.object[error.start : error.end], "ascii"), error.end
