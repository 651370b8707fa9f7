"""Statistics of what happens inside an operation: softmax, activation slopes, gates, losses."""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from unitygain.stats.layouts import dense, reduction
from unitygain.stats.scale import rms

# A slope this much below the activation's steepest passes next to nothing on.
_FLAT = 0.01
_OPEN = 0.5
_CLOSED = 0.05
# An additive mask that is not minus infinity: -1e4 and below is in use, honest logits are not that negative
# while their probability is exactly zero.
_MASKED = -5e3


def softmax_logits(
    logits: Float[Tensor, "*rows"], probabilities: Float[Tensor, "*rows"], dim: int
) -> Float64[Tensor, "2"]:
    """Largest |logit| and mean relative entropy of the rows of a softmax.

    Masked entries are left out: those at minus infinity, those below -5000 whose probability is zero, and
    all of a row that has no other entry.
    The entropy of a row is divided by ln(number of entries that are not masked), so that 1 is uniform and
    0 picks one; rows with fewer than two such entries are left out.

    Cost: about eight passes.

    Args:
        logits: What entered the softmax.
        probabilities: What left it.
        dim: Along which it was taken.

    Returns:
        Shape (2,): absmax (NaN without unmasked entries or with a NaN), entropy (NaN if no row is left).

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 2.0, -torch.inf]])
        >>> [round(number, 6) for number in softmax_logits(logits, logits.softmax(-1), -1).tolist()]
        [2.0, 1.0]
    """
    with torch.no_grad():
        logits, probabilities = dense(logits), dense(probabilities)
        masked = _masked(logits, probabilities, dim)
        counts = (~masked).sum(dim).double()
        if logits.numel() == 0 or not bool(counts.any()):
            return logits.new_full((2,), math.nan, dtype=torch.float64)
        absmax = logits.masked_fill(masked, 0.0).abs().amax().double()
        wide = probabilities if probabilities.dtype is torch.float64 else probabilities.float()
        entropy = torch.special.entr(wide).sum(dim).double()
        several = counts >= 2
        relative = torch.where(several, entropy / counts.clamp(min=2).log(), 0.0)
        return torch.stack([absmax, relative.sum() / several.sum()])


def shown_by_mask(
    logits: Float[Tensor, "*rows n n"], probabilities: Float[Tensor, "*rows n n"]
) -> Float64[Tensor, "2"]:
    """Share of the earlier, and of the later tokens that the mask of an attention shows.

    Entries below and above the diagonal that are not masked, as `softmax_logits` has it, over all there are.

    Cost: about five passes.

    Args:
        logits: What entered the softmax, queries in rows.
        probabilities: What left it.

    Returns:
        Shape (2,): before and after, from 0 to 1 (NaN for fewer than two tokens).

    Example:
        >>> import torch
        >>> causal = torch.zeros(3, 3).masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
        >>> shown_by_mask(causal, causal.softmax(-1)).tolist()
        [1.0, 0.0]
    """
    with torch.no_grad():
        shown = ~_masked(dense(logits), dense(probabilities), -1)
        rows, columns = torch.tril_indices(shown.shape[-2], shown.shape[-1], -1, device=shown.device)
        return torch.stack([
            shown[..., rows, columns].double().mean(),
            shown[..., columns, rows].double().mean(),
        ])


def sums_along(weights: Float[Tensor, "*any"], dim: int) -> Float64[Tensor, "2"]:
    """Smallest and largest sum along `dim`; NaN for an empty tensor. Two passes.

    Example:
        >>> import torch
        >>> sums_along(torch.tensor([[1.0, 0.5], [0.0, 0.5]]), -1).tolist()
        [0.5, 1.5]
    """
    with torch.no_grad():
        return ends(dense(weights).double().sum(dim))


def _masked(logits: Tensor, probabilities: Tensor, dim: int) -> Tensor:
    masked = logits.isneginf() | ((logits < _MASKED) & (probabilities == 0))
    return masked | (logits.amax(dim, keepdim=True) < _MASKED) if logits.numel() else masked


def ends(values: Float[Tensor, "*any"]) -> Float64[Tensor, "2"]:
    """Smallest and largest entry; NaN for an empty tensor. One pass.

    Example:
        >>> import torch
        >>> ends(torch.tensor([[1.0, -2.0], [0.5, 3.0]])).tolist()
        [-2.0, 3.0]
    """
    with torch.no_grad():
        values = dense(values)
        if not values.numel():
            return values.new_full((2,), math.nan, dtype=torch.float64)
        return torch.stack(torch.aminmax(values)).double()


