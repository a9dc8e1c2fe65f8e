"""A store that does not answer: telling that from one that refuses, and trying again."""

from __future__ import annotations

import time
from collections.abc import Callable


def is_away(error: BaseException) -> bool:
    """Whether an error says that the store does not answer now, not that it refuses."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    if isinstance(error, MlflowException):
        return error.get_http_status_code() >= 500 or error.get_http_status_code() in (408, 429)
    if isinstance(error, RequestException):
        return error.response is None or error.response.status_code >= 500
    return isinstance(error, (ConnectionError, TimeoutError))


def reason_of(error: BaseException) -> str:
    """Return what went wrong, in one line."""
    text = str(error)
    if "database is locked" in text:
        return "the database is locked by another program; end it, or wait"
    if "disk is full" in text or "No space left" in text:
        return "the disk is full; free some space"
    if "Connection refused" in text:
        return "the tracking server does not answer (connection refused)"
    lines = text.strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def patiently(action: Callable[[], object], seconds: float) -> None:
    """Do something, again and again while the store is away, until it succeeds or time is up."""
    deadline, pause = time.monotonic() + seconds, 0.1
    while True:
        try:
            action()
            return
        except Exception as error:
            if not is_away(error) or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 2.0)
