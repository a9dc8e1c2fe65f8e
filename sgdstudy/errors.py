"""What goes wrong, each in one clear line.

SgdstudyError
├── InputError   (a ValueError)         what was given cannot be used
│   ├── Away                            the store cannot be reached now; later it may be
│   └── Refused                         the store answers, and refuses
├── StoreError   (a RuntimeError)       a run cannot be recorded any more
├── Interrupted  (a KeyboardInterrupt)  Ctrl-C, after what was recorded was saved
├── Ended        (an Exception)         a user's function that would have ended the program
└── Unsupported  (an Exception)         a step that cannot be compiled; it runs eager
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from sgdstudy.secrecy import without_secrets

FIXED = "\u00a0"  # a space at which no line breaks, as French has before a colon
LONGEST = 80  # characters of what was given, in a message
LONGEST_REASON = 200  # of another package's message
SHORT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)  # handles, memory, processes


class SgdstudyError(BaseException):
    """What all of ours are; no `Exception`, as `Interrupted` is none."""


class InputError(SgdstudyError, ValueError):
    """What was given cannot be used; the message says what is allowed and how to mend it.

    It is one line, whatever a name, a path or another package's message brings into it.

    >>> print(InputError("there is no study red\\x1b[31m;\\n  sgdstudy list shows them"))
    there is no study red\\x1b[31m; sgdstudy list shows them
    """

    def __init__(self, message: object) -> None:
        super().__init__(one_line(str(message)))


class Away(InputError):
    """The store, or a file of it, cannot be reached now; what was recorded is kept for later."""


class Refused(InputError):
    """The store answers, and refuses; asked again it would say the same.

    Attributes:
        status: as of HTTP.
        code: MLflow's name for it.
    """

    def __init__(self, message: object, status: int = 400, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class StoreError(SgdstudyError, RuntimeError):
    """A run cannot be recorded any more; what was recorded is kept, and the message says where."""


class Interrupted(SgdstudyError, KeyboardInterrupt):
    """Ctrl-C during a tracked study, after everything recorded was saved."""


class Ended(SgdstudyError, Exception):
    """A function of the user's raised what is no `Exception`: it would have ended the program.

    Attributes:
        raised: what it raised.
    """

    def __init__(self, raised: BaseException) -> None:
        super().__init__(reason(raised))
        self.raised = raised


class Unsupported(SgdstudyError, Exception):
    """A step that cannot be compiled; the message says why, in one line."""


def one_line(text: str) -> str:
    """Return text in one line, control characters written out, no passwords of addresses in it."""
    line = without_secrets(" ".join(part.strip() for part in text.splitlines()))
    return "".join(
        c if c.isprintable() or c == FIXED else c.encode("unicode_escape").decode() for c in line
    )


def quoted(given: object) -> str:
    """Return what was given as a message shows it: in one line, cut where it is long.

    >>> print(quoted("a\\nb"), quoted("x" * 100)[75:])
    'a\\nb' xxxxx …
    """
    try:
        text = one_line(repr(given))
    except KeyboardInterrupt:
        raise
    except BaseException:  # a number of more than 4300 digits, or an object that cannot show itself
        text = f"an object of type {type(given).__name__}"
    return shortened(text)


def shortened(text: str) -> str:
    """Return what was given, cut where it is too long for a message."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def failed(what: str, error: BaseException, file: str | Path | None = None) -> InputError:
    """Build the error for a function of the user's that raised one, in this file of theirs.

    >>> print(failed("the model", ZeroDivisionError("division by zero")))
    the model failed: ZeroDivisionError: division by zero
    """
    if isinstance(error, InputError) and f"{what} failed: " in str(error):  # it called itself
        return InputError(error)
    return InputError(f"{what} failed: {reason(error)}{place(error, file) if file else ''}")


def place(error: BaseException, file: str | Path) -> str:
    """Return in words where in a file, or else in one of its folder, an error came up; or "".

    And which file of its folder has the name of a module of Python's, that has not what is asked.
    """
    file, error = Path(file), error.raised if isinstance(error, Ended) else error
    lines = traceback.extract_tb(error.__traceback__)[::-1]
    own = [line for line in lines if Path(line.filename) == file]
    near = [line for line in lines if Path(line.filename).parent == file.parent]
    found = [f"{Path(at.filename).name}, line {at.lineno}" for at in (own + near)[:1]]
    if found and (name := _asked_of(error)) in sys.stdlib_module_names:
        found += [
            f"{one.name} beside it is not imported, as Python has a module {name}: rename it"
            for one in (file.parent / f"{name}.py", file.parent / name)
            if one.exists()
        ]
    return f" ({'; '.join(found)})" if found else ""


def _asked_of(error: BaseException) -> str:
    """Return the module that has not what it was asked for, as an error tells it; or ""."""
    if isinstance(error, ImportError):
        return str(error.name).partition(".")[0]
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        return error.obj.__name__.partition(".")[0]
    return ""


def reason(error: BaseException) -> str:
    """Return what went wrong: the kind of error and the first line of its message."""
    if isinstance(error, Ended):
        return str(error)
    lines = without_secrets(message(error)).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:LONGEST_REASON].rstrip()}"


def shortage(error: BaseException) -> str:
    """Return what this process has too little of, in words; "" where that is not the error.

    It may have enough another time: no file is damaged, and nothing is refused.

    >>> shortage(RuntimeError("can't start new thread")), shortage(ValueError("no number"))
    ('no more threads can be started', '')
    """
    for one in (error, error.__cause__):
        if isinstance(one, MemoryError):
            return "there is too little memory"
        if isinstance(one, RuntimeError) and "can't start new thread" in message(one):
            return "no more threads can be started"
        if isinstance(one, OSError) and one.errno in SHORT_OF:
            return os.strerror(one.errno or 0)
    return ""


def message(error: BaseException) -> str:
    """Return what an error says; "" of a user's own that cannot say it.

    >>> print(message(ValueError("no")), message(ValueError()) == "")
    no True
    """
    try:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # whatever its own `__str__` does
        return ""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, for a sentence; where that is nothing, its kind.

    >>> first_line(ValueError("It failed.\\nSee there."))
    'It failed'
    """
    return next(iter(message(error).strip().splitlines()), type(error).__name__).removesuffix(".")


def unwritable(what: object, error: OSError) -> InputError:
    """Build the error for a file or folder that the system does not let us write.

    >>> print(unwritable("a/report.html", IsADirectoryError(21, "Is a directory")))
    a/report.html cannot be written (Is a directory)
    """
    return InputError(f"{what} cannot be written ({error.strerror or error})")
