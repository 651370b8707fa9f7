"""How large many gradients are: one number per tensor, read together and at their own scale."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from unitygain.stats.scale import absmax as absmax_of
from unitygain.stats.scale import norm as norm_of


@dataclass(frozen=True)
class GradientStats:
    """What one pass over many tensors says of each; row i speaks of the i-th tensor that was given.

    Args:
        norm: L2 norm of each tensor, in float64, on the device of the first. 0 for a tensor without entries.
        absmax: Largest |x| of each; None where it was not asked for.
    """

    norm: Float64[Tensor, " tensors"]
    absmax: Float64[Tensor, " tensors"] | None = None

    @property
    def finite(self) -> Bool[Tensor, " tensors"]:
        """Whether all entries of each tensor are finite, read from the norm: it is finite just then.

        One exception: float64 entries so large that the norm exceeds 1.8e308 count as not finite.
        """
        return self.norm.isfinite()

    def total_norm(self) -> Float64[Tensor, ""]:
        """L2 norm of all tensors as one vector; 0 if there is none. A NaN gives NaN."""
        return combined_norm(self.norm)


def gradient_stats(tensors: Iterable[Tensor], *, exact: bool = False, absmax: bool = False) -> GradientStats:
    """L2 norm, finiteness and, on request, absmax of each of many tensors, in one pass.

    Right to 1e-6 relative wherever the entries are normal numbers of their dtype, also where their squares
    leave its range (1e20 in float32, 300 in float16). Reads only.

    Args:
        tensors: Gradients of any shape, dtype, layout and device. Each is a row: drop None and repeated
            ones first (`with_gradient`).
        exact: Hold 1e-6 also where the quick way in torch promises 1e-5.
        absmax: Also find the largest |x| of each, at the cost of about one more pass.

    Returns:
        One row for each tensor, on the device of the first; waits for no device.

    Example:
        >>> import torch
        >>> found = gradient_stats([torch.tensor([300.0, 400.0], dtype=torch.float16), torch.zeros(2)])
        >>> found.norm.tolist(), found.finite.all().item()
        ([500.0, 0.0], True)
    """
    tensors = list(tensors)
    norms = _stacked([norm_of(tensor) for tensor in tensors])
    return GradientStats(norms, _stacked([_largest(tensor) for tensor in tensors]) if absmax else None)


def with_gradient(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """Return each parameter that has a gradient, once, in the order given.

    A parameter that is named twice (tied weights, overlapping groups) has one gradient, and counts once.

    Example:
        >>> import torch
        >>> weight, frozen = torch.ones(2, requires_grad=True), torch.ones(2)
        >>> weight.sum().backward()
        >>> len(with_gradient([weight, frozen, weight]))
        1
    """
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    once = {id(parameter): parameter for parameter in parameters}
    return [parameter for parameter in once.values() if parameter.grad is not None]


def combined_norm(norms: Float64[Tensor, " tensors"]) -> Float64[Tensor, ""]:
    """L2 norm of a vector from the norms of its pieces, without squaring what leaves float64's range."""
    if norms.numel() == 0:
        return norms.new_zeros(())
    largest = norms.amax()
    scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    return torch.linalg.vector_norm(norms / scale) * scale


def _largest(tensor: Tensor) -> Float64[Tensor, ""]:
    if tensor.numel() == 0:
        return torch.zeros((), dtype=torch.float64, device=tensor.device)
    return absmax_of(tensor)


def _stacked(numbers: Sequence[Tensor]) -> Float64[Tensor, " tensors"]:
    if not numbers:
        return torch.zeros(0, dtype=torch.float64)
    home = numbers[0].device
    return torch.stack([number.to(home, non_blocking=True) for number in numbers])
