"""After how many layers a number leaves its dtype, and what share of Gaussian numbers is below it."""

import math
from dataclasses import dataclass

from scipy import special

from unitygain.theory._given import require_finite, require_positive


@dataclass(frozen=True)
class DtypeRange:
    """The range of a floating dtype.

    Args:
        smallest: Smallest subnormal.
        normal: Smallest normal number.
        largest: Largest finite number.
        infinite: Whether it has an infinity; where not, what is too large saturates at `largest` or is NaN.
    """

    smallest: float
    normal: float
    largest: float
    infinite: bool = True


def _ieee(exponent_bits: int, mantissa_bits: int) -> DtypeRange:
    bias = 2 ** (exponent_bits - 1) - 1
    normal = 2.0 ** (1 - bias)
    return DtypeRange(normal * 2.0**-mantissa_bits, normal, 2.0**bias * (2 - 2.0**-mantissa_bits))


DTYPES = {
    "float16": _ieee(5, 10),
    "bfloat16": _ieee(8, 7),
    "float32": _ieee(8, 23),
    "float64": _ieee(11, 52),
    "float8_e5m2": _ieee(5, 2),
    "float8_e4m3fn": DtypeRange(2.0**-9, 2.0**-6, 448.0, infinite=False),
}


def layers_to_underflow(factor: float, dtype: str, start: float = 1.0, flush: bool = False) -> int:
    """Return the least k at which start·factor^k is zero in the dtype.

    Args:
        factor: Plain factor per layer, below 1.
        dtype: Name of a dtype.
        start: Number before the first layer.
        flush: Whether subnormal numbers are flushed to zero.

    Raises:
        ValueError: If the factor is not inside (0, 1) or the dtype unknown.

    Example:
        >>> [layers_to_underflow(0.1, d) for d in ("float16", "bfloat16", "float32", "float64")]
        [8, 41, 46, 324]

    References:
        IEEE 754: to nearest, ties to even, what is at most half the smallest subnormal is zero.
    """
    if not 0 < require_finite("factor", factor) < 1:
        raise ValueError(f"factor is {factor!r}; a number falls for factors between 0 and 1")
    bounds = dtype_range(dtype)
    # log2 keeps powers of two exact, at which the comparison is a tie.
    floor = math.log2(bounds.normal) if flush else math.log2(bounds.smallest) - 1
    steps = (floor - math.log2(require_positive("start", start))) / math.log2(factor)
    return max(0, math.floor(steps) + 1 if flush else math.ceil(steps))


def layers_to_overflow(factor: float, dtype: str, start: float = 1.0) -> int:
    """Return the least k at which start·factor^k rounds beyond the dtype's largest number.

    Args:
        factor: Plain factor per layer, above 1.
        dtype: Name of a dtype.
        start: Number before the first layer.

    Raises:
        ValueError: If the factor is not above 1 or the dtype unknown.

    Example:
        >>> [layers_to_overflow(10, d) for d in ("float16", "bfloat16", "float32", "float64")]
        [5, 39, 39, 309]
    """
    if not require_finite("factor", factor) > 1:
        raise ValueError(f"factor is {factor!r}; a number grows for factors above 1")
    largest = math.log2(dtype_range(dtype).largest)
    return max(0, math.floor((largest - math.log2(require_positive("start", start))) / math.log2(factor)) + 1)


def underflow_share(rms: float, dtype: str, flush: bool = False) -> float:
    """Return the share of Gaussian numbers of this rms that are zero in the dtype.

    Args:
        rms: Root mean square.
        dtype: Name of a dtype.
        flush: Whether subnormal numbers are flushed to zero.

    Raises:
        ValueError: If the rms is not above 0 or the dtype unknown.

    Example:
        >>> round(underflow_share(1e-8, "float16"), 4)
        0.9971
    """
    bounds = dtype_range(dtype)
    floor = bounds.normal if flush else bounds.smallest / 2
    return float(special.erf(floor / require_positive("rms", rms) / math.sqrt(2)))


def dtype_range(dtype: str) -> DtypeRange:
    """Return the range of a dtype by name.

    Raises:
        ValueError: If the dtype is unknown.
    """
    if dtype not in DTYPES:
        raise ValueError(f"no dtype is named {dtype!r}; the names are {', '.join(sorted(DTYPES))}")
    return DTYPES[dtype]
