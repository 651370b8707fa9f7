"""How large many gradients are: one number per tensor, read together and at their own scale."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from unitygain.stats import across, backends
from unitygain.stats.layouts import Entries, entries, in_memory
from unitygain.stats.portable import Found
from unitygain.stats.scale import combined_norm, local_absmax
from unitygain.stats.shards import is_sharded


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


class Agreement(NamedTuple):
    """What all ranks know after one collective, the same bits on each.

    Args:
        stats: Of the gradients; a tensor that every rank holds whole has the norm that it has here.
        total: L2 norm of all gradients as one vector, where those that every rank holds whole count with the
            largest norm that they have on any. NaN if one is NaN on any rank.
        told: What each rank told, in the order of the ranks.
    """

    stats: GradientStats
    total: Float64[Tensor, ""]
    told: Float64[Tensor, "ranks numbers"]

    @property
    def largest(self) -> Float64[Tensor, " numbers"]:
        """The largest that was told of each number; NaN if one rank told NaN."""
        return self.told.amax(0)


@torch.no_grad()
def gradient_stats(tensors: Iterable[Tensor], *, absmax: bool = False) -> GradientStats:
    """L2 norm, finiteness and, on request, absmax of each of many tensors, in one pass.

    Right to 1e-6 relative wherever the entries are normal numbers of their dtype, also where their squares
    leave its range (1e20 in float32, 300 in float16). Reads only.

    Cost on a CPU: with the compiled kernel about one read of the memory, absmax included; in torch about
    0.8 of `torch.linalg.vector_norm` on each, ten times that where float32 entries are below 1e-15 or their
    squares overflow. DTensors: one all-gather of one or two numbers per tensor for all whose meshes span
    every rank, one more per mesh dimension of others; every rank must give the same tensors in one order.

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
    return _rows(across.of_the_whole(_here(tensors, absmax), tensors).summary)


@torch.no_grad()
def agreed_gradient_stats(
    tensors: Iterable[Tensor],
    own: Float64[Tensor, " numbers"],
    *,
    absmax: bool = False,
    group: Any = None,
) -> Agreement:
    """Statistics of gradients, and what every rank has to tell, by one collective for both.

    Cost: that of `gradient_stats`, and its one all-gather, in which the numbers travel too. DTensors whose
    mesh spans only some of the ranks take one more per mesh dimension.

    Args:
        tensors: As `gradient_stats` takes them; may be none.
        own: What this rank tells, as many numbers on every rank, on the device where they can travel.
        absmax: Also find the largest |x| of each.
        group: The ranks; None is all. Each has to call.

    Returns:
        The same on every rank, on the device of `own`; where nothing is distributed, of this process alone.

    Example:
        >>> import torch
        >>> found = agreed_gradient_stats([torch.tensor([3.0, 4.0])], torch.ones(1, dtype=torch.float64))
        >>> found.total.item(), found.told.tolist()
        (5.0, [[1.0]])
    """
    tensors = list(tensors)
    memory = in_memory(tensors)
    if memory is None:
        summary = _here(tensors, absmax).to(own.device)
    else:
        norms, tops = backends.reduce(tensors, memory, absmax)
        summary = torch.stack([norms] if tops is None else [norms, tops]).to(own.device)
    cut = torch.tensor([is_sharded(tensor) for tensor in tensors], dtype=torch.bool).to(own.device)
    plain = combined_norm(torch.where(cut, 0.0, summary[0]))
    whole = across.of_the_whole(summary, tensors, torch.cat([plain.reshape(1), own]), group)
    assert whole.told is not None, "something was told"
    pieces = torch.stack([combined_norm(torch.where(cut, whole.summary[0], 0.0)), whole.told[:, 0].amax()])
    return Agreement(_rows(whole.summary), combined_norm(pieces), whole.told[:, 1:])


def gradients_of(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """Return the gradients that there are, in the order of the parameters, each of which counts once.

    A parameter that is named twice (tied weights, overlapping groups) has one gradient. Two parameters that
    hold the same tensor, as `torch.autograd.grad` returns it for the terms of a sum, both move by it: it is
    in the list twice, and `each_tensor_once` says which to write to.

    Example:
        >>> import torch
        >>> weight, frozen = torch.ones(2, requires_grad=True), torch.ones(2)
        >>> weight.sum().backward()
        >>> gradients_of([weight, frozen, weight])
        [tensor([1., 1.])]
    """
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    if len(set(map(id, parameters))) < len(parameters):
        parameters = list({id(parameter): parameter for parameter in parameters}.values())
    return [gradient for parameter in parameters if (gradient := parameter.grad) is not None]


def each_tensor_once(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors, each once, in order: those to write to.

    Example:
        >>> import torch
        >>> one, other = torch.ones(1), torch.zeros(1)
        >>> each_tensor_once([one, other, one])
        [tensor([1.]), tensor([0.])]
    """
    if len(set(map(id, gradients))) == len(gradients):
        return list(gradients)
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


def _rows(summary: Float64[Tensor, "numbers tensors"]) -> GradientStats:
    norms, *tops = summary
    return GradientStats(norms, tops[0] if tops else None)


def _here(tensors: Sequence[Tensor], absmax: bool) -> Float64[Tensor, "numbers tensors"]:
    """Norm, and absmax, of what of each tensor lies on this rank, on the device of the first."""
    parts = [entries(tensor) for tensor in tensors]
    home = parts[0].values.device
    summary = torch.empty(2 if absmax else 1, len(parts), dtype=torch.float64, device=home)
    for device in {part.values.device: None for part in parts}:
        rows = [row for row, part in enumerate(parts) if part.values.device == device]
        norms, tops = _local([parts[row] for row in rows], absmax)
        summary[:, rows] = torch.stack([norms] if tops is None else [norms, tops]).to(home)
    return summary


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
