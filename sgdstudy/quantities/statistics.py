"""What the quantities of a chunk share, computed once, and only what was asked for."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sgdstudy.quantities.chunk import Chunk
from sgdstudy.quantities.sources import source_of
from sgdstudy.quantities.spread import nowhere


class Statistics:
    """Values by name, `(S, R)` each, NaN where undefined.

    Of the batch, g_i the gradient of sample i's loss and g their mean: `square` |g|^2; `scatter`
    sum |g_i - g|^2; `along` sum t_i^2, t_i = (g_i - g).g / |g|^2; `across`
    sum |g_i - g - t_i g|^2; `snr` B mean_j g_j^2 / sum_i (g_ij - g_j)^2; `alpha`;
    `hess_max_eig`; `hess_trace`; `histogram` `(S, R, k)`. Of all the data: `full_square`,
    `full_trace_sigma`, `full_hess_max_eig`, `full_hess_trace`.

    The first that is asked for brings all that are wanted, in one pass over the samples.
    """

    def __init__(self, chunk: Chunk) -> None:
        self._chunk = chunk
        self._values: dict[str, np.ndarray] = {}
        self._wanted: frozenset[str] = frozenset()

    def want(self, names: Iterable[str]) -> None:
        """Say what will be asked for."""
        self._wanted |= frozenset(names)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._values:
            self._find(name)
        return self._values[name]

    def _find(self, name: str) -> None:
        of_all = name.startswith("full_")
        wanted = {n for n in self._wanted | {name} if n.startswith("full_") == of_all}
        wanted -= self._values.keys()
        if self._chunk.problem is None:
            self._values |= nowhere(self._chunk.loss.shape, wanted)
            return
        source = source_of(self._chunk.problem)
        find = source.full if of_all else source.batch
        with np.errstate(all="ignore"):
            self._values |= find(self._chunk, frozenset(wanted))
        for value in self._values.values():  # they are shared
            value.flags.writeable = False
