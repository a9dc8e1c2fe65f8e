"""Draws that runs share: the combinations of a sweep have the same seeds, hence the same orders.

Drawing permutations takes as long as half of a small run. Where it is asked for, what a seed's
stream has yielded is kept for the process, and the next run of that seed reads it again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock

import torch

MOST_BYTES = 200_000_000  # kept at once; the streams longest unused go first
INDEX_BYTES = 8

Draws = Iterator[torch.Tensor]


@dataclass
class _Kept:
    """What a stream has yielded so far, and the stream."""

    source: Draws
    blocks: list[torch.Tensor] = field(default_factory=list)
    length: int = 0

    def draw(self) -> None:
        self.blocks.append(next(self.source))
        self.length += len(self.blocks[-1])

    def after(self, position: int) -> torch.Tensor:
        """Return all that is kept after so many indices, as one block."""
        last = self.length - len(self.blocks[-1])
        if position >= last:
            return self.blocks[-1][position - last :]
        self.blocks = [torch.cat(self.blocks)]  # thousands of small ones take long to read
        return self.blocks[0][position:]


_kept: OrderedDict[Hashable, _Kept] = OrderedDict()
_lock = Lock()  # of what is kept: two threads may read the same stream
_sharing: ContextVar[bool] = ContextVar("sharing", default=False)


@contextmanager
def shared(n: int = 0) -> Iterator[None]:
    """Let the samplers that are made inside share what they draw, where n indices may be kept."""
    token = _sharing.set(INDEX_BYTES * n <= MOST_BYTES)
    try:
        yield
    finally:
        _sharing.reset(token)


def are_shared() -> bool:
    """Whether samplers share what they draw now."""
    return _sharing.get()


def again(key: Hashable, source: Draws) -> Draws:
    """Return a stream of what `source` yields, drawn once for all that have this key.

    Its blocks may be longer than those of the source.

    Args:
        key: says all that the stream depends on.
        source: at its beginning; not touched where the draws are kept already.
    """
    with _lock:
        found = _kept.setdefault(key, _Kept(source))
        _kept.move_to_end(key)
    return _read(found)


def _read(found: _Kept) -> Draws:
    position = 0
    while True:
        with _lock:
            if position == found.length:
                found.draw()
                _make_room()
            block = found.after(position)
        position += len(block)
        yield block


def _make_room() -> None:
    """Forget the streams longest unused; runs that still read them keep them as long."""
    held = INDEX_BYTES * sum(kept.length for kept in _kept.values())
    while held > MOST_BYTES and len(_kept) > 1:
        _, oldest = _kept.popitem(last=False)
        held -= INDEX_BYTES * oldest.length
