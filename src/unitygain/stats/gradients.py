"""How large many gradients are: one number per tensor, read together and at their own scale."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from unitygain.stats import backends
from unitygain.stats.layouts import Entries, entries, in_memory
from unitygain.stats.portable import Found
from unitygain.stats.scale import local_absmax
from unitygain.stats.shards import gather


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


@torch.no_grad()
def gradient_stats(tensors: Iterable[Tensor], *, absmax: bool = False) -> GradientStats:
    """L2 norm, finiteness and, on request, absmax of each of many tensors, in one pass.

    Right to 1e-6 relative wherever the entries are normal numbers of their dtype, also where their squares
    leave its range (1e20 in float32, 300 in float16). Reads only.

    Cost on a CPU: with the compiled kernel about one read of the memory, absmax included; in torch about
    0.8 of `torch.linalg.vector_norm` on each, ten times that where float32 entries are below 1e-15 or their
    squares overflow. DTensors: one all-gather of two numbers per tensor for all that are cut over the same
    ranks, and every rank must give the same tensors in the same order.

    Args:
        tensors: Gradients of any shape, dtype, layout and device. Each is a row: drop None and repeated
            ones first (`with_gradient`).
        absmax: Also find the largest |x| of each.

    Returns:
        One row for each tensor, on the device of the first; on an accelerator, without waiting for it.

    Example:
        >>> import torch
        >>> found = gradient_stats([torch.tensor([300.0, 400.0], dtype=torch.float16), torch.zeros(2)])
        >>> found.norm.tolist(), found.finite.all().item()
        ([500.0, 0.0], True)
    """
    tensors = list(tensors)
    memory = in_memory(tensors)
    if memory is not None:
        return GradientStats(*backends.reduce(tensors, memory, absmax))
    parts = [entries(tensor) for tensor in tensors]
    home = parts[0].values.device
    norms = torch.empty(len(parts), dtype=torch.float64, device=home)
    tops = torch.empty_like(norms) if absmax else None
    for device in {part.values.device: None for part in parts}:
        rows = [row for row, part in enumerate(parts) if part.values.device == device]
        found = _over_ranks([parts[row] for row in rows], absmax)
        norms[rows] = found.norm.to(home)
        if tops is not None and found.absmax is not None:
            tops[rows] = found.absmax.to(home)
    return GradientStats(norms, tops)


def gradients_of(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """Return the gradients that there are, each once, in the order of the parameters.

    A parameter that is named twice (tied weights, overlapping groups) has one gradient, and counts once.

    Example:
        >>> import torch
        >>> weight, frozen = torch.ones(2, requires_grad=True), torch.ones(2)
        >>> weight.sum().backward()
        >>> gradients_of([weight, frozen, weight])
        [tensor([1., 1.])]
    """
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    gradients = [gradient for parameter in parameters if (gradient := parameter.grad) is not None]
    if len(set(map(id, gradients))) == len(gradients):
        return gradients
    return list({id(gradient): gradient for gradient in gradients}.values())


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


def combined_norm(norms: Float64[Tensor, " pieces *rest"]) -> Float64[Tensor, " *rest"]:
    """L2 norm of a vector from the norms of its pieces, without squaring what leaves float64's range."""
    if norms.shape[0] == 0:
        return norms.new_zeros(norms.shape[1:])
    largest = norms.amax(0)
    scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    return torch.linalg.vector_norm(norms / scale, dim=0) * scale


def _over_ranks(parts: Sequence[Entries], absmax: bool) -> GradientStats:
    """Statistics of whole tensors from what lies here, with one collective for all that are cut alike."""
    norms, tops = _local(parts, absmax)
    cuts: dict[tuple[str, ...], list[int]] = {}
    for row, part in enumerate(parts):
        if part.groups:
            cuts.setdefault(tuple(group.group_name for group in part.groups), []).append(row)
    for rows in cuts.values():
        summary = torch.stack([norms[rows]] if tops is None else [norms[rows], tops[rows]])
        pieces = gather(summary.reshape(-1), parts[rows[0]].groups).view(-1, *summary.shape)
        norms[rows] = combined_norm(pieces[:, 0])
        if tops is not None:
            tops[rows] = pieces[:, 1].amax(0)
    return GradientStats(norms, tops)


def _local(parts: Sequence[Entries], absmax: bool) -> Found:
    """Norm and absmax of what lies on this rank, on one device."""
    runs = [_real(part.values) for part in parts]
    memory = in_memory(runs)
    norms, tops = (
        backends.reduce_on_device(runs, absmax) if memory is None else backends.reduce(runs, memory, absmax)
    )
    if any(part.times > 1 for part in parts):
        norms = norms * torch.tensor([part.times**0.5 for part in parts], dtype=norms.dtype).to(norms.device)
    for row, part in enumerate(parts):
        if tops is not None and part.values.is_complex():
            tops[row] = local_absmax(part)
    return norms, tops


def _real(values: Tensor) -> Tensor:
    return torch.view_as_real(values).view(-1) if values.is_complex() else values
