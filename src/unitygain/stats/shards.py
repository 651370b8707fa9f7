"""Tensors that lie in pieces on several ranks: the piece that lies here, and how to hear of the others."""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Groups = Sequence[Any]


def is_sharded(tensor: Tensor) -> bool:
    """Tell whether `tensor` is a DTensor, without importing what the owner of one has imported."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local_piece(tensor: Any) -> tuple[Tensor, Groups]:
    """Return the piece of a DTensor that lies on this rank, and the process groups that hold the others.

    The pieces of the returned groups together hold every entry once. A mesh dimension that replicates
    adds no group; one that holds partial sums is summed first, since no statistic of a sum follows from
    those of its terms. Everything that neither replicates nor sums is a partition of the entries.

    Cost: one all-reduce of the tensor for each mesh dimension of partial sums, else none.
    """
    from torch.distributed.tensor import Replicate

    placements = [Replicate() if place.is_partial() else place for place in tensor.placements]
    if placements != list(tensor.placements):
        tensor = tensor.redistribute(placements=placements)
    mesh = tensor.device_mesh
    groups = [
        mesh.get_group(axis)
        for axis, place in enumerate(placements)
        if not place.is_replicate() and mesh.size(axis) > 1
    ]
    return tensor.to_local(), groups


def whole(tensor: Any) -> Tensor:
    """Return the whole of a DTensor on every rank. Cost: one all-gather of the tensor, and its memory."""
    return tensor.full_tensor()


def gather(summary: Tensor, groups: Groups) -> Tensor:
    """Stack the summaries of all pieces, in the same order on every rank.

    Args:
        summary: This piece's numbers, shape (m,).
        groups: Process groups over which the tensor is cut, one per mesh dimension.

    Returns:
        Shape (pieces, m).

    Cost: one all-gather of a few numbers per group. Gathering instead of reducing keeps NaN (a MAX over
    ranks may drop it), needs no second pass for a common scale, and gives every rank the same bits.
    """
    rows = summary.reshape(1, -1)
    for group in groups:
        import torch.distributed as dist

        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, rows, group=group)
        rows = torch.cat(parts)
    return rows
