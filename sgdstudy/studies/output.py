"""Standard output and error that never end a study: any text, a full disk, nobody who reads.

What cannot be written is lost, and noted; a character that the terminal's encoding lacks is
written in those it has. Streams that were closed before we began lead nowhere: a database opened
later would otherwise get their number, and our lines with it. What a script puts in the place of a
stream is written to as long as it takes text.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sgdstudy.errors import reason
from sgdstudy.text import plainly
from sgdstudy.training import interrupts

NAMES = ("stdin", "stdout", "stderr")  # by number
ERRORS = "sgdstudy.plain"  # our way with characters that an encoding lacks
T = TypeVar("T")
_lost: list[Exception] = []
_ours: dict[str, Any] = {}  # by name: what a stream that must not fail goes back to


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


class _Guarded(io.TextIOBase):
    """A stream that is not ours, with all that a file of text has; see `_Unfailing`."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.broken = stream, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        try:
            return codecs.lookup(self.stream.encoding).name
        except Exception:  # it has none
            return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return ERRORS

    @property
    def closed(self) -> bool:
        return _is_gone(self.stream)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        try:
            return bool(self.stream.isatty())
        except Exception:
            return False

    def fileno(self) -> int:
        try:
            return int(self.stream.fileno())
        except Exception:
            raise io.UnsupportedOperation("fileno") from None

    def write(self, text: str, /) -> int:
        self._do("write", text)
        return len(text)

    def flush(self) -> None:
        self._do("flush")

    def close(self) -> None:
        """Leave it open: it is not ours."""

    def _do(self, what: str, *given: str) -> None:
        if not self.broken:
            try:
                getattr(self.stream, what)(*given)
            except Exception as error:
                self.broken = True
                _lost.append(error)


def harden() -> None:
    """Make the output of this process one that never fails; once, and only a program's own."""
    _open_closed()
    codecs.register_error(ERRORS, _spelled_out)
    for name in NAMES[1:]:
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            _ours[name] = _hardened(stream)
            setattr(sys, name, _ours[name])


@contextmanager
def guarded() -> Iterator[None]:
    """Let no stream fail meanwhile, also in a notebook, or where a script put its own there."""
    ours = dict(_ours)
    for name in NAMES[1:]:
        _ours.setdefault(name, getattr(sys, name, None))
    reopen()
    try:
        yield
    finally:
        _ours.clear()
        _ours.update(ours)
        for name in NAMES[1:]:
            stream = getattr(sys, name, None)
            if isinstance(stream, _Guarded) and not stream.broken:  # Python flushes it at its end
                setattr(sys, name, stream.stream)


def reopen() -> None:
    """Put the streams back that a script took away, and guard those that it put in their place.

    Taken away: set to None or to what does not write and flush, closed, or detached.
    """
    for name, former in _ours.items():
        own = getattr(sys, f"__{name}__")
        there = [s for s in (getattr(sys, name, None), former, own) if not _is_gone(s)]
        if not there:
            setattr(sys, name, None)
            _open_closed()
        elif _is_ours(there[0]):
            setattr(sys, name, there[0])
        else:
            hard = there[0] is own and isinstance(own, io.TextIOWrapper)
            setattr(sys, name, _hardened(own) if hard else _Guarded(there[0]))


def called(function: Callable[[], T]) -> T:
    """Return what a function of a script returns; see `interrupts.called` and `reopen`."""
    try:
        return interrupts.called(function)
    finally:
        reopen()


def _is_gone(stream: Any) -> bool:
    try:
        able = callable(stream.write) and callable(stream.flush)
        return not able or bool(getattr(stream, "closed", False))
    except Exception:  # it was detached, or is something else
        return True


def _is_ours(stream: Any) -> bool:
    """Whether a stream is one that never fails, as we made it."""
    return isinstance(stream, (_Legible, _Guarded)) and not {"write", "flush"} & {*vars(stream)}


def lost() -> str:
    """Return why standard output or error could not be written; "" where all was, or nobody reads.

    Nobody reads any more: as of `sgdstudy list | head -1`, see `is_cut`.
    """
    for stream in (sys.stdout, sys.stderr):
        if _is_ours(stream) and not _is_gone(stream):
            stream.flush()
    kinds = [error for error in _lost if not _is_of_pipe(error)]
    return str(getattr(kinds[0], "strerror", "") or reason(kinds[0])) if kinds else ""


def is_cut() -> bool:
    """Whether whoever read our lines has seen enough."""
    return any(map(_is_of_pipe, _lost))


def _is_of_pipe(error: Exception) -> bool:
    return getattr(error, "errno", None) == errno.EPIPE


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
