"""Errors a user can mend, each in one clear line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What was given cannot be used; the message says what is allowed and how to mend it."""


class StoreError(RuntimeError):
    """A run cannot be recorded any more; what was recorded is kept, and the message says where."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a tracked study, after everything recorded was saved."""


def unknown(kind: str, given: object, allowed: Iterable[str]) -> InputError:
    """Build the error for a name that is not in an open list, suggesting the nearest one.

    >>> print(unknown("order", "shufle", ["sequential", "shuffle"]))
    unknown order 'shufle'; did you mean 'shuffle'? Valid: sequential, shuffle
    """
    names = list(allowed)
    near = difflib.get_close_matches(str(given), names, n=1)
    if not near:  # "adam" for "Adam": compare without case too
        near = [name for name in names if name.lower() == str(given).lower()]
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return InputError(f"unknown {kind} {given!r}{hint} Valid: {', '.join(names)}")
