"""From numbers of the pieces of tensors on several ranks to those of the whole tensors, by one collective."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from unitygain.stats.scale import combined_norm
from unitygain.stats.shards import Cut, Groups, cut_of, gather, is_sharded, world_size


class Whole(NamedTuple):
    """Numbers of whole tensors, and what each rank told; None where nothing was."""

    summary: Float64[Tensor, "numbers tensors"]
    told: Float64[Tensor, "ranks told"] | None


class _Alike(NamedTuple):
    """Tensors that are cut alike: how, and their rows."""

    cut: Cut
    rows: list[int]


Combine = Callable[[Float64[Tensor, "pieces numbers tensors"]], Float64[Tensor, "numbers tensors"]]


def of_the_whole(
    summary: Float64[Tensor, "numbers tensors"],
    tensors: Sequence[Tensor],
    own: Float64[Tensor, " told"] | None = None,
    group: Any = None,
    combine: Combine | None = None,
) -> Whole:
    """Combine numbers of pieces to those of whole tensors; let others ride along.

    Tensors whose mesh spans all ranks take one all-gather together, however their meshes are shaped; of
    others, which only some ranks may hold, those that are cut alike take one per cut mesh dimension.

    Args:
        summary: Norm, then perhaps absmax, of what lies here. Is written to.
        tensors: Of which; DTensors are the ones that are cut.
        own: What this rank tells all others.
        group: The ranks that are told; None is all.
        combine: From the numbers of all pieces to those of the whole, where they are others than these.
    """
    combine = combine or _norms
    every = _alike(tensors)
    wide = [alike for alike in every if alike.cut.spans(group)]
    if own is None and sum(len(alike.cut.groups) for alike in wide) <= 1:
        wide = []
    for alike in every:
        if alike not in wide:
            rows, device = alike.rows, tensors[alike.rows[0]].device
            pieces = gather(summary[:, rows].reshape(-1).to(device), alike.cut.groups).to(summary.device)
            summary[:, rows] = combine(pieces.view(len(pieces), len(summary), len(rows)))
    if own is None and not wide:
        return Whole(summary, None)
    rows = [row for alike in wide for row in alike.rows]
    told = summary.new_empty(0) if own is None else own
    table = gather(torch.cat([summary[:, rows].reshape(-1), told]), _all_ranks(group))
    pieces, told = table.split([len(summary) * len(rows), len(told)], dim=1)
    pieces = pieces.view(len(table), len(summary), len(rows))
    begin = 0
    for alike in wide:
        end = begin + len(alike.rows)
        summary[:, alike.rows] = combine(pieces[alike.cut.holders(group), :, begin:end])
        begin = end
    return Whole(summary, told)


def _alike(tensors: Sequence[Tensor]) -> list[_Alike]:
    found: dict[Cut, _Alike] = {}
    for row, tensor in enumerate(tensors):
        if is_sharded(tensor):
            cut = cut_of(tensor)
            found.setdefault(cut, _Alike(cut, [])).rows.append(row)
    return [alike for alike in found.values() if alike.cut.groups]


def _all_ranks(group: Any) -> Groups:
    if world_size(group) == 1:
        return ()
    return (torch.distributed.group.WORLD if group is None else group,)


def _norms(pieces: Float64[Tensor, "pieces numbers tensors"]) -> Float64[Tensor, "numbers tensors"]:
    norms = combined_norm(pieces[:, 0])
    return torch.stack([norms, *pieces[:, 1:].amax(0)])
