"""clip_grad_norm_: torch's function of that name, right where torch's is not."""

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from unitygain.clip._apply import multiply, multiply_unseen
from unitygain.stats import absmax, each_tensor_once, gradient_stats, gradients_of
from unitygain.stats.units import power_norm_together

# torch adds it to every norm that it divides by; a drop-in clips to the same numbers.
_ADDED = 1e-6


@torch.no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Float64[Tensor, ""]:
    """Scale all gradients by min(1, max_norm/(norm + 1e-6)), as `torch.nn.utils.clip_grad_norm_` does.

    Keeps the direction. Takes the same arguments and gives the same numbers to 1e-6 wherever torch's
    float32 norm is that exact. It differs where torch's answer is wrong or does harm:

    - the norm is right to 1e-6 at every size: entries of 1e20 and float16 gradients whose norm exceeds
      65504 are clipped, where torch sets all gradients to 0; 1e-25 is not taken for 0;
    - where a gradient is not finite, all stay as they are and the returned norm says so, where torch
      spreads the NaN over all of them; ask for an error with `error_if_nonfinite`;
    - a parameter that comes twice counts once, and a tensor that is the gradient of two parameters is
      scaled once; sparse gradients, DTensors on several meshes, and DTensors beside plain ones are taken;
    - gradients that need no clipping are not written to (on an accelerator, where looking would wait for
      the device, they are multiplied by exactly 1).

    `unitygain.clip.by_global_norm` adds no 1e-6 and reports what it did.

    Cost: one read of the gradients, and one write if they are clipped. For a norm_type other than 2 and
    infinity about four passes in float64. DTensors: one all-gather for all whose meshes span every rank.

    Args:
        parameters: A tensor or several; those without a gradient are passed over.
        max_norm: Largest norm; infinity clips nothing.
        norm_type: The p of the p-norm; infinity is the largest entry.
        error_if_nonfinite: Raise where the norm is NaN or infinite; on an accelerator that waits for it.
        foreach: Taken for compatibility; what is faster is used in any case.

    Returns:
        The norm before clipping, in float64.

    Raises:
        ValueError: If max_norm is negative or NaN, or norm_type is not above 0.
        RuntimeError: If `error_if_nonfinite` is set and the norm is not finite.

    Side effects:
        The gradients.

    Example:
        >>> import torch
        >>> w = torch.zeros(2, requires_grad=True)
        >>> w.grad = torch.tensor([3e20, 4e20])
        >>> f"{clip_grad_norm_([w], 1.0).item():.4g}"
        '5e+20'
        >>> w.grad
        tensor([0.6000, 0.8000])

    References:
        Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013,
        algorithm 1.
    """
    max_norm, norm_type = float(max_norm), float(norm_type)
    if not max_norm >= 0:
        raise ValueError(
            f"max_norm is {max_norm:g}; a negative one would turn descent into ascent: give 0 or more"
        )
    if not norm_type > 0:
        raise ValueError(
            f"norm_type is {norm_type:g}, which gives no norm; use 2, another number above 0, or inf"
        )
    gradients = gradients_of(parameters)
    norm = _total_norm(gradients, norm_type)
    if error_if_nonfinite and not norm.isfinite():
        raise RuntimeError(
            f"the norm of order {norm_type:g} is {norm.item()}, so nothing was clipped; find the gradient "
            "that is not finite, skip the step, or set error_if_nonfinite=False"
        )
    if norm.is_cpu:
        size = norm.item()
        factor = max_norm / (size + _ADDED) if math.isfinite(size) else 1.0
        if factor < 1:
            written = each_tensor_once(gradients)
            multiply(written, [factor] * len(written))
    else:
        factor = torch.where(norm.isfinite(), (max_norm / (norm + _ADDED)).clamp(max=1.0), 1.0)
        multiply_unseen(each_tensor_once(gradients), factor)
    return norm


def _total_norm(gradients: Sequence[Tensor], p: float) -> Float64[Tensor, ""]:
    """p-norm of all gradients as one vector; 0 if there is none."""
    if p == 2 or not gradients:
        return gradient_stats(gradients).total_norm()
    if math.isinf(p):
        largest = gradient_stats(gradients, absmax=True).absmax
        assert largest is not None, "it was asked for"
        return absmax(largest)
    return power_norm_together(gradients, p=p)
