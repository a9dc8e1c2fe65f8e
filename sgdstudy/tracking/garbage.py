"""Keeping Python's garbage collector from looking through the same objects again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def old_set_aside() -> Iterator[None]:
    """Leave what is there now out of it: all of torch's and MLflow's objects, in a long loop."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def paused() -> Iterator[None]:
    """Collect nothing: for a call that makes a hundred thousand objects, all of them to stay."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
