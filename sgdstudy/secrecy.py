"""Passwords, tokens and keys in texts: found, left out, and shown nowhere from then on.

Two things are looked for: an address with a user before its @, and a setting whose name says that
its value is a secret. Their patterns are put together from forms, each of which stands beside an
example of what it finds. What a form repeats either stops where it may begin again or is bounded:
so the time goes with the length of a text, whatever stands in it.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

# ---- the beginning of an address -----------------------------------------------------------------

COLON = "[:\uff1a]"  # ":", and the wide one that some keyboards write
HTTP = rf"https?{COLON}[/\\]"  # "https:/": one slash is enough, of either kind
OTHER = rf"[a-z][\w+.-]{{0,40}}{COLON}(?://|\\\\)"  # "postgresql+psycopg://"
HEAD = rf"((?:{HTTP}|{OTHER})[/\\]*)"  # "sqlite:///"

# ---- its user, and what follows ------------------------------------------------------------------

NAME = r"[^\s'\"<>/@:?#]*"  # "ada" of "ada:pw@host"; it may be empty
PORT = r"\d{1,5}(?:[/?#\s,;:.)\]}|]|['\"<>](?!\w)|$)"  # "5000/" of "host:5000/path"
NO_PASSWORD = rf"\s|\{{\w*\}}|{PORT}"  # "{port}" of "http://{host}:{port}"
PASSWORD = r"(?:(?!://)[^\n]){0,200}?(?<!\s)"  # "a b'/@c": quotes, spaces and slashes too
HOST = r"[\w.\[\]:-]++(?!@)"  # "[::1]:5000": the @ before it ends a password
USER = rf"{NAME}:(?!{NO_PASSWORD}){PASSWORD}@(?={HOST})"  # "ada:pw@" before "host"
REST = r"[^\s'\"<>]*"  # "host:5000/a?b=c"

# ---- a setting that is called a secret -----------------------------------------------------------

PART = r"[\w.-]{0,40}"  # "ssl" of "sslpassword"
ANY_SECRET = "passw|passphrase|pwd|secret|token|credential|api[_.-]?key|signature"  # "token"
A_KEY = "sig|auth|(?:ssl|access|account)?[_.-]?key"  # "sslkey"
SURE_SECRET = (  # "pwd" of "PWD=...", but not of "PWD=/home/ada"
    "passwo?r?d|passphrase|pwd(?!=/)|secret|(?:access|auth|api)[_.-]?(?:token|key)"
)
OPENS = "[?&;#]|%3B|%26"  # "&" of "?a=b&token=c", written out where it is in another address
OF_ADDRESS = rf"(?:{OPENS})(?:{PART}(?:{ANY_SECRET}){PART}|{A_KEY})"  # "?access_token"
OF_TEXT = rf"(?<![\w.-]){PART}(?:{SURE_SECRET})"  # "db.password", which is nothing else
OF_OPTION = (  # "--hf-token", and no "--max-tokens", "--author"
    rf"[\w.-]{{0,40}}?(?:{SURE_SECRET}|(?<![^\W_])(?:token|auth|authorization|bearer|credentials?"
    r"|(?:account|license|private|secret|signing|ssh|ssl)[_.-]?key))"
)
A_NUMBER = r"[\d.,]+"  # "5" of "--max-token 5"
PERHAPS = r"[\w.-]{0,40}?(?<![^\W_])(?:keys?|tokens?|sig|signature)"  # "--wandb-key", "--sort-key"
EQUALS = "=|%3D"  # "="
NO_SECRET = r"(?:None|True|False)\b"  # "None" of "f(password=None)"

# ---- and its value -------------------------------------------------------------------------------

IN_BRACES = r"\{(?:[^{}]|\}\})*\}"  # "{a;b}}c}", as drivers of ODBC write a password
IN_CODED_BRACES = r"%7B(?:(?!%7D).|%7D%7D){0,500}%7D"  # "%7Ba%3Bb%7D": the same in an address
IN_QUOTES = r"'[^'\n]*'|\"[^\"\n]*\""  # "'a b'"
BARE = r"(?:(?!%3B|%26)(?:[^\s&;#'\"]|['\"](?=\w)))*"  # "a'b"
VALUE = "|".join((IN_BRACES, IN_CODED_BRACES, IN_QUOTES, BARE))

# ---- what is looked for --------------------------------------------------------------------------

NEXT = re.compile(rf"(?<=[\s,;=|(\[{{'\"])(?={HEAD})", re.I)  # one more address in a word
WHOLE = re.compile(rf"{HEAD}(.*)$", re.I | re.DOTALL)  # a word that is an address
ADDRESS = re.compile(rf"{HEAD}((?:{USER})?{REST})", re.I)  # one in a text
# "databricks://token:profile": MLflow takes no name before the colon, people have put a token there
DATABRICKS = re.compile(r"(databricks[\w-]{0,10}://)([^\s'\"<>:]*:[^\s'\"<>]*)", re.I)
TYPED = re.compile(rf"((?<![\w.-])--({OF_OPTION})(?:=|[ \t]{{1,4}}))(?!-)({VALUE})", re.I)
KEYED = re.compile(rf"((?:{OF_ADDRESS}|{OF_TEXT})(?:{EQUALS}))(?!{NO_SECRET})({VALUE})", re.I)
PATHS = ("sqlite", "file")  # after their three slashes comes a path
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN", "PGPASSWORD")
LEAST_SECRET = 8  # characters that nothing else is likely to have
LEAST_TOKEN = 20  # and of a user's name
_secrets: set[str] = set()  # of the words that this process was given


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
        parts = (WHOLE.sub(_noted_user, DATABRICKS.sub(_noted_key, word)) for word in words)
        return "".join(KEYED.sub(_noted_key, part) for part in parts)
    if {"@", "="} & set(text) or "%3" in text:
        text = KEYED.sub(r"\1...", ADDRESS.sub(_without_user, text))
    if "--" in text or "://" in text:
        text = TYPED.sub(_without_typed, DATABRICKS.sub(r"\1...", text))
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
    if value and isinstance(value, str) and _is_secret(name, value):
        _secrets.update(_forms(value))
        return "..."
    if isinstance(value, (list, tuple)):
        parts = (of_option(name, part, whole) for part in value)
        return list(parts) if isinstance(value, list) else tuple(parts)
    return stripped(value, whole)


def _is_secret(name: Any, value: str) -> bool:
    """Whether the value of an option that is called so is a secret."""
    if re.fullmatch(rf"{PART}(?:{SURE_SECRET})", f"{name}", re.I):
        return True
    if re.fullmatch(PERHAPS, f"{name}", re.I) and len(value) >= LEAST_TOKEN and _forms(value):
        return True
    known = re.fullmatch(OF_OPTION, f"{name}", re.I) is not None
    return known and re.fullmatch(A_NUMBER, value) is None


def of_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command line, with the values of options as `of_option` has them.

    >>> of_words(["run", "--password", "p w", "--password=p w", "--lr", "1"])
    ['run', '--password', '...', '--password=...', '--lr', '1']
    """
    shown, before, given = list[str](), "", False
    for word in words:
        before = "" if given and word.startswith("-") else before  # an option may take several
        name, equals, value = word.partition("=")
        own = equals and _is_secret(name, value) and not _is_secret(before, word)
        shown.append(f"{name}={of_option(name, value)}" if own else of_option(before, word))
        given = shown[-1] == "..."
        before = before if given else word
    return shown


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


def _without_typed(found: re.Match[str]) -> str:
    """Return an option with its value left out, if that is no word of a sentence."""
    told = "=" in found[1] or _forms(found[3])
    return f"{found[1]}..." if told and _is_secret(found[2], found[3]) else found[0]


def _noted_key(found: re.Match[str]) -> str:
    _secrets.update(_forms(found[2]))
    return f"{found[1]}..."


def _end_of_user(head: str, rest: str, whole: bool = False) -> int:
    """Return where the host of an address begins: after the last @ before its path.

    A password may have a slash, unescaped: databases take it so; of a server, whose address it
    makes wrong, it is known by what follows the colon and is no port. Of a word, by any @: a server
    with one in its path is refused.
    """
    scheme, slashes = re.split(COLON, head, maxsplit=1)
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
