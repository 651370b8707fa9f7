"""How many entries are zero, not finite, too small for a dtype; and the histogram of their exponents."""

import torch
from jaxtyping import Float64
from torch import Tensor

from unitygain.stats.dtypes import NUMBER_RANGES, UNDERFLOW_DTYPES
from unitygain.stats.layouts import Entries, entries, magnitude, reduction, sample_stride

EXPONENT_LOW = -160
EXPONENT_HIGH = 130
_BINS = EXPONENT_HIGH - EXPONENT_LOW + 1
_SAMPLE = 1 << 20


@reduction
def frac_zero(tensor: Tensor) -> Float64[Tensor, ""]:
    """Fraction of entries that are exactly zero, implicit zeros of a sparse tensor included.

    A tensor without entries gives NaN. Cost: two passes. On a DTensor: one all-gather of one number per
    sharded mesh dimension.

    Args:
        tensor: Any shape, any dtype, layout and device.

    Returns:
        From 0 to 1, on the tensor's device.

    Example:
        >>> import torch
        >>> frac_zero(torch.tensor([0.0, 1.0, -0.0, 1e-45])).item()
        0.5
    """
    part = entries(tensor)
    nonzero = torch.count_nonzero(part.values).double()
    return _fraction(part, part.total - part.gather(nonzero * part.times).sum())


@reduction
def frac_nonfinite(tensor: Tensor) -> Float64[Tensor, ""]:
    """Fraction of entries that are infinite or NaN.

    A tensor without entries gives NaN. Cost: about one `torch.sum` where all are finite, else three
    passes. On a DTensor: one all-gather of one number per sharded mesh dimension.

    Args:
        tensor: Any shape, any dtype, layout and device.

    Returns:
        From 0 to 1, on the tensor's device.

    Example:
        >>> import torch
        >>> frac_nonfinite(torch.tensor([0.0, float("inf"), float("nan"), 1.0])).item()
        0.5
    """
    part = entries(tensor)
    count = part.constant(0.0)
    # A finite sum has only finite terms; an infinite one may have overflowed, so it proves nothing.
    if part.values.device.type != "cpu" or not torch.isfinite(part.values.sum()):
        for block in part.blocks():
            count = count + torch.count_nonzero(block - block)
    return _fraction(part, part.gather(count * part.times).sum())


@reduction
def frac_underflow(tensor: Tensor) -> Float64[Tensor, "dtypes=4"]:
    """Fraction of the non-zero entries that would be rounded to zero in float16, bfloat16, e4m3fn, e5m2.

    Rounding is to nearest, ties to even: an entry goes to zero if its magnitude is at most half the
    smallest subnormal number. Infinite and NaN entries are non-zero. NaN if there is no non-zero entry.

    Cost: about eight passes. On a DTensor: one all-gather of five numbers per sharded mesh dimension.

    Args:
        tensor: Any shape, any dtype, layout and device.

    Returns:
        Shape (4,), from 0 to 1, in the order of `dtypes.UNDERFLOW_DTYPES`.

    Example:
        >>> import torch
        >>> frac_underflow(torch.tensor([1.0, 1e-8, 1e-4, 0.0])) * 3
        tensor([1., 0., 2., 1.], dtype=torch.float64)
    """
    part = entries(tensor)
    counts = torch.zeros(1 + len(UNDERFLOW_DTYPES), dtype=torch.float64, device=part.values.device)
    for block in part.blocks():
        sizes = magnitude(block)
        zeros = (sizes == 0).sum()
        lost = [(sizes <= NUMBER_RANGES[name].rounds_to_zero).sum() - zeros for name in UNDERFLOW_DTYPES]
        counts += torch.stack([sizes.numel() - zeros, *lost])
    counts = part.gather(*counts).sum(0)
    return counts[1:] / counts[0]


@reduction
def exponents(tensor: Tensor) -> Float64[Tensor, "bins=291"]:
    """Histogram of floor(log2|x|), one bin per power of two from 2^-160 to 2^130.

    Smaller and larger numbers are counted in the first and last bin; zeros and non-finite entries are not
    counted. Above 2^20 entries it is an estimate: every k-th entry is counted and weighs k times, with k
    prime to the number of entries, so that no column or row of the tensor is favoured.

    Cost: about ten passes over at most 2^20 entries. On a DTensor: one all-gather of 291 numbers per
    sharded mesh dimension.

    Args:
        tensor: Any shape, any dtype, layout and device.

    Returns:
        Shape (291,), number of entries per bin; bin k counts 2^(k-160) <= |x| < 2^(k-159).

    Example:
        >>> import torch
        >>> counts = exponents(torch.tensor([1.0, 1.5, 2.0, 0.0]))
        >>> counts[160].item(), counts[161].item()
        (2.0, 1.0)
    """
    part = entries(tensor)
    sample = part.values[:: sample_stride(part.values.numel(), _SAMPLE)]
    counts = torch.zeros(_BINS + 1, dtype=torch.float64, device=sample.device)
    if sample.numel():
        weight = part.times * part.values.numel() / sample.numel()
        counts = counts.index_add(0, _bins(sample), torch.full_like(sample, weight, dtype=torch.float64))
    return part.gather(*counts[:_BINS]).sum(0)


def _bins(values: Tensor) -> Tensor:
    """Index of each value's bin; `_BINS` for zero and non-finite values.

    Read from the exponent field of float64, in which even a subnormal number of a narrower dtype is normal.
    """
    sizes = magnitude(values)
    exponent = (sizes.view(torch.int64) >> 52) - 1023
    counted = (sizes > 0) & (exponent < 1024)
    return torch.where(counted, exponent.clamp(EXPONENT_LOW, EXPONENT_HIGH) - EXPONENT_LOW, _BINS)


def _fraction(part: Entries, count: Tensor) -> Float64[Tensor, ""]:
    return count / part.total if part.total else part.constant(float("nan"))
