"""The largest singular values of an operator from products A·v and Aᵀ·u, with error bars."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unitygain.probe.operators import LinearOperator, generator
from unitygain.stats import norm

Apply = Callable[[Tensor], Tensor]
# Where each product is dear, at most FEW steps: with 8 probes for the rms gain, the first five singular
# values of all blocks then cost 45 passes through the blocks alone, about 16 passes through the model.
LARGE = 4096
FEW = 18
MANY = 300
DENSE_CHECKS = 20
CHECK_EVERY = 8


@dataclass(frozen=True)
class SingularValues:
    """The largest singular values, descending.

    Args:
        values: Lower estimates of the singular values.
        errors: A singular value lies within this distance of each.
        steps: Steps taken; each is one A·v and one Aᵀ·u.
    """

    values: tuple[float, ...]
    errors: tuple[float, ...]
    steps: int


def golub_kahan(
    operator: LinearOperator, count: int, *, steps: int, tolerance: float = 1e-6, seed: int = 0
) -> SingularValues:
    """Find the `count` largest singular values by bidiagonalisation with full reorthogonalisation.

    With A·V = U·R and Aᵀ·U = V·Rᵀ + β·v·eᵀ, the singular values of the small R are lower estimates, and
    one of A's lies within β·|last entry of R's left singular vector| of each (Weyl). Vectors are
    orthogonalised twice, in the operator's dtype; R is float64. When the space is exhausted it starts
    again at a random vector orthogonal to what was found. A value that A has several times is seen
    once, unless that happens.

    Args:
        operator: The operator; NaN or infinity in a product gives NaN.
        count: How many values; fewer come back where the operator is smaller.
        steps: At most this many steps.
        tolerance: Stop when every error is below this times its value, or at the operator's rounding.
        seed: Seed of the start.

    Returns:
        Values with their errors; never more exact than one rounding of the largest.

    Cost: 2 products per step, and 8·steps·(rows + columns) flops per step.

    Example:
        >>> import torch
        >>> from unitygain.probe.operators import JacobianOperator
        >>> x = torch.ones(3, requires_grad=True)
        >>> found = golub_kahan(JacobianOperator(x * torch.tensor([3.0, 2.0, 1.0]), x), 2, steps=3)
        >>> [round(value, 5) for value in found.values]
        [3.0, 2.0]

    References:
        G. Golub, W. Kahan, "Calculating the singular values and pseudo-inverse of a matrix", SIAM J.
        Numer. Anal. B 2 (1965), section 2. The bound: H. Weyl (1912), applied to the residual.
    """
    rows, columns = operator.shape
    there, back = operator.matvec, operator.rmatvec
    if rows < columns:
        # The side that starts is exhausted last, so start on the smaller one.
        rows, columns, there, back = columns, rows, back, there
    limit = min(steps, columns)
    source = generator(operator.device, seed)
    left, right = (_Basis(limit, size, operator, source) for size in (rows, columns))
    small = np.zeros((limit, limit))
    v = right.draw()
    for step in range(limit):
        beta, remainder = _extend(small, step, v, left, right, there, back)
        if not np.isfinite(small).all() or not np.isfinite(beta):
            return SingularValues((np.nan,) * min(count, columns), (np.nan,) * min(count, columns), step + 1)
        last = step + 1 == limit
        if last or (step + 1 >= count and (step < DENSE_CHECKS or step % CHECK_EVERY == 0)):
            found = _ritz(small[: step + 1, : step + 1], beta, count, operator.dtype)
            if last or good(found, tolerance, operator.dtype):
                return found
        negligible = beta <= torch.finfo(operator.dtype).eps * np.max(np.abs(small))
        v = right.draw() if negligible else remainder / beta
    raise AssertionError("the loop returns at its last step")


def affordable_steps(operator: LinearOperator) -> int:
    """Return how many steps to take at most: few on a large operator, so that the error bar is wider."""
    side = min(operator.shape)
    return FEW if side > LARGE else min(side, MANY)


def _extend(
    small: np.ndarray, step: int, v: Tensor, left: "_Basis", right: "_Basis", there: Apply, back: Apply
) -> tuple[float, Tensor]:
    """Add one column to R; return the length of what lies outside the right basis, and that vector."""
    right.append(v)
    coefficients, remainder = left.split(there(v))
    small[:step, step] = coefficients
    alpha = float(norm(remainder))
    if not np.isfinite(alpha):
        return alpha, remainder
    if alpha > torch.finfo(v.dtype).eps * np.max(np.abs(small)):
        small[step, step] = alpha
        left.append(remainder / alpha)
    else:
        left.append(left.draw())
    _, remainder = right.split(back(left.rows[step]))
    return float(norm(remainder)), remainder


def _ritz(small: np.ndarray, beta: float, count: int, dtype: torch.dtype) -> SingularValues:
    vectors, values, _ = np.linalg.svd(small)
    floor = torch.finfo(dtype).eps * values[0]
    errors = np.maximum(beta * np.abs(vectors[-1]), floor)
    return SingularValues(tuple(values[:count].tolist()), tuple(errors[:count].tolist()), len(small))


def good(found: SingularValues, tolerance: float, dtype: torch.dtype) -> bool:
    """Whether every error is below the tolerance times its value, or at the operator's rounding."""
    floor = torch.finfo(dtype).eps * found.values[0]
    return all(
        error <= max(tolerance * value, floor)
        for value, error in zip(found.values, found.errors, strict=True)
    )


class _Basis:
    """Orthonormal rows, in memory for `limit` of them."""

    def __init__(self, limit: int, size: int, operator: LinearOperator, source: torch.Generator) -> None:
        self.rows = torch.empty(limit, size, dtype=operator.dtype, device=operator.device)
        self._source = source
        self._count = 0

    def split(self, x: Tensor) -> tuple[np.ndarray, Tensor]:
        """Return the coefficients of `x` in the basis and what lies outside (Gram-Schmidt, twice)."""
        basis = self.rows[: self._count]
        first = basis @ x
        x = x - first @ basis
        second = basis @ x
        return (first.double() + second.double()).cpu().numpy(), x - second @ basis

    def append(self, unit: Tensor) -> None:
        """Add a row."""
        self.rows[self._count] = unit
        self._count += 1

    def draw(self) -> Tensor:
        """Return a random unit vector orthogonal to the basis."""
        rows = self.rows
        x = torch.randn(rows.shape[1], generator=self._source, dtype=rows.dtype, device=rows.device)
        for _ in range(2):
            x = self.split(x)[1]
            x = x / norm(x).to(x.dtype)
        return x
