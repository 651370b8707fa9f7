"""Norms of the gradients of single samples, without forming them."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from unitygain.stats.scale import absmax, combined_norm, power_of_two
from unitygain.stats.units import unit_norms


def sample_norms(gradients: list[Float[Tensor, "samples ..."]]) -> Float64[Tensor, " samples"]:
    """L2 norm of every sample's gradient, all tensors taken as one vector.

    Cost: about ten passes in float64.

    Args:
        gradients: One tensor for each parameter, samples first.

    Example:
        >>> import torch
        >>> sample_norms([torch.tensor([[3.0], [0.0]]), torch.tensor([[4.0], [2.0]])]).tolist()
        [5.0, 2.0]
    """
    norms = torch.stack([unit_norms(gradient, 0).reshape(-1) for gradient in gradients], 1)
    return torch.stack([combined_norm(row) for row in norms])


def linear_sample_norms(
    entering: Float[Tensor, "samples positions inputs"],
    arriving: Float[Tensor, "samples positions outputs"],
    *,
    bias: bool,
) -> Float64[Tensor, " samples"]:
    """L2 norm of every sample's gradient of a linear layer, Σ_t b_t⊗a_t and Σ_t b_t, from a and b.

    The squared norm of the first is Σ_{t,s} (a_t·a_s)(b_t·b_s): two Gram matrices of positions instead of
    a weight for each sample. Where there are so many positions that a weight is smaller, it is formed, one
    sample at a time.

    Cost: 2T²(n + m) multiplications per sample in float64, or T·n·m.

    Args:
        entering: What entered the layer, a.
        arriving: ∂L/∂output, b.
        bias: Whether the layer has a bias that counts.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[2.0]]])
        >>> linear_sample_norms(a, b, bias=False).item()
        10.0

    References:
        Goodfellow, Efficient per-example gradient computations, 2015, section 4; Li, Tramèr, Liang and
        Hashimoto, Large language models can be strong differentially private learners, 2022, section 4.
    """
    scales = power_of_two(absmax(entering)), power_of_two(absmax(arriving))
    positions, inputs, outputs = entering.shape[1], entering.shape[2], arriving.shape[2]
    squares = []
    for a, b in zip(entering.double() / scales[0], arriving.double() / scales[1], strict=True):
        if positions**2 * (inputs + outputs) <= positions * inputs * outputs:
            square = ((a @ a.T) * (b @ b.T)).sum().clamp(min=0)
        else:
            square = (b.T @ a).square().sum()
        squares.append(square)
    norms = torch.stack(squares).sqrt() * scales[0] * scales[1]
    if not bias:
        return norms
    of_bias = unit_norms(arriving.double().sum(1), 0).reshape(-1)
    return torch.hypot(norms, of_bias)
