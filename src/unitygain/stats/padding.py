"""Where sequences of tokens are padded, and how much is read there and at the words."""

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from unitygain.stats.layouts import dense

# Of the rows, as many must end in the same token more than once for it to be taken for padding.
_ROWS = 0.5


@torch.no_grad()
def padding(ids: Int[Tensor, "rows steps"], index: int | None) -> Bool[Tensor, "rows steps"]:
    """Which tokens are padding: those of the given index, or else the tail of the token that ends most rows.

    A tail is padding where half of the rows or more end in the same token, twice or more, and where tails
    differ in length, as a blank that is part of every sequence does not.

    Example:
        >>> padding(torch.tensor([[5, 0, 0, 0], [5, 0, 7, 0], [3, 4, 0, 0]]), None).int().tolist()
        [[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 1, 1]]
    """
    if index is not None:
        return ids == index
    if ids.numel() == 0:
        return torch.zeros_like(ids, dtype=torch.bool)
    same = ids == ids[:, -1].mode().values
    tail = same.flip(1).cumprod(1).flip(1).bool()
    lengths = tail.sum(1)
    plain = (lengths >= 2).double().mean() >= _ROWS and bool((lengths != lengths[0]).any())
    return tail if plain else torch.zeros_like(tail)


@torch.no_grad()
def rows_with_both(pads: Bool[Tensor, "rows steps"]) -> Bool[Tensor, " rows"]:
    """Which rows have padding and words.

    Example:
        >>> rows_with_both(torch.tensor([[False, True], [False, False]])).tolist()
        [True, False]
    """
    return pads.any(1) & ~pads.all(1)


@torch.no_grad()
def weight_by_place(
    weights: Float[Tensor, "rows queries steps"], pads: Bool[Tensor, "rows steps"]
) -> Float64[Tensor, "2"]:
    """Mean attention weight of a padding token and of a word, in the rows that have both.

    Cost: one pass. NaN where no row has both, or a weight is not finite.

    Example:
        >>> weights = torch.tensor([[[0.5, 0.25, 0.25]]])
        >>> weight_by_place(weights, torch.tensor([[False, True, True]])).tolist()
        [0.25, 0.5]
    """
    return _by_place(dense(weights).double().mean(1), pads)


@torch.no_grad()
def reached_by_place(
    gradient: Float[Tensor, "rows steps features"], pads: Bool[Tensor, "rows steps"]
) -> Float64[Tensor, "2"]:
    """Share of the padding tokens, and of the words, whose gradient is not zero, in the rows that have both.

    Cost: one pass. NaN where no row has both.

    Example:
        >>> gradient = torch.tensor([[[0.0], [1.0], [2.0]]])
        >>> reached_by_place(gradient, torch.tensor([[False, True, True]])).tolist()
        [1.0, 0.0]
    """
    return _by_place((dense(gradient) != 0).any(-1).double(), pads)


def _by_place(
    values: Float64[Tensor, "rows steps"], pads: Bool[Tensor, "rows steps"]
) -> Float64[Tensor, "2"]:
    both = rows_with_both(pads)
    values, pads = values[both], pads[both]
    return torch.stack([values[pads].mean(), values[~pads].mean()])
