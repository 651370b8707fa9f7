"""Agreement: what one rank sees all ranks decide on, by one small all-reduce."""

from typing import Any

import torch

from unitygain.stats.shards import world_size


def rank(group: Any = None) -> int:
    """Return which of them this is."""
    return torch.distributed.get_rank(group) if world_size(group) > 1 else 0


def meeting_place(device: torch.device) -> torch.device:
    """Return where numbers of tensors on `device` meet: there, so that the group's backend can reach them.

    MPS has no float64, and what `stats` reads there is on the CPU.
    """
    return torch.device("cpu") if device.type == "mps" else device


def anywhere(flag: bool, device: torch.device, group: Any = None) -> bool:
    """Tell whether `flag` is set on any rank. Cost: one all-reduce and one wait for the device."""
    told = torch.full((1,), float(flag), dtype=torch.float64, device=device)
    if world_size(group) > 1:
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX, group=group)
    return bool(told)
