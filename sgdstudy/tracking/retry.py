"""A store that does not answer: telling that from one that refuses, and trying again."""

from __future__ import annotations

import contextvars
import queue
import re
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sgdstudy.errors import LONGEST_REASON, Away, InputError, message, shortage
from sgdstudy.secrecy import without_secrets

T = TypeVar("T")
PASSING = (408, 425, 429)  # HTTP: timeout, too early, too many requests; all from 500 on pass, too
# what other packages say, and what we say of it; the first that is found
PLAIN = {
    r"database is locked": "the database is locked by another program; end it, or wait",
    r"disk is full|No space left": "the disk is full; free some space",
    r"disk I/O error": "the disk of the store cannot be read or written; is it in order?",
    r"readonly database": "the store can only be read now; mend its permissions, or its disk",
}
CALLERS = ("mlflow", "requests", "urllib3")
OF_CALLS = {
    r"failed with error code (\d+)|too many (\d+) error responses": "it answers with error {}",
    r"not in a valid JSON format|Expecting value|JSONDecodeError": "its answer is not MLflow's",
    r"certificate has expired|certificate is not yet valid": "its certificate is not valid now: it "
    "has expired, or begins later; its admin renews it, or this machine's clock is wrong",
    r"Hostname mismatch|IP address mismatch|certificate is not valid for": "its certificate is "
    "made for another name; give the address with that name",
    r"CERTIFICATE_VERIFY_FAILED|certificate verify failed": "its certificate is not known here; "
    "set MLFLOW_TRACKING_SERVER_CERT_PATH to that, or REQUESTS_CA_BUNDLE to who signed it",
    r"TLS CA certificate bundle|\[X509|NO_CERTIFICATE|NO_START_LINE|PEM lib": "the certificates "
    "that MLFLOW_TRACKING_SERVER_CERT_PATH or REQUESTS_CA_BUNDLE names cannot be read",
    r"SOCKS support": "the proxy needs a package that is not installed: pip install pysocks",
    r"Invalid url": "its address, or the one that HTTP_PROXY or ALL_PROXY names, is not one",
    r"[Pp]roxyError|connect to proxy": "the HTTP proxy does not let us through; see NO_PROXY",
    r"NameResolution|Name or service not known|resolve host|getaddrinfo": "no such machine",
    r"Connection refused": "connection refused",
    r"timed out|[Tt]ime-?out exception": "it took too long",
    r"Connection aborted|Connection reset|RemoteDisconnected": "it hung up",
}


def is_away(error: BaseException) -> bool:
    """Whether an error can pass: the store does not answer now, or this process has too little of
    something (see `shortage`). Else it refuses, and always would.

    What is written in no way that UTF-8 has is refused whatever code MLflow gives it.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    if isinstance(error, InputError):
        return isinstance(error, Away)
    if shortage(error):
        return True
    cause = error.__cause__ or error.__context__
    if isinstance(error, UnicodeError) or isinstance(cause, UnicodeError):
        return False
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
        # MLflow's own no has a text that is JSON; a page of whatever stands before it has none
        page = "failed with error code" in str(error) and status not in (401, 403)
        return status >= 500 or status in PASSING or page
    if isinstance(error, RequestException):
        status = 500 if error.response is None else error.response.status_code
        return status >= 500 or status in PASSING
    return isinstance(error, (ConnectionError, TimeoutError))


def reason_of(error: BaseException) -> str:
    """Return what went wrong, in one line, without passwords of addresses."""
    if short := shortage(error):
        return short
    text = message(error)
    calls = type(error).__module__.partition(".")[0] in CALLERS
    for pattern, words in (PLAIN | (OF_CALLS if calls else {})).items():
        found = re.search(pattern, text)
        if found:
            return words.format(next(filter(None, found.groups()), ""))
    lines = without_secrets(text).strip().splitlines()
    return lines[0][:LONGEST_REASON].rstrip() if lines else type(error).__name__


def patiently(action: Callable[[], object], seconds: float) -> None:
    """Do something, again and again while the store is away, until it succeeds or time is up."""
    deadline, pause = time.monotonic() + seconds, 0.1
    while True:
        try:
            action()
            return
        except Exception as error:
            if shortage(error) or not is_away(error) or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


def within(seconds: float, action: Callable[[], T]) -> T:
    """Return what an action returns, if it does so in time.

    A time-out of the network's is one of silence: who sends a byte now and then is waited for.
    The action goes on in its thread, to which nobody listens any more.

    Raises:
        TimeoutError: the time is up.
    """
    said: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            said.put((action(), None))
        except BaseException as error:
            said.put((None, error))

    run = contextvars.copy_context().run
    threading.Thread(target=run, args=(work,), daemon=True, name="sgdstudy-call").start()
    try:
        found, error = said.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no whole answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return found  # type: ignore[no-any-return]
