"""What callers hand in: numbers that mean something, or a sentence that says why not."""

import math
from numbers import Real
from typing import Any


def require_variance(name: str, value: float) -> float:
    """Return a finite number of at least 0.

    Raises:
        TypeError: If it is not a number at all.
        ValueError: If it is not such a number.
    """
    if not (_finite(name, value) and value >= 0):
        raise ValueError(f"{name} is {value!r}; give a finite number of at least 0")
    return float(value)


def require_positive(name: str, value: float) -> float:
    """Return a finite number above 0.

    Raises:
        TypeError: If it is not a number at all.
        ValueError: If it is not such a number.
    """
    if not (_finite(name, value) and value > 0):
        raise ValueError(f"{name} is {value!r}; give a finite number above 0")
    return float(value)


def require_finite(name: str, value: float) -> float:
    """Return a finite number.

    Raises:
        TypeError: If it is not a number at all.
        ValueError: If it is not such a number.
    """
    if not _finite(name, value):
        raise ValueError(f"{name} is {value!r}; give a finite number")
    return float(value)


def require_count(name: str, value: int, least: int = 1) -> int:
    """Return a whole number of at least `least`.

    Raises:
        TypeError: If it is not a number at all.
        ValueError: If it is not such a number.
    """
    if not _finite(name, value) or int(value) != value or value < least:
        raise ValueError(f"{name} is {value!r}; give a whole number of at least {least}")
    return int(value)


def require_correlation(name: str, value: float) -> float:
    """Return a number in [-1, 1].

    Raises:
        TypeError: If it is not a number at all.
        ValueError: If it is not such a number.
    """
    if not (_finite(name, value) and -1 <= value <= 1):
        raise ValueError(f"{name} is {value!r}; a correlation lies in [-1, 1]")
    return float(value)


def require_fraction(name: str, value: float) -> float:
    """Return a number in [0, 1].

    Raises:
        TypeError: If it is not a number at all.
        ValueError: If it is not such a number.
    """
    if not (_finite(name, value) and 0 <= value <= 1):
        raise ValueError(f"{name} is {value!r}; give a number from 0 to 1")
    return float(value)


def _finite(name: str, value: Any) -> bool:
    """Whether a number is finite; a tensor of one number is not taken for one, whose dtype would spread."""
    if not isinstance(value, Real):
        kind = type(value).__name__
        raise TypeError(f"{name} is {value!r}, of type {kind}; give a real number, such as float(...) makes")
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
