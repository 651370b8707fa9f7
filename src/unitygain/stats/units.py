"""Norms of the slices of a tensor, and norms other than the Euclidean."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from unitygain.stats import across
from unitygain.stats.layouts import Entries, entries, magnitude
from unitygain.stats.scale import local_absmax, power_of_two
from unitygain.stats.shards import is_sharded, local_piece

_BLOCK = 1 << 20
# As in `scale`: the length over which float32 adds squares to 1e-6, and the rms below which they underflow.
_PIECE = 128
_QUICK_FLOOR = 1e-15


def unit_norms(tensor: Tensor, dim: int | None) -> Float64[Tensor, "..."]:
    """L2 norm of every slice of a dense tensor along `dim`, in float64, at the slices' own scale.

    Right to 1e-6 relative wherever the entries are normal numbers of their dtype.

    Cost: about two passes on a CPU; ten in float64 for float64, complex and tiny numbers, some slices at a
    time. On a DTensor: those of the slices that lie on this rank, which must be whole.

    Args:
        tensor: Strided, floating or complex.
        dim: The dimension that indexes the units; None takes the tensor as one unit.

    Returns:
        Same number of dimensions, all of size 1 but `dim`, so that it broadcasts against the tensor
        (against the local piece of a DTensor).

    Raises:
        ValueError: If the tensor is sparse, or a DTensor whose units are cut.

    Example:
        >>> import torch
        >>> unit_norms(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), 0).tolist()
        [[5.0], [2.0]]
    """
    if tensor.layout is not torch.strided:
        raise ValueError(f"a tensor of layout {tensor.layout} has no units; make it dense or leave it out")
    with torch.no_grad():
        values = _local(tensor.detach(), dim)
        if dim is None or values.ndim == 0:
            rows, shape = values.reshape(1, -1), [1] * values.ndim
        else:
            rows = values.movedim(dim, 0).flatten(1) if values.ndim > 1 else values.reshape(-1, 1)
            shape = [1] * values.ndim
            shape[dim] = values.shape[dim]
        if rows.numel() == 0:
            return torch.zeros(shape, dtype=torch.float64, device=values.device)
        some = rows.split(max(1, _BLOCK // rows.shape[1]))
        return torch.cat([_row_norms(block) for block in some]).reshape(shape)


def power_norm(tensor: Tensor, *, p: float) -> Float64[Tensor, ""]:
    """p-norm (Σ|x|^p)^(1/p) of all entries, in float64 of entries divided by the largest.

    Cost: about four passes in float64; the power costs most of it. On a DTensor: one all-gather of two
    numbers, as `gradient_stats`.

    Args:
        tensor: Any shape, dtype, layout and device.
        p: Above 0; infinity gives absmax.

    Returns:
        In the tensor's unit, on its device; 0 without entries.

    Example:
        >>> import torch
        >>> power_norm(torch.tensor([1.0, -2.0, 3.0]), p=1).item()
        6.0
    """
    return power_norm_together([tensor], p=p)


@torch.no_grad()
def power_norm_together(tensors: Sequence[Tensor], *, p: float) -> Float64[Tensor, ""]:
    """p-norm of all entries of all tensors, as `power_norm`, with one gathering for all that are sharded.

    Args:
        tensors: At least one.
        p: Above 0.

    Returns:
        On the device of the first.
    """
    sums = [_powers(entries(tensor), p) for tensor in tensors]
    summary = torch.stack([one.to(sums[0].device, non_blocking=True) for one in sums], 1)

    def combined(pieces: Float64[Tensor, "pieces 2 tensors"]) -> Float64[Tensor, "2 tensors"]:
        return _sum_of_powers(pieces, p)

    whole = across.of_the_whole(summary, tensors, combine=combined).summary
    total, scale = _sum_of_powers(whole.t().unsqueeze(-1), p)
    return (scale if math.isinf(p) else total.pow(1 / p) * scale).reshape(())


def _powers(part: Entries, p: float) -> Float64[Tensor, "2"]:
    """Sum of (|x|/scale)^p over what lies here, and the scale: the largest |x|."""
    largest = local_absmax(part)
    if math.isinf(p):
        return torch.stack([torch.zeros_like(largest), largest])
    scale = torch.where(largest > 0, largest, 1.0)
    total = part.constant(0.0)
    for block in part.blocks():
        total = total + (magnitude(block) / scale).pow(p).sum()
    return torch.stack([total * part.times, largest])


def _sum_of_powers(pieces: Float64[Tensor, "pieces 2 tensors"], p: float) -> Float64[Tensor, "2 tensors"]:
    """Add sums of powers that are taken at different scales, at the largest."""
    totals, scales = pieces.unbind(1)
    largest = scales.amax(0)
    if math.isinf(p):
        return torch.stack([totals.sum(0), largest])
    shrunk = torch.where(largest > 0, scales / largest, 0.0)
    return torch.stack([(totals * shrunk.pow(p)).sum(0), largest])


def _local(tensor: Tensor, dim: int | None) -> Tensor:
    if not is_sharded(tensor):
        return tensor
    local, groups = local_piece(tensor)
    cut = [place.dim for place in tensor.placements if place.is_shard()]  # pyright: ignore[reportAttributeAccessIssue]
    if groups and (dim is None or any(place != dim for place in cut)):
        raise ValueError(
            f"a DTensor of shape {tuple(tensor.shape)} is cut along dimensions {cut}, its units lie along "
            f"{dim}; leave it out, or cut it along its units"
        )
    return local


def _row_norms(rows: Tensor) -> Float64[Tensor, " rows"]:
    narrow = not rows.is_complex() and rows.dtype is not torch.float64
    if not (narrow and rows.device.type == "cpu"):
        return _exact_row_norms(rows)
    quick = _quick_row_norms(rows.float())
    # Where squares may have left float32's range; zeros among them. A NaN is one in any case.
    doubtful = (quick < _QUICK_FLOOR * rows.shape[1] ** 0.5) | quick.isinf()
    if bool(doubtful.any()):
        quick[doubtful] = _exact_row_norms(rows[doubtful])
    return quick


def _quick_row_norms(rows: Tensor) -> Float64[Tensor, " rows"]:
    """Norms from squares in float32, of pieces so short that their sums are right to 1e-6."""
    even = rows.shape[1] // _PIECE * _PIECE
    pieces = rows[:, :even].unflatten(1, (-1, _PIECE)) if even else rows[:, :0].unsqueeze(1)
    norms = torch.linalg.vector_norm(torch.linalg.vector_norm(pieces, dim=2).double(), dim=1)
    if even == rows.shape[1]:
        return norms
    return torch.hypot(norms, torch.linalg.vector_norm(rows[:, even:], dim=1).double())


def _exact_row_norms(rows: Tensor) -> Float64[Tensor, " rows"]:
    sizes = magnitude(rows)
    scale = power_of_two(sizes.amax(1, keepdim=True))
    return torch.linalg.vector_norm(sizes / scale, dim=1) * scale[:, 0]
