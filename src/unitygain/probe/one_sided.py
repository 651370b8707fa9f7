"""Singular values where only Jᵀ·u can be had: from the whole matrix, or lower bounds."""

import torch

from unitygain.probe.columns import singular_values
from unitygain.probe.operators import JacobianOperator, LinearOperator, generator


def dense_values(jacobian: JacobianOperator, count: int) -> tuple[tuple[float, ...], float]:
    """Return the largest singular values and their error, from all rows: one backward pass each."""
    values = singular_values(jacobian.materialise())
    # Rounding of n products in the operator's dtype moves a singular value by about √n of its eps.
    error = float(values[0]) * torch.finfo(jacobian.dtype).eps * max(jacobian.shape) ** 0.5
    return tuple(values[:count].tolist()), error


def lower_bounds(operator: LinearOperator, count: int, seed: int, directions: int = 8) -> tuple[float, ...]:
    """Return lower bounds of the largest singular values from a few random orthonormal directions.

    The k-th singular value of Jᵀ restricted to a subspace is at most that of Jᵀ (Cauchy's interlacing).
    In n dimensions a random direction sees little of a few large singular values: with `directions` of n
    the bound is near the rms gain rather than the norm.

    Cost: `directions` backward passes.
    """
    source = generator(operator.device, seed)
    width = min(directions, operator.shape[0])
    drawn = torch.randn(
        operator.shape[0], width, generator=source, dtype=operator.dtype, device=operator.device
    )
    units = torch.linalg.qr(drawn).Q
    images = torch.stack([operator.rmatvec(units[:, index].contiguous()) for index in range(width)])
    values = singular_values(images.double())
    return tuple(values[:count].tolist())
