"""Medians of samples that may hold infinities, with bootstrap intervals; errors of means."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Interval = tuple[float, float]


def standard_error(samples: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the standard error of the mean over an axis; NaN of a single sample.

    >>> print(standard_error(np.array([1.0, 2.0, 3.0, 6.0])).round(4))
    1.0801
    """
    samples = np.asarray(samples, dtype=float)
    n = samples.shape[axis]
    spread = samples.std(axis, ddof=1) if n > 1 else np.full_like(samples.mean(axis), np.nan)
    return spread / n**0.5


def draw_within(samples: np.ndarray, deviations: float = 4.0) -> float:
    """Return how far one more draw of the same law may be from the mean of a sample.

    t s sqrt(1 + 1 / n), the half width of the prediction interval of normal draws, s their standard
    deviation and t Student's quantile of n - 1, as rare as so many standard deviations of a normal
    law. NaN of a single sample.

    >>> round(draw_within(np.tile([-1.0, 1.0], 500_000)), 3)  # of many draws
    4.0
    """
    from scipy.stats import norm, t  # late: 0.3 s

    n = len(samples)
    if n < 2:
        return np.nan
    quantile = float(t.isf(norm.sf(deviations), n - 1))
    return quantile * float(np.std(samples, ddof=1)) * (1 + 1 / n) ** 0.5


def jackknife_error(estimate: Callable[[np.ndarray], float], samples: np.ndarray) -> float:
    """Return the standard error of an estimate from samples, each left out in turn (Tukey 1958).

    sqrt((n - 1) / n sum (estimate without i - their mean)^2); NaN of a single sample. For smooth
    functions of means: that of a mean itself is `standard_error`.

    Args:
        estimate: of samples `(..., n)`.
        samples: `(..., n)`.

    >>> x = np.array([1.0, 2.0, 3.0, 6.0])
    >>> print(round(jackknife_error(np.mean, x), 12) == round(standard_error(x), 12))
    True
    """
    n = samples.shape[-1]
    if n < 2:
        return float("nan")
    without = [estimate(np.delete(samples, i, axis=-1)) for i in range(n)]
    return float(np.std(without) * np.sqrt(n - 1))


def ratio_of_means(
    top: np.ndarray, bottom: np.ndarray, expected: np.ndarray
) -> tuple[float, float]:
    """Return the ratio of two means over samples, a mean over the rows, and its standard error.

    mean(a) / mean(b) is off from its expectation r by mean(a - r b) / mean(b), a mean over the
    samples whose error is known (the delta method, with the r that is expected).

    Args:
        top: a, `(k, n)`.
        bottom: b, of the same samples, `(k, n)`, or known, `(k, 1)`.
        expected: r of every row, `(k,)`.

    Example:
        >>> ratio, error = ratio_of_means(np.array([[2.0, 4, 6]]), np.array([[1.0, 2, 3]]), [2])
        >>> print(ratio, error)  # one gives the other: no error
        2.0 0.0
    """
    true = np.asarray(expected, dtype=float)[:, None]
    off = ((top - true * bottom) / bottom.mean(1, keepdims=True)).mean(0)
    return float((top.mean(1) / bottom.mean(1)).mean()), float(standard_error(off))


def median(values: np.ndarray) -> float:
    """Return the median as a value of the sample (of two middle ones the lower).

    >>> median(np.array([3.0, 1.0, np.inf, 2.0]))
    2.0
    """
    return float(np.quantile(values, 0.5, method="inverted_cdf"))


def median_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Return the percentile bootstrap interval of the median, without drawing resamples.

    A resample's median is at most the k-th of n ordered values with the probability that at least
    half of n draws, each with probability k/n, are among them: P(Bin(n, k/n) >= n/2). So the law
    that resamples approach is known (Efron 1979). Of an even number the lower end takes the lower
    of the two middle values, the upper end the upper one.

    Args:
        values: the sample `(n,)`; infinities are values like others.
        confidence: its nominal coverage, which fewer than about ten values do not quite reach.

    Returns:
        Both ends; NaN for a single value.

    Example:
        >>> median_interval(np.arange(1.0, 65))
        (24.0, 41.0)
    """
    from scipy.stats import binom  # late: 0.3 s

    n = len(values)
    if n < 2:
        return np.nan, np.nan
    ordered, share = np.sort(values), np.arange(1, n + 1) / n
    tail = (1 - confidence) / 2
    low = np.argmax(binom.sf((n + 1) // 2 - 1, n, share) >= tail)
    high = np.argmax(binom.sf(n // 2, n, share) >= 1 - tail)
    return float(ordered[low]), float(ordered[high])


def bounded_median(
    values: np.ndarray, unsure: np.ndarray, ends: Interval, confidence: float = 0.95
) -> tuple[float, Interval]:
    """Return median and interval where some values are only known to lie between two ends.

    Args:
        values: the sample `(n,)`.
        unsure: `(n,)`, True where only the ends are known.
        ends: the lowest and the highest they can be.
        confidence: of the interval, which holds wherever they lie.

    Returns:
        The median, NaN where the values that are not known decide it, and the interval.

    Example:
        >>> x, unsure = np.array([1.0, 2, 3, 4, 5]), np.array([False] * 4 + [True])
        >>> bounded_median(x, unsure, (-np.inf, np.inf))
        (nan, (-inf, inf))
        >>> bounded_median(x, unsure, (4.0, np.inf))[0]
        3.0
    """
    lowest = np.where(unsure, ends[0], values)
    highest = np.where(unsure, ends[1], values)
    middle = median(lowest) if median(lowest) == median(highest) else np.nan
    low, _ = median_interval(lowest, confidence)
    _, high = median_interval(highest, confidence)
    return middle, (low, high)


def median_band(draws: np.ndarray, n: int, deviations: float = 4.0) -> Interval:
    """Return where the `median` of n further values of the same law lies.

    How many of N draws are below the k-th of n others has the beta-binomial law of N, k and
    n - k + 1, whatever the values' own law (Wilks 1942); the ends leave out as much as so many
    standard deviations of a normal law do.

    >>> median_band(np.arange(1000.0), 64)
    (251.0, 735.0)
    """
    from scipy.stats import betabinom, norm  # late: 0.3 s

    ordered, k = np.sort(draws), (n + 1) // 2
    ranks = betabinom(len(ordered), k, n - k + 1)
    tail = float(norm.sf(deviations))
    low, high = int(ranks.ppf(tail)), int(ranks.isf(tail))
    wide = np.concatenate([[-np.inf], ordered, [np.inf]])  # beyond all draws nothing is known
    return float(wide[low]), float(wide[high + 1])
