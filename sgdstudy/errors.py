"""What goes wrong, each in one clear line.

SgdstudyError
├── InputError   (a ValueError)         what was given cannot be used
│   ├── Away                            the store does not answer now; it may later
│   └── Refused                         the store answers, and refuses
├── StoreError   (a RuntimeError)       a run cannot be recorded any more
├── Interrupted  (a KeyboardInterrupt)  Ctrl-C, after what was recorded was saved
├── Ended        (an Exception)         a user's function that would have ended the program
└── Unsupported  (an Exception)         a step that cannot be compiled; it runs eager
"""

from __future__ import annotations

import itertools
import json
import os
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

FIXED = "\u00a0"  # a space at which no line breaks, as French has before a colon
LONGEST = 80  # characters of what was given, in a message
LONGEST_REASON = 200  # of another package's message
HEAD = r"((?:https?[:\uff1a][/\\]|[a-z][\w+.-]{0,40}[:\uff1a](?://|\\\\))[/\\]*)"
NEXT = re.compile(rf"(?<=[\s,;=|(\[{{'\"])(?={HEAD})", re.I)  # one more address in a word
WHOLE = re.compile(rf"{HEAD}(.*)$", re.I | re.DOTALL)
# a password, with quotes and spaces in it, ends at an @ that a host follows; a port is none
ADDRESS = re.compile(
    HEAD + r"((?:[^\s'\"<>/@:?#]*:(?!\s|\{\w*\}|\d{1,5}(?:[/?#\s,;:.)\]}|]|['\"<>](?!\w)|$))"
    r"(?:(?!://)[^\n]){0,200}?(?<!\s)@(?=[\w.\[\]:-]++(?!@)))?[^\s'\"<>]*)",
    re.I,
)
# in an address a setting of any such name; elsewhere one of a name that is nothing else
KEYED = re.compile(
    r"((?:(?:[?&;#]|%3B|%26)(?:[\w.-]{0,40}(?:passw|passphrase|pwd|secret|token|credential"
    r"|api[_.-]?key|signature)[\w.-]{0,40}|sig|auth|(?:ssl|access|account)?[_.-]?key)"
    r"|(?<![\w.-])[\w.-]{0,40}(?:passwo?r?d|passphrase|pwd(?!=/)|secret"
    r"|(?:access|auth|api)[_.-]?(?:token|key)))(?:=|%3D))(?!(?:None|True|False)\b)"
    r"(\{(?:[^{}]|\}\})*\}|%7B(?:(?!%7D).)*%7D|'[^'\n]*'|\"[^\"\n]*\""
    r"|(?:(?!%3B|%26)(?:[^\s&;#'\"]|['\"](?=\w)))*)",
    re.I,
)
PATHS = ("sqlite", "file")  # after their three slashes comes a path
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN", "PGPASSWORD")
LEAST_SECRET = 8  # characters that nothing else is likely to have
LEAST_TOKEN = 20  # and of a user's name
_secrets: set[str] = set()  # of the words that this process was given


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
    """The store does not answer now; what was recorded is kept, and sent when it does."""


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


def without_secrets(text: str, whole: bool = False) -> str:
    """Return text without names and passwords before the @ of addresses, and without `?password=`.

    Args:
        text: may hold addresses.
        whole: it is one word, which may be an address with spaces or quotes in its password; what
            is left out of it is left out of every text from then on, wherever it stands.

    >>> print(without_secrets("no answer of https://ada:x@y@host:5000/a@b; psql://a:/b@c/d?token=e&f=g"))
    no answer of https://host:5000/a@b; psql://c/d?token=...&f=g
    """
    if whole:
        ends = [0, *(found.start() for found in NEXT.finditer(text)), len(text)]
        words = (text[i:j] for i, j in itertools.pairwise(ends))
        return "".join(KEYED.sub(_noted_key, WHOLE.sub(_noted_user, word)) for word in words)
    if {"@", "="} & set(text) or "%3" in text:
        text = KEYED.sub(r"\1...", ADDRESS.sub(_without_user, text))
    for secret in sorted(_secrets.union(*map(_forms, map(os.environ.get, SECRETS))), key=len)[::-1]:
        text = text.replace(secret, "...")
    return text


