"""Whether the places along a dimension of the batch may be exchanged, as samples may."""

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from unitygain._case import Batch, Case, fresh, random_states, reseed
from unitygain.probe.record import Record
from unitygain.probe.trace import buffers_kept

# Of the loss. Rounding moves it by 1e-7, and places that are told apart by what the model learns of them by
# more than a thousandth from the start.
MOVED = 1e-4


def tells_places(case: Case, record: Record, dim: int) -> bool:
    """Whether the loss changes where the places along a dimension of the batch change their order.

    Then they are no samples, whose order no mean or sum over them can tell. Nothing is said of a loss that
    is another one at every call, as dropout makes it.

    Cost: three forward passes. Side effects: none but buffers, which are put back.

    Example:
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> case = Case(nn.Linear(3, 1), loss=lambda m, x: m(x).square().mean(), data=[torch.randn(4, 3)])
        >>> tells_places(case, observe(case, []), 0), tells_places(case, observe(case, []), 1)
        (False, True)
    """
    batch = case.batches[int(record.facts.get("batch", 0))]
    seed = int(record.facts.get("seed", 0))

    def turned(value: Tensor) -> Tensor:
        return value.flip(dim) if value.ndim > dim else value

    plain, again = _loss(case, batch, seed), _loss(case, batch, seed + 1)
    moved = _loss(case, pytree.tree_map_only(Tensor, turned, batch), seed)
    return plain == again and abs(moved - plain) > MOVED * abs(plain)


def _loss(case: Case, batch: Batch, seed: int) -> float:
    with random_states(), torch.no_grad(), buffers_kept(case.model):
        reseed(seed)
        return float(case.compute_loss(fresh(batch)))
