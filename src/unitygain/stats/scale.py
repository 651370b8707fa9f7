"""How large the entries of a tensor are: rms, norm, absmax, mean."""

import math

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from unitygain.stats.layouts import CPU_BLOCK, Entries, entries, magnitude, reduction

# Rows of 128: float32 kernels add at most 16 squares per lane of eight, then the eight lanes, so a row's
# sum of squares is right to (1 + 16 + 8)·2^-24 and its root, rounded once, to 8.1e-7. Rows of 1024 can be
# wrong by 1.9e-6 (an entry of 1 before many of 2^-12), one run over 38 M entries by 3e-3; all cost the same.
_ROW = 128
# Below this many entries the exact way is as quick.
_SMALL = 4096
# A square that falls below the smallest normal number m is wrong by at most m (flushed to zero), so a mean
# square is wrong by at most m: 1.2e-38 of 1e-30 in float32, 2.3e-308 of 1e-280 in float64. Above these rms
# values, and while nothing overflowed to infinity, quick sums are therefore right to 1.2e-8 at worst.
_QUICK_FLOOR = {torch.float32: 1e-15, torch.float64: 1e-140}


@reduction
def rms(tensor: Tensor) -> Float64[Tensor, ""]:
    """Root of the mean of |x|² over all entries.

    Right to 1e-6 relative wherever the entries are normal numbers of their dtype, also where their squares
    or the sum of squares lie outside its range. Implicit zeros of a sparse tensor count as entries. A NaN
    gives NaN; otherwise an infinity gives infinity; a tensor without entries gives NaN.

    Cost on a CPU: about one `torch.linalg.vector_norm`, five times that for 16-bit numbers; about ten times
    where a float32 rms is below 1e-15 or squares overflow. On a DTensor: one all-gather of two numbers per
    sharded mesh dimension; every rank must call.

    Args:
        tensor: Any shape, any dtype, layout and device.

    Returns:
        In the tensor's unit, on its device.

    Example:
        >>> import torch
        >>> rms(torch.tensor([3e-30, 4e-30], dtype=torch.float32)).item()  # doctest: +ELLIPSIS
        3.5355...e-30
    """
    part = entries(tensor)
    length, scale = _whole_norm(part)
    if part.total == 0:
        return part.constant(float("nan"))
    size = length / math.sqrt(part.total) * scale
    if part.values.is_complex():
        return size
    # An rms is at most absmax; rounding must not lift that of the largest float64 to infinity.
    return torch.where(length.isinf(), size, size.clamp(max=torch.finfo(torch.float64).max))


@reduction
def norm(tensor: Tensor) -> Float64[Tensor, ""]:
    """L2 norm: root of the sum of |x|² over all entries.

    As exact as `rms`, at the same cost; infinite only if the norm itself exceeds float64. The norm of a
    tensor without entries is 0.

    Args:
        tensor: Any shape, any dtype, layout and device.

    Returns:
        In the tensor's unit, on its device.

    Example:
        >>> import torch
        >>> norm(torch.tensor([3e200, 4e200], dtype=torch.float64)).item()  # doctest: +ELLIPSIS
        4.99999999999999...e+200
    """
    length, scale = _whole_norm(entries(tensor))
    return length * scale


@reduction
def absmax(tensor: Tensor) -> Float64[Tensor, ""]:
    """Largest |x|, exactly (to float64's rounding for a complex one).

    A NaN gives NaN; otherwise an infinity gives infinity; a tensor without entries gives NaN.

    Cost: one pass. On a DTensor: one all-gather of one number per sharded mesh dimension.

    Args:
        tensor: Any shape, any dtype, layout and device.

    Returns:
        In the tensor's unit, on its device.

    Example:
        >>> import torch
        >>> absmax(torch.tensor([1.0, -2.0])).item()
        2.0
    """
    part = entries(tensor)
    largest = part.gather(local_absmax(part)).amax()
    return largest if part.total else part.constant(float("nan"))


@reduction
def mean(tensor: Tensor) -> Float64[Tensor, ""]:
    """Mean of the entries; for a complex tensor the mean of |x|.

    Summed in float64, with the absolute error of 2^-53 per addition relative to the mean of |x|. A tensor
    without entries gives NaN.

    Cost: four times `torch.sum`. On a DTensor: one all-gather of one number per sharded mesh dimension.

    Args:
        tensor: Any shape, any dtype, layout and device.

    Returns:
        In the tensor's unit, on its device.

    Example:
        >>> import torch
        >>> mean(torch.tensor([1.0, 2.0, 6.0])).item()
        3.0
    """
    part = entries(tensor)
    if part.total == 0:
        return part.constant(float("nan"))
    scale = part.constant(1.0)
    if part.values.dtype in {torch.float64, torch.complex128}:
        # A sum of numbers near 1e308 overflows; dividing by more than their count cannot underflow the
        # mean by more than the smallest number.
        scale = power_of_two(local_absmax(part))
    total = part.constant(0.0)
    for block in part.blocks():
        numbers = magnitude(block) if block.is_complex() else block.double()
        total = total + (numbers / scale).sum()
    return part.gather(total * (part.times / part.total) * scale).sum()


def power_of_two(numbers: Float64[Tensor, "*any"]) -> Float64[Tensor, "*any"]:
    """Return a power of two within a factor of two of each number; 1 for zero, NaN and infinity."""
    usable = torch.isfinite(numbers) & (numbers > 0)
    exponents = torch.log2(torch.where(usable, numbers, 1.0)).floor()
    return torch.exp2(exponents.clamp(-1022, 1022))


