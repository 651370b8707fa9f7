"""Agreement: what one rank sees all ranks decide on, by one small all-reduce."""

from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor


def world_size(group: Any = None) -> int:
    """Return how many ranks train together; 1 where nothing is distributed."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size(group)


def rank(group: Any = None) -> int:
    """Return which of them this is."""
    return torch.distributed.get_rank(group) if world_size(group) > 1 else 0


def meeting_place(device: torch.device) -> torch.device:
    """Return where numbers of tensors on `device` meet: there, so that the group's backend can reach them.

    MPS has no float64, and what `stats` reads there is on the CPU.
    """
    return torch.device("cpu") if device.type == "mps" else device


def largest(numbers: Float64[Tensor, " numbers"], group: Any = None) -> list[float]:
    """Return the largest of each number over all ranks. Cost: one all-reduce and one wait for the device."""
    if world_size(group) > 1:
        torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MAX, group=group)
    return numbers.tolist()


def anywhere(flag: bool, device: torch.device, group: Any = None) -> bool:
    """Tell whether `flag` is set on any rank."""
    return bool(largest(torch.full((1,), float(flag), dtype=torch.float64, device=device), group)[0])