def farthest_log_sum(log_probabilities: Float[Tensor, "*rows"], dim: int) -> Float64[Tensor, ""]:
    """The ln(sum of exponentials) along `dim` that is farthest from 0; NaN for an empty tensor. Three passes.

    Example:
        >>> import torch
        >>> round(float(farthest_log_sum(torch.tensor([[0.3, 0.2], [0.5, 0.5]]).log(), 1)), 4)
        -0.6931
    """
    with torch.no_grad():
        sums = torch.logsumexp(dense(log_probabilities).double(), dim).flatten()
        return sums[sums.abs().argmax()] if sums.numel() else sums.new_tensor(math.nan)


def slopes(slope: Float[Tensor, "*any"], steepest: float) -> Float64[Tensor, "3"]:
    """Fraction of saturated entries, root mean square slope, and fraction of open entries of an activation.

    An entry is saturated where |φ'| < 0.01·max|φ'| and open where |φ'| >= 0.5·max|φ'|, with the maximum
    over all inputs that there are, not over these.

    Cost: about four passes.

    Args:
        slope: φ'(x) per entry.
        steepest: max|φ'| of the activation.

    Returns:
        Shape (3,): saturated (0 to 1), root of the mean of φ'², open (0 to 1); NaN for an empty tensor.

    Example:
        >>> import torch
        >>> slopes(torch.tensor([0.0, 0.0, 1.0, 1.0]), 1.0)
        tensor([0.5000, 0.7071, 0.5000], dtype=torch.float64)
    """
    with torch.no_grad():
        size = dense(slope).abs()
        flat, wide = size < _FLAT * steepest, size >= _OPEN * steepest
        return torch.stack([_share(flat), rms(slope), _share(wide)])


@reduction
def frac_closed(gate: Float[Tensor, "*any"]) -> Float64[Tensor, ""]:
    """Fraction of the entries of a gate that let less than 0.05 through.

    Example:
        >>> import torch
        >>> frac_closed(torch.tensor([0.01, 0.5])).item()
        0.5
    """
    return _share(dense(gate) < _CLOSED)


def is_probability(rows: Float[Tensor, "*rows"], dim: int) -> bool:
    """Whether every row along `dim` is a probability vector within rounding, of two entries or more.

    Rounding each of the entries, which sum to 1, moves the sum by at most eps/2; 16·eps leaves room for
    the few roundings inside a softmax and 2^-24 per entry for a float32 sum in any order.

    Cost: one pass over a single row where that one already says no, else three passes.
    """
    with torch.no_grad():
        rows = dense(rows).movedim(dim, -1)
        size = rows.shape[-1]
        if size < 2 or rows.numel() == 0:
            return False
        allowed = 16 * torch.finfo(rows.dtype).eps + size * 2.0**-24
        for some in (rows.reshape(-1, size)[:1], rows):
            if bool((some < 0).any()) or not bool(((some.double().sum(-1) - 1).abs() <= allowed).all()):
                return False
        return True


def label_residual(log_probabilities: Float[Tensor, "*any"]) -> Float64[Tensor, ""]:
    """Largest |p - y| of a cross-entropy with class labels, from the log-probabilities of the labels.

    With y one at the label and zero elsewhere, no other entry of p exceeds 1 - p(label), so that the
    largest entry of |p - y| is 1 - p(label), computed without cancellation. NaN for an empty tensor.

    Example:
        >>> import torch
        >>> round(label_residual(torch.tensor([0.5, 0.25]).log()).item(), 6)
        0.75
    """
    with torch.no_grad():
        values = dense(log_probabilities)
        if values.numel() == 0:
            return values.new_full((), math.nan, dtype=torch.float64)
        return -torch.expm1(values.double()).amin()


def variance(values: Float[Tensor, "*any"]) -> Float64[Tensor, ""]:
    """Mean square about the mean over all entries, in float64; NaN for an empty tensor.

    Example:
        >>> import torch
        >>> variance(torch.tensor([1.0, 3.0])).item()
        1.0
    """
    with torch.no_grad():
        values = dense(values).double()
        return (values - values.mean()).square().mean()


def variance_beyond(values: Float[Tensor, "*any"], low: float, high: float) -> Float64[Tensor, ""]:
    """Mean square of what lies below `low` or above `high`, over the variance; NaN for an empty tensor.

    Args:
        values: Any floating tensor.
        low: The lower end, which may be infinite.
        high: The upper end, which may be infinite.

    Example:
        >>> import torch
        >>> variance_beyond(torch.tensor([-1.0, 1.0]), 0.0, float("inf")).item()
        0.5
    """
    with torch.no_grad():
        wide = dense(values).double()
        return (wide - wide.clamp(low, high)).square().mean() / variance(values)


def _share(chosen: Tensor) -> Float64[Tensor, ""]:
    return torch.count_nonzero(chosen).double() / chosen.numel()
