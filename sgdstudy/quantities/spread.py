"""How the gradients of a batch's samples spread about their mean: sums that quantities share.

Gradients lie as `(p, B, n)`: n rows (a step of a replica) last, so that numpy runs along them,
and sums are taken one by one along the other axes: a row's value does not depend on the rows
beside it. Sums are of centred values; raw moments would cancel.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# the edges of the histogram's bins: -1e4, -1e2, ..., -1e-6, 1e-6, ..., 1e4
EDGES = np.concatenate([-np.logspace(4, -6, 6), np.logspace(-6, 4, 6)])
SPREAD = ("square", "scatter", "along", "across", "snr")


def centre(gradients: np.ndarray) -> np.ndarray:
    """Subtract the mean over the batch, in place, and return it `(p, n)`.

    The first sample is subtracted first: identical samples leave exactly nothing.
    """
    first = gradients[:, 0].copy()
    gradients -= first[:, None]
    mean = np.add.reduce(gradients, axis=1)
    mean /= gradients.shape[1]
    gradients -= mean[:, None]
    return first + mean


def sums(
    centred: np.ndarray, mean: np.ndarray, wanted: frozenset[str], work: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return sums over samples; those of parts of a batch add up to those of the whole.

    Args:
        centred: the samples' gradients less their mean, `(p, B, n)`.
        mean: their mean g, `(p, n)`.
        wanted: names of `SPREAD`.
        work: room for as much as `centred`.

    Returns:
        `by_parameter` `(p, n)`, sum of squares; `along` `(n,)`, sum of t_i^2 with
        t_i = (g_i - g).g / |g|^2; `across` `(n,)`, sum of |g_i - g - t_i g|^2.
    """
    found: dict[str, np.ndarray] = {}
    work = np.empty(centred.shape) if work is None else work
    if wanted & {"scatter", "snr"}:
        np.multiply(centred, centred, out=work)
        found["by_parameter"] = np.add.reduce(work, axis=1)
    if wanted & {"along", "across"}:
        np.multiply(centred, mean[:, None], out=work)
        share = np.add.reduce(work, axis=0)
        share /= square(mean)
        found["along"] = np.add.reduce(share * share, axis=0)
    if "across" in wanted:
        if len(centred) == 1:  # a single sample: nothing is across
            found["across"] = 0 * found["along"]
        else:
            np.multiply(share, mean[:, None], out=work)
            np.subtract(centred, work, out=work)
            np.multiply(work, work, out=work)
            found["across"] = np.add.reduce(np.add.reduce(work, axis=0), axis=0)
    return found


def statistics(
    found: dict[str, np.ndarray], mean: np.ndarray, size: int, wanted: frozenset[str]
) -> dict[str, np.ndarray]:
    """Turn the sums over all samples of a batch into the statistics that are wanted.

    `snr` is B times the mean over parameters of g_j^2 / sum_i (g_ij - g_j)^2. A parameter on
    which no sample has any gradient (a dead unit) is left out; one without variance makes it NaN.
    """
    values: dict[str, np.ndarray] = {
        name: found[name] for name in ("along", "across") if name in wanted
    }
    if "square" in wanted:
        values["square"] = square(mean)
    if "scatter" in wanted:
        values["scatter"] = np.add.reduce(found["by_parameter"], axis=0)
    if "snr" in wanted:
        by_parameter, count = found["by_parameter"], np.array(len(mean))
        ratio = mean * mean / by_parameter
        if not by_parameter.all():
            dead = (by_parameter == 0) & (mean == 0)
            count = len(mean) - dead.sum(0)
            ratio[dead] = 0
        snr = size * np.add.reduce(ratio, axis=0) / count
        values["snr"] = np.where(np.isinf(snr), np.nan, snr)
    return values


def square(vectors: np.ndarray) -> np.ndarray:
    """Return squared norms `(n,)` of vectors `(p, n)`."""
    return np.add.reduce(vectors * vectors, axis=0)


def histogram(gradients: np.ndarray) -> np.ndarray:
    """Count the elements of gradients `(p, B, n)` between `EDGES`, `(n, len(EDGES) + 1)`."""
    below = [np.count_nonzero(gradients < edge, axis=(0, 1)) for edge in EDGES]
    below.append(np.count_nonzero(gradients == gradients, axis=(0, 1)))  # all that are numbers
    return np.diff(np.stack(below, axis=1), axis=1, prepend=0).astype(float)


def nowhere(shape: tuple[int, ...], names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return statistics of batches `(S, R)` that are NaN."""
    columns = {"histogram": (len(EDGES) + 1,)}
    return {name: np.full(shape + columns.get(name, ()), np.nan) for name in names}
