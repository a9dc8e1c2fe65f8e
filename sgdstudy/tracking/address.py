"""What a person means by an address of a store: a folder, a database, a server; or one line."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted
from sgdstudy.language import unknown
from sgdstudy.secrecy import note_secrets, without_secrets

DATABASE = "mlflow.db"
SUFFIXES = (".db", ".sqlite", ".sqlite3")
SQLITE = b"SQLite format 3\0"  # how a database begins
SCHEMES = ("http", "https", "sqlite", "file", "postgresql", "mysql", "mssql", "databricks")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
# what stands at the head of an address, and no :// after it: "http//host", "https;//host"
HALF_ADDRESS = re.compile(
    rf"(?P<scheme>(?:{'|'.join(SCHEMES)})(?:\+\w+)?)[^\w/\\]{{0,2}}[/\\]{{2}}(?P<rest>.*)", re.I
)
# a user signs in: "ada:secret@host", whatever stands before it; "ada@host:5000", "http//key@host"
SIGNED_IN = re.compile(
    rf".*:[^\n]*@\s*[\w\[]|[^/\\]*@[\w.-]+:\d{{1,5}}(/|$)|{HALF_ADDRESS.pattern}@", re.I
)
# a folder, whatever its name: "./ada:x@host", "~/runs", "C:\runs", but not "//ada:secret@host"
A_PATH = re.compile(r"\.{1,2}([/\\]|$)|~[^:@]*([/\\]|$)|[A-Za-z]:[/\\]|/(?!/|[^/]*:[^/]*@)")
HOST_ALONE = re.compile(r"(?:\[[\da-f:.]+\]|[\w.-]{2,}):\d{1,5}(?:[/?#].*)?", re.I)
VARIABLE = re.compile(r"(?:\$\{?\w+\}?|%\w+%)(?:[/\\]|$)")  # at the head of a path


def parse(given: str) -> tuple[str, Path | None]:
    """Return MLflow's tracking URI, and the database's file where the store is a local one.

    Args:
        given: a folder, a database's file, a `file:` or `sqlite:` URL of one, `http(s)://` of a
            server, the URL of another database as SQLAlchemy takes it, `databricks`, or
            `databricks://profile`.

    Raises:
        InputError: anything else; what is an address without its `//`, for one.

    >>> parse("http://Localhost:5000/#/experiments/3")
    ('http://localhost:5000', None)
    """
    note_secrets(given)
    _require_clean(given)
    scheme, _, rest = given.partition("://")
    kind = scheme.lower().split("+")[0]
    if given == "databricks":
        return given, None
    if given[:5].lower() == "file:":
        return _local(_file_path(given))
    if not rest and not given.endswith("://"):
        return _local(_plain_path(given))
    if kind not in SCHEMES:
        after_user = scheme.rpartition("@")[2]  # of "ada:secret@host://x"
        raise unknown("kind of store", after_user, SCHEMES)
    if kind == "sqlite":
        return _local(_sqlite_path(given, rest), database=True)
    if kind in ("http", "https"):
        return _server(kind, given), None
    if kind == "databricks" and ":" in rest:
        raise InputError(
            f"the store {_shown(given)} names more than a profile; write databricks://profile, and "
            f"put a token into ~/.databrickscfg or DATABRICKS_TOKEN"
        )
    return f"{scheme.lower()}://{rest}", None


def sqlite_uri(path: Path) -> str:
    """Return the URI of an SQLite database, as SQLAlchemy reads it: it unquotes what it is given.

    With quotes it names the driver too: MLflow makes the folder of any `sqlite:///...`, and takes
    the quoted name for it.

    >>> print(sqlite_uri(Path("/a b/mlflow.db")), sqlite_uri(Path("/50%?/mlflow.db")))
    sqlite:////a b/mlflow.db sqlite+pysqlite:////50%25%3F/mlflow.db
    """
    plain = path.as_posix()
    escaped = plain.replace("%", "%25").replace("?", "%3F")
    return f"{'sqlite' if escaped == plain else 'sqlite+pysqlite'}:///{escaped}"


def is_database(path: Path) -> bool:
    """Whether a path that is given is a database's own file, not the folder that one lies in."""
    if path.suffix in SUFFIXES:
        return path.is_file() or not path.exists()
    return path.is_file() and _is_sqlite(path)


