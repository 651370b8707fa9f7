"""The range of each floating dtype, and the loss scale that moves a gradient into it."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class NumberRange:
    """The positive numbers that a dtype can hold.

    Args:
        smallest_subnormal: The smallest of them.
        smallest_normal: The smallest with full precision.
        largest: The largest finite one.
    """

    smallest_subnormal: float
    smallest_normal: float
    largest: float

    @property
    def rounds_to_zero(self) -> float:
        """Largest magnitude that rounds to zero: half the smallest subnormal, a tie that goes to even."""
        return self.smallest_subnormal / 2


def _range(dtype: torch.dtype) -> NumberRange:
    info = torch.finfo(dtype)
    return NumberRange(info.smallest_normal * info.eps, info.smallest_normal, info.max)


UNDERFLOW_DTYPES = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
NUMBER_RANGES: dict[str, NumberRange] = {
    name: _range(getattr(torch, name)) for name in (*UNDERFLOW_DTYPES, "float32")
}


def repairing_loss_scale(absmax: float, smallest: float, dtype: str) -> float:
    """Power of two by which to multiply the loss so that a gradient fits into `dtype`.

    After multiplication `smallest` is at least the dtype's smallest subnormal number, so that nothing as
    large is rounded to zero, and `absmax` is at most its largest number. Of all such powers of two it is
    the one nearest to 1, which leaves the most headroom. Exact: only exponents are compared.

    Args:
        absmax: Largest magnitude of the gradient.
        smallest: Magnitude that must survive, such as a low quantile of the non-zero entries.
        dtype: One of `NUMBER_RANGES`, such as ``"float16"``.

    Returns:
        The scale, or NaN if no power of two does both, or if a magnitude is not finite and positive.

    Raises:
        ValueError: If the dtype is unknown or `smallest` exceeds `absmax`.

    Example:
        >>> repairing_loss_scale(absmax=1e-3, smallest=1e-9, dtype="float16")
        64.0
        >>> repairing_loss_scale(absmax=1.0, smallest=1e-9, dtype="float8_e4m3fn")
        nan
    """
    if dtype not in NUMBER_RANGES:
        raise ValueError(f"dtype {dtype!r} has no loss scale; use one of {', '.join(NUMBER_RANGES)}")
    if smallest > absmax:
        raise ValueError(
            f"smallest is {smallest:g}, above absmax {absmax:g}; it is the magnitude of a smaller entry"
        )
    if not (smallest > 0 and absmax < math.inf):
        return math.nan
    reach = NUMBER_RANGES[dtype]
    low = _ceil_log2_ratio(reach.smallest_subnormal, smallest)
    high = -_ceil_log2_ratio(absmax, reach.largest)
    if low > high:
        return math.nan
    exponent = min(max(0, low), high)
    return math.ldexp(1.0, exponent) if exponent < 1024 else math.nan


def _ceil_log2_ratio(numerator: float, denominator: float) -> int:
    """Smallest integer k with numerator <= denominator·2^k, from mantissas and exponents."""
    (top, up), (bottom, down) = math.frexp(numerator), math.frexp(denominator)
    return up - down + (top > bottom)
