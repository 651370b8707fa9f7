"""Moments of rows and features: what two rows of a signal have in common, and what a softmax may see."""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from unitygain.stats.layouts import dense

MASKED = -1e4
MOST_SIDE = 1024
MOST_LENGTHS = 1024


@torch.no_grad()
def row_moments(tensor: Tensor, features: int = -1, groups: int | None = None) -> Float64[Tensor, "3"]:
    """Mean square of an entry, mean product of one feature in two different rows, mean of all.

    The second is (|Σ rows|² - Σ |row|²)/(N(N - 1)) per feature, which leaves a row's product with itself
    out; 0 where there are no two rows.

    Cost: two passes in float64.

    Args:
        tensor: At least one dimension.
        features: The dimension of the features; all others are rows.
        groups: A dimension whose entries are kept apart: only rows of the same one are paired.

    Returns:
        Three numbers on the tensor's device.

    Example:
        >>> import torch
        >>> row_moments(torch.tensor([[1.0, 2.0], [1.0, -2.0]])).tolist()
        [2.5, -1.5, 0.5]
    """
    values = dense(tensor).double()
    # The features last, what is kept apart first, the rows between them.
    values = values.movedim(features, -1)
    values = values.reshape(1, -1, values.shape[-1]) if groups is None else values.movedim(groups, 0)
    values = values.reshape(values.shape[0], -1, values.shape[-1])
    rows = values.shape[1]
    square = values.square().mean()
    pairs = rows * (rows - 1)
    sums = values.sum(1).square().mean()
    shared = (sums - rows * square) / pairs if pairs else torch.zeros_like(square)
    return torch.stack([square, shared, values.mean()])


@torch.no_grad()
def row_spread(tensor: Tensor, features: int = -1) -> Float64[Tensor, ""]:
    """Relative variance of the rows' mean squares: 0 where all rows are equally long.

    Cost: two passes in float64.

    Example:
        >>> import torch
        >>> row_spread(torch.tensor([[1.0, 1.0], [2.0, 2.0]])).item()
        0.36
    """
    lengths = dense(tensor).double().movedim(features, -1).square().mean(-1)
    middle = lengths.mean()
    return (lengths - middle).square().mean() / middle.square()


@torch.no_grad()
def row_lengths(tensor: Tensor, features: int = -1) -> Float64[Tensor, " rows"]:
    """Mean squares of the rows over their mean, in ascending order; above 1024 of them, means of neighbours.

    Zeros where all rows are zero.

    Cost: one pass in float64, and a sort of one number per row.

    Example:
        >>> import torch
        >>> row_lengths(torch.tensor([[2.0, 2.0], [1.0, 1.0]])).tolist()
        [0.4, 1.6]
    """
    lengths = dense(tensor).double().movedim(features, -1).square().mean(-1).flatten().sort().values
    middle = lengths.mean()
    if lengths.numel() > MOST_LENGTHS:
        # Equal shares of all rows, in order: a few short ones stay apart from the many. Sums up to a place
        # between two rows take a part of the longer one.
        sums = torch.cat([torch.zeros_like(lengths[:1]), lengths.cumsum(0)])
        at = torch.linspace(0, lengths.numel(), MOST_LENGTHS + 1, dtype=torch.float64, device=lengths.device)
        below = at.floor().long().clamp(max=lengths.numel() - 1)
        upto = sums[below] + (at - below) * lengths[below]
        lengths = upto.diff() * (MOST_LENGTHS / lengths.numel())
    return lengths / middle if middle > 0 else torch.zeros_like(lengths)


@torch.no_grad()
def row_directions(tensor: Tensor, features: int = -1) -> Float64[Tensor, ""]:
    """Participation (tr C)²/tr C² of the covariance C of the rows: how many directions they differ in.

    Infinity where both rows and features are more than 1024, for which it is not computed.

    Cost: a product of the centred rows with themselves, on the smaller side.

    Example:
        >>> import torch
        >>> row_directions(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])).item()
        2.0
    """
    values = dense(tensor).double().movedim(features, -1).flatten(0, -2)
    if min(values.shape) > MOST_SIDE:
        return torch.full((), math.inf, dtype=torch.float64, device=values.device)
    values = values - values.mean(0)
    product = values.T @ values if values.shape[0] >= values.shape[1] else values @ values.T
    return product.trace().square() / product.square().sum()


@torch.no_grad()
def visible_keys(logits: Tensor, dim: int) -> Float64[Tensor, "2"]:
    """Mean number of keys that a query sees, and the mean of one over it; masked are logits below -10,000.

    Cost: two passes.

    Example:
        >>> import torch
        >>> visible_keys(torch.tensor([[0.0, float("-inf")], [0.0, 0.0]]), -1).tolist()
        [1.5, 0.75]
    """
    seen = (dense(logits) > MASKED).double().sum(dim).clamp(min=1)
    return torch.stack([seen.mean(), seen.reciprocal().mean()])


def attended_square(
    weights: Float[Tensor, "batch queries keys"], values: Float[Tensor, "batch keys features"]
) -> Float64[Tensor, ""]:
    """Mean square of the values that attention reads over that of all values: weighted by the weights.

    1 where the weights do not depend on the size of what is read; near 0 where a mask leaves
    small rows alone. NaN where nothing is read, or all values are zero.

    Cost: one pass over the values and one over the weights.

    Example:
        >>> import torch
        >>> values = torch.tensor([[[3.0], [1.0]]])
        >>> attended_square(torch.tensor([[[0.0, 1.0]]]), values).item()
        0.2
    """
    squares = dense(values).double().square().mean(-1)
    read = dense(weights).double().abs().mean(-2)
    return (read * squares).sum() / (read.sum() * squares.mean())
