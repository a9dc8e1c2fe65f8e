"""How much a tracking server may send in answer to one call, counted after inflation.

MLflow's client reads every answer whole, whatever its size: a megabyte of gzip may be a gigabyte,
and an answer may have no end. Its requests go through one function; ours stands before that, and
gives each answer to a call of ours to `Reading`, before any of it is read.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin

from sgdstudy.errors import Away

# a page of a thousand runs of ours has 12 MB; Python's objects take twenty times their JSON
MOST_ANSWER = 64_000_000
LINE = 65_536  # bytes of the longest line between two chunks of an answer
FAILING = (408, 425, 429)  # and all from 500 on
_now: contextvars.ContextVar[Reading | None] = contextvars.ContextVar("reading", default=None)


class TooLong(Away):
    """An answer is longer than any of MLflow's is; the same question for less may have one."""


class Reading:
    """What one call reads, over all the requests that it takes.

    Attributes:
        most: bytes that it may read.
        over: whether nobody waits for it any more.
        excess: why it was cut short; None: it was not.
        redirect: the address that the last request was sent on to; "": none.
    """

    def __init__(self, most: int) -> None:
        self.most, self.over = most, False
        self.excess: TooLong | None = None
        self.redirect = ""
        self._seen = 0

    def bound(self, response: Any, **_: Any) -> None:
        """Bound an answer of which nothing is read yet; a hook of requests'.

        One that only says that the server fails is not read: its status is all that we tell.
        """
        status = response.status_code
        if response.is_redirect:
            to = response.headers["Location"]
            try:
                to = urljoin(response.url, to.encode("latin-1").decode())
            except ValueError as error:
                self.redirect = ascii(to)
                response.close()
                raise Away("a redirect to what is not an address") from error
            self.redirect = self.redirect or to
        if status >= 500 or status in FAILING:
            self.redirect = ""  # this tells more
            response.close()
            raise Away(f"too many {status} error responses")
        response.encoding = response.encoding or "utf-8"  # else it is guessed, for minutes
        http: Any = getattr(response.raw, "_fp", None)
        if getattr(http, "fp", None) is not None:
            http.fp = _Lines(http.fp, self._take)
        response.iter_content = functools.partial(self._parts, response, response.iter_content)

    def _parts(self, response: Any, read: Callable[..., Any], *how: Any, **named: Any) -> Any:
        try:
            for part in read(*how, **named):
                self._take(len(part))
                yield part
        except BaseException:
            response.close()
            raise

    def _take(self, n: int) -> None:
        """Count bytes that were read.

        Raises:
            TooLong: they are too many.
            Away: the call is over.
        """
        self._seen += n
        if self._seen > self.most:
            self.excess = TooLong(f"it answers with more than {self.most / 1e6:.0f} MB")
            raise self.excess
        if self.over:
            raise Away("nobody waits for it any more")


class Pool(ThreadPoolExecutor):
    """Threads that know which call they work for."""

    def submit(self, does: Callable[..., Any], /, *given: Any, **named: Any) -> Any:
        """Begin a piece of work."""
        return super().submit(contextvars.copy_context().run, does, *given, **named)


@contextmanager
def at_most(most: int) -> Iterator[Reading]:
    """Bound what is read within the block, in its thread and in those that it starts.

    Args:
        most: bytes, all in all; after the block nothing more is read.
    """
    reading = Reading(most)
    token = _now.set(reading)
    try:
        yield reading
    finally:
        _now.reset(token)
        reading.over = True


def begin() -> None:
    """Stand before MLflow's requests; those that are not of a call of ours go on as they did."""
    import mlflow.utils.rest_utils

    rest_utils: Any = mlflow.utils.rest_utils
    theirs = rest_utils._get_http_response_with_retries
    if isinstance(theirs, functools.partial) and theirs.func is _request:
        return
    rest_utils._get_http_response_with_retries = functools.partial(_request, theirs)


def _request(
    theirs: Callable[..., Any],
    method: str,
    url: str,
    max_retries: int,
    backoff_factor: float,
    backoff_jitter: float,
    retry_codes: Any,
    raise_on_status: bool = True,
    **named: Any,
) -> Any:
    reading = _now.get()
    if reading is not None:
        if reading.over:
            raise Away("nobody waits for it any more")
        reading.redirect = ""
        named["hooks"] = {"response": reading.bound}
        raise_on_status = False  # it would read the answer to its end first
    how = (max_retries, backoff_factor, backoff_jitter, retry_codes, raise_on_status)
    return theirs(method, url, *how, **named)


class _Lines:
    """A file of which no line is without end: urllib3 reads one before each piece of an answer."""

    def __init__(self, file: Any, take: Callable[[int], None]) -> None:
        self._file, self._take = file, take

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def readline(self, most: int = -1) -> bytes:
        """Return a line.

        Raises:
            Away: it has no end.
        """
        line: bytes = self._file.readline(LINE if most < 0 else min(most, LINE))
        self._take(len(line))
        if len(line) == LINE:
            raise Away("its answer is not MLflow's: a line of it has no end")
        return line
