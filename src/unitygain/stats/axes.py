"""Statistics that look at dimensions: units, tokens, time steps, the spectrum of the features.

They need the dimensions whole: a DTensor is gathered (one all-gather of the tensor, every rank must call),
a sparse tensor filled in. Where a tensor has not the dimensions that a statistic needs, it gives NaN.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from unitygain.stats.layouts import dense, magnitude, reduction, sample_stride
from unitygain.stats.scale import power_of_two, rms

MAX_ROWS = 512
MAX_FEATURES = 1024
_BLOCK = 1 << 20
_IMAGES = (4, 5)


@reduction
def frac_dead(tensor: Tensor) -> Float64[Tensor, ""]:
    """Fraction of units that are exactly zero for every sample and position.

    Units are the last dimension of (batch, features) and (batch, time, features), and dimension 1 of
    images and volumes with four or five dimensions. Three dimensions are always read as (batch, time,
    features): for the (batch, channels, length) of a 1-D convolution pass ``tensor.transpose(1, 2)``.
    NaN without units or without samples. Cost: two passes and one byte per entry.

    Args:
        tensor: At least one dimension; a single one is one sample.

    Returns:
        From 0 to 1, on the tensor's device.

    Example:
        >>> import torch
        >>> frac_dead(torch.tensor([[0.0, 1.0], [0.0, 0.0]])).item()
        0.5
    """
    values = dense(tensor)
    if values.ndim == 0 or values.numel() == 0:
        return _nan(values)
    unit = 1 if values.ndim in _IMAGES else values.ndim - 1
    alive = values.movedim(unit, -1) != 0
    for _ in range(values.ndim - 1):
        alive = alive.any(0)
    return 1.0 - alive.double().mean()


@reduction
def token_cosine(tensor: Tensor) -> Float64[Tensor, ""]:
    """Mean cosine between two different tokens of one sample, averaged over the samples.

    1 if all tokens are parallel. With unit vectors u_t and s = Σ u_t it is (|s|² - T)/(T(T - 1)), so no
    pair is formed. Tokens that are exactly zero have no direction and are left out, samples with fewer than
    two other tokens too; NaN if none is left, if a token is not finite, or if tokens are single numbers,
    whose directions are two signs. Without a time dimension the tokens are the samples: (batch, features),
    and four or more dimensions read as (batch, all the rest).

    Cost: about ten passes in float64, block by block.

    Args:
        tensor: (batch, time, features), (batch, features) or (batch, channels, height, width, ...).

    Returns:
        From -1/(T - 1) to 1, on the tensor's device.

    Example:
        >>> import torch
        >>> token_cosine(torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]])).item()  # doctest: +ELLIPSIS
        0.333333...
    """
    values = dense(tensor)
    if values.is_complex():
        # Re<z, w> is the inner product of the real and imaginary parts side by side.
        values = torch.view_as_real(values.resolve_conj()).flatten(-2) if values.ndim else values.real
    if values.ndim < 2 or values.numel() == 0:
        return _nan(values)
    samples = values if values.ndim == 3 else values.reshape(1, values.shape[0], -1)
    if samples.shape[-1] == 1:
        return _nan(values)
    cosines = torch.cat([_sample_cosines(some) for some in _split(samples, samples[0].numel())])
    usable = ~cosines.isposinf()
    return torch.where(usable, cosines, 0.0).sum() / usable.sum()


def _sample_cosines(samples: Float[Tensor, "samples tokens features"]) -> Float64[Tensor, " samples"]:
    """Mean pairwise cosine of each sample; infinity marks one with fewer than two tokens."""
    by_token = samples.transpose(0, 1)
    direction = torch.zeros(by_token.shape[1:], dtype=torch.float64, device=samples.device)
    count = torch.zeros(by_token.shape[1], dtype=torch.float64, device=samples.device)
    for piece in _split(by_token, by_token[0].numel()):
        units, present = _unit_vectors(piece)
        direction += units.sum(0)
        count += present.sum(0)
    pairs = count * (count - 1)
    return torch.where(count >= 2, (direction.square().sum(-1) - count) / pairs, torch.inf)


@reduction
def effective_rank(tensor: Tensor) -> Float64[Tensor, ""]:
    """Effective rank of the (rows, features) matrix over its largest possible value, min(rows, features).

    exp of the entropy of σ/Σσ, with σ the singular values; the features are the last dimension, or
    dimension 1 of images and volumes with four or five dimensions, and all others are rows. At most 512
    rows and 1,024 features are read, every k-th with k prime to their number. The singular values come from
    the smaller Gram matrix in float64: those below about 4e-7 of the largest count as zero. NaN for a zero
    or non-finite matrix, or with fewer than two dimensions.

    Cost: an eigenvalue problem of at most 512 x 512. On CUDA the solver waits for the device.

    Args:
        tensor: At least two dimensions.

    Returns:
        From 1/min(rows, features) to 1, on the tensor's device.

    Example:
        >>> import torch
        >>> effective_rank(torch.eye(4)).item()  # doctest: +ELLIPSIS
        1.0...
        >>> effective_rank(torch.ones(4, 4)).item()  # doctest: +ELLIPSIS
        0.25...

    References:
        Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007, eq. 4.
    """
    values = _rows(tensor)
    if values.ndim < 2 or values.numel() == 0:
        return _nan(values)
    sizes = magnitude(values)
    largest = sizes.amax()
    usable = torch.isfinite(largest) & (largest > 0)
    wide = values.to(torch.complex128 if values.is_complex() else torch.float64)
    matrix = torch.where(usable, wide / power_of_two(largest), 0.0)
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    squares = torch.linalg.eigvalsh(matrix @ matrix.mH)
    noise = squares.amax() * max(matrix.shape) * torch.finfo(torch.float64).eps
    sigma = torch.where(squares > noise, squares, 0.0).sqrt()
    entropy = torch.special.entr(sigma / sigma.sum()).sum()
    return torch.where(usable, entropy.exp() / matrix.shape[0], torch.nan)


@reduction
def rms_by_time(tensor: Tensor) -> Float64[Tensor, " time"]:
    """Root mean square at each index of dimension 0, as exact as `rms`.

    NaN where an index has no entries. Cost: about six passes in float64, block by block.

    Args:
        tensor: (time, ...); without dimensions it is one time step.

    Returns:
        Shape (time,), in the tensor's unit, on its device.

    Example:
        >>> import torch
        >>> rms_by_time(torch.tensor([[3e-30, 4e-30], [1.0, 1.0]]))
        tensor([3.5355e-30, 1.0000e+00], dtype=torch.float64)
    """
    if tensor.is_nested:
        return torch.stack([rms(part) for part in tensor.unbind()])
    values = dense(tensor)
    values = values.reshape(1) if values.ndim == 0 else values
    steps, entries = values.shape[0], values[:1].numel()
    if values.numel() == 0:
        return torch.full((steps,), torch.nan, dtype=torch.float64, device=values.device)
    rows = values.reshape(steps, entries)
    return torch.cat([_rms_of_rows(magnitude(some)) for some in _split(rows, entries)])


@reduction
def constant_tail(tensor: Tensor) -> Float64[Tensor, ""]:
    """How many of the last steps are the same as the very last, in the median sample: padding at the end.

    1 where the last step differs from the one before. NaN for fewer than two dimensions or no entries.

    Cost: one comparison of every entry.

    Args:
        tensor: (time, samples, ...).

    Example:
        >>> import torch
        >>> constant_tail(torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 0.0]])).item()
        1.0
        >>> constant_tail(torch.tensor([[1.0, 2.0, 1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]])).item()
        2.0
    """
    values = dense(tensor)
    if values.ndim < 2 or values.numel() == 0:
        return _nan(values)
    same = (values == values[-1]).flatten(2).all(-1) if values.ndim > 2 else values == values[-1]
    lengths = same.flip(0).cumprod(0).sum(0)
    return lengths.double().quantile(0.5, interpolation="lower")


def _rms_of_rows(sizes: Float64[Tensor, "rows entries"]) -> Float64[Tensor, " rows"]:
    scale = power_of_two(sizes.amax(1, keepdim=True))
    return torch.linalg.vector_norm(sizes / scale, dim=1) / sizes.shape[1] ** 0.5 * scale[:, 0]


def _unit_vectors(
    vectors: Float[Tensor, "tokens samples features"],
) -> tuple[Float64[Tensor, "tokens samples features"], Float64[Tensor, "tokens samples"]]:
    """Return the vectors at length 1, zero vectors as they are, and 1 for each that is not zero."""
    wide = vectors.double()
    wide = wide / power_of_two(wide.abs().amax(-1, keepdim=True))
    lengths = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    # A NaN differs from 0, so that a token that is not finite counts and makes the result NaN.
    present = lengths != 0
    return wide / torch.where(present, lengths, 1.0), present.squeeze(-1).double()


def _rows(tensor: Tensor) -> Tensor:
    """Return the sampled (rows, features) matrix; the tensor itself if it has fewer than two dimensions."""
    if tensor.is_nested:
        values = torch.cat([dense(part).reshape(-1, part.shape[-1]) for part in tensor.unbind()])
    else:
        values = dense(tensor)
    if values.ndim < 2 or values.numel() == 0:
        return values
    values = values.movedim(1, -1) if values.ndim in _IMAGES else values
    values = values[..., :: sample_stride(values.shape[-1], MAX_FEATURES)]
    values = values.reshape(-1, values.shape[-1])
    return values[:: sample_stride(values.shape[0], MAX_ROWS)]


def _split(values: Tensor, each: int) -> Iterator[Tensor]:
    """Yield runs of dimension 0, of `each` entries per index, that together hold about 2^20 entries."""
    yield from values.split(max(1, _BLOCK // each))


def _nan(values: Tensor) -> Float64[Tensor, ""]:
    return torch.full((), torch.nan, dtype=torch.float64, device=values.device)