def combined_norm(norms: Float64[Tensor, " pieces *rest"]) -> Float64[Tensor, " *rest"]:
    """L2 norm of a vector from the norms of its pieces, without squaring what leaves float64's range."""
    if norms.shape[0] == 0:
        return norms.new_zeros(norms.shape[1:])
    if norms.ndim == 1 and norms.is_cpu:
        return torch.tensor(_norm_of_numbers(norms.numpy()), dtype=torch.float64)
    largest = norms.amax(0)
    scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    return torch.linalg.vector_norm(norms / scale, dim=0) * scale


def _norm_of_numbers(numbers: np.ndarray) -> float:
    """The same for numbers on the CPU, where a few operations of torch cost more than a thousand numbers."""
    largest = float(numbers.max())
    if not 0 < largest < math.inf:
        return largest  # zero, or whatever is not finite: NaN stands above infinity
    shrunk = numbers / largest
    return math.sqrt(float(shrunk @ shrunk)) * largest


def local_absmax(part: Entries) -> Float64[Tensor, ""]:
    """Largest |x| on this rank; 0, which changes no maximum, where there is none."""
    values = part.values
    if values.numel() == 0:
        return part.constant(0.0)
    if values.is_complex():
        return torch.stack([magnitude(block).amax() for block in part.blocks()]).amax()
    return torch.stack(torch.aminmax(values)).double().abs().amax()


def _whole_norm(part: Entries) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
    """Norm over all ranks as (length, scale) with norm = length·scale, so that neither factor overflows."""
    length, scale = local_norm(part)
    if part.times > 1:
        length = length * part.times**0.5
    if not part.groups:
        return length, scale
    pieces = part.gather(length, scale)
    largest = pieces[:, 1].amax()
    return torch.linalg.vector_norm(pieces[:, 0] * (pieces[:, 1] / largest)), largest


def local_norm(part: Entries) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
    """Norm of the entries on this rank as (length, scale) with norm = length·scale."""
    values = part.values
    if values.is_complex():
        values = torch.view_as_real(values).reshape(-1)
    if values.device.type == "cpu":
        length, scale = norm_on_cpu(values)
        return part.constant(length), part.constant(scale)
    if values.numel() == 0:
        return part.constant(0.0), part.constant(1.0)
    return _norm_on_device(Entries(values, part.total, part.times, part.groups))


def norm_on_cpu(values: Tensor) -> tuple[float, float]:
    """Norm of real numbers in one run on the CPU as (length, scale) with norm = length·scale.

    Python's numbers, since an operation of torch on a single number takes as long as one on a thousand.
    """
    if values.numel() == 0:
        return 0.0, 1.0
    if values.numel() > _SMALL:
        quick = _quick_norm(values)
        floor = _QUICK_FLOOR[torch.float64 if values.dtype is torch.float64 else torch.float32]
        # Written so that NaN, which only a NaN among the entries can cause here, is taken as it is.
        if not (quick < floor * values.numel() ** 0.5 or math.isinf(quick)):
            scale = _power_of_two(quick)
            return quick / scale, scale
    if values.dtype is not torch.float64:
        # The squares of every narrower dtype fit into float64, subnormal numbers included.
        length = math.sqrt(sum(_square(block.double()) for block in values.split(CPU_BLOCK)))
        scale = _power_of_two(length)
        return length / scale, scale
    scale = _power_of_two(absmax_on_cpu(values))
    return math.sqrt(sum(_square(block / scale) for block in values.split(CPU_BLOCK))), scale


def absmax_on_cpu(values: Tensor) -> float:
    """Largest |x| of real numbers in one run on the CPU, at least one; NaN if one is."""
    return max(map(abs, map(float, torch.aminmax(values))))


def _square(numbers: Tensor) -> float:
    return float(torch.dot(numbers, numbers))


def _power_of_two(number: float) -> float:
    """As `power_of_two`, of one number."""
    if not 0 < number < math.inf:
        return 1.0
    return math.ldexp(1.0, max(-1022, math.frexp(number)[1] - 1))


def _quick_norm(values: Tensor) -> float:
    """Norm from squares in float32, or float64 for float64 values; wrong where those leave its range."""
    if values.dtype is torch.float64:
        return math.sqrt(_square(values))
    if values.dtype is torch.float32:
        return _norm_by_rows(values)
    return math.hypot(*(_norm_by_rows(block.float()) for block in values.split(CPU_BLOCK)))


def _norm_by_rows(values: Tensor) -> float:
    even = values.numel() // _ROW * _ROW
    rows = torch.linalg.vector_norm(values[:even].view(-1, _ROW), dim=1)
    return math.sqrt(_square(rows.double()) + _square(values[even:].double()))


def _norm_on_device(part: Entries) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
    """Norm from squares in float64, of values divided by the scale of the largest where they are float64.

    Without looking: nothing here waits for the device.
    """
    wide = part.values.dtype is torch.float64
    scale = power_of_two(local_absmax(part)) if wide else part.constant(1.0)
    squares = []
    for block in part.blocks():
        numbers = block / scale if wide else block.double()
        squares.append(torch.dot(numbers, numbers))
    length = torch.stack(squares).sum().sqrt()
    if wide:
        return length, scale
    scale = power_of_two(length)
    return length / scale, scale
