"""How rules write and compare numbers: decibels, robust spread, three digits."""

import math
from collections.abc import Sequence

# A little less than what float64 holds, either way.
LARGEST_POWER = 300


def to_db(gain: float) -> float:
    """Return 20·log10 of a gain; -infinity for 0, NaN for what is no gain."""
    if gain > 0:
        return 20 * math.log10(gain)
    return -math.inf if gain == 0 else math.nan


def from_db(decibel: float) -> float:
    """Return the gain of a number of decibels: 0 and infinity beyond what a float holds."""
    if decibel > 6000:
        return math.inf
    return 10 ** (decibel / 20)


def power_of_ten(value: float) -> float:
    """Return the largest power of ten that is at most a positive number, within 1e-300 and 1e300.

    Example:
        >>> power_of_ten(4200.0), power_of_ten(0.02), power_of_ten(math.inf), power_of_ten(0.0)
        (1000.0, 0.01, 1e+300, 1e-300)
    """
    if not value > 0:
        return 10.0**-LARGEST_POWER
    exponent = math.log10(value)
    return 10.0 ** math.floor(max(-LARGEST_POWER, min(LARGEST_POWER, exponent)))


def spell(value: float) -> str:
    """Write a number with three significant digits.

    Example:
        >>> spell(0.41234), spell(5.1e-10), spell(24.0), spell(-185.24)
        ('0.412', '5.1e-10', '24', '-185')
    """
    return f"{value:.3g}"


def spell_p(p: float, least: float) -> str:
    """Write a p-value, as a bound where it is the least that the draws can tell.

    Example:
        >>> spell_p(0.0312, 0.001), spell_p(0.001, 0.001)
        ('p = 0.0312', 'p < 0.001')
    """
    return f"p {'<' if p <= least else '='} {spell(p)}"


def median(values: Sequence[float]) -> float:
    """Return the middle of finite numbers."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def spread(values: Sequence[float]) -> float:
    """Return the median distance from the median, times 1.4826: the standard deviation of a normal sample."""
    centre = median(values)
    return 1.4826 * median([abs(value - centre) for value in values])
