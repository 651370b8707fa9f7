"""by_tensor_norm: every gradient on its own to at most a given norm."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from unitygain.clip._clip import Clip
from unitygain.clip._gradients import Gradients
from unitygain.clip._rule import State, Stateless, least, require_threshold

Split = Literal["each", "equal", "size"]


@dataclass(frozen=True)
class _ByTensorNorm(Stateless):
    c: float
    split: Split

    name = "by_tensor_norm"
    keeps_direction = False

    def decide(self, seen: Gradients, state: State) -> tuple[Tensor, State]:
        return least(_bounds(self.c, self.split, seen), seen.norm), {}


def by_tensor_norm(c: float, split: Split = "each") -> Clip:
    """Scale every gradient by min(1, c_i/‖g_i‖), each by its own norm.

    Changes the direction: tensors with a large gradient lose weight against the others, so that [3, 4]
    beside [0.1] at c = 1 has a cosine of 0.997 and the second tensor 25 times its share of the energy.
    Within a tensor the direction stays.

    Cost: one pass.

    Args:
        c: Largest norm, of each tensor or, with another `split`, of all together.
        split: ``"each"``: c for every tensor. ``"equal"``: c/√K for each of K tensors with a gradient.
            ``"size"``: c·√(n_i/n) for n_i of n entries, the same rms for all.

    Raises:
        ValueError: If c is not above 0 or the split unknown.

    Example:
        >>> import torch
        >>> w, b = torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)
        >>> w.grad, b.grad = torch.tensor([3.0, 4.0]), torch.tensor([0.1])
        >>> report = by_tensor_norm(1.0)([w, b])
        >>> round(report.cosine, 5), w.grad
        (0.99683, tensor([0.6000, 0.8000]))

    References:
        McMahan, Ramage, Talwar and Zhang, Learning differentially private recurrent language models, 2018,
        per-layer clipping, for ``"equal"``.
    """
    if split not in get_args(Split):
        raise ValueError(f"split is {split!r}; use one of {', '.join(map(repr, get_args(Split)))}")
    return Clip(_ByTensorNorm(require_threshold("c", c), split))


def _bounds(c: float, split: Split, seen: Gradients) -> Tensor:
    count = len(seen.parameters)
    if split == "each" or not count:
        return seen.number(c)
    if split == "equal":
        return seen.number(c / math.sqrt(count))
    sizes = [parameter.numel() for parameter in seen.parameters]
    total = math.fsum(sizes)
    return torch.sqrt(seen.numbers([size / total for size in sizes])) * c if total else seen.number(c)
