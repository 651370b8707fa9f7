"""grad_samples: the same as per_sample, from gradients of samples that Opacus has already made."""

from typing import Any

import torch
from torch import Tensor

from unitygain.clip._gradients import Parameters, each_once
from unitygain.clip._rule import least
from unitygain.clip.per_sample import PerSampleReport, Reduction, angle, bounds_of
from unitygain.stats.samples import sample_norms

SAMPLES = "grad_sample"


@torch.no_grad()
def grad_samples(
    parameters: Parameters, c: float | Tensor, *, reduction: Reduction = "mean"
) -> PerSampleReport:
    """Replace every gradient by the mean of its samples' gradients, each at most c long.

    For a model in Opacus's ``GradSampleModule``, whose backward pass leaves the gradients of the samples in
    ``parameter.grad_sample``; Opacus itself is not needed. Changes the direction of the batch's gradient,
    as `per_sample` does; that of each sample's own stays. Adds no noise, and so gives no differential
    privacy: for that use Opacus's own optimizer.

    Cost: about ten passes over the gradients of the samples.

    Args:
        parameters: The model or its parameters; those without ``grad_sample`` are passed over.
        c: Largest norm of a sample's gradient, or one for each sample.
        reduction: The ``loss_reduction`` that the module was given.

    Returns:
        Norms and factors of the samples, and what it did to the direction.

    Raises:
        ValueError: If no parameter has gradients of samples, if they came from several backward passes, or
            if a threshold is not above 0.

    Side effects:
        ``.grad``; ``.grad_sample`` is set to None, as Opacus does, so that the next step starts anew.

    Example:
        >>> import torch
        >>> w = torch.zeros(2, requires_grad=True)
        >>> w.grad, w.grad_sample = torch.zeros(2), torch.tensor([[3.0, 4.0], [0.3, 0.4]])
        >>> report = grad_samples([w], c=1.0)
        >>> w.grad, report.frac_clipped
        (tensor([0.4500, 0.6000]), 0.5)
    """
    found = _made(parameters)
    samples = next(iter(found.values())).shape[0]
    norms = sample_norms(list(found.values()))
    factors = least(bounds_of(c, samples).to(norms.device), norms)
    share = 1 / samples if reduction == "mean" else 1.0
    kept = {p: torch.tensordot(factors.to(g.device, g.dtype), g, dims=1) * share for p, g in found.items()}
    ones = torch.ones_like(factors)
    plain = {p: torch.tensordot(ones.to(g.device, g.dtype), g, dims=1) * share for p, g in found.items()}
    for parameter, gradient in kept.items():
        parameter.grad = gradient
        setattr(parameter, SAMPLES, None)
    return PerSampleReport(None, norms, factors, "grad_sample", angle(kept, plain))


def _made(parameters: Parameters) -> dict[Tensor, Tensor]:
    found: dict[Tensor, Any] = {}
    for parameter in each_once(parameters).parameters:
        made = getattr(parameter, SAMPLES, None)
        if made is not None:
            found[parameter] = made
    if not found:
        raise ValueError(
            "no parameter has a grad_sample; wrap the model in opacus.GradSampleModule, or use per_sample"
        )
    if any(not isinstance(made, Tensor) for made in found.values()):
        raise ValueError("grad_sample holds several backward passes; clip after each of them")
    return found
