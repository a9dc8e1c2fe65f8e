"""Numbers estimated from seeds, each with its standard error.

A mean over R seeds has the standard error s / sqrt(R). What is computed of means moves, to first
order, by its derivative times theirs (the delta method), so that it too is a mean of what every
seed adds, and its error is the standard error of that. Seeds that share their luck share it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np

from sgdstudy.errors import InputError
from sgdstudy.theory.batch_size import time_above
from sgdstudy.theory.medians import ratio_of_means, standard_error
from sgdstudy.theory.rates import log_slope, slope_samples


@dataclass(frozen=True)
class Estimate:
    """A number estimated from seeds.

    Attributes:
        value: the number.
        error: its standard error; NaN of a single seed.
        seeds: how many seeds the error is estimated from.

    Example:
        >>> seen = Estimate.mean(np.array([1.0, 2.0, 3.0, 6.0]))
        >>> f"{seen:.1f} +- {seen.error:.2f}", seen.beside(2.5)
        ('3.0 +- 1.08', (3.0, 2.5, 1.0801234497346435, 4))
    """

    value: float
    error: float
    seeds: int

    def __float__(self) -> float:
        return self.value

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

    def __rmul__(self, factor: float) -> Estimate:
        return Estimate(factor * self.value, abs(factor) * self.error, self.seeds)

    def beside(
        self, expected: SupportsFloat | None
    ) -> tuple[float, SupportsFloat | None, float, int]:
        """Return measured, expected, error and seeds, as `Claim.estimated` takes them.

        Where what is expected is an estimate itself, of other draws, the errors' squares add up.
        """
        if isinstance(expected, Estimate):
            both = float(np.hypot(self.error, expected.error))
            return self.value, expected.value, both, self.seeds
        return self.value, expected, self.error, self.seeds

    @classmethod
    def mean(cls, samples: np.ndarray, others: float = np.inf) -> Estimate:
        """Return the mean over the seeds of samples `(R,)`.

        Args:
            samples: one a seed.
            others: how many such samples, drawn apart, the expected number is itself a mean of:
                its error, s / sqrt(others), is part of this one's. Infinite: it is exact.
        """
        n = len(samples)
        error = float(standard_error(samples)) * float(np.sqrt(1 + n / others))
        return cls(float(np.mean(samples)), error, n)

    @classmethod
    def ratio(cls, a: np.ndarray, b: np.ndarray, expected: SupportsFloat | None = None) -> Estimate:
        """Return mean a over mean b, of samples `(R,)` each.

        (a - r b) / mean b has the mean 0, r the ratio, and its standard error is that of the ratio.

        Args:
            a: one a seed.
            b: one a seed, the same seeds.
            expected: r as theory has it; None: the ratio that was found.
        """
        middle = float(np.mean(b))
        found = float(np.mean(a)) / middle
        r = found if expected is None else float(expected)
        return cls(found, float(standard_error((a - r * b) / middle)), len(a))

    @classmethod
    def ratios(cls, a: np.ndarray, b: np.ndarray, expected: np.ndarray) -> Estimate:
        """Return the ratio of two means over the seeds, a mean over the rows.

        See `theory.ratio_of_means`.

        Args:
            a: `(k, R)`.
            b: `(k, R)`, or known, `(k, 1)`.
            expected: the ratio of every row, as theory has it, `(k,)`.
        """
        ratio, error = ratio_of_means(a, b, expected)
        return cls(ratio, error, a.shape[1])

    @classmethod
    def slope(cls, x: np.ndarray, samples: np.ndarray) -> Estimate:
        """Return the slope of log mean over log x, of samples `(k, R)`; see `log_slope`."""
        error = standard_error(slope_samples(x, samples))
        return cls(float(log_slope(x, samples.mean(1))), float(error), samples.shape[1])

    @classmethod
    def height(cls, samples: np.ndarray, expected: np.ndarray) -> Estimate:
        """Return the geometric mean over k places of mean over expected, of samples `(k, R)`.

        Args:
            samples: one a place and seed.
            expected: `(k,)`, above 0; or samples of it, `(k, N)`, whose error is included.
        """
        every = [samples] if expected.ndim == 1 else [samples, expected]
        true = expected if expected.ndim == 1 else expected.mean(1)
        each = [(values / values.mean(1, keepdims=True)).mean(0) for values in every]
        error = np.hypot.reduce([standard_error(values) for values in each])
        ratio = float(np.exp(np.mean(np.log(samples.mean(1) / true))))
        return cls(ratio, float(error) * ratio, samples.shape[1])

    @classmethod
    def time_above(cls, curves: np.ndarray, target: float, expected: np.ndarray) -> Estimate:
        """Return for how many steps the mean of curves `(S, R)` is above the target.

        The time goes with the logarithm of the mean, whose error is that of the mean over the mean,
        and moves by that over the expected curve's fall in a step.

        Args:
            curves: one a seed, falling on average; see `theory.time_above`.
            target: above 0.
            expected: the expected curve, which ends below the target.

        Raises:
            InputError: the curves end before the expected one.
        """
        if not 2 <= len(expected) <= len(curves):
            raise InputError(
                f"the curves are of {len(curves)} steps; the expected one, of {len(expected)}, "
                "has at least 2 and ends before them"
            )
        there = curves[len(expected) - 1]
        error = standard_error(there) / there.mean() / np.log(expected[-2] / expected[-1])
        return cls(time_above(curves.mean(1), target), float(error), curves.shape[1])
