"""Which samples each update of a recorded run uses, and which it should."""

from __future__ import annotations

from sgdstudy.course.notes import NEPOCH, D, Run
from sgdstudy.language import say, to_say


def epochs_of(run: Run) -> list[list[int]]:
    """Group the updates: an epoch ends when all samples were seen, or one is seen again."""
    epochs: list[list[int]] = []
    seen = set(range(D))
    for k, samples in enumerate(run.batches):
        if len(seen) == D or seen & set(samples):
            epochs.append([])
            seen = set()
        epochs[-1].append(k)
        seen |= set(samples)
    if (run.endless or run.error or run.diverged) and len(epochs) > 1:
        return epochs if whole(run, epochs) else epochs[:-1]  # the last is cut short
    size, rest = divmod(len(run.batches), NEPOCH)
    if size and not rest and not whole(run, epochs):  # drawn in another way: NEPOCH equal parts
        return [list(range(k, k + size)) for k in range(0, len(run.batches), size)]
    return epochs


def whole(run: Run, epochs: list[list[int]]) -> bool:
    """Whether every epoch uses every sample once."""
    drawn = [sorted(i for k in epoch for i in run.batches[k]) for epoch in epochs]
    return all(samples == list(range(D)) for samples in drawn)


def sampling_faults(epochs: list[list[list[int]]], batch: int) -> list[str]:
    """Judge the batches of each epoch: each a list of samples."""
    sizes = sorted({len(samples) for epoch in epochs for samples in epoch})
    drawn = [[i for samples in epoch for i in samples] for epoch in epochs]
    once = all(sorted(epoch) == list(range(D)) for epoch in drawn)
    odd = [size for size in sizes if once and size not in (batch, D % batch)] or sizes[-1:]
    faults = [_of_another_size(odd[-1], batch)] * (odd[-1] != batch) + _fixed(epochs)
    if once:
        return faults
    worst = max(drawn, key=lambda epoch: len(epoch) - len(set(epoch)))
    n, different = len(worst), len(set(worst))
    if different < n:
        line = say(
            "an epoch uses one sample only, in {draws} draws: permute all {d}",
            "an epoch uses samples twice, {n} different ones in {draws} draws: permute all {d}",
            n=different, draws=n, d=D,
        )  # fmt: skip
        return [*faults, line]
    if n == D - D % sizes[-1]:
        text = to_say(
            "an epoch uses {n} of the {d} samples: the last, smaller batch is left out (drop_last)"
        )
    else:
        text = to_say("an epoch uses {n} of the {d} samples: each is due once")
    return [*faults, say(text, n=n, d=D)]


def _of_another_size(size: int, batch: int) -> str:
    if batch < D:
        return say(
            "the batches have {n} sample where minibatch = {batch} is asked",
            "the batches have {n} samples where minibatch = {batch} is asked",
            n=size, batch=batch,
        )  # fmt: skip
    return say(
        "the batches have {n} sample where all {d} samples at once are asked",
        "the batches have {n} samples where all {d} samples at once are asked",
        n=size, d=D,
    )  # fmt: skip


def _fixed(epochs: list[list[list[int]]]) -> list[str]:
    """Name batches that stay the same from epoch to epoch."""
    orders = {tuple(frozenset(samples) for samples in epoch) for epoch in epochs}
    if len(epochs) == 1 or len(epochs[0]) == 1:
        return []
    if len(orders) == 1:
        return [say("the order is the same in every epoch: shuffle the samples anew in each")]
    alone = all(len(samples) == 1 for order in orders for samples in order)
    if not alone and len({frozenset(order) for order in orders}) == 1:
        return [
            say(
                "the batches are the same in every epoch, only their order changes: shuffle the "
                "samples, not the batches"
            )
        ]
    return []
