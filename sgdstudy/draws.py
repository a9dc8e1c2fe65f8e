"""Draws that runs share: the combinations of a sweep have the same seeds, hence the same orders.

Drawing permutations takes as long as half of a small run. Where it is asked for, what a seed's
stream has yielded is kept for the process, and the next run of that seed reads it again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

MOST_BYTES = 200_000_000  # kept at once; the streams longest unused go first

Stream = Iterator[torch.Tensor]


@dataclass
class _Kept:
    """What a stream has yielded so far, and the stream."""

    source: Stream
    blocks: list[torch.Tensor] = field(default_factory=list)


_kept: OrderedDict[Hashable, _Kept] = OrderedDict()
_sharing = False


@contextmanager
def shared() -> Iterator[None]:
    """Let the samplers that are made inside share what they draw."""
    global _sharing
    before, _sharing = _sharing, True
    try:
        yield
    finally:
        _sharing = before


def are_shared() -> bool:
    """Whether samplers share what they draw now."""
    return _sharing


def again(key: Hashable, source: Stream) -> Stream:
    """Return a stream that yields what `source` does, drawn once for all that have this key.

    Args:
        key: says all that the stream depends on.
        source: at its beginning; not touched where the draws are kept already.
    """
    found = _kept.setdefault(key, _Kept(source))
    _kept.move_to_end(key)
    return _read(found)


def _read(found: _Kept) -> Stream:
    position = 0
    while True:
        if position == len(found.blocks):
            found.blocks.append(next(found.source))
            _make_room()
        yield found.blocks[position]
        position += 1


def _make_room() -> None:
    """Forget the streams longest unused; runs that still read them keep them as long."""
    held = sum(len(kept.blocks) * kept.blocks[0].nbytes for kept in _kept.values() if kept.blocks)
    while held > MOST_BYTES and len(_kept) > 1:
        _, oldest = _kept.popitem(last=False)
        held -= sum(block.nbytes for block in oldest.blocks)
