"""Matrices in memory: their singular values, a Jacobian for one sample, its action on a few columns."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unitygain.probe.operators import JacobianOperator

Matrix = NDArray[np.float64]


def singular_values(matrices: Tensor) -> Tensor:
    """Return the singular values, descending, of one or several matrices; NaN if an entry is not finite."""
    if not bool(torch.isfinite(matrices).all()):
        side = min(matrices.shape[-2:])
        return torch.full((*matrices.shape[:-2], side), torch.nan, dtype=torch.float64)
    return torch.linalg.svdvals(matrices)


def factor_of_sample(jacobian: JacobianOperator, sample: int | None) -> Matrix:
    """Return the Jacobian of one sample as a matrix; of the whole batch where `sample` is None.

    Cost: one backward pass per row, batched where the operations allow it.
    """
    if sample is None:
        return jacobian.materialise().numpy()
    rows, columns = jacobian.sample(sample)
    return jacobian.materialise(rows)[:, columns].numpy()


def apply_columns(jacobian: JacobianOperator, *, transposed: bool) -> Callable[[Matrix], Matrix]:
    """Return the map that takes columns through the Jacobian, or through its transpose, one by one."""
    product = jacobian.rmatvec if transposed else jacobian.matvec

    def apply(columns: Matrix) -> Matrix:
        images = [
            product(torch.as_tensor(column.copy(), dtype=jacobian.dtype, device=jacobian.device))
            for column in columns.T
        ]
        return torch.stack(images, dim=1).double().cpu().numpy()

    return apply
