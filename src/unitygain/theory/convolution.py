"""Convolutions at initialisation: fans, what the zeros at the border take away, separable layers."""

import math
from collections.abc import Sequence

from unitygain.theory._given import require_count, require_variance


def fans(channels_in: int, channels_out: int, kernel: Sequence[int], groups: int = 1) -> tuple[int, int]:
    """Return the numbers of weights that feed an output entry and that read an input entry.

    Args:
        channels_in: Input channels.
        channels_out: Output channels.
        kernel: Kernel size per dimension.
        groups: Groups of channels.

    Raises:
        ValueError: If a number is no count, or groups do not divide the channels.

    Example:
        >>> fans(64, 128, (3, 3)), fans(64, 64, (3, 3), groups=64)
        ((576, 1152), (9, 9))

    References:
        He et al., Delving deep into rectifiers, 2015, section 2.2; with groups each fan sees its own alone.
    """
    for name, count in (("channels_in", channels_in), ("channels_out", channels_out), ("groups", groups)):
        require_count(name, count)
    taps = math.prod(require_count("kernel", size) for size in kernel)
    if channels_in % groups or channels_out % groups:
        raise ValueError(f"groups is {groups}; it must divide the channels, {channels_in} and {channels_out}")
    return taps * channels_in // groups, taps * channels_out // groups


def convolution_gain(
    weight_variance: float,
    channels_in: int,
    channels_out: int,
    kernel: Sequence[int],
    groups: int = 1,
    stride: Sequence[int] | None = None,
) -> tuple[float, float]:
    """Return the mean-square gains forward (per output entry) and backward (per input entry).

    Away from the border; `boundary_share` says what the border keeps.

    Args:
        weight_variance: Variance of a weight.
        channels_in: Input channels.
        channels_out: Output channels.
        kernel: Kernel size per dimension.
        groups: Groups of channels.
        stride: Stride per dimension; backward, an input entry is read by 1/stride as many outputs.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> convolution_gain(2 / 576, 64, 128, (3, 3))
        (2.0, 4.0)

    References:
        He et al. 2015, section 2.2; Xiao et al., Dynamical isometry and a mean field theory of CNNs, 2018,
        where the sum over taps averages variances over positions.
    """
    require_variance("weight_variance", weight_variance)
    fan_in, fan_out = fans(channels_in, channels_out, kernel, groups)
    _require_dimensions(len(kernel), stride=stride)
    skipped = math.prod(require_count("stride", step) for step in stride) if stride is not None else 1
    return fan_in * weight_variance, fan_out * weight_variance / skipped


def boundary_share(
    size: Sequence[int],
    kernel: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int] | None = None,
    dilation: Sequence[int] | None = None,
) -> float:
    """Return the mean share of kernel taps that lie on the input and not on padded zeros.

    It multiplies the forward mean-square gain of a zero-padded convolution on white input, exactly.

    Args:
        size: Input size per dimension.
        kernel: Kernel size per dimension.
        padding: Zeros on each side per dimension.
        stride: Stride per dimension.
        dilation: Dilation per dimension.

    Raises:
        ValueError: If a number is no count or no output is left.

    Example:
        >>> round(boundary_share((4, 4), (3, 3), (1, 1)), 4)
        0.6944

    References:
        Counting: (1/outputs)·Σ over outputs of valid taps/taps, which factorises over dimensions.
    """
    return math.prod(
        math.fsum(shares) / len(shares) for shares in _tap_shares(size, kernel, padding, stride, dilation)
    )


def boundary_share_of_mean(
    size: Sequence[int],
    kernel: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int] | None = None,
    dilation: Sequence[int] | None = None,
) -> float:
    """Return what zero padding leaves of the square of a channel's mean over all positions.

    The mean of an output channel sums the input's means, each tap weighted by the share of positions at
    which it lies on the input: the mean square of those shares, at most `boundary_share`.

    Args:
        size: Input size per dimension.
        kernel: Kernel size per dimension.
        padding: Zeros on each side per dimension.
        stride: Stride per dimension.
        dilation: Dilation per dimension.

    Raises:
        ValueError: If a number is no count or no output is left.

    Example:
        >>> round(boundary_share_of_mean((4, 4), (3, 3), (1, 1)), 4)
        0.5017

    References:
        Counting, for inputs whose mean is the same at every position.
    """
    return math.prod(
        math.fsum(share**2 for share in shares) / len(shares)
        for shares in _tap_shares(size, kernel, padding, stride, dilation)
    )


def _tap_shares(
    size: Sequence[int],
    kernel: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int] | None,
    dilation: Sequence[int] | None,
) -> list[list[float]]:
    """Per dimension and tap, the share of positions at which the tap lies on the input."""
    found = []
    ones = [1] * len(size)
    _require_dimensions(len(size), kernel=kernel, padding=padding, stride=stride, dilation=dilation)
    for n, k, p, s, d in zip(size, kernel, padding, stride or ones, dilation or ones, strict=True):
        for name, count in (("size", n), ("kernel", k), ("stride", s), ("dilation", d)):
            require_count(name, count)
        require_count("padding", p, 0)
        starts = range(-p, n + p - d * (k - 1), s)
        if not starts:
            raise ValueError(f"a kernel of {k} taps at dilation {d} is longer than {n} + 2·{p} entries")
        found.append([sum(0 <= at + d * tap < n for at in starts) / len(starts) for tap in range(k)])
    return found


def _require_dimensions(dimensions: int, **given: Sequence[int] | None) -> None:
    for name, numbers in given.items():
        if numbers is not None and len(numbers) != dimensions:
            raise ValueError(
                f"{name} has {len(numbers)} numbers for {dimensions} dimensions; give one for each"
            )


def depthwise_separable_gain(
    depthwise_variance: float, pointwise_variance: float, channels: int, kernel: Sequence[int]
) -> float:
    """Return the forward mean-square gain of a depthwise and a pointwise convolution with nothing between.

    He's variances in both give 2·2 = 4 where one activation halves once: twice the gain that keeps a ReLU
    network's scale.

    Args:
        depthwise_variance: Variance of a weight of the depthwise convolution.
        pointwise_variance: Variance of a weight of the pointwise convolution.
        channels: Channels between the two.
        kernel: Kernel size per dimension of the depthwise convolution.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> depthwise_separable_gain(2 / 9, 2 / 64, 64, (3, 3))
        4.0

    References:
        The product of the two gains of He et al. 2015, section 2.2, for independent weights.
    """
    first, _ = convolution_gain(depthwise_variance, channels, channels, kernel, channels)
    second, _ = convolution_gain(pointwise_variance, channels, channels, (1,))
    return first * second
