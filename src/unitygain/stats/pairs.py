"""How two tensors of one shape stand to each other."""

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from unitygain.stats import across
from unitygain.stats.layouts import entries
from unitygain.stats.scale import local_absmax, power_of_two
from unitygain.stats.shards import is_sharded, local_piece


def cosine(one: Tensor, other: Tensor) -> Float64[Tensor, ""]:
    """Cosine of the angle between two tensors taken as vectors: Re⟨one, other⟩ over both norms.

    Summed in float64, of entries at their own scale, so that no square leaves its range. NaN where either
    tensor is zero, which has no direction, or not finite.

    Cost: about eight passes, block by block. On DTensors: one all-gather of five numbers.

    Args:
        one: Any shape, dtype and device.
        other: Same shape, layout and placement; a sparse tensor with the same indices.

    Returns:
        From -1 to 1, on the tensors' device.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import torch
        >>> cosine(torch.tensor([3.0, 0.4]), torch.tensor([1.0, 0.4])).item()  # doctest: +ELLIPSIS
        0.969...
    """
    return cosines([alignment(one, other)], [one])[0]


@torch.no_grad()
def alignment(one: Tensor, other: Tensor) -> Float64[Tensor, "5"]:
    """What `cosines` needs of two tensors: Re⟨one, other⟩ and both squared norms of what lies here, scaled.

    Args:
        one: As `cosine` takes it.
        other: Same.

    Returns:
        The three numbers, of entries divided by a power of two for each tensor, and the two powers.

    Raises:
        ValueError: If the shapes differ.
    """
    if one.shape != other.shape:
        raise ValueError(f"shapes are {tuple(one.shape)} and {tuple(other.shape)}; give two of one shape")
    left, right = (entries(_in_order(tensor)) for tensor in (one, other))
    scales = torch.stack([power_of_two(local_absmax(part)) for part in (left, right)])
    sums = torch.zeros(3, dtype=torch.float64, device=left.values.device)
    for a, b in zip(left.blocks(), right.blocks(), strict=True):
        x, y = _wide(a) / scales[0], _wide(b) / scales[1]
        sums = sums + torch.stack([torch.dot(x, y), torch.dot(x, x), torch.dot(y, y)])
    return torch.cat([sums, scales])


@torch.no_grad()
def cosines(
    alignments: Sequence[Float64[Tensor, "5"]], tensors: Sequence[Tensor]
) -> Float64[Tensor, " tensors"]:
    """Cosines of many pairs, on the device of the first; of DTensors with the gatherings of `gradient_stats`.

    Args:
        alignments: One of each pair; at least one.
        tensors: One tensor of each pair, which says how it is cut over the ranks.
    """
    home = alignments[0].device
    summary = torch.stack([one.to(home, non_blocking=True) for one in alignments], 1)
    dot, first, second, *_ = across.of_the_whole(summary, tensors, combine=_combined).summary
    return (dot / (first.sqrt() * second.sqrt())).clamp(-1.0, 1.0)


def _combined(pieces: Float64[Tensor, "pieces 5 tensors"]) -> Float64[Tensor, "5 tensors"]:
    """Add what pieces at different scales hold, at the largest."""
    sums, scales = pieces[:, :3], pieces[:, 3:]
    # A piece of zeros has the scale 1, which is not that of any entry.
    scales = torch.where(sums[:, 1:] == 0, 0.0, scales)
    largest = scales.amax(0)
    x, y = torch.where(scales > 0, scales / largest, 0.0).unbind(1)
    return torch.cat([(sums * torch.stack([x * y, x * x, y * y], 1)).sum(0), largest])


def _in_order(tensor: Tensor) -> Tensor:
    """Entries of dense memory may be read in any order of dimensions; two tensors need the same."""
    tensor = local_piece(tensor)[0] if is_sharded(tensor) else tensor
    return tensor.detach().contiguous() if tensor.layout is torch.strided else tensor


def _wide(block: Tensor) -> Float64[Tensor, " entries"]:
    return (torch.view_as_real(block).reshape(-1) if block.is_complex() else block).double()
