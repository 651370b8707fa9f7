"""The only room that reduces tensors: one number, or a few, from a tensor of any layout and size.

Every statistic is a function from a tensor to a float64 tensor on the same device. It reads a detached tensor
without a graph, draws no random number, writes nothing, keeps no reference to its input and, on an
accelerator, never waits for the device (but for `effective_rank`). Each reads numbers at their own scale:
nothing is squared where the square would leave the range of its dtype.

A DTensor gives the value of the whole tensor, the same on every rank; since that takes a collective, every
rank of its mesh must ask. Devices without float64 (MPS) are read on the CPU.
"""

from collections.abc import Callable

from torch import Tensor

from unitygain.stats.axes import constant_tail, effective_rank, frac_dead, rms_by_time, token_cosine
from unitygain.stats.counts import (
    EXPONENT_HIGH,
    EXPONENT_LOW,
    exponents,
    frac_nonfinite,
    frac_underflow,
    frac_zero,
)
from unitygain.stats.dtypes import NUMBER_RANGES, UNDERFLOW_DTYPES, NumberRange, repairing_loss_scale
from unitygain.stats.gradients import (
    Agreement,
    GradientStats,
    agreed_gradient_stats,
    each_tensor_once,
    gradient_stats,
    gradients_of,
    with_gradient,
)
from unitygain.stats.scale import absmax, combined_norm, mean, norm, rms

STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "rms": rms,
    "norm": norm,
    "absmax": absmax,
    "mean": mean,
    "frac_zero": frac_zero,
    "frac_nonfinite": frac_nonfinite,
    "frac_dead": frac_dead,
    "token_cosine": token_cosine,
    "effective_rank": effective_rank,
    "rms_by_time": rms_by_time,
    "constant_tail": constant_tail,
    "frac_underflow": frac_underflow,
    "exponents": exponents,
}

__all__ = [
    "EXPONENT_HIGH",
    "EXPONENT_LOW",
    "NUMBER_RANGES",
    "STATISTICS",
    "UNDERFLOW_DTYPES",
    "Agreement",
    "GradientStats",
    "NumberRange",
    "absmax",
    "agreed_gradient_stats",
    "combined_norm",
    "each_tensor_once",
    "effective_rank",
    "exponents",
    "frac_dead",
    "frac_nonfinite",
    "frac_underflow",
    "frac_zero",
    "gradient_stats",
    "gradients_of",
    "mean",
    "norm",
    "repairing_loss_scale",
    "rms",
    "rms_by_time",
    "token_cosine",
    "with_gradient",
]
