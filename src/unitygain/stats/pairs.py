"""How two tensors of one shape stand to each other."""

import torch
from jaxtyping import Float64
from torch import Tensor

from unitygain.stats.layouts import entries
from unitygain.stats.scale import absmax, power_of_two
from unitygain.stats.shards import gather, is_sharded, local_piece


def cosine(one: Tensor, other: Tensor) -> Float64[Tensor, ""]:
    """Cosine of the angle between two tensors taken as vectors: Re⟨one, other⟩ over both norms.

    Summed in float64, of entries at their own scale, so that no square leaves its range. NaN where either
    tensor is zero, which has no direction, or not finite.

    Cost: about eight passes, block by block. On DTensors: a few all-gathers of up to three numbers per
    sharded mesh dimension.

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
    if one.shape != other.shape:
        raise ValueError(f"shapes are {tuple(one.shape)} and {tuple(other.shape)}; give two of one shape")
    with torch.no_grad():
        scales = power_of_two(absmax(one)), power_of_two(absmax(other))
        groups = ()
        if is_sharded(one):
            (one, groups), (other, _) = local_piece(one), local_piece(other)
        left, right = entries(_in_order(one)), entries(_in_order(other))
        sums = torch.zeros(3, dtype=torch.float64, device=left.values.device)
        for a, b in zip(left.blocks(), right.blocks(), strict=True):
            x, y = _wide(a) / scales[0], _wide(b) / scales[1]
            sums = sums + torch.stack([torch.dot(x, y), torch.dot(x, x), torch.dot(y, y)])
        dot, first, second = gather(sums, groups).sum(0).unbind()
        return (dot / (first.sqrt() * second.sqrt())).clamp(-1.0, 1.0)


def _in_order(tensor: Tensor) -> Tensor:
    """Entries of dense memory may be read in any order of dimensions; two tensors need the same."""
    return tensor.detach().contiguous() if tensor.layout is torch.strided else tensor


def _wide(block: Tensor) -> Float64[Tensor, " entries"]:
    return (torch.view_as_real(block).reshape(-1) if block.is_complex() else block).double()