def stripped(value: Any, whole: bool = True) -> Any:
    """Return what was given, as the values of options, without the secrets in it.

    Args:
        value: whatever it is made of.
        whole: a text in it is a word, see `without_secrets`.

    >>> stripped({"url": "https://ada:pw@host", "n": (1, "b"), "password": "pw"})
    {'url': 'https://host', 'n': (1, 'b'), 'password': '...'}
    """
    if isinstance(value, str):
        return without_secrets(value, whole)
    if isinstance(value, Mapping):
        return {name: of_option(name, part, whole) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = (stripped(part, whole) for part in value)
        return list(parts) if isinstance(value, list) else tuple(parts)
    return value


def note_secrets(words: Any) -> None:
    """Note the passwords in what was given: no text shows them from then on; see `stripped`."""
    stripped(words)


def of_option(name: Any, value: Any, whole: bool = True) -> Any:
    """Return the value of an option as `stripped` does; nothing of one that is called password.

    >>> print(of_option("--url", "https://ada:pw@host"), of_option("--password", "pw"))
    https://host ...
    """
    if value and isinstance(value, str) and KEYED.fullmatch(f"{name}="):
        _secrets.update(_forms(value))
        return "..."
    return stripped(value, whole)


def recordable(text: str) -> str:
    """Return text that may be kept: without secrets, and what UTF-8 has no way for written out.

    >>> recordable("caf\\udce9 https://ada:pw@host")
    'caf\\\\udce9 https://host'
    """
    return without_secrets(text).encode("utf-8", "backslashreplace").decode()


def _without_user(found: re.Match[str]) -> str:
    """Return an address of a text without user."""
    return found[1] + found[2][_end_of_user(found[1], found[2]) :]


def _noted_user(found: re.Match[str]) -> str:
    """Return an address that is a word without user, and note the password."""
    head, rest = found.groups()
    end = _end_of_user(head, rest, whole=True)
    user, colon, password = rest[: max(end - 1, 0)].partition(":")
    if colon or len(user) >= LEAST_TOKEN:
        _secrets.update(_forms(password if colon else user))
    return head + rest[end:]


def _noted_key(found: re.Match[str]) -> str:
    _secrets.update(_forms(found[2]))
    return f"{found[1]}..."


def _end_of_user(head: str, rest: str, whole: bool = False) -> int:
    """Return where the host of an address begins: after the last @ before its path.

    A password may have a slash, unescaped: databases take it so; of a server, whose address it
    makes wrong, it is known by what follows the colon and is no port. Of a word, by any @: a server
    with one in its path is refused.
    """
    scheme, slashes = re.split("[:\uff1a]", head, maxsplit=1)
    before_path = re.split("[/?#]", rest, maxsplit=1)[0]
    end = before_path.rfind("@")
    port = before_path.rpartition(":")[2]
    signed = ":" in before_path and (whole or (end < 0 and not port.rstrip("]").isdigit()))
    if not scheme.lower().startswith("http"):
        signed = bool(before_path)
        if len(slashes) > len("//"):  # no machine: a path, or one slash too many
            path = scheme.lower().split("+")[0] in PATHS
            return 0 if path or ":" not in before_path else rest.rfind("@") + 1
    return max(end, rest.rfind("@") if signed else end) + 1


def _forms(secret: str | None) -> set[str]:
    """Return how a secret may stand in a text; nothing for a word that may stand there anyway."""
    forms = {secret or "", unquote(secret or "")}
    forms = {
        form
        for form in forms
        if len(form) >= LEAST_SECRET and re.search(r"\d", form) and re.search(r"[^\W\d]", form)
    }
    return forms | {way(form)[1:-1] for form in forms for way in (repr, json.dumps)}


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
    except Exception:  # a number of more than 4300 digits, or an object that cannot show itself
        text = f"an object of type {type(given).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def failed(what: str, error: BaseException, file: str | Path | None = None) -> InputError:
    """Build the error for a function of the user's that raised one, in this file of theirs.

    >>> print(failed("the model", ZeroDivisionError("division by zero")))
    the model failed: ZeroDivisionError: division by zero
    """
    return InputError(f"{what} failed: {reason(error)}{place(error, file) if file else ''}")


def place(error: BaseException, file: str | Path) -> str:
    """Return in words where in a file, or else in one of its folder, an error came up; or ""."""
    file, error = Path(file), error.raised if isinstance(error, Ended) else error
    lines = traceback.extract_tb(error.__traceback__)[::-1]
    own = [line for line in lines if Path(line.filename) == file]
    near = [line for line in lines if Path(line.filename).parent == file.parent]
    return next((f" ({Path(at.filename).name}, line {at.lineno})" for at in own + near), "")


def reason(error: BaseException) -> str:
    """Return what went wrong: the kind of error and the first line of its message."""
    if isinstance(error, Ended):
        return str(error)
    lines = without_secrets(str(error)).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:LONGEST_REASON].rstrip()}"


def unwritable(what: object, error: OSError) -> InputError:
    """Build the error for a file or folder that the system does not let us write.

    >>> print(unwritable("a/report.html", IsADirectoryError(21, "Is a directory")))
    a/report.html cannot be written (Is a directory)
    """
    return InputError(f"{what} cannot be written ({error.strerror or error})")