def _is_sqlite(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(SQLITE)) == SQLITE


def databases_in(folder: Path) -> Iterator[Path]:
    """Yield the databases that lie in a folder, whatever they are called.

    What other programs call .db, such as the `Thumbs.db` of Windows, is none.
    """
    try:
        with os.scandir(folder) as entries:  # thousands of folders may be there
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except OSError:  # where one may not list, one may ask for a name
        names = [DATABASE] if os.path.isfile(folder / DATABASE) else []
    for name in sorted(names):
        with suppress(OSError):  # not ours to read, or gone by now
            if name == DATABASE or _is_sqlite(folder / name):
                yield folder / name


def sqlite_path(uri: str) -> Path:
    """Return the file of an SQLite database's URI."""
    return Path(unquote(uri.partition(":///")[2]))


def identity(uri: str) -> str:
    """Return what is the same for every spelling of a store, and differs for two stores.

    Of a local one that is the name of its file: what is compared lies in its own folder, which may
    have been moved.

    >>> identity("http://127.0.0.1:80/") == identity("HTTP://me@localhost")
    True
    """
    scheme, _, rest = without_secrets(uri, whole=True).partition("://")
    kind = scheme.lower().split("+")[0]
    if kind == "sqlite":
        return f"sqlite:{sqlite_path(uri).name}"
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname or "", parts.port or PORTS.get(kind)
    except ValueError:
        return uri
    host = LOOPBACK[0] if host in LOOPBACK else host
    return f"{kind}://{host}:{port}{parts.path.rstrip('/')}?{parts.query}"


def password(uri: str) -> str:
    """Return the password of an address, as a program may show it; "" where it has none.

    >>> password("postgresql://ada:a%40b@host/db")
    'a@b'
    """
    kept = without_secrets(uri, whole=True).partition("://")[2]
    user = uri.partition("://")[2].removesuffix(kept).removesuffix("@")
    return unquote(user.partition(":")[2])


def is_loopback(uri: str) -> bool:
    """Whether a server's address is of this machine.

    >>> [is_loopback(f"http://{host}") for host in ("127.0.0.2:1", "[::1]", "10.0.0.1")]
    [True, True, False]
    """
    host = (urlsplit(uri).hostname or "").rstrip(".")
    with suppress(ValueError):
        found = ipaddress.ip_address(host)
        return found.is_loopback or found.is_unspecified  # 0.0.0.0, as servers say of themselves
    with suppress(OSError):  # 127.1, 0
        return socket.inet_aton(host)[0] in (0, 127)
    return f".{host}".endswith(f".{LOOPBACK[0]}")


# ---- the kinds of address --------------------------------------------------------------------


def _local(path: Path, database: bool = False) -> tuple[str, Path]:
    """Return a local store's URI and its database's file, from its folder or from that file."""
    try:
        path = path.expanduser().resolve()
        database = database or is_database(path)
    except (OSError, RuntimeError) as error:  # a loop of links, no such user, no working folder
        raise InputError(f"the store {quoted(str(path))} cannot be found: {error}") from None
    _require_clean(str(path))
    file = path if database else path / DATABASE
    if not file.name or (database and file.is_dir()):
        raise InputError(
            f"the store {quoted(str(path))} is a folder, not a database; leave out sqlite:///"
        )
    return sqlite_uri(file), file


def _plain_path(given: str) -> Path:
    """Return a path, unless it looks like an address that lacks something."""
    if A_PATH.match(given) is None:
        _require_no_address(given)
    if VARIABLE.match(given):
        raise InputError(
            f"the store {_shown(given)} begins with a variable that no shell has replaced; write "
            f"its value"
        )
    if given[:1] in ("'", '"') and given[-1:] == given[:1]:
        raise InputError(f"the store {_shown(given)} stands in quotes; leave them out")
    return checks.path("the store", given)


