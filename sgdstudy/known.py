"""A number that theory knows: with what rounding may change of it, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sgdstudy import checks


@dataclass(frozen=True)
class Known:
    """A number, how far a right measurement may be from it, and its source; a claim takes all.

    Attributes:
        value: what is expected.
        within: the tolerance that comes with it: rounding, or four standard errors.
        source: where it comes from.

    Example:
        >>> known = Known(0.5, 0.01, "theory: a half")
        >>> float(known), f"{known:.2f}"
        (0.5, '0.50')
        >>> known / 2
        Known(value=0.25, within=0.005, source='theory: a half')
    """

    value: float
    within: float = 0.0
    source: str = ""

    @property
    def is_vague(self) -> bool:
        """Whether it says little: half of it or more is within what may be off.

        A value that is 0 is none: that nothing is there can turn out to be false.

        >>> Known(2.0, 1.0).is_vague, Known(2.0, 0.9).is_vague, Known(0.0, 1.0).is_vague
        (True, False, False)
        """
        return self.value != 0 and not self.within < abs(self.value) / 2

    def __float__(self) -> float:
        return float(self.value)

    def __truediv__(self, divisor: float) -> Known:
        return replace(self, value=self.value / divisor, within=self.within / abs(divisor))

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)


def rounded(value: float | Known, digits: int = 10) -> float:
    """Return a setting that theory gives, to the digits that every process finds.

    Its last bits depend on the processor, on threads, and on where arrays lie in memory: another
    process trains with another step size, and does not take a stopped run over.

    Args:
        value: such as a share of a limit of the step size.
        digits: significant ones.

    Raises:
        InputError: no finite number, or no number of digits.

    Example:
        >>> rounded(0.04999999999999998), rounded(Known(2 / 3), 4)
        (0.05, 0.6667)
    """
    plain = value.value if isinstance(value, Known) else value
    number = checks.number("value", plain, lambda v: True, "finite")
    return float(f"{number:.{checks.count('digits', digits)}g}")
