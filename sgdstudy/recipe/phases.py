"""Batch sizes that change between two epochs: stretches of epochs whose batches are alike.

A batch schedule is known before the run: after so many epochs, batches of so many samples. Within
an epoch the size stays, and every epoch has all d samples, so that an order goes on undisturbed.
Where the steps are counted, the last epoch may have fewer batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgdstudy import checks
from sgdstudy.errors import InputError, quoted

Schedule = tuple[tuple[int, int], ...]  # epochs done, batch size from then on


def settle(schedule: Any, epochs: int) -> Schedule:
    """Return a batch schedule as pairs, by the epochs done.

    Args:
        schedule: epochs done -> batch size, a dict or pairs; None, or an empty one: none.
        epochs: of the run.

    Raises:
        InputError: neither, an epoch that comes twice or not at all.

    Example:
        >>> settle({20: 160, 10: 40}, 30)
        ((10, 40), (20, 160))
    """
    if schedule is None or (isinstance(schedule, tuple) and not schedule):
        return ()
    form = InputError(
        f"batch_schedule has a batch size by the number of epochs done before, as "
        f"{{10: 40, 20: 160}}, not {quoted(schedule)}"
    )
    given = schedule.items() if isinstance(schedule, Mapping) else schedule
    try:
        pairs = [(epoch, size) for epoch, size in given]
    except Exception:  # whatever its items do
        raise form from None
    if isinstance(schedule, (str, bytes)):
        raise form
    what = "of batch_schedule"
    found = sorted(
        (checks.count(f"an epoch {what}", epoch), checks.count(f"a batch size {what}", size))
        for epoch, size in pairs
    )
    for i, (epoch, _) in enumerate(found):
        if epoch >= epochs:
            raise InputError(
                f"batch_schedule changes the batch size after epoch {epoch}, and the run has "
                f"epochs={epochs}; name epochs below"
            )
        if i and epoch == found[i - 1][0]:
            raise InputError(f"batch_schedule names epoch {epoch} twice; give it one batch size")
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Phase:
    """Epochs whose batches are alike.

    Attributes:
        epoch: epochs before them.
        step: steps before them.
        sizes: of the batches of an epoch, `(m,)`.
    """

    epoch: int
    step: int
    sizes: np.ndarray


class Phases:
    """The phases of a run: where a step is in which epoch, and of how many samples.

    Args:
        sizes: those of an epoch's batches, by the epochs done before they hold; the first is 0.
        epochs: of the run.

    Attributes:
        parts: the phases.
        epochs: of the run.
        n_steps: of the run, at most.

    Example:
        >>> phases = Phases({0: [2, 2], 3: [4]}, 5)
        >>> phases.n_steps, int(phases.steps_before(4)), phases.sizes_of_steps().tolist()
        (8, 7, [2, 2, 2, 2, 2, 2, 4, 4])
    """

    def __init__(self, sizes: Mapping[int, Any], epochs: int) -> None:
        self.epochs, step, before = epochs, 0, 0
        self.parts: list[Phase] = []
        for epoch, batches in sizes.items():
            step += (epoch - before) * len(self.parts[-1].sizes) if self.parts else 0
            self.parts.append(Phase(epoch, step, np.array(batches)))
            before = epoch
        self._table = np.array([(part.epoch, part.step, len(part.sizes)) for part in self.parts])
        self.n_steps = int(self.steps_before(epochs))

    def cut(self, steps: int) -> Phases:
        """Return the phases of the first steps alone: the last epoch may have fewer batches.

        >>> Phases({0: [2, 2]}, 5).cut(3).sizes_of_steps().tolist()
        [2, 2, 2]
        """
        whole = int(self.epochs_before(steps))
        rest = steps - int(self.steps_before(whole))
        sizes = {part.epoch: part.sizes for part in self.parts if part.epoch < whole}
        if rest:
            sizes[whole] = self.at(whole).sizes[:rest]
        return Phases(sizes, whole + bool(rest))

    def at(self, epoch: int) -> Phase:
        """Return the phase that an epoch is in, so many being done."""
        return next(part for part in reversed(self.parts) if part.epoch <= epoch)

    def until(self, epoch: int) -> int:
        """Return the number of epochs from this one on, so many being done, that are alike."""
        later = (part.epoch for part in self.parts if part.epoch > epoch)
        return next(later, self.epochs) - epoch

    def steps_before(self, epoch: Any) -> Any:
        """Return the number of steps in so many epochs; of an array, an array."""
        part = self._which(epoch, self._table[:, 0])
        first, step, m = self._table[part].T
        return step + (np.asarray(epoch) - first) * m

    def epochs_before(self, step: Any) -> Any:
        """Return the number of epochs that are done before a step, from 0; of an array, one."""
        part = self._which(step, self._table[:, 1])
        first, start, m = self._table[part].T
        return first + (np.asarray(step) - start) // m

    def sizes_of_steps(self) -> np.ndarray:
        """Return the samples of every step of the run, `(S,)`."""
        ends = [part.epoch for part in self.parts[1:]] + [self.epochs]
        each = zip(self.parts, ends, strict=True)
        return np.concatenate([np.tile(part.sizes, end - part.epoch) for part, end in each])

    @property
    def every_size(self) -> list[int]:
        """The sizes of batches that come, smallest first."""
        every = np.unique(np.concatenate([part.sizes for part in self.parts]))
        return [int(size) for size in every]

    @staticmethod
    def _which(where: Any, starts: np.ndarray) -> Any:
        return np.searchsorted(starts, where, side="right") - 1
