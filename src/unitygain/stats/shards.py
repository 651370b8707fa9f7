"""Tensors that lie in pieces on several ranks: the piece that lies here, and how to hear of the others."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Groups = Sequence[Any]


class Cut(NamedTuple):
    """How a DTensor is cut: over which mesh, and along which of its dimensions all ranks hold the same."""

    mesh: Any
    copied: tuple[bool, ...]

    @property
    def groups(self) -> Groups:
        """The process groups over which the entries are cut, one for each such dimension of the mesh."""
        return [self.mesh.get_group(axis) for axis, same in enumerate(self.copied) if not same]

    def spans(self, group: Any) -> bool:
        """Tell whether the mesh is all of the group; None is all ranks."""
        return len(self._places(group)) == self.mesh.size() == world_size(group)

    def holders(self, group: Any) -> list[int]:
        """Return the places in the group of ranks that together hold every entry once.

        Of copies the first is asked, so that every rank asks the same.
        """
        places = self._places(group)
        asked = self.mesh.mesh[tuple(0 if first else slice(None) for first in self.copied)]
        return [places[rank] for rank in asked.flatten().tolist()]

    def _places(self, group: Any) -> dict[int, int]:
        ranks = self.mesh.mesh.flatten().tolist()
        if group is None:
            return {rank: rank for rank in ranks}
        of_group = torch.distributed.get_process_group_ranks(group)
        places = {rank: place for place, rank in enumerate(of_group)}
        return {rank: places[rank] for rank in ranks if rank in places}


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
    return tensor.to_local(), cut_of(tensor).groups


def cut_of(tensor: Any) -> Cut:
    """Return how a DTensor is cut."""
    mesh = tensor.device_mesh
    return Cut(
        mesh,
        tuple(
            place.is_replicate() or place.is_partial() or mesh.size(axis) == 1
            for axis, place in enumerate(tensor.placements)
        ),
    )


def world_size(group: Any = None) -> int:
    """Return how many ranks a group has; None is all, of which there is one where nothing is distributed."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size(group)


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
