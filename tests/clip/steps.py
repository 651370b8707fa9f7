"""Parameters with the gradients of a step, and what a step leaves."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def with_gradients(*gradients: Sequence[float] | Tensor | None) -> list[Tensor]:
    """Return one parameter of ones for each gradient; None stays without."""
    parameters = []
    for gradient in gradients:
        given = None if gradient is None else torch.as_tensor(gradient)
        dtype = torch.float32 if given is None else given.dtype
        parameter = nn.Parameter(torch.ones((2,) if given is None else given.shape, dtype=dtype))
        parameter.grad = given
        parameters.append(parameter)
    return parameters


def gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return copies of the gradients that are there."""
    return [p.grad.detach().clone() for p in parameters if p.grad is not None]