def _require_no_address(given: str) -> None:
    """Refuse what looks like an address, and does not begin as a path does."""
    if SIGNED_IN.match(given) or without_secrets(given, whole=True) != given:
        # it may hold a password: it is not shown
        raise InputError(
            "the store is neither an address nor a path; write http://user:password@host, or ./ "
            "before a folder of that name"
        )
    scheme, colon, rest = given.partition(":")
    kind = scheme.lower().split("+")[0]
    mend = ""
    if HOST_ALONE.fullmatch(given):
        mend = f"http://{given}"
    elif given in LOOPBACK:
        mend = f"http://{LOOPBACK[0]}:5000"
    elif colon and kind in SCHEMES:
        mend = _whole(scheme, rest)
    elif half := HALF_ADDRESS.match(given):
        mend = _whole(half["scheme"], half["rest"])
    elif re.match(r"[A-Za-z][\w.+-]+:/", given):
        raise unknown("kind of store", scheme, SCHEMES)
    if mend:
        raise InputError(
            f"the store {_shown(given)} is neither an address nor a path; write {mend}, or "
            f"./{given} for a folder of that name"
        )


def _whole(scheme: str, rest: str) -> str:
    """Return an address from what stands before and after its colon, which lacks something."""
    scheme = scheme.lower()
    return f"{scheme}:///{rest}" if scheme[:6] == "sqlite" else f"{scheme}://{rest.lstrip('/')}"


def _file_path(given: str) -> Path:
    """Return the path of a `file:` URL."""
    rest = given[5:]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host not in ("", "localhost", ".", "~"):
            host = without_secrets(given, whole=True)[7:].partition("/")[0]
            raise InputError(
                f"the store {_shown(given)} names the machine {host!r}; write file:///path for a "
                f"folder of this one, http://{host} for a server"
            )
        rest = host + slash + path if host in (".", "~") else slash + path
    if {"?", "#"} & set(rest):
        raise InputError(
            f"the store {_shown(given)} is a URL: write %3F for ? and %23 for #, or the path alone"
        )
    return checks.path("the store", url2pathname(rest))


def _sqlite_path(given: str, rest: str) -> Path:
    """Return the file of an SQLite URL."""
    path = rest.removeprefix("/")
    if path in ("", ":memory:"):
        raise InputError(
            "sqlite:// alone is a database in memory, lost at once; give sqlite:///file"
        )
    if not rest.startswith("/"):
        mend = without_secrets(given, whole=True).replace("://", ":///", 1)
        raise InputError(f"the store {_shown(given)} needs three slashes: {mend}")
    if "?" in path or path.startswith("file:"):
        raise InputError(
            f"the store {_shown(given)} is a URL: give the path alone, or write %3F for ?; "
            f"settings after a ? are not taken"
        )
    return checks.path("the store", unquote(path))


def _shown(given: str) -> str:
    return quoted(without_secrets(given, whole=True))


def _require_clean(text: str) -> None:
    """Refuse what no line can show, and what MLflow cannot keep."""
    kinds = {unicodedata.category(char) for char in text if char != "\0"}
    if "Cs" in kinds:  # bytes of the file system's that are not UTF-8
        raise InputError(f"the store {_shown(text)} is not UTF-8; give another one with --store")
    if "Cc" in kinds:
        raise InputError(f"the store {_shown(text)} holds a control character; leave it out")


def _server(kind: str, given: str) -> str:
    """Return a server's address, as MLflow takes it: without what a browser adds."""
    for text in (without_secrets(given, whole=True), given):
        try:
            parts = urlsplit(text)
            host, _ = parts.hostname, parts.port
        except ValueError as error:  # of the second it may quote the password
            why = "write signs in the password as %40" if text == given else str(error)
            raise InputError(f"the store {_shown(given)} is not an address: {why}") from None
    if not host or " " in parts.netloc:
        raise InputError(f"the store {_shown(given)} names no machine; write {kind}://host:port")
    if "@" in parts.path + parts.fragment:
        raise InputError(
            f"the store {_shown(given)} has an @ after a slash; write %40 for @, and %2F for a "
            f"slash in a password"
        )
    if parts.query:
        raise InputError(f"the store {_shown(given)} has a question mark; leave out what follows")
    user, at, place = parts.netloc.rpartition("@")
    return f"{kind}://{user}{at}{place.lower()}{parts.path.rstrip('/')}"
